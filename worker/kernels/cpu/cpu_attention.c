/*
 * Attention: which thread does which rows, heads and pages. Two ways to cut the work give the same
 * partial results and merge them in the same order:
 *   whole: a task takes a few rows of one sequence and one KV head through all pages, merging as it
 *          goes (prefill, and decode of many sequences);
 *   split: a task takes one row, one KV head and a few pages, and leaves the page results in
 *          memory; a second round merges them ascending (decode of few, long sequences).
 */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <string.h>

#define ATTENTION_QUERIES_MAX    32u /* of one task, unless one row's heads are more */
#define ATTENTION_PAGES_PER_TASK 8u
#define ATTENTION_MERGE_PAGES    32u
#define ATTENTION_SPLIT_PAGES    12u /* shorter sequences are not worth a second round */

/* Rows first .. first + count - 1, all of one sequence. */
struct attention_block {
    uint32_t first;
    uint32_t count;
};

struct attention_run {
    struct cpu_backend *cpu;
    const struct attention_job *job;
    const struct kv *kv;
    uint32_t group;    /* query heads per KV head, at most */
    uint32_t queries;  /* at most so many in a task */
    uint32_t n_blocks; /* whole */
    const struct attention_block *blocks;
    uint32_t pages_max; /* split: of the longest row */
    uint32_t splits;    /* split: tasks per (row, KV head) */
    float *partials;    /* split: [row][head][page][2 + dim_v_padded] = max, sum, values */
    float *outs;        /* [row][n_heads * head_dim_v] */
    float *room;
    size_t room_stride;
};

/* Where a task's room begins, in floats. */
struct attention_room {
    size_t q;
    size_t scores;
    size_t page_values;
    size_t values;
    size_t k_room;
    size_t v_room;
    size_t count;
};

static struct attention_room attention_room_for(uint32_t dim_k, uint32_t dim_v_padded,
                                                uint32_t queries)
{
    struct attention_room room;
    room.q = 0;
    room.scores = room.q + (size_t)queries * dim_k;
    room.page_values = room.scores + (size_t)queries * KV_PAGE_TOKENS;
    room.values = room.page_values + (size_t)queries * dim_v_padded;
    room.k_room = room.values + (size_t)queries * dim_v_padded;
    room.v_room = room.k_room + (size_t)KV_PAGE_TOKENS * dim_k;
    room.count = room.v_room + (size_t)KV_PAGE_TOKENS * KV_PAGE_TOKENS;
    return room;
}

static struct attention_room attention_room_of(const struct kv *kv, uint32_t queries)
{
    return attention_room_for(kv->shape.head_dim_k, kv->layout.dim_v_padded, queries);
}

static bool attention_is_split(uint32_t threads, uint32_t pages, uint32_t rows, uint32_t n_kv_heads)
{
    return threads > 1 && pages >= ATTENTION_SPLIT_PAGES &&
           (uint64_t)rows * n_kv_heads < (uint64_t)threads * 4;
}

