/* Sessions, workers, placement, and what is said when nothing can be stored. */
#include "tests/unit/core/core_test.h"

#include "common/limits.h"

#include <stdio.h>
#include <string.h>

static void hello_wants_proof(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = 77};
    core_test_expect_error(core_test_ask(&t, &pull), ERR_STALE, "say Hello again");

    struct wire_request hello = {
        .kind = WIRE_REQUEST_HELLO,
        .hello = {.role = WIRE_ROLE_CLIENT, .node = "c", .tenant = "", .build = ""}};
    hello.hello.public_key[0] = 2;
    const struct wire_reply *reply = core_test_ask(&t, &hello);
    assert_false(reply->hello.established);
    uint64_t session = reply->session;
    uint8_t challenge[32], none[32] = {0};
    assert_true(core_session_challenge(t.core, session, challenge));
    assert_memory_equal(challenge, reply->hello.challenge, 32);
    assert_memory_not_equal(challenge, none, 32);
    /* Before the second Hello the session is good for nothing. */
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS, .session = session};
    core_test_expect_error(core_test_ask(&t, &status), ERR_STALE, "say Hello again");
    /* Another key than the one that was shown. */
    hello.session = session;
    hello.hello.signature = (struct wire_bytes){.data = none, .size = 64};
    hello.hello.public_key[0] = 3;
    core_test_expect_error(core_test_ask(&t, &hello), ERR_REFUSED, "signature");
    assert_false(core_session_challenge(t.core, session, challenge));
    core_test_fini(&t);
}

/* Who reads a session's number on its way can neither use it on a connection of his own, nor prove
 * himself in it, nor end it. */
static void a_session_is_good_on_its_own_connection(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    t.connection = 7;
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    struct wire_request hello = {
        .kind = WIRE_REQUEST_HELLO,
        .hello = {.role = WIRE_ROLE_CLIENT, .node = "d", .tenant = "", .build = ""}};
    hello.session = core_test_ask(&t, &hello)->session;
    static const uint8_t signature[64] = {1};
    hello.hello.signature = (struct wire_bytes){signature, sizeof signature};

    struct wire_request foreign[] = {
        {.kind = WIRE_REQUEST_STATUS, .session = client},
        core_test_submit(client, 1, "m", 20),
        {.kind = WIRE_REQUEST_PULL, .session = worker},
        {.kind = WIRE_REQUEST_REPORT, .session = worker},
        {.kind = WIRE_REQUEST_GOODBYE, .session = worker, .goodbye = {.reason = ""}},
        hello,
    };
    t.connection = 8;
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++)
        core_test_expect_error(core_test_ask(&t, &foreign[i]), ERR_STALE, "say Hello");
    t.connection = 7;
    assert_int_equal(core_test_ask(&t, &foreign[0])->kind, WIRE_REQUEST_STATUS);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    assert_int_equal(core_test_pull(&t, worker, 0).n_commands, 1);
    assert_true(core_test_ask(&t, &hello)->hello.established);
    core_test_fini(&t);
}

static void only_listed_keys_are_let_in(void **state)
{
    struct core_key_config workers[] = {{.public_key = {1}, .name = "w", .tenant = ""}};
    struct core_key_config clients[] = {
        {.public_key = {2}, .name = "", .tenant = "red"},
        {.public_key = {3}, .name = "", .tenant = "blue"},
        {.public_key = {4}, .name = "op", .tenant = "ops", .is_operator = true}};
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.open_workers = t.config.open_clients = false;
    t.config.workers = workers;
    t.config.n_workers = 1;
    t.config.clients = clients;
    t.config.n_clients = 3;
    core_test_open(&t);
    assert_int_not_equal(core_test_ready_worker(&t, "w"), 0);
    assert_int_equal(core_test_ready_worker(&t, "v"), 0);          /* another name */
    assert_int_equal(core_test_client(&t, "c", "", 9), 0);         /* not listed */
    assert_int_equal(core_test_client(&t, "c", "blue", 2), 0);     /* another tenant */
    assert_int_equal(core_test_client(&t, "not-op", "ops", 4), 0); /* another name */
    uint64_t red = core_test_client(&t, "c", "", 2), blue = core_test_client(&t, "c", "blue", 3);
    uint64_t op = core_test_client(&t, "op", "", 4);
    assert_true(red != 0 && blue != 0 && op != 0);

    /* Tenants see their own jobs, the operator all of them. */
    assert_int_equal(core_test_submit_ask(&t, red, 1, "m", 20), ERR_OK);
    struct wire_request list = {.kind = WIRE_REQUEST_LIST_JOBS,
                                .list_jobs = {.tenant = "", .model = ""}};
    static const struct {
        int who;
        size_t sees;
    } table[] = {{0, 1}, {1, 0}, {2, 1}};
    const uint64_t sessions[] = {red, blue, op};
    for (size_t i = 0; i < 3; i++) {
        list.session = sessions[table[i].who];
        assert_int_equal(core_test_ask(&t, &list)->list_jobs.n_jobs, table[i].sees);
    }
    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB, .session = blue};
    get.get_job.job_id = core_test_id(1);
    core_test_expect_error(core_test_ask(&t, &get), ERR_NOT_FOUND, "no such job");
    struct wire_request ledger = {.kind = WIRE_REQUEST_LEDGER_RANGE, .session = blue};
    core_test_expect_error(core_test_ask(&t, &ledger), ERR_REFUSED, "operator");
    /* Another tenant cannot learn of a job by its id, nor take it. */
    struct wire_request submit = core_test_submit(blue, 1, "m", 20);
    core_test_expect_error(core_test_ask(&t, &submit), ERR_CONFLICT, "taken");
    /* Each role has its own requests. */
    struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = red};
    core_test_expect_error(core_test_ask(&t, &pull), ERR_REFUSED, "for workers");
    core_test_fini(&t);
}

