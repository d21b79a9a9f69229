/* batch: plans as tables. A random life of many jobs is in test_batch_life.c. */
#include "worker/engine/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct batch_config small = {
    .slots = 4,
    .waiting_max = 8,
    .pages = 10,
    .page_tokens = 4,
    .context_tokens = 32,
    .step_tokens = 8,
    .chunk_tokens = 8,
    .beside_tokens = 8,
    .logits_rows = 4,
    .headroom_pages = 10, /* as many as a job can need: nobody is preempted for pages */
    .pass_max = 3,
    .plans_max = 1,
};

static int owners[64];
static struct batch_seq *seqs[64];

static struct batch *open_batch(const struct batch_config *config)
{
    struct batch *b = NULL;
    struct errbuf eb = {{0}};

    if (batch_new(&b, config, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return b;
}

struct more {
    uint32_t job_class;
    uint64_t space;
    int32_t first; /* the first id; 0: 100 k */
};

/* Job k has ids first, first + 1, ... */
static enum err add_more(struct batch *b, int k, uint32_t n_ids, uint32_t n_more, struct more more,
                         struct errbuf *eb)
{
    int32_t ids[64], first = more.first != 0 ? more.first : 100 * k;
    struct batch_job job = {
        .owner = &owners[k],
        .ids = ids,
        .n_ids = n_ids,
        .n_limit = n_ids + n_more,
        .logits_from = n_ids - 1,
        .job_class = more.job_class,
        .space = more.space,
    };

    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = first + (int32_t)i;
    return batch_add(b, &job, &seqs[k], eb);
}

static enum err add(struct batch *b, int k, uint32_t n_ids, uint32_t n_more, struct errbuf *eb)
{
    return add_more(b, k, n_ids, n_more, (struct more){0}, eb);
}

static int job_of(const struct batch_seq *seq)
{
    return (int)((int *)batch_owner(seq) - owners);
}

/* The jobs that are admitted now, in order: "0 2". */
static const char *admitted(struct batch *b)
{
    static char text[256];
    struct batch_seq *seq;
    size_t n = 0;

    *text = 0;
    while ((seq = batch_admit(b)) != NULL)
        n += (size_t)sprintf(text + n, "%s%d", n == 0 ? "" : " ", job_of(seq));
    return text;
}

/* "100 101 200!": ids in the order of rows, * where logits are wanted, ! where a token is drawn. */
static void plan_text(const struct batch_plan *plan, char *text)
{
    *text = 0;
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        uint32_t first = plan->n_rows - plan->n_logits;
        const char *mark = i < first ? "" : plan->draw[i - first] ? "!" : "*";
        text += sprintf(text, "%s%d%s", i == 0 ? "" : " ", plan->ids[i], mark);
    }
}

/* Job k draws 100 k + 50 and up, by position. */
static void commit(struct batch *b, const struct batch_plan *plan)
{
    int32_t drawn[64];

    for (uint32_t i = 0; i < plan->n_logits; i++)
        drawn[i] = 100 * job_of(plan->logits_seq[i]) + 50 +
                   (int32_t)plan->position[plan->n_rows - plan->n_logits + i];
    batch_commit(b, drawn);
}

static void check_step(struct batch *b, const char *expect)
{
    struct batch_plan plan;
    char text[1024] = "-";

    if (batch_plan_step(b, &plan)) {
        plan_text(&plan, text);
        commit(b, &plan);
    }
    assert_string_equal(text, expect);
}

/* ---- several under way: what was planned and not committed, the oldest first -------------- */

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
    return open_batch(&own);
}

static void check_plan(struct batch *b, const char *expect)
{
    struct under_way *next = &under_way[n_under_way];
    bool is_planned = batch_plan_step(b, &next->plan);

    strcpy(next->text, "-");
    if (is_planned)
        plan_text(&next->plan, next->text);
    assert_string_equal(next->text, expect);
    n_under_way += is_planned;
}

/* What it says is what it said when it was planned. */
static void commit_oldest(struct batch *b)
{
    char text[1024];

    plan_text(&under_way[0].plan, text);
    assert_string_equal(text, under_way[0].text);
    commit(b, &under_way[0].plan);
    memmove(under_way, under_way + 1, --n_under_way * sizeof under_way[0]);
}

