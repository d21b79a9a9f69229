/*
 * batch_internal.h - what the batching core's files share: batch.c has who waits and who runs,
 * batch_pages.c the pages of one sequence, batch_plan.c steps, from a plan to its commit.
 */
#ifndef CLOISTER_WORKER_ENGINE_BATCH_INTERNAL_H
#define CLOISTER_WORKER_ENGINE_BATCH_INTERNAL_H

#include "worker/engine/batch.h"
#include "worker/engine/kv_pages.h"

#define SLOT_NONE UINT32_MAX
#define STEP_NONE UINT32_MAX

struct batch_seq {
    void *owner;
    int32_t *ids;
    uint32_t n_ids;
    uint32_t n_limit;
    uint32_t logits_from;
    uint32_t job_class;
    uint64_t space;
    uint64_t arrived; /* order of arrival */
    uint32_t passed;  /* jobs that came later and were admitted while this one waited */

    uint32_t slot;       /* SLOT_NONE: in line */
    uint32_t n_computed; /* positions whose K and V are in the cache */
    uint32_t n_pages;    /* pages held, those of the cache's pages in pages[slot] */
    uint32_t n_named;    /* of these, from the first on, pages that have a name */
    uint32_t n_ready;    /* of these, pages that others may use */
    uint64_t serial;     /* of the last page that has a name; 0: none */
    bool unnamed;        /* its further pages get no name: somebody else computes the next one */
    uint32_t step;       /* under way: its place among batch.steps, or STEP_NONE */
    uint32_t n_planned;  /* rows of that step, or of the one that is being planned */
    uint64_t served;     /* number of the last step that had a row of this sequence */
    uint32_t n_most;     /* most that n_computed ever was */
    uint32_t n_cached;
};

/* A step under way. */
struct batch_step {
    int32_t *row_ids;
    uint32_t *row_position, *row_slot; /* [step_tokens] */
    bool *row_draw;                    /* [logits_rows] */
    struct batch_seq **logits_seq;     /* [logits_rows] */
    uint32_t n_rows, n_logits, n_prompt, n_draws;
};

struct batch {
    struct batch_config config;
    struct kv_pages *kv;
    struct batch_seq **slots; /* [config.slots] NULL: free */
    uint32_t *pages;          /* [config.slots][stride] */
    uint32_t stride;
    uint32_t n_running;

    struct batch_seq **waiting; /* [config.waiting_max + config.slots], in no order */
    uint32_t n_waiting;

    uint64_t n_steps, n_arrived, n_preempted, n_cached;

    struct batch_seq **order; /* [slots] those who can be planned, in the order they are served */
    struct batch_step steps[BATCH_PLANS_MAX]; /* of config.plans_max the oldest is `oldest` */
    uint32_t oldest, n_under_way;
};

static inline uint32_t batch_min(uint32_t a, uint32_t z)
{
    return a < z ? a : z;
}

/* ---- batch.c ---- */

/* Of two jobs, whose turn it is first: by class, then by arrival. */
bool batch_comes_before(const struct batch *b, const struct batch_seq *a,
                        const struct batch_seq *z);
/* The running job that comes last; NULL where none runs. While it is under way nobody else makes
 * way in its place: it is free at a commit that comes for certain. */
struct batch_seq *batch_last_running(const struct batch *b);
/* Drops what it has computed and puts it back in line; one that is not under way. */
void batch_preempt(struct batch *b, struct batch_seq *seq);

/* ---- batch_pages.c; of sequences that have a slot ---- */

/* [context_pages] of which the first n_pages are held. */
uint32_t *batch_seq_pages(struct batch *b, const struct batch_seq *seq);
/* Pages that so many positions take. */
uint32_t batch_pages_for(const struct batch *b, uint32_t positions);
/* Holds the pages that are there already, from where the sequence stands. True when it has to wait
 * for one that another computes now. */
bool batch_seq_take_ready(struct batch *b, struct batch_seq *seq);
/* How many pages the cache has of what the sequence begins with, also of one in line; *ret_kept: of
 * these, those that nobody holds, which kv_pages_available counts. */
uint32_t batch_seq_count_ready(const struct batch *b, const struct batch_seq *seq,
                               uint32_t *ret_kept);
/* Gives all back. */
void batch_seq_drop_pages(struct batch *b, struct batch_seq *seq);
/* The others may use the pages that are full now. */
void batch_seq_publish(struct batch *b, struct batch_seq *seq);
/* Names the pages that the piece up to `end` begins or fills, so that nobody else computes them.
 * batch_seq_take_ready has just found that the first is not there, and so no other is. Pages that
 * are only filled by ids still to be drawn are named when they are full. */
void batch_seq_claim(struct batch *b, struct batch_seq *seq, uint32_t end);

#endif
