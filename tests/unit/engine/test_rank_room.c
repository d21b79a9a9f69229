/*
 * What each rank of a cut model holds, as it follows from a worker's few numbers
 * (common/shard_room.h), beside the rank's own estimate: within a hundredth, on 1 to 16 shards,
 * even and uneven, in stages too.
 *
 *   test_rank_room SYNTHETIC_MODEL [cuda]
 *
 * Models are headers of known shapes with nothing behind them, and what CLOISTER_TEST_MODEL and
 * CLOISTER_TEST_GEMMA name.
 */
#include "common/shard_room.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_shape.h"
#include "worker/kernels/sum_order.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *synthetic;
static bool is_cuda;

static const struct {
    const char *name, *options;
} models[] = {
    {"8B", "--layers 32 --of 32 --embd 4096 --ff 14336 --heads 32 --kv-heads 8 --vocab 128256"},
    {"70B", "--layers 80 --of 80 --embd 8192 --ff 28672 --heads 64 --kv-heads 8 --vocab 128256"},
    {"7B", "--layers 28 --of 28 --embd 3584 --ff 18944 --heads 28 --kv-heads 4 --vocab 152064"},
    {"135M", "--layers 30 --of 30 --embd 576 --ff 1536 --heads 9 --kv-heads 3 --vocab 49152 "
             "--type Q8_0"},
    {"blocks parted", "--layers 24 --of 24 --embd 768 --ff 1536 --heads 12 --kv-heads 4 --vocab "
                      "32000 --type Q4_K_M"},
    {"F16", "--layers 12 --of 12 --embd 2048 --ff 5632 --heads 16 --kv-heads 16 --vocab 32000 "
            "--type F16"},
};
enum { MODELS = sizeof models / sizeof models[0] };

static const struct {
    uint32_t threads, sequences;
    uint32_t context, slots;
    enum kv_type kv_type;
} settings[] = {
    {2, 64, 8192, 4, KV_TYPE_F16},
    {1, 64, 2048, 2, KV_TYPE_Q8_0},
    {32, 16, 8192, 4, KV_TYPE_Q8_0},
    {2, 4, 512, 1, KV_TYPE_F16},
};

static const struct shard_request cuts[] = {
    {1, 1, 0, {0}},
    {2, 1, 0, {0}},
    {3, 1, 0, {0}},
    {4, 1, 0, {0}},
    {5, 1, 0, {0}},
    {6, 1, 0, {0}},
    {7, 1, 0, {0}},
    {8, 1, 0, {0}},
    {9, 1, 0, {0}},
    {10, 1, 0, {0}},
    {11, 1, 0, {0}},
    {12, 1, 0, {0}},
    {13, 1, 0, {0}},
    {14, 1, 0, {0}},
    {15, 1, 0, {0}},
    {16, 1, 0, {0}},
    {2, 1, 2, {3, 1}},
    {2, 1, 2, {1, 0}},
    {5, 1, 5, {2, 0, 5, 1, 3}},
    {4, 1, 4, {80ull << 30, 80ull << 30, 24ull << 30, 16ull << 30}},
    {16, 1, 16, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}},
    {1, 2, 0, {0}},
    {1, 5, 0, {0}},
    {2, 2, 0, {0}},
    {4, 3, 0, {0}},
    {2, 3, 6, {1, 2, 3, 1, 1, 0}},
};
enum { CUTS = sizeof cuts / sizeof cuts[0], SETTINGS = sizeof settings / sizeof settings[0] };

struct whole {
    struct shard_shape shape;
    struct shard_room room;
    struct engine_estimate estimate;
};

static double worst;

/* What little things may come to, where a rank holds next to nothing. */
#define SLACK_BYTES 131072

