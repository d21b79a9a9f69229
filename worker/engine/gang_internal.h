/* gang_internal.h - what gang.c, gang_stage.c, gang_step.c, gang_compute.c and gang_rows.c share.
 */
#ifndef CLOISTER_WORKER_ENGINE_GANG_INTERNAL_H
#define CLOISTER_WORKER_ENGINE_GANG_INTERNAL_H

#include "common/clock.h"
#include "worker/engine/gang_told.h"

/* With whom a rank exchanges what. */
enum gang_coll {
    GANG_COLL_ALL = 0, /* all ranks: meeting, and where there is one stage all there is */
    GANG_COLL_STAGE,   /* the shards of a stage among several: sums; of the first one steps */
    GANG_COLL_BEFORE,  /* this shard of the stage before this one, and this rank: steps, rows */
    GANG_COLL_BEHIND,  /* this rank, and this shard of the next stage */
    GANG_COLL_LOGITS,  /* rank 0, and the last stage among several */
    GANG_COLLS
};

/* What becomes of the parts of one matrix. */
struct gang_cut {
    uint32_t nodes[COLL_RANKS_MAX]; /* sums that each shard puts up */
    uint32_t n_parts;
    uint32_t n_joins;
    struct sum_join joins[SUM_GROUPS_MAX];
    uint32_t rows_least; /* from so many rows on the joining is shared out by rows */
};

struct gang {
    struct backend *backend;
    struct coll *coll[GANG_COLLS]; /* NULL: this rank is of none such */
    /* Their memory, as the backend knows it; NULL: it is the device's own. */
    struct exchange *exchange[GANG_COLLS];
    struct device_stream stream; /* where the transport moves bytes between devices */
    uint32_t rank, n_ranks;
    uint32_t n_stages, stage;
    uint32_t n_shards, shard; /* of a stage */
    struct shard_run layers;
    uint64_t load_ns, wait_ns;
    /* Between stages, in this step: gang_rows_note. */
    uint64_t stages_ns;
    uint32_t n_layers;                  /* of the model */
    uint32_t last_rows[COLL_RANKS_MAX]; /* of so many steps as there are stages */
    uint32_t n_told;
    uint64_t told_ns, looked_ns;
    uint64_t held_bytes;
    struct gang_limits limits;
    uint32_t n_embd;
    uint32_t vocab;
    struct shard_run embed[COLL_RANKS_MAX]; /* rows of the embedding, by shard */
    struct shard_run head[COLL_RANKS_MAX];  /* rows of the head, by rank */
    struct gang_cut *cuts;                  /* [layers][enum gang_matrix], of this stage */

    bool is_put_off; /* exchanges of this step */

    size_t told_bytes;  /* what the next stage is still to be told, in told.words; 0: nothing */
    uint32_t n_to_take; /* rows of logits to be taken before the next rows go on */
    uint32_t n_taken;   /* rows of logits that were, from `taken`: until gang_logits */
    const void *taken[COLL_RANKS_MAX];

    int32_t *ids; /* [rows] of those that are embedded here */
    uint32_t *at; /* [rows] where they belong, by rank */
    struct gang_told told;
};

static inline struct gang_cut *gang_cut_of(const struct gang *g, uint32_t layer,
                                           enum gang_matrix which)
{
    return &g->cuts[2 * (size_t)(layer - g->layers.first) + which];
}

/* Where the shards of this rank's stage meet; NULL: it is alone in it. */
static inline struct coll *gang_shards(const struct gang *g)
{
    return g->n_shards == 1 ? NULL : g->coll[g->n_stages == 1 ? GANG_COLL_ALL : GANG_COLL_STAGE];
}

/* gang_stage.c: bytes_max of a rank's colls; 0: it is of none such. */
void gang_coll_bytes(const struct gang_limits *limits, const struct shard_cut *cut, uint32_t rank,
                     size_t ret_bytes[GANG_COLLS]);
/* Splits GANG_COLL_ALL into the others. */
enum err gang_stages_meet(struct gang *g, const size_t bytes[GANG_COLLS], uint64_t deadline_ns,
                          struct errbuf *eb);

/* gang_step.c: tells the next stage what it is still to be told. */
enum err gang_pass_on(struct gang *g, struct errbuf *eb);
/* gang_compute.c: takes what is to be taken. */
enum err gang_take_logits(struct gang *g, struct errbuf *eb);
/* gang_compute.c: ends what was begun, once this rank's part is written. */
enum err gang_hand_over(struct gang *g, struct coll *coll, const void *ret_parts[],
                        struct errbuf *eb);

/* A rank that lives and does not come is waited for until then. */
static inline uint64_t gang_deadline(uint64_t wait_ns)
{
    return clock_mono_ns() + wait_ns;
}

/* A step of so many rows comes. A stage waits for all that those before it do, a model's layers, in
 * each of which the shards of a full step may wait for each other twice; of fewer rows that is
 * less. Each stage may still be at another of the steps before: the largest of them counts. */
void gang_rows_note(struct gang *g, uint32_t n_rows);

/* The same, of a rank with whom `coll` is shared. */
static inline uint64_t gang_patience(const struct gang *g, const struct coll *coll)
{
    return gang_deadline(coll == gang_shards(g) ? g->wait_ns : g->stages_ns);
}

/* gang_compute.c: rows of a product that is cut by columns, finished from the sums of all shards,
 * `parts` [n_shards], and of what they are added to. Sums lie node by node, the rows of each behind
 * one another, or by row, the nodes of each behind one another. */
void gang_join(struct gang *g, const struct gang_cut *cut, const void *const parts[], bool by_row,
               struct shard_run rows, const struct matmul_job *job, float *to);

/* gang_matmul by rows. `nodes` [n_ranks] are those of gang_cut; UINT32_MAX: never. */
uint32_t gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd);
enum err gang_matmul_rows(struct gang *g, const struct gang_cut *cut, const struct act *in,
                          uint32_t n, const struct matmul_job *job, struct errbuf *eb);

#endif
