/* batch: plans as tables, one at a time. Several: test_batch_plans.c; a random life of many jobs:
 * test_batch_life.c. */
#include "tests/unit/engine/batch_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void check_step(struct batch *b, const char *expect)
{
    struct batch_plan plan;
    char text[1024] = "-";

    if (batch_plan_step(b, &plan)) {
        batch_test_text(&plan, text);
        batch_test_commit(b, &plan);
    }
    assert_string_equal(text, expect);
}

static void a_prompt_is_computed_in_pieces_and_then_drawn_from(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);
    uint32_t n;

    (void)state;
    check_step(b, "-");
    assert_int_equal(batch_test_add(b, 0, 10, 3, NULL), ERR_OK);
    check_step(b, "-");
    assert_string_equal(batch_test_admitted(b), "0");
    assert_int_equal(batch_state(b).queued_tokens, 13);
    check_step(b, "0 1 2 3 4 5 6 7");
    check_step(b, "8 9!");
    assert_false(batch_full(batch_test_seqs[0]));
    check_step(b, "59!");
    check_step(b, "60!");
    assert_true(batch_full(batch_test_seqs[0]));
    const int32_t *ids = batch_ids(batch_test_seqs[0], &n);
    assert_int_equal(n, 13);
    assert_int_equal(ids[9], 9);
    assert_int_equal(ids[10], 59);
    assert_int_equal(batch_computed(batch_test_seqs[0]), 12);
    batch_remove(b, batch_test_seqs[0]);
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_free(b);
}

