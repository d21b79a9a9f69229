/*
 * runtime.h - a model that is ready to compute: its weights on a backend of its own, tokenizer,
 * chat template, KV pool, rope table, and the buffers of one step.
 *
 * The file is read once; its private copy is freed when the weights are packed. A file whose chat
 * template is not recognised still serves raw text; `chat_error` says why chat is refused.
 *
 * Ownership: runtime_close frees everything, the backend included. Thread: opened on one thread,
 * then handed to one owner; `tokenizer` and `chat` may be read from any thread meanwhile.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_H

#include "common/err.h"
#include "worker/engine/engine.h"
#include "worker/kernels/backend.h"
#include "worker/model/chat.h"
#include "worker/model/hparams.h"
#include "worker/model/tokenizer.h"

#include <stdatomic.h>
#include <stdint.h>

struct runtime_layer {
    float *attn_norm, *ffn_norm; /* [n_embd] gains */
    struct weight *attn_q, *attn_k, *attn_v, *attn_output;
    struct weight *ffn_gate, *ffn_up, *ffn_down;
};

struct runtime {
    struct backend *backend;
    struct model_hparams hparams;
    uint32_t context_tokens;
    uint32_t kv_pages;
    uint32_t step_rows;   /* rows the buffers hold */
    uint32_t logits_rows; /* of these, rows whose logits may be wanted */

    /* Where architectures differ beyond their shapes. */
    enum activation activation;
    float embed_scale;
    float attention_scale;

    struct weight *token_embd;
    struct weight *output; /* token_embd itself where the file has no head of its own */
    float *output_norm;
    struct runtime_layer *layers; /* [hparams.n_layers] */
    struct kv *kv;
    float *rope; /* host: [context_tokens][rope_dim / 2][2] */

    float *x, *q, *k, *v, *gate, *up; /* [step_rows][...] */
    float *logits;                    /* [logits_rows][vocab_size] */
    struct act *act_embd, *act_attention, *act_ffn;
    float *host_logits; /* host: [vocab_size], one row read back */

    struct tokenizer *tokenizer;
    struct chat_template *chat; /* NULL: chat jobs are refused */
    enum err chat_err;
    char chat_error[ERRBUF_BYTES];

    uint64_t weights_bytes, kv_bytes, scratch_bytes; /* measured when loading was done */
};

/* Loads; returns ERR_CANCELLED soon after *stop (which may be NULL) becomes true. */
enum err runtime_open(struct runtime **ret_runtime, const struct engine_config *config,
                      const struct engine_model_config *model, const atomic_bool *stop,
                      struct errbuf *eb);
void runtime_close(struct runtime *r);

/* The numbers of `config` with every 0 replaced by its default. ERR_INVALID names the value that
 * is out of range. */
enum err runtime_config_complete(const struct engine_config *config,
                                 struct engine_config *ret_config, struct errbuf *eb);

#endif
