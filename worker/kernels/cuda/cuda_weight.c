/* Matrices on the device: their memory, how they get there, and rows of them for the embedding. */
#include "worker/kernels/cuda/cuda_weight.h"

#include "common/check.h"

#include <stdatomic.h>
#include <stdlib.h>

uint32_t cuda_weight_leaves(const struct sum_cut *cut, uint32_t lead, uint32_t *ret_leaves)
{
    const uint32_t here = sum_group_begin(cut, cut->first);
    struct sum_node nodes[SUM_NODES_MAX];
    uint32_t n = 0, node = 0;

    (void)sum_nodes(cut, nodes);
    for (uint32_t g = cut->first; g < cut->end; g++) {
        const uint32_t end = sum_group_begin(cut, g + 1) - here;
        uint32_t flags = WEIGHT_LEAF_GROUP_END;
        if (g + 1 == nodes[node].first + nodes[node].count) {
            flags |= WEIGHT_LEAF_NODE_END;
            node++;
        }
        for (uint32_t at = sum_group_begin(cut, g) - here; at < end; at += SUM_LEAF_BLOCKS) {
            const bool is_last = end - at <= SUM_LEAF_BLOCKS;
            const uint32_t count = is_last ? end - at : SUM_LEAF_BLOCKS;
            if (ret_leaves != NULL)
                ret_leaves[n] =
                    (lead + at) | count << WEIGHT_LEAF_COUNT_SHIFT | (is_last ? flags : 0);
            n++;
        }
    }
    return n;
}

static uint32_t block_count(uint32_t cols)
{
    return (cols + SUM_BLOCK_ITEMS - 1) / SUM_BLOCK_ITEMS;
}

static uint64_t weight_stride(enum quant_type type, uint32_t cols, uint32_t blocks)
{
    return weight_float_bytes(type) > 0 ? weight_float_row_bytes(type, cols)
                                        : weight_tile_bytes(weight_layout_of(type), blocks);
}

static uint64_t weight_data_bytes(enum quant_type type, uint32_t rows, uint64_t stride)
{
    return stride * (weight_float_bytes(type) > 0 ? rows : weight_tiles(rows));
}

uint64_t backend_cuda_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                   const struct sum_cut *cut)
{
    const uint32_t lead = shape_weight_lead(type, cut);
    const uint64_t stride = weight_stride(type, cols, lead + block_count(cols));
    return cuda_held_bytes(weight_data_bytes(type, rows, stride) +
                           cuda_weight_leaves(cut, lead, NULL) * sizeof(uint32_t));
}

/* Where each leaf follows from its number: 8 blocks after the one before. */
static uint32_t even_blocks(const struct weight *w, const uint32_t *leaves)
{
    for (uint32_t i = 0; i < w->n_leaves; i++) {
        const uint32_t begin = i * SUM_LEAF_BLOCKS;
        const uint32_t end = i + 1 < w->n_leaves ? begin + SUM_LEAF_BLOCKS : w->blocks;
        if (weight_leaf_begin(leaves[i]) != begin || weight_leaf_end(leaves[i]) != end)
            return 0;
    }
    return w->blocks;
}

void cuda_weight_free(struct backend *b, struct weight *w)
{
    if (w == NULL)
        return;
    cuda_free((struct cuda_backend *)b, w->data);
    free(w);
}

/* A matrix with memory, and the order of its sum in it. */
static enum err cuda_weight_new(struct cuda_backend *cuda, const struct weight_job *job,
                                struct weight **ret_weight, struct errbuf *eb)
{
    enum err err = shape_weight_check(job->type, job->rows, job->cols, &job->cut, eb);
    if (err != ERR_OK)
        return err;
    const uint32_t lead = shape_weight_lead(job->type, &job->cut);
    const uint32_t n_leaves = cuda_weight_leaves(&job->cut, lead, NULL);
    struct weight *w = calloc(1, sizeof *w);
    uint32_t *leaves = malloc(n_leaves * sizeof *leaves);
    if (w == NULL || leaves == NULL) {
        free(w);
        free(leaves);
        return err_set(eb, ERR_NO_MEMORY, "a weight");
    }
    w->type = job->type;
    w->rows = job->rows;
    w->cols = job->cols;
    w->cut = job->cut;
    w->lead = lead;
    w->blocks = lead + block_count(job->cols);
    w->n_leaves = cuda_weight_leaves(&job->cut, lead, leaves);
    w->even_blocks = even_blocks(w, leaves);
    w->stride = weight_stride(job->type, job->cols, w->blocks);
    const uint64_t bytes = weight_data_bytes(job->type, job->rows, w->stride);
    void *memory;
    err = cuda_alloc(cuda, CUDA_MEMORY_WEIGHTS, bytes + n_leaves * sizeof *leaves, "a weight",
                     &memory, eb);
    if (err == ERR_OK) {
        w->data = memory;
        w->leaves = (uint32_t *)(void *)(w->data + bytes);
        cudaError_t e = cudaMemcpyAsync(w->leaves, leaves, n_leaves * sizeof *leaves,
                                        cudaMemcpyHostToDevice, cuda->stream);
        if (e == cudaSuccess)
            e = cudaStreamSynchronize(cuda->stream);
        if (e != cudaSuccess)
            err = cuda_error(eb, e, "a weight's %u leaves", n_leaves);
    }
    free(leaves);
    if (err != ERR_OK) {
        cuda_weight_free(&cuda->host.base, w);
        return err;
    }
    *ret_weight = w;
    return ERR_OK;
}

