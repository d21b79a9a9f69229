/*
 * gang_way.c - over what workers can compute a model together: the memory of their host, libucx
 * between hosts, and from GPU to GPU NCCL, which stands on one of these two for all but parts of
 * matrices.
 *
 * NCCL is the fastest where it works, and whether it does is known only once its ranks have met. So
 * where it keeps failing a model's gangs are formed without it for a while, where they can be.
 */
#include "coordinator/core/gang.h"

#define NCCL_FAILURES_MAX 2u /* in a row, before the first token */
#define NCCL_WITHOUT_MS   600000u

bool gang_on_one_host(const struct core_hosting *a, const struct core_hosting *b)
{
    static const uint8_t nowhere[sizeof a->worker->host];
    return memcmp(a->worker->host, nowhere, sizeof nowhere) != 0 &&
           memcmp(a->worker->host, b->worker->host, sizeof nowhere) == 0;
}

bool gang_on_one_gpu(const struct core_hosting *a, const struct core_hosting *b)
{
    return a->worker->gpu.uuid[0] != '\0' && strcmp(a->worker->gpu.uuid, b->worker->gpu.uuid) == 0;
}

static bool has_bit(uint32_t set, enum wire_gang_transport transport)
{
    return (set & 1u << transport) != 0;
}

static bool offers_nccl(const struct core_worker *w)
{
    return has_bit(w->transports, WIRE_GANG_TRANSPORT_NCCL) && w->nccl.version[0] != '\0' &&
           w->gpu.uuid[0] != '\0';
}

static bool offers(const struct core_worker *w, struct gang_way way)
{
    if (way.transport == WIRE_GANG_TRANSPORT_NCCL)
        return offers_nccl(w) && has_bit(w->nccl.controls, way.control);
    return has_bit(w->transports, way.transport);
}

bool gang_way_joins(struct gang_way way, const struct core_hosting *a, const struct core_hosting *b)
{
    const bool is_nccl = way.transport == WIRE_GANG_TRANSPORT_NCCL;
    const enum wire_gang_transport meets_over = is_nccl ? way.control : way.transport;
    if (!offers(a->worker, way) || !offers(b->worker, way) ||
        strcmp(a->offer.gang_settings, b->offer.gang_settings) != 0)
        return false;
    if (is_nccl && strcmp(a->worker->nccl.version, b->worker->nccl.version) != 0)
        return false;
    return meets_over != WIRE_GANG_TRANSPORT_SHM || gang_on_one_host(a, b);
}

uint64_t gang_beside_bytes(struct gang_way way, const struct core_hosting *h, uint32_t shards,
                           uint32_t stages, uint32_t rank)
{
    const uint64_t groups =
        way.transport == WIRE_GANG_TRANSPORT_NCCL ? shard_rank_groups(shards, stages, rank) : 0;
    const uint64_t each = h->worker->nccl.memory_bytes, beside = h->offer.rank_bytes;
    if (groups > 0 && each > (UINT64_MAX - beside) / groups)
        return UINT64_MAX;
    return beside + groups * each;
}

