/* The architecture table: what each takes from a file, and what it refuses. */
#include "tests/unit/model/gguf_build.h"

#include "common/check.h"
#include "worker/model/arch.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define LAYERS 3u

/* What the four have beside a plain decoder. */
static const struct shape {
    const char *arch;
    bool biases, head_norms, post_norms;
} shapes[] = {
    {"llama", false, false, false},
    {"qwen2", true, false, false},
    {"qwen3", false, true, false},
    {"gemma3", false, true, true},
};

static const struct shape *shape_find(const char *arch)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].arch, arch) == 0)
            return &shapes[i];
    fail_msg("no shape %s", arch);
    return NULL;
}

static const char *key_of(const struct shape *s, const char *name)
{
    static char text[2][128];
    static int turn;
    turn = !turn;
    (void)snprintf(text[turn], sizeof text[turn], "%s.%s", s->arch, name);
    return text[turn];
}

static void put_model(struct gguf_build *b, const struct shape *s)
{
    const struct {
        struct gguf_build_shape shape;
        bool is_there;
    } layer[] = {
        {{"attn_norm.weight", {32, 0}}, true},
        {{"attn_q.weight", {32, 64}}, true},
        {{"attn_k.weight", {32, 32}}, true},
        {{"attn_v.weight", {32, 32}}, true},
        {{"attn_output.weight", {64, 32}}, true},
        {{"ffn_norm.weight", {32, 0}}, true},
        {{"ffn_gate.weight", {32, 96}}, true},
        {{"ffn_up.weight", {32, 96}}, true},
        {{"ffn_down.weight", {96, 32}}, true},
        {{"attn_q.bias", {64, 0}}, s->biases},
        {{"attn_k.bias", {32, 0}}, s->biases},
        {{"attn_v.bias", {32, 0}}, s->biases},
        {{"attn_q_norm.weight", {16, 0}}, s->head_norms},
        {{"attn_k_norm.weight", {16, 0}}, s->head_norms},
        {{"post_attention_norm.weight", {32, 0}}, s->post_norms},
        {{"post_ffw_norm.weight", {32, 0}}, s->post_norms},
    };
    gguf_build_string(b, "general.architecture", s->arch);
    gguf_build_u32(b, key_of(s, "block_count"), LAYERS);
    gguf_build_u32(b, key_of(s, "context_length"), 128);
    gguf_build_u32(b, key_of(s, "embedding_length"), 32);
    gguf_build_u32(b, key_of(s, "feed_forward_length"), 96);
    gguf_build_u32(b, key_of(s, "attention.head_count"), 4);
    gguf_build_u32(b, key_of(s, "attention.head_count_kv"), 2);
    gguf_build_u32(b, key_of(s, "attention.key_length"), 16);
    gguf_build_u32(b, key_of(s, "attention.value_length"), 16);
    gguf_build_f32(b, key_of(s, "attention.layer_norm_rms_epsilon"), 1e-6f);
    gguf_build_f32(b, key_of(s, "rope.freq_base"), 1e6f);
    gguf_build_bpe(b, "llama-bpe");
    gguf_build_tensor(b, "token_embd.weight", QUANT_TYPE_Q8_0, 32, BUILD_BPE_TOKENS);
    gguf_build_tensor(b, "output_norm.weight", QUANT_TYPE_F32, 32, 0);
    for (unsigned i = 0; i < LAYERS; i++)
        for (size_t k = 0; k < sizeof layer / sizeof layer[0]; k++)
            if (layer[k].is_there)
                gguf_build_layer(b, i, &layer[k].shape, 1, QUANT_TYPE_Q8_0);
}

static enum err read_model(struct gguf_build *b, struct model_hparams *ret_h, struct errbuf *eb)
{
    struct buf file;
    struct gguf *g = NULL;
    gguf_build_finish(b, &file);
    enum err e = gguf_open_memory(&g, file.data, file.size, eb);
    if (e == ERR_OK)
        e = model_hparams_read(ret_h, g, eb);
    gguf_close(g);
    buf_fini(&file);
    return e;
}

/* ---- what a good file says --------------------------------------------------------------- */

