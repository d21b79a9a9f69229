/* Hyperparameters and tensors: what a model says about itself must hold together. */
#include "tests/unit/model/gguf_build.h"

#include "common/crypto.h"
#include "worker/model/hparams.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static enum err build_and_read(struct gguf_build *b, struct model_hparams *ret_h, struct errbuf *eb)
{
    struct buf file;
    struct gguf *g = NULL;
    gguf_build_finish(b, &file);
    enum err e = gguf_open_memory(&g, file.data, file.size, eb);
    assert_int_equal(e, ERR_OK);
    e = model_hparams_read(ret_h, g, eb);
    gguf_close(g);
    buf_fini(&file);
    return e;
}

static void test_reads_a_llama_model(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    struct model_hparams h;
    struct model_tensors t;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_Q8_0);
    gguf_build_finish(&b, &file);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, &eb), ERR_OK);
    assert_int_equal(model_hparams_read(&h, g, &eb), ERR_OK);
    assert_string_equal(model_arch_name(&h), "llama");
    assert_string_equal(h.name, "Small \\xc3\\xa9");
    assert_int_equal(h.n_layers, 2);
    assert_int_equal(h.n_embd, 32);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(h.layer[i].n_ff, 64);
        assert_int_equal(h.layer[i].n_heads, 4);
        assert_int_equal(h.layer[i].n_kv_heads, 2);
        assert_int_equal(h.layer[i].window, 0);
        assert_int_equal(h.layer[i].rope, MODEL_ROPE_GLOBAL);
    }
    assert_int_equal(h.head_dim, 8);
    assert_int_equal(h.rope_dim, 8);
    assert_int_equal(h.context_length, 128);
    assert_int_equal(h.vocab_size, BUILD_BPE_TOKENS);
    assert_int_equal(h.rope_style, ROPE_STYLE_PAIRS);
    assert_true(h.rope[0].base == 10000.0f && h.rope[0].factor == 1.0f && h.rms_eps == 1e-5f);
    assert_true(!h.rope[0].yarn && h.rope[0].magnitude == 1.0f);
    assert_true(h.embed_scale == 1.0f && h.attention_scale == 1.0f / sqrtf(8.0f));
    assert_true(h.attention_softcap == 0.0f && h.logit_softcap == 0.0f);
    assert_int_equal(h.activation, ACTIVATION_SILU);
    assert_true(h.tied_embedding);

    assert_int_equal(model_tensors_find(&t, &h, g, &eb), ERR_OK);
    assert_null(t.whole.at[MODEL_PART_OUTPUT]);
    assert_null(t.whole.at[MODEL_PART_ROPE_FREQS]);
    assert_ptr_equal(t.layers[1].at[MODEL_PART_FFN_DOWN],
                     gguf_tensor_find(g, "blk.1.ffn_down.weight"));
    assert_ptr_equal(t.layers[0].at[MODEL_PART_ATTN_Q], gguf_tensor_find(g, "blk.0.attn_q.weight"));
    assert_null(t.layers[0].at[MODEL_PART_ATTN_Q_BIAS]);
    model_tensors_fini(&t);
    gguf_close(g);
    buf_fini(&file);
    gguf_build_fini(&b);
}

static void test_reads_what_may_be_there(void **state)
{
    (void)state;
    struct gguf_build b;
    struct model_hparams h;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_F16);
    gguf_build_tensor(&b, "output.weight", QUANT_TYPE_Q8_0, 32, BUILD_BPE_TOKENS);
    gguf_build_tensor(&b, "rope_freqs.weight", QUANT_TYPE_F32, 2, 0);
    gguf_build_u32(&b, "llama.vocab_size", BUILD_BPE_TOKENS);
    gguf_build_u32(&b, "llama.attention.key_length", 8);
    gguf_build_u32(&b, "llama.attention.value_length", 8);
    gguf_build_u32(&b, "llama.rope.dimension_count", 4);
    gguf_build_f32(&b, "llama.rope.freq_base", 500000.0f);
    gguf_build_string(&b, "llama.rope.scaling.type", "linear");
    gguf_build_f32(&b, "llama.rope.scaling.factor", 4.0f);
    gguf_build_u32(&b, "llama.expert_count", 0);
    gguf_build_bool(&b, "llama.attention.causal", 1);
    gguf_build_u32(&b, "general.file_type", 7);
    assert_int_equal(build_and_read(&b, &h, &eb), ERR_OK);
    assert_false(h.tied_embedding);
    assert_int_equal(h.rope_dim, 4);
    assert_true(h.rope[0].base == 500000.0f && h.rope[0].factor == 4.0f && h.rope[0].freqs);
    gguf_build_fini(&b);
}

