/* The backend's stream for those who put something of their own on it (backend_ops.stream). */
#include "worker/kernels/cuda/cuda_internal.h"

#include <string.h>

static void stream_enter(void *ctx)
{
    cuda_enter(ctx);
}

/* Not counted as the backend's: who asks counts it. */
static enum err stream_alloc(void *ctx, size_t bytes, void **ret_memory, struct errbuf *eb)
{
    const struct cuda_backend *cuda = ctx;

    cuda_enter(cuda);
    cudaError_t e = cudaMalloc(ret_memory, bytes);
    return e == cudaSuccess
               ? ERR_OK
               : cuda_error(eb, e, "%zu bytes that ranks exchange on GPU %d", bytes, cuda->device);
}

static void stream_release(void *ctx, void *memory)
{
    struct cuda_backend *cuda = ctx;

    if (memory == NULL)
        return;
    cuda_enter(cuda);
    cuda_graphs_clear(cuda); /* they may read it */
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "waiting before memory is given back");
    CUDA_DO(cudaFree(memory), "giving back what ranks exchanged");
}

static void stream_mark(void *ctx)
{
    struct cuda_backend *cuda = ctx;
    CUDA_DO(cudaEventRecord(cuda->marked, cuda->stream), "marking what ranks exchange");
}

static bool stream_is_done(void *ctx)
{
    struct cuda_backend *cuda = ctx;
    cudaError_t e = cudaEventQuery(cuda->marked);

    if (e == cudaErrorNotReady) {
        (void)cudaGetLastError(); /* or the next launch would seem to have failed */
        return false;
    }
    CUDA_DO(e, "what ranks exchange");
    return true;
}

enum err cuda_stream(struct backend *b, struct device_stream *ret_stream, struct errbuf *eb)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct cudaDeviceProp properties;
    cudaError_t e = cudaSuccess;

    cuda_enter(cuda);
    if (cuda->marked == NULL)
        e = cudaEventCreateWithFlags(&cuda->marked, cudaEventDisableTiming);
    if (e == cudaSuccess)
        e = cudaGetDeviceProperties(&properties, cuda->device);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "asking GPU %d for its stream", cuda->device);
    *ret_stream = (struct device_stream){
        .ctx = cuda,
        .queue = cuda->stream,
        .enter = stream_enter,
        .alloc = stream_alloc,
        .release = stream_release,
        .mark = stream_mark,
        .is_done = stream_is_done,
    };
    _Static_assert(sizeof properties.uuid.bytes == DEVICE_ID_BYTES, "a UUID");
    memcpy(ret_stream->id, properties.uuid.bytes, DEVICE_ID_BYTES);
    return ERR_OK;
}
