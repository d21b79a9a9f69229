#include "worker/engine/runtime_shape.h"

#include "common/limits.h"
#include "worker/engine/runtime.h"
#include "worker/kernels/rope_table.h"

#define STEP_TOKENS_DEFAULT 512u
#define SEQUENCES_DEFAULT   64u
#define SEQUENCES_MAX       LIMIT_LEASES_PER_WORKER
/* Enough rows for the kernels to be at their best, and few enough that those who draw do not wait.
 */
#define BESIDE_TOKENS_DEFAULT  128u
#define CONTEXT_TOKENS_DEFAULT 8192u /* where nothing is asked for: bounds the KV pool */
#define SLOTS_DEFAULT          4u

enum err runtime_config_complete(const struct engine_config *config,
                                 struct engine_config *ret_config, struct errbuf *eb)
{
    struct engine_config c = *config;

    if (c.step_tokens == 0)
        c.step_tokens = STEP_TOKENS_DEFAULT;
    if (c.chunk_tokens == 0)
        c.chunk_tokens = c.step_tokens;
    if (c.beside_tokens == 0)
        c.beside_tokens = BESIDE_TOKENS_DEFAULT;
    if (c.sequences == 0)
        c.sequences = SEQUENCES_DEFAULT;
    if (c.step_tokens < ENGINE_STEP_TOKENS_MIN || c.step_tokens > ENGINE_STEP_TOKENS_MAX)
        return err_set(eb, ERR_INVALID, "step_tokens is %u; %u to %u are allowed", c.step_tokens,
                       ENGINE_STEP_TOKENS_MIN, ENGINE_STEP_TOKENS_MAX);
    if (c.sequences > SEQUENCES_MAX)
        return err_set(eb, ERR_INVALID, "sequences is %u; 1 to %u are allowed", c.sequences,
                       SEQUENCES_MAX);
    if (c.threads > LIMIT_WORKER_THREADS)
        return err_set(eb, ERR_INVALID, "threads is %u; at most %u are allowed", c.threads,
                       LIMIT_WORKER_THREADS);
    if (c.chunk_tokens > c.step_tokens)
        c.chunk_tokens = c.step_tokens;
    if (c.beside_tokens > c.step_tokens)
        c.beside_tokens = c.step_tokens;
    *ret_config = c;
    return ERR_OK;
}

static enum err kv_shapes_set(struct runtime_shape_kv *ret, const struct model_hparams *h,
                              enum kv_type type, uint32_t n_pages, struct errbuf *eb)
{
    struct runtime_shape_kv kv = {0};

    for (uint32_t i = 0; i < h->n_layers; i++) {
        uint32_t c = 0;
        while (c < kv.n_caches && kv.cache[c].n_kv_heads != h->layer[i].n_kv_heads)
            c++;
        if (c == RUNTIME_KV_MAX)
            return err_set(eb, ERR_UNSUPPORTED,
                           "layers with more than %u different numbers of key/value heads",
                           RUNTIME_KV_MAX);
        if (c == kv.n_caches)
            kv.cache[kv.n_caches++] = (struct kv_shape){
                .n_kv_heads = h->layer[i].n_kv_heads,
                .head_dim_k = h->head_dim,
                .head_dim_v = h->head_dim,
                .type = type,
                .n_pages = n_pages,
            };
        kv.cache_of[i] = (uint8_t)c;
        kv.layer_of[i] = (uint16_t)kv.cache[c].n_layers++;
    }
    for (uint32_t i = 0; i < kv.n_caches; i++) {
        enum err e = backend_kv_check(&kv.cache[i], eb);
        if (e != ERR_OK)
            return e;
    }
    *ret = kv;
    return ERR_OK;
}

static enum err vocabulary_check(const struct model_hparams *h, const struct gguf *g,
                                 struct errbuf *eb)
{
    uint64_t count;
    enum err e = gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_VALUE_STRING, &count, eb);
    if (e == ERR_OK && count != h->vocab_size)
        e = err_set(eb, ERR_INVALID, "the tokenizer has %llu tokens, the embedding %u rows",
                    (unsigned long long)count, h->vocab_size);
    return e;
}

