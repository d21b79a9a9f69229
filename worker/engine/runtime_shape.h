/*
 * runtime_shape.h - what a model will be once loaded, from its header alone: context, KV pool,
 * buffers, bytes. Loading and estimating go through it, so that they agree.
 *
 * Ownership: plain values. Thread: any.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_SHAPE_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_SHAPE_H

#include "common/err.h"
#include "worker/engine/engine.h"
#include "worker/model/hparams.h"

#include <stdint.h>

struct runtime_shape {
    struct model_hparams hparams;
    uint32_t context_tokens;
    uint32_t logits_rows;
    struct kv_shape kv;
};

/* `config` is complete (runtime_config_complete). Errors are those of model_hparams_read, and
 * ERR_INVALID, ERR_TOO_LARGE for a context or pool that cannot be. */
enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb);

/* Which of a step's three kinds of quantized input are kept as floats too, because a weight of a
 * float type reads them. */
struct runtime_floats {
    bool embd, attention, ffn;
};
struct runtime_floats runtime_floats(const struct model_hparams *h, const struct model_tensors *t);

/* Bytes outside the backend: rope table, sampler, one row of logits, tokenizer (which keeps about
 * three times what the file's header says it in). */
uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape, const struct gguf *g);

#endif
