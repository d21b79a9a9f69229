/*
 * report.c - what a worker has done: tokens in unbroken order, usage so far, how it ended. What
 * comes twice is taken once; what comes from a lease that is over is fenced and counted.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#define BUSY_WAIT_MS   1000u
#define ATTEMPT_US_MAX (LIMIT_DEADLINE_MS * 1000u) /* no attempt takes longer */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Numbers that no attempt at this job can come to. Stored, they would make a ledger that does not
 * verify, or records that cannot be written at all. NULL: it is possible. */
static const char *usage_fault(const struct core_job *j, const struct wire_work_usage *u)
{
    if (u->prompt_cached > u->prompt_tokens)
        return "it counted more cached prompt tokens than prompt tokens";
    if (u->prompt_computed > j->prompt_bound)
        return "it counted more prompt tokens computed than the prompt can have";
    if (u->completion_tokens > j->max_tokens || u->resumed_tokens > j->max_tokens)
        return "it counted more tokens than were asked for";
    if (u->queue_us > ATTEMPT_US_MAX || u->prefill_us > ATTEMPT_US_MAX ||
        u->decode_us > ATTEMPT_US_MAX)
        return "it counted more time than an attempt can take";
    return NULL;
}

/* Usage of the attempt only grows. Resumed tokens are replayed through the model: they count as
 * prompt work of this attempt, not as tokens that it made. */
static void usage_take(struct core_lease *l, const struct wire_work_usage *u)
{
    struct core_job *j = l->job;
    struct wire_work_usage *have = &l->usage;
    uint32_t made =
        u->completion_tokens > u->resumed_tokens ? u->completion_tokens - u->resumed_tokens : 0;

    have->prompt_computed =
        (uint32_t)larger(have->prompt_computed, (uint64_t)u->prompt_computed + u->resumed_tokens);
    have->resumed_tokens = (uint32_t)larger(have->resumed_tokens, u->resumed_tokens);
    have->completion_tokens = (uint32_t)larger(have->completion_tokens, made);
    have->queue_us = larger(have->queue_us, u->queue_us);
    have->prefill_us = larger(have->prefill_us, u->prefill_us);
    have->decode_us = larger(have->decode_us, u->decode_us);
    /* The prompt is what its first count said: every attempt has the same. */
    if (j->tokens == 0 && u->prompt_tokens > 0) {
        j->prompt_tokens = u->prompt_tokens;
        j->prompt_cached = u->prompt_cached;
    }
}

static void tokens_take(struct core *c, struct core_lease *l, const struct wire_lease_progress *p,
                        struct core_effects *fx)
{
    struct core_job *j = l->job;
    struct core_effect *e = effect_add(fx, CORE_EFFECT_PUT_CHUNK);
    e->job_id = j->id;
    e->chunk.first = j->tokens;
    e->chunk.record = (struct record_chunk){.ids = p->ids,
                                            .n_ids = p->n_ids,
                                            .text = p->text.data,
                                            .text_size = p->text.size,
                                            .text_sizes = p->text_sizes,
                                            .n_text_sizes = p->n_text_sizes,
                                            .logprobs = p->logprobs,
                                            .n_logprobs = p->n_logprobs};
    j->tokens += (uint32_t)p->n_ids;
    j->text_bytes += p->text.size;
    l->moved_ms = c->now_ms;
    l->worker->tokens += p->n_ids;
    l->worker->returns = 0;
    j->returns = 0;
    if (l->hosting != NULL && l->hosting->gang != NULL)
        gang_token(l->hosting->gang);
    job_touch(c, j, CORE_JOB_DIRTY | CORE_JOB_NEWS);
}

/* The engine could not do it. Whether another one can decides what becomes of the job. */
static void error_take(struct core *c, struct core_lease *l, const struct wire_error *error,
                       struct core_effects *fx)
{
    struct core_job *j = l->job;
    enum err code = (enum err)error->code;
    const char *text = effect_printf(fx, "worker %s: %s", l->worker->name,
                                     error->text[0] != '\0' ? error->text : err_name(code));
    switch (code) {
    case ERR_INVALID:
    case ERR_TOO_LARGE:
    case ERR_UNSUPPORTED:
    case ERR_REFUSED:
        job_end(c, j, j->tokens == 0 ? WIRE_JOB_STATE_REJECTED : WIRE_JOB_STATE_FAILED,
                WIRE_FINISH_ERROR, code, text, fx);
        break;
    case ERR_BUSY:
    case ERR_UNAVAILABLE:
    case ERR_CANCELLED:
        if (l->hosting != NULL)
            l->hosting->busy_until_ms = c->now_ms + BUSY_WAIT_MS;
        lease_requeue(c, l, code == ERR_BUSY ? LEASE_FAULT_FULL : LEASE_FAULT_RETURN, text, fx);
        break;
    default:
        lease_requeue(c, l, LEASE_FAULT_DEATH, text, fx);
        break;
    }
}

