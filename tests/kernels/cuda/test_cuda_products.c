/* How matrix products read memory: what the layout is for (worker/kernels/cuda/weight_layout.h).
 * Whole sectors of the matrix and each once, and no two lanes in one bank of shared memory. How
 * attention reads keys and values: once for all heads of a group. Counted by the emulation, in
 * checked mode. */
#include "tests/kernels/matrix.h"
#include "tests/cuda_emulation/emulation.h"
#include "tests/kernels/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { ROWS = 128, COLS = 2048 };

static const struct {
    const char *kernel; /* as it is launched */
    uint32_t n;
    uint32_t tile_rows; /* each tile of so many reads all of x */
    /* Moved in sectors of 32 bytes, over the bytes there are. x comes 16 bytes and 4 bytes at a
     * time, from the first-level cache. */
    double moved_most;
    /* Of the wavefronts of shared memory. With two rows a lane, both halves of a warp store their
     * leaves' sums to the same banks, once a leaf. */
    double conflicts_most;
} cases[] = {
    {"(gemv_kernel<T, 1, 1>)", 1, 32, 1.25, 0.0},
    {"(gemv_kernel<T, 4, 2>)", 4, 32, 2.0, 0.15},
    {"(gemm_kernel<T, Tile>)", 16, 32, 1.25, 0.01},
    {"(gemm_kernel<T, Tile>)", 64, 128, 1.25, 0.01},
};

/* 4 bytes of each block of x, beside its scale. */
static bool has_minimum(enum quant_type type)
{
    return type == QUANT_TYPE_Q4_1 || type == QUANT_TYPE_Q5_1 || type == QUANT_TYPE_Q2_K ||
           type == QUANT_TYPE_Q4_K || type == QUANT_TYPE_Q5_K;
}

static void product_run(struct backend *b, enum quant_type type, const uint8_t *matrix, uint32_t n)
{
    struct errbuf eb = {{0}};
    struct weight *w;
    struct act *x = b->ops->act_new(b, n, COLS, false);
    float *in = b->ops->buffer_new(b, (size_t)n * COLS), *host = malloc(sizeof(float) * n * COLS);
    float *out = b->ops->buffer_new(b, (size_t)n * ROWS);
    struct fixture_random r = {5};

    assert_true(x != NULL && in != NULL && host != NULL && out != NULL);
    fixture_floats(&r, host, (size_t)n * COLS);
    b->ops->buffer_write(b, in, host, (size_t)n * COLS);
    b->ops->quantize(b, in, n, COLS, x);
    assert_int_equal(matrix_load(b, type, matrix, ROWS, COLS, NULL, &w, &eb), ERR_OK);
    emu_counters_reset();
    const struct matmul_job job = {.weight = w, .out = out, .out_stride = ROWS};
    b->ops->matmul(b, x, n, &job, 1);
    b->ops->buffer_read(b, out, host, 1);
    b->ops->weight_free(b, w);
    b->ops->buffer_free(b, in);
    b->ops->buffer_free(b, out);
    b->ops->act_free(b, x);
    free(host);
}

static void test_products_read_whole_sectors_and_no_bank_twice(void **state)
{
    const struct fixture *f = *state;
    const struct sum_cut cut = sum_cut_whole(COLS, 1, 1);
    struct fixture_random r = {3};

    if (!emu_is_checked())
        skip();
    for (size_t t = 0; t < fixture_n_types; t++) {
        const enum quant_type type = fixture_types[t];
        const struct quant_type_info *info = quant_type_info((uint32_t)type);
        if (info->block_items == 1)
            continue;
        uint8_t *matrix = fixture_matrix(&r, type, ROWS, COLS);
        const double bytes = (double)backend_cuda_weight_bytes(type, ROWS, COLS, &cut);
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct emu_counters c;
            product_run(f->others[0].backend, type, matrix, cases[i].n);
            assert_true(emu_counters_get(cases[i].kernel, &c));
            const double x_bytes =
                cases[i].n * (COLS + COLS / 32.0 * 4 * (has_minimum(type) ? 2 : 1));
            const double moved = (double)c.load_sectors * 32 /
                                 (bytes + (double)(ROWS / cases[i].tile_rows) * x_bytes);
            const double conflicts = c.shared_wavefronts == 0
                                         ? 0.0
                                         : (double)c.shared_conflicts / (double)c.shared_wavefronts;
            print_message("%-7s %2u columns: %5.2f bytes moved for each there is, %4.1f %% of "
                          "shared wavefronts are conflicts, %llu mma, %llu copies\n",
                          info->name, cases[i].n, moved, 100.0 * conflicts,
                          (unsigned long long)c.mma, (unsigned long long)c.async_copies);
            assert_true(moved <= cases[i].moved_most);
            assert_true(conflicts <= cases[i].conflicts_most);
        }
        free(matrix);
    }
}

/* ---- attention ---- */

enum { POSITIONS = 256, DIM = 128, PAGES = POSITIONS / KV_PAGE_TOKENS };

