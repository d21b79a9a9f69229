/* Who holds what, of the shapes of real models and some odd ones, on 1 to 16 shards. */
#include "worker/engine/shard_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PAGES 1024u /* of the pool: 4 contexts of 8,192 tokens */

/* ---- models, as far as a plan looks at them ----------------------------------------------- */

struct shape {
    const char *name;
    uint32_t layers, embd, heads, kv_heads, head_dim, ff, vocab;
    bool tied;
    enum quant_type type, down_type;
    bool odd_layers; /* every second layer has half the query heads, one KV head, half the ffn */
};

static const struct shape shapes[] = {
    {"SmolLM2 135M", 30, 576, 9, 3, 64, 1536, 49152, true, QUANT_TYPE_Q4_1, QUANT_TYPE_Q4_1, 0},
    {"Gemma 3 270M", 18, 640, 4, 1, 256, 2048, 262144, true, QUANT_TYPE_Q5_0, QUANT_TYPE_Q6_K, 0},
    {"Qwen2.5 1.5B", 28, 1536, 12, 2, 128, 8960, 151936, true, QUANT_TYPE_Q4_K, QUANT_TYPE_Q6_K, 0},
    {"Qwen2 7B", 28, 3584, 28, 4, 128, 18944, 152064, false, QUANT_TYPE_Q4_K, QUANT_TYPE_Q4_K, 0},
    {"Llama 3 8B", 32, 4096, 32, 8, 128, 14336, 128256, false, QUANT_TYPE_Q4_K, QUANT_TYPE_Q6_K, 0},
    {"Llama 3 70B", 80, 8192, 64, 8, 128, 28672, 128256, false, QUANT_TYPE_Q4_K, QUANT_TYPE_Q4_K,
     0},
    {"Qwen3 14B", 40, 5120, 40, 8, 128, 17408, 151936, false, QUANT_TYPE_Q8_0, QUANT_TYPE_Q8_0, 0},
    {"no GQA", 6, 512, 8, 8, 64, 1376, 32001, false, QUANT_TYPE_F16, QUANT_TYPE_F16, 0},
    {"odd layers", 7, 256, 8, 4, 48, 704, 999, true, QUANT_TYPE_Q8_0, QUANT_TYPE_F32, true},
    {"one head", 2, 64, 1, 1, 64, 32, 31, true, QUANT_TYPE_Q8_0, QUANT_TYPE_Q8_0, 0},
};
#define N_SHAPES (sizeof shapes / sizeof shapes[0])

struct fake {
    struct model_hparams h;
    struct model_tensors t;
    struct gguf_tensor *tensors;
    size_t n_tensors;
};

static void fake_part(struct fake *f, struct model_parts *parts, enum model_part part,
                      enum quant_type type, uint32_t cols, uint32_t rows)
{
    const struct sum_cut cut = sum_cut_whole(cols, 1, 1);
    struct gguf_tensor *t = &f->tensors[f->n_tensors++];

    *t = (struct gguf_tensor){.type = type, .n_dims = 2, .dims = {cols, rows, 1, 1}};
    t->size = weight_row_bytes(type, cols, &cut) * rows;
    parts->at[part] = t;
}

static void fake_layer(struct fake *f, const struct shape *s, uint32_t i)
{
    const uint32_t part = s->odd_layers && i % 2 == 1 ? 2 : 1;
    const struct model_layer_hparams l = {.n_heads = s->heads / part,
                                          .n_kv_heads = part == 1 ? s->kv_heads : 1,
                                          .n_ff = s->ff / part};
    const uint32_t q = l.n_heads * s->head_dim, kv = l.n_kv_heads * s->head_dim;
    struct model_parts *parts = &f->t.layers[i];

    f->h.layer[i] = l;
    fake_part(f, parts, MODEL_PART_ATTN_NORM, QUANT_TYPE_F32, s->embd, 1);
    fake_part(f, parts, MODEL_PART_ATTN_Q, s->type, s->embd, q);
    fake_part(f, parts, MODEL_PART_ATTN_Q_BIAS, QUANT_TYPE_F32, q, 1);
    fake_part(f, parts, MODEL_PART_ATTN_K, s->type, s->embd, kv);
    fake_part(f, parts, MODEL_PART_ATTN_K_BIAS, QUANT_TYPE_F32, kv, 1);
    fake_part(f, parts, MODEL_PART_ATTN_V,
              s->down_type == QUANT_TYPE_Q6_K ? QUANT_TYPE_Q8_0 : s->type, s->embd, kv);
    fake_part(f, parts, MODEL_PART_ATTN_OUTPUT, s->type, q, s->embd);
    fake_part(f, parts, MODEL_PART_FFN_NORM, QUANT_TYPE_F32, s->embd, 1);
    fake_part(f, parts, MODEL_PART_FFN_GATE, s->type, s->embd, l.n_ff);
    fake_part(f, parts, MODEL_PART_FFN_UP, s->type, s->embd, l.n_ff);
    fake_part(f, parts, MODEL_PART_FFN_DOWN, s->down_type, l.n_ff, s->embd);
}

