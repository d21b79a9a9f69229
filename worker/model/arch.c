#include "worker/model/arch.h"

#include <stddef.h>

#define HPARAM(field) offsetof(struct model_hparams, field)
#define TENSOR(field) offsetof(struct model_tensors, field)
#define LAYER(field)  offsetof(struct model_layer_tensors, field)
#define COUNT(array)  (sizeof(array) / sizeof(array)[0])

/* Llama 1 to 3.x, Mistral 7B, SmolLM and all who kept their shape. Source: the converters' key and
 * tensor names as listed in the GGUF specification, "Llama". */
static const struct arch_key llama_keys[] = {
    {"block_count", ARCH_KEY_SIZE, HPARAM(n_layers), MODEL_LAYERS_MAX, false},
    {"context_length", ARCH_KEY_SIZE, HPARAM(context_length), MODEL_CONTEXT_MAX, false},
    {"embedding_length", ARCH_KEY_SIZE, HPARAM(n_embd), MODEL_EMBD_MAX, false},
    {"feed_forward_length", ARCH_KEY_SIZE, HPARAM(n_ff), MODEL_FF_MAX, false},
    {"attention.head_count", ARCH_KEY_SIZE, HPARAM(n_heads), MODEL_HEADS_MAX, false},
    {"attention.head_count_kv", ARCH_KEY_SIZE, HPARAM(n_kv_heads), MODEL_HEADS_MAX, true},
    {"attention.key_length", ARCH_KEY_SIZE, HPARAM(head_dim), MODEL_HEAD_DIM_MAX, true},
    /* Read by hand beside key_length: both must be one head_dim. */
    {"attention.value_length", ARCH_KEY_IGNORED, 0, 0, true},
    {"rope.dimension_count", ARCH_KEY_SIZE, HPARAM(rope_dim), MODEL_HEAD_DIM_MAX, true},
    {"rope.freq_base", ARCH_KEY_POSITIVE, HPARAM(rope_base), 0, true},
    {"rope.scaling.type", ARCH_KEY_ROPE, 0, 0, true},
    {"rope.scaling.factor", ARCH_KEY_ROPE, 0, 0, true},
    {"rope.scale_linear", ARCH_KEY_ROPE, 0, 0, true},
    {"attention.layer_norm_rms_epsilon", ARCH_KEY_POSITIVE, HPARAM(rms_eps), 0, false},
    {"vocab_size", ARCH_KEY_SIZE, HPARAM(vocab_size), MODEL_VOCAB_MAX, true},
    {"expert_count", ARCH_KEY_MUST_BE, 0, 0, true},
    {"expert_used_count", ARCH_KEY_MUST_BE, 0, 0, true},
    {"attention.sliding_window", ARCH_KEY_MUST_BE, 0, 0, true},
    {"attention.causal", ARCH_KEY_MUST_TRUE, 0, 0, true},
    /* What the model was stretched from, and how its converter laid out the tensors. */
    {"rope.scaling.original_context_length", ARCH_KEY_IGNORED, 0, 0, true},
    {"rope.scaling.finetuned", ARCH_KEY_IGNORED, 0, 0, true},
    {"tensor_data_layout", ARCH_KEY_IGNORED, 0, 0, true},
};

static const struct arch_tensor llama_tensors[] = {
    {"token_embd.weight",
     TENSOR(token_embd),
     {ARCH_DIM_EMBD, ARCH_DIM_VOCAB},
     ARCH_CLASS_EMBEDDING,
     false},
    {"output_norm.weight", TENSOR(output_norm), {ARCH_DIM_EMBD}, ARCH_CLASS_NORM, false},
    {"output.weight", TENSOR(output), {ARCH_DIM_EMBD, ARCH_DIM_VOCAB}, ARCH_CLASS_OUTPUT, true},
    {"rope_freqs.weight", TENSOR(rope_freqs), {ARCH_DIM_ROPE_HALF}, ARCH_CLASS_NORM, true},
};

static const struct arch_tensor llama_layer_tensors[] = {
    {"attn_norm.weight", LAYER(attn_norm), {ARCH_DIM_EMBD}, ARCH_CLASS_NORM, false},
    {"attn_q.weight", LAYER(attn_q), {ARCH_DIM_EMBD, ARCH_DIM_HEADS}, ARCH_CLASS_ATTENTION, false},
    {"attn_k.weight", LAYER(attn_k), {ARCH_DIM_EMBD, ARCH_DIM_KV}, ARCH_CLASS_ATTENTION, false},
    {"attn_v.weight", LAYER(attn_v), {ARCH_DIM_EMBD, ARCH_DIM_KV}, ARCH_CLASS_ATTENTION, false},
    {"attn_output.weight",
     LAYER(attn_output),
     {ARCH_DIM_HEADS, ARCH_DIM_EMBD},
     ARCH_CLASS_ATTENTION,
     false},
    {"ffn_norm.weight", LAYER(ffn_norm), {ARCH_DIM_EMBD}, ARCH_CLASS_NORM, false},
    {"ffn_gate.weight", LAYER(ffn_gate), {ARCH_DIM_EMBD, ARCH_DIM_FF}, ARCH_CLASS_FFN, false},
    {"ffn_up.weight", LAYER(ffn_up), {ARCH_DIM_EMBD, ARCH_DIM_FF}, ARCH_CLASS_FFN, false},
    {"ffn_down.weight", LAYER(ffn_down), {ARCH_DIM_FF, ARCH_DIM_EMBD}, ARCH_CLASS_FFN, false},
};

static const struct model_arch archs[] = {
    {
        .name = "llama",
        .rope_style = ROPE_STYLE_PAIRS,
        .rope_base = 10000.0f,
        .keys = llama_keys,
        .n_keys = COUNT(llama_keys),
        .tensors = llama_tensors,
        .n_tensors = COUNT(llama_tensors),
        .layer_tensors = llama_layer_tensors,
        .n_layer_tensors = COUNT(llama_layer_tensors),
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
    return "llama";
}
