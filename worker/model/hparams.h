/*
 * hparams.h - what kind of model a GGUF file holds: its sizes, what its layers compute, and where
 * its tensors are.
 *
 * Read through the architecture table (arch.h), which says for each architecture which keys and
 * tensors there are and what follows from them. Every value is checked against every other and
 * against the tensors before anybody computes with it; a key or tensor that the architecture has
 * no place for is refused, since leaving it out would change the answers.
 *
 * What comes out is data that one forward pass interprets: nothing behind this header asks for an
 * architecture's name.
 *
 * Ownership: model_tensors borrows the gguf's tensors; model_hparams owns nothing.
 * Thread: plain values, any.
 */
#ifndef CLOISTER_WORKER_MODEL_HPARAMS_H
#define CLOISTER_WORKER_MODEL_HPARAMS_H

#include "common/err.h"
#include "worker/kernels/backend.h" /* enum rope_style, enum activation */
#include "worker/model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct model_arch; /* arch.h */

/* Bounds far above any model that could be loaded, so that no product of two or three of these
 * leaves 64 bits. */
#define MODEL_LAYERS_MAX   1024u
#define MODEL_EMBD_MAX     (1u << 17)
#define MODEL_FF_MAX       (1u << 20)
#define MODEL_HEADS_MAX    1024u
#define MODEL_HEAD_DIM_MAX 1024u
#define MODEL_CONTEXT_MAX  (1u << 27)
#define MODEL_VOCAB_MAX    (1u << 21)
/* rope_freqs, as the kernels' rope table takes them. */
#define MODEL_ROPE_FREQ_MIN (1.0f / 1024)
#define MODEL_ROPE_FREQ_MAX 1e6f

/* How positions become angles: pair i of position p turns by p * base^(-2i / rope_dim) / factor. */
struct model_rope {
    float base;
    float factor;              /* 1 to 1e6; 1: the angles as they are */
    float magnitude;           /* of the turned vectors, before what yarn adds; 1 */
    bool yarn;                 /* the slow pairs are divided by `factor`, the fast ones are not */
    uint32_t original_context; /* yarn: what the model was stretched from */
    bool freqs;                /* divided by tensor rope_freqs.weight, where there is one */
};

#define MODEL_ROPE_GLOBAL 0u
#define MODEL_ROPE_LOCAL  1u /* of layers with a window, where the architecture has two */
#define MODEL_ROPES       2u

struct model_layer_hparams {
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t n_ff;
    uint32_t window; /* a position sees the last so many, its own among them; 0: all */
    uint32_t rope;   /* MODEL_ROPE_* */
};

struct model_hparams {
    const struct model_arch *arch;
    char name[128]; /* general.name, printable, "" where there is none */
    uint32_t n_layers;
    uint32_t n_embd;
    uint32_t head_dim; /* of keys and of values */
    uint32_t context_length;
    uint32_t vocab_size; /* rows of token_embd; as many as the tokenizer's list has */
    float rms_eps;
    bool tied_embedding; /* no output.weight: the head is token_embd */

    enum rope_style rope_style;
    uint32_t rope_dim; /* leading elements of a head that turn; even, at most head_dim */
    struct model_rope rope[MODEL_ROPES];

    enum activation activation;
    float embed_scale;       /* of the embedding's rows; 1 */
    float attention_scale;   /* of the products of queries and keys */
    float attention_softcap; /* 0: none */
    float logit_softcap;     /* 0: none */

    uint32_t n_heads_max, n_kv_heads_max, n_ff_max; /* over the layers */
    struct model_layer_hparams layer[MODEL_LAYERS_MAX];
};

/* Refuses with key or tensor and reason: ERR_UNSUPPORTED for an architecture, scaling or tensor
 * type this build lacks, ERR_INVALID for values that are wrong or do not fit each other,
 * ERR_NOT_FOUND for what is missing, ERR_TOO_LARGE over a bound above. Works on a header-only
 * gguf as well. `*ret` is written only on success. */
enum err model_hparams_read(struct model_hparams *ret, const struct gguf *g, struct errbuf *eb);

const char *model_arch_name(const struct model_hparams *h); /* "llama" */

/* Everything a tensor can be; arch.c says what each is called and how large it must be. Matrices
 * are [K, rows]: dims[0] is K, the length of a row. The other parts are vectors in F32. */
enum model_part {
    /* once in a model */
    MODEL_PART_TOKEN_EMBD, /* matrix [n_embd, vocab_size] */
    MODEL_PART_OUTPUT_NORM,
    MODEL_PART_OUTPUT, /* matrix [n_embd, vocab_size]; without it the head is TOKEN_EMBD */
    MODEL_PART_OUTPUT_BIAS,
    MODEL_PART_ROPE_FREQS, /* [rope_dim / 2]: divisors of the angles */
    /* once in a layer */
    MODEL_PART_ATTN_NORM,
    MODEL_PART_ATTN_Q, /* matrix [n_embd, n_heads * head_dim] */
    MODEL_PART_ATTN_Q_BIAS,
    MODEL_PART_ATTN_Q_NORM, /* [head_dim]: each head of q is normed before it turns */
    MODEL_PART_ATTN_K,      /* matrix [n_embd, n_kv_heads * head_dim] */
    MODEL_PART_ATTN_K_BIAS,
    MODEL_PART_ATTN_K_NORM,
    MODEL_PART_ATTN_V, /* matrix [n_embd, n_kv_heads * head_dim] */
    MODEL_PART_ATTN_V_BIAS,
    MODEL_PART_ATTN_OUTPUT, /* matrix [n_heads * head_dim, n_embd] */
    MODEL_PART_ATTN_OUTPUT_BIAS,
    MODEL_PART_ATTN_POST_NORM, /* [n_embd]: of the branch, before it is added to the residual */
    MODEL_PART_FFN_NORM,
    MODEL_PART_FFN_GATE, /* matrix [n_embd, n_ff] */
    MODEL_PART_FFN_GATE_BIAS,
    MODEL_PART_FFN_UP, /* matrix [n_embd, n_ff] */
    MODEL_PART_FFN_UP_BIAS,
    MODEL_PART_FFN_DOWN, /* matrix [n_ff, n_embd] */
    MODEL_PART_FFN_DOWN_BIAS,
    MODEL_PART_FFN_POST_NORM, /* [n_embd], as ATTN_POST_NORM */
    MODEL_PART_COUNT,
};

bool model_part_is_matrix(enum model_part part);

struct model_parts {
    const struct gguf_tensor *at[MODEL_PART_COUNT]; /* NULL: the file has none */
};

struct model_tensors {
    struct model_parts whole;   /* what is there once */
    struct model_parts *layers; /* n_layers of them */
};

/* Finds and checks all tensors; model_tensors_fini frees the list of layers. */
enum err model_tensors_find(struct model_tensors *ret, const struct model_hparams *h,
                            const struct gguf *g, struct errbuf *eb);
void model_tensors_fini(struct model_tensors *t);

/* ERR_INVALID, naming tensor and element, where a vector holds what is no number, or, in
 * ROPE_FREQS, nothing that an angle can be divided by. */
enum err model_vector_check(enum model_part part, struct gguf_string name, const float *values,
                            uint64_t count, struct errbuf *eb);

/* SHA-256 of the whole file, streamed in pieces; the name under which records know the weights. Of
 * a split model, whichever part `path` names: of all parts, one after the other in their order. */
enum err model_file_digest(const char *path, uint8_t ret_digest[32], struct errbuf *eb);

#endif
