/*
 * Steps on the emulated device: what is announced with step_begin and called afterwards, captured
 * or replayed as a graph, gives the bits of the same operations called on ref one by one; and a
 * replayed step launches nothing by itself. So does a stretch of a step between two exchanges.
 */
#include "tests/cuda_emulation/emulation.h"
#include "tests/kernels/fixture.h"

#include "worker/kernels/rope_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    HEADS = 6,
    KV_HEADS = 2,
    DIM = 32,
    Q_COLS = HEADS * DIM,
    KV_COLS = KV_HEADS * DIM,
    LAYERS = 2,
    SEQUENCES = 3,
    PAGES_EACH = 9,
    POSITIONS = PAGES_EACH * (int)KV_PAGE_TOKENS,
    ROWS_MAX = 80,
};

/* A model without matrices: its rows are rotated, attend, and are capped. */
struct small_model {
    struct backend *b;
    struct kv *kv;
    float *q, *k, *v, *gain;
    struct act *normed, *attended;
};

static void model_open(struct small_model *m, struct backend *b, enum kv_type type)
{
    const struct kv_shape shape = {LAYERS, KV_HEADS, DIM, DIM, type, SEQUENCES * PAGES_EACH};
    struct errbuf eb = {{0}};
    float gain[Q_COLS];
    struct fixture_random r = {77};

    fixture_floats(&r, gain, Q_COLS);
    m->b = b;
    assert_int_equal(b->ops->kv_new(b, &shape, &m->kv, &eb), ERR_OK);
    m->q = b->ops->buffer_new(b, ROWS_MAX * Q_COLS);
    m->k = b->ops->buffer_new(b, ROWS_MAX * KV_COLS);
    m->v = b->ops->buffer_new(b, ROWS_MAX * KV_COLS);
    m->gain = fixture_upload(b, gain, Q_COLS);
    m->normed = b->ops->act_new(b, ROWS_MAX, Q_COLS, true);
    m->attended = b->ops->act_new(b, ROWS_MAX, Q_COLS, true);
    assert_true(m->q != NULL && m->k != NULL && m->v != NULL && m->normed != NULL &&
                m->attended != NULL);
}

static void model_close(struct small_model *m)
{
    struct backend *b = m->b;
    b->ops->kv_free(b, m->kv);
    b->ops->buffer_free(b, m->q);
    b->ops->buffer_free(b, m->k);
    b->ops->buffer_free(b, m->v);
    b->ops->buffer_free(b, m->gain);
    b->ops->act_free(b, m->normed);
    b->ops->act_free(b, m->attended);
}

static struct step_rows rows_from(const struct step_rows *rows, uint32_t first)
{
    struct step_rows from = *rows;
    from.n_rows -= first;
    from.position += first;
    from.sequence += first;
    return from;
}

/* The operations of a step, as the engine calls them: the last layer's for the last `n_results`
 * rows only. */
static void model_layers(const struct small_model *m, const struct step_rows *rows,
                         uint32_t n_results, const float *table)
{
    struct backend *b = m->b;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        const struct rope_kv_job rope = {.kv = m->kv,
                                         .layer = layer,
                                         .rows = rows,
                                         .q = m->q,
                                         .k = m->k,
                                         .v = m->v,
                                         .n_heads = HEADS,
                                         .rope_dim = DIM,
                                         .style = ROPE_STYLE_HALVES,
                                         .table = table};
        const uint32_t first = layer + 1 == LAYERS ? rows->n_rows - n_results : 0;
        const struct step_rows own = rows_from(rows, first);
        const struct attention_job attention = {.kv = m->kv,
                                                .layer = layer,
                                                .rows = &own,
                                                .q = m->q + (size_t)first * Q_COLS,
                                                .n_heads = HEADS,
                                                .scale = 0.2f,
                                                .window = layer == 0 ? 70 : 0,
                                                .out = m->attended};
        b->ops->rope_kv(b, &rope);
        if (own.n_rows == 0)
            return;
        b->ops->attention(b, &attention);
        b->ops->norm(b, attention.q, own.n_rows, Q_COLS, m->gain, 1e-5f, m->normed);
    }
    float *last = m->q + (size_t)(rows->n_rows - n_results) * Q_COLS;
    b->ops->softcap(b, last, (size_t)n_results * Q_COLS, 2.0f);
}

