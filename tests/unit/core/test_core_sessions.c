/* Who may talk: Hello in two steps, keys, names, and crowds of both. */
#include "tests/unit/core/core_test.h"

#include "common/limits.h"

#include <stdio.h>

static void hello_wants_proof(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
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
    core_test_start(&t);
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
    core_test_start(&t);
    uint64_t first = core_test_ready_worker(&t, "w");
    struct core_test_worker thief = {.name = "w", .key = 9, .total_bytes = CORE_TEST_GB};
    assert_int_equal(core_test_worker(&t, &thief), 0);
    (void)core_test_pull(&t, first, 0); /* parked, still connected */
    core_test_wait(&t, t.config.lease_ms + 1);
    assert_int_not_equal(core_test_worker(&t, &thief), 0);
    core_test_fini(&t);
}

#define WORKERS_MAX (LIMIT_MODELS / LIMIT_MODELS_PER_WORKER)

/* Worker number `i` has as many models as a worker may, all of its own. */
static const struct wire_reply *worker_with_models(struct core_test *t, unsigned i)
{
    static char names[LIMIT_MODELS_PER_WORKER][8], name[8];
    static struct wire_model_offer offers[LIMIT_MODELS_PER_WORKER];
    (void)snprintf(name, sizeof name, "w%u", i);
    for (unsigned k = 0; k < LIMIT_MODELS_PER_WORKER; k++) {
        (void)snprintf(names[k], sizeof names[k], "%u", i * LIMIT_MODELS_PER_WORKER + k);
        offers[k] = (struct wire_model_offer){.name = names[k],
                                              .architecture = names[k],
                                              .quantization = "",
                                              .chat_template = "",
                                              .gang_settings = "",
                                              .context_tokens = 1000};
    }
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_WORKER,
                                           .node = name,
                                           .tenant = "",
                                           .build = "",
                                           .worker = {.models = offers,
                                                      .n_models = LIMIT_MODELS_PER_WORKER,
                                                      .device = "",
                                                      .nccl = {.version = ""},
                                                      .isa = ""}}};
    hello.session = core_test_ask(t, &hello)->session;
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    return core_test_ask(t, &hello);
}

/* No more than can be listed; those that no worker has and no job asks for make room for others. */
static void no_more_models_are_known_than_can_be_listed(void **state)
{
    struct core_test t;
    uint64_t sessions[WORKERS_MAX];
    (void)state;
    core_test_start(&t);
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        const struct wire_reply *reply = worker_with_models(&t, i);
        assert_true(reply->hello.established);
        sessions[i] = reply->session;
    }
    core_test_expect_error(worker_with_models(&t, WORKERS_MAX), ERR_TOO_LARGE,
                           "4352 models would be known");
    /* Of the models of a worker that left one is asked for by a job that is kept. */
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "256", 20), ERR_OK);
    struct wire_request goodbye = {
        .kind = WIRE_REQUEST_GOODBYE, .session = sessions[1], .goodbye = {.reason = ""}};
    (void)core_test_ask(&t, &goodbye);
    core_test_expect_error(worker_with_models(&t, WORKERS_MAX), ERR_TOO_LARGE,
                           "4097 models would be known");
    goodbye.session = sessions[2];
    (void)core_test_ask(&t, &goodbye);
    assert_true(worker_with_models(&t, WORKERS_MAX)->hello.established);
    assert_int_equal(core_test_count(&t, CORE_EFFECT_DELETE_LEARNED), 1);
    struct wire_request models = {
        .kind = WIRE_REQUEST_LIST_MODELS, .session = client, .list_models = {.model = ""}};
    assert_int_equal(core_test_ask(&t, &models)->list_models.n_models, LIMIT_MODELS);
    assert_string_equal(core_test_job(&t, client, 1).model, "256");
    /* And those of a worker that comes back to find others in their place are taken when there is
     * room again. */
    goodbye.session = sessions[3];
    (void)core_test_ask(&t, &goodbye);
    assert_true(worker_with_models(&t, 2)->hello.established);
    core_test_fini(&t);
}