static void finish_take(struct core *c, struct core_lease *l, const struct wire_lease_progress *p,
                        struct core_effects *fx)
{
    switch (p->finish) {
    case WIRE_FINISH_UNSPECIFIED:
        break;
    case WIRE_FINISH_STOP:
    case WIRE_FINISH_LENGTH:
        job_end(c, l->job, WIRE_JOB_STATE_DONE, p->finish, ERR_OK, NULL, fx);
        break;
    case WIRE_FINISH_CANCELLED: /* not by us, or the lease would be over */
        if (l->hosting != NULL)
            l->hosting->busy_until_ms = c->now_ms + BUSY_WAIT_MS;
        lease_requeue(c, l, LEASE_FAULT_RETURN, "the worker gave it back", fx);
        break;
    case WIRE_FINISH_ERROR:
        error_take(c, l, &p->error, fx);
        break;
    }
}

static void progress_step(struct core *c, struct core_session *s,
                          const struct wire_lease_progress *p, struct wire_lease_ack *ack,
                          struct core_effects *fx)
{
    struct core_job *j = job_find(c, &p->job_id);
    struct core_lease *l = j != NULL ? j->lease : NULL;
    *ack = (struct wire_lease_ack){.job_id = p->job_id, .epoch = p->epoch};

    if (l == NULL || l->epoch != p->epoch || l->worker != s->worker) {
        ack->fenced = true;
        /* A last report that is said again because our answer was lost is no surprise. */
        bool again = j != NULL && j->state == WIRE_JOB_STATE_DONE && j->lease_epoch == p->epoch;
        c->stale_reports += again ? 0 : 1;
        return;
    }
    lease_heard(c, l);
    if (j->state == WIRE_JOB_STATE_LEASED)
        job_move(c, j, WIRE_JOB_STATE_RUNNING);
    if (p->usage.prompt_tokens > j->prompt_bound) {
        const char *text = effect_printf(
            fx, "worker %s counted %u prompt tokens, more than the %u reserved for it",
            l->worker->name, p->usage.prompt_tokens, j->prompt_bound);
        ack->fenced = true;
        job_end(c, j, WIRE_JOB_STATE_FAILED, WIRE_FINISH_ERROR, ERR_INTERNAL, text, fx);
        return;
    }
    const char *fault = usage_fault(j, &p->usage);
    if (fault != NULL) {
        ack->fenced = true;
        lease_requeue(c, l, LEASE_FAULT_DEATH, fault, fx);
        return;
    }
    usage_take(l, &p->usage);

    uint64_t end = (uint64_t)p->first + p->n_ids;
    /* Text behind the last token exists only where the job ends with it. */
    bool has_end = p->finish == WIRE_FINISH_STOP || p->finish == WIRE_FINISH_LENGTH;
    bool has_new = p->first == j->tokens && (p->n_ids > 0 || (p->text.size > 0 && has_end));
    if (p->first == j->tokens && (end > j->max_tokens || (p->n_ids == 0 && p->text.size > 0 &&
                                                          p->finish == WIRE_FINISH_UNSPECIFIED))) {
        ack->fenced = true;
        lease_requeue(c, l, LEASE_FAULT_DEATH,
                      end > j->max_tokens ? "it sent more tokens than were asked for"
                                          : "it sent text without tokens",
                      fx);
        return;
    }
    if (has_new)
        tokens_take(c, l, p, fx);
    /* The worker cannot have made less than we have from it. */
    if (j->computed_tokens + l->usage.completion_tokens < j->tokens)
        l->usage.completion_tokens = (uint32_t)(j->tokens - j->computed_tokens);
    ack->next = j->tokens;
    job_touch(c, j, CORE_JOB_DIRTY);
    lease_reload(c, l);
    /* An end that stands behind a gap is heard when the gap is filled. */
    if (end == j->tokens)
        finish_take(c, l, p, fx);
}

/* A worker speaks of all its leases at every heartbeat. One that it does not mention for a whole
 * lease time it does not have, though it is alive. */
static void leases_forgotten(struct core *c, struct core_worker *w, struct core_effects *fx)
{
    for (struct tree_node *n = tree_first(&w->leases), *next; n != NULL; n = next) {
        struct core_lease *l = tree_entry(n, struct core_lease, node);
        next = tree_above(&w->leases, n);
        if (lease_silent_ms(c, l) < c->config->lease_ms)
            continue;
        lease_stop(c, l);
        lease_requeue(c, l, LEASE_FAULT_RETURN, "it did not mention the job any more", fx);
    }
}

void report_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx)
{
    const struct wire_report *report = &event->request->report;
    if (c->frozen) {
        reply_error(fx, event, c->frozen_code, 1000, "%s", c->frozen_text);
        return;
    }
    worker_memory(s->worker, &report->memory);
    worker_gpus(c, s->worker, report->gpus, report->n_gpus);
    ledger_meter(c, s->worker, fx);
    struct wire_lease_ack *acks = effect_alloc(fx, report->n_leases, sizeof(struct wire_lease_ack));
    for (size_t i = 0; i < report->n_leases; i++)
        progress_step(c, s, &report->leases[i], &acks[i], fx);
    /* Behind the leases: what a gang's last tokens were is not lost with it. */
    for (size_t i = 0; i < report->n_models; i++)
        hosting_status(c, s->worker, &report->models[i], fx);
    for (size_t i = 0; i < report->n_addresses; i++)
        gang_address(c, s->worker, &report->addresses[i]);
    leases_forgotten(c, s->worker, fx);
    struct core_effect *e = reply_to(fx, event);
    e->reply.reply.report =
        (struct wire_report_reply){.leases = acks, .n_leases = report->n_leases};
}