static void a_name_belongs_to_who_is_connected(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t first = core_test_ready_worker(&t, "w");
    struct core_test_worker thief = {.name = "w", .key = 9, .total_bytes = CORE_TEST_GB};
    assert_int_equal(core_test_worker(&t, &thief), 0);
    (void)core_test_pull(&t, first, 0); /* parked, still connected */
    core_test_wait(&t, t.config.lease_ms + 1);
    assert_int_not_equal(core_test_worker(&t, &thief), 0);
    core_test_fini(&t);
}

static void silence_is_suspected_before_it_is_believed(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);

    struct wire_request list = {.kind = WIRE_REQUEST_LIST_WORKERS, .session = client};
    core_test_wait(&t, t.config.lease_ms / 2 - 10);
    assert_int_equal(core_test_ask(&t, &list)->list_workers.workers[0].state,
                     WIRE_WORKER_STATE_ALIVE);
    core_test_wait(&t, 20);
    assert_int_equal(core_test_ask(&t, &list)->list_workers.workers[0].state,
                     WIRE_WORKER_STATE_SUSPECT);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
    core_test_wait(&t, t.config.lease_ms / 2);
    assert_int_equal(core_test_ask(&t, &list)->list_workers.workers[0].state,
                     WIRE_WORKER_STATE_GONE);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
    /* Its session is over, and elsewhere the job goes on behind its four tokens. */
    struct wire_request pull = {.kind = WIRE_REQUEST_PULL, .session = worker};
    core_test_expect_error(core_test_ask(&t, &pull), ERR_STALE, "Hello");
    uint64_t other = core_test_ready_worker(&t, "v");
    (void)core_test_pull(&t, other, 0);
    struct wire_request again = {.kind = WIRE_REQUEST_PULL, .session = other};
    core_test_begin(&t);
    uint64_t tag = core_test_step(&t, &again);
    core_test_end(&t);
    const struct core_effect *e = core_test_reply(&t, tag);
    assert_int_equal(e->reply.fill, CORE_FILL_COMMANDS);
    assert_int_equal(e->reply.reply.pull.commands[0].run.epoch, 2);
    assert_int_equal(e->reply.runs[0].tokens, 4);
    core_test_fini(&t);
}

static void a_moment_in_which_we_slept_counts_against_nobody(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    t.now_ms += 60000; /* no event in between */
    core_test_wait(&t, 1);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);
    core_test_fini(&t);
}

static void a_worker_that_comes_back_keeps_what_it_lists(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 3; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    (void)core_test_report(&t, worker, 2, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);

    /* It has job 1, not job 2 any more; job 3 never reached it; job 7 is none of ours. */
    struct wire_lease_held held[] = {{.job_id = core_test_id(1), .epoch = 1, .tokens = 6},
                                     {.job_id = core_test_id(7), .epoch = 1}};
    struct core_test_worker again = {.name = "w",
                                     .key = 1,
                                     .total_bytes = 8 * CORE_TEST_GB,
                                     .free_bytes = 7 * CORE_TEST_GB,
                                     .models = {"m"},
                                     .weights_bytes = {CORE_TEST_GB},
                                     .ready = {true},
                                     .leases = held,
                                     .n_leases = 2};
    worker = core_test_worker(&t, &again);
    const uint32_t deaths[4] = {0, 0, 1, 0};
    unsigned seen = 0;
    for (const struct core_effect *e = t.effects.first; e != NULL; e = e->next) {
        if (e->kind != CORE_EFFECT_PUT_JOB)
            continue;
        seen++;
        assert_int_equal(e->job.deaths, deaths[e->job.job_id.bytes[15]]);
    }
    assert_int_equal(seen, 2);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 0);
    assert_int_equal(pull.n_commands, 3);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_CANCEL);
    assert_int_equal(pull.commands[0].cancel.job_id.bytes[15], 7);
    assert_int_equal(pull.commands[1].kind, WIRE_COMMAND_RUN);
    assert_int_equal(pull.commands[1].run.epoch, 2);
    assert_false(core_test_report(&t, worker, 1, 1, 4, 2, WIRE_FINISH_UNSPECIFIED, ERR_OK).fenced);
    core_test_fini(&t);
}

