#include "worker/engine/runtime_weights.h"

#include "common/check.h"
#include "worker/kernels/quant_check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What all pieces of a loading share. */
struct loading {
    const struct gguf *g;
    const atomic_bool *stop;

    atomic_bool failed; /* a piece of a matrix could not be read: */
    enum err failed_err;
    struct errbuf failed_eb; /* the first of them */
};

/* A matrix as the backend's threads ask for it: rows of the share. */
struct tensor_source {
    struct loading *l;
    const struct gguf_tensor *t;
    uint64_t begin;          /* where its first row's bytes begin in the tensor */
    uint64_t row_bytes;      /* of a row of the share */
    uint64_t file_row_bytes; /* of a whole row */
};

struct matrices {
    uint32_t count;
    struct tensor_source *sources;
    struct weight_job *jobs;
};

static enum err tensor_error(const struct gguf_tensor *t, enum err e, struct errbuf *eb)
{
    return err_prefix(eb, e, "tensor '%.*s'", (int)t->name.size, t->name.bytes);
}

/* Whole blocks of a tensor, `at` of its bytes. */
static enum err check_blocks(const struct gguf_tensor *t, uint64_t at, const uint8_t *bytes,
                             size_t size, struct errbuf *eb)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)t->type);
    uint64_t count = size / info->block_bytes;
    uint64_t bad = quant_check_finite(t->type, bytes, count);

    CHECK(at % info->block_bytes == 0 && size % info->block_bytes == 0);
    if (bad == count)
        return ERR_OK;
    at += bad * info->block_bytes;
    uint64_t item = at / info->block_bytes * info->block_items;
    return err_set(eb, ERR_INVALID,
                   "row %" PRIu64 ", byte %" PRIu64 " of the file: %s no finite number",
                   item / t->dims[0], t->offset + at,
                   info->block_items == 1 ? "the element is" : "the block has a scale that is");
}

/* Bytes that lie one behind the other in the file. */
static enum err read_run(const struct tensor_source *s, uint64_t at, uint8_t *to, size_t size,
                         struct errbuf *eb)
{
    enum err e = gguf_tensor_read(s->l->g, s->t, at, to, size, eb);
    return e == ERR_OK ? check_blocks(s->t, at, to, size, eb) : e;
}

static enum err read_rows(const struct tensor_source *s, uint64_t at, uint8_t *to, size_t size,
                          struct errbuf *eb)
{
    enum err e = ERR_OK;

    if (s->row_bytes == s->file_row_bytes)
        return read_run(s, s->begin + at, to, size, eb);
    CHECK(at % s->row_bytes == 0 && size % s->row_bytes == 0);
    const uint64_t first = at / s->row_bytes, rows = size / s->row_bytes;
    for (uint64_t i = 0; e == ERR_OK && i < rows; i++)
        e = read_run(s, s->begin + (first + i) * s->file_row_bytes, to + i * s->row_bytes,
                     (size_t)s->row_bytes, eb);
    return e;
}

static bool tensor_source_read(void *ctx, uint64_t at, void *to, size_t size)
{
    const struct tensor_source *s = ctx;
    struct loading *l = s->l;
    struct errbuf eb = {{0}};
    enum err e;

    if (l->stop != NULL && atomic_load(l->stop))
        e = err_set(&eb, ERR_CANCELLED, "loading was stopped");
    else
        e = read_rows(s, at, to, size, &eb);
    if (e != ERR_OK && e != ERR_CANCELLED)
        (void)tensor_error(s->t, e, &eb);
    if (e != ERR_OK && !atomic_exchange(&l->failed, true)) {
        l->failed_err = e;
        l->failed_eb = eb;
    }
    return e == ERR_OK;
}

static void matrices_add(struct loading *l, struct matrices *m, const struct runtime_shape *shape,
                         uint32_t layer, const struct model_parts *from, struct runtime_parts *to)
{
    for (enum model_part i = 0; i < MODEL_PART_COUNT; i++) {
        const struct gguf_tensor *t = from->at[i];
        if (t == NULL || !model_part_is_matrix(i))
            continue;
        const struct shard_slice slice = runtime_slice(shape, layer, i, t);
        if (slice.rows == 0)
            continue;
        const struct sum_cut whole = sum_cut_whole((uint32_t)t->dims[0], 1, 1);
        struct tensor_source *source = &m->sources[m->count];
        *source = (struct tensor_source){
            .l = l,
            .t = t,
            .row_bytes = weight_row_bytes(t->type, slice.cols, &slice.cut),
            .file_row_bytes = weight_row_bytes(t->type, (uint32_t)t->dims[0], &whole),
        };
        source->begin = slice.row * source->file_row_bytes + weight_row_begin(t->type, &slice.cut);
        m->jobs[m->count++] = (struct weight_job){
            .type = t->type,
            .rows = slice.rows,
            .cols = slice.cols,
            .cut = slice.cut,
            .source = {.read = tensor_source_read, .ctx = source},
            .ret_weight = &to->matrix[i],
        };
    }
}

