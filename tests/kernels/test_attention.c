/*
 * Rotation, KV cache and attention: every backend gives ref's bits for every cache type, head
 * size, group, window and softcap; and a position's result is the same however the prompt was cut,
 * what else was in the step, and on which pages the sequence lies.
 */
#include "tests/kernels/fixture.h"

#include "worker/kernels/rope_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEQUENCES   3u
#define PAGES_EACH  36u
#define PAGE_STRIDE 40u
#define LENGTH_MAX  (PAGES_EACH * KV_PAGE_TOKENS) /* of each sequence */

struct head_case {
    const char *name;
    enum kv_type type;
    uint32_t n_heads;
    uint32_t n_kv_heads;
    uint32_t dim_k;
    uint32_t dim_v;
    uint32_t rope_dim;
    enum rope_style style;
    uint32_t window;
    float softcap;
    uint64_t hash; /* of ref's result for 100 positions: the definition itself must not change */
    uint32_t group, skip; /* of a shard: as in struct attention_job */
};

static const struct head_case cases[] = {
    {"smollm2", KV_TYPE_F16, 9, 3, 64, 64, 64, ROPE_STYLE_PAIRS, 0, 0.0f, 0xc4fb82bc81a64605ull, 0,
     0},
    {"smollm2 q8_0", KV_TYPE_Q8_0, 9, 3, 64, 64, 64, ROPE_STYLE_PAIRS, 0, 0.0f,
     0xd2de824d5876d8e8ull, 0, 0},
    {"one head each", KV_TYPE_F16, 4, 4, 32, 32, 16, ROPE_STYLE_HALVES, 0, 0.0f,
     0x9abd669a908682cfull, 0, 0},
    {"wide group", KV_TYPE_F16, 14, 2, 64, 64, 64, ROPE_STYLE_HALVES, 0, 0.0f,
     0x283f528deb57b27aull, 0, 0},
    {"wide group q8_0", KV_TYPE_Q8_0, 14, 2, 64, 128, 64, ROPE_STYLE_HALVES, 0, 0.0f,
     0xcd0a4d9b03e33751ull, 0, 0},
    {"window, softcap", KV_TYPE_F16, 4, 2, 128, 128, 128, ROPE_STYLE_HALVES, 40, 50.0f,
     0x50a0bc796f4820d5ull, 0, 0},
    {"window of one", KV_TYPE_Q8_0, 2, 1, 32, 32, 32, ROPE_STYLE_PAIRS, 1, 0.0f,
     0xc74a3c7089da4f97ull, 0, 0},
    {"odd sizes", KV_TYPE_F16, 5, 1, 20, 44, 10, ROPE_STYLE_PAIRS, 33, 0.0f, 0xf749bdd0079f6afeull,
     0, 0},
    {"many heads", KV_TYPE_F16, 40, 1, 16, 16, 16, ROPE_STYLE_PAIRS, 0, 30.0f,
     0xed2a6270274783eeull, 0, 0},
};

/* A whole history: q, k, v of every position of every sequence, the same for all runs. */
struct history {
    const struct head_case *c;
    uint32_t length; /* positions of each sequence */
    float *q;        /* [sequence][position][n_heads * dim_k] */
    float *k;
    float *v;
    struct rope_table *table;
};

static void history_make(const struct head_case *c, uint32_t length, struct history *h)
{
    struct fixture_random r = {c->dim_k * 7u + c->n_heads};
    size_t rows = (size_t)SEQUENCES * length;
    h->c = c;
    h->length = length;
    h->q = malloc(rows * c->n_heads * c->dim_k * sizeof(float));
    h->k = malloc(rows * c->n_kv_heads * c->dim_k * sizeof(float));
    h->v = malloc(rows * c->n_kv_heads * c->dim_v * sizeof(float));
    assert_true(h->q != NULL && h->k != NULL && h->v != NULL);
    fixture_floats(&r, h->q, rows * c->n_heads * c->dim_k);
    fixture_floats(&r, h->k, rows * c->n_kv_heads * c->dim_k);
    fixture_floats(&r, h->v, rows * c->n_kv_heads * c->dim_v);
    const struct rope_params params = {.base = 10000.0, .dim = c->rope_dim, .linear_scale = 1.0};
    struct errbuf eb = {0};
    assert_int_equal(rope_table_new(&params, length, &h->table, &eb), ERR_OK);
    rope_table_reach(h->table, length);
}