static void a_lease_that_is_not_mentioned_is_lost(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 2; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    /* It is alive and speaks of job 1 alone. */
    for (uint64_t passed = 0; passed < t.config.lease_ms; passed += 1000) {
        assert_int_equal(core_test_job(&t, client, 2).attempts, 1);
        core_test_wait(&t, 1000);
        (void)core_test_report(&t, worker, 1, 1, 0, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    }
    struct wire_job_info lost = core_test_job(&t, client, 2);
    assert_int_equal(lost.attempts, 2);
    assert_int_equal(lost.state, WIRE_JOB_STATE_LEASED);
    assert_int_equal(core_test_job(&t, client, 1).attempts, 1);
    core_test_fini(&t);
}

static void commands_are_said_until_acked(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (int i = 0; i < 2; i++) {
        struct wire_pull_reply pull = core_test_pull(&t, worker, 0);
        assert_int_equal(pull.n_commands, 1);
        assert_int_equal(pull.commands[0].seq, 1);
    }
    assert_int_equal(core_test_pull(&t, worker, 1).n_commands, 0);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
    struct wire_request pull = {
        .kind = WIRE_REQUEST_PULL, .session = worker, .pull = {.acked_command = 9}};
    core_test_expect_error(core_test_ask(&t, &pull), ERR_INVALID, "is 9, but only 1");
    core_test_fini(&t);
}

static void leases_outlive_a_restart(void **state)
{
    struct core_test t;
    (void)state;
    for (int comes_back = 0; comes_back < 2; comes_back++) {
        core_test_init(&t);
        t.core = core_new(&t.config);
        struct record_job r = {.job_id = core_test_id(1),
                               .tenant = "default",
                               .model = "m",
                               .state = WIRE_JOB_STATE_RUNNING,
                               .job_class = WIRE_JOB_CLASS_STANDARD,
                               .max_tokens = 20,
                               .prompt_tokens_bound = 10,
                               .reserved_tokens = 30,
                               .reserve_seq = 1,
                               .attempts = 2,
                               .lease_epoch = 2,
                               .worker = "w",
                               .tokens = 5,
                               .prompt_tokens = 10,
                               .prompt_computed = 25,
                               .computed_tokens = 7,
                               .attempt_prompt_computed = 15,
                               .attempt_computed_tokens = 3,
                               .error_text = "",
                               .project = "",
                               .cost_center = "",
                               .principal = "c"};
        struct record_balance balance = {.tenant = "default", .reserved_tokens = 30};
        assert_int_equal(core_restore_job(t.core, &r, NULL), ERR_OK);
        assert_int_equal(core_restore_balance(t.core, &balance, NULL), ERR_OK);
        assert_int_equal(
            core_restore_end(t.core, t.now_ms * 1000000, 1800000000000000000u, 2, 9, NULL), ERR_OK);
        core_test_begin(&t);
        uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
        if (comes_back) {
            struct wire_lease_held held = {.job_id = core_test_id(1), .epoch = 2, .tokens = 8};
            struct core_test_worker w = {.name = "w",
                                         .key = 1,
                                         .total_bytes = 8 * CORE_TEST_GB,
                                         .free_bytes = 8 * CORE_TEST_GB,
                                         .models = {"m"},
                                         .weights_bytes = {CORE_TEST_GB},
                                         .ready = {true},
                                         .leases = &held,
                                         .n_leases = 1};
            uint64_t worker = core_test_worker(&t, &w);
            /* It reports 8 tokens of this attempt where 3 were counted: 4 + 8 in all. */
            (void)core_test_report(&t, worker, 1, 2, 5, 3, WIRE_FINISH_STOP, ERR_OK);
            assert_int_equal(core_test_ledger(&t)->seq, 9);
            assert_int_equal(core_test_ledger(&t)->completion_delivered, 8);
            assert_int_equal(core_test_ledger(&t)->completion_computed, 4 + 8);
            assert_int_equal(core_test_ledger(&t)->prompt_computed, 10 + 15);
        } else {
            core_test_wait(&t, t.config.grace_ms - 100);
            assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
            core_test_wait(&t, 200);
            assert_int_equal(core_test_find(&t, CORE_EFFECT_PUT_JOB)->job.deaths, 0);
            assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
        }
        core_test_fini(&t);
    }
}

static void what_does_not_fit_together_is_not_restored(void **state)
{
    static const struct record_job good = {.tenant = "default",
                                           .model = "m",
                                           .state = WIRE_JOB_STATE_QUEUED,
                                           .max_tokens = 20,
                                           .prompt_tokens_bound = 10,
                                           .reserved_tokens = 30,
                                           .reserve_seq = 1,
                                           .worker = "",
                                           .error_text = "",
                                           .project = "",
                                           .cost_center = "",
                                           .principal = "c"};
    struct errbuf eb = {{0}};
    (void)state;
    for (int fault = 0; fault < 8; fault++) {
        static const char *const part[] = {"",
                                           "state is none",
                                           "leased to no worker",
                                           "more tokens",
                                           "ledger records",
                                           "ledger records",
                                           "reservation",
                                           "present attempt"};
        struct record_job r = good;
        struct core_test t;
        core_test_init(&t);
        t.core = core_new(&t.config);
        r.state = fault == 1 ? 9 : fault == 2 ? WIRE_JOB_STATE_RUNNING : r.state;
        r.tokens = fault == 3 ? 21 : 0;
        r.reserve_seq = fault == 4 ? 0 : 1;
        r.settle_seq = fault == 5 ? 2 : 0;
        r.reserved_tokens = fault == 6 ? 31 : 30;
        r.attempt_computed_tokens = fault == 7 ? 1 : 0;
        enum err want = fault == 0 ? ERR_OK : ERR_CORRUPT;
        assert_int_equal(core_restore_job(t.core, &r, &eb), want);
        assert_non_null(strstr(eb.text, part[fault]));
        if (fault == 0) {
            assert_int_equal(core_restore_job(t.core, &r, &eb), ERR_CORRUPT);
            assert_non_null(strstr(eb.text, "twice"));
            assert_int_equal(core_restore_end(t.core, 0, 0, 1, 1, &eb), ERR_CORRUPT);
            assert_non_null(strstr(eb.text, "0 tokens are reserved, but its unfinished jobs"));
        }
        core_test_fini(&t);
    }
}

/* ---- placement ---- */

static void the_worker_that_answers_first_is_chosen(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    struct core_test_worker cold = {.name = "a-cold",
                                    .key = 1,
                                    .total_bytes = 8 * CORE_TEST_GB,
                                    .free_bytes = 8 * CORE_TEST_GB,
                                    .models = {"m"},
                                    .weights_bytes = {CORE_TEST_GB}};
    (void)core_test_worker(&t, &cold);
    (void)core_test_ready_worker(&t, "b-warm");
    (void)core_test_ready_worker(&t, "c-warm");
    uint64_t client = core_test_client(&t, "c", "", 2);
    static const char *const want[] = {"b-warm", "c-warm", "b-warm", "c-warm"};
    for (uint8_t i = 0; i < 4; i++) {
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
        assert_string_equal(core_test_job(&t, client, i).worker, want[i]);
    }
    struct wire_request explain = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(2)}};
    const struct wire_explain_reply *e = &core_test_ask(&t, &explain)->explain;
    assert_int_equal(e->n_candidates, 3);
    assert_string_equal(e->candidates[0].worker, "b-warm");
    assert_true(e->candidates[0].chosen);
    assert_int_equal(e->candidates[0].queued_tokens, 30);
    assert_int_equal(e->candidates[0].tokens_per_s, 100);
    assert_int_equal(e->candidates[0].cost_ms, 300);
    assert_string_equal(e->candidates[1].worker, "a-cold");
    assert_string_equal(e->candidates[1].detail, "fits, not loaded yet");
    core_test_fini(&t);
}

