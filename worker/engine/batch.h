/*
 * batch.h - the batching core: which jobs run, which pages of the KV cache are theirs, and which
 * rows the next step computes. It decides; the engine does.
 *
 * Admission: jobs wait in order of arrival and are admitted in that order, each with all pages it
 * can ever need (prompt and every token it may still draw), so a running job never runs out and
 * is never put back. The first in line waits for pages and nobody passes it.
 *
 * A step has at most `step_tokens` rows. Jobs that draw get one row each, jobs whose prompt is not
 * computed get a piece of it, at most `chunk_tokens`. While prompts wait, a quarter of the step is
 * theirs. Where a step has no room for all, those not served longest go first, so every running
 * job gets a row at least once in `slots` steps.
 *
 * None of this can change a token: a row's result depends on its own sequence only (backend.h).
 *
 * Pure: no clock, thread, file, socket, backend; the same calls give the same plans.
 * Ownership: batch_free frees everything. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_BATCH_H
#define CLOISTER_WORKER_ENGINE_BATCH_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct batch;

struct batch_config {
    uint32_t slots;          /* jobs that run at once, >= 1 */
    uint32_t waiting_max;    /* jobs in line, >= 1 */
    uint32_t pages;          /* in the KV pool, >= 1 */
    uint32_t page_tokens;    /* positions of one page, >= 1 */
    uint32_t context_tokens; /* most ids of one job, >= 2 */
    uint32_t step_tokens;    /* rows of one step, >= 2 */
    uint32_t chunk_tokens;   /* rows of one prompt in one step, >= 1 */
    uint32_t logits_rows;    /* rows of one step whose logits are computed, >= slots */
};

/* ERR_INVALID names the value that is out of range. */
enum err batch_new(struct batch **ret_batch, const struct batch_config *config, struct errbuf *eb);
void batch_free(struct batch *b);

struct batch_job {
    void *owner;        /* the caller's, not NULL; unique among the batch's jobs */
    const int32_t *ids; /* the prompt and behind it what an earlier attempt drew; copied */
    uint32_t n_ids;
    uint32_t n_limit; /* ids at which the job ends, n_ids < n_limit <= context_tokens */
    /* First position whose logits are wanted, < n_ids; n_ids - 1 where nothing was drawn before.
     * From there to n_ids - 2 logits are computed without a draw. */
    uint32_t logits_from;
};

/* Positions of the KV cache that a job holds: the last id drawn is never computed. */
uint32_t batch_pages_needed(const struct batch_config *config, uint32_t n_limit);

/* Puts the job in line. ERR_BUSY: the line is full. ERR_TOO_LARGE: more pages than the pool has.
 * ERR_INVALID: ids or limit out of range. */
enum err batch_add(struct batch *b, const struct batch_job *job, struct errbuf *eb);

/* Gives the first in line a slot and its pages; NULL (and nothing changed) where it has to wait or
 * nobody is in line. Returns the owner. */
void *batch_admit(struct batch *b, uint32_t *ret_slot);

/* Takes a job out, in line or running; its pages are free at once. Not between plan and commit.
 * False where the owner has no job here. */
bool batch_remove(struct batch *b, const void *owner);

/* One step. The arrays are valid until the next plan, pages until the batch changes. The rows whose
 * logits are wanted are the last n_logits ones; of these, a sequence's rows are in order of
 * position. */
struct batch_plan {
    uint32_t n_rows;
    const int32_t *ids;
    const uint32_t *position;
    const uint32_t *slot; /* row of page_table */
    uint32_t n_logits;
    const bool *draw;      /* [n_logits] a token is to be drawn from these logits */
    uint32_t n_prompt;     /* rows that are not a running decode */
    const uint32_t *pages; /* [slots][pages_stride] */
    uint32_t pages_stride;
};

/* False where no job runs. Every running job must have room for one more id. */
bool batch_plan_step(struct batch *b, struct batch_plan *ret_plan);
/* The planned step was computed: drawn[i] is appended to the sequence of logits row i where
 * draw[i]. The caller then removes the jobs that have ended: those it sees an end in, and those
 * that batch_full() says are at their limit. */
void batch_commit(struct batch *b, const int32_t *drawn);

bool batch_full(const struct batch *b, uint32_t slot);
void *batch_owner(const struct batch *b, uint32_t slot); /* NULL: the slot is free */
/* Every id of the job that runs in `slot`, until the batch next changes. */
const int32_t *batch_ids(const struct batch *b, uint32_t slot, uint32_t *ret_count);

/* Positions of the job's sequence that are in the KV cache. */
uint32_t batch_computed(const struct batch *b, uint32_t slot);

struct batch_state {
    uint32_t running;
    uint32_t waiting;
    uint32_t pages_free;
    uint64_t queued_tokens; /* ids not computed yet and tokens that may still be drawn, all jobs */
};
struct batch_state batch_state(const struct batch *b);

#endif
