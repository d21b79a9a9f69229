#include "common/shard_cut.h"

#include "common/crypto.h"
#include "common/fair_split.h"

#include <stdlib.h>

_Static_assert(SHARD_RANKS_MAX <= FAIR_SPLIT_HOLDERS_MAX, "a stage is cut in one split");
_Static_assert(SHARD_GROUPS_MAX <= FAIR_SPLIT_UNITS_MAX && SHARD_LAYERS_MAX <= FAIR_SPLIT_UNITS_MAX,
               "groups and layers are units of a split");

/* Of all costs, each rank holding every KV head, so that no sum passes what fair_split takes. */
#define COSTS_MAX (FAIR_SPLIT_COST_MAX / SHARD_RANKS_MAX)

struct cutting {
    const struct shard_shape *shape;
    const struct shard_request *request;
    struct shard_cut *cut;
    uint64_t weight[SHARD_RANKS_MAX];
    uint64_t layer_sum[SHARD_LAYERS_MAX + 1];
    struct errbuf *eb;
};

/* What is cut in one go: units with what they cost, and room for the sums. */
struct part_units {
    struct fair_units units;
    uint64_t sum[SHARD_GROUPS_MAX + 1];
};

/* ---- what parts cost ---- */

static const struct shard_kind *kind_at(const struct shard_shape *shape, uint32_t layer)
{
    return &shape->kind[shape->kind_of[layer]];
}

static void attention_units(const struct shard_shape *shape, const struct shard_kind *k,
                            struct part_units *ret)
{
    const uint32_t heads = k->n_heads / k->n_groups, per_kv = k->n_heads / k->n_kv_heads;
    const uint64_t kv_head = k->k_bytes / k->n_kv_heads + shape->kv_head_bytes;

    for (uint32_t g = 0; g <= k->n_groups; g++)
        ret->sum[g] = k->q_bytes * g / k->n_groups;
    ret->units = (struct fair_units){
        .count = k->n_groups,
        .sum = ret->sum,
        .shared_units = heads < per_kv ? per_kv / heads : 1,
        .shared_cost = heads < per_kv ? kv_head : kv_head * (heads / per_kv),
    };
}

static uint32_t ff_before(const struct shard_kind *k, uint32_t group)
{
    return group == 0 ? 0 : k->ff_end[group - 1];
}

static void ffn_units(const struct shard_kind *k, struct part_units *ret)
{
    const uint32_t n_ff = k->ff_end[k->n_ffn_groups - 1];

    for (uint32_t g = 0; g <= k->n_ffn_groups; g++)
        ret->sum[g] = k->ff_bytes * ff_before(k, g) / n_ff;
    ret->units = (struct fair_units){.count = k->n_ffn_groups, .sum = ret->sum};
}

static uint64_t part_cost(const struct part_units *part)
{
    return fair_cost(&part->units, 0, part->units.count);
}

static enum err layers_cost(struct cutting *c)
{
    struct part_units units;

    for (uint32_t i = 0; i < c->shape->n_layers; i++) {
        attention_units(c->shape, kind_at(c->shape, i), &units);
        c->layer_sum[i + 1] = c->layer_sum[i] + part_cost(&units);
        ffn_units(kind_at(c->shape, i), &units);
        c->layer_sum[i + 1] += part_cost(&units);
        if (c->layer_sum[i + 1] > COSTS_MAX / 2)
            return err_set(c->eb, ERR_TOO_LARGE,
                           "weights and KV pool of %llu bytes and more cannot be shared out",
                           (unsigned long long)(COSTS_MAX / 2));
    }
    return ERR_OK;
}

/* ---- the cuts ---- */

static void cut_stages(struct cutting *c)
{
    struct shard_cut *cut = c->cut;
    const uint32_t n_layers = c->shape->n_layers;
    const struct fair_units units = {.count = n_layers, .sum = c->layer_sum, .least = 1};
    uint64_t weight[SHARD_RANKS_MAX] = {0};
    uint32_t border[SHARD_RANKS_MAX + 1];
    const struct fair_holders stages = {.count = cut->n_stages, .weight = weight};

    for (uint32_t r = 0; r < cut->n_ranks; r++)
        weight[r / cut->n_shards] += c->weight[r];
    for (uint32_t i = 1; i <= n_layers; i++)
        c->layer_sum[i] += c->shape->embed_bytes + (i == n_layers ? c->shape->head_bytes : 0);
    fair_split(&units, &stages, border);
    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        uint32_t stage = r / cut->n_shards;
        cut->rank[r].stage = stage;
        cut->rank[r].index = r % cut->n_shards;
        cut->rank[r].layers = (struct shard_run){border[stage], border[stage + 1]};
    }
}

