/* Matrix products: jobs that share x and a type are one launch; and what shards have computed in
 * parts. */
#include "worker/kernels/cuda/cuda_weight.h"

#include "common/check.h"

#include <string.h>

static bool is_super(enum quant_type type)
{
    return quant_type_info((uint32_t)type)->block_items > SUM_BLOCK_ITEMS;
}

enum err cuda_products_prepare(struct cuda_backend *cuda, struct errbuf *eb)
{
    int multiprocessors = 0;
    cudaError_t e =
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, cuda->device);
    if (e == cudaSuccess)
        e = cuda_gemm_blocks_prepare();
    if (e == cudaSuccess)
        e = cuda_gemm_supers_prepare();
    cuda->multiprocessors = (uint32_t)multiprocessors;
    return e == cudaSuccess ? ERR_OK : cuda_error(eb, e, "preparing matrix products");
}

static void cuda_products_run(struct cuda_backend *cuda, enum quant_type type,
                              struct cuda_products *p)
{
    struct cuda_launched launched;
    if (weight_float_bytes(type) > 0)
        launched = cuda_product_floats(type, p, cuda->stream);
    else if (p->n <= CUDA_GEMV_COLS)
        launched = is_super(type) ? cuda_gemv_supers(type, p, cuda->stream)
                                  : cuda_gemv_blocks(type, p, cuda->stream);
    else
        launched = is_super(type) ? cuda_gemm_supers(type, p, cuda->multiprocessors, cuda->stream)
                                  : cuda_gemm_blocks(type, p, cuda->multiprocessors, cuda->stream);
    CUDA_DO_LAUNCH(launched, "product of %u rows with %u matrices %s, the first %u x %u", p->n,
                   p->count, quant_type_info((uint32_t)type)->name, p->of[0].rows, p->of[0].cols);
}

static struct cuda_product cuda_product_of(const struct matmul_job *job)
{
    const struct weight *w = job->weight;
    return (struct cuda_product){.data = w->data,
                                 .leaves = w->leaves,
                                 .stride = w->stride,
                                 .out = job->out,
                                 .node_stride = job->node_stride,
                                 .bias = job->bias,
                                 .n_leaves = w->n_leaves,
                                 .even_blocks = w->even_blocks,
                                 .rows = w->rows,
                                 .cols = w->cols,
                                 .lead = w->lead,
                                 .out_stride = job->out_stride,
                                 .accumulate = job->accumulate ? 1 : 0};
}

/* Those of `type` among the jobs, up to CUDA_PRODUCTS_MAX at a time. */
static void cuda_matmul_type(struct cuda_backend *cuda, const struct act *x, uint32_t n,
                             enum quant_type type, const struct matmul_job *jobs, uint32_t n_jobs)
{
    struct cuda_products p = {.x = x->device, .n = n};
    for (uint32_t i = 0; i < n_jobs; i++) {
        if (jobs[i].weight->type != type)
            continue;
        p.of[p.count++] = cuda_product_of(&jobs[i]);
        if (p.count < CUDA_PRODUCTS_MAX)
            continue;
        cuda_products_run(cuda, type, &p);
        p.count = 0;
    }
    if (p.count > 0)
        cuda_products_run(cuda, type, &p);
}

void cuda_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                 uint32_t n_jobs)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    if (n == 0)
        return;
    cuda_enter(cuda);
    for (uint32_t i = 0; i < n_jobs; i++) {
        const struct weight *w = jobs[i].weight;
        CHECK(n <= x->rows_max && w->cols <= x->cols_max);
        CHECK(x->device.floats != NULL || weight_float_bytes(w->type) == 0);
        CHECK((w->cut.first == 0 && w->cut.end == w->cut.groups) ||
              (jobs[i].bias == NULL && !jobs[i].accumulate));
    }
    for (uint32_t i = 0; i < n_jobs; i++) {
        uint32_t before = 0;
        while (jobs[before].weight->type != jobs[i].weight->type)
            before++;
        if (before == i)
            cuda_matmul_type(cuda, x, n, jobs[i].weight->type, jobs + i, n_jobs - i);
    }
}

void cuda_join(struct backend *b, uint32_t n, const struct join_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct cuda_join join = {.out_stride = job->out_stride,
                             .out = job->out,
                             .bias = job->bias,
                             .onto = job->onto,
                             .n = n,
                             .cols = job->cols,
                             .n_parts = job->n_parts,
                             .n_joins = job->n_joins};

    CHECK(job->n_parts >= 1 && job->n_parts <= SUM_GROUPS_MAX && job->n_joins < job->n_parts);
    if (n == 0 || job->cols == 0)
        return;
    cuda_enter(cuda);
    for (uint32_t i = 0; i < job->n_parts; i++) {
        join.part[i].at = job->part[i].at;
        join.part[i].stride = job->part[i].stride;
    }
    if (job->n_joins > 0)
        memcpy(join.join, job->joins, job->n_joins * sizeof *job->joins);
    CUDA_DO_LAUNCH(cuda_join_sums(&join, cuda->stream), "joining %u parts of %u rows of %u",
                   job->n_parts, n, job->cols);
}
