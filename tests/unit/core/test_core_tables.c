/* The tables of the core: legal moves, the policy of the ledger, order of the queue; and the tree
 * that keeps order. */
#include "tests/unit/core/core_test.h"

#include "common/date.h"
#include "coordinator/core/state.h"

#include <string.h>

static void every_move_is_legal_or_not(void **state)
{
    /* Rows: from; a letter for each state it may go to, in the order Q L R D F C J(rejected) X. */
    static const char *const table[9] = {
        [WIRE_JOB_STATE_UNSPECIFIED] = "........", [WIRE_JOB_STATE_QUEUED] = ".L..FCJX",
        [WIRE_JOB_STATE_LEASED] = "Q.R.FC.X",      [WIRE_JOB_STATE_RUNNING] = "Q..DFCJX",
        [WIRE_JOB_STATE_DONE] = "........",        [WIRE_JOB_STATE_FAILED] = "........",
        [WIRE_JOB_STATE_CANCELLED] = "........",   [WIRE_JOB_STATE_REJECTED] = "........",
        [WIRE_JOB_STATE_EXPIRED] = "........",
    };
    (void)state;
    for (int from = 0; from < 9; from++) {
        assert_false(job_move_is_legal((enum wire_job_state)from, WIRE_JOB_STATE_UNSPECIFIED));
        for (int to = 1; to < 9; to++) {
            bool want = table[from][to - 1] != '.';
            if (job_move_is_legal((enum wire_job_state)from, (enum wire_job_state)to) != want)
                fail_msg("from %d to %d should be %s", from, to, want ? "legal" : "illegal");
        }
    }
    assert_false(job_move_is_legal((enum wire_job_state)9, WIRE_JOB_STATE_DONE));
    assert_false(job_move_is_legal(WIRE_JOB_STATE_QUEUED, (enum wire_job_state)9));
}

static void every_end_has_its_rule(void **state)
{
    static const struct {
        enum wire_job_state outcome;
        bool computed;
        enum record_ledger_kind kind;
        bool bill;
    } table[] = {
        {WIRE_JOB_STATE_DONE, true, RECORD_LEDGER_SETTLE, true},
        {WIRE_JOB_STATE_DONE, false, RECORD_LEDGER_SETTLE, true},
        {WIRE_JOB_STATE_CANCELLED, true, RECORD_LEDGER_SETTLE, true},
        {WIRE_JOB_STATE_CANCELLED, false, RECORD_LEDGER_VOID, false},
        {WIRE_JOB_STATE_EXPIRED, true, RECORD_LEDGER_SETTLE, true},
        {WIRE_JOB_STATE_EXPIRED, false, RECORD_LEDGER_EXPIRE, false},
        {WIRE_JOB_STATE_FAILED, true, RECORD_LEDGER_SETTLE, false},
        {WIRE_JOB_STATE_FAILED, false, RECORD_LEDGER_VOID, false},
        {WIRE_JOB_STATE_REJECTED, true, RECORD_LEDGER_SETTLE, false},
        {WIRE_JOB_STATE_REJECTED, false, RECORD_LEDGER_VOID, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct ledger_rule *r = ledger_rule_for(table[i].outcome, table[i].computed);
        assert_non_null(r);
        assert_int_equal(r->kind, table[i].kind);
        assert_int_equal(r->bill_prompt, table[i].bill);
        assert_int_equal(r->bill_completion, table[i].bill);
    }
    assert_null(ledger_rule_for(WIRE_JOB_STATE_QUEUED, true));
    assert_null(ledger_rule_for(WIRE_JOB_STATE_RUNNING, true));
}

static void the_queue_is_in_order(void **state)
{
    /* Each row goes before the next one. */
    static const struct {
        uint8_t job_class, priority;
        uint64_t deadline_ms, order;
    } table[] = {
        {WIRE_JOB_CLASS_INTERACTIVE, 0, UINT64_MAX, 9},
        {WIRE_JOB_CLASS_STANDARD, 9, UINT64_MAX, 8},
        {WIRE_JOB_CLASS_STANDARD, 5, 1000, 7},
        {WIRE_JOB_CLASS_STANDARD, 5, 2000, 1},
        {WIRE_JOB_CLASS_STANDARD, 5, UINT64_MAX, 2},
        {WIRE_JOB_CLASS_STANDARD, 5, UINT64_MAX, 3},
        {WIRE_JOB_CLASS_BATCH, 9, 1, 0},
    };
    struct core_job a = {0}, b = {0};
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        for (size_t k = 0; k < sizeof table / sizeof table[0]; k++) {
            a.job_class = table[i].job_class;
            a.priority = table[i].priority;
            a.deadline_ms = table[i].deadline_ms;
            a.submit_order = table[i].order;
            b.job_class = table[k].job_class;
            b.priority = table[k].priority;
            b.deadline_ms = table[k].deadline_ms;
            b.submit_order = table[k].order;
            int order = queue_compare(&a.in_queue, &b.in_queue);
            assert_true(i < k ? order < 0 : i > k ? order > 0 : order == 0);
        }
    }
}

