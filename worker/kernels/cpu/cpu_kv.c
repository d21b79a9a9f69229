/* The KV cache (layout: shape.h) and what a step writes to it. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <stdlib.h>
#include <string.h>

enum err cpu_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                    struct errbuf *eb)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    enum err err = shape_kv_check(shape, eb);
    if (err != ERR_OK)
        return err;
    struct kv *kv = calloc(1, sizeof *kv);
    if (kv == NULL)
        return err_set(eb, ERR_NO_MEMORY, "KV cache");
    kv->shape = *shape;
    shape_kv_layout(shape, &kv->layout);
    kv->bytes = kv->layout.page_bytes * shape->n_pages;
    kv->data = pages_alloc(&cpu->pages, kv->bytes, &kv->chunk);
    if (kv->data == NULL) {
        free(kv);
        return err_set(eb, ERR_NO_MEMORY, "KV cache of %u pages of %llu bytes", shape->n_pages,
                       (unsigned long long)backend_kv_page_bytes(shape));
    }
    cpu->host.kv_bytes += kv->bytes;
    *ret_kv = kv;
    return ERR_OK;
}

void cpu_kv_free(struct backend *b, struct kv *kv)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    if (kv == NULL)
        return;
    cpu->host.kv_bytes -= kv->bytes;
    pages_free(&cpu->pages, kv->chunk);
    free(kv);
}

static uint8_t *cpu_kv_head(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head)
{
    CHECK(page < kv->shape.n_pages && layer < kv->shape.n_layers);
    return kv->data + page * kv->layout.page_bytes + layer * kv->layout.layer_bytes +
           head * kv->layout.head_bytes;
}

void cpu_kv_page(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head,
                 struct kernel_page *ret_page)
{
    uint8_t *k = cpu_kv_head(kv, page, layer, head);
    uint8_t *v = k + kv->layout.k_bytes;
    ret_page->type = kv->shape.type;
    ret_page->k = k;
    ret_page->v = v;
    ret_page->k_scales = (const float *)(const void *)(k + KV_PAGE_TOKENS * kv->shape.head_dim_k);
    ret_page->v_scales =
        (const float *)(const void *)(v + KV_PAGE_TOKENS * kv->layout.dim_v_padded);
    ret_page->dim_k = kv->shape.head_dim_k;
    ret_page->dim_v_padded = kv->layout.dim_v_padded;
}

struct rope_run {
    struct cpu_backend *cpu;
    const struct rope_kv_job *job;
};

static void cpu_kv_write_f16(const struct cpu_kernels *kernels, const struct kv *kv, uint8_t *head,
                             uint32_t slot, const float *k, const float *v)
{
    uint16_t halves[SHAPE_HEAD_DIM_MAX];
    kernels->halves(k, kv->shape.head_dim_k, halves);
    uint16_t *k_cells = (uint16_t *)(void *)head;
    for (uint32_t d = 0; d < kv->shape.head_dim_k; d++)
        k_cells[d * KV_PAGE_TOKENS + slot] = halves[d];
    uint16_t *v_cells = (uint16_t *)(void *)(head + kv->layout.k_bytes);
    kernels->halves(v, kv->shape.head_dim_v, v_cells + (size_t)slot * kv->layout.dim_v_padded);
}

static void cpu_kv_write_q8(const struct cpu_kernels *kernels, const struct kv *kv, uint8_t *head,
                            uint32_t slot, const float *k, const float *v)
{
    int8_t q[SHAPE_HEAD_DIM_MAX];
    float scales[SHAPE_HEAD_DIM_MAX / QUANT_BLOCK_ITEMS];
    float sums[SHAPE_HEAD_DIM_MAX / QUANT_BLOCK_ITEMS];
    int32_t pairs[SHAPE_HEAD_DIM_MAX / QUANT_BLOCK_ITEMS];
    uint32_t dim_k = kv->shape.head_dim_k;
    kernels->quantize(k, dim_k, q, scales, sums, pairs);
    int8_t *k_cells = (int8_t *)head;
    float *k_scales = (float *)(void *)(head + KV_PAGE_TOKENS * dim_k);
    for (uint32_t d = 0; d < dim_k; d++)
        k_cells[d * KV_PAGE_TOKENS + slot] = q[d];
    for (uint32_t b = 0; b < dim_k / QUANT_BLOCK_ITEMS; b++)
        k_scales[b * KV_PAGE_TOKENS + slot] = scales[b];

    uint32_t dim_v = kv->layout.dim_v_padded;
    uint8_t *v_head = head + kv->layout.k_bytes;
    float *v_scales = (float *)(void *)(v_head + KV_PAGE_TOKENS * dim_v);
    kernels->quantize(v, dim_v, (int8_t *)v_head + (size_t)slot * dim_v,
                      v_scales + (size_t)slot * (dim_v / QUANT_BLOCK_ITEMS), sums, pairs);
}

/* The norm where there is one, then the rotation. */
static void cpu_turn_head(const struct cpu_kernels *kernels, const struct rope_kv_job *job,
                          float *head, const float *gain, const float *table)
{
    uint32_t dim = job->kv->shape.head_dim_k;
    if (gain != NULL) {
        float normed[SHAPE_HEAD_DIM_MAX];
        kernels->norm(head, dim, gain, job->norm_eps, normed);
        memcpy(head, normed, dim * sizeof *head);
    }
    kernels->rotate(head, table, job->rope_dim, job->style);
}

static void cpu_rope_row(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct rope_run *run = ctx;
    const struct rope_kv_job *job = run->job;
    const struct cpu_kernels *kernels = run->cpu->kernels;
    const struct kv *kv = job->kv;
    uint32_t dim_k = kv->shape.head_dim_k;
    uint32_t position = job->rows->position[task];
    const uint32_t *pages =
        job->rows->page_table + (size_t)job->rows->sequence[task] * job->rows->page_table_stride;
    uint32_t page = pages[position / KV_PAGE_TOKENS];
    uint32_t slot = position % KV_PAGE_TOKENS;
    const float *table = job->table + (size_t)position * job->rope_dim;
    for (uint32_t h = 0; h < job->n_heads; h++)
        cpu_turn_head(kernels, job, job->q + ((size_t)task * job->n_heads + h) * dim_k, job->q_norm,
                      table);
    for (uint32_t h = 0; h < kv->shape.n_kv_heads; h++) {
        size_t row_head = (size_t)task * kv->shape.n_kv_heads + h;
        float *k = job->k + row_head * dim_k;
        const float *v = job->v + row_head * kv->shape.head_dim_v;
        uint8_t *head = cpu_kv_head(kv, page, job->layer, h);
        cpu_turn_head(kernels, job, k, job->k_norm, table);
        if (kv->shape.type == KV_TYPE_F16)
            cpu_kv_write_f16(kernels, kv, head, slot, k, v);
        else
            cpu_kv_write_q8(kernels, kv, head, slot, k, v);
    }
}

void cpu_rope_kv(struct backend *b, const struct rope_kv_job *job)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    CHECK(job->rope_dim % 2 == 0 && job->rope_dim <= job->kv->shape.head_dim_k);
    struct rope_run run = {.cpu = cpu, .job = job};
    /* Two rows write different cells, never the same one: a position stands once in a step. */
    if (job->rows->n_rows < 8) {
        for (uint32_t i = 0; i < job->rows->n_rows; i++)
            cpu_rope_row(&run, i, 0);
        return;
    }
    pool_run(cpu->pool, cpu_rope_row, &run, job->rows->n_rows);
}
