/* Weights as the file has them, and their values one by one. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/quant_raw_read.h"
#include "worker/kernels/ref/ref_block.h"
#include "worker/kernels/shape.h"

#include <stdlib.h>
#include <string.h>

static enum err ref_weight_read(struct backend *b, const struct weight_job *job, struct errbuf *eb)
{
    enum err err = shape_weight_check(job->type, job->rows, job->cols, &job->cut, eb);
    if (err != ERR_OK)
        return err;
    uint64_t row_bytes = weight_row_bytes(job->type, job->cols, &job->cut);
    uint64_t bytes = row_bytes * job->rows;
    struct weight *w = calloc(1, sizeof *w);
    uint8_t *copy = malloc(bytes);
    if (w == NULL || copy == NULL) {
        free(w);
        free(copy);
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes for a weight", (unsigned long long)bytes);
    }
    if (!job->source.read(job->source.ctx, 0, copy, bytes)) {
        free(w);
        free(copy);
        return err_set(eb, ERR_IO, "a weight could not be read");
    }
    *w = (struct weight){.type = job->type,
                         .rows = job->rows,
                         .cols = job->cols,
                         .lead = shape_weight_lead(job->type, &job->cut),
                         .cut = job->cut,
                         .row_bytes = row_bytes,
                         .data = copy};
    ((struct host_backend *)b)->weight_bytes += bytes;
    *job->ret_weight = w;
    return ERR_OK;
}

enum err ref_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                          uint32_t *ret_failed, struct errbuf *eb)
{
    for (uint32_t i = 0; i < n_jobs; i++) {
        enum err err = ref_weight_read(b, &jobs[i], eb);
        if (err == ERR_OK)
            continue;
        *ret_failed = i;
        for (; i > 0; i--) {
            ref_weight_free(b, *jobs[i - 1].ret_weight);
            *jobs[i - 1].ret_weight = NULL;
        }
        return err;
    }
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

/* Types with a scale for each 16 elements; the integer sums of both halves are scaled and added
 * before they meet a float. */
static bool ref_type_has_halves(enum quant_type type)
{
    return type == QUANT_TYPE_Q2_K || type == QUANT_TYPE_Q3_K || type == QUANT_TYPE_Q6_K;
}

void ref_block_read(enum quant_type type, const uint8_t *row, uint32_t block,
                    struct ref_block *ret_block)
{
    struct quant_raw raw;
    quant_raw_read(type, row, block, &raw);
    ret_block->d = quant_raw_d(type, &raw);
    ret_block->m = half_to_float(raw.m);
    ret_block->has_min = quant_raw_has_min(type);
    for (int half = 0; half < 2; half++) {
        ret_block->scale[half] = raw.scale[half];
        ret_block->min[half] = raw.min[half];
    }
    if (!ref_type_has_halves(type)) {
        /* Exact: 11 bits of binary16 times 6. */
        ret_block->d *= (float)raw.scale[0];
        ret_block->m *= (float)raw.min[0];
        ret_block->scale[0] = ret_block->scale[1] = 1;
        ret_block->min[0] = ret_block->min[1] = 1;
    }
    for (int j = 0; j < 32; j++)
        ret_block->q[j] = quant_raw_value(type, raw.q[j]);
}

/* Elements of block `block` of a row; the last block of a float row may be short. */
static void ref_weight_values(const struct weight *w, const uint8_t *row, uint32_t block,
                              float ret_values[QUANT_BLOCK_ITEMS])
{
    uint32_t begin = block * QUANT_BLOCK_ITEMS;
    if (ref_type_is_float(w->type)) {
        for (uint32_t k = begin; k < w->cols && k < begin + QUANT_BLOCK_ITEMS; k++)
            ret_values[k - begin] = ref_float_element(w->type, row, k);
        return;
    }
    struct ref_block b;
    ref_block_read(w->type, row, block, &b);
    for (uint32_t j = 0; j < QUANT_BLOCK_ITEMS; j++) {
        float product = b.d * (float)b.scale[j / 16] * (float)b.q[j];
        ret_values[j] = b.has_min ? product + b.m * (float)b.min[j / 16] : product;
    }
}

void ref_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
               float scale, float *out)
{
    (void)b;
    for (uint32_t i = 0; i < n; i++) {
        CHECK(ids[i] >= 0 && (uint32_t)ids[i] < w->rows);
        const uint8_t *row = w->data + w->row_bytes * (uint32_t)ids[i];
        float values[QUANT_BLOCK_ITEMS] = {0};
        for (uint32_t k = 0; k < w->cols; k++) {
            if (k % QUANT_BLOCK_ITEMS == 0)
                ref_weight_values(w, row, k / QUANT_BLOCK_ITEMS, values);
            out[(size_t)i * w->cols + k] = values[k % QUANT_BLOCK_ITEMS] * scale;
        }
    }
}