static void fake_new(struct fake *f, const struct shape *s)
{
    *f = (struct fake){.h = {.n_layers = s->layers,
                             .n_embd = s->embd,
                             .head_dim = s->head_dim,
                             .vocab_size = s->vocab,
                             .tied_embedding = s->tied}};
    f->tensors = calloc((s->layers + 1) * (size_t)MODEL_PART_COUNT, sizeof *f->tensors);
    f->t.layers = calloc(s->layers, sizeof *f->t.layers);
    assert_non_null(f->tensors);
    assert_non_null(f->t.layers);
    fake_part(f, &f->t.whole, MODEL_PART_TOKEN_EMBD, s->type, s->embd, s->vocab);
    fake_part(f, &f->t.whole, MODEL_PART_OUTPUT_NORM, QUANT_TYPE_F32, s->embd, 1);
    if (!s->tied)
        fake_part(f, &f->t.whole, MODEL_PART_OUTPUT, QUANT_TYPE_Q6_K, s->embd, s->vocab);
    for (uint32_t i = 0; i < s->layers; i++)
        fake_layer(f, s, i);
}

static void fake_free(struct fake *f)
{
    free(f->t.layers);
    free(f->tensors);
}

static struct shard_plan *plan_of(const struct fake *f, const struct shard_request *request,
                                  enum kv_type kv_type)
{
    struct shard_plan *plan = NULL;
    struct errbuf eb = {{0}};

