/* batch: plans as tables, and a random life of many jobs with the checker outside the core. */
#include "worker/engine/batch.h"
#include "worker/kernels/philox.h"

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
    .logits_rows = 4,
};

static int owners[64];

static struct batch *open_batch(const struct batch_config *config)
{
    struct batch *b = NULL;
    struct errbuf eb = {{0}};

    if (batch_new(&b, config, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return b;
}

/* Job k has ids 100 k, 100 k + 1, ... */
static enum err add(struct batch *b, int k, uint32_t n_ids, uint32_t n_more, struct errbuf *eb)
{
    int32_t ids[64];
    struct batch_job job = {
        .owner = &owners[k],
        .ids = ids,
        .n_ids = n_ids,
        .n_limit = n_ids + n_more,
        .logits_from = n_ids - 1,
    };

    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = 100 * k + (int32_t)i;
    return batch_add(b, &job, eb);
}

static int job_of(const struct batch *b, uint32_t slot)
{
    return (int)((int *)batch_owner(b, slot) - owners);
}

static uint32_t admit_all(struct batch *b)
{
    uint32_t n = 0, slot;

    while (batch_admit(b, &slot) != NULL)
        n++;
    return n;
}

/* "0:0 0:1 1:0*": job:position, * where its logits are wanted, ! where a token is drawn. */
static void plan_text(const struct batch *b, const struct batch_plan *plan, char *text)
{
    *text = 0;
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        uint32_t first = plan->n_rows - plan->n_logits;
        const char *mark = i < first ? "" : plan->draw[i - first] ? "!" : "*";
        text += sprintf(text, "%s%d:%u%s", i == 0 ? "" : " ", job_of(b, plan->slot[i]),
                        plan->position[i], mark);
    }
}

static void check_step(struct batch *b, const char *expect)
{
    struct batch_plan plan;
    int32_t drawn[64];
    char text[1024] = "-";

    if (batch_plan_step(b, &plan)) {
        plan_text(b, &plan, text);
        for (uint32_t i = 0; i < plan.n_logits; i++)
            drawn[i] = 7;
        batch_commit(b, drawn);
    }
    assert_string_equal(text, expect);
}

static void a_prompt_is_computed_in_pieces_and_then_drawn_from(void **state)
{
    struct batch *b = open_batch(&small);
    uint32_t n;

    (void)state;
    check_step(b, "-");
    assert_int_equal(add(b, 0, 10, 3, NULL), ERR_OK);
    check_step(b, "-");
    assert_int_equal(admit_all(b), 1);
    assert_int_equal(batch_state(b).queued_tokens, 13);
    check_step(b, "0:0 0:1 0:2 0:3 0:4 0:5 0:6 0:7");
    check_step(b, "0:8 0:9!");
    assert_false(batch_full(b, 0));
    check_step(b, "0:10!");
    check_step(b, "0:11!");
    assert_true(batch_full(b, 0));
    const int32_t *ids = batch_ids(b, 0, &n);
    assert_int_equal(n, 13);
    assert_int_equal(ids[9], 9);
    assert_int_equal(ids[10], 7);
    assert_true(batch_remove(b, &owners[0]));
    assert_false(batch_remove(b, &owners[0]));
    assert_int_equal(batch_state(b).pages_free, 10);
    batch_free(b);
}

static void decodes_go_first_and_prompts_share_the_rest(void **state)
{
    struct batch *b = open_batch(&small);

    (void)state;
    add(b, 0, 2, 8, NULL);
    add(b, 1, 1, 8, NULL);
    assert_int_equal(admit_all(b), 2);
    check_step(b, "0:0 0:1! 1:0!");
    add(b, 2, 12, 2, NULL);
    add(b, 3, 3, 2, NULL);
    assert_int_equal(admit_all(b), 2);
    /* Job 2 takes what is left of the first step; then job 3 has waited longer. */
    check_step(b, "2:0 2:1 2:2 2:3 2:4 2:5 0:2! 1:1!");
    check_step(b, "3:0 3:1 2:6 2:7 2:8 3:2! 0:3! 1:2!");
    check_step(b, "2:9 2:10 0:4! 1:3! 2:11! 3:3!");
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
    assert_int_equal(admit_all(b), 3);
    check_step(b, "0:0! 1:0! 2:0!");
    add(b, 3, 4, 2, NULL);
    assert_int_equal(admit_all(b), 1);
    check_step(b, "3:0 0:1! 1:1! 2:1!");
    check_step(b, "3:1 0:2! 1:2! 2:2!");
    check_step(b, "3:2 0:3! 1:3! 2:3!");
    check_step(b, "0:4! 1:4! 2:4! 3:3!");
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
    assert_int_equal(admit_all(b), 4);
    check_step(b, "0:0! 1:0!");
    check_step(b, "2:0! 3:0!");
    check_step(b, "0:1! 1:1!");
    check_step(b, "2:1! 3:1!");
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
    assert_int_equal(admit_all(b), 2);
    check_step(b, "0:0 0:1 0:2 1:0 1:1 1:2");
    check_step(b, "0:3 0:4! 1:3!");
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
    assert_int_equal(batch_add(b, &job, NULL), ERR_OK);
    add(b, 1, 2, 3, NULL);
    assert_int_equal(admit_all(b), 2);
    check_step(b, "0:0 1:0 0:1* 0:2* 0:3*");
    check_step(b, "0:4* 0:5! 1:1!");
    check_step(b, "0:6! 1:2!");
    batch_free(b);
}

static void jobs_wait_for_all_their_pages_in_order(void **state)
{
    struct batch *b = open_batch(&small);
    uint32_t slot;

    (void)state;
    add(b, 0, 4, 13, NULL); /* 16 positions: 4 pages */
    add(b, 1, 4, 14, NULL); /* 17: 5 */
    add(b, 2, 4, 2, NULL);  /* 5: 2, and only 1 is left */
    add(b, 3, 1, 1, NULL);  /* 1: 1 would fit, but nobody passes */
    assert_ptr_equal(batch_admit(b, &slot), &owners[0]);
    assert_ptr_equal(batch_admit(b, &slot), &owners[1]);
    assert_null(batch_admit(b, &slot));
    assert_int_equal(batch_state(b).pages_free, 1);
    assert_true(batch_remove(b, &owners[2]));
    assert_ptr_equal(batch_admit(b, &slot), &owners[3]);
    assert_int_equal(batch_state(b).pages_free, 0);
    assert_true(batch_remove(b, &owners[1]));
    assert_int_equal(batch_state(b).pages_free, 5);
    batch_free(b);
}

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
        {"logits_rows", offsetof(struct batch_config, logits_rows), 3},
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

/* ---- a random life ---------------------------------------------------------------------- */

struct watched {
    bool present, running;
    uint32_t slot, n_prompt, n_limit, logits_from;
    uint32_t n_ids, n_computed, n_logits;
    uint64_t arrived, last_row;
};

struct life {
    struct batch *b;
    struct batch_config config;
    struct watched jobs[64];
    uint64_t seed, step, arrivals, last_admitted;
    uint32_t dice;
};

static uint32_t roll(struct life *l, uint32_t sides)
{
    return philox_token_word(l->seed, 0, l->dice++) % sides;
}

static void life_add(struct life *l)
{
    uint32_t k = roll(l, 64);
    struct watched *w = &l->jobs[k];
    int32_t ids[64];

    if (w->present)
        return;
    uint32_t n_ids = 1 + roll(l, l->config.context_tokens - 1);
    uint32_t n_limit = n_ids + 1 + roll(l, l->config.context_tokens - n_ids);
    struct batch_job job = {.owner = &owners[k], .ids = ids, .n_ids = n_ids, .n_limit = n_limit};
    job.logits_from = roll(l, 4) == 0 ? roll(l, n_ids) : n_ids - 1;
    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = (int32_t)(k * 1000 + i);
    enum err e = batch_add(l->b, &job, NULL);
    if (e != ERR_OK) {
        assert_true(e == ERR_BUSY || batch_pages_needed(&l->config, n_limit) > l->config.pages);
        return;
    }
    *w = (struct watched){
        .present = true,
        .n_prompt = n_ids,
        .n_ids = n_ids,
        .n_limit = n_limit,
        .logits_from = job.logits_from,
        .arrived = ++l->arrivals,
    };
}

static void life_remove(struct life *l, uint32_t k)
{
    assert_int_equal(batch_remove(l->b, &owners[k]), l->jobs[k].present);
    l->jobs[k].present = false;
}

static void life_admit(struct life *l)
{
    uint32_t slot;
    int *owner;

    while ((owner = batch_admit(l->b, &slot)) != NULL) {
        struct watched *w = &l->jobs[owner - owners];
        assert_true(w->present && !w->running && w->arrived > l->last_admitted);
        l->last_admitted = w->arrived;
        w->running = true;
        w->slot = slot;
        w->last_row = l->step;
    }
}

/* No page belongs to two jobs, none is lost, none is out of range. */
static void life_check_pages(const struct life *l, const struct batch_plan *plan)
{
    int owner_of[256];
    uint32_t held = 0;

    memset(owner_of, -1, sizeof owner_of);
    for (int k = 0; k < 64; k++) {
        const struct watched *w = &l->jobs[k];
        if (!w->present || !w->running)
            continue;
        uint32_t n = batch_pages_needed(&l->config, w->n_limit);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t page = plan->pages[w->slot * plan->pages_stride + i];
            assert_true(page < l->config.pages);
            assert_int_equal(owner_of[page], -1);
            owner_of[page] = k;
            held++;
        }
    }
    assert_int_equal(held + batch_state(l->b).pages_free, l->config.pages);
}