static void test_each_architecture_says_what_it_computes(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        enum rope_style style;
        enum activation activation;
        float embed_scale;
    } wants[] = {
        {"llama", ROPE_STYLE_PAIRS, ACTIVATION_SILU, 1.0f},
        {"qwen2", ROPE_STYLE_HALVES, ACTIVATION_SILU, 1.0f},
        {"qwen3", ROPE_STYLE_HALVES, ACTIVATION_SILU, 1.0f},
        {"gemma3", ROPE_STYLE_HALVES, ACTIVATION_GELU_TANH, 0x1.6a09e6p+2f}, /* sqrt(32) */
    };
    for (size_t i = 0; i < sizeof wants / sizeof wants[0]; i++) {
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        put_model(&b, shape_find(wants[i].arch));
        if (read_model(&b, &h, &eb) != ERR_OK)
            fail_msg("%s: %s", wants[i].arch, eb.text);
        assert_string_equal(model_arch_name(&h), wants[i].arch);
        assert_non_null(strstr(model_arch_list(), wants[i].arch));
        assert_int_equal(h.rope_style, wants[i].style);
        assert_int_equal(h.activation, wants[i].activation);
        assert_true(h.embed_scale == wants[i].embed_scale);
        assert_true(h.attention_scale == 0.25f); /* heads of 16 in a model of 32 */
        assert_true(h.rope[MODEL_ROPE_GLOBAL].base == 1e6f);
        assert_true(h.attention_softcap == 0.0f && h.logit_softcap == 0.0f);
        assert_true(h.tied_embedding);
        gguf_build_fini(&b);
    }
}

static const int32_t uneven_heads[] = {4, 2, 6}, uneven_kv_heads[] = {2, 2, 1},
                     uneven_ff[] = {96, 32, 64};

static void put_uneven_numbers(struct gguf_build *b)
{
    gguf_build_i32s(b, "qwen3.attention.head_count", uneven_heads, LAYERS);
    gguf_build_i32s(b, "qwen3.attention.head_count_kv", uneven_kv_heads, LAYERS);
    gguf_build_i32s(b, "qwen3.feed_forward_length", uneven_ff, LAYERS);
}