static void history_free(struct history *h)
{
    free(h->q);
    free(h->k);
    free(h->v);
    rope_table_free(h->table);
}

static void gather(const float *all, const uint32_t *sequence, const uint32_t *position, uint32_t n,
                   uint32_t length, uint32_t width, float *ret_rows)
{
    for (uint32_t i = 0; i < n; i++)
        memcpy(ret_rows + (size_t)i * width,
               all + ((size_t)sequence[i] * length + position[i]) * width, width * sizeof(float));
}

/* A backend with a cache, and where each sequence's pages lie in it. */
struct session {
    struct backend *b;
    struct kv *kv;
    uint32_t pages[SEQUENCES * PAGE_STRIDE];
};

static void session_open(struct session *s, struct backend *b, const struct head_case *c,
                         uint64_t page_seed)
{
    uint32_t order[SEQUENCES * PAGES_EACH];
    struct fixture_random r = {page_seed};
    for (uint32_t i = 0; i < SEQUENCES * PAGES_EACH; i++)
        order[i] = i;
    for (uint32_t i = SEQUENCES * PAGES_EACH - 1; page_seed != 0 && i > 0; i--) {
        uint32_t j = fixture_below(&r, i + 1);
        uint32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (uint32_t i = 0; i < SEQUENCES * PAGE_STRIDE; i++)
        s->pages[i] = UINT32_MAX; /* read by mistake, it is out of range */
    for (uint32_t i = 0; i < SEQUENCES * PAGES_EACH; i++)
        s->pages[i / PAGES_EACH * PAGE_STRIDE + i % PAGES_EACH] = order[i];
    const struct kv_shape shape = {.n_layers = 2,
                                   .n_kv_heads = c->n_kv_heads,
                                   .head_dim_k = c->dim_k,
                                   .head_dim_v = c->dim_v,
                                   .type = c->type,
                                   .n_pages = SEQUENCES * PAGES_EACH};
    struct errbuf eb = {0};
    s->b = b;
    if (b->ops->kv_new(b, &shape, &s->kv, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
}

static void session_close(struct session *s)
{
    s->b->ops->kv_free(s->b, s->kv);
}

/* One step of n rows on layer 1: rotate and write, then, where ret_act is given, attend. The
 * rotated q and k go where they are asked for. */
static void session_step(struct session *s, const struct history *h, const uint32_t *sequence,
                         const uint32_t *position, uint32_t n, float *ret_q, float *ret_k,
                         struct act **ret_act)
{
    const struct head_case *c = h->c;
    struct backend *b = s->b;
    const size_t q_width = (size_t)c->n_heads * c->dim_k;
    const size_t k_width = (size_t)c->n_kv_heads * c->dim_k;
    const size_t v_width = (size_t)c->n_kv_heads * c->dim_v;
    float *rows = malloc(n * (q_width + k_width + v_width) * sizeof *rows);
    assert_non_null(rows);
    float *host_k = rows + n * q_width;
    float *host_v = host_k + n * k_width;
    gather(h->q, sequence, position, n, h->length, (uint32_t)q_width, rows);
    gather(h->k, sequence, position, n, h->length, (uint32_t)k_width, host_k);
    gather(h->v, sequence, position, n, h->length, (uint32_t)v_width, host_v);
    float *q = fixture_upload(b, rows, n * q_width);
    float *k = fixture_upload(b, host_k, n * k_width);
    float *v = fixture_upload(b, host_v, n * v_width);
    const struct step_rows step = {.n_rows = n,
                                   .position = position,
                                   .sequence = sequence,
                                   .page_table = s->pages,
                                   .page_table_stride = PAGE_STRIDE};
    const struct rope_kv_job rope = {.kv = s->kv,
                                     .layer = 1,
                                     .rows = &step,
                                     .q = q,
                                     .k = k,
                                     .v = v,
                                     .n_heads = c->n_heads,
                                     .rope_dim = c->rope_dim,
                                     .style = c->style,
                                     .table = rope_table_cells(h->table)};
    b->ops->rope_kv(b, &rope);
    if (ret_act != NULL) {
        *ret_act = b->ops->act_new(b, n, c->n_heads * c->dim_v, true);
        const struct attention_job attention = {.kv = s->kv,
                                                .layer = 1,
                                                .rows = &step,
                                                .q = q,
                                                .n_heads = c->n_heads,
                                                .group = c->group,
                                                .skip = c->skip,
                                                .scale = 1.0f / sqrtf((float)c->dim_k),
                                                .window = c->window,
                                                .softcap = c->softcap,
                                                .out = *ret_act};
        b->ops->attention(b, &attention);
    }
    if (ret_q != NULL)
        b->ops->buffer_read(b, q, ret_q, n * q_width);
    if (ret_k != NULL)
        b->ops->buffer_read(b, k, ret_k, n * k_width);
    b->ops->buffer_free(b, q);
    b->ops->buffer_free(b, k);
    b->ops->buffer_free(b, v);
    free(rows);
}

/* Feeds positions 0 .. length - 1 of all sequences in steps of `chunk` rows of each, and collects
 * the attention's float rows in ret_rows[sequence][position][n_heads * dim_v]. */
static void run_history(struct backend *b, const struct history *h, uint32_t chunk,
                        uint64_t page_seed, bool together, float *ret_rows)
{
    const uint32_t width = h->c->n_heads * h->c->dim_v;
    struct session s;
    session_open(&s, b, h->c, page_seed);
    uint32_t sequence[SEQUENCES * LENGTH_MAX];
    uint32_t position[SEQUENCES * LENGTH_MAX];
    int8_t *q = malloc(width);
    float *scales = malloc((width / 32 + 1) * sizeof *scales);
    assert_true(q != NULL && scales != NULL);
    for (uint32_t round = 0; round < (together ? 1 : SEQUENCES); round++) {
        for (uint32_t at = 0; at < h->length; at += chunk) {
            uint32_t n = 0;
            for (uint32_t i = 0; i < SEQUENCES; i++) {
                if (!together && i != round)
                    continue;
                for (uint32_t p = at; p < at + chunk && p < h->length; p++) {
                    sequence[n] = i;
                    position[n] = p;
                    n++;
                }
            }
            struct act *out;
            session_step(&s, h, sequence, position, n, NULL, NULL, &out);
            for (uint32_t i = 0; i < n; i++)
                b->ops->act_read(b, out, i, width, q, scales,
                                 ret_rows +
                                     ((size_t)sequence[i] * h->length + position[i]) * width);
            b->ops->act_free(b, out);
        }
    }
    free(q);
    free(scales);
    session_close(&s);
}

static void test_attention_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct history h;
        history_make(&cases[i], 101, &h);
        size_t count = (size_t)SEQUENCES * h.length * cases[i].n_heads * cases[i].dim_v;
        float *expected = malloc(count * sizeof *expected);
        float *actual = malloc(count * sizeof *actual);
        assert_true(expected != NULL && actual != NULL);
        run_history(f->ref, &h, h.length, 0, true, expected);
        for (size_t k = 0; k < f->n_others; k++) {
            memset(actual, 0xff, count * sizeof *actual);
            run_history(f->others[k].backend, &h, 19, 0, true, actual);
            fixture_same(cases[i].name, f->others[k].name, expected, actual, count);
        }
        free(expected);
        free(actual);
        history_free(&h);
    }
}

static void test_a_position_does_not_depend_on_chunks_company_or_pages(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        uint32_t chunk;
        uint64_t page_seed;
        bool together;
    } ways[] = {{1, 5, true},   {33, 9, false}, {1, 0, false},  {7, 6, true},
                {17, 0, false}, {32, 8, true},  {64, 10, true}, {100, 11, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct history h;
        history_make(&cases[i], 100, &h);
        size_t count = (size_t)SEQUENCES * h.length * cases[i].n_heads * cases[i].dim_v;
        float *expected = malloc(count * sizeof *expected);
        float *actual = malloc(count * sizeof *actual);
        assert_true(expected != NULL && actual != NULL);
        run_history(f->ref, &h, 100, 0, false, expected);
        assert_int_equal(fixture_hash(expected, count), cases[i].hash);
        for (size_t k = 0; k <= f->n_others; k++) {
            struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
            const char *name = k == 0 ? "scalar" : f->others[k - 1].name;
            /* Fast backends take every way; the slow ones, ref and the plain C body, take two. */
            bool fast = strncmp(name, "avx", 3) == 0;
            size_t n_ways = fast ? sizeof ways / sizeof ways[0] : 2;
            for (size_t w = 0; w < n_ways; w++) {
                memset(actual, 0xff, count * sizeof *actual);
                run_history(b, &h, ways[w].chunk, ways[w].page_seed, ways[w].together, actual);
                fixture_same(cases[i].name, name, expected, actual, count);
            }
        }
        free(expected);
        free(actual);
        history_free(&h);
    }
}

/* Columns first .. first + count - 1 of rows of `width`. */
static float *columns(const float *rows, size_t n, uint32_t width, uint32_t first, uint32_t count)
{
    float *own = malloc(n * count * sizeof *own);
    assert_non_null(own);
    for (size_t i = 0; i < n; i++)
        memcpy(own + i * count, rows + i * width + first, count * sizeof *own);
    return own;
}

/* The history of a shard that has query heads begin .. end - 1 and the KV heads they read. */
static void history_shard(const struct history *h, uint32_t begin, uint32_t end,
                          struct head_case *ret_case, struct history *ret_shard)
{
    const struct head_case *c = h->c;
    const uint32_t group = c->n_heads / c->n_kv_heads;
    const uint32_t kv_begin = begin / group, kv_end = (end - 1) / group + 1;
    const size_t rows = (size_t)SEQUENCES * h->length;
    *ret_case = *c;
    ret_case->n_heads = end - begin;
    ret_case->n_kv_heads = kv_end - kv_begin;
    ret_case->group = group;
    ret_case->skip = begin % group;
    *ret_shard = *h;
    ret_shard->c = ret_case;
    ret_shard->q =
        columns(h->q, rows, c->n_heads * c->dim_k, begin * c->dim_k, ret_case->n_heads * c->dim_k);
    ret_shard->k = columns(h->k, rows, c->n_kv_heads * c->dim_k, kv_begin * c->dim_k,
                           ret_case->n_kv_heads * c->dim_k);
    ret_shard->v = columns(h->v, rows, c->n_kv_heads * c->dim_v, kv_begin * c->dim_v,
                           ret_case->n_kv_heads * c->dim_v);
}

/* Heads do not know of each other, wherever a gang cuts between them: also within those that share
 * a KV head. Together and one by one, short and long enough for the split path. */
static void test_a_shard_of_the_heads_has_the_bits_of_the_whole(void **state)
{
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct head_case *c = &cases[i];
        const uint32_t borders[] = {0, 1, (c->n_heads + 1) / 2, c->n_heads - 1, c->n_heads};
        const uint32_t width = c->n_heads * c->dim_v;
        const uint32_t length = 11 * KV_PAGE_TOKENS + 1; /* enough pages to split */
        const size_t rows = (size_t)SEQUENCES * length;
        struct history h;
        history_make(c, length, &h);
        float *whole = malloc(rows * width * sizeof *whole);
        float *actual = malloc(rows * width * sizeof *actual);
        assert_true(whole != NULL && actual != NULL);
        run_history(f->ref, &h, 64, 0, true, whole);
        for (size_t a = 0; a + 1 < sizeof borders / sizeof borders[0]; a++) {
            struct head_case shard_case;
            struct history shard;
            if (borders[a] >= borders[a + 1])
                continue;
            history_shard(&h, borders[a], borders[a + 1], &shard_case, &shard);
            const uint32_t own = shard_case.n_heads * c->dim_v;
            float *expected = columns(whole, rows, width, borders[a] * c->dim_v, own);
            for (size_t k = 0; k <= f->n_others; k++) {
                struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
                const char *name = k == 0 ? "scalar" : f->others[k - 1].name;
                const bool fast = strncmp(name, "avx", 3) == 0;
                if (!fast && a != i % 4)
                    continue;
                memset(actual, 0xff, rows * own * sizeof *actual);
                run_history(b, &shard, fast && a % 2 == 0 ? 1 : 40, 3, !fast || a % 2 == 1, actual);
                fixture_same(c->name, name, expected, actual, rows * own);
            }
            free(expected);
            free(shard.q);
            free(shard.k);
            free(shard.v);
        }
        free(whole);
        free(actual);
        history_free(&h);
    }
}

