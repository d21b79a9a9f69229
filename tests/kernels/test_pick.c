/*
 * What is picked of rows of logits has the bits of ref, by every backend that picks: over rows with
 * ties, infinities and NaN, of widths that are multiples of nothing. That ref's is what the sampler
 * wants is tests/unit/engine/test_picks.c.
 */
#include "tests/kernels/fixture.h"
#include "worker/kernels/pick.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { COLS = 5003, ROWS = 9 };

static void pick_with(struct backend *b, const float *x, uint32_t n, uint32_t cols,
                      const struct pick *picks, struct picked *ret_picked)
{
    const size_t floats = (size_t)n * PICKED_FLOATS;
    float *dx = fixture_upload(b, x, (size_t)n * cols);
    float *picked = b->ops->buffer_new(b, floats);

    assert_non_null(picked);
    b->ops->pick(b, dx, n, cols, picks, picked);
    b->ops->buffer_read(b, picked, (float *)(void *)ret_picked, floats);
    b->ops->buffer_free(b, dx);
    b->ops->buffer_free(b, picked);
}

/* By the definition; the first of equal elements, whatever thread it falls to. */
static void test_best_of_a_row(void **state)
{
    const struct fixture *f = *state;
    static const uint32_t widths[] = {1, 31, 512, 4097, COLS};
    static float x[ROWS * COLS];
    static struct picked picked[ROWS];
    struct pick picks[ROWS];
    struct fixture_random r = {61};

    for (uint32_t i = 0; i < ROWS; i++)
        picks[i] = (struct pick){.kind = PICK_BEST};
    for (size_t c = 0; c < sizeof widths / sizeof widths[0]; c++) {
        const uint32_t cols = widths[c], last = cols - 1, middle = cols / 2;
        const uint32_t expected[ROWS] = {0, last, middle, middle, last, 0, middle, 0, 0};
        fixture_floats(&r, x, (size_t)ROWS * cols);
        for (uint32_t i = 0; i < ROWS; i++) {
            float *row = x + (size_t)i * cols;
            const float fill = i == 5 ? NAN : -INFINITY;
            for (uint32_t k = 0; i >= 4 && k < cols; k++)
                row[k] = fill; /* nothing else, but for what follows */
        }
        x[0] = 1e9f;                 /* the first */
        x[cols + last] = 1e9f;       /* the last */
        x[2 * cols + middle] = 1e9f; /* before its equal */
        x[2 * cols + last] = 1e9f;
        x[3 * cols + middle] = FLT_MAX; /* infinity counts as that */
        x[3 * cols + last] = INFINITY;
        x[4 * cols + last] = -3.0f; /* the only one */
        x[6 * cols] = NAN;          /* a NaN is none */
        x[6 * cols + middle] = -FLT_MAX;
        x[8 * cols] = 0.0f; /* zeros are equal */
        x[8 * cols + last] = cols > 1 ? -0.0f : 0.0f;
        for (size_t i = 0; i <= f->n_others; i++) {
            struct backend *b = i == 0 ? f->ref : f->others[i - 1].backend;
            if (b->ops->pick == NULL)
                continue;
            pick_with(b, x, ROWS, cols, picks, picked);
            for (uint32_t k = 0; k < ROWS; k++)
                assert_int_equal(picked[k].id, expected[k]);
        }
    }
}

/* Kinds of rows. */
enum filling {
    FILLING_PLAIN,
    FILLING_TIES,     /* a handful of different values */
    FILLING_SPARSE,   /* few above -infinity, some NaN */
    FILLING_NONE,     /* none */
    FILLING_INFINITE, /* +infinity more than once */
    FILLING_FAR,      /* differences that overflow */
    FILLING_COUNT
};

static void fill_row(struct fixture_random *r, enum filling filling, float *row, uint32_t cols)
{
    fixture_floats(r, row, cols);
    for (uint32_t i = 0; i < cols; i++) {
        row[i] *= 4.0f;
        if (filling == FILLING_TIES)
            row[i] = rintf(row[i]);
        else if (filling == FILLING_SPARSE && fixture_below(r, 40) != 0)
            row[i] = fixture_below(r, 2) == 0 ? NAN : -INFINITY;
        else if (filling == FILLING_NONE)
            row[i] = fixture_below(r, 2) == 0 ? NAN : -INFINITY;
        else if (filling == FILLING_INFINITE && fixture_below(r, 200) == 0)
            row[i] = INFINITY;
        else if (filling == FILLING_FAR && fixture_below(r, 3) == 0)
            row[i] = fixture_below(r, 2) == 0 ? FLT_MAX : -FLT_MAX;
    }
}

static struct pick pick_some(struct fixture_random *r)
{
    static const float temperatures[] = {1.0f, 0.7f, 1.9f, 0.01f, 1e-39f, 100.0f};
    static const uint32_t counts[] = {1, 2, 20, 40, 64, 127, PICK_LIST_MAX};
    static const float min_ps[] = {0.0f, 0.05f, 0.9f};
    const uint32_t kinds[] = {PICK_LIST, PICK_DRAW, PICK_LIST, PICK_BEST};

