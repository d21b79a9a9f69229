/*
 * shard_room.h - what each rank of a cut model holds in all: its matrices and KV pool in proportion
 * to the whole model's, and beside them buffers, tables and what ranks hand each other, from a few
 * numbers that a worker says of itself. So whoever knows a model's shape (common/shard_cut.h) and
 * these numbers comes to what a rank would say of itself, within a hundredth of it however the
 * model is cut into shards, and within two where these are shards of stages
 * (tests/unit/engine/test_rank_room.c).
 *
 * Left out: what NCCL takes of a GPU for itself (shard_rank_groups); that a stage whose layers all
 * turn by one of two tables of angles does without the other; that where the kernels are the scalar
 * ones a rank holds its last block of a row whole.
 *
 * Numbers come from a peer: any are taken, and no sum of them passes 64 bits (SHARD_ROOM_MAX).
 * Thread: plain values, any.
 */
#ifndef CLOISTER_COMMON_SHARD_ROOM_H
#define CLOISTER_COMMON_SHARD_ROOM_H

#include "common/shard_cut.h"

/* The most that each number of bytes below may be, and each of what is counted. */
#define SHARD_ROOM_MAX       ((uint64_t)1 << 42)
#define SHARD_ROOM_COUNT_MAX (1u << 16)

struct shard_room {
    /* Of the whole model's matrices, as they lie in memory: the embedding, and the head where it is
     * one of its own. What layers' matrices take besides goes by the file's bytes of them. */
    uint64_t embedding_bytes, output_bytes;
    /* A part of a row begins with a whole block of the matrix' type, which the shard before holds
     * as well, and takes room for whole tails: of all attention outputs and feed-forward downs, and
     * columns of a block (the first layer's), of a tail and of a query head. Of columns 0 is 1. */
    uint64_t joint_bytes, down_bytes;
    uint32_t joint_block, down_block, joint_tail, down_tail, head_columns;
    uint64_t biases_bytes; /* beside all matrices; shared out as these are */
    uint64_t every_bytes;  /* any rank; 0: nothing of all this is known */
    uint64_t first_bytes;  /* rank 0 besides: logits, samplers, the tokenizer */
    uint64_t layer_bytes;  /* for each of its layers: norms, and how sums are joined */
    /* For each that it has of the layer in which it has most. */
    uint64_t head_bytes; /* query heads */
    uint64_t kv_head_bytes;
    uint64_t column_bytes; /* of the feed-forward part */
    /* For each level of the tree over the groups that it has most of, of a matrix; no less
     * than so many where it has heads. */
    uint64_t level_bytes, levels_bytes;
    /* Room for attention, whichever is more: for each query head; or, where pages are shared out,
     * for each head and row, of so many rows, or as many as times KV heads are fewer than
     * `partial_units` where that is not 0, `partials_bytes` at most or what one row takes. */
    uint64_t attention_bytes;
    uint64_t partial_bytes;
    uint64_t partials_bytes;
    uint32_t partial_rows;
    uint32_t partial_units;
    /* What ranks hand each other: a step as it is told, the logits of all jobs, a row of a step,
     * how many rows a step has, and a piece of it that stages hand on; and how a rank keeps track
     * of steps. */
    uint64_t told_bytes, logits_bytes, row_bytes, track_bytes;
    uint32_t rows, piece_rows;
};

struct shard_held {
    uint64_t weights_bytes, kv_bytes; /* parts of what the whole model takes of these */
    uint64_t scratch_bytes, exchange_bytes;
};

/* Of `rank`, where the whole model's matrices and pool take so many bytes. */
struct shard_held shard_rank_held(const struct shard_room *room, const struct shard_shape *shape,
                                  const struct shard_cut *cut, uint32_t rank,
                                  uint64_t whole_weights, uint64_t whole_kv);

/* How many sums a shard with these groups of `n_groups` hands over: worker/kernels/sum_order.h. */
uint32_t shard_nodes_of(struct shard_run groups, uint32_t n_groups);

#endif
