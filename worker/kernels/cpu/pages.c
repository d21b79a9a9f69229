#include "worker/kernels/cpu/pages.h"

#include "common/check.h"

#include <stdlib.h>
#include <sys/mman.h>

#define PAGES_HUGE_BYTES ((size_t)2 << 20)
/* The last page of a chunk is whole, however little of it is used: few chunks, so that this is next
 * to nothing. What no block has reached takes no memory. */
#define PAGES_CHUNK_BYTES ((size_t)256 << 20)

struct pages_chunk {
    uint8_t *base; /* 2 MB aligned */
    size_t bytes;
    size_t used;
    uint32_t live; /* blocks not yet freed */
};

void pages_init(struct pages *pages)
{
    pages->current = NULL;
    pages->mapped_bytes = 0;
}

static void pages_chunk_unmap(struct pages *pages, struct pages_chunk *chunk)
{
    munmap(chunk->base, chunk->bytes);
    pages->mapped_bytes -= chunk->bytes;
    free(chunk);
}

void pages_fini(struct pages *pages)
{
    CHECK(pages->current == NULL && pages->mapped_bytes == 0);
}

static struct pages_chunk *pages_chunk_map(struct pages *pages, size_t bytes)
{
    struct pages_chunk *chunk = calloc(1, sizeof *chunk);
    if (chunk == NULL)
        return NULL;
    size_t span = bytes + PAGES_HUGE_BYTES;
    uint8_t *raw = mmap(NULL, span, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        free(chunk);
        return NULL;
    }
    size_t lead = (PAGES_HUGE_BYTES - (uintptr_t)raw % PAGES_HUGE_BYTES) % PAGES_HUGE_BYTES;
    if (lead > 0)
        munmap(raw, lead);
    munmap(raw + lead + bytes, span - lead - bytes);
    chunk->base = raw + lead;
    chunk->bytes = bytes;
    (void)madvise(chunk->base, bytes, MADV_HUGEPAGE); /* without it only slower */
    pages->mapped_bytes += bytes;
    return chunk;
}

void *pages_alloc(struct pages *pages, size_t bytes, struct pages_chunk **ret_chunk)
{
    if (bytes > SIZE_MAX / 4)
        return NULL;
    bytes = (bytes + 63) / 64 * 64;
    struct pages_chunk *chunk = pages->current;
    if (chunk == NULL || chunk->bytes - chunk->used < bytes) {
        size_t wanted = bytes > PAGES_CHUNK_BYTES ? bytes : PAGES_CHUNK_BYTES;
        wanted = (wanted + PAGES_HUGE_BYTES - 1) / PAGES_HUGE_BYTES * PAGES_HUGE_BYTES;
        struct pages_chunk *fresh = pages_chunk_map(pages, wanted);
        if (fresh == NULL)
            return NULL;
        if (chunk == NULL || fresh->bytes - bytes > chunk->bytes - chunk->used) {
            /* The one with more room left serves the next block; the other lives by its blocks. */
            pages->current = fresh;
        }
        chunk = fresh;
    }
    void *block = chunk->base + chunk->used;
    chunk->used += bytes;
    chunk->live++;
    *ret_chunk = chunk;
    return block;
}

void pages_free(struct pages *pages, struct pages_chunk *chunk)
{
    CHECK(chunk->live > 0);
    chunk->live--;
    if (chunk->live > 0)
        return;
    if (chunk == pages->current)
        pages->current = NULL;
    pages_chunk_unmap(pages, chunk);
}
