#include "worker/engine/runtime_shape.h"

#include "common/limits.h"
#include "worker/engine/runtime.h"
#include "worker/kernels/rope_table.h"

#define STEP_TOKENS_DEFAULT 512u
#define SEQUENCES_DEFAULT   64u
#define SEQUENCES_MAX       LIMIT_LEASES_PER_WORKER
#define STEP_TOKENS_MAX     65536u
/* Enough rows for the kernels to be at their best, and few enough that those who draw do not wait.
 */
#define BESIDE_TOKENS_DEFAULT  128u
#define CONTEXT_TOKENS_DEFAULT 8192u /* where nothing is asked for: bounds the KV pool */
#define SLOTS_DEFAULT          4u
#define THREADS_MAX            4096u

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
    if (c.step_tokens < 2 || c.step_tokens > STEP_TOKENS_MAX)
        return err_set(eb, ERR_INVALID, "step_tokens is %u; 2 to %u are allowed", c.step_tokens,
                       STEP_TOKENS_MAX);
    if (c.sequences > SEQUENCES_MAX)
        return err_set(eb, ERR_INVALID, "sequences is %u; 1 to %u are allowed", c.sequences,
                       SEQUENCES_MAX);
    if (c.threads > THREADS_MAX)
        return err_set(eb, ERR_INVALID, "threads is %u; at most %u are allowed", c.threads,
                       THREADS_MAX);
    if (c.chunk_tokens > c.step_tokens)
        c.chunk_tokens = c.step_tokens;
    if (c.beside_tokens > c.step_tokens)
        c.beside_tokens = c.step_tokens;
    *ret_config = c;
    return ERR_OK;
}

enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb)
{
    struct runtime_shape s = {.logits_rows = config->sequences};
    uint32_t slots = model->slots == 0 ? SLOTS_DEFAULT : model->slots;
    enum err e = model_hparams_read(&s.hparams, g, eb);

    if (e != ERR_OK)
        return e;
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
    s.kv = (struct kv_shape){
        .n_layers = s.hparams.n_layers,
        .n_kv_heads = s.hparams.n_kv_heads,
        .head_dim_k = s.hparams.head_dim,
        .head_dim_v = s.hparams.head_dim,
        .type = model->kv_type,
        .n_pages = (uint32_t)pages,
    };
    *ret_shape = s;
    return ERR_OK;
}

static bool is_float(const struct gguf_tensor *t)
{
    return t->type == QUANT_TYPE_F32 || t->type == QUANT_TYPE_F16 || t->type == QUANT_TYPE_BF16;
}

struct runtime_floats runtime_floats(const struct model_hparams *h, const struct model_tensors *t)
{
    struct runtime_floats floats = {.embd = is_float(t->output)};

    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_layer_tensors *l = &t->layers[i];
        floats.embd = floats.embd || is_float(l->attn_q) || is_float(l->attn_k) ||
                      is_float(l->attn_v) || is_float(l->ffn_gate) || is_float(l->ffn_up);
        floats.attention = floats.attention || is_float(l->attn_output);
        floats.ffn = floats.ffn || is_float(l->ffn_down);
    }
    return floats;
}

uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape, const struct gguf *g)
{
    uint64_t rope = (uint64_t)shape->context_tokens * shape->hparams.rope_dim * sizeof(float);
    uint64_t sampler = (uint64_t)shape->hparams.vocab_size * (3 * 4 + 8);
    uint64_t row = (uint64_t)shape->hparams.vocab_size * sizeof(float);

    return rope + sampler + row + 3 * gguf_data_offset(g);
}

static bool isa_is_scalar(enum backend_isa isa)
{
    if (isa == BACKEND_ISA_AUTO)
        return !backend_isa_available(BACKEND_ISA_AVX2) &&
               !backend_isa_available(BACKEND_ISA_AVX512);
    return isa == BACKEND_ISA_SCALAR;
}

