/* What backends refuse, count and promise about sizes; the page memory. */
#include "tests/kernels/fixture.h"

#include "worker/kernels/cpu/pages.h"
#include "worker/kernels/sum_order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_impossible_weights_are_refused(void **state)
{
    const struct fixture *f = *state;
    static const uint8_t data[4096];
    static const struct {
        int type;
        uint32_t rows;
        uint32_t cols;
        uint32_t groups;
        enum err err;
        const char *text;
    } cases[] = {
        {16, 16, 256, 1, ERR_UNSUPPORTED, "IQ2_XXS"},
        {4, 16, 32, 1, ERR_UNSUPPORTED, "Q4_2"},
        {9999, 16, 32, 1, ERR_INVALID, "9999"},
        {QUANT_TYPE_Q4_1, 16, 33, 1, ERR_INVALID, "33 columns"},
        {QUANT_TYPE_Q8_0, 16, 16, 1, ERR_INVALID, "16 columns"},
        {QUANT_TYPE_Q6_K, 16, 288, 1, ERR_INVALID, "288 columns"},
        {QUANT_TYPE_Q4_1, 0, 32, 1, ERR_INVALID, "no elements"},
        {QUANT_TYPE_F32, 16, 0, 1, ERR_INVALID, "no elements"},
        {QUANT_TYPE_Q4_1, 16, 64, 0, ERR_INVALID, "0 groups"},
        {QUANT_TYPE_Q4_1, 16, 64, 3, ERR_INVALID, "3 groups"},
        {QUANT_TYPE_F32, 4, 32 * 100, 65, ERR_INVALID, "65 groups"},
        {QUANT_TYPE_F32, 0xffffffffu, 32, 1, ERR_TOO_LARGE, "at most"},
    };
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct errbuf eb = {0};
            struct weight *w = NULL;
            assert_int_equal(b->ops->weight_load(b, (enum quant_type)cases[i].type, data,
                                                 cases[i].rows, cases[i].cols, cases[i].groups, &w,
                                                 &eb),
                             cases[i].err);
            assert_non_null(strstr(eb.text, cases[i].text));
            assert_null(w);
        }
    }
}

static void test_impossible_caches_are_refused(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        struct kv_shape shape;
        enum err err;
        const char *text;
    } cases[] = {
        {{0, 1, 64, 64, KV_TYPE_F16, 4}, ERR_INVALID, "empty"},
        {{1, 1, 64, 64, KV_TYPE_F16, 0}, ERR_INVALID, "empty"},
        {{1, 1, 1024, 64, KV_TYPE_F16, 4}, ERR_UNSUPPORTED, "1024"},
        {{1, 1, 80, 64, KV_TYPE_Q8_0, 4}, ERR_UNSUPPORTED, "multiple of 32"},
        {{1, 1, 64, 64, (enum kv_type)7, 4}, ERR_UNSUPPORTED, "KV type 7"},
        {{1, 100000, 64, 64, KV_TYPE_F16, 4}, ERR_UNSUPPORTED, "100000 KV heads"},
        {{4096, 4096, 512, 512, KV_TYPE_F16, 0xffffffffu}, ERR_TOO_LARGE, "KV cache"},
    };
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct errbuf eb = {0};
            struct kv *kv = NULL;
            assert_int_equal(b->ops->kv_new(b, &cases[i].shape, &kv, &eb), cases[i].err);
            if (strstr(eb.text, cases[i].text) == NULL)
                fail_msg("\"%s\" does not say \"%s\"", eb.text, cases[i].text);
            assert_null(kv);
        }
    }
}

