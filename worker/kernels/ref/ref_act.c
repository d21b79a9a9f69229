/* Activations: quantized per (row, block of 32), and kept as floats where float weights read them.
 */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/quant_block.h"

#include <stdlib.h>
#include <string.h>

struct act *ref_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    struct act *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->rows_max = rows_max;
    a->cols_max = cols_max;
    a->blocks_max = (cols_max + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    size_t blocks = (size_t)rows_max * a->blocks_max;
    a->q = host_alloc(b, blocks * QUANT_BLOCK_ITEMS);
    a->scales = host_alloc(b, blocks * sizeof *a->scales);
    a->floats = keep_float ? host_alloc(b, (size_t)rows_max * cols_max * sizeof *a->floats) : NULL;
    if (a->q == NULL || a->scales == NULL || (keep_float && a->floats == NULL)) {
        ref_act_free(b, a);
        return NULL;
    }
    return a;
}

void ref_act_free(struct backend *b, struct act *a)
{
    if (a == NULL)
        return;
    host_free(b, a->q);
    host_free(b, a->scales);
    host_free(b, a->floats);
    free(a);
}

void ref_quantize_block(const float *x, uint32_t n, int8_t *ret_q, float *ret_scale)
{
    uint32_t amax_bits = 0;
    for (uint32_t j = 0; j < n; j++) {
        uint32_t magnitude = half_float_bits(x[j]) & 0x7fffffffu;
        amax_bits = magnitude > amax_bits ? magnitude : amax_bits;
    }
    float inverse;
    nm_quantize_scale(amax_bits, ret_scale, &inverse);
    for (uint32_t j = 0; j < n; j++) {
        float scaled = x[j] * inverse;
        /* An infinity times 0 is no number: such a block is all 0. */
        ret_q[j] = scaled == scaled ? (int8_t)rintf(scaled) : (int8_t)0;
    }
}

void ref_act_store(struct act *a, uint32_t row, const float *x, uint32_t cols)
{
    CHECK(row < a->rows_max && cols <= a->cols_max);
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    for (uint32_t b = 0; b < blocks; b++) {
        uint32_t begin = b * QUANT_BLOCK_ITEMS;
        uint32_t n = cols - begin < QUANT_BLOCK_ITEMS ? cols - begin : QUANT_BLOCK_ITEMS;
        size_t cell = (size_t)row * a->blocks_max + b;
        memset(a->q + cell * QUANT_BLOCK_ITEMS, 0, QUANT_BLOCK_ITEMS);
        ref_quantize_block(x + begin, n, a->q + cell * QUANT_BLOCK_ITEMS, a->scales + cell);
    }
    if (a->floats != NULL)
        memcpy(a->floats + (size_t)row * a->cols_max, x, cols * sizeof *x);
}

void ref_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                  int8_t *ret_q, float *ret_scales, float *ret_float)
{
    (void)b;
    CHECK(row < a->rows_max && cols <= a->cols_max);
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    memcpy(ret_q, a->q + (size_t)row * a->blocks_max * QUANT_BLOCK_ITEMS, cols);
    memcpy(ret_scales, a->scales + (size_t)row * a->blocks_max, blocks * sizeof *ret_scales);
    if (ret_float != NULL) {
        CHECK(a->floats != NULL);
        memcpy(ret_float, a->floats + (size_t)row * a->cols_max, cols * sizeof *ret_float);
    }
}

void ref_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out)
{
    (void)b;
    for (uint32_t i = 0; i < n; i++)
        ref_act_store(out, i, x + (size_t)i * cols, cols);
}
