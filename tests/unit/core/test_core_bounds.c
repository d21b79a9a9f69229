/* What one turn may come to, and how much others may leave behind in the core. */
#include "tests/unit/core/core_test.h"

#include "coordinator/core/state.h"

#include <stdio.h>
#include <string.h>

#define WALL_NS(t) (1800000000000000000u + (t)->now_ms * 1000000u)

/* A core that starts with `n` queued jobs of model "m". */
static void open_with_queue(struct core_test *t, uint32_t n, bool expired)
{
    uint64_t wall_ns = WALL_NS(t);
    t->core = core_new(&t->config);
    struct record_learned learned = {.model = "m",
                                     .architecture = "",
                                     .quantization = "",
                                     .chat_template = "",
                                     .context_tokens = 1000};
    assert_int_equal(core_restore_learned(t->core, &learned, NULL), ERR_OK);
    for (uint32_t i = 0; i < n; i++) {
        struct record_job job = {.tenant = "red",
                                 .model = "m",
                                 .state = WIRE_JOB_STATE_QUEUED,
                                 .job_class = WIRE_JOB_CLASS_STANDARD,
                                 .max_tokens = 1,
                                 .submit_order = i,
                                 .submitted_wall_ns = wall_ns - 3600000000000u,
                                 .deadline_wall_ns = expired ? wall_ns - 1000000000u : 0,
                                 .worker = "",
                                 .error_text = "",
                                 .reserved_tokens = 2,
                                 .prompt_tokens_bound = 1,
                                 .reserve_seq = i + 2,
                                 .project = "",
                                 .cost_center = "",
                                 .principal = "c"};
        memcpy(job.job_id.bytes, &i, sizeof i);
        assert_int_equal(core_restore_job(t->core, &job, NULL), ERR_OK);
    }
    struct record_balance balance = {.tenant = "red", .reserved_tokens = 2ull * n};
    assert_int_equal(core_restore_balance(t->core, &balance, NULL), ERR_OK);
    assert_int_equal(
        core_restore_end(t->core, t->now_ms * 1000000, wall_ns, 1, (uint64_t)n + 1, NULL), ERR_OK);
    core_test_begin(t);
}

/* Turns at the same moment, while something is due, as the loop takes them. Returns how many ended
 * jobs; no turn has more of them than it may. */
static unsigned turns_that_end_jobs(struct core_test *t, uint32_t n_jobs)
{
    unsigned turns = 0;
    uint32_t ended = 0;
    for (;;) {
        size_t n = core_test_count(t, CORE_EFFECT_LEDGER);
        assert_in_range(n, 0, CORE_TURN_WORK_MAX);
        ended += (uint32_t)n;
        turns += n > 0;
        if (core_next_ms(t->core) > t->now_ms)
            break;
        struct core_event tick = {
            .kind = CORE_EVENT_TICK, .mono_ns = t->now_ms * 1000000, .wall_ns = WALL_NS(t)};
        core_test_begin(t);
        core_step(t->core, &tick, &t->effects);
        core_step(t->core, &tick, &t->effects); /* a loop may say it more than once */
        core_test_end(t);
        assert_true(turns < 100);
    }
    assert_int_equal(ended, n_jobs);
    return turns;
}

static void deadlines_that_passed_together_end_over_several_turns(void **state)
{
    enum { JOBS = 2 * CORE_TURN_WORK_MAX + 100 };
    struct core_test t;
    (void)state;
    core_test_init(&t);
    open_with_queue(&t, JOBS, true);
    assert_in_range(turns_that_end_jobs(&t, JOBS), 3, 5);
    core_test_fini(&t);
}

static void a_queue_that_nobody_can_load_for_ends_over_several_turns(void **state)
{
    enum { JOBS = 2 * CORE_TURN_WORK_MAX + 100 };
    struct core_test t;
    (void)state;
    core_test_init(&t);
    open_with_queue(&t, JOBS, false);
    struct wire_model_offer offer = {.name = "m",
                                     .architecture = "",
                                     .quantization = "",
                                     .chat_template = "",
                                     .gang_settings = "",
                                     .context_tokens = 1000,
                                     .weights_bytes = CORE_TEST_GB};
    struct wire_model_status status = {
        .name = "m", .error = "no", .state = WIRE_MODEL_STATE_FAILED, .failures = 3};
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_WORKER,
                                           .node = "w",
                                           .tenant = "",
                                           .build = "",
                                           .worker = {.models = &offer,
                                                      .n_models = 1,
                                                      .status = &status,
                                                      .n_status = 1,
                                                      .device = "",
                                                      .nccl = {.version = ""},
                                                      .isa = ""}}};
    hello.session = core_test_ask(&t, &hello)->session;
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    assert_true(core_test_ask(&t, &hello)->hello.established);
    assert_in_range(turns_that_end_jobs(&t, JOBS), 3, 5);
    core_test_fini(&t);
}

static uint32_t owners_count(const struct core_test *t)
{
    return tree_count(&t->core->owners);
}

/* Each job says another project, each Hello another device: what no job and no worker says any more
 * is forgotten, but not before the effects that may point to it are carried out. */
