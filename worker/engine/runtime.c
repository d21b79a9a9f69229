#include "worker/engine/runtime.h"

#include "common/check.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "worker/engine/runtime_backend.h"
#include "worker/engine/runtime_shape.h"
#include "worker/engine/runtime_weights.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

/* What loading needs besides the runtime it fills. */
struct opening {
    struct runtime *r;
    const struct gguf *g;
    const struct runtime_shape *shape;
    const atomic_bool *stop;
    bool has_called; /* the other ranks know of this one */
    struct errbuf *eb;
};

static enum err load_rope(struct opening *l, uint32_t index)
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
        e = runtime_vector_read(l->g, MODEL_PART_ROPE_FREQS, freqs, &factors, l->eb);
    params.factors = factors;
    if (e == ERR_OK)
        e = rope_table_new(&params, l->r->context_tokens, &l->r->rope[index], l->eb);
    free(factors);
    return e;
}

/* A rank that has no columns of an input needs no room for it. */
static bool new_act(struct opening *l, uint32_t cols, bool keep_float, struct act **ret_act)
{
    struct backend *b = l->r->backend;

    if (cols > 0)
        *ret_act = b->ops->act_new(b, l->r->step_rows, cols, keep_float);
    return cols == 0 || *ret_act != NULL;
}

static enum err new_acts(struct opening *l, const struct runtime_widths *w)
{
    struct runtime *r = l->r;

    if (!new_act(l, w->embd, w->embd_float, &r->act_embd) ||
        !new_act(l, w->heads, w->heads_float, &r->act_attention) ||
        !new_act(l, w->ff, w->ff_float, &r->act_ffn))
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for the activations of %u rows",
                       r->step_rows);
    return ERR_OK;
}

static enum err new_buffers(struct opening *l)
{
    struct runtime *r = l->r;
    struct backend *b = r->backend;
    const struct runtime_widths w = runtime_widths(l->shape);
    size_t rows = r->step_rows;
    const struct {
        float **buffer;
        size_t count;
    } wanted[] = {
        {&r->x, rows * w.embd},
        {&r->q, rows * w.heads},
        {&r->k, rows * w.kv_heads},
        {&r->v, rows * w.kv_heads},
        {&r->gate, rows * w.ff},
        {&r->up, rows * w.ff},
        {&r->branch, rows * w.branch},
        {&r->logits, (size_t)r->logits_rows * w.logits},
        {&r->picked,
         w.logits > 0 && b->ops->pick != NULL ? r->logits_rows * (size_t)PICKED_FLOATS : 0},
    };
    bool failed = false;

    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        if (wanted[i].count == 0)
            continue;
        *wanted[i].buffer = b->ops->buffer_new(b, wanted[i].count);
        failed = failed || *wanted[i].buffer == NULL;
    }
    r->pieces = calloc((size_t)r->logits_rows + 1, sizeof *r->pieces);
    if (failed || r->pieces == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for buffers of %zu rows and %u logits",
                       rows, w.logits);
    return new_acts(l, &w);
}

static enum err new_caches(struct opening *l)
{
    struct runtime *r = l->r;
    enum err e = ERR_OK;

    for (uint32_t i = 0; e == ERR_OK && i < r->shape.n_caches; i++)
        e = r->backend->ops->kv_new(r->backend, &r->shape.cache[i], &r->kv[i], l->eb);
    return e;
}

static void open_chat(struct opening *l)
{
    struct errbuf eb = {{0}};

    l->r->chat_err = chat_template_open(&l->r->chat, l->g, l->r->tokenizer, &eb);
    if (l->r->chat_err != ERR_OK) {
        l->r->chat = NULL;
        memcpy(l->r->chat_error, eb.text, sizeof eb.text);
    }
}

/* So that no step of a job fails for want of memory. */
static enum err reserve_room(struct opening *l)
{
    struct backend *b = l->r->backend;
    const struct backend_room room = runtime_room(l->shape, l->r->step_rows);

    return b->ops->reserve(b, &room, l->eb);
}

#define FINGERPRINT_BYTES 4096u /* of each tensor that is looked at */

/* By which ranks know that they load the same model: the file's digest where it is known, else how
 * it begins in each layer. */
