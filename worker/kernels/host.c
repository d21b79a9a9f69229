#include "worker/kernels/host.h"

#include <stdlib.h>
#include <string.h>

/* Stands before the memory, in 64 bytes of its own to keep the alignment. */
#define HOST_HEADER_BYTES 64u

struct host_header {
    uint64_t held;
    void *allocated;
};

_Static_assert(sizeof(struct host_header) <= HOST_HEADER_BYTES, "the header has its room");

uint64_t host_held_bytes(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64 + HOST_HEADER_BYTES;
}

uint64_t backend_buffer_bytes(size_t count)
{
    return host_held_bytes(count * sizeof(float));
}

/* calloc, because it leaves pages that come zeroed from the system untouched: the buffers of a step
 * of 512 rows, or the logits of 64 jobs, cost a short job neither time nor memory. */
void *host_alloc(struct backend *b, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    uint64_t held = host_held_bytes(bytes);
    uint8_t *allocated = calloc(1, held + HOST_HEADER_BYTES - 1);
    if (allocated == NULL)
        return NULL;
    uint8_t *base = allocated + (HOST_HEADER_BYTES - (uintptr_t)allocated % HOST_HEADER_BYTES) %
                                    HOST_HEADER_BYTES;
    const struct host_header header = {.held = held, .allocated = allocated};
    memcpy(base, &header, sizeof header);
    ((struct host_backend *)b)->scratch_bytes += held;
    return base + HOST_HEADER_BYTES;
}

void host_free(struct backend *b, void *memory)
{
    if (memory == NULL)
        return;
    struct host_header header;
    memcpy(&header, (uint8_t *)memory - HOST_HEADER_BYTES, sizeof header);
    ((struct host_backend *)b)->scratch_bytes -= header.held;
    free(header.allocated);
}

/* Shared or not, it is memory like any other to the host. */
enum err host_exchange_open(struct backend *b, void *const halves[2], size_t bytes,
                            struct exchange **ret_exchange, struct errbuf *eb)
{
    (void)b;
    (void)halves;
    (void)bytes;
    (void)eb;
    *ret_exchange = NULL;
    return ERR_OK;
}

void host_exchange_done(struct backend *b)
{
    (void)b;
}

void host_submit(struct backend *b)
{
    (void)b;
}

void host_exchange_close(struct backend *b, struct exchange *exchange)
{
    (void)b;
    (void)exchange;
}

void host_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n, uint32_t cols,
                float *out)
{
    (void)b;
    for (uint32_t i = 0; i < n; i++)
        memcpy(out + (size_t)at[i] * cols, rows + (size_t)i * cols, cols * sizeof *out);
}

/* Operations in ordinary memory are done when they return, and read their arrays where they are. */
bool host_step_begin(struct backend *b, const struct backend_step *step)
{
    (void)b;
    (void)step;
    return false;
}

void host_step_end(struct backend *b)
{
    (void)b;
}

float *host_buffer_new(struct backend *b, size_t count)
{
    return count > SIZE_MAX / sizeof(float) ? NULL : host_alloc(b, count * sizeof(float));
}

void host_buffer_free(struct backend *b, float *buffer)
{
    host_free(b, buffer);
}

void host_buffer_write(struct backend *b, float *buffer, const float *host, size_t count)
{
    (void)b;
    memcpy(buffer, host, count * sizeof *host);
}

void host_buffer_read(struct backend *b, const float *buffer, float *host, size_t count)
{
    (void)b;
    memcpy(host, buffer, count * sizeof *host);
}

const float *host_buffer_host(struct backend *b, const float *buffer, size_t count)
{
    (void)b;
    (void)count;
    return buffer;
}

void host_memory(const struct backend *b, uint64_t *ret_weights, uint64_t *ret_kv,
                 uint64_t *ret_scratch)
{
    const struct host_backend *host = (const struct host_backend *)b;
    *ret_weights = host->weight_bytes;
    *ret_kv = host->kv_bytes;
    *ret_scratch = host->scratch_bytes;
}
