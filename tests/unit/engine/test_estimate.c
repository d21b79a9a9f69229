/* What a model will hold, as it is reckoned from the header: by hand, and against what is held. */
#include "tests/unit/engine/rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "tests/unit/model/gguf_build.h"
#include "worker/engine/runtime_shape.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL 7u

/* ---- by hand ---------------------------------------------------------------------------- */

/* The scalar backend keeps matrices as the file has them, and keys and values as floats. */
static const struct engine_config scalar = {.isa = BACKEND_ISA_SCALAR, .threads = 1};

static enum err estimate_memory(const struct gguf_build *b, const struct engine_config *config,
                                const struct engine_model_config *model,
                                struct engine_estimate *ret_estimate, struct errbuf *eb)
{
    struct buf file;
    struct gguf *g = NULL;
    enum err e;

    gguf_build_finish(b, &file);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, eb), ERR_OK);
    e = runtime_estimate(config, model, g, ret_estimate, eb);
    gguf_close(g);
    buf_fini(&file);
    return e;
}

static void weights_and_pages_are_the_sums_of_the_header(void **state)
{
    /* Q8_0 takes 34 bytes for 32 elements. */
    const uint64_t attention = 2 * (32 + 16 + 16 + 32) * 34;
    const uint64_t ffn = 2 * (64 + 64 + 2 * 32) * 34;
    const uint64_t page = KV_PAGE_TOKENS * (2 * 2 * (8 + 8)) * sizeof(float);
    const struct engine_model_config model = {.context_tokens = 100, .slots = 2};
    struct engine_estimate e;
    struct gguf_build b;
    struct errbuf eb = {{0}};

    (void)state;
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_Q8_0);
    assert_int_equal(estimate_memory(&b, &scalar, &model, &e, &eb), ERR_OK);
    assert_int_equal(e.weights_bytes, BUILD_BPE_TOKENS * 34 + attention + ffn);
    assert_int_equal(e.context_tokens, 100);
    assert_int_equal(e.kv_pages, 2 * 4);
    assert_int_equal(e.kv_page_bytes, page);
    assert_int_equal(e.kv_bytes, 2 * 4 * page);
    /* A head of its own beside the embedding. */
    gguf_build_tensor(&b, "output.weight", QUANT_TYPE_Q8_0, 32, BUILD_BPE_TOKENS);
    assert_int_equal(estimate_memory(&b, &scalar, &model, &e, &eb), ERR_OK);
    assert_int_equal(e.weights_bytes, 2 * BUILD_BPE_TOKENS * 34 + attention + ffn);
    gguf_build_fini(&b);
}

static void pages_hold_each_layers_own_heads(void **state)
{
    const struct engine_model_config asked = {.context_tokens = KV_PAGE_TOKENS, .slots = 1};
    struct engine_model_config model = asked;
    struct engine_estimate e;
    struct tiny_model m;
    uint32_t kv_heads = 0;
    char path[64];

    (void)state;
    assert_true(tiny_model_shape("llama-layers", &m));
    for (uint32_t i = 0; i < m.n_layers; i++)
        kv_heads += m.kv_heads_of[i];
    assert_int_equal(kv_heads, 2 + 1 + 2);
    tiny_model_write(&m, path);
    model.path = path;
    assert_int_equal(engine_estimate_file(&scalar, &model, &e, NULL), ERR_OK);
    assert_int_equal(e.kv_page_bytes, KV_PAGE_TOKENS * 5 * (32 + 32) * sizeof(float));
    assert_int_equal(e.kv_bytes, e.kv_page_bytes);
    assert_int_equal(unlink(path), 0);
}

/* What NCCL is reckoned to take is part of a rank's exchange, once for each group of ranks that it
 * is of: the coordinator, which knows no more than the cut, counts them alike. */
static void nccl_counts_once_for_each_group_of_ranks(void **state)
{
    static const struct {
        uint32_t shards, stages, groups[8]; /* by rank */
    } rows[] = {{2, 1, {1, 1}},
                {1, 2, {3, 3}},
                {2, 2, {4, 3, 4, 4}},
                {1, 3, {3, 3, 3}},
                {2, 3, {4, 3, 4, 4, 4, 4}}};
    const uint64_t each = 1000003;
    struct tiny_model tiny = tiny_model_default();
    char path[64];

    (void)state;
    tiny.n_layers = 3;
    tiny_model_write(&tiny, path);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (uint32_t rank = 0; rank < rows[i].shards * rows[i].stages; rank++) {
            struct gang_config gang = {
                .coll = {.transport = COLL_TRANSPORT_NCCL, .control = COLL_TRANSPORT_SHM}};
            const struct engine_model_config model = {
                .path = path,
                .context_tokens = 64,
                .shard = {.shards = rows[i].shards, .stages = rows[i].stages},
                .rank = rank,
                .gang = &gang};
            struct engine_estimate without, with;
            assert_int_equal(engine_estimate_file(&scalar, &model, &without, NULL), ERR_OK);
            gang.nccl_bytes = each;
            assert_int_equal(engine_estimate_file(&scalar, &model, &with, NULL), ERR_OK);
            assert_int_equal(with.exchange_bytes - without.exchange_bytes,
                             rows[i].groups[rank] * each);
            assert_int_equal(engine_estimate_total(&with) - engine_estimate_total(&without),
                             rows[i].groups[rank] * each);
            assert_int_equal(shard_rank_groups(rows[i].shards, rows[i].stages, rank),
                             rows[i].groups[rank]);
        }
    }
    assert_int_equal(unlink(path), 0);
}