static bool isa_is_scalar(enum backend_isa isa)
{
    return backend_isa_resolve(isa) == BACKEND_ISA_SCALAR;
}

enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb)
{
    struct runtime_shape s = {.logits_rows = config->sequences};
    uint32_t threads = config->threads == 0 ? backend_threads_auto() : config->threads;
    uint32_t slots = model->slots == 0 ? SLOTS_DEFAULT : model->slots;
    enum err e = model_hparams_read(&s.hparams, g, eb);

    threads = isa_is_scalar(config->isa) ? 1 : threads;
    s.drawers = threads < RUNTIME_DRAWERS_MAX ? threads : RUNTIME_DRAWERS_MAX;
    if (e != ERR_OK)
        return e;
    if (s.hparams.context_length < 2)
        return err_set(eb, ERR_INVALID,
                       "key '%s.context_length' is %u: a prompt and an answer take 2 tokens",
                       model_arch_name(&s.hparams), s.hparams.context_length);
    s.context_tokens = model->context_tokens;
    if (s.context_tokens == 0)
        s.context_tokens = CONTEXT_TOKENS_DEFAULT;
    if (s.context_tokens > s.hparams.context_length)
        s.context_tokens = s.hparams.context_length;
    if (s.context_tokens < 2 || s.context_tokens > LIMIT_CONTEXT_TOKENS ||
        s.context_tokens > ROPE_TABLE_POSITIONS_MAX)
        return err_set(eb, ERR_INVALID, "a context of %u tokens; 2 to %u are allowed",
                       s.context_tokens, LIMIT_CONTEXT_TOKENS);
    uint64_t pages = (uint64_t)((s.context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS) * slots;
    if (pages > 1u << 30)
        return err_set(eb, ERR_TOO_LARGE, "%u slots of %u tokens are more KV pages than can be",
                       slots, s.context_tokens);
    s.n_pages = (uint32_t)pages;
    e = kv_shapes_set(&s.kv, &s.hparams, model->kv_type, s.n_pages, eb);
    if (e == ERR_OK)
        e = vocabulary_check(&s.hparams, g, eb);
    if (e == ERR_OK)
        *ret_shape = s;
    return e;
}

static bool is_float(const struct gguf_tensor *t)
{
    return t->type == QUANT_TYPE_F32 || t->type == QUANT_TYPE_F16 || t->type == QUANT_TYPE_BF16;
}

static bool any_float(const struct model_parts *parts, const enum model_part *which, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (parts->at[which[i]] != NULL && is_float(parts->at[which[i]]))
            return true;
    return false;
}

struct runtime_widths runtime_widths(const struct model_hparams *h, const struct model_tensors *t)
{
    /* What reads the normed residual. */
    static const enum model_part embd[] = {MODEL_PART_ATTN_Q, MODEL_PART_ATTN_K, MODEL_PART_ATTN_V,
                                           MODEL_PART_FFN_GATE, MODEL_PART_FFN_UP};
    static const enum model_part heads[] = {MODEL_PART_ATTN_OUTPUT};
    static const enum model_part ff[] = {MODEL_PART_FFN_DOWN};
    const struct gguf_tensor *head = t->whole.at[MODEL_PART_OUTPUT];
    struct runtime_widths w = {
        .embd = h->n_embd,
        .heads = h->n_heads_max * h->head_dim,
        .kv_heads = h->n_kv_heads_max * h->head_dim,
        .ff = h->n_ff_max,
        .embd_float = is_float(head != NULL ? head : t->whole.at[MODEL_PART_TOKEN_EMBD]),
    };

    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_parts *l = &t->layers[i];
        w.embd_float = w.embd_float || any_float(l, embd, sizeof embd / sizeof embd[0]);
        w.heads_float = w.heads_float || any_float(l, heads, 1);
        w.ff_float = w.ff_float || any_float(l, ff, 1);
        w.branch = w.branch || l->at[MODEL_PART_ATTN_POST_NORM] != NULL ||
                   l->at[MODEL_PART_FFN_POST_NORM] != NULL;
    }
    return w;
}

