/*
 * restore.c - the state again from what was stored. Sessions, polls and decisions are not: those
 * who had them come back by themselves. A lease that was out stays out for grace_ms, so that its
 * worker can come back and go on.
 */
#include "coordinator/core/state.h"

#include <stdio.h>

static void lease_restore(struct core *c, struct core_job *j, const struct record_job *r)
{
    struct core_worker *w = worker_get(c, r->worker);
    w->awaited = true;
    struct core_lease *l = lease_new(c, j, w, NULL);
    l->usage = (struct wire_work_usage){
        .prompt_computed = (uint32_t)r->attempt_prompt_computed,
        .completion_tokens = (uint32_t)r->attempt_computed_tokens,
        .queue_us = r->attempt_queue_us,
        .prefill_us = r->attempt_prefill_us,
        .decode_us = r->attempt_decode_us,
    };
    j->prompt_computed -= r->attempt_prompt_computed;
    j->computed_tokens -= r->attempt_computed_tokens;
    j->queue_us -= r->attempt_queue_us;
    j->prefill_us -= r->attempt_prefill_us;
    j->decode_us -= r->attempt_decode_us;
    lease_reload(c, l);
}

static enum err record_check(const struct core *c, const struct record_job *r, struct errbuf *eb)
{
    char id[ID_TEXT_BYTES];
    bool leased = r->state == WIRE_JOB_STATE_LEASED || r->state == WIRE_JOB_STATE_RUNNING;
    const char *fault = NULL;

    if (r->state < WIRE_JOB_STATE_QUEUED || r->state > WIRE_JOB_STATE_EXPIRED)
        fault = "its state is none";
    else if (job_find(c, &r->job_id) != NULL)
        fault = "it is stored twice";
    else if (leased && r->worker[0] == '\0')
        fault = "it is leased to no worker";
    else if (r->tokens > r->max_tokens)
        fault = "it has more tokens than were asked for";
    else if (r->reserve_seq == 0 || (r->state >= WIRE_JOB_STATE_DONE) != (r->settle_seq != 0))
        fault = "its ledger records do not fit its state";
    else if (r->prompt_tokens_bound + r->max_tokens != r->reserved_tokens)
        fault = "its reservation is not prompt bound and max_tokens";
    else if (r->attempt_prompt_computed > r->prompt_computed ||
             r->attempt_computed_tokens > r->computed_tokens || r->attempt_queue_us > r->queue_us ||
             r->attempt_prefill_us > r->prefill_us || r->attempt_decode_us > r->decode_us)
        fault = "its present attempt used more than all of them";
    if (fault == NULL)
        return ERR_OK;
    id_format(&r->job_id, id);
    return err_set(eb, ERR_CORRUPT, "stored job %s: %s", id, fault);
}

enum err core_restore_job(struct core *c, const struct record_job *r, struct errbuf *eb)
{
    enum err err = record_check(c, r, eb);
    if (err != ERR_OK)
        return err;
    struct core_tenant *t = tenant_get(c, r->tenant);
    struct core_owner owner = {.tenant = t,
                               .principal = r->principal,
                               .project = r->project,
                               .cost_center = r->cost_center};
    memcpy(owner.key_fingerprint, r->key_fingerprint, sizeof owner.key_fingerprint);

    struct core_job *j = job_new(c, &r->job_id, owner_hold(c, &owner));
    memcpy(j->content_digest, r->content_digest, sizeof j->content_digest);
    j->model = model_get(c, r->model);
    j->model->jobs++;
    j->worker = name_intern(c, r->worker);
    j->submit_order = r->submit_order;
    j->submitted_wall_ns = r->submitted_wall_ns;
    j->deadline_wall_ns = r->deadline_wall_ns;
    j->started_wall_ns = r->started_wall_ns;
    j->ended_wall_ns = r->ended_wall_ns;
    j->lease_epoch = r->lease_epoch;
    j->prompt_computed = r->prompt_computed;
    j->computed_tokens = r->computed_tokens;
    j->queue_us = r->queue_us;
    j->prefill_us = r->prefill_us;
    j->decode_us = r->decode_us;
    j->text_bytes = r->text_bytes;
    j->reserve_seq = r->reserve_seq;
    j->settle_seq = r->settle_seq;
    j->prompt_bound = (uint32_t)r->prompt_tokens_bound;
    j->prompt_tokens = r->prompt_tokens;
    j->prompt_cached = r->prompt_cached;
    j->max_tokens = r->max_tokens;
    j->tokens = r->tokens;
    j->state = (uint8_t)r->state;
    j->job_class = (uint8_t)r->job_class;
    j->priority = (uint8_t)r->priority;
    j->finish = (uint8_t)r->finish;
    j->attempts = (uint8_t)r->attempts;
    j->deaths = (uint8_t)r->deaths;
    j->flags = r->cancel_on_disconnect ? CORE_JOB_CANCEL_ON_DISCONNECT : 0;
    job_set_error(j, (enum err)r->error_code, r->error_text);
    c->count[j->state]++;
    if (j->submit_order >= c->next_order)
        c->next_order = j->submit_order + 1;
    if (j->state == WIRE_JOB_STATE_LEASED || j->state == WIRE_JOB_STATE_RUNNING)
        lease_restore(c, j, r);
    return ERR_OK;
}

