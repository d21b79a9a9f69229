/*
 * hparams.h - what kind of model a GGUF file holds: its sizes, and where its tensors are.
 *
 * Read through the architecture table (arch.h), which says for each architecture which keys and
 * tensors there are and what shapes they must have. Every value is checked against every other
 * and against the tensors before anybody computes with it; a key or tensor that the architecture
 * has no place for is refused, since leaving it out would change the answers.
 *
 * Ownership: model_tensors borrows the gguf's tensors; model_hparams owns nothing.
 * Thread: plain values, any.
 */
#ifndef CLOISTER_WORKER_MODEL_HPARAMS_H
#define CLOISTER_WORKER_MODEL_HPARAMS_H

#include "common/err.h"
#include "worker/kernels/backend.h" /* enum rope_style */
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

struct model_hparams {
    const struct model_arch *arch;
    char name[128]; /* general.name, printable, "" where there is none */
    uint32_t n_layers;
    uint32_t n_embd;
    uint32_t n_ff;
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* of keys and of values */
    uint32_t context_length;
    uint32_t vocab_size; /* rows of token_embd; as many as the tokenizer's list has */
    uint32_t rope_dim;   /* leading elements of a head that turn; even, at most head_dim */
    enum rope_style rope_style;
    float rope_base;
    float rope_scale; /* positions are multiplied by this before the rotation; 1 for none */
    float rms_eps;
    bool tied_embedding; /* no output.weight: the head is token_embd */
};

/* Refuses with key or tensor and reason: ERR_UNSUPPORTED for an architecture, scaling or tensor
 * type this build lacks, ERR_INVALID for values that are wrong or do not fit each other,
 * ERR_NOT_FOUND for what is missing, ERR_TOO_LARGE over a bound above. Works on a header-only
 * gguf as well. `*ret` is written only on success. */
enum err model_hparams_read(struct model_hparams *ret, const struct gguf *g, struct errbuf *eb);

const char *model_arch_name(const struct model_hparams *h); /* "llama" */

/* Matrices are [K, rows]: dims[0] is K, the length of a row. */
struct model_layer_tensors {
    const struct gguf_tensor *attn_norm;   /* [n_embd], F32 */
    const struct gguf_tensor *attn_q;      /* [n_embd, n_heads * head_dim] */
    const struct gguf_tensor *attn_k;      /* [n_embd, n_kv_heads * head_dim] */
    const struct gguf_tensor *attn_v;      /* [n_embd, n_kv_heads * head_dim] */
    const struct gguf_tensor *attn_output; /* [n_heads * head_dim, n_embd] */
    const struct gguf_tensor *ffn_norm;    /* [n_embd], F32 */
    const struct gguf_tensor *ffn_gate;    /* [n_embd, n_ff] */
    const struct gguf_tensor *ffn_up;      /* [n_embd, n_ff] */
    const struct gguf_tensor *ffn_down;    /* [n_ff, n_embd] */
};

struct model_tensors {
    const struct gguf_tensor *token_embd;  /* [n_embd, vocab_size] */
    const struct gguf_tensor *output_norm; /* [n_embd], F32 */
    const struct gguf_tensor *output;      /* [n_embd, vocab_size]; token_embd where tied */
    const struct gguf_tensor *rope_freqs; /* [rope_dim / 2], F32: divisors of the angles; or NULL */
    struct model_layer_tensors *layers;   /* n_layers of them */
};

/* Finds and checks all tensors; model_tensors_fini frees the list of layers. */
enum err model_tensors_find(struct model_tensors *ret, const struct model_hparams *h,
                            const struct gguf *g, struct errbuf *eb);
void model_tensors_fini(struct model_tensors *t);

/* What loading will take, from the header alone. */
struct model_estimate {
    uint64_t weights_bytes; /* all tensors: the sum of the classes below */
    uint64_t embedding_bytes;
    uint64_t attention_bytes;
    uint64_t ffn_bytes;
    uint64_t norm_bytes;         /* norms and rope_freqs */
    uint64_t output_bytes;       /* 0 where tied */
    uint64_t layer_bytes_max;    /* the largest single layer */
    uint64_t kv_items_per_token; /* elements of K and V of all layers for one position */
    uint64_t kv_bytes_per_token; /* of those, in the cache's format */
};

/* The cache keeps blocks of `kv_block_items` elements in `kv_block_bytes` bytes: 1 and 2 for f16,
 * 32 and 34 for q8_0; ERR_INVALID where a head is not whole blocks. */
enum err model_estimate_bytes(struct model_estimate *ret, const struct model_hparams *h,
                              const struct gguf *g, uint32_t kv_block_items,
                              uint32_t kv_block_bytes, struct errbuf *eb);

/* SHA-256 of the whole file, streamed in pieces; the name under which records know the weights. */
enum err model_file_digest(const char *path, uint8_t ret_digest[32], struct errbuf *eb);

#endif
