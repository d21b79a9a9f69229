#include "worker/engine/runtime.h"

#include "common/check.h"
#include "common/limits.h"
#include "worker/engine/runtime_shape.h"
#include "worker/kernels/rope_table.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What loading needs besides the runtime it fills. */
struct loading {
    struct runtime *r;
    const struct gguf *g;
    struct model_tensors tensors;
    const atomic_bool *stop;
    struct errbuf *eb;
};

static enum err load_matrix(struct loading *l, const struct gguf_tensor *t, uint32_t groups,
                            struct weight **ret_weight)
{
    struct backend *b = l->r->backend;
    enum err e;

    if (l->stop != NULL && atomic_load(l->stop))
        return err_set(l->eb, ERR_CANCELLED, "loading was stopped");
    e = b->ops->weight_load(b, t->type, t->data, (uint32_t)t->dims[1], (uint32_t)t->dims[0], groups,
                            ret_weight, l->eb);
    if (e != ERR_OK)
        return err_prefix(l->eb, e, "tensor %.*s", (int)t->name.size, t->name.bytes);
    return ERR_OK;
}

static enum err load_vector(struct loading *l, const struct gguf_tensor *t, float **ret_buffer)
{
    struct backend *b = l->r->backend;
    size_t count = t->dims[0];
    float *host = malloc(count * sizeof *host);
    float *buffer = host == NULL ? NULL : b->ops->buffer_new(b, count);

    if (buffer == NULL) {
        free(host);
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for tensor %.*s", (int)t->name.size,
                       t->name.bytes);
    }
    memcpy(host, t->data, count * sizeof *host); /* the file need not align it */
    b->ops->buffer_write(b, buffer, host, count);
    free(host);
    *ret_buffer = buffer;
    return ERR_OK;
}

static enum err load_layer(struct loading *l, const struct model_layer_tensors *t,
                           struct runtime_layer *to)
{
    const struct model_hparams *h = &l->r->hparams;
    uint32_t attention = backend_groups(h->n_heads * h->head_dim, h->n_kv_heads);
    uint32_t ffn = backend_groups(h->n_ff, 0);
    enum err e = load_vector(l, t->attn_norm, &to->attn_norm);

    if (e == ERR_OK)
        e = load_matrix(l, t->attn_q, 1, &to->attn_q);
    if (e == ERR_OK)
        e = load_matrix(l, t->attn_k, 1, &to->attn_k);
    if (e == ERR_OK)
        e = load_matrix(l, t->attn_v, 1, &to->attn_v);
    if (e == ERR_OK)
        e = load_matrix(l, t->attn_output, attention, &to->attn_output);
    if (e == ERR_OK)
        e = load_vector(l, t->ffn_norm, &to->ffn_norm);
    if (e == ERR_OK)
        e = load_matrix(l, t->ffn_gate, 1, &to->ffn_gate);
    if (e == ERR_OK)
        e = load_matrix(l, t->ffn_up, 1, &to->ffn_up);
    if (e == ERR_OK)
        e = load_matrix(l, t->ffn_down, ffn, &to->ffn_down);
    return e;
}

static enum err load_weights(struct loading *l)
{
    struct runtime *r = l->r;
    enum err e = load_matrix(l, l->tensors.token_embd, 1, &r->token_embd);

    if (e == ERR_OK)
        e = load_vector(l, l->tensors.output_norm, &r->output_norm);
    if (e == ERR_OK && r->hparams.tied_embedding)
        r->output = r->token_embd;
    else if (e == ERR_OK)
        e = load_matrix(l, l->tensors.output, 1, &r->output);
    r->layers = calloc(r->hparams.n_layers, sizeof *r->layers);
    if (e == ERR_OK && r->layers == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for %u layers", r->hparams.n_layers);
    for (uint32_t i = 0; e == ERR_OK && i < r->hparams.n_layers; i++)
        e = load_layer(l, &l->tensors.layers[i], &r->layers[i]);
    return e;
}

static enum err load_rope(struct loading *l)
{
    const struct model_hparams *h = &l->r->hparams;
    struct rope_params params = {
        .base = (double)h->rope_base,
        .dim = h->rope_dim,
        .linear_scale = 1.0 / (double)h->rope_scale,
    };
    float *factors = NULL;
    enum err e;

    if (l->tensors.rope_freqs != NULL) {
        size_t bytes = l->tensors.rope_freqs->dims[0] * sizeof *factors;
        factors = malloc(bytes);
        if (factors == NULL)
            return err_set(l->eb, ERR_NO_MEMORY, "no memory for rope factors");
        memcpy(factors, l->tensors.rope_freqs->data, bytes);
        params.factors = factors;
    }
    e = rope_table_new(&params, l->r->context_tokens, &l->r->rope, l->eb);
    free(factors);
    return e;
}

static enum err new_acts(struct loading *l)
{
    struct runtime *r = l->r;
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    struct runtime_floats keep = runtime_floats(h, &l->tensors);

    r->act_embd = b->ops->act_new(b, r->step_rows, h->n_embd, keep.embd);
    r->act_attention = b->ops->act_new(b, r->step_rows, h->n_heads * h->head_dim, keep.attention);
    r->act_ffn = b->ops->act_new(b, r->step_rows, h->n_ff, keep.ffn);
    if (r->act_embd == NULL || r->act_attention == NULL || r->act_ffn == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for the activations of %u rows",
                       r->step_rows);
    return ERR_OK;
}

static enum err new_buffers(struct loading *l)
{
    struct runtime *r = l->r;
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    size_t rows = r->step_rows;

