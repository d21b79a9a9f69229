/* What a rank's share holds, in bytes: buffers, matrices, the pool, what ranks hand each other; as
 * loading takes them. */
#include "worker/engine/runtime_shape.h"

#include "common/shard_room.h"
#include "worker/engine/gang_told.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_backend.h"
#include "worker/kernels/rope_table.h"

/* Of rank 0, which draws: samplers, rows that they draw from, and the tokenizer. */
static uint64_t drawing_bytes(const struct runtime_shape *shape, const struct engine_config *config,
                              const struct gguf *g)
{
    const uint32_t vocab = shape->hparams.vocab_size;
    const uint64_t row = runtime_backend_picks(config) ? vocab * sizeof(float) : 0;

    return shape->drawers * (sampler_bytes(vocab) + row) + gguf_data_offset(g) / 4 * 11;
}

uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape,
                                  const struct engine_config *config, const struct gguf *g)
{
    const struct model_hparams *h = &shape->hparams;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        if (runtime_rope_used(shape, i))
            bytes += rope_table_bytes(h->rope_dim, shape->context_tokens);
    if (shape->rank == 0)
        bytes += drawing_bytes(shape, config, g);
    return bytes;
}

/* Row `layer` of the tensor table; the last one has what is there once. */
static const struct model_parts *parts_of(const struct runtime_shape *shape, uint32_t layer)
{
    return layer == shape->hparams.n_layers ? &shape->tensors.whole : &shape->tensors.layers[layer];
}

static uint64_t weights_bytes(const struct runtime_shape *shape, const struct engine_config *config)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i <= shape->hparams.n_layers; i++) {
        const struct model_parts *parts = parts_of(shape, i);
        for (enum model_part k = 0; k < MODEL_PART_COUNT; k++) {
            if (parts->at[k] == NULL || !model_part_is_matrix(k))
                continue;
            const struct shard_slice s = runtime_slice(shape, i, k, parts->at[k]);
            if (s.rows > 0)
                bytes += runtime_backend_weight_bytes(config, parts->at[k]->type, s.rows, s.cols,
                                                      &s.cut);
        }
    }
    return bytes;
}

/* A vector of which a shard has no more than of the matrix whose rows it is of. */
static bool is_bias(enum model_part part)
{
    return part == MODEL_PART_OUTPUT_BIAS || part == MODEL_PART_ATTN_Q_BIAS ||
           part == MODEL_PART_ATTN_K_BIAS || part == MODEL_PART_ATTN_V_BIAS ||
           part == MODEL_PART_FFN_GATE_BIAS || part == MODEL_PART_FFN_UP_BIAS;
}

/* Vectors on the backend, biases or others, but for the rope factors, which go into a table. */
static uint64_t vectors_bytes(const struct runtime_shape *shape, const struct engine_config *config,
                              bool biases)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i <= shape->hparams.n_layers; i++) {
        const struct model_parts *parts = parts_of(shape, i);
        for (enum model_part k = 0; k < MODEL_PART_COUNT; k++) {
            if (parts->at[k] == NULL || model_part_is_matrix(k) || is_bias(k) != biases ||
                k == MODEL_PART_ROPE_FREQS)
                continue;
            const struct shard_slice s = runtime_slice(shape, i, k, parts->at[k]);
            if (s.rows > 0)
                bytes += runtime_backend_buffer_bytes(config, s.rows);
        }
    }
    return bytes;
}

static uint64_t kv_page_bytes(const struct runtime_shape_kv *kv, const struct engine_config *config)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < kv->n_caches; i++)
        bytes += runtime_backend_kv_page_bytes(config, &kv->cache[i]);
    return bytes;
}

static uint64_t buffer_bytes(const struct engine_config *config, size_t rows, uint32_t cols)
{
    return cols == 0 ? 0 : runtime_backend_buffer_bytes(config, rows * cols);
}

static uint64_t act_bytes(const struct engine_config *config, uint32_t rows, uint32_t cols,
                          bool keep_float)
{
    return cols == 0 ? 0 : runtime_backend_act_bytes(config, rows, cols, keep_float);
}

static uint64_t logits_scratch_bytes(const struct runtime_shape *s,
                                     const struct engine_config *config)
{
    const uint32_t width = runtime_widths(s).logits;

    return buffer_bytes(config, s->logits_rows, width) +
           buffer_bytes(config, s->logits_rows,
                        width > 0 && runtime_backend_picks(config) ? PICKED_FLOATS : 0);
}