static enum err model_fingerprint(struct opening *l, const struct engine_model_config *model,
                                  uint8_t ret_digest[SHA256_BYTES])
{
    struct sha256_stream *s;
    enum err e = ERR_OK;

    if (model->is_bound) {
        memcpy(ret_digest, model->digest, sizeof model->digest);
        return ERR_OK;
    }
    s = sha256_new();
    if (s == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for a digest");
    for (uint32_t i = 0; e == ERR_OK && i <= l->shape->hparams.n_layers; i++) {
        const struct gguf_tensor *t = i == l->shape->hparams.n_layers
                                          ? l->shape->tensors.whole.at[MODEL_PART_TOKEN_EMBD]
                                          : l->shape->tensors.layers[i].at[MODEL_PART_FFN_DOWN];
        uint8_t bytes[FINGERPRINT_BYTES];
        const size_t size = t->size < sizeof bytes ? (size_t)t->size : sizeof bytes;
        e = gguf_tensor_read(l->g, t, 0, bytes, size, l->eb);
        if (e == ERR_OK)
            sha256_update(s, bytes, size);
    }
    sha256_finish(s, ret_digest);
    return e;
}

/* The other ranks are met before much is loaded: whoever disagrees is found out at once. */
static enum err meet_gang(struct opening *l, const struct engine_config *config,
                          const struct engine_model_config *model)
{
    struct runtime *r = l->r;
    struct gang_limits limits = runtime_gang_limits(l->shape, config);
    if (r->backend->ops->exchange_open == NULL)
        return err_set(l->eb, ERR_UNSUPPORTED, "the %s backend computes no shards",
                       r->backend->ops->name);
    enum err e = model_fingerprint(l, model, limits.model);
    l->has_called = e == ERR_OK;
    return e != ERR_OK ? e
                       : gang_open(&r->gang, model->gang, l->shape->plan, &r->hparams, &limits,
                                   r->backend, l->stop, l->eb);
}

static enum err load_all(struct opening *l, const struct engine_config *config,
                         const struct engine_model_config *model)
{
    struct runtime *r = l->r;
    enum err e = ERR_OK;

    /* Rank 0 knows the text, the others see token ids. */
    if (l->shape->rank == 0) {
        e = tokenizer_open(&r->tokenizer, l->g, l->eb);
        if (e != ERR_OK)
            return e;
        open_chat(l);
    }
    e = runtime_backend_open(&r->backend, config, config->threads, l->eb);
    if (e == ERR_OK && model->gang != NULL)
        e = meet_gang(l, config, model);
    for (uint32_t i = 0; e == ERR_OK && i < MODEL_ROPES; i++)
        if (runtime_rope_used(l->shape, i))
            e = load_rope(l, i);
    if (e == ERR_OK)
        e = runtime_weights_load(r, l->g, l->shape, l->stop, l->eb);
    if (e == ERR_OK)
        e = new_caches(l);
    if (e == ERR_OK)
        e = new_buffers(l);
    if (e == ERR_OK)
        e = reserve_room(l);
    if (e == ERR_OK && r->gang != NULL)
        e = gang_ready(r->gang, l->eb);
    else if (r->gang != NULL)
        gang_abort(r->gang, l->eb->text);
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

static enum err check_gang(const struct engine_model_config *model,
                           const struct runtime_shape *shape, struct errbuf *eb)
{
    const struct gang_config *gang = model->gang;

    if ((gang == NULL) != (shape->plan->cut->n_ranks == 1))
        return gang == NULL
                   ? err_set(eb, ERR_INVALID, "a model on %u ranks needs a gang",
                             shape->plan->cut->n_ranks)
                   : err_set(eb, ERR_INVALID, "a gang of %u has no use for a model that is not cut",
                             gang->coll.n_ranks);
    if (gang != NULL &&
        (gang->coll.n_ranks != shape->plan->cut->n_ranks || gang->coll.rank != shape->rank))
        return err_set(eb, ERR_INVALID, "rank %u of %u in a gang of %u, as its rank %u",
                       shape->rank, shape->plan->cut->n_ranks, gang->coll.n_ranks, gang->coll.rank);
    return gang == NULL ? ERR_OK : gang_config_check(gang, eb);
}

/* A file's header with its tokens lay below what is kept: only asked for, its pages go back. A
 * sanitizer's heap is not glibc's, which would come into being here. */
static void give_back(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    (void)malloc_trim(0);
#endif
}

enum err runtime_open(struct runtime **ret_runtime, const struct engine_config *given,
                      const struct engine_model_config *model, const atomic_bool *stop,
                      struct errbuf *eb)
{
    struct engine_config config;
    struct opening l = {.stop = stop, .eb = eb};
    struct gguf *g = NULL;
    struct runtime_shape shape = {.plan = NULL};
    struct runtime *r = NULL;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, model->path, false, eb);
    if (e == ERR_OK)
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
    l.shape = &shape;
    e = check_gang(model, &shape, eb);
    if (e != ERR_OK)
        goto out;
    r->hparams = shape.hparams;
    r->context_tokens = shape.context_tokens;
    r->shape = shape.kv;
    r->kv_pages = shape.n_pages;
    r->step_rows = config.step_tokens;
    r->logits_rows = shape.logits_rows;
    r->drawers = shape.drawers;
    e = load_all(&l, &config, model);
    if (e != ERR_OK)
        goto out;
    r->backend->ops->memory(r->backend, &r->weights_bytes, &r->kv_bytes, &r->scratch_bytes);
    r->scratch_bytes += runtime_shape_host_bytes(&shape, &config, g);
    r->exchange_bytes = gang_held(r->gang);
    r->plan = shape.plan;
    r->shard = shape.shard;
    shape.plan = NULL;
    *ret_runtime = r;
    r = NULL;
out:
    runtime_shape_fini(&shape);
    runtime_close(r);
    gguf_close(g);
    give_back();
    /* Whatever is wrong here, nothing is wrong with the others: they miss a rank. */
    if (e != ERR_OK && model->gang != NULL && !l.has_called && (stop == NULL || !atomic_load(stop)))
        gang_decline(model->gang, stop, ERR_UNAVAILABLE, eb->text);
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
    float *buffers[] = {r->x, r->q, r->k, r->v, r->gate, r->up, r->branch, r->logits, r->picked};
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
    gang_close(r->gang);
    if (r->backend != NULL)
        free_on_backend(r);
    shard_plan_free(r->plan);
    free(r->layers);
    free(r->pieces);
    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        rope_table_free(r->rope[i]);
    chat_template_close(r->chat);
    tokenizer_close(r->tokenizer);
    free(r);
}
