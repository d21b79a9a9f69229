/* The rotation table against long double, over bases, positions to a million, and its refusals. */
#include "worker/kernels/rope_table.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A table with all its positions computed. */
static struct rope_table *whole_table(const struct rope_params *params, uint32_t positions)
{
    struct rope_table *table;
    struct errbuf eb = {0};
    assert_int_equal(rope_table_new(params, positions, &table, &eb), ERR_OK);
    rope_table_reach(table, positions);
    return table;
}

static void test_table_is_within_an_ulp_of_exact(void **state)
{
    (void)state;
    float factors[32];
    for (int i = 0; i < 32; i++)
        factors[i] = 1.0f + (float)i * 0.37f;
    const struct {
        struct rope_params params;
        uint32_t positions;
    } cases[] = {
        {{.base = 10000.0, .dim = 64, .linear_scale = 1.0}, 8192},
        {{.base = 100000.0, .dim = 64, .linear_scale = 1.0}, 2048},
        {{.base = 500000.0, .dim = 128, .linear_scale = 1.0}, 4096},
        {{.base = 1e6, .dim = 64, .linear_scale = 8.0, .factors = factors}, 3000},
        {{.base = 10000.0, .dim = 2, .linear_scale = 1.0}, ROPE_TABLE_POSITIONS_MAX},
        {{.base = 1e12, .dim = 4, .linear_scale = 1.0}, 100000},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct rope_params *params = &cases[c].params;
        struct rope_table *whole = whole_table(params, cases[c].positions);
        const float *table = rope_table_cells(whole);
        uint32_t pairs = params->dim / 2;
        for (uint32_t p = 0; p < cases[c].positions; p += p < 512 ? 1 : 37) {
            for (uint32_t i = 0; i < pairs; i++) {
                long double frequency =
                    powl((long double)params->base, -2.0L * i / (long double)params->dim) /
                    (long double)params->linear_scale;
                if (params->factors != NULL)
                    frequency /= (long double)params->factors[i];
                long double angle = p * frequency;
                const float *cell = table + 2 * ((size_t)p * pairs + i);
                /* Half an ulp of a float near 1 is 2^-25. Near a zero of the function the angle's
                 * own error, about 1e-9 at a million, is larger than the float's. */
                long double error_cos = fabsl((long double)cell[0] - cosl(angle));
                long double error_sin = fabsl((long double)cell[1] - sinl(angle));
                assert_true(error_cos < 0x1.02p-25L + 1e-14L * p);
                assert_true(error_sin < 0x1.02p-25L + 1e-14L * p);
            }
        }
        assert_true(table[0] == 1.0f && table[1] == 0.0f);
        rope_table_free(whole);
    }
}

/* Written from the paper and llama.cpp's indices, in long double; frequencies and magnitude. */
static void test_yarn_slows_the_slow_pairs(void **state)
{
    (void)state;
    const long double two_pi = 6.28318530717958647692L;
    const struct {
        struct rope_params params;
        uint32_t first_slow, first_slowest; /* by hand, from base, dim and context */
    } cases[] = {
        /* 64 ln(4096 / 64 pi) / (2 ln 10000) = 10.46, 64 ln(4096 / 2 pi) / (2 ln 10000) = 22.51 */
        {{.base = 1e4, .dim = 64, .linear_scale = 4.0, .yarn_context = 4096}, 11, 23},
        /* 23.7 and 40.2 for Qwen 2.5 */
        {{.base = 1e6, .dim = 128, .linear_scale = 4.0, .yarn_context = 32768, .magnitude = 0.9},
         24,
         40},
        {{.base = 1e4, .dim = 16, .linear_scale = 8.0, .yarn_context = 64}, 1, 3},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        const struct rope_params *q = &cases[c].params;
        const uint32_t pairs = q->dim / 2, positions = 3000;
        struct rope_table *whole = whole_table(q, positions);
        const float *table = rope_table_cells(whole);
        long double low = floorl(q->dim * logl(q->yarn_context / (32 * two_pi)) /
                                 (2 * logl((long double)q->base)));
        long double high =
            ceill(q->dim * logl(q->yarn_context / two_pi) / (2 * logl((long double)q->base)));
        low = fmaxl(low, 0);
        high = fminl(high, q->dim - 1);
        long double magnitude = (q->magnitude == 0.0 ? 1.0L : (long double)q->magnitude) *
                                (1.0L + 0.1L * logl((long double)q->linear_scale));
        for (uint32_t i = 0; i < pairs; i++) {
            long double extrapolated = powl((long double)q->base, -2.0L * i / q->dim);
            long double along = fminl(fmaxl((i - low) / (high - low), 0), 1);
            long double f =
                extrapolated * (1 - along) + extrapolated / (long double)q->linear_scale * along;
            assert_true((i < cases[c].first_slow) == (f == extrapolated));
            assert_true(
                (i >= cases[c].first_slowest) ==
                (fabsl(f * (long double)q->linear_scale - extrapolated) < 1e-15L * extrapolated));
            for (uint32_t p = 0; p < positions; p += p < 64 ? 1 : 41) {
                const float *cell = table + 2 * ((size_t)p * pairs + i);
                assert_true(fabsl(cell[0] - magnitude * cosl(p * f)) < 0x1.1p-24L + 1e-13L * p);
                assert_true(fabsl(cell[1] - magnitude * sinl(p * f)) < 0x1.1p-24L + 1e-13L * p);
            }
        }
        rope_table_free(whole);
    }
}