enum err core_restore_usage(struct core *c, const struct record_usage *r, struct errbuf *eb)
{
    (void)eb;
    struct core_usage *u = usage_get(c, r->tenant, r->model, r->day);
    const char *tenant = u->tenant, *model = u->model;
    u->row = *r;
    u->row.tenant = tenant;
    u->row.model = model;
    return ERR_OK;
}

enum err core_restore_balance(struct core *c, const struct record_balance *r, struct errbuf *eb)
{
    (void)eb;
    struct core_tenant *t = tenant_get(c, r->tenant);
    t->reserved_tokens = r->reserved_tokens;
    t->settled_tokens = r->settled_tokens;
    return ERR_OK;
}

enum err core_restore_learned(struct core *c, const struct record_learned *r, struct errbuf *eb)
{
    (void)eb;
    struct core_model *m = model_get(c, r->model);
    m->learned = *r;
    m->learned.model = m->name;
    m->learned.architecture = name_intern(c, r->architecture);
    m->learned.quantization = name_intern(c, r->quantization);
    m->learned.chat_template = name_intern(c, r->chat_template);
    m->known = true;
    return ERR_OK;
}

/* Wall-clock moments become monotonic ones. How long the job may still take was decided when it
 * came: a wall clock that was set back meanwhile does not give it more. */
static void times_restore(struct core *c, struct core_job *j)
{
    uint64_t age_ms =
        c->wall_ns > j->submitted_wall_ns ? (c->wall_ns - j->submitted_wall_ns) / 1000000u : 0;
    j->submitted_ms = c->now_ms > age_ms ? c->now_ms - age_ms : 0;
    j->watched_ms = c->now_ms;
    if (j->deadline_wall_ns != 0) {
        uint64_t whole_ms = j->deadline_wall_ns > j->submitted_wall_ns
                                ? (j->deadline_wall_ns - j->submitted_wall_ns) / 1000000u
                                : 0;
        j->deadline_ms = c->now_ms + (whole_ms > age_ms ? whole_ms - age_ms : 0);
    }
}

static enum err balances_check(const struct core *c, struct errbuf *eb)
{
    enum err err = ERR_OK;
    struct core_tenant *sums = core_alloc((tree_count(&c->tenants) + 1) * sizeof *sums);
    size_t n = 0;
    for (struct tree_node *t = tree_first(&c->tenants); t != NULL; t = tree_above(&c->tenants, t))
        sums[n++].name = tree_entry(t, const struct core_tenant, node)->name;
    for (struct tree_node *t = tree_first(&c->jobs); t != NULL; t = tree_above(&c->jobs, t)) {
        const struct core_job *j = tree_entry(t, const struct core_job, by_id);
        if (!job_is_ended(j))
            sums[tree_rank(&c->tenants, &j->owner->tenant->node)].reserved_tokens +=
                job_reserved_tokens(j);
    }
    n = 0;
    for (struct tree_node *t = tree_first(&c->tenants); t != NULL && err == ERR_OK;
         t = tree_above(&c->tenants, t), n++) {
        const struct core_tenant *tenant = tree_entry(t, const struct core_tenant, node);
        if (tenant->reserved_tokens != sums[n].reserved_tokens)
            err = err_set(eb, ERR_CORRUPT,
                          "stored balance of tenant %s: %llu tokens are reserved, but its "
                          "unfinished jobs reserve %llu",
                          tenant->name, (unsigned long long)tenant->reserved_tokens,
                          (unsigned long long)sums[n].reserved_tokens);
    }
    free(sums);
    return err;
}

enum err core_restore_end(struct core *c, uint64_t mono_ns, uint64_t wall_ns, uint64_t boot_epoch,
                          uint64_t ledger_size, struct errbuf *eb)
{
    c->mono_ns = mono_ns;
    c->now_ms = mono_ns / 1000000u;
    c->wall_ns = wall_ns;
    c->started_ms = c->heard_ms = c->rate_window_ms = c->now_ms;
    c->boot_epoch = boot_epoch;
    c->ledger_size = ledger_size;

    for (struct tree_node *n = tree_first(&c->jobs); n != NULL; n = tree_above(&c->jobs, n)) {
        struct core_job *j = tree_entry(n, struct core_job, by_id);
        if (job_is_ended(j)) {
            j->ended_ms = c->now_ms;
            tree_insert(&c->ended, &j->by_order);
            continue;
        }
        times_restore(c, j);
        if (j->state == WIRE_JOB_STATE_QUEUED)
            queue_insert(c, j);
        else
            j->lease->moved_ms = j->lease->heard_ms = c->now_ms; /* held_ms is 0 */
        job_timer_set(c, j);
    }
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        struct core_worker *w = tree_entry(n, struct core_worker, node);
        w->state = WIRE_WORKER_STATE_SUSPECT;
        w->heard_ms = c->now_ms;
        timer_set(c, &w->timer, CORE_TIMER_WORKER, c->now_ms + c->config->grace_ms);
    }
    return balances_check(c, eb);
}
