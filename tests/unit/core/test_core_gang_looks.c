/* Looks for the workers of a gang: that a model which takes long to cut is looked at to the end,
 * and nothing is unloaded before. */
#include "tests/unit/core/gang_test.h"

#include "common/buf.h"
#include "common/limits.h"
#include "common/shard_cut.h"
#include "coordinator/core/gang.h"

#define GB CORE_TEST_GB

/* 128 layers of 64 groups each, and one KV head: as much work as a model may make. Each shard with
 * a part of a layer's attention has all of that layer's pool, and the pool is as large as the
 * weights. Nine workers have room for it, one of which, in each layer another, has no attention;
 * fewer would have room if it could be cut anywhere, so the cuts for 2, 3 ... 8 have to be worked
 * out. */
static void long_shape(struct buf *ret_packed)
{
    struct shard_shape shape;
    assert_int_equal(shard_shape_init(&shape, 128, NULL), ERR_OK);
    for (uint32_t i = 0; i < shape.n_layers; i++) {
        struct shard_kind *k = &shape.kind[i];
        *k = (struct shard_kind){.n_heads = 64,
                                 .n_kv_heads = 1,
                                 .n_groups = 64,
                                 .q_bytes = 1 << 20,
                                 .k_bytes = 1 << 10,
                                 .n_ffn_groups = 64,
                                 .ff_bytes = 4 << 20};
        for (uint32_t g = 0; g < 64; g++)
            k->ff_end[g] = (g + 1) * 32;
    }
    shape.vocab = 1024;
    shape.embed_bytes = shape.head_bytes = 65536;
    shape.kv_head_bytes = 5 << 20;
    shard_shape_join(&shape);
    buf_init(ret_packed);
    assert_int_equal(shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, ret_packed, NULL), ERR_OK);
    shard_shape_fini(&shape);
}

struct looks {
    struct core_test t;
    struct buf shape;
    uint64_t session[25], acked[25], client;
    uint32_t n;
    double x_gb[25]; /* of another model, which is loaded and has no jobs; 0: none */
};

static void looks_start(struct looks *l)
{
    long_shape(&l->shape);
    core_test_init(&l->t);
    l->t.config.gang_split = CORE_GANG_SPLIT_SHARDS;
    l->t.config.gang_workers_max = 16;
    l->t.config.residency_ms = 1; /* what has no jobs may be unloaded at once */
    core_test_open(&l->t);
}

static void looks_worker(struct looks *l, double gb, double x_gb)
{
    const uint32_t k = l->n++;
    const char name[] = {(char)('a' + (char)k), '\0'};
    const struct gang_member m = {name, gb, 1, GANG_SHM, NULL, false};
    struct core_test_worker w = gang_member_hello(&m);
    w.kv_bytes = 6 * GB;
    w.shape = (struct wire_bytes){l->shape.data, l->shape.size};
    l->x_gb[k] = x_gb;
    if (x_gb > 0) {
        w.models[1] = "x";
        w.weights_bytes[1] = (uint64_t)((x_gb - 6) * (double)GB); /* beside its pool of 6 GB */
        w.ready[1] = true;
        w.free_bytes -= (uint64_t)(x_gb * (double)GB);
    }
    l->session[k] = core_test_worker(&l->t, &w);
}

static void looks_submit(struct looks *l, uint8_t job)
{
    l->client = core_test_client(&l->t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&l->t, l->client, job, "m", 20), ERR_OK);
}

/* They all say that they live, and hear of a gang of n or that they are to unload; then a second is
 * over. */
static void looks_second(struct looks *l, uint32_t *ret_n_ranks, uint32_t *ret_unloads)
{
    const struct gang_share none = {0, 0, 0};
    struct wire_model_status status[2] = {gang_status_of(WIRE_MODEL_STATE_AVAILABLE, none, ""),
                                          gang_status_of(WIRE_MODEL_STATE_READY, none, "")};
    status[1].name = "x";
    for (uint32_t k = 0; k < l->n; k++) {
        struct wire_request report = {
            .kind = WIRE_REQUEST_REPORT,
            .session = l->session[k],
            .report = {.models = status, .n_models = l->x_gb[k] > 0 ? 2 : 1}};
        assert_int_equal(core_test_ask(&l->t, &report)->kind, WIRE_REQUEST_REPORT);
        const struct wire_pull_reply pull = core_test_pull(&l->t, l->session[k], l->acked[k]);
        for (size_t i = 0; i < pull.n_commands; i++) {
            l->acked[k] = pull.commands[i].seq;
            if (pull.commands[i].kind == WIRE_COMMAND_LOAD)
                *ret_n_ranks = (uint32_t)pull.commands[i].load.place.n_members;
            else
                ++*ret_unloads;
        }
    }
    core_test_wait(&l->t, 1000);
}

