/* Weights as the file has them, and their values one by one. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/ref/ref_block.h"
#include "worker/kernels/shape.h"

#include <stdlib.h>
#include <string.h>

static bool ref_source_memory(void *ctx, uint64_t at, void *to, size_t size)
{
    const uint8_t *data = ctx;
    memcpy(to, data + at, size);
    return true;
}

enum err ref_weight_load(struct backend *b, enum quant_type type, const void *data, uint32_t rows,
                         uint32_t cols, uint32_t groups, struct weight **ret_weight,
                         struct errbuf *eb)
{
    const struct weight_source source = {.read = ref_source_memory, .ctx = (void *)(uintptr_t)data};
    return ref_weight_read(b, type, &source, rows, cols, groups, ret_weight, eb);
}

enum err ref_weight_read(struct backend *b, enum quant_type type,
                         const struct weight_source *source, uint32_t rows, uint32_t cols,
                         uint32_t groups, struct weight **ret_weight, struct errbuf *eb)
{
    uint64_t row_bytes;
    enum err err = shape_weight_check(type, rows, cols, groups, &row_bytes, eb);
    if (err != ERR_OK)
        return err;
    uint64_t bytes = row_bytes * rows;
    struct weight *w = calloc(1, sizeof *w);
    uint8_t *copy = malloc(bytes);
    if (w == NULL || copy == NULL) {
        free(w);
        free(copy);
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes for a weight", (unsigned long long)bytes);
    }
    if (!source->read(source->ctx, 0, copy, bytes)) {
        free(w);
        free(copy);
        return err_set(eb, ERR_IO, "a weight could not be read");
    }
    *w = (struct weight){.type = type,
                         .rows = rows,
                         .cols = cols,
                         .groups = groups,
                         .row_bytes = row_bytes,
                         .data = copy};
    ((struct host_backend *)b)->weight_bytes += bytes;
    *ret_weight = w;
    return ERR_OK;
}

void ref_weight_free(struct backend *b, struct weight *w)
{
    if (w == NULL)
        return;
    ((struct host_backend *)b)->weight_bytes -= w->row_bytes * w->rows;
    free(w->data);
    free(w);
}

bool ref_type_is_float(enum quant_type type)
{
    return type == QUANT_TYPE_F32 || type == QUANT_TYPE_F16 || type == QUANT_TYPE_BF16;
}

float ref_float_element(enum quant_type type, const uint8_t *row, uint32_t k)
{
    uint16_t half;
    float x;
    switch (type) {
    case QUANT_TYPE_F32:
        memcpy(&x, row + 4 * (size_t)k, sizeof x);
        return x;
    case QUANT_TYPE_F16:
        memcpy(&half, row + 2 * (size_t)k, sizeof half);
        return half_to_float(half);
    default:
        CHECK(type == QUANT_TYPE_BF16);
        memcpy(&half, row + 2 * (size_t)k, sizeof half);
        return bfloat_to_float(half);
    }
}

static void ref_nibbles(const uint8_t qs[16], int offset, int32_t ret_q[32])
{
    for (int j = 0; j < 16; j++) {
        ret_q[j] = (qs[j] & 15) - offset;
        ret_q[j + 16] = (qs[j] >> 4) - offset;
    }
}

void ref_block_read(enum quant_type type, const uint8_t *row, uint32_t block,
                    struct ref_block *ret_block)
{
    ret_block->has_min = false;
    ret_block->m = 0.0f;
    switch (type) {
    case QUANT_TYPE_Q4_0: {
        struct block_q4_0 q4;
        memcpy(&q4, row + block * sizeof q4, sizeof q4);
        ret_block->d = half_to_float(q4.d);
        ref_nibbles(q4.qs, 8, ret_block->q);
        break;
    }
    case QUANT_TYPE_Q4_1: {
        struct block_q4_1 q4;
        memcpy(&q4, row + block * sizeof q4, sizeof q4);
        ret_block->d = half_to_float(q4.d);
        ret_block->m = half_to_float(q4.m);
        ret_block->has_min = true;
        ref_nibbles(q4.qs, 0, ret_block->q);
        break;
    }
    default: {
        CHECK(type == QUANT_TYPE_Q8_0);
        struct block_q8_0 q8;
        memcpy(&q8, row + block * sizeof q8, sizeof q8);
        ret_block->d = half_to_float(q8.d);
        for (int j = 0; j < 32; j++)
            ret_block->q[j] = q8.qs[j];
        break;
    }
    }
}

static float ref_weight_element(const struct weight *w, const uint8_t *row, uint32_t k)
{
    if (ref_type_is_float(w->type))
        return ref_float_element(w->type, row, k);
    struct ref_block block;
    ref_block_read(w->type, row, k / QUANT_BLOCK_ITEMS, &block);
    float product = block.d * (float)block.q[k % QUANT_BLOCK_ITEMS];
    return block.has_min ? product + block.m : product;
}

void ref_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
               float scale, float *out)
{
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(ids[i] >= 0 && (uint32_t)ids[i] < w->rows);
        const uint8_t *row = w->data + w->row_bytes * (uint32_t)ids[i];
        for (uint32_t k = 0; k < w->cols; k++)
            out[(size_t)i * w->cols + k] = ref_weight_element(w, row, k) * scale;
    }
}
