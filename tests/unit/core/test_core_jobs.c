/* Jobs: what is accepted, what is refused and with which number, how they run and end. */
#include "tests/unit/core/core_test.h"

#include "common/limits.h"

#include <string.h>

static void a_job_runs_from_submit_to_settle(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    const struct record_ledger *reserve = core_test_ledger(&t);
    assert_int_equal(reserve->kind, RECORD_LEDGER_RESERVE);
    assert_int_equal(reserve->seq, 1);
    assert_int_equal(reserve->reserved_tokens, 30);
    assert_string_equal(reserve->tenant, "default");
    assert_non_null(core_test_find(&t, CORE_EFFECT_PUT_CONTENT));
    assert_int_equal(core_test_find(&t, CORE_EFFECT_PUT_JOB)->job.reserve_seq, 2);

    struct wire_pull_reply pull = core_test_pull(&t, worker, 0);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_RUN);
    assert_int_equal(pull.commands[0].run.epoch, 1);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);

    struct wire_lease_ack ack =
        core_test_report(&t, worker, 1, 1, 0, 5, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    assert_false(ack.fenced);
    assert_int_equal(ack.next, 5);
    assert_int_equal(core_test_find(&t, CORE_EFFECT_PUT_CHUNK)->chunk.record.n_ids, 5);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);

    ack = core_test_report(&t, worker, 1, 1, 5, 3, WIRE_FINISH_STOP, ERR_OK);
    assert_false(ack.fenced);
    const struct record_ledger *settle = core_test_ledger(&t);
    assert_int_equal(settle->kind, RECORD_LEDGER_SETTLE);
    assert_int_equal(settle->reserve_seq, 2);
    assert_int_equal(settle->prompt_tokens, 10);
    assert_int_equal(settle->completion_delivered, 8);
    assert_int_equal(settle->completion_billable, 8);
    const struct record_balance *balance = &core_test_find(&t, CORE_EFFECT_PUT_BALANCE)->balance;
    assert_int_equal(balance->reserved_tokens, 0);
    assert_int_equal(balance->settled_tokens, 18);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_DONE);
    core_test_fini(&t);
}

static void the_same_id_is_the_same_job(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t client;
    core_test_start_job(&t, NULL, &client);

    struct wire_request again = core_test_submit(client, 1, "m", 20);
    const struct wire_reply *reply = core_test_ask(&t, &again);
    assert_int_equal(reply->kind, WIRE_REQUEST_SUBMIT);
    assert_true(reply->submit.duplicate);
    assert_int_equal(t.effects.n_persist, 0);
    struct wire_request other = core_test_submit(client, 1, "m", 21);
    core_test_expect_error(core_test_ask(&t, &other), ERR_CONFLICT, "other content");
    core_test_fini(&t);
}