static void decodes_go_first_and_prompts_share_the_rest(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add(b, 0, 2, 8, NULL);
    batch_test_add(b, 1, 1, 8, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_step(b, "0 1! 100!");
    batch_test_add(b, 2, 12, 2, NULL);
    batch_test_add(b, 3, 3, 2, NULL);
    assert_string_equal(batch_test_admitted(b), "2 3");
    /* Job 2 takes what is left of the first step; then job 3 has waited longer. */
    check_step(b, "200 201 202 203 204 205 51! 150!");
    check_step(b, "300 301 206 207 208 302! 52! 151!");
    check_step(b, "209 210 53! 152! 211! 352!");
    batch_free(b);
}

static void prompts_beside_a_decode_get_a_part_of_the_step(void **state)
{
    struct batch_config config = batch_test_small;
    config.beside_tokens = 3;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add(b, 0, 2, 8, NULL);
    batch_test_add(b, 1, 10, 3, NULL);
    batch_test_add(b, 2, 4, 3, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2");
    check_step(b, "0 100 101 102 103 104 105 1!"); /* nobody draws yet: the whole step */
    check_step(b, "200 201 202 51!");
    /* The last id of a prompt is drawn from: it counts as a decode. */
    check_step(b, "106 107 108 52! 203!");
    check_step(b, "53! 109! 253!");
    batch_free(b);
}

static void a_quarter_of_the_step_belongs_to_prompts(void **state)
{
    struct batch_config config = batch_test_small;
    config.step_tokens = 4;
    struct batch *b = batch_test_open(&config);

    (void)state;
    for (int k = 0; k < 3; k++)
        batch_test_add(b, k, 1, 7, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2");
    check_step(b, "0! 100! 200!");
    batch_test_add(b, 3, 4, 2, NULL);
    assert_string_equal(batch_test_admitted(b), "3");
    check_step(b, "300 50! 150! 250!");
    check_step(b, "301 51! 151! 251!");
    check_step(b, "302 52! 152! 252!");
    check_step(b, "53! 153! 253! 303!");
    batch_free(b);
}

static void a_step_too_small_for_all_takes_turns(void **state)
{
    struct batch_config config = batch_test_small;
    config.step_tokens = 2;
    struct batch *b = batch_test_open(&config);

    (void)state;
    for (int k = 0; k < 4; k++)
        batch_test_add(b, k, 1, 7, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2 3");
    check_step(b, "0! 100!");
    check_step(b, "200! 300!");
    check_step(b, "50! 150!");
    check_step(b, "250! 350!");
    batch_free(b);
}

static void chunks_bound_one_prompt_and_not_the_step(void **state)
{
    struct batch_config config = batch_test_small;
    config.chunk_tokens = 3;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add(b, 0, 5, 2, NULL);
    batch_test_add(b, 1, 4, 2, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_step(b, "0 1 2 100 101 102");
    check_step(b, "3 4! 103!");
    batch_free(b);
}

/* Ids of an earlier attempt, with their logits wanted again: computed in order, none drawn. */
static void logits_of_resumed_ids_are_computed_without_a_draw(void **state)
{
    static const int32_t ids[6] = {10, 11, 12, 13, 14, 15};
    struct batch_job job = {
        .owner = &batch_test_owners[0], .ids = ids, .n_ids = 6, .n_limit = 8, .logits_from = 1};
    struct batch_config config = batch_test_small;
    config.slots = 2;
    config.logits_rows = 3;
    struct batch *b = batch_test_open(&config);

    (void)state;
    assert_int_equal(batch_add(b, &job, &batch_test_seqs[0], NULL), ERR_OK);
    batch_test_add(b, 1, 2, 3, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_step(b, "10 100 11* 12* 13*");
    check_step(b, "14* 15! 101!");
    check_step(b, "55! 151!");
    batch_free(b);
}

/* ---- admission and preemption ----------------------------------------------------------- */

static void with_full_headroom_jobs_wait_for_all_their_pages_in_order(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add(b, 0, 4, 13, NULL); /* 16 positions: 4 pages */
    batch_test_add(b, 1, 4, 14, NULL); /* 17: 5 */
    batch_test_add(b, 2, 4, 2, NULL);  /* 5: 2, and only 1 is left */
    batch_test_add(b, 3, 1, 1, NULL);  /* 1: 1 would fit, but nobody passes */
    assert_string_equal(batch_test_admitted(b), "0 1");
    batch_remove(b, batch_test_seqs[2]);
    assert_string_equal(batch_test_admitted(b), "3");
    batch_remove(b, batch_test_seqs[1]);
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_free(b);
}

/* 4 pages of 2; each of two jobs comes to need 3. */
static void who_came_last_is_preempted_when_pages_run_out_and_goes_on_later(void **state)
{
    struct batch_config config = batch_test_small;
    config.pages = 4;
    config.page_tokens = 2;
    config.headroom_pages = 0;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add(b, 0, 2, 4, NULL);
    batch_test_add(b, 1, 2, 4, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_step(b, "0 100 1! 101!");
    check_step(b, "51! 151!");
    check_step(b, "52! 152!");
    assert_int_equal(batch_state(b).pages_free, 0);
    check_step(b, "53!"); /* its third page was the other's */
    assert_int_equal(batch_state(b).preemptions, 1);
    assert_int_equal(batch_state(b).waiting, 1);
    assert_true(batch_full(batch_test_seqs[0]));
    batch_remove(b, batch_test_seqs[0]);
    assert_string_equal(batch_test_admitted(b), "1");
    check_step(b, "100 101 151 152 153!"); /* all of it again, and the next token */
    assert_int_equal(batch_computed(batch_test_seqs[1]), 5);
    assert_true(batch_full(batch_test_seqs[1]));
    batch_free(b);
}

static void a_better_class_takes_the_place_of_a_worse_one(void **state)
{
    struct batch_config config = batch_test_small;
    config.slots = 2;
    config.pass_max = 10;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add_more(b, 0, 2, 6, (struct batch_test_more){.job_class = 2}, NULL);
    batch_test_add_more(b, 1, 2, 6, (struct batch_test_more){.job_class = 1}, NULL);
    batch_test_add_more(b, 2, 2, 6, (struct batch_test_more){.job_class = 2}, NULL);
    assert_string_equal(batch_test_admitted(b), "1 0");
    check_step(b, "100 0 101! 1!");
    batch_test_add_more(b, 3, 2, 6, (struct batch_test_more){.job_class = 0}, NULL);
    assert_string_equal(batch_test_admitted(b), "3");
    assert_int_equal(batch_state(b).running, 2);
    check_step(b, "300 301! 151!");
    batch_test_add_more(b, 4, 2, 6, (struct batch_test_more){.job_class = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), ""); /* not better than those that run */
    batch_remove(b, batch_test_seqs[1]);
    assert_string_equal(batch_test_admitted(b), "4");
    batch_remove(b, batch_test_seqs[3]);
    assert_string_equal(batch_test_admitted(b), "0"); /* it came before job 2 */
    batch_free(b);
}

/* Preempting the worse one would not make room, so nobody is. */
static void nobody_is_preempted_in_vain(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add_more(b, 0, 20, 5, (struct batch_test_more){.job_class = 0}, NULL); /* 6 pages */
    batch_test_add_more(b, 1, 4, 2, (struct batch_test_more){.job_class = 2}, NULL);  /* 2 */
    assert_string_equal(batch_test_admitted(b), "0 1");
    batch_test_add_more(b, 2, 20, 5, (struct batch_test_more){.job_class = 0},
                        NULL); /* 6, and 4 could be had */
    assert_string_equal(batch_test_admitted(b), "");
    assert_int_equal(batch_state(b).running, 2);
    batch_free(b);
}

static void a_job_passed_pass_max_times_is_passed_no_more(void **state)
{
    struct batch_config config = batch_test_small;
    config.slots = 1;
    struct batch *b = batch_test_open(&config);
    char expect[16] = "";

    (void)state;
    batch_test_add_more(b, 0, 1, 2, (struct batch_test_more){.job_class = 0}, NULL);
    batch_test_add_more(b, 1, 1, 2, (struct batch_test_more){.job_class = 2}, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    for (int k = 2; k < 5; k++) {
        batch_test_add_more(b, k, 1, 2, (struct batch_test_more){.job_class = 0}, NULL);
        batch_remove(b, batch_test_seqs[k == 2 ? 0 : k - 1]);
        (void)snprintf(expect, sizeof expect, "%d", k);
        assert_string_equal(batch_test_admitted(b), expect);
    }
    batch_test_add_more(b, 5, 1, 2, (struct batch_test_more){.job_class = 0}, NULL);
    batch_remove(b, batch_test_seqs[4]);
    assert_string_equal(batch_test_admitted(b), "1");
    assert_string_equal(batch_test_admitted(b),
                        ""); /* and it is not preempted for the better class */
    batch_free(b);
}

/* One slot, and a new job of the best class, of three steps each, as soon as one has ended: a job
 * of the worst class is passed pass_max times and no more, draws in the step behind, and then runs
 * to its end. The bound is counted in steps. */
static void a_flood_of_a_better_class_starves_a_job_for_a_bounded_number_of_steps(void **state)
{
    static const struct {
        uint32_t pass_max, first_step, last_step;
    } rows[] = {{1, 7, 11}, {2, 10, 14}, {5, 19, 23}};

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct batch_config config = batch_test_small;
        struct batch_plan plan;
        uint32_t first = 0, last = 0;
        config.slots = 1;
        config.pass_max = rows[r].pass_max;
        struct batch *b = batch_test_open(&config);
        batch_test_add_more(b, 0, 1, 3, (struct batch_test_more){.job_class = 0}, NULL);
        assert_string_equal(batch_test_admitted(b), "0");
        batch_test_add_more(b, 1, 1, 5, (struct batch_test_more){.job_class = 2}, NULL);
        for (uint32_t step = 1, k = 2, running = 0; last == 0; step++) {
            assert_true(step < 100);
            assert_true(batch_plan_step(b, &plan));
            const struct batch_seq *seq = plan.logits_seq[0];
            batch_test_commit(b, &plan);
            if (seq == batch_test_seqs[1] && first == 0)
                first = step;
            if (seq == batch_test_seqs[1] && batch_full(seq))
                last = step;
            if (seq != batch_test_seqs[1] && batch_full(seq)) {
                batch_remove(b, batch_test_seqs[running]);
                running = k;
                batch_test_add_more(b, (int)k++, 1, 3, (struct batch_test_more){.job_class = 0},
                                    NULL);
                (void)batch_test_admitted(b);
            }
        }
        assert_int_equal(first, rows[r].first_step);
        assert_int_equal(last, rows[r].last_step);
        assert_int_equal(batch_state(b).preemptions, 0);
        batch_free(b);
    }
}

/* ---- prefix reuse ----------------------------------------------------------------------- */

static void the_same_beginning_is_computed_once(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add_more(b, 0, 10, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8");
    check_step(b, "9 10!");
    batch_remove(b, batch_test_seqs[0]);
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_test_add_more(b, 1, 12, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "1");
    assert_int_equal(batch_cached(batch_test_seqs[1]), 8);
    check_step(b, "9 10 11 12!");
    batch_free(b);
}

static void nothing_is_shared_between_spaces_or_without_one(void **state)
{
    static const uint64_t spaces[][2] = {{7, 8}, {0, 0}, {7, 0}, {0, 7}};

    (void)state;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        struct batch *b = batch_test_open(&batch_test_small);
        batch_test_add_more(b, 0, 8, 2, (struct batch_test_more){.space = spaces[i][0], .first = 1},
                            NULL);
        assert_string_equal(batch_test_admitted(b), "0");
        check_step(b, "1 2 3 4 5 6 7 8!");
        batch_test_add_more(b, 1, 8, 2, (struct batch_test_more){.space = spaces[i][1], .first = 1},
                            NULL);
        batch_remove(b, batch_test_seqs[0]);
        assert_string_equal(batch_test_admitted(b), "1");
        assert_int_equal(batch_cached(batch_test_seqs[1]), 0);
        check_step(b, "1 2 3 4 5 6 7 8!");
        batch_free(b);
    }
}

/* The last id is always computed: its logits are what the next token is drawn from. */
static void a_prompt_that_is_there_whole_computes_its_last_page(void **state)
{
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add_more(b, 0, 8, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8!");
    batch_test_add_more(b, 1, 8, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "1");
    assert_int_equal(batch_cached(batch_test_seqs[1]), 4);
    check_step(b, "5 6 7 57! 8!");
    batch_free(b);
}

static void who_needs_a_page_that_is_being_computed_waits_for_it(void **state)
{
    struct batch_config config = batch_test_small;
    config.step_tokens = 6;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add_more(b, 0, 9, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    batch_test_add_more(b, 1, 9, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    batch_test_add_more(b, 2, 9, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1 2");
    check_step(b, "1 2 3 4 5 6");
    check_step(b, "7 8 9!");
    check_step(b, "9! 9! 58!");
    assert_int_equal(batch_cached(batch_test_seqs[1]), 8);
    assert_int_equal(batch_cached(batch_test_seqs[2]), 8);
    assert_int_equal(batch_state(b).cached_tokens, 16);
    batch_free(b);
}

static void who_computed_it_for_others_may_go_before_it_is_done(void **state)
{
    struct batch_config config = batch_test_small;
    config.chunk_tokens = 2;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add_more(b, 0, 9, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    batch_test_add_more(b, 1, 9, 2, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0 1");
    check_step(b, "1 2");
    batch_remove(b, batch_test_seqs[0]);
    check_step(b, "1 2");
    check_step(b, "3 4");
    batch_free(b);
}

/* An answer's pages serve the next question of the same talk. */
static void what_was_drawn_is_reused_too(void **state)
{
    static const int32_t talk[12] = {1, 2, 51, 52, 53, 54, 55, 56, 9, 10, 11, 12};
    struct batch_job job = {.owner = &batch_test_owners[1],
                            .ids = talk,
                            .n_ids = 12,
                            .n_limit = 14,
                            .logits_from = 11,
                            .space = 7};
    struct batch *b = batch_test_open(&batch_test_small);

    (void)state;
    batch_test_add_more(b, 0, 2, 8, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "0");
    check_step(b, "1 2!");
    for (int i = 51; i < 58; i++) {
        char expect[16];
        (void)snprintf(expect, sizeof expect, "%d!", i);
        check_step(b, expect);
    }
    batch_remove(b, batch_test_seqs[0]);
    assert_int_equal(batch_add(b, &job, &batch_test_seqs[1], NULL), ERR_OK);
    assert_string_equal(batch_test_admitted(b), "1");
    assert_int_equal(batch_cached(batch_test_seqs[1]), 8);
    check_step(b, "9 10 11 12!");
    batch_free(b);
}

static void what_was_not_used_longest_goes_first_and_ends_before_beginnings(void **state)
{
    struct batch_config config = batch_test_small;
    config.pages = 3;
    struct batch *b = batch_test_open(&config);

    (void)state;
    batch_test_add_more(b, 0, 9, 1, (struct batch_test_more){.space = 7, .first = 1},
                        NULL); /* 3 pages, 2 of them full */
    assert_string_equal(batch_test_admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8");
    check_step(b, "9!");
    batch_remove(b, batch_test_seqs[0]);
    /* 2 pages: one is blank, and of the two with text the second goes. */
    batch_test_add(b, 1, 8, 1, NULL);
    assert_string_equal(batch_test_admitted(b), "1");
    check_step(b, "100 101 102 103 104 105 106 107!");
    batch_remove(b, batch_test_seqs[1]);
    batch_test_add_more(b, 2, 9, 1, (struct batch_test_more){.space = 7, .first = 1}, NULL);
    assert_string_equal(batch_test_admitted(b), "2");
    assert_int_equal(batch_cached(batch_test_seqs[2]), 4);
    batch_free(b);
}

/* ---- what is refused -------------------------------------------------------------------- */

static void what_can_never_run_is_refused_with_numbers(void **state)
{
    static const struct {
        uint32_t n_ids, n_more;
        enum err expect;
        const char *text;
    } rows[] = {
        {0, 4, ERR_INVALID, "empty"},
        {4, 0, ERR_INVALID, "4 tokens with room for 0 more"},
        {30, 3, ERR_INVALID, "context of 32"},
        {24, 8, ERR_TOO_LARGE, "need 8 KV pages of 4 tokens; the whole pool has 7"},
        {24, 5, ERR_OK, ""},
    };
    struct batch_config config = batch_test_small;
    config.pages = 7;

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct batch *b = batch_test_open(&config);
        struct errbuf eb = {{0}};
        assert_int_equal(batch_test_add(b, 0, rows[r].n_ids, rows[r].n_more, &eb), rows[r].expect);
        assert_non_null(strstr(eb.text, rows[r].text));
        batch_free(b);
    }
    struct batch *b = batch_test_open(&config);
    struct errbuf eb = {{0}};
    for (int k = 0; k < 8; k++)
        assert_int_equal(batch_test_add(b, k, 1, 1, NULL), ERR_OK);
    assert_int_equal(batch_test_add(b, 8, 1, 1, &eb), ERR_BUSY);
    assert_non_null(strstr(eb.text, "8 jobs wait"));
    batch_free(b);
}

static void impossible_configurations_are_refused_by_name(void **state)
{
    static const struct {
        const char *name;
        size_t offset;
        uint32_t value;
    } rows[] = {
        {"slots", offsetof(struct batch_config, slots), 0},
        {"waiting_max", offsetof(struct batch_config, waiting_max), 0},
        {"pages", offsetof(struct batch_config, pages), 0},
        {"page_tokens", offsetof(struct batch_config, page_tokens), 0},
        {"context_tokens", offsetof(struct batch_config, context_tokens), 1},
        {"step_tokens", offsetof(struct batch_config, step_tokens), 1},
        {"chunk_tokens", offsetof(struct batch_config, chunk_tokens), 0},
        {"beside_tokens", offsetof(struct batch_config, beside_tokens), 0},
        {"logits_rows", offsetof(struct batch_config, logits_rows), 3},
        {"pass_max", offsetof(struct batch_config, pass_max), 0},
        {"plans_max", offsetof(struct batch_config, plans_max), 0},
        {"plans_max", offsetof(struct batch_config, plans_max), BATCH_PLANS_MAX + 1},
    };

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct batch_config config = batch_test_small;
        struct batch *b = NULL;
        struct errbuf eb = {{0}};
        *(uint32_t *)(void *)((char *)&config + rows[r].offset) = rows[r].value;
        assert_int_equal(batch_new(&b, &config, &eb), ERR_INVALID);
        assert_non_null(strstr(eb.text, rows[r].name));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_computed_in_pieces_and_then_drawn_from),
        cmocka_unit_test(decodes_go_first_and_prompts_share_the_rest),
        cmocka_unit_test(prompts_beside_a_decode_get_a_part_of_the_step),
        cmocka_unit_test(a_quarter_of_the_step_belongs_to_prompts),
        cmocka_unit_test(a_step_too_small_for_all_takes_turns),
        cmocka_unit_test(chunks_bound_one_prompt_and_not_the_step),
        cmocka_unit_test(logits_of_resumed_ids_are_computed_without_a_draw),
        cmocka_unit_test(with_full_headroom_jobs_wait_for_all_their_pages_in_order),
        cmocka_unit_test(who_came_last_is_preempted_when_pages_run_out_and_goes_on_later),
        cmocka_unit_test(a_better_class_takes_the_place_of_a_worse_one),
        cmocka_unit_test(nobody_is_preempted_in_vain),
        cmocka_unit_test(a_job_passed_pass_max_times_is_passed_no_more),
        cmocka_unit_test(a_flood_of_a_better_class_starves_a_job_for_a_bounded_number_of_steps),
        cmocka_unit_test(the_same_beginning_is_computed_once),
        cmocka_unit_test(nothing_is_shared_between_spaces_or_without_one),
        cmocka_unit_test(a_prompt_that_is_there_whole_computes_its_last_page),
        cmocka_unit_test(who_needs_a_page_that_is_being_computed_waits_for_it),
        cmocka_unit_test(who_computed_it_for_others_may_go_before_it_is_done),
        cmocka_unit_test(what_was_drawn_is_reused_too),
        cmocka_unit_test(what_was_not_used_longest_goes_first_and_ends_before_beginnings),
        cmocka_unit_test(what_can_never_run_is_refused_with_numbers),
        cmocka_unit_test(impossible_configurations_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