static void a_head_that_is_not_whole_blocks_has_no_estimate(void **state)
{
    const struct engine_model_config model = {.kv_type = KV_TYPE_Q8_0};
    struct engine_estimate e = {.kv_pages = 77};
    struct gguf_build b;
    struct errbuf eb = {{0}};

    (void)state;
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_Q8_0); /* heads of 8 */
    assert_int_equal(estimate_memory(&b, &scalar, &model, &e, &eb), ERR_UNSUPPORTED);
    assert_non_null(strstr(eb.text, "multiple of 32"));
    assert_int_equal(e.kv_pages, 77);
    gguf_build_fini(&b);
}

/* ---- against loading -------------------------------------------------------------------- */

static void estimates_are_what_loading_then_holds(void **state)
{
    static const enum backend_isa isas[] = {BACKEND_ISA_SCALAR, BACKEND_ISA_AVX2,
                                            BACKEND_ISA_AVX512, BACKEND_ISA_AMX};
    static const enum quant_type types[] = {QUANT_TYPE_Q8_0, QUANT_TYPE_Q4_1, QUANT_TYPE_F16};

    (void)state;
    for (size_t i = 0; i < sizeof isas / sizeof isas[0]; i++) {
        if (!backend_isa_available(isas[i]))
            continue;
        for (size_t t = 0; t < 3; t++) {
            struct tiny_model m = tiny_model_default();
            struct engine_config config = {.isa = isas[i], .threads = 1, .sequences = 4};
            char path[64];
            struct engine_model_config model = {.path = path, .slots = 3, .context_tokens = 200};
            struct engine_estimate estimate;
            struct rig rig;
            m.layer_type = types[t];
            m.n_embd = 256;
            tiny_model_write(&m, path);
            assert_int_equal(engine_estimate_file(&config, &model, &estimate, NULL), ERR_OK);
            assert_int_equal(estimate.context_tokens, 200);
            assert_int_equal(estimate.kv_pages, 21);
            assert_int_equal(estimate.kv_bytes, 21 * estimate.kv_page_bytes);
            rig_open(&rig, &config);
            rig_load(&rig, MODEL, &model);
            assert_int_equal(rig.model_event.weights_bytes, estimate.weights_bytes);
            assert_int_equal(rig.model_event.kv_bytes, estimate.kv_bytes);
            assert_int_equal(rig.model_event.scratch_bytes, estimate.scratch_bytes);
            rig_close(&rig);
            assert_int_equal(unlink(path), 0);
        }
    }
}

/* What the worker's catalogue offers, it can load: a model is refused at the start and not by every
 * job that asks for it. */
static void an_estimate_refuses_what_loading_would_refuse(void **state)
{
    static const struct {
        uint32_t head_dim;
        enum kv_type kv_type;
        const char *says; /* NULL: it loads */
    } rows[] = {
        {32, KV_TYPE_F16, NULL},           {32, KV_TYPE_Q8_0, NULL},
        {48, KV_TYPE_F16, NULL},           {48, KV_TYPE_Q8_0, "multiple of 32"},
        {512, KV_TYPE_F16, NULL},          {512, KV_TYPE_Q8_0, NULL},
        {514, KV_TYPE_F16, "at most 512"}, {1024, KV_TYPE_Q8_0, "at most 512"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tiny_model m = tiny_model_default();
        struct engine_config config = {.threads = 1, .sequences = 4};
        char path[64];
        struct engine_model_config model = {.path = path, .kv_type = rows[i].kv_type};
        struct engine_estimate estimate;
        struct errbuf eb = {{0}};
        struct rig rig;
        m.head_dim = rows[i].head_dim;
        m.n_embd = 64;
        m.n_layers = 1;
        m.layer_type = m.embd_type = QUANT_TYPE_F32;
        tiny_model_write(&m, path);
        enum err e = engine_estimate_file(&config, &model, &estimate, &eb);
        if ((e == ERR_OK) != (rows[i].says == NULL) ||
            (rows[i].says != NULL && strstr(eb.text, rows[i].says) == NULL))
            fail_msg("row %zu: %s", i, eb.text);
        rig_open(&rig, &config);
        assert_int_equal(engine_load(rig.engine, MODEL, &model, NULL), ERR_OK);
        rig_until_model_event(&rig);
        assert_int_equal(rig.model_event.kind, rows[i].says == NULL ? ENGINE_EVENT_MODEL_READY
                                                                    : ENGINE_EVENT_MODEL_FAILED);
        if (rows[i].says != NULL)
            assert_string_equal(rig.model_event.error_text, eb.text);
        rig_close(&rig);
        assert_int_equal(unlink(path), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_and_pages_are_the_sums_of_the_header),
        cmocka_unit_test(pages_hold_each_layers_own_heads),
        cmocka_unit_test(nccl_counts_once_for_each_group_of_ranks),
        cmocka_unit_test(a_head_that_is_not_whole_blocks_has_no_estimate),
        cmocka_unit_test(estimates_are_what_loading_then_holds),
        cmocka_unit_test(an_estimate_refuses_what_loading_would_refuse),
    };
    return cmocka_run_group_tests_name("estimate", tests, NULL, NULL);
}