static enum err load_matrices(struct loading *l, struct runtime *r,
                              const struct runtime_shape *shape, struct errbuf *eb)
{
    struct backend *b = r->backend;
    size_t most = (r->hparams.n_layers + (size_t)1) * MODEL_PART_COUNT;
    struct matrices m = {.sources = calloc(most, sizeof *m.sources),
                         .jobs = calloc(most, sizeof *m.jobs)};
    enum err e = m.sources == NULL || m.jobs == NULL
                     ? err_set(eb, ERR_NO_MEMORY, "no memory for a list of %zu tensors", most)
                     : ERR_OK;

    if (e == ERR_OK) {
        uint32_t failed;
        matrices_add(l, &m, shape, 0, &shape->tensors.whole, &r->whole);
        for (uint32_t i = 0; i < r->hparams.n_layers; i++)
            matrices_add(l, &m, shape, i, &shape->tensors.layers[i], &r->layers[i]);
        e = b->ops->weights_read(b, m.jobs, m.count, &failed, eb);
        if (e != ERR_OK && atomic_load(&l->failed)) {
            e = l->failed_err;
            *eb = l->failed_eb;
        } else if (e != ERR_OK) {
            e = tensor_error(m.sources[failed].t, e, eb);
        }
    }
    free(m.sources);
    free(m.jobs);
    return e;
}

enum err runtime_vector_read(const struct gguf *g, enum model_part part,
                             const struct gguf_tensor *t, float **ret_host, struct errbuf *eb)
{
    float *host = malloc((size_t)t->size);
    enum err e = host == NULL ? err_set(eb, ERR_NO_MEMORY, "no memory for it")
                              : gguf_tensor_read(g, t, 0, host, (size_t)t->size, eb);

    if (e != ERR_OK)
        (void)tensor_error(t, e, eb);
    else
        e = model_vector_check(part, t->name, host, t->dims[0], eb);
    if (e != ERR_OK) {
        free(host);
        return e;
    }
    *ret_host = host;
    return ERR_OK;
}

static enum err load_vector(struct runtime *r, const struct gguf *g, enum model_part part,
                            const struct gguf_tensor *t, const struct shard_slice *slice,
                            float **ret_buffer, struct errbuf *eb)
{
    struct backend *b = r->backend;
    float *host = NULL;
    enum err e = runtime_vector_read(g, part, t, &host, eb);

    if (e != ERR_OK)
        return e;
    *ret_buffer = b->ops->buffer_new(b, slice->rows);
    if (*ret_buffer == NULL)
        e = err_set(eb, ERR_NO_MEMORY, "no memory for tensor '%.*s'", (int)t->name.size,
                    t->name.bytes);
    else
        b->ops->buffer_write(b, *ret_buffer, host + slice->row, slice->rows);
    free(host);
    return e;
}

static enum err load_vectors(struct runtime *r, const struct gguf *g,
                             const struct runtime_shape *shape, uint32_t layer,
                             const struct model_parts *from, struct runtime_parts *to,
                             struct errbuf *eb)
{
    enum err e = ERR_OK;

    for (enum model_part i = 0; e == ERR_OK && i < MODEL_PART_COUNT; i++) {
        const struct gguf_tensor *t = from->at[i];
        if (t == NULL || model_part_is_matrix(i) || i == MODEL_PART_ROPE_FREQS)
            continue;
        const struct shard_slice slice = runtime_slice(shape, layer, i, t);
        if (slice.rows > 0)
            e = load_vector(r, g, i, t, &slice, &to->vector[i], eb);
    }
    return e;
}

enum err runtime_weights_load(struct runtime *r, const struct gguf *g,
                              const struct runtime_shape *shape, const atomic_bool *stop,
                              struct errbuf *eb)
{
    struct loading l = {.g = g, .stop = stop};
    enum err e = load_vectors(r, g, shape, 0, &shape->tensors.whole, &r->whole, eb);

    r->layers = calloc(r->hparams.n_layers, sizeof *r->layers);
    if (e == ERR_OK && r->layers == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %u layers", r->hparams.n_layers);
    for (uint32_t i = 0; e == ERR_OK && i < r->hparams.n_layers; i++)
        e = load_vectors(r, g, shape, i, &shape->tensors.layers[i], &r->layers[i], eb);
    if (e == ERR_OK)
        e = load_matrices(&l, r, shape, eb);
    r->head = r->whole.matrix[MODEL_PART_OUTPUT];
    if (r->head == NULL)
        r->head = r->whole.matrix[MODEL_PART_TOKEN_EMBD];
    return e == ERR_OK ? gguf_check_unchanged(g, eb) : e;
}
