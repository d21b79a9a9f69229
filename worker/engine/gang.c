/* Ranks that meet, and what they compute in parts. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"
#include "common/crypto.h"

#include <stdlib.h>
#include <string.h>

#define DECLINE_NS 1000000000u

/* ---- opening ------------------------------------------------------------------------------ */

static void cut_set(struct gang_cut *ret, const struct shard_plan *plan, uint32_t layer,
                    enum gang_matrix which)
{
    struct sum_node nodes[SUM_GROUPS_MAX];
    uint32_t groups = 1;

    *ret = (struct gang_cut){0};
    for (uint32_t k = 0; k < plan->n_ranks; k++) {
        const struct shard_layer *l = &plan->rank[k].layer[layer];
        const struct sum_cut cut = which == GANG_MATRIX_ATTENTION ? l->attention : l->ffn;
        groups = cut.groups;
        ret->nodes[k] = cut.first < cut.end ? sum_nodes(&cut, nodes + ret->n_parts) : 0;
        ret->n_parts += ret->nodes[k];
    }
    ret->n_joins = sum_joins(nodes, ret->n_parts, groups, ret->joins);
}

static struct gang_cut *cut_of(const struct gang *g, uint32_t layer, enum gang_matrix which)
{
    return &g->cuts[2 * (size_t)layer + which];
}

/* The most that all ranks together have on the way at a time, each piece of it padded. */
static size_t bytes_max(const struct gang *g)
{
    const size_t told = gang_told_bytes(&g->limits), exchange = (size_t)g->limits.exchange_bytes;
    return (exchange > told ? exchange : told) + (size_t)COLL_RANKS_MAX * COLL_ALIGN;
}