uint64_t gang_beside_bytes_max(const struct core_hosting *h, uint32_t n_ranks, uint32_t rank)
{
    const struct gang_way way = {.transport = offers_nccl(h->worker)
                                                  ? WIRE_GANG_TRANSPORT_NCCL
                                                  : WIRE_GANG_TRANSPORT_UNSPECIFIED};
    uint64_t most = 0;
    for (uint32_t stages = 1; stages <= n_ranks; stages++) {
        const uint64_t bytes =
            n_ranks % stages == 0 ? gang_beside_bytes(way, h, n_ranks / stages, stages, rank) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- where it fails ---- */

bool gang_without_nccl(const struct core *c, const struct core_model *m)
{
    return c->now_ms < m->nccl_after_ms;
}

/* One that was formed before says nothing of what failed since, perhaps on other GPUs. */
void gang_nccl_worked(struct core_gang *g)
{
    struct core_model *m = g->model;
    if (g->way.transport != WIRE_GANG_TRANSPORT_NCCL || g->number <= m->nccl_failed)
        return;
    m->nccl_failures = 0;
    m->nccl_after_ms = 0;
}

void gang_nccl_failed(struct core *c, const struct core_gang *g)
{
    struct core_model *m = g->model;
    if (g->number > m->nccl_failed)
        m->nccl_failed = g->number;
    if (++m->nccl_failures < NCCL_FAILURES_MAX)
        return;
    m->nccl_failures = 0;
    m->nccl_after_ms = c->now_ms + NCCL_WITHOUT_MS;
}

/* ---- what is said of it ---- */

const char *gang_way_name(struct gang_way way)
{
    switch (way.transport) {
    case WIRE_GANG_TRANSPORT_SHM:
        return "shm";
    case WIRE_GANG_TRANSPORT_UCX:
        return "ucx";
    case WIRE_GANG_TRANSPORT_NCCL:
        return "nccl";
    case WIRE_GANG_TRANSPORT_UNSPECIFIED:
        break;
    }
    return "";
}

/* What keeps a gang of these from it; NULL: nothing but room. */
static const char *without_nccl_why(const struct core *c, const struct gang_choice *choice,
                                    struct core_effects *fx)
{
    struct core_hosting *const *rank = choice->rank;
    const struct core_worker *first = rank[0]->worker;
    bool is_here = true;
    if (gang_without_nccl(c, rank[0]->model))
        return effect_printf(fx,
                             "gangs over it ended %u times in a row before a token, and for %u "
                             "minutes from then they are formed without it",
                             NCCL_FAILURES_MAX, NCCL_WITHOUT_MS / 60000u);
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        const struct core_worker *w = rank[r]->worker;
        if (!offers_nccl(w))
            return effect_printf(fx, "%.60s does not offer it", w->name);
        if (strcmp(w->nccl.version, first->nccl.version) != 0)
            return effect_printf(fx, "%.60s has NCCL %.40s, %.60s has %.40s", first->name,
                                 first->nccl.version, w->name, w->nccl.version);
        for (uint32_t q = 0; q < r; q++) {
            if (gang_on_one_gpu(rank[q], rank[r]))
                return effect_printf(fx, "%.60s and %.60s are on one GPU", rank[q]->worker->name,
                                     w->name);
        }
        is_here = is_here && gang_on_one_host(rank[0], rank[r]);
    }
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        const struct gang_way way = {WIRE_GANG_TRANSPORT_NCCL,
                                     is_here ? WIRE_GANG_TRANSPORT_SHM : WIRE_GANG_TRANSPORT_UCX};
        if (!offers(rank[r]->worker, way))
            return effect_printf(fx, "of %.60s it cannot stand on %s", rank[r]->worker->name,
                                 is_here ? "shm" : "ucx");
    }
    return NULL;
}

/* What is kept for each group on the rank that keeps most. */
static uint64_t reserve_max(const struct gang_choice *choice)
{
    uint64_t most = 0;
    for (uint32_t r = 0; r < choice->n_ranks; r++) {
        const uint64_t bytes = choice->rank[r]->worker->nccl.memory_bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

const char *gang_way_why(const struct core *c, const struct gang_choice *choice,
                         struct core_effects *fx)
{
    const struct core_worker *first = choice->rank[0]->worker;
    const double each = (double)reserve_max(choice) / 1e6;
    if (choice->way.transport == WIRE_GANG_TRANSPORT_NCCL)
        return effect_printf(fx,
                             "; nccl: each has a GPU of its own and NCCL %.40s, which stands on "
                             "%s; %.1f MB are kept for each group of ranks",
                             first->nccl.version,
                             choice->way.control == WIRE_GANG_TRANSPORT_SHM ? "shm" : "ucx", each);
    if (first->gpu.uuid[0] == '\0')
        return "";
    const char *why = without_nccl_why(c, choice, fx);
    if (why == NULL)
        why = effect_printf(fx,
                            "with the %.1f MB that it takes of each GPU for each group of "
                            "ranks so few have no room",
                            each);
    return effect_printf(fx, "; not over nccl: %s", why);
}