static void a_refusal_says_why_in_numbers(void **state)
{
    static const int32_t long_prompt[990];
    struct core_test t;
    struct core_tenant_config tenant = {.name = "poor", .budget_tokens = 100};
    (void)state;
    core_test_init(&t);
    t.config.tenants = &tenant;
    t.config.n_tenants = 1;
    t.config.queue_jobs_max = 3;
    t.config.queue_tokens_max = 1000;
    core_test_open(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    uint64_t poor = core_test_client(&t, "p", "poor", 3);

    struct wire_request r = core_test_submit(client, 1, "m", 20);
    core_test_expect_error(core_test_ask(&t, &r), ERR_NOT_FOUND, "no worker has offered any");
    struct core_test_worker worker = {
        .name = "w",
        .key = 1,
        .total_bytes = 4 * CORE_TEST_GB,
        .free_bytes = 4 * CORE_TEST_GB,
        .models = {"mistral", "smollm2", "huge"},
        .weights_bytes = {CORE_TEST_GB, CORE_TEST_GB, 9 * CORE_TEST_GB}};
    (void)core_test_worker(&t, &worker);

    r = core_test_submit(client, 1, "smolm2", 20);
    core_test_expect_error(core_test_ask(&t, &r), ERR_NOT_FOUND, "known: smollm2, ");
    r = core_test_submit(client, 1, "huge", 20);
    core_test_expect_error(core_test_ask(&t, &r), ERR_TOO_LARGE, "9663676416");
    r = core_test_submit(client, 1, "smollm2", 991);
    core_test_expect_error(core_test_ask(&t, &r), ERR_TOO_LARGE, "1001 tokens, the context of");
    r = core_test_submit(client, 1, "smollm2", 0);
    r.submit.job.prompt_ids = long_prompt;
    r.submit.job.n_prompt_ids = 1000;
    core_test_expect_error(core_test_ask(&t, &r), ERR_TOO_LARGE, "context");
    r = core_test_submit(client, 1, "smollm2", 20);
    r.submit.job.prompt_kind = WIRE_PROMPT_KIND_CHAT;
    core_test_expect_error(core_test_ask(&t, &r), ERR_UNSUPPORTED, "no chat template");

    /* 30 tokens each of a budget of 100: three fit, the fourth does not. */
    for (uint8_t i = 0; i < 3; i++)
        assert_int_equal(core_test_submit_ask(&t, poor, i, "smollm2", 20), ERR_OK);
    r = core_test_submit(poor, 3, "smollm2", 20);
    const struct wire_reply *reply = core_test_ask(&t, &r);
    core_test_expect_error(reply, ERR_BUSY, "3 jobs wait, the limit is 3");
    assert_true(reply->error.retryable);
    assert_true(reply->error.retry_after_ms >= 1000);
    t.config.queue_jobs_max = 10;
    core_test_expect_error(core_test_ask(&t, &r), ERR_REFUSED,
                           "of its budget of 100, 0 are used and 90");
    r = core_test_submit(client, 4, "smollm2", 980);
    core_test_expect_error(core_test_ask(&t, &r), ERR_BUSY, "90 tokens wait");
    t.now_ms += 1;
    t.config.queue_age_max_ms = 5000;
    core_test_wait(&t, 6000);
    r = core_test_submit(client, 4, "smollm2", 20);
    core_test_expect_error(core_test_ask(&t, &r), ERR_BUSY,
                           "the oldest job for model smollm2 has waited for 6 s");
    core_test_fini(&t);
}

static void a_default_fits_the_context(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.default_max_tokens = 5000;
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 0), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 1).max_tokens, 990);
    core_test_fini(&t);
}

static void a_thousand_at_once_never_overshoot(void **state)
{
    struct core_test t;
    struct core_tenant_config tenant = {.name = "poor", .budget_tokens = 1000};
    (void)state;
    core_test_init(&t);
    t.config.tenants = &tenant;
    t.config.n_tenants = 1;
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "poor", 2);
    core_test_begin(&t);
    uint64_t first = t.tag + 1;
    for (unsigned i = 0; i < 1000; i++) {
        struct wire_request r = core_test_submit(client, 1, "m", 20);
        r.submit.job_id.bytes[0] = (uint8_t)(i >> 8);
        r.submit.job_id.bytes[1] = (uint8_t)i;
        (void)core_test_step(&t, &r);
    }
    core_test_end(&t);
    unsigned accepted = 0;
    for (uint64_t tag = first; tag < first + 1000; tag++)
        accepted += core_test_reply(&t, tag)->reply.reply.kind == WIRE_REQUEST_SUBMIT;
    assert_int_equal(accepted, 1000 / 30);
    assert_int_equal(core_test_count(&t, CORE_EFFECT_LEDGER), accepted);
    assert_int_equal(core_test_find(&t, CORE_EFFECT_PUT_BALANCE)->balance.reserved_tokens,
                     30 * accepted);
    core_test_fini(&t);
}

