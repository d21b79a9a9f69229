/*
 * shared.h - the shared memory of the block that runs: arrays with room between them that nobody
 * may touch, each aligned as its type is and no better. The counters take banks by address; a
 * device may lay the arrays out otherwise, which shifts the banks of an array all alike.
 *
 * Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_SHARED_H
#define CLOISTER_TESTS_CUDA_EMULATION_SHARED_H

#include "tests/cuda_emulation/block.h"

#define EMU_SHARED_BYTES ((size_t)1 << 20)

extern char *emu_shared_base;
extern unsigned char *emu_shared_bytes; /* enum emu_byte of each, in checked mode */

static inline bool emu_shared_is(const void *at)
{
    return (size_t)((uintptr_t)at - (uintptr_t)emu_shared_base) < EMU_SHARED_BYTES;
}

/* All shared memory is fresh for a block. */
void emu_shared_block_begin(const struct emu_call *call);
/* Plain mode looks at the room between arrays. */
void emu_shared_block_end(const struct emu_block *block);
/* Bytes of the arrays of the block so far: the most of any block since the launch began. */
uint32_t emu_shared_most(void);

/* `size` bytes are this now, in checked mode. */
void emu_shared_mark(void *at, uint32_t size, unsigned char byte);

void emu_shared_describe(const void *at, char *ret_text, size_t size);

#endif
