#include "worker/engine/shard_plan.h"

#include "common/check.h"
#include "common/crypto.h"
#include "common/fair_split.h"

#include <stdlib.h>
#include <string.h>

/* Of all costs, each rank holding every KV head, so that no sum passes what fair_split takes. */
#define COSTS_MAX (FAIR_SPLIT_COST_MAX / SHARD_RANKS_MAX)

_Static_assert(SHARD_RANKS_MAX <= FAIR_SPLIT_HOLDERS_MAX, "a stage is cut in one split");
_Static_assert(SUM_GROUPS_MAX <= FAIR_SPLIT_UNITS_MAX && MODEL_LAYERS_MAX <= FAIR_SPLIT_UNITS_MAX,
               "groups and layers are units of a split");

struct planning {
    const struct model_hparams *h;
    const struct model_tensors *t;
    const struct shard_request *request;
    struct shard_plan *plan;
    uint64_t weight[SHARD_RANKS_MAX];
    uint64_t kv_head_bytes; /* of one KV head of one layer in the whole pool */
    uint64_t layer_sum[MODEL_LAYERS_MAX + 1];
    struct errbuf *eb;
};

/* What is cut in one go: units with what they cost, and room for the sums. */
struct part_units {
    struct fair_units units;
    uint64_t sum[SUM_GROUPS_MAX + 1];
};

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

/* ---- what parts cost ---- */

static void attention_units(const struct planning *p, uint32_t layer, struct part_units *ret)
{
    const struct model_layer_hparams *l = &p->h->layer[layer];
    const struct model_parts *parts = &p->t->layers[layer];
    const struct sum_cut cut = backend_cut_attention(l->n_heads, l->n_kv_heads, p->h->head_dim);
    const uint32_t heads = l->n_heads / cut.groups, per_kv = l->n_heads / l->n_kv_heads;
    const uint64_t cols =
        part_size(parts, MODEL_PART_ATTN_Q) + part_size(parts, MODEL_PART_ATTN_OUTPUT);
    const uint64_t kv_head =
        (part_size(parts, MODEL_PART_ATTN_K) + part_size(parts, MODEL_PART_ATTN_V)) /
            l->n_kv_heads +
        p->kv_head_bytes;

    for (uint32_t g = 0; g <= cut.groups; g++)
        ret->sum[g] = cols * g / cut.groups;
    ret->units = (struct fair_units){
        .count = cut.groups,
        .sum = ret->sum,
        .shared_units = heads < per_kv ? per_kv / heads : 1,
        .shared_cost = heads < per_kv ? kv_head : kv_head * (heads / per_kv),
    };
}

static void ffn_units(const struct planning *p, uint32_t layer, struct part_units *ret)
{
    const struct model_parts *parts = &p->t->layers[layer];
    const uint32_t n_ff = p->h->layer[layer].n_ff;
    const struct sum_cut cut = backend_cut_ffn(n_ff);
    const uint64_t all = part_size(parts, MODEL_PART_FFN_GATE) +
                         part_size(parts, MODEL_PART_FFN_UP) +
                         part_size(parts, MODEL_PART_FFN_DOWN);

    for (uint32_t g = 0; g <= cut.groups; g++)
        ret->sum[g] = all * group_col(&cut, g, n_ff) / n_ff;
    ret->units = (struct fair_units){.count = cut.groups, .sum = ret->sum};
}

static uint64_t part_cost(const struct part_units *part)
{
    return fair_cost(&part->units, 0, part->units.count);
}

/* A model's matrices are bounded by its sizes (hparams.h); a pool of pages is not. */
static enum err layers_cost(struct planning *p, enum kv_type kv_type, uint32_t kv_pages)
{
    const struct kv_shape one = {.n_layers = 1,
                                 .n_kv_heads = 1,
                                 .head_dim_k = p->h->head_dim,
                                 .head_dim_v = p->h->head_dim,
                                 .type = kv_type,
                                 .n_pages = kv_pages};
    struct part_units units;

    p->kv_head_bytes = backend_kv_page_bytes(&one) * kv_pages;
    for (uint32_t i = 0; i < p->h->n_layers; i++) {
        attention_units(p, i, &units);
        p->layer_sum[i + 1] = p->layer_sum[i] + part_cost(&units);
        ffn_units(p, i, &units);
        p->layer_sum[i + 1] += part_cost(&units);
        if (p->layer_sum[i + 1] > COSTS_MAX / 2)
            return err_set(p->eb, ERR_TOO_LARGE,
                           "a KV pool of %u pages is more than can be shared out", kv_pages);
    }
    return ERR_OK;
}

