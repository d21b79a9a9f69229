/* One model in stages, with or without shards, on several engines: the logits of one, whatever the
 * number of stages and of the pieces that a step is cut into; what each rank holds; and how a
 * rank's end becomes the end of all, in one and the same words. */
#include "tests/unit/engine/gang_rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "common/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL GANG_RIG_MODEL

/* What the agent counts on where a gang is dissolved; most of it is a busy machine's. */
#define AT_ONCE_MS 1000u

/* ---- what stages answer --------------------------------------------------------------------- */

struct way {
    uint32_t stages, shards;
    uint64_t weights[GANG_RIG_RANKS_MAX];
    enum kv_type kv;
};

static struct engine_model_config model_of(const struct way *way, const char *path)
{
    struct engine_model_config model = {.path = path, .kv_type = way->kv, .slots = 3};

    model.shard.stages = way->stages;
    model.shard.shards = way->shards;
    memcpy(model.shard.weights, way->weights, sizeof way->weights);
    for (uint32_t i = 0; i < GANG_RIG_RANKS_MAX; i++)
        if (way->weights[i] > 0)
            model.shard.n_weights = way->stages * way->shards;
    return model;
}

static void compare_way(const char *name, const struct way *way, const char *path,
                        const struct engine_config *config, uint32_t context_tokens,
                        const char *text)
{
    struct engine_model_config model = model_of(way, path);
    struct engine_model_config whole = {.path = path, .kv_type = way->kv, .slots = 3};
    struct gang_rig_answers alone;

    model.context_tokens = whole.context_tokens = context_tokens;
    gang_rig_alone(config, &whole, text, &alone);
    gang_rig_compare(name, config, &model, text, &alone);
}

/* Every architecture, each in two of the ways; the steps here are too short for more than one
 * piece. */
static void any_number_of_stages_gives_the_logits_of_one(void **state)
{
    static const struct way ways[] = {
        {2, 1, {0}, KV_TYPE_F16},
        {3, 1, {1, 5, 2}, KV_TYPE_F16},
        {2, 2, {0}, KV_TYPE_F16},
        {3, 2, {1, 3, 2, 0, 1, 1}, KV_TYPE_F16},
    };
    const struct engine_config config = {.threads = 1, .step_tokens = 24, .sequences = 4};

    (void)state;
    for (size_t i = 0; i < tiny_model_shape_count(); i++) {
        struct tiny_model tiny;
        char path[64];
        assert_true(tiny_model_shape(tiny_model_shape_name(i), &tiny));
        if (i % 2 == 0)
            tiny.layer_type = tiny.embd_type = QUANT_TYPE_Q8_0;
        tiny_model_write(&tiny, path);
        for (size_t k = i % 2; k < sizeof ways / sizeof ways[0]; k += 2)
            compare_way(tiny_model_shape_name(i), &ways[k], path, &config, 128, NULL);
        assert_int_equal(unlink(path), 0);
    }
}

/* A prompt of several steps, each of several pieces, whose first rows are behind the window of
 * later ones; where it ends, a piece may be all rows without logits, some or none. */
static void any_pieces_give_the_logits_of_one(void **state)
{
    static const struct {
        struct way way;
        uint32_t step_tokens;
    } rows[] = {
        {{2, 1, {0}, KV_TYPE_F16}, 127}, /* one piece */
        {{2, 1, {0}, KV_TYPE_F16}, 200},  {{2, 2, {1, 2, 2, 1}, KV_TYPE_Q8_0}, 512},
        {{3, 1, {0}, KV_TYPE_Q8_0}, 200}, {{4, 2, {0}, KV_TYPE_F16}, 512},
    };
    static char text[448];
    struct tiny_model tiny;
    char path[64];

    (void)state;
    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = (char)('a' + i * i % 23);
    assert_true(tiny_model_shape("gemma3", &tiny));
    tiny.context = 512;
    tiny_model_write(&tiny, path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct engine_config config = {
            .threads = 1, .step_tokens = rows[i].step_tokens, .sequences = 4};
        compare_way("gemma3", &rows[i].way, path, &config, 512, text);
    }
    assert_int_equal(unlink(path), 0);
}

/* Together they hold the model once, but for what is there for each, and each its own layers. */
static void stages_share_out_weights_and_cache(void **state)
{
    const struct engine_config config = {.threads = 1, .step_tokens = 24, .sequences = 4};
    struct tiny_model tiny;
    struct engine_estimate whole, part;
    uint64_t weights = 0, kv = 0;
    char path[64];
    struct errbuf eb;

    (void)state;
    assert_true(tiny_model_shape("gemma3-27b", &tiny));
    tiny.own_head = true;
    tiny.layer_type = tiny.embd_type = QUANT_TYPE_Q8_0;
    tiny_model_write(&tiny, path);
    struct engine_model_config model = {.path = path, .shard = {.shards = 1, .stages = 1}};
    assert_int_equal(engine_estimate_file(&config, &model, &whole, &eb), ERR_OK);
    model.shard.stages = 4;
    for (model.rank = 0; model.rank < 4; model.rank++) {
        assert_int_equal(engine_estimate_file(&config, &model, &part, &eb), ERR_OK);
        weights += part.weights_bytes;
        kv += part.kv_bytes;
        assert_true(part.weights_bytes < whole.weights_bytes / 3);
        assert_true(part.kv_bytes < whole.kv_bytes / 3);
        assert_int_equal(part.kv_pages, whole.kv_pages);
    }
    assert_int_equal(weights, whole.weights_bytes);
    assert_int_equal(kv, whole.kv_bytes);
    assert_int_equal(unlink(path), 0);
}

