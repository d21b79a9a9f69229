/*
 * arch.h - the architecture table: one row an architecture, read by hparams.c.
 *
 * A row is data: which keys the file may have beside the common ones, which parts (hparams.h) it
 * must and may have, how positions turn, what the feed-forward layer's activation is, what is
 * scaled. Where a norm stands, or whether there is a bias, is said by the part being there. To add
 * an architecture is to add a row (docs/models.md shows one); code changes only where a part or a
 * property is new to all of them.
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
    ARCH_DIM_HEADS, /* n_heads * head_dim of the layer */
    ARCH_DIM_KV,    /* n_kv_heads * head_dim of the layer */
    ARCH_DIM_HEAD,  /* head_dim */
    ARCH_DIM_VOCAB,
    ARCH_DIM_ROPE_HALF, /* rope_dim / 2 */
};

/* What a part is called and how large it must be: the same in every architecture. */
struct arch_part {
    const char *name;      /* "token_embd.weight"; in layers what follows "blk.N." */
    enum arch_dim dims[2]; /* a vector, used as it is and in F32 only, has one */
    bool in_layer;
};
extern const struct arch_part arch_parts[MODEL_PART_COUNT];

enum arch_need {
    ARCH_NEED_NOT, /* the architecture has no place for it */
    ARCH_NEED_MUST,
    ARCH_NEED_MAY,
};

enum arch_key_kind {
    ARCH_KEY_SIZE,       /* an integer into a uint32_t field, 1 to `max` */
    ARCH_KEY_LAYER_SIZE, /* the same, one for all layers or an array of one for each */
    ARCH_KEY_POSITIVE,   /* a float into a float field, finite and greater than 0 */
    ARCH_KEY_CAP,        /* a float into a float field, finite and 0 or greater */
    ARCH_KEY_MUST_BE,    /* an integer that must be `value`: a feature this build lacks otherwise */
    ARCH_KEY_MUST_BE_REAL, /* likewise a float */
    ARCH_KEY_MUST_TRUE,    /* a bool that must be true */
    ARCH_KEY_IGNORED,      /* known, and without influence on what is computed */
    ARCH_KEY_RULE,         /* read by a rule of hparams.c: rope scaling, windows, value_length */
};

struct arch_key {
    const char *name; /* what follows the architecture's prefix: "block_count" */
    enum arch_key_kind kind;
    size_t field; /* offset in model_hparams; of LAYER_SIZE in model_layer_hparams */
    uint32_t max;
    float value;
    bool optional;
};

/* Keys that every architecture has. */
extern const struct arch_key arch_common_keys[];
extern const size_t arch_n_common_keys;

struct model_arch {
    const char *name; /* general.architecture */
    enum rope_style rope_style;
    float rope_base; /* where the file has no rope.freq_base; 0: it must have one */
    bool yarn;       /* rope.scaling.type may be yarn */
    enum activation activation;
    bool embed_scaled; /* the embedding's rows are multiplied by sqrt(n_embd) */
    /* Queries are scaled by 1 / sqrt(head_dim), in models of so many layers by 1 / sqrt(n_embd /
     * n_heads); 0: in none. attention.scale in the file overrules both. */
    uint32_t wide_scale_layers;
    /* attention.sliding_window: every layer has it but each window_period-th, the last of its
     * period. The file's attention.sliding_window_pattern overrules the period. 0: the
     * architecture has no windows. */
    uint32_t window_period;
    float local_rope_base; /* of layers with a window, where the file has no rope.freq_base_swa */
    const struct arch_key *keys; /* beside the common ones */
    size_t n_keys;
    uint8_t parts[MODEL_PART_COUNT]; /* enum arch_need */
};

/* NULL where this build has no such architecture. */
const struct model_arch *model_arch_find(struct gguf_string name);
/* "llama, ..." for messages. */
const char *model_arch_list(void);

#endif