/* ---- loading --------------------------------------------------------------------------------- */

/*
 * A matrix comes in pieces of whole tiles. The host's threads read a batch of pieces to pinned
 * memory; from there they are copied to the device and packed while the threads read the next
 * batch. So besides the matrices themselves there are two batches, here and on the device.
 */
#define LOAD_PIECE_BYTES (256u << 10)
#define LOAD_BATCH_BYTES (64u << 20) /* at most, unless one piece is larger */

struct load_item {
    const struct weight_source *source;
    struct weight *weight;
    uint64_t row_bytes; /* of the file */
    uint32_t piece_rows;
    uint32_t first_piece;
};

struct load_run {
    struct cuda_backend *cuda;
    struct load_item *items;
    uint32_t n_items;
    uint32_t n_pieces;
    uint64_t piece_bytes; /* of the largest piece, a multiple of 16 */
    uint32_t batch;       /* pieces of one */
    struct cuda_pinned pinned[2];
    uint8_t *device; /* [2][batch][piece_bytes] */
    /* The batch that is being read. */
    uint32_t first_piece;
    uint8_t *to;
    _Atomic uint32_t failed; /* item; n_items: none */
};

static struct load_item *load_item_of(const struct load_run *run, uint32_t piece)
{
    uint32_t low = 0, high = run->n_items;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (run->items[middle].first_piece <= piece)
            low = middle;
        else
            high = middle;
    }
    return &run->items[low];
}

/* Rows of a piece. */
static void load_rows(const struct load_item *item, uint32_t piece, uint32_t *ret_first,
                      uint32_t *ret_count)
{
    const uint32_t rows = item->weight->rows;
    *ret_first = (piece - item->first_piece) * item->piece_rows;
    *ret_count = rows - *ret_first < item->piece_rows ? rows - *ret_first : item->piece_rows;
}

static void load_read(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    struct load_run *run = ctx;
    const uint32_t piece = run->first_piece + task;
    const struct load_item *item = load_item_of(run, piece);
    uint32_t first, count, none = run->n_items;

    if (atomic_load(&run->failed) != none)
        return;
    load_rows(item, piece, &first, &count);
    if (!item->source->read(item->source->ctx, first * item->row_bytes,
                            run->to + task * run->piece_bytes, (size_t)(count * item->row_bytes)))
        (void)atomic_compare_exchange_strong(&run->failed, &none, (uint32_t)(item - run->items));
}

/* Queues the copy of a piece that was read, and its packing. */
static enum err load_send(struct load_run *run, uint32_t piece, const uint8_t *host,
                          uint8_t *device, struct errbuf *eb)
{
    const struct load_item *item = load_item_of(run, piece);
    const struct weight *w = item->weight;
    struct cuda_pack pack = {.file = device,
                             .row_bytes = item->row_bytes,
                             .tiles = w->data,
                             .stride = w->stride,
                             .blocks = w->blocks,
                             .cols = w->cols};
    load_rows(item, piece, &pack.first, &pack.count);
    cudaError_t e = cudaMemcpyAsync(device, host, pack.count * item->row_bytes,
                                    cudaMemcpyHostToDevice, run->cuda->stream);
    if (e == cudaSuccess)
        e = cuda_weight_pack(w->type, &pack, run->cuda->stream).error;
    if (e != cudaSuccess)
        return cuda_error(eb, e, "packing %u rows of %u %s", pack.count, w->cols,
                          quant_type_info((uint32_t)w->type)->name);
    return ERR_OK;
}

/* Memory for a job's matrix, and how it is cut into pieces. */
static enum err load_add(struct load_run *run, const struct weight_job *job, struct errbuf *eb)
{
    struct load_item *item = &run->items[run->n_items];
    enum err err = cuda_weight_new(run->cuda, job, &item->weight, eb);
    if (err != ERR_OK)
        return err;
    run->n_items++;
    item->source = &job->source;
    item->row_bytes = weight_row_bytes(job->type, job->cols, &job->cut);
    const uint64_t tile = item->row_bytes * WEIGHT_TILE_ROWS;
    const uint64_t tiles = tile < LOAD_PIECE_BYTES ? LOAD_PIECE_BYTES / tile : 1;
    item->piece_rows = (uint32_t)tiles * WEIGHT_TILE_ROWS;
    item->first_piece = run->n_pieces;
    run->n_pieces += (job->rows + item->piece_rows - 1) / item->piece_rows;
    const uint64_t bytes =
        (job->rows < item->piece_rows ? job->rows : item->piece_rows) * item->row_bytes;
    if (bytes > run->piece_bytes)
        run->piece_bytes = (bytes + 15) / 16 * 16;
    return ERR_OK;
}