/* A qwen3 whose layers have the tensors of their own sizes. */
static void put_uneven_model(struct gguf_build *b)
{
    gguf_build_string(b, "general.architecture", "qwen3");
    gguf_build_u32(b, "qwen3.block_count", LAYERS);
    gguf_build_u32(b, "qwen3.context_length", 128);
    gguf_build_u32(b, "qwen3.embedding_length", 32);
    put_uneven_numbers(b);
    gguf_build_u32(b, "qwen3.attention.key_length", 16);
    gguf_build_f32(b, "qwen3.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_build_bpe(b, "llama-bpe");
    gguf_build_tensor(b, "token_embd.weight", QUANT_TYPE_F32, 32, BUILD_BPE_TOKENS);
    gguf_build_tensor(b, "output_norm.weight", QUANT_TYPE_F32, 32, 0);
    for (unsigned i = 0; i < LAYERS; i++) {
        uint64_t q = (uint64_t)uneven_heads[i] * 16, kv = (uint64_t)uneven_kv_heads[i] * 16;
        uint64_t ff = (uint64_t)uneven_ff[i];
        const struct gguf_build_shape layer[] = {
            {"attn_norm.weight", {32, 0}},   {"attn_q.weight", {32, q}},
            {"attn_k.weight", {32, kv}},     {"attn_v.weight", {32, kv}},
            {"attn_output.weight", {q, 32}}, {"ffn_norm.weight", {32, 0}},
            {"attn_q_norm.weight", {16, 0}}, {"attn_k_norm.weight", {16, 0}},
            {"ffn_gate.weight", {32, ff}},   {"ffn_up.weight", {32, ff}},
            {"ffn_down.weight", {ff, 32}},
        };
        gguf_build_layer(b, i, layer, sizeof layer / sizeof layer[0], QUANT_TYPE_F32);
    }
}

static void test_layers_may_differ(void **state)
{
    (void)state;
    struct gguf_build b;
    struct model_hparams h;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    put_uneven_numbers(&b);
    b.skip[0] = "qwen3.attention.head_count";
    b.skip[1] = "qwen3.attention.head_count_kv";
    b.skip[2] = "qwen3.feed_forward_length";
    /* Layers 1 and 2 in their own sizes; the whole model's would not fit. */
    put_model(&b, shape_find("qwen3"));
    assert_int_equal(read_model(&b, &h, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "'blk.1.attn_q.weight' is 32 x 64"));
    gguf_build_fini(&b);

    gguf_build_init(&b);
    put_uneven_model(&b);
    if (read_model(&b, &h, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    for (unsigned i = 0; i < LAYERS; i++) {
        assert_int_equal(h.layer[i].n_heads, uneven_heads[i]);
        assert_int_equal(h.layer[i].n_kv_heads, uneven_kv_heads[i]);
        assert_int_equal(h.layer[i].n_ff, uneven_ff[i]);
    }
    assert_int_equal(h.n_heads_max, 6);
    assert_int_equal(h.n_kv_heads_max, 2);
    assert_int_equal(h.n_ff_max, 96);
    gguf_build_fini(&b);
}

/* "-", "w": a layer without and with a window. */
static void check_windows(const char *name, const struct model_hparams *h, const char *want)
{
    for (unsigned i = 0; i < LAYERS; i++) {
        bool window = want[i] == 'w';
        if ((h->layer[i].window != 0) != window || (h->layer[i].rope == MODEL_ROPE_LOCAL) != window)
            fail_msg("%s: layer %u has window %u and rope %u", name, i, h->layer[i].window,
                     h->layer[i].rope);
        assert_true(!window || h->layer[i].window == 24);
    }
}

static void test_windows_follow_the_pattern(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t window;
        int period;        /* -1: no key */
        const char *truth; /* an array of bools */
        bool numbers;      /* the same as integers */
        const char *want;
    } cases[] = {
        {"no window", UINT32_MAX, -1, NULL, false, "---"},
        {"window 0", 0, 2, NULL, false, "---"},
        {"the architecture's period of 6", 24, -1, NULL, false, "www"},
        {"period 3", 24, 3, NULL, false, "ww-"},
        {"period 2", 24, 2, NULL, false, "w-w"},
        {"period 1: none", 24, 1, NULL, false, "---"},
        {"period 0: all", 24, 0, NULL, false, "www"},
        {"bools", 24, -1, "010", false, "-w-"},
        {"integers", 24, -1, "110", true, "ww-"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        const char *key = "gemma3.attention.sliding_window_pattern";
        gguf_build_init(&b);
        if (cases[i].window != UINT32_MAX)
            gguf_build_u32(&b, "gemma3.attention.sliding_window", cases[i].window);
        if (cases[i].period >= 0)
            gguf_build_u32(&b, key, (uint32_t)cases[i].period);
        if (cases[i].numbers) {
            int32_t numbers[LAYERS];
            for (unsigned k = 0; k < LAYERS; k++)
                numbers[k] = cases[i].truth[k] - '0';
            gguf_build_i32s(&b, key, numbers, LAYERS);
        } else if (cases[i].truth != NULL && gguf_build_key(&b, key, GGUF_VALUE_ARRAY)) {
            gguf_build_raw_u32(&b.keys, GGUF_VALUE_BOOL);
            gguf_build_raw_u64(&b.keys, LAYERS);
            for (unsigned k = 0; k < LAYERS; k++)
                buf_append_byte(&b.keys, (uint8_t)(cases[i].truth[k] - '0'));
        }
        gguf_build_f32(&b, "gemma3.rope.freq_base_swa", 2e4f);
        gguf_build_string(&b, "gemma3.rope.scaling.type", "linear");
        gguf_build_f32(&b, "gemma3.rope.scaling.factor", 8.0f);
        gguf_build_f32(&b, "gemma3.final_logit_softcapping", 30.0f);
        gguf_build_f32(&b, "gemma3.attn_logit_softcapping", 0.0f);
        put_model(&b, shape_find("gemma3"));
        if (read_model(&b, &h, &eb) != ERR_OK)
            fail_msg("%s: %s", cases[i].name, eb.text);
        check_windows(cases[i].name, &h, cases[i].want);
        /* Only the layers without a window are stretched. */
        assert_true(h.rope[MODEL_ROPE_GLOBAL].factor == 8.0f);
        assert_true(h.rope[MODEL_ROPE_LOCAL].factor == 1.0f);
        assert_true(h.rope[MODEL_ROPE_LOCAL].base == 2e4f);
        assert_true(h.logit_softcap == 30.0f && h.attention_softcap == 0.0f);
        gguf_build_fini(&b);
    }
}

static void test_yarn_is_read(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama", "qwen2", "qwen3"};
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        const struct shape *s = shape_find(archs[i]);
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        gguf_build_string(&b, key_of(s, "rope.scaling.type"), "yarn");
        gguf_build_f32(&b, key_of(s, "rope.scaling.factor"), 4.0f);
        gguf_build_u32(&b, key_of(s, "rope.scaling.original_context_length"), 32);
        gguf_build_f32(&b, key_of(s, "rope.scaling.yarn_beta_fast"), 32.0f);
        gguf_build_f32(&b, key_of(s, "rope.scaling.attn_factor"), 0.5f);
        gguf_build_bool(&b, key_of(s, "rope.scaling.finetuned"), 1);
        gguf_build_f32(&b, key_of(s, "attention.scale"), 0.125f);
        put_model(&b, s);
        if (read_model(&b, &h, &eb) != ERR_OK)
            fail_msg("%s: %s", archs[i], eb.text);
        assert_true(h.rope[0].yarn && h.rope[0].factor == 4.0f && h.rope[0].magnitude == 0.5f);
        assert_int_equal(h.rope[0].original_context, 32);
        assert_true(h.attention_scale == 0.125f);
        gguf_build_fini(&b);
    }
}

/* ---- what is refused --------------------------------------------------------------------- */

enum kind { MISSING, U32, F32, STRING, I32S, BOOLS, TENSOR, TENSOR_MISSING };

/* One key, or one tensor (number: its length), set to something else. */
static const struct bad {
    const char *arch, *name;
    enum kind kind;
    double number;
    const char *text;
    enum err code;
    const char *says;
} bads[] = {
    {"qwen2", "blk.1.attn_q.bias", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "attn_q.bias' is missing"},
    {"qwen2", "blk.2.attn_k.bias", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "attn_k.bias' is missing"},
    {"qwen2", "blk.0.attn_v.bias", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "attn_v.bias' is missing"},
    {"qwen2", "blk.0.attn_v.bias", TENSOR, 64, "", ERR_INVALID, "make it 32 x 1"},
    {"qwen2", "blk.0.attn_output.bias", TENSOR, 32, "", ERR_UNSUPPORTED, "has no place in a qwen2"},
    {"qwen2", "blk.0.attn_q_norm.weight", TENSOR, 16, "", ERR_UNSUPPORTED, "has no place"},
    {"qwen2", "rope_freqs.weight", TENSOR, 8, "", ERR_UNSUPPORTED, "has no place"},
    {"qwen2", "qwen2.attention.sliding_window", U32, 4096, "", ERR_UNSUPPORTED, "is 4096"},
    {"qwen2", "qwen2.use_sliding_window", U32, 0, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"qwen2", "output.bias", TENSOR, 267, "", ERR_INVALID, "make it 268 x 1"},
    {"qwen3", "blk.1.attn_q_norm.weight", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "is missing"},
    {"qwen3", "blk.1.attn_k_norm.weight", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "is missing"},
    {"qwen3", "blk.1.attn_k_norm.weight", TENSOR, 32, "", ERR_INVALID, "make it 16 x 1"},
    {"qwen3", "blk.1.attn_q.bias", TENSOR, 64, "", ERR_UNSUPPORTED, "has no place in a qwen3"},
    {"qwen3", "cls.output.weight", TENSOR, 32, "", ERR_UNSUPPORTED, "has no place"},
    {"qwen3", "qwen3.expert_count", U32, 128, "", ERR_UNSUPPORTED, "is 128"},
    {"qwen3", "qwen3.pooling_type", U32, 3, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"qwen3", "qwen3.attention.head_count", I32S, 2, "", ERR_INVALID, "has 2 numbers for 3 layers"},
    {"qwen3", "qwen3.attention.head_count_kv", I32S, -3, "", ERR_INVALID, "layer 2: key"},
    {"qwen3", "qwen3.feed_forward_length", I32S, 0, "", ERR_INVALID, "has 0 numbers for 3"},
    {"qwen3", "qwen3.attention.head_count_kv", BOOLS, 3, "", ERR_INVALID, "array of bool"},
    {"qwen3", "qwen3.block_count", I32S, 3, "", ERR_INVALID, "is an array of i32"},
    {"gemma3", "blk.0.post_attention_norm.weight", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "missing"},
    {"gemma3", "blk.2.post_ffw_norm.weight", TENSOR_MISSING, 0, "", ERR_NOT_FOUND, "is missing"},
    {"gemma3", "blk.2.post_ffw_norm.weight", TENSOR, 31, "", ERR_INVALID, "31 x 1 x 1 x 1"},
    {"gemma3", "blk.0.attn_q.bias", TENSOR, 64, "", ERR_UNSUPPORTED, "has no place in a gemma3"},
    {"gemma3", "rope_freqs.weight", TENSOR, 8, "", ERR_UNSUPPORTED, "has no place"},
    {"gemma3", "mm.input_projection.weight", TENSOR, 8, "", ERR_UNSUPPORTED, "has no place"},
    {"gemma3", "gemma3.rope.freq_base", MISSING, 0, "", ERR_NOT_FOUND, "'gemma3.rope.freq_base'"},
    {"gemma3", "gemma3.rope.freq_base_swa", F32, 0, "", ERR_INVALID, "freq_base_swa': 0"},
    {"gemma3", "gemma3.rope.freq_base_swa", F32, 0.5, "", ERR_INVALID, "0.5 is not in 1 to"},
    {"gemma3", "gemma3.rope.scaling.type", STRING, 0, "yarn", ERR_UNSUPPORTED, "none, linear"},
    {"gemma3", "gemma3.rope.scaling.type", STRING, 0, "longrope", ERR_UNSUPPORTED, "'longrope'"},
    {"gemma3", "gemma3.rope.local.freq_base", F32, 1e4, "", ERR_UNSUPPORTED, "not one this build"},
    {"gemma3", "gemma3.attention.sliding_window", F32, 24, "", ERR_INVALID, "is f32, not an"},
    {"gemma3", "gemma3.attention.sliding_window", STRING, 0, "24", ERR_INVALID, "is string"},
    {"gemma3", "gemma3.attention.sliding_window_pattern", F32, 6, "", ERR_INVALID, "is f32"},
    {"gemma3", "gemma3.attention.sliding_window_pattern", STRING, 0, "6", ERR_INVALID, "is string"},
    {"gemma3", "gemma3.attention.sliding_window_pattern", BOOLS, 2, "", ERR_INVALID,
     "has 2 elements for 3 layers"},
    {"gemma3", "gemma3.attention.sliding_window_pattern", I32S, 4, "", ERR_INVALID,
     "has 4 elements for 3 layers"},
    {"gemma3", "gemma3.final_logit_softcapping", F32, -1, "", ERR_INVALID, "-1 is not a finite"},
    {"gemma3", "gemma3.final_logit_softcapping", F32, NAN, "", ERR_INVALID, "nan is not a finite"},
    {"gemma3", "gemma3.attn_logit_softcapping", F32, INFINITY, "", ERR_INVALID, "inf is not"},
    {"gemma3", "gemma3.attn_logit_softcapping", U32, 50, "", ERR_INVALID, "is u32, not a float"},
    {"gemma3", "general.architecture", STRING, 0, "gemma2", ERR_UNSUPPORTED,
     "'gemma2' is not one of llama, qwen2, qwen3, gemma3"},
    {"gemma3", "split.count", U32, 2, "", ERR_UNSUPPORTED, "key 'split.count' is 2"},
    {"gemma3", "split.count", STRING, 0, "2", ERR_INVALID, "'split.count' is string"},
};

static void put_bad(struct gguf_build *b, const struct bad *v)
{
    int32_t numbers[8] = {2, 2, -2, 2, 2, 2, 2, 2};
    size_t count = (size_t)fabs(v->number);

    switch (v->kind) {
    case MISSING:
    case TENSOR_MISSING:
        break;
    case U32:
        gguf_build_u32(b, v->name, (uint32_t)v->number);
        break;
    case F32:
        gguf_build_f32(b, v->name, (float)v->number);
        break;
    case STRING:
        gguf_build_string(b, v->name, v->text);
        break;
    case I32S:
        gguf_build_i32s(b, v->name, numbers, count);
        break;
    case BOOLS:
        CHECK(gguf_build_key(b, v->name, GGUF_VALUE_ARRAY));
        gguf_build_raw_u32(&b->keys, GGUF_VALUE_BOOL);
        gguf_build_raw_u64(&b->keys, count);
        for (size_t i = 0; i < count; i++)
            buf_append_byte(&b->keys, 1);
        break;
    case TENSOR:
        gguf_build_tensor(b, v->name, QUANT_TYPE_F32, (uint64_t)v->number, 0);
        break;
    }
}

static void test_refuses_with_place_and_reason(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t i = 0; i < sizeof bads / sizeof bads[0]; i++) {
        const struct bad *bad = &bads[i];
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        put_bad(&b, bad);
        b.skip[0] = bad->name;
        put_model(&b, shape_find(bad->arch));
        memset(&h, 0x5a, sizeof h);
        enum err e = read_model(&b, &h, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL) {
            print_error("%s, %s (row %zu): %s '%s', expected %s '%s'\n", bad->arch, bad->name, i,
                        err_name(e), eb.text, err_name(bad->code), bad->says);
            failed++;
        }
        assert_int_equal(h.n_layers, 0x5a5a5a5a);
        gguf_build_fini(&b);
    }
    assert_int_equal(failed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_architecture_says_what_it_computes),
        cmocka_unit_test(test_layers_may_differ),
        cmocka_unit_test(test_windows_follow_the_pattern),
        cmocka_unit_test(test_yarn_is_read),
        cmocka_unit_test(test_refuses_with_place_and_reason),
    };
    return cmocka_run_group_tests_name("arch", tests, NULL, NULL);
}