static void life_step(struct life *l)
{
    struct batch_plan plan;
    uint32_t rows_of[64] = {0}, n_running = 0;
    int32_t drawn[64] = {0};

    life_admit(l);
    for (int k = 0; k < 64; k++)
        n_running += l->jobs[k].present && l->jobs[k].running;
    assert_int_equal(batch_state(l->b).running, n_running);
    l->step++;
    if (!batch_plan_step(l->b, &plan)) {
        assert_int_equal(n_running, 0);
        return;
    }
    life_check_pages(l, &plan);
    assert_in_range(plan.n_rows, 1, l->config.step_tokens);
    assert_in_range(plan.n_logits, 0, l->config.logits_rows);
    for (uint32_t i = 0; i < plan.n_rows; i++) {
        uint32_t k = (uint32_t)job_of(l->b, plan.slot[i]);
        struct watched *w = &l->jobs[k];
        bool logits = i >= plan.n_rows - plan.n_logits;
        uint32_t position = plan.position[i];
        assert_true(w->present && w->running && w->slot == plan.slot[i]);
        /* Each position once, in order, with the id that stands there. */
        assert_int_equal(position, w->n_computed++);
        if (position < w->n_prompt)
            assert_int_equal(plan.ids[i], (int32_t)(k * 1000 + position));
        else
            assert_int_equal(plan.ids[i], -(int32_t)(k * 1000 + position));
        assert_int_equal(logits, position >= w->logits_from);
        if (logits) {
            uint32_t at = i - (plan.n_rows - plan.n_logits);
            assert_int_equal(plan.draw[at], position + 1 >= w->n_prompt);
            drawn[at] = -(int32_t)(k * 1000 + position + 1);
            w->n_ids += plan.draw[at];
        }
        w->last_row = l->step;
        rows_of[k]++;
    }
    batch_commit(l->b, drawn);
    for (uint32_t k = 0; k < 64; k++) {
        struct watched *w = &l->jobs[k];
        uint32_t n_ids;
        if (!w->present || !w->running)
            continue;
        if (w->n_prompt > 1 && w->n_computed < w->n_prompt)
            assert_in_range(rows_of[k], 0, l->config.chunk_tokens);
        /* Nobody starves. */
        assert_true(l->step - w->last_row <= l->config.slots);
        (void)batch_ids(l->b, w->slot, &n_ids);
        assert_int_equal(n_ids, w->n_ids);
        assert_int_equal(batch_full(l->b, w->slot), w->n_ids == w->n_limit);
        if (w->n_ids == w->n_limit || roll(l, 100) == 0)
            life_remove(l, k);
    }
}

