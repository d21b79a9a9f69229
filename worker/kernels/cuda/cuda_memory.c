/* Device memory and its counters, buffers, and small arrays on their way to the device. */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

/* cudaMalloc gives out multiples of this. */
#define CUDA_GRAIN_BYTES 512u
/* Inputs of an operation outside a step; grows. */
#define CUDA_INPUT_BYTES (64u * 1024)

static _Thread_local int thread_device = -1;

cudaError_t cuda_choose(const struct cuda_backend *cuda)
{
    const cudaError_t e = cudaSetDevice(cuda->device);
    thread_device = e == cudaSuccess ? cuda->device : -1;
    return e;
}

void cuda_enter(const struct cuda_backend *cuda)
{
    if (thread_device != cuda->device)
        CUDA_DO(cuda_choose(cuda), "choosing device %d", cuda->device);
}

uint64_t cuda_held_bytes(uint64_t bytes)
{
    return (bytes + CUDA_GRAIN_BYTES - 1) / CUDA_GRAIN_BYTES * CUDA_GRAIN_BYTES;
}

uint64_t backend_cuda_buffer_bytes(size_t count)
{
    return cuda_held_bytes(count * sizeof(float));
}

static uint64_t *cuda_counter(struct cuda_backend *cuda, enum cuda_memory memory)
{
    return memory == CUDA_MEMORY_WEIGHTS ? &cuda->host.weight_bytes
           : memory == CUDA_MEMORY_KV    ? &cuda->host.kv_bytes
                                         : &cuda->host.scratch_bytes;
}

/* Room for one more line in the list of allocations. */
static bool cuda_allocations_grow(struct cuda_backend *cuda)
{
    if (cuda->n_allocations < cuda->allocations_max)
        return true;
    size_t max = cuda->allocations_max == 0 ? 256 : 2 * cuda->allocations_max;
    struct cuda_allocation *grown = realloc(cuda->allocations, max * sizeof *grown);
    if (grown == NULL)
        return false;
    cuda->allocations = grown;
    cuda->allocations_max = max;
    return true;
}

enum err cuda_alloc(struct cuda_backend *cuda, enum cuda_memory memory, uint64_t bytes,
                    const char *what, void **ret_memory, struct errbuf *eb)
{
    void *at = NULL;

    *ret_memory = NULL;
    cuda_enter(cuda);
    if (!cuda_allocations_grow(cuda))
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory for the list of allocations", what);
    uint64_t held = cuda_held_bytes(bytes > 0 ? bytes : 1);
    cudaError_t e = cudaMalloc(&at, held);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "%s: %llu bytes on GPU %d", what, (unsigned long long)held,
                          cuda->device);
    cuda->allocations[cuda->n_allocations++] =
        (struct cuda_allocation){.at = at, .bytes = held, .memory = memory};
    *cuda_counter(cuda, memory) += held;
    *ret_memory = at;
    return ERR_OK;
}

void cuda_free(struct cuda_backend *cuda, void *memory)
{
    size_t i = cuda->n_allocations;

    if (memory == NULL)
        return;
    cuda_enter(cuda);
    /* The last made is often the first to go. */
    while (i > 0 && cuda->allocations[i - 1].at != memory)
        i--;
    CHECK(i > 0);
    const struct cuda_allocation gone = cuda->allocations[i - 1];
    cuda->allocations[i - 1] = cuda->allocations[--cuda->n_allocations];
    *cuda_counter(cuda, gone.memory) -= gone.bytes;
    cuda_graphs_clear(cuda); /* they may read it */
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "waiting before memory is given back");
    CUDA_DO(cudaFree(memory), "giving back %llu bytes", (unsigned long long)gone.bytes);
}

/* ---- pinned ---------------------------------------------------------------------------------- */

void cuda_pinned_wait(struct cuda_pinned *pinned)
{
    if (pinned->is_used)
        CUDA_DO(cudaEventSynchronize(pinned->used), "waiting for a copy of up to %zu bytes",
                pinned->bytes);
    pinned->is_used = false;
}

void cuda_pinned_mark(struct cuda_backend *cuda, struct cuda_pinned *pinned)
{
    CUDA_DO(cudaEventRecord(pinned->used, cuda->stream), "marking a copy");
    pinned->is_used = true;
}

enum err cuda_pinned_grow(struct cuda_pinned *pinned, size_t bytes, struct errbuf *eb)
{
    cudaError_t e = cudaSuccess;
    void *at = NULL;

    if (pinned->used == NULL)
        e = cudaEventCreateWithFlags(&pinned->used, cudaEventDisableTiming);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "an event");
    if (bytes <= pinned->bytes)
        return ERR_OK;
    cuda_pinned_wait(pinned);
    e = cudaMallocHost(&at, bytes);
    if (e != cudaSuccess)
        return cuda_error(eb, e, "%zu bytes of pinned memory", bytes);
    if (pinned->at != NULL)
        CUDA_DO(cudaFreeHost(pinned->at), "giving back %zu bytes of pinned memory", pinned->bytes);
    pinned->at = at;
    pinned->bytes = bytes;
    return ERR_OK;
}

