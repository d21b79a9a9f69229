/* Which worker gets a job: time, memory, loads, files. */
#include "tests/unit/core/core_test.h"

#include <stdio.h>
#include <string.h>

static void the_worker_that_answers_first_is_chosen(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    (void)core_test_cold_worker(&t, "a-cold");
    (void)core_test_ready_worker(&t, "b-warm");
    (void)core_test_ready_worker(&t, "c-warm");
    uint64_t client = core_test_client(&t, "c", "", 2);
    static const char *const want[] = {"b-warm", "c-warm", "b-warm", "c-warm"};
    for (uint8_t i = 0; i < 4; i++) {
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
        assert_string_equal(core_test_job(&t, client, i).worker, want[i]);
    }
    const struct wire_explain_reply *e = core_test_explain(&t, client, 2);
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
    core_test_start(&t);
    uint64_t worker = core_test_cold_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 0; i < 5; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 0);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_LOAD);
    assert_non_null(strstr(core_test_explain(&t, client, 0)->summary, "to be loaded on w"));

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
        core_test_start(&t);
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
        const struct wire_explain_reply *e = core_test_explain(&t, client, 1);
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

static void failures_report(struct core_test *t, uint64_t worker, const char *model,
                            uint32_t failures)
{
    struct wire_model_status status = {
        .name = model, .state = WIRE_MODEL_STATE_FAILED, .error = "no", .failures = failures};
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.models = &status, .n_models = 1}};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
}

/* 8 GB: model a is loaded, and b, of 5 GB, has room only where a has gone. */
static struct core_test_worker two_models(uint64_t a_gb, uint64_t free_gb)
{
    return (struct core_test_worker){.name = "w",
                                     .key = 1,
                                     .total_bytes = 8 * CORE_TEST_GB,
                                     .free_bytes = free_gb * CORE_TEST_GB,
                                     .models = {"a", "b"},
                                     .weights_bytes = {a_gb * CORE_TEST_GB, 5 * CORE_TEST_GB},
                                     .ready = {true, false}};
}

/* Models stay for 5 s; job 1 is one for a, job 2 for b. */
static void start_two_models(struct core_test *t, const struct core_test_worker *w,
                             uint64_t *ret_worker, uint64_t *ret_client)
{
    core_test_init(t);
    t->config.residency_ms = 5000;
    core_test_open(t);
    *ret_worker = core_test_worker(t, w);
    *ret_client = core_test_client(t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(t, *ret_client, 1, "a", 20), ERR_OK);
    assert_int_equal(core_test_submit_ask(t, *ret_client, 2, "b", 20), ERR_OK);
}

static void an_idle_model_makes_room_a_busy_one_is_let_finish(void **state)
{
    struct core_test_worker w = two_models(5, 3);
    struct core_test t;
    uint64_t worker, client;
    (void)state;
    start_two_models(&t, &w, &worker, &client);
    assert_int_equal(core_test_pull(&t, worker, 0).n_commands, 1); /* only the job of a */
    /* b has waited for a whole residency: a gets nothing new, and is unloaded when it is idle. */
    core_test_wait_alive(&t, worker, 6000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "a", 20), ERR_OK);
    assert_non_null(
        strstr(core_test_explain(&t, client, 3)->candidates[0].detail, "emptied for b"));
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
    struct core_test_worker w = two_models(5, 3);
    struct core_test t;
    uint64_t worker, client;
    (void)state;
    start_two_models(&t, &w, &worker, &client);
    core_test_wait_alive(&t, worker, 6000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "a", 20), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_QUEUED);
    w.models[1] = NULL;
    (void)core_test_worker(&t, &w);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_LEASED);
    core_test_fini(&t);
}

/* While the worker was being emptied for b, somebody else took the memory that b needs. */
static void room_that_others_took_is_given_up(void **state)
{
    struct core_test_worker w = two_models(1, 4);
    struct core_test t;
    uint64_t worker, client;
    (void)state;
    start_two_models(&t, &w, &worker, &client);
    (void)core_test_pull(&t, worker, 0);
    core_test_wait_alive(&t, worker, 6000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "a", 20), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_QUEUED); /* emptied for b */
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
    assert_int_equal(core_test_pull(&t, worker, 1).commands[0].kind, WIRE_COMMAND_UNLOAD);
    /* a is gone, and its gigabyte is not there: b cannot come, a can. */
    status_report(&t, worker, "a", WIRE_MODEL_STATE_AVAILABLE, 4);
    core_test_wait_alive(&t, worker, 2000);
    struct wire_pull_reply pull = core_test_pull(&t, worker, 2);
    assert_int_equal(pull.n_commands, 1);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_LOAD);
    assert_string_equal(pull.commands[0].load.model, "a");
    core_test_fini(&t);
}

