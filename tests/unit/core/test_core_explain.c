/* What `explain` says of a job that is somewhere, also where the decision itself is gone. */
#include "tests/unit/core/core_test.h"

#include <string.h>

static const struct wire_explain_reply *explain(struct core_test *t, uint64_t client, uint8_t job)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(job)}};
    const struct wire_reply *reply = core_test_ask(t, &request);
    assert_int_equal(reply->kind, WIRE_REQUEST_EXPLAIN);
    return &reply->explain;
}

static void expect_text(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

/* A core restored with one job in each state that has seen a worker. */
static void after_a_restart_it_says_that_the_decision_is_gone(void **state)
{
    static const struct {
        enum wire_job_state state;
        bool worker_is_back;
        const char *text;
        size_t n_candidates;
    } table[] = {
        {WIRE_JOB_STATE_RUNNING, true,
         "running on w, attempt 2, 5 of at most 20 tokens; why there is not known any more: it was "
         "decided before the coordinator started, 3 s ago, and decisions are not stored; the "
         "workers are shown as they are now",
         1},
        {WIRE_JOB_STATE_RUNNING, false, "decisions are not stored; the workers are shown", 0},
        {WIRE_JOB_STATE_DONE, true, "done on w, attempt 2, 5 of at most 20 tokens; why", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        bool ended = table[i].state == WIRE_JOB_STATE_DONE;
        struct record_job r = {.job_id = core_test_id(1),
                               .tenant = "default",
                               .model = "m",
                               .state = (uint32_t)table[i].state,
                               .job_class = WIRE_JOB_CLASS_STANDARD,
                               .max_tokens = 20,
                               .prompt_tokens_bound = 10,
                               .reserved_tokens = 30,
                               .reserve_seq = 1,
                               .settle_seq = ended ? 2 : 0,
                               .attempts = 2,
                               .lease_epoch = 2,
                               .worker = "w",
                               .tokens = 5,
                               .prompt_tokens = 10,
                               .error_text = "",
                               .project = "",
                               .cost_center = "",
                               .principal = "c"};
        struct record_balance balance = {.tenant = "default", .reserved_tokens = ended ? 0 : 30};
        struct core_test t;
        core_test_init(&t);
        t.core = core_new(&t.config);
        assert_int_equal(core_restore_job(t.core, &r, NULL), ERR_OK);
        assert_int_equal(core_restore_balance(t.core, &balance, NULL), ERR_OK);
        assert_int_equal(
            core_restore_end(t.core, t.now_ms * 1000000, 1800000000000000000u, 2, 9, NULL), ERR_OK);
        core_test_begin(&t);
        uint64_t client = core_test_client(&t, "c", "", 2);
        core_test_wait(&t, 3000);
        if (table[i].worker_is_back) {
            struct wire_lease_held held = {.job_id = core_test_id(1), .epoch = 2, .tokens = 5};
            struct core_test_worker w = {.name = "w",
                                         .key = 1,
                                         .total_bytes = 8 * CORE_TEST_GB,
                                         .free_bytes = 7 * CORE_TEST_GB,
                                         .models = {"m"},
                                         .weights_bytes = {CORE_TEST_GB},
                                         .ready = {true},
                                         .leases = &held,
                                         .n_leases = ended ? 0 : 1};
            (void)core_test_worker(&t, &w);
        }
        const struct wire_explain_reply *e = explain(&t, client, 1);
        expect_text(e->summary, table[i].text);
        assert_int_equal(e->n_candidates, table[i].n_candidates);
        if (e->n_candidates > 0) {
            assert_string_equal(e->candidates[0].worker, "w");
            assert_true(e->candidates[0].chosen);
            assert_int_equal(e->candidates[0].tokens_per_s, 100);
        }
        core_test_fini(&t);
    }
}

/* 4096 newer decisions later. */
static void the_oldest_decisions_are_not_kept(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t client;
    core_test_start_job(&t, NULL, &client);
    expect_text(explain(&t, client, 1)->summary, "leased on w, attempt 1: least expected time");
    for (unsigned i = 0; i < 4096; i++) {
        struct wire_request submit = core_test_submit(client, 2, "m", 20);
        submit.submit.job_id.bytes[0] = (uint8_t)i;
        submit.submit.job_id.bytes[1] = (uint8_t)(i >> 8);
        assert_int_equal(core_test_ask(&t, &submit)->kind, WIRE_REQUEST_SUBMIT);
        struct wire_request cancel = {.kind = WIRE_REQUEST_CANCEL,
                                      .session = client,
                                      .cancel = {.job_id = submit.submit.job_id, .reason = ""}};
        assert_int_equal(core_test_ask(&t, &cancel)->kind, WIRE_REQUEST_CANCEL);
    }
    expect_text(explain(&t, client, 1)->summary,
                "why there is not known any more: the newest 4096 decisions are kept, and it is "
                "older; the workers are shown as they are now");
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_a_restart_it_says_that_the_decision_is_gone),
        cmocka_unit_test(the_oldest_decisions_are_not_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