static void a_model_is_loaded_once_and_waited_for(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    struct core_test_worker cold = {.name = "w",
                                    .key = 1,
                                    .total_bytes = 8 * CORE_TEST_GB,
                                    .free_bytes = 8 * CORE_TEST_GB,
                                    .models = {"m"},
                                    .weights_bytes = {CORE_TEST_GB}};
    uint64_t worker = core_test_worker(&t, &cold);
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 0; i < 5; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 0);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_LOAD);
    struct wire_request explain = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(0)}};
    assert_non_null(strstr(core_test_ask(&t, &explain)->explain.summary, "to be loaded on w"));

    struct wire_model_status status = {
        .name = "m", .state = WIRE_MODEL_STATE_READY, .error = "", .weights_bytes = CORE_TEST_GB};
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.models = &status, .n_models = 1}};
    (void)core_test_ask(&t, &report);
    assert_int_equal(core_test_pull(&t, worker, 1).n_commands, 5);
    core_test_fini(&t);
}

static void memory_must_be_free_and_unclaimed(void **state)
{
    static const struct {
        const char *what;
        uint64_t total, free, weights;
        bool loads;
        const char *part; /* of the explanation */
    } table[] = {
        {"there is room", 8, 8, 4, true, "loading"},
        {"a stranger holds it", 8, 3, 4, false, "needs 4294967296 bytes; free 3221225472"},
        {"just enough", 8, 4, 4, true, "loading"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        core_test_init(&t);
        core_test_open(&t);
        struct core_test_worker w = {.name = "w",
                                     .key = 1,
                                     .total_bytes = table[i].total * CORE_TEST_GB,
                                     .free_bytes = table[i].free * CORE_TEST_GB,
                                     .models = {"m"},
                                     .weights_bytes = {table[i].weights * CORE_TEST_GB}};
        uint64_t worker = core_test_worker(&t, &w);
        uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        assert_int_equal(core_test_pull(&t, worker, 0).n_commands, table[i].loads ? 1 : 0);
        struct wire_request explain = {.kind = WIRE_REQUEST_EXPLAIN,
                                       .session = client,
                                       .explain = {.job_id = core_test_id(1)}};
        const struct wire_explain_reply *e = &core_test_ask(&t, &explain)->explain;
        if (strstr(e->candidates[0].detail, table[i].part) == NULL)
            fail_msg("%s: %s", table[i].what, e->candidates[0].detail);
        assert_string_equal(e->candidates[0].predicate, table[i].loads ? "" : "memory");
        core_test_fini(&t);
    }
}

static void status_report(struct core_test *t, uint64_t worker, const char *model,
                          enum wire_model_state model_state, uint64_t free_gb)
{
    struct wire_model_status status = {.name = model, .state = model_state, .error = "no"};
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.models = &status,
                                             .n_models = 1,
                                             .memory = {.total_bytes = 8 * CORE_TEST_GB,
                                                        .free_bytes = free_gb * CORE_TEST_GB}}};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
}

