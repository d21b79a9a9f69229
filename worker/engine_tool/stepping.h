/*
 * stepping.h - a model stepped by hand: the batch and the forward pass of the engine without its
 * threads and events, for commands that look at every step (bench) or every logit (perplexity).
 *
 * Ownership: stepping_close frees everything. Thread: one owner; the backend has its own threads.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_STEPPING_H
#define CLOISTER_WORKER_ENGINE_TOOL_STEPPING_H

#include "worker/engine/batch.h"
#include "worker/engine/draws.h"
#include "worker/engine/engine.h"
#include "worker/engine/runtime.h"
#include "worker/engine/steps.h"
#include "worker/engine_tool/ranks.h"

struct stepping {
    struct ranks ranks; /* the other processes, where the model is on several */
    struct runtime *runtime;
    struct batch *batch;
    struct batch_config config;
    struct draws draws;
    struct steps steps;
    struct sampling likeliest;
};

/* `sequences` of the engine's configuration run at once; logits of `logits_rows` rows of a step may
 * be wanted, 0: as many as sequences. */
/* In place: what is open points into it. */
enum err stepping_open(struct stepping *ret_stepping, const struct engine_config *engine,
                       const struct engine_model_config *model, struct errbuf *eb);
void stepping_close(struct stepping *s);

/* Until a step has ended: admits, plans, computes, draws as the engine does, the likeliest token.
 * *ret_plan is that step, valid until the next call; it has no rows where no job runs. Of a model
 * in stages others are under way then, whose jobs cannot be removed. */
enum err stepping_step(struct stepping *s, struct batch_plan *ret_plan, struct errbuf *eb);

#endif
