#include "worker/engine/runtime_shape.h"

#include "common/limits.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_backend.h"
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

static enum err kv_shapes_set(struct runtime_shape *shape, struct errbuf *eb)
{
    struct runtime_shape_kv kv = {0};

    for (uint32_t i = 0; i < shape->hparams.n_layers; i++) {
        const uint32_t heads = shard_run_count(shape->shard->layer[i].kv_heads);
        uint32_t c = 0;
        kv.cache_of[i] = RUNTIME_KV_NONE;
        if (heads == 0)
            continue;
        while (c < kv.n_caches && kv.cache[c].n_kv_heads != heads)
            c++;
        if (c == RUNTIME_KV_MAX)
            return err_set(eb, ERR_UNSUPPORTED,
                           "layers with more than %u different numbers of key/value heads",
                           RUNTIME_KV_MAX);
        if (c == kv.n_caches)
            kv.cache[kv.n_caches++] = (struct kv_shape){
                .n_kv_heads = heads,
                .head_dim_k = shape->hparams.head_dim,
                .head_dim_v = shape->hparams.head_dim,
                .type = shape->kv_type,
                .n_pages = shape->n_pages,
            };
        kv.cache_of[i] = (uint8_t)c;
        kv.layer_of[i] = (uint16_t)kv.cache[c].n_layers++;
    }
    for (uint32_t i = 0; i < kv.n_caches; i++) {
        enum err e = backend_kv_check(&kv.cache[i], eb);
        if (e != ERR_OK)
            return e;
    }
    shape->kv = kv;
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

/* How long a job may be, and pages for so many of them. */
static enum err pool_read(struct runtime_shape *s, const struct engine_model_config *model,
                          struct errbuf *eb)
{
    uint32_t slots = model->slots == 0 ? SLOTS_DEFAULT : model->slots;

    if (s->hparams.context_length < 2)
        return err_set(eb, ERR_INVALID,
                       "key '%s.context_length' is %u: a prompt and an answer take 2 tokens",
                       model_arch_name(&s->hparams), s->hparams.context_length);
    s->context_tokens = model->context_tokens;
    if (s->context_tokens == 0)
        s->context_tokens = CONTEXT_TOKENS_DEFAULT;
    if (s->context_tokens > s->hparams.context_length)
        s->context_tokens = s->hparams.context_length;
    if (s->context_tokens < 2 || s->context_tokens > LIMIT_CONTEXT_TOKENS ||
        s->context_tokens > ROPE_TABLE_POSITIONS_MAX)
        return err_set(eb, ERR_INVALID, "a context of %u tokens; 2 to %u are allowed",
                       s->context_tokens, LIMIT_CONTEXT_TOKENS);
    uint64_t pages = (uint64_t)((s->context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS) * slots;
    if (pages > 1u << 30)
        return err_set(eb, ERR_TOO_LARGE, "%u slots of %u tokens are more KV pages than can be",
                       slots, s->context_tokens);
    s->n_pages = (uint32_t)pages;
    s->kv_type = model->kv_type;
    return ERR_OK;
}

enum err runtime_shape_turn(struct runtime_shape *shape, uint32_t rank, struct errbuf *eb)
{
    if (rank >= shape->plan->cut->n_ranks)
        return err_set(eb, ERR_INVALID, "rank %u of %u", rank, shape->plan->cut->n_ranks);
    shape->rank = rank;
    shape->shard = &shape->plan->cut->rank[rank];
    return kv_shapes_set(shape, eb);
}

enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb)
{
    struct runtime_shape s = {.logits_rows = config->sequences};
    uint32_t threads = runtime_backend_threads(config);
    struct shard_request request = model->shard;
    enum err e = model_hparams_read(&s.hparams, g, eb);

    s.drawers = threads < RUNTIME_DRAWERS_MAX ? threads : RUNTIME_DRAWERS_MAX;
    s.carrier = gang_carrier_of(model->gang);
    request.shards = request.shards == 0 ? 1 : request.shards;
    if (e != ERR_OK)
        return e;
    e = pool_read(&s, model, eb);
    if (e == ERR_OK)
        e = vocabulary_check(&s.hparams, g, eb);
    if (e == ERR_OK)
        e = model_tensors_find(&s.tensors, &s.hparams, g, eb);
    if (e == ERR_OK)
        e = shard_plan_new(&s.plan, &s.hparams, &s.tensors, &request, s.kv_type, s.n_pages, eb);
    if (e == ERR_OK)
        e = runtime_shape_turn(&s, model->rank, eb);
    if (e != ERR_OK) {
        runtime_shape_fini(&s);
        return e;
    }
    *ret_shape = s;
    return ERR_OK;
}

void runtime_shape_fini(struct runtime_shape *shape)
{
    model_tensors_fini(&shape->tensors);
    shard_plan_free(shape->plan);
    shape->plan = NULL;
    shape->shard = NULL;
}

bool runtime_is_whole(const struct runtime_shape *shape)
{
    return shape->plan->cut->n_ranks == 1;
}

struct shard_slice runtime_slice(const struct runtime_shape *shape, uint32_t layer,
                                 enum model_part part, const struct gguf_tensor *t)
{
    return shard_slice(shape->plan, shape->shard, &shape->hparams, layer, part, t);
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

static uint32_t logits_width(const struct runtime_shape *shape)
{
    return shape->rank == 0 ? shape->hparams.vocab_size : 0;
}

struct runtime_widths runtime_widths(const struct runtime_shape *shape)
{
    /* What reads the normed residual. */
    static const enum model_part embd[] = {MODEL_PART_ATTN_Q, MODEL_PART_ATTN_K, MODEL_PART_ATTN_V,
                                           MODEL_PART_FFN_GATE, MODEL_PART_FFN_UP};
    static const enum model_part heads[] = {MODEL_PART_ATTN_OUTPUT};
    static const enum model_part ff[] = {MODEL_PART_FFN_DOWN};
    const struct model_hparams *h = &shape->hparams;
    const struct model_parts *whole = &shape->tensors.whole;
    const struct gguf_tensor *head =
        whole->at[h->tied_embedding ? MODEL_PART_TOKEN_EMBD : MODEL_PART_OUTPUT];
    const struct shard_rank_cut *s = shape->shard;
    struct runtime_widths w = {
        .embd = h->n_embd,
        .logits = logits_width(shape),
        .embd_float = shard_run_count(s->head) > 0 && is_float(head),
    };

