/*
 * draws.h - the draws of one step: a token from each row of logits that is drawn from, the rows
 * shared out between the backend's threads. Which thread draws which row decides nothing.
 *
 * Where the backend picks from rows where they are (backend_ops.pick), each row is drawn from what
 * its own sampling takes of it: an id, a short list, or, as everywhere else, all of it. A list that
 * turns out too short is made up for by the row, which is read then.
 *
 * Ownership: draws_close frees everything; the runtime is borrowed by draws_step alone. Thread: the
 * runtime's owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_DRAWS_H
#define CLOISTER_WORKER_ENGINE_DRAWS_H

#include "worker/engine/batch.h"
#include "worker/engine/runtime.h"
#include "worker/engine/sampling.h"

struct draws {
    struct sampler *samplers[RUNTIME_DRAWERS_MAX];
    uint32_t n_samplers;
    const struct sampling **sampling; /* [logits_rows], set by the caller before each step */
    bool *whole; /* [logits_rows], likewise: the row is wanted beside what is drawn from it */
    struct pick *picks; /* [logits_rows], of the step */
    uint32_t *rows;     /* [logits_rows], of the step: those that are drawn from */
    uint32_t *short_of; /* [logits_rows], of the step: those whose lists are too short */
    float *copies;      /* [n_samplers][vocab_size] of them; NULL: rows are read where they are */
    int32_t *ids;       /* [logits_rows], as batch_commit takes them */
    struct sampling_logprobs *logprobs; /* [logits_rows], where the row's sampling wants them */
};

/* ERR_NO_MEMORY; draws_close in any case. */
enum err draws_open(struct draws *ret_draws, const struct runtime *runtime, enum backend_isa isa,
                    struct errbuf *eb);
void draws_close(struct draws *d);

/* Before forward_step, with `sampling` and `whole` of each of the plan's logits set: tells the
 * runtime what will be wanted of them. Without it they are brought whole. */
void draws_ask(struct draws *d, struct runtime *runtime, const struct batch_plan *plan);

/* Behind forward_step: fills `ids` and `logprobs` of the rows that are drawn from, by the row's
 * `sampling`. */
void draws_step(struct draws *d, struct runtime *runtime, const struct batch_plan *plan);

#endif