    if (shard_plan_new(&plan, &f->h, &f->t, request, kv_type, PAGES, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return plan;
}

/* ---- everything once, borders where they may be ------------------------------------------- */

struct context {
    const struct shape *shape;
    const struct fake *fake;
    const struct shard_plan *plan;
    uint32_t stage;
};

#define REQUIRE(c, layer, condition)                                                               \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("%s, %u x %u, stage %u, layer %u: %s", (c)->shape->name,                      \
                     (c)->plan->cut->n_stages, (c)->plan->cut->n_shards, (c)->stage, layer,        \
                     #condition);                                                                  \
    } while (0)

static const struct shard_rank_cut *shard_at(const struct context *c, uint32_t index)
{
    return &c->plan->cut->rank[c->stage * c->plan->cut->n_shards + index];
}

static bool run_equal(struct shard_run a, struct shard_run b)
{
    return a.first == b.first && a.end == b.end;
}

/* The runs of a stage's shards are 0 .. end - 1, one behind the other. */
static void check_vocabulary(const struct context *c)
{
    const uint32_t vocab = c->shape->vocab;
    const bool first = c->stage == 0, last = c->stage + 1 == c->plan->cut->n_stages;
    uint32_t row = 0;

    for (uint32_t i = 0; i < c->plan->cut->n_shards; i++) {
        const struct shard_rank_cut *s = shard_at(c, i);
        const struct shard_run rows = first ? s->embed : s->head;
        REQUIRE(c, 0, first || shard_run_count(s->embed) == 0);
        REQUIRE(c, 0, last || shard_run_count(s->head) == 0);
        REQUIRE(c, 0, !(first && last) || run_equal(s->head, s->embed));
        if (first || last) {
            REQUIRE(c, 0, rows.first == row && rows.end >= row);
            REQUIRE(c, 0, rows.end == vocab || rows.end % SHARD_VOCAB_ROWS == 0);
            row = rows.end;
        }
    }
    REQUIRE(c, 0, row == (first || last ? vocab : 0));
}

static void check_layer(const struct context *c, uint32_t layer)
{
    const struct model_layer_hparams *l = &c->fake->h.layer[layer];
    const uint32_t per_kv = l->n_heads / l->n_kv_heads, dim = c->shape->head_dim;
    uint32_t group = 0, head = 0, ffn = 0, ff = 0, kv = 0;

    for (uint32_t i = 0; i < c->plan->cut->n_shards; i++) {
        const struct shard_layer_cut *s = &shard_at(c, i)->layer[layer];
        const struct shard_sums sums = shard_sums(c->plan, shard_at(c, i), layer);
        const uint32_t heads = shard_run_count(s->heads), ff_cols = shard_run_count(s->ff);
        REQUIRE(c, layer, sums.attention.first == group && s->heads.first == head);
        REQUIRE(c, layer, sums.ffn.first == ffn && s->ff.first == ff);
        REQUIRE(c, layer, (heads == 0) == (sums.attention.first == sums.attention.end));
        if (heads > 0) {
            /* Groups are exactly the columns of the heads. */
            REQUIRE(c, layer,
                    sums.attention.groups == 1 ||
                        sum_group_begin(&sums.attention, sums.attention.end) * 32 ==
                            s->heads.end * dim);
            REQUIRE(c, layer, s->kv_heads.first == s->heads.first / per_kv);
            REQUIRE(c, layer, s->kv_heads.end == (s->heads.end - 1) / per_kv + 1);
            REQUIRE(c, layer, s->kv_heads.first <= kv && s->kv_heads.end >= kv);
            kv = s->kv_heads.end;
        } else {
            REQUIRE(c, layer, shard_run_count(s->kv_heads) == 0);
        }
        REQUIRE(c, layer, s->ff.end == l->n_ff || s->ff.end % 32 == 0);
        REQUIRE(c, layer, (ff_cols == 0) == (sums.ffn.first == sums.ffn.end));
        group = sums.attention.end;
        head = s->heads.end;
        ffn = sums.ffn.end;
        ff = s->ff.end;
        REQUIRE(c, layer, i + 1 < c->plan->cut->n_shards || group == sums.attention.groups);
        REQUIRE(c, layer, i + 1 < c->plan->cut->n_shards || ffn == sums.ffn.groups);
    }
    REQUIRE(c, layer, head == l->n_heads && kv == l->n_kv_heads && ff == l->n_ff);
}

static void check_absent(const struct context *c, uint32_t layer)
{
    for (uint32_t i = 0; i < c->plan->cut->n_shards; i++) {
        const struct shard_layer_cut *s = &shard_at(c, i)->layer[layer];
        REQUIRE(c, layer,
                shard_run_count(s->heads) + shard_run_count(s->kv_heads) + shard_run_count(s->ff) ==
                    0);
        REQUIRE(c, layer, shard_run_count(s->groups) == 0 && shard_run_count(s->ffn_groups) == 0);
    }
}

/* Elements of a part that all ranks of all stages hold together. */
static uint64_t elements_held(const struct context *c, uint32_t layer, enum model_part part,
                              const struct gguf_tensor *t)
{
    uint64_t held = 0;

    for (uint32_t r = 0; r < c->plan->cut->n_ranks; r++) {
        const struct shard_slice s =
            shard_slice(c->plan, &c->plan->cut->rank[r], &c->fake->h, layer, part, t);
        const uint32_t rows = (uint32_t)(model_part_is_matrix(part) ? t->dims[1] : t->dims[0]);
        REQUIRE(c, layer, (uint64_t)s.row + s.rows <= rows);
        if (s.rows > 0 && model_part_is_matrix(part)) {
            const uint64_t row = weight_row_bytes(t->type, s.cols, &s.cut);
            REQUIRE(c, layer, row > 0);
            REQUIRE(c, layer, weight_row_begin(t->type, &s.cut) + row <= t->size / t->dims[1]);
        }
        held += (uint64_t)s.rows * (s.rows > 0 ? s.cols : 0);
    }
    return held;
}

static void check_slices(const struct context *c)
{
    const struct model_tensors *t = &c->fake->t;

    for (uint32_t i = 0; i <= c->fake->h.n_layers; i++) {
        const struct model_parts *parts = i == c->fake->h.n_layers ? &t->whole : &t->layers[i];
        for (enum model_part part = 0; part < MODEL_PART_COUNT; part++) {
            const struct gguf_tensor *at = parts->at[part];
            if (at == NULL)
                continue;
            const uint64_t held = elements_held(c, i, part, at), all = at->dims[0] * at->dims[1];
            const bool is_kv = part == MODEL_PART_ATTN_K || part == MODEL_PART_ATTN_V ||
                               part == MODEL_PART_ATTN_K_BIAS;
            const bool twice =
                part == MODEL_PART_TOKEN_EMBD && c->shape->tied && c->plan->cut->n_stages > 1;
            const bool everywhere = !model_part_is_matrix(part) && part != MODEL_PART_ATTN_Q_BIAS &&
                                    part != MODEL_PART_ATTN_K_BIAS;
            if (is_kv)
                REQUIRE(c, i, held >= all);
            else
                REQUIRE(c, i, held == all * (everywhere ? c->plan->cut->n_shards : twice ? 2 : 1));
        }
    }
}

static void check_plan(const struct shape *shape, const struct fake *f,
                       const struct shard_plan *plan)
{
    struct context c = {.shape = shape, .fake = f, .plan = plan};
    uint32_t layer = 0;

    for (c.stage = 0; c.stage < plan->cut->n_stages; c.stage++) {
        const struct shard_run layers = shard_at(&c, 0)->layers;
        REQUIRE(&c, layer, layers.first == layer && layers.end > layer);
        for (uint32_t i = 0; i < plan->cut->n_shards; i++) {
            REQUIRE(&c, layer, shard_at(&c, i)->stage == c.stage && shard_at(&c, i)->index == i);
            REQUIRE(&c, layer, run_equal(shard_at(&c, i)->layers, layers));
        }
        check_vocabulary(&c);
        for (uint32_t i = 0; i < plan->cut->n_layers; i++) {
            if (i >= layers.first && i < layers.end)
                check_layer(&c, i);
            else
                check_absent(&c, i);
        }
        layer = layers.end;
    }
    assert_int_equal(layer, shape->layers);
    check_slices(&c);
}

static const struct shard_request uneven[] = {
    {2, 1, 2, {3, 1}},
    {2, 1, 2, {1, 1000000}},
    {3, 1, 3, {0, 5, 0}},
    {4, 1, 4, {80ull << 30, 80ull << 30, 24ull << 30, 16ull << 30}},
    {16, 1, 16, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    {1, 2, 2, {1, 3}},
    {2, 2, 4, {3, 1, 1, 1}},
    {4, 2, 8, {1, 0, 0, 0, 1, 2, 3, 4}},
};
#define N_UNEVEN (sizeof uneven / sizeof uneven[0])

static void check_request(const struct shape *shape, const struct fake *f,
                          const struct shard_request *request, enum kv_type kv_type)
{
    struct shard_plan *plan = plan_of(f, request, kv_type);

    check_plan(shape, f, plan);
    shard_plan_free(plan);
}

static void every_row_column_and_head_is_held_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct fake f;
        fake_new(&f, &shapes[i]);
        for (uint32_t n = 1; n <= SHARD_RANKS_MAX; n++) {
            for (uint32_t m = 1; m <= SHARD_RANKS_MAX / n && m <= shapes[i].layers; m++)
                check_request(&shapes[i], &f, &(struct shard_request){.shards = n, .stages = m},
                              KV_TYPE_F16);
        }
        for (size_t k = 0; k < N_UNEVEN; k++)
            check_request(&shapes[i], &f, &uneven[k], KV_TYPE_Q8_0);
        fake_free(&f);
    }
}