/* Rows of a vocabulary, the last unit of which may be short. */
static struct shard_run vocab_run(const uint32_t *border, uint32_t i, uint32_t all)
{
    uint64_t first = (uint64_t)border[i] * SHARD_VOCAB_ROWS;
    uint64_t end = (uint64_t)border[i + 1] * SHARD_VOCAB_ROWS;
    return (struct shard_run){first < all ? (uint32_t)first : all, end < all ? (uint32_t)end : all};
}

static void cut_vocabulary(const struct cutting *c, struct shard_rank_cut *ranks,
                           const struct fair_holders *holders, uint64_t *had)
{
    const struct shard_shape *shape = c->shape;
    const bool first = ranks[0].stage == 0, last = ranks[0].stage + 1 == c->cut->n_stages;
    uint64_t row_bytes = 0;
    uint32_t border[SHARD_RANKS_MAX + 1];

    if (first)
        row_bytes += shape->embed_bytes / shape->vocab;
    if (last && !(first && shape->tied))
        row_bytes += shape->head_bytes / shape->vocab;
    fair_split_alike((shape->vocab + SHARD_VOCAB_ROWS - 1) / SHARD_VOCAB_ROWS, holders, border);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_run rows = vocab_run(border, i, shape->vocab);
        if (first)
            ranks[i].embed = rows;
        if (last)
            ranks[i].head = rows;
        had[i] += row_bytes * shard_run_count(rows);
    }
}

static void had_add(const struct part_units *part, const struct fair_holders *holders,
                    const uint32_t *border, uint64_t *had)
{
    for (uint32_t i = 0; i < holders->count; i++)
        had[i] += fair_cost(&part->units, border[i], border[i + 1]);
}

static void cut_attention(const struct cutting *c, uint32_t layer, struct shard_rank_cut *ranks,
                          const struct fair_holders *holders, uint64_t *had)
{
    const struct shard_kind *k = kind_at(c->shape, layer);
    const uint32_t heads = k->n_heads / k->n_groups, per_kv = k->n_heads / k->n_kv_heads;
    struct part_units part;
    uint32_t border[SHARD_RANKS_MAX + 1];

    attention_units(c->shape, k, &part);
    fair_split(&part.units, holders, border);
    had_add(&part, holders, border, had);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_layer_cut *l = &ranks[i].layer[layer];
        l->groups = (struct shard_run){border[i], border[i + 1]};
        l->heads = (struct shard_run){border[i] * heads, border[i + 1] * heads};
        l->kv_heads.first = l->heads.first / per_kv;
        l->kv_heads.end = l->heads.end == l->heads.first ? l->kv_heads.first
                                                         : (l->heads.end + per_kv - 1) / per_kv;
    }
}

static void cut_ffn(const struct cutting *c, uint32_t layer, struct shard_rank_cut *ranks,
                    const struct fair_holders *holders, uint64_t *had)
{
    const struct shard_kind *k = kind_at(c->shape, layer);
    struct part_units part;
    uint32_t border[SHARD_RANKS_MAX + 1];

    ffn_units(k, &part);
    fair_split(&part.units, holders, border);
    had_add(&part, holders, border, had);
    for (uint32_t i = 0; i < holders->count; i++) {
        struct shard_layer_cut *l = &ranks[i].layer[layer];
        l->ffn_groups = (struct shard_run){border[i], border[i + 1]};
        l->ff = (struct shard_run){ff_before(k, border[i]), ff_before(k, border[i + 1])};
    }
}

