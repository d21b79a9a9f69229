/*
 * arena.h - many small allocations with one end: chunks that are freed together.
 *
 * Decoded messages live in one. A cap bounds what a hostile message can make us allocate.
 * Ownership: everything handed out belongs to the arena. Thread: one owner.
 */
#ifndef CLOISTER_COMMON_ARENA_H
#define CLOISTER_COMMON_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks;
    size_t used_bytes; /* handed out so far */
    size_t cap_bytes;  /* refuse to hand out more than this in all */
};

void arena_init(struct arena *a, size_t cap_bytes);
void arena_fini(struct arena *a);
/* Frees all but keeps one chunk for the next use. */
void arena_reset(struct arena *a);

/* 16-byte aligned, zeroed; NULL over the cap or when malloc refuses. size 0 gives a valid pointer.
 */
void *arena_alloc(struct arena *a, size_t size);
/* NULL also where count * size overflows. */
void *arena_alloc_array(struct arena *a, size_t count, size_t size);
/* Copy of `size` bytes with a NUL behind them. */
char *arena_copy(struct arena *a, const void *bytes, size_t size);

#endif
