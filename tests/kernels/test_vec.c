/* The wrappers of every instruction set do what their plain C bodies say. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/vec_probe_api.h"

#include "worker/kernels/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 20000

struct named_probe {
    const char *name;
    const struct vec_probe *probe;
};

/* NULL-terminated; which ones there are depends on the machine and on what is installed. */
static struct named_probe probes[5];

static void random_bytes(struct fixture_random *r, void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)(fixture_next(r) >> 56);
}

/* -127 .. 127, the extremes as often as everything between them. */
static void random_x(struct fixture_random *r, int8_t x[32], int32_t *ret_sum)
{
    uint32_t kind = fixture_below(r, 3);
    *ret_sum = 0;
    for (int i = 0; i < 32; i++) {
        x[i] = kind == 0   ? (int8_t)((int)fixture_below(r, 255) - 127)
               : kind == 1 ? (int8_t)127
                           : (int8_t)(fixture_below(r, 2) == 0 ? -127 : 127);
        *ret_sum += x[i];
    }
}

/* Column k of a row's block in its quads. */
static size_t quad_at(int lane, int k)
{
    return (size_t)(k / 4 * 64 + lane * 4 + k % 4);
}

static void test_unsigned_products_agree(void **state)
{
    (void)state;
    static const uint8_t tops[] = {15, 31, 63};
    struct fixture_random r = {41};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t w[512];
        int8_t x[32];
        int8_t scales[32];
        int32_t sum_x;
        int top = round % 3;
        random_bytes(&r, w, sizeof w);
        random_bytes(&r, scales, sizeof scales);
        for (size_t i = 0; i < sizeof w; i++)
            w[i] = round % 5 == 0 ? tops[top] : w[i] & tops[top];
        if (round % 7 == 0)
            memset(scales, round % 2 == 0 ? 0x80 : 0x7f, sizeof scales);
        random_x(&r, x, &sum_x);
        int32_t halves[2] = {0, 0};
        for (int k = 0; k < 32; k++)
            halves[k / 16] += x[k];
        int32_t pair = (int32_t)(((uint32_t)halves[0] & 0xffffu) | (uint32_t)halves[1] << 16);
        float plain[16];
        float scaled[16];
        float pairs[16];
        float nibbles[16];
        for (int lane = 0; lane < 16; lane++) {
            int32_t sums[2] = {0, 0};
            for (int k = 0; k < 32; k++)
                sums[k / 16] += w[quad_at(lane, k)] * x[k];
            const int8_t *scale = scales + 2 * lane;
            plain[lane] = (float)(sums[0] + sums[1]);
            scaled[lane] = (float)(sums[0] * scale[0] + sums[1] * scale[1]);
            pairs[lane] = (float)(-32 * (halves[0] * scale[0] + halves[1] * scale[1]));
            nibbles[lane] = (float)(halves[0] * ((scale[0] & 15) + (scale[0] >> 4 & 15)) +
                                    halves[1] * ((scale[1] & 15) + (scale[1] >> 4 & 15)));
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float actual[3][16];
            p->probe->dot(top, w, x, actual[0]);
            fixture_same("product of unsigned weights", p->name, plain, actual[0], 16);
            p->probe->dot_halves(top, w, x, scales, pair, actual[0], actual[1], actual[2]);
            fixture_same("product with a scale per half", p->name, scaled, actual[0], 16);
            fixture_same("scales times sums of x", p->name, pairs, actual[1], 16);
            fixture_same("minimums times sums of x", p->name, nibbles, actual[2], 16);
        }
    }
}

static void test_signed_products_agree(void **state)
{
    (void)state;
    struct fixture_random r = {43};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t w[512];
        int8_t x[32];
        int32_t sum_x;
        random_bytes(&r, w, sizeof w);
        if (round % 3 == 0)
            memset(w, round % 2 == 0 ? 0x7f : 0x80, sizeof w);
        random_x(&r, x, &sum_x);
        float expected[16];
        for (int lane = 0; lane < 16; lane++) {
            int32_t sum = 0;
            for (int k = 0; k < 32; k++)
                sum += (int8_t)w[quad_at(lane, k)] * x[k];
            expected[lane] = (float)sum;
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float actual[2][16];
            p->probe->dot_signed(w, x, (float)sum_x, actual[0], actual[1]);
            fixture_same("product of signed weights", p->name, expected, actual[0], 16);
            fixture_same("product of stored signed weights", p->name, expected, actual[1], 16);
        }
    }
}

static void test_fields_agree(void **state)
{
    (void)state;
    struct fixture_random r = {44};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t bytes[64];
        int8_t table[16];
        uint8_t expected[5][64];
        random_bytes(&r, bytes, sizeof bytes);
        random_bytes(&r, table, sizeof table);
        for (int i = 0; i < 64; i++) {
            expected[0][i] = bytes[i] >> 4;
            expected[1][i] = (uint8_t)(bytes[i] << 2 & 0x30);
            expected[2][i] = bytes[i] >> 3 & 16;
            expected[3][i] = expected[0][i] | expected[1][i];
            expected[4][i] = (uint8_t)table[bytes[i] >> 4];
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            uint8_t actual[5][64];
            p->probe->fields(bytes, table, actual);
            if (memcmp(expected, actual, sizeof expected) != 0)
                fail_msg("fields and table, %s", p->name);
        }
    }
}

/* Lanes that are no number, infinite and 0 of both signs among them: the greatest of two is the
 * second one where nothing is greater. */
