/* How attention is cut into blocks (attention.cu says what a block does), and its scratch. */
#include "worker/kernels/cuda/cuda_internal.h"
#include "worker/kernels/cuda/kernels.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <string.h>

/* Two blocks for each multiprocessor of an H100: below that, pages are shared out. A constant, so
 * that what is reserved does not depend on the device. */
#define ATTENTION_BLOCKS_AIM 264u
/* At most so many rows have their pages shared out, and no fewer pages than these. */
#define ATTENTION_SPLIT_ROWS  16u
#define ATTENTION_SPLIT_PAGES 4u
/* Floats for partial sums, unless one row alone needs more: rows take turns. */
#define ATTENTION_PARTIALS_MAX (16u << 20)

static uint32_t least_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint64_t most_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint32_t cuda_power_of_two(uint32_t n)
{
    uint32_t power = 1;
    while (power < n)
        power *= 2;
    return power;
}

/* Of one row: a maximum, a sum and values of each page and head. */
static uint64_t partials_of_row(uint32_t n_heads, uint32_t dim_v, uint32_t pages)
{
    return (uint64_t)n_heads * pages * (dim_v + 2);
}

/* Rows whose partial sums are there at once. */
static uint32_t rows_at_once(uint64_t of_row, uint32_t n_rows)
{
    uint64_t fit = ATTENTION_PARTIALS_MAX / of_row;
    return fit == 0 ? 1 : fit < n_rows ? (uint32_t)fit : n_rows;
}

static bool is_whole_blocks(uint32_t dim_v)
{
    return dim_v % QUANT_BLOCK_ITEMS == 0;
}

uint64_t cuda_attention_floats(const struct backend_room_cache *cache, uint32_t rows_max,
                               uint32_t pages_max)
{
    const uint32_t split_rows = least_u32(rows_max, ATTENTION_SPLIT_ROWS);
    const uint64_t of_row =
        partials_of_row(cache->n_heads, cache->head_dim_v, cuda_power_of_two(pages_max));
    uint64_t partials = of_row * split_rows;
    if (partials > ATTENTION_PARTIALS_MAX)
        partials = most_u64(of_row, ATTENTION_PARTIALS_MAX);
    return is_whole_blocks(cache->head_dim_v)
               ? partials
               : partials + (uint64_t)rows_max * cache->n_heads * cache->head_dim_v;
}

struct backend_heads_room backend_cuda_heads_room(const struct backend_room *room)
{
    if (room->n_caches == 0)
        return (struct backend_heads_room){0};
    const struct backend_room_cache *cache = &room->cache[0];
    const uint64_t of_row =
        partials_of_row(1, cache->head_dim_v, cuda_power_of_two(room->pages_max));
    return (struct backend_heads_room){
        .row_bytes = of_row * sizeof(float),
        .most = (uint64_t)ATTENTION_PARTIALS_MAX * sizeof(float),
        .rows = least_u32(room->rows_max, ATTENTION_SPLIT_ROWS),
    };
}

/* Room for so many floats; ends the process where it is refused outside of what was reserved. */
static float *attention_room(struct cuda_backend *cuda, uint64_t count)
{
    struct errbuf eb = {{0}};
    void *room = NULL;

    if (count <= cuda->attention_count)
        return cuda->attention;
    CHECK(!cuda->reserved);
    cuda_free(cuda, cuda->attention);
    cuda->attention = NULL;
    cuda->attention_count = 0;
    if (cuda_alloc(cuda, CUDA_MEMORY_SCRATCH, count * sizeof(float), "room for attention", &room,
                   &eb) != ERR_OK)
        cuda_fail(cudaErrorMemoryAllocation, NULL, "%s", eb.text);
    cuda->attention = room;
    cuda->attention_count = count;
    return cuda->attention;
}

/* The largest even shares of a group's heads that fit a tile. */
static uint32_t heads_of_tile(uint32_t group, uint32_t tile)
{
    uint32_t chunks = (group + tile - 1) / tile;
    return (group + chunks - 1) / chunks;
}