/* A sequence is there already; n_rows of its positions are one step, of which every backend has
 * ref's bits. */
struct last_rows {
    const struct head_case *c;
    uint32_t length; /* positions that the sequence has */
    const uint32_t *position;
    uint32_t n_rows;
};

static void same_last_rows(const struct fixture *f, const struct last_rows *rows)
{
    const uint32_t width = rows->c->n_heads * rows->c->dim_v;
    uint32_t all_sequence[LENGTH_MAX];
    uint32_t all_position[LENGTH_MAX];
    struct act *expected = NULL;
    struct session ref;
    struct history h;
    history_make(rows->c, rows->length, &h);
    for (uint32_t p = 0; p < rows->length; p++) {
        all_sequence[p] = 1;
        all_position[p] = p;
    }
    for (size_t k = 0; k <= f->n_others; k++) {
        struct session other;
        struct session *s = k == 0 ? &ref : &other;
        session_open(s, k == 0 ? f->ref : f->others[k - 1].backend, rows->c, 3);
        struct act *actual;
        session_step(s, &h, all_sequence, all_position, rows->length, NULL, NULL, NULL);
        session_step(s, &h, all_sequence, rows->position, rows->n_rows, NULL, NULL, &actual);
        if (k == 0) {
            expected = actual;
            continue;
        }
        fixture_same_act(rows->c->name, f->others[k - 1].name, f->ref, expected, s->b, actual,
                         rows->n_rows, width, 1);
        s->b->ops->act_free(s->b, actual);
        session_close(s);
    }
    f->ref->ops->act_free(f->ref, expected);
    session_close(&ref);
    history_free(&h);
}