/* Results, page results, blocks: floats. */
static size_t attention_partials(const struct backend_room_cache *cache, uint32_t rows,
                                 uint32_t pages, bool split)
{
    size_t outs = (size_t)rows * cache->n_heads * cache->head_dim_v;
    uint32_t dim_v_padded =
        (cache->head_dim_v + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS * QUANT_BLOCK_ITEMS;
    size_t partials = split ? (size_t)rows * cache->n_heads * pages * (2 + dim_v_padded) : 0;
    return outs + partials + (size_t)rows * 2; /* two 32-bit words a block */
}

size_t cpu_attention_rows_room(const struct backend_room_cache *cache)
{
    uint32_t group = cache->group;
    uint32_t queries = group < ATTENTION_QUERIES_MAX ? ATTENTION_QUERIES_MAX : group;
    uint32_t dim_v_padded =
        (cache->head_dim_v + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS * QUANT_BLOCK_ITEMS;
    return attention_room_for(cache->head_dim_k, dim_v_padded, queries).count;
}

size_t cpu_attention_partials_room(const struct backend_room_cache *cache, uint32_t rows,
                                   uint32_t pages, uint32_t threads)
{
    size_t most = attention_partials(cache, rows, pages, false);
    while (rows > 1 && !attention_is_split(threads, pages, rows, cache->n_kv_heads))
        rows--;
    if (rows == 0 || !attention_is_split(threads, pages, rows, cache->n_kv_heads))
        return most;
    size_t split = attention_partials(cache, rows, pages, true);
    return split > most ? split : most;
}

struct backend_heads_room cpu_attention_heads_room(const struct backend_room_cache *cache,
                                                   uint32_t rows, uint32_t pages, uint32_t threads)
{
    struct backend_room_cache one = *cache;
    one.n_heads = 1;
    return (struct backend_heads_room){
        .head_bytes = attention_partials(&one, rows, pages, false) * sizeof(float),
        .row_bytes = attention_partials(&one, 1, pages, true) * sizeof(float),
        .most = UINT64_MAX,
        .rows = attention_is_split(threads, pages, 1, 1) ? rows : 0,
        .units = threads * 4,
    };
}

static uint32_t attention_first(const struct attention_job *job, uint32_t row)
{
    uint32_t position = job->rows->position[row];
    return job->window > 0 && position >= job->window ? position + 1 - job->window : 0;
}

/* False where the row sees nothing of that page. */
static bool attention_slots(const struct attention_job *job, uint32_t row, uint32_t page_index,
                            uint32_t *ret_begin, uint32_t *ret_end)
{
    uint32_t position = job->rows->position[row];
    uint32_t first = attention_first(job, row);
    uint32_t base = page_index * KV_PAGE_TOKENS;
    if (page_index < first / KV_PAGE_TOKENS || page_index > position / KV_PAGE_TOKENS)
        return false;
    *ret_begin = first > base ? first - base : 0;
    *ret_end = position - base < KV_PAGE_TOKENS ? position - base + 1 : KV_PAGE_TOKENS;
    return true;
}

static const uint32_t *attention_pages(const struct attention_job *job, uint32_t row)
{
    return job->rows->page_table + (size_t)job->rows->sequence[row] * job->rows->page_table_stride;
}

/* Query heads first .. first + count - 1 read one KV head. */
struct attention_heads {
    uint32_t first;
    uint32_t count;
};

static struct attention_heads attention_heads(const struct attention_run *run, uint32_t kv_head)
{
    const struct attention_job *job = run->job;
    const uint32_t begin = kv_head * run->group, end = begin + run->group;
    const uint32_t first = begin > job->skip ? begin - job->skip : 0;
    const uint32_t last = end - job->skip < job->n_heads ? end - job->skip : job->n_heads;
    return (struct attention_heads){first, last - first};
}

static void attention_scale_row(const struct attention_run *run, uint32_t row,
                                struct attention_heads heads, float *q)
{
    uint32_t dim = run->kv->shape.head_dim_k;
    size_t head = (size_t)row * run->job->n_heads + heads.first;
    run->cpu->kernels->scale(run->job->q + head * dim, heads.count * dim, run->job->scale, q);
}

/* Page `index` of a row, and how far from it in memory the page lies that is read after it: pages
 * may be anywhere, so nothing else can tell the processor early enough. */
static struct kernel_page attention_page(const struct attention_run *run, const uint32_t *pages,
                                         uint32_t index, uint32_t last, uint32_t kv_head)
{
    struct kernel_page page = {.softcap = run->job->softcap};
    cpu_kv_page(run->kv, pages[index], run->job->layer, kv_head, &page);
    if (index < last) {
        struct kernel_page next;
        cpu_kv_page(run->kv, pages[index + 1], run->job->layer, kv_head, &next);
        page.ahead = (intptr_t)next.k - (intptr_t)page.k;
    }
    return page;
}

static float attention_top(float max, float page_max)
{
    return page_max > max ? page_max : max;
}

/* A task of whole rows: its block, its KV head and its room. */
struct attention_whole {
    const struct attention_run *run;
    struct attention_block block;
    uint32_t kv_head;
    struct attention_heads heads;
    float *room;
    struct attention_room at;
};

/* What a query has so far. */
struct attention_state {
    float max;
    float sum;
    bool begun;
};

/* Scales the queries; the pages that any of the rows sees. */
static void attention_begin(const struct attention_whole *w, uint32_t *ret_first,
                            uint32_t *ret_last)
{
    const struct attention_job *job = w->run->job;
    const size_t row_floats = (size_t)w->heads.count * w->run->kv->shape.head_dim_k;
    *ret_first = UINT32_MAX;
    *ret_last = 0;
    for (uint32_t r = 0; r < w->block.count; r++) {
        uint32_t row = w->block.first + r;
        attention_scale_row(w->run, row, w->heads, w->room + w->at.q + r * row_floats);
        uint32_t first = attention_first(job, row) / KV_PAGE_TOKENS;
        uint32_t last = job->rows->position[row] / KV_PAGE_TOKENS;
        *ret_first = first < *ret_first ? first : *ret_first;
        *ret_last = last > *ret_last ? last : *ret_last;
    }
}

/* The queries that see something of a page; ret_owner: which of the task's each one is. */
static uint32_t attention_queries(const struct attention_whole *w, uint32_t page_index,
                                  const struct attention_state *states,
                                  struct kernel_query *ret_queries, uint32_t *ret_owner)
{
    const struct attention_run *run = w->run;
    const uint32_t dim_k = run->kv->shape.head_dim_k;
    const uint32_t dim_v = run->kv->layout.dim_v_padded;
    uint32_t n = 0;
    for (uint32_t r = 0; r < w->block.count; r++) {
        uint32_t begin;
        uint32_t end;
        if (!attention_slots(run->job, w->block.first + r, page_index, &begin, &end))
            continue;
        for (uint32_t g = 0; g < w->heads.count; g++) {
            const size_t i = r * w->heads.count + g;
            /* A query's first page goes straight to where its sum is kept. */
            const size_t to = states[i].begun ? w->at.page_values : w->at.values;
            ret_owner[n] = (uint32_t)i;
            ret_queries[n] =
                (struct kernel_query){.q = w->room + w->at.q + i * dim_k,
                                      .begin = begin,
                                      .end = end,
                                      .scores = w->room + w->at.scores + i * KV_PAGE_TOKENS,
                                      .values = w->room + to + i * dim_v};
            n++;
        }
    }
    return n;
}

/* Adds the page's results to what there is. */
static void attention_take(const struct attention_whole *w, const struct kernel_query *queries,
                           const uint32_t *owner, uint32_t n, struct attention_state *states)
{
    const struct cpu_kernels *kernels = w->run->cpu->kernels;
    const uint32_t dim_v = w->run->kv->layout.dim_v_padded;
    float old[n];
    float page_max[n];
    float top[n];
    float a[n];
    float b[n];
    for (uint32_t j = 0; j < n; j++) {
        const struct attention_state *state = &states[owner[j]];
        page_max[j] = queries[j].max;
        old[j] = state->begun ? state->max : page_max[j];
        top[j] = attention_top(old[j], page_max[j]);
    }
    kernels->attention_weights(old, top, n, a);
    kernels->attention_weights(page_max, top, n, b);
    for (uint32_t j = 0; j < n; j++) {
        struct attention_state *state = &states[owner[j]];
        if (state->begun)
            kernels->attention_merge(&state->sum, w->room + w->at.values + (size_t)owner[j] * dim_v,
                                     a[j], queries[j].sum, queries[j].values, b[j], dim_v);
        else
            state->sum = queries[j].sum;
        state->max = top[j];
        state->begun = true;
    }
}

static void attention_whole_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct attention_run *run = ctx;
    const struct attention_job *job = run->job;
    const struct kv *kv = run->kv;
    /* Later rows see more pages: they come first, so that the last tasks are short. */
    const uint32_t block_index = run->n_blocks - 1 - task / kv->shape.n_kv_heads;
    const struct attention_whole w = {
        .run = run,
        .block = run->blocks[block_index],
        .kv_head = task % kv->shape.n_kv_heads,
        .heads = attention_heads(run, task % kv->shape.n_kv_heads),
        .room = run->room + thread * run->room_stride,
        .at = attention_room_of(kv, run->queries),
    };
    struct attention_state states[run->queries];
    struct kernel_query queries[run->queries];
    uint32_t owner[run->queries];
    uint32_t first;
    uint32_t last;
    memset(states, 0, sizeof states);
    attention_begin(&w, &first, &last);
    const uint32_t *pages = attention_pages(job, w.block.first);
    for (uint32_t p = first; p <= last; p++) {
        struct kernel_page page = attention_page(run, pages, p, last, w.kv_head);
        page.k_room = w.room + w.at.k_room;
        page.v_room = w.room + w.at.v_room;
        uint32_t n = attention_queries(&w, p, states, queries, owner);
        run->cpu->kernels->attention_page(&page, queries, n);
        if (n > 0)
            attention_take(&w, queries, owner, n, states);
    }
    for (uint32_t i = 0; i < w.block.count * w.heads.count; i++) {
        uint32_t row = w.block.first + i / w.heads.count;
        uint32_t head = w.heads.first + i % w.heads.count;
        run->cpu->kernels->attention_finish(
            w.room + w.at.values + (size_t)i * kv->layout.dim_v_padded, states[i].sum,
            kv->shape.head_dim_v,
            run->outs + ((size_t)row * job->n_heads + head) * kv->shape.head_dim_v);
    }
}

static float *attention_partial(const struct attention_run *run, uint32_t row, uint32_t head,
                                uint32_t page_index)
{
    size_t cell = ((size_t)row * run->job->n_heads + head) * run->pages_max + page_index;
    return run->partials + cell * (2 + run->kv->layout.dim_v_padded);
}

static void attention_split_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct attention_run *run = ctx;
    const struct attention_job *job = run->job;
    const struct kv *kv = run->kv;
    uint32_t split = task % run->splits;
    uint32_t kv_head = task / run->splits % kv->shape.n_kv_heads;
    uint32_t row = task / run->splits / kv->shape.n_kv_heads;
    uint32_t first = split * ATTENTION_PAGES_PER_TASK;
    uint32_t last = job->rows->position[row] / KV_PAGE_TOKENS;
    if (first > last)
        return;
    float *room = run->room + thread * run->room_stride;
    struct attention_room at = attention_room_of(kv, run->queries);
    const struct attention_heads heads = attention_heads(run, kv_head);
    attention_scale_row(run, row, heads, room + at.q);
    const uint32_t *pages = attention_pages(job, row);
    for (uint32_t p = first; p <= last && p < first + ATTENTION_PAGES_PER_TASK; p++) {
        uint32_t begin;
        uint32_t end;
        if (!attention_slots(job, row, p, &begin, &end))
            continue;
        struct kernel_page page = attention_page(run, pages, p, last, kv_head);
        page.k_room = room + at.k_room;
        page.v_room = room + at.v_room;
        struct kernel_query queries[run->queries];
        for (uint32_t g = 0; g < heads.count; g++)
            queries[g] = (struct kernel_query){
                .q = room + at.q + (size_t)g * kv->shape.head_dim_k,
                .begin = begin,
                .end = end,
                .scores = room + at.scores + (size_t)g * KV_PAGE_TOKENS,
                .values = attention_partial(run, row, heads.first + g, p) + 2};
        run->cpu->kernels->attention_page(&page, queries, heads.count);
        for (uint32_t g = 0; g < heads.count; g++) {
            float *partial = queries[g].values - 2;
            partial[0] = queries[g].max;
            partial[1] = queries[g].sum;
        }
    }
}