/* Keeps the worker alive while time passes. */
static void wait_alive(struct core_test *t, uint64_t worker, uint64_t ms)
{
    struct wire_request beat = {.kind = WIRE_REQUEST_REPORT, .session = worker};
    for (uint64_t passed = 0; passed < ms; passed += 1000) {
        core_test_wait(t, 1000);
        (void)core_test_ask(t, &beat);
    }
}

static void an_idle_model_makes_room_a_busy_one_is_let_finish(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.residency_ms = 5000;
    core_test_open(&t);
    struct core_test_worker w = {.name = "w",
                                 .key = 1,
                                 .total_bytes = 8 * CORE_TEST_GB,
                                 .free_bytes = 3 * CORE_TEST_GB,
                                 .models = {"a", "b"},
                                 .weights_bytes = {5 * CORE_TEST_GB, 5 * CORE_TEST_GB},
                                 .ready = {true, false}};
    uint64_t worker = core_test_worker(&t, &w);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "a", 20), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "b", 20), ERR_OK);
    assert_int_equal(core_test_pull(&t, worker, 0).n_commands, 1); /* only the job of a */
    /* b has waited for a whole residency: a gets nothing new, and is unloaded when it is idle. */
    wait_alive(&t, worker, 6000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "a", 20), ERR_OK);
    struct wire_request explain = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(3)}};
    assert_non_null(
        strstr(core_test_ask(&t, &explain)->explain.candidates[0].detail, "emptied for b"));
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 1);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_UNLOAD);
    assert_string_equal(pull.commands[0].unload.model, "a");
    status_report(&t, worker, "a", WIRE_MODEL_STATE_AVAILABLE, 8);
    pull = core_test_pull(&t, worker, 2);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_LOAD);
    assert_string_equal(pull.commands[0].load.model, "b");
    status_report(&t, worker, "b", WIRE_MODEL_STATE_READY, 3);
    assert_int_equal(core_test_job(&t, client, 2).state, WIRE_JOB_STATE_LEASED);
    core_test_fini(&t);
}

/* The worker that was being emptied for b comes back without the file of b. */
static void room_is_made_only_for_what_is_there(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.residency_ms = 5000;
    core_test_open(&t);
    struct core_test_worker w = {.name = "w",
                                 .key = 1,
                                 .total_bytes = 8 * CORE_TEST_GB,
                                 .free_bytes = 3 * CORE_TEST_GB,
                                 .models = {"a", "b"},
                                 .weights_bytes = {5 * CORE_TEST_GB, 5 * CORE_TEST_GB},
                                 .ready = {true, false}};
    uint64_t worker = core_test_worker(&t, &w);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "a", 20), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "b", 20), ERR_OK);
    wait_alive(&t, worker, 6000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "a", 20), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_QUEUED);
    w.models[1] = NULL;
    (void)core_test_worker(&t, &w);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_LEASED);
    core_test_fini(&t);
}