struct plan {
    const char *name;
    uint32_t n_rows, n_results;
    bool has_run; /* all rows of one sequence; else rows of as many sequences */
    uint32_t times;
    bool is_graph;
    bool is_full; /* there is no memory for its graph until others have gone */
};

static void compare_acts(const char *what, const struct small_model *ref,
                         const struct small_model *other, uint32_t n)
{
    fixture_same_act(what, "cuda", ref->b, ref->attended, other->b, other->attended, n, Q_COLS, 1);
    fixture_same_act(what, "cuda", ref->b, ref->normed, other->b, other->normed, n, Q_COLS, 1);
}

/* Runs the plan `times` times on both, each time further on in the sequences. */
static void run_plan(const struct plan *p, struct small_model *ref, struct small_model *cuda,
                     const float *table, const uint32_t *pages, uint32_t *lengths,
                     struct fixture_random *r)
{
    struct small_model *both[] = {ref, cuda};
    static float q[ROWS_MAX * Q_COLS], k[ROWS_MAX * KV_COLS], v[ROWS_MAX * KV_COLS];
    const struct emu_traffic before = emu_traffic_get();
    uint32_t replays = 0;

    for (uint32_t t = 0; t < p->times; t++) {
        uint32_t position[ROWS_MAX], sequence[ROWS_MAX];
        for (uint32_t i = 0; i < p->n_rows; i++) {
            sequence[i] = p->has_run ? 1 : i % SEQUENCES;
            position[i] = lengths[sequence[i]]++;
        }
        const struct step_rows rows = {p->n_rows, position, sequence, pages, PAGES_EACH};
        if (p->is_full && t == 1) /* when it is captured */
            emu_inject_call("cudaGraphInstantiate", 1, cudaErrorMemoryAllocation, false);
        fixture_floats(r, q, p->n_rows * Q_COLS);
        fixture_floats(r, k, p->n_rows * KV_COLS);
        fixture_floats(r, v, p->n_rows * KV_COLS);
        float *results[2];
        for (int i = 0; i < 2; i++) {
            struct small_model *m = both[i];
            struct backend *b = m->b;
            results[i] = m->q + (size_t)(p->n_rows - p->n_results) * Q_COLS;
            b->ops->buffer_write(b, m->q, q, (size_t)p->n_rows * Q_COLS);
            b->ops->buffer_write(b, m->k, k, (size_t)p->n_rows * KV_COLS);
            b->ops->buffer_write(b, m->v, v, (size_t)p->n_rows * KV_COLS);
            const struct backend_piece piece = {results[i], (size_t)p->n_results * Q_COLS};
            const struct backend_step step = {.rows = rows,
                                              .n_results = p->n_results,
                                              .pieces = &piece,
                                              .n_pieces = p->n_results > 0,
                                              .rope = {table},
                                              .rope_dim = DIM,
                                              .is_fixed = strcmp(p->name, "not fixed") != 0};
            const bool is_replay = b->ops->step_begin(b, &step);
            if (is_replay)
                replays++;
            else
                model_layers(m, &rows, p->n_results, table);
            b->ops->step_end(b);
            assert_true(!is_replay || i == 1);
        }
        if (p->n_results == 0)
            continue;
        compare_acts(p->name, ref, cuda, p->n_results);
        /* Rows of the results, each by itself, all at once, in any order. */
        const float *host[ROWS_MAX];
        for (uint32_t i = p->n_results; i-- > 0;)
            host[i] = cuda->b->ops->buffer_host(cuda->b, results[1] + (size_t)i * Q_COLS, Q_COLS);
        for (uint32_t i = 0; i < p->n_results; i++)
            fixture_same(p->name, "cuda", ref->q + (results[0] - ref->q) + (size_t)i * Q_COLS,
                         host[i], Q_COLS);
    }
    emu_inject_clear();
    /* A shape is run, then captured, and replayed from then on. */
    const struct emu_traffic after = emu_traffic_get();
    const uint64_t graphs = after.graph_launches - before.graph_launches;
    if (p->is_graph)
        assert_true(replays > 0 && graphs >= replays && graphs <= replays + 1);
    else
        assert_true(replays == 0 && graphs == 0);
}

