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

static void test_integer_products_agree(void **state)
{
    (void)state;
    struct fixture_random r = {41};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t w[512];
        int8_t x[32];
        int32_t sum_x;
        random_bytes(&r, w, sizeof w);
        if (round % 3 == 0)
            memset(w, round % 2 == 0 ? 0xff : 0x80, sizeof w);
        random_x(&r, x, &sum_x);
        /* From the definition: row `lane`, columns 4c .. 4c + 3 of chunk c. */
        float four[16];
        float eight[16];
        for (int lane = 0; lane < 16; lane++) {
            int32_t sum4 = 0;
            int32_t sum8 = 0;
            for (int k = 0; k < 32; k++) {
                uint8_t both = w[k % 16 / 4 * 64 + lane * 4 + k % 4];
                sum4 += (k < 16 ? both & 15 : both >> 4) * x[k];
                sum8 += (int8_t)w[k / 4 * 64 + lane * 4 + k % 4] * x[k];
            }
            four[lane] = (float)(sum4 - 8 * sum_x);
            eight[lane] = (float)sum8;
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float sums[16];
            p->probe->dot4(w, x, -8 * sum_x, sums);
            fixture_same("4-bit product", p->name, four, sums, 16);
            p->probe->dot8(w, x, sum_x, sums);
            fixture_same("8-bit product", p->name, eight, sums, 16);
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
        float expected[7][16];
        uint16_t expected_halves[16];
        for (int i = 0; i < 16; i++) {
            expected[0][i] = in[0][i] + in[1][i];
            expected[1][i] = in[0][i] * in[1][i];
            expected[2][i] = fmaf(in[0][i], in[1][i], in[2][i]);
            expected[3][i] = half_to_float(halves[i]);
            expected[4][i] = bfloat_to_float(halves[i]);
            expected[5][i] = (float)bytes[i];
            expected[6][i] = in[0][0];
            expected_halves[i] = half_from_float(in[0][i]);
        }
        for (struct named_probe *p = probes; p->probe != NULL; p++) {
            float actual[7][16];
            uint16_t actual_halves[16];
            p->probe->arithmetic(in[0], in[1], in[2], actual[0], actual[1], actual[2]);
            p->probe->convert(halves, bytes, in[0], actual[3], actual[4], actual[5], actual[6],
                              actual_halves);
            fixture_same("arithmetic and conversions", p->name, expected[0], actual[0], 7 * 16);
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
        cmocka_unit_test(test_integer_products_agree),
        cmocka_unit_test(test_arithmetic_and_conversions_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