static uint64_t embed_size(const struct planning *p)
{
    return p->t->whole.at[MODEL_PART_TOKEN_EMBD]->size;
}

static uint64_t head_size(const struct planning *p)
{
    return p->h->tied_embedding ? embed_size(p) : part_size(&p->t->whole, MODEL_PART_OUTPUT);
}

/* ---- the cuts ---- */

static void cut_stages(struct planning *p)
{
    struct shard_plan *plan = p->plan;
    const uint32_t n_layers = p->h->n_layers;
    const struct fair_units units = {.count = n_layers, .sum = p->layer_sum, .least = 1};
    uint64_t weight[SHARD_RANKS_MAX] = {0};
    uint32_t border[SHARD_RANKS_MAX + 1];
    const struct fair_holders stages = {.count = plan->n_stages, .weight = weight};

    for (uint32_t r = 0; r < plan->n_ranks; r++)
        weight[r / plan->n_shards] += p->weight[r];
    for (uint32_t i = 1; i <= n_layers; i++)
        p->layer_sum[i] += embed_size(p) + (i == n_layers ? head_size(p) : 0);
    fair_split(&units, &stages, border);
    for (uint32_t r = 0; r < plan->n_ranks; r++) {
        uint32_t stage = r / plan->n_shards;
        plan->rank[r].stage = stage;
        plan->rank[r].index = r % plan->n_shards;
        plan->rank[r].layers = (struct shard_run){border[stage], border[stage + 1]};
    }
}

/* Rows of a vocabulary or columns of the residual: units of so many, the last of which may be
 * short. */
static struct shard_run alike_run(const uint32_t *border, uint32_t i, uint32_t unit, uint32_t all)
{
    uint64_t first = (uint64_t)border[i] * unit, end = (uint64_t)border[i + 1] * unit;
    return (struct shard_run){first < all ? (uint32_t)first : all, end < all ? (uint32_t)end : all};
}

static void cut_vocabulary(const struct planning *p, struct shard *shards,
                           const struct fair_holders *holders, uint64_t *had)
{
    const bool first = shards[0].stage == 0, last = shards[0].stage + 1 == p->plan->n_stages;
    const uint32_t vocab = p->h->vocab_size, n_embd = p->h->n_embd;
    uint64_t row_bytes = 0;
    uint32_t border[SHARD_RANKS_MAX + 1], sums[SHARD_RANKS_MAX + 1];

    if (first)
        row_bytes += embed_size(p) / vocab;
    if (last && !(first && p->h->tied_embedding))
        row_bytes += head_size(p) / vocab;
    fair_split_alike((vocab + SHARD_VOCAB_ROWS - 1) / SHARD_VOCAB_ROWS, holders, border);
    fair_split_alike((n_embd + SUM_BLOCK_ITEMS - 1) / SUM_BLOCK_ITEMS, holders, sums);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_run rows = alike_run(border, i, SHARD_VOCAB_ROWS, vocab);
        if (first)
            shards[i].embed = rows;
        if (last)
            shards[i].head = rows;
        shards[i].embd = alike_run(sums, i, SUM_BLOCK_ITEMS, n_embd);
        had[i] += row_bytes * shard_run_count(rows);
    }
}

static void had_add(const struct part_units *part, const struct fair_holders *holders,
                    const uint32_t *border, uint64_t *had)
{
    for (uint32_t i = 0; i < holders->count; i++)
        had[i] += fair_cost(&part->units, border[i], border[i + 1]);
}

static void cut_attention(const struct planning *p, uint32_t layer, struct shard *shards,
                          const struct fair_holders *holders, uint64_t *had)
{
    const struct model_layer_hparams *l = &p->h->layer[layer];
    const struct sum_cut cut = backend_cut_attention(l->n_heads, l->n_kv_heads, p->h->head_dim);
    const uint32_t heads = l->n_heads / cut.groups, per_kv = l->n_heads / l->n_kv_heads;
    struct part_units part;
    uint32_t border[SHARD_RANKS_MAX + 1];

    attention_units(p, layer, &part);
    fair_split(&part.units, holders, border);
    had_add(&part, holders, border, had);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_layer *s = &shards[i].layer[layer];
        s->attention = cut;
        s->attention.first = border[i];
        s->attention.end = border[i + 1];
        s->heads = (struct shard_run){border[i] * heads, border[i + 1] * heads};
        s->kv_heads.first = s->heads.first / per_kv;
        s->kv_heads.end = s->heads.end == s->heads.first ? s->kv_heads.first
                                                         : (s->heads.end + per_kv - 1) / per_kv;
    }
}

