/* Matrix products: every type x shape x number of rows x groups x backend gives ref's bits. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include "worker/kernels/half.h"
#include "worker/kernels/quant_block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Rows and columns that fill panels, leaves and lanes and that do not. Columns that are no multiple
 * of 32 are for the float types only. */
static const struct {
    uint32_t rows;
    uint32_t cols;
} shapes[] = {{1, 32},    {16, 256}, {15, 288}, {17, 512}, {48, 576},  {33, 1536}, {100, 64},
              {64, 2080}, {7, 1},    {20, 33},  {5, 319},  {16, 1000}, {83, 1280}};

/* Rows of x as kernels take them: on a GPU 1, 2, up to 4, 8, 16, 32 and 64 at a time. The emulated
 * one takes its time, so a product has one list or the other, by its numbers of groups. */
#define ROW_LISTS 2u
#ifdef KERNELS_CUDA
static const uint32_t row_counts[ROW_LISTS][7] = {{1, 2, 3, 7, 11, 17, 64},
                                                  {1, 4, 5, 8, 9, 16, 33}};
#else
static const uint32_t row_counts[ROW_LISTS][10] = {{1, 2, 3, 4, 5, 6, 7, 8, 17, 64},
                                                   {4, 5, 8, 9, 12, 13, 16, 28, 30, 33}};
#endif
static const uint32_t group_counts[] = {1, 3, 8};

#define ROWS_MAX 64u

struct product {
    enum quant_type type;
    const uint8_t *matrix;
    uint32_t rows;
    uint32_t cols;
    uint32_t groups;
    const float *x; /* [ROWS_MAX][cols] */
    const float *bias;
    bool accumulate;
};

/* Groups of leaves where there are enough of them, else of blocks. */
static struct sum_cut cut_of(uint32_t cols, uint32_t groups)
{
    return sum_cut_whole(cols, groups,
                         cols >= groups * SUM_LEAF_BLOCKS * SUM_BLOCK_ITEMS ? SUM_LEAF_BLOCKS : 1);
}

/* The result of p for n rows on backend b, in ret_out[n][stride]; gaps keep what was there. */
static void product_run(struct backend *b, const struct product *p, uint32_t n, uint32_t stride,
                        float *ret_out)
{
    const struct backend_ops *ops = b->ops;
    struct errbuf eb = {0};
    struct weight *w = NULL;
    const struct sum_cut cut = cut_of(p->cols, p->groups);
    if (matrix_load(b, p->type, p->matrix, p->rows, p->cols, &cut, &w, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    struct act *x = ops->act_new(b, n, p->cols, true);
    float *in = fixture_upload(b, p->x, (size_t)n * p->cols);
    float *out = fixture_upload(b, ret_out, (size_t)n * stride);
    float *bias = fixture_upload(b, p->bias, p->rows);
    ops->quantize(b, in, n, p->cols, x);
    const struct matmul_job job = {
        .weight = w, .out = out, .out_stride = stride, .bias = bias, .accumulate = p->accumulate};
    ops->matmul(b, x, n, &job, 1);
    ops->buffer_read(b, out, ret_out, (size_t)n * stride);
    ops->buffer_free(b, in);
    ops->buffer_free(b, out);
    ops->buffer_free(b, bias);
    ops->act_free(b, x);
    ops->weight_free(b, w);
}

static void compare_products(const struct fixture *f, const struct product *p)
{
    const uint32_t stride = p->rows + 3;
    const size_t count = (size_t)ROWS_MAX * stride;
    float *before = malloc(count * sizeof *before);
    float *expected = malloc(count * sizeof *expected);
    float *actual = malloc(count * sizeof *actual);
    assert_true(before != NULL && expected != NULL && actual != NULL);
    struct fixture_random r = {p->rows};
    fixture_floats(&r, before, count);
    /* A row's result does not depend on n, so ref computes all rows once. */
    memcpy(expected, before, count * sizeof *expected);
    product_run(f->ref, p, ROWS_MAX, stride, expected);
    const uint32_t list = (p->cols / SUM_BLOCK_ITEMS + p->groups) / 2 % ROW_LISTS;
    for (size_t i = 0; i < f->n_others; i++) {
        for (size_t k = 0; k < sizeof row_counts[0] / sizeof row_counts[0][0]; k++) {
            uint32_t n = row_counts[list][k];
            char what[96];
            snprintf(what, sizeof what, "%s %ux%u, %u groups, n = %u",
                     quant_type_info((uint32_t)p->type)->name, p->rows, p->cols, p->groups, n);
            memcpy(actual, before, count * sizeof *actual);
            product_run(f->others[i].backend, p, n, stride, actual);
            fixture_same(what, f->others[i].name, expected, actual, (size_t)n * stride);
        }
    }
    free(before);
    free(expected);
    free(actual);
}

static void test_every_product_has_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {1};
    for (size_t t = 0; t < fixture_n_types; t++) {
        size_t fits = 0, taken = 0; /* shapes that the type can have */
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            uint32_t rows = shapes[s].rows;
            uint32_t cols = shapes[s].cols;
            if (cols % quant_type_info((uint32_t)fixture_types[t])->block_items != 0 ||
                fixture_leaves_out(fits++, t))
                continue;
            taken++;
            uint8_t *matrix = fixture_matrix(&r, fixture_types[t], rows, cols);
            float *x = malloc((size_t)ROWS_MAX * cols * sizeof *x);
            float *bias = malloc(rows * sizeof *bias);
            assert_true(x != NULL && bias != NULL);
            fixture_floats(&r, x, (size_t)ROWS_MAX * cols);
            fixture_floats(&r, bias, rows);
            for (size_t g = 0; g < sizeof group_counts / sizeof group_counts[0]; g++) {
                if (group_counts[g] > (cols + 31) / 32)
                    continue;
                struct product p = {.type = fixture_types[t],
                                    .matrix = matrix,
                                    .rows = rows,
                                    .cols = cols,
                                    .groups = group_counts[g],
                                    .x = x,
                                    .bias = s % 2 == 0 ? bias : NULL,
                                    .accumulate = s % 3 == 0};
                compare_products(f, &p);
            }
            free(matrix);
            free(x);
            free(bias);
        }
        assert_true(taken > 0 && fits >= 4);
    }
}

