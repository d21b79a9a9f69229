/*
 * status.c - is the cluster well? Health is the age of the oldest thing that should have moved,
 * not that the process answers.
 */
#include "coordinator/core/state.h"

#define REASONS_MAX 8u

struct health {
    const char *reasons[REASONS_MAX];
    size_t n_reasons;
};

static void health_add(struct health *h, const char *reason)
{
    if (h->n_reasons < REASONS_MAX)
        h->reasons[h->n_reasons++] = reason;
}

/* The lease that has not brought a token for the longest time. */
static const struct core_lease *lease_idlest(const struct core *c)
{
    const struct core_lease *idlest = NULL;
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        const struct core_worker *w = tree_entry(n, const struct core_worker, node);
        for (struct tree_node *k = tree_first(&w->leases); k != NULL;
             k = tree_above(&w->leases, k)) {
            const struct core_lease *l = tree_entry(k, const struct core_lease, node);
            if (idlest == NULL || l->moved_ms < idlest->moved_ms)
                idlest = l;
        }
    }
    return idlest;
}

static uint64_t queues_oldest_ms(const struct core *c)
{
    uint64_t oldest_ms = 0;
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n)) {
        uint64_t age_ms = queue_oldest_ms(c, tree_entry(n, const struct core_model, node));
        oldest_ms = age_ms > oldest_ms ? age_ms : oldest_ms;
    }
    return oldest_ms;
}

static void workers_count(const struct core *c, uint32_t *ret_alive, struct health *health,
                          struct core_effects *fx)
{
    uint32_t alive = 0, suspect = 0;
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        const struct core_worker *w = tree_entry(n, const struct core_worker, node);
        alive += w->state == WIRE_WORKER_STATE_ALIVE;
        suspect += w->state == WIRE_WORKER_STATE_SUSPECT;
    }
    if (suspect > 0)
        health_add(health,
                   effect_printf(fx, "%u workers are silent and hold leases or may", suspect));
    if (alive == 0 && c->count[WIRE_JOB_STATE_QUEUED] > 0)
        health_add(health, "jobs wait and no worker is connected");
    *ret_alive = alive;
}

void status_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    struct core_effect *e = reply_to(fx, event);
    struct wire_status_reply *r = &e->reply.reply.status;
    struct health health = {.n_reasons = 0};
    const struct core_lease *idlest = lease_idlest(c);
    uint64_t stall_ms = c->config->stall_ms;

    e->reply.fill = CORE_FILL_STATUS;
    e->reply.promises_nothing = true;
    *r = (struct wire_status_reply){
        .coordinator = c->config->node,
        .build = c->config->build,
        .uptime_ms = c->now_ms - c->started_ms,
        .queued = c->count[WIRE_JOB_STATE_QUEUED],
        .leased = c->count[WIRE_JOB_STATE_LEASED],
        .running = c->count[WIRE_JOB_STATE_RUNNING],
        .ended = tree_count(&c->ended),
        .queued_tokens = c->queued_tokens,
        .workers_known = tree_count(&c->workers),
        .oldest_queued_ms = queues_oldest_ms(c),
        .oldest_running_idle_ms = idlest != NULL ? c->now_ms - idlest->moved_ms : 0,
        .admission_open = !c->frozen && !c->stopping,
        .parked = c->n_parked,
        .stale_reports = c->stale_reports,
    };
    if (c->frozen)
        health_add(&health, effect_printf(fx, "nothing can be stored: %s", c->frozen_text));
    if (c->stopping)
        health_add(&health, "shutting down");
    workers_count(c, &r->workers_alive, &health, fx);
    if (r->oldest_queued_ms > stall_ms)
        health_add(&health, effect_printf(fx, "the oldest job has waited for %llu s",
                                          (unsigned long long)(r->oldest_queued_ms / 1000)));
    if (r->oldest_running_idle_ms > stall_ms)
        health_add(&health, effect_printf(fx, "a job on worker %s has brought no token for %llu s",
                                          idlest->worker->name,
                                          (unsigned long long)(r->oldest_running_idle_ms / 1000)));
    const char **reasons = effect_alloc(fx, REASONS_MAX, sizeof *reasons);
    memcpy(reasons, health.reasons, sizeof health.reasons);
    r->reasons = reasons;
    r->n_reasons = health.n_reasons;
    r->healthy = health.n_reasons == 0;
}
