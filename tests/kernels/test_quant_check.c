/* A number that is none is found in every type, wherever it stands, and nothing else is called one.
 */
#include "worker/kernels/quant_block.h"
#include "worker/kernels/quant_check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define D(kind)        offsetof(struct block_##kind, d)
#define MIN(kind, min) offsetof(struct block_##kind, min)
#define NONE           SIZE_MAX

enum number { HALF, BFLOAT, FLOAT, EXPONENT };

static const struct {
    enum quant_type type;
    enum number number;
    size_t at[2]; /* of the block: its scale and its minimum */
} types[] = {
    {QUANT_TYPE_F32, FLOAT, {0, NONE}},
    {QUANT_TYPE_F16, HALF, {0, NONE}},
    {QUANT_TYPE_BF16, BFLOAT, {0, NONE}},
    {QUANT_TYPE_Q4_0, HALF, {D(q4_0), NONE}},
    {QUANT_TYPE_Q4_1, HALF, {D(q4_1), MIN(q4_1, m)}},
    {QUANT_TYPE_Q5_0, HALF, {D(q5_0), NONE}},
    {QUANT_TYPE_Q5_1, HALF, {D(q5_1), MIN(q5_1, m)}},
    {QUANT_TYPE_Q8_0, HALF, {D(q8_0), NONE}},
    {QUANT_TYPE_Q2_K, HALF, {D(q2_k), MIN(q2_k, dmin)}},
    {QUANT_TYPE_Q3_K, HALF, {D(q3_k), NONE}},
    {QUANT_TYPE_Q4_K, HALF, {D(q4_k), MIN(q4_k, dmin)}},
    {QUANT_TYPE_Q5_K, HALF, {D(q5_k), MIN(q5_k, dmin)}},
    {QUANT_TYPE_Q6_K, HALF, {D(q6_k), NONE}},
    {QUANT_TYPE_IQ4_NL, HALF, {D(iq4_nl), NONE}},
    {QUANT_TYPE_IQ4_XS, HALF, {D(iq4_xs), NONE}},
    {QUANT_TYPE_MXFP4, EXPONENT, {offsetof(struct block_mxfp4, e), NONE}},
};

static const struct {
    const char *what;
    uint32_t bits[4]; /* by enum number */
    bool bad;
} numbers[] = {
    {"zero", {0, 0, 0, 0}, false},
    {"the greatest", {0x7bff, 0x7f7f, 0x7f7fffff, 254}, false},
    {"the least", {0xfbff, 0xff7f, 0xff7fffff, 1}, false},
    {"subnormal", {0x0001, 0x0001, 0x00000001, 0}, false},
    {"infinity", {0x7c00, 0x7f80, 0x7f800000, 255}, true},
    {"minus infinity", {0xfc00, 0xff80, 0xff800000, 255}, true},
    {"a quiet NaN", {0x7e00, 0x7fc0, 0x7fc00000, 255}, true},
    {"a signalling NaN", {0xfc01, 0xff81, 0xff800001, 255}, true},
};

static size_t number_bytes(enum number number)
{
    return number == FLOAT ? 4 : number == EXPONENT ? 1 : 2;
}

/* 1100 blocks: two whole runs of the check's loop and a part of a third. */
static void test_finds_what_is_no_number(void **state)
{
    (void)state;
    enum { BLOCKS = 1100 };
    static const uint64_t places[] = {0, 1, 511, 512, 1023, 1024, 1099};

    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const size_t size = quant_type_info((uint32_t)types[t].type)->block_bytes;
        uint8_t *blocks = calloc(BLOCKS, size);
        assert_non_null(blocks);
        for (size_t n = 0; n < sizeof numbers / sizeof numbers[0]; n++)
            for (size_t p = 0; p < sizeof places / sizeof places[0]; p++)
                for (size_t k = 0; k < 2 && types[t].at[k] != NONE; k++) {
                    uint8_t *at = blocks + places[p] * size + types[t].at[k];
                    memcpy(at, &numbers[n].bits[types[t].number], number_bytes(types[t].number));
                    uint64_t got = quant_check_finite(types[t].type, blocks, BLOCKS);
                    uint64_t want = numbers[n].bad ? places[p] : BLOCKS;
                    if (got != want)
                        fail_msg("%s: %s in block %llu: %llu",
                                 quant_type_info((uint32_t)types[t].type)->name, numbers[n].what,
                                 (unsigned long long)places[p], (unsigned long long)got);
                    memset(at, 0, number_bytes(types[t].number));
                }
        free(blocks);
    }
}

/* Quants are any bits. */
static void test_quants_are_not_looked_at(void **state)
{
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        const size_t size = quant_type_info((uint32_t)types[t].type)->block_bytes;
        uint8_t *blocks = malloc(3 * size);
        assert_non_null(blocks);
        memset(blocks, 0xff, 3 * size);
        for (size_t i = 0; i < 3; i++)
            for (size_t k = 0; k < 2 && types[t].at[k] != NONE; k++)
                memset(blocks + i * size + types[t].at[k], 0, number_bytes(types[t].number));
        assert_int_equal(quant_check_finite(types[t].type, blocks, 3), 3);
        free(blocks);
    }
}

static void test_every_type_with_kernels_is_looked_at(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < 64; id++) {
        const struct quant_type_info *info = quant_type_info(id);
        bool listed = false;
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
            listed = listed || (uint32_t)types[t].type == id;
        assert_int_equal(listed, info != NULL && info->supported);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finds_what_is_no_number),
        cmocka_unit_test(test_quants_are_not_looked_at),
        cmocka_unit_test(test_every_type_with_kernels_is_looked_at),
    };
    return cmocka_run_group_tests_name("quant_check", tests, NULL, NULL);
}