static void a_prompt_is_computed_in_pieces_and_then_drawn_from(void **state)
{
    struct batch *b = open_batch(&small);
    uint32_t n;

    (void)state;
    check_step(b, "-");
    assert_int_equal(add(b, 0, 10, 3, NULL), ERR_OK);
    check_step(b, "-");
    assert_string_equal(admitted(b), "0");
    assert_int_equal(batch_state(b).queued_tokens, 13);
    check_step(b, "0 1 2 3 4 5 6 7");
    check_step(b, "8 9!");
    assert_false(batch_full(seqs[0]));
    check_step(b, "59!");
    check_step(b, "60!");
    assert_true(batch_full(seqs[0]));
    const int32_t *ids = batch_ids(seqs[0], &n);
    assert_int_equal(n, 13);
    assert_int_equal(ids[9], 9);
    assert_int_equal(ids[10], 59);
    assert_int_equal(batch_computed(seqs[0]), 12);
    batch_remove(b, seqs[0]);
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_free(b);
}

static void decodes_go_first_and_prompts_share_the_rest(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add(b, 0, 2, 8, NULL);
    add(b, 1, 1, 8, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_step(b, "0 1! 100!");
    add(b, 2, 12, 2, NULL);
    add(b, 3, 3, 2, NULL);
    assert_string_equal(admitted(b), "2 3");
    /* Job 2 takes what is left of the first step; then job 3 has waited longer. */
    check_step(b, "200 201 202 203 204 205 51! 150!");
    check_step(b, "300 301 206 207 208 302! 52! 151!");
    check_step(b, "209 210 53! 152! 211! 352!");
    batch_free(b);
}

static void prompts_beside_a_decode_get_a_part_of_the_step(void **state)
{
    struct batch_config config = small;
    config.beside_tokens = 3;
    struct batch *b = open_batch(&config);

    (void)state;
    add(b, 0, 2, 8, NULL);
    add(b, 1, 10, 3, NULL);
    add(b, 2, 4, 3, NULL);
    assert_string_equal(admitted(b), "0 1 2");
    check_step(b, "0 100 101 102 103 104 105 1!"); /* nobody draws yet: the whole step */
    check_step(b, "200 201 202 51!");
    /* The last id of a prompt is drawn from: it counts as a decode. */
    check_step(b, "106 107 108 52! 203!");
    check_step(b, "53! 109! 253!");
    batch_free(b);
}

static void a_quarter_of_the_step_belongs_to_prompts(void **state)
{
    struct batch_config config = small;
    config.step_tokens = 4;
    struct batch *b = open_batch(&config);

    (void)state;
    for (int k = 0; k < 3; k++)
        add(b, k, 1, 7, NULL);
    assert_string_equal(admitted(b), "0 1 2");
    check_step(b, "0! 100! 200!");
    add(b, 3, 4, 2, NULL);
    assert_string_equal(admitted(b), "3");
    check_step(b, "300 50! 150! 250!");
    check_step(b, "301 51! 151! 251!");
    check_step(b, "302 52! 152! 252!");
    check_step(b, "53! 153! 253! 303!");
    batch_free(b);
}

static void a_step_too_small_for_all_takes_turns(void **state)
{
    struct batch_config config = small;
    config.step_tokens = 2;
    struct batch *b = open_batch(&config);

    (void)state;
    for (int k = 0; k < 4; k++)
        add(b, k, 1, 7, NULL);
    assert_string_equal(admitted(b), "0 1 2 3");
    check_step(b, "0! 100!");
    check_step(b, "200! 300!");
    check_step(b, "50! 150!");
    check_step(b, "250! 350!");
    batch_free(b);
}

static void chunks_bound_one_prompt_and_not_the_step(void **state)
{
    struct batch_config config = small;
    config.chunk_tokens = 3;
    struct batch *b = open_batch(&config);

    (void)state;
    add(b, 0, 5, 2, NULL);
    add(b, 1, 4, 2, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_step(b, "0 1 2 100 101 102");
    check_step(b, "3 4! 103!");
    batch_free(b);
}

/* Ids of an earlier attempt, with their logits wanted again: computed in order, none drawn. */
static void logits_of_resumed_ids_are_computed_without_a_draw(void **state)
{
    static const int32_t ids[6] = {10, 11, 12, 13, 14, 15};
    struct batch_job job = {
        .owner = &owners[0], .ids = ids, .n_ids = 6, .n_limit = 8, .logits_from = 1};
    struct batch_config config = small;
    config.slots = 2;
    config.logits_rows = 3;
    struct batch *b = open_batch(&config);

    (void)state;
    assert_int_equal(batch_add(b, &job, &seqs[0], NULL), ERR_OK);
    add(b, 1, 2, 3, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_step(b, "10 100 11* 12* 13*");
    check_step(b, "14* 15! 101!");
    check_step(b, "55! 151!");
    batch_free(b);
}

/* ---- admission and preemption ----------------------------------------------------------- */

static void with_full_headroom_jobs_wait_for_all_their_pages_in_order(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add(b, 0, 4, 13, NULL); /* 16 positions: 4 pages */
    add(b, 1, 4, 14, NULL); /* 17: 5 */
    add(b, 2, 4, 2, NULL);  /* 5: 2, and only 1 is left */
    add(b, 3, 1, 1, NULL);  /* 1: 1 would fit, but nobody passes */
    assert_string_equal(admitted(b), "0 1");
    batch_remove(b, seqs[2]);
    assert_string_equal(admitted(b), "3");
    batch_remove(b, seqs[1]);
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_free(b);
}

/* 4 pages of 2; each of two jobs comes to need 3. */
static void who_came_last_is_preempted_when_pages_run_out_and_goes_on_later(void **state)
{
    struct batch_config config = small;
    config.pages = 4;
    config.page_tokens = 2;
    config.headroom_pages = 0;
    struct batch *b = open_batch(&config);

    (void)state;
    add(b, 0, 2, 4, NULL);
    add(b, 1, 2, 4, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_step(b, "0 100 1! 101!");
    check_step(b, "51! 151!");
    check_step(b, "52! 152!");
    assert_int_equal(batch_state(b).pages_free, 0);
    check_step(b, "53!"); /* its third page was the other's */
    assert_int_equal(batch_state(b).preemptions, 1);
    assert_int_equal(batch_state(b).waiting, 1);
    assert_true(batch_full(seqs[0]));
    batch_remove(b, seqs[0]);
    assert_string_equal(admitted(b), "1");
    check_step(b, "100 101 151 152 153!"); /* all of it again, and the next token */
    assert_int_equal(batch_computed(seqs[1]), 5);
    assert_true(batch_full(seqs[1]));
    batch_free(b);
}

static void a_better_class_takes_the_place_of_a_worse_one(void **state)
{
    struct batch_config config = small;
    config.slots = 2;
    config.pass_max = 10;
    struct batch *b = open_batch(&config);

    (void)state;
    add_more(b, 0, 2, 6, (struct more){.job_class = 2}, NULL);
    add_more(b, 1, 2, 6, (struct more){.job_class = 1}, NULL);
    add_more(b, 2, 2, 6, (struct more){.job_class = 2}, NULL);
    assert_string_equal(admitted(b), "1 0");
    check_step(b, "100 0 101! 1!");
    add_more(b, 3, 2, 6, (struct more){.job_class = 0}, NULL);
    assert_string_equal(admitted(b), "3");
    assert_int_equal(batch_state(b).running, 2);
    check_step(b, "300 301! 151!");
    add_more(b, 4, 2, 6, (struct more){.job_class = 1}, NULL);
    assert_string_equal(admitted(b), ""); /* not better than those that run */
    batch_remove(b, seqs[1]);
    assert_string_equal(admitted(b), "4");
    batch_remove(b, seqs[3]);
    assert_string_equal(admitted(b), "0"); /* it came before job 2 */
    batch_free(b);
}

/* Preempting the worse one would not make room, so nobody is. */
static void nobody_is_preempted_in_vain(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add_more(b, 0, 20, 5, (struct more){.job_class = 0}, NULL); /* 6 pages */
    add_more(b, 1, 4, 2, (struct more){.job_class = 2}, NULL);  /* 2 */
    assert_string_equal(admitted(b), "0 1");
    add_more(b, 2, 20, 5, (struct more){.job_class = 0}, NULL); /* 6, and 4 could be had */
    assert_string_equal(admitted(b), "");
    assert_int_equal(batch_state(b).running, 2);
    batch_free(b);
}

static void a_job_passed_pass_max_times_is_passed_no_more(void **state)
{
    struct batch_config config = small;
    config.slots = 1;
    struct batch *b = open_batch(&config);
    char expect[16] = "";

    (void)state;
    add_more(b, 0, 1, 2, (struct more){.job_class = 0}, NULL);
    add_more(b, 1, 1, 2, (struct more){.job_class = 2}, NULL);
    assert_string_equal(admitted(b), "0");
    for (int k = 2; k < 5; k++) {
        add_more(b, k, 1, 2, (struct more){.job_class = 0}, NULL);
        batch_remove(b, seqs[k == 2 ? 0 : k - 1]);
        (void)snprintf(expect, sizeof expect, "%d", k);
        assert_string_equal(admitted(b), expect);
    }
    add_more(b, 5, 1, 2, (struct more){.job_class = 0}, NULL);
    batch_remove(b, seqs[4]);
    assert_string_equal(admitted(b), "1");
    assert_string_equal(admitted(b), ""); /* and it is not preempted for the better class */
    batch_free(b);
}

/* ---- prefix reuse ----------------------------------------------------------------------- */

static void the_same_beginning_is_computed_once(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add_more(b, 0, 10, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8");
    check_step(b, "9 10!");
    batch_remove(b, seqs[0]);
    assert_int_equal(batch_state(b).pages_free, 10);
    add_more(b, 1, 12, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "1");
    assert_int_equal(batch_cached(seqs[1]), 8);
    check_step(b, "9 10 11 12!");
    batch_free(b);
}

static void nothing_is_shared_between_spaces_or_without_one(void **state)
{
    static const uint64_t spaces[][2] = {{7, 8}, {0, 0}, {7, 0}, {0, 7}};

    (void)state;
    for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++) {
        struct batch *b = open_batch(&small);
        add_more(b, 0, 8, 2, (struct more){.space = spaces[i][0], .first = 1}, NULL);
        assert_string_equal(admitted(b), "0");
        check_step(b, "1 2 3 4 5 6 7 8!");
        add_more(b, 1, 8, 2, (struct more){.space = spaces[i][1], .first = 1}, NULL);
        batch_remove(b, seqs[0]);
        assert_string_equal(admitted(b), "1");
        assert_int_equal(batch_cached(seqs[1]), 0);
        check_step(b, "1 2 3 4 5 6 7 8!");
        batch_free(b);
    }
}

/* The last id is always computed: its logits are what the next token is drawn from. */
static void a_prompt_that_is_there_whole_computes_its_last_page(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add_more(b, 0, 8, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8!");
    add_more(b, 1, 8, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "1");
    assert_int_equal(batch_cached(seqs[1]), 4);
    check_step(b, "5 6 7 57! 8!");
    batch_free(b);
}

static void who_needs_a_page_that_is_being_computed_waits_for_it(void **state)
{
    struct batch_config config = small;
    config.step_tokens = 6;
    struct batch *b = open_batch(&config);

    (void)state;
    add_more(b, 0, 9, 2, (struct more){.space = 7, .first = 1}, NULL);
    add_more(b, 1, 9, 2, (struct more){.space = 7, .first = 1}, NULL);
    add_more(b, 2, 9, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0 1 2");
    check_step(b, "1 2 3 4 5 6");
    check_step(b, "7 8 9!");
    check_step(b, "9! 9! 58!");
    assert_int_equal(batch_cached(seqs[1]), 8);
    assert_int_equal(batch_cached(seqs[2]), 8);
    assert_int_equal(batch_state(b).cached_tokens, 16);
    batch_free(b);
}

static void who_computed_it_for_others_may_go_before_it_is_done(void **state)
{
    struct batch_config config = small;
    config.chunk_tokens = 2;
    struct batch *b = open_batch(&config);

    (void)state;
    add_more(b, 0, 9, 2, (struct more){.space = 7, .first = 1}, NULL);
    add_more(b, 1, 9, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_step(b, "1 2");
    batch_remove(b, seqs[0]);
    check_step(b, "1 2");
    check_step(b, "3 4");
    batch_free(b);
}

/* An answer's pages serve the next question of the same talk. */
static void what_was_drawn_is_reused_too(void **state)
{
    static const int32_t talk[12] = {1, 2, 51, 52, 53, 54, 55, 56, 9, 10, 11, 12};
    struct batch_job job = {.owner = &owners[1],
                            .ids = talk,
                            .n_ids = 12,
                            .n_limit = 14,
                            .logits_from = 11,
                            .space = 7};
    struct batch *b = open_batch(&small);

    (void)state;
    add_more(b, 0, 2, 8, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0");
    check_step(b, "1 2!");
    for (int i = 51; i < 58; i++) {
        char expect[16];
        (void)snprintf(expect, sizeof expect, "%d!", i);
        check_step(b, expect);
    }
    batch_remove(b, seqs[0]);
    assert_int_equal(batch_add(b, &job, &seqs[1], NULL), ERR_OK);
    assert_string_equal(admitted(b), "1");
    assert_int_equal(batch_cached(seqs[1]), 8);
    check_step(b, "9 10 11 12!");
    batch_free(b);
}

static void what_was_not_used_longest_goes_first_and_ends_before_beginnings(void **state)
{
    struct batch_config config = small;
    config.pages = 3;
    struct batch *b = open_batch(&config);

    (void)state;
    add_more(b, 0, 9, 1, (struct more){.space = 7, .first = 1}, NULL); /* 3 pages, 2 of them full */
    assert_string_equal(admitted(b), "0");
    check_step(b, "1 2 3 4 5 6 7 8");
    check_step(b, "9!");
    batch_remove(b, seqs[0]);
    /* 2 pages: one is blank, and of the two with text the second goes. */
    add(b, 1, 8, 1, NULL);
    assert_string_equal(admitted(b), "1");
    check_step(b, "100 101 102 103 104 105 106 107!");
    batch_remove(b, seqs[1]);
    add_more(b, 2, 9, 1, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "2");
    assert_int_equal(batch_cached(seqs[2]), 4);
    batch_free(b);
}

/* ---- several plans under way ------------------------------------------------------------ */

static void two_parts_of_those_who_draw_take_turns(void **state)
{
    struct batch *b = open_parts(&small, 2);

    (void)state;
    for (int k = 0; k < 4; k++)
        add(b, k, 1, 7, NULL);
    assert_string_equal(admitted(b), "0 1 2 3");
    check_plan(b, "0! 100!");
    assert_true(batch_is_under_way(seqs[0]));
    assert_false(batch_is_under_way(seqs[2]));
    check_plan(b, "200! 300!");
    check_plan(b, "-"); /* nobody is free, and two are all there may be */
    commit_oldest(b);
    assert_false(batch_is_under_way(seqs[0]));
    check_plan(b, "50! 150!");
    commit_oldest(b);
    check_plan(b, "250! 350!");
    commit_oldest(b);
    check_plan(b, "51! 151!");
    batch_free(b);
}

static void parts_even_out_as_jobs_come_and_go(void **state)
{
    struct batch_config config = small;
    config.slots = config.logits_rows = 8;
    config.pages = 64;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    for (int k = 0; k < 6; k++)
        add(b, k, 1, 20, NULL);
    assert_string_equal(admitted(b), "0 1 2 3 4 5");
    check_plan(b, "0! 100! 200!");
    check_plan(b, "300! 400! 500!");
    commit_oldest(b);
    batch_remove(b, seqs[0]);
    batch_remove(b, seqs[1]);
    check_plan(b, "250!"); /* what is free; of four, two would be its part */
    commit_oldest(b);
    check_plan(b, "350! 450!"); /* two of three: the third is left to the other part */
    commit_oldest(b);
    check_plan(b, "550! 251!");
    commit_oldest(b);
    check_plan(b, "351! 451!");
    add(b, 6, 1, 20, NULL);
    add(b, 7, 1, 20, NULL);
    assert_string_equal(admitted(b), "6 7"); /* while both are under way */
    commit_oldest(b);
    check_plan(b, "252! 551! 600!"); /* of six */
    commit_oldest(b);
    check_plan(b, "352! 452! 700!");
    batch_free(b);
}

static void fewer_jobs_than_plans_are_one_in_each(void **state)
{
    struct batch *b = open_parts(&small, 3);

    (void)state;
    add(b, 0, 1, 7, NULL);
    add(b, 1, 1, 7, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_plan(b, "0!");
    check_plan(b, "100!");
    check_plan(b, "-");
    commit_oldest(b);
    check_plan(b, "50!");
    add(b, 2, 1, 7, NULL);
    add(b, 3, 1, 7, NULL);
    assert_string_equal(admitted(b), "2 3");
    check_plan(b, "200! 300!");
    check_plan(b, "-");
    batch_free(b);
}

/* A prompt's next piece waits for the one before; that one counts as beside a draw as long as the
 * draw is under way. */
static void a_prompt_is_in_one_plan_at_a_time_and_beside_those_under_way(void **state)
{
    struct batch_config config = small;
    config.beside_tokens = 3;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    add(b, 0, 1, 9, NULL);
    assert_string_equal(admitted(b), "0");
    check_plan(b, "0!");
    add(b, 1, 12, 3, NULL);
    assert_string_equal(admitted(b), "1");
    check_plan(b, "100 101 102");
    commit_oldest(b);
    check_plan(b, "50!");
    commit_oldest(b);
    check_plan(b, "103 104 105");
    commit_oldest(b);
    batch_remove(b, seqs[0]);
    commit_oldest(b);
    check_plan(b, "106 107 108 109 110 111!"); /* nobody draws any more */
    batch_free(b);
}

/* Ids of an earlier attempt, whose logits are wanted: none is drawn, so nobody is held up. */
static void logits_without_a_draw_hold_up_no_prompt(void **state)
{
    static const int32_t ids[6] = {10, 11, 12, 13, 14, 15};
    struct batch_job job = {
        .owner = &owners[0], .ids = ids, .n_ids = 6, .n_limit = 8, .logits_from = 1};
    struct batch_config config = small;
    config.beside_tokens = 1;
    config.chunk_tokens = 4;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    assert_int_equal(batch_add(b, &job, &seqs[0], NULL), ERR_OK);
    assert_string_equal(admitted(b), "0");
    check_plan(b, "10 11* 12* 13*");
    add(b, 1, 4, 3, NULL);
    assert_string_equal(admitted(b), "1");
    check_plan(b, "100 101 102 103!");
    commit_oldest(b);
    check_plan(b, "14*"); /* but job 1 does draw */
    batch_free(b);
}

/* 4 pages of 2, all of them taken; the last to arrive is under way when the first needs a third. */
static void who_is_under_way_is_preempted_at_its_commit_and_not_before(void **state)
{
    struct batch_config config = small;
    config.pages = 4;
    config.page_tokens = 2;
    config.headroom_pages = 0;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    add(b, 0, 2, 4, NULL);
    add(b, 1, 2, 4, NULL);
    assert_string_equal(admitted(b), "0 1");
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
    assert_int_equal(batch_slot(seqs[0]), 0);
    commit_oldest(b);
    check_plan(b, "53!");
    assert_int_equal(batch_state(b).preemptions, 1);
    assert_int_equal(batch_slot(seqs[1]), UINT32_MAX);
    commit_oldest(b);
    batch_remove(b, seqs[0]);
    assert_string_equal(admitted(b), "1");
    check_plan(b, "100 101 151 152 153!"); /* what it drew on its way out is not drawn again */
    batch_free(b);
}

static void a_better_class_waits_for_the_commit_of_its_victim(void **state)
{
    struct batch_config config = small;
    config.slots = 2;
    struct batch *b = open_parts(&config, 2);

    (void)state;
    add_more(b, 0, 1, 6, (struct more){.job_class = 1}, NULL);
    add_more(b, 1, 1, 6, (struct more){.job_class = 1}, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_plan(b, "0!");
    check_plan(b, "100!");
    add_more(b, 2, 1, 6, (struct more){.job_class = 0}, NULL);
    assert_string_equal(admitted(b), "");
    commit_oldest(b);
    assert_string_equal(admitted(b), ""); /* job 1 came last, and is under way still */
    check_plan(b, "50!");
    commit_oldest(b);
    assert_string_equal(admitted(b), "2");
    assert_int_equal(batch_slot(seqs[1]), UINT32_MAX);
    check_plan(b, "200!");
    batch_free(b);
}

/* It is there for others once it is committed. */
static void who_needs_a_page_that_is_under_way_waits_for_its_commit(void **state)
{
    struct batch *b = open_parts(&small, 3);

    (void)state;
    add_more(b, 0, 6, 2, (struct more){.space = 7, .first = 1}, NULL);
    add_more(b, 1, 6, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0 1");
    check_plan(b, "1 2 3 4 5 6!");
    check_plan(b, "-");
    add_more(b, 2, 2, 2, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "2");
    check_plan(b, "1 2!"); /* less than a page */
    commit_oldest(b);
    check_plan(b, "5 6! 55!");
    assert_int_equal(batch_cached(seqs[1]), 4);
    batch_free(b);
}

static void all_that_is_under_way_can_be_given_up(void **state)
{
    struct batch *b = open_parts(&small, 2);

    (void)state;
    for (int k = 0; k < 3; k++)
        add_more(b, k, 5, 3, (struct more){.space = 7, .first = 1 + k}, NULL);
    assert_string_equal(admitted(b), "0 1 2");
    check_plan(b, "1 2 3 4 2 3 4 5!");
    check_plan(b, "3 4 5 6 7!");
    batch_abandon(b);
    for (int k = 0; k < 3; k++) {
        assert_false(batch_is_under_way(seqs[k]));
        batch_remove(b, seqs[k]);
    }
    assert_int_equal(batch_state(b).pages_free, 10);
    n_under_way = 0;
    add_more(b, 0, 5, 3, (struct more){.space = 7, .first = 1}, NULL);
    assert_string_equal(admitted(b), "0");
    check_plan(b, "1 2 3 4 5!"); /* nothing of it was computed */
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
    struct batch_config config = small;
    config.pages = 7;

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct batch *b = open_batch(&config);
        struct errbuf eb = {{0}};
        assert_int_equal(add(b, 0, rows[r].n_ids, rows[r].n_more, &eb), rows[r].expect);
        assert_non_null(strstr(eb.text, rows[r].text));
        batch_free(b);
    }
    struct batch *b = open_batch(&config);
    struct errbuf eb = {{0}};
    for (int k = 0; k < 8; k++)
        assert_int_equal(add(b, k, 1, 1, NULL), ERR_OK);
    assert_int_equal(add(b, 8, 1, 1, &eb), ERR_BUSY);
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
        struct batch_config config = small;
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
        cmocka_unit_test(the_same_beginning_is_computed_once),
        cmocka_unit_test(nothing_is_shared_between_spaces_or_without_one),
        cmocka_unit_test(a_prompt_that_is_there_whole_computes_its_last_page),
        cmocka_unit_test(who_needs_a_page_that_is_being_computed_waits_for_it),
        cmocka_unit_test(who_computed_it_for_others_may_go_before_it_is_done),
        cmocka_unit_test(what_was_drawn_is_reused_too),
        cmocka_unit_test(what_was_not_used_longest_goes_first_and_ends_before_beginnings),
        cmocka_unit_test(two_parts_of_those_who_draw_take_turns),
        cmocka_unit_test(parts_even_out_as_jobs_come_and_go),
        cmocka_unit_test(fewer_jobs_than_plans_are_one_in_each),
        cmocka_unit_test(a_prompt_is_in_one_plan_at_a_time_and_beside_those_under_way),
        cmocka_unit_test(logits_without_a_draw_hold_up_no_prompt),
        cmocka_unit_test(who_is_under_way_is_preempted_at_its_commit_and_not_before),
        cmocka_unit_test(a_better_class_waits_for_the_commit_of_its_victim),
        cmocka_unit_test(who_needs_a_page_that_is_under_way_waits_for_its_commit),
        cmocka_unit_test(all_that_is_under_way_can_be_given_up),
        cmocka_unit_test(what_can_never_run_is_refused_with_numbers),
        cmocka_unit_test(impossible_configurations_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
