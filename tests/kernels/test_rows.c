/* Embedding, quantizing, norm and gate: every backend gives ref's bits, whatever the input. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include "worker/kernels/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const uint32_t columns[] = {1, 15, 16, 17, 31, 32, 33, 64, 100, 576, 1536, 2051};
static const uint32_t row_counts[] = {1, 2, 3, 7, 64};
#define ROWS_MAX 64u
#define COLS_MAX 2051u

enum op { OP_QUANTIZE, OP_NORM, OP_SILU, OP_GELU };

static const char *const op_names[] = {"quantize", "norm", "silu gate", "gelu gate"};

static void op_run(struct backend *b, enum op op, const float *x, const float *y, uint32_t n,
                   uint32_t cols, struct act *out)
{
    float *dx = fixture_upload(b, x, (size_t)n * cols);
    float *dy = fixture_upload(b, y, (size_t)n * cols);
    switch (op) {
    case OP_QUANTIZE:
        b->ops->quantize(b, dx, n, cols, out);
        break;
    case OP_NORM:
        b->ops->norm(b, dx, n, cols, dy, 1e-5f, out);
        break;
    case OP_SILU:
        b->ops->gate(b, dx, dy, n, cols, ACTIVATION_SILU, out);
        break;
    default:
        b->ops->gate(b, dx, dy, n, cols, ACTIVATION_GELU_TANH, out);
        break;
    }
    b->ops->buffer_free(b, dx);
    b->ops->buffer_free(b, dy);
}

static void compare_op(const struct fixture *f, enum op op, const char *input, const float *x,
                       const float *y, uint32_t n, uint32_t cols, int keep_float)
{
    char what[96];
    snprintf(what, sizeof what, "%s of %s, %u x %u", op_names[op], input, n, cols);
    struct act *expected = f->ref->ops->act_new(f->ref, n, cols, keep_float);
    op_run(f->ref, op, x, y, n, cols, expected);
    for (size_t i = 0; i < f->n_others; i++) {
        struct backend *b = f->others[i].backend;
        struct act *actual = b->ops->act_new(b, n, cols, keep_float);
        op_run(b, op, x, y, n, cols, actual);
        fixture_same_act(what, f->others[i].name, f->ref, expected, b, actual, n, cols, keep_float);
        b->ops->act_free(b, actual);
    }
    f->ref->ops->act_free(f->ref, expected);
}

static void test_row_operations_have_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {11};
    static float x[ROWS_MAX * COLS_MAX];
    static float y[ROWS_MAX * COLS_MAX];
    fixture_floats(&r, x, ROWS_MAX * COLS_MAX);
    fixture_floats(&r, y, ROWS_MAX * COLS_MAX);
    for (enum op op = OP_QUANTIZE; op <= OP_GELU; op++) {
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
            for (size_t k = 0; k < sizeof row_counts / sizeof row_counts[0]; k++)
                compare_op(f, op, "ordinary values", x, y, row_counts[k], columns[c], 1);
        }
    }
}

/* Whole blocks of: zeros of both signs, subnormals, the greatest and least floats, ties of the
 * rounding, infinities, NaN. Finite results must agree in every bit; blocks that hold something
 * else quantize to nothing, alike everywhere. */
static void test_strange_values_are_treated_alike(void **state)
{
    const struct fixture *f = *state;
    static const float specials[] = {0.0f,      -0.0f,   0x1p-149f, -0x1p-149f, 0x1p-127f,
                                     0x1p-126f, 1e-37f,  -3.8e-37f, 3.4e38f,    -3.4e38f,
                                     1.0f,      0.5f,    -0.5f,     126.5f,     -127.0f,
                                     88.0f,     -104.5f, INFINITY,  -INFINITY,  NAN};
    enum { SPECIALS = sizeof specials / sizeof specials[0], COLS = SPECIALS * SPECIALS * 32 };
    static float x[COLS];
    static float y[COLS];
    /* Block (a, b): all `a` but for one `b`. */
    for (uint32_t k = 0; k < COLS; k++) {
        uint32_t block = k / 32;
        x[k] = k % 32 == block % 32 ? specials[block % SPECIALS] : specials[block / SPECIALS];
        y[k] = 1.0f;
    }
    compare_op(f, OP_QUANTIZE, "strange values", x, y, 1, COLS, 0);
    compare_op(f, OP_SILU, "strange values", x, y, 1, COLS, 0);
    compare_op(f, OP_GELU, "strange values", x, y, 1, COLS, 0);
    for (uint32_t block = 0; block < COLS / 32; block++)
        compare_op(f, OP_NORM, "strange values", x + block * 32, y, 1, 32, 0);
}

static void test_a_block_with_no_usable_scale_is_zero(void **state)
{
    const struct fixture *f = *state;
    static const float bad[] = {0.0f, -0.0f, 1e-40f, 0x1p-149f, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        float x[32] = {0};
        x[5] = bad[i];
        x[6] = isfinite(bad[i]) ? 0.0f : 1.0f;
        struct act *a = f->ref->ops->act_new(f->ref, 1, 32, false);
        f->ref->ops->quantize(f->ref, x, 1, 32, a);
        int8_t q[32];
        float scale;
        f->ref->ops->act_read(f->ref, a, 0, 32, q, &scale, NULL);
        assert_true(scale == 0.0f);
        for (int k = 0; k < 32; k++)
            assert_int_equal(q[k], 0);
        f->ref->ops->act_free(f->ref, a);
    }
}

