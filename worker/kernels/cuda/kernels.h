/*
 * kernels.h - the launchers of all kernels but those of matrices (products.h). C and C++.
 *
 * Each queues one kernel on `stream` and says whether that could be done (launch.h). `n`, `count`
 * and `cols` are not 0. Buffers are device memory, aligned to 256 bytes where they begin.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_KERNELS_H
#define CLOISTER_WORKER_KERNELS_CUDA_KERNELS_H

#include "worker/kernels/cuda/cuda_types.h"
#include "worker/kernels/cuda/kv_layout.h"
#include "worker/kernels/cuda/launch.h"
#include "worker/kernels/pick.h"

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- rows.cu: x is [n][cols] ----------------------------------------------------------------- */

struct cuda_launched cuda_launch_quantize(cudaStream_t stream, const float *x, uint32_t n,
                                          uint32_t cols, struct cuda_act out);
/* y = act(gate) * up; GELU (tanh form) where `gelu`, else SiLU. */
struct cuda_launched cuda_launch_gate(cudaStream_t stream, const float *gate, const float *up,
                                      uint32_t n, uint32_t cols, bool gelu, struct cuda_act out);
struct cuda_launched cuda_launch_norm(cudaStream_t stream, const float *x, uint32_t n,
                                      uint32_t cols, const float *gain, float eps,
                                      struct cuda_act out);
/* sum = sum + norm(x). */
struct cuda_launched cuda_launch_norm_add(cudaStream_t stream, const float *x, uint32_t n,
                                          uint32_t cols, const float *gain, float eps, float *sum);

/* ---- elements.cu ----------------------------------------------------------------------------- */

struct cuda_launched cuda_launch_softcap(cudaStream_t stream, float *x, size_t count, float cap);
/* out[at[i]] = rows[i]. */
struct cuda_launched cuda_launch_place(cudaStream_t stream, const float *rows, const uint32_t *at,
                                       uint32_t n, uint32_t cols, float *out);

/* ---- pick.cu --------------------------------------------------------------------------------- */

struct cuda_launched cuda_launch_pick(cudaStream_t stream, const float *x, uint32_t n,
                                      uint32_t cols, const struct pick *picks,
                                      struct picked *picked);

/* ---- rope.cu --------------------------------------------------------------------------------- */

struct cuda_rope {
    struct cuda_rows rows;
    struct cuda_kv kv;
    float *q; /* [count][n_heads * dim_k], as k and v the first row of the launch first */
    float *k;
    const float *v;
    const float *q_norm, *k_norm; /* or NULL */
    const float *table;           /* [rows of the step][rope_dim] = cos, sin by turns */
    float norm_eps;
    uint32_t n_heads;
    uint32_t rope_dim;
    bool halves; /* pairs are (i, i + rope_dim / 2), else (2i, 2i + 1) */
};
struct cuda_launched cuda_launch_rope(cudaStream_t stream, const struct cuda_rope *rope);

/* ---- attention.cu, attention_merge.cu -------------------------------------------------------- */

/* Queries that a block has at most: rows of a run times heads of a group. */
enum cuda_tile { CUDA_TILE_4 = 4, CUDA_TILE_8 = 8, CUDA_TILE_16 = 16, CUDA_TILE_32 = 32 };

struct cuda_attention {
    struct cuda_rows rows;
    struct cuda_kv kv;
    const float *q; /* [count][n_heads * dim_k] */
    uint32_t n_heads;
    uint32_t group, skip; /* head h reads KV head (skip + h) / group */
    float scale, softcap; /* softcap 0: none */
    uint32_t window;      /* 0: none */
    uint32_t tile_rows;   /* rows of a run that a block takes, at most */
    uint32_t tile_heads;  /* heads of a group that a block takes, at most */
    /* Where the pages of a row are shared out: a block takes `split_pages` of them and leaves every
     * page's partial sums; 0: a block walks all pages of its rows and writes `out`. */
    uint32_t split_pages;
    uint32_t splits;
    /* [row][head][splits * split_pages]: maximum and sum, then, behind all of these, values. */
    float *partials;
    struct cuda_act out;
    float *floats; /* [count][n_heads * dim_v]: instead of `out`, where heads are no whole blocks */
};

/* The largest tile there are registers for. */
enum cuda_tile cuda_attention_tile_max(uint32_t dim_v);
struct cuda_launched cuda_launch_attention(cudaStream_t stream, const struct cuda_attention *a,
                                           enum cuda_tile tile);
/* Merges the pages of each row and head, ascending, and writes `out`. */
struct cuda_launched cuda_launch_attention_merge(cudaStream_t stream,
                                                 const struct cuda_attention *a);

#ifdef __cplusplus
}
#endif

#endif
