/*
 * steps.h - the steps of one model that are under way: from a plan of the batch to the tokens that
 * are drawn from it. Most models have one at a time. Of a model in stages each stage computes
 * another one (gang_steps_max): the next is planned, told and begun before the one before it has
 * drawn, over jobs that are not in it.
 *
 * Steps begin, draw and are committed in the order in which they were planned.
 *
 * Ownership: batch, runtime and draws are the caller's. Thread: the runtime's owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_STEPS_H
#define CLOISTER_WORKER_ENGINE_STEPS_H

#include "worker/engine/batch.h"
#include "worker/engine/draws.h"
#include "worker/engine/runtime.h"

/* Sets `sampling` and `whole` of each of the plan's logits. */
typedef void steps_want(void *ctx, struct draws *draws, const struct batch_plan *plan);

struct steps {
    struct batch *batch;
    struct runtime *runtime;
    struct draws *draws;
    steps_want *want;
    void *ctx;
    uint32_t max;
    struct {
        struct batch_plan plan;
        uint64_t began_ns;
    } under_way[BATCH_PLANS_MAX]; /* a ring */
    uint32_t oldest, n;
    uint32_t n_begun;  /* of the oldest of these */
    bool has_come;     /* the logits that were owed longest are here */
    uint64_t ended_ns; /* when one was committed last */
};

/* As `plans_max` of the runtime's batch is to be. */
uint32_t steps_max(const struct runtime *runtime);

void steps_init(struct steps *s, struct batch *batch, struct runtime *runtime, struct draws *draws,
                steps_want *want, void *ctx);

/* Plans one step more where there can and (`may_plan`) may be one, and computes this rank's share
 * of it. *ret_plan: the oldest, where it is its turn to be drawn from, with its logits;
 * steps_commit is to follow. NULL: it is no step's turn yet, or none is under way. An error is
 * forward.h's: all are given up then (batch_abandon). While steps are under way other ranks may
 * wait for this one, for as long as they wait in a step. */
enum err steps_turn(struct steps *s, bool may_plan, const struct batch_plan **ret_plan,
                    struct errbuf *eb);

/* Draws from the oldest, tokens in draws->ids, and commits it. Returns the nanoseconds that it took
 * since it began, or, where that is later, since the one before was committed: those of all steps
 * add up to no more than what has passed. */
uint64_t steps_commit(struct steps *s);

/* Nothing under way will be computed. */
void steps_abandon(struct steps *s);

#endif
