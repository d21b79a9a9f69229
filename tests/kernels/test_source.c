/* Matrices that come in pieces: the same weights as from memory, each byte asked for once, and a
 * source that fails leaves nothing behind. */
#include "tests/kernels/fixture.h"

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
    const struct weight_source source = {.read = pieces_read, .ctx = p};
    struct weight *whole, *read;
    struct errbuf eb = {{0}};
    uint64_t weights[2], kv, scratch;

    assert_int_equal(b->ops->weight_load(b, type, p->data, rows, cols, 1, &whole, &eb), ERR_OK);
    b->ops->memory(b, &weights[0], &kv, &scratch);
    memset(p->seen, 0, p->size);
    p->fails_at = UINT64_MAX;
    assert_int_equal(b->ops->weight_read(b, type, &source, rows, cols, 1, &read, &eb), ERR_OK);
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
        assert_int_equal(b->ops->weight_read(b, type, &source, rows, cols, 1, &read, &eb), ERR_IO);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces_make_the_same_matrix)};
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