static void cut_shards(const struct cutting *c, uint32_t stage)
{
    const uint32_t n = c->cut->n_shards;
    struct shard_rank_cut *ranks = &c->cut->rank[stage * n];
    uint64_t had[SHARD_RANKS_MAX] = {0};
    const struct fair_holders holders = {.count = n, .weight = &c->weight[stage * n], .had = had};

    cut_vocabulary(c, ranks, &holders, had);
    for (uint32_t i = ranks[0].layers.first; i < ranks[0].layers.end; i++) {
        cut_attention(c, i, ranks, &holders, had);
        cut_ffn(c, i, ranks, &holders, had);
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
static void cut_digest(const struct shard_shape *shape, struct shard_cut *cut)
{
    const uint32_t counts[] = {cut->n_shards, cut->n_stages, cut->n_layers};
    struct sha256_stream *s = sha256_new();

    hash_numbers(s, counts, sizeof counts / sizeof counts[0]);
    for (uint32_t r = 0; r < cut->n_ranks; r++) {
        const struct shard_rank_cut *k = &cut->rank[r];
        const uint32_t runs[] = {k->layers.first, k->layers.end, k->embed.first,
                                 k->embed.end,    k->head.first, k->head.end};
        hash_numbers(s, runs, sizeof runs / sizeof runs[0]);
        for (uint32_t i = k->layers.first; i < k->layers.end; i++) {
            const struct shard_layer_cut *l = &k->layer[i];
            const struct shard_kind *kind = kind_at(shape, i);
            const uint32_t cuts[] = {kind->n_groups,    l->groups.first,    l->groups.end,
                                     l->heads.first,    l->heads.end,       l->kv_heads.first,
                                     l->kv_heads.end,   kind->n_ffn_groups, l->ffn_groups.first,
                                     l->ffn_groups.end, l->ff.first,        l->ff.end};
            hash_numbers(s, cuts, sizeof cuts / sizeof cuts[0]);
        }
    }
    sha256_finish(s, cut->digest);
}

static enum err weights_read(struct cutting *c, uint32_t n_shards, uint32_t n_ranks)
{
    const struct shard_request *request = c->request;

    if (request->n_weights != 0 && request->n_weights != n_ranks)
        return err_set(c->eb, ERR_INVALID, "%u weights for %u shards", request->n_weights, n_ranks);
    for (uint32_t r = 0; r < n_ranks; r++) {
        c->weight[r] = request->n_weights == 0 ? 1 : request->weights[r];
        if (c->weight[r] > FAIR_SPLIT_WEIGHT_MAX)
            return err_set(c->eb, ERR_INVALID, "a weight of %llu; at most %llu are allowed",
                           (unsigned long long)c->weight[r],
                           (unsigned long long)FAIR_SPLIT_WEIGHT_MAX);
    }
    for (uint32_t r = 0; r < n_ranks; r += n_shards) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < n_shards; i++)
            sum += c->weight[r + i];
        if (sum == 0 && n_ranks > n_shards)
            return err_set(c->eb, ERR_INVALID, "all weights of stage %u are 0", r / n_shards);
        if (sum == 0)
            return err_set(c->eb, ERR_INVALID, "all weights are 0");
    }
    return ERR_OK;
}

static enum err request_read(struct cutting *c, uint32_t *ret_shards, uint32_t *ret_stages)
{
    const uint32_t shards = c->request->shards;
    const uint32_t stages = c->request->stages == 0 ? 1 : c->request->stages;

    if (shards == 0 || shards > SHARD_RANKS_MAX)
        return err_set(c->eb, ERR_INVALID, "%u shards; 1 to %u are allowed", shards,
                       SHARD_RANKS_MAX);
    if (stages > SHARD_RANKS_MAX / shards)
        return err_set(c->eb, ERR_INVALID, "%u stages of %u shards; %u ranks are the most", stages,
                       shards, SHARD_RANKS_MAX);
    if (stages > c->shape->n_layers)
        return err_set(c->eb, ERR_INVALID, "%u stages for %u layers", stages, c->shape->n_layers);
    *ret_shards = shards;
    *ret_stages = stages;
    return weights_read(c, shards, shards * stages);
}

