/* batch: several plans under way, as tables; those not committed, the oldest first. */
#include "tests/unit/engine/batch_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct under_way {
    struct batch_plan plan;
    char text[1024];
} under_way[BATCH_PLANS_MAX];
static uint32_t n_under_way;

static struct batch *open_parts(const struct batch_config *config, uint32_t plans_max)
{
    struct batch_config own = *config;

    own.plans_max = plans_max;
    n_under_way = 0;
    return batch_test_open(&own);
}

static void check_plan(struct batch *b, const char *expect)
{
    struct under_way *next = &under_way[n_under_way];
    bool is_planned = batch_plan_step(b, &next->plan);

    strcpy(next->text, "-");
    if (is_planned)
        batch_test_text(&next->plan, next->text);
    assert_string_equal(next->text, expect);
    n_under_way += is_planned;
}

/* What it says is what it said when it was planned. */
static void commit_oldest(struct batch *b)
{
    char text[1024];

    batch_test_text(&under_way[0].plan, text);
    assert_string_equal(text, under_way[0].text);
    batch_test_commit(b, &under_way[0].plan);
    memmove(under_way, under_way + 1, --n_under_way * sizeof under_way[0]);
}

static void two_parts_of_those_who_draw_take_turns(void **state)
{
    struct batch *b = open_parts(&batch_test_small, 2);

    (void)state;
    for (int k = 0; k < 4; k++)
        batch_test_add(b, k, 1, 7, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2 3");
    check_plan(b, "0! 100!");
    assert_true(batch_is_under_way(batch_test_seqs[0]));
    assert_false(batch_is_under_way(batch_test_seqs[2]));
    check_plan(b, "200! 300!");
    check_plan(b, "-"); /* nobody is free, and two are all there may be */
    commit_oldest(b);
    assert_false(batch_is_under_way(batch_test_seqs[0]));
    check_plan(b, "50! 150!");
    commit_oldest(b);
    check_plan(b, "250! 350!");
    commit_oldest(b);
    check_plan(b, "51! 151!");
    batch_free(b);
}

static void parts_even_out_as_jobs_come_and_go(void **state)
{
    struct batch_config config = batch_test_small;
    config.slots = config.logits_rows = 8;
    config.pages = 64;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    for (int k = 0; k < 6; k++)
        batch_test_add(b, k, 1, 20, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2 3 4 5");
    check_plan(b, "0! 100! 200!");
    check_plan(b, "300! 400! 500!");
    commit_oldest(b);
    batch_remove(b, batch_test_seqs[0]);
    batch_remove(b, batch_test_seqs[1]);
    check_plan(b, "250!"); /* what is free; of four, two would be its part */
    commit_oldest(b);
    check_plan(b, "350! 450!"); /* two of three: the third is left to the other part */
    commit_oldest(b);
    check_plan(b, "550! 251!");
    commit_oldest(b);
    check_plan(b, "351! 451!");
    batch_test_add(b, 6, 1, 20, NULL);
    batch_test_add(b, 7, 1, 20, NULL);
    assert_string_equal(batch_test_admitted(b), "6 7"); /* while both are under way */
    commit_oldest(b);
    check_plan(b, "252! 551! 600!"); /* of six */
    commit_oldest(b);
    check_plan(b, "352! 452! 700!");
    batch_free(b);
}

static void fewer_jobs_than_plans_are_one_in_each(void **state)
{
    struct batch *b = open_parts(&batch_test_small, 3);

    (void)state;
    batch_test_add(b, 0, 1, 7, NULL);
    batch_test_add(b, 1, 1, 7, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_plan(b, "0!");
    check_plan(b, "100!");
    check_plan(b, "-");
    commit_oldest(b);
    check_plan(b, "50!");
    batch_test_add(b, 2, 1, 7, NULL);
    batch_test_add(b, 3, 1, 7, NULL);
    assert_string_equal(batch_test_admitted(b), "2 3");
    check_plan(b, "200! 300!");
    check_plan(b, "-");
    batch_free(b);
}

/* A prompt's next piece waits for the one before; that one counts as beside a draw as long as the
 * draw is under way. */
static void a_prompt_is_in_one_plan_at_a_time_and_beside_those_under_way(void **state)
{
    struct batch_config config = batch_test_small;
    config.beside_tokens = 3;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    batch_test_add(b, 0, 1, 9, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    check_plan(b, "0!");
    batch_test_add(b, 1, 12, 3, NULL);
    assert_string_equal(batch_test_admitted(b), "1");
    check_plan(b, "100 101 102");
    commit_oldest(b);
    check_plan(b, "50!");
    commit_oldest(b);
    check_plan(b, "103 104 105");
    commit_oldest(b);
    batch_remove(b, batch_test_seqs[0]);
    commit_oldest(b);
    check_plan(b, "106 107 108 109 110 111!"); /* nobody draws any more */
    batch_free(b);
}

/* Ids of an earlier attempt, whose logits are wanted: none is drawn, so nobody is held up. */
static void logits_without_a_draw_hold_up_no_prompt(void **state)
{
    static const int32_t ids[6] = {10, 11, 12, 13, 14, 15};
    struct batch_job job = {
        .owner = &batch_test_owners[0], .ids = ids, .n_ids = 6, .n_limit = 8, .logits_from = 1};
    struct batch_config config = batch_test_small;
    config.beside_tokens = 1;
    config.chunk_tokens = 4;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    assert_int_equal(batch_add(b, &job, &batch_test_seqs[0], NULL), ERR_OK);
    assert_string_equal(batch_test_admitted(b), "0");
    check_plan(b, "10 11* 12* 13*");
    batch_test_add(b, 1, 4, 3, NULL);
    assert_string_equal(batch_test_admitted(b), "1");
    check_plan(b, "100 101 102 103!");
    commit_oldest(b);
    check_plan(b, "14*"); /* but job 1 does draw */
    batch_free(b);
}

/* 4 pages of 2, all of them taken; the last to arrive is under way when the first needs a third. */
static void who_is_under_way_is_preempted_at_its_commit_and_not_before(void **state)
{
    struct batch_config config = batch_test_small;
    config.pages = 4;
    config.page_tokens = 2;
    config.headroom_pages = 0;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    batch_test_add(b, 0, 2, 4, NULL);
    batch_test_add(b, 1, 2, 4, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_plan(b, "0 100 1! 101!");
    commit_oldest(b);
    check_plan(b, "51!");
    check_plan(b, "151!");
    commit_oldest(b);
    check_plan(b, "52!");
    commit_oldest(b);
    check_plan(b, "152!");
    commit_oldest(b);
    check_plan(b, "-"); /* its third page is the other's */
    assert_int_equal(batch_state(b).preemptions, 0);
    assert_int_equal(batch_slot(batch_test_seqs[0]), 0);
    commit_oldest(b);
    check_plan(b, "53!");
    assert_int_equal(batch_state(b).preemptions, 1);
    assert_int_equal(batch_slot(batch_test_seqs[1]), UINT32_MAX);
    commit_oldest(b);
    batch_remove(b, batch_test_seqs[0]);
    assert_string_equal(batch_test_admitted(b), "1");
    check_plan(b, "100 101 151 152 153!"); /* what it drew on its way out is not drawn again */
    batch_free(b);
}

static void a_better_class_waits_for_the_commit_of_its_victim(void **state)
{
    struct batch_config config = batch_test_small;
    config.slots = 2;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    batch_test_add_more(b, 0, 1, 6, (struct batch_test_more){.job_class = 1}, NULL);
    batch_test_add_more(b, 1, 1, 6, (struct batch_test_more){.job_class = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_plan(b, "0!");
    check_plan(b, "100!");
    batch_test_add_more(b, 2, 1, 6, (struct batch_test_more){.job_class = 0}, NULL);
    assert_string_equal(batch_test_admitted(b), "");
    commit_oldest(b);
    assert_string_equal(batch_test_admitted(b), ""); /* job 1 came last, and is under way still */
    check_plan(b, "50!");
    commit_oldest(b);
    assert_string_equal(batch_test_admitted(b), "2");
    assert_int_equal(batch_slot(batch_test_seqs[1]), UINT32_MAX);
    check_plan(b, "200!");
    batch_free(b);
}

/* Pages of one id. Jobs 0 and 2 have the same text and draw the same, so that what job 2 holds
 * alone is what it computes now; job 1 is a prompt between them. In the sixth step job 2's row
 * takes the last page, job 1's piece needs two: that costs job 2 its row and is not enough, and job
 * 1 goes itself. Nobody would have a row, though job 0 can draw. */
static void a_step_that_lost_all_its_rows_is_planned_again_for_who_is_left(void **state)
{
    static const int32_t one = 1;
    const struct batch_job twin = {
        .owner = &batch_test_owners[0], .ids = &one, .n_ids = 1, .n_limit = 12, .space = 7};
    struct batch_config config = batch_test_small;
    config.pages = 14;
    config.page_tokens = 1;
    config.chunk_tokens = 2;
    config.headroom_pages = 0;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    assert_int_equal(batch_add(b, &twin, &batch_test_seqs[0], NULL), ERR_OK);
    batch_test_add(b, 1, 12, 2, NULL);
    assert_int_equal(batch_add(b, &twin, &batch_test_seqs[2], NULL), ERR_OK);
    assert_string_equal(batch_test_admitted(b), "0 1 0");
    static const char *const steps[] = {"100 101 1!",  "102 103 1!",  "104 105 50!",
                                        "106 107 50!", "108 109 51!", "52!"};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_int_equal(batch_state(b).preemptions, 0);
        check_plan(b, steps[i]);
        if (i + 2 == sizeof steps / sizeof steps[0])
            assert_int_equal(batch_state(b).pages_free, 1);
        commit_oldest(b);
    }
    assert_int_equal(batch_state(b).preemptions, 2);
    assert_int_equal(batch_slot(batch_test_seqs[1]), UINT32_MAX);
    assert_int_equal(batch_slot(batch_test_seqs[2]), UINT32_MAX);
    assert_string_equal(batch_test_admitted(b), "");
    check_plan(b, "53!");
    commit_oldest(b);
    batch_remove(b, batch_test_seqs[0]);
    assert_string_equal(batch_test_admitted(b), "1"); /* in the order of the line */
    check_plan(b, "100 101");
    batch_free(b);
}

/* It is there for others once it is committed. */
static void who_needs_a_page_that_is_under_way_waits_for_its_commit(void **state)
{
    struct batch *b = open_parts(&batch_test_small, 3);

    (void)state;
    batch_test_add_more(b, 0, 6, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    batch_test_add_more(b, 1, 6, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_plan(b, "1 2 3 4 5 6!");
    check_plan(b, "-");
    batch_test_add_more(b, 2, 2, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "2");
    check_plan(b, "1 2!"); /* less than a page */
    commit_oldest(b);
    check_plan(b, "5 6! 55!");
    assert_int_equal(batch_cached(batch_test_seqs[1]), 4);
    batch_free(b);
}

static void all_that_is_under_way_can_be_given_up(void **state)
{
    struct batch *b = open_parts(&batch_test_small, 2);

    (void)state;
    for (int k = 0; k < 3; k++)
        batch_test_add_more(b, k, 5, 3, (struct batch_test_more){.space = 7, .first = 1 + k}, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2");
    check_plan(b, "1 2 3 4 2 3 4 5!");
    check_plan(b, "3 4 5 6 7!");
    batch_abandon(b);
    for (int k = 0; k < 3; k++) {
        assert_false(batch_is_under_way(batch_test_seqs[k]));
        batch_remove(b, batch_test_seqs[k]);
    }
    assert_int_equal(batch_state(b).pages_free, 10);
    n_under_way = 0;
    batch_test_add_more(b, 0, 5, 3, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    check_plan(b, "1 2 3 4 5!"); /* nothing of it was computed */
    batch_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_parts_of_those_who_draw_take_turns),
        cmocka_unit_test(parts_even_out_as_jobs_come_and_go),
        cmocka_unit_test(fewer_jobs_than_plans_are_one_in_each),
        cmocka_unit_test(a_prompt_is_in_one_plan_at_a_time_and_beside_those_under_way),
        cmocka_unit_test(logits_without_a_draw_hold_up_no_prompt),
        cmocka_unit_test(who_is_under_way_is_preempted_at_its_commit_and_not_before),
        cmocka_unit_test(a_better_class_waits_for_the_commit_of_its_victim),
        cmocka_unit_test(a_step_that_lost_all_its_rows_is_planned_again_for_who_is_left),
        cmocka_unit_test(who_needs_a_page_that_is_under_way_waits_for_its_commit),
        cmocka_unit_test(all_that_is_under_way_can_be_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