/* The largest sums there can be: every quant and every activation at its extreme, both signs. */
static void test_extreme_quants_do_not_overflow(void **state)
{
    const struct fixture *f = *state;
    static const uint8_t fills[] = {0x00, 0xff, 0x7f, 0x80, 0x0f, 0xf0};
    const uint32_t rows = 18;
    enum { COLS = 512 };
    static float x[ROWS_MAX * COLS];
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        for (uint32_t c = 0; c < COLS; c++)
            x[i * COLS + c] = (i % 3 == 0 || (i % 3 == 1 && c % 2 == 0)) ? 127.0f : -127.0f;
    }
    for (size_t t = 0; t < fixture_n_types; t++) {
        const enum quant_type type = fixture_types[t];
        const struct quant_type_info *info = quant_type_info((uint32_t)type);
        if (info->block_items == 1)
            continue;
        size_t blocks = (size_t)rows * COLS / info->block_items;
        uint8_t *matrix = malloc(blocks * info->block_bytes);
        assert_non_null(matrix);
        for (size_t k = 0; k < sizeof fills; k++) {
            memset(matrix, fills[k], blocks * info->block_bytes);
            for (size_t i = 0; i < blocks; i++) {
                if (type == QUANT_TYPE_MXFP4)
                    matrix[i * info->block_bytes] = (uint8_t)(126 + i % 2);
                else
                    fixture_scale(type, matrix + i * info->block_bytes, half_from_float(0.5f),
                                  half_from_float(-0.25f));
            }
            struct product p = {
                .type = type, .matrix = matrix, .rows = rows, .cols = COLS, .groups = 1, .x = x};
            compare_products(f, &p);
        }
        free(matrix);
    }
}

/* Several jobs in one call share x; each is what it would be alone. */
static void test_jobs_of_one_call_are_independent(void **state)
{
    const struct fixture *f = *state;
    enum { JOBS = 19, COLS = 768, N = 5 };
    struct fixture_random r = {7};
    float x[N * COLS];
    fixture_floats(&r, x, N * COLS);
    uint8_t *matrix[JOBS];
    uint32_t rows[JOBS];
    enum quant_type types[JOBS];
    for (int j = 0; j < JOBS; j++) {
        rows[j] = 1 + fixture_below(&r, 90);
        types[j] = fixture_types[(size_t)j % fixture_n_types];
        matrix[j] = fixture_matrix(&r, types[j], rows[j], COLS);
    }
    for (size_t i = 0; i < f->n_others; i++) {
        struct backend *b = f->others[i].backend;
        struct errbuf eb = {0};
        struct matmul_job jobs[JOBS];
        struct act *act = b->ops->act_new(b, N, COLS, true);
        float *in = fixture_upload(b, x, N * COLS);
        b->ops->quantize(b, in, N, COLS, act);
        for (int j = 0; j < JOBS; j++) {
            struct weight *w;
            const struct sum_cut cut = cut_of(COLS, 2);
            assert_int_equal(matrix_load(b, types[j], matrix[j], rows[j], COLS, &cut, &w, &eb),
                             ERR_OK);
            jobs[j] = (struct matmul_job){.weight = w,
                                          .out = b->ops->buffer_new(b, (size_t)N * rows[j]),
                                          .out_stride = rows[j]};
        }
        b->ops->matmul(b, act, N, jobs, JOBS);
        for (int j = 0; j < JOBS; j++) {
            float expected[N * 91];
            float actual[N * 91];
            struct product p = {.type = types[j],
                                .matrix = matrix[j],
                                .rows = rows[j],
                                .cols = COLS,
                                .groups = 2,
                                .x = x};
            memset(expected, 0, sizeof expected);
            product_run(f->ref, &p, N, rows[j], expected);
            b->ops->buffer_read(b, jobs[j].out, actual, (size_t)N * rows[j]);
            fixture_same("one of many jobs", f->others[i].name, expected, actual,
                         (size_t)N * rows[j]);
            b->ops->buffer_free(b, jobs[j].out);
            b->ops->weight_free(b, (struct weight *)jobs[j].weight);
        }
        b->ops->buffer_free(b, in);
        b->ops->act_free(b, act);
    }
    for (int j = 0; j < JOBS; j++)
        free(matrix[j]);
}

