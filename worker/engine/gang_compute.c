/* What ranks compute in parts: rows of the embedding, products cut by columns, logits. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"

#include <string.h>

enum err gang_hand_over(struct gang *g, struct coll *coll, const void *ret_parts[],
                        struct errbuf *eb)
{
    if (coll_is_on_device(coll)) /* the order of the device's stream is enough */
        g->backend->ops->submit(g->backend);
    else
        g->backend->ops->exchange_done(g->backend);
    return coll_end(coll, gang_patience(g, coll), ret_parts, eb);
}

/* The shard that embeds a token. */
static uint32_t embed_shard(const struct gang *g, uint32_t id)
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
    struct coll *shards = gang_shards(g);
    const uint32_t own_first = g->embed[g->shard].first;
    uint32_t first[COLL_RANKS_MAX + 1] = {0}, next[COLL_RANKS_MAX];
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;

    CHECK(n <= g->limits.rows && g->stage == 0);
    if (shards == NULL) {
        ops->embed(g->backend, weight, ids, n, scale, out);
        return ERR_OK;
    }
    for (uint32_t i = 0; i < n; i++)
        first[embed_shard(g, (uint32_t)ids[i]) + 1]++;
    for (uint32_t k = 0; k < g->n_shards; k++) {
        bytes[k] = (size_t)first[k + 1] * g->n_embd * sizeof *out;
        first[k + 1] += first[k];
        next[k] = first[k];
    }
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t k = embed_shard(g, (uint32_t)ids[i]);
        if (k == g->shard)
            g->ids[next[k] - first[k]] = (int32_t)((uint32_t)ids[i] - own_first);
        g->at[next[k]++] = i;
    }
    enum err e = coll_all_gather_begin(shards, bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (bytes[g->shard] > 0)
        ops->embed(g->backend, weight, g->ids, first[g->shard + 1] - first[g->shard], scale, mine);
    e = gang_hand_over(g, shards, parts, eb);
    for (uint32_t k = 0; e == ERR_OK && k < g->n_shards; k++)
        if (bytes[k] > 0)
            ops->place(g->backend, parts[k], g->at + first[k], first[k + 1] - first[k], g->n_embd,
                       out);
    return e;
}

/* Stages hand on in between, and are waited for by others than those of their stage. */
void gang_put_off(struct gang *g)
{
    struct coll *shards = gang_shards(g);

    if (g->n_stages > 1 || shards == NULL || !coll_is_on_device(shards) ||
        !g->backend->ops->put_off(g->backend))
        return;
    coll_put_off(shards);
    g->is_put_off = true;
}

static void queue_next(void *ctx)
{
    const struct gang *g = ctx;
    g->backend->ops->queue_next(g->backend);
}

enum err gang_run(struct gang *g, enum err so_far, struct errbuf *eb)
{
    const bool was_put_off = g->is_put_off;

    g->is_put_off = false;
    if (!was_put_off)
        return so_far;
    if (so_far != ERR_OK) {
        coll_forget(gang_shards(g));
        return so_far;
    }
    const struct coll_queue queue = {queue_next, g, g->backend->ops->is_known(g->backend)};
    return coll_run(gang_shards(g), &queue, g->wait_ns, eb);
}

void gang_join(struct gang *g, const struct gang_cut *cut, const void *const parts[], bool by_row,
               struct shard_run rows, const struct matmul_job *job, float *to)
{
    const size_t node = by_row ? g->n_embd : (size_t)shard_run_count(rows) * g->n_embd;
    struct join_part part[SUM_GROUPS_MAX];
    uint32_t n_parts = 0;

    for (uint32_t k = 0; k < g->n_shards; k++)
        for (uint32_t i = 0; i < cut->nodes[k]; i++)
            part[n_parts++] =
                (struct join_part){(const float *)parts[k] + i * node,
                                   by_row ? (size_t)cut->nodes[k] * g->n_embd : g->n_embd};
    const struct join_job join = {
        .part = part,
        .n_parts = n_parts,
        .joins = cut->joins,
        .n_joins = cut->n_joins,
        .cols = g->n_embd,
        .out = to,
        .out_stride = g->n_embd,
        .bias = job->bias,
        .onto = job->accumulate ? job->out + (size_t)rows.first * g->n_embd : NULL,
    };
    g->backend->ops->join(g->backend, shard_run_count(rows), &join);
}

