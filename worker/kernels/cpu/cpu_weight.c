/* Matrices as panels of 16 rows (panel.h), and single rows of them for the embedding. */
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

uint64_t backend_cpu_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                  const struct sum_cut *cut)
{
    enum panel_kind kind = panel_kind_of(type);
    uint64_t bytes =
        kind < PANEL_KIND_COUNT
            ? panel_count(rows) * panel_bytes(&panel_layouts[kind],
                                              shape_weight_lead(type, cut) + block_count(cols))
            : (uint64_t)rows * cols * float_type_bytes(type);
    return (bytes + 63) / 64 * 64;
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

/* Matrices come in pieces that stay in the thread's cache. */
#define PACK_PIECE_BYTES (256u << 10)

struct pack_item {
    const struct weight_source *source;
    struct weight *weight;
    size_t row_bytes;
    uint32_t piece_rows; /* of a task: whole panels */
    uint32_t first_task;
};

struct pack_run {
    const struct cpu_kernels *kernels;
    struct pack_item *items;
    uint32_t n_items;
    uint32_t n_tasks;
    size_t piece_bytes;      /* of the largest piece */
    uint8_t *room;           /* [thread][piece_bytes] */
    _Atomic uint32_t failed; /* item; n_items: none */
};

/* The item whose piece a task is. */
static const struct pack_item *pack_item_of(const struct pack_run *run, uint32_t task)
{
    uint32_t low = 0, high = run->n_items;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (run->items[middle].first_task <= task)
            low = middle;
        else
            high = middle;
    }
    return &run->items[low];
}

static void cpu_pack_piece(void *ctx, uint32_t task, uint32_t thread)
{
    struct pack_run *run = ctx;
    const struct pack_item *item = pack_item_of(run, task);
    struct weight *w = item->weight;
    uint32_t first = (task - item->first_task) * item->piece_rows;
    uint32_t end = w->rows - first < item->piece_rows ? w->rows : first + item->piece_rows;
    uint64_t at = first * item->row_bytes;
    /* Float types are kept as the file has them: no room between. */
    uint8_t *file = w->is_float ? w->data + at : run->room + thread * run->piece_bytes;
    uint32_t none = run->n_items;

    if (atomic_load(&run->failed) != none)
        return;
    if (!item->source->read(item->source->ctx, at, file, (end - first) * item->row_bytes)) {
        (void)atomic_compare_exchange_strong(&run->failed, &none, (uint32_t)(item - run->items));
        return;
    }
    /* Lanes past the last row stay zero. */
    for (uint32_t row = first; row < end && !w->is_float; row += PANEL_ROWS)
        run->kernels->pack_panel[w->kind](file + (row - first) * item->row_bytes, item->row_bytes,
                                          end - row < PANEL_ROWS ? end - row : PANEL_ROWS,
                                          w->blocks, w->data + row / PANEL_ROWS * w->panel_bytes);
}

/* A matrix with memory and nothing in it. */
static enum err cpu_weight_new(struct cpu_backend *cpu, const struct weight_job *job,
                               struct weight **ret_weight, struct errbuf *eb)
{
    enum panel_kind kind = panel_kind_of(job->type);
    CHECK(kind < PANEL_KIND_COUNT || float_type_bytes(job->type) > 0);
    struct weight *w = calloc(1, sizeof *w);
    if (w == NULL)
        return err_set(eb, ERR_NO_MEMORY, "a weight");
    uint64_t bytes = backend_cpu_weight_bytes(job->type, job->rows, job->cols, &job->cut);
    w->data = pages_alloc(&cpu->pages, bytes, &w->chunk);
    if (w->data == NULL) {
        free(w);
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes for a weight", (unsigned long long)bytes);
    }
    w->type = job->type;
    w->is_float = kind == PANEL_KIND_COUNT;
    w->kind = kind;
    w->rows = job->rows;
    w->cols = job->cols;
    w->lead = shape_weight_lead(job->type, &job->cut);
    w->blocks = w->lead + block_count(job->cols);
    w->panel_bytes = w->is_float ? 0 : panel_bytes(&panel_layouts[kind], w->blocks);
    w->cut = job->cut;
    w->bytes = bytes;
    cpu->host.weight_bytes += bytes;
    *ret_weight = w;
    return ERR_OK;
}

/* Memory for a job's matrix, and how it is cut into tasks. */
static enum err cpu_pack_add(struct cpu_backend *cpu, struct pack_run *run,
                             const struct weight_job *job, struct errbuf *eb)
{
    struct pack_item *item = &run->items[run->n_items];
    enum err err = shape_weight_check(job->type, job->rows, job->cols, &job->cut, eb);
    if (err == ERR_OK)
        err = cpu_weight_new(cpu, job, &item->weight, eb);
    if (err != ERR_OK)
        return err;
    run->n_items++;
    uint64_t row_bytes = weight_row_bytes(job->type, job->cols, &job->cut);
    size_t panel = (size_t)row_bytes * PANEL_ROWS;
    uint32_t panels = panel < PACK_PIECE_BYTES ? (uint32_t)(PACK_PIECE_BYTES / panel) : 1;
    item->source = &job->source;
    item->row_bytes = (size_t)row_bytes;
    item->piece_rows = panels * PANEL_ROWS;
    item->first_task = run->n_tasks;
    run->n_tasks += (job->rows + item->piece_rows - 1) / item->piece_rows;
    if (!item->weight->is_float && panels * panel > run->piece_bytes)
        run->piece_bytes = panels * panel;
    if (run->n_tasks >= POOL_TASKS_MAX)
        return err_set(eb, ERR_TOO_LARGE, "more than %u pieces of weights", POOL_TASKS_MAX);
    return ERR_OK;
}

/* Once every matrix has its memory: reads and packs them all. */
static enum err cpu_pack(struct cpu_backend *cpu, struct pack_run *run, uint32_t *ret_failed,
                         struct errbuf *eb)
{
    size_t room = pool_threads(cpu->pool) * run->piece_bytes;
    run->kernels = cpu->kernels;
    run->room = malloc(room > 0 ? room : 1);
    if (run->room == NULL) {
        *ret_failed = 0;
        return err_set(eb, ERR_NO_MEMORY, "%zu bytes to pack weights", room);
    }
    atomic_init(&run->failed, run->n_items);
    pool_run(cpu->pool, cpu_pack_piece, run, run->n_tasks);
    free(run->room);
    *ret_failed = atomic_load(&run->failed);
    return *ret_failed == run->n_items ? ERR_OK : err_set(eb, ERR_IO, "a weight could not be read");
}

enum err cpu_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                          uint32_t *ret_failed, struct errbuf *eb)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    struct pack_run run = {.items = calloc(n_jobs > 0 ? n_jobs : 1, sizeof *run.items)};
    enum err err = run.items == NULL ? err_set(eb, ERR_NO_MEMORY, "%u weights", n_jobs) : ERR_OK;

    *ret_failed = 0;
    for (uint32_t i = 0; err == ERR_OK && i < n_jobs; i++) {
        *ret_failed = i;
        err = cpu_pack_add(cpu, &run, &jobs[i], eb);
    }
    if (err == ERR_OK)
        err = cpu_pack(cpu, &run, ret_failed, eb);
    for (uint32_t i = 0; i < run.n_items; i++) {
        if (err == ERR_OK)
            *jobs[i].ret_weight = run.items[i].weight;
        else
            cpu_weight_free(b, run.items[i].weight);
    }
    free(run.items);
    return err;
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
