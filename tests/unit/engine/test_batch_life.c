/*
 * batch: random lives of many jobs. The checker keeps its own picture of every page of the cache:
 * for each place the text that its K and V were computed from. Whatever is shared, evicted,
 * preempted or swapped, a row must find its own text behind it.
 *
 *   test_batch_life [SEEDS]
 */
#include "worker/engine/batch.h"
#include "worker/kernels/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define JOBS      64
#define PAGES_MAX 64
#define PAGE_MAX  8
#define IDS_MAX   64

static uint64_t n_seeds = 300;

struct watched {
    bool present, running;
    bool under_way; /* in a plan that is not committed */
    bool is_doomed; /* to be removed as soon as it is not */
    struct batch_seq *seq;
    uint32_t n_prompt, n_limit, logits_from, job_class;
    uint64_t space;
    int32_t ids[IDS_MAX];
    uint32_t n_ids, n_logits, n_computed;
    uint32_t passed;
    uint64_t arrived, last_row;
};

/* A plan under way, and what will be drawn from it. */
struct pending {
    struct batch_plan plan;
    int32_t drawn[IDS_MAX];
};

struct life {
    struct batch *b;
    struct pending pending[BATCH_PLANS_MAX]; /* the oldest first */
    uint32_t n_pending;
    struct batch_config config;
    struct watched jobs[JOBS];
    uint64_t text[PAGES_MAX][PAGE_MAX];    /* what the place's K and V came from; 0: nothing yet */
    uint64_t written[PAGES_MAX][PAGE_MAX]; /* the step in which they were written */
    uint64_t seed, step, arrivals, n_cached;
    uint32_t dice;
};

static uint32_t roll(struct life *l, uint32_t sides)
{
    return philox_token_word(l->seed, 0, l->dice++) % sides;
}

/* Stands for the ids [0, n] in their space. */
static uint64_t text_of(const struct watched *w, uint32_t n)
{
    uint64_t text = 1469598103934665603u ^ w->space;

    if (w->space == 0)
        text ^= w->arrived << 8; /* nobody else has it */
    for (uint32_t i = 0; i <= n; i++)
        text = (text ^ (uint32_t)w->ids[i]) * 1099511628211u;
    return text | 1;
}

/* A model: what comes next follows from what was before. */
static int32_t next_id(const struct watched *w, uint32_t position)
{
    int32_t id = 7;

    for (uint32_t i = 0; i <= position; i++)
        id = (id * 31 + w->ids[i]) % 3;
    return id;
}

static struct watched *watched_of(struct life *l, const struct batch_seq *seq)
{
    struct watched *w = batch_owner(seq);

    assert_true(w >= l->jobs && w < l->jobs + JOBS && w->present && w->seq == seq);
    return w;
}

static void life_add(struct life *l)
{
    struct watched *w = &l->jobs[roll(l, JOBS)];

    if (w->present)
        return;
    uint32_t n_ids = 1 + roll(l, l->config.context_tokens - 1);
    *w = (struct watched){
        .present = true,
        .n_prompt = n_ids,
        .n_ids = n_ids,
        .n_limit = n_ids + 1 + roll(l, l->config.context_tokens - n_ids),
        .logits_from = roll(l, 4) == 0 ? roll(l, n_ids) : n_ids - 1,
        .job_class = roll(l, 3),
        .space = roll(l, 3),
        .arrived = ++l->arrivals,
    };
    /* One of three texts, which mostly stay together. */
    uint32_t family = roll(l, 3), from = roll(l, 2 * n_ids);
    for (uint32_t i = 0; i < n_ids; i++)
        w->ids[i] = (int32_t)(i < from ? (family + i / 3) % 3 : roll(l, 3));
    struct batch_job job = {
        .owner = w,
        .ids = w->ids,
        .n_ids = n_ids,
        .n_limit = w->n_limit,
        .logits_from = w->logits_from,
        .job_class = w->job_class,
        .space = w->space,
    };
    enum err e = batch_add(l->b, &job, &w->seq, NULL);
    if (e != ERR_OK) {
        assert_true(e == ERR_BUSY || batch_pages_needed(&l->config, w->n_limit) > l->config.pages);
        w->present = false;
    }
}

static void life_remove(struct life *l, struct watched *w)
{
    if (w->present && w->under_way) {
        w->is_doomed = true;
        return;
    }
    if (w->present)
        batch_remove(l->b, w->seq);
    w->present = false;
}

static void life_admit(struct life *l)
{
    struct batch_seq *seq;

    while ((seq = batch_admit(l->b)) != NULL) {
        struct watched *w = watched_of(l, seq);
        w->running = true;
        w->last_row = l->step;
        for (int k = 0; k < JOBS; k++) {
            struct watched *other = &l->jobs[k];
            if (!other->present || other == w || other->arrived > w->arrived)
                continue;
            other->passed += !other->running;
            assert_in_range(other->passed, 0, l->config.pass_max + l->config.slots);
        }
    }
}

