/* Jobs that workers give back, and what counts against a job or a worker and what does not. */
#include "tests/unit/core/core_test.h"

#include <string.h>

static void beat(struct core_test *t, uint64_t worker)
{
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT, .session = worker};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
}

/* Until the job is leased to the worker again, at most `ms`; returns how long it took. */
static uint64_t wait_leased(struct core_test *t, uint64_t worker, uint64_t client, uint8_t job,
                            uint64_t ms)
{
    uint64_t began_ms = t->now_ms;
    while (core_test_job(t, client, job).state != WIRE_JOB_STATE_LEASED &&
           t->now_ms - began_ms < ms) {
        core_test_wait(t, 500);
        beat(t, worker);
    }
    return t->now_ms - began_ms;
}

static struct wire_explain_reply explain(struct core_test *t, uint64_t client, uint8_t job)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_EXPLAIN, .session = client, .explain = {.job_id = core_test_id(job)}};
    return core_test_ask(t, &request)->explain;
}

/* Every way to give a job back and take it again: the job does not go round for ever. */
static void a_job_that_nobody_does_comes_to_an_end(void **state)
{
    enum way { BUSY, UNAVAILABLE, CANCELLED, ERROR_CANCELLED, IN_TURN };
    (void)state;
    for (enum way way = BUSY; way <= IN_TURN; way++) {
        struct core_test t;
        uint64_t worker, client;
        core_test_start_pair(&t, &worker, &client);
        uint64_t longest_ms = 0, rounds = 0;
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        while (core_test_job(&t, client, 1).state != WIRE_JOB_STATE_FAILED) {
            static const struct {
                enum wire_finish finish;
                enum err error;
            } ways[] = {{WIRE_FINISH_ERROR, ERR_BUSY},
                        {WIRE_FINISH_ERROR, ERR_UNAVAILABLE},
                        {WIRE_FINISH_CANCELLED, ERR_OK},
                        {WIRE_FINISH_ERROR, ERR_CANCELLED}};
            unsigned at = way == IN_TURN ? (unsigned)(rounds % 4) : (unsigned)way;
            uint64_t took_ms = wait_leased(&t, worker, client, 1, 1000000);
            longest_ms = took_ms > longest_ms ? took_ms : longest_ms;
            (void)core_test_report(&t, worker, 1, ++rounds, 0, 0, ways[at].finish, ways[at].error);
            assert_true(rounds < 40);
        }
        /* And meanwhile the worker was asked less and less often. */
        assert_in_range(longest_ms, 60000, 300000);
        struct wire_job_info info = core_test_job(&t, client, 1);
        assert_int_equal(info.error.code, ERR_UNAVAILABLE);
        assert_non_null(strstr(info.error.text, "given back 16 times without a token, the last "
                                                "time by w: "));
        core_test_fini(&t);
    }
}

/* A worker that is full is not one that does nothing: jobs wait until it has room. */
static void a_full_worker_that_works_is_asked_again_and_again(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 200), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    for (uint32_t i = 0; i < 100; i++) {
        (void)core_test_report(&t, worker, 1, 1, i, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK);
        assert_in_range(wait_leased(&t, worker, client, 2, 10000), 0, 2000);
        (void)core_test_report(&t, worker, 2, i + 1, 0, 0, WIRE_FINISH_ERROR, ERR_BUSY);
    }
    assert_int_equal(core_test_job(&t, client, 2).state, WIRE_JOB_STATE_QUEUED);
    core_test_fini(&t);
}