static void a_model_that_never_loads_fails_its_jobs(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.load_retry_ms = 2000;
    core_test_open(&t);
    uint64_t worker = core_test_cold_worker(&t, "w"), acked = 0;
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
        assert_int_equal(core_test_pull(&t, worker, acked++).n_commands, 1);
        status_report(&t, worker, "m", WIRE_MODEL_STATE_LOADING, 8);
        failures_report(&t, worker, "m", i);
        core_test_wait_alive(&t, worker, 3000);
    }
    struct wire_job_info info = core_test_job(&t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_non_null(strstr(info.error.text, "no worker can load model m; w: no"));
    core_test_fini(&t);
}

/* Between two reports the load was tried again: only the count says so. A worker that comes back
 * with a new session has not forgotten how often. */
static void a_load_that_fails_between_reports_counts(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.load_retry_ms = 2000;
    core_test_open(&t);
    uint64_t worker = core_test_cold_worker(&t, "w"), acked = 0;
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
        struct wire_pull_reply pull = core_test_pull(&t, worker, acked++);
        assert_int_equal(pull.n_commands, 1);
        assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_LOAD);
        failures_report(&t, worker, "m", i);
        if (i < 3)
            core_test_wait_alive(&t, worker, 3000);
    }
    struct wire_job_info info = core_test_job(&t, client, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_FAILED);
    assert_non_null(strstr(info.error.text, "no worker can load model m; w: no"));
    /* Nor is the next job kept waiting. */
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 2).state, WIRE_JOB_STATE_FAILED);
    assert_int_equal(core_test_pull(&t, worker, acked).n_commands, 0);
    /* Much later it is tried once more. */
    core_test_wait_alive(&t, worker, 41000);
    assert_int_equal(core_test_submit_ask(&t, client, 3, "m", 20), ERR_OK);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_QUEUED);
    failures_report(&t, worker, "m", 4);
    assert_int_equal(core_test_job(&t, client, 3).state, WIRE_JOB_STATE_FAILED);
    core_test_fini(&t);
}

/* A worker that has another file under the name "m", loaded. */
static uint64_t worker_with_file(struct core_test *t, const char *name, uint8_t digest)
{
    const struct core_test_worker w = {.name = name,
                                       .total_bytes = 8 * CORE_TEST_GB,
                                       .models = {"m"},
                                       .weights_bytes = {CORE_TEST_GB},
                                       .ready = {true},
                                       .digest = digest};
    return core_test_worker(t, &w);
}

static void one_name_is_one_file(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t client;
    core_test_start_pair(&t, NULL, &client);
    (void)worker_with_file(&t, "v", 99);
    t.config.worker_leases_max = 1;
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    const struct wire_explain_reply *e = core_test_explain(&t, client, 2);
    assert_int_equal(e->n_candidates, 2);
    assert_string_equal(e->candidates[0].predicate, "model"); /* v */
    assert_non_null(strstr(e->candidates[0].detail, "another digest"));
    assert_string_equal(e->candidates[1].predicate, "slots"); /* w */
    assert_string_equal(e->candidates[1].detail, "1 of 1 leases are out");
    core_test_fini(&t);
}

/* Workers that wait with another file are used as soon as the old one is gone and nothing of it is
 * under way, without saying Hello again. */
static void a_name_moves_to_a_file_that_was_offered_before(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    uint64_t old = core_test_ready_worker(&t, "old");
    (void)worker_with_file(&t, "new-a", 99);
    (void)worker_with_file(&t, "new-b", 99);
    (void)worker_with_file(&t, "other", 98);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    struct wire_request goodbye = {
        .kind = WIRE_REQUEST_GOODBYE, .session = old, .goodbye = {.reason = ""}};
    (void)core_test_ask(&t, &goodbye);
    assert_int_equal(core_test_job(&t, client, 1).state, WIRE_JOB_STATE_QUEUED);
    (void)core_test_cancel(&t, client, 1);
    struct wire_request models = {
        .kind = WIRE_REQUEST_LIST_MODELS, .session = client, .list_models = {.model = ""}};
    const struct wire_list_models_reply *r = &core_test_ask(&t, &models)->list_models;
    assert_int_equal(r->models[0].offer.weights_digest[0], 99);
    assert_int_equal(r->models[0].workers, 2);
    assert_int_equal(core_test_submit_ask(&t, client, 2, "m", 20), ERR_OK);
    assert_string_equal(core_test_job(&t, client, 2).worker, "new-a");
    core_test_fini(&t);
}