/* All rows of a step write their K and V, then each reads all that is before it. */
static void life_rows(struct life *l, const struct batch_plan *plan)
{
    uint32_t size = l->config.page_tokens;

    for (uint32_t i = 0; i < plan->n_rows; i++) {
        const uint32_t *pages = plan->pages + (size_t)plan->slot[i] * plan->pages_stride;
        uint32_t page = pages[plan->position[i] / size], at = plan->position[i] % size;
        assert_true(page < l->config.pages);
        assert_true(l->written[page][at] != l->step); /* by one row alone */
        l->written[page][at] = l->step;
        l->text[page][at] = 0;
    }
}

static void life_row(struct life *l, const struct batch_plan *plan, uint32_t i, struct watched *w)
{
    const uint32_t *pages = plan->pages + (size_t)plan->slot[i] * plan->pages_stride;
    uint32_t position = plan->position[i], size = l->config.page_tokens;

    assert_true(position < w->n_ids);
    assert_int_equal(plan->ids[i], w->ids[position]);
    l->text[pages[position / size]][position % size] = text_of(w, position);
    for (uint32_t p = 0; p <= position; p++)
        assert_true(l->text[pages[p / size]][p % size] == text_of(w, p));
}

/* Whose row it is: the job with these ids in that slot. Rows name no job, so it is found by the
 * pages of the slots whose logits are wanted, or by trying. */
static struct watched *slot_job(struct life *l, const struct batch_plan *plan, uint32_t i)
{
    struct watched *found = NULL;

    for (int k = 0; k < JOBS; k++) {
        struct watched *w = &l->jobs[k];
        if (w->present && batch_slot(w->seq) == plan->slot[i]) {
            assert_null(found);
            found = w;
        }
    }
    assert_non_null(found);
    return found;
}

static void life_logits(struct life *l, const struct batch_plan *plan, uint32_t at, int32_t *drawn)
{
    uint32_t position = plan->position[plan->n_rows - plan->n_logits + at];
    struct watched *w = watched_of(l, plan->logits_seq[at]);

    /* Each wanted one once, in order, however often the job was preempted. */
    assert_int_equal(position, w->logits_from + w->n_logits++);
    assert_int_equal(plan->draw[at], position == w->n_ids - 1);
    if (!plan->draw[at])
        return;
    drawn[at] = next_id(w, position);
}

static void life_progress(struct life *l, struct watched *w)
{
    const struct batch_config *c = &l->config;
    uint32_t n_ids, computed = batch_computed(w->seq);

    w->running = batch_slot(w->seq) != UINT32_MAX;
    assert_true(computed >= w->n_computed && computed < w->n_limit);
    assert_true(batch_cached(w->seq) <= computed);
    w->n_computed = computed;
    /* A job that runs has a row at least every so many steps. Who waits for a page of another waits
     * until that one had its turns; that may be preempted, and a third begin with the page. */
    if (w->running)
        assert_true(l->step - w->last_row <=
                    (uint64_t)c->plans_max * c->slots * (c->page_tokens + 1));
    (void)batch_ids(w->seq, &n_ids);
    assert_int_equal(n_ids, w->n_ids);
    assert_int_equal(batch_full(w->seq), w->n_ids == w->n_limit);
}

/* What is computed is so in the order of the plans: a plan's rows are there for the next one's. */
static bool life_plan(struct life *l)
{
    struct pending *next = &l->pending[l->n_pending];
    struct batch_plan *plan = &next->plan;

    if (!batch_plan_step(l->b, plan))
        return false;
    l->step++;
    l->n_pending++;
    assert_in_range(l->n_pending, 1, l->config.plans_max);
    assert_in_range(plan->n_rows, 1, l->config.step_tokens);
    assert_in_range(plan->n_logits, 0, l->config.logits_rows);
    for (uint32_t i = 0; i < plan->n_rows; i++)
        assert_false(slot_job(l, plan, i)->under_way);
    life_rows(l, plan);
    /* In order of position within each job: a later one reads what an earlier one wrote. */
    for (uint32_t position = 0; position < l->config.context_tokens; position++)
        for (uint32_t i = 0; i < plan->n_rows; i++)
            if (plan->position[i] == position)
                life_row(l, plan, i, slot_job(l, plan, i));
    for (uint32_t i = 0; i < plan->n_logits; i++)
        life_logits(l, plan, i, next->drawn);
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        slot_job(l, plan, i)->under_way = true;
        slot_job(l, plan, i)->last_row = l->step;
    }
    for (int k = 0; k < JOBS; k++)
        if (l->jobs[k].present)
            assert_int_equal(l->jobs[k].under_way, batch_is_under_way(l->jobs[k].seq));
    return true;
}

