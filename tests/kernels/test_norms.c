/* Norms behind a branch and of single heads, and the softcap of logits: every backend gives ref's
 * bits, and ref's are those of the operations they are made of. */
#include "tests/kernels/fixture.h"

#include "worker/kernels/numerics.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t columns[] = {1, 15, 16, 33, 100, 640, 1571};
static const uint32_t row_counts[] = {1, 3, 64};
#define ROWS_MAX 64u
#define COLS_MAX 1571u

static void norm_add(struct backend *b, const float *x, const float *gain, const float *base,
                     uint32_t n, uint32_t cols, float *ret)
{
    float *dx = fixture_upload(b, x, (size_t)n * cols);
    float *dgain = fixture_upload(b, gain, cols);
    float *out = fixture_upload(b, base, (size_t)n * cols);
    b->ops->norm_add(b, dx, n, cols, dgain, 1e-6f, out);
    b->ops->buffer_read(b, out, ret, (size_t)n * cols);
    b->ops->buffer_free(b, dx);
    b->ops->buffer_free(b, dgain);
    b->ops->buffer_free(b, out);
}

/* norm itself says what y is; norm_add adds it, rounding once more. */
static void check_norm_add_of_ref(const struct fixture *f, const float *x, const float *gain,
                                  const float *base, uint32_t n, uint32_t cols, const float *got)
{
    struct backend *b = f->ref;
    struct act *a = b->ops->act_new(b, n, cols, true);
    float *dx = fixture_upload(b, x, (size_t)n * cols);
    float *dgain = fixture_upload(b, gain, cols);
    int8_t q[COLS_MAX];
    float scales[COLS_MAX / 32 + 1], y[COLS_MAX];
    b->ops->norm(b, dx, n, cols, dgain, 1e-6f, a);
    for (uint32_t i = 0; i < n; i++) {
        b->ops->act_read(b, a, i, cols, q, scales, y);
        for (uint32_t k = 0; k < cols; k++)
            y[k] = base[(size_t)i * cols + k] + y[k];
        fixture_same("norm, then add", "ref", y, got + (size_t)i * cols, cols);
    }
    b->ops->act_free(b, a);
    b->ops->buffer_free(b, dx);
    b->ops->buffer_free(b, dgain);
}

static void test_norm_add_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {21};
    static float x[ROWS_MAX * COLS_MAX], base[ROWS_MAX * COLS_MAX], gain[COLS_MAX];
    static float expected[ROWS_MAX * COLS_MAX], actual[ROWS_MAX * COLS_MAX];
    fixture_floats(&r, x, ROWS_MAX * COLS_MAX);
    fixture_floats(&r, base, ROWS_MAX * COLS_MAX);
    fixture_floats(&r, gain, COLS_MAX);
    for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++)
        for (size_t k = 0; k < sizeof row_counts / sizeof row_counts[0]; k++) {
            uint32_t n = row_counts[k], cols = columns[c];
            char what[64];
            (void)snprintf(what, sizeof what, "norm_add of %u x %u", n, cols);
            norm_add(f->ref, x, gain, base, n, cols, expected);
            check_norm_add_of_ref(f, x, gain, base, n, cols, expected);
            for (size_t i = 0; i < f->n_others; i++) {
                norm_add(f->others[i].backend, x, gain, base, n, cols, actual);
                fixture_same(what, f->others[i].name, expected, actual, (size_t)n * cols);
            }
        }
}

static void test_softcap_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    static const float caps[] = {30.0f, 50.0f, 0.5f};
    enum { COUNT = 20011 };
    static float x[COUNT], expected[COUNT], actual[COUNT];
    struct fixture_random r = {22};
    for (size_t c = 0; c < sizeof caps / sizeof caps[0]; c++) {
        for (size_t k = 0; k < COUNT; k++) {
            x[k] = fixture_float(&r) * 20.0f;
            expected[k] = caps[c] * nm_tanh(x[k] / caps[c]);
            assert_true(expected[k] >= -caps[c] && expected[k] <= caps[c]);
        }
        for (size_t i = 0; i <= f->n_others; i++) {
            struct backend *b = i == 0 ? f->ref : f->others[i - 1].backend;
            float *dx = fixture_upload(b, x, COUNT);
            b->ops->softcap(b, dx, COUNT, caps[c]);
            b->ops->buffer_read(b, dx, actual, COUNT);
            b->ops->buffer_free(b, dx);
            fixture_same("softcap", i == 0 ? "ref" : f->others[i - 1].name, expected, actual,
                         COUNT);
        }
    }
}

/* ---- heads ------------------------------------------------------------------------------- */

enum { HEADS = 6, KV_HEADS = 2, DIM = 48, TURN = 32, N = 11 };

