/* What is kept and listed: pages, short ids, removal, and a disk that is full. */
#include "tests/unit/core/core_test.h"

#include <string.h>

static void freeze(struct core_test *t, enum core_event_kind kind)
{
    struct core_event event = {.kind = kind,
                               .mono_ns = t->now_ms * 1000000,
                               .wall_ns = 1800000000000000000u,
                               .reason = "the disk is full",
                               .code = ERR_NO_SPACE};
    core_test_begin(t);
    core_step(t->core, &event, &t->effects);
    core_test_end(t);
}

static void a_full_disk_refuses_writes_and_answers_reads(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t worker, client;
    core_test_start_job(&t, &worker, &client);
    freeze(&t, CORE_EVENT_FREEZE);
    assert_true(core_frozen(t.core));

    struct wire_request submit = core_test_submit(client, 2, "m", 20);
    core_test_expect_error(core_test_ask(&t, &submit), ERR_NO_SPACE, "the disk is full");
    struct wire_request again = core_test_submit(client, 1, "m", 20);
    assert_true(core_test_ask(&t, &again)->submit.duplicate);
    core_test_expect_error(core_test_cancel(&t, client, 1), ERR_NO_SPACE, "full");
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

#define KEPT_MS 60000u

static bool is_known(struct core_test *t, uint64_t client, uint8_t job)
{
    struct wire_request get = {
        .kind = WIRE_REQUEST_GET_JOB, .session = client, .get_job = {.job_id = core_test_id(job)}};
    return core_test_ask(t, &get)->kind == WIRE_REQUEST_GET_JOB;
}

/* The first that ended is the first to go, whenever it came. */
static void old_jobs_are_removed_as_they_ended(void **state)
{
    static const uint8_t ends[] = {2, 4, 1, 3};
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.retain_ended_jobs = 2;
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    for (uint8_t i = 1; i <= 4; i++)
        assert_int_equal(core_test_submit_ask(&t, client, i, "m", 20), ERR_OK);
    for (size_t i = 0; i < sizeof ends; i++)
        (void)core_test_report(&t, worker, ends[i], 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
    core_test_wait_alive(&t, worker, KEPT_MS - 2000);
    for (uint8_t i = 1; i <= 4; i++)
        assert_true(is_known(&t, client, i));
    core_test_wait_alive(&t, worker, 4000);
    assert_false(is_known(&t, client, 2));
    assert_false(is_known(&t, client, 4));
    assert_true(is_known(&t, client, 1));
    assert_true(is_known(&t, client, 3));
    core_test_fini(&t);
}

/* Its last tokens are read from the store after the turn in which it ended. */
static void a_job_that_has_just_ended_is_kept(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.retain_ended_jobs = 0;
    core_test_open(&t);
    uint64_t worker = core_test_ready_worker(&t, "w");
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                 .session = client,
                                 .watch = {.job_id = core_test_id(1), .wait_ms = 1000}};
    assert_null(core_test_ask(&t, &watch));
    (void)core_test_report(&t, worker, 1, 1, 0, 4, WIRE_FINISH_STOP, ERR_OK);
    assert_int_equal(core_test_count(&t, CORE_EFFECT_DELETE_JOB), 0);
    core_test_wait_alive(&t, worker, KEPT_MS / 2);
    /* Asked for once more, and said once more, it is the same job. */
    assert_true(core_test_ask(&t, &watch)->watch.end);
    struct wire_request again = core_test_submit(client, 1, "m", 20);
    assert_true(core_test_ask(&t, &again)->submit.duplicate);
    core_test_wait_alive(&t, worker, KEPT_MS / 2 + 2000);
    assert_false(is_known(&t, client, 1));
    core_test_fini(&t);
}

static void lists_page_both_ways(void **state)
{
    struct core_test t;
    (void)state;
    uint64_t client;
    core_test_start_pair(&t, NULL, &client);
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
    uint64_t client;
    core_test_start_pair(&t, NULL, &client);
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
    assert_in_range(pages, 10, 11);
    core_test_fini(&t);
}

/* Neither where a page ends nor how many there are tells one tenant of another's jobs. */
static void other_tenants_jobs_are_not_even_looked_at(void **state)
{
    enum { JOBS = 9000 };
    struct core_key_config clients[] = {
        {.public_key = {2}, .name = "", .tenant = "red"},
        {.public_key = {3}, .name = "", .tenant = "blue"},
        {.public_key = {4}, .name = "", .tenant = "ops", .is_operator = true}};
    static const struct {
        unsigned who;
        const char *tenant;
        unsigned found, pages;
    } table[] = {
        {1, "", 2, 2},          {1, "blue", 2, 2}, {1, "red", 0, 1},    {2, "blue", 2, 2},
        {2, "red", JOBS, 9000}, {2, "grey", 0, 1}, {0, "", JOBS, 9000}, {2, "", JOBS + 2, 9002},
    };
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.open_clients = false;
    t.config.clients = clients;
    t.config.n_clients = 3;
    t.config.queue_jobs_max = t.config.queue_tokens_max = UINT32_MAX;
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    const uint64_t sessions[] = {core_test_client(&t, "c", "", 2), core_test_client(&t, "c", "", 3),
                                 core_test_client(&t, "c", "", 4)};
    for (uint32_t i = 0; i < JOBS + 2; i++) {
        struct wire_request submit = core_test_submit(sessions[i == 0 || i > JOBS], 0, "m", 20);
        submit.submit.job_id =
            (struct id){{9, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i, [12] = 1}};
        assert_int_equal(core_test_ask(&t, &submit)->kind, WIRE_REQUEST_SUBMIT);
    }
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct wire_request list = {
            .kind = WIRE_REQUEST_LIST_JOBS,
            .session = sessions[table[i].who],
            .list_jobs = {.tenant = table[i].tenant, .model = "", .limit = 1}};
        unsigned found = 0, pages = 0;
        for (bool more = true; more; pages++) {
            const struct wire_list_jobs_reply *r = &core_test_ask(&t, &list)->list_jobs;
            more = r->more;
            found += (unsigned)r->n_jobs;
            struct id after = r->next;
            if (more) { /* the page ends with a job that it shows */
                assert_int_equal(r->n_jobs, 1);
                assert_memory_equal(after.bytes, r->jobs[0].job_id.bytes, ID_BYTES);
            }
            static struct id kept;
            kept = after;
            list.list_jobs.after = (struct wire_bytes){.data = kept.bytes, .size = ID_BYTES};
        }
        assert_int_equal(found, table[i].found);
        assert_int_equal(pages, table[i].pages);
    }
    core_test_fini(&t);
}

