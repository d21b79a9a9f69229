/* The CUDA backend's table of operations: opening a device, and closing it. */
#include "worker/kernels/cuda/cuda_internal.h"

#include <stdlib.h>

/* int8 mma of 16x8x32 and cp.async. */
#define CUDA_MAJOR_MIN 8

static void cuda_close(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    cuda_enter(cuda);
    if (cuda->stream != NULL)
        CUDA_DO(cudaStreamSynchronize(cuda->stream), "closing GPU %d", cuda->device);
    cuda_step_fini(cuda);
    cuda_pinned_free(&cuda->input);
    cuda_pinned_free(&cuda->result);
    cuda_free(cuda, cuda->input_device);
    cuda_free(cuda, cuda->attention);
    if (cuda->marked != NULL)
        CUDA_DO(cudaEventDestroy(cuda->marked), "closing GPU %d", cuda->device);
    if (cuda->stream != NULL)
        CUDA_DO(cudaStreamDestroy(cuda->stream), "closing GPU %d", cuda->device);
    pool_free(cuda->pool);
    free(cuda->allocations);
    free(cuda);
}

static void cuda_share(struct backend *b, backend_task *task, void *ctx, uint32_t n)
{
    pool_run(((struct cuda_backend *)b)->pool, task, ctx, n);
}

static uint32_t cuda_threads(const struct backend *b)
{
    return pool_threads(((const struct cuda_backend *)b)->pool);
}

static const struct backend_ops cuda_ops = {
    .close = cuda_close,
    .weights_read = cuda_weights_read,
    .weight_free = cuda_weight_free,
    .buffer_new = cuda_buffer_new,
    .buffer_free = cuda_buffer_free,
    .buffer_write = cuda_buffer_write,
    .buffer_read = cuda_buffer_read,
    .buffer_host = cuda_buffer_host,
    .share = cuda_share,
    .threads = cuda_threads,
    .act_new = cuda_act_new,
    .act_free = cuda_act_free,
    .kv_new = cuda_kv_new,
    .kv_free = cuda_kv_free,
    .reserve = cuda_reserve,
    .step_begin = cuda_step_begin,
    .step_end = cuda_step_end,
    .embed = cuda_hold_embed,
    .norm = cuda_hold_norm,
    .norm_add = cuda_hold_norm_add,
    .softcap = cuda_hold_softcap,
    .pick = cuda_hold_pick,
    .quantize = cuda_hold_quantize,
    .place = cuda_hold_place,
    .matmul = cuda_hold_matmul,
    .join = cuda_hold_join,
    .rope_kv = cuda_hold_rope_kv,
    .attention = cuda_hold_attention,
    .gate = cuda_hold_gate,
    .exchange_open = cuda_exchange_open,
    .stream = cuda_stream,
    .exchange_done = cuda_exchange_done,
    .submit = cuda_submit,
    .put_off = cuda_put_off,
    .is_known = cuda_is_known,
    .queue_next = cuda_queue_next,
    .exchange_close = cuda_exchange_close,
    .memory = host_memory,
    .act_read = cuda_act_read,
};

/* The name outlives the backend. */
static const char *cuda_name(int major, int minor)
{
    static const struct {
        int major, minor;
        const char *name;
    } known[] = {{8, 0, "cuda sm_80"},   {8, 6, "cuda sm_86"},   {8, 7, "cuda sm_87"},
                 {8, 9, "cuda sm_89"},   {9, 0, "cuda sm_90"},   {10, 0, "cuda sm_100"},
                 {10, 3, "cuda sm_103"}, {12, 0, "cuda sm_120"}, {12, 1, "cuda sm_121"}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (known[i].major == major && known[i].minor == minor)
            return known[i].name;
    return "cuda";
}

static enum err cuda_device_open(struct cuda_backend *cuda, uint32_t device, struct errbuf *eb)
{
    int count = 0, major = 0, minor = 0;
    cudaError_t e = cudaGetDeviceCount(&count);

    if (e != cudaSuccess)
        return cuda_error(eb, e, "looking for GPUs");
    if (device >= (uint32_t)count)
        return err_set(eb, ERR_UNAVAILABLE, "GPU %u: there are %d", device, count);
    cuda->device = (int)device;
    e = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, cuda->device);
    if (e == cudaSuccess)
        e = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, cuda->device);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "asking GPU %u what it is", device);
    if (major < CUDA_MAJOR_MIN)
        return err_set(eb, ERR_UNSUPPORTED, "GPU %u has compute capability %d.%d, %d.0 is needed",
                       device, major, minor, CUDA_MAJOR_MIN);
    cuda->ops.name = cuda_name(major, minor);
    e = cuda_choose(cuda);
    if (e == cudaSuccess)
        e = cudaStreamCreateWithFlags(&cuda->stream, cudaStreamNonBlocking);
    return e == cudaSuccess ? ERR_OK : cuda_error(eb, e, "opening GPU %u", device);
}

enum err backend_cuda_open(struct backend **ret_backend, const struct backend_cuda_config *config,
                           struct errbuf *eb)
{
    struct cuda_backend *cuda = calloc(1, sizeof *cuda);
    if (cuda == NULL)
        return err_set(eb, ERR_NO_MEMORY, "CUDA backend");
    cuda->ops = cuda_ops;
    cuda->host.base.ops = &cuda->ops;
    enum err err = cuda_device_open(cuda, config->device, eb);
    if (err == ERR_OK)
        err = cuda_products_prepare(cuda, eb);
    if (err == ERR_OK)
        err = pool_new(config->threads, &cuda->pool, eb);
    if (err != ERR_OK) {
        if (cuda->stream != NULL)
            CUDA_DO(cudaStreamDestroy(cuda->stream), "closing GPU %u", config->device);
        free(cuda);
        return err;
    }
    *ret_backend = &cuda->host.base;
    return ERR_OK;
}