static void a_model_that_never_loads_fails_its_jobs(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.load_retry_ms = 2000;
    core_test_open(&t);
    struct core_test_worker w = {.name = "w",
                                 .key = 1,
                                 .total_bytes = 8 * CORE_TEST_GB,
                                 .free_bytes = 8 * CORE_TEST_GB,
                                 .models = {"m"},
                                 .weights_bytes = {CORE_TEST_GB}};
    uint64_t worker = core_test_worker(&t, &w), acked = 0;
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
        assert_int_equal(core_test_pull(&t, worker, acked++).n_commands, 1);
        status_report(&t, worker, "m", WIRE_MODEL_STATE_LOADING, 8);
        status_report(&t, worker, "m", WIRE_MODEL_STATE_FAILED, 8);
        wait_alive(&t, worker, 3000);
    }
    struct wire_job_info info = core_test_job(&t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_non_null(strstr(info.error.text, "no worker can load model m; w: no"));
    core_test_fini(&t);
}

static void one_name_is_one_file(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    struct wire_model_offer offer = {.name = "m",
                                     .weights_digest = {99},
                                     .architecture = "",
                                     .quantization = "",
                                     .context_tokens = 1000,
                                     .chat_template = ""};
    struct wire_request hello = {
        .kind = WIRE_REQUEST_HELLO,
        .hello = {.role = WIRE_ROLE_WORKER,
                  .node = "v",
                  .tenant = "",
                  .build = "",
                  .worker = {.models = &offer, .n_models = 1, .device = "", .isa = ""}}};
    hello.session = core_test_ask(&t, &hello)->session;
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    assert_true(core_test_ask(&t, &hello)->hello.established);
    t.config.worker_leases_max = 1;
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    struct wire_request explain = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(2)}};
    const struct wire_explain_reply *e = &core_test_ask(&t, &explain)->explain;
    assert_int_equal(e->n_candidates, 2);
    assert_string_equal(e->candidates[0].predicate, "model"); /* v */
    assert_non_null(strstr(e->candidates[0].detail, "another digest"));
    assert_string_equal(e->candidates[1].predicate, "slots"); /* w */
    assert_string_equal(e->candidates[1].detail, "1 of 1 leases are out");
    core_test_fini(&t);
}

static void no_more_models_are_known_than_can_be_listed(void **state)
{
    static char names[LIMIT_MODELS_PER_WORKER][8];
    static struct wire_model_offer offers[LIMIT_MODELS_PER_WORKER];
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    for (unsigned i = 0; i <= LIMIT_MODELS / LIMIT_MODELS_PER_WORKER; i++) {
        for (unsigned k = 0; k < LIMIT_MODELS_PER_WORKER; k++) {
            (void)snprintf(names[k], sizeof names[k], "%u", i * LIMIT_MODELS_PER_WORKER + k);
            offers[k] = (struct wire_model_offer){
                .name = names[k], .architecture = "", .quantization = "", .chat_template = ""};
        }
        struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                     .hello = {.role = WIRE_ROLE_WORKER,
                                               .node = "w",
                                               .tenant = "",
                                               .build = "",
                                               .worker = {.models = offers,
                                                          .n_models = LIMIT_MODELS_PER_WORKER,
                                                          .device = "",
                                                          .isa = ""}}};
        hello.session = core_test_ask(&t, &hello)->session;
        hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
        const struct wire_reply *reply = core_test_ask(&t, &hello);
        if (i < LIMIT_MODELS / LIMIT_MODELS_PER_WORKER)
            assert_true(reply->hello.established);
        else
            core_test_expect_error(reply, ERR_TOO_LARGE, "4352 models would be known");
    }
    core_test_fini(&t);
}

/* Strangers who say Hello once and go keep nobody out. */
static void a_flood_of_first_hellos_is_forgotten(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_CLIENT, .node = "c", .tenant = ""}};
    uint64_t first = core_test_ask(&t, &hello)->session, last = 0;
    for (unsigned i = 0; i < 10000; i++)
        last = core_test_ask(&t, &hello)->session;
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    hello.session = first;
    core_test_expect_error(core_test_ask(&t, &hello), ERR_STALE, "no such session");
    hello.session = last;
    assert_true(core_test_ask(&t, &hello)->hello.established);
    core_test_fini(&t);
}