    return (struct pick){
        .kind = kinds[fixture_below(r, 4)],
        .count = counts[fixture_below(r, 7)],
        .with_mass = fixture_below(r, 2),
        .temperature = temperatures[fixture_below(r, 6)],
        .min_p = min_ps[fixture_below(r, 3)],
        .position = fixture_below(r, 100000),
        .seed = fixture_next(r),
    };
}

static void same_picked(const char *name, const struct pick *pick, enum filling filling,
                        uint32_t cols, const struct picked *want, const struct picked *got)
{
    const char *kinds[] = {"row", "best", "draw", "list"};
    bool same = true;

    if (pick->kind != PICK_LIST || want->n == 0)
        same = want->id == got->id;
    if (pick->kind == PICK_LIST) {
        same = same && want->n == got->n;
        same = same && memcmp(want->ids, got->ids, want->n * sizeof want->ids[0]) == 0;
        same = same && memcmp(want->z, got->z, want->n * sizeof want->z[0]) == 0;
        same = same && (want->n == 0 || pick->with_mass == 0 || want->mass == got->mass);
    }
    if (!same)
        fail_msg("%s: %s of %u, temperature %g, filling %d: id %u, not %u; %u listed, not %u", name,
                 kinds[pick->kind], cols, (double)pick->temperature, filling, got->id, want->id,
                 got->n, want->n);
}

static void test_picks_have_the_bits_of_ref(void **state)
{
    const struct fixture *f = *state;
    static const uint32_t widths[] = {1, 5, 127, 128, 513, 2048, 4099, COLS};
    static float x[ROWS * COLS];
    static struct picked want[ROWS], got[ROWS];
    struct pick picks[ROWS];
    enum filling filling[ROWS];
    struct fixture_random r = {4};

    for (uint32_t turn = 0; turn < 96; turn++) {
        const uint32_t cols = widths[turn % 8];
        for (uint32_t i = 0; i < ROWS; i++) {
            filling[i] = (enum filling)fixture_below(&r, FILLING_COUNT);
            fill_row(&r, filling[i], x + (size_t)i * cols, cols);
            picks[i] = pick_some(&r);
        }
        picks[fixture_below(&r, ROWS)].kind = PICK_ROW;
        if (fixture_leaves_out(turn, turn / 8))
            continue;
        pick_with(f->ref, x, ROWS, cols, picks, want);
        for (size_t i = 0; i < f->n_others; i++) {
            struct backend *b = f->others[i].backend;
            if (b->ops->pick == NULL)
                continue;
            pick_with(b, x, ROWS, cols, picks, got);
            for (uint32_t k = 0; k < ROWS; k++)
                if (picks[k].kind != PICK_ROW && (want[k].n == 0 || got[k].n != PICKED_MANY))
                    same_picked(f->others[i].name, &picks[k], filling[k], cols, &want[k], &got[k]);
        }
    }
}

/* A backend may say that there are too many to look through, and then it is so. */
static void test_only_many_equal_ids_are_too_many(void **state)
{
    const struct fixture *f = *state;
    static float x[2 * COLS];
    static struct picked want[2], got[2];
    const struct pick one = {.kind = PICK_LIST, .count = 40, .temperature = 1.0f, .with_mass = 1};
    const struct pick picks[2] = {one, one};
    struct fixture_random r = {8};

    for (uint32_t i = 0; i < COLS; i++) {
        x[i] = 2.5f;
        x[COLS + i] = i % 3 == 0 ? 1.0f : fixture_float(&r) - 100.0f;
    }
    /* The second row has 1,668 equals; 40 above them are enough to leave them out. */
    for (uint32_t i = 0; i < 40; i++)
        x[COLS + 100 * i + 1] = 2.0f;
    pick_with(f->ref, x, 2, COLS, picks, want);
    assert_int_equal(want[0].n, 40);
    assert_int_equal(want[0].ids[39], 39);
    assert_int_equal(want[1].ids[39], 3901);
    for (size_t i = 0; i < f->n_others; i++) {
        struct backend *b = f->others[i].backend;
        if (b->ops->pick == NULL)
            continue;
        pick_with(b, x, 2, COLS, picks, got);
        assert_true(got[0].n == PICKED_MANY || got[0].n == 40);
        assert_true(got[0].mass == want[0].mass);
        same_picked(f->others[i].name, &picks[1], FILLING_TIES, COLS, &want[1], &got[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_of_a_row),
        cmocka_unit_test(test_picks_have_the_bits_of_ref),
        cmocka_unit_test(test_only_many_equal_ids_are_too_many),
    };
    return cmocka_run_group_tests(tests, fixture_setup, fixture_teardown);
}