    r->x = b->ops->buffer_new(b, rows * h->n_embd);
    r->q = b->ops->buffer_new(b, rows * h->n_heads * h->head_dim);
    r->k = b->ops->buffer_new(b, rows * h->n_kv_heads * h->head_dim);
    r->v = b->ops->buffer_new(b, rows * h->n_kv_heads * h->head_dim);
    r->gate = b->ops->buffer_new(b, rows * h->n_ff);
    r->up = b->ops->buffer_new(b, rows * h->n_ff);
    r->logits = b->ops->buffer_new(b, (size_t)r->logits_rows * h->vocab_size);
    r->host_logits = malloc((size_t)h->vocab_size * sizeof *r->host_logits);
    if (r->x == NULL || r->q == NULL || r->k == NULL || r->v == NULL || r->gate == NULL ||
        r->up == NULL || r->logits == NULL || r->host_logits == NULL)
        return err_set(l->eb, ERR_NO_MEMORY, "no memory for buffers of %zu rows and %u logits",
                       rows, h->vocab_size);
    return new_acts(l);
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

static enum err load_all(struct loading *l, const struct engine_config *config,
                         const struct runtime_shape *shape)
{
    struct runtime *r = l->r;
    struct backend_cpu_config cpu = {.isa = config->isa, .threads = config->threads};
    enum err e = tokenizer_open(&r->tokenizer, l->g, l->eb);

    if (e != ERR_OK)
        return e;
    if ((uint32_t)tokenizer_vocab_size(r->tokenizer) != r->hparams.vocab_size)
        return err_set(l->eb, ERR_INVALID, "the tokenizer has %d tokens, the embedding %u rows",
                       tokenizer_vocab_size(r->tokenizer), r->hparams.vocab_size);
    open_chat(l);
    e = backend_cpu_open(&r->backend, &cpu, l->eb);
    if (e == ERR_OK)
        e = load_rope(l);
    if (e == ERR_OK)
        e = load_weights(l);
    if (e == ERR_OK)
        e = r->backend->ops->kv_new(r->backend, &shape->kv, &r->kv, l->eb);
    if (e == ERR_OK)
        e = new_buffers(l);
    return e;
}

enum err runtime_open(struct runtime **ret_runtime, const struct engine_config *given,
                      const struct engine_model_config *model, const atomic_bool *stop,
                      struct errbuf *eb)
{
    struct engine_config config;
    struct loading l = {.stop = stop, .eb = eb};
    struct gguf *g = NULL;
    struct runtime_shape shape;
    struct runtime *r = NULL;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, model->path, false, eb);
    if (e != ERR_OK)
        return e;
    r = calloc(1, sizeof *r);
    if (r == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a model");
        goto out;
    }
    l.r = r;
    l.g = g;
    e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e == ERR_OK)
        e = model_tensors_find(&l.tensors, &shape.hparams, g, eb);
    if (e != ERR_OK)
        goto out;
    r->hparams = shape.hparams;
    r->context_tokens = shape.context_tokens;
    r->kv_pages = shape.kv.n_pages;
    r->step_rows = config.step_tokens;
    r->logits_rows = shape.logits_rows;
    r->activation = ACTIVATION_SILU;
    r->embed_scale = 1.0f;
    r->attention_scale = 1.0f / sqrtf((float)r->hparams.head_dim);
    e = load_all(&l, &config, &shape);
    model_tensors_fini(&l.tensors);
    if (e != ERR_OK)
        goto out;
    r->backend->ops->memory(r->backend, &r->weights_bytes, &r->kv_bytes, &r->scratch_bytes);
    r->scratch_bytes += runtime_shape_host_bytes(&shape, g);
    *ret_runtime = r;
    r = NULL;
out:
    runtime_close(r);
    gguf_close(g);
    return e;
}

static void free_layer(struct backend *b, struct runtime_layer *layer)
{
    b->ops->buffer_free(b, layer->attn_norm);
    b->ops->buffer_free(b, layer->ffn_norm);
    struct weight *weights[] = {layer->attn_q,   layer->attn_k, layer->attn_v,  layer->attn_output,
                                layer->ffn_gate, layer->ffn_up, layer->ffn_down};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++)
        b->ops->weight_free(b, weights[i]);
}

static void free_on_backend(struct runtime *r)
{
    struct backend *b = r->backend;
    float *buffers[] = {r->output_norm, r->x, r->q, r->k, r->v, r->gate, r->up, r->logits};
    struct act *acts[] = {r->act_embd, r->act_attention, r->act_ffn};

    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        b->ops->buffer_free(b, buffers[i]);
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
        b->ops->act_free(b, acts[i]);
    for (uint32_t i = 0; r->layers != NULL && i < r->hparams.n_layers; i++)
        free_layer(b, &r->layers[i]);
    if (r->output != r->token_embd)
        b->ops->weight_free(b, r->output);
    b->ops->weight_free(b, r->token_embd);
    b->ops->kv_free(b, r->kv);
    b->ops->close(b);
}

void runtime_close(struct runtime *r)
{
    if (r == NULL)
        return;
    if (r->backend != NULL)
        free_on_backend(r);
    free(r->layers);
    free(r->rope);
    free(r->host_logits);
    chat_template_close(r->chat);
    tokenizer_close(r->tokenizer);
    free(r);
}