/* --- refusals: one key set to something else --- */

enum kind { MISSING, U32, I32, F32, STRING, BOOL };

static const struct bad_value {
    const char *key;
    enum kind kind;
    double number;
    const char *text;
    enum err code;
    const char *says;
} bad_values[] = {
    {"general.architecture", MISSING, 0, "", ERR_NOT_FOUND, "'general.architecture'"},
    {"general.architecture", STRING, 0, "gpt9", ERR_UNSUPPORTED, "'gpt9' is not one of llama"},
    {"general.architecture", STRING, 0, "", ERR_UNSUPPORTED, "'' is not one of"},
    {"general.architecture", U32, 3, "", ERR_INVALID, "is u32, not a string"},
    {"general.name", U32, 3, "", ERR_INVALID, "'general.name' is u32"},
    {"llama.block_count", MISSING, 0, "", ERR_NOT_FOUND, "'llama.block_count'"},
    {"llama.block_count", U32, 0, "", ERR_INVALID, "'llama.block_count' is 0"},
    {"llama.block_count", I32, -1, "", ERR_INVALID, "'llama.block_count'"},
    {"llama.block_count", U32, 1, "", ERR_UNSUPPORTED, "'blk.1.attn_norm.weight' has no place"},
    {"llama.block_count", U32, 3, "", ERR_NOT_FOUND, "'blk.2.attn_norm.weight' is missing"},
    {"llama.block_count", U32, 4294967295.0, "", ERR_TOO_LARGE, "over the bound of 1024"},
    {"llama.block_count", F32, 2, "", ERR_INVALID, "is f32, not an integer"},
    {"llama.block_count", STRING, 0, "2", ERR_INVALID, "is string, not an integer"},
    {"llama.context_length", MISSING, 0, "", ERR_NOT_FOUND, "'llama.context_length'"},
    {"llama.context_length", U32, 0, "", ERR_INVALID, "'llama.context_length' is 0"},
    {"llama.context_length", U32, 4e9, "", ERR_TOO_LARGE, "'llama.context_length'"},
    {"llama.embedding_length", MISSING, 0, "", ERR_NOT_FOUND, "'llama.embedding_length'"},
    {"llama.embedding_length", U32, 0, "", ERR_INVALID, "'llama.embedding_length' is 0"},
    {"llama.embedding_length", U32, 64, "", ERR_INVALID, "'token_embd.weight' is 32 x 268"},
    {"llama.embedding_length", U32, 33, "", ERR_INVALID, "4 heads do not divide 33"},
    {"llama.embedding_length", U32, 4e9, "", ERR_TOO_LARGE, "'llama.embedding_length'"},
    {"llama.feed_forward_length", U32, 0, "", ERR_INVALID, "'llama.feed_forward_length' is 0"},
    {"llama.feed_forward_length", U32, 96, "", ERR_INVALID, "'blk.0.ffn_gate.weight' is 32 x 64"},
    {"llama.feed_forward_length", U32, 4e9, "", ERR_TOO_LARGE, "'llama.feed_forward_length'"},
    {"llama.attention.head_count", MISSING, 0, "", ERR_NOT_FOUND, "'llama.attention.head_count'"},
    {"llama.attention.head_count", U32, 0, "", ERR_INVALID, "'llama.attention.head_count' is 0"},
    {"llama.attention.head_count", U32, 5, "", ERR_INVALID, "2 key/value heads do not divide 5"},
    {"llama.attention.head_count", U32, 6, "", ERR_INVALID, "6 heads do not divide 32"},
    {"llama.attention.head_count", U32, 32, "", ERR_INVALID, "heads of 1 elements; an odd"},
    {"llama.attention.head_count", U32, 2, "", ERR_INVALID, "'blk.0.attn_k.weight' is 32 x 16"},
    {"llama.attention.head_count", U32, 1e6, "", ERR_TOO_LARGE, "over the bound of 1024"},
    {"llama.attention.head_count_kv", U32, 0, "", ERR_INVALID, "head_count_kv' is 0"},
    {"llama.attention.head_count_kv", U32, 3, "", ERR_INVALID, "3 key/value heads do not divide"},
    {"llama.attention.head_count_kv", U32, 8, "", ERR_INVALID, "8 key/value heads do not divide"},
    {"llama.attention.head_count_kv", MISSING, 0, "", ERR_INVALID, "'blk.0.attn_k.weight' is"},
    {"llama.attention.key_length", U32, 0, "", ERR_INVALID, "key_length' is 0"},
    {"llama.attention.key_length", U32, 7, "", ERR_INVALID, "heads of 7 elements"},
    {"llama.attention.key_length", U32, 16, "", ERR_INVALID, "'blk.0.attn_q.weight' is 32 x 32"},
    {"llama.attention.key_length", U32, 4e9, "", ERR_TOO_LARGE, "key_length'"},
    {"llama.attention.value_length", U32, 4, "", ERR_UNSUPPORTED, "values of 4 elements beside"},
    {"llama.rope.dimension_count", U32, 0, "", ERR_INVALID, "dimension_count' is 0"},
    {"llama.rope.dimension_count", U32, 7, "", ERR_INVALID, "7 is not an even number up to the 8"},
    {"llama.rope.dimension_count", U32, 10, "", ERR_INVALID, "10 is not an even number"},
    {"llama.rope.freq_base", F32, 0, "", ERR_INVALID, "'llama.rope.freq_base': 0"},
    {"llama.rope.freq_base", F32, -1, "", ERR_INVALID, "'llama.rope.freq_base': -1"},
    {"llama.rope.freq_base", F32, INFINITY, "", ERR_INVALID, "'llama.rope.freq_base': inf"},
    {"llama.rope.freq_base", U32, 10000, "", ERR_INVALID, "is u32, not a float"},
    {"llama.rope.scaling.type", STRING, 0, "ntk", ERR_UNSUPPORTED, "'ntk' is not one of none"},
    {"llama.rope.scaling.type", STRING, 0, "longrope", ERR_UNSUPPORTED, "'longrope'"},
    {"llama.rope.scaling.type", STRING, 0, "", ERR_UNSUPPORTED, "'' is not one of"},
    {"llama.rope.scaling.factor", F32, 0, "", ERR_INVALID, "'llama.rope.scaling.factor': 0"},
    {"llama.rope.scaling.factor", F32, NAN, "", ERR_INVALID, "'llama.rope.scaling.factor'"},
    {"llama.rope.scaling.factor", F32, 1e-45, "", ERR_INVALID, "is not in 1 to 1e+06"},
    {"llama.rope.scaling.factor", F32, 0.5, "", ERR_INVALID, "0.5 is not in 1 to 1e+06"},
    {"llama.rope.scale_linear", F32, -2, "", ERR_INVALID, "'llama.rope.scale_linear': -2"},
    {"llama.rope.freq_base", F32, 0.5, "", ERR_INVALID, "0.5 is not in 1 to 1e+12"},
    {"llama.rope.scaling.attn_factor", F32, 0, "", ERR_INVALID, "attn_factor': 0"},
    {"llama.rope.scaling.attn_factor", F32, 1e5, "", ERR_INVALID, "100000 is not in"},
    {"llama.rope.scaling.attn_factor", F32, NAN, "", ERR_INVALID, "attn_factor': nan"},
    {"llama.rope.scaling.alpha", F32, 1, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"llama.rope.scaling.yarn_attn_factor", F32, 1, "", ERR_UNSUPPORTED, "not one this build"},
    {"llama.rope.scaling.yarn_log_multiplier", F32, 1, "", ERR_UNSUPPORTED, "not one this build"},
    {"llama.rope.scaling.yarn_ext_factor", F32, 0, "", ERR_UNSUPPORTED, "is 0; this build"},
    {"llama.rope.scaling.yarn_beta_fast", F32, 64, "", ERR_UNSUPPORTED, "is 64; this build"},
    {"llama.rope.scaling.yarn_beta_fast", F32, NAN, "", ERR_UNSUPPORTED, "is nan; this build"},
    {"llama.rope.scaling.yarn_beta_slow", U32, 1, "", ERR_INVALID, "is u32, not a float"},
    {"llama.rope.scaling.original_context_length", U32, 0, "", ERR_INVALID, "length' is 0"},
    {"llama.rope.scaling.original_context_length", U32, 4e9, "", ERR_TOO_LARGE, "over the bound"},
    {"llama.attention.scale", F32, 0, "", ERR_INVALID, "'llama.attention.scale': 0"},
    {"llama.attention.scale", F32, INFINITY, "", ERR_INVALID, "'llama.attention.scale': inf"},
    {"llama.attn_logit_softcapping", F32, 50, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"llama.final_logit_softcapping", F32, 30, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"llama.rope.freq_base_swa", F32, 1e4, "", ERR_UNSUPPORTED, "not one this build knows"},
    {"llama.attention.sliding_window_pattern", U32, 6, "", ERR_UNSUPPORTED, "not one this build"},
    {"llama.attention.layer_norm_rms_epsilon", MISSING, 0, "", ERR_NOT_FOUND, "rms_epsilon'"},
    {"llama.attention.layer_norm_rms_epsilon", F32, 0, "", ERR_INVALID, "rms_epsilon': 0"},
    {"llama.attention.layer_norm_rms_epsilon", F32, -1e-5, "", ERR_INVALID, "rms_epsilon': -1e-05"},
    {"llama.attention.layer_norm_rms_epsilon", F32, NAN, "", ERR_INVALID, "rms_epsilon'"},
    {"llama.attention.layer_norm_rms_epsilon", F32, INFINITY, "", ERR_INVALID, "rms_epsilon': inf"},
    {"llama.vocab_size", U32, 300, "", ERR_INVALID, "'llama.vocab_size' is 300, but tensor"},
    {"llama.vocab_size", U32, 0, "", ERR_INVALID, "'llama.vocab_size' is 0"},
    {"llama.expert_count", U32, 8, "", ERR_UNSUPPORTED, "'llama.expert_count' is 8"},
    {"llama.attention.sliding_window", U32, 4096, "", ERR_UNSUPPORTED, "sliding_window' is 4096"},
    {"llama.attention.causal", BOOL, 0, "", ERR_UNSUPPORTED, "'llama.attention.causal' is false"},
    {"llama.logit_scale", F32, 2, "", ERR_UNSUPPORTED, "'llama.logit_scale' is not one this build"},
    {"tokenizer.ggml.tokens", MISSING, 0, "", ERR_NOT_FOUND, "'tokenizer.ggml.tokens'"},
    {"tokenizer.ggml.tokens", U32, 1, "", ERR_INVALID, "'tokenizer.ggml.tokens' is u32"},
};

