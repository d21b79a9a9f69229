/* A step in words: what one rank puts is what another takes, and what cannot be computed is refused
 * with its reason, whoever sent it. */
#include "worker/engine/gang_told.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROWS    24u
#define SLOTS   4u
#define PAGES   8u /* of a sequence */
#define POOL    64u
#define VOCAB   300u
#define CONTEXT (PAGES * KV_PAGE_TOKENS - 3)

static const struct gang_limits limits = {
    .context_tokens = CONTEXT,
    .rows = ROWS,
    .logits_rows = SLOTS,
    .sequences = SLOTS,
    .sequence_pages = PAGES,
    .kv_pages = POOL,
};

static void side_open(struct gang_told *t)
{
    *t = (struct gang_told){.limits = &limits, .vocab = VOCAB};
    t->pages = malloc(SLOTS * PAGES * sizeof *t->pages);
    t->words = malloc(gang_told_bytes(&limits));
    assert_true(t->pages != NULL && t->words != NULL);
    memset(t->pages, 0xff, SLOTS * PAGES * sizeof *t->pages);
}

static void side_close(struct gang_told *t)
{
    free(t->pages);
    free(t->words);
}

/* ---- there and back ------------------------------------------------------------------------- */

struct life {
    uint64_t seed;
    uint32_t pages[SLOTS * PAGES]; /* rank 0's own tables */
    uint32_t length[SLOTS];
    int32_t ids[ROWS];
    uint32_t position[ROWS], slot[ROWS];
};

static uint32_t random_below(struct life *life, uint32_t n)
{
    life->seed = life->seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(life->seed >> 33) % n;
}

/* Some rows on some sequences; now and then a sequence makes way for another, on other pages. */
static struct batch_plan next_step(struct life *life)
{
    struct batch_plan plan = {.ids = life->ids,
                              .position = life->position,
                              .slot = life->slot,
                              .pages = life->pages,
                              .pages_stride = PAGES};
    for (uint32_t s = 0; s < SLOTS; s++) {
        if (random_below(life, 10) == 0) {
            life->length[s] = 0;
            for (uint32_t k = 0; k < PAGES; k++)
                life->pages[s * PAGES + k] = random_below(life, POOL);
        }
        uint32_t n = random_below(life, ROWS / SLOTS + 1);
        for (; n > 0 && life->length[s] < CONTEXT; n--) {
            life->ids[plan.n_rows] = (int32_t)random_below(life, VOCAB);
            life->slot[plan.n_rows] = s;
            life->position[plan.n_rows++] = life->length[s]++;
        }
    }
    plan.n_logits = plan.n_rows < SLOTS ? plan.n_rows : random_below(life, SLOTS + 1);
    return plan;
}

static void what_is_put_is_taken(void **state)
{
    struct gang_told from, to;
    struct life life = {.seed = 7};
    size_t n_pages = 0;

    (void)state;
    side_open(&from);
    side_open(&to);
    for (uint32_t i = 0; i < SLOTS * PAGES; i++)
        life.pages[i] = random_below(&life, POOL);
    for (uint32_t step = 0; step < 5000; step++) {
        const struct batch_plan plan = next_step(&life);
        struct batch_plan got;
        struct errbuf eb;
        const size_t size = gang_told_put(&from, &plan);
        assert_true(size <= gang_told_bytes(&limits));
        if (gang_told_take(&to, from.words, size, &got, &eb) != ERR_OK)
            fail_msg("step %u: %s", step, eb.text);
        assert_int_equal(got.n_rows, plan.n_rows);
        assert_int_equal(got.n_logits, plan.n_logits);
        for (uint32_t i = 0; i < plan.n_rows; i++) {
            assert_int_equal(got.ids[i], plan.ids[i]);
            assert_int_equal(got.position[i], plan.position[i]);
            assert_int_equal(got.slot[i], plan.slot[i]);
            for (uint32_t k = 0; k <= plan.position[i] / KV_PAGE_TOKENS; k++)
                assert_int_equal(got.pages[got.slot[i] * got.pages_stride + k],
                                 life.pages[plan.slot[i] * PAGES + k]);
        }
        /* What was told of page tables is not told again. */
        const size_t again = (3 + 3 * (size_t)plan.n_rows) * sizeof(uint32_t);
        n_pages += size - again;
        assert_int_equal(gang_told_put(&from, &plan), again);
    }
    assert_true(n_pages > 0);
    side_close(&from);
    side_close(&to);
}