void cuda_pinned_free(struct cuda_pinned *pinned)
{
    cuda_pinned_wait(pinned);
    if (pinned->at != NULL)
        CUDA_DO(cudaFreeHost(pinned->at), "giving back %zu bytes of pinned memory", pinned->bytes);
    if (pinned->used != NULL)
        CUDA_DO(cudaEventDestroy(pinned->used), "giving back an event");
    *pinned = (struct cuda_pinned){0};
}

/* Where the host array is one of the step's own, or lies within its ids, its place on the device.
 */
static const void *cuda_step_input(const struct cuda_step *step, const void *host, size_t bytes)
{
    const uint8_t *ids = (const uint8_t *)step->host.ids;
    const uint8_t *at = host;
    size_t size = step->host.rows.n_rows * sizeof *step->host.ids;

    if (step->is_open && host == step->host.picks)
        return step->picks;
    if (!step->is_open || ids == NULL || at < ids || at + bytes > ids + size)
        return NULL;
    return (const uint8_t *)step->ids + (at - ids);
}

static void cuda_input_grow(struct cuda_backend *cuda, size_t bytes)
{
    struct errbuf eb = {{0}};
    void *device = NULL;
    size_t size = CUDA_INPUT_BYTES;

    if (bytes <= cuda->input_bytes)
        return;
    while (size < bytes)
        size *= 2;
    cuda_free(cuda, cuda->input_device);
    cuda->input_device = NULL;
    enum err e = cuda_pinned_grow(&cuda->input, size, &eb);
    if (e == ERR_OK)
        e = cuda_alloc(cuda, CUDA_MEMORY_SCRATCH, size, "inputs of an operation", &device, &eb);
    if (e != ERR_OK)
        cuda_fail(cudaErrorMemoryAllocation, NULL, "%s", eb.text);
    cuda->input_device = device;
    cuda->input_bytes = size;
}

const void *cuda_input(struct cuda_backend *cuda, const void *host, size_t bytes)
{
    cuda_enter(cuda);
    const void *of_step = cuda_step_input(&cuda->step, host, bytes);
    if (of_step != NULL)
        return of_step;
    CHECK(!cuda_graph_is_capturing(cuda)); /* a replay would read what is there then */
    cuda_input_grow(cuda, bytes);
    cuda_pinned_wait(&cuda->input);
    memcpy(cuda->input.at, host, bytes);
    CUDA_DO(cudaMemcpyAsync(cuda->input_device, cuda->input.at, bytes, cudaMemcpyHostToDevice,
                            cuda->stream),
            "bringing %zu bytes of input to the device", bytes);
    cuda_pinned_mark(cuda, &cuda->input);
    return cuda->input_device;
}

/* ---- buffers --------------------------------------------------------------------------------- */

float *cuda_buffer_new(struct backend *b, size_t count)
{
    struct errbuf eb = {{0}};
    void *buffer = NULL;

    if (count > SIZE_MAX / sizeof(float))
        return NULL;
    (void)cuda_alloc((struct cuda_backend *)b, CUDA_MEMORY_SCRATCH, count * sizeof(float),
                     "a buffer", &buffer, &eb);
    return buffer;
}

void cuda_buffer_free(struct backend *b, float *buffer)
{
    cuda_free((struct cuda_backend *)b, buffer);
}

/* Pageable memory: the call has read it when it returns. */
void cuda_buffer_write(struct backend *b, float *buffer, const float *host, size_t count)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    cuda_enter(cuda);
    cuda_held_flush(cuda);
    if (count == 0)
        return;
    CUDA_DO(
        cudaMemcpyAsync(buffer, host, count * sizeof *host, cudaMemcpyHostToDevice, cuda->stream),
        "writing a buffer of %zu floats", count);
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "writing a buffer of %zu floats", count);
}

void cuda_buffer_read(struct backend *b, const float *buffer, float *host, size_t count)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    cuda_enter(cuda);
    cuda_held_flush(cuda);
    if (count == 0)
        return;
    CUDA_DO(
        cudaMemcpyAsync(host, buffer, count * sizeof *host, cudaMemcpyDeviceToHost, cuda->stream),
        "reading a buffer of %zu floats", count);
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "reading a buffer of %zu floats", count);
}

/* Within the last step's results it changes nothing, so that several threads may ask at once. */
const float *cuda_buffer_host(struct backend *b, const float *buffer, size_t count)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct errbuf eb = {{0}};

    const float *at = (const float *)(const void *)cuda->result.at;
    for (uint32_t i = 0; i < cuda->n_results; i++) {
        const struct backend_piece *piece = &cuda->results[i];
        if (buffer >= piece->at && buffer + count <= piece->at + piece->count)
            return at + (buffer - piece->at);
        at += piece->count;
    }
    cuda_enter(cuda);
    if (cuda_pinned_grow(&cuda->result, count * sizeof *buffer, &eb) != ERR_OK)
        cuda_fail(cudaErrorMemoryAllocation, NULL, "%s", eb.text);
    cuda->n_results = 0;
    float *host = (float *)(void *)cuda->result.at;
    cuda_buffer_read(b, buffer, host, count);
    return host;
}
