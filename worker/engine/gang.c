/* A gang's beginning and end, and what it holds. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"
#include "common/crypto.h"

#include <stdlib.h>
#include <string.h>

#define DECLINE_NS 1000000000u

/* ---- opening ------------------------------------------------------------------------------ */

static void cut_set(struct gang_cut *ret, const struct gang *g, const struct shard_plan *plan,
                    uint32_t layer, enum gang_matrix which)
{
    const struct shard_rank_cut *shards = &plan->cut->rank[g->stage * g->n_shards];
    struct sum_node nodes[SUM_GROUPS_MAX];
    uint32_t groups = 1;

    *ret = (struct gang_cut){0};
    for (uint32_t k = 0; k < g->n_shards; k++) {
        const struct shard_sums sums = shard_sums(plan, &shards[k], layer);
        const struct sum_cut cut = which == GANG_MATRIX_ATTENTION ? sums.attention : sums.ffn;
        groups = cut.groups;
        ret->nodes[k] = cut.first < cut.end ? sum_nodes(&cut, nodes + ret->n_parts) : 0;
        ret->n_parts += ret->nodes[k];
    }
    ret->n_joins = sum_joins(nodes, ret->n_parts, groups, ret->joins);
    ret->rows_least = gang_rows_least(ret->nodes, g->n_shards, g->n_embd);
}

/* Model, shares and settings: what differs here would differ in the logits, or in what fits. */
static void agreement_digest(const struct shard_plan *plan, const struct gang_limits *l,
                             uint8_t ret_digest[COLL_PLAN_BYTES])
{
    const uint32_t words[] = {l->context_tokens, l->kv_type,        l->rows,    l->logits_rows,
                              l->sequences,      l->sequence_pages, l->kv_pages};
    uint8_t bytes[sizeof plan->cut->digest + sizeof l->model + sizeof words];

    _Static_assert(COLL_PLAN_BYTES == SHA256_BYTES, "one digest");
    memcpy(bytes, plan->cut->digest, sizeof plan->cut->digest);
    memcpy(bytes + sizeof plan->cut->digest, l->model, sizeof l->model);
    memcpy(bytes + sizeof plan->cut->digest + sizeof l->model, words, sizeof words);
    sha256(bytes, sizeof bytes, ret_digest);
}

enum err gang_config_check(const struct gang_config *config, struct errbuf *eb)
{
    if (config->wait_ms < GANG_WAIT_MS_MIN)
        return err_set(eb, ERR_INVALID,
                       "ranks that wait %u ms for each other in a step; at least %u",
                       config->wait_ms, GANG_WAIT_MS_MIN);
    if (config->load_ms < config->wait_ms || config->meet_ms == 0)
        return err_set(eb, ERR_INVALID,
                       "ranks that wait %u ms to meet, %u ms to load and %u ms in a step",
                       config->meet_ms, config->load_ms, config->wait_ms);
    return ERR_OK;
}

/* Of what goes over the control of a gang of GPUs. */
static size_t control_bytes(const struct gang_limits *l)
{
    return gang_told_bytes(l) + (size_t)COLL_RANKS_MAX * COLL_ALIGN;
}

static enum err open_stream(struct gang *g, struct errbuf *eb)
{
    const struct backend_ops *ops = g->backend->ops;

    if (ops->stream == NULL)
        return err_set(eb, ERR_UNSUPPORTED,
                       "nccl moves bytes between GPUs, and the %s backend has none", ops->name);
    return ops->stream(g->backend, &g->stream, eb);
}

static enum err gang_meet(struct gang *g, const struct gang_config *config,
                          const struct shard_plan *plan, const atomic_bool *stop, struct errbuf *eb)
{
    const uint64_t deadline_ns = gang_deadline((uint64_t)config->meet_ms * 1000000u);
    struct coll_config coll = config->coll;
    size_t bytes[GANG_COLLS];

    gang_coll_bytes(&g->limits, plan->cut, g->rank, bytes);
    agreement_digest(plan, &g->limits, coll.plan);
    coll.bytes_max = bytes[GANG_COLL_ALL];
    coll.stop = stop;
    if (coll.transport == COLL_TRANSPORT_NCCL) {
        enum err no_stream = open_stream(g, eb);
        if (no_stream != ERR_OK) {
            gang_decline(config, stop, ERR_UNAVAILABLE, eb->text); /* the others lack nothing */
            return no_stream;
        }
        coll.device = &g->stream;
        coll.control_bytes = control_bytes(&g->limits);
    }
    enum err e = coll_open(&g->coll[GANG_COLL_ALL], &coll, deadline_ns, eb);
    return e == ERR_OK ? gang_stages_meet(g, bytes, deadline_ns, eb) : e;
}

static enum err open_exchange(struct gang *g, struct errbuf *eb)
{
    enum err e = ERR_OK;

    for (uint32_t i = 0; e == ERR_OK && i < GANG_COLLS; i++) {
        void *halves[2];
        if (g->coll[i] == NULL || coll_is_on_device(g->coll[i]))
            continue;
        const size_t bytes = coll_halves(g->coll[i], halves);
        e = g->backend->ops->exchange_open(g->backend, halves, bytes, &g->exchange[i], eb);
    }
    if (e != ERR_OK)
        gang_abort(g, eb->text);
    return e;
}

/* NULL when memory is refused. */
static void *take(struct gang *g, size_t count, size_t size)
{
    g->held_bytes += count * size;
    return calloc(count, size);
}

struct gang_carrier gang_carrier_of(const struct gang_config *config)
{
    if (config == NULL)
        return (struct gang_carrier){.transport = COLL_TRANSPORT_SHM};
    return (struct gang_carrier){config->coll.transport, config->coll.control, config->nccl_bytes};
}