/* Pages go on behind jobs of others, either way, without telling their ids. */
static void a_page_tells_no_id_of_others(void **state)
{
    static const struct core_key_config clients[] = {
        {.public_key = {1}, .name = "", .tenant = "red"},
        {.public_key = {2}, .name = "", .tenant = "blue"}};
    static const uint8_t reds[] = {1, 99, 130, 200}, blues[] = {77, 78, 120, 201};
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.open_clients = false;
    t.config.clients = clients;
    t.config.n_clients = 2;
    core_test_open(&t);
    (void)core_test_ready_worker(&t, "w");
    uint64_t red = core_test_client(&t, "r", "red", 1), blue = core_test_client(&t, "b", "blue", 2);
    for (size_t i = 0; i < sizeof reds; i++) {
        assert_int_equal(core_test_submit_ask(&t, red, reds[i], "m", 20), ERR_OK);
        assert_int_equal(core_test_submit_ask(&t, blue, blues[i], "m", 20), ERR_OK);
    }
    for (int newest = 0; newest < 2; newest++) {
        struct id after;
        struct wire_request list = {
            .kind = WIRE_REQUEST_LIST_JOBS,
            .session = red,
            .list_jobs = {.tenant = "", .model = "", .limit = 1, .newest_first = newest == 1}};
        for (size_t i = 0; i < sizeof reds; i++) {
            const struct wire_list_jobs_reply *r = &core_test_ask(&t, &list)->list_jobs;
            assert_int_equal(r->n_jobs, 1);
            assert_int_equal(r->jobs[0].job_id.bytes[15], reds[newest ? sizeof reds - 1 - i : i]);
            assert_int_equal(r->more, i + 1 < sizeof reds);
            for (size_t k = 0; k < sizeof blues; k++)
                assert_int_not_equal(r->next.bytes[15], blues[k]);
            after = r->next;
            list.list_jobs.after = (struct wire_bytes){.data = after.bytes, .size = ID_BYTES};
        }
    }
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_refuses_writes_and_answers_reads),
        cmocka_unit_test(old_jobs_are_removed_as_they_ended),
        cmocka_unit_test(a_job_that_has_just_ended_is_kept),
        cmocka_unit_test(lists_page_both_ways),
        cmocka_unit_test(jobs_are_found_by_their_end),
        cmocka_unit_test(a_page_looks_at_a_bounded_number_of_jobs),
        cmocka_unit_test(a_page_tells_no_id_of_others),
        cmocka_unit_test(other_tenants_jobs_are_not_even_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