static void test_steps_captured_and_replayed_have_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    static const struct plan plans[] = {
        {"a prompt", 70, 1, true, 1, false, false},
        {"one row", 1, 1, false, 5, true, false},
        {"three rows", 3, 3, false, 6, true, false},
        {"rows without results", 5, 0, true, 3, true, false},
        {"a short prompt", 9, 2, true, 4, true, false},
        {"one row again", 1, 1, false, 2, true, false},
        {"more rows than graphs", 66, 66, true, 1, false, false},
        {"not fixed", 1, 1, false, 3, false, false},
        {"a full device", 2, 2, false, 4, true, true},
        {"one row, after it was dropped", 1, 1, false, 4, true, false},
    };
    uint32_t pages[SEQUENCES * PAGES_EACH];
    for (uint32_t i = 0; i < SEQUENCES * PAGES_EACH; i++)
        pages[i] = i * 5 % (SEQUENCES * PAGES_EACH);
    const struct rope_params params = {.base = 10000.0, .dim = DIM, .linear_scale = 1.0};
    struct errbuf eb = {{0}};
    struct rope_table *table;
    assert_int_equal(rope_table_new(&params, POSITIONS, &table, &eb), ERR_OK);
    rope_table_reach(table, POSITIONS);
    for (int type = 0; type < 2; type++) {
        struct small_model ref, cuda;
        uint32_t lengths[SEQUENCES] = {0, 0, 0};
        struct fixture_random r = {5};
        model_open(&ref, f->ref, type == 0 ? KV_TYPE_F16 : KV_TYPE_Q8_0);
        model_open(&cuda, f->others[0].backend, type == 0 ? KV_TYPE_F16 : KV_TYPE_Q8_0);
        for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++)
            run_plan(&plans[i], &ref, &cuda, rope_table_cells(table), pages, lengths, &r);
        model_close(&ref);
        model_close(&cuda);
    }
    rope_table_free(table);
}

/* What is picked differs from step to step while the launches are the same; rows that are wanted
 * whole come beside what was picked of others, each as a piece of its own. */
static void test_picks_of_replayed_steps_are_their_own(void **state)
{
    const struct fixture *f = *state;
    enum { N = 4, COLS = 1029, TIMES = 6 };
    static const enum pick_kind kinds[] = {PICK_LIST, PICK_ROW, PICK_DRAW, PICK_ROW, PICK_BEST};
    struct backend *b = f->others[0].backend;
    static float x[N * COLS];
    static struct picked want[N];
    float *logits = b->ops->buffer_new(b, N * COLS);
    float *picked = b->ops->buffer_new(b, N * PICKED_FLOATS);
    const uint32_t position[N] = {0}, sequence[N] = {0, 1, 2, 3}, pages[N] = {0, 1, 2, 3};
    struct fixture_random r = {91};
    uint32_t replays = 0;

    for (uint32_t t = 0; t < TIMES; t++) {
        struct pick picks[N];
        struct backend_piece pieces[N + 1] = {{picked, N * PICKED_FLOATS}};
        uint32_t n_pieces = 1;
        for (uint32_t i = 0; i < N; i++) {
            picks[i] = (struct pick){.kind = kinds[(t + i) % 5],
                                     .count = 1 + fixture_below(&r, PICK_LIST_MAX),
                                     .temperature = 0.5f + (float)t,
                                     .position = t,
                                     .seed = fixture_next(&r)};
            if (picks[i].kind == PICK_ROW)
                pieces[n_pieces++] = (struct backend_piece){logits + i * COLS, COLS};
        }
        fixture_floats(&r, x, N * COLS);
        b->ops->buffer_write(b, logits, x, N * COLS);
        const struct backend_step step = {.rows = {N, position, sequence, pages, 1},
                                          .n_results = N,
                                          .picks = picks,
                                          .pieces = pieces,
                                          .n_pieces = n_pieces,
                                          .is_fixed = true};
        if (b->ops->step_begin(b, &step))
            replays++;
        else
            b->ops->pick(b, logits, N, COLS, picks, picked);
        b->ops->step_end(b);
        f->ref->ops->pick(f->ref, x, N, COLS, picks, (float *)(void *)want);
        for (uint32_t i = N; i-- > 0;) {
            const struct picked *got = (const struct picked *)(const void *)b->ops->buffer_host(
                b, picked + i * PICKED_FLOATS, PICKED_FLOATS);
            if (picks[i].kind == PICK_ROW) {
                fixture_same("a whole row", "cuda", x + i * COLS,
                             b->ops->buffer_host(b, logits + i * COLS, COLS), COLS);
            } else if (picks[i].kind == PICK_LIST) {
                assert_int_equal(got->n, want[i].n);
                assert_memory_equal(got->ids, want[i].ids, want[i].n * sizeof want[i].ids[0]);
                fixture_same("a list", "cuda", want[i].z, got->z, want[i].n);
            } else {
                assert_int_equal(got->id, want[i].id);
            }
        }
    }
    assert_int_equal(replays, TIMES - 2);
    b->ops->buffer_free(b, logits);
    b->ops->buffer_free(b, picked);
}