static uint64_t colls_memory(const struct gang_limits *l, const struct shard_cut *cut,
                             uint32_t rank, const struct gang_carrier *by)
{
    const uint64_t beside = by->transport == COLL_TRANSPORT_NCCL
                                ? coll_memory(by->control, control_bytes(l)) + by->nccl_bytes
                                : 0;
    size_t bytes[GANG_COLLS];
    uint64_t sum = 0;

    gang_coll_bytes(l, cut, rank, bytes);
    for (uint32_t i = 0; i < GANG_COLLS; i++)
        sum += bytes[i] > 0 ? coll_memory(by->transport, bytes[i]) + beside : 0;
    return sum;
}

uint64_t gang_track_bytes(const struct gang_limits *l, uint32_t n_layers)
{
    const uint64_t pages = (uint64_t)l->sequences * l->sequence_pages;

    return gang_told_bytes(l) + 2 * (uint64_t)n_layers * sizeof(struct gang_cut) +
           pages * sizeof(uint32_t) + l->rows * (sizeof(int32_t) + sizeof(uint32_t));
}

uint64_t gang_memory(const struct gang_limits *l, const struct shard_cut *cut, uint32_t rank,
                     const struct gang_carrier *carrier)
{
    return colls_memory(l, cut, rank, carrier) +
           gang_track_bytes(l, shard_run_count(cut->rank[rank].layers));
}

uint64_t gang_held(const struct gang *g)
{
    return g == NULL ? 0 : g->held_bytes;
}

enum err gang_open(struct gang **ret_gang, const struct gang_config *config,
                   const struct shard_plan *plan, const struct model_hparams *h,
                   const struct gang_limits *limits, struct backend *backend,
                   const atomic_bool *stop, struct errbuf *eb)
{
    struct gang *g = calloc(1, sizeof *g);
    enum err e = ERR_OK;

    const struct shard_cut *cut = plan->cut;
    const struct shard_rank_cut *own = &cut->rank[config->coll.rank];

    CHECK(cut->n_ranks == config->coll.n_ranks && cut->n_ranks <= COLL_RANKS_MAX);
    if (g == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang");
    g->backend = backend;
    g->rank = config->coll.rank;
    g->n_ranks = cut->n_ranks;
    g->n_stages = cut->n_stages;
    g->stage = own->stage;
    g->n_shards = cut->n_shards;
    g->shard = own->index;
    g->layers = own->layers;
    g->load_ns = (uint64_t)config->load_ms * 1000000u;
    g->wait_ns = (uint64_t)config->wait_ms * 1000000u;
    g->n_layers = h->n_layers;
    g->limits = *limits;
    gang_rows_note(g, limits->rows);
    g->n_embd = h->n_embd;
    g->vocab = h->vocab_size;
    for (uint32_t k = 0; k < g->n_shards; k++)
        g->embed[k] = cut->rank[k].embed;
    for (uint32_t k = 0; k < g->n_ranks; k++)
        g->head[k] = cut->rank[k].head;
    g->cuts = take(g, 2 * (size_t)shard_run_count(g->layers), sizeof *g->cuts);
    g->ids = take(g, limits->rows, sizeof *g->ids);
    g->at = take(g, limits->rows, sizeof *g->at);
    g->told.limits = &g->limits;
    g->told.vocab = g->vocab;
    g->told.pages =
        take(g, (size_t)limits->sequences * limits->sequence_pages, sizeof *g->told.pages);
    g->told.words = take(g, gang_told_bytes(limits), 1);
    if (g->cuts == NULL || g->ids == NULL || g->at == NULL || g->told.pages == NULL ||
        g->told.words == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a gang of %u ranks", g->n_ranks);
    } else {
        memset(g->told.pages, 0xff,
               (size_t)limits->sequences * limits->sequence_pages * sizeof *g->told.pages);
        for (uint32_t i = g->layers.first; i < g->layers.end; i++)
            for (enum gang_matrix m = GANG_MATRIX_ATTENTION; m <= GANG_MATRIX_FFN; m++)
                cut_set(gang_cut_of(g, i, m), g, plan, i, m);
        e = gang_meet(g, config, plan, stop, eb);
        if (e == ERR_OK)
            e = open_exchange(g, eb);
    }
    const struct gang_carrier carrier = gang_carrier_of(config);
    g->held_bytes += colls_memory(limits, cut, g->rank, &carrier);
    if (e != ERR_OK) {
        gang_close(g);
        return e;
    }
    *ret_gang = g;
    return ERR_OK;
}

void gang_decline(const struct gang_config *config, const atomic_bool *stop, enum err error,
                  const char *why)
{
    struct coll_config coll = config->coll;

    coll.stop = stop;
    coll_decline(&coll, error, why, gang_deadline(DECLINE_NS));
}

void gang_close(struct gang *g)
{
    if (g == NULL)
        return;
    for (uint32_t i = GANG_COLLS; i-- > 0;) {
        g->backend->ops->exchange_close(g->backend, g->exchange[i]);
        coll_close(g->coll[i]);
    }
    free(g->cuts);
    free(g->ids);
    free(g->at);
    free(g->told.pages);
    free(g->told.words);
    free(g);
}

void gang_abort(struct gang *g, const char *why)
{
    coll_abort(g->coll[GANG_COLL_ALL], why);
}

enum err gang_ready(struct gang *g, struct errbuf *eb)
{
    g->told_ns = clock_mono_ns();
    return coll_barrier(g->coll[GANG_COLL_ALL], gang_deadline(g->load_ns), eb);
}
