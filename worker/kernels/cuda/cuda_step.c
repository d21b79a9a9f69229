/*
 * Steps. What a step's operations need of the host - ids, rows, the cells of the rope tables, page
 * ids - is put together in pinned memory and brought to the device by one copy, when the step
 * begins. There are two such pieces of pinned memory, so that a step is prepared while the copy of
 * the one before may still be under way; one piece of device memory is enough, since everything is
 * one stream.
 *
 * Of the rope tables a step needs one row for each of its own. They are gathered here, 256 bytes
 * for a row of 64, rather than the tables kept on the device, which for a context of 128 K tokens
 * are 64 MB.
 */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

static uint64_t up_to_16(uint64_t bytes)
{
    return (bytes + 15) / 16 * 16;
}

struct cuda_step_layout cuda_step_layout(uint32_t n_rows, uint32_t n_ropes, uint32_t rope_dim,
                                         uint32_t n_picks, uint64_t n_pages)
{
    struct cuda_step_layout l = {0};
    l.ids_at = (uint64_t)n_rows * sizeof(struct cuda_row);
    l.rope_at = l.ids_at + up_to_16((uint64_t)n_rows * sizeof(int32_t));
    l.rope_bytes = up_to_16((uint64_t)n_rows * rope_dim * sizeof(float));
    l.picks_at = l.rope_at + n_ropes * l.rope_bytes;
    l.pages_at = l.picks_at + up_to_16((uint64_t)n_picks * sizeof(struct pick));
    l.bytes = l.pages_at + up_to_16(n_pages * sizeof(uint32_t));
    return l;
}

enum err cuda_step_reserve(struct cuda_backend *cuda, uint64_t bytes, struct errbuf *eb)
{
    void *device = NULL;
    enum err err = ERR_OK;

    if (bytes <= cuda->step_bytes)
        return ERR_OK;
    cuda_free(cuda, cuda->step_device);
    cuda->step_device = NULL;
    cuda->step_bytes = 0;
    for (int i = 0; i < 2 && err == ERR_OK; i++)
        err = cuda_pinned_grow(&cuda->step_pinned[i], bytes, eb);
    if (err == ERR_OK)
        err = cuda_alloc(cuda, CUDA_MEMORY_SCRATCH, bytes, "what a step reads", &device, eb);
    if (err != ERR_OK)
        return err;
    cuda->step_device = device;
    cuda->step_bytes = bytes;
    return ERR_OK;
}

/* ---- putting a step together ----------------------------------------------------------------- */

/* Where each sequence's pages go, and how many it has: as far as the step's last row of it. */
struct step_sequence {
    uint32_t n_pages;
    uint32_t at;
};

/* A list with room for `count` entries, of which what was in it may be gone; NULL where memory is
 * refused. */
static void *list_grown(void *list, uint32_t *room, uint32_t count, size_t size)
{
    if (list != NULL && count <= *room)
        return list;
    free(list);
    list = calloc(count > 0 ? count : 1, size);
    *room = list != NULL ? count : 0;
    return list;
}

static bool sequences_grow(struct cuda_backend *cuda, uint32_t count)
{
    cuda->sequences =
        list_grown(cuda->sequences, &cuda->sequences_max, count, sizeof *cuda->sequences);
    return cuda->sequences != NULL;
}

static bool results_grow(struct cuda_backend *cuda, uint32_t count)
{
    cuda->results = list_grown(cuda->results, &cuda->results_max, count, sizeof *cuda->results);
    return cuda->results != NULL;
}

enum err cuda_step_lists_reserve(struct cuda_backend *cuda, const struct backend_room *room,
                                 struct errbuf *eb)
{
    if (!sequences_grow(cuda, room->sequences_max) || !results_grow(cuda, room->pieces_max) ||
        !cuda_graphs_reserve(cuda) || !cuda_held_reserve(cuda))
        return err_set(eb, ERR_NO_MEMORY, "no memory to keep track of steps on a GPU");
    return cuda_pinned_grow(&cuda->result, room->results_max * sizeof(float), eb);
}

static struct step_sequence *step_sequences(struct cuda_backend *cuda, const struct step_rows *rows,
                                            uint32_t *ret_count)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++)
        count = rows->sequence[i] >= count ? rows->sequence[i] + 1 : count;
    CHECK(sequences_grow(cuda, count));
    memset(cuda->sequences, 0, count * sizeof *cuda->sequences);
    *ret_count = count;
    return cuda->sequences;
}