/* ---- stretches between exchanges ------------------------------------------------------------- */

enum { CUT_COLS = 64, CUT_ROWS = 4, CUT_PIECE = CUT_ROWS * CUT_COLS };

/* Two buffers that are added to each other and capped, in turn, and on each side of an exchange. */
struct cut {
    struct backend *b;
    float *x, *y, *gain;
};

static struct cut cut_open(struct backend *b)
{
    float x[CUT_PIECE], gain[CUT_COLS];
    struct fixture_random r = {13};
    fixture_floats(&r, x, CUT_PIECE);
    fixture_floats(&r, gain, CUT_COLS);
    return (struct cut){b, fixture_upload(b, x, CUT_PIECE), fixture_upload(b, x, CUT_PIECE),
                        fixture_upload(b, gain, CUT_COLS)};
}

static void cut_close(const struct cut *c)
{
    c->b->ops->buffer_free(c->b, c->x);
    c->b->ops->buffer_free(c->b, c->y);
    c->b->ops->buffer_free(c->b, c->gain);
}

static void cut_begin(const struct cut *c, uint32_t n)
{
    static const uint32_t zeros[CUT_ROWS], pages[CUT_ROWS] = {0, 1, 2, 3};
    static const uint32_t sequence[CUT_ROWS] = {0, 1, 2, 3};
    const struct backend_step step = {.rows = {n, zeros, sequence, pages, 1}, .may_hold = true};
    assert_false(c->b->ops->step_begin(c->b, &step));
}

static void cut_stretch(const struct cut *c, uint32_t n, bool is_second, float cap)
{
    float *from = is_second ? c->y : c->x, *to = is_second ? c->x : c->y;
    c->b->ops->norm_add(c->b, from, n, CUT_COLS, c->gain, 1e-5f, to);
    c->b->ops->softcap(c->b, to, (size_t)n * CUT_COLS, cap);
}

static void cut_compare(const char *what, const struct cut both[2])
{
    float of[2][2 * CUT_PIECE];
    for (int i = 0; i < 2; i++) {
        both[i].b->ops->buffer_read(both[i].b, both[i].x, of[i], CUT_PIECE);
        both[i].b->ops->buffer_read(both[i].b, both[i].y, of[i] + CUT_PIECE, CUT_PIECE);
    }
    fixture_same(what, "cuda", of[0], of[1], 2 * CUT_PIECE);
}

