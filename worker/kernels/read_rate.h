/*
 * read_rate.h - how fast the threads of a pool read memory: what bounds a model's tokens on a CPU,
 * since each reads all weights.
 *
 * A buffer is read from one end to the other, each thread its run of it, as weights are, and the
 * best of some passes counts: others can make a pass slower, not faster. Before each pass its lines
 * are put out of all caches where the instruction set lets a program do so (x86), so that a small
 * buffer will do however large the caches are. Elsewhere the buffer is READ_RATE_BYTES_MAX, and a
 * machine whose caches hold that is measured by its caches.
 *
 * Reading alone is measured: where few cores, or scalar ones, do not keep up with memory, a model
 * is slower than this says.
 *
 * Thread: any; it takes threads of its own, as a backend does, and has them for a fraction of a
 * second.
 */
#ifndef CLOISTER_WORKER_KERNELS_READ_RATE_H
#define CLOISTER_WORKER_KERNELS_READ_RATE_H

#include "common/err.h"

#include <stdint.h>

#define READ_RATE_BYTES_MIN ((uint64_t)16 << 20)
#define READ_RATE_BYTES_MAX ((uint64_t)256 << 20)

struct read_rate {
    uint64_t bytes_per_s; /* at least 1 */
    uint64_t bytes;       /* of the buffer */
    uint32_t passes;
};

/* `threads`: as pool_new takes them. `most`: what the buffer may take. ERR_NO_MEMORY: that is less
 * than READ_RATE_BYTES_MIN, or memory or threads were refused. */
enum err read_rate_measure(uint32_t threads, uint64_t most, struct read_rate *ret_rate,
                           struct errbuf *eb);

#endif
