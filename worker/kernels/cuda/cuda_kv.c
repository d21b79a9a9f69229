/* The KV cache on the device (kv_layout.h), and what a step writes to it. */
#include "worker/kernels/cuda/cuda_internal.h"
#include "worker/kernels/cuda/kernels.h"

#include "common/check.h"

#include <stdlib.h>

_Static_assert(CUDA_KV_POSITIONS == KV_PAGE_TOKENS, "kv_layout.h is made for such pages");

static struct cuda_kv kv_of(const struct kv_shape *shape)
{
    struct cuda_kv kv = {0};
    cuda_kv_layout(&kv, shape->n_kv_heads, shape->head_dim_k, shape->head_dim_v,
                   shape->type == KV_TYPE_Q8_0);
    kv.page_bytes = (uint64_t)kv.head_bytes * shape->n_kv_heads * shape->n_layers;
    return kv;
}

uint64_t backend_cuda_kv_page_bytes(const struct kv_shape *shape)
{
    return kv_of(shape).page_bytes;
}

enum err cuda_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                     struct errbuf *eb)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    enum err err = shape_kv_check(shape, eb);
    if (err != ERR_OK)
        return err;
    struct kv *kv = calloc(1, sizeof *kv);
    if (kv == NULL)
        return err_set(eb, ERR_NO_MEMORY, "KV cache");
    kv->shape = *shape;
    kv->device = kv_of(shape);
    uint64_t bytes = kv->device.page_bytes * shape->n_pages;
    void *data = NULL;
    err = cuda_alloc(cuda, CUDA_MEMORY_KV, bytes, "KV cache", &data, eb);
    if (err != ERR_OK) {
        free(kv);
        return err;
    }
    kv->device.data = data;
    /* Pages are read whole, positions that nobody wrote yet included. */
    CUDA_DO(cudaMemsetAsync(data, 0, bytes, cuda->stream), "clearing a KV cache of %llu bytes",
            (unsigned long long)bytes);
    *ret_kv = kv;
    return ERR_OK;
}

void cuda_kv_free(struct backend *b, struct kv *kv)
{
    if (kv == NULL)
        return;
    cuda_free((struct cuda_backend *)b, kv->device.data);
    free(kv);
}

struct cuda_kv cuda_kv_layer(const struct kv *kv, uint32_t layer)
{
    struct cuda_kv of = kv->device;
    CHECK(layer < kv->shape.n_layers);
    of.data += (uint64_t)layer * of.n_kv_heads * of.head_bytes;
    return of;
}

void cuda_rope_kv(struct backend *b, const struct rope_kv_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    CHECK(job->rope_dim % 2 == 0 && job->rope_dim <= job->kv->shape.head_dim_k);
    cuda_enter(cuda);
    if (job->rows->n_rows == 0)
        return;
    const struct cuda_step_rows rows = cuda_step_rows(cuda, job->rows, job->table, job->rope_dim);
    const struct cuda_rope rope = {
        .rows = rows.rows,
        .kv = cuda_kv_layer(job->kv, job->layer),
        .q = job->q,
        .k = job->k,
        .v = job->v,
        .q_norm = job->q_norm,
        .k_norm = job->k_norm,
        .table = rows.rope,
        .norm_eps = job->norm_eps,
        .n_heads = job->n_heads,
        .rope_dim = job->rope_dim,
        .halves = job->style == ROPE_STYLE_HALVES,
    };
    CUDA_DO_LAUNCH(cuda_launch_rope(cuda->stream, &rope),
                   "rope_kv of %u rows of %u heads of %u over %u", job->rows->n_rows, job->n_heads,
                   rope.kv.dim_k, rope.kv.n_kv_heads);
}
