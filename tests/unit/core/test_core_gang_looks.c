/* Looks for the workers of a gang: that a model which takes long to cut is looked at to the end,
 * and nothing is unloaded before. */
#include "tests/unit/core/gang_test.h"

#include "common/buf.h"
#include "common/limits.h"
#include "common/shard_cut.h"

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

static void what_takes_long_is_looked_at_to_the_end(void **state)
{
    struct core_test t;
    struct buf packed;
    uint64_t session[16];
    uint32_t seconds = 0, n_ranks = 0;
    (void)state;
    long_shape(&packed);
    core_test_init(&t);
    t.config.gang_split = CORE_GANG_SPLIT_SHARDS;
    t.config.gang_workers_max = 16;
    core_test_open(&t);
    for (uint32_t k = 0; k < 16; k++) {
        const char name[] = {(char)('a' + (char)k), '\0'};
        const struct gang_member m = {name, 6.5, 1, GANG_SHM, NULL, false};
        struct core_test_worker w = gang_member_hello(&m);
        w.kv_bytes = 6 * GB;
        w.shape = (struct wire_bytes){packed.data, packed.size};
        session[k] = core_test_worker(&t, &w);
    }
    const uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    for (; n_ranks == 0 && seconds < 60; seconds++) {
        for (uint32_t k = 0; k < 16; k++) {
            gang_says(&t, session[k],
                      gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
            const struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
            if (pull.n_commands > 0)
                n_ranks = (uint32_t)pull.commands[0].load.place.n_members;
        }
        core_test_wait(&t, 1000);
    }
    assert_int_equal(n_ranks, 9);
    assert_in_range(seconds, 3, 30); /* one look has no time for all of it */
    core_test_fini(&t);
    buf_fini(&packed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_takes_long_is_looked_at_to_the_end),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