/* Forty leases handed back at once are one event. */
static void a_burst_counts_once(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_pair(&t, &worker, &client);
    for (uint8_t i = 1; i <= 40; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    for (uint8_t i = 1; i <= 40; i++)
        (void)core_test_report(&t, worker, i, 1, 0, 0, WIRE_FINISH_CANCELLED, ERR_OK);
    assert_in_range(wait_leased(&t, worker, client, 1, 10000), 500, 2000);
    core_test_fini(&t);
}

static void it_is_said_that_a_worker_gives_jobs_back(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    for (uint64_t i = 1; i <= 4; i++) {
        (void)wait_leased(&t, worker, client, 1, 60000);
        (void)core_test_report(&t, worker, 1, i, 0, 0, WIRE_FINISH_CANCELLED, ERR_OK);
    }
    struct wire_explain_reply e = explain(&t, client, 1);
    assert_string_equal(e.candidates[0].predicate, "slots");
    assert_non_null(strstr(e.candidates[0].detail, "it gave jobs back 4 times without a token"));
    /* Another one that works takes the job at once, and one token clears a name. */
    uint64_t other = core_test_ready_worker(&t, "v");
    assert_string_equal(core_test_job(&t, client, 1).worker, "v");
    (void)core_test_report(&t, other, 1, 5, 0, 1, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    core_test_fini(&t);
}

/* Hello, take, Goodbye, Hello again. */
static void a_worker_that_comes_and_goes_ends_no_job_by_leaving_once(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    unsigned rounds = 0;
    (void)core_test_ready_worker(&t, "w");
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    while (core_test_job(&t, client, 1).state != WIRE_JOB_STATE_FAILED) {
        uint64_t worker = core_test_ready_worker(&t, "w");
        (void)wait_leased(&t, worker, client, 1, 1000000);
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_LEASED);
        struct wire_request bye = {
            .kind = WIRE_REQUEST_GOODBYE, .session = worker, .goodbye = {.reason = ""}};
        (void)core_test_ask(&t, &bye);
        core_test_wait(&t, 1100); /* it takes at least so long to start again */
        assert_true(++rounds < 40);
    }
    assert_int_equal(rounds, 17); /* the first time does not count */
    core_test_fini(&t);
}

/* ---- the coordinator's own fault ---- */

static void step_held(struct core_test *t, bool held_back)
{
    struct core_event event = {.kind = CORE_EVENT_TICK,
                               .held_back = held_back,
                               .mono_ns = t->now_ms * 1000000,
                               .wall_ns = 1800000000000000000u + t->now_ms * 1000000};
    core_test_begin(t);
    core_step(t->core, &event, &t->effects);
    core_test_end(t);
}

/* For 25 s a commit holds back all replies; the core ticks on. The worker, which hears nothing,
 * stops its job as it must, and says Hello without it. */
static void what_a_slow_disk_does_is_nobodys_fault(void **state)
{
    (void)state;
    for (int held_back = 0; held_back < 2; held_back++) {
        struct core_test t;
        uint64_t worker, client;
        core_test_start_job(&t, &worker, &client);
        (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
        unsigned deaths = 0;
        for (int i = 0; i < 50; i++) {
            t.now_ms += 500;
            step_held(&t, held_back);
            const struct core_effect *e = core_test_find(&t, CORE_EFFECT_PUT_JOB);
            deaths = e != NULL ? e->job.deaths : deaths;
        }
        assert_int_equal(deaths, held_back ? 0 : 1);
        (void)core_test_ready_worker(&t, "w");
        const struct core_effect *e = core_test_find(&t, CORE_EFFECT_PUT_JOB);
        assert_non_null(e);
        assert_int_equal(e->job.attempts, 2);
        assert_int_equal(e->job.deaths, held_back ? 0 : 1);
        core_test_fini(&t);
    }
}

/* The whole machine stood still for a minute. */
static void nor_is_it_when_the_machine_stood_still(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    for (int i = 0; i < 12; i++) {
        t.now_ms += 60000;
        worker = core_test_ready_worker(&t, "w"); /* it has stopped the job */
        const struct core_effect *e = core_test_find(&t, CORE_EFFECT_PUT_JOB);
        assert_int_equal(e->job.deaths, 0);
        (void)core_test_pull(&t, worker, 0);
        (void)core_test_pull(&t, worker, 1); /* it runs again */
        struct wire_request list = {
            .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
        assert_int_equal(core_test_ask(&t, &list)->list_workers.workers[0].state,
                         WIRE_WORKER_STATE_ALIVE);
    }
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_RUNNING);
    /* A worker that is really silent is still found, in its own time. */
    core_test_wait(&t, t.config.lease_ms + 100);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_that_nobody_does_comes_to_an_end),
        cmocka_unit_test(a_full_worker_that_works_is_asked_again_and_again),
        cmocka_unit_test(a_burst_counts_once),
        cmocka_unit_test(it_is_said_that_a_worker_gives_jobs_back),
        cmocka_unit_test(a_worker_that_comes_and_goes_ends_no_job_by_leaving_once),
        cmocka_unit_test(what_a_slow_disk_does_is_nobodys_fault),
        cmocka_unit_test(nor_is_it_when_the_machine_stood_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