static void reports_are_taken_once_and_in_order(void **state)
{
    static const struct {
        const char *what;
        uint32_t first, n;
        uint32_t next; /* tokens after it */
    } table[] = {
        {"a beginning", 0, 3, 3},  {"said again", 0, 3, 3},         {"part said again", 1, 2, 3},
        {"behind a gap", 5, 2, 3}, {"half old, half new", 2, 3, 3}, {"what comes next", 3, 2, 5},
        {"nothing", 5, 0, 5},
    };
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct wire_lease_ack ack = core_test_report(&t, worker, 1, 1, table[i].first, table[i].n,
                                                     WIRE_FINISH_UNSPECIFIED, ERR_OK);
        if (ack.fenced || ack.next != table[i].next)
            fail_msg("%s: fenced %d, next %u", table[i].what, ack.fenced, ack.next);
    }
    /* An end behind a gap is none. */
    (void)core_test_report(&t, worker, 1, 1, 9, 1, WIRE_FINISH_STOP, ERR_OK);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
    /* Another epoch, another worker, a job that never was. */
    assert_true(core_test_report(&t, worker, 1, 2, 5, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK).fenced);
    assert_true(core_test_report(&t, worker, 9, 1, 0, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK).fenced);
    uint64_t other = core_test_ready_worker(&t, "v");
    assert_true(core_test_report(&t, other, 1, 1, 5, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK).fenced);
    core_test_fini(&t);
}

