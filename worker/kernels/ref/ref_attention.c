/* Attention of one (row, head) over the pages of its sequence. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/shape.h"
#include "worker/kernels/sum_order.h"

#include <stdlib.h>
#include <string.h>

/* Maximum, sum of exponentials and weighted values, of one page or of all pages so far. */
struct ref_partial {
    float max;
    float sum;
    float values[SHAPE_HEAD_DIM_MAX];
};

/* Slots begin .. end - 1 of one page. */
static void ref_attention_page(const struct attention_job *job, const float *q, uint32_t page,
                               uint32_t kv_head, uint32_t begin, uint32_t end,
                               struct ref_partial *ret_partial)
{
    const struct kv_shape *shape = &job->kv->shape;
    const float minus_infinity = -half_bits_float(0x7f800000u);
    float e[KV_PAGE_TOKENS];
    float max = minus_infinity;
    for (uint32_t j = begin; j < end; j++) {
        const float *k = ref_kv_key(job->kv, page, job->layer, kv_head, j);
        float s = 0.0f;
        for (uint32_t d = 0; d < shape->head_dim_k; d++)
            s = fmaf(q[d] * job->scale, k[d], s);
        if (job->softcap > 0.0f)
            s = job->softcap * nm_tanh(s / job->softcap);
        e[j] = s == s ? s : minus_infinity;
        max = e[j] > max ? e[j] : max;
    }
    float lanes[16] = {0};
    for (uint32_t j = begin; j < end; j++) {
        e[j] = nm_exp(e[j] - max);
        lanes[j % 16] += e[j];
    }
    ret_partial->max = max;
    ret_partial->sum = sum_lane_tree(lanes, 16);
    memset(ret_partial->values, 0, shape->head_dim_v * sizeof(float));
    for (uint32_t j = begin; j < end; j++) {
        const float *v = ref_kv_value(job->kv, page, job->layer, kv_head, j);
        for (uint32_t d = 0; d < shape->head_dim_v; d++)
            ret_partial->values[d] = fmaf(e[j], v[d], ret_partial->values[d]);
    }
}

static void ref_attention_merge(struct ref_partial *all, const struct ref_partial *page,
                                uint32_t dim)
{
    float max = page->max > all->max ? page->max : all->max;
    float a = nm_exp(all->max - max);
    float b = nm_exp(page->max - max);
    all->max = max;
    all->sum = fmaf(page->sum, b, all->sum * a);
    for (uint32_t d = 0; d < dim; d++)
        all->values[d] = fmaf(page->values[d], b, all->values[d] * a);
}

static void ref_attention_head(const struct attention_job *job, uint32_t row, uint32_t head,
                               float *ret_out)
{
    const struct kv_shape *shape = &job->kv->shape;
    uint32_t kv_head = (job->skip + head) / shape_attention_group(job, shape);
    uint32_t position = job->rows->position[row];
    uint32_t first = job->window > 0 && position >= job->window ? position + 1 - job->window : 0;
    const uint32_t *pages =
        job->rows->page_table + (size_t)job->rows->sequence[row] * job->rows->page_table_stride;
    const float *q = job->q + ((size_t)row * job->n_heads + head) * shape->head_dim_k;

    struct ref_partial all;
    struct ref_partial partial;
    for (uint32_t p = first / KV_PAGE_TOKENS; p <= position / KV_PAGE_TOKENS; p++) {
        uint32_t base = p * KV_PAGE_TOKENS;
        uint32_t begin = first > base ? first - base : 0;
        uint32_t end = position - base < KV_PAGE_TOKENS ? position - base + 1 : KV_PAGE_TOKENS;
        bool is_first = p == first / KV_PAGE_TOKENS;
        ref_attention_page(job, q, pages[p], kv_head, begin, end, is_first ? &all : &partial);
        if (!is_first)
            ref_attention_merge(&all, &partial, shape->head_dim_v);
    }
    for (uint32_t d = 0; d < shape->head_dim_v; d++)
        ret_out[d] = all.values[d] / all.sum;
}

void ref_attention(struct backend *b, const struct attention_job *job)
{
    (void)b;
    const struct kv_shape *shape = &job->kv->shape;
    uint32_t cols = job->n_heads * shape->head_dim_v;
    float *row = malloc((size_t)cols * sizeof *row);
    CHECK(row != NULL);
    for (uint32_t i = 0; i < job->rows->n_rows; i++) {
        for (uint32_t h = 0; h < job->n_heads; h++)
            ref_attention_head(job, i, h, row + (size_t)h * shape->head_dim_v);
        ref_act_store(job->out, i, row, cols);
    }
    free(row);
}