static uint64_t backend_scratch_bytes(const struct runtime_shape *s,
                                      const struct engine_config *config)
{
    const struct runtime_widths w = runtime_widths(s);
    const uint32_t rows = config->step_tokens;
    const struct backend_room room = runtime_room(s, rows);
    const uint32_t buffers[] = {w.embd, w.branch, w.heads, w.kv_heads, w.kv_heads, w.ff, w.ff};
    uint64_t bytes =
        logits_scratch_bytes(s, config) + act_bytes(config, rows, w.embd, w.embd_float) +
        act_bytes(config, rows, w.heads, w.heads_float) +
        act_bytes(config, rows, w.ff, w.ff_float) + runtime_backend_room_bytes(config, &room) +
        vectors_bytes(s, config, false) + vectors_bytes(s, config, true);

    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        bytes += buffer_bytes(config, rows, buffers[i]);
    return bytes;
}

static uint64_t exchange_bytes(const struct runtime_shape *shape,
                               const struct engine_config *config)
{
    const struct gang_limits limits = runtime_gang_limits(shape, config);

    return runtime_is_whole(shape)
               ? 0
               : gang_memory(&limits, shape->plan->cut, shape->rank, &shape->carrier);
}

struct engine_estimate runtime_shape_estimate(const struct runtime_shape *shape,
                                              const struct engine_config *config,
                                              const struct gguf *g)
{
    const uint64_t page = kv_page_bytes(&shape->kv, config);

    return (struct engine_estimate){
        .weights_bytes = weights_bytes(shape, config),
        .kv_page_bytes = page,
        .kv_bytes = page * shape->n_pages,
        .scratch_bytes =
            backend_scratch_bytes(shape, config) + runtime_shape_host_bytes(shape, config, g),
        .exchange_bytes = exchange_bytes(shape, config),
        .context_tokens = shape->context_tokens,
        .kv_pages = shape->n_pages,
    };
}

enum err runtime_estimate(const struct engine_config *given,
                          const struct engine_model_config *model, const struct gguf *g,
                          struct engine_estimate *ret_estimate, struct errbuf *eb)
{
    struct engine_config config;
    struct runtime_shape shape;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e != ERR_OK)
        return e;
    *ret_estimate = runtime_shape_estimate(&shape, &config, g);
    runtime_shape_fini(&shape);
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

static uint64_t share_of(uint64_t bytes, uint32_t count)
{
    return count == 0 ? 0 : bytes / count;
}

static uint64_t matrix_bytes(const struct engine_config *config, const struct gguf_tensor *t)
{
    if (t == NULL)
        return 0;
    const struct sum_cut cut = sum_cut_whole((uint32_t)t->dims[0], 1, 1);
    return runtime_backend_weight_bytes(config, t->type, (uint32_t)t->dims[1], (uint32_t)t->dims[0],
                                        &cut);
}

/* So many columns take no more than one block of them does. */
static uint32_t tail_columns(const struct engine_config *config, enum quant_type type)
{
    enum { ROWS = 4096, COLS_MAX = 1024 };
    uint32_t cols = SUM_BLOCK_ITEMS;
    uint64_t bytes[2] = {0};

    while (cols < COLS_MAX && bytes[0] == bytes[1]) {
        for (uint32_t i = 0; i < 2; i++) {
            const uint32_t n = i == 0 ? SUM_BLOCK_ITEMS : 2 * cols;
            const struct sum_cut cut = sum_cut_whole(n, 1, 1);
            bytes[i] = runtime_backend_weight_bytes(config, type, ROWS, n, &cut);
        }
        cols *= bytes[0] == bytes[1] ? 2 : 1;
    }
    return cols;
}

/* Of all layers; and the columns of a block and of a tail of the first one's. */
static uint64_t layers_matrix_bytes(const struct runtime_shape *s,
                                    const struct engine_config *config, enum model_part part,
                                    uint32_t *ret_block, uint32_t *ret_tail)
{
    const enum quant_type type = s->tensors.layers[0].at[part]->type;
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < s->hparams.n_layers; i++)
        bytes += matrix_bytes(config, s->tensors.layers[i].at[part]);
    *ret_block = quant_type_info((uint32_t)type)->block_items;
    *ret_tail = tail_columns(config, type);
    return bytes;
}

/* A tree over all groups there may be has 7 levels, of one group 1, where attention may take more.
 */
static void levels_set(const struct engine_config *config, struct backend_room room,
                       struct shard_room *ret_room)
{
    uint64_t bytes[3];