/* Second round of split: one (row, head). The maxima are known for all pages, so that the weights
 * are made for many at a time; values are taken up one page after the other. */
static void attention_merge_task(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct attention_run *run = ctx;
    const struct attention_job *job = run->job;
    const struct kv *kv = run->kv;
    const struct cpu_kernels *kernels = run->cpu->kernels;
    uint32_t row = task / job->n_heads;
    uint32_t head = task % job->n_heads;
    uint32_t first = attention_first(job, row) / KV_PAGE_TOKENS;
    uint32_t last = job->rows->position[row] / KV_PAGE_TOKENS;
    float *all = attention_partial(run, row, head, first);
    float max = all[0];
    uint32_t n;
    for (uint32_t p = first + 1; p <= last; p += n) {
        float old[ATTENTION_MERGE_PAGES];
        float page_max[ATTENTION_MERGE_PAGES];
        float top[ATTENTION_MERGE_PAGES];
        float a[ATTENTION_MERGE_PAGES];
        float b[ATTENTION_MERGE_PAGES];
        n = last - p + 1 < ATTENTION_MERGE_PAGES ? last - p + 1 : ATTENTION_MERGE_PAGES;
        for (uint32_t i = 0; i < n; i++) {
            page_max[i] = attention_partial(run, row, head, p + i)[0];
            old[i] = max;
            max = attention_top(max, page_max[i]);
            top[i] = max;
        }
        kernels->attention_weights(old, top, n, a);
        kernels->attention_weights(page_max, top, n, b);
        for (uint32_t i = 0; i < n; i++) {
            const float *partial = attention_partial(run, row, head, p + i);
            kernels->attention_merge(all + 1, all + 2, a[i], partial[1], partial + 2, b[i],
                                     kv->layout.dim_v_padded);
        }
    }
    kernels->attention_finish(all + 2, all[1], kv->shape.head_dim_v,
                              run->outs +
                                  ((size_t)row * job->n_heads + head) * kv->shape.head_dim_v);
}

