/*
 * lease.c - one job on one worker: attempt, epoch, what it still adds to the worker's load, and
 * its way back into the queue when the worker is gone.
 */
#include "coordinator/core/state.h"

#include <stdio.h>

static void load_change(struct core_lease *l, uint64_t load)
{
    l->worker->lease_tokens = l->worker->lease_tokens - l->load_tokens + load;
    if (l->hosting != NULL)
        l->hosting->lease_tokens = l->hosting->lease_tokens - l->load_tokens + load;
    l->load_tokens = load;
}

struct core_lease *lease_new(struct core *c, struct core_job *j, struct core_worker *w,
                             struct core_hosting *h)
{
    CHECK(j->lease == NULL);
    struct core_lease *l = core_alloc(sizeof *l);
    l->job = j;
    l->worker = w;
    l->epoch = j->lease_epoch;
    l->moved_ms = c->now_ms;
    lease_heard(c, l);
    tree_insert(&w->leases, &l->node);
    j->lease = l;
    j->model->leased++;
    load_change(l, job_load_tokens(j));
    if (h != NULL)
        lease_bind(c, l, h);
    return l;
}

void lease_bind(struct core *c, struct core_lease *l, struct core_hosting *h)
{
    CHECK(l->hosting == NULL && h->worker == l->worker && h->model == l->job->model);
    (void)c;
    l->hosting = h;
    h->leases++;
    h->lease_tokens += l->load_tokens;
}

void lease_reload(struct core *c, struct core_lease *l)
{
    const struct core_job *j = l->job;
    (void)c;
    /* Once there are tokens the prompt lies behind it. */
    load_change(l, l->usage.completion_tokens > 0 ? (uint64_t)(j->max_tokens - j->tokens)
                                                  : job_load_tokens(j));
}

void lease_end(struct core *c, struct core_lease *l)
{
    struct core_job *j = l->job;
    load_change(l, 0);
    if (l->hosting != NULL) {
        CHECK(l->hosting->leases > 0);
        l->hosting->leases--;
        l->hosting->used_ms = c->now_ms;
    }
    j->prompt_computed += l->usage.prompt_computed;
    j->computed_tokens += l->usage.completion_tokens;
    j->queue_us += l->usage.queue_us;
    j->prefill_us += l->usage.prefill_us;
    j->decode_us += l->usage.decode_us;
    j->model->leased--;
    j->lease = NULL;
    tree_remove(&l->worker->leases, &l->node);
    workers_touch_models(c, l->worker);
    model_touch(c, j->model); /* its worker may not have come back with it */
    free(l);
}

void lease_stop(struct core *c, struct core_lease *l)
{
    if (l->worker->session == NULL)
        return;
    struct core_command *cmd = session_command(c, l->worker->session, WIRE_COMMAND_CANCEL);
    cmd->job_id = l->job->id;
    cmd->epoch = l->epoch;
}

void lease_heard(const struct core *c, struct core_lease *l)
{
    l->heard_ms = c->now_ms;
    l->heard_held_ms = c->held_ms;
}

uint64_t lease_silent_ms(const struct core *c, const struct core_lease *l)
{
    return c->now_ms - l->heard_ms - (c->held_ms - l->heard_held_ms);
}

bool lease_was_held_up(const struct core *c, const struct core_lease *l)
{
    return c->held_ms - l->heard_held_ms > c->config->lease_ms / 4;
}

/* A run that the worker never took cannot have ended it. One that ends it at once does so before
 * its next message could show that it was taken; but then the reply that handed it out may be what
 * was lost. It counts as given back: it is no worker's death that we know of, nor tried for ever.
 */
enum lease_fault lease_fault_of_death(const struct core_lease *l)
{
    if (l->job->state == WIRE_JOB_STATE_RUNNING)
        return LEASE_FAULT_DEATH;
    return l->handed ? LEASE_FAULT_RETURN : LEASE_FAULT_NONE;
}

static bool fault_counts(const struct core_worker *w, enum lease_fault fault)
{
    return fault == LEASE_FAULT_RETURN || (fault == LEASE_FAULT_FULL && w->returns > 1);
}

void lease_requeue(struct core *c, struct core_lease *l, enum lease_fault fault, const char *why,
                   struct core_effects *fx)
{
    struct core_job *j = l->job;
    struct core_worker *w = l->worker;
    lease_end(c, l);
    if (fault == LEASE_FAULT_RETURN || fault == LEASE_FAULT_FULL)
        worker_gave_back(c, w);
    if (fault_counts(w, fault) && ++j->returns >= CORE_RETURNS_MAX) {
        const char *text =
            effect_printf(fx, "given back %u times without a token, the last time by %s: %s",
                          (unsigned)j->returns, w->name, why);
        job_end(c, j, WIRE_JOB_STATE_FAILED, WIRE_FINISH_ERROR, ERR_UNAVAILABLE, text, fx);
        return;
    }
    if (fault == LEASE_FAULT_DEATH)
        j->deaths++;
    if (j->deaths >= LIMIT_ATTEMPTS) {
        const char *text =
            effect_printf(fx, "quarantined: it ended %u workers or engines, the last one %s: %s",
                          (unsigned)j->deaths, j->worker, why);
        job_end(c, j, WIRE_JOB_STATE_FAILED, WIRE_FINISH_ERROR, ERR_INTERNAL, text, fx);
        return;
    }
    /* All tokens were delivered and only the last word was lost: nothing is left to compute. */
    if (j->tokens >= j->max_tokens) {
        if (j->state == WIRE_JOB_STATE_LEASED)
            job_move(c, j, WIRE_JOB_STATE_RUNNING);
        job_end(c, j, WIRE_JOB_STATE_DONE, WIRE_FINISH_LENGTH, ERR_OK, NULL, fx);
        return;
    }
    job_move(c, j, WIRE_JOB_STATE_QUEUED);
}
