/* Matrices as panels of 16 rows (kernels.h), and single rows of them for the embedding. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"
#include "worker/kernels/half.h"
#include "worker/kernels/quant_block.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static uint32_t float_type_bytes(enum quant_type type)
{
    switch (type) {
    case QUANT_TYPE_F32:
        return 4;
    case QUANT_TYPE_F16:
    case QUANT_TYPE_BF16:
        return 2;
    default:
        return 0;
    }
}

static uint32_t block_count(uint32_t cols)
{
    return (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
}

static uint32_t panel_count(uint32_t rows)
{
    return (rows + PANEL_ROWS - 1) / PANEL_ROWS;
}

uint64_t backend_cpu_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols)
{
    enum panel_kind kind = panel_kind_of(type);
    uint64_t bytes = kind < PANEL_KIND_COUNT
                         ? panel_count(rows) * panel_bytes(&panel_layouts[kind], block_count(cols))
                         : (uint64_t)rows * cols * float_type_bytes(type);
    return (bytes + 63) / 64 * 64;
}

/* A matrix comes from memory, or from a source in pieces that stay in the thread's cache. */
#define PACK_PIECE_BYTES (256u << 10)

struct pack_task {
    const struct cpu_kernels *kernels;
    const uint8_t *file; /* NULL: from `source` */
    const struct weight_source *source;
    uint64_t row_bytes;
    struct weight *weight;
    uint32_t piece_rows; /* of a task: whole panels */
    uint64_t piece_bytes;
    uint8_t *room; /* [thread][piece_bytes] */
    atomic_bool failed;
};

static void cpu_pack_piece(void *ctx, uint32_t task, uint32_t thread)
{
    struct pack_task *pack = ctx;
    struct weight *w = pack->weight;
    uint32_t first = task * pack->piece_rows;
    uint32_t end = w->rows - first < pack->piece_rows ? w->rows : first + pack->piece_rows;
    uint64_t at = first * pack->row_bytes;
    uint64_t size = (end - first) * pack->row_bytes;
    const uint8_t *file = pack->file == NULL ? NULL : pack->file + at;

    if (file == NULL) {
        /* Float types are kept as the file has them: no room between. */
        uint8_t *to = w->is_float ? w->data + at : pack->room + thread * pack->piece_bytes;
        if (atomic_load(&pack->failed))
            return;
        if (!pack->source->read(pack->source->ctx, at, to, size)) {
            atomic_store(&pack->failed, true);
            return;
        }
        file = to;
    } else if (w->is_float) {
        memcpy(w->data + at, file, size);
    }
    /* Lanes past the last row stay zero. */
    for (uint32_t row = first; row < end && !w->is_float; row += PANEL_ROWS)
        pack->kernels->pack_panel[w->kind](file + (row - first) * pack->row_bytes, pack->row_bytes,
                                           end - row < PANEL_ROWS ? end - row : PANEL_ROWS,
                                           w->blocks, w->data + row / PANEL_ROWS * w->panel_bytes);
}

static enum err cpu_weight_pack(struct cpu_backend *cpu, struct pack_task *pack, struct errbuf *eb)
{
    const struct weight *w = pack->weight;
    uint64_t panel_bytes = pack->row_bytes * PANEL_ROWS;
    uint32_t panels =
        panel_bytes < PACK_PIECE_BYTES ? (uint32_t)(PACK_PIECE_BYTES / panel_bytes) : 1;

    pack->piece_rows = panels * PANEL_ROWS;
    pack->piece_bytes = panels * panel_bytes;
    if (pack->file == NULL && !w->is_float) {
        pack->room = malloc(pool_threads(cpu->pool) * pack->piece_bytes);
        if (pack->room == NULL)
            return err_set(eb, ERR_NO_MEMORY, "%llu bytes to pack a weight",
                           (unsigned long long)pack->piece_bytes);
    }
    pool_run(cpu->pool, cpu_pack_piece, pack, (w->rows + pack->piece_rows - 1) / pack->piece_rows);
    free(pack->room);
    return atomic_load(&pack->failed) ? err_set(eb, ERR_IO, "a weight could not be read") : ERR_OK;
}

