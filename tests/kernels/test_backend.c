/* What backends refuse, count and promise about sizes; the page memory. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include "worker/kernels/cpu/pages.h"
#include "worker/kernels/sum_order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
            const struct sum_cut cut = sum_cut_whole(cases[i].cols, cases[i].groups, 1);
            assert_int_equal(matrix_load(b, (enum quant_type)cases[i].type, data, cases[i].rows,
                                         cases[i].cols, &cut, &w, &eb),
                             cases[i].err);
            assert_non_null(strstr(eb.text, cases[i].text));
            assert_null(w);
        }
    }
}

static void test_impossible_cuts_are_refused(void **state)
{
    const struct fixture *f = *state;
    static const uint8_t data[4096];
    static const struct {
        enum quant_type type;
        uint32_t cols;
        struct sum_cut cut;
        const char *text;
    } cases[] = {
        {QUANT_TYPE_Q4_1, 64, {4, 2, 0, 0, 1}, "units of 0"},
        {QUANT_TYPE_Q4_1, 64, {0, 1, 1, 0, 1}, "0 blocks"},
        {QUANT_TYPE_Q4_1, 64, {1u << 30, 1, 1, 0, 1}, "1073741824 blocks"},
        {QUANT_TYPE_Q4_1, 64, {16, 3, 8, 0, 1}, "3 groups"},
        {QUANT_TYPE_Q4_1, 64, {4, 2, 1, 1, 1}, "groups 1 .. 1 of 2"},
        {QUANT_TYPE_Q4_1, 64, {4, 2, 1, 1, 3}, "groups 1 .. 3 of 2"},
        {QUANT_TYPE_Q4_1, 32, {4, 2, 1, 1, 2}, "32 columns for groups of 2 blocks"},
        {QUANT_TYPE_F32, 33, {4, 2, 1, 0, 1}, "33 columns for groups of 2 blocks"},
        {QUANT_TYPE_F32, 63, {4, 2, 1, 0, 1}, "63 columns for groups of 2 blocks"},
        {QUANT_TYPE_Q6_K, 64, {4, 2, 1, 0, 1}, "128 columns are no multiple of 256"},
    };
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct errbuf eb = {0};
            struct weight *w = NULL;
            assert_int_equal(
                matrix_load(b, cases[i].type, data, 2, cases[i].cols, &cases[i].cut, &w, &eb),
                ERR_INVALID);
            if (strstr(eb.text, cases[i].text) == NULL)
                fail_msg("%s, not: %s", eb.text, cases[i].text);
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
        const struct sum_cut whole = sum_cut_whole(768, 1, 1);
        for (size_t t = 0; t < fixture_n_types; t++) {
            uint8_t *matrix = fixture_matrix(&r, fixture_types[t], 35, 768);
            struct errbuf eb = {0};
            assert_int_equal(matrix_load(b, fixture_types[t], matrix, 35, 768, NULL, &w[t], &eb),
                             ERR_OK);
            promised += fixture_weight_bytes(fixture_types[t], 35, 768, &whole);
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
    const struct sum_cut two = sum_cut_whole(64, 1, 1), three = sum_cut_whole(3, 1, 1);
    assert_int_equal(backend_cpu_weight_bytes(QUANT_TYPE_Q4_1, 17, 64, &two), 2 * 2 * 320);
    assert_int_equal(backend_cpu_weight_bytes(QUANT_TYPE_F16, 3, 3, &three), 64);
    /* Blocks 12 .. 19 of 32 touch two super-blocks of 144 bytes; the panel begins with block 8. */
    struct sum_cut part = sum_cut_whole(1024, 8, 4);
    part.first = 3;
    part.end = 5;
    assert_int_equal(weight_row_begin(QUANT_TYPE_Q4_K, &part), 144);
    assert_int_equal(weight_row_bytes(QUANT_TYPE_Q4_K, 256, &part), 2 * 144);
    assert_int_equal(backend_cpu_weight_bytes(QUANT_TYPE_Q4_K, 16, 256, &part),
                     2 * 64 + 12 * (2 * 16 + 256));
    assert_int_equal(weight_row_begin(QUANT_TYPE_Q4_0, &part), 12 * 18);
    assert_int_equal(weight_row_bytes(QUANT_TYPE_Q4_0, 256, &part), 8 * 18);
}

