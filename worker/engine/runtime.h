/*
 * runtime.h - a model that is ready to compute: its weights on a backend of its own, tokenizer,
 * chat template, KV pool, rope tables, and the buffers of one step.
 *
 * Tensors go from the file to the backend piece by piece; the file's bytes are never in memory as a
 * whole. A file whose chat template is not recognised still serves raw text; `chat_error` says why
 * chat is refused.
 *
 * Ownership: runtime_close frees everything, the backend included. Thread: opened on one thread,
 * then handed to one owner; `tokenizer` and `chat` may be read from any thread meanwhile.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_H

#include "common/err.h"
#include "worker/engine/engine.h"
#include "worker/engine/gang.h"
#include "worker/engine/runtime_shape.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/rope_table.h"
#include "worker/model/chat.h"
#include "worker/model/hparams.h"
#include "worker/model/tokenizer.h"

#include <stdatomic.h>
#include <stdint.h>

/* By enum model_part; NULL where the model has none. */
struct runtime_parts {
    struct weight *matrix[MODEL_PART_COUNT];
    float *vector[MODEL_PART_COUNT];
};

struct runtime {
    struct backend *backend;
    struct model_hparams hparams;
    struct shard_plan *plan;
    const struct shard_rank_cut *shard; /* this rank's, of the plan: of a whole model all of it */
    struct gang *gang;                  /* NULL: the model is whole */
    struct runtime_shape_kv shape;
    uint32_t context_tokens;
    uint32_t kv_pages;
    uint32_t step_rows;   /* rows the buffers hold */
    uint32_t logits_rows; /* of these, rows whose logits may be wanted */

    struct runtime_parts whole;
    struct runtime_parts *layers; /* [hparams.n_layers] */
    const struct weight *head;    /* whole's OUTPUT, or its TOKEN_EMBD; NULL: this rank has none */
    struct kv *kv[RUNTIME_KV_MAX];
    struct rope_table *rope[MODEL_ROPES]; /* of context_tokens; NULL: no layer has it */

    float *x, *q, *k, *v, *gate, *up; /* [step_rows][...] of the largest layer */
    float *branch; /* [step_rows][n_embd]: what is normed before it is added to x; NULL: nothing */
    float *logits; /* [logits_rows][vocab_size]; NULL on other ranks than 0 */
    float *picked; /* [logits_rows] backend_ops.pick of them; NULL: this backend has none */
    /* Of the step that comes, [its logits' rows]: what is wanted of each; NULL: all of them as they
     * are. Borrowed until forward_step has returned. */
    const struct pick *picks;
    struct backend_piece *pieces; /* [logits_rows + 1] what the host looks at after the step */
    uint32_t drawers;             /* samplers that its streams are drawn with */
    struct act *act_embd, *act_attention, *act_ffn;

    struct tokenizer *tokenizer; /* NULL on other ranks than 0 */
    struct chat_template *chat;  /* NULL: chat jobs are refused */
    enum err chat_err;
    char chat_error[ERRBUF_BYTES];

    /* Measured when loading was done. */
    uint64_t weights_bytes, kv_bytes, scratch_bytes, exchange_bytes;
};

/* Loads. ERR_CANCELLED: *stop (NULL: never) became true, which is looked at ten times a second
 * while ranks are waited for, and for each piece of a matrix; not while the tokenizer is read or
 * memory is taken. Of a gang it is read until runtime_close: forward_step and forward_follow end by
 * it, too. ERR_CORRUPT, saying where, when the file was cut short or written to meanwhile. */
enum err runtime_open(struct runtime **ret_runtime, const struct engine_config *config,
                      const struct engine_model_config *model, const atomic_bool *stop,
                      struct errbuf *eb);
void runtime_close(struct runtime *r);

/* The numbers of `config` with every 0 replaced by its default. ERR_INVALID names the value that
 * is out of range. */
enum err runtime_config_complete(const struct engine_config *config,
                                 struct engine_config *ret_config, struct errbuf *eb);

#endif