static void every_way_a_run_can_end(void **state)
{
    static const struct {
        enum wire_finish finish;
        enum err error;
        uint32_t tokens; /* before */
        enum wire_job_state want;
        uint32_t deaths; /* none where it ended */
    } table[] = {
        {WIRE_FINISH_STOP, ERR_OK, 3, WIRE_JOB_STATE_DONE, 0},
        {WIRE_FINISH_LENGTH, ERR_OK, 3, WIRE_JOB_STATE_DONE, 0},
        {WIRE_FINISH_ERROR, ERR_INVALID, 0, WIRE_JOB_STATE_REJECTED, 0},
        {WIRE_FINISH_ERROR, ERR_TOO_LARGE, 0, WIRE_JOB_STATE_REJECTED, 0},
        {WIRE_FINISH_ERROR, ERR_UNSUPPORTED, 3, WIRE_JOB_STATE_FAILED, 0},
        {WIRE_FINISH_ERROR, ERR_BUSY, 3, WIRE_JOB_STATE_QUEUED, 0},
        {WIRE_FINISH_ERROR, ERR_UNAVAILABLE, 0, WIRE_JOB_STATE_QUEUED, 0},
        {WIRE_FINISH_CANCELLED, ERR_OK, 3, WIRE_JOB_STATE_QUEUED, 0},
        {WIRE_FINISH_ERROR, ERR_INTERNAL, 3, WIRE_JOB_STATE_LEASED, 1},
        {WIRE_FINISH_ERROR, ERR_NO_MEMORY, 0, WIRE_JOB_STATE_LEASED, 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t worker, client;
        core_test_start_job(&t, &worker, &client);
        (void)core_test_report(&t, worker, 1, 1, 0, table[i].tokens, table[i].finish,
                               table[i].error);
        if (wire_job_state_is_end(table[i].want))
            (void)core_test_ledger(&t);
        else
            assert_int_equal(core_test_find(&t, CORE_EFFECT_PUT_JOB)->job.deaths, table[i].deaths);
        struct wire_job_info info = core_test_job(&t, client, 1);
        if (info.state != table[i].want || info.usage.completion_tokens != table[i].tokens)
            fail_msg("row %zu: state %d with %u tokens", i, (int)info.state,
                     info.usage.completion_tokens);
        core_test_fini(&t);
    }
}

static void a_job_that_kills_is_quarantined(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    for (unsigned i = 0; i < LIMIT_ATTEMPTS; i++) {
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);
        (void)core_test_report(&t, worker, 1, i + 1, 0, 0, WIRE_FINISH_ERROR, ERR_INTERNAL);
    }
    struct wire_job_info info = core_test_job(&t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_non_null(strstr(info.error.text, "quarantined: it ended 8 workers"));
    core_test_fini(&t);
}

/* What a worker counts ends in the ledger: numbers that cannot be would make it one that does not
 * verify, or one that cannot be written. */
static void counts_that_cannot_be_end_the_lease(void **state)
{
    static const struct {
        const char *what;
        struct wire_work_usage usage;
        bool fenced;
    } table[] = {
        {"what the prompt and max_tokens allow",
         {.prompt_tokens = 10, .prompt_cached = 10, .prompt_computed = 10, .completion_tokens = 20},
         false},
        {"more cached than prompt", {.prompt_tokens = 10, .prompt_cached = 11}, true},
        {"more computed than the prompt can have",
         {.prompt_tokens = 10, .prompt_computed = UINT32_MAX},
         true},
        {"more tokens than max_tokens", {.prompt_tokens = 10, .completion_tokens = 21}, true},
        {"more resumed than max_tokens", {.prompt_tokens = 10, .resumed_tokens = 21}, true},
        {"queued for ever", {.prompt_tokens = 10, .queue_us = UINT64_MAX}, true},
        {"read for ever", {.prompt_tokens = 10, .prefill_us = UINT64_MAX}, true},
        {"wrote for ever", {.prompt_tokens = 10, .decode_us = (uint64_t)1 << 63}, true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t worker, client;
        core_test_start_job(&t, &worker, &client);
        struct wire_lease_progress progress = {
            .job_id = core_test_id(1), .epoch = 1, .usage = table[i].usage, .error = {.text = ""}};
        struct wire_request request = {.kind = WIRE_REQUEST_REPORT,
                                       .session = worker,
                                       .report = {.leases = &progress, .n_leases = 1}};
        const struct wire_reply *reply = core_test_ask(&t, &request);
        if (reply->report.leases[0].fenced != table[i].fenced)
            fail_msg("%s: fenced is %d", table[i].what, !table[i].fenced);
        struct wire_job_info info = core_test_job(&t, client, 1);
        assert_int_equal(info.attempts, table[i].fenced ? 2 : 1);
        assert_int_equal(info.usage.prompt_cached, table[i].fenced ? 0 : 10);
        core_test_fini(&t);
    }
}

static void cancel_ends_at_once_with_what_was_metered(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
    core_test_expect_error(core_test_cancel(&t, client, 1), ERR_NOT_FOUND, "no such job");

    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    (void)core_test_pull(&t, worker, 0);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    const struct wire_reply *reply = core_test_cancel(&t, client, 1);
    assert_int_equal(reply->cancel.state, WIRE_JOB_STATE_CANCELLED);
    assert_int_equal(core_test_ledger(&t)->kind, RECORD_LEDGER_SETTLE);
    assert_int_equal(core_test_ledger(&t)->completion_billable, 4);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 1);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_CANCEL);
    assert_true(core_test_report(&t, worker, 1, 1, 4, 2, WIRE_FINISH_CANCELLED, ERR_OK).fenced);
    assert_int_equal(t.effects.n_persist, 0);
    /* Again: it stays what it was. */
    reply = core_test_cancel(&t, client, 1);
    assert_int_equal(reply->cancel.state, WIRE_JOB_STATE_CANCELLED);
    assert_int_equal(t.effects.n_persist, 0);

    /* One that never ran owes nothing. */
    struct wire_request goodbye = {
        .kind = WIRE_REQUEST_GOODBYE, .session = worker, .goodbye = {.reason = ""}};
    (void)core_test_ask(&t, &goodbye);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    (void)core_test_cancel(&t, client, 2);
    assert_int_equal(core_test_ledger(&t)->kind, RECORD_LEDGER_VOID);
    core_test_fini(&t);
}