    for (uint32_t i = 0; i < 3; i++) {
        room.groups_max = i == 0 ? 1 : i == 1 ? SUM_GROUPS_MAX / 2 : SUM_GROUPS_MAX;
        bytes[i] = runtime_backend_room_bytes(config, &room);
    }
    const uint64_t level = bytes[2] - bytes[1], of_one = bytes[2] - 6 * level;
    _Static_assert(SUM_GROUPS_MAX == 64, "six levels more than one group");
    ret_room->level_bytes = level;
    ret_room->levels_bytes = level + (bytes[0] > of_one ? bytes[0] - of_one : 0);
}

/* Of a model that is whole: what is of heads, columns and layers in proportion to these, what only
 * rank 0 has, and the rest, which any rank has. */
static void room_set(const struct runtime_shape *s, const struct engine_config *config,
                     const struct gguf *g, const struct shard_shape *shape,
                     struct shard_room *ret_room)
{
    const struct runtime_widths w = runtime_widths(s);
    const struct gang_limits limits = runtime_gang_limits(s, config);
    const struct shard_cut in_stages = {.n_stages = 2};
    const uint32_t rows = config->step_tokens, dim = s->hparams.head_dim;
    const struct backend_room room = runtime_room(s, rows);
    const struct backend_heads_room heads = runtime_backend_heads_room(config, &room);
    struct shard_room r = {
        .embedding_bytes = matrix_bytes(config, s->tensors.whole.at[MODEL_PART_TOKEN_EMBD]),
        .output_bytes = s->hparams.tied_embedding
                            ? 0
                            : matrix_bytes(config, s->tensors.whole.at[MODEL_PART_OUTPUT]),
        .head_columns = dim,
        .biases_bytes = vectors_bytes(s, config, true),
        .first_bytes = logits_scratch_bytes(s, config) + drawing_bytes(s, config, g),
        .layer_bytes = share_of(vectors_bytes(s, config, false), s->hparams.n_layers),
        .head_bytes = share_of(buffer_bytes(config, rows, w.heads) +
                                   act_bytes(config, rows, w.heads, w.heads_float),
                               w.heads / dim),
        .kv_head_bytes = share_of(2 * buffer_bytes(config, rows, w.kv_heads), w.kv_heads / dim),
        .column_bytes = share_of(
            2 * buffer_bytes(config, rows, w.ff) + act_bytes(config, rows, w.ff, w.ff_float), w.ff),
        .attention_bytes = heads.head_bytes,
        .partial_bytes = heads.row_bytes,
        .partials_bytes = heads.most < SHARD_ROOM_MAX ? heads.most : SHARD_ROOM_MAX,
        .partial_rows = heads.rows,
        .partial_units = heads.units,
        .told_bytes = gang_told_bytes(&limits),
        .logits_bytes = limits.logits_bytes,
        .row_bytes = (uint64_t)s->hparams.n_embd * sizeof(float),
        .track_bytes = gang_track_bytes(&limits, s->hparams.n_layers),
        .rows = rows,
        .piece_rows = gang_piece_most(&in_stages, rows),
    };
    levels_set(config, room, &r);
    r.joint_bytes =
        layers_matrix_bytes(s, config, MODEL_PART_ATTN_OUTPUT, &r.joint_block, &r.joint_tail);
    r.down_bytes = layers_matrix_bytes(s, config, MODEL_PART_FFN_DOWN, &r.down_block, &r.down_tail);
    const uint64_t all = backend_scratch_bytes(s, config) + runtime_shape_host_bytes(s, config, g);

    r.every_bytes = 1; /* known */
    const uint64_t reckoned = shard_rank_held(&r, shape, s->plan->cut, 0, 0, 0).scratch_bytes;
    r.every_bytes += all > reckoned ? all - reckoned : 0;
    *ret_room = r;
}

enum err engine_shape_file(const struct engine_config *given,
                           const struct engine_model_config *model, struct shard_shape *ret_shape,
                           struct shard_room *ret_room, struct errbuf *eb)
{
    struct engine_config config;
    struct runtime_shape shape = {.plan = NULL};
    struct gguf *g = NULL;
    enum err e = runtime_config_complete(given, &config, eb);

    if (e == ERR_OK)
        e = gguf_open_file(&g, model->path, true, eb);
    if (e == ERR_OK)
        e = runtime_shape_read(&shape, &config, model, g, eb);
    if (e == ERR_OK)
        e = shard_plan_shape(ret_shape, &shape.hparams, &shape.tensors, shape.kv_type,
                             shape.n_pages, eb);
    if (e == ERR_OK)
        room_set(&shape, &config, g, ret_shape, ret_room);
    runtime_shape_fini(&shape);
    gguf_close(g);
    return e;
}