/* ---- no other cut is better --------------------------------------------------------------- */

/* Bytes of a tensor in proportion to what is held of it. */
static uint64_t slice_bytes(const struct gguf_tensor *t, uint64_t elements)
{
    return t == NULL ? 0 : t->size * elements / (t->dims[0] * t->dims[1]);
}

/* What groups first .. end - 1 of a layer's attention cost, by its definition. */
static uint64_t attention_cost(const struct fake *f, uint32_t layer, uint32_t group_heads,
                               uint32_t first, uint32_t end, enum kv_type kv_type)
{
    const struct model_layer_hparams *l = &f->h.layer[layer];
    const struct gguf_tensor *const *at = f->t.layers[layer].at;
    const uint32_t per_kv = l->n_heads / l->n_kv_heads, dim = f->h.head_dim, embd = f->h.n_embd;
    const struct kv_shape kv = {1, 0, dim, dim, kv_type, PAGES};
    uint64_t q = (uint64_t)(end - first) * group_heads * dim * embd, k = 0, cache = 0;

    for (uint32_t i = 0; i < l->n_kv_heads && end > first; i++) {
        if ((i + 1) * per_kv > first * group_heads && i * per_kv < end * group_heads) {
            struct kv_shape one = kv;
            one.n_kv_heads = 1;
            k += (uint64_t)dim * embd;
            cache += backend_kv_page_bytes(&one) * PAGES;
        }
    }
    return slice_bytes(at[MODEL_PART_ATTN_Q], q) + slice_bytes(at[MODEL_PART_ATTN_OUTPUT], q) +
           slice_bytes(at[MODEL_PART_ATTN_K], k) + slice_bytes(at[MODEL_PART_ATTN_V], k) + cache;
}