/* The plan for rows of runs that stand by themselves, or not. */
static enum cuda_tile attention_plan(struct cuda_attention *a, bool has_runs, uint32_t pages_most)
{
    const uint32_t group = a->group;
    if (has_runs) {
        enum cuda_tile tile = cuda_attention_tile_max(a->kv.dim_v);
        a->tile_heads = heads_of_tile(group, tile);
        a->tile_rows = tile / a->tile_heads;
        return tile;
    }
    enum cuda_tile tile = group <= 4 ? CUDA_TILE_4 : CUDA_TILE_8;
    a->tile_heads = heads_of_tile(group, tile);
    a->tile_rows = 1;
    uint32_t chunks = (group + a->tile_heads - 1) / a->tile_heads;
    uint64_t blocks = (uint64_t)a->rows.count * a->kv.n_kv_heads * chunks;
    uint32_t pages = pages_most;
    if (a->window > 0)
        pages = least_u32(pages, cuda_power_of_two(a->window / KV_PAGE_TOKENS + 2));
    if (a->rows.count > ATTENTION_SPLIT_ROWS || blocks >= ATTENTION_BLOCKS_AIM ||
        pages < ATTENTION_SPLIT_PAGES)
        return tile;
    /* Both powers of two: every page of the bucket has its place and there are no more. */
    uint32_t wanted = cuda_power_of_two((uint32_t)(ATTENTION_BLOCKS_AIM / blocks));
    a->splits = least_u32(wanted, pages / 2);
    a->split_pages = pages / a->splits;
    return tile;
}

static struct cuda_act act_from(const struct cuda_act *act, uint32_t row)
{
    struct cuda_act from = *act;
    from.q += (size_t)row * act->q_stride;
    from.scales += (size_t)row * act->blocks;
    from.sums += (size_t)row * act->blocks;
    from.pairs += (size_t)row * act->blocks;
    if (from.floats != NULL)
        from.floats += (size_t)row * act->cols_max;
    return from;
}

static void attention_launch(struct cuda_backend *cuda, const struct cuda_attention *a,
                             enum cuda_tile tile)
{
    CUDA_DO_LAUNCH(cuda_launch_attention(cuda->stream, a, tile),
                   "attention of %u rows of %u heads of %u over %u, %u splits of %u pages",
                   a->rows.count, a->n_heads, a->kv.dim_k, a->kv.n_kv_heads, a->splits,
                   a->split_pages);
    if (a->split_pages > 0)
        CUDA_DO_LAUNCH(cuda_launch_attention_merge(cuda->stream, a),
                       "attention_merge of %u rows of %u heads, %u pages", a->rows.count,
                       a->n_heads, a->splits * a->split_pages);
}

void cuda_attention(struct backend *b, const struct attention_job *job)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const struct kv_shape *shape = &job->kv->shape;
    const uint32_t n = job->rows->n_rows, cols = job->n_heads * shape->head_dim_v;
    const uint32_t group = shape_attention_group(job, shape);
    CHECK(n <= job->out->rows_max && cols <= job->out->cols_max);
    cuda_enter(cuda);
    if (n == 0)
        return;
    const struct cuda_step_rows rows = cuda_step_rows(cuda, job->rows, NULL, 0);
    struct cuda_attention a = {
        .rows = rows.rows,
        .kv = cuda_kv_layer(job->kv, job->layer),
        .q = job->q,
        .n_heads = job->n_heads,
        .group = group,
        .skip = job->skip,
        .scale = job->scale,
        .softcap = job->softcap,
        .window = job->window,
        .out = job->out->device,
    };
    const enum cuda_tile tile = attention_plan(&a, rows.has_runs, rows.pages_most);
    const uint32_t pages = a.splits * a.split_pages;
    const uint64_t of_row = partials_of_row(a.n_heads, a.kv.dim_v, pages);
    const uint32_t at_once = pages > 0 ? rows_at_once(of_row, n) : n;
    const uint64_t partials = pages > 0 ? of_row * at_once : 0;
    const bool whole = is_whole_blocks(a.kv.dim_v);
    a.partials = attention_room(cuda, partials + (whole ? 0 : (uint64_t)n * cols));
    float *floats = whole ? NULL : a.partials + partials;
    for (uint32_t row = 0; row < n; row += at_once) {
        struct cuda_attention part = a;
        part.rows.first += row;
        part.rows.count = least_u32(at_once, n - row);
        part.q += (size_t)row * a.n_heads * a.kv.dim_k;
        part.out = act_from(&a.out, row);
        part.floats = whole ? NULL : floats + (size_t)row * cols;
        attention_launch(cuda, &part, tile);
    }
    if (!whole)
        CUDA_DO_LAUNCH(cuda_launch_quantize(cuda->stream, floats, n, cols, a.out),
                       "quantize of attention, %u rows of %u", n, cols);
}