enum err gang_matmul(struct gang *g, uint32_t layer, enum gang_matrix which, const struct act *in,
                     uint32_t n, const struct matmul_job *job, struct errbuf *eb)
{
    const struct backend_ops *ops = g->backend->ops;
    const struct gang_cut *cut = gang_cut_of(g, layer, which);
    struct coll *shards = gang_shards(g);
    const size_t node = (size_t)n * g->n_embd;
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;

    CHECK(job->out_stride == g->n_embd);
    if (shards == NULL) {
        ops->matmul(g->backend, in, n, job, 1);
        return ERR_OK;
    }
    if (n >= cut->rows_least)
        return gang_matmul_rows(g, cut, in, n, job, eb);
    for (uint32_t k = 0; k < g->n_shards; k++)
        bytes[k] = cut->nodes[k] * node * sizeof(float);
    enum err e = coll_all_gather_begin(shards, bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (job->weight != NULL) {
        const struct matmul_job own = {
            .weight = job->weight, .out = mine, .out_stride = g->n_embd, .node_stride = node};
        ops->matmul(g->backend, in, n, &own, 1);
    }
    e = gang_hand_over(g, shards, parts, eb);
    if (e != ERR_OK)
        return e;
    gang_join(g, cut, parts, false, (struct shard_run){0, n}, job, job->out);
    return ERR_OK;
}

/* Who brings logits together, by their ranks in that coll: all where there is one stage, else rank
 * 0 and the last stage. */
static uint32_t logits_rank(const struct gang *g, uint32_t k)
{
    return g->n_stages == 1 || k == 0 ? k : g->n_ranks - g->n_shards + k - 1;
}

/* Rank 0 computes its own where they belong and has only the others' put beside them. */
static enum err exchange_logits(struct gang *g, const struct weight *weight, const float *bias,
                                const struct act *in, uint32_t n, float *logits,
                                const void *ret_parts[], struct errbuf *eb)
{
    struct coll *all = g->coll[g->n_stages == 1 ? GANG_COLL_ALL : GANG_COLL_LOGITS];
    const uint32_t cols = shard_run_count(g->head[g->rank]);
    size_t bytes[COLL_RANKS_MAX];
    void *mine;

    for (uint32_t k = 0; k < coll_n_ranks(all); k++)
        bytes[k] =
            k == 0 ? 0 : (size_t)n * shard_run_count(g->head[logits_rank(g, k)]) * sizeof *logits;
    enum err e = coll_gather_begin(all, 0, bytes, gang_patience(g, all), &mine, eb);
    if (e != ERR_OK)
        return e;
    if (cols > 0) {
        const struct matmul_job job = {.weight = weight,
                                       .out = g->rank == 0 ? logits + g->head[0].first : mine,
                                       .out_stride = g->rank == 0 ? g->vocab : cols,
                                       .bias = bias};
        g->backend->ops->matmul(g->backend, in, n, &job, 1);
    }
    return gang_hand_over(g, all, ret_parts, eb);
}

void gang_take_before_rows(struct gang *g, uint32_t n)
{
    CHECK(g->rank == 0 && g->n_stages > 1 && g->n_taken == 0);
    g->n_to_take = n;
}

enum err gang_take_logits(struct gang *g, struct errbuf *eb)
{
    const uint32_t n = g->n_to_take;

    g->n_to_take = 0;
    g->n_taken = n > 0 ? n : g->n_taken;
    return n == 0 ? ERR_OK : exchange_logits(g, NULL, NULL, NULL, n, NULL, g->taken, eb);
}

enum err gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                     const struct act *in, uint32_t n, float *logits, struct errbuf *eb)
{
    const void *parts[COLL_RANKS_MAX];
    enum err e = ERR_OK;

    CHECK(g->n_taken == 0 || g->n_taken == n);
    if (g->n_taken > 0)
        memcpy(parts, g->taken, sizeof parts);
    else
        e = exchange_logits(g, weight, bias, in, n, logits, parts, eb);
    g->n_taken = 0;
    for (uint32_t k = 1; e == ERR_OK && g->rank == 0 && logits_rank(g, k) < g->n_ranks; k++) {
        const struct shard_run head = g->head[logits_rank(g, k)];
        const uint32_t count = shard_run_count(head);
        const struct join_part part = {parts[k], count};
        const struct join_job put = {.part = &part,
                                     .n_parts = 1,
                                     .cols = count,
                                     .out = logits + head.first,
                                     .out_stride = g->vocab};
        if (count > 0)
            g->backend->ops->join(g->backend, n, &put);
    }
    return e;
}
