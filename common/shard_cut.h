/*
 * shard_cut.h - how a model is cut for several devices, from a description of its shape that is
 * small enough to travel: who holds which heads, feed-forward columns, rows of the vocabulary and
 * layers. worker/engine/shard_plan.h says what is chosen and why; this is where it is computed, so
 * that whoever knows a model's shape comes to the same cut as the ranks that load it.
 *
 * The packed form is bounded and checked as a whole: what unpacks can be cut.
 *
 * Ownership: shard_shape_fini and shard_cut_free free. Thread: plain values, any.
 */
#ifndef CLOISTER_COMMON_SHARD_CUT_H
#define CLOISTER_COMMON_SHARD_CUT_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHARD_RANKS_MAX    16u /* of all stages together */
#define SHARD_LAYERS_MAX   1024u
#define SHARD_GROUPS_MAX   64u /* of a matrix that is cut by columns */
#define SHARD_VOCAB_ROWS   32u /* rows of the vocabulary that no border parts */
#define SHARD_DIGEST_BYTES 32u
/* A shape that takes more for a cut into SHARD_RANKS_MAX shards is no model's: shard_cut_work. 128
 * layers with 64 heads that are a group each are below it. */
#define SHARD_WORK_MAX ((uint64_t)1 << 24)

/* first .. end - 1; equal: none. */
struct shard_run {
    uint32_t first, end;
};

static inline uint32_t shard_run_count(struct shard_run run)
{
    return run.end - run.first;
}

/* How a model is to be cut. */
struct shard_request {
    uint32_t shards; /* of each stage; SHARD_RANKS_MAX at most, times stages */
    uint32_t stages; /* 0: 1 */
    /* By rank: shares are in proportion to these, which may be bytes or bytes/s as well as 3 and 1.
     * A rank whose weight is 0 holds norms only. n_weights is the number of ranks, or 0: even. */
    uint32_t n_weights;
    uint64_t weights[SHARD_RANKS_MAX];
};

/* What the layers of one kind have in common. Bytes are those of the file. */
struct shard_kind {
    uint32_t n_heads, n_kv_heads;      /* query heads; KV heads divide them */
    uint32_t n_groups;                 /* of attention output; divide the query heads */
    uint64_t q_bytes;                  /* of q and attention output */
    uint64_t k_bytes;                  /* of k and v */
    uint32_t n_ffn_groups;             /* of feed-forward down */
    uint32_t ff_end[SHARD_GROUPS_MAX]; /* columns before the end of each, ascending */
    uint64_t ff_bytes;                 /* of gate, up and down */
};

struct shard_shape {
    uint32_t n_layers, n_kinds;
    uint32_t vocab;
    bool tied;                        /* the head is the embedding */
    uint64_t embed_bytes, head_bytes; /* the same where tied */
    uint64_t kv_head_bytes;           /* of one KV head of one layer in the whole pool */
    struct shard_kind *kind;          /* [n_kinds] */
    uint16_t *kind_of;                /* [n_layers] */
};

/* Room for so many layers, each a kind of its own until shard_shape_join. */
enum err shard_shape_init(struct shard_shape *ret_shape, uint32_t n_layers, struct errbuf *eb);
/* Layers that are alike become one kind. */
void shard_shape_join(struct shard_shape *shape);
void shard_shape_fini(struct shard_shape *shape);

/* Appends the packed form. ERR_TOO_LARGE where it would be more than `most` bytes (a model whose
 * layers all differ), or take more than SHARD_WORK_MAX. */
struct buf;
enum err shard_shape_pack(const struct shard_shape *shape, size_t most, struct buf *out,
                          struct errbuf *eb);
/* ERR_INVALID, saying what does not hold; ERR_TOO_LARGE; ERR_NO_MEMORY. */
enum err shard_shape_unpack(struct shard_shape *ret_shape, const uint8_t *bytes, size_t size,
                            struct errbuf *eb);

/* What a rank has of a layer. Empty runs in layers of other stages. */
struct shard_layer_cut {
    struct shard_run groups; /* of the attention output */
    struct shard_run heads;  /* query heads, the columns of these groups */
    struct shard_run kv_heads;
    struct shard_run ffn_groups; /* of feed-forward down */
    struct shard_run ff;         /* columns of these groups, rows of gate and up */
};

struct shard_rank_cut {
    uint32_t stage, index; /* rank = stage * n_shards + index */
    struct shard_run layers;
    struct shard_run embed; /* rows of token_embd that this rank embeds; first stage only */
    struct shard_run head;  /* rows of the head: logits that this rank computes; last stage only */
    struct shard_layer_cut *layer; /* [n_layers] */
};

struct shard_cut {
    uint32_t n_shards, n_stages, n_ranks, n_layers;
    struct shard_rank_cut rank[SHARD_RANKS_MAX];
    struct shard_layer_cut *layers; /* the memory behind them */
    uint8_t digest[SHARD_DIGEST_BYTES];
};

/* What it takes to work out a cut, in comparisons: some three nanoseconds each. */
uint64_t shard_cut_work(const struct shard_shape *shape, uint32_t shards, uint32_t stages);

/* In how many groups of ranks a rank exchanges with others: all of them; where there are several
 * stages, the shards of its stage, if there are several; this shard of the stage before and of the
 * next; rank 0 and the last stage. */
static inline uint32_t shard_rank_groups(uint32_t shards, uint32_t stages, uint32_t rank)
{
    const uint32_t stage = rank / shards;
    const bool is_last = stage + 1 == stages;

    return stages == 1 ? 1u : 1u + (shards > 1) + (stage > 0) + !is_last + (rank == 0 || is_last);
}

/* Errors as shard_plan_new's. */
enum err shard_cut_new(struct shard_cut **ret_cut, const struct shard_shape *shape,
                       const struct shard_request *request, struct errbuf *eb);
void shard_cut_free(struct shard_cut *cut);

/* Bytes that a rank reads from the file, in proportion to what it holds of each matrix, and that
 * its heads have in the pool. */
uint64_t shard_cut_weights(const struct shard_shape *shape, const struct shard_cut *cut,
                           uint32_t rank);
uint64_t shard_cut_kv(const struct shard_shape *shape, const struct shard_cut *cut, uint32_t rank);
/* What something that is `bytes` for `whole` is for a part of it. */
uint64_t shard_in_proportion(uint64_t bytes, uint64_t part, uint64_t whole);
/* Of the whole model. */
uint64_t shard_shape_weights(const struct shard_shape *shape);
uint64_t shard_shape_kv(const struct shard_shape *shape);

#endif