/* The head of a model is thousands of rows: enough panels for several tasks per thread. */
static void test_a_tall_matrix_is_cut_without_a_seam(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {9};
    const uint32_t rows = 1541;
    const uint32_t cols = 96;
    uint8_t *matrix = fixture_matrix(&r, QUANT_TYPE_Q8_0, rows, cols);
    float *x = malloc((size_t)ROWS_MAX * cols * sizeof *x);
    assert_non_null(x);
    fixture_floats(&r, x, (size_t)ROWS_MAX * cols);
    struct product p = {
        .type = QUANT_TYPE_Q8_0, .matrix = matrix, .rows = rows, .cols = cols, .groups = 1, .x = x};
    compare_products(f, &p);
    free(matrix);
    free(x);
}

/* n rows on every backend; room for them in both. */
static void compare_whole(const struct fixture *f, const struct product *p, uint32_t n,
                          float *expected, float *actual)
{
    const size_t count = (size_t)n * p->rows;
    product_run(f->ref, p, n, p->rows, expected);
    for (size_t i = 0; i < f->n_others; i++) {
        memset(actual, 0xff, count * sizeof *actual);
        product_run(f->others[i].backend, p, n, p->rows, actual);
        fixture_same(quant_type_info((uint32_t)p->type)->name, f->others[i].name, expected, actual,
                     count);
    }
}

/* A prompt's rows are taken 128 at a time, and a matrix may be cut into as many groups as there can
 * be: the second run of rows, and every level of the tree over the groups. */
static void test_many_rows_and_groups_have_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    enum { ROWS = 21, COLS = 2304, N = 131 };
    static const uint32_t groups[] = {64, 16, 5};
    static float x[N * COLS];
    static float expected[N * ROWS];
    static float actual[N * ROWS];
    struct fixture_random r = {11};
    fixture_floats(&r, x, N * COLS);
    for (size_t t = 0; t < fixture_n_types; t++) {
        uint8_t *matrix = fixture_matrix(&r, fixture_types[t], ROWS, COLS);
        struct product p = {.type = fixture_types[t],
                            .matrix = matrix,
                            .rows = ROWS,
                            .cols = COLS,
                            .groups = groups[t % 3],
                            .x = x};
        compare_whole(f, &p, N, expected, actual);
        free(matrix);
    }
}

/* The definition itself: what ref gives for one matrix of each type must never change, or answers
 * of an older build could not be replayed. */