/* Model, shares and settings: what differs here would differ in the logits, or in what fits. */
static void agreement_digest(const struct shard_plan *plan, const struct gang_limits *l,
                             uint8_t ret_digest[COLL_PLAN_BYTES])
{
    const uint32_t words[] = {l->context_tokens, l->kv_type,        l->rows,    l->logits_rows,
                              l->sequences,      l->sequence_pages, l->kv_pages};
    uint8_t bytes[sizeof plan->digest + sizeof l->model + sizeof words];

    _Static_assert(COLL_PLAN_BYTES == SHA256_BYTES, "one digest");
    memcpy(bytes, plan->digest, sizeof plan->digest);
    memcpy(bytes + sizeof plan->digest, l->model, sizeof l->model);
    memcpy(bytes + sizeof plan->digest + sizeof l->model, words, sizeof words);
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

static enum err gang_meet(struct gang *g, const struct gang_config *config,
                          const struct shard_plan *plan, const atomic_bool *stop, struct errbuf *eb)
{
    struct coll_config coll = config->coll;

    agreement_digest(plan, &g->limits, coll.plan);
    coll.bytes_max = bytes_max(g);
    coll.stop = stop;
    return coll_open(&g->coll, &coll, gang_deadline((uint64_t)config->meet_ms * 1000000u), eb);
}

enum err gang_open(struct gang **ret_gang, const struct gang_config *config,
                   const struct shard_plan *plan, const struct model_hparams *h,
                   const struct gang_limits *limits, struct backend *backend,
                   const atomic_bool *stop, struct errbuf *eb)
{
    struct gang *g = calloc(1, sizeof *g);
    enum err e = ERR_OK;

    CHECK(plan->n_stages == 1 && plan->n_ranks == config->coll.n_ranks &&
          plan->n_ranks <= COLL_RANKS_MAX);
    if (g == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang");
    g->backend = backend;
    g->rank = config->coll.rank;
    g->n_ranks = plan->n_ranks;
    g->load_ns = (uint64_t)config->load_ms * 1000000u;
    g->wait_ns = (uint64_t)config->wait_ms * 1000000u;
    g->limits = *limits;
    g->n_embd = h->n_embd;
    g->n_layers = h->n_layers;
    g->vocab = h->vocab_size;
    for (uint32_t k = 0; k < g->n_ranks; k++) {
        g->embed[k] = plan->rank[k].embed;
        g->head[k] = plan->rank[k].head;
    }
    g->cuts = calloc(2 * (size_t)g->n_layers, sizeof *g->cuts);
    g->ids = calloc(limits->rows, sizeof *g->ids);
    g->at = calloc(limits->rows, sizeof *g->at);
    g->pages = malloc((size_t)limits->sequences * limits->sequence_pages * sizeof *g->pages);
    g->told = malloc(gang_told_bytes(limits));
    if (g->cuts == NULL || g->ids == NULL || g->at == NULL || g->pages == NULL || g->told == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a gang of %u ranks", g->n_ranks);
    } else {
        memset(g->pages, 0xff,
               (size_t)limits->sequences * limits->sequence_pages * sizeof *g->pages);
        for (uint32_t i = 0; i < g->n_layers; i++) {
            cut_set(cut_of(g, i, GANG_MATRIX_ATTENTION), plan, i, GANG_MATRIX_ATTENTION);
            cut_set(cut_of(g, i, GANG_MATRIX_FFN), plan, i, GANG_MATRIX_FFN);
        }
        e = gang_meet(g, config, plan, stop, eb);
    }
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
    coll_close(g->coll);
    free(g->cuts);
    free(g->ids);
    free(g->at);
    free(g->pages);
    free(g->told);
    free(g);
}

void gang_abort(struct gang *g, const char *why)
{
    coll_abort(g->coll, why);
}

enum err gang_ready(struct gang *g, struct errbuf *eb)
{
    g->told_ns = clock_mono_ns();
    return coll_barrier(g->coll, gang_deadline(g->load_ns), eb);
}

/* ---- what is computed in parts ----------------------------------------------------------------
 */

/* The rank that embeds a token. */
static uint32_t embed_rank(const struct gang *g, uint32_t id)
{
    uint32_t k = 0;
    while (g->embed[k].end <= id)
        k++;
    return k;
}

enum err gang_embed(struct gang *g, const struct weight *weight, const int32_t *ids, uint32_t n,
                    float scale, float *out, struct errbuf *eb)
{
    const struct backend_ops *ops = g->backend->ops;
    const uint32_t own_first = g->embed[g->rank].first;
    uint32_t first[COLL_RANKS_MAX + 1] = {0}, next[COLL_RANKS_MAX];
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;

    CHECK(n <= g->limits.rows);
    for (uint32_t i = 0; i < n; i++)
        first[embed_rank(g, (uint32_t)ids[i]) + 1]++;
    for (uint32_t k = 0; k < g->n_ranks; k++) {
        bytes[k] = (size_t)first[k + 1] * g->n_embd * sizeof *out;
        first[k + 1] += first[k];
        next[k] = first[k];
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t rank = embed_rank(g, (uint32_t)ids[i]);
        if (rank == g->rank)
            g->ids[next[rank] - first[rank]] = (int32_t)((uint32_t)ids[i] - own_first);
        g->at[next[rank]++] = i;
    }
    enum err e = coll_all_gather_begin(g->coll, bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (bytes[g->rank] > 0)
        ops->embed(g->backend, weight, g->ids, first[g->rank + 1] - first[g->rank], scale, mine);
    e = coll_end(g->coll, gang_deadline(g->wait_ns), parts, eb);
    for (uint32_t k = 0; e == ERR_OK && k < g->n_ranks; k++)
        if (bytes[k] > 0)
            ops->place(g->backend, parts[k], g->at + first[k], first[k + 1] - first[k], g->n_embd,
                       out);
    return e;
}

enum err gang_matmul(struct gang *g, uint32_t layer, enum gang_matrix which, const struct act *in,
                     uint32_t n, const struct matmul_job *job, struct errbuf *eb)
{
    const struct backend_ops *ops = g->backend->ops;
    const struct gang_cut *cut = cut_of(g, layer, which);
    const size_t node = (size_t)n * g->n_embd;
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    const float *part[SUM_GROUPS_MAX];
    uint32_t n_parts = 0;
    void *mine;

    for (uint32_t k = 0; k < g->n_ranks; k++)
        bytes[k] = cut->nodes[k] * node * sizeof *part[0];
    enum err e = coll_all_gather_begin(g->coll, bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (job->weight != NULL) {
        const struct matmul_job own = {
            .weight = job->weight, .out = mine, .out_stride = g->n_embd, .node_stride = node};
        ops->matmul(g->backend, in, n, &own, 1);
    }
    e = coll_end(g->coll, gang_deadline(g->wait_ns), parts, eb);
    if (e != ERR_OK)
        return e;
    for (uint32_t k = 0; k < g->n_ranks; k++)
        for (uint32_t i = 0; i < cut->nodes[k]; i++)
            part[n_parts++] = (const float *)parts[k] + i * node;
    const struct join_job join = {
        .part = part,
        .n_parts = n_parts,
        .part_stride = g->n_embd,
        .joins = cut->joins,
        .n_joins = cut->n_joins,
        .cols = g->n_embd,
        .out = job->out,
        .out_stride = job->out_stride,
        .bias = job->bias,
        .accumulate = job->accumulate,
    };
    ops->join(g->backend, n, &join);
    return ERR_OK;
}

struct logits_copy {
    const struct gang *g;
    const void *const *parts;
    float *logits;
};

static void logits_copy_row(void *ctx, uint32_t task, uint32_t thread)
{
    const struct logits_copy *copy = ctx;
    const struct gang *g = copy->g;
    float *row = copy->logits + (size_t)task * g->vocab;

    (void)thread;
    for (uint32_t k = 1; k < g->n_ranks; k++) {
        const size_t cols = shard_run_count(g->head[k]);
        memcpy(row + g->head[k].first, (const float *)copy->parts[k] + task * cols,
               cols * sizeof *row);
    }
}

/* Rank 0 computes its own where they belong and has only the others' copied. */
enum err gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                     const struct act *in, uint32_t n, float *logits, struct errbuf *eb)
{
    const uint32_t cols = shard_run_count(g->head[g->rank]);
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;

    for (uint32_t k = 0; k < g->n_ranks; k++)
        bytes[k] = k == 0 ? 0 : (size_t)n * shard_run_count(g->head[k]) * sizeof *logits;
    enum err e = coll_gather_begin(g->coll, 0, bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (cols > 0) {
        const struct matmul_job job = {.weight = weight,
                                       .out = g->rank == 0 ? logits + g->head[0].first : mine,
                                       .out_stride = g->rank == 0 ? g->vocab : cols,
                                       .bias = bias};
        g->backend->ops->matmul(g->backend, in, n, &job, 1);
    }
    e = coll_end(g->coll, gang_deadline(g->wait_ns), parts, eb);
    if (e == ERR_OK && g->rank == 0) {
        struct logits_copy copy = {g, parts, logits};
        g->backend->ops->share(g->backend, logits_copy_row, &copy, n);
    }
    return e;
}