struct number {
    struct tree_node node;
    int value;
};

static int number_compare(const struct tree_node *a, const struct tree_node *b)
{
    int x = tree_entry(a, const struct number, node)->value;
    int y = tree_entry(b, const struct number, node)->value;
    return x < y ? -1 : x > y;
}

/* Against an array of flags, over every operation. */
static void the_tree_is_a_sorted_set(void **state)
{
    enum { N = 200 };
    static struct number numbers[N];
    static bool in[N];
    struct tree t;
    uint32_t draw = 12345;
    (void)state;
    tree_init(&t, number_compare);
    for (int i = 0; i < N; i++)
        numbers[i].value = i;
    for (int round = 0; round < 5000; round++) {
        draw = draw * 1664525u + 1013904223u;
        int i = (int)(draw >> 16) % N;
        if (in[i])
            tree_remove(&t, &numbers[i].node);
        else
            tree_insert(&t, &numbers[i].node);
        in[i] = !in[i];
        assert_int_equal(tree_holds(&numbers[i].node), in[i]);
        if (round % 50 != 0)
            continue;
        uint32_t before = 0;
        int above = -1, below = -1;
        for (int k = 0; k < N; k++) {
            if (k == i)
                before = 0;
            below = k < i && in[k] ? k : below;
            above = k > i && in[k] && above < 0 ? k : above;
        }
        before = 0;
        for (int k = 0; k < i; k++)
            before += in[k];
        assert_int_equal(tree_rank(&t, &numbers[i].node), before);
        assert_ptr_equal(tree_above(&t, &numbers[i].node), above < 0 ? NULL : &numbers[above].node);
        assert_ptr_equal(tree_below(&t, &numbers[i].node), below < 0 ? NULL : &numbers[below].node);
        assert_ptr_equal(tree_find(&t, &numbers[i].node), in[i] ? &numbers[i].node : NULL);
        uint32_t n = 0;
        for (struct tree_node *k = tree_first(&t); k != NULL; k = tree_above(&t, k))
            n++;
        assert_int_equal(n, tree_count(&t));
    }
}

/* Against a walk over the whole queue. */
static void the_first_job_within_a_limit_is_found(void **state)
{
    enum { N = 100 };
    static struct core_job jobs[N];
    struct core_model m = {.name = "m"};
    uint32_t draw = 4711;
    (void)state;
    queue_init(&m);
    for (uint32_t i = 0; i < N; i++) {
        draw = draw * 1664525u + 1013904223u;
        jobs[i].max_tokens = 1 + (draw >> 16) % 50;
        jobs[i].priority = (uint8_t)(draw >> 8 & 3);
        jobs[i].submit_order = i;
    }
    for (int round = 0; round < 3000; round++) {
        draw = draw * 1664525u + 1013904223u;
        struct core_job *j = &jobs[(draw >> 16) % N];
        if (tree_holds(&j->in_queue))
            tree_remove(&m.queue, &j->in_queue);
        else
            tree_insert(&m.queue, &j->in_queue);
        uint32_t limit = (draw >> 8) % 52;
        struct tree_node *n = tree_first(&m.queue);
        while (n != NULL && tree_entry(n, struct core_job, in_queue)->max_tokens > limit)
            n = tree_above(&m.queue, n);
        assert_ptr_equal(queue_first_within(&m, limit), tree_entry(n, struct core_job, in_queue));
    }
}

