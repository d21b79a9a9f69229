/* The KV cache and what is written to it: rotation, then rounding to the cache's type. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/shape.h"

#include <stdlib.h>

enum err ref_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                    struct errbuf *eb)
{
    enum err err = shape_kv_check(shape, eb);
    if (err != ERR_OK)
        return err;
    struct kv *kv = calloc(1, sizeof *kv);
    if (kv == NULL)
        return err_set(eb, ERR_NO_MEMORY, "KV cache");
    kv->shape = *shape;
    size_t cells = (size_t)shape->n_pages * shape->n_layers * shape->n_kv_heads * KV_PAGE_TOKENS;
    kv->k = calloc(cells, shape->head_dim_k * sizeof(float));
    kv->v = calloc(cells, shape->head_dim_v * sizeof(float));
    uint64_t bytes = (uint64_t)cells * (shape->head_dim_k + shape->head_dim_v) * sizeof(float);
    if (kv->k == NULL || kv->v == NULL) {
        ref_kv_free(b, kv);
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes for the KV cache", (unsigned long long)bytes);
    }
    kv->bytes = bytes;
    ((struct host_backend *)b)->kv_bytes += bytes;
    *ret_kv = kv;
    return ERR_OK;
}

void ref_kv_free(struct backend *b, struct kv *kv)
{
    if (kv == NULL)
        return;
    ((struct host_backend *)b)->kv_bytes -= kv->bytes;
    free(kv->k);
    free(kv->v);
    free(kv);
}

static size_t ref_kv_cell(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head,
                          uint32_t slot)
{
    CHECK(page < kv->shape.n_pages && layer < kv->shape.n_layers);
    size_t cell = (size_t)page * kv->shape.n_layers + layer;
    cell = cell * kv->shape.n_kv_heads + head;
    return cell * KV_PAGE_TOKENS + slot;
}

float *ref_kv_key(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head, uint32_t slot)
{
    return kv->k + ref_kv_cell(kv, page, layer, head, slot) * kv->shape.head_dim_k;
}

float *ref_kv_value(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head,
                    uint32_t slot)
{
    return kv->v + ref_kv_cell(kv, page, layer, head, slot) * kv->shape.head_dim_v;
}

/* x as the cache will give it back. */
static void ref_kv_round(enum kv_type type, const float *x, uint32_t dim, float *ret_cells)
{
    if (type == KV_TYPE_F16) {
        for (uint32_t d = 0; d < dim; d++)
            ret_cells[d] = half_to_float(half_from_float(x[d]));
        return;
    }
    for (uint32_t d = 0; d < dim; d += QUANT_BLOCK_ITEMS) {
        int8_t q[QUANT_BLOCK_ITEMS];
        float scale;
        ref_quantize_block(x + d, QUANT_BLOCK_ITEMS, q, &scale);
        for (uint32_t j = 0; j < QUANT_BLOCK_ITEMS; j++)
            ret_cells[d + j] = scale * (float)q[j];
    }
}

static void ref_rotate(float *head, const float *table, uint32_t rope_dim, enum rope_style style)
{
    uint32_t pairs = rope_dim / 2;
    for (uint32_t i = 0; i < pairs; i++) {
        float *x = style == ROPE_STYLE_PAIRS ? head + 2 * i : head + i;
        float *y = style == ROPE_STYLE_PAIRS ? x + 1 : x + pairs;
        float cosine = table[2 * i];
        float sine = table[2 * i + 1];
        float x0 = *x;
        float y0 = *y;
        *x = fmaf(x0, cosine, -(y0 * sine));
        *y = fmaf(y0, cosine, x0 * sine);
    }
}

void ref_rope_kv(struct backend *b, const struct rope_kv_job *job)
{
    (void)b;
    const struct kv_shape *shape = &job->kv->shape;
    CHECK(job->rope_dim % 2 == 0 && job->rope_dim <= shape->head_dim_k);
    for (uint32_t i = 0; i < job->rows->n_rows; i++) {
        uint32_t position = job->rows->position[i];
        const uint32_t *pages =
            job->rows->page_table + (size_t)job->rows->sequence[i] * job->rows->page_table_stride;
        uint32_t page = pages[position / KV_PAGE_TOKENS];
        uint32_t slot = position % KV_PAGE_TOKENS;
        const float *table = job->table + (size_t)position * job->rope_dim;
        for (uint32_t h = 0; h < job->n_heads; h++) {
            float *q = job->q + ((size_t)i * job->n_heads + h) * shape->head_dim_k;
            if (job->q_norm != NULL)
                ref_norm_row(q, shape->head_dim_k, job->q_norm, job->norm_eps, q);
            ref_rotate(q, table, job->rope_dim, job->style);
        }
        for (uint32_t h = 0; h < shape->n_kv_heads; h++) {
            size_t row_head = (size_t)i * shape->n_kv_heads + h;
            float *k = job->k + row_head * shape->head_dim_k;
            if (job->k_norm != NULL)
                ref_norm_row(k, shape->head_dim_k, job->k_norm, job->norm_eps, k);
            ref_rotate(k, table, job->rope_dim, job->style);
            ref_kv_round(shape->type, k, shape->head_dim_k,
                         ref_kv_key(job->kv, page, job->layer, h, slot));
            ref_kv_round(shape->type, job->v + row_head * shape->head_dim_v, shape->head_dim_v,
                         ref_kv_value(job->kv, page, job->layer, h, slot));
        }
    }
}