bool runtime_rope_used(const struct model_hparams *h, uint32_t rope)
{
    for (uint32_t i = 0; i < h->n_layers; i++)
        if (h->layer[i].rope == rope)
            return true;
    return false;
}

uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape, const struct gguf *g)
{
    const struct model_hparams *h = &shape->hparams;
    uint64_t rope = 0;
    uint64_t samplers = shape->drawers * sampler_bytes(h->vocab_size);

    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        if (runtime_rope_used(h, i))
            rope += rope_table_bytes(h->rope_dim, shape->context_tokens);
    return rope + samplers + gguf_data_offset(g) / 4 * 11;
}

struct sum_cut runtime_cut(const struct model_hparams *h, const struct model_layer_hparams *layer,
                           enum model_part part, const struct gguf_tensor *t)
{
    if (part == MODEL_PART_ATTN_OUTPUT)
        return backend_cut_attention(layer->n_heads, layer->n_kv_heads, h->head_dim);
    if (part == MODEL_PART_FFN_DOWN)
        return backend_cut_ffn((uint32_t)t->dims[0]);
    return sum_cut_whole((uint32_t)t->dims[0], 1, 1);
}

static uint64_t parts_bytes(const struct model_hparams *h, const struct model_layer_hparams *layer,
                            const struct model_parts *parts, bool scalar)
{
    uint64_t bytes = 0;

    for (enum model_part i = 0; i < MODEL_PART_COUNT; i++) {
        const struct gguf_tensor *t = parts->at[i];
        if (t == NULL || !model_part_is_matrix(i))
            continue;
        const struct sum_cut cut = runtime_cut(h, layer, i, t);
        bytes += scalar ? t->size
                        : backend_cpu_weight_bytes(t->type, (uint32_t)t->dims[1],
                                                   (uint32_t)t->dims[0], &cut);
    }
    return bytes;
}

static uint64_t weights_bytes(const struct model_hparams *h, const struct model_tensors *t,
                              bool scalar)
{
    uint64_t bytes = parts_bytes(h, NULL, &t->whole, scalar);

    for (uint32_t i = 0; i < h->n_layers; i++)
        bytes += parts_bytes(h, &h->layer[i], &t->layers[i], scalar);
    return bytes;
}

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

struct backend_room runtime_room(const struct runtime_shape *shape, const struct model_tensors *t,
                                 uint32_t step_rows)
{
    static const enum model_part in_groups[] = {MODEL_PART_ATTN_OUTPUT, MODEL_PART_FFN_DOWN};
    const struct model_hparams *h = &shape->hparams;
    const struct runtime_widths w = runtime_widths(h, t);
    struct backend_room room = {
        .rows_max = step_rows,
        .cols_max = max_u32(max_u32(w.embd, w.heads), w.ff),
        .groups_max = 1,
        .pages_max = (shape->context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
        .n_caches = shape->kv.n_caches,
    };

    for (uint32_t i = 0; i < h->n_layers; i++) {
        struct backend_room_cache *cache = &room.cache[shape->kv.cache_of[i]];
        const struct kv_shape *kv = &shape->kv.cache[shape->kv.cache_of[i]];
        *cache = (struct backend_room_cache){
            .n_heads = max_u32(cache->n_heads, h->layer[i].n_heads),
            .group = max_u32(cache->group, h->layer[i].n_heads / kv->n_kv_heads),
            .n_kv_heads = kv->n_kv_heads,
            .head_dim_k = kv->head_dim_k,
            .head_dim_v = kv->head_dim_v,
        };
        for (size_t k = 0; k < sizeof in_groups / sizeof in_groups[0]; k++)
            room.groups_max = max_u32(
                room.groups_max,
                runtime_cut(h, &h->layer[i], in_groups[k], t->layers[i].at[in_groups[k]]).groups);
    }
    return room;
}

/* Vectors on the backend, but for the rope factors, which go into a table. */
static uint64_t vectors_bytes(const struct model_hparams *h, const struct model_tensors *t)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i <= h->n_layers; i++) {
        const struct model_parts *parts = i == h->n_layers ? &t->whole : &t->layers[i];
        for (enum model_part k = 0; k < MODEL_PART_COUNT; k++)
            if (parts->at[k] != NULL && !model_part_is_matrix(k) && k != MODEL_PART_ROPE_FREQS)
                bytes += backend_buffer_bytes((size_t)parts->at[k]->dims[0]);
    }
    return bytes;
}