static void compare_rank(const char *name, const struct whole *w, const struct shard_cut *cut,
                         uint32_t rank, const struct engine_estimate *want)
{
    const struct shard_held held = shard_rank_held(&w->room, &w->shape, cut, rank,
                                                   w->estimate.weights_bytes, w->estimate.kv_bytes);
    const double total = (double)engine_estimate_total(want);
    const double got =
        (double)(held.weights_bytes + held.kv_bytes + held.scratch_bytes + held.exchange_bytes);
    const double off = got / total - 1;

    const double bytes = got > total ? got - total : total - got;
    if (total > 16e6 && cut->n_stages == 1 && bytes / total > worst)
        worst = bytes / total;
    if (bytes > (cut->n_stages == 1 ? 0.01 : 0.02) * total && bytes > SLACK_BYTES)
        fail_msg("%s, rank %u of %u shards in %u stages: %+.2f %%: weights %.0f for %.0f, pool "
                 "%.0f for %.0f, scratch %.0f for %.0f, exchange %.0f for %.0f",
                 name, rank, cut->n_shards, cut->n_stages, 100 * off, (double)held.weights_bytes,
                 (double)want->weights_bytes, (double)held.kv_bytes, (double)want->kv_bytes,
                 (double)held.scratch_bytes, (double)want->scratch_bytes,
                 (double)held.exchange_bytes, (double)want->exchange_bytes);
}

static void compare_cut(const char *name, const struct whole *w, const struct engine_config *config,
                        const struct engine_model_config *model, const struct gguf *g)
{
    struct runtime_shape runtime;
    struct shard_cut *cut = NULL;
    struct errbuf eb = {{0}};

    if (runtime_shape_read(&runtime, config, model, g, &eb) != ERR_OK ||
        shard_cut_new(&cut, &w->shape, &model->shard, &eb) != ERR_OK)
        fail_msg("%s: %s", name, eb.text);
    assert_memory_equal(cut->digest, runtime.plan->cut->digest, sizeof cut->digest);
    for (uint32_t rank = 0; rank < cut->n_ranks; rank++) {
        assert_int_equal(runtime_shape_turn(&runtime, rank, NULL), ERR_OK);
        const struct engine_estimate want = runtime_shape_estimate(&runtime, config, g);
        compare_rank(name, w, cut, rank, &want);
    }
    shard_cut_free(cut);
    runtime_shape_fini(&runtime);
}

static void compare_model(const char *name, const char *path, bool with_stages)
{
    struct gguf *g = NULL;

    worst = 0;
    assert_int_equal(gguf_open_file(&g, path, true, NULL), ERR_OK);
    for (size_t s = 0; s < SETTINGS; s++) {
        const struct engine_config given = {.backend =
                                                is_cuda ? ENGINE_BACKEND_CUDA : ENGINE_BACKEND_CPU,
                                            .isa = BACKEND_ISA_AVX2,
                                            .threads = settings[s].threads,
                                            .sequences = settings[s].sequences};
        struct engine_model_config model = {.path = path,
                                            .context_tokens = settings[s].context,
                                            .slots = settings[s].slots,
                                            .kv_type = settings[s].kv_type};
        struct engine_config config;
        struct whole w;
        struct errbuf eb = {{0}};
        assert_int_equal(runtime_config_complete(&given, &config, NULL), ERR_OK);
        if (engine_shape_file(&config, &model, &w.shape, &w.room, &eb) != ERR_OK ||
            runtime_estimate(&config, &model, g, &w.estimate, &eb) != ERR_OK)
            fail_msg("%s: %s", name, eb.text);
        for (size_t i = 0; i < CUTS; i++) {
            model.shard = cuts[i];
            if (with_stages || cuts[i].stages == 1)
                compare_cut(name, &w, &config, &model, g);
        }
        shard_shape_fini(&w.shape);
    }
    gguf_close(g);
    print_message("%s: shards are at most %.2f %% off\n", name, 100 * worst);
}

static void ranks_hold_what_follows_from_the_shape(void **state)
{
    (void)state;
    for (size_t i = 0; i < MODELS; i++) {
        char path[] = "/tmp/cloister-rank-room-XXXXXX", command[512];
        const int fd = mkstemp(path);
        assert_true(fd >= 0);
        assert_int_equal(close(fd), 0);
        (void)snprintf(command, sizeof command, "'%s' --empty --untied %s %s", synthetic,
                       models[i].options, path);
        assert_int_equal(system(command), 0);
        compare_model(models[i].name, path, true);
        assert_int_equal(unlink(path), 0);
    }
}

