#include "worker/engine/shard_plan.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(SUM_GROUPS_MAX == SHARD_GROUPS_MAX && MODEL_LAYERS_MAX == SHARD_LAYERS_MAX,
               "a shape holds any model");

static uint64_t part_size(const struct model_parts *parts, enum model_part part)
{
    return parts->at[part] == NULL ? 0 : parts->at[part]->size;
}

/* Columns before group g of a matrix. */
static uint32_t group_col(const struct sum_cut *cut, uint32_t g, uint32_t cols)
{
    uint32_t col = sum_group_begin(cut, g) * SUM_BLOCK_ITEMS;
    return col < cols ? col : cols;
}

static struct sum_cut attention_cut(const struct model_hparams *h, uint32_t layer)
{
    const struct model_layer_hparams *l = &h->layer[layer];
    return backend_cut_attention(l->n_heads, l->n_kv_heads, h->head_dim);
}

static void kind_set(struct shard_kind *k, const struct model_hparams *h,
                     const struct model_parts *parts, uint32_t layer)
{
    const struct model_layer_hparams *l = &h->layer[layer];
    const struct sum_cut ffn = backend_cut_ffn(l->n_ff);

    k->n_heads = l->n_heads;
    k->n_kv_heads = l->n_kv_heads;
    k->n_groups = attention_cut(h, layer).groups;
    k->q_bytes = part_size(parts, MODEL_PART_ATTN_Q) + part_size(parts, MODEL_PART_ATTN_OUTPUT);
    k->k_bytes = part_size(parts, MODEL_PART_ATTN_K) + part_size(parts, MODEL_PART_ATTN_V);
    k->n_ffn_groups = ffn.groups;
    for (uint32_t g = 0; g < ffn.groups; g++)
        k->ff_end[g] = group_col(&ffn, g + 1, l->n_ff);
    k->ff_bytes = part_size(parts, MODEL_PART_FFN_GATE) + part_size(parts, MODEL_PART_FFN_UP) +
                  part_size(parts, MODEL_PART_FFN_DOWN);
}

enum err shard_plan_shape(struct shard_shape *ret_shape, const struct model_hparams *h,
                          const struct model_tensors *t, enum kv_type kv_type, uint32_t kv_pages,
                          struct errbuf *eb)
{
    const struct kv_shape one = {.n_layers = 1,
                                 .n_kv_heads = 1,
                                 .head_dim_k = h->head_dim,
                                 .head_dim_v = h->head_dim,
                                 .type = kv_type,
                                 .n_pages = kv_pages};
    struct shard_shape s;
    enum err e = shard_shape_init(&s, h->n_layers, eb);

    if (e != ERR_OK)
        return e;
    s.vocab = h->vocab_size;
    s.tied = h->tied_embedding;
    s.embed_bytes = part_size(&t->whole, MODEL_PART_TOKEN_EMBD);
    s.head_bytes = s.tied ? s.embed_bytes : part_size(&t->whole, MODEL_PART_OUTPUT);
    s.kv_head_bytes = backend_kv_page_bytes(&one) * kv_pages;
    for (uint32_t i = 0; i < h->n_layers; i++)
        kind_set(&s.kind[i], h, &t->layers[i], i);
    shard_shape_join(&s);
    *ret_shape = s;
    return ERR_OK;
}

/* The cut, with what the kernels want to know of it. */
static enum err plan_set(struct shard_plan *plan, const struct model_hparams *h, struct errbuf *eb)
{
    plan->sums = calloc(h->n_layers, sizeof *plan->sums);
    if (plan->sums == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a plan of %u layers", h->n_layers);
    for (uint32_t i = 0; i < h->n_layers; i++)
        plan->sums[i] = (struct shard_sums){.attention = attention_cut(h, i),
                                            .ffn = backend_cut_ffn(h->layer[i].n_ff)};
    return ERR_OK;
}

enum err shard_plan_new(struct shard_plan **ret_plan, const struct model_hparams *h,
                        const struct model_tensors *t, const struct shard_request *request,
                        enum kv_type kv_type, uint32_t kv_pages, struct errbuf *eb)
{
    struct shard_shape shape;
    struct shard_plan *plan = NULL;
    enum err e = shard_plan_shape(&shape, h, t, kv_type, kv_pages, eb);

