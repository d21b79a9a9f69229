#include "worker/model/arch.h"

#include <stddef.h>

#define HPARAM(field) offsetof(struct model_hparams, field)
#define LAYER(field)  offsetof(struct model_layer_hparams, field)
#define COUNT(array)  (sizeof(array) / sizeof(array)[0])

/* --- what all have in common; source of the names: the GGUF specification --- */

const struct arch_part arch_parts[MODEL_PART_COUNT] = {
#define WHOLE(part, name, ...)    [MODEL_PART_##part] = {name, {__VA_ARGS__}, false}
#define IN_LAYER(part, name, ...) [MODEL_PART_##part] = {name, {__VA_ARGS__}, true}
    WHOLE(TOKEN_EMBD, "token_embd.weight", ARCH_DIM_EMBD, ARCH_DIM_VOCAB),
    WHOLE(OUTPUT_NORM, "output_norm.weight", ARCH_DIM_EMBD),
    WHOLE(OUTPUT, "output.weight", ARCH_DIM_EMBD, ARCH_DIM_VOCAB),
    WHOLE(OUTPUT_BIAS, "output.bias", ARCH_DIM_VOCAB),
    WHOLE(ROPE_FREQS, "rope_freqs.weight", ARCH_DIM_ROPE_HALF),
    IN_LAYER(ATTN_NORM, "attn_norm.weight", ARCH_DIM_EMBD),
    IN_LAYER(ATTN_Q, "attn_q.weight", ARCH_DIM_EMBD, ARCH_DIM_HEADS),
    IN_LAYER(ATTN_Q_BIAS, "attn_q.bias", ARCH_DIM_HEADS),
    IN_LAYER(ATTN_Q_NORM, "attn_q_norm.weight", ARCH_DIM_HEAD),
    IN_LAYER(ATTN_K, "attn_k.weight", ARCH_DIM_EMBD, ARCH_DIM_KV),
    IN_LAYER(ATTN_K_BIAS, "attn_k.bias", ARCH_DIM_KV),
    IN_LAYER(ATTN_K_NORM, "attn_k_norm.weight", ARCH_DIM_HEAD),
    IN_LAYER(ATTN_V, "attn_v.weight", ARCH_DIM_EMBD, ARCH_DIM_KV),
    IN_LAYER(ATTN_V_BIAS, "attn_v.bias", ARCH_DIM_KV),
    IN_LAYER(ATTN_OUTPUT, "attn_output.weight", ARCH_DIM_HEADS, ARCH_DIM_EMBD),
    IN_LAYER(ATTN_OUTPUT_BIAS, "attn_output.bias", ARCH_DIM_EMBD),
    IN_LAYER(ATTN_POST_NORM, "post_attention_norm.weight", ARCH_DIM_EMBD),
    IN_LAYER(FFN_NORM, "ffn_norm.weight", ARCH_DIM_EMBD),
    IN_LAYER(FFN_GATE, "ffn_gate.weight", ARCH_DIM_EMBD, ARCH_DIM_FF),
    IN_LAYER(FFN_GATE_BIAS, "ffn_gate.bias", ARCH_DIM_FF),
    IN_LAYER(FFN_UP, "ffn_up.weight", ARCH_DIM_EMBD, ARCH_DIM_FF),
    IN_LAYER(FFN_UP_BIAS, "ffn_up.bias", ARCH_DIM_FF),
    IN_LAYER(FFN_DOWN, "ffn_down.weight", ARCH_DIM_FF, ARCH_DIM_EMBD),
    IN_LAYER(FFN_DOWN_BIAS, "ffn_down.bias", ARCH_DIM_EMBD),
    IN_LAYER(FFN_POST_NORM, "post_ffw_norm.weight", ARCH_DIM_EMBD),
#undef WHOLE
#undef IN_LAYER
};

/* Rows of the tables of keys. */
#define SIZE(name, field, most, may)                                                               \
    name, ARCH_KEY_SIZE, HPARAM(field), .max = (most), .optional = (may)
#define LAYER_SIZE(name, field, most, may)                                                         \
    name, ARCH_KEY_LAYER_SIZE, LAYER(field), .max = (most), .optional = (may)
#define POSITIVE(name, field, may) name, ARCH_KEY_POSITIVE, HPARAM(field), .optional = (may)
#define CAP(name, field)           name, ARCH_KEY_CAP, HPARAM(field), .optional = true
#define MUST_BE(name, number)      name, ARCH_KEY_MUST_BE, .value = (number), .optional = true
#define MUST_BE_REAL(name, number) name, ARCH_KEY_MUST_BE_REAL, .value = (number), .optional = true
#define RULE(name)                 name, ARCH_KEY_RULE, .optional = true
#define IGNORED(name)              name, ARCH_KEY_IGNORED, .optional = true