static void names_are_kept_while_somebody_has_them(void **state)
{
    enum { JOBS = 300, KEPT = 10 };
    struct core_test t;
    char text[64];
    (void)state;
    core_test_init(&t);
    t.config.retain_ended_jobs = KEPT;
    core_test_open(&t);
    uint64_t client = core_test_client(&t, "c", "", 2);
    (void)core_test_ready_worker(&t, "w");
    uint32_t names = tree_count(&t.core->names);
    for (unsigned i = 0; i < JOBS; i++) {
        struct wire_request submit = core_test_submit(client, 1, "m", 20);
        (void)snprintf(text, sizeof text, "project %u", i);
        submit.submit.job_id = (struct id){{1, (uint8_t)(i >> 8), (uint8_t)i}};
        submit.submit.job.project = text;
        assert_int_equal(core_test_ask(&t, &submit)->kind, WIRE_REQUEST_SUBMIT);
        struct wire_request cancel = {.kind = WIRE_REQUEST_CANCEL,
                                      .session = client,
                                      .cancel = {.job_id = submit.submit.job_id, .reason = ""}};
        assert_int_equal(core_test_ask(&t, &cancel)->kind, WIRE_REQUEST_CANCEL);
    }
    assert_int_equal(owners_count(&t), JOBS);
    core_test_wait(&t, 70000);
    assert_int_equal(owners_count(&t), KEPT);
    core_test_wait(&t, 3 * t.config.lease_ms);
    assert_in_range(tree_count(&t.core->names), KEPT, names + KEPT + 2);

    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB,
                               .session = core_test_client(&t, "c", "", 2),
                               .get_job = {.job_id = {{1, 1, 43}}}};
    assert_string_equal(core_test_ask(&t, &get)->get_job.info.project, "project 299");
    core_test_fini(&t);
}

static void a_name_outlives_the_effects_that_show_it(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    const char *name = name_intern(t.core, "short-lived");
    assert_ptr_equal(name_intern(t.core, "short-lived"), name);
    name_drop(t.core, name);
    core_test_end(&t);
    uint32_t names = tree_count(&t.core->names);
    name_drop(t.core, name); /* in this turn, whose effects may point to it */
    core_test_end(&t);
    core_test_end(&t);
    assert_string_equal(name, "short-lived");
    assert_int_equal(tree_count(&t.core->names), names);
    assert_ptr_equal(name_intern(t.core, "short-lived"), name); /* and once more */
    name_drop(t.core, name);
    for (unsigned i = 0; i < 4; i++)
        core_test_end(&t);
    assert_int_equal(tree_count(&t.core->names), names - 1);
    core_test_fini(&t);
}