static enum err cpu_weight_new(struct backend *b, enum quant_type type, struct pack_task *pack,
                               uint32_t rows, uint32_t cols, uint32_t groups,
                               struct weight **ret_weight, struct errbuf *eb)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    uint64_t row_bytes;
    enum err err = shape_weight_check(type, rows, cols, groups, &row_bytes, eb);
    if (err != ERR_OK)
        return err;
    enum panel_kind kind = panel_kind_of(type);
    CHECK(kind < PANEL_KIND_COUNT || float_type_bytes(type) > 0);
    struct weight *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(eb, ERR_NO_MEMORY, "a weight");
    uint64_t bytes = backend_cpu_weight_bytes(type, rows, cols);
    w->data = pages_alloc(&cpu->pages, bytes, &w->chunk);
    if (w->data == NULL) {
        free(w);
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes for a weight", (unsigned long long)bytes);
    }
    w->type = type;
    w->is_float = kind == PANEL_KIND_COUNT;
    w->kind = kind;
    w->rows = rows;
    w->cols = cols;
    w->blocks = block_count(cols);
    w->panel_bytes = w->is_float ? 0 : panel_bytes(&panel_layouts[kind], w->blocks);
    w->groups = groups;
    w->bytes = bytes;
    pack->kernels = cpu->kernels;
    pack->row_bytes = row_bytes;
    pack->weight = w;
    err = cpu_weight_pack(cpu, pack, eb);
    if (err != ERR_OK) {
        pages_free(&cpu->pages, w->chunk);
        free(w);
        return err;
    }
    cpu->host.weight_bytes += bytes;
    *ret_weight = w;
    return ERR_OK;
}

enum err cpu_weight_load(struct backend *b, enum quant_type type, const void *data, uint32_t rows,
                         uint32_t cols, uint32_t groups, struct weight **ret_weight,
                         struct errbuf *eb)
{
    struct pack_task pack = {.file = data};
    return cpu_weight_new(b, type, &pack, rows, cols, groups, ret_weight, eb);
}

enum err cpu_weight_read(struct backend *b, enum quant_type type,
                         const struct weight_source *source, uint32_t rows, uint32_t cols,
                         uint32_t groups, struct weight **ret_weight, struct errbuf *eb)
{
    struct pack_task pack = {.source = source};
    return cpu_weight_new(b, type, &pack, rows, cols, groups, ret_weight, eb);
}

void cpu_weight_free(struct backend *b, struct weight *w)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    if (w == NULL)
        return;
    cpu->host.weight_bytes -= w->bytes;
    pages_free(&cpu->pages, w->chunk);
    free(w);
}

struct embed_task {
    const struct weight *weight;
    const int32_t *ids;
    float scale;
    float *out;
};

static void cpu_embed_row(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct embed_task *embed = ctx;
    const struct weight *w = embed->weight;
    CHECK(embed->ids[task] >= 0 && (uint32_t)embed->ids[task] < w->rows);
    uint32_t row = (uint32_t)embed->ids[task];
    float *out = embed->out + (size_t)task * w->cols;
    if (!w->is_float) {
        panel_read_row(w->kind, w->data + row / PANEL_ROWS * w->panel_bytes, w->blocks,
                       row % PANEL_ROWS, out);
    } else if (w->type == QUANT_TYPE_F32) {
        memcpy(out, w->data + (size_t)row * w->cols * 4, (size_t)w->cols * 4);
    } else {
        const uint8_t *halves = w->data + (size_t)row * w->cols * 2;
        for (uint32_t k = 0; k < w->cols; k++) {
            uint16_t half;
            memcpy(&half, halves + (size_t)2 * k, sizeof half);
            out[k] = w->type == QUANT_TYPE_F16 ? half_to_float(half) : bfloat_to_float(half);
        }
    }
    for (uint32_t k = 0; k < w->cols; k++)
        out[k] = out[k] * embed->scale;
}

void cpu_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
               float scale, float *out)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    struct embed_task embed = {.weight = w, .ids = ids, .scale = scale, .out = out};
    pool_run(cpu->pool, cpu_embed_row, &embed, n);
}