static void cut_ffn(const struct planning *p, uint32_t layer, struct shard *shards,
                    const struct fair_holders *holders, uint64_t *had)
{
    const uint32_t n_ff = p->h->layer[layer].n_ff;
    const struct sum_cut cut = backend_cut_ffn(n_ff);
    struct part_units part;
    uint32_t border[SHARD_RANKS_MAX + 1];

    ffn_units(p, layer, &part);
    fair_split(&part.units, holders, border);
    had_add(&part, holders, border, had);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_layer *s = &shards[i].layer[layer];
        s->ffn = cut;
        s->ffn.first = border[i];
        s->ffn.end = border[i + 1];
        s->ff = (struct shard_run){group_col(&cut, border[i], n_ff),
                                   group_col(&cut, border[i + 1], n_ff)};
    }
}

static void cut_shards(const struct planning *p, uint32_t stage)
{
    const uint32_t n = p->plan->n_shards;
    struct shard *shards = &p->plan->rank[stage * n];
    uint64_t had[SHARD_RANKS_MAX] = {0};
    const struct fair_holders holders = {.count = n, .weight = &p->weight[stage * n], .had = had};

    cut_vocabulary(p, shards, &holders, had);
    for (uint32_t i = shards[0].layers.first; i < shards[0].layers.end; i++) {
        cut_attention(p, i, shards, &holders, had);
        cut_ffn(p, i, shards, &holders, had);
    }
}

/* ---- the whole ---- */

static void hash_numbers(struct sha256_stream *s, const uint32_t *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t v = numbers[i];
        uint8_t bytes[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
        sha256_update(s, bytes, sizeof bytes);
    }
}

/* Canonical: numbers of 32 bits, the lowest byte first; counts, then of each rank its runs, then
 * those of its layers. */
static void plan_digest(struct shard_plan *plan)
{
    const uint32_t counts[] = {plan->n_shards, plan->n_stages, plan->n_layers};
    struct sha256_stream *s = sha256_new();

    hash_numbers(s, counts, sizeof counts / sizeof counts[0]);
    for (uint32_t r = 0; r < plan->n_ranks; r++) {
        const struct shard *k = &plan->rank[r];
        const uint32_t runs[] = {k->layers.first, k->layers.end, k->embed.first, k->embed.end,
                                 k->head.first,   k->head.end,   k->embd.first,  k->embd.end};
        hash_numbers(s, runs, sizeof runs / sizeof runs[0]);
        for (uint32_t i = k->layers.first; i < k->layers.end; i++) {
            const struct shard_layer *l = &k->layer[i];
            const uint32_t cuts[] = {l->attention.groups, l->attention.first, l->attention.end,
                                     l->heads.first,      l->heads.end,       l->kv_heads.first,
                                     l->kv_heads.end,     l->ffn.groups,      l->ffn.first,
                                     l->ffn.end,          l->ff.first,        l->ff.end};
            hash_numbers(s, cuts, sizeof cuts / sizeof cuts[0]);
        }
    }
    sha256_finish(s, plan->digest);
}

static enum err weights_read(struct planning *p, uint32_t n_shards, uint32_t n_ranks)
{
    const struct shard_request *request = p->request;

    if (request->n_weights != 0 && request->n_weights != n_ranks)
        return err_set(p->eb, ERR_INVALID, "%u weights for %u shards", request->n_weights, n_ranks);
    for (uint32_t r = 0; r < n_ranks; r++) {
        p->weight[r] = request->n_weights == 0 ? 1 : request->weights[r];
        if (p->weight[r] > FAIR_SPLIT_WEIGHT_MAX)
            return err_set(p->eb, ERR_INVALID, "a weight of %llu; at most %llu are allowed",
                           (unsigned long long)p->weight[r],
                           (unsigned long long)FAIR_SPLIT_WEIGHT_MAX);
    }
    for (uint32_t r = 0; r < n_ranks; r += n_shards) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < n_shards; i++)
            sum += p->weight[r + i];
        if (sum == 0 && n_ranks > n_shards)
            return err_set(p->eb, ERR_INVALID, "all weights of stage %u are 0", r / n_shards);
        if (sum == 0)
            return err_set(p->eb, ERR_INVALID, "all weights are 0");
    }
    return ERR_OK;
}

static enum err request_read(struct planning *p, uint32_t *ret_shards, uint32_t *ret_stages)
{
    const uint32_t shards = p->request->shards;
    const uint32_t stages = p->request->stages == 0 ? 1 : p->request->stages;