/* Of Gemma's layers most turn by another table than the others: a stage may do without one. */
static void so_do_ranks_of_real_models(void **state)
{
    const char *const smollm2 = getenv("CLOISTER_TEST_MODEL"),
                      *gemma = getenv("CLOISTER_TEST_GEMMA");
    (void)state;

    if (smollm2 == NULL && gemma == NULL)
        skip();
    if (smollm2 != NULL)
        compare_model("SmolLM2", smollm2, true);
    if (gemma != NULL)
        compare_model("Gemma 3", gemma, false);
}

static void sums_are_counted_as_kernels_make_them(void **state)
{
    struct sum_node nodes[SUM_NODES_MAX];
    (void)state;

    for (uint32_t groups = 1; groups <= SHARD_GROUPS_MAX; groups++)
        for (uint32_t first = 0; first <= groups; first++)
            for (uint32_t end = first; end <= groups; end++) {
                const struct sum_cut cut = {
                    .blocks = groups, .groups = groups, .unit = 1, .first = first, .end = end};
                assert_int_equal(shard_nodes_of((struct shard_run){first, end}, groups),
                                 first == end ? 0 : sum_nodes(&cut, nodes));
            }
}

/* What a peer says may be anything. */
static void the_largest_numbers_do_not_overflow(void **state)
{
    struct shard_room room;
    struct shard_shape shape;
    struct shard_cut *cut;
    (void)state;

    memset(&room, 0, sizeof room);
    room.joint_bytes = room.down_bytes = SHARD_ROOM_MAX;
    room.joint_tail = room.down_tail = SHARD_ROOM_COUNT_MAX;
    room.joint_block = room.down_block = room.head_columns = SHARD_ROOM_COUNT_MAX;
    room.embedding_bytes = room.output_bytes = room.biases_bytes = SHARD_ROOM_MAX;
    room.every_bytes = room.first_bytes = room.layer_bytes = room.head_bytes = SHARD_ROOM_MAX;
    room.kv_head_bytes = room.column_bytes = room.attention_bytes = SHARD_ROOM_MAX;
    room.level_bytes = room.levels_bytes = room.partial_bytes = room.partials_bytes =
        SHARD_ROOM_MAX;
    room.told_bytes = room.logits_bytes = room.row_bytes = room.track_bytes = SHARD_ROOM_MAX;
    room.partial_rows = room.partial_units = room.rows = room.piece_rows = SHARD_ROOM_COUNT_MAX;
    assert_int_equal(shard_shape_init(&shape, SHARD_LAYERS_MAX, NULL), ERR_OK);
    shape.vocab = 32;
    for (uint32_t i = 0; i < SHARD_LAYERS_MAX; i++)
        shape.kind[i] = (struct shard_kind){.n_heads = 1024,
                                            .n_kv_heads = 1024,
                                            .n_groups = 1,
                                            .n_ffn_groups = 1,
                                            .ff_end = {1 << 20}};
    shard_shape_join(&shape);
    for (uint32_t stages = 1; stages <= 2; stages++) {
        const struct shard_request request = {.shards = 2, .stages = stages};
        assert_int_equal(shard_cut_new(&cut, &shape, &request, NULL), ERR_OK);
        for (uint32_t rank = 0; rank < cut->n_ranks; rank++) {
            const struct shard_held held =
                shard_rank_held(&room, &shape, cut, rank, 1ull << 61, 1ull << 61);
            assert_true(held.weights_bytes <= 1ull << 62 && held.kv_bytes <= 1ull << 61);
            assert_true(held.scratch_bytes >= SHARD_ROOM_MAX && held.scratch_bytes < 1ull << 63);
            assert_true(held.exchange_bytes >= SHARD_ROOM_MAX && held.exchange_bytes < 1ull << 63);
        }
        shard_cut_free(cut);
    }
    shard_shape_fini(&shape);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_hold_what_follows_from_the_shape),
        cmocka_unit_test(so_do_ranks_of_real_models),
        cmocka_unit_test(sums_are_counted_as_kernels_make_them),
        cmocka_unit_test(the_largest_numbers_do_not_overflow),
    };

    if (argc < 2) {
        fputs("usage: test_rank_room SYNTHETIC_MODEL [cuda]\n", stderr);
        return 2;
    }
    synthetic = argv[1];
    is_cuda = argc > 2;
    return cmocka_run_group_tests_name("rank room", tests, NULL, NULL);
}