/* One hash over a whole table: a change of it would change every answer ever given. */
static void test_bits_of_the_table_are_fixed(void **state)
{
    (void)state;
    const struct rope_params params = {.base = 100000.0, .dim = 64, .linear_scale = 1.0};
    struct rope_table *whole = whole_table(&params, 1000);
    const float *table = rope_table_cells(whole);
    uint64_t hash = 1469598103934665603ull; /* FNV-1a over the bits */
    for (size_t i = 0; i < (size_t)1000 * 64; i++) {
        uint32_t bits;
        memcpy(&bits, table + i, sizeof bits);
        hash = (hash ^ bits) * 1099511628211ull;
    }
    rope_table_free(whole);
    assert_int_equal(hash, 0x9022a80facb4f445ull);
}

/* An engine computes positions as jobs come to them: in whatever steps, the cells are the same, and
 * stay where they are. */
static void test_bits_do_not_depend_on_how_a_table_grew(void **state)
{
    (void)state;
    const struct rope_params params = {
        .base = 1e6, .dim = 48, .linear_scale = 4.0, .yarn_context = 512, .magnitude = 0.9};
    const struct {
        uint32_t positions;
        uint32_t reach[8];
    } cases[] = {
        {1000, {1000}},
        {1000, {1, 2, 64, 65, 66, 500, 999, 1000}},
        {1000, {700, 3, 0, 64, 701, 1000, 1000, 12}},
        {1000, {0, 0, 64, 128, 192, 193, 0, 1000}},
        {1, {1}},
        {63, {1, 63}},
        {64, {0, 64}},
        {65, {64, 65, 1}},
    };
    struct rope_table *whole = whole_table(&params, 1000);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct rope_table *table;
        struct errbuf eb = {0};
        assert_int_equal(rope_table_new(&params, cases[c].positions, &table, &eb), ERR_OK);
        const float *cells = rope_table_cells(table);
        for (size_t i = 0; i < 8; i++) {
            rope_table_reach(table, cases[c].reach[i]);
            assert_ptr_equal(rope_table_cells(table), cells);
            assert_memory_equal(cells, rope_table_cells(whole),
                                (size_t)cases[c].reach[i] * params.dim * sizeof *cells);
        }
        assert_memory_equal(cells, rope_table_cells(whole),
                            (size_t)cases[c].positions * params.dim * sizeof *cells);
        rope_table_free(table);
    }
    rope_table_free(whole);
}

static void test_impossible_parameters_are_refused(void **state)
{
    (void)state;
    const float zero_factor[] = {1.0f, 0.0f};
    const float nan_factor[] = {NAN, 1.0f};
    const struct {
        struct rope_params params;
        uint32_t positions;
        enum err err;
        const char *text;
    } cases[] = {
        {{.base = 0.0, .dim = 64, .linear_scale = 1.0}, 8, ERR_INVALID, "rope base"},
        {{.base = NAN, .dim = 64, .linear_scale = 1.0}, 8, ERR_INVALID, "rope base"},
        {{.base = INFINITY, .dim = 64, .linear_scale = 1.0}, 8, ERR_INVALID, "rope base"},
        {{.base = 1e4, .dim = 0, .linear_scale = 1.0}, 8, ERR_INVALID, "rope dimension"},
        {{.base = 1e4, .dim = 63, .linear_scale = 1.0}, 8, ERR_INVALID, "rope dimension"},
        {{.base = 1e4, .dim = 4096, .linear_scale = 1.0}, 8, ERR_INVALID, "rope dimension"},
        {{.base = 1e4, .dim = 64, .linear_scale = 0.0}, 8, ERR_INVALID, "scaling factor"},
        {{.base = 1e4, .dim = 4, .linear_scale = 1.0, .factors = zero_factor},
         8,
         ERR_INVALID,
         "frequency factor 1"},
        {{.base = 1e4, .dim = 4, .linear_scale = 1.0, .factors = nan_factor},
         8,
         ERR_INVALID,
         "frequency factor 0"},
        {{.base = 1e4, .dim = 4, .linear_scale = 1.0, .magnitude = NAN},
         8,
         ERR_INVALID,
         "magnitude"},
        {{.base = 1e4, .dim = 4, .linear_scale = 1.0, .magnitude = 1e9},
         8,
         ERR_INVALID,
         "magnitude"},
        {{.base = 1e4, .dim = 64, .linear_scale = 1.0}, (1u << 20) + 1, ERR_TOO_LARGE, "positions"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct errbuf eb = {0};
        struct rope_table *table = NULL;
        assert_int_equal(rope_table_new(&cases[i].params, cases[i].positions, &table, &eb),
                         cases[i].err);
        assert_non_null(strstr(eb.text, cases[i].text));
        assert_null(table);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_is_within_an_ulp_of_exact),
        cmocka_unit_test(test_yarn_slows_the_slow_pairs),
        cmocka_unit_test(test_bits_of_the_table_are_fixed),
        cmocka_unit_test(test_bits_do_not_depend_on_how_a_table_grew),
        cmocka_unit_test(test_impossible_parameters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