static void test_signed_weights_agree(void **state)
{
    (void)state;
    struct fixture_random r = {45};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t bytes[64];
        int8_t scales[16];
        int32_t numbers[16], others[16];
        uint8_t expected[4][64] = {0};
        int32_t expected_numbers[16];
        random_bytes(&r, bytes, sizeof bytes);
        random_bytes(&r, scales, sizeof scales);
        random_bytes(&r, others, sizeof others);
        for (int i = 0; i < 16; i++) {
            numbers[i] = scales[i];
            others[i] /= 2;
            expected_numbers[i] = numbers[i] - others[i];
        }
        for (int i = 0; i < 64; i++) {
            expected[0][i] = (uint8_t)(bytes[i] - 8);
            expected[1][i] = (uint8_t)(bytes[i] - 32);
            expected[2][i] = (uint8_t)(bytes[i] * scales[i / 4]);
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            if (p->probe->signed_weights == NULL)
                continue;
            uint8_t actual[4][64];
            int32_t actual_numbers[16];
            p->probe->signed_weights(bytes, numbers, others, actual, actual_numbers);
            assert_memory_equal(expected, actual, sizeof actual);
            assert_memory_equal(expected_numbers, actual_numbers, sizeof actual_numbers);
        }
    }
}

static void test_trees_agree(void **state)
{
    (void)state;
    struct fixture_random r = {45};
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f};
    for (int round = 0; round < ROUNDS; round++) {
        float in[2][16];
        float expected[16];
        float sum[16];
        float max[16];
        fixture_floats(&r, in[0], 16);
        fixture_floats(&r, in[1], 16);
        memcpy(sum, in[0], sizeof sum);
        for (int i = 0; i < 32 && round % 2 == 0; i++) {
            if (fixture_below(&r, 4) == 0)
                in[i / 16][i % 16] = odd[fixture_below(&r, 5)];
        }
        memcpy(max, in[0], sizeof max);
        for (int i = 0; i < 16; i++)
            expected[i] = in[0][i] > in[1][i] ? in[0][i] : in[1][i];
        for (int half = 8; half > 0; half /= 2) {
            for (int i = 0; i < half; i++) {
                sum[i] = sum[i] + sum[i + half];
                max[i] = max[i] > max[i + half] ? max[i] : max[i + half];
            }
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float actual[16];
            float got[2];
            p->probe->trees(in[0], in[1], actual, &got[0], &got[1]);
            fixture_same("the greater of two", p->name, expected, actual, 16);
            fixture_same("the greatest of 16", p->name, max, &got[1], 1);
            if (round % 2 != 0)
                fixture_same("sum of 16", p->name, sum, &got[0], 1);
        }
    }
}

static void test_arithmetic_and_conversions_agree(void **state)
{
    (void)state;
    struct fixture_random r = {42};
    for (int round = 0; round < ROUNDS; round++) {
        float in[3][16];
        uint16_t halves[16];
        int8_t bytes[16];
        random_bytes(&r, halves, sizeof halves);
        random_bytes(&r, bytes, sizeof bytes);
        for (int k = 0; k < 3; k++) {
            fixture_floats(&r, in[k], 16);
            for (int i = 0; i < 16; i++)
                in[k][i] = ldexpf(in[k][i], (int)fixture_below(&r, 60) - 30);
        }
        for (int i = 0; i < 16; i++) {
            /* Signalling NaN in, quiet NaN out is the instructions' affair; sums of NaN nobody's.
             */
            if ((halves[i] & 0x7c00) == 0x7c00 || (halves[i] & 0x7f80) == 0x7f80)
                halves[i] = 0x7c00;
        }
        float expected[8][16];
        uint16_t expected_halves[16];
        for (int i = 0; i < 16; i++) {
            expected[0][i] = in[0][i] + in[1][i];
            expected[1][i] = in[0][i] * in[1][i];
            expected[2][i] = fmaf(in[0][i], in[1][i], in[2][i]);
            expected[3][i] = half_to_float(halves[i]);
            expected[4][i] = bfloat_to_float(halves[i]);
            expected[5][i] = (float)bytes[i];
            expected[6][i] = (float)(uint8_t)bytes[i];
            expected[7][i] = in[0][0];
            expected_halves[i] = half_from_float(in[0][i]);
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float actual[8][16];
            uint16_t actual_halves[16];
            p->probe->arithmetic(in[0], in[1], in[2], actual[0], actual[1], actual[2]);
            p->probe->convert(halves, bytes, in[0], actual[3], actual[4], actual[5], actual[6],
                              actual[7], actual_halves);
            fixture_same("arithmetic and conversions", p->name, expected[0], actual[0], 8 * 16);
            assert_memory_equal(expected_halves, actual_halves, sizeof actual_halves);
        }
    }
}

int main(void)
{
    size_t n = 0;
    probes[n++] = (struct named_probe){"plain C", &vec_probe_plain};
#if defined(__x86_64__)
    if (backend_isa_available(BACKEND_ISA_AVX2))
        probes[n++] = (struct named_probe){"avx2", &vec_probe_avx2};
    if (backend_isa_available(BACKEND_ISA_AVX512))
        probes[n++] = (struct named_probe){"avx512", &vec_probe_avx512};
#endif
#if CLOISTER_TEST_SIMDE
    probes[n++] = (struct named_probe){"avx512 over SIMDe", &vec_probe_simde};
#else
    print_message("SIMDe (libsimde-dev) is not installed: its check of AVX-512 is left out\n");
#endif
    for (size_t i = 0; i < n; i++)
        print_message("wrappers: %s\n", probes[i].name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unsigned_products_agree),
        cmocka_unit_test(test_signed_products_agree),
        cmocka_unit_test(test_fields_agree),
        cmocka_unit_test(test_signed_weights_agree),
        cmocka_unit_test(test_trees_agree),
        cmocka_unit_test(test_arithmetic_and_conversions_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
