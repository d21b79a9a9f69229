#include "worker/kernels/host.h"

#include <stdlib.h>
#include <string.h>

/* The size stands before the memory, in 64 bytes of its own to keep the alignment. */
#define HOST_HEADER_BYTES 64u

uint64_t host_held_bytes(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64 + HOST_HEADER_BYTES;
}

uint64_t backend_buffer_bytes(size_t count)
{
    return host_held_bytes(count * sizeof(float));
}

void *host_alloc(struct backend *b, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    uint64_t held = host_held_bytes(bytes);
    uint8_t *base = aligned_alloc(64, held);
    if (base == NULL)
        return NULL;
    memset(base, 0, held);
    memcpy(base, &held, sizeof held);
    ((struct host_backend *)b)->scratch_bytes += held;
    return base + HOST_HEADER_BYTES;
}

void host_free(struct backend *b, void *memory)
{
    if (memory == NULL)
        return;
    uint8_t *base = (uint8_t *)memory - HOST_HEADER_BYTES;
    uint64_t held;
    memcpy(&held, base, sizeof held);
    ((struct host_backend *)b)->scratch_bytes -= held;
    free(base);
}

bool host_source_read(void *ctx, uint64_t at, void *to, size_t size)
{
    memcpy(to, (const uint8_t *)ctx + at, size);
    return true;
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