static void put_value(struct gguf_build *b, const struct bad_value *v)
{
    switch (v->kind) {
    case MISSING:
        break;
    case U32:
        gguf_build_u32(b, v->key, (uint32_t)v->number);
        break;
    case I32:
        gguf_build_i32(b, v->key, (int32_t)v->number);
        break;
    case F32:
        gguf_build_f32(b, v->key, (float)v->number);
        break;
    case STRING:
        gguf_build_string(b, v->key, v->text);
        break;
    case BOOL:
        gguf_build_bool(b, v->key, v->number != 0);
        break;
    }
}

static void test_refuses_values_that_lie(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t i = 0; i < sizeof bad_values / sizeof bad_values[0]; i++) {
        const struct bad_value *bad = &bad_values[i];
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        put_value(&b, bad);
        b.skip[0] = bad->key;
        gguf_build_model(&b, QUANT_TYPE_F32);
        memset(&h, 0x5a, sizeof h);
        enum err e = build_and_read(&b, &h, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL) {
            print_error("%s (row %zu): %s '%s', expected %s '%s'\n", bad->key, i, err_name(e),
                        eb.text, err_name(bad->code), bad->says);
            failed++;
        }
        /* Outputs stay untouched. */
        assert_int_equal(h.n_layers, 0x5a5a5a5a);
        gguf_build_fini(&b);
    }
    assert_int_equal(failed, 0);
}