enum err shard_cut_new(struct shard_cut **ret_cut, const struct shard_shape *shape,
                       const struct shard_request *request, struct errbuf *eb)
{
    struct cutting c = {.shape = shape, .request = request, .eb = eb};
    uint32_t shards = 1, stages = 1;
    enum err e = request_read(&c, &shards, &stages);

    if (e == ERR_OK)
        e = layers_cost(&c);
    if (e != ERR_OK)
        return e;
    const uint32_t n_ranks = shards * stages;
    c.cut = calloc(1, sizeof *c.cut);
    struct shard_layer_cut *layers = calloc((size_t)n_ranks * shape->n_layers, sizeof *layers);
    if (c.cut == NULL || layers == NULL) {
        free(c.cut);
        free(layers);
        return err_set(eb, ERR_NO_MEMORY, "no memory for a plan of %u shards", n_ranks);
    }
    *c.cut = (struct shard_cut){.n_shards = shards,
                                .n_stages = stages,
                                .n_ranks = n_ranks,
                                .n_layers = shape->n_layers,
                                .layers = layers};
    for (uint32_t r = 0; r < n_ranks; r++)
        c.cut->rank[r].layer = layers + (size_t)r * shape->n_layers;
    cut_stages(&c);
    for (uint32_t i = 0; i < stages; i++)
        cut_shards(&c, i);
    cut_digest(shape, c.cut);
    *ret_cut = c.cut;
    return ERR_OK;
}

void shard_cut_free(struct shard_cut *cut)
{
    if (cut == NULL)
        return;
    free(cut->layers);
    free(cut);
}

uint64_t shard_cut_work(const struct shard_shape *shape, uint32_t shards, uint32_t stages)
{
    const uint64_t n_layers = shape->n_layers;
    uint64_t pairs = 0; /* of borders between which a shard may be */

    for (uint32_t i = 0; i < shape->n_layers; i++) {
        const struct shard_kind *k = kind_at(shape, i);
        pairs += (uint64_t)k->n_groups * k->n_groups + (uint64_t)k->n_ffn_groups * k->n_ffn_groups;
    }
    return pairs * shards + (stages > 1 ? n_layers * n_layers * stages : 0);
}

/* ---- bytes ---- */

uint64_t shard_in_proportion(uint64_t bytes, uint64_t part, uint64_t whole)
{
    return whole == 0 ? 0 : (uint64_t)((unsigned __int128)bytes * part / whole);
}

uint64_t shard_shape_weights(const struct shard_shape *shape)
{
    uint64_t bytes = shape->embed_bytes + (shape->tied ? 0 : shape->head_bytes);

    for (uint32_t i = 0; i < shape->n_layers; i++) {
        const struct shard_kind *k = kind_at(shape, i);
        bytes += k->q_bytes + k->k_bytes + k->ff_bytes;
    }
    return bytes;
}

uint64_t shard_shape_kv(const struct shard_shape *shape)
{
    uint64_t heads = 0;

    for (uint32_t i = 0; i < shape->n_layers; i++)
        heads += kind_at(shape, i)->n_kv_heads;
    return heads * shape->kv_head_bytes;
}

uint64_t shard_cut_weights(const struct shard_shape *shape, const struct shard_cut *cut,
                           uint32_t rank)
{
    const struct shard_rank_cut *r = &cut->rank[rank];
    const bool once = shape->tied && cut->n_stages == 1;
    uint64_t bytes = shape->embed_bytes / shape->vocab * shard_run_count(r->embed);

    if (!once)
        bytes += shape->head_bytes / shape->vocab * shard_run_count(r->head);
    for (uint32_t i = r->layers.first; i < r->layers.end; i++) {
        const struct shard_kind *k = kind_at(shape, i);
        const struct shard_layer_cut *l = &r->layer[i];
        bytes += k->q_bytes / k->n_heads * shard_run_count(l->heads) +
                 k->k_bytes / k->n_kv_heads * shard_run_count(l->kv_heads) +
                 k->ff_bytes * shard_run_count(l->ff) / k->ff_end[k->n_ffn_groups - 1];
    }
    return bytes;
}

uint64_t shard_cut_kv(const struct shard_shape *shape, const struct shard_cut *cut, uint32_t rank)
{
    const struct shard_rank_cut *r = &cut->rank[rank];
    uint64_t heads = 0;

    for (uint32_t i = r->layers.first; i < r->layers.end; i++)
        heads += shard_run_count(r->layer[i].kv_heads);
    return heads * shape->kv_head_bytes;
}