/* Long sequences of few rows take the split path, whose second round merges the pages, 32 at a
 * time: 35 pages here, so that a maximum passes from one such run to the next. */
static void test_long_sequences_have_the_bits_of_ref(void **state)
{
    static const uint32_t position[] = {1106, 63, 415};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct last_rows rows = {&cases[i], 1107, position, 3};
        same_last_rows(*state, &rows);
    }
}

/* Gemma's heads and wider ones, of which a GPU has other tiles, and from some width on no room for
 * a second page: a run of a prompt, and rows that stand alone and share out their pages. */
static void test_wide_heads_have_the_bits_of_ref(void **state)
{
    static const struct head_case wide[] = {
        {"gemma 3", KV_TYPE_F16, 4, 1, 256, 256, 256, ROPE_STYLE_HALVES, 0, 0.0f, 0, 0, 0},
        {"gemma 3 q8_0, window", KV_TYPE_Q8_0, 8, 1, 256, 256, 256, ROPE_STYLE_HALVES, 70, 0.0f, 0,
         0, 0},
        {"one head of 512", KV_TYPE_F16, 2, 2, 512, 512, 512, ROPE_STYLE_HALVES, 0, 30.0f, 0, 0, 0},
        {"eight of 512, q8_0", KV_TYPE_Q8_0, 8, 1, 512, 512, 64, ROPE_STYLE_PAIRS, 0, 0.0f, 0, 0,
         0},
        {"odd and wide", KV_TYPE_F16, 5, 1, 200, 300, 128, ROPE_STYLE_PAIRS, 0, 0.0f, 0, 0, 0},
        {"odd and wide q8_0", KV_TYPE_Q8_0, 3, 1, 320, 160, 64, ROPE_STYLE_HALVES, 33, 0.0f, 0, 0,
         0},
    };
    static const uint32_t alone[] = {140, 63, 99};
    uint32_t run[41];
    for (uint32_t i = 0; i < 41; i++)
        run[i] = 100 + i;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++) {
        const struct last_rows in_a_run = {&wide[i], 141, run, 41};
        const struct last_rows by_themselves = {&wide[i], 141, alone, 3};
        same_last_rows(*state, &in_a_run);
        same_last_rows(*state, &by_themselves);
    }
}