static void test_memory_is_what_was_promised_and_all_comes_back(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {31};
    for (size_t k = 0; k < f->n_others; k++) {
        struct backend *b = f->others[k].backend;
        uint64_t before[3];
        uint64_t now[3];
        b->ops->memory(b, &before[0], &before[1], &before[2]);
        struct weight *w[32];
        uint64_t promised = 0;
        for (size_t t = 0; t < fixture_n_types; t++) {
            uint8_t *matrix = fixture_matrix(&r, fixture_types[t], 35, 768);
            struct errbuf eb = {0};
            assert_int_equal(
                b->ops->weight_load(b, fixture_types[t], matrix, 35, 768, 1, &w[t], &eb), ERR_OK);
            promised += backend_cpu_weight_bytes(fixture_types[t], 35, 768);
            free(matrix);
        }
        const struct kv_shape shape = {3, 2, 64, 64, KV_TYPE_Q8_0, 5};
        struct kv *kv;
        struct errbuf eb = {0};
        assert_int_equal(b->ops->kv_new(b, &shape, &kv, &eb), ERR_OK);
        b->ops->memory(b, &now[0], &now[1], &now[2]);
        assert_int_equal(now[0] - before[0], promised);
        assert_int_equal(now[1] - before[1], 5 * backend_kv_page_bytes(&shape));
        float *buffer = b->ops->buffer_new(b, 1000);
        struct act *a = b->ops->act_new(b, 7, 96, true);
        b->ops->memory(b, &now[0], &now[1], &now[2]);
        assert_true(now[2] - before[2] >= 1000 * sizeof(float) + 7 * 96 * 5);
        b->ops->buffer_free(b, buffer);
        b->ops->act_free(b, a);
        b->ops->kv_free(b, kv);
        for (size_t t = 0; t < fixture_n_types; t++)
            b->ops->weight_free(b, w[t]);
        b->ops->memory(b, &now[0], &now[1], &now[2]);
        assert_memory_equal(before, now, sizeof now);
        b->ops->weight_free(b, NULL);
        b->ops->act_free(b, NULL);
        b->ops->kv_free(b, NULL);
        b->ops->buffer_free(b, NULL);
    }
}

static void test_sizes_follow_from_shapes(void **state)
{
    (void)state;
    /* One page of SmolLM2-135M: 30 layers, 3 KV heads of 64, 32 positions, 2 bytes, K and V. */
    const struct kv_shape smollm2 = {30, 3, 64, 64, KV_TYPE_F16, 1};
    assert_int_equal(backend_kv_page_bytes(&smollm2), 30 * 3 * 64 * 32 * 2 * 2);
    const struct kv_shape q8 = {30, 3, 64, 64, KV_TYPE_Q8_0, 1};
    assert_int_equal(backend_kv_page_bytes(&q8), 30 * 3 * 32 * (64 + 2 * 4) * 2);
    /* 17 rows fill two panels. */
    assert_int_equal(backend_cpu_weight_bytes(QUANT_TYPE_Q4_1, 17, 64), 2 * 2 * 320);
    assert_int_equal(backend_cpu_weight_bytes(QUANT_TYPE_F16, 3, 3), 64);
}

