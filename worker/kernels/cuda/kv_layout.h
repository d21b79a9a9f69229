/*
 * kv_layout.h - the KV cache in device memory: [page][layer][kv head], and for a head of a page
 * first K, then V. C and C++.
 *
 *   f16:  K [dim_k / 8, rounded up][32 positions][8 of dim_k]   V [4][dim_v][8 positions] binary16
 *   q8_0: K [dim_k / 16][32 positions][16 of dim_k]             V [2][dim_v][16 positions]  int8
 *         each with its scales behind it: [dim / 32][32 positions] float
 *
 * A score is a sum over dim_k, so a lane is a position: it reads 16 bytes of its own, and the
 * lanes' lie side by side. A value is a sum over positions, so a lane is an element of dim_v, and
 * the same is true. Either way a warp reads 512 bytes in a row, from memory or from a copy of the
 * page in shared memory, where that is free of bank conflicts. The page is contiguous, so it gets
 * there in pieces of 16 bytes whatever the order inside.
 *
 * shape.h has the CPU's order. A page takes as many bytes in both, but for heads whose size is no
 * multiple of 32.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_KV_LAYOUT_H
#define CLOISTER_WORKER_KERNELS_CUDA_KV_LAYOUT_H

#include "worker/kernels/device_code.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CUDA_KV_POSITIONS 32u /* of a page: KV_PAGE_TOKENS */

/* One layer of a cache, as launches get it. */
struct cuda_kv {
    uint8_t *data; /* of page 0 */
    uint64_t page_bytes;
    uint32_t head_bytes;
    uint32_t k_scales_at, v_at, v_scales_at; /* bytes within a head; scales of q8_0 only */
    uint32_t n_kv_heads;
    uint32_t dim_k, dim_v;
    bool is_q8;
};

/* Fills in all but data and page_bytes. */
CLOISTER_DEVICE static inline void cuda_kv_layout(struct cuda_kv *kv, uint32_t n_kv_heads,
                                                  uint32_t dim_k, uint32_t dim_v, bool is_q8)
{
    const uint32_t k_padded = (dim_k + 7) / 8 * 8;
    kv->n_kv_heads = n_kv_heads;
    kv->dim_k = dim_k;
    kv->dim_v = dim_v;
    kv->is_q8 = is_q8;
    if (is_q8) {
        kv->k_scales_at = CUDA_KV_POSITIONS * dim_k;
        kv->v_at = kv->k_scales_at + dim_k / 32 * CUDA_KV_POSITIONS * 4;
        kv->v_scales_at = kv->v_at + CUDA_KV_POSITIONS * dim_v;
        kv->head_bytes = kv->v_scales_at + dim_v / 32 * CUDA_KV_POSITIONS * 4;
    } else {
        kv->k_scales_at = 0;
        kv->v_at = CUDA_KV_POSITIONS * k_padded * 2;
        kv->v_scales_at = 0;
        kv->head_bytes = kv->v_at + CUDA_KV_POSITIONS * dim_v * 2;
    }
}

CLOISTER_DEVICE static inline uint8_t *cuda_kv_head(const struct cuda_kv *kv, uint32_t page,
                                                    uint32_t head)
{
    return kv->data + page * kv->page_bytes + (size_t)head * kv->head_bytes;
}

/* Bytes from K's, or V's, first to that of an element; `per` is 8 for f16, 16 for q8_0. */
CLOISTER_DEVICE static inline uint32_t cuda_kv_k_cell(uint32_t d, uint32_t slot, uint32_t per)
{
    return ((d / per * CUDA_KV_POSITIONS + slot) * per + d % per) * (16 / per);
}

CLOISTER_DEVICE static inline uint32_t cuda_kv_v_cell(uint32_t d, uint32_t slot, uint32_t per,
                                                      uint32_t dim_v)
{
    return ((slot / per * dim_v + d) * per + slot % per) * (16 / per);
}

#endif