static void test_rotation_is_in_place_and_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct head_case *c = &cases[i];
        struct history h;
        history_make(c, 40, &h);
        static const uint32_t sequence[] = {0, 1, 2, 0, 0, 1, 1, 1, 2};
        static const uint32_t position[] = {0, 1, 39, 17, 18, 31, 32, 5, 3};
        const size_t q_count = (size_t)9 * c->n_heads * c->dim_k;
        const size_t k_count = (size_t)9 * c->n_kv_heads * c->dim_k;
        float *x = malloc((q_count + k_count) * 2 * sizeof *x);
        assert_non_null(x);
        float *y = x + q_count + k_count;
        for (size_t k = 0; k <= f->n_others; k++) {
            struct session s;
            session_open(&s, k == 0 ? f->ref : f->others[k - 1].backend, c, 0);
            float *to = k == 0 ? x : y;
            session_step(&s, &h, sequence, position, 9, to, to + q_count, NULL);
            if (k > 0)
                fixture_same(c->name, f->others[k - 1].name, x, y, q_count + k_count);
            session_close(&s);
        }
        /* Position 0 turns nothing; what lies behind rope_dim passes at every position. */
        assert_memory_equal(x, h.q, (size_t)c->n_heads * c->dim_k * sizeof(float));
        for (uint32_t d = c->rope_dim; d < c->dim_k; d++)
            assert_true(x[(size_t)2 * c->n_heads * c->dim_k + d] ==
                        h.q[((size_t)2 * 40 + 39) * c->n_heads * c->dim_k + d]);
        free(x);
        history_free(&h);
    }
}

