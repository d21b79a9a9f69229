/*
 * numerics.h, half.h and philox.h against double precision, exact tables and published vectors.
 *
 * `--full` walks every float of each function's range (a minute or two); without it every 509th.
 */
#include "worker/kernels/numerics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

static uint32_t stride = 509; /* a prime, so that every low bit pattern comes up */

static double exact_exp(double x)
{
    return exp(x);
}

static double exact_log(double x)
{
    return log(x);
}

static double exact_tanh(double x)
{
    return tanh(x);
}

static double exact_silu(double x)
{
    return x / (1.0 + exp(-x));
}

static double exact_gelu(double x)
{
    return x / (1.0 + exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

/* The one table of bounds: in units in the last place of the exact value, over every float from
 * `low` to `high`. */
static const struct {
    const char *name;
    float (*ours)(float);
    double (*exact)(double);
    float low;
    float high;
    double ulp_max;
} functions[] = {
    {"exp", nm_exp, exact_exp, -104.0f, 88.72283f, 2.0},
    {"log", nm_log, exact_log, 0x1p-149f, 3.4028234e38f, 2.0},
    {"tanh", nm_tanh, exact_tanh, -20.0f, 20.0f, 2.0},
    {"silu", nm_silu, exact_silu, -87.0f, 100.0f, 4.0},
    /* Below -3 the relative error of e^-2u is that of u times 2u. */
    {"gelu", nm_gelu_tanh, exact_gelu, -3.0f, 100.0f, 16.0},
    {"gelu, far below 0", nm_gelu_tanh, exact_gelu, -9.0f, -3.0f, 160.0},
};

static double ulp_error(float y, double exact)
{
    int exponent;
    (void)frexp(exact, &exponent); /* exact in [2^(e-1), 2^e) */
    exponent = exponent - 1 < -126 ? -126 : exponent - 1;
    return fabs((double)y - exact) / ldexp(1.0, exponent - 23);
}

static void test_functions_stay_within_their_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        double worst = 0.0;
        float worst_at = 0.0f;
        uint64_t tried = 0;
        for (uint64_t bits = 0; bits <= 0xffffffffull; bits += stride) {
            float x = half_bits_float((uint32_t)bits);
            if (!(x >= functions[i].low && x <= functions[i].high))
                continue;
            double error = ulp_error(functions[i].ours(x), functions[i].exact((double)x));
            tried++;
            if (!(error <= worst)) {
                worst = error;
                worst_at = x;
            }
        }
        print_message("%s: %.3f ulp at %a, of %llu floats\n", functions[i].name, worst,
                      (double)worst_at, (unsigned long long)tried);
        assert_true(tried > 1000);
        assert_true(worst <= functions[i].ulp_max);
    }
}

static void test_functions_at_their_edges(void **state)
{
    (void)state;
    assert_true(nm_exp(0.0f) == 1.0f);
    assert_true(nm_exp(-0.0f) == 1.0f);
    assert_true(nm_exp(89.0f) == INFINITY);
    assert_true(nm_exp(INFINITY) == INFINITY);
    assert_true(half_float_bits(nm_exp(-104.0f)) == 0);
    assert_true(half_float_bits(nm_exp(-INFINITY)) == 0);
    assert_true(half_float_bits(nm_exp(NAN)) == 0);
    assert_true(nm_exp(-103.0f) > 0.0f); /* a subnormal */
    assert_true(half_float_bits(nm_log(1.0f)) == 0);
    assert_true(nm_log(0.0f) == -INFINITY);
    assert_true(nm_log(INFINITY) == INFINITY);
    assert_true(isnan(nm_log(-1.0f)));
    assert_true(isnan(nm_log(NAN)));
    assert_true(nm_tanh(INFINITY) == 1.0f && nm_tanh(-INFINITY) == -1.0f);
    assert_true(isnan(nm_tanh(NAN)));
    assert_true(half_float_bits(nm_tanh(-0.0f)) == 0x80000000u);
    assert_true(isnan(nm_silu(NAN)) && nm_silu(INFINITY) == INFINITY);
    assert_true(nm_silu(-200.0f) == 0.0f);
    assert_true(nm_gelu_tanh(-200.0f) == 0.0f && nm_gelu_tanh(3e38f) == 3e38f);
}

/* Every binary16 there and back, and the definition by its parts. */
static void test_every_half_converts_exactly(void **state)
{
    (void)state;
    for (uint32_t h = 0; h <= 0xffff; h++) {
        float x = half_to_float((uint16_t)h);
        int exponent = (int)(h >> 10 & 31);
        double mantissa = h & 0x3ff;
        if (exponent == 31 && mantissa > 0) {
            assert_true(isnan(x));
            assert_int_equal(half_from_float(x), h | 0x200); /* quiet */
            continue;
        }
        double exact = exponent == 31  ? (double)INFINITY
                       : exponent == 0 ? ldexp(mantissa, -24)
                                       : ldexp(1024.0 + mantissa, exponent - 25);
        assert_true((double)x == ((h & 0x8000) != 0 ? -exact : exact));
        assert_int_equal(signbit(x) != 0, (h & 0x8000) != 0);
        assert_int_equal(half_from_float(x), h);
    }
}