static struct emu_counters attention_run(struct backend *b, enum kv_type type, uint32_t heads,
                                         uint32_t kv_heads, uint32_t first, uint32_t n)
{
    const struct kv_shape shape = {1, kv_heads, DIM, DIM, type, PAGES};
    const size_t width = (size_t)heads * DIM, kv_width = (size_t)kv_heads * DIM;
    uint32_t positions[POSITIONS], sequences[POSITIONS] = {0}, pages[PAGES];
    static float table[POSITIONS * DIM];
    struct fixture_random r = {17};
    struct emu_counters c;
    struct errbuf eb = {{0}};
    struct kv *kv;

    for (uint32_t i = 0; i < POSITIONS; i++)
        positions[i] = i;
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = i;
    fixture_floats(&r, table, POSITIONS * DIM);
    float *host = malloc(sizeof *host * POSITIONS * width);
    assert_non_null(host);
    fixture_floats(&r, host, POSITIONS * width);
    assert_int_equal(b->ops->kv_new(b, &shape, &kv, &eb), ERR_OK);
    float *q = fixture_upload(b, host, POSITIONS * width);
    float *k = fixture_upload(b, host, POSITIONS * kv_width);
    float *v = fixture_upload(b, host, POSITIONS * kv_width);
    struct act *out = b->ops->act_new(b, n, heads * DIM, false);
    const struct step_rows all = {POSITIONS, positions, sequences, pages, PAGES};
    const struct rope_kv_job rope = {.kv = kv,
                                     .rows = &all,
                                     .q = q,
                                     .k = k,
                                     .v = v,
                                     .n_heads = heads,
                                     .rope_dim = DIM,
                                     .style = ROPE_STYLE_HALVES,
                                     .table = table};
    b->ops->rope_kv(b, &rope);
    const struct step_rows last = {n, positions + first, sequences, pages, PAGES};
    const struct attention_job job = {
        .kv = kv, .rows = &last, .q = q, .n_heads = heads, .scale = 0.1f, .out = out};
    b->ops->buffer_read(b, q, host, 1);
    emu_counters_reset();
    b->ops->attention(b, &job);
    b->ops->buffer_read(b, q, host, 1);
    assert_true(emu_counters_get("(attention_walk<M, COLS, NV, Q8>)", &c));
    b->ops->act_free(b, out);
    b->ops->buffer_free(b, q);
    b->ops->buffer_free(b, k);
    b->ops->buffer_free(b, v);
    b->ops->kv_free(b, kv);
    free(host);
    return c;
}

/* Decode reads a sequence's keys and values once for all query heads of their group, not once for
 * each head; the rows of a prompt share them, too. */
static void test_attention_reads_keys_and_values_once_a_group(void **state)
{
    const struct fixture *f = *state;
    static const struct {
        const char *what;
        uint32_t heads, kv_heads, first, n;
        uint32_t passes; /* in which all queries take up all keys and values, 32 at a time */
    } rows[] = {
        {"decode, a head each", 2, 2, POSITIONS - 1, 1, 1},
        {"decode, groups of 4", 8, 2, POSITIONS - 1, 1, 1},
        {"decode, groups of 8", 16, 2, POSITIONS - 1, 1, 1},
        {"prompt, groups of 4", 8, 2, POSITIONS - 32, 32, 4},
    };

    if (!emu_is_checked())
        skip();
    for (size_t t = 0; t < 2; t++) {
        const enum kv_type type = t == 0 ? KV_TYPE_F16 : KV_TYPE_Q8_0;
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            const struct kv_shape shape = {1, rows[i].kv_heads, DIM, DIM, type, PAGES};
            const struct emu_counters c = attention_run(f->others[0].backend, type, rows[i].heads,
                                                        rows[i].kv_heads, rows[i].first, rows[i].n);
            const double kv_bytes = (double)backend_cuda_kv_page_bytes(&shape) * PAGES;
            const double q_bytes = (double)rows[i].n * rows[i].heads * DIM * sizeof(float);
            const double moved =
                (double)c.load_sectors * 32 / (kv_bytes * rows[i].passes + q_bytes);
            const double conflicts = (double)c.shared_conflicts / (double)c.shared_wavefronts;
            print_message("%s, %s: %.2f bytes moved for each there is, %.1f %% of shared "
                          "wavefronts are conflicts, %llu copies, efficiency %.2f\n",
                          rows[i].what, t == 0 ? "f16" : "q8_0", moved, 100.0 * conflicts,
                          (unsigned long long)c.async_copies, emu_load_efficiency(&c));
            /* All of the cache in pieces of 16 bytes; beside it queries, and lists of pages. */
            assert_true((double)c.async_copies * 16 == kv_bytes * rows[i].passes);
            assert_true(moved <= 1.35);
            assert_true(conflicts <= 0.01);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_read_whole_sectors_and_no_bank_twice),
        cmocka_unit_test(test_attention_reads_keys_and_values_once_a_group),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