static enum wire_job_state job_state(struct core_test *t, uint64_t client, uint8_t n)
{
    return core_test_job(t, client, n).state;
}

/* A job for which no worker has a context that is long enough holds up nobody. One that some can
 * take is not overtaken there, and the others are not idle meanwhile. */
static void a_job_waits_only_for_those_that_can_take_it(void **state)
{
    static const char *const expected[] = {"m"};
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.expected_models = expected;
    t.config.n_expected_models = 1;
    t.config.worker_leases_max = 2;
    t.config.queue_age_max_ms = 60000;
    core_test_open(&t);
    uint64_t red = core_test_client(&t, "r", "red", 1), blue = core_test_client(&t, "b", "blue", 2);
    assert_int_equal(core_test_submit_ask(&t, red, 1, "m", 500000), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, red, 2, "m", 3000), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, blue, 3, "m", 10), ERR_OK);
    uint64_t worker = core_test_ready_worker(&t, "w"); /* a context of 1000 */
    assert_int_equal(job_state(&t, blue, 1), WIRE_JOB_STATE_QUEUED);
    assert_int_equal(job_state(&t, blue, 2), WIRE_JOB_STATE_QUEUED);
    assert_int_equal(job_state(&t, blue, 3), WIRE_JOB_STATE_LEASED);
    assert_non_null(strstr(core_test_explain(&t, blue, 1)->summary,
                           "up to 500000 tokens do not fit its context of 1000"));

    struct core_test_worker longer = {.name = "long",
                                      .key = 2,
                                      .total_bytes = 8 * CORE_TEST_GB,
                                      .free_bytes = 8 * CORE_TEST_GB,
                                      .models = {"m"},
                                      .weights_bytes = {CORE_TEST_GB},
                                      .context_tokens = 4000};
    uint64_t second = core_test_worker(&t, &longer);
    assert_int_equal(core_test_pull(&t, second, 0).commands[0].kind, WIRE_COMMAND_LOAD);
    assert_int_equal(core_test_submit_ask(&t, blue, 4, "m", 10), ERR_OK);
    assert_int_equal(core_test_submit_ask(&t, blue, 5, "m", 10), ERR_OK);
    assert_int_equal(job_state(&t, blue, 4), WIRE_JOB_STATE_LEASED);
    assert_string_equal(core_test_job(&t, blue, 4).worker, "w");
    assert_int_equal(job_state(&t, blue, 5), WIRE_JOB_STATE_QUEUED); /* "w" is full */
    status_report(&t, second, "m", WIRE_MODEL_STATE_READY, 7);
    assert_string_equal(core_test_job(&t, blue, 2).worker, "long");
    assert_string_equal(core_test_job(&t, blue, 5).worker, "long");

    /* Nor does it close the queue: it ends when it has waited for as long as any may. */
    for (unsigned i = 0; i < 62; i++) {
        core_test_wait(&t, 1000);
        (void)core_test_report(&t, worker, 3, 1, 0, 0, WIRE_FINISH_UNSPECIFIED, ERR_OK);
        status_report(&t, second, "m", WIRE_MODEL_STATE_READY, 7);
    }
    blue = core_test_client(&t, "b", "blue", 2);
    struct wire_job_info info = core_test_job(&t, blue, 1);
    assert_int_equal(info.state, WIRE_JOB_STATE_REJECTED);
    assert_non_null(strstr(info.error.text, "the longest context is 4000"));
    assert_int_equal(core_test_submit_ask(&t, blue, 6, "m", 10), ERR_OK);
    core_test_fini(&t);
}

/* Each length of context has a worker that is full and a job that waits for it; the shortest has
 * room. More lengths than one look goes down must not hide it. */