/* Strangers who say Hello once and go keep nobody out. */
static void a_flood_of_first_hellos_is_forgotten(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
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

/* On a connection of its own, like each command line, which leaves its session behind. */
static uint64_t visitor(struct core_test *t, uint8_t key)
{
    t->connection++;
    return core_test_client(t, "c", "", key);
}

static const struct wire_reply *models_ask(struct core_test *t, uint64_t session,
                                           uint64_t connection)
{
    struct wire_request list = {
        .kind = WIRE_REQUEST_LIST_MODELS, .session = session, .list_models = {.model = ""}};
    uint64_t now = t->connection;
    t->connection = connection;
    const struct wire_reply *reply = core_test_ask(t, &list);
    t->connection = now;
    return reply;
}

static void quiet_clients_make_room_for_others(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t first = visitor(&t, 2), at = t.connection;
    for (unsigned i = 1; i < 65536; i++)
        assert_true(visitor(&t, (uint8_t)(2 + i % 20)) != 0);
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_CLIENT, .node = "c", .tenant = ""}};
    t.connection++;
    core_test_expect_error(core_test_ask(&t, &hello), ERR_BUSY, "65536 sessions are open");
    /* Workers have room of their own. */
    assert_true(core_test_ready_worker(&t, "w") != 0);
    core_test_wait(&t, 59000);
    assert_int_equal(models_ask(&t, first, at)->kind, WIRE_REQUEST_LIST_MODELS);
    core_test_wait(&t, 2000);
    assert_true(visitor(&t, 2) != 0);
    assert_int_equal(models_ask(&t, first, at)->kind, WIRE_REQUEST_LIST_MODELS); /* not quiet */
    core_test_fini(&t);
}

/* Whoever has one key, and says Hello as often as he likes, ends his own sessions: the ones that
 * nobody uses before the one that is in use, and nobody else's. */
static void one_key_does_not_take_all_the_room(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t other = visitor(&t, 3), other_at = t.connection;
    uint64_t used = visitor(&t, 2), used_at = t.connection;
    uint64_t unused = visitor(&t, 2), unused_at = t.connection;
    for (unsigned i = 0; i < 70000; i++) {
        if (i % 1000 == 0) {
            core_test_wait(&t, 10);
            assert_int_equal(models_ask(&t, used, used_at)->kind, WIRE_REQUEST_LIST_MODELS);
        }
        assert_true(visitor(&t, 2) != 0);
    }
    core_test_expect_error(models_ask(&t, unused, unused_at), ERR_STALE, "say Hello again");
    assert_int_equal(models_ask(&t, used, used_at)->kind, WIRE_REQUEST_LIST_MODELS);
    assert_int_equal(models_ask(&t, other, other_at)->kind, WIRE_REQUEST_LIST_MODELS);
    assert_true(visitor(&t, 4) != 0);
    assert_true(core_test_ready_worker(&t, "w") != 0);
    core_test_fini(&t);
}

/* Half-open sessions are of strangers: thousands on one connection push out none of another's. */
static void one_connection_does_not_take_all_the_room(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    struct wire_request hello = {.kind = WIRE_REQUEST_HELLO,
                                 .hello = {.role = WIRE_ROLE_CLIENT, .node = "c", .tenant = ""}};
    t.connection = 1;
    uint64_t slow = core_test_ask(&t, &hello)->session;
    t.connection = 2;
    uint64_t flood = core_test_ask(&t, &hello)->session;
    for (unsigned i = 0; i < 10000; i++)
        (void)core_test_ask(&t, &hello);
    hello.hello.signature = (struct wire_bytes){.data = hello.hello.nonce, .size = 64};
    hello.session = flood;
    core_test_expect_error(core_test_ask(&t, &hello), ERR_STALE, "no such session");
    t.connection = 1;
    hello.session = slow;
    assert_true(core_test_ask(&t, &hello)->hello.established);
    /* Established ones are not pushed out, and there is an end to them. */
    t.connection = 3;
    for (unsigned i = 0; i < 64; i++)
        assert_true(core_test_client(&t, "c", "", 2) != 0);
    hello.session = 0;
    hello.hello.signature = (struct wire_bytes){0};
    core_test_expect_error(core_test_ask(&t, &hello), ERR_BUSY,
                           "64 sessions are open on this connection");
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hello_wants_proof),
        cmocka_unit_test(a_session_is_good_on_its_own_connection),
        cmocka_unit_test(only_listed_keys_are_let_in),
        cmocka_unit_test(a_name_belongs_to_who_is_connected),
        cmocka_unit_test(no_more_models_are_known_than_can_be_listed),
        cmocka_unit_test(a_flood_of_first_hellos_is_forgotten),
        cmocka_unit_test(quiet_clients_make_room_for_others),
        cmocka_unit_test(one_key_does_not_take_all_the_room),
        cmocka_unit_test(one_connection_does_not_take_all_the_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
