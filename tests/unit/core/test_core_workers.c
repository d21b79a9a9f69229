/* Workers that fall silent, come back, forget, and leases across a restart. */
#include "tests/unit/core/core_test.h"

#include <string.h>

static void silence_is_suspected_before_it_is_believed(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);

    struct wire_request list = {
        .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
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
    uint64_t client;
    core_test_start_job(&t, NULL, &client);
    t.now_ms += 60000; /* no event in between */
    core_test_wait(&t, 1);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);
    core_test_fini(&t);
}

static void a_worker_that_comes_back_keeps_what_it_lists(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
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

static bool meters(struct core_test *t, uint64_t worker, const struct wire_gpu *gpu)
{
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.gpus = gpu, .n_gpus = gpu != NULL ? 1 : 0}};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
    if (core_test_count(t, CORE_EFFECT_LEDGER) == 0)
        return false;
    const struct record_ledger *r = core_test_ledger(t);
    assert_int_equal(r->kind, RECORD_LEDGER_METER);
    assert_string_equal(r->worker, "w");
    assert_string_equal(r->device, gpu->uuid);
    assert_int_equal(r->energy_mj, gpu->energy_mj);
    return true;
}

static void energy_is_recorded_in_intervals(void **state)
{
    struct wire_gpu gpu = {.uuid = "GPU-1",
                           .pci = "",
                           .driver = "",
                           .trouble = "",
                           .known = WIRE_GPU_KNOWN_ENERGY,
                           .energy_mj = 10};
    struct core_test t;
    uint64_t worker, client;
    (void)state;
    core_test_start_pair(&t, &worker, &client);
    t.config.energy_ms = 5000;
    assert_false(meters(&t, worker, NULL)); /* a CPU */
    assert_true(meters(&t, worker, &gpu));
    gpu.energy_mj = 20;
    assert_false(meters(&t, worker, &gpu));
    core_test_wait(&t, 4000);
    assert_false(meters(&t, worker, &gpu));
    core_test_wait(&t, 1000);
    assert_true(meters(&t, worker, &gpu));
    /* a device that does not tell it */
    core_test_wait(&t, 5000);
    gpu.known = 0;
    assert_false(meters(&t, worker, &gpu));
    gpu.known = WIRE_GPU_KNOWN_ENERGY;
    t.config.energy_ms = 0;
    assert_false(meters(&t, worker, &gpu));
    core_test_fini(&t);
}

static void a_lease_that_is_not_mentioned_is_lost(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
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
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
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

/* It ends each worker before that can say that it has the job; all that is known is that the job
 * was handed out. Whether the worker is back at once or falls silent, this does not go on for ever.
 */
static void a_job_that_ends_workers_at_once_is_given_up(void **state)
{
    for (int silent = 0; silent < 2; silent++) {
        struct core_test t;
        unsigned handed = 0;
        (void)state;
        uint64_t client;
        core_test_start_job(&t, NULL, &client);
        for (unsigned i = 0; i < 1000; i++) {
            uint64_t worker = core_test_ready_worker(&t, "w");
            handed += core_test_pull(&t, worker, 0).n_commands > 0;
            core_test_wait(&t, silent ? t.config.lease_ms + 1000 : 4000);
        }
        assert_int_equal(handed, 16);
        client = core_test_client(&t, "c", "", 2);
        struct wire_job_info info = core_test_job(&t, client, 1);
        assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
        assert_non_null(strstr(info.error.text, "given back 16 times without a token"));
        core_test_fini(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_suspected_before_it_is_believed),
        cmocka_unit_test(a_moment_in_which_we_slept_counts_against_nobody),
        cmocka_unit_test(a_worker_that_comes_back_keeps_what_it_lists),
        cmocka_unit_test(energy_is_recorded_in_intervals),
        cmocka_unit_test(a_lease_that_is_not_mentioned_is_lost),
        cmocka_unit_test(commands_are_said_until_acked),
        cmocka_unit_test(leases_outlive_a_restart),
        cmocka_unit_test(what_does_not_fit_together_is_not_restored),
        cmocka_unit_test(a_job_that_ends_workers_at_once_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