static uint64_t matrix_bytes(const struct gguf_tensor *t, bool scalar)
{
    if (scalar)
        return t->size;
    return backend_cpu_weight_bytes(t->type, (uint32_t)t->dims[1], (uint32_t)t->dims[0]);
}

static uint64_t weights_bytes(const struct model_hparams *h, const struct model_tensors *t,
                              bool scalar)
{
    uint64_t bytes = matrix_bytes(t->token_embd, scalar);

    if (!h->tied_embedding)
        bytes += matrix_bytes(t->output, scalar);
    for (uint32_t i = 0; i < h->n_layers; i++) {
        const struct model_layer_tensors *l = &t->layers[i];
        const struct gguf_tensor *matrices[] = {l->attn_q,   l->attn_k, l->attn_v,  l->attn_output,
                                                l->ffn_gate, l->ffn_up, l->ffn_down};
        for (size_t k = 0; k < sizeof matrices / sizeof matrices[0]; k++)
            bytes += matrix_bytes(matrices[k], scalar);
    }
    return bytes;
}

/* The scalar backend keeps the cache's values as floats. */
static uint64_t kv_page_bytes(const struct kv_shape *kv, bool scalar)
{
    if (scalar)
        return (uint64_t)KV_PAGE_TOKENS * kv->n_layers * kv->n_kv_heads *
               (kv->head_dim_k + kv->head_dim_v) * sizeof(float);
    return backend_kv_page_bytes(kv);
}

static uint64_t act_row_bytes(uint64_t cols, bool keep_float)
{
    /* A byte an element; a scale and two sums for 32 of them. */
    return cols + cols * 3 / 8 + 64 + (keep_float ? cols * sizeof(float) : 0);
}

static uint64_t backend_scratch_bytes(const struct runtime_shape *s, const struct model_tensors *t,
                                      uint32_t step_rows)
{
    const struct model_hparams *h = &s->hparams;
    struct runtime_floats keep = runtime_floats(h, t);
    uint64_t heads = (uint64_t)h->n_heads * h->head_dim;
    uint64_t kv_heads = (uint64_t)h->n_kv_heads * h->head_dim;
    uint64_t floats = h->n_embd + heads + 2 * kv_heads + 2ull * h->n_ff;
    uint64_t acts = act_row_bytes(h->n_embd, keep.embd) + act_row_bytes(heads, keep.attention) +
                    act_row_bytes(h->n_ff, keep.ffn);
    uint64_t norms = (2ull * h->n_layers + 1) * h->n_embd * sizeof(float);

    return step_rows * (floats * sizeof(float) + acts) + norms +
           (uint64_t)s->logits_rows * h->vocab_size * sizeof(float);
}

enum err engine_estimate_file(const struct engine_config *given,
                              const struct engine_model_config *model,
                              struct engine_estimate *ret_estimate, struct errbuf *eb)
{
    struct engine_config config;
    struct runtime_shape shape;
    struct model_tensors tensors = {0};
    struct gguf *g = NULL;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, model->path, true, eb);
    if (e != ERR_OK)
        return e;
    e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e == ERR_OK)
        e = model_tensors_find(&tensors, &shape.hparams, g, eb);
    if (e == ERR_OK) {
        bool scalar = isa_is_scalar(config.isa);
        uint64_t page = kv_page_bytes(&shape.kv, scalar);
        *ret_estimate = (struct engine_estimate){
            .weights_bytes = weights_bytes(&shape.hparams, &tensors, scalar),
            .kv_page_bytes = page,
            .kv_bytes = page * shape.kv.n_pages,
            .scratch_bytes = backend_scratch_bytes(&shape, &tensors, config.step_tokens) +
                             runtime_shape_host_bytes(&shape, g),
            .context_tokens = shape.context_tokens,
            .kv_pages = shape.kv.n_pages,
        };
        model_tensors_fini(&tensors);
    }
    gguf_close(g);
    return e;
}