    for (uint32_t i = s->layers.first; i < s->layers.end; i++) {
        const struct model_parts *l = &shape->tensors.layers[i];
        const struct shard_layer_cut *has = &s->layer[i];
        w.heads = shard_larger(w.heads, shard_run_count(has->heads) * h->head_dim);
        w.kv_heads = shard_larger(w.kv_heads, shard_run_count(has->kv_heads) * h->head_dim);
        w.ff = shard_larger(w.ff, shard_run_count(has->ff));
        w.embd_float = w.embd_float || any_float(l, embd, sizeof embd / sizeof embd[0]);
        w.heads_float = w.heads_float || any_float(l, heads, 1);
        w.ff_float = w.ff_float || any_float(l, ff, 1);
        if (l->at[MODEL_PART_ATTN_POST_NORM] != NULL || l->at[MODEL_PART_FFN_POST_NORM] != NULL)
            w.branch = h->n_embd;
    }
    return w;
}

bool runtime_rope_used(const struct runtime_shape *shape, uint32_t rope)
{
    for (uint32_t i = shape->shard->layers.first; i < shape->shard->layers.end; i++)
        if (shape->hparams.layer[i].rope == rope)
            return true;
    return false;
}

struct backend_room runtime_room(const struct runtime_shape *shape, uint32_t step_rows)
{
    const struct runtime_widths w = runtime_widths(shape);
    const struct shard_rank_cut *s = shape->shard;
    struct backend_room room = {
        .rows_max = step_rows,
        .cols_max = shard_larger(shard_larger(w.embd, w.heads), w.ff),
        .groups_max = 1,
        .pages_max = (shape->context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
        .sequences_max = shape->logits_rows,
        .rope_dim = shape->hparams.rope_dim,
        .results_max = w.logits > 0 ? shape->logits_rows * ((uint64_t)w.logits + PICKED_FLOATS) : 0,
        .pieces_max = shape->logits_rows + 1,
        .n_caches = shape->kv.n_caches,
    };

    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        room.n_ropes += runtime_rope_used(shape, i) ? 1 : 0;
    for (uint32_t i = s->layers.first; i < s->layers.end; i++) {
        const struct shard_layer_cut *l = &s->layer[i];
        room.groups_max = shard_larger(room.groups_max, shard_run_count(l->groups));
        room.groups_max = shard_larger(room.groups_max, shard_run_count(l->ffn_groups));
        if (shape->kv.cache_of[i] == RUNTIME_KV_NONE)
            continue;
        struct backend_room_cache *cache = &room.cache[shape->kv.cache_of[i]];
        const struct kv_shape *kv = &shape->kv.cache[shape->kv.cache_of[i]];
        *cache = (struct backend_room_cache){
            .n_heads = shard_larger(cache->n_heads, shard_run_count(l->heads)),
            .group = shard_larger(cache->group, shape->hparams.layer[i].n_heads /
                                                    shape->hparams.layer[i].n_kv_heads),
            .n_kv_heads = kv->n_kv_heads,
            .head_dim_k = kv->head_dim_k,
            .head_dim_v = kv->head_dim_v,
        };
    }
    return room;
}

struct gang_limits runtime_gang_limits(const struct runtime_shape *shape,
                                       const struct engine_config *config)
{
    const uint64_t row = shape->hparams.n_embd * sizeof(float);
    const uint32_t rows = gang_piece_most(shape->plan->cut, config->step_tokens);

    return (struct gang_limits){
        .context_tokens = shape->context_tokens,
        .kv_type = (uint32_t)shape->kv_type,
        .rows = config->step_tokens,
        .logits_rows = shape->logits_rows,
        .sequences = config->sequences,
        .sequence_pages = (shape->context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS,
        .kv_pages = shape->n_pages,
        .sums_bytes = shard_nodes(shape->plan, shape->shard).all * row * rows,
        .logits_bytes = (uint64_t)shape->hparams.vocab_size * sizeof(float) * shape->logits_rows,
        .rows_bytes = row * rows,
    };
}