/* Each command line leaves a session behind. */
static void quiet_clients_make_room_for_others(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t first = core_test_client(&t, "c", "", 2);
    for (unsigned i = 1; i < 65536; i++)
        assert_true(core_test_client(&t, "c", "", 2) != 0);
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_CLIENT, .node = "c", .tenant = ""}};
    core_test_expect_error(core_test_ask(&t, &hello), ERR_BUSY, "65536 sessions are open");
    core_test_wait(&t, 59000);
    struct wire_request list = {.kind = WIRE_REQUEST_LIST_MODELS, .session = first};
    assert_int_equal(core_test_ask(&t, &list)->kind, WIRE_REQUEST_LIST_MODELS);
    core_test_wait(&t, 2000);
    assert_true(core_test_client(&t, "c", "", 2) != 0);
    assert_int_equal(core_test_ask(&t, &list)->kind, WIRE_REQUEST_LIST_MODELS); /* was not quiet */
    core_test_fini(&t);
}

/* ---- nothing can be stored ---- */

static void freeze(struct core_test *t, enum core_event_kind kind)
{
    struct core_event event = {.kind = kind,
                               .mono_ns = t->now_ms * 1000000,
                               .wall_ns = 1800000000000000000u,
                               .reason = "the disk is full"};
    core_test_begin(t);
    core_step(t->core, &event, &t->effects);
    core_test_end(t);
}

static void a_full_disk_refuses_writes_and_answers_reads(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    freeze(&t, CORE_EVENT_FREEZE);
    assert_true(core_frozen(t.core));

    struct wire_request submit = core_test_submit(client, 2, "m", 20);
    core_test_expect_error(core_test_ask(&t, &submit), ERR_NO_SPACE, "the disk is full");
    struct wire_request again = core_test_submit(client, 1, "m", 20);
    assert_true(core_test_ask(&t, &again)->submit.duplicate);
    struct wire_request cancel = {.kind = WIRE_REQUEST_CANCEL,
                                  .session = client,
                                  .cancel = {.job_id = core_test_id(1), .reason = ""}};
    core_test_expect_error(core_test_ask(&t, &cancel), ERR_NO_SPACE, "full");
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT, .session = worker};
    core_test_expect_error(core_test_ask(&t, &report), ERR_NO_SPACE, "full");
    assert_int_equal(core_test_ready_worker(&t, "v"), 0);
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS, .session = client};
    const struct wire_status_reply *s = &core_test_ask(&t, &status)->status;
    assert_false(s->admission_open);
    assert_false(s->healthy);
    assert_non_null(strstr(s->reasons[0], "the disk is full"));
    /* However long it takes, nothing is decided that could not be stored. */
    core_test_wait(&t, 10 * t.config.lease_ms);
    assert_int_equal(t.effects.n_persist, 0);
    freeze(&t, CORE_EVENT_UNFREEZE);
    core_test_wait(&t, t.config.lease_ms / 4);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    core_test_fini(&t);
}

static void old_jobs_are_removed_the_oldest_first(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.retain_ended_jobs = 2;
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 4; i++) {
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
        (void)core_test_report(&t, worker, i, 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
        size_t removed = core_test_count(&t, CORE_EFFECT_DELETE_JOB);
        assert_int_equal(removed, i > 2 ? 1 : 0);
        if (removed > 0)
            assert_int_equal(core_test_find(&t, CORE_EFFECT_DELETE_JOB)->job_id.bytes[15], i - 2);
    }
    struct wire_request list = {.kind = WIRE_REQUEST_LIST_JOBS,
                                .session = client,
                                .list_jobs = {.tenant = "", .model = ""}};
    assert_int_equal(core_test_ask(&t, &list)->list_jobs.n_jobs, 2);
    core_test_fini(&t);
}

static void lists_page_both_ways(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 7; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    for (int newest = 0; newest < 2; newest++) {
        struct id after;
        struct wire_request list = {
            .kind = WIRE_REQUEST_LIST_JOBS,
            .session = client,
            .list_jobs = {.tenant = "", .model = "", .limit = 3, .newest_first = newest == 1}};
        unsigned seen = 0;
        bool more = true;
        while (more) {
            const struct wire_list_jobs_reply *r = &core_test_ask(&t, &list)->list_jobs;
            for (size_t i = 0; i < r->n_jobs; i++) {
                seen++;
                assert_int_equal(r->jobs[i].job_id.bytes[15], newest ? 8 - seen : seen);
                after = r->jobs[i].job_id;
            }
            more = r->more;
            list.list_jobs.after = (struct wire_bytes){.data = after.bytes, .size = ID_BYTES};
        }
        assert_int_equal(seen, 7);
    }
    core_test_fini(&t);
}