/* Compared are arguments: a stretch is replayed where all of them are those of before. */
static void test_stretches_are_replayed_where_their_arguments_are_the_same(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *name;
        uint32_t n;
        float cap[2];
        uint32_t graphs, launches;
    } steps[] = {
        {"new", 3, {2.0f, 3.0f}, 0, 4},
        {"captured", 3, {2.0f, 3.0f}, 2, 4},
        {"replayed", 3, {2.0f, 3.0f}, 2, 0},
        {"another second half", 3, {2.0f, 4.0f}, 1, 2},
        {"captured as well", 3, {2.0f, 4.0f}, 2, 2},
        {"the first one still", 3, {2.0f, 3.0f}, 2, 0},
        {"the other one", 3, {2.0f, 4.0f}, 2, 0},
        {"both in their other place", 3, {4.0f, 2.0f}, 0, 4},
        {"other rows", 2, {2.0f, 3.0f}, 0, 4},
        {"the first one again", 3, {2.0f, 3.0f}, 2, 0},
    };
    struct cut both[2] = {cut_open(f->ref), cut_open(f->others[0].backend)};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        const struct emu_traffic before = emu_traffic_get();
        for (int k = 0; k < 2; k++) {
            struct backend *b = both[k].b;
            cut_begin(&both[k], steps[i].n);
            cut_stretch(&both[k], steps[i].n, false, steps[i].cap[0]);
            if (i % 2 == 0)
                b->ops->exchange_done(b);
            else
                b->ops->submit(b);
            cut_stretch(&both[k], steps[i].n, true, steps[i].cap[1]);
            b->ops->step_end(b);
        }
        const struct emu_traffic after = emu_traffic_get();
        cut_compare(steps[i].name, both);
        if (after.graph_launches - before.graph_launches != steps[i].graphs ||
            after.launches - before.launches != steps[i].launches)
            fail_msg("%s: %llu graphs, %llu launches", steps[i].name,
                     (unsigned long long)(after.graph_launches - before.graph_launches),
                     (unsigned long long)(after.launches - before.launches));
    }
    cut_close(&both[0]);
    cut_close(&both[1]);
}

/* What looks at results, and what takes arrays of its own, finds what was called before it done. */
static void test_what_is_held_back_goes_before_what_is_not(void **state)
{
    const struct fixture *f = *state;
    static const uint32_t at[2] = {2, 0};
    struct cut both[2] = {cut_open(f->ref), cut_open(f->others[0].backend)};
    for (uint32_t t = 0; t < 4; t++) {
        float seen[2][CUT_PIECE], own[CUT_PIECE];
        struct fixture_random r = {t};
        fixture_floats(&r, own, CUT_PIECE);
        for (int k = 0; k < 2; k++) {
            struct backend *b = both[k].b;
            cut_begin(&both[k], 3);
            cut_stretch(&both[k], 3, false, 2.0f);
            b->ops->buffer_read(b, both[k].y, seen[k], CUT_PIECE);
            cut_stretch(&both[k], 3, true, 3.0f);
            b->ops->place(b, both[k].x, at, 2, CUT_COLS, both[k].y);
            cut_stretch(&both[k], 3, true, 4.0f);
            memcpy(seen[k], b->ops->buffer_host(b, both[k].x, CUT_PIECE), sizeof seen[k]);
            b->ops->buffer_write(b, both[k].y, own, CUT_COLS);
            cut_stretch(&both[k], 3, false, 5.0f);
            b->ops->step_end(b);
        }
        fixture_same("read within a step", "cuda", seen[0], seen[1], CUT_PIECE);
        cut_compare("held back", both);
    }
    cut_close(&both[0]);
    cut_close(&both[1]);
}

/* One step with more stretches than are kept: they are launched. Those of another step make room
 * for theirs by dropping them. */
static void test_stretches_are_bounded(void **state)
{
    const struct fixture *f = *state;
    enum { KEPT = 8192, MORE = 50 };
    struct cut both[2] = {cut_open(f->ref), cut_open(f->others[0].backend)};
    static const struct {
        uint32_t n, first, end, graphs;
    } steps[] = {
        {1, 0, KEPT + MORE, 0}, {1, 0, 20, 20}, {1, KEPT + MORE - 10, KEPT + MORE, 0},
        {1, 0, 20, 20},         {2, 0, 3, 0},   {2, 0, 3, 3},
        {1, 0, 3, 0},           {2, 0, 3, 3},   {1, 0, 3, 3},
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        const struct emu_traffic before = emu_traffic_get();
        for (int k = 0; k < 2; k++) {
            struct backend *b = both[k].b;
            cut_begin(&both[k], steps[i].n);
            for (uint32_t s = steps[i].first; s < steps[i].end; s++) {
                cut_stretch(&both[k], steps[i].n, s % 2 > 0, 2.0f + (float)s / 64.0f);
                b->ops->submit(b);
            }
            b->ops->step_end(b);
        }
        cut_compare("many stretches", both);
        assert_int_equal(emu_traffic_get().graph_launches - before.graph_launches, steps[i].graphs);
    }
    cut_close(&both[0]);
    cut_close(&both[1]);
}