static void attention_store_task(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct attention_run *run = ctx;
    uint32_t cols = run->job->n_heads * run->kv->shape.head_dim_v;
    cpu_act_store(run->cpu, run->job->out, task, run->outs + (size_t)task * cols, cols);
}

/* Runs of neighbouring rows of one sequence, of at most `rows_max` each. */
static uint32_t attention_cut(const struct step_rows *rows, uint32_t rows_max,
                              struct attention_block *blocks)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        struct attention_block *open = n > 0 ? &blocks[n - 1] : NULL;
        if (open != NULL && open->count < rows_max &&
            rows->sequence[open->first] == rows->sequence[i]) {
            open->count++;
            continue;
        }
        blocks[n] = (struct attention_block){.first = i, .count = 1};
        n++;
    }
    return n;
}

void cpu_attention(struct backend *b, const struct attention_job *job)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    const struct kv *kv = job->kv;
    const uint32_t n_rows = job->rows->n_rows;
    const uint32_t cols = job->n_heads * kv->shape.head_dim_v;
    CHECK(n_rows <= job->out->rows_max && cols <= job->out->cols_max);
    if (n_rows == 0)
        return;
    struct attention_run run = {
        .cpu = cpu, .job = job, .kv = kv, .group = shape_attention_group(job, &kv->shape)};
    uint32_t rows_max = run.group < ATTENTION_QUERIES_MAX ? ATTENTION_QUERIES_MAX / run.group : 1;
    run.queries = rows_max * run.group;
    run.room = cpu_room_rows(cpu, attention_room_of(kv, run.queries).count, &run.room_stride);
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t pages = job->rows->position[i] / KV_PAGE_TOKENS + 1;
        run.pages_max = pages > run.pages_max ? pages : run.pages_max;
    }
    run.splits = (run.pages_max + ATTENTION_PAGES_PER_TASK - 1) / ATTENTION_PAGES_PER_TASK;

    const uint32_t threads = pool_threads(cpu->pool);
    const bool split = attention_is_split(threads, run.pages_max, n_rows, kv->shape.n_kv_heads);
    const struct backend_room_cache cache = {.n_heads = job->n_heads,
                                             .group = run.group,
                                             .n_kv_heads = kv->shape.n_kv_heads,
                                             .head_dim_k = kv->shape.head_dim_k,
                                             .head_dim_v = kv->shape.head_dim_v};
    size_t count = attention_partials(&cache, n_rows, run.pages_max, split);
    float *room = cpu_room_partials(cpu, count);
    run.outs = room;
    run.partials = room + (size_t)n_rows * cols;
    if (split) {
        pool_run(cpu->pool, attention_split_task, &run, n_rows * kv->shape.n_kv_heads * run.splits);
        pool_run(cpu->pool, attention_merge_task, &run, n_rows * job->n_heads);
    } else {
        _Static_assert(sizeof(struct attention_block) == 2 * sizeof(float), "room for blocks");
        struct attention_block *cut = (struct attention_block *)(void *)(room + count) - n_rows;
        run.n_blocks = attention_cut(job->rows, rows_max, cut);
        run.blocks = cut;
        pool_run(cpu->pool, attention_whole_task, &run, run.n_blocks * kv->shape.n_kv_heads);
    }
    if (n_rows < 4) {
        for (uint32_t i = 0; i < n_rows; i++)
            attention_store_task(&run, i, 0);
    } else {
        pool_run(cpu->pool, attention_store_task, &run, n_rows);
    }
}
