/*
 * shard_plan.h - how a model is cut for several devices: which rank holds what of every matrix and
 * vector, from hyperparameters and tensor table alone. Whole, a model is the plan of one rank.
 *
 * By layers a model is cut into stages, and each stage by tensors into shards; rank
 * stage * n_shards + shard has
 *   attention  groups of the attention output (struct sum_cut), which are whole query heads: rows
 *              of q, columns of the output, and the KV heads that these query heads read. Where a
 *              border falls between query heads of one KV head, both sides hold it, and its cache;
 *   ffn        groups of feed-forward down: its columns, and the same rows of gate and up;
 *   vocabulary rows of token_embd in the first stage and of the head in the last, in units of
 *              SHARD_VOCAB_ROWS;
 *   vectors    those of its layers as a whole, but for biases of matrices that are cut by rows.
 * Runs of a stage's shards follow one another in the order of ranks and cover everything once (KV
 * heads at least once). A rank may have nothing of a part: there are 9 heads for 16 shards.
 *
 * What is chosen. Ranks wait for each other behind each part, so the slowest share of a part is
 * its time. A share's cost is bytes: what is read from the file for it, and of attention also the
 * KV pool of its heads. Each part is cut such that the largest cost / weight of a rank is as small
 * as any such cut can make it. Of the cuts that do, the one that leaves the smallest sum of
 * squares of all that a rank has so far / weight (vocabulary first, then the layers in order), so
 * that what one layer gives a rank too much, others give others; then the one whose first border
 * comes first, then the second. Stages are runs of whole layers, cut by the same measure, the
 * embedding being of the first and the head of the last, and a stage's weight that of its ranks.
 * It is integers from the header and the request, so every rank computes the same plan, and the
 * digest shows that it did.
 *
 * Ownership: shard_plan_free frees the plan; it keeps nothing of what it was made from.
 * Thread: plain values, any.
 */
#ifndef CLOISTER_WORKER_ENGINE_SHARD_PLAN_H
#define CLOISTER_WORKER_ENGINE_SHARD_PLAN_H

#include "common/err.h"
#include "common/shard_cut.h"
#include "worker/kernels/backend.h"
#include "worker/model/hparams.h"

#include <stdbool.h>
#include <stdint.h>

/* How the matrices of a layer that are cut by columns are summed, whole. */
struct shard_sums {
    struct sum_cut attention; /* of the attention output */
    struct sum_cut ffn;       /* of feed-forward down */
};

struct shard_plan {
    struct shard_cut *cut;   /* who holds what; its digest is the plan's */
    struct shard_sums *sums; /* [n_layers] */
};

/* Of a layer's sums, what a rank has: the groups of its cut; end == first where that is nothing. */
struct shard_sums shard_sums(const struct shard_plan *plan, const struct shard_rank_cut *s,
                             uint32_t layer);

/* The pool of `kv_pages` pages counts as cost of attention. ERR_INVALID, saying what: shards,
 * stages or ranks out of range, fewer layers than stages, a wrong number of weights, or none of a
 * stage above 0. ERR_TOO_LARGE: a pool that cannot be. ERR_NO_MEMORY. */
enum err shard_plan_new(struct shard_plan **ret_plan, const struct model_hparams *h,
                        const struct model_tensors *t, const struct shard_request *request,
                        enum kv_type kv_type, uint32_t kv_pages, struct errbuf *eb);
void shard_plan_free(struct shard_plan *plan);

/* The model as cuts look at it; shard_plan_new cuts this. shard_shape_fini frees it. */
enum err shard_plan_shape(struct shard_shape *ret_shape, const struct model_hparams *h,
                          const struct model_tensors *t, enum kv_type kv_type, uint32_t kv_pages,
                          struct errbuf *eb);

/* What a rank holds of a tensor. Of a matrix: rows row .. row + rows - 1, and of each the columns
 * that `cut` has, `cols` of them; row and cut as weights_read takes them: from the file come, for
 * each row, weight_row_bytes at weight_row_begin. Of a vector: `rows` elements from `row` on, and
 * `cols` is 1. rows is 0 where the rank holds nothing of it. */
struct shard_slice {
    uint32_t row, rows, cols;
    struct sum_cut cut;
};
/* `layer` is ignored for parts that are there once. TOKEN_EMBD, where it is the head as well, is
 * held by the first stage to embed and by the last as head; a rank that is of both has it once. */
struct shard_slice shard_slice(const struct shard_plan *plan, const struct shard_rank_cut *s,
                               const struct model_hparams *h, uint32_t layer, enum model_part part,
                               const struct gguf_tensor *t);

static inline uint32_t shard_larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* Sums that the nodes of a part make (sum_nodes): of this rank, and of all ranks of its stage, the
 * most of any layer. As floats, rows * n_embd of each. */
struct shard_nodes {
    uint32_t own, all;
};
struct shard_nodes shard_nodes(const struct shard_plan *plan, const struct shard_rank_cut *s);

#endif
