/* A matrix whose groups are on several shards: every type x cut x number of rows, each shard with
 * its own columns of the file and of x, joined, has the bits of the whole matrix on ref. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS     37u
#define COLS_MAX 2304u
/* More than pass by one set of leaves, 128; on a GPU more than a product takes at a time. */
#ifdef KERNELS_CUDA
#define N_MAX 130u
#else
#define N_MAX 261u
#endif

static const uint32_t row_counts[] = {1, 3, 6, 11, 20, N_MAX};

/* Borders of the shards among the groups. */
static const struct {
    uint32_t cols, groups, unit;
    uint32_t n_shards, border[9];
    bool floats_only; /* the last block is short */
} cuts[] = {
    {576, 9, 2, 3, {0, 3, 6, 9}, false},                /* heads of SmolLM2 */
    {576, 9, 2, 8, {0, 1, 2, 3, 4, 5, 6, 7, 9}, false}, /* uneven */
    {1536, 8, 1, 2, {0, 4, 8}, false},                  /* whole subtrees */
    {2304, 8, 8, 3, {0, 5, 7, 8}, false},               /* leaves */
    {2304, 24, 3, 4, {0, 7, 8, 19, 24}, false},         /* within super-blocks */
    {2304, 64, 1, 5, {0, 1, 30, 31, 63, 64}, false},    /* many nodes a shard */
    {1280, 1, 40, 1, {0, 1}, false},                    /* nothing to join */
    {1000, 8, 1, 3, {0, 3, 4, 8}, true},
};

/* Sums of all nodes, between two halves. */
#define EXCHANGE_COUNT ((size_t)(SUM_GROUPS_MAX + 1) * (N_MAX * (ROWS + 3) + 5))
static float *exchange[2];                      /* one directly behind the other */
#define BACKENDS_MAX (FIXTURE_BACKENDS_MAX + 1) /* the oracle is one */
static struct exchange *exchange_of[BACKENDS_MAX];

struct shards {
    struct backend *b;
    bool exchanges;  /* sums lie where ranks of a gang would hand them over */
    bool by_rows;    /* ... a run of rows to each rank */
    size_t taken[2]; /* floats of each half */
    uint32_t n;      /* rows of x */
    uint32_t n_parts;
    struct sum_node nodes[SUM_GROUPS_MAX];
    struct join_part part[SUM_GROUPS_MAX];
    float *sums[8];
};

/* The columns of a shard from rows of `cols`. */
static float *columns(struct backend *b, const float *x, uint32_t n, uint32_t cols, uint32_t first,
                      uint32_t count)
{
    float *own = malloc((size_t)n * count * sizeof *own);
    assert_non_null(own);
    for (uint32_t i = 0; i < n; i++)
        memcpy(own + (size_t)i * count, x + (size_t)i * cols + first, count * sizeof *own);
    float *buffer = fixture_upload(b, own, (size_t)n * count);
    free(own);
    return buffer;
}

/* Rows of the file without what other shards hold. */
static uint8_t *file_part(enum quant_type type, const uint8_t *matrix, uint32_t cols,
                          uint32_t own_cols, const struct sum_cut *cut)
{
    const struct sum_cut whole = sum_cut_whole(cols, 1, 1);
    const uint64_t row = weight_row_bytes(type, cols, &whole);
    const uint64_t bytes = weight_row_bytes(type, own_cols, cut);
    uint8_t *data = malloc(ROWS * bytes);
    assert_non_null(data);
    for (uint32_t i = 0; i < ROWS; i++)
        memcpy(data + i * bytes, matrix + i * row + weight_row_begin(type, cut), bytes);
    return data;
}