static enum err load_room(struct load_run *run, struct errbuf *eb)
{
    const uint32_t threads = pool_threads(run->cuda->pool);
    uint64_t batch = LOAD_BATCH_BYTES / run->piece_bytes;
    void *device;

    batch = batch < 4 * threads ? batch : 4 * threads;
    batch = batch < run->n_pieces ? batch : run->n_pieces;
    run->batch = batch > 0 ? (uint32_t)batch : 1;
    const uint64_t bytes = run->batch * run->piece_bytes;
    enum err err =
        cuda_alloc(run->cuda, CUDA_MEMORY_SCRATCH, 2 * bytes, "pieces of weights", &device, eb);
    run->device = device;
    for (int i = 0; err == ERR_OK && i < 2; i++)
        err = cuda_pinned_grow(&run->pinned[i], (size_t)bytes, eb);
    return err;
}

static enum err load_all(struct load_run *run, uint32_t *ret_failed, struct errbuf *eb)
{
    enum err err = ERR_OK;
    uint32_t turn = 0;

    atomic_init(&run->failed, run->n_items);
    for (uint32_t first = 0; err == ERR_OK && first < run->n_pieces; first += run->batch) {
        struct cuda_pinned *pinned = &run->pinned[turn];
        uint8_t *device = run->device + turn * run->batch * run->piece_bytes;
        const uint32_t left = run->n_pieces - first;
        const uint32_t count = left < run->batch ? left : run->batch;
        cuda_pinned_wait(pinned);
        run->first_piece = first;
        run->to = pinned->at;
        pool_run(run->cuda->pool, load_read, run, count);
        *ret_failed = atomic_load(&run->failed);
        if (*ret_failed != run->n_items)
            return err_set(eb, ERR_IO, "a weight could not be read");
        for (uint32_t i = 0; err == ERR_OK && i < count; i++) {
            *ret_failed = (uint32_t)(load_item_of(run, first + i) - run->items);
            err = load_send(run, first + i, pinned->at + i * run->piece_bytes,
                            device + i * run->piece_bytes, eb);
        }
        cuda_pinned_mark(run->cuda, pinned);
        turn ^= 1;
    }
    return err;
}

enum err cuda_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                           uint32_t *ret_failed, struct errbuf *eb)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct load_run run = {.cuda = cuda,
                           .items = calloc(n_jobs > 0 ? n_jobs : 1, sizeof *run.items)};
    enum err err = run.items == NULL ? err_set(eb, ERR_NO_MEMORY, "%u weights", n_jobs) : ERR_OK;

    *ret_failed = 0;
    cuda_enter(cuda);
    for (uint32_t i = 0; err == ERR_OK && i < n_jobs; i++) {
        *ret_failed = i;
        err = load_add(&run, &jobs[i], eb);
    }
    if (err == ERR_OK && n_jobs > 0)
        err = load_room(&run, eb);
    if (err == ERR_OK && n_jobs > 0)
        err = load_all(&run, ret_failed, eb);
    cudaError_t e = cudaStreamSynchronize(cuda->stream);
    if (err == ERR_OK && e != cudaSuccess)
        err = cuda_error(eb, e, "loading %u weights", n_jobs);
    for (int i = 0; i < 2; i++)
        cuda_pinned_free(&run.pinned[i]);
    cuda_free(cuda, run.device);
    for (uint32_t i = 0; i < run.n_items; i++) {
        if (err == ERR_OK)
            *jobs[i].ret_weight = run.items[i].weight;
        else
            cuda_weight_free(b, run.items[i].weight);
    }
    free(run.items);
    return err;
}

/* ---- the embedding --------------------------------------------------------------------------- */

void cuda_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
                float scale, float *out)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;

    if (n == 0)
        return;
    for (uint32_t i = 0; i < n; i++)
        CHECK(ids[i] >= 0 && (uint32_t)ids[i] < w->rows);
    const struct cuda_embed embed = {.data = w->data,
                                     .stride = w->stride,
                                     .ids = cuda_input(cuda, ids, n * sizeof *ids),
                                     .n = n,
                                     .cols = w->cols,
                                     .lead = w->lead,
                                     .scale = scale,
                                     .out = out};
    CUDA_DO_LAUNCH(cuda_weight_embed(w->type, &embed, cuda->stream), "embedding %u tokens of %u", n,
                   w->cols);
}
