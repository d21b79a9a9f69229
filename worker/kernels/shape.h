/*
 * shape.h - checks and sizes that follow from shapes, shared by the backends. Internal to kernels/.
 * Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_SHAPE_H
#define CLOISTER_WORKER_KERNELS_SHAPE_H

#include "worker/kernels/backend.h"

/* 32 * 127 * 255 * (COLS_MAX / 32) is far from any overflow of a count; byte sizes fit 64 bits. */
#define SHAPE_ROWS_MAX     (1u << 24)
#define SHAPE_COLS_MAX     (1u << 20)
#define SHAPE_HEAD_DIM_MAX 512u
#define SHAPE_LAYERS_MAX   4096u
#define SHAPE_HEADS_MAX    4096u
#define SHAPE_KV_BYTES_MAX (1ull << 46) /* what an address space has room for */

/* What weights_read refuses, see backend.h. */
enum err shape_weight_check(enum quant_type type, uint32_t rows, uint32_t cols,
                            const struct sum_cut *cut, struct errbuf *eb);
/* Blocks of the first super-block that a weight has no use for: its groups begin behind them. */
uint32_t shape_weight_lead(enum quant_type type, const struct sum_cut *cut);

/* Query heads of the job that share a KV head, where it does not say. */
uint32_t shape_attention_group(const struct attention_job *job, const struct kv_shape *kv);

/* What kv_new refuses. */
enum err shape_kv_check(const struct kv_shape *shape, struct errbuf *eb);

/*
 * The KV cache in memory: [page][layer][kv head], and for a head first K, then V.
 *   f16:  K [dim][32 positions], V [32 positions][dim_v_padded], binary16
 *   q8_0: K [dim][32] int8, then its scales [dim / 32][32] float;
 *         V [32][dim_v_padded] int8, then its scales [32][dim_v_padded / 32] float
 * Positions stand beside each other in K because a score sums over dim: the lanes of a vector are
 * positions, and no sum crosses lanes. In V it is the other way round.
 */
struct shape_kv {
    uint32_t dim_v_padded; /* head_dim_v up to a multiple of 32; the padding stays zero */
    uint64_t k_bytes;
    uint64_t v_bytes;
    uint64_t head_bytes;
    uint64_t layer_bytes;
    uint64_t page_bytes;
};

void shape_kv_layout(const struct kv_shape *shape, struct shape_kv *ret_layout);

#endif