static void shard_run(struct shards *s, uint32_t shard, enum quant_type type, const uint8_t *matrix,
                      uint32_t cols, const struct sum_cut *cut, const float *x)
{
    const struct backend_ops *ops = s->b->ops;
    const uint32_t first = sum_group_begin(cut, cut->first) * SUM_BLOCK_ITEMS;
    const uint32_t end = sum_group_begin(cut, cut->end) * SUM_BLOCK_ITEMS;
    const uint32_t own = (end < cols ? end : cols) - first;
    struct errbuf eb = {0};
    struct weight *w = NULL;
    uint64_t before, weights, kv, scratch;

    uint8_t *data = file_part(type, matrix, cols, own, cut);
    ops->memory(s->b, &before, &kv, &scratch);
    if (matrix_load(s->b, type, data, ROWS, own, cut, &w, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    ops->memory(s->b, &weights, &kv, &scratch);
    if (strcmp(ops->name, "scalar") != 0)
        assert_int_equal(weights - before, fixture_weight_bytes(type, ROWS, own, cut));
    free(data);
    struct act *act = ops->act_new(s->b, s->n, own, true);
    float *in = columns(s->b, x, s->n, cols, first, own);
    const uint32_t n_nodes = sum_nodes(cut, s->nodes + s->n_parts);
    /* Sums of one node behind another, or of one row. */
    const size_t stride = s->by_rows ? n_nodes * (ROWS + 3) : ROWS + 3;
    const size_t node_stride = s->by_rows ? ROWS + 3 : (size_t)s->n * stride + 5;
    const size_t count = n_nodes * (s->n * (ROWS + 3) + 5);
    if (s->exchanges) {
        s->sums[shard] = exchange[shard % 2] + s->taken[shard % 2];
        s->taken[shard % 2] += count;
    } else {
        s->sums[shard] = ops->buffer_new(s->b, count);
    }
    ops->quantize(s->b, in, s->n, own, act);
    const struct matmul_job job = {.weight = w,
                                   .out = s->sums[shard],
                                   .out_stride = (uint32_t)stride,
                                   .node_stride = node_stride};
    ops->matmul(s->b, act, s->n, &job, 1);
    for (uint32_t i = 0; i < n_nodes; i++)
        s->part[s->n_parts++] = (struct join_part){s->sums[shard] + i * node_stride, stride};
    ops->buffer_free(s->b, in);
    ops->act_free(s->b, act);
    ops->weight_free(s->b, w);
}

/* Others take the sums from where they are, and bring them there. */
static void shards_exchange(struct shards *s)
{
    s->b->ops->exchange_done(s->b);
    for (uint32_t i = 0; i < 2; i++) {
        const size_t bytes = s->taken[i] * sizeof exchange[i][0];
        float *copy = malloc(bytes + 1);
        assert_non_null(copy);
        memcpy(copy, exchange[i], bytes);
        memset(exchange[i], 0xff, bytes);
        memcpy(exchange[i], copy, bytes);
        free(copy);
    }
}

/* Joined in two ranges of columns, and by rows in two ranges of rows, as shards do that share out
 * the joining. The first of these goes to where another rank takes it from, and `before` stays as
 * it is there. */
static void shards_join(struct shards *s, const float *bias, const float *before, float *out)
{
    const struct backend_ops *ops = s->b->ops;
    const uint32_t n_first = s->by_rows ? s->n / 2 : 0;
    float *const first = s->exchanges ? exchange[0] + s->taken[0] : out;
    struct join_part part[SUM_GROUPS_MAX];
    struct sum_join joins[SUM_GROUPS_MAX];
    const uint32_t seam = 16;
    struct join_job job = {
        .part = part,
        .n_parts = s->n_parts,
        .joins = joins,
        .n_joins =
            sum_joins(s->nodes, s->n_parts,
                      s->nodes[s->n_parts - 1].first + s->nodes[s->n_parts - 1].count, joins),
        .out_stride = ROWS,
    };
    for (uint32_t from = 0; from < ROWS; from += job.cols) {
        job.cols = from == 0 ? seam : ROWS - seam;
        job.bias = bias != NULL ? bias + from : NULL;
        for (uint32_t row = 0; row < s->n; row += row == 0 && n_first > 0 ? n_first : s->n) {
            const uint32_t n = row < n_first ? n_first : s->n - row;
            for (uint32_t i = 0; i < s->n_parts; i++) {
                part[i] = s->part[i];
                part[i].at += row * part[i].stride + from;
            }
            job.out = (row < n_first ? first : out) + row * ROWS + from;
            job.onto = before == NULL ? NULL : before + row * ROWS + from;
            ops->join(s->b, n, &job);
        }
    }
    if (n_first > 0 && s->exchanges) {
        const struct join_part whole = {first, ROWS};
        const struct join_job copy = {
            .part = &whole, .n_parts = 1, .cols = ROWS, .out = out, .out_stride = ROWS};
        ops->exchange_done(s->b);
        ops->join(s->b, n_first, &copy);
    }
}

static void whole_run(struct backend *ref, enum quant_type type, const uint8_t *matrix,
                      uint32_t cols, const struct sum_cut *cut, const float *x, const float *bias,
                      bool accumulate, float *out)
{
    struct errbuf eb = {0};
    struct weight *w = NULL;
    if (matrix_load(ref, type, matrix, ROWS, cols, cut, &w, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    struct act *act = ref->ops->act_new(ref, N_MAX, cols, true);
    ref->ops->quantize(ref, x, N_MAX, cols, act);
    const struct matmul_job job = {
        .weight = w, .out = out, .out_stride = ROWS, .bias = bias, .accumulate = accumulate};
    ref->ops->matmul(ref, act, N_MAX, &job, 1);
    ref->ops->act_free(ref, act);
    ref->ops->weight_free(ref, w);
}

static void compare_shards(struct backend *b, const char *name, enum quant_type type,
                           const uint8_t *matrix, size_t c, const float *x, const float *bias,
                           bool accumulate, const float *before, const float *expected)
{
    float actual[N_MAX * ROWS];
    const uint32_t cols = cuts[c].cols;
    for (size_t k = 0; k < sizeof row_counts / sizeof row_counts[0]; k++) {
        struct shards s = {
            .b = b, .n = row_counts[k], .exchanges = (c + k) % 2 == 0, .by_rows = (c + k) % 4 >= 2};
        for (uint32_t i = 0; i < cuts[c].n_shards; i++) {
            struct sum_cut cut = sum_cut_whole(cols, cuts[c].groups, cuts[c].unit);
            cut.first = cuts[c].border[i];
            cut.end = cuts[c].border[i + 1];
            shard_run(&s, i, type, matrix, cols, &cut, x);
        }
        if (s.exchanges)
            shards_exchange(&s);
        float *out = fixture_upload(b, before, (size_t)s.n * ROWS);
        float *own_bias = fixture_upload(b, bias, ROWS);
        /* Onto itself where all sums of a node lie together, as most often. */
        float *own = s.by_rows ? b->ops->buffer_new(b, (size_t)s.n * ROWS) : out;
        shards_join(&s, own_bias, accumulate ? out : NULL, own);
        b->ops->buffer_read(b, own, actual, (size_t)s.n * ROWS);
        char what[96];
        snprintf(what, sizeof what, "%s, %u groups of %u columns on %u shards, n = %u",
                 quant_type_info((uint32_t)type)->name, cuts[c].groups, cols, cuts[c].n_shards,
                 s.n);
        fixture_same(what, name, expected, actual, (size_t)s.n * ROWS);
        if (own != out)
            b->ops->buffer_free(b, own);
        b->ops->buffer_free(b, out);
        b->ops->buffer_free(b, own_bias);
        for (uint32_t i = 0; i < cuts[c].n_shards && !s.exchanges; i++)
            b->ops->buffer_free(b, s.sums[i]);
    }
}

static void test_shards_have_the_bits_of_the_whole(void **state)
{
    const struct fixture *f = *state;
    static float x[N_MAX * COLS_MAX], before[N_MAX * ROWS], expected[N_MAX * ROWS], bias[ROWS];
    struct fixture_random r = {41};
    fixture_floats(&r, x, N_MAX * COLS_MAX);
    fixture_floats(&r, before, N_MAX * ROWS);
    fixture_floats(&r, bias, ROWS);
    for (size_t t = 0; t < fixture_n_types; t++) {
        const enum quant_type type = fixture_types[t];
        const uint32_t block = quant_type_info((uint32_t)type)->block_items;
        for (size_t c = 0; c < sizeof cuts / sizeof cuts[0]; c++) {
            const uint32_t cols = cuts[c].cols;
            const struct sum_cut cut = sum_cut_whole(cols, cuts[c].groups, cuts[c].unit);
            const float *own_bias = (t + c) % 2 == 0 ? bias : NULL;
            const bool accumulate = (t + c) % 3 > 0;
            if (cols % block != 0 || (cuts[c].floats_only && block > 1) || fixture_leaves_out(c, t))
                continue;
            uint8_t *matrix = fixture_matrix(&r, type, ROWS, cols);
            memcpy(expected, before, sizeof expected);
            whole_run(f->ref, type, matrix, cols, &cut, x, own_bias, accumulate, expected);
            compare_shards(f->ref, "scalar", type, matrix, c, x, own_bias, accumulate, before,
                           expected);
            for (size_t i = 0; i < f->n_others; i++)
                compare_shards(f->others[i].backend, f->others[i].name, type, matrix, c, x,
                               own_bias, accumulate, before, expected);
            free(matrix);
        }
    }
}

static void test_rows_are_placed(void **state)
{
    const struct fixture *f = *state;
    enum { COLS = 70, N = 9 };
    static const uint32_t at[] = {8, 0, 3};
    float rows[3 * COLS], out[N * COLS], actual[N * COLS];
    struct fixture_random r = {43};
    for (size_t k = 0; k <= 2 * f->n_others + 1; k++) {
        struct backend *b = k < 2 ? f->ref : f->others[k / 2 - 1].backend;
        const bool is_exchanged = k % 2 > 0;
        fixture_floats(&r, rows, 3 * COLS);
        fixture_floats(&r, out, N * COLS);
        float *from = is_exchanged ? exchange[0] : fixture_upload(b, rows, 3 * COLS);
        float *to = fixture_upload(b, out, N * COLS);
        if (is_exchanged)
            memcpy(from, rows, sizeof rows);
        b->ops->place(b, from, at, 3, COLS, to);
        b->ops->buffer_read(b, to, actual, N * COLS);
        for (size_t i = 0; i < 3; i++)
            memcpy(out + (size_t)at[i] * COLS, rows + i * COLS, COLS * sizeof *out);
        fixture_same("placed rows", b->ops->name, out, actual, N * COLS);
        if (!is_exchanged)
            b->ops->buffer_free(b, from);
        b->ops->buffer_free(b, to);
    }
}

/* Rows of a stage go to where another has them, and from there into a buffer: bit for bit. */
static void test_rows_are_handed_on(void **state)
{
    const struct fixture *f = *state;
    enum { COLS = 70, N = 9 };
    float rows[N * COLS], out[N * COLS], actual[N * COLS];
    struct fixture_random r = {47};
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        fixture_floats(&r, rows, N * COLS);
        fixture_floats(&r, out, N * COLS);
        float *from = fixture_upload(b, rows, N * COLS);
        float *to = fixture_upload(b, out, N * COLS);
        const struct join_part read = {from + COLS, COLS}, again = {exchange[0], COLS};
        struct join_job job = {
            .part = &read, .n_parts = 1, .cols = COLS, .out = exchange[0], .out_stride = COLS};
        b->ops->join(b, N - 2, &job);
        b->ops->exchange_done(b);
        fixture_same("rows for another stage", b->ops->name, rows + COLS, exchange[0],
                     (N - 2) * COLS);
        job.part = &again;
        job.out = to + 2 * COLS;
        b->ops->join(b, N - 2, &job);
        b->ops->buffer_read(b, to, actual, N * COLS);
        memcpy(out + 2 * COLS, rows + COLS, (N - 2) * COLS * sizeof *out);
        fixture_same("rows of another stage", b->ops->name, out, actual, N * COLS);
        b->ops->buffer_free(b, from);
        b->ops->buffer_free(b, to);
    }
}

static int exchange_setup(void **state)
{
    struct errbuf eb = {{0}};

    if (fixture_setup(state) != 0)
        return -1;
    exchange[1] = malloc(2 * EXCHANGE_COUNT * sizeof *exchange[1]);
    assert_non_null(exchange[1]);
    exchange[0] = exchange[1] + EXCHANGE_COUNT;
    void *const halves[2] = {exchange[0], exchange[1]};
    const struct fixture *f = *state;
    assert_true(f->n_others < BACKENDS_MAX);
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        assert_int_equal(b->ops->exchange_open(b, halves, EXCHANGE_COUNT * sizeof *exchange[0],
                                               &exchange_of[k], &eb),
                         ERR_OK);
    }
    return 0;
}

static int exchange_teardown(void **state)
{
    const struct fixture *f = *state;
    for (size_t k = 0; k <= f->n_others; k++) {
        struct backend *b = k == 0 ? f->ref : f->others[k - 1].backend;
        b->ops->exchange_done(b);
        b->ops->exchange_close(b, exchange_of[k]);
    }
    free(exchange[1]);
    return fixture_teardown(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shards_have_the_bits_of_the_whole),
        cmocka_unit_test(test_rows_are_placed),
        cmocka_unit_test(test_rows_are_handed_on),
    };
    return cmocka_run_group_tests(tests, exchange_setup, exchange_teardown);
}