/* --- refusals: one tensor put as something else --- */

static const struct bad_tensor {
    const char *name;
    uint32_t type;
    uint64_t dims[2]; /* 0, 0: the tensor is missing */
    enum err code;
    const char *says;
} bad_tensors[] = {
    {"token_embd.weight", 0, {0, 0}, ERR_NOT_FOUND, "'token_embd.weight' is missing"},
    {"token_embd.weight", QUANT_TYPE_F32, {32, 267}, ERR_INVALID, "has 268 tokens, but tensor"},
    {"token_embd.weight", QUANT_TYPE_F32, {32, 269}, ERR_INVALID, "has 269 rows"},
    {"token_embd.weight", QUANT_TYPE_F32, {32, 0}, ERR_INVALID, "has 1 rows"},
    {"token_embd.weight", 9, {32, 268}, ERR_UNSUPPORTED, "type Q8_1 (id 9)"},
    {"output_norm.weight", 0, {0, 0}, ERR_NOT_FOUND, "'output_norm.weight' is missing"},
    {"output_norm.weight", QUANT_TYPE_F16, {32, 0}, ERR_UNSUPPORTED, "F16 (id 1); a vector"},
    {"output_norm.weight", 26, {32, 0}, ERR_UNSUPPORTED, "type I32 (id 26)"},
    {"output_norm.weight", QUANT_TYPE_F32, {31, 0}, ERR_INVALID, "31 x 1 x 1 x 1"},
    {"output.weight", QUANT_TYPE_F32, {32, 100}, ERR_INVALID, "'output.weight' is 32 x 100"},
    {"rope_freqs.weight", QUANT_TYPE_F32, {3, 0}, ERR_INVALID, "the model's sizes make it 4 x 1"},
    {"rope_freqs.weight", QUANT_TYPE_F16, {4, 0}, ERR_UNSUPPORTED, "'rope_freqs.weight' has type"},
    {"blk.0.attn_norm.weight", 0, {0, 0}, ERR_NOT_FOUND, "'blk.0.attn_norm.weight'"},
    {"blk.1.attn_norm.weight", QUANT_TYPE_F32, {32, 2}, ERR_INVALID, "32 x 2"},
    {"blk.0.attn_q.weight", 0, {0, 0}, ERR_NOT_FOUND, "'blk.0.attn_q.weight' is missing"},
    {"blk.0.attn_q.weight", QUANT_TYPE_F32, {32, 16}, ERR_INVALID, "32 x 16"},
    {"blk.1.attn_k.weight", QUANT_TYPE_F32, {16, 32}, ERR_INVALID, "16 x 32"},
    {"blk.1.attn_v.weight", 0, {0, 0}, ERR_NOT_FOUND, "'blk.1.attn_v.weight' is missing"},
    {"blk.0.attn_output.weight", 24, {32, 32}, ERR_UNSUPPORTED, "type I8 (id 24)"},
    {"blk.0.ffn_gate.weight", QUANT_TYPE_F32, {32, 63}, ERR_INVALID, "32 x 63"},
    {"blk.0.ffn_up.weight", QUANT_TYPE_F32, {32, 65}, ERR_INVALID, "32 x 65"},
    {"blk.1.ffn_down.weight", QUANT_TYPE_F32, {32, 64}, ERR_INVALID, "make it 64 x 32"},
    {"blk.0.attn_q.bias", QUANT_TYPE_F32, {31, 0}, ERR_INVALID, "make it 32 x 1"},
    {"blk.0.attn_k.bias", QUANT_TYPE_F32, {32, 0}, ERR_INVALID, "make it 16 x 1"},
    {"blk.0.ffn_up.bias", QUANT_TYPE_F16, {64, 0}, ERR_UNSUPPORTED, "a vector of this kind"},
    {"blk.0.attn_q_norm.weight", QUANT_TYPE_F32, {8, 0}, ERR_UNSUPPORTED, "has no place"},
    {"blk.0.post_ffw_norm.weight", QUANT_TYPE_F32, {32, 0}, ERR_UNSUPPORTED, "has no place"},
    {"output.bias", QUANT_TYPE_F32, {268, 0}, ERR_UNSUPPORTED, "'output.bias' has no place"},
    {"blk.2.attn_q.weight", QUANT_TYPE_F32, {32, 32}, ERR_UNSUPPORTED, "'blk.2.attn_q.weight'"},
    {"blk.00.attn_q.weight", QUANT_TYPE_F32, {32, 32}, ERR_UNSUPPORTED, "'blk.00.attn_q.weight'"},
    {"blk.4294967296.attn_q.weight", QUANT_TYPE_F32, {32, 32}, ERR_UNSUPPORTED, "has no place"},
    {"blk..attn_q.weight", QUANT_TYPE_F32, {32, 32}, ERR_UNSUPPORTED, "'blk..attn_q.weight'"},
    {"mmproj", QUANT_TYPE_F32, {1, 0}, ERR_UNSUPPORTED, "'mmproj' has no place in a llama model"},
};