static void days_are_those_of_the_calendar(void **state)
{
    static const struct {
        uint64_t seconds;
        uint32_t day;
    } table[] = {
        {0, 19700101},          {86399, 19700101},      {86400, 19700102},
        {951782400, 20000229},  {951868800, 20000301},  {1709164800, 20240229},
        {1735689599, 20241231}, {1735689600, 20250101}, {4107542400, 21000301},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_int_equal(date_of_wall(table[i].seconds * 1000000000u), table[i].day);
}

/* What workers say of the file, the greatest where they differ; what the last of them said where
 * none is here; and what is enough for anything where nobody said. */
static void a_prompt_is_bounded_by_what_is_known_of_its_model(void **state)
{
    struct offer {
        bool other_file;
        uint32_t per_job, per_message, per_kib;
    };
    static const struct {
        struct offer learned;
        struct offer hosts[3];
        size_t n_hosts;
        uint32_t text, chat; /* of 100 bytes; in two messages */
    } rows[] = {
        {{0}, {{0}}, 0, 4096 + 350, 4096 + 2 * 64 + 350},
        {{false, 5, 7, 1024}, {{0}}, 0, 105, 119},
        {{false, 5, 7, 1536}, {{0}}, 0, 155, 169},
        {{false, 5, 7, 1536}, {{false, 6, 8, 1024}}, 1, 106, 122},
        {{0}, {{false, 6, 8, 1025}, {false, 9, 2, 1024}}, 2, 9 + 101, 9 + 16 + 101},
        {{0}, {{false, 6, 8, 1024}, {true, 900, 900, 4096}}, 2, 106, 122},
        {{false, 5, 7, 1024}, {{true, 900, 900, 4096}}, 1, 105, 119},
        {{0}, {{false, 6, 8, 1024}, {false, 0, 0, 0}}, 2, 4096 + 350, 4096 + 2 * 64 + 350},
        {{0}, {{false, 1u << 20, 8, 1024}}, 1, 1u << 20, 1u << 20},
    };
    static const int32_t ids[3];
    static const uint8_t bytes[100];
    const struct wire_chat_message messages[2] = {
        {.role = "user", .content = {.data = bytes, .size = 60}},
        {.role = "assistant", .content = {.data = bytes, .size = 40}}};
    const struct wire_job of_ids = {
        .prompt_kind = WIRE_PROMPT_KIND_IDS, .prompt_ids = ids, .n_prompt_ids = 3};
    const struct wire_job of_text = {.prompt_kind = WIRE_PROMPT_KIND_TEXT,
                                     .text = {.data = bytes, .size = 100}};
    const struct wire_job of_chat = {
        .prompt_kind = WIRE_PROMPT_KIND_CHAT, .messages = messages, .n_messages = 2};
    static const char *const names[] = {"a", "b", "c"};
    struct core_test t;
    (void)state;

    core_test_start(&t);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct core_model *m = model_get(t.core, "m");
        struct core_worker workers[3] = {0};
        struct core_hosting hosts[3] = {0};
        m->learned.prompt_tokens_per_job = rows[i].learned.per_job;
        m->learned.prompt_tokens_per_message = rows[i].learned.per_message;
        m->learned.prompt_tokens_per_kib = rows[i].learned.per_kib;
        for (size_t k = 0; k < rows[i].n_hosts; k++) {
            const struct offer *o = &rows[i].hosts[k];
            workers[k].name = names[k];
            hosts[k] = (struct core_hosting){.worker = &workers[k],
                                             .model = m,
                                             .same_file = !o->other_file,
                                             .offer = {.prompt_tokens_per_job = o->per_job,
                                                       .prompt_tokens_per_message = o->per_message,
                                                       .prompt_tokens_per_kib = o->per_kib}};
            tree_insert(&m->hosts, &hosts[k].by_model);
        }
        assert_int_equal(prompt_tokens_bound(m, &of_ids), 3);
        assert_int_equal(prompt_tokens_bound(m, &of_text), rows[i].text);
        assert_int_equal(prompt_tokens_bound(m, &of_chat), rows[i].chat);
        for (size_t k = 0; k < rows[i].n_hosts; k++)
            tree_remove(&m->hosts, &hosts[k].by_model);
    }
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_move_is_legal_or_not),
        cmocka_unit_test(every_end_has_its_rule),
        cmocka_unit_test(the_queue_is_in_order),
        cmocka_unit_test(the_tree_is_a_sorted_set),
        cmocka_unit_test(the_first_job_within_a_limit_is_found),
        cmocka_unit_test(days_are_those_of_the_calendar),
        cmocka_unit_test(a_prompt_is_bounded_by_what_is_known_of_its_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