/* Rounding, by the definition: the nearer neighbour, of two equally near the even one. */
static void test_floats_round_to_the_nearest_half(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        float low = half_to_float((uint16_t)h);
        float high = h == 0x7bff ? 65536.0f : half_to_float((uint16_t)(h + 1));
        float middle = (float)(((double)low + (double)high) / 2);
        uint32_t even = h % 2 == 0 ? h : h + 1;
        assert_int_equal(half_from_float(middle), even);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
        assert_int_equal(half_from_float(nextafterf(middle, 0.0f)), h);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(half_from_float(INFINITY), 0x7c00);
    assert_int_equal(half_from_float(-3e38f), 0xfc00);
}

#if defined(__x86_64__)
__attribute__((target("f16c"))) static uint16_t instruction_half(float x)
{
    return (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(x), _MM_FROUND_TO_NEAREST_INT), 0);
}
#endif

static void test_conversion_equals_the_instruction(void **state)
{
    (void)state;
#if defined(__x86_64__)
    uint32_t a;
    uint32_t b;
    uint32_t c;
    uint32_t d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & bit_F16C) == 0)
        skip();
    for (uint64_t bits = 0; bits <= 0xffffffffull; bits += stride) {
        float x = half_bits_float((uint32_t)bits);
        if (half_from_float(x) != instruction_half(x))
            fail_msg("%a: %04x, the instruction gives %04x", (double)x, half_from_float(x),
                     instruction_half(x));
    }
#else
    skip();
#endif
}

/* Salmon et al., Random123, kat_vectors: philox4x32 10. */
static void test_philox_gives_the_published_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4];
        uint32_t key[2];
        uint32_t answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint32_t words[4];
        philox4x32(known[i].counter, known[i].key, words);
        assert_memory_equal(words, known[i].answer, sizeof words);
    }
}

static void test_each_token_has_its_own_word(void **state)
{
    (void)state;
    const uint32_t counter[4] = {7 >> 2, 41, 0, 0};
    const uint32_t key[2] = {0x89abcdef, 0x01234567};
    uint32_t words[4];
    philox4x32(counter, key, words);
    for (uint32_t token = 4; token < 8; token++)
        assert_int_equal(philox_token_word(0x0123456789abcdefull, 41, token), words[token & 3]);
    assert_int_not_equal(philox_token_word(1, 2, 3), philox_token_word(1, 3, 3));
    assert_int_not_equal(philox_token_word(1, 2, 3), philox_token_word(2, 2, 3));
    assert_int_not_equal(philox_token_word(1, 2, 3), philox_token_word(1ull << 32, 2, 3));
}

/* Against -ln(-ln(1 - v)) in double; the tails are finite and the function falls. */
static void test_gumbel_is_the_map_it_says(void **state)
{
    (void)state;
    float last = INFINITY;
    for (uint64_t word = 0; word <= 0xffffffffull; word += 65521) {
        double v = ((double)word + 0.5) * 0x1p-32;
        double exact = -log(-log1p(-v));
        float ours = nm_gumbel((uint32_t)word);
        /* v is rounded to a float; where it is near 1 that moves 1 - v by up to 2^-25. */
        double slack = 4e-7 * (1.0 + fabs(exact)) + 0x1p-24 / ((1.0 - v) * -log1p(-v));
        assert_true(fabs((double)ours - exact) <= slack);
        assert_true(ours <= last);
        last = ours;
    }
    assert_true(fabs((double)nm_gumbel(0) - 22.87) < 0.01);
    assert_true(isfinite(nm_gumbel(0xffffffffu)) && nm_gumbel(0xffffffffu) < -2.0f);
}

/* argmax(logit + noise) draws from the softmax: chi-square of 200,000 draws over 6 tokens. */
static void test_gumbel_argmax_draws_from_the_softmax(void **state)
{
    (void)state;
    static const float logits[] = {0.0f, 1.0f, -1.0f, 2.0f, -3.0f, 0.5f};
    enum { TOKENS = 6, DRAWS = 200000 };
    double weight[TOKENS];
    double total = 0.0;
    for (int t = 0; t < TOKENS; t++)
        total += weight[t] = exp((double)logits[t]);
    uint32_t drawn[TOKENS] = {0};
    for (uint32_t position = 0; position < DRAWS; position++) {
        int best = 0;
        float best_value = -INFINITY;
        for (int t = 0; t < TOKENS; t++) {
            float value = logits[t] + nm_token_gumbel(42, position, (uint32_t)t);
            if (value > best_value) {
                best_value = value;
                best = t;
            }
        }
        drawn[best]++;
    }
    double chi_square = 0.0;
    for (int t = 0; t < TOKENS; t++) {
        double expected = weight[t] / total * DRAWS;
        chi_square += (drawn[t] - expected) * (drawn[t] - expected) / expected;
    }
    assert_true(chi_square < 20.5); /* 5 degrees of freedom: 99.9 % */
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--full") == 0)
        stride = 1;
    else if (argc != 1) {
        fprintf(stderr, "usage: %s [--full]\n", argv[0]);
        return 2;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions_stay_within_their_bounds),
        cmocka_unit_test(test_functions_at_their_edges),
        cmocka_unit_test(test_every_half_converts_exactly),
        cmocka_unit_test(test_floats_round_to_the_nearest_half),
        cmocka_unit_test(test_conversion_equals_the_instruction),
        cmocka_unit_test(test_philox_gives_the_published_answers),
        cmocka_unit_test(test_each_token_has_its_own_word),
        cmocka_unit_test(test_gumbel_is_the_map_it_says),
        cmocka_unit_test(test_gumbel_argmax_draws_from_the_softmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