static void test_groups_follow_from_shapes(void **state)
{
    (void)state;
    static const struct {
        uint32_t cols;
        uint32_t n_kv_heads;
        uint32_t groups;
    } cases[] = {{576, 3, 3},    {1536, 0, 8},     {4096, 8, 8}, {14336, 0, 16},
                 {4096, 32, 16}, {5120, 40, 10},   {32, 0, 1},   {64, 8, 2},
                 {224, 0, 7},    {20480, 640, 10}, {33, 0, 2},   {3200, 67, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(backend_groups(cases[i].cols, cases[i].n_kv_heads), cases[i].groups);
}

/* A shard that holds a power-of-two run of groups holds a whole node of the tree. */
static void test_group_tree_is_the_stated_one(void **state)
{
    (void)state;
    const float p[] = {1.0f, 0x1p-24f, 0x1p-24f, 3.0f, -1.0f, 0x1p-23f, 5e-9f};
    float x[7];
    memcpy(x, p, sizeof p);
    sum_group_tree(x, 7, 1);
    float left = (p[0] + p[1]) + (p[2] + p[3]);
    float right = (p[4] + p[5]) + p[6];
    assert_true(x[0] == left + right);
    float strided[] = {1.0f, 9.0f, 2.0f, 9.0f, 4.0f, 9.0f};
    sum_group_tree(strided, 3, 2);
    assert_true(strided[0] == 7.0f && strided[1] == 9.0f);
}

static void test_instruction_sets_have_names(void **state)
{
    (void)state;
    enum backend_isa isa;
    assert_true(backend_isa_parse("auto", &isa) && isa == BACKEND_ISA_AUTO);
    assert_true(backend_isa_parse("scalar", &isa) && isa == BACKEND_ISA_SCALAR);
    assert_true(backend_isa_parse("avx2", &isa) && isa == BACKEND_ISA_AVX2);
    assert_true(backend_isa_parse("avx512", &isa) && isa == BACKEND_ISA_AVX512);
    assert_false(backend_isa_parse("AVX2", &isa));
    assert_false(backend_isa_parse("", &isa));
    static const enum backend_isa sets[] = {BACKEND_ISA_AUTO, BACKEND_ISA_SCALAR, BACKEND_ISA_AVX2,
                                            BACKEND_ISA_AVX512, (enum backend_isa)9};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        const struct backend_cpu_config config = {.isa = sets[i], .threads = 1};
        struct errbuf eb = {0};
        struct backend *b = NULL;
        enum err err = backend_cpu_open(&b, &config, &eb);
        if (backend_isa_available(sets[i])) {
            assert_int_equal(err, ERR_OK);
            b->ops->close(b);
        } else {
            assert_true(err == ERR_UNSUPPORTED || err == ERR_INVALID);
            assert_true(eb.text[0] != '\0');
            assert_null(b);
        }
    }
    const struct backend_cpu_config too_many = {.isa = BACKEND_ISA_AVX2, .threads = 100000};
    struct errbuf eb = {0};
    struct backend *b = NULL;
    if (backend_isa_available(BACKEND_ISA_AVX2)) {
        assert_int_equal(backend_cpu_open(&b, &too_many, &eb), ERR_INVALID);
        assert_non_null(strstr(eb.text, "100000 threads"));
    }
}

static void test_pages_come_zeroed_aligned_and_go_back(void **state)
{
    (void)state;
    struct pages pages;
    pages_init(&pages);
    static const size_t sizes[] = {1, 64, 100, 5u << 20, 40u << 20, 63, 31u << 20, 12345};
    enum { N = sizeof sizes / sizeof sizes[0] };
    uint8_t *block[N];
    struct pages_chunk *chunk[N];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < N; i++) {
            block[i] = pages_alloc(&pages, sizes[i], &chunk[i]);
            assert_non_null(block[i]);
            assert_int_equal((uintptr_t)block[i] % 64, 0);
            assert_int_equal(block[i][0], 0);
            assert_int_equal(block[i][sizes[i] - 1], 0);
            memset(block[i], (int)i + 1, sizes[i]);
        }
        for (size_t i = 0; i < N; i++) {
            assert_int_equal(block[i][0], i + 1); /* nobody else's */
            assert_int_equal(block[i][sizes[i] - 1], i + 1);
        }
        for (size_t i = 0; i < N; i++)
            pages_free(&pages, chunk[(i * 3 + 1) % N]);
        assert_int_equal(pages.mapped_bytes, 0);
    }
    struct pages_chunk *none;
    assert_null(pages_alloc(&pages, SIZE_MAX, &none));
    assert_null(pages_alloc(&pages, (size_t)1 << 56, &none));
    pages_fini(&pages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_impossible_weights_are_refused),
        cmocka_unit_test(test_impossible_caches_are_refused),
        cmocka_unit_test(test_memory_is_what_was_promised_and_all_comes_back),
        cmocka_unit_test(test_sizes_follow_from_shapes),
        cmocka_unit_test(test_groups_follow_from_shapes),
        cmocka_unit_test(test_group_tree_is_the_stated_one),
        cmocka_unit_test(test_instruction_sets_have_names),
        cmocka_unit_test(test_pages_come_zeroed_aligned_and_go_back),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