static void test_refuses_wrong_tensors(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t i = 0; i < sizeof bad_tensors / sizeof bad_tensors[0]; i++) {
        const struct bad_tensor *bad = &bad_tensors[i];
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        if (bad->dims[0] > 0)
            gguf_build_tensor(&b, bad->name, bad->type, bad->dims[0], bad->dims[1]);
        b.skip[0] = bad->name;
        gguf_build_model(&b, QUANT_TYPE_F32);
        enum err e = build_and_read(&b, &h, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL) {
            print_error("%s (row %zu): %s '%s', expected %s '%s'\n", bad->name, i, err_name(e),
                        eb.text, err_name(bad->code), bad->says);
            failed++;
        }
        gguf_build_fini(&b);
    }
    assert_int_equal(failed, 0);
}

static void test_refuses_numbers_that_are_none(void **state)
{
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        gguf_build_model(&b, QUANT_TYPE_F32);
        memcpy(b.data.data + b.data.size - 4, &bad[i], 4); /* the end of output_norm */
        assert_int_equal(build_and_read(&b, &h, &eb), ERR_INVALID);
        assert_non_null(strstr(eb.text, "'output_norm.weight': element 31"));
        gguf_build_fini(&b);
    }
    /* Angles are divided by these. */
    struct gguf_build b;
    struct model_hparams h;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_F32);
    gguf_build_tensor(&b, "rope_freqs.weight", QUANT_TYPE_F32, 4, 0);
    memset(b.data.data + b.data.size - 8, 0, 4);
    assert_int_equal(build_and_read(&b, &h, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "'rope_freqs.weight': element 2 is 0"));
    gguf_build_fini(&b);
}

