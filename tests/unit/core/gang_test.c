#include "tests/unit/core/gang_test.h"

#include "common/buf.h"
#include "tests/sim/even_shape.h"

#include <string.h>

#define GB CORE_TEST_GB

/* ---- a model of 6 GB ---- */

static struct buf shape_bytes;

int gang_test_setup(void **state)
{
    (void)state;
    even_shape_pack(&shape_bytes);
    return 0;
}

int gang_test_teardown(void **state)
{
    (void)state;
    buf_fini(&shape_bytes);
    return 0;
}

struct core_test_worker gang_member_hello(const struct gang_member *m)
{
    return (struct core_test_worker){.name = m->name,
                                     .key = (uint8_t)m->name[0],
                                     .total_bytes = (uint64_t)(m->gb * GB),
                                     .free_bytes = (uint64_t)(m->gb * GB),
                                     .models = {"m"},
                                     .weights_bytes = {6 * GB},
                                     .digest = 7,
                                     .shape = {shape_bytes.data, shape_bytes.size},
                                     .gang_settings = m->settings != NULL ? m->settings : "alike",
                                     .rank_bytes = GB / 100,
                                     .host = m->host,
                                     .transports = m->transports,
                                     .has_gpu = m->has_gpu};
}

uint64_t gang_member_says(struct core_test *t, const struct gang_member *m,
                          const struct wire_model_status *status)
{
    struct core_test_worker w = gang_member_hello(m);
    w.status = status;
    w.n_status = status != NULL ? 1 : 0;
    return core_test_worker(t, &w);
}

uint64_t gang_member(struct core_test *t, const struct gang_member *m)
{
    return gang_member_says(t, m, NULL);
}

struct wire_model_status gang_status_of(enum wire_model_state state, struct gang_share s,
                                        const char *error)
{
    return (struct wire_model_status){.name = "m",
                                      .state = state,
                                      .error = error,
                                      .failures = state == WIRE_MODEL_STATE_FAILED,
                                      .gang = s.gang,
                                      .rank = s.rank,
                                      .ranks = s.ranks};
}

void gang_says(struct core_test *t, uint64_t worker, struct wire_model_status status)
{
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.models = &status, .n_models = 1}};
    assert_int_equal(core_test_ask(t, &report)->kind, WIRE_REQUEST_REPORT);
}

void gang_says_ready(struct core_test *t, uint64_t worker, struct gang_share s)
{
    gang_says(t, worker, gang_status_of(WIRE_MODEL_STATE_READY, s, ""));
}

struct wire_command gang_command(struct core_test *t, uint64_t worker, uint64_t acked,
                                 enum wire_command_kind kind)
{
    struct wire_pull_reply pull = core_test_pull(t, worker, acked);
    if (pull.n_commands != 1 || pull.commands[0].kind != kind)
        fail_msg("%zu commands, the first of kind %d", pull.n_commands,
                 pull.n_commands > 0 ? (int)pull.commands[0].kind : 0);
    return pull.commands[0];
}

const struct gang_member gang_pair_a = {"a", 4, 1, GANG_SHM, NULL, false},
                         gang_pair_b = {"b", 4, 1, GANG_SHM, NULL, false};

void gang_pair_start(struct gang_pair *p, const struct gang_member *a, const struct gang_member *b)
{
    core_test_init(&p->t);
    core_test_open(&p->t);
    p->a = gang_member(&p->t, a);
    p->b = gang_member(&p->t, b);
    p->client = core_test_client(&p->t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&p->t, p->client, 1, "m", 20), ERR_OK);
}

void gang_pair_load(struct gang_pair *p, const struct gang_member *a, const struct gang_member *b)
{
    gang_pair_start(p, a, b);
    p->gang = gang_command(&p->t, p->a, 0, WIRE_COMMAND_LOAD).load.place.gang;
    (void)gang_command(&p->t, p->b, 0, WIRE_COMMAND_LOAD);
}

void gang_pair_run(struct gang_pair *p)
{
    gang_pair_load(p, &gang_pair_a, &gang_pair_b);
    gang_says_ready(&p->t, p->b, (struct gang_share){p->gang, 1, 2});
    gang_says_ready(&p->t, p->a, (struct gang_share){p->gang, 0, 2});
    (void)gang_command(&p->t, p->a, 1, WIRE_COMMAND_RUN);
}