/* ---- how they end --------------------------------------------------------------------------- */

static void model_at(char *ret_path)
{
    struct tiny_model tiny = tiny_model_default();
    tiny.n_layers = 4;
    tiny_model_write(&tiny, ret_path);
}

/* All but `gone` failed, at once, in one and the same words, which name it. */
static void assert_gone(struct gang_rig *r, uint32_t gone, uint64_t since_ms)
{
    const char *words = r->rig[gone == 0 ? 1 : 0].model_event.error_text;
    char stopped[64], left[64];

    (void)snprintf(stopped, sizeof stopped, "rank %u was told to stop", gone);
    (void)snprintf(left, sizeof left, "rank %u left the gang", gone);
    for (uint32_t k = 0; k < r->n; k++) {
        const struct engine_event *ev = &r->rig[k].model_event;
        rig_until_model_event(&r->rig[k]);
        assert_int_equal(ev->kind, k == gone ? ENGINE_EVENT_MODEL_GONE : ENGINE_EVENT_MODEL_FAILED);
        if (k != gone && strstr(ev->error_text, stopped) == NULL &&
            strstr(ev->error_text, left) == NULL)
            fail_msg("rank %u, while %u goes: %s", k, gone, ev->error_text);
        const uint64_t took = clock_mono_ms() - since_ms;
        if (took > AT_ONCE_MS)
            fail_msg("rank %u hears after %llu ms that %u is gone", k, (unsigned long long)took,
                     gone);
    }
    for (uint32_t k = 0; k < r->n; k++)
        if (k != gone)
            assert_string_equal(r->rig[k].model_event.error_text, words);
}

/* Two stages of two shards, of which one goes: while they idle, decode, or hand on a prompt. */
static void a_rank_that_goes_ends_all_stages(void **state)
{
    static const struct way way = {2, 2, {0}, KV_TYPE_F16};
    const struct engine_config config = {.threads = 1, .step_tokens = 256, .sequences = 4};
    static struct gang_rig r;
    static char text[230];
    char path[64];
    struct errbuf eb;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    model_at(path);
    const struct engine_model_config model = model_of(&way, path);
    for (uint32_t busy = 0; busy < 3; busy++) {
        for (uint32_t gone = 0; gone < 4; gone++) {
            struct engine_job job = gang_rig_job(1);
            gang_rig_open(&r, &config, &model);
            gang_rig_ready(&r);
            job.max_tokens = 180;
            if (busy == 2) {
                job.text = text;
                job.text_size = sizeof text - 1;
            }
            if (busy > 0)
                assert_int_equal(rig_submit(&r.rig[0], &job, &eb), ERR_OK);
            while (busy == 1 && r.rig[0].answers[1].ids.count == 0)
                rig_next(&r.rig[0]);
            const uint64_t since = clock_mono_ms();
            assert_int_equal(engine_unload(r.rig[gone].engine, MODEL, &eb), ERR_OK);
            if (busy > 0) {
                const struct answer *a = rig_wait(&r.rig[0], 1);
                if (a->finish == ENGINE_FINISH_ERROR)
                    assert_int_equal(a->error, ERR_UNAVAILABLE);
            }
            assert_gone(&r, gone, since);
            gang_rig_close(&r);
        }
    }
    assert_int_equal(unlink(path), 0);
}

/* Ranks that would cut the model at other layers do not meet. */
static void stages_that_differ_do_not_meet(void **state)
{
    static struct gang_rig r;
    const struct engine_config config = {.threads = 1, .step_tokens = 24, .sequences = 4};
    static const struct way ways[2] = {{4, 1, {0}, KV_TYPE_F16}, {2, 2, {0}, KV_TYPE_F16}};
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    const struct gang_config gang = gang_rig_config(4);
    r.n = 4;
    for (uint32_t k = 0; k < 4; k++) {
        r.gang[k] = gang;
        r.gang[k].coll.rank = k;
        r.model[k] = model_of(&ways[k == 3], path);
        r.model[k].rank = k;
        r.model[k].gang = &r.gang[k];
        rig_open(&r.rig[k], &config);
        assert_int_equal(engine_load(r.rig[k].engine, MODEL, &r.model[k], &eb), ERR_OK);
    }
    for (uint32_t k = 0; k < 4; k++) {
        rig_until_model_event(&r.rig[k]);
        assert_int_equal(r.rig[k].model_event.kind, ENGINE_EVENT_MODEL_FAILED);
        if (strstr(r.rig[k].model_event.error_text, "another plan") == NULL)
            fail_msg("rank %u: %s", k, r.rig[k].model_event.error_text);
    }
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_stages_gives_the_logits_of_one),
        cmocka_unit_test(any_pieces_give_the_logits_of_one),
        cmocka_unit_test(stages_share_out_weights_and_cache),
        cmocka_unit_test(a_rank_that_goes_ends_all_stages),
        cmocka_unit_test(stages_that_differ_do_not_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