static void a_random_life_leaks_shares_and_starves_nothing(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct life l = {.seed = seed};
        l.config = (struct batch_config){
            .slots = 1 + roll(&l, 12),
            .waiting_max = 1 + roll(&l, 20),
            .pages = 4 + roll(&l, 60),
            .page_tokens = 1 + roll(&l, 8),
            .context_tokens = 2 + roll(&l, 40),
            .step_tokens = 2 + roll(&l, 20),
            .chunk_tokens = 1 + roll(&l, 20),
        };
        l.config.logits_rows = l.config.slots + roll(&l, 4);
        l.b = open_batch(&l.config);
        for (uint32_t turn = 0; turn < 300; turn++) {
            for (uint32_t n = roll(&l, 4); n > 0; n--)
                life_add(&l);
            if (roll(&l, 20) == 0)
                life_remove(&l, roll(&l, 64));
            life_step(&l);
        }
        /* Without arrivals everything that runs or waits comes to its end. */
        for (uint32_t turn = 0; turn < 64 * 50 * 13; turn++) {
            struct batch_state now = batch_state(l.b);
            if (now.running + now.waiting == 0)
                break;
            life_step(&l);
        }
        struct batch_state now = batch_state(l.b);
        assert_int_equal(now.running + now.waiting, 0);
        assert_int_equal(now.queued_tokens, 0);
        assert_int_equal(now.pages_free, l.config.pages);
        batch_free(l.b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_is_computed_in_pieces_and_then_drawn_from),
        cmocka_unit_test(decodes_go_first_and_prompts_share_the_rest),
        cmocka_unit_test(a_quarter_of_the_step_belongs_to_prompts),
        cmocka_unit_test(a_step_too_small_for_all_takes_turns),
        cmocka_unit_test(chunks_bound_one_prompt_and_not_the_step),
        cmocka_unit_test(logits_of_resumed_ids_are_computed_without_a_draw),
        cmocka_unit_test(jobs_wait_for_all_their_pages_in_order),
        cmocka_unit_test(what_can_never_run_is_refused_with_numbers),
        cmocka_unit_test(impossible_configurations_are_refused_by_name),
        cmocka_unit_test(a_random_life_leaks_shares_and_starves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
