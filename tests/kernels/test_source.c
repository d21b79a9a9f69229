/* Matrices that come in pieces: the same weights as from memory, each byte asked for once, and a
 * source that fails leaves nothing behind. */
#include "tests/kernels/fixture.h"
#include "tests/kernels/matrix.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct pieces {
    const uint8_t *data;
    uint64_t size;
    uint8_t *seen; /* [size] how often */
    uint64_t fails_at;
    size_t largest;
    pthread_mutex_t lock;
};

static bool pieces_read(void *ctx, uint64_t at, void *to, size_t size)
{
    struct pieces *p = ctx;
    bool fine;
    (void)pthread_mutex_lock(&p->lock);
    fine = at <= p->size && size <= p->size - at && !(p->fails_at >= at && p->fails_at < at + size);
    for (uint64_t i = at; fine && i < at + size; i++)
        p->seen[i]++;
    p->largest = size > p->largest ? size : p->largest;
    (void)pthread_mutex_unlock(&p->lock);
    if (fine)
        memcpy(to, p->data + at, size);
    return fine;
}

static const struct {
    uint32_t rows, cols;
} shapes[] = {{1, 256}, {17, 256}, {300, 512}, {3, 32768}, {513, 1024}};

static uint64_t matrix_bytes(enum quant_type type, uint32_t rows, uint32_t cols)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    return (uint64_t)rows * (cols / info->block_items) * info->block_bytes;
}

/* All rows, read back as the embedding reads them. */
static float *values_of(struct backend *b, const struct weight *w, uint32_t rows, uint32_t cols)
{
    int32_t *ids = malloc(rows * sizeof *ids);
    float *host = malloc((size_t)rows * cols * sizeof *host);
    float *out = b->ops->buffer_new(b, (size_t)rows * cols);
    assert_true(ids != NULL && host != NULL && out != NULL);
    for (uint32_t i = 0; i < rows; i++)
        ids[i] = (int32_t)i;
    b->ops->embed(b, w, ids, rows, 1.0f, out);
    b->ops->buffer_read(b, out, host, (size_t)rows * cols);
    b->ops->buffer_free(b, out);
    free(ids);
    return host;
}

static void compare(struct backend *b, const char *name, enum quant_type type, uint32_t rows,
                    uint32_t cols, struct pieces *p)
{
    struct weight *whole, *read;
    const struct weight_job job = {.type = type,
                                   .rows = rows,
                                   .cols = cols,
                                   .cut = sum_cut_whole(cols, 1, 1),
                                   .source = {.read = pieces_read, .ctx = p},
                                   .ret_weight = &read};
    uint32_t failed;
    struct errbuf eb = {{0}};
    uint64_t weights[2], kv, scratch;

    assert_int_equal(matrix_load(b, type, p->data, rows, cols, NULL, &whole, &eb), ERR_OK);
    b->ops->memory(b, &weights[0], &kv, &scratch);
    memset(p->seen, 0, p->size);
    p->fails_at = UINT64_MAX;
    assert_int_equal(b->ops->weights_read(b, &job, 1, &failed, &eb), ERR_OK);
    b->ops->memory(b, &weights[1], &kv, &scratch);
    assert_int_equal(weights[1], 2 * weights[0]);
    for (uint64_t i = 0; i < p->size; i++)
        if (p->seen[i] != 1)
            fail_msg("%s: byte %llu was asked for %u times", name, (unsigned long long)i,
                     p->seen[i]);
    float *want = values_of(b, whole, rows, cols), *got = values_of(b, read, rows, cols);
    fixture_same(quant_type_info((uint32_t)type)->name, name, want, got, (size_t)rows * cols);
    free(want);
    free(got);
    b->ops->weight_free(b, read);

    /* A piece that cannot be read: an error, and not a byte more than before. */
    const uint64_t bad[] = {0, p->size / 2, p->size - 1};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        p->fails_at = bad[i];
        read = NULL;
        assert_int_equal(b->ops->weights_read(b, &job, 1, &failed, &eb), ERR_IO);
        assert_int_equal(failed, 0);
        assert_null(read);
        b->ops->memory(b, &weights[1], &kv, &scratch);
        assert_int_equal(weights[1], weights[0]);
    }
    b->ops->weight_free(b, whole);
}

static void test_pieces_make_the_same_matrix(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {31};
    for (size_t t = 0; t < fixture_n_types; t++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            uint32_t rows = shapes[s].rows, cols = shapes[s].cols;
            uint8_t *matrix = fixture_matrix(&r, fixture_types[t], rows, cols);
            struct pieces p = {.data = matrix,
                               .size = matrix_bytes(fixture_types[t], rows, cols),
                               .lock = PTHREAD_MUTEX_INITIALIZER};
            p.seen = malloc(p.size);
            assert_non_null(p.seen);
            compare(f->ref, "ref", fixture_types[t], rows, cols, &p);
            for (size_t i = 0; i < f->n_others; i++) {
                p.largest = 0;
                compare(f->others[i].backend, f->others[i].name, fixture_types[t], rows, cols, &p);
                /* A quarter of a megabyte, or a panel of 16 rows where those are longer. */
                uint64_t panel = p.size / rows * 16;
                assert_true(p.largest <= (panel > (256u << 10) ? panel : 256u << 10));
            }
            free(p.seen);
            free(matrix);
        }
}

