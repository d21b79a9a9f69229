#include "worker/engine/runtime.h"

#include "common/check.h"
#include "common/limits.h"
#include "worker/engine/runtime_backend.h"
#include "worker/engine/runtime_shape.h"
#include "worker/kernels/quant_check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* What loading needs besides the runtime it fills. */
struct loading {
    struct runtime *r;
    const struct gguf *g;
    const struct runtime_shape *shape;
    const atomic_bool *stop;
    struct errbuf *eb;

    atomic_bool failed; /* a piece of a matrix could not be read: */
    enum err failed_err;
    struct errbuf failed_eb; /* the first of them */
};

/* A matrix as the backend's threads ask for it. */
struct tensor_source {
    struct loading *l;
    const struct gguf_tensor *t;
};

/* All of a model's, read together, so that no thread waits for another at the end of each. */
struct matrices {
    uint32_t count;
    struct tensor_source *sources;
    struct weight_job *jobs;
};

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

static enum err tensor_error(const struct gguf_tensor *t, enum err e, struct errbuf *eb)
{
    return err_prefix(eb, e, "tensor '%.*s'", (int)t->name.size, t->name.bytes);
}

static bool tensor_source_read(void *ctx, uint64_t at, void *to, size_t size)
{
    const struct tensor_source *s = ctx;
    struct loading *l = s->l;
    struct errbuf eb = {{0}};
    enum err e = ERR_OK;

    if (l->stop != NULL && atomic_load(l->stop))
        e = err_set(&eb, ERR_CANCELLED, "loading was stopped");
    else
        e = gguf_tensor_read(l->g, s->t, at, to, size, &eb);
    if (e == ERR_OK)
        e = check_blocks(s->t, at, to, size, &eb);
    if (e != ERR_OK && e != ERR_CANCELLED)
        (void)tensor_error(s->t, e, &eb);
    if (e != ERR_OK && !atomic_exchange(&l->failed, true)) {
        l->failed_err = e;
        l->failed_eb = eb;
    }
    return e == ERR_OK;
}

