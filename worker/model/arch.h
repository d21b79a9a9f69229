/*
 * arch.h - the architecture table: one row an architecture, read by hparams.c.
 *
 * To add one: a row in arch.c with its keys and tensors, the fields its tensors need in
 * `struct model_layer_tensors`, and the branch of the engine that computes with them. Nothing in
 * hparams.c knows an architecture by name.
 *
 * Ownership: constants. Thread: any.
 */
#ifndef CLOISTER_WORKER_MODEL_ARCH_H
#define CLOISTER_WORKER_MODEL_ARCH_H

#include "worker/model/hparams.h"

/* Which of the model's sizes a tensor's dimension must equal. */
enum arch_dim {
    ARCH_DIM_NONE, /* the tensor has no such dimension */
    ARCH_DIM_EMBD,
    ARCH_DIM_FF,
    ARCH_DIM_HEADS, /* n_heads * head_dim */
    ARCH_DIM_KV,    /* n_kv_heads * head_dim */
    ARCH_DIM_HEAD,  /* head_dim */
    ARCH_DIM_VOCAB,
    ARCH_DIM_ROPE_HALF, /* rope_dim / 2 */
};

/* Which line of model_estimate a tensor counts for, and what types it may have. */
enum arch_class {
    ARCH_CLASS_EMBEDDING,
    ARCH_CLASS_ATTENTION,
    ARCH_CLASS_FFN,
    ARCH_CLASS_NORM, /* vectors that are used as they are: F32 only */
    ARCH_CLASS_OUTPUT,
};

struct arch_tensor {
    const char *name; /* "token_embd.weight"; in layers what follows "blk.N." */
    size_t field;     /* offset of the pointer in model_tensors or model_layer_tensors */
    enum arch_dim dims[2];
    enum arch_class class;
    bool optional;
};

enum arch_key_kind {
    ARCH_KEY_SIZE,      /* an integer into a uint32_t field, 1 to `max` */
    ARCH_KEY_POSITIVE,  /* a float into a float field, finite and greater than 0 */
    ARCH_KEY_MUST_BE,   /* an integer that must be `max`: a feature this build lacks otherwise */
    ARCH_KEY_MUST_TRUE, /* a bool that must be true */
    ARCH_KEY_IGNORED,   /* known, and without influence on what is computed */
    ARCH_KEY_ROPE,      /* read by the rope scaling rules of hparams.c */
};

struct arch_key {
    const char *name; /* what follows the architecture's prefix: "block_count" */
    enum arch_key_kind kind;
    size_t field; /* offset in model_hparams */
    uint32_t max;
    bool optional;
};

struct model_arch {
    const char *name; /* general.architecture */
    enum rope_style rope_style;
    float rope_base; /* where the file has no rope.freq_base */
    const struct arch_key *keys;
    size_t n_keys;
    const struct arch_tensor *tensors; /* outside of layers */
    size_t n_tensors;
    const struct arch_tensor *layer_tensors;
    size_t n_layer_tensors;
};

/* NULL where this build has no such architecture. */
const struct model_arch *model_arch_find(struct gguf_string name);
/* "llama, ..." for messages. */
const char *model_arch_list(void);

#endif