/* Infinities and NaN in q, k and v end nothing and are treated alike. */
static void test_strange_values_are_treated_alike(void **state)
{
    const struct fixture *f = *state;
    static const float specials[] = {INFINITY, -INFINITY, NAN, 3e38f, -3e38f, 1e-40f, 70000.0f};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof specials / sizeof specials[0]; k++) {
            struct history h;
            history_make(&cases[i], 70, &h);
            const uint32_t width = cases[i].n_heads * cases[i].dim_v;
            h.q[(size_t)69 * cases[i].n_heads * cases[i].dim_k + 5] = specials[k];
            h.k[(size_t)40 * cases[i].n_kv_heads * cases[i].dim_k + 70] = specials[k];
            h.v[(size_t)33 * cases[i].n_kv_heads * cases[i].dim_v + 3] = specials[k];
            uint32_t sequence[70] = {0};
            uint32_t position[70];
            for (uint32_t p = 0; p < 70; p++)
                position[p] = p;
            struct session ref;
            session_open(&ref, f->ref, &cases[i], 0);
            struct act *expected;
            session_step(&ref, &h, sequence, position, 70, NULL, NULL, &expected);
            for (size_t o = 0; o < f->n_others; o++) {
                struct session s;
                session_open(&s, f->others[o].backend, &cases[i], 0);
                struct act *actual;
                session_step(&s, &h, sequence, position, 70, NULL, NULL, &actual);
                fixture_same_act("strange values", f->others[o].name, f->ref, expected, s.b, actual,
                                 70, width, 0);
                s.b->ops->act_free(s.b, actual);
                session_close(&s);
            }
            f->ref->ops->act_free(f->ref, expected);
            session_close(&ref);
            history_free(&h);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention_has_the_bits_of_ref),
        cmocka_unit_test(test_a_position_does_not_depend_on_chunks_company_or_pages),
        cmocka_unit_test(test_long_sequences_have_the_bits_of_ref),
        cmocka_unit_test(test_wide_heads_have_the_bits_of_ref),
        cmocka_unit_test(test_a_shard_of_the_heads_has_the_bits_of_the_whole),
        cmocka_unit_test(test_rotation_is_in_place_and_has_the_bits_of_ref),
        cmocka_unit_test(test_strange_values_are_treated_alike),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