static uint64_t ffn_cost(const struct fake *f, uint32_t layer, const struct sum_cut *cut,
                         uint32_t first, uint32_t end)
{
    const struct gguf_tensor *const *at = f->t.layers[layer].at;
    const uint32_t n_ff = f->h.layer[layer].n_ff;
    uint32_t from = sum_group_begin(cut, first) * 32, to = sum_group_begin(cut, end) * 32;
    uint64_t held = (uint64_t)((to < n_ff ? to : n_ff) - (from < n_ff ? from : n_ff)) * f->h.n_embd;

    return slice_bytes(at[MODEL_PART_FFN_GATE], held) + slice_bytes(at[MODEL_PART_FFN_UP], held) +
           slice_bytes(at[MODEL_PART_FFN_DOWN], held);
}

struct cuts {
    const struct fake *f;
    const struct shard_request *request;
    uint32_t layer, groups, group_heads;
    const struct sum_cut *ffn; /* NULL: attention */
};

static double share(const struct cuts *c, uint32_t rank, uint32_t first, uint32_t end)
{
    uint64_t cost = c->ffn == NULL
                        ? attention_cost(c->f, c->layer, c->group_heads, first, end, KV_TYPE_F16)
                        : ffn_cost(c->f, c->layer, c->ffn, first, end);
    uint64_t weight = c->request->n_weights == 0 ? 1 : c->request->weights[rank];

    return cost == 0 ? 0 : (double)cost / (double)weight; /* infinity without weight */
}

/* The smallest largest share of ranks rank .. , of all cuts of groups first .. */
static double best_share(const struct cuts *c, uint32_t rank, uint32_t first)
{
    double best = 1e300;

    if (rank + 1 == c->request->shards)
        return share(c, rank, first, c->groups);
    for (uint32_t end = first; end <= c->groups; end++) {
        double here = share(c, rank, first, end), rest = best_share(c, rank + 1, end);
        double largest = here > rest ? here : rest;
        best = largest < best ? largest : best;
    }
    return best;
}

static void check_best(const struct shape *shape, const struct fake *f,
                       const struct shard_request *request, uint32_t layer)
{
    struct shard_plan *plan = plan_of(f, request, KV_TYPE_F16);
    const struct shard_sums first = shard_sums(plan, &plan->cut->rank[0], layer);
    struct cuts attention = {f,
                             request,
                             layer,
                             first.attention.groups,
                             f->h.layer[layer].n_heads / first.attention.groups,
                             NULL};
    struct cuts ffn = {f, request, layer, first.ffn.groups, 0, &first.ffn};
    double got[2] = {0, 0}, best[2] = {best_share(&attention, 0, 0), best_share(&ffn, 0, 0)};

    for (uint32_t r = 0; r < plan->cut->n_ranks; r++) {
        const struct shard_layer_cut *l = &plan->cut->rank[r].layer[layer];
        double a = share(&attention, r, l->groups.first, l->groups.end);
        double b = share(&ffn, r, l->ffn_groups.first, l->ffn_groups.end);
        got[0] = a > got[0] ? a : got[0];
        got[1] = b > got[1] ? b : got[1];
    }
    /* Proportions of whole tensors round down here and there by a few bytes. */
    for (uint32_t i = 0; i < 2; i++)
        if (got[i] > best[i] * (1 + 1e-6) + 8)
            fail_msg("%s, %u shards, layer %u, part %u: %.0f where %.0f can be", shape->name,
                     request->shards, layer, i, got[i], best[i]);
    shard_plan_free(plan);
}

static void no_other_cut_has_a_smaller_largest_share(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct fake f;
        fake_new(&f, &shapes[i]);
        for (uint32_t layer = 0; layer < 2; layer++) {
            for (uint32_t n = 1; n <= 4; n++)
                check_best(&shapes[i], &f, &(struct shard_request){.shards = n}, layer);
            for (size_t k = 0; k < N_UNEVEN; k++)
                if (uneven[k].stages == 1 && uneven[k].shards <= 4)
                    check_best(&shapes[i], &f, &uneven[k], layer);
        }
        fake_free(&f);
    }
}

