/*
 * hash.c - one number over the state: two machines that saw the same events show the same.
 */
#include "coordinator/core/state.h"

static uint64_t mix(uint64_t h, uint64_t x)
{
    h ^= x;
    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9u;
    return h ^ h >> 32;
}

static uint64_t mix_bytes(uint64_t h, const void *bytes, size_t size)
{
    const uint8_t *p = bytes;
    for (size_t i = 0; i < size; i++)
        h = mix(h, p[i]);
    return mix(h, size);
}

static uint64_t mix_text(uint64_t h, const char *text)
{
    return mix_bytes(h, text, strlen(text));
}

static uint64_t mix_job(uint64_t h, const struct core_job *j)
{
    const uint64_t numbers[] = {
        j->submit_order,    j->submitted_wall_ns, j->deadline_ms,
        j->started_wall_ns, j->ended_wall_ns,     j->lease_epoch,
        j->prompt_computed, j->computed_tokens,   j->text_bytes,
        j->reserve_seq,     j->settle_seq,        j->prompt_bound,
        j->prompt_tokens,   j->max_tokens,        j->tokens,
        j->state,           j->job_class,         j->priority,
        j->finish,          j->error_code,        j->attempts,
        j->deaths,          queue_ahead(j),       j->returns,
    };
    h = mix_bytes(h, j->id.bytes, sizeof j->id.bytes);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        h = mix(h, numbers[i]);
    h = mix_text(h, j->worker);
    h = mix_text(h, j->model->name);
    h = mix_text(h, j->owner->tenant->name);
    for (const struct core_watch *w = j->watches; w != NULL; w = w->next)
        h = mix(mix(h, w->tag), w->first);
    if (j->lease != NULL)
        h = mix(mix(mix(h, j->lease->epoch), j->lease->load_tokens),
                j->lease->usage.completion_tokens);
    return h;
}

static uint64_t mix_worker(uint64_t h, const struct core_worker *w)
{
    h = mix_text(h, w->name);
    h = mix(mix(mix(h, w->state), w->heard_ms), w->lease_tokens);
    h = mix(mix(mix(h, w->heard_held_ms), w->returns), w->back_until_ms);
    h = mix(mix(h, w->metered_ms), w->read_bytes_per_s);
    h = mix(h, w->making_room != NULL ? w->room_bytes : 0);
    h = mix(mix(h, w->session != NULL ? w->session->id : 0), w->memory.free_bytes);
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *m = tree_entry(n, const struct core_hosting, by_worker);
        h = mix_text(h, m->model->name);
        h = mix(mix(mix(h, m->state), m->leases), m->lease_tokens);
        h = mix(h, (uint64_t)m->load_asked << 1 | (uint64_t)m->unload_asked);
        h = mix(mix(h, m->share_bytes), m->gang != NULL ? m->gang->number : 0);
        h = mix(mix(h, m->rank), m->gang != NULL && m->gang->has_met);
    }
    return h;
}

static uint64_t mix_session(uint64_t h, const struct core_session *s)
{
    h = mix(mix(mix(h, s->id), s->role), s->established);
    for (const struct core_command *cmd = s->outbox; cmd != NULL; cmd = cmd->next)
        h = mix(mix(mix(h, cmd->seq), cmd->kind), cmd->epoch);
    return mix(h, s->pull_parked ? s->pull_tag : 0);
}

uint64_t core_state_hash(const struct core *c)
{
    uint64_t h = mix(mix(mix(c->now_ms, c->held_ms), c->ledger_size), c->next_order);
    for (struct tree_node *n = tree_first(&c->jobs); n != NULL; n = tree_above(&c->jobs, n))
        h = mix_job(h, tree_entry(n, const struct core_job, by_id));
    for (struct tree_node *n = tree_first(&c->tenants); n != NULL; n = tree_above(&c->tenants, n)) {
        const struct core_tenant *t = tree_entry(n, const struct core_tenant, node);
        h = mix(mix(mix_text(h, t->name), t->reserved_tokens), t->settled_tokens);
    }
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n)) {
        const struct core_model *m = tree_entry(n, const struct core_model, node);
        h = mix(mix(h, m->gang_after_ms), m->gang_failures);
        h = mix(mix(h, m->nccl_after_ms), m->nccl_failures);
        h = mix(mix(h, m->gang_failed), m->nccl_failed);
        h = mix(mix(mix(h, m->gang_look.room), m->gang_look.next), m->gang_look.at_ms);
    }
    h = mix(mix(h, c->gang_number), c->n_gangs_over);
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n))
        h = mix_worker(h, tree_entry(n, const struct core_worker, node));
    for (struct tree_node *n = tree_first(&c->sessions); n != NULL; n = tree_above(&c->sessions, n))
        h = mix_session(h, tree_entry(n, const struct core_session, node));
    for (struct tree_node *n = tree_first(&c->timers); n != NULL; n = tree_above(&c->timers, n)) {
        const struct core_timer *t = tree_entry(n, const struct core_timer, node);
        h = mix(mix(h, t->at_ms), t->order);
    }
    return mix(h, c->stale_reports);
}