static void matrices_add(struct loading *l, struct matrices *m, uint32_t layer,
                         const struct model_parts *from, struct runtime_parts *to)
{
    for (enum model_part i = 0; i < MODEL_PART_COUNT; i++) {
        const struct gguf_tensor *t = from->at[i];
        if (t == NULL || !model_part_is_matrix(i))
            continue;
        const struct shard_slice slice = runtime_slice(l->shape, layer, i, t);
        struct tensor_source *source = &m->sources[m->count];
        *source = (struct tensor_source){.l = l, .t = t};
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

static enum err load_matrices(struct loading *l)
{
    struct runtime *r = l->r;
    struct backend *b = r->backend;
    size_t most = (r->hparams.n_layers + (size_t)1) * MODEL_PART_COUNT;
    struct matrices m = {.sources = calloc(most, sizeof *m.sources),
                         .jobs = calloc(most, sizeof *m.jobs)};
    enum err e = m.sources == NULL || m.jobs == NULL
                     ? err_set(l->eb, ERR_NO_MEMORY, "no memory for a list of %zu tensors", most)
                     : ERR_OK;

    if (e == ERR_OK) {
        uint32_t failed;
        matrices_add(l, &m, 0, &l->shape->tensors.whole, &r->whole);
        for (uint32_t i = 0; i < r->hparams.n_layers; i++)
            matrices_add(l, &m, i, &l->shape->tensors.layers[i], &r->layers[i]);
        e = b->ops->weights_read(b, m.jobs, m.count, &failed, l->eb);
        if (e != ERR_OK && atomic_load(&l->failed)) {
            e = l->failed_err;
            *l->eb = l->failed_eb;
        } else if (e != ERR_OK) {
            e = tensor_error(m.sources[failed].t, e, l->eb);
        }
    }
    free(m.sources);
    free(m.jobs);
    return e;
}

/* Its values in host memory, checked; the caller frees them. */
static enum err read_vector(struct loading *l, enum model_part part, const struct gguf_tensor *t,
                            float **ret_host)
{
    float *host = malloc((size_t)t->size);
    enum err e = host == NULL ? err_set(l->eb, ERR_NO_MEMORY, "no memory for it")
                              : gguf_tensor_read(l->g, t, 0, host, (size_t)t->size, l->eb);

    if (e != ERR_OK)
        (void)tensor_error(t, e, l->eb);
    else
        e = model_vector_check(part, t->name, host, t->dims[0], l->eb);
    if (e != ERR_OK) {
        free(host);
        return e;
    }
    *ret_host = host;
    return ERR_OK;
}

static enum err load_vector(struct loading *l, enum model_part part, const struct gguf_tensor *t,
                            float **ret_buffer)
{
    struct backend *b = l->r->backend;
    float *host = NULL;
    enum err e = read_vector(l, part, t, &host);

    if (e != ERR_OK)
        return e;
    *ret_buffer = b->ops->buffer_new(b, (size_t)t->dims[0]);
    if (*ret_buffer == NULL)
        e = err_set(l->eb, ERR_NO_MEMORY, "no memory for tensor '%.*s'", (int)t->name.size,
                    t->name.bytes);
    else
        b->ops->buffer_write(b, *ret_buffer, host, (size_t)t->dims[0]);
    free(host);
    return e;
}

static enum err load_vectors(struct loading *l, const struct model_parts *from,
                             struct runtime_parts *to)
{
    enum err e = ERR_OK;

    for (enum model_part i = 0; e == ERR_OK && i < MODEL_PART_COUNT; i++)
        if (from->at[i] != NULL && !model_part_is_matrix(i) && i != MODEL_PART_ROPE_FREQS)
            e = load_vector(l, i, from->at[i], &to->vector[i]);
    return e;
}

static enum err load_weights(struct loading *l)
{
    struct runtime *r = l->r;
    enum err e = load_vectors(l, &l->shape->tensors.whole, &r->whole);

    r->layers = calloc(r->hparams.n_layers, sizeof *r->layers);
    if (e == ERR_OK && r->layers == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for %u layers", r->hparams.n_layers);
    for (uint32_t i = 0; e == ERR_OK && i < r->hparams.n_layers; i++)
        e = load_vectors(l, &l->shape->tensors.layers[i], &r->layers[i]);
    if (e == ERR_OK)
        e = load_matrices(l);
    r->head = r->whole.matrix[MODEL_PART_OUTPUT];
    if (r->head == NULL)
        r->head = r->whole.matrix[MODEL_PART_TOKEN_EMBD];
    return e == ERR_OK ? gguf_check_unchanged(l->g, l->eb) : e;
}

static enum err load_rope(struct loading *l, uint32_t index)
{
    const struct model_hparams *h = &l->r->hparams;
    const struct model_rope *rope = &h->rope[index];
    const struct gguf_tensor *freqs =
        rope->freqs ? l->shape->tensors.whole.at[MODEL_PART_ROPE_FREQS] : NULL;
    struct rope_params params = {
        .base = (double)rope->base,
        .dim = h->rope_dim,
        .linear_scale = (double)rope->factor,
        .magnitude = (double)rope->magnitude,
        .yarn_context = rope->yarn ? rope->original_context : 0,
    };
    float *factors = NULL;
    enum err e = ERR_OK;

    if (freqs != NULL)
        e = read_vector(l, MODEL_PART_ROPE_FREQS, freqs, &factors);
    params.factors = factors;
    if (e == ERR_OK)
        e = rope_table_new(&params, l->r->context_tokens, &l->r->rope[index], l->eb);
    free(factors);
    return e;
}

static enum err new_acts(struct loading *l, const struct runtime_widths *w)
{
    struct runtime *r = l->r;
    struct backend *b = r->backend;

    r->act_embd = b->ops->act_new(b, r->step_rows, w->embd, w->embd_float);
    r->act_attention = b->ops->act_new(b, r->step_rows, w->heads, w->heads_float);
    r->act_ffn = b->ops->act_new(b, r->step_rows, w->ff, w->ff_float);
    if (r->act_embd == NULL || r->act_attention == NULL || r->act_ffn == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for the activations of %u rows",
                       r->step_rows);
    return ERR_OK;
}

static enum err new_buffers(struct loading *l)
{
    struct runtime *r = l->r;
    struct backend *b = r->backend;
    const struct runtime_widths w = runtime_widths(l->shape);
    size_t rows = r->step_rows;
    const struct {
        float **buffer;
        size_t count;
    } wanted[] = {
        {&r->x, rows * w.embd},        {&r->q, rows * w.heads},
        {&r->k, rows * w.kv_heads},    {&r->v, rows * w.kv_heads},
        {&r->gate, rows * w.ff},       {&r->up, rows * w.ff},
        {&r->branch, rows * w.branch}, {&r->logits, (size_t)r->logits_rows * w.logits},
    };
    bool failed = false;

    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (wanted[i].count == 0)
            continue;
        *wanted[i].buffer = b->ops->buffer_new(b, wanted[i].count);
        failed = failed || *wanted[i].buffer == NULL;
    }
    if (failed)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for buffers of %zu rows and %u logits",
                       rows, w.logits);
    return new_acts(l, &w);
}

static enum err new_caches(struct loading *l)
{
    struct runtime *r = l->r;
    enum err e = ERR_OK;

    for (uint32_t i = 0; e == ERR_OK && i < r->shape.n_caches; i++)
        e = r->backend->ops->kv_new(r->backend, &r->shape.cache[i], &r->kv[i], l->eb);
    return e;
}

static void open_chat(struct loading *l)
{
    struct errbuf eb = {{0}};

    l->r->chat_err = chat_template_open(&l->r->chat, l->g, l->r->tokenizer, &eb);
    if (l->r->chat_err != ERR_OK) {
        l->r->chat = NULL;
        memcpy(l->r->chat_error, eb.text, sizeof eb.text);
    }
}

/* So that no step of a job fails for want of memory. */
static enum err reserve_room(struct loading *l)
{
    struct backend *b = l->r->backend;
    const struct backend_room room = runtime_room(l->shape, l->r->step_rows);

    return b->ops->reserve(b, &room, l->eb);
}

static enum err load_all(struct loading *l, const struct engine_config *config)
{
    struct runtime *r = l->r;
    enum err e = tokenizer_open(&r->tokenizer, l->g, l->eb);

    if (e != ERR_OK)
        return e;
    open_chat(l);
    e = runtime_backend_open(&r->backend, config, config->threads, l->eb);
    for (uint32_t i = 0; e == ERR_OK && i < MODEL_ROPES; i++)
        if (runtime_rope_used(l->shape, i))
            e = load_rope(l, i);
    if (e == ERR_OK)
        e = load_weights(l);
    if (e == ERR_OK)
        e = new_caches(l);
    if (e == ERR_OK)
        e = new_buffers(l);
    if (e == ERR_OK)
        e = reserve_room(l);
    return e;
}

/* What is loaded is what was described and offered, not what lies at its path by now. */
static enum err check_bound(const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb)
{
    uint8_t opened[GGUF_IDENTITY_BYTES], again[GGUF_IDENTITY_BYTES], digest[32];
    struct gguf *later = NULL;
    enum err e;

    gguf_identity(g, opened);
    if (!model->is_bound || memcmp(opened, model->identity, sizeof opened) == 0)
        return ERR_OK;
    /* Perhaps only its time or a link changed. */
    e = model_file_digest(model->path, digest, eb);
    if (e == ERR_OK)
        e = gguf_open_file(&later, model->path, true, eb);
    if (e != ERR_OK)
        return e;
    gguf_identity(later, again);
    gguf_close(later);
    if (memcmp(opened, again, sizeof opened) != 0 ||
        memcmp(digest, model->digest, sizeof digest) != 0)
        return err_set(eb, ERR_CONFLICT,
                       "%s: was replaced or written to since it was offered; what is there now is "
                       "served after a restart",
                       model->path);
    return ERR_OK;
}

enum err runtime_open(struct runtime **ret_runtime, const struct engine_config *given,
                      const struct engine_model_config *model, const atomic_bool *stop,
                      struct errbuf *eb)
{
    struct engine_config config;
    struct loading l = {.stop = stop, .eb = eb};
    struct gguf *g = NULL;
    struct runtime_shape shape = {.plan = NULL};
    struct runtime *r = NULL;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, model->path, false, eb);
    if (e != ERR_OK)
        return e;
    e = check_bound(model, g, eb);
    if (e != ERR_OK)
        goto out;
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a model");
        goto out;
    }
    l.r = r;
    l.g = g;
    e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e != ERR_OK)
        goto out;
    CHECK(runtime_is_whole(&shape)); /* nobody asks for a part yet */
    l.shape = &shape;
    r->hparams = shape.hparams;
    r->context_tokens = shape.context_tokens;
    r->shape = shape.kv;
    r->kv_pages = shape.n_pages;
    r->step_rows = config.step_tokens;
    r->logits_rows = shape.logits_rows;
    r->drawers = shape.drawers;
    e = load_all(&l, &config);
    if (e != ERR_OK)
        goto out;
    r->backend->ops->memory(r->backend, &r->weights_bytes, &r->kv_bytes, &r->scratch_bytes);
    r->scratch_bytes += runtime_shape_host_bytes(&shape, g);
    *ret_runtime = r;
    r = NULL;