/* 9 heads are 5 and 4 of every layer, and over all layers each rank has about as much. */
static void what_a_layer_gives_too_much_others_make_good(void **state)
{
    const struct shard_request two = {.shards = 2}, three = {.shards = 3};
    const struct shard_request *requests[] = {&two, &three};

    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        for (size_t k = 0; k < 2; k++) {
            struct fake f;
            uint64_t had[3] = {0}, most = 0, largest = 0;
            fake_new(&f, &shapes[i]);
            struct shard_plan *plan = plan_of(&f, requests[k], KV_TYPE_F16);
            for (uint32_t r = 0; r < plan->cut->n_ranks; r++) {
                for (uint32_t l = 0; l < plan->cut->n_layers; l++) {
                    const struct shard_sums s = shard_sums(plan, &plan->cut->rank[r], l);
                    uint64_t cost = attention_cost(&f, l, f.h.layer[l].n_heads / s.attention.groups,
                                                   s.attention.first, s.attention.end, KV_TYPE_F16);
                    largest = cost > largest ? cost : largest;
                    had[r] += cost;
                    cost = ffn_cost(&f, l, &s.ffn, s.ffn.first, s.ffn.end);
                    largest = cost > largest ? cost : largest;
                    had[r] += cost;
                }
                most = had[r] > most ? had[r] : most;
            }
            for (uint32_t r = 0; r < plan->cut->n_ranks; r++)
                if (most - had[r] > 2 * largest)
                    fail_msg("%s, %u shards: rank %u has %llu, another %llu", shapes[i].name,
                             plan->cut->n_ranks, r, (unsigned long long)had[r],
                             (unsigned long long)most);
            shard_plan_free(plan);
            fake_free(&f);
        }
    }
}

/* ---- cuts by hand ------------------------------------------------------------------------- */

