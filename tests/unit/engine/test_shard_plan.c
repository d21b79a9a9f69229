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
            fail_msg("%s, %u x %u, stage %u, layer %u: %s", (c)->shape->name, (c)->plan->n_stages, \
                     (c)->plan->n_shards, (c)->stage, layer, #condition);                          \
    } while (0)

static const struct shard *shard_at(const struct context *c, uint32_t index)
{
    return &c->plan->rank[c->stage * c->plan->n_shards + index];
}

static bool run_equal(struct shard_run a, struct shard_run b)
{
    return a.first == b.first && a.end == b.end;
}

/* The runs of a stage's shards are 0 .. end - 1, one behind the other. */
static void check_vocabulary(const struct context *c)
{
    const uint32_t vocab = c->shape->vocab;
    const bool first = c->stage == 0, last = c->stage + 1 == c->plan->n_stages;
    uint32_t row = 0, col = 0;

    for (uint32_t i = 0; i < c->plan->n_shards; i++) {
        const struct shard *s = shard_at(c, i);
        const struct shard_run rows = first ? s->embed : s->head;
        REQUIRE(c, 0, first || shard_run_count(s->embed) == 0);
        REQUIRE(c, 0, last || shard_run_count(s->head) == 0);
        REQUIRE(c, 0, !(first && last) || run_equal(s->head, s->embed));
        if (first || last) {
            REQUIRE(c, 0, rows.first == row && rows.end >= row);
            REQUIRE(c, 0, rows.end == vocab || rows.end % SHARD_VOCAB_ROWS == 0);
            row = rows.end;
        }
        REQUIRE(c, 0, s->embd.first == col && s->embd.end >= col);
        REQUIRE(c, 0, s->embd.end == c->shape->embd || s->embd.end % 32 == 0);
        col = s->embd.end;
    }
    REQUIRE(c, 0, row == (first || last ? vocab : 0));
    REQUIRE(c, 0, col == c->shape->embd);
}

static void check_layer(const struct context *c, uint32_t layer)
{
    const struct model_layer_hparams *l = &c->fake->h.layer[layer];
    const uint32_t per_kv = l->n_heads / l->n_kv_heads, dim = c->shape->head_dim;
    uint32_t group = 0, head = 0, ffn = 0, ff = 0, kv = 0;

    for (uint32_t i = 0; i < c->plan->n_shards; i++) {
        const struct shard_layer *s = &shard_at(c, i)->layer[layer];
        const uint32_t heads = shard_run_count(s->heads), ff_cols = shard_run_count(s->ff);
        REQUIRE(c, layer, s->attention.first == group && s->heads.first == head);
        REQUIRE(c, layer, s->ffn.first == ffn && s->ff.first == ff);
        REQUIRE(c, layer, (heads == 0) == (s->attention.first == s->attention.end));
        if (heads > 0) {
            /* Groups are exactly the columns of the heads. */
            REQUIRE(c, layer,
                    s->attention.groups == 1 ||
                        sum_group_begin(&s->attention, s->attention.end) * 32 ==
                            s->heads.end * dim);
            REQUIRE(c, layer, s->kv_heads.first == s->heads.first / per_kv);
            REQUIRE(c, layer, s->kv_heads.end == (s->heads.end - 1) / per_kv + 1);
            REQUIRE(c, layer, s->kv_heads.first <= kv && s->kv_heads.end >= kv);
            kv = s->kv_heads.end;
        } else {
            REQUIRE(c, layer, shard_run_count(s->kv_heads) == 0);
        }
        REQUIRE(c, layer, s->ff.end == l->n_ff || s->ff.end % 32 == 0);
        REQUIRE(c, layer, (ff_cols == 0) == (s->ffn.first == s->ffn.end));
        group = s->attention.end;
        head = s->heads.end;
        ffn = s->ffn.end;
        ff = s->ff.end;
        REQUIRE(c, layer, i + 1 < c->plan->n_shards || group == s->attention.groups);
        REQUIRE(c, layer, i + 1 < c->plan->n_shards || ffn == s->ffn.groups);
    }
    REQUIRE(c, layer, head == l->n_heads && kv == l->n_kv_heads && ff == l->n_ff);
}

static void check_absent(const struct context *c, uint32_t layer)
{
    for (uint32_t i = 0; i < c->plan->n_shards; i++) {
        const struct shard_layer *s = &shard_at(c, i)->layer[layer];
        REQUIRE(c, layer,
                shard_run_count(s->heads) + shard_run_count(s->kv_heads) + shard_run_count(s->ff) ==
                    0);
        REQUIRE(c, layer, s->attention.end == s->attention.first && s->ffn.end == s->ffn.first);
    }
}

/* Elements of a part that all ranks of all stages hold together. */
static uint64_t elements_held(const struct context *c, uint32_t layer, enum model_part part,
                              const struct gguf_tensor *t)
{
    uint64_t held = 0;

    for (uint32_t r = 0; r < c->plan->n_ranks; r++) {
        const struct shard_slice s =
            shard_slice(c->plan, &c->plan->rank[r], &c->fake->h, layer, part, t);
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
                part == MODEL_PART_TOKEN_EMBD && c->shape->tied && c->plan->n_stages > 1;
            const bool everywhere = !model_part_is_matrix(part) && part != MODEL_PART_ATTN_Q_BIAS &&
                                    part != MODEL_PART_ATTN_K_BIAS;
            if (is_kv)
                REQUIRE(c, i, held >= all);
            else
                REQUIRE(c, i, held == all * (everywhere ? c->plan->n_shards : twice ? 2 : 1));
        }
    }
}

static void check_plan(const struct shape *shape, const struct fake *f,
                       const struct shard_plan *plan)
{
    struct context c = {.shape = shape, .fake = f, .plan = plan};
    uint32_t layer = 0;

    for (c.stage = 0; c.stage < plan->n_stages; c.stage++) {
        const struct shard_run layers = shard_at(&c, 0)->layers;
        REQUIRE(&c, layer, layers.first == layer && layers.end > layer);
        for (uint32_t i = 0; i < plan->n_shards; i++) {
            REQUIRE(&c, layer, shard_at(&c, i)->stage == c.stage && shard_at(&c, i)->index == i);
            REQUIRE(&c, layer, run_equal(shard_at(&c, i)->layers, layers));
        }
        check_vocabulary(&c);
        for (uint32_t i = 0; i < plan->n_layers; i++) {
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_column_and_head_is_held_once),
    };
    return cmocka_run_group_tests_name("shard plan", tests, NULL, NULL);
}