/* So many names of workers that are gone keep nobody out; who is here is not forgotten. */
static void workers_that_are_gone_make_room(void **state)
{
    struct core_test t;
    char name[16];
    (void)state;
    core_test_start(&t);
    uint64_t first = core_test_ready_worker(&t, "here");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (unsigned i = 0; i < LIMIT_WORKERS + 2; i++) {
        (void)snprintf(name, sizeof name, "w%u", i);
        uint64_t worker = core_test_ready_worker(&t, name);
        assert_int_not_equal(worker, 0);
        if (i == 0) { /* its name stays with its job */
            struct wire_request goodbye = {
                .kind = WIRE_REQUEST_GOODBYE, .session = first, .goodbye = {.reason = ""}};
            (void)core_test_ask(&t, &goodbye);
            assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
            (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
        }
        struct wire_request goodbye = {
            .kind = WIRE_REQUEST_GOODBYE, .session = worker, .goodbye = {.reason = ""}};
        (void)core_test_ask(&t, &goodbye);
        t.now_ms++;
        if (i == 0)
            first = core_test_ready_worker(&t, "here");
    }
    assert_int_equal(tree_count(&t.core->workers), LIMIT_WORKERS);
    assert_non_null(worker_find(t.core, "here"));
    assert_null(worker_find(t.core, "w0"));
    client = core_test_client(&t, "c", "", 2);
    assert_string_equal(core_test_job(&t, client, 1).worker, "w0");
    core_test_fini(&t);
}

static void an_answer_that_would_be_too_long_comes_in_pages(void **state)
{
    enum { WORKERS = 20, DAYS = 4 * LIMIT_USAGE_ROWS + 1 };
    static char names[LIMIT_MODELS_PER_WORKER][8], error[1000];
    static struct wire_model_offer offers[LIMIT_MODELS_PER_WORKER];
    static struct wire_model_status status[LIMIT_MODELS_PER_WORKER];
    struct core_test t;
    (void)state;
    static const struct core_key_config keys[] = {
        {.public_key = {2}, .name = "", .tenant = "default", .is_operator = true},
        {.public_key = {3}, .name = "", .tenant = "stranger"}};
    core_test_init(&t);
    t.config.open_clients = false;
    t.config.clients = keys;
    t.config.n_clients = 2;
    t.core = core_new(&t.config);
    for (uint32_t i = 0; i < DAYS; i++) {
        struct record_usage usage = {.tenant = "default", .model = "m", .day = i + 1, .jobs = 1};
        assert_int_equal(core_restore_usage(t.core, &usage, NULL), ERR_OK);
    }
    assert_int_equal(core_restore_end(t.core, t.now_ms * 1000000, WALL_NS(&t), 1, 1, NULL), ERR_OK);
    uint64_t client = core_test_client(&t, "c", "", 2);
    struct wire_request usage = {
        .kind = WIRE_REQUEST_USAGE, .session = client, .usage = {.tenant = "", .model = ""}};
    uint32_t days = 0;
    unsigned pages = 0;
    for (bool more = true; more; pages++) {
        const struct wire_usage_reply *r = &core_test_ask(&t, &usage)->usage;
        assert_true(r->n_rows <= LIMIT_USAGE_ROWS);
        assert_int_equal(r->n_balances, pages == 0 ? 1 : 0);
        for (size_t i = 0; i < r->n_rows; i++)
            assert_int_equal(r->rows[i].day, ++days);
        more = r->more;
        usage.usage.after_tenant = r->next_tenant;
        usage.usage.after_model = r->next_model;
        usage.usage.after_day = r->next_day;
    }
    assert_int_equal(days, DAYS);
    assert_int_equal(pages, DAYS / LIMIT_USAGE_ROWS + 1);
    /* A page looks at so many; what matches may be on the next one. */
    usage.usage.day_from = DAYS;
    usage.usage.after_day = 0;
    const struct wire_usage_reply *last = &core_test_ask(&t, &usage)->usage;
    assert_true(last->more && last->n_rows == 0);
    usage.usage.after_tenant = last->next_tenant;
    usage.usage.after_model = last->next_model;
    usage.usage.after_day = last->next_day;
    last = &core_test_ask(&t, &usage)->usage;
    assert_true(!last->more && last->n_rows == 1 && last->rows[0].day == DAYS);
    /* Where a page begins is the client's to say, and whose rows it gets is not. */
    uint64_t stranger = core_test_client(&t, "s", "stranger", 3);
    usage.session = stranger;
    usage.usage.day_from = 0;
    usage.usage.after_tenant = "a";
    usage.usage.after_day = 1;
    last = &core_test_ask(&t, &usage)->usage;
    assert_true(last->n_rows == 0 && !last->more);

    memset(error, 'e', sizeof error - 1);
    for (unsigned i = 0; i < LIMIT_MODELS_PER_WORKER; i++) {
        (void)snprintf(names[i], sizeof names[i], "%u", i);
        offers[i] = (struct wire_model_offer){.name = names[i],
                                              .architecture = "",
                                              .quantization = "",
                                              .chat_template = "",
                                              .gang_settings = ""};
        status[i] = (struct wire_model_status){
            .name = names[i], .error = error, .state = WIRE_MODEL_STATE_FAILED, .failures = 1};
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "w%u", i);
        struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                     .hello = {.role = WIRE_ROLE_WORKER,
                                               .node = name,
                                               .tenant = "",
                                               .build = "",
                                               .worker = {.models = offers,
                                                          .n_models = LIMIT_MODELS_PER_WORKER,
                                                          .status = status,
                                                          .n_status = LIMIT_MODELS_PER_WORKER,
                                                          .device = "",
                                                          .nccl = {.version = ""},
                                                          .isa = ""}}};
        hello.session = core_test_ask(&t, &hello)->session;
        hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
        assert_true(core_test_ask(&t, &hello)->hello.established);
    }
    struct wire_request list = {
        .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
    unsigned workers = 0;
    pages = 0;
    for (bool more = true; more; pages++) {
        const struct wire_list_workers_reply *r = &core_test_ask(&t, &list)->list_workers;
        struct buf frame;
        buf_init(&frame);
        struct wire_reply reply = {.kind = (int)WIRE_REQUEST_LIST_WORKERS, .list_workers = *r};
        assert_int_equal(wire_reply_encode(&reply, &frame, NULL), ERR_OK);
        buf_fini(&frame);
        /* Their errors are whole: 16 workers with 256 of 999 bytes each are a page. */
        assert_int_equal(r->n_workers, WORKERS - workers < 16 ? WORKERS - workers : 16);
        for (size_t i = 0; i < r->n_workers; i++)
            assert_int_equal(strlen(r->workers[i].models[0].error), 999);
        workers += (unsigned)r->n_workers;
        list.list_workers.after = r->workers[r->n_workers - 1].name;
        more = r->more;
    }
    assert_int_equal(workers, WORKERS);
    assert_true(pages > 1);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deadlines_that_passed_together_end_over_several_turns),
        cmocka_unit_test(a_queue_that_nobody_can_load_for_ends_over_several_turns),
        cmocka_unit_test(names_are_kept_while_somebody_has_them),
        cmocka_unit_test(a_name_outlives_the_effects_that_show_it),
        cmocka_unit_test(workers_that_are_gone_make_room),
        cmocka_unit_test(an_answer_that_would_be_too_long_comes_in_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