static void known_models_are_cut_as_one_would(void **state)
{
    static const struct {
        size_t shape;
        uint32_t shards;
        uint32_t heads[5], kv[4][2]; /* borders in the first layer; KV heads of the first ranks */
    } table[] = {
        /* Even powers of two of a model that has as many KV heads. */
        {4, 2, {0, 16, 32}, {{0, 4}, {4, 8}}},
        {4, 4, {0, 8, 16, 24, 32}, {{0, 2}, {2, 4}, {4, 6}, {6, 8}}},
        {5, 4, {0, 16, 32, 48, 64}, {{0, 2}, {2, 4}, {4, 6}, {6, 8}}},
        {3, 4, {0, 7, 14, 21, 28}, {{0, 1}, {1, 2}, {2, 3}, {3, 4}}},
        {0, 3, {0, 3, 6, 9}, {{0, 1}, {1, 2}, {2, 3}}},
        /* Among the query heads of one KV head, which both then hold. */
        {0, 2, {0, 4, 9}, {{0, 2}, {1, 3}}},
        {1, 4, {0, 1, 2, 3, 4}, {{0, 1}, {0, 1}, {0, 1}, {0, 1}}},
        {2, 4, {0, 3, 6, 9, 12}, {{0, 1}, {0, 1}, {1, 2}, {1, 2}}},
        /* Cheaper than to hold a KV head more: 8 KV heads are 2, 3 and 3. */
        {4, 3, {0, 8, 20, 32}, {{0, 2}, {2, 5}, {5, 8}}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct fake f;
        fake_new(&f, &shapes[table[i].shape]);
        const struct shard_request request = {.shards = table[i].shards};
        struct shard_plan *plan = plan_of(&f, &request, KV_TYPE_F16);
        for (uint32_t r = 0; r < table[i].shards; r++) {
            const struct shard_layer_cut *l = &plan->cut->rank[r].layer[0];
            if (l->heads.first != table[i].heads[r] || l->heads.end != table[i].heads[r + 1] ||
                l->kv_heads.first != table[i].kv[r][0] || l->kv_heads.end != table[i].kv[r][1])
                fail_msg("%s, rank %u of %u: heads %u-%u, KV heads %u-%u",
                         shapes[table[i].shape].name, r, table[i].shards, l->heads.first,
                         l->heads.end, l->kv_heads.first, l->kv_heads.end);
        }
        shard_plan_free(plan);
        fake_free(&f);
    }
}

static void embedding_is_of_the_first_stage_and_the_head_of_the_last(void **state)
{
    const struct shard_request request = {.shards = 1, .stages = 2};
    struct fake f;

    (void)state;
    fake_new(&f, &shapes[1]); /* a vocabulary that weighs more than all layers, on both ends */
    struct shard_plan *plan = plan_of(&f, &request, KV_TYPE_F16);
    assert_int_equal(shard_run_count(plan->cut->rank[0].embed), shapes[1].vocab);
    assert_int_equal(shard_run_count(plan->cut->rank[0].head), 0);
    assert_int_equal(shard_run_count(plan->cut->rank[1].embed), 0);
    assert_int_equal(shard_run_count(plan->cut->rank[1].head), shapes[1].vocab);
    assert_int_equal(plan->cut->rank[0].layers.end, 9);
    shard_plan_free(plan);
    fake_free(&f);
}

/* Sums that ranks hand each other: no more than ranks where shares are powers of two. */
static void nodes_are_counted(void **state)
{
    static const struct {
        uint32_t shards, own, all;
    } table[] = {{1, 1, 1}, {2, 1, 2}, {4, 1, 4}, {8, 1, 8}, {16, 1, 16}};
    const struct shard_request three = {.shards = 3};
    struct fake f;
    struct shard_plan *plan;
    struct shard_nodes nodes;

    (void)state;
    fake_new(&f, &shapes[4]);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        plan = plan_of(&f, &(struct shard_request){.shards = table[i].shards}, KV_TYPE_F16);
        nodes = shard_nodes(plan, &plan->cut->rank[0]);
        assert_int_equal(nodes.own, table[i].own);
        assert_int_equal(nodes.all, table[i].all);
        shard_plan_free(plan);
    }
    /* 16 groups as 5, 5 and 6 in some order: 0-3, 4; 5, 6-7, 8-9; 10-11, 12-15; or the like. */
    plan = plan_of(&f, &three, KV_TYPE_F16);
    nodes = shard_nodes(plan, &plan->cut->rank[1]);
    assert_in_range(nodes.own, 2, 4);
    assert_in_range(nodes.all, 5, 9);
    shard_plan_free(plan);
    fake_free(&f);
}

/* ---- one plan on every rank --------------------------------------------------------------- */