static void looks_end(struct looks *l)
{
    core_test_fini(&l->t);
    buf_fini(&l->shape);
}

/* Two more would have room if what they have were unloaded, and are found out in a moment. */
static void nothing_is_unloaded_before_the_end(void **state)
{
    for (uint32_t more = 0; more <= 2; more += 2) {
        struct looks l = {.n = 0};
        uint32_t seconds = 0, n_ranks = 0, unloads = 0;
        (void)state;
        looks_start(&l);
        for (uint32_t k = 0; k < 16; k++)
            looks_worker(&l, 6.5, 0);
        for (uint32_t k = 0; k < more; k++)
            looks_worker(&l, 11, 7);
        looks_submit(&l, 1);
        for (; n_ranks == 0 && seconds < 60; seconds++)
            looks_second(&l, &n_ranks, &unloads);
        assert_int_equal(n_ranks, 9);
        assert_int_equal(unloads, 0);
        assert_in_range(seconds, 3, 30); /* one look has no time for all of it */
        looks_end(&l);
    }
}

/* Sixteen have no room for it now, nine others once they unload: both takes several looks to find
 * out, and the first is not found out anew for each of the second. Gives the seconds. */
static uint32_t unloads_after(struct looks *l)
{
    uint32_t seconds = 0, n_ranks = 0, unloads = 0;
    for (; unloads == 0 && seconds < 100; seconds++)
        looks_second(l, &n_ranks, &unloads);
    assert_int_equal(n_ranks, 0);
    assert_int_equal(unloads, 9);
    return seconds;
}

static void looks_sixteen_and_nine(struct looks *l)
{
    *l = (struct looks){.n = 0};
    looks_start(l);
    for (uint32_t k = 0; k < 16; k++)
        looks_worker(l, 5.5, 0);
    for (uint32_t k = 0; k < 9; k++)
        looks_worker(l, 6.5, 6.1);
    looks_submit(l, 1);
}

static void each_room_is_looked_at_once(void **state)
{
    struct looks l;
    (void)state;
    looks_sixteen_and_nine(&l);
    assert_in_range(unloads_after(&l), 10, 45);
    looks_end(&l);
}

/* Of what a look saw long ago nothing is taken for known. */
static void an_old_look_is_begun_anew(void **state)
{
    uint32_t seconds[2];
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct looks l;
        uint32_t n_ranks = 0, unloads = 0;
        looks_sixteen_and_nine(&l);
        if (i == 1) {
            for (uint32_t k = 0; k < 5; k++)
                looks_second(&l, &n_ranks, &unloads);
            (void)core_test_cancel(&l.t, l.client, 1);
            for (uint32_t k = 0; k < 10; k++)
                looks_second(&l, &n_ranks, &unloads);
            assert_int_equal(unloads, 0);
            assert_int_equal(core_test_submit_ask(&l.t, l.client, 2, "m", 20), ERR_OK);
        }
        seconds[i] = unloads_after(&l);
        looks_end(&l);
    }
    assert_int_equal(seconds[0], seconds[1]);
}

/* Where there are fewer workers than when a look stopped. */
static void one_that_stopped_behind_the_last_try_begins_anew(void **state)
{
    struct core_hosting *from[2];
    struct gang_choice choice;
    struct core_test t;
    size_t n = 0;
    (void)state;
    core_test_start(&t);
    (void)gang_member(&t, &gang_pair_a);
    (void)gang_member(&t, &gang_pair_b);
    const struct core_model *m = model_find(t.core, "m");
    for (struct tree_node *i = tree_first(&m->hosts); i != NULL; i = tree_above(&m->hosts, i))
        from[n++] = tree_entry(i, struct core_hosting, by_model);
    assert_int_equal(n, 2);
    for (uint32_t first = 0; first < 100; first++) {
        assert_true(gang_choose(t.core, from, 2, GANG_ROOM_NOW, first, &choice));
        assert_int_equal(choice.n_ranks, 2);
        assert_int_equal(choice.next, 0);
    }
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_unloaded_before_the_end),
        cmocka_unit_test(each_room_is_looked_at_once),
        cmocka_unit_test(an_old_look_is_begun_anew),
        cmocka_unit_test(one_that_stopped_behind_the_last_try_begins_anew),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
