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

/* A backend's cache has one number of KV heads in all its layers: layers with other numbers are in
 * caches of their own, under the same page ids. */
#define RUNTIME_KV_MAX BACKEND_ROOM_CACHES_MAX

struct runtime_shape_kv {
    uint32_t n_caches;
    struct kv_shape cache[RUNTIME_KV_MAX];
    /* Of each layer: which cache, and which of its layers. */
    uint8_t cache_of[MODEL_LAYERS_MAX];
    uint16_t layer_of[MODEL_LAYERS_MAX];
};

/* Samplers of a model: so many streams of a step are drawn at once. */
#define RUNTIME_DRAWERS_MAX 16u

struct runtime_shape {
    struct model_hparams hparams;
    uint32_t drawers;
    uint32_t context_tokens;
    uint32_t logits_rows;
    uint32_t n_pages;
    struct runtime_shape_kv kv;
};

/* `config` is complete (runtime_config_complete). Errors are those of model_hparams_read, and
 * ERR_INVALID, ERR_TOO_LARGE, ERR_UNSUPPORTED for a context, pool or vocabulary that cannot be.
 * With model_tensors_find that is all that a file's shapes can be refused for: loading finds
 * nothing more of that kind. */
enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb);

/* What the backend keeps for one step of one row, in elements; the largest layer decides. */
struct runtime_widths {
    uint32_t embd, heads, kv_heads, ff;
    bool branch; /* a branch of the residual is normed before it is added */
    bool embd_float, heads_float, ff_float; /* a weight of a float type reads this input */
};
struct runtime_widths runtime_widths(const struct model_hparams *h, const struct model_tensors *t);

/* How a matrix is summed: those that may be split along K, in more than one group. `layer` is NULL
 * for those of the whole model. */
struct sum_cut runtime_cut(const struct model_hparams *h, const struct model_layer_hparams *layer,
                           enum model_part part, const struct gguf_tensor *t);
/* What the operations of its steps take room for. */
struct backend_room runtime_room(const struct runtime_shape *shape, const struct model_tensors *t,
                                 uint32_t step_rows);

/* Whether any layer turns by this table. */
bool runtime_rope_used(const struct model_hparams *h, uint32_t rope);

/* Bytes outside the backend: rope tables, samplers, tokenizer (which keeps 2.4 to 3.2 times what
 * the file's header says it in: less than a hundredth of any model is in doubt). */
uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape, const struct gguf *g);

/* What loading a file will hold: engine_estimate_file, of a file that is open. Refuses what loading
 * would refuse for its shapes; *ret_estimate is written only on success. */
enum err runtime_estimate(const struct engine_config *config,
                          const struct engine_model_config *model, const struct gguf *g,
                          struct engine_estimate *ret_estimate, struct errbuf *eb);

#endif