/* The plan still says what it said, and nobody has touched what its rows have written and read. */
static void life_unharmed(struct life *l, const struct batch_plan *plan)
{
    const uint32_t size = l->config.page_tokens;

    for (uint32_t i = 0; i < plan->n_rows; i++) {
        const uint32_t *pages = plan->pages + (size_t)plan->slot[i] * plan->pages_stride;
        struct watched *w = slot_job(l, plan, i);
        assert_true(w->under_way);
        assert_int_equal(plan->ids[i], w->ids[plan->position[i]]);
        for (uint32_t p = 0; p <= plan->position[i]; p++)
            assert_true(l->text[pages[p / size]][p % size] == text_of(w, p));
    }
}

static void life_commit(struct life *l)
{
    struct pending oldest = l->pending[0];
    const struct batch_plan *plan = &oldest.plan;

    life_unharmed(l, plan);
    for (uint32_t i = 0; i < plan->n_rows; i++)
        slot_job(l, plan, i)->under_way = false;
    for (uint32_t i = 0; i < plan->n_logits; i++) {
        struct watched *w = watched_of(l, plan->logits_seq[i]);
        if (plan->draw[i])
            w->ids[w->n_ids++] = oldest.drawn[i];
    }
    batch_commit(l->b, oldest.drawn);
    memmove(l->pending, l->pending + 1, --l->n_pending * sizeof l->pending[0]);
    for (int k = 0; k < JOBS; k++) {
        struct watched *w = &l->jobs[k];
        if (!w->present)
            continue;
        life_progress(l, w);
        if (w->n_ids == w->n_limit || w->is_doomed || roll(l, 100) == 0)
            life_remove(l, w);
    }
}

/* Nothing under way will be computed: all jobs go. */
static void life_abandon(struct life *l)
{
    batch_abandon(l->b);
    l->n_pending = 0;
    for (int k = 0; k < JOBS; k++) {
        l->jobs[k].under_way = false;
        life_remove(l, &l->jobs[k]);
    }
}

/* One plan more, or one commit, or both; what cannot go on without a commit gets one. */
static void life_step(struct life *l)
{
    life_admit(l);
    const bool is_planned = life_plan(l);

    if (!is_planned && l->n_pending == 0) {
        assert_int_equal(batch_state(l->b).running, 0);
        assert_int_equal(batch_state(l->b).waiting, 0);
        return;
    }
    if (roll(l, 1000) == 0) {
        life_abandon(l);
        return;
    }
    if (!is_planned || l->n_pending == l->config.plans_max || roll(l, 4) == 0)
        life_commit(l);
}

static struct batch_config random_config(struct life *l)
{
    struct batch_config config = {
        .slots = 1 + roll(l, 12),
        .waiting_max = 1 + roll(l, 20),
        .pages = 4 + roll(l, PAGES_MAX - 4),
        .page_tokens = 1 + roll(l, PAGE_MAX),
        .context_tokens = 2 + roll(l, 40),
        .step_tokens = 2 + roll(l, 20),
        .chunk_tokens = 1 + roll(l, 20),
        .beside_tokens = 1 + roll(l, 20),
        .headroom_pages = roll(l, 4),
        .pass_max = 1 + roll(l, 5),
        .plans_max = 1 + roll(l, 4),
    };
    config.logits_rows = config.slots + roll(l, 4);
    return config;
}

static void whatever_happens_a_row_finds_its_own_text(void **state)
{
    uint64_t n_preempted = 0, n_cached = 0;
    static struct life l;

    (void)state;
    for (uint64_t seed = 0; seed < n_seeds; seed++) {
        struct errbuf eb = {{0}};
        memset(&l, 0, sizeof l);
        l.seed = seed;
        l.config = random_config(&l);
        if (batch_new(&l.b, &l.config, &eb) != ERR_OK)
            fail_msg("%s", eb.text);
        for (uint32_t turn = 0; turn < 300; turn++) {
            for (uint32_t n = roll(&l, 4); n > 0; n--)
                life_add(&l);
            if (roll(&l, 20) == 0)
                life_remove(&l, &l.jobs[roll(&l, JOBS)]);
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
        n_preempted += now.preemptions;
        n_cached += now.cached_tokens;
        batch_free(l.b);
    }
    /* The lives were such that there was something to see. */
    assert_true(n_preempted > n_seeds && n_cached > n_seeds);
    print_message("%llu preemptions, %llu positions reused\n", (unsigned long long)n_preempted,
                  (unsigned long long)n_cached);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_happens_a_row_finds_its_own_text),
    };

    if (argc > 1)
        n_seeds = strtoull(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