/* What others do on the stream, or, on the CPU, between two calls. */
static bool halve(void *y)
{
    float *at = y;
    for (uint32_t i = 0; i < CUT_PIECE; i++)
        at[i] *= 0.5f;
    return true;
}

static void test_what_others_queue_lies_between_stretches_that_are_put_off(void **state)
{
    const struct fixture *f = *state;
    struct cut both[2] = {cut_open(f->ref), cut_open(f->others[0].backend)};
    struct backend *cuda = both[1].b;
    struct device_stream stream;
    struct errbuf eb = {{0}};
    assert_int_equal(cuda->ops->stream(cuda, &stream, &eb), ERR_OK);
    assert_false(both[0].b->ops->put_off != NULL);
    for (uint32_t t = 0; t < 5; t++) {
        const struct emu_traffic before = emu_traffic_get();
        cut_begin(&both[0], 3);
        cut_stretch(&both[0], 3, false, 2.0f);
        halve(both[0].y);
        halve(both[0].x);
        cut_stretch(&both[0], 3, true, 3.0f);
        both[0].b->ops->softcap(both[0].b, both[0].y, CUT_COLS, 1.5f);
        both[0].b->ops->step_end(both[0].b);
        cut_begin(&both[1], 3);
        assert_true(cuda->ops->put_off(cuda));
        cut_stretch(&both[1], 3, false, 2.0f);
        cuda->ops->submit(cuda);
        cuda->ops->submit(cuda); /* of two exchanges with nothing in between */
        cut_stretch(&both[1], 3, true, 3.0f);
        cuda->ops->submit(cuda);
        cuda->ops->softcap(cuda, both[1].y, CUT_COLS, 1.5f);
        assert_int_equal(emu_traffic_get().launches - before.launches, 0);
        assert_int_equal(cuda->ops->is_known(cuda), t >= 2);
        cuda->ops->queue_next(cuda);
        emu_stream_outside(stream.queue, halve, both[1].y);
        cuda->ops->queue_next(cuda);
        emu_stream_outside(stream.queue, halve, both[1].x);
        cuda->ops->queue_next(cuda);
        if (t != 3) /* the last may be left to the end */
            cuda->ops->queue_next(cuda);
        cuda->ops->step_end(cuda);
        const struct emu_traffic after = emu_traffic_get();
        cut_compare("put off", both);
        assert_int_equal(after.graph_launches - before.graph_launches, t == 0 ? 0 : 2);
        assert_int_equal(after.launches - before.launches, t < 2 ? 5 : 1);
    }
    cut_begin(&both[1], 3);
    cuda->ops->step_end(cuda);
    const uint32_t none[CUT_ROWS] = {0};
    const struct backend_step step = {.rows = {1, none, none, none, 1}};
    assert_false(cuda->ops->step_begin(cuda, &step));
    assert_false(cuda->ops->put_off(cuda)); /* nothing is held back */
    cuda->ops->step_end(cuda);
    cut_close(&both[0]);
    cut_close(&both[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stretches_are_replayed_where_their_arguments_are_the_same),
        cmocka_unit_test(test_what_is_held_back_goes_before_what_is_not),
        cmocka_unit_test(test_what_others_queue_lies_between_stretches_that_are_put_off),
        cmocka_unit_test(test_stretches_are_bounded),
        cmocka_unit_test(test_picks_of_replayed_steps_are_their_own),
        cmocka_unit_test(test_steps_captured_and_replayed_have_the_bits_of_ref),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