static void turn(struct backend *b, const float *q, const float *k, const float *v,
                 const float *q_gain, const float *k_gain, const float *table, float *ret_q,
                 float *ret_k)
{
    const struct kv_shape shape = {1, KV_HEADS, DIM, DIM, KV_TYPE_F16, 1};
    struct kv *kv;
    struct errbuf eb = {{0}};
    uint32_t positions[N], sequences[N] = {0}, page = 0;
    for (uint32_t i = 0; i < N; i++)
        positions[i] = 2 * i;
    const struct step_rows rows = {N, positions, sequences, &page, 1};
    assert_int_equal(b->ops->kv_new(b, &shape, &kv, &eb), ERR_OK);
    float *dq = fixture_upload(b, q, N * HEADS * DIM);
    float *dk = fixture_upload(b, k, N * KV_HEADS * DIM);
    float *dv = fixture_upload(b, v, N * KV_HEADS * DIM);
    float *dq_gain = fixture_upload(b, q_gain, DIM);
    float *dk_gain = fixture_upload(b, k_gain, DIM);
    const struct rope_kv_job job = {.kv = kv,
                                    .rows = &rows,
                                    .q = dq,
                                    .k = dk,
                                    .v = dv,
                                    .q_norm = dq_gain,
                                    .k_norm = dk_gain,
                                    .norm_eps = 1e-6f,
                                    .n_heads = HEADS,
                                    .rope_dim = TURN,
                                    .style = ROPE_STYLE_HALVES,
                                    .table = table};
    b->ops->rope_kv(b, &job);
    b->ops->buffer_read(b, dq, ret_q, N * HEADS * DIM);
    b->ops->buffer_read(b, dk, ret_k, N * KV_HEADS * DIM);
    float *buffers[] = {dq, dk, dv, dq_gain, dk_gain};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        b->ops->buffer_free(b, buffers[i]);
    b->ops->kv_free(b, kv);
}

/* Each head by itself through `norm`. */
static void norm_heads(struct backend *b, const float *x, uint32_t heads, const float *gain,
                       float *ret)
{
    struct act *a = b->ops->act_new(b, heads, DIM, true);
    float *dx = fixture_upload(b, x, (size_t)heads * DIM);
    float *dgain = fixture_upload(b, gain, DIM);
    int8_t q[DIM];
    float scales[DIM / 32 + 1];
    b->ops->norm(b, dx, heads, DIM, dgain, 1e-6f, a);
    for (uint32_t h = 0; h < heads; h++)
        b->ops->act_read(b, a, h, DIM, q, scales, ret + (size_t)h * DIM);
    b->ops->act_free(b, a);
    b->ops->buffer_free(b, dx);
    b->ops->buffer_free(b, dgain);
}

static void test_heads_are_normed_then_turned(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {23};
    static float q[N * HEADS * DIM], k[N * KV_HEADS * DIM], v[N * KV_HEADS * DIM];
    static float normed_q[N * HEADS * DIM], normed_k[N * KV_HEADS * DIM];
    static float want_q[N * HEADS * DIM], want_k[N * KV_HEADS * DIM];
    static float got_q[N * HEADS * DIM], got_k[N * KV_HEADS * DIM];
    static float table[2 * N * TURN];
    float q_gain[DIM], k_gain[DIM];
    fixture_floats(&r, q, N * HEADS * DIM);
    fixture_floats(&r, k, N * KV_HEADS * DIM);
    fixture_floats(&r, v, N * KV_HEADS * DIM);
    fixture_floats(&r, table, 2 * N * TURN);
    fixture_floats(&r, q_gain, DIM);
    fixture_floats(&r, k_gain, DIM);
    norm_heads(f->ref, q, N * HEADS, q_gain, normed_q);
    norm_heads(f->ref, k, N * KV_HEADS, k_gain, normed_k);
    turn(f->ref, normed_q, normed_k, v, NULL, NULL, table, want_q, want_k);
    for (size_t i = 0; i <= f->n_others; i++) {
        struct backend *b = i == 0 ? f->ref : f->others[i - 1].backend;
        const char *name = i == 0 ? "ref" : f->others[i - 1].name;
        turn(b, q, k, v, q_gain, k_gain, table, got_q, got_k);
        fixture_same("normed q", name, want_q, got_q, N * HEADS * DIM);
        fixture_same("normed k", name, want_k, got_k, N * KV_HEADS * DIM);
        /* One without the other. */
        turn(b, q, normed_k, v, q_gain, NULL, table, got_q, got_k);
        fixture_same("q alone", name, want_q, got_q, N * HEADS * DIM);
        fixture_same("k as it was", name, want_k, got_k, N * KV_HEADS * DIM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_add_has_the_bits_of_ref),
        cmocka_unit_test(test_softcap_has_the_bits_of_ref),
        cmocka_unit_test(test_heads_are_normed_then_turned),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
