/* Room for a model that no worker has room for alone: from models that are idle, and, where none
 * ever is, from workers that are kept for it. */
#include "tests/unit/core/gang_test.h"

#include "common/buf.h"
#include "common/limits.h"
#include "tests/sim/even_shape.h"

#include <string.h>

#define GB   CORE_TEST_GB
#define MS_S 1000u

#define TENTHS(n) ((n)*GB / 10)

/* Two of 4.3 GB that have other models as well, of 2.4 GB together, which are loaded. */
struct full {
    struct core_test t;
    uint64_t worker[2], client;
    uint64_t acked[2];
    bool has_y; /* x and y of 1.2 GB each; else x alone */
    bool x_gone[2];
    uint8_t job[2]; /* that it has, of 200 tokens; 0: none */
};

static uint64_t x_bytes(const struct full *f)
{
    return TENTHS(f->has_y ? 12 : 24);
}

static void full_says(struct full *f, uint32_t i)
{
    const struct gang_share none = {0, 0, 0};
    struct wire_model_status status[3] = {
        gang_status_of(WIRE_MODEL_STATE_AVAILABLE, none, ""),
        gang_status_of(f->x_gone[i] ? WIRE_MODEL_STATE_AVAILABLE : WIRE_MODEL_STATE_READY, none,
                       ""),
        gang_status_of(WIRE_MODEL_STATE_READY, none, ""),
    };
    status[1].name = "x";
    status[2].name = "y";
    const uint64_t gone = f->x_gone[i] ? x_bytes(f) : 0;
    struct wire_lease_progress progress = {.job_id = core_test_id(f->job[i]), .epoch = 1};
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = f->worker[i],
                                  .report = {.models = status,
                                             .n_models = f->has_y ? 3 : 2,
                                             .leases = &progress,
                                             .n_leases = f->job[i] != 0,
                                             .memory = {.total_bytes = TENTHS(43),
                                                        .free_bytes = TENTHS(19) + gone,
                                                        .used_bytes = TENTHS(24) - gone}}};
    assert_int_equal(core_test_ask(&f->t, &report)->kind, WIRE_REQUEST_REPORT);
}

static void full_wait(struct full *f, uint64_t ms)
{
    for (uint64_t passed = 0; passed < ms; passed += MS_S) {
        core_test_wait(&f->t, MS_S);
        for (uint32_t i = 0; i < 2; i++)
            full_says(f, i);
    }
}

static void full_start(struct full *f, bool has_y)
{
    static const struct gang_member members[] = {{"a", 4.3, 1, GANG_SHM, NULL, false},
                                                 {"b", 4.3, 1, GANG_SHM, NULL, false}};
    *f = (struct full){.has_y = has_y};
    core_test_start(&f->t);
    for (uint32_t i = 0; i < 2; i++) {
        struct core_test_worker w = gang_member_hello(&members[i]);
        w.free_bytes = TENTHS(19);
        w.models[1] = "x";
        w.models[2] = has_y ? "y" : NULL;
        w.weights_bytes[1] = w.weights_bytes[2] = x_bytes(f);
        w.ready[1] = w.ready[2] = true;
        f->worker[i] = core_test_worker(&f->t, &w);
    }
    f->client = core_test_client(&f->t, "c", "", 2);
}

/* How many commands of a kind worker i has that it has not had before. */
static size_t full_commands(struct full *f, uint32_t i, enum wire_command_kind kind)
{
    const struct wire_pull_reply pull = core_test_pull(&f->t, f->worker[i], f->acked[i]);
    size_t n = 0;
    for (size_t k = 0; k < pull.n_commands; k++) {
        if (pull.commands[k].kind != kind)
            fail_msg("command %zu of worker %u is of kind %d", k, i, (int)pull.commands[k].kind);
        f->acked[i] = pull.commands[k].seq;
        n++;
    }
    (void)core_test_pull(&f->t, f->worker[i], f->acked[i]); /* they were taken */
    return n;
}

/* What is on its way out is counted: nothing more goes while it takes its time. */
static void no_more_is_unloaded_than_the_share_needs(void **state)
{
    struct full f;
    (void)state;
    full_start(&f, true);
    full_wait(&f, f.t.config.residency_ms + MS_S);
    assert_int_equal(core_test_submit_ask(&f.t, f.client, 1, "m", 20), ERR_OK);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(full_commands(&f, i, WIRE_COMMAND_UNLOAD), 1);
    full_wait(&f, 5 * MS_S);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(core_test_pull(&f.t, f.worker[i], f.acked[i]).n_commands, 0);
    f.x_gone[0] = true; /* one alone is not enough */
    full_wait(&f, 2 * MS_S);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(core_test_pull(&f.t, f.worker[i], f.acked[i]).n_commands, 0);
    f.x_gone[1] = true;
    full_wait(&f, 2 * MS_S);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(full_commands(&f, i, WIRE_COMMAND_LOAD), 1);
    core_test_fini(&f.t);
}

/* Jobs 1 and 2 are of x, one on each worker; job 3, of m, has waited so long for room that both are
 * kept for it; job 4, of x, finds no worker. */