static void test_bits_of_the_definition_are_fixed(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        enum quant_type type;
        uint32_t cols;
        uint64_t hash;
    } fixed[] = {
        {QUANT_TYPE_F32, 2080, 0x094fec28d9e7396cull},
        {QUANT_TYPE_F16, 2080, 0xb7066ef9f23efeabull},
        {QUANT_TYPE_BF16, 2080, 0x9969ffda91ae14a4ull},
        {QUANT_TYPE_Q4_0, 2080, 0xb52c7f2a702556ffull},
        {QUANT_TYPE_Q4_1, 2080, 0x8861377f4042baf3ull},
        {QUANT_TYPE_Q8_0, 2080, 0x1d0c9c99d85bdb5eull},
        {QUANT_TYPE_Q5_0, 2080, 0xf8f951eb69d5de57ull},
        {QUANT_TYPE_Q5_1, 2080, 0x26d11d2c2f36f62bull},
        {QUANT_TYPE_Q2_K, 2304, 0x02f507d9aa2b7f8eull},
        {QUANT_TYPE_Q3_K, 2304, 0x1e511762401eaa13ull},
        {QUANT_TYPE_Q4_K, 2304, 0x4fe1d9ada0ff4e22ull},
        {QUANT_TYPE_Q5_K, 2304, 0xa238ace9ff4b3793ull},
        {QUANT_TYPE_Q6_K, 2304, 0x5ecc129137f7bc71ull},
        {QUANT_TYPE_IQ4_NL, 2080, 0x3f8e4b0787a6ba83ull},
        {QUANT_TYPE_IQ4_XS, 2304, 0xc570d47fdbc83f85ull},
        {QUANT_TYPE_MXFP4, 2080, 0x7f8c31b295dd9b7aull},
    };
    const uint32_t rows = 21;
    assert_int_equal(sizeof fixed / sizeof fixed[0], fixture_n_types);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        struct fixture_random r = {77};
        const uint32_t cols = fixed[i].cols;
        float x[3 * 2304];
        float out[3 * 21] = {0};
        fixture_floats(&r, x, (size_t)3 * cols);
        uint8_t *matrix = fixture_matrix(&r, fixed[i].type, rows, cols);
        struct product p = {.type = fixed[i].type,
                            .matrix = matrix,
                            .rows = rows,
                            .cols = cols,
                            .groups = 3,
                            .x = x};
        product_run(f->ref, &p, 3, rows, out);
        free(matrix);
        uint64_t hash = fixture_hash(out, sizeof out / sizeof out[0]);
        if (hash != fixed[i].hash)
            fail_msg("%s: the bits of ref changed, to hash %016llx",
                     quant_type_info((uint32_t)fixed[i].type)->name, (unsigned long long)hash);
    }
}

/* The sign of a zero is a bit as well: a leaf whose only product so far was too small for a float
 * is -0, and blocks with a scale of 0 and negative sums must not keep it so. */
static void test_zeros_have_the_sign_of_ref(void **state)
{
    const struct fixture *f = *state;
    enum { ROWS = 48, COLS = 256 };
    static float x[ROWS_MAX * COLS];
    static struct block_q2_k matrix[ROWS];
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        for (uint32_t c = 0; c < COLS; c++)
            x[i * COLS + c] = c >= 32   ? -4e-37f
                              : c == 0  ? 4e-37f
                              : c == 16 ? -4e-37f * 126 / 127
                                        : 0;
    }
    for (uint32_t r = 0; r < ROWS; r++) {
        memset(matrix[r].scales, 0, sizeof matrix[r].scales);
        memset(matrix[r].qs, 0xff, sizeof matrix[r].qs);
        matrix[r].scales[0] = matrix[r].scales[1] = 0x10; /* scale 0, minimum 1 */
        matrix[r].d = half_from_float(1.0f);
        matrix[r].dmin = 1; /* the smallest */
    }
    struct product p = {.type = QUANT_TYPE_Q2_K,
                        .matrix = (const uint8_t *)matrix,
                        .rows = ROWS,
                        .cols = COLS,
                        .groups = 1,
                        .x = x};
    compare_products(f, &p);
}

#ifndef KERNELS_CUDA
/* Enough rows for whole tiles of panels, and what is left of one, in every task of many columns. */
static void test_whole_tiles_of_many_columns(void **state)
{
    const struct fixture *f = *state;
    enum { ROWS = 661, COLS = 256, N = 131 };
    static float x[N * COLS], expected[N * ROWS], actual[N * ROWS];
    struct fixture_random r = {13};
    fixture_floats(&r, x, N * COLS);
    for (size_t t = 0; t < fixture_n_types; t++) {
        uint8_t *matrix = fixture_matrix(&r, fixture_types[t], ROWS, COLS);
        struct product p = {.type = fixture_types[t],
                            .matrix = matrix,
                            .rows = ROWS,
                            .cols = COLS,
                            .groups = 3,
                            .x = x};
        compare_whole(f, &p, N, expected, actual);
        free(matrix);
    }
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_product_has_the_bits_of_ref),
        cmocka_unit_test(test_extreme_quants_do_not_overflow),
        cmocka_unit_test(test_jobs_of_one_call_are_independent),
        cmocka_unit_test(test_a_tall_matrix_is_cut_without_a_seam),
        cmocka_unit_test(test_many_rows_and_groups_have_the_bits_of_ref),
        cmocka_unit_test(test_bits_of_the_definition_are_fixed),
        cmocka_unit_test(test_zeros_have_the_sign_of_ref),
#ifndef KERNELS_CUDA
        cmocka_unit_test(test_whole_tiles_of_many_columns),
#endif
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