static void test_quantizing_rounds_half_to_even(void **state)
{
    const struct fixture *f = *state;
    /* The first element makes the scale 1. */
    static const struct {
        float x;
        int8_t q;
    } cases[] = {{127.0f, 127}, {0.5f, 0},  {1.5f, 2},       {2.5f, 2},       {-0.5f, 0},
                 {-1.5f, -2},   {3.49f, 3}, {-126.5f, -126}, {-127.0f, -127}, {125.5f, 126}};
    float x[32] = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        x[i] = cases[i].x;
    struct act *a = f->ref->ops->act_new(f->ref, 1, 32, false);
    f->ref->ops->quantize(f->ref, x, 1, 32, a);
    int8_t q[32];
    float scale;
    f->ref->ops->act_read(f->ref, a, 0, 32, q, &scale, NULL);
    assert_true(scale == 1.0f);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(q[i], cases[i].q);
    f->ref->ops->act_free(f->ref, a);
}

static void test_embedding_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {13};
    enum { ROWS_MOST = 53, COLS_MOST = 1280, N = 20 };
    /* Columns that are no whole blocks are the float types'. */
    static const struct {
        uint32_t rows, cols;
    } shapes[] = {{ROWS_MOST, 768}, {31, COLS_MOST}, {8, 288}, {2, 33}, {1, 256}};
    static const float scales[] = {1.0f, 24.0f, 0.3f};
    static float expected[N * COLS_MOST], actual[N * COLS_MOST];
    int32_t ids[N];
    for (size_t t = 0; t < fixture_n_types; t++) {
        const struct quant_type_info *info = quant_type_info((uint32_t)fixture_types[t]);
        for (size_t k = 0; k < sizeof shapes / sizeof shapes[0]; k++) {
            const uint32_t rows = shapes[k].rows, cols = shapes[k].cols;
            if (cols % info->block_items != 0)
                continue;
            for (int i = 0; i < N; i++)
                ids[i] = (int32_t)fixture_below(&r, rows);
            ids[0] = 0;
            ids[1] = (int32_t)rows - 1;
            uint8_t *matrix = fixture_matrix(&r, fixture_types[t], rows, cols);
            for (size_t s = 0; s < 3 * (f->n_others + 1); s++) {
                const size_t i = s % (f->n_others + 1);
                struct backend *b = i == 0 ? f->ref : f->others[i - 1].backend;
                struct weight *w;
                struct errbuf eb = {0};
                assert_int_equal(
                    matrix_load(b, fixture_types[t], matrix, rows, cols, NULL, &w, &eb), ERR_OK);
                float *out = b->ops->buffer_new(b, (size_t)N * cols);
                b->ops->embed(b, w, ids, N, scales[s / (f->n_others + 1)], out);
                b->ops->buffer_read(b, out, i == 0 ? expected : actual, (size_t)N * cols);
                b->ops->buffer_free(b, out);
                b->ops->weight_free(b, w);
                if (i > 0)
                    fixture_same(info->name, f->others[i - 1].name, expected, actual,
                                 (size_t)N * cols);
            }
            free(matrix);
        }
    }
}

static void test_bits_of_the_definition_are_fixed(void **state)
{
    const struct fixture *f = *state;
    static const uint64_t fixed[] = {[OP_QUANTIZE] = 0xddccdfe719721c24ull,
                                     [OP_NORM] = 0x1000b9c6f303bc44ull,
                                     [OP_SILU] = 0xed4f83a43af29b00ull,
                                     [OP_GELU] = 0x6ee18e8fcc5c53b4ull};
    enum { COLS = 1571 };
    struct fixture_random r = {78};
    float x[COLS];
    float y[COLS];
    fixture_floats(&r, x, COLS);
    fixture_floats(&r, y, COLS);
    for (enum op op = OP_QUANTIZE; op <= OP_GELU; op++) {
        /* The floats, and behind them each quant times its scale. */
        float result[2 * COLS];
        int8_t q[COLS];
        float scales[COLS / 32 + 1];
        struct act *a = f->ref->ops->act_new(f->ref, 1, COLS, true);
        op_run(f->ref, op, x, y, 1, COLS, a);
        f->ref->ops->act_read(f->ref, a, 0, COLS, q, scales, result);
        for (int k = 0; k < COLS; k++)
            result[COLS + k] = scales[k / 32] * (float)q[k];
        f->ref->ops->act_free(f->ref, a);
        assert_int_equal(fixture_hash(result, 2 * COLS), fixed[op]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_operations_have_the_bits_of_ref),
        cmocka_unit_test(test_strange_values_are_treated_alike),
        cmocka_unit_test(test_a_block_with_no_usable_scale_is_zero),
        cmocka_unit_test(test_quantizing_rounds_half_to_even),
        cmocka_unit_test(test_embedding_has_the_bits_of_ref),
        cmocka_unit_test(test_bits_of_the_definition_are_fixed),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