/* Matrices of every type and shape at once, some smaller than a piece and some of many. */
enum { TOGETHER = 40 };

struct together {
    struct pieces pieces[TOGETHER];
    struct weight_job jobs[TOGETHER];
    struct weight *weights[TOGETHER];
};

static void together_make(struct together *g, struct fixture_random *r)
{
    for (uint32_t i = 0; i < TOGETHER; i++) {
        enum quant_type type = fixture_types[i % fixture_n_types];
        uint32_t rows = shapes[i * 3 % 5].rows, cols = shapes[i * 3 % 5].cols;
        uint64_t size = matrix_bytes(type, rows, cols);
        g->pieces[i] = (struct pieces){.data = fixture_matrix(r, type, rows, cols),
                                       .size = size,
                                       .seen = calloc(1, size),
                                       .fails_at = UINT64_MAX,
                                       .lock = PTHREAD_MUTEX_INITIALIZER};
        assert_non_null(g->pieces[i].seen);
        g->jobs[i] = (struct weight_job){.type = type,
                                         .rows = rows,
                                         .cols = cols,
                                         .cut = sum_cut_whole(cols, 1, 1),
                                         .source = {.read = pieces_read, .ctx = &g->pieces[i]},
                                         .ret_weight = &g->weights[i]};
    }
}

static void read_together(struct backend *b, const char *name, struct together *g)
{
    struct errbuf eb = {{0}};
    uint32_t failed;

    for (uint32_t i = 0; i < TOGETHER; i++)
        memset(g->pieces[i].seen, 0, g->pieces[i].size);
    assert_int_equal(b->ops->weights_read(b, g->jobs, TOGETHER, &failed, &eb), ERR_OK);
    for (uint32_t i = 0; i < TOGETHER; i++) {
        const struct weight_job *job = &g->jobs[i];
        struct weight *alone;
        assert_int_equal(
            matrix_load(b, job->type, g->pieces[i].data, job->rows, job->cols, NULL, &alone, &eb),
            ERR_OK);
        float *want = values_of(b, alone, job->rows, job->cols);
        float *got = values_of(b, g->weights[i], job->rows, job->cols);
        fixture_same(quant_type_info((uint32_t)job->type)->name, name, want, got,
                     (size_t)job->rows * job->cols);
        for (uint64_t k = 0; k < g->pieces[i].size; k++)
            assert_int_equal(g->pieces[i].seen[k], 1);
        free(want);
        free(got);
        b->ops->weight_free(b, alone);
        b->ops->weight_free(b, g->weights[i]);
    }
}

/* The job at fault is named, and none is left behind. */
static void refuse_together(struct backend *b, struct together *g)
{
    struct errbuf eb = {{0}};
    uint64_t before, after, kv, scratch;
    uint32_t failed;

    b->ops->memory(b, &before, &kv, &scratch);
    for (uint32_t i = 0; i < TOGETHER; i += 13) {
        g->pieces[i].fails_at = g->pieces[i].size - 1;
        assert_int_equal(b->ops->weights_read(b, g->jobs, TOGETHER, &failed, &eb), ERR_IO);
        assert_int_equal(failed, i);
        g->pieces[i].fails_at = UINT64_MAX;
        g->jobs[i].cut.groups = 0;
        assert_int_equal(b->ops->weights_read(b, g->jobs, TOGETHER, &failed, &eb), ERR_INVALID);
        assert_int_equal(failed, i);
        g->jobs[i].cut.groups = 1;
        b->ops->memory(b, &after, &kv, &scratch);
        assert_int_equal(before, after);
    }
}

static void test_many_are_read_together(void **state)
{
    const struct fixture *f = *state;
    struct fixture_random r = {32};
    static struct together g;

    together_make(&g, &r);
    read_together(f->ref, "ref", &g);
    refuse_together(f->ref, &g);
    for (size_t i = 0; i < f->n_others; i++) {
        read_together(f->others[i].backend, f->others[i].name, &g);
        refuse_together(f->others[i].backend, &g);
    }
    for (uint32_t i = 0; i < TOGETHER; i++) {
        free(g.pieces[i].seen);
        free((void *)(uintptr_t)g.pieces[i].data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces_make_the_same_matrix),
                                       cmocka_unit_test(test_many_are_read_together)};
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
