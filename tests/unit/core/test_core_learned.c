/* What loads and work have measured: whose numbers decide about whom, and which are not believed.
 */
#include "tests/unit/core/core_test.h"

#include <stdio.h>
#include <string.h>

#define MB (1ull << 20)

/* A worker with model "m" of 1 GB, in a room of `free_mb`. */
static uint64_t worker_new(struct core_test *t, const char *name, uint64_t free_mb)
{
    struct core_test_worker w = {.name = name,
                                 .key = (uint8_t)name[0],
                                 .total_bytes = 8 * CORE_TEST_GB,
                                 .free_bytes = free_mb * MB,
                                 .models = {"m"},
                                 .weights_bytes = {CORE_TEST_GB}};
    return core_test_worker(t, &w);
}

struct numbers {
    uint64_t mb, load_ms;
    uint32_t tokens_per_s;
};

static void report_ready(struct core_test *t, uint64_t worker, struct numbers n)
{
    struct wire_model_status status = {.name = "m",
                                       .state = WIRE_MODEL_STATE_READY,
                                       .error = "",
                                       .weights_bytes = n.mb * MB,
                                       .load_ms = n.load_ms,
                                       .prefill_tokens_per_s = n.tokens_per_s,
                                       .decode_tokens_per_s = n.tokens_per_s};
    struct wire_request report = {
        .kind = WIRE_REQUEST_REPORT,
        .session = worker,
        .report = {.models = &status, .n_models = 1, .memory = {.total_bytes = 8 * CORE_TEST_GB}}};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
}

/* How `name` is judged for a job that no worker can take now. */
static struct wire_candidate judged(struct core_test *t, uint64_t client, const char *name)
{
    const struct wire_explain_reply *e = core_test_explain(t, client, 1);
    for (size_t i = 0; i < e->n_candidates; i++) {
        if (strcmp(e->candidates[i].worker, name) == 0)
            return e->candidates[i];
    }
    fail_msg("%s is no candidate", name);
    return (struct wire_candidate){0};
}

/* One worker says `said` about the model that it has loaded; another one, `x`, has room for half of
 * it. What is held for true of `x` then? */
static void what_cannot_be_true_is_not_believed(void **state)
{
    static const struct {
        const char *what;
        struct numbers said;
        uint64_t need_mb, load_ms;
        uint32_t tokens_per_s;
    } table[] = {
        {"all plausible", {1100, 2000, 50}, 1100, 2000, 50},
        {"a model of nothing", {1, 2000, 50}, 1024, 2000, 50},
        {"less than half", {511, 2000, 50}, 1024, 2000, 50},
        {"half", {512, 2000, 50}, 512, 2000, 50},
        {"more than twice", {4000, 2000, 50}, 1024, 2000, 50},
        {"as much as there are numbers", {UINT64_MAX / MB, 2000, 50}, 1024, 2000, 50},
        {"a day to load", {1100, 86400000, 50}, 1100, 5468, 50},
        {"more tokens than can be", {1100, 2000, UINT32_MAX}, 1100, 2000, 20},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        core_test_init(&t);
        t.config.worker_leases_max = 0; /* nothing is given out: the judgement is what matters */
        core_test_open(&t);
        uint64_t liar = worker_new(&t, "a", 8000);
        (void)worker_new(&t, "x", 400);
        uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        report_ready(&t, liar, table[i].said);
        struct wire_candidate x = judged(&t, client, "x");
        if (x.need_bytes != table[i].need_mb * MB || x.load_ms != table[i].load_ms ||
            x.tokens_per_s != table[i].tokens_per_s)
            fail_msg("%s: %llu MB, %llu ms, %u tokens/s", table[i].what,
                     (unsigned long long)(x.need_bytes / MB), (unsigned long long)x.load_ms,
                     x.tokens_per_s);
        core_test_fini(&t);
    }
}

/* Each is judged by its own numbers, and who has none by the middle of all: one of three moves
 * nothing, however it comes and goes. */