static void many_lengths_of_context_hide_no_worker(void **state)
{
    enum { LENGTHS = 40 };
    struct core_test t;
    char name[16];
    (void)state;
    core_test_init(&t);
    t.config.worker_leases_max = 1;
    core_test_open(&t);
    for (uint8_t i = 0; i < LENGTHS; i++) {
        (void)snprintf(name, sizeof name, "w%02u", i);
        struct core_test_worker w = {.name = name,
                                     .key = (uint8_t)(100 + i),
                                     .total_bytes = 8 * CORE_TEST_GB,
                                     .models = {"m"},
                                     .weights_bytes = {CORE_TEST_GB},
                                     .ready = {true},
                                     .context_tokens = 100u * (LENGTHS - i)};
        (void)core_test_worker(&t, &w);
    }
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 0; i < 2 * (LENGTHS - 1); i++) {
        uint8_t length = i % (LENGTHS - 1);
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 100u * (LENGTHS - length) - 10),
                         ERR_OK);
        (void)snprintf(name, sizeof name, "w%02u", length);
        assert_string_equal(core_test_job(&t, client, i).worker, i < LENGTHS - 1 ? name : "");
    }
    assert_int_equal(core_test_submit_ask(&t, client, 200, "m", 20), ERR_OK);
    core_test_wait(&t, 1); /* looks follow one another at once */
    (void)snprintf(name, sizeof name, "w%02u", LENGTHS - 1);
    assert_string_equal(core_test_job(&t, client, 200).worker, name);

    /* The longest is free again while a look is under way further down. */
    assert_string_equal(core_test_job(&t, client, LENGTHS - 1).worker, "");
    assert_int_equal(core_test_submit_ask(&t, client, 201, "m", 20), ERR_OK);
    core_test_cancel(&t, client, 0);
    core_test_wait(&t, 1);
    assert_string_equal(core_test_job(&t, client, LENGTHS - 1).worker, "w00");
    core_test_fini(&t);
}

static const struct wire_model_info *model_ask(struct core_test *t, uint64_t client,
                                               const char *name, size_t *ret_n)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_LIST_MODELS, .session = client, .list_models = {.model = name}};
    const struct wire_list_models_reply *r = &core_test_ask(t, &request)->list_models;

    *ret_n = r->n_models;
    return r->models;
}

/* A list of all models has room for their names, not for what is to be known of each. */
static void the_shape_of_a_model_is_told_where_it_is_asked_for_by_name(void **state)
{
    static const uint8_t bytes[] = {1, 2, 3};
    struct core_test_worker w = {.name = "one",
                                 .key = 3,
                                 .total_bytes = 8ull << 30,
                                 .free_bytes = 8ull << 30,
                                 .models = {"m", "n"},
                                 .weights_bytes = {1 << 30, 1 << 30},
                                 .shape = {bytes, sizeof bytes}};
    struct core_test t;
    size_t n;

    (void)state;
    core_test_start(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    uint64_t session = core_test_worker(&t, &w);
    assert_int_equal(model_ask(&t, client, "", &n)[1].offer.shape.size, 0);
    assert_int_equal(n, 2);
    const struct wire_model_info *info = model_ask(&t, client, "n", &n);
    assert_int_equal(n, 1);
    assert_string_equal(info->offer.name, "n");
    assert_int_equal(info->offer.shape.size, sizeof bytes);
    assert_memory_equal(info->offer.shape.data, bytes, sizeof bytes);
    (void)model_ask(&t, client, "nobody's", &n);
    assert_int_equal(n, 0);
    /* It is another file's that does not say its shape. */
    w.shape.size = 0;
    w.name = "other";
    w.key = 4;
    w.digest = 9;
    (void)core_test_worker(&t, &w);
    assert_int_equal(model_ask(&t, client, "n", &n)->offer.shape.size, sizeof bytes);
    struct wire_request goodbye = {
        .kind = WIRE_REQUEST_GOODBYE, .session = session, .goodbye = {.reason = ""}};
    (void)core_test_ask(&t, &goodbye);
    assert_int_equal(model_ask(&t, client, "n", &n)->offer.shape.size, 0);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_shape_of_a_model_is_told_where_it_is_asked_for_by_name),
        cmocka_unit_test(the_worker_that_answers_first_is_chosen),
        cmocka_unit_test(a_model_is_loaded_once_and_waited_for),
        cmocka_unit_test(memory_must_be_free_and_unclaimed),
        cmocka_unit_test(an_idle_model_makes_room_a_busy_one_is_let_finish),
        cmocka_unit_test(room_is_made_only_for_what_is_there),
        cmocka_unit_test(room_that_others_took_is_given_up),
        cmocka_unit_test(a_model_that_never_loads_fails_its_jobs),
        cmocka_unit_test(a_load_that_fails_between_reports_counts),
        cmocka_unit_test(one_name_is_one_file),
        cmocka_unit_test(a_name_moves_to_a_file_that_was_offered_before),
        cmocka_unit_test(a_job_waits_only_for_those_that_can_take_it),
        cmocka_unit_test(many_lengths_of_context_hide_no_worker),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