    if (e != ERR_OK)
        return e;
    plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        e = err_set(eb, ERR_NO_MEMORY, "no memory for a plan");
    if (e == ERR_OK)
        e = shard_cut_new(&plan->cut, &shape, request, eb);
    if (e == ERR_OK)
        e = plan_set(plan, h, eb);
    shard_shape_fini(&shape);
    if (e != ERR_OK) {
        shard_plan_free(plan);
        return e;
    }
    *ret_plan = plan;
    return ERR_OK;
}

void shard_plan_free(struct shard_plan *plan)
{
    if (plan == NULL)
        return;
    shard_cut_free(plan->cut);
    free(plan->sums);
    free(plan);
}

struct shard_sums shard_sums(const struct shard_plan *plan, const struct shard_rank_cut *s,
                             uint32_t layer)
{
    struct shard_sums sums = plan->sums[layer];

    sums.attention.first = s->layer[layer].groups.first;
    sums.attention.end = s->layer[layer].groups.end;
    sums.ffn.first = s->layer[layer].ffn_groups.first;
    sums.ffn.end = s->layer[layer].ffn_groups.end;
    return sums;
}

/* ---- what a rank holds of a tensor ---- */

static struct shard_slice rows_slice(const struct gguf_tensor *t, bool matrix, uint32_t row,
                                     uint32_t rows)
{
    struct shard_slice slice = {.row = row, .rows = rows, .cols = 1};

    if (matrix) {
        slice.cols = (uint32_t)t->dims[0];
        slice.cut = sum_cut_whole(slice.cols, 1, 1);
    }
    return slice;
}

static struct shard_slice run_slice(const struct gguf_tensor *t, bool matrix, struct shard_run run,
                                    uint32_t unit)
{
    return rows_slice(t, matrix, run.first * unit, shard_run_count(run) * unit);
}

static struct shard_slice columns_slice(const struct gguf_tensor *t, const struct sum_cut *cut,
                                        uint32_t cols)
{
    return (struct shard_slice){
        .rows = cols == 0 ? 0 : (uint32_t)t->dims[1], .cols = cols, .cut = *cut};
}

/* Once in a model. */
static struct shard_slice whole_slice(const struct shard_plan *plan, const struct shard_rank_cut *s,
                                      const struct model_hparams *h, enum model_part part,
                                      const struct gguf_tensor *t)
{
    const bool last = s->stage + 1 == plan->cut->n_stages, matrix = model_part_is_matrix(part);

    switch (part) {
    case MODEL_PART_TOKEN_EMBD:
        return run_slice(t, matrix, last && h->tied_embedding ? s->head : s->embed, 1);
    case MODEL_PART_OUTPUT:
    case MODEL_PART_OUTPUT_BIAS:
        return run_slice(t, matrix, s->head, 1);
    case MODEL_PART_OUTPUT_NORM:
        return rows_slice(t, matrix, 0, last ? (uint32_t)t->dims[0] : 0);
    default: /* of the angles, which all ranks turn by */
        return rows_slice(t, matrix, 0, (uint32_t)t->dims[0]);
    }
}

struct shard_slice shard_slice(const struct shard_plan *plan, const struct shard_rank_cut *s,
                               const struct model_hparams *h, uint32_t layer, enum model_part part,
                               const struct gguf_tensor *t)
{
    const bool matrix = model_part_is_matrix(part);

    if (part < MODEL_PART_ATTN_NORM)
        return whole_slice(plan, s, h, part, t);
    CHECK(layer < plan->cut->n_layers);
    const struct shard_layer_cut *l = &s->layer[layer];
    const struct shard_sums sums = shard_sums(plan, s, layer);
    switch (part) {
    case MODEL_PART_ATTN_Q:
    case MODEL_PART_ATTN_Q_BIAS:
        return run_slice(t, matrix, l->heads, h->head_dim);
    case MODEL_PART_ATTN_K:
    case MODEL_PART_ATTN_K_BIAS:
    case MODEL_PART_ATTN_V:
    case MODEL_PART_ATTN_V_BIAS:
        return run_slice(t, matrix, l->kv_heads, h->head_dim);
    case MODEL_PART_ATTN_OUTPUT:
        return columns_slice(t, &sums.attention, shard_run_count(l->heads) * h->head_dim);
    case MODEL_PART_FFN_GATE:
    case MODEL_PART_FFN_GATE_BIAS:
    case MODEL_PART_FFN_UP:
    case MODEL_PART_FFN_UP_BIAS:
        return run_slice(t, matrix, l->ff, 1);
    case MODEL_PART_FFN_DOWN:
        return columns_slice(t, &sums.ffn, shard_run_count(l->ff));
    default:
        CHECK(!matrix);
        return rows_slice(t, false, 0,
                          layer >= s->layers.first && layer < s->layers.end ? (uint32_t)t->dims[0]
                                                                            : 0);
    }
}

/* ---- sums to exchange ---- */

static uint32_t nodes_of(const struct sum_cut *cut)
{
    struct sum_node nodes[SUM_NODES_MAX];
    return cut->end == cut->first ? 0 : sum_nodes(cut, nodes);
}

struct shard_nodes shard_nodes(const struct shard_plan *plan, const struct shard_rank_cut *s)
{
    const struct shard_rank_cut *stage = &plan->cut->rank[s->stage * plan->cut->n_shards];
    struct shard_nodes most = {0, 0};

    for (uint32_t i = s->layers.first; i < s->layers.end; i++) {
        const struct shard_sums own = shard_sums(plan, s, i);
        uint32_t attention = 0, ffn = 0;
        for (uint32_t k = 0; k < plan->cut->n_shards; k++) {
            const struct shard_sums sums = shard_sums(plan, &stage[k], i);
            attention += nodes_of(&sums.attention);
            ffn += nodes_of(&sums.ffn);
        }
        most.own =
            shard_larger(most.own, shard_larger(nodes_of(&own.attention), nodes_of(&own.ffn)));
        most.all = shard_larger(most.all, shard_larger(attention, ffn));
    }
    return most;
}