/* Counts pages and says where each sequence's begin; their number. */
static uint64_t step_count_pages(struct cuda_backend *cuda, const struct step_rows *rows)
{
    uint32_t count;
    struct step_sequence *sequences = step_sequences(cuda, rows, &count);
    uint64_t n = 0;

    cuda->step.pages_most = 0;
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        uint32_t pages = rows->position[i] / KV_PAGE_TOKENS + 1;
        struct step_sequence *s = &sequences[rows->sequence[i]];
        s->n_pages = pages > s->n_pages ? pages : s->n_pages;
        if (pages > cuda->step.pages_most)
            cuda->step.pages_most = pages;
    }
    for (uint32_t i = 0; i < count; i++) {
        sequences[i].at = (uint32_t)n;
        n += sequences[i].n_pages;
    }
    CHECK(n <= UINT32_MAX);
    cuda->step.pages_most = cuda_power_of_two(cuda->step.pages_most);
    return n;
}

static void step_fill_pages(const struct cuda_backend *cuda, const struct step_rows *rows,
                            uint32_t *pages)
{
    for (uint32_t i = 0; i < rows->n_rows; i++) {
        struct step_sequence *s = &cuda->sequences[rows->sequence[i]];
        memcpy(pages + s->at,
               rows->page_table + (size_t)rows->sequence[i] * rows->page_table_stride,
               s->n_pages * sizeof *pages);
        s->n_pages = 0; /* once is enough */
    }
}

static bool follows(const struct step_rows *rows, uint32_t i)
{
    return rows->sequence[i] == rows->sequence[i - 1] &&
           rows->position[i] == rows->position[i - 1] + 1;
}

static void step_fill_rows(struct cuda_backend *cuda, const struct step_rows *rows,
                           struct cuda_row *row)
{
    cuda->step.has_runs = false;
    for (uint32_t begin = 0, end; begin < rows->n_rows; begin = end) {
        end = begin + 1;
        while (end < rows->n_rows && follows(rows, end))
            end++;
        cuda->step.has_runs = cuda->step.has_runs || end > begin + 1;
        for (uint32_t i = begin; i < end; i++)
            row[i] = (struct cuda_row){.position = rows->position[i],
                                       .pages_at = cuda->sequences[rows->sequence[i]].at,
                                       .run_begin = begin,
                                       .run_end = end};
    }
}

static void step_fill_rope(const struct step_rows *rows, const float *table, uint32_t rope_dim,
                           float *cells)
{
    for (uint32_t i = 0; i < rows->n_rows; i++)
        memcpy(cells + (size_t)i * rope_dim, table + (size_t)rows->position[i] * rope_dim,
               rope_dim * sizeof *cells);
}

/* Brings the step to the device, and says in cuda->step where it is. */
static void step_upload(struct cuda_backend *cuda, const struct backend_step *step)
{
    const struct step_rows *rows = &step->rows;
    struct cuda_pinned *pinned = &cuda->step_pinned[cuda->step_turn];
    uint32_t n_ropes = 0;
    const uint32_t n_picks = step->picks != NULL ? step->n_results : 0;
    struct errbuf eb = {{0}};
    while (n_ropes < BACKEND_STEP_ROPES_MAX && step->rope[n_ropes] != NULL)
        n_ropes++;
    const uint64_t n_pages = step_count_pages(cuda, rows);
    const struct cuda_step_layout l =
        cuda_step_layout(rows->n_rows, n_ropes, step->rope_dim, n_picks, n_pages);
    CHECK(!cuda->reserved || l.bytes <= cuda->step_bytes);
    if (cuda_step_reserve(cuda, l.bytes, &eb) != ERR_OK)
        cuda_fail(cudaErrorMemoryAllocation, NULL, "%s", eb.text);
    cuda_pinned_wait(pinned);
    uint8_t *host = pinned->at;
    step_fill_rows(cuda, rows, (struct cuda_row *)(void *)host);
    if (step->ids != NULL)
        memcpy(host + l.ids_at, step->ids, rows->n_rows * sizeof *step->ids);
    else
        memset(host + l.ids_at, 0, rows->n_rows * sizeof *step->ids);
    for (uint32_t i = 0; i < n_ropes; i++)
        step_fill_rope(rows, step->rope[i], step->rope_dim,
                       (float *)(void *)(host + l.rope_at + i * l.rope_bytes));
    if (n_picks > 0)
        memcpy(host + l.picks_at, step->picks, n_picks * sizeof *step->picks);
    step_fill_pages(cuda, rows, (uint32_t *)(void *)(host + l.pages_at));
    CUDA_DO(cudaMemcpyAsync(cuda->step_device, host, l.bytes, cudaMemcpyHostToDevice, cuda->stream),
            "bringing a step of %u rows and %llu pages to the device", rows->n_rows,
            (unsigned long long)n_pages);
    cuda_pinned_mark(cuda, pinned);
    cuda->step_turn = 1 - cuda->step_turn;

    cuda->step.host = *step;
    cuda->step.rows = (const struct cuda_row *)(const void *)cuda->step_device;
    cuda->step.ids = (const int32_t *)(const void *)(cuda->step_device + l.ids_at);
    cuda->step.picks = (const struct pick *)(const void *)(cuda->step_device + l.picks_at);
    cuda->step.pages = (const uint32_t *)(const void *)(cuda->step_device + l.pages_at);
    for (uint32_t i = 0; i < n_ropes; i++)
        cuda->step.rope[i] =
            (const float *)(const void *)(cuda->step_device + l.rope_at + i * l.rope_bytes);
}