static void a_deadline_ends_what_waits_and_what_runs(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
    struct wire_request r = core_test_submit(client, 1, "m", 20);
    r.submit.job.deadline_ms = 3000;
    (void)core_test_ask(&t, &r);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    core_test_wait(&t, 2900);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
    core_test_wait(&t, 200);
    assert_int_equal(core_test_ledger(&t)->kind, RECORD_LEDGER_SETTLE);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_EXPIRED);

    struct wire_request goodbye = {
        .kind = WIRE_REQUEST_GOODBYE, .session = worker, .goodbye = {.reason = ""}};
    (void)core_test_ask(&t, &goodbye);
    r.submit.job_id = core_test_id(2);
    (void)core_test_ask(&t, &r);
    core_test_wait(&t, 3100);
    assert_int_equal(core_test_ledger(&t)->kind, RECORD_LEDGER_EXPIRE);
    core_test_fini(&t);
}

static void a_job_goes_with_its_client_where_it_asked_to(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.disconnect_ms = 4000;
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    struct wire_request r = core_test_submit(client, 1, "m", 20);
    r.submit.job.cancel_on_disconnect = true;
    (void)core_test_ask(&t, &r);
    struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                 .session = client,
                                 .watch = {.job_id = core_test_id(1), .wait_ms = 3000}};
    core_test_wait(&t, 3000);
    assert_null(core_test_ask(&t, &watch)); /* parked: somebody watches */
    core_test_wait(&t, 3000);               /* answered in vain; the time starts again */
    core_test_wait(&t, 3500);
    assert_int_not_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_CANCELLED);
    core_test_wait(&t, 1000);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_CANCELLED);
    core_test_fini(&t);
}

static void watchers_hear_tokens_and_the_end(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                 .session = client,
                                 .watch = {.job_id = core_test_id(1), .wait_ms = 3000}};
    assert_null(core_test_ask(&t, &watch));
    uint64_t tag = t.tag;
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    const struct core_effect *e = core_test_reply(&t, tag);
    assert_non_null(e);
    assert_int_equal(e->reply.fill, CORE_FILL_TOKENS);
    assert_int_equal(e->reply.tokens, 4);
    assert_false(e->reply.reply.watch.end);
    assert_int_equal(e->reply.reply.watch.usage.prompt_tokens, 10);

    watch.watch.first = 5;
    core_test_expect_error(core_test_ask(&t, &watch), ERR_INVALID,
                           "4 tokens: it cannot be watched from token 5");
    watch.watch.first = 4;
    assert_null(core_test_ask(&t, &watch));
    tag = t.tag;
    assert_null(core_test_ask(&t, &watch)); /* the second poll ends the first */
    assert_non_null(core_test_reply(&t, tag));
    tag = t.tag;
    (void)core_test_report(&t, worker, 1, 1, 4, 0, WIRE_FINISH_STOP, ERR_OK);
    e = core_test_reply(&t, tag);
    assert_non_null(e);
    assert_true(e->reply.reply.watch.end);
    assert_int_equal(e->reply.reply.watch.finish, WIRE_FINISH_STOP);
    /* Long after the end, from the start. */
    watch.watch.first = 0;
    const struct wire_reply *reply = core_test_ask(&t, &watch);
    assert_non_null(reply);
    assert_true(reply->watch.end);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_runs_from_submit_to_settle),
        cmocka_unit_test(the_same_id_is_the_same_job),
        cmocka_unit_test(a_refusal_says_why_in_numbers),
        cmocka_unit_test(a_default_fits_the_context),
        cmocka_unit_test(a_thousand_at_once_never_overshoot),
        cmocka_unit_test(reports_are_taken_once_and_in_order),
        cmocka_unit_test(counts_that_cannot_be_end_the_lease),
        cmocka_unit_test(every_way_a_run_can_end),
        cmocka_unit_test(a_job_that_kills_is_quarantined),
        cmocka_unit_test(cancel_ends_at_once_with_what_was_metered),
        cmocka_unit_test(a_deadline_ends_what_waits_and_what_runs),
        cmocka_unit_test(a_job_goes_with_its_client_where_it_asked_to),
        cmocka_unit_test(watchers_hear_tokens_and_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