/* Ids end in their number here, 1 .. 7, behind zeroes. */
static void jobs_are_found_by_their_end(void **state)
{
    static const struct {
        struct wire_bytes id_short, id_end;
        unsigned found;
    } table[] = {
#define B(text) {(const uint8_t *)(text), sizeof(text) - 1}
        {B("\0\0\0\5"), B(""), 1},  {B("\0\0\0"), B(""), 7},     {B("\0"), B(""), 7},
        {B("\0\0\0\10"), B(""), 0}, {B("\1"), B(""), 0},         {B(""), B("\5"), 1},
        {B(""), B("\0\5"), 1},      {B(""), B("\1\5"), 0},       {B(""), B("\10"), 0},
        {B("\0"), B("\5"), 1},      {B("\0\0\0\4"), B("\5"), 0},
#undef B
    };
    struct core_test t;
    (void)state;
    core_test_init(&t);
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 7; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct wire_request list = {.kind = WIRE_REQUEST_LIST_JOBS,
                                    .session = client,
                                    .list_jobs = {.tenant = "",
                                                  .model = "",
                                                  .id_short = table[i].id_short,
                                                  .id_end = table[i].id_end}};
        const struct wire_list_jobs_reply *r = &core_test_ask(&t, &list)->list_jobs;
        assert_int_equal(r->n_jobs, table[i].found);
        assert_false(r->more);
        assert_true(id_is_zero(&r->next));
        if (table[i].found == 1)
            assert_int_equal(r->jobs[0].job_id.bytes[15], 5);
    }
    core_test_fini(&t);
}

/* A filter that nothing fits is not looked for among all jobs in one turn: pages come empty, and
 * say where to go on. */
static void a_page_looks_at_a_bounded_number_of_jobs(void **state)
{
    enum { JOBS = 40000 };
    struct core_test t;
    unsigned pages = 0, found = 0;
    struct id after;
    (void)state;
    core_test_init(&t);
    t.config.queue_jobs_max = t.config.queue_tokens_max = UINT32_MAX;
    core_test_open(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    (void)core_test_ready_worker(&t, "w");
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (uint32_t i = 0; i < JOBS; i++) {
        struct wire_request submit = core_test_submit(client, 0, "m", 20);
        submit.submit.job_id =
            (struct id){{9, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i, [12] = 1}};
        assert_int_equal(core_test_ask(&t, &submit)->kind, WIRE_REQUEST_SUBMIT);
    }
    struct wire_request list = {.kind = WIRE_REQUEST_LIST_JOBS,
                                .session = client,
                                .list_jobs = {.tenant = "",
                                              .model = "",
                                              .newest_first = true,
                                              .id_short = {(const uint8_t *)"\0\0\0\1", 4}}};
    for (bool more = true; more; pages++) {
        const struct wire_list_jobs_reply *r = &core_test_ask(&t, &list)->list_jobs;
        more = r->more;
        found += (unsigned)r->n_jobs;
        assert_true(more == !id_is_zero(&r->next));
        after = r->next;
        list.list_jobs.after = (struct wire_bytes){.data = after.bytes, .size = ID_BYTES};
    }
    assert_int_equal(found, 1);
    assert_in_range(pages, 3, 4);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_wants_proof),
        cmocka_unit_test(a_session_is_good_on_its_own_connection),
        cmocka_unit_test(jobs_are_found_by_their_end),
        cmocka_unit_test(a_page_looks_at_a_bounded_number_of_jobs),
        cmocka_unit_test(only_listed_keys_are_let_in),
        cmocka_unit_test(a_name_belongs_to_who_is_connected),
        cmocka_unit_test(silence_is_suspected_before_it_is_believed),
        cmocka_unit_test(a_moment_in_which_we_slept_counts_against_nobody),
        cmocka_unit_test(a_worker_that_comes_back_keeps_what_it_lists),
        cmocka_unit_test(a_lease_that_is_not_mentioned_is_lost),
        cmocka_unit_test(commands_are_said_until_acked),
        cmocka_unit_test(leases_outlive_a_restart),
        cmocka_unit_test(what_does_not_fit_together_is_not_restored),
        cmocka_unit_test(the_worker_that_answers_first_is_chosen),
        cmocka_unit_test(a_model_is_loaded_once_and_waited_for),
        cmocka_unit_test(memory_must_be_free_and_unclaimed),
        cmocka_unit_test(an_idle_model_makes_room_a_busy_one_is_let_finish),
        cmocka_unit_test(room_is_made_only_for_what_is_there),
        cmocka_unit_test(a_model_that_never_loads_fails_its_jobs),
        cmocka_unit_test(one_name_is_one_file),
        cmocka_unit_test(no_more_models_are_known_than_can_be_listed),
        cmocka_unit_test(a_flood_of_first_hellos_is_forgotten),
        cmocka_unit_test(quiet_clients_make_room_for_others),
        cmocka_unit_test(a_full_disk_refuses_writes_and_answers_reads),
        cmocka_unit_test(old_jobs_are_removed_the_oldest_first),
        cmocka_unit_test(lists_page_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