static void one_of_three_moves_nothing(void **state)
{
    static const struct numbers lies[] = {
        {600, 1, 10000000}, {2000, 100000, 1}, {1024, 1, 1}, {0, 0, 0}};
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.worker_leases_max = 0;
    core_test_open(&t);
    uint64_t first = worker_new(&t, "a", 8000), second = worker_new(&t, "b", 8000);
    (void)worker_new(&t, "x", 400);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    report_ready(&t, first, (struct numbers){1100, 2000, 50});
    report_ready(&t, second, (struct numbers){1110, 2100, 52});
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        uint64_t liar = worker_new(&t, "l", 8000);
        report_ready(&t, liar, lies[i]);
        struct wire_candidate x = judged(&t, client, "x");
        assert_in_range(x.need_bytes, 1100 * MB, 1110 * MB);
        assert_in_range(x.load_ms, 2000, 2100);
        assert_in_range(x.tokens_per_s, 50, 52);
        assert_int_equal(judged(&t, client, "a").tokens_per_s, 50);
        assert_int_equal(judged(&t, client, "b").need_bytes, 1110 * MB);
        struct wire_request bye = {
            .kind = WIRE_REQUEST_GOODBYE, .session = liar, .goodbye = {.reason = ""}};
        (void)core_test_ask(&t, &bye);
    }
    core_test_fini(&t);
}

/* A slow worker beside a fast one: neither is taken for the other. */
static void a_worker_is_judged_by_its_own_numbers(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t slow = worker_new(&t, "a", 8000), fast = worker_new(&t, "b", 8000);
    uint64_t client = core_test_client(&t, "c", "", 2);
    report_ready(&t, slow, (struct numbers){1024, 900, 10});
    report_ready(&t, fast, (struct numbers){1024, 900, 1000});
    for (uint8_t i = 1; i <= 10; i++) {
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
        assert_string_equal(core_test_job(&t, client, i).worker, i == 1 ? "a" : "b");
    }
    core_test_fini(&t);
}

/* Numbers that stay the same are not written with every heartbeat. */
static void only_what_moved_is_stored(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t worker = worker_new(&t, "a", 8000);
    static const struct {
        struct numbers said;
        bool stored;
    } table[] = {
        {{1100, 2000, 50}, true},  {{1100, 2000, 50}, false}, {{1100, 2000, 54}, false},
        {{1100, 2000, 60}, true},  {{1101, 2000, 60}, true},  {{1101, 2100, 61}, false},
        {{9999, 2100, 61}, false},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        report_ready(&t, worker, table[i].said);
        assert_int_equal(core_test_count(&t, CORE_EFFECT_PUT_LEARNED), table[i].stored);
    }
    core_test_fini(&t);
}

/* Another word for the same file, by a worker of another version: it is stored, and what was
 * measured stays. */
static void a_new_name_of_a_quantization_forgets_nothing(void **state)
{
    struct core_test t;
    struct core_test_worker w = {.name = "a",
                                 .key = 'a',
                                 .total_bytes = 8 * CORE_TEST_GB,
                                 .free_bytes = 8 * CORE_TEST_GB,
                                 .models = {"m"},
                                 .weights_bytes = {CORE_TEST_GB}};
    (void)state;
    core_test_start(&t);
    report_ready(&t, core_test_worker(&t, &w), (struct numbers){1100, 2000, 50});
    w.quantization = "Q4_K_M";
    for (int again = 0; again < 2; again++) {
        (void)core_test_worker(&t, &w);
        assert_int_equal(core_test_count(&t, CORE_EFFECT_PUT_LEARNED), !again);
        if (again)
            break;
        const struct record_learned *l = &core_test_find(&t, CORE_EFFECT_PUT_LEARNED)->learned;
        assert_string_equal(l->quantization, "Q4_K_M");
        assert_int_equal(l->measured_bytes, 1100 * MB);
        assert_int_equal(l->load_ms, 2000);
        assert_int_equal(l->decode_tokens_per_s, 50);
    }
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_true_is_not_believed),
        cmocka_unit_test(one_of_three_moves_nothing),
        cmocka_unit_test(a_worker_is_judged_by_its_own_numbers),
        cmocka_unit_test(only_what_moved_is_stored),
        cmocka_unit_test(a_new_name_of_a_quantization_forgets_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
