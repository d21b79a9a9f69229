/*
 * runtime_shape.h - what a model, or one rank's share of it, will be once loaded, from its header
 * alone: context, KV pool, buffers, bytes. Loading and estimating go through it, so that they
 * agree. A whole model is the share of the only rank.
 *
 * Ownership: runtime_shape_fini frees what runtime_shape_read made; tensors are borrowed from the
 * gguf. Thread: any.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_SHAPE_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_SHAPE_H

#include "common/err.h"
#include "worker/engine/engine.h"
#include "worker/engine/gang.h"
#include "worker/engine/shard_plan.h"
#include "worker/model/hparams.h"

#include <stdint.h>

/* A backend's cache has one number of KV heads in all its layers: layers with other numbers are in
 * caches of their own, under the same page ids. */
#define RUNTIME_KV_MAX  BACKEND_ROOM_CACHES_MAX
#define RUNTIME_KV_NONE 0xffu /* a layer of which this rank has no KV heads */

struct runtime_shape_kv {
    uint32_t n_caches;
    struct kv_shape cache[RUNTIME_KV_MAX];
    /* Of each layer: which cache, or RUNTIME_KV_NONE, and which of its layers. */
    uint8_t cache_of[MODEL_LAYERS_MAX];
    uint16_t layer_of[MODEL_LAYERS_MAX];
};

/* Samplers of a model: so many streams of a step are drawn at once. */
#define RUNTIME_DRAWERS_MAX 16u

struct runtime_shape {
    struct model_hparams hparams;
    struct model_tensors tensors;
    struct shard_plan *plan;
    const struct shard_rank_cut *shard; /* the rank's own, of the plan */
    uint32_t rank;
    uint32_t drawers;
    uint32_t context_tokens;
    uint32_t logits_rows;
    uint32_t n_pages;
    enum kv_type kv_type;
    struct gang_carrier carrier; /* of a gang */
    struct runtime_shape_kv kv;
};

/* `config` is complete (runtime_config_complete). Errors are those of model_hparams_read,
 * model_tensors_find and shard_plan_new, and ERR_INVALID, ERR_TOO_LARGE, ERR_UNSUPPORTED for a
 * context, pool, vocabulary or rank that cannot be. That is all that a file's shapes can be refused
 * for: loading finds nothing more of that kind. */
enum err runtime_shape_read(struct runtime_shape *ret_shape, const struct engine_config *config,
                            const struct engine_model_config *model, const struct gguf *g,
                            struct errbuf *eb);
void runtime_shape_fini(struct runtime_shape *shape);
/* The same model's share of another rank, one of the plan's. */
enum err runtime_shape_turn(struct runtime_shape *shape, uint32_t rank, struct errbuf *eb);

/* The rank holds all there is. */
bool runtime_is_whole(const struct runtime_shape *shape);

/* What the rank holds of a tensor of its model; `layer` as shard_slice has it. */
struct shard_slice runtime_slice(const struct runtime_shape *shape, uint32_t layer,
                                 enum model_part part, const struct gguf_tensor *t);

/* What the backend keeps for one step of one row, in elements; the largest layer decides. 0: there
 * is none of it. */
struct runtime_widths {
    uint32_t embd, heads, kv_heads, ff;
    uint32_t branch; /* n_embd where a branch of the residual is normed before it is added */
    uint32_t logits; /* rows of the head that are here; of rank 0, which draws, the vocabulary */
    bool embd_float, heads_float, ff_float; /* a weight of a float type reads this input */
};
struct runtime_widths runtime_widths(const struct runtime_shape *shape);

/* What the operations of its steps take room for. */
struct backend_room runtime_room(const struct runtime_shape *shape, uint32_t step_rows);

/* The most of a step, as all ranks of a gang have it; `model` is not filled in. What a stage's
 * ranks put into an exchange is the sums of all nodes of a part, which is never less than the rows
 * of the embedding. */
struct gang_limits runtime_gang_limits(const struct runtime_shape *shape,
                                       const struct engine_config *config);

/* Whether any of the rank's layers turns by this table. */
bool runtime_rope_used(const struct runtime_shape *shape, uint32_t rope);

/* Bytes outside the backend: rope tables, and of rank 0 samplers, rows that
 * they draw from where these are copies, and tokenizer (which keeps 2.4 to
 * 3.2 times what the file's header says it in: less than a hundredth of any model is in doubt). */
uint64_t runtime_shape_host_bytes(const struct runtime_shape *shape,
                                  const struct engine_config *config, const struct gguf *g);

/* What loading the rank's share will hold. `config` is complete. */
struct engine_estimate runtime_shape_estimate(const struct runtime_shape *shape,
                                              const struct engine_config *config,
                                              const struct gguf *g);

/* All of that for the rank of `model`: engine_estimate_file, of a file that is open. Refuses what
 * loading would refuse for its shapes; *ret_estimate is written only on success. */
enum err runtime_estimate(const struct engine_config *config,
                          const struct engine_model_config *model, const struct gguf *g,
                          struct engine_estimate *ret_estimate, struct errbuf *eb);

#endif
