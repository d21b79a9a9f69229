/*
 * tiny_model.h - a llama-shaped GGUF file of seeded random weights, a few hundred KB, with a
 * byte-level BPE of 256 bytes, some merges and ChatML's control tokens. It says nothing sensible,
 * but it says it the same way every time.
 */
#ifndef CLOISTER_TESTS_UNIT_ENGINE_TINY_MODEL_H
#define CLOISTER_TESTS_UNIT_ENGINE_TINY_MODEL_H

#include "worker/kernels/quant_type.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tiny_model {
    uint32_t n_layers, n_embd, n_heads, n_kv_heads, head_dim, n_ff, context;
    enum quant_type layer_type, embd_type; /* F32, F16, Q8_0, Q4_1 */
    bool own_head;                         /* output.weight of its own, of layer_type */
    const char *chat_template;             /* NULL: the file has none */
    uint32_t seed;
};

#define TINY_MODEL_VOCAB 264
#define TINY_MODEL_EOS   261 /* <|im_end|> */

extern const char tiny_model_chatml[];

/* 2 layers of 64, Q8_0, tied, ChatML, 256 tokens of context. */
struct tiny_model tiny_model_default(void);

/* A new file in the temporary directory; ret_path has room for 64 bytes. */
void tiny_model_write(const struct tiny_model *m, char *ret_path);

#endif