static void digest_text(const struct shard_plan *plan, char ret[2 * SHARD_DIGEST_BYTES + 1])
{
    for (size_t i = 0; i < SHARD_DIGEST_BYTES; i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", plan->cut->digest[i]);
}

/* Held: ranks of different builds may meet in one gang only where these stay. */
static void the_same_request_is_the_same_plan(void **state)
{
    static const struct {
        size_t shape;
        struct shard_request request;
        const char *digest; /* its first 16 digits */
    } table[] = {
        {0, {.shards = 1}, "ec64616c085af2be"},
        {0, {.shards = 3}, "46c769ab705ccade"},
        {0, {2, 1, 2, {3, 1}}, "3e72eaa8fb5d0a09"},
        {4, {.shards = 8}, "15159b95e4e7e855"},
        {4, {.shards = 2, .stages = 2}, "5fd71ed0e01c1601"},
        {8, {.shards = 5}, "baaef01447175859"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct fake f;
        char once[2 * SHARD_DIGEST_BYTES + 1], again[2 * SHARD_DIGEST_BYTES + 1];
        fake_new(&f, &shapes[table[i].shape]);
        struct shard_plan *a = plan_of(&f, &table[i].request, KV_TYPE_F16);
        struct shard_plan *b = plan_of(&f, &table[i].request, KV_TYPE_F16);
        digest_text(a, once);
        digest_text(b, again);
        assert_string_equal(once, again);
        if (strncmp(once, table[i].digest, 16) != 0)
            fail_msg("row %zu: %.16s", i, once);
        shard_plan_free(a);
        shard_plan_free(b);
        fake_free(&f);
    }
}

static void weights_say_the_same_in_any_unit(void **state)
{
    static const struct shard_request small = {3, 1, 3, {5, 3, 2}};
    static const struct shard_request large = {3, 1, 3, {50ull << 30, 30ull << 30, 20ull << 30}};
    static const struct shard_request ones = {4, 1, 4, {7, 7, 7, 7}};
    static const struct shard_request even = {.shards = 4};

    (void)state;
    for (size_t i = 0; i < N_SHAPES; i++) {
        struct fake f;
        fake_new(&f, &shapes[i]);
        struct shard_plan *a = plan_of(&f, &ones, KV_TYPE_F16);
        struct shard_plan *b = plan_of(&f, &even, KV_TYPE_F16);
        assert_memory_equal(a->cut->digest, b->cut->digest, SHARD_DIGEST_BYTES);
        shard_plan_free(a);
        shard_plan_free(b);
        a = plan_of(&f, &small, KV_TYPE_F16);
        b = plan_of(&f, &large, KV_TYPE_F16);
        for (uint32_t r = 0; r < 3; r++) {
            assert_true(run_equal(a->cut->rank[r].head, b->cut->rank[r].head));
            assert_true(run_equal(a->cut->rank[r].layer[0].heads, b->cut->rank[r].layer[0].heads));
            assert_true(run_equal(a->cut->rank[r].layer[0].ff, b->cut->rank[r].layer[0].ff));
        }
        shard_plan_free(a);
        shard_plan_free(b);
        fake_free(&f);
    }
}

/* ---- what is refused ---------------------------------------------------------------------- */

static void bad_requests_are_refused_with_the_reason(void **state)
{
    static const struct {
        struct shard_request request;
        uint32_t pages;
        enum err err;
        const char *says;
    } table[] = {
        {{.shards = 0}, 1, ERR_INVALID, "0 shards; 1 to 16"},
        {{.shards = 17}, 1, ERR_INVALID, "17 shards; 1 to 16"},
        {{.shards = UINT32_MAX, .stages = UINT32_MAX}, 1, ERR_INVALID, "shards; 1 to 16"},
        {{.shards = 1, .stages = 17}, 1, ERR_INVALID, "16 ranks are the most"},
        {{.shards = 4, .stages = 5}, 1, ERR_INVALID, "5 stages of 4 shards"},
        {{.shards = 2, .stages = UINT32_MAX}, 1, ERR_INVALID, "16 ranks are the most"},
        {{.shards = 1, .stages = 3}, 1, ERR_INVALID, "3 stages for 2 layers"},
        {{2, 1, 3, {1, 1, 1}}, 1, ERR_INVALID, "3 weights for 2 shards"},
        {{2, 1, 2, {0, 0}}, 1, ERR_INVALID, "all weights are 0"},
        {{2, 2, 4, {1, 1, 0, 0}}, 1, ERR_INVALID, "all weights of stage 1 are 0"},
        {{2, 1, 2, {1, UINT64_MAX}}, 1, ERR_INVALID, "a weight of 18446744073709551615"},
        {{.shards = 2}, UINT32_MAX, ERR_TOO_LARGE, "cannot be shared out"},
    };
    struct fake f;

    (void)state;
    fake_new(&f, &shapes[9]);
    /* As many heads of as many elements as a header may say, so that a pool is beyond reason. */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct errbuf eb = {{0}};
        struct shard_plan *plan = NULL;
        if (table[i].err == ERR_TOO_LARGE) {
            f.h.head_dim = MODEL_HEAD_DIM_MAX;
            f.h.layer[0].n_heads = f.h.layer[0].n_kv_heads = MODEL_HEADS_MAX;
        }
        enum err e =
            shard_plan_new(&plan, &f.h, &f.t, &table[i].request, KV_TYPE_F16, table[i].pages, &eb);
        if (e != table[i].err || strstr(eb.text, table[i].says) == NULL)
            fail_msg("row %zu: %d, %s", i, (int)e, eb.text);
        assert_null(plan);
    }
    fake_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_column_and_head_is_held_once),
        cmocka_unit_test(no_other_cut_has_a_smaller_largest_share),
        cmocka_unit_test(what_a_layer_gives_too_much_others_make_good),
        cmocka_unit_test(known_models_are_cut_as_one_would),
        cmocka_unit_test(embedding_is_of_the_first_stage_and_the_head_of_the_last),
        cmocka_unit_test(nodes_are_counted),
        cmocka_unit_test(the_same_request_is_the_same_plan),
        cmocka_unit_test(weights_say_the_same_in_any_unit),
        cmocka_unit_test(bad_requests_are_refused_with_the_reason),
    };
    return cmocka_run_group_tests_name("shard plan", tests, NULL, NULL);
}
