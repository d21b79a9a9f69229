/* Scratch of the CPU backend: how much, and all of it at once. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <string.h>

/* Floats of a thread, and floats for all of them together. */
struct room_counts {
    size_t rows, partials;
};

static struct room_counts room_count(const struct cpu_kernels *kernels, uint32_t threads,
                                     const struct backend_room *room)
{
    /* The more rows, the more room: rows_max stands for all fewer. */
    struct room_counts c = {.rows = kernels->matmul_room(room->rows_max, room->groups_max)};

    c.rows = room->cols_max > c.rows ? room->cols_max : c.rows;
    for (uint32_t i = 0; i < room->n_caches; i++) {
        size_t rows = cpu_attention_rows_room(&room->cache[i]);
        size_t partials =
            cpu_attention_partials_room(&room->cache[i], room->rows_max, room->pages_max, threads);
        c.rows = rows > c.rows ? rows : c.rows;
        c.partials = partials > c.partials ? partials : c.partials;
    }
    c.rows = (c.rows + 63) / 64 * 64;
    return c;
}

enum err cpu_reserve(struct backend *b, const struct backend_room *room, struct errbuf *eb)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    uint32_t threads = pool_threads(cpu->pool);
    struct room_counts c = room_count(cpu->kernels, threads, room);
    CHECK(!cpu->reserved && cpu->rows == NULL && cpu->partials == NULL);
    cpu->rows = host_alloc(b, c.rows * threads * sizeof *cpu->rows);
    cpu->partials = host_alloc(b, c.partials * sizeof *cpu->partials);
    if (cpu->rows == NULL || cpu->partials == NULL)
        return err_set(eb, ERR_NO_MEMORY, "%zu bytes of room for steps of %u rows",
                       (c.rows * threads + c.partials) * sizeof(float), room->rows_max);
    cpu->rows_stride = c.rows;
    cpu->partials_count = c.partials;
    cpu->reserved = true;
    return ERR_OK;
}

uint64_t backend_room_bytes(enum backend_isa isa, uint32_t threads, const struct backend_room *room)
{
    const struct cpu_kernels *kernels = cpu_kernels_of(backend_isa_resolve(isa));
    if (kernels == NULL)
        return 0;
    struct room_counts c = room_count(kernels, threads, room);
    return host_held_bytes(c.rows * threads * sizeof(float)) +
           host_held_bytes(c.partials * sizeof(float));
}

struct backend_heads_room backend_heads_room(enum backend_isa isa, uint32_t threads,
                                             const struct backend_room *room)
{
    if (cpu_kernels_of(backend_isa_resolve(isa)) == NULL || room->n_caches == 0)
        return (struct backend_heads_room){0};
    return cpu_attention_heads_room(&room->cache[0], room->rows_max, room->pages_max, threads);
}

uint64_t backend_act_bytes(enum backend_isa isa, uint32_t rows_max, uint32_t cols_max,
                           bool keep_float)
{
    bool scalar = cpu_kernels_of(backend_isa_resolve(isa)) == NULL;
    uint64_t blocks = (cols_max + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    uint64_t list = host_held_bytes(rows_max * blocks * sizeof(float));
    uint64_t q =
        scalar ? rows_max * blocks * QUANT_BLOCK_ITEMS : cpu_act_q_bytes(rows_max, cols_max);
    uint64_t floats =
        keep_float ? host_held_bytes((uint64_t)rows_max * cols_max * sizeof(float)) : 0;
    /* Scales; sums and pairs only where kernels want them beforehand. */
    return host_held_bytes(q) + (scalar ? 1 : 3) * list + floats;
}