static void test_groups_follow_from_shapes(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_heads, n_kv_heads, head_dim;
        uint32_t groups, unit;
    } attention[] = {
        {9, 3, 64, 9, 2}, /* a group is a head, */
        {4, 1, 256, 4, 8},    {28, 4, 128, 28, 4},
        {32, 8, 128, 16, 8}, /* or some, while there are 16 groups, */
        {64, 8, 128, 16, 16}, {32, 32, 128, 16, 8},
        {40, 40, 128, 20, 8}, {40, 8, 128, 40, 4}, /* and KV heads end where groups do, */
        {32, 32, 80, 16, 5},                       /* and blocks; */
        {6, 2, 80, 1, 15},    {71, 1, 64, 1, 142}, /* one, where there is no such number */
        {1, 1, 32, 1, 1},
    };
    for (size_t i = 0; i < sizeof attention / sizeof attention[0]; i++) {
        const struct sum_cut cut = backend_cut_attention(
            attention[i].n_heads, attention[i].n_kv_heads, attention[i].head_dim);
        assert_int_equal(cut.groups, attention[i].groups);
        assert_int_equal(cut.unit, attention[i].unit);
        assert_int_equal(cut.blocks, cut.groups * cut.unit);
        assert_true(cut.first == 0 && cut.end == cut.groups);
    }
    static const struct {
        uint32_t cols;
        uint32_t groups, unit;
    } ffn[] = {{1536, 8, 1}, {2048, 8, 8}, {8960, 16, 8}, {14336, 16, 8}, {32, 1, 1},
               {224, 7, 1},  {33, 2, 1},   {4096, 16, 8}, {4064, 8, 8}};
    for (size_t i = 0; i < sizeof ffn / sizeof ffn[0]; i++) {
        const struct sum_cut cut = backend_cut_ffn(ffn[i].cols);
        assert_int_equal(cut.groups, ffn[i].groups);
        assert_int_equal(cut.unit, ffn[i].unit);
        assert_int_equal(sum_group_begin(&cut, 0), 0);
        assert_int_equal(sum_group_begin(&cut, cut.groups), cut.blocks);
    }
}

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

/* However many groups there are and wherever they are cut in two: what both parts hold as subtrees
 * makes up the same tree. Sums of hashes stand for floats, so that order shows. */
static uint64_t tree_of(uint32_t first, uint32_t n)
{
    if (n == 1)
        return first + 1;
    uint32_t left = 1;
    while (2 * left < n)
        left *= 2;
    return (tree_of(first, left) * 0x9e3779b97f4a7c15ull) ^ (tree_of(first + left, n - left) + 17);
}

static void test_any_cut_makes_the_same_tree(void **state)
{
    (void)state;
    for (uint32_t groups = 1; groups <= SUM_GROUPS_MAX; groups++) {
        for (uint32_t at = 0; at <= groups; at++) {
            struct sum_node nodes[2 * SUM_NODES_MAX];
            struct sum_join joins[2 * SUM_NODES_MAX];
            uint64_t sum[2 * SUM_NODES_MAX];
            struct sum_cut cut = {groups, groups, 1, 0, at};
            uint32_t n = at > 0 ? sum_nodes(&cut, nodes) : 0;
            assert_true(n <= SUM_NODES_MAX);
            cut.first = at;
            cut.end = groups;
            n += at < groups ? sum_nodes(&cut, nodes + n) : 0;
            uint32_t covered = 0;
            for (uint32_t i = 0; i < n; i++) {
                assert_int_equal(nodes[i].first, covered);
                covered += nodes[i].count;
                sum[i] = tree_of(nodes[i].first, nodes[i].count);
            }
            assert_int_equal(covered, groups);
            uint32_t n_joins = sum_joins(nodes, n, groups, joins);
            assert_int_equal(n_joins, n - 1);
            for (uint32_t i = 0; i < n_joins; i++)
                sum[joins[i].into] =
                    (sum[joins[i].into] * 0x9e3779b97f4a7c15ull) ^ (sum[joins[i].from] + 17);
            assert_true(sum[0] == tree_of(0, groups));
        }
    }
}