const struct arch_key arch_common_keys[] = {
    {SIZE("block_count", n_layers, MODEL_LAYERS_MAX, false)},
    {SIZE("context_length", context_length, MODEL_CONTEXT_MAX, false)},
    {SIZE("embedding_length", n_embd, MODEL_EMBD_MAX, false)},
    {LAYER_SIZE("feed_forward_length", n_ff, MODEL_FF_MAX, false)},
    {LAYER_SIZE("attention.head_count", n_heads, MODEL_HEADS_MAX, false)},
    {LAYER_SIZE("attention.head_count_kv", n_kv_heads, MODEL_HEADS_MAX, true)},
    {SIZE("attention.key_length", head_dim, MODEL_HEAD_DIM_MAX, true)},
    {RULE("attention.value_length")}, /* both must be one head_dim */
    {POSITIVE("attention.scale", attention_scale, true)},
    {POSITIVE("attention.layer_norm_rms_epsilon", rms_eps, false)},
    {SIZE("rope.dimension_count", rope_dim, MODEL_HEAD_DIM_MAX, true)},
    {RULE("rope.freq_base")},
    {RULE("rope.scaling.type")},
    {RULE("rope.scaling.factor")},
    {RULE("rope.scale_linear")},
    {RULE("rope.scaling.attn_factor")},
    {RULE("rope.scaling.original_context_length")},
    /* Yarn's other numbers: only as nearly all files have them. */
    {MUST_BE_REAL("rope.scaling.yarn_ext_factor", 1.0f)},
    {MUST_BE_REAL("rope.scaling.yarn_beta_fast", 32.0f)},
    {MUST_BE_REAL("rope.scaling.yarn_beta_slow", 1.0f)},
    {SIZE("vocab_size", vocab_size, MODEL_VOCAB_MAX, true)},
    {MUST_BE("expert_count", 0)},
    {MUST_BE("expert_used_count", 0)},
    {"attention.causal", ARCH_KEY_MUST_TRUE, .optional = true},
    /* How the converter laid out the tensors, and whether the model was trained further. */
    {IGNORED("rope.scaling.finetuned")},
    {IGNORED("tensor_data_layout")},
};
const size_t arch_n_common_keys = COUNT(arch_common_keys);

/* Where a model has no windows, a file that asks for one is not the model this row means. */
static const struct arch_key no_window_keys[] = {{MUST_BE("attention.sliding_window", 0)}};

static const struct arch_key gemma3_keys[] = {
    {RULE("attention.sliding_window")},
    {RULE("attention.sliding_window_pattern")},
    {RULE("rope.freq_base_swa")},
    {CAP("attn_logit_softcapping", attention_softcap)},
    {CAP("final_logit_softcapping", logit_softcap)},
};

/* --- the architectures --- */

#define MUST(part) [MODEL_PART_##part] = ARCH_NEED_MUST
#define MAY(part)  [MODEL_PART_##part] = ARCH_NEED_MAY

/* Norm, attention, norm, gated feed-forward, each added to the residual. */
#define PARTS_OF_A_DECODER                                                                         \
    MUST(TOKEN_EMBD), MUST(OUTPUT_NORM), MAY(OUTPUT), MUST(ATTN_NORM), MUST(ATTN_Q), MUST(ATTN_K), \
        MUST(ATTN_V), MUST(ATTN_OUTPUT), MUST(FFN_NORM), MUST(FFN_GATE), MUST(FFN_UP),             \
        MUST(FFN_DOWN)

/* What all but Gemma have: no windows, positions that yarn may stretch. */
#define PLAIN_DECODER                                                                              \
    .rope_base = 10000.0f, .yarn = true, .activation = ACTIVATION_SILU, .keys = no_window_keys,    \
    .n_keys = COUNT(no_window_keys)

static const struct model_arch archs[] = {
    {
        /* Llama 1 to 3.x, Mistral 7B, SmolLM and all who kept their shape. Touvron et al., "LLaMA",
         * 2023; attention_bias and mlp_bias of the published configurations are the biases. */
        .name = "llama",
        .rope_style = ROPE_STYLE_PAIRS,
        PLAIN_DECODER,
        .parts = {PARTS_OF_A_DECODER, MAY(ROPE_FREQS), MAY(ATTN_Q_BIAS), MAY(ATTN_K_BIAS),
                  MAY(ATTN_V_BIAS), MAY(ATTN_OUTPUT_BIAS), MAY(FFN_GATE_BIAS), MAY(FFN_UP_BIAS),
                  MAY(FFN_DOWN_BIAS)},
    },
    {
        /* Qwen 1.5, 2 and 2.5. "Qwen2 Technical Report", 2024. */
        .name = "qwen2",
        .rope_style = ROPE_STYLE_HALVES,
        PLAIN_DECODER,
        .parts = {PARTS_OF_A_DECODER, MUST(ATTN_Q_BIAS), MUST(ATTN_K_BIAS), MUST(ATTN_V_BIAS),
                  MAY(OUTPUT_BIAS)},
    },
    {
        /* Qwen 3 without experts: heads are normed, biases are gone. "Qwen3 Technical Report",
         * 2025. */
        .name = "qwen3",
        .rope_style = ROPE_STYLE_HALVES,
        PLAIN_DECODER,
        .parts = {PARTS_OF_A_DECODER, MUST(ATTN_Q_NORM), MUST(ATTN_K_NORM)},
    },
    {
        /* Gemma 3, text. "Gemma 3 Technical Report", 2025: five layers with a window and a rope
         * base of their own, then one without; norms before and behind each branch. The 27B model
         * (62 layers) scales queries by its width, as Gemma 2 did. */
        .name = "gemma3",
        .rope_style = ROPE_STYLE_HALVES,
        .rope_base = 0.0f,
        .activation = ACTIVATION_GELU_TANH,
        .embed_scaled = true,
        .wide_scale_layers = 62,
        .window_period = 6,
        .local_rope_base = 10000.0f,
        .keys = gemma3_keys,
        .n_keys = COUNT(gemma3_keys),
        .parts = {PARTS_OF_A_DECODER, MUST(ATTN_Q_NORM), MUST(ATTN_K_NORM), MUST(ATTN_POST_NORM),
                  MUST(FFN_POST_NORM)},
    },
};

const struct model_arch *model_arch_find(struct gguf_string name)
{
    for (size_t i = 0; i < COUNT(archs); i++) {
        if (gguf_string_equal(name, archs[i].name))
            return &archs[i];
    }
    return NULL;
}

const char *model_arch_list(void)
{
    return "llama, qwen2, qwen3, gemma3";
}