static void test_every_kernel_type_is_accepted(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < 43; type++) {
        const struct quant_type_info *info = quant_type_info(type);
        if (info == NULL || !info->supported || info->block_items > 32)
            continue; /* the model is 32 wide */
        struct gguf_build b;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        gguf_build_model(&b, type);
        assert_int_equal(build_and_read(&b, &h, &eb), ERR_OK);
        gguf_build_fini(&b);
    }
}

static void test_digest_is_that_of_the_file(void **state)
{
    (void)state;
    char path[] = "/tmp/cloister-test-digest-XXXXXX";
    uint8_t want[32];
    uint8_t got[32];
    struct errbuf eb = {{0}};
    size_t size = (2u << 20) + 17; /* more than one piece, and not a whole number of them */
    uint8_t *bytes = malloc(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(i * 31);
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    sha256(bytes, size, want);
    assert_int_equal(model_file_digest(path, got, &eb), ERR_OK);
    assert_memory_equal(got, want, 32);
    assert_int_equal(ftruncate(fd, (off_t)size - 1), 0);
    assert_int_equal(model_file_digest(path, got, &eb), ERR_OK);
    assert_memory_not_equal(got, want, 32);
    assert_int_equal(model_file_digest("/", got, &eb), ERR_INVALID);
    assert_int_equal(model_file_digest("/nowhere/at/all", got, &eb), ERR_NOT_FOUND);
    (void)close(fd);
    (void)unlink(path);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_a_llama_model),
        cmocka_unit_test(test_reads_what_may_be_there),
        cmocka_unit_test(test_refuses_values_that_lie),
        cmocka_unit_test(test_refuses_wrong_tensors),
        cmocka_unit_test(test_refuses_numbers_that_are_none),
        cmocka_unit_test(test_every_kernel_type_is_accepted),
        cmocka_unit_test(test_digest_is_that_of_the_file),
    };
    return cmocka_run_group_tests_name("hparams", tests, NULL, NULL);
}