static void test_instruction_sets_have_names(void **state)
{
    (void)state;
    enum backend_isa isa;
    assert_true(backend_isa_parse("auto", &isa) && isa == BACKEND_ISA_AUTO);
    assert_true(backend_isa_parse("scalar", &isa) && isa == BACKEND_ISA_SCALAR);
    assert_true(backend_isa_parse("avx2", &isa) && isa == BACKEND_ISA_AVX2);
    assert_true(backend_isa_parse("avx512", &isa) && isa == BACKEND_ISA_AVX512);
    assert_true(backend_isa_parse("amx", &isa) && isa == BACKEND_ISA_AMX);
    assert_false(backend_isa_parse("AVX2", &isa));
    assert_false(backend_isa_parse("", &isa));
    static const enum backend_isa sets[] = {BACKEND_ISA_AUTO, BACKEND_ISA_SCALAR,
                                            BACKEND_ISA_AVX2, BACKEND_ISA_AVX512,
                                            BACKEND_ISA_AMX,  (enum backend_isa)9};
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

/* Whether the mapping that holds `at` was asked to be of huge pages: "hg" of its VmFlags, of which
 * nothing is said where the kernel has no such pages. */
static bool asked_huge(const void *at, bool *ret_any)
{
    char line[512];
    bool inside = false, huge = false;
    unsigned long first, end;
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    *ret_any = false;
    while (fgets(line, sizeof line, f) != NULL) {
        if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
            inside = (uintptr_t)at >= first && (uintptr_t)at < end;
        if (!inside || strncmp(line, "VmFlags:", 8) != 0)
            continue;
        *ret_any = true;
        huge = strstr(line, " hg") != NULL;
    }
    assert_int_equal(fclose(f), 0);
    return huge;
}

/* A chunk begins at a border of 2 MB and is whole ones, or the kernel could not use a page of that
 * size for its ends. */
static void test_pages_are_asked_for_as_huge_ones(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, (256u << 20) + 1};
    const bool has_them = access("/sys/kernel/mm/transparent_hugepage", F_OK) == 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct pages pages;
        struct pages_chunk *chunk;
        bool any;
        pages_init(&pages);
        uint8_t *first = pages_alloc(&pages, sizes[i], &chunk);
        assert_non_null(first);
        assert_int_equal((uintptr_t)first % (2u << 20), 0);
        assert_int_equal(pages.mapped_bytes % (2u << 20), 0);
        assert_true(pages.mapped_bytes >= sizes[i]);
        *first = 1;
        const bool huge = asked_huge(first, &any);
        if (has_them && any)
            assert_true(huge);
        else
            print_message("this kernel does not say: left out\n");
        pages_free(&pages, chunk);
        pages_fini(&pages);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_impossible_weights_are_refused),
        cmocka_unit_test(test_impossible_caches_are_refused),
        cmocka_unit_test(test_memory_is_what_was_promised_and_all_comes_back),
        cmocka_unit_test(test_sizes_follow_from_shapes),
        cmocka_unit_test(test_impossible_cuts_are_refused),
        cmocka_unit_test(test_groups_follow_from_shapes),
        cmocka_unit_test(test_any_cut_makes_the_same_tree),
        cmocka_unit_test(test_group_tree_is_the_stated_one),
        cmocka_unit_test(test_instruction_sets_have_names),
        cmocka_unit_test(test_pages_come_zeroed_aligned_and_go_back),
        cmocka_unit_test(test_pages_are_asked_for_as_huge_ones),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
