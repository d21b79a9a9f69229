#include "common/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_CHUNK_BYTES 16384u

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
    size_t used;
    size_t pad; /* keeps data[] at 16 bytes */
    unsigned char data[];
};

_Static_assert(offsetof(struct arena_chunk, data) % 16 == 0, "chunk data must be 16-byte aligned");

void arena_init(struct arena *a, size_t cap_bytes)
{
    *a = (struct arena){.chunks = NULL, .used_bytes = 0, .cap_bytes = cap_bytes};
}

static void chunks_free(struct arena_chunk *c)
{
    while (c != NULL) {
        struct arena_chunk *next = c->next;
        free(c);
        c = next;
    }
}

void arena_fini(struct arena *a)
{
    chunks_free(a->chunks);
    a->chunks = NULL;
    a->used_bytes = 0;
}

void arena_reset(struct arena *a)
{
    if (a->chunks != NULL) {
        chunks_free(a->chunks->next);
        a->chunks->next = NULL;
        a->chunks->used = 0;
    }
    a->used_bytes = 0;
}

void *arena_alloc(struct arena *a, size_t size)
{
    if (size > a->cap_bytes || size > SIZE_MAX - 64)
        return NULL;
    size_t want = (size + 15u) & ~(size_t)15u;
    if (want == 0)
        want = 16;
    if (want > a->cap_bytes - a->used_bytes)
        return NULL;
    struct arena_chunk *c = a->chunks;
    if (c == NULL || want > c->size - c->used) {
        size_t chunk_size = want > ARENA_CHUNK_BYTES ? want : ARENA_CHUNK_BYTES;
        c = malloc(sizeof *c + chunk_size);
        if (c == NULL)
            return NULL;
        c->size = chunk_size;
        c->used = 0;
        c->next = a->chunks;
        a->chunks = c;
    }
    void *p = c->data + c->used;
    c->used += want;
    a->used_bytes += want;
    memset(p, 0, want);
    return p;
}

void *arena_alloc_array(struct arena *a, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total))
        return NULL;
    return arena_alloc(a, total);
}

char *arena_copy(struct arena *a, const void *bytes, size_t size)
{
    if (size == SIZE_MAX)
        return NULL;
    char *p = arena_alloc(a, size + 1);
    if (p != NULL && size > 0)
        memcpy(p, bytes, size);
    return p;
}