static void that_there_is_no_step_is_told_too(void **state)
{
    struct gang_told t;
    struct batch_plan got = {.n_rows = 9};
    struct errbuf eb;

    (void)state;
    side_open(&t);
    const size_t size = gang_told_put(&t, NULL);
    uint32_t words[3];
    assert_int_equal(size, sizeof words);
    memcpy(words, t.words, size);
    assert_int_equal(gang_told_take(&t, words, size, &got, &eb), ERR_OK);
    assert_int_equal(got.n_rows, 0);
    side_close(&t);
}

/* ---- what cannot be ------------------------------------------------------------------------- */

/* rows, logits, pages; ids, positions, sequences; (sequence, place, page). */
#define GOOD        2, 1, 1, 5, 6, 31, 32, 1, 1, 1, 1, 9
#define AT_ROWS     0
#define AT_LOGITS   1
#define AT_PAGES    2
#define AT_ID       4
#define AT_POSITION 6
#define AT_SLOT     8
#define AT_PAGE     9

static void what_cannot_be_computed_is_refused(void **state)
{
    static const struct {
        uint32_t at, value;
        const char *says;
    } rows[] = {
        {AT_ROWS, ROWS + 1, "a number of rows of 25"},
        {AT_ROWS, UINT32_MAX, "a number of rows of 4294967295"},
        {AT_ROWS, 1, "another size than its rows have"},
        {AT_LOGITS, 3, "a number of logits of 3"},
        {AT_LOGITS, SLOTS + 1, "a number of logits of 5"},
        {AT_PAGES, SLOTS * PAGES + 1, "a number of pages of 33"},
        {AT_PAGES, UINT32_MAX, "a number of pages of 4294967295"},
        {AT_PAGES, 0, "another size than its rows have"},
        {AT_ID, VOCAB, "token 300"},
        {AT_ID, 0x80000000u, "token 2147483648"},
        {AT_POSITION, CONTEXT, "position 253"},
        {AT_POSITION, 64, "no page for position 64"},
        {AT_SLOT, SLOTS, "sequence 4"},
        {AT_SLOT, 2, "no page for position 32"},
        {AT_PAGE, SLOTS, "a page of sequence 4"},
        {AT_PAGE + 1, PAGES, "a page in place 8"},
        {AT_PAGE + 2, POOL, "page 64"},
        {AT_PAGE + 2, UINT32_MAX, "page 4294967295"},
    };
    struct batch_plan got;
    struct errbuf eb;

    (void)state;
    for (size_t i = 0; i <= sizeof rows / sizeof rows[0]; i++) {
        const bool is_good = i == sizeof rows / sizeof rows[0];
        uint32_t words[] = {GOOD};
        struct gang_told t;
        side_open(&t);
        t.pages[PAGES] = 3; /* told before, of sequence 1 */
        if (!is_good)
            words[rows[i].at] = rows[i].value;
        const enum err e = gang_told_take(&t, words, sizeof words, &got, &eb);
        if (e != (is_good ? ERR_OK : ERR_INTERNAL) ||
            (!is_good && strstr(eb.text, rows[i].says) == NULL))
            fail_msg("row %zu: %s: %s", i, err_name(e), eb.text);
        side_close(&t);
    }
}

static void a_step_has_its_size(void **state)
{
    const uint32_t good[] = {GOOD};
    uint8_t bytes[4096] = {0};
    struct batch_plan got;
    struct gang_told t;
    struct errbuf eb;

    (void)state;
    side_open(&t);
    memcpy(bytes, good, sizeof good);
    assert_true(sizeof bytes > gang_told_bytes(&limits));
    for (size_t size = 0; size <= sizeof bytes; size++) {
        t.pages[PAGES] = 3;
        assert_int_equal(gang_told_take(&t, bytes, size, &got, &eb),
                         size == sizeof good ? ERR_OK : ERR_INTERNAL);
    }
    side_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_is_taken),
        cmocka_unit_test(that_there_is_no_step_is_told_too),
        cmocka_unit_test(what_cannot_be_computed_is_refused),
        cmocka_unit_test(a_step_has_its_size),
    };
    return cmocka_run_group_tests_name("gang_told", tests, NULL, NULL);
}