/* ---- for operations -------------------------------------------------------------------------- */

static struct cuda_step_rows step_view(const struct cuda_step *step, uint32_t first, uint32_t count)
{
    return (struct cuda_step_rows){
        .rows = {.row = step->rows, .pages = step->pages, .first = first, .count = count},
        .pages_most = step->pages_most,
        .has_runs = step->has_runs,
    };
}

struct cuda_step_rows cuda_step_rows(struct cuda_backend *cuda, const struct step_rows *rows,
                                     const float *table, uint32_t rope_dim)
{
    const struct cuda_step *step = &cuda->step;
    if (!step->is_open) {
        const struct backend_step alone = {.rows = *rows, .rope = {table}, .rope_dim = rope_dim};
        step_upload(cuda, &alone);
        struct cuda_step_rows view = step_view(step, 0, rows->n_rows);
        view.rope = step->rope[0];
        return view;
    }
    CHECK(rows->position >= step->host.rows.position &&
          rows->position + rows->n_rows <= step->host.rows.position + step->host.rows.n_rows &&
          rows->page_table == step->host.rows.page_table);
    struct cuda_step_rows view =
        step_view(step, (uint32_t)(rows->position - step->host.rows.position), rows->n_rows);
    if (table == NULL)
        return view;
    uint32_t i = 0;
    while (i < BACKEND_STEP_ROPES_MAX && step->host.rope[i] != table)
        i++;
    CHECK(i < BACKEND_STEP_ROPES_MAX && rope_dim == step->host.rope_dim);
    view.rope = step->rope[i];
    return view;
}

bool cuda_step_begin(struct backend *b, const struct backend_step *step)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    CHECK(!cuda->step.is_open && step->rows.n_rows > 0);
    cuda_enter(cuda);
    cuda->n_results = 0;
    cuda->said = (struct cuda_said){0};
    step_upload(cuda, step);
    cuda->step.is_open = true;
    return cuda_graph_begin(cuda);
}

/* Remembers where the pieces come from; their bytes. */
static size_t step_results(struct cuda_backend *cuda, const struct backend_step *step)
{
    size_t count = 0;

    CHECK(results_grow(cuda, step->n_pieces));
    for (uint32_t i = 0; i < step->n_pieces; i++) {
        cuda->results[i] = step->pieces[i];
        count += step->pieces[i].count;
    }
    return count * sizeof(float);
}

void cuda_step_end(struct backend *b)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const struct backend_step *step = &cuda->step.host;
    struct errbuf eb = {{0}};
    CHECK(cuda->step.is_open);
    cuda_enter(cuda);
    cuda_graph_end(cuda);
    cuda->step.is_open = false;
    const size_t bytes = step_results(cuda, step);
    if (bytes == 0) {
        if (cuda->n_exchanges > 0)
            cuda_exchange_done(b);
        return;
    }
    if (cuda_pinned_grow(&cuda->result, bytes, &eb) != ERR_OK)
        cuda_fail(cudaErrorMemoryAllocation, NULL, "%s", eb.text);
    size_t at = 0;
    for (uint32_t i = 0; i < step->n_pieces; i++) {
        const size_t size = step->pieces[i].count * sizeof(float);
        CUDA_DO(cudaMemcpyAsync(cuda->result.at + at, step->pieces[i].at, size,
                                cudaMemcpyDeviceToHost, cuda->stream),
                "reading %zu bytes of results of a step of %u rows", size, step->rows.n_rows);
        at += size;
    }
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "a step of %u rows with %zu bytes of results",
            step->rows.n_rows, bytes);
    cuda->n_results = step->n_pieces;
}

void cuda_step_fini(struct cuda_backend *cuda)
{
    cuda_graphs_clear(cuda);
    free(cuda->graphs);
    cuda->graphs = NULL;
    cuda_held_fini(cuda);
    cuda_pinned_free(&cuda->step_pinned[0]);
    cuda_pinned_free(&cuda->step_pinned[1]);
    cuda_free(cuda, cuda->step_device);
    free(cuda->sequences);
    free(cuda->results);
}