    if (shards == 0 || shards > SHARD_RANKS_MAX)
        return err_set(p->eb, ERR_INVALID, "%u shards; 1 to %u are allowed", shards,
                       SHARD_RANKS_MAX);
    if (stages > SHARD_RANKS_MAX / shards)
        return err_set(p->eb, ERR_INVALID, "%u stages of %u shards; %u ranks are the most", stages,
                       shards, SHARD_RANKS_MAX);
    if (stages > p->h->n_layers)
        return err_set(p->eb, ERR_INVALID, "%u stages for %u layers", stages, p->h->n_layers);
    *ret_shards = shards;
    *ret_stages = stages;
    return weights_read(p, shards, shards * stages);
}

static struct shard_plan *plan_alloc(uint32_t n_shards, uint32_t n_stages, uint32_t n_layers)
{
    const uint32_t n_ranks = n_shards * n_stages;
    struct shard_plan *plan = calloc(1, sizeof *plan);
    struct shard *ranks = calloc(n_ranks, sizeof *ranks);
    struct shard_layer *layers = calloc((size_t)n_ranks * n_layers, sizeof *layers);

    if (plan == NULL || ranks == NULL || layers == NULL) {
        free(plan);
        free(ranks);
        free(layers);
        return NULL;
    }
    for (uint32_t r = 0; r < n_ranks; r++)
        ranks[r].layer = layers + (size_t)r * n_layers;
    *plan = (struct shard_plan){.n_shards = n_shards,
                                .n_stages = n_stages,
                                .n_ranks = n_ranks,
                                .n_layers = n_layers,
                                .rank = ranks};
    return plan;
}

enum err shard_plan_new(struct shard_plan **ret_plan, const struct model_hparams *h,
                        const struct model_tensors *t, const struct shard_request *request,
                        enum kv_type kv_type, uint32_t kv_pages, struct errbuf *eb)
{
    struct planning p = {.h = h, .t = t, .request = request, .eb = eb};
    uint32_t shards = 1, stages = 1;
    enum err e = request_read(&p, &shards, &stages);

    if (e == ERR_OK)
        e = layers_cost(&p, kv_type, kv_pages);
    if (e != ERR_OK)
        return e;
    p.plan = plan_alloc(shards, stages, h->n_layers);
    if (p.plan == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a plan of %u shards", shards * stages);
    cut_stages(&p);
    for (uint32_t i = 0; i < stages; i++)
        cut_shards(&p, i);
    plan_digest(p.plan);
    *ret_plan = p.plan;
    return ERR_OK;
}

void shard_plan_free(struct shard_plan *plan)
{
    if (plan == NULL)
        return;
    free(plan->rank[0].layer);
    free(plan->rank);
    free(plan);
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
static struct shard_slice whole_slice(const struct shard_plan *plan, const struct shard *s,
                                      const struct model_hparams *h, enum model_part part,
                                      const struct gguf_tensor *t)
{
    const bool last = s->stage + 1 == plan->n_stages, matrix = model_part_is_matrix(part);

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

struct shard_slice shard_slice(const struct shard_plan *plan, const struct shard *s,
                               const struct model_hparams *h, uint32_t layer, enum model_part part,
                               const struct gguf_tensor *t)
{
    const bool matrix = model_part_is_matrix(part);

    if (part < MODEL_PART_ATTN_NORM)
        return whole_slice(plan, s, h, part, t);
    CHECK(layer < plan->n_layers);
    const struct shard_layer *l = &s->layer[layer];
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
        return columns_slice(t, &l->attention, shard_run_count(l->heads) * h->head_dim);
    case MODEL_PART_FFN_GATE:
    case MODEL_PART_FFN_GATE_BIAS:
    case MODEL_PART_FFN_UP:
    case MODEL_PART_FFN_UP_BIAS:
        return run_slice(t, matrix, l->ff, 1);
    case MODEL_PART_FFN_DOWN:
        return columns_slice(t, &l->ffn, shard_run_count(l->ff));
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

static uint32_t max_u32(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

struct shard_nodes shard_nodes(const struct shard_plan *plan, const struct shard *s)
{
    const struct shard *stage = &plan->rank[s->stage * plan->n_shards];
    struct shard_nodes most = {0, 0};

    for (uint32_t i = s->layers.first; i < s->layers.end; i++) {
        uint32_t attention = 0, ffn = 0;
        for (uint32_t k = 0; k < plan->n_shards; k++) {
            attention += nodes_of(&stage[k].layer[i].attention);
            ffn += nodes_of(&stage[k].layer[i].ffn);
        }
        most.own = max_u32(most.own,
                           max_u32(nodes_of(&s->layer[i].attention), nodes_of(&s->layer[i].ffn)));
        most.all = max_u32(most.all, max_u32(attention, ffn));
    }
    return most;
}
