/* gang_internal.h - what gang.c, gang_step.c, gang_compute.c and gang_rows.c share. */
#ifndef CLOISTER_WORKER_ENGINE_GANG_INTERNAL_H
#define CLOISTER_WORKER_ENGINE_GANG_INTERNAL_H

#include "common/clock.h"
#include "worker/engine/gang_told.h"

/* What becomes of the parts of one matrix. */
struct gang_cut {
    uint32_t nodes[COLL_RANKS_MAX]; /* sums that each rank puts up */
    uint32_t n_parts;
    uint32_t n_joins;
    struct sum_join joins[SUM_GROUPS_MAX];
    uint32_t rows_least; /* from so many rows on the joining is shared out by rows */
};

struct gang {
    struct backend *backend;
    struct coll *coll;
    struct exchange *exchange; /* its memory, as the backend knows it */
    uint32_t rank, n_ranks;
    uint64_t load_ns, wait_ns;
    uint64_t told_ns, looked_ns;
    uint64_t held_bytes;
    struct gang_limits limits;
    uint32_t n_embd, n_layers;
    uint32_t vocab;
    struct shard_run embed[COLL_RANKS_MAX]; /* rows of the embedding */
    struct shard_run head[COLL_RANKS_MAX];  /* rows of the head */
    struct gang_cut *cuts;                  /* [layer][enum gang_matrix] */

    int32_t *ids; /* [rows] of those that are embedded here */
    uint32_t *at; /* [rows] where they belong, by rank */
    struct gang_told told;
};

static inline struct gang_cut *gang_cut_of(const struct gang *g, uint32_t layer,
                                           enum gang_matrix which)
{
    return &g->cuts[2 * (size_t)layer + which];
}

/* A rank that lives and does not come is waited for until then. */
static inline uint64_t gang_deadline(uint64_t wait_ns)
{
    return clock_mono_ns() + wait_ns;
}

/* Ends what was begun, once this rank's part is written. */
enum err gang_hand_over(struct gang *g, const void *ret_parts[], struct errbuf *eb);

/* gang_matmul by rows. `nodes` [n_ranks] are those of gang_cut; UINT32_MAX: never. */
uint32_t gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd);
enum err gang_matmul_rows(struct gang *g, const struct gang_cut *cut, const struct act *in,
                          uint32_t n, const struct matmul_job *job, struct errbuf *eb);

#endif
