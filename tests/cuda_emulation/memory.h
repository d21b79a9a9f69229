/*
 * memory.h - device memory and pinned host memory: where they are, who has which part, and, in
 * checked mode, what each byte is.
 *
 * Both lie in one reserved range of addresses, each allocation on pages of its own between pages
 * without access, its end close before the next one. What is left of its first and last page is
 * filled with a pattern that is looked at when the allocation ends. Freed addresses are not given
 * out again before the range is used up, so that a use after free is one.
 *
 * Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_MEMORY_H
#define CLOISTER_TESTS_CUDA_EMULATION_MEMORY_H

#include "tests/cuda_emulation/emulation.h"

enum emu_space { EMU_SPACE_DEVICE = 0, EMU_SPACE_PINNED = 1 };

/* Of a byte, in checked mode. */
enum emu_byte {
    EMU_BYTE_NONE = 0, /* of no allocation */
    EMU_BYTE_FRESH = 1,
    EMU_BYTE_PENDING = 2, /* of shared memory: an asynchronous copy is under way to it */
    EMU_BYTE_WRITTEN = 3,
};

struct emu_allocation {
    char *base;
    size_t size;
    enum emu_space space;
    bool freed;
    int device;
};

#define EMU_MEMORY_DEVICE_BYTES ((size_t)1 << 36)
#define EMU_MEMORY_PINNED_BYTES ((size_t)1 << 34)
#define EMU_MEMORY_BYTES        (EMU_MEMORY_DEVICE_BYTES + EMU_MEMORY_PINNED_BYTES)

/* Start of the range; NULL before the first allocation. The maps of checked mode are parallel to
 * it. */
extern char *emu_memory_base;
extern unsigned char *emu_memory_bytes; /* enum emu_byte of each */

static inline bool emu_memory_is_ours(const void *at)
{
    return (size_t)((uintptr_t)at - (uintptr_t)emu_memory_base) < EMU_MEMORY_BYTES &&
           emu_memory_base != NULL;
}

static inline bool emu_memory_is_device(const void *at)
{
    return (size_t)((uintptr_t)at - (uintptr_t)emu_memory_base) < EMU_MEMORY_DEVICE_BYTES &&
           emu_memory_base != NULL;
}

static inline bool emu_memory_is_pinned(const void *at)
{
    return emu_memory_is_ours(at) && !emu_memory_is_device(at);
}

/* emu_dry was called: device memory has no contents. */
bool emu_is_dry(void);

/* NULL when the address range is used up. Aligned to 256; filled with the schedule's poison. */
void *emu_memory_new(enum emu_space space, size_t size, int device);
/* False where no live allocation begins here. */
bool emu_memory_free(enum emu_space space, void *base);
/* The live allocation with these bytes in it, or NULL. */
const struct emu_allocation *emu_memory_find(const void *at, size_t size);
size_t emu_memory_held(enum emu_space space, int device);

/* Host memory that kernels may touch. False where some of it is registered already; where it is
 * not, or `base` is not where it begins. */
bool emu_memory_register(void *base, size_t size);
bool emu_memory_unregister(void *base);
bool emu_memory_is_registered(const void *at, size_t size);

/* In checked mode: `size` bytes have been written, or are what those at `from` are. */
void emu_memory_written(void *at, size_t size);
void emu_memory_copied(void *to, const void *from, size_t size);

/* What is at an address of the range that may not be touched: text, and the fault it is. */
enum emu_fault_kind emu_memory_describe(const void *at, char *ret_text, size_t size);

/* Lets device memory be touched, or not: it is open while work runs and closed to host code. */
void emu_memory_open(bool open);

/* Looks at the patterns around all allocations: plain mode's way to find stores beside them.
 * Faults. */
void emu_memory_check_patterns(void);

#endif
