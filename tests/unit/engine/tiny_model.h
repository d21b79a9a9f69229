/*
 * tiny_model.h - a GGUF file of seeded random weights, a few hundred KB, with a byte-level BPE of
 * 256 bytes, some merges and ChatML's control tokens. It says nothing sensible, but it says it the
 * same way every time. Llama-shaped unless a shape of the list below is taken.
 */
#ifndef CLOISTER_TESTS_UNIT_ENGINE_TINY_MODEL_H
#define CLOISTER_TESTS_UNIT_ENGINE_TINY_MODEL_H

#include "worker/kernels/quant_type.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TINY_MODEL_LAYERS_MAX 8

struct tiny_model {
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, context;
    enum quant_type layer_type, embd_type; /* F32, F16, Q8_0, Q4_1 */
    bool own_head;                         /* output.weight of its own, of layer_type */
    const char *chat_template;             /* NULL: the file has none */
    uint32_t seed;

    const char *arch; /* NULL: llama */
    bool qkv_bias, other_bias, head_norms, post_norms, rope_freqs;
    /* Of single layers, 0: as above; any makes the key an array. */
    uint32_t heads_of[TINY_MODEL_LAYERS_MAX], kv_heads_of[TINY_MODEL_LAYERS_MAX];
    uint32_t ff_of[TINY_MODEL_LAYERS_MAX];
    uint32_t window;
    uint32_t window_period;      /* 0: no key */
    const char *window_of;       /* "101": an array of bools instead; NULL: no key */
    float rope_base, local_base; /* 0: no key, as for all that follow */
    const char *rope_scaling;
    float rope_factor, rope_magnitude;
    uint32_t rope_context;
    float attention_scale, attention_softcap, logit_softcap;
};

#define TINY_MODEL_VOCAB 264
#define TINY_MODEL_EOS   261 /* <|im_end|> */

extern const char tiny_model_chatml[];

/* 2 layers of 64, Q8_0, tied, ChatML, 256 tokens of context. */
struct tiny_model tiny_model_default(void);

/* Shapes by name: every architecture, and what can differ within it. All F32, so that another
 * engine computes the same; take another type for other tests. */
size_t tiny_model_shape_count(void);
const char *tiny_model_shape_name(size_t index);
/* False where there is no such shape. */
bool tiny_model_shape(const char *name, struct tiny_model *ret_model);

/* A new file in the temporary directory; ret_path has room for 64 bytes. */
void tiny_model_write(const struct tiny_model *m, char *ret_path);

#endif