static void full_reserve(struct full *f)
{
    full_start(f, false);
    for (uint8_t n = 1; n <= 2; n++) {
        assert_int_equal(core_test_submit_ask(&f->t, f->client, n, "x", 200), ERR_OK);
        const char *worker = core_test_job(&f->t, f->client, n).worker;
        f->job[strcmp(worker, "a") == 0 ? 0 : 1] = n;
    }
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(full_commands(f, i, WIRE_COMMAND_RUN), 1);
    full_wait(f, f->t.config.residency_ms + MS_S);
    assert_int_equal(core_test_submit_ask(&f->t, f->client, 3, "m", 20), ERR_OK);
    full_wait(f, f->t.config.residency_ms + 2 * MS_S);
    assert_int_equal(core_test_submit_ask(&f->t, f->client, 4, "x", 20), ERR_OK);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(core_test_pull(&f->t, f->worker[i], f->acked[i]).n_commands, 0);
    const struct wire_explain_reply *e = core_test_explain(&f->t, f->client, 4);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(e->candidates[i].predicate, "slots");
        assert_non_null(strstr(e->candidates[i].detail, "it is being emptied for m"));
    }
}

static void full_finish(struct full *f, uint32_t i)
{
    (void)core_test_report(&f->t, f->worker[i], f->job[i], 1, 0, 200, WIRE_FINISH_LENGTH, ERR_OK);
    f->job[i] = 0;
}

static void workers_that_are_never_idle_are_kept_for_it(void **state)
{
    struct full f;
    (void)state;
    full_reserve(&f);
    full_finish(&f, 0); /* its room alone is not enough: it stays kept */
    full_wait(&f, 3 * MS_S);
    assert_int_equal(core_test_pull(&f.t, f.worker[0], f.acked[0]).n_commands, 0);
    full_finish(&f, 1);
    full_wait(&f, 2 * MS_S);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(full_commands(&f, i, WIRE_COMMAND_UNLOAD), 1);
        f.x_gone[i] = true;
    }
    full_wait(&f, 2 * MS_S);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(full_commands(&f, i, WIRE_COMMAND_LOAD), 1);
    core_test_fini(&f.t);
}

/* And what they were kept from goes on there. */
static void they_are_let_go_for_one_that_has_room_alone(void **state)
{
    struct full f;
    (void)state;
    full_reserve(&f);
    const uint64_t z = gang_member(&f.t, &(struct gang_member){"z", 8, 1, GANG_SHM, NULL, false});
    assert_true(gang_command(&f.t, z, 0, WIRE_COMMAND_LOAD).load.place.gang == 0);
    full_wait(&f, 2 * MS_S);
    const size_t runs =
        full_commands(&f, 0, WIRE_COMMAND_RUN) + full_commands(&f, 1, WIRE_COMMAND_RUN);
    assert_int_equal(runs, 1);
    assert_int_equal(core_test_job(&f.t, f.client, 4).state, WIRE_JOB_STATE_RUNNING);
    core_test_fini(&f.t);
}

/* Nobody waits for the model any more. */
static void they_are_let_go_when_the_job_is_cancelled(void **state)
{
    struct full f;
    (void)state;
    full_reserve(&f);
    (void)core_test_cancel(&f.t, f.client, 3);
    full_wait(&f, 2 * MS_S);
    const size_t runs =
        full_commands(&f, 0, WIRE_COMMAND_RUN) + full_commands(&f, 1, WIRE_COMMAND_RUN);
    assert_int_equal(runs, 1);
    core_test_fini(&f.t);
}

/* Two shards would each have the only KV head of every layer, with its pool of 6 GB; two stages
 * have it of half the layers each. */
static void stages_are_taken_where_shards_have_no_room(void **state)
{
    static const struct gang_member members[] = {{"a", 6.5, 1, GANG_SHM, NULL, false},
                                                 {"b", 6.5, 1, GANG_SHM, NULL, false}};
    const enum core_gang_split splits[] = {CORE_GANG_SPLIT_AUTO, CORE_GANG_SPLIT_SHARDS};
    struct shard_shape shape;
    struct buf packed;
    (void)state;
    even_shape_make(&shape);
    for (uint32_t k = 0; k < shape.n_kinds; k++)
        shape.kind[k].n_kv_heads = 1;
    shape.kv_head_bytes = 4000000;
    buf_init(&packed);
    assert_int_equal(shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, &packed, NULL), ERR_OK);
    for (size_t i = 0; i < 2; i++) {
        struct core_test t;
        uint64_t session[2];
        core_test_init(&t);
        t.config.gang_split = splits[i];
        core_test_open(&t);
        for (uint32_t k = 0; k < 2; k++) {
            struct core_test_worker w = gang_member_hello(&members[k]);
            w.kv_bytes = 6 * GB;
            w.shape = (struct wire_bytes){packed.data, packed.size};
            session[k] = core_test_worker(&t, &w);
        }
        const uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        for (uint32_t k = 0; k < 2; k++) {
            const struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
            assert_int_equal(pull.n_commands, splits[i] == CORE_GANG_SPLIT_AUTO);
            if (pull.n_commands > 0)
                assert_int_equal(pull.commands[0].load.place.stages, 2);
        }
        core_test_fini(&t);
    }
    buf_fini(&packed);
    shard_shape_fini(&shape);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_more_is_unloaded_than_the_share_needs),
        cmocka_unit_test(stages_are_taken_where_shards_have_no_room),
        cmocka_unit_test(workers_that_are_never_idle_are_kept_for_it),
        cmocka_unit_test(they_are_let_go_for_one_that_has_room_alone),
        cmocka_unit_test(they_are_let_go_when_the_job_is_cancelled),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
