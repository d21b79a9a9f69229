/* Products cut by columns, for many rows: each rank finishes the sums of a run of rows and hands
 * the others what it has finished (docs/collectives.md). */
#include "worker/engine/gang_internal.h"

/* What must be saved of the bytes that a rank receives to make up for one operation more, as
 * measured (docs/collectives.md). */
#define SAVED_BYTES_LEAST 524288u

/* Whole, a rank receives the nodes of all others, R of them for each row. By rows it receives these
 * for one row in k, and the other k - 1 finished: R / k + (k - 1) / k. Who has the fewest nodes of
 * its own receives most, and is waited for. */
uint32_t gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd)
{
    const uint64_t row_bytes = n_embd * sizeof(float);
    uint32_t own = UINT32_MAX, all = 0;

    for (uint32_t k = 0; k < n_ranks; k++) {
        all += nodes[k];
        own = nodes[k] < own ? nodes[k] : own;
    }
    /* Pieces follow one another without gaps, so that one product writes them all. */
    if (n_ranks < 2 || row_bytes % COLL_ALIGN != 0 || all - own < 2)
        return UINT32_MAX;
    const uint64_t saved = (uint64_t)(n_ranks - 1) * (all - own - 1) * row_bytes / n_ranks;
    const uint64_t least = (SAVED_BYTES_LEAST + saved - 1) / saved;
    return least < n_ranks ? n_ranks : (uint32_t)least;
}

/* The first of the rows that shard k finishes. */
static uint32_t rows_first(const struct gang *g, uint32_t n, uint32_t k)
{
    return (uint32_t)((uint64_t)n * k / g->n_shards);
}

/* Sums of one row's nodes one behind another, so that a run of rows is one piece. */
static enum err exchange_sums(struct gang *g, const struct gang_cut *cut, const struct act *in,
                              uint32_t n, const struct weight *weight, const void *ret_parts[],
                              struct errbuf *eb)
{
    const uint32_t row = cut->nodes[g->shard] * g->n_embd;
    size_t bytes[COLL_RANKS_MAX * COLL_RANKS_MAX];
    void *pieces[COLL_RANKS_MAX];

    for (uint32_t from = 0; from < g->n_shards; from++)
        for (uint32_t to = 0; to < g->n_shards; to++)
            bytes[from * g->n_shards + to] = (rows_first(g, n, to + 1) - rows_first(g, n, to)) *
                                             (size_t)cut->nodes[from] * g->n_embd * sizeof(float);
    enum err e = coll_exchange_begin(gang_shards(g), bytes, gang_deadline(g->wait_ns), pieces, eb);
    if (e != ERR_OK)
        return e;
    if (weight != NULL) {
        const struct matmul_job own = {
            .weight = weight, .out = pieces[0], .out_stride = row, .node_stride = g->n_embd};
        g->backend->ops->matmul(g->backend, in, n, &own, 1);
    }
    return gang_hand_over(g, gang_shards(g), ret_parts, eb);
}

enum err gang_matmul_rows(struct gang *g, const struct gang_cut *cut, const struct act *in,
                          uint32_t n, const struct matmul_job *job, struct errbuf *eb)
{
    const struct shard_run own = {rows_first(g, n, g->shard), rows_first(g, n, g->shard + 1)};
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;
    enum err e = exchange_sums(g, cut, in, n, job->weight, parts, eb);

    for (uint32_t k = 0; k < g->n_shards; k++)
        bytes[k] =
            (rows_first(g, n, k + 1) - rows_first(g, n, k)) * (size_t)g->n_embd * sizeof(float);
    if (e == ERR_OK)
        e = coll_all_gather_begin(gang_shards(g), bytes, gang_deadline(g->wait_ns), &mine, eb);
    if (e != ERR_OK)
        return e;
    gang_join(g, cut, parts, true, own, job, mine);
    e = gang_hand_over(g, gang_shards(g), parts, eb);
    if (e != ERR_OK)
        return e;
    const struct join_part whole = {parts[0], g->n_embd};
    const struct join_job copy = {
        .part = &whole, .n_parts = 1, .cols = g->n_embd, .out = job->out, .out_stride = g->n_embd};
    g->backend->ops->join(g->backend, n, &copy);
    return ERR_OK;
}