out:
    runtime_shape_fini(&shape);
    runtime_close(r);
    gguf_close(g);
    return e;
}

static void free_parts(struct backend *b, struct runtime_parts *parts)
{
    for (enum model_part i = 0; i < MODEL_PART_COUNT; i++) {
        b->ops->buffer_free(b, parts->vector[i]);
        b->ops->weight_free(b, parts->matrix[i]);
    }
}

static void free_on_backend(struct runtime *r)
{
    struct backend *b = r->backend;
    float *buffers[] = {r->x, r->q, r->k, r->v, r->gate, r->up, r->branch, r->logits};
    struct act *acts[] = {r->act_embd, r->act_attention, r->act_ffn};

    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        b->ops->buffer_free(b, buffers[i]);
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        b->ops->act_free(b, acts[i]);
    for (uint32_t i = 0; r->layers != NULL && i < r->hparams.n_layers; i++)
        free_parts(b, &r->layers[i]);
    free_parts(b, &r->whole);
    for (uint32_t i = 0; i < RUNTIME_KV_MAX; i++)
        b->ops->kv_free(b, r->kv[i]);
    b->ops->close(b);
}

void runtime_close(struct runtime *r)
{
    if (r == NULL)
        return;
    if (r->backend != NULL)
        free_on_backend(r);
    free(r->layers);
    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        rope_table_free(r->rope[i]);
    chat_template_close(r->chat);
    tokenizer_close(r->tokenizer);
    free(r);
}
