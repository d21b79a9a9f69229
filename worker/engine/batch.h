/*
 * batch.h - the batching core: which jobs run, which pages of the KV cache are theirs, and which
 * rows the next step computes. It decides; the engine does.
 *
 * The line. Jobs wait by class, then by arrival. A job that later ones have passed `pass_max` times
 * counts as of the best class from then on, so no class starves. The first in line is admitted when
 * a slot is free and the pool has pages for the ids it has, besides `headroom_pages` more for each
 * running job; nobody passes it while it waits for pages.
 *
 * Pages are taken as positions are computed, not for all tokens that a job may yet draw. When they
 * run out, or when a job of a better class is first in line, a running job is preempted: its pages
 * are dropped, it goes back to its place in the line, and what it had is computed again when it is
 * admitted again (or found in the cache). The victim is the last to arrive of the worst class, so
 * the first to arrive of the best class is never one, and always gets on.
 *
 * Prefix reuse: whole pages of ids that another job of the same `space` has in the cache are held
 * and not computed. While one job computes a page that others need too, those wait for it; it is
 * running, so they wait for a bounded number of steps.
 *
 * A step has at most `step_tokens` rows. Jobs that draw get one row each; jobs whose ids are not
 * all computed get a piece of them, at most `chunk_tokens`, and in a step where anybody draws all
 * pieces together at most `beside_tokens`, so that a long prompt does not stall the streams beside
 * it. While prompts wait, a quarter of the step is theirs. Where a step has no room for all, those
 * not served longest go first.
 *
 * Several plans may be under way at a time, `plans_max` of them, for a model whose stages each
 * compute another one. They are committed in the order in which they were made. A job is in one of
 * them at most, since its next id is drawn when that one is committed; until then it keeps its
 * slot and its pages, and who would have them waits for that commit. So that there is something
 * for each plan, one takes only its share of the jobs that draw: parts that became uneven, as jobs
 * come and go, even out again from plan to plan. While anybody draws in a plan under way, prompts
 * count as beside it.
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
struct batch_seq; /* one job's sequence, from batch_add to batch_remove */

struct batch_config {
    uint32_t slots;          /* jobs that run at once, >= 1 */
    uint32_t waiting_max;    /* jobs in line, >= 1; those preempted come on top */
    uint32_t pages;          /* in the KV pool, >= 1 */
    uint32_t page_tokens;    /* positions of one page, >= 1 */
    uint32_t context_tokens; /* most ids of one job, >= 2 */
    uint32_t step_tokens;    /* rows of one step, >= 2 */
    uint32_t chunk_tokens;   /* rows of one prompt in one step, >= 1 */
    uint32_t beside_tokens;  /* rows of all prompts in a step in which somebody draws, >= 1 */
    uint32_t logits_rows;    /* rows of one step whose logits are computed, >= slots */
    uint32_t headroom_pages; /* kept for each running job when another is admitted */
    uint32_t pass_max;       /* how often a waiting job is passed by later ones, >= 1 */
    uint32_t plans_max;      /* plans under way at a time, 1 .. BATCH_PLANS_MAX */
};

#define BATCH_PLANS_MAX 16u

/* ERR_INVALID names the value that is out of range. */
enum err batch_new(struct batch **ret_batch, const struct batch_config *config, struct errbuf *eb);
void batch_free(struct batch *b);

struct batch_job {
    void *owner;        /* the caller's */
    const int32_t *ids; /* the prompt and behind it what an earlier attempt drew; copied */
    uint32_t n_ids;
    uint32_t n_limit; /* ids at which the job ends, n_ids < n_limit <= context_tokens */
    /* First position whose logits are wanted, < n_ids; n_ids - 1 where nothing was drawn before.
     * From there to n_ids - 2 logits are computed without a draw. */
    uint32_t logits_from;
    uint32_t job_class; /* 0 is the best */
    uint64_t space;     /* pages are shared with jobs of the same; 0: with nobody */
};

/* Positions of the KV cache that a job comes to: the last id drawn is never computed. */
uint32_t batch_pages_needed(const struct batch_config *config, uint32_t n_limit);

/* Puts the job in line. ERR_BUSY: the line is full. ERR_TOO_LARGE: more pages than the pool has.
 * ERR_INVALID: ids or limit out of range. */
enum err batch_add(struct batch *b, const struct batch_job *job, struct batch_seq **ret_seq,
                   struct errbuf *eb);

/* Gives the first in line a slot; preempts for it where that is due. NULL where it has to wait, be
 * it for a victim whose plan is under way, or nobody is in line. Call until NULL, before each plan.
 * A sequence that was preempted comes again. */
struct batch_seq *batch_admit(struct batch *b);

/* Takes a job out, in line or running, and frees `seq`; pages nobody else holds can be taken at
 * once. Not while it is under way. */
void batch_remove(struct batch *b, struct batch_seq *seq);

/* One step. The arrays are valid until it is committed and another one is planned, and so are the
 * pages of its sequences until it is committed. The rows whose logits are wanted are the last
 * n_logits ones; of these, a sequence's rows are in order of position. */
struct batch_plan {
    uint32_t n_rows;
    const int32_t *ids;
    const uint32_t *position;
    const uint32_t *slot; /* row of page_table */
    uint32_t n_logits;
    struct batch_seq *const *logits_seq; /* [n_logits] */
    const bool *draw;                    /* [n_logits] a token is to be drawn from these logits */
    uint32_t n_prompt;                   /* rows that are not a running decode */
    const uint32_t *pages;               /* [slots][pages_stride] */
    uint32_t pages_stride;
};

/* False where no job runs, and where there is nothing to plan before another commit: plans_max are
 * under way, or all who run are in one of them, or wait for those who are. Every running job must
 * have room for one more id. */
bool batch_plan_step(struct batch *b, struct batch_plan *ret_plan);
/* The oldest step under way was computed: drawn[i] is appended to the sequence of logits row i
 * where draw[i]. The caller then removes the jobs that have ended: those it sees an end in, and
 * those that batch_full() says are at their limit. */
void batch_commit(struct batch *b, const int32_t *drawn);

/* No step under way will be computed. The jobs are to be removed, since what their pages hold is
 * not known. */
void batch_abandon(struct batch *b);

/* The job is in a plan that is not committed yet. */
bool batch_is_under_way(const struct batch_seq *seq);

void *batch_owner(const struct batch_seq *seq);
/* What the plan's rows know the job by, for who checks them (the engine takes rows as they are);
 * UINT32_MAX: in line. */
uint32_t batch_slot(const struct batch_seq *seq);
bool batch_full(const struct batch_seq *seq);
/* Every id of the job, until the batch next changes. */
const int32_t *batch_ids(const struct batch_seq *seq, uint32_t *ret_count);
/* Positions of the job's sequence that were in the KV cache at most so far: what a preempted job
 * computes a second time does not count twice. */
uint32_t batch_computed(const struct batch_seq *seq);
/* Of these, those that were found there instead of computed. */
uint32_t batch_cached(const struct batch_seq *seq);

struct batch_state {
    uint32_t running;
    uint32_t waiting;
    uint32_t pages_free;    /* those that hold reusable text but no job included */
    uint64_t queued_tokens; /* ids not computed yet and tokens that may still be drawn, all jobs */
    uint64_t preemptions;   /* since the beginning */
    uint64_t cached_tokens; /* positions found in the cache since the beginning */
};
struct batch_state batch_state(const struct batch *b);

#endif
