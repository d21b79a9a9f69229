/*
 * device_stream.h - the queue of a device as those see it who know nothing else of the device: what
 * is put on it is done in order, some time. A backend fills it in; a transport that moves bytes
 * from device to device uses it.
 *
 * Ownership: whoever filled it in; `release` gives back what `alloc` took. Thread: one at a time;
 * each thread calls `enter` before it calls anything of the device's maker.
 */
#ifndef CLOISTER_COMMON_DEVICE_STREAM_H
#define CLOISTER_COMMON_DEVICE_STREAM_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_ID_BYTES 16u

struct device_stream {
    void *ctx;
    void *queue;                 /* a cudaStream_t */
    uint8_t id[DEVICE_ID_BYTES]; /* no other device has it */

    /* Makes the device the calling thread's. */
    void (*enter)(void *ctx);
    /* Memory of the device, aligned to 256 bytes. ERR_NO_MEMORY says how much. */
    enum err (*alloc)(void *ctx, size_t bytes, void **ret_memory, struct errbuf *eb);
    void (*release)(void *ctx, void *memory); /* NULL is allowed */
    /* Remembers what the queue has now; whether all of that is done, without waiting. */
    void (*mark)(void *ctx);
    bool (*is_done)(void *ctx);
};

#endif