/* The scalar backend keeps the cache's values as floats. */
static uint64_t kv_page_bytes(const struct runtime_shape_kv *kv, bool scalar)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < kv->n_caches; i++) {
        const struct kv_shape *c = &kv->cache[i];
        bytes += scalar ? (uint64_t)KV_PAGE_TOKENS * c->n_layers * c->n_kv_heads *
                              (c->head_dim_k + c->head_dim_v) * sizeof(float)
                        : backend_kv_page_bytes(c);
    }
    return bytes;
}

static uint64_t backend_scratch_bytes(const struct runtime_shape *s, const struct model_tensors *t,
                                      const struct engine_config *config)
{
    const struct model_hparams *h = &s->hparams;
    const struct runtime_widths w = runtime_widths(h, t);
    const uint32_t rows = config->step_tokens;
    const uint32_t threads = config->threads == 0 ? backend_threads_auto() : config->threads;
    const struct backend_room room = runtime_room(s, t, rows);
    const struct {
        uint32_t cols, count;
    } buffers[] = {{w.embd, w.branch ? 2 : 1}, {w.heads, 1}, {w.kv_heads, 2}, {w.ff, 2}};
    uint64_t bytes = backend_buffer_bytes((size_t)s->logits_rows * h->vocab_size) +
                     backend_act_bytes(config->isa, rows, w.embd, w.embd_float) +
                     backend_act_bytes(config->isa, rows, w.heads, w.heads_float) +
                     backend_act_bytes(config->isa, rows, w.ff, w.ff_float) +
                     backend_room_bytes(config->isa, threads, &room) + vectors_bytes(h, t);

    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        bytes += buffers[i].count * backend_buffer_bytes((size_t)rows * buffers[i].cols);
    return bytes;
}

enum err runtime_estimate(const struct engine_config *given,
                          const struct engine_model_config *model, const struct gguf *g,
                          struct engine_estimate *ret_estimate, struct errbuf *eb)
{
    struct engine_config config;
    struct runtime_shape shape;
    struct model_tensors tensors = {0};
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e == ERR_OK)
        e = model_tensors_find(&tensors, &shape.hparams, g, eb);
    if (e != ERR_OK)
        return e;
    bool scalar = isa_is_scalar(config.isa);
    uint64_t page = kv_page_bytes(&shape.kv, scalar);
    *ret_estimate = (struct engine_estimate){
        .weights_bytes = weights_bytes(&shape.hparams, &tensors, scalar),
        .kv_page_bytes = page,
        .kv_bytes = page * shape.n_pages,
        .scratch_bytes =
            backend_scratch_bytes(&shape, &tensors, &config) + runtime_shape_host_bytes(&shape, g),
        .context_tokens = shape.context_tokens,
        .kv_pages = shape.n_pages,
    };
    model_tensors_fini(&tensors);
    return ERR_OK;
}

enum err engine_estimate_file(const struct engine_config *config,
                              const struct engine_model_config *model,
                              struct engine_estimate *ret_estimate, struct errbuf *eb)
{
    struct gguf *g = NULL;
    enum err e = gguf_open_file(&g, model->path, false, eb);

    if (e == ERR_OK)
        e = runtime_estimate(config, model, g, ret_estimate, eb);
    gguf_close(g);
    return e;
}
