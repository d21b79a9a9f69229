/*
 * gang.h - how the ranks of a gang compute one model together, each with its part of it.
 *
 * Rank 0 plans a step and tells the others; then the ranks of a stage go through their layers with
 * their own heads and columns. Where a matrix was cut along its columns, each rank puts up the sums
 * of its groups, and all of the stage finish the same tree over all of them, of many rows each rank
 * a run: the residual stream is whole, and the same, on each of them. Rows of the embedding come
 * from whoever has them; a shard hands the residual on to the same shard of the next stage; logits
 * go to rank 0. With stages, steps may be under way before the one before has its logits: each
 * stage is at another one, and the last keeps logits until rank 0 comes for them.
 *
 * A step of many rows is cut into pieces, so that stages compute beside each other: while one is at
 * a piece, the one before it is at the next. Rows do not depend on each other but through the
 * cache, where a later one finds what earlier ones left behind in the same layer, so any pieces
 * give the same bits.
 *
 * A rank that is lost, or told to stop (coll_config.stop), ends the gang: whatever is called then
 * fails with the reason, at once, and what waits does within a tenth of a second.
 *
 * Ownership: gang_close frees it, before its backend. Thread: the runtime's owner; gang_abort from
 * any.
 */
#ifndef CLOISTER_WORKER_ENGINE_GANG_H
#define CLOISTER_WORKER_ENGINE_GANG_H

#include "common/err.h"
#include "worker/coll/coll.h"
#include "worker/engine/batch.h"
#include "worker/engine/shard_plan.h"
#include "worker/kernels/backend.h"

#include <stdbool.h>
#include <stdint.h>

struct gang;

struct gang_config {
    /* `plan`, `bytes_max`, `stop` and what nccl wants but for `control` are filled in. */
    struct coll_config coll;
    uint32_t meet_ms; /* until all ranks are there; above 0 */
    /* Until all of them have loaded; and while others wait for rank 0's next step, which may be
     * busy with other models. At least wait_ms. */
    uint32_t load_ms;
    /* Within a step, for a shard that lives and does not come, which is how long such a rank can
     * hold up whatever else rank 0's engine computes; GANG_WAIT_MS_MIN at least. Between stages
     * twice as long again for each layer of the model, in proportion to the rows of the largest
     * step under way: one waits for all that those before it compute, and each layer's shards wait
     * for each other twice; ten minutes at most. Told to stop, nobody waits that long. */
    uint32_t wait_ms;
    /* nccl: what NCCL is reckoned to take of the device for each group of ranks that this one is
     * of (shard_rank_groups); COLL_NCCL_BYTES where nobody knows better. Nothing is taken for it;
     * it is what loading says that the rank holds. */
    uint64_t nccl_bytes;
};

/* What carries a gang's operations, as far as memory follows from it. */
struct gang_carrier {
    enum coll_transport transport;
    enum coll_transport control; /* nccl: what it stands on */
    uint64_t nccl_bytes;         /* nccl: gang_config's */
};

/* Less, and a busy machine's ranks would be taken for hung. */
#define GANG_WAIT_MS_MIN 1000u

/* The most of a step, and what else all ranks must have alike. */
struct gang_limits {
    uint8_t model[32]; /* a digest of its file, or of parts of it */
    uint32_t context_tokens;
    uint32_t kv_type;
    uint32_t rows;
    uint32_t logits_rows;
    uint32_t sequences;
    uint32_t sequence_pages;
    uint32_t kv_pages;
    /* What is put into one operation at most: by the shards of this rank's stage, as sums; by all
     * ranks, as logits; by a stage, as rows for the next one. */
    uint64_t sums_bytes;
    uint64_t logits_bytes;
    uint64_t rows_bytes;
};

/* A matrix whose columns the ranks share out. */
enum gang_matrix { GANG_MATRIX_ATTENTION = 0, GANG_MATRIX_FFN = 1 };

/* Rows of the largest piece of a step: all of them where there is one stage. */
uint32_t gang_piece_most(const struct shard_cut *cut, uint32_t step_rows);

/* Bytes that gang_open takes for a rank: for what ranks hand each other, twice, and to keep track
 * of steps. Over shm the ranks of a host share most of it, and it is counted for each; over nccl
 * most of it is the device's, and what NCCL is reckoned to take there is part of it. */
uint64_t gang_memory(const struct gang_limits *limits, const struct shard_cut *cut, uint32_t rank,
                     const struct gang_carrier *carrier);
/* Of these, what keeps track of steps, for a rank with so many layers. */
uint64_t gang_track_bytes(const struct gang_limits *limits, uint32_t n_layers);
/* Bytes taken; of no gang (NULL) none. */
uint64_t gang_held(const struct gang *g);

/* NULL: shm's. */
struct gang_carrier gang_carrier_of(const struct gang_config *config);

/* ERR_INVALID: times that cannot be. */
enum err gang_config_check(const struct gang_config *config, struct errbuf *eb);

/* Meets the other ranks; errors are coll_open's. Nothing is kept of `plan` and `h`, the
 * whole model's; *stop (NULL: never) is read until gang_close. */
enum err gang_open(struct gang **ret_gang, const struct gang_config *config,
                   const struct shard_plan *plan, const struct model_hparams *h,
                   const struct gang_limits *limits, struct backend *backend,
                   const atomic_bool *stop, struct errbuf *eb);
/* In the place of gang_open: this rank cannot, and the others are to know why. Takes a second where
 * they are not there. */
void gang_decline(const struct gang_config *config, const atomic_bool *stop, enum err error,
                  const char *why);
void gang_close(struct gang *g);
void gang_abort(struct gang *g, const char *why);
/* Once this rank has loaded: until all have. */
enum err gang_ready(struct gang *g, struct errbuf *eb);

/* Steps whose logits may be under way at a time, the one included that is told last: 1 where there
 * is one stage. */
uint32_t gang_steps_max(const struct gang *g);
/* Of these, how many may still owe logits when a step of so many rows is told; and whether, with so
 * many that do, the oldest of these must be taken before the step's rows go on to the next stage.
 */
uint32_t gang_owing_max(const struct gang *g, uint32_t n_rows);
bool gang_must_take(const struct gang *g, uint32_t n_rows, uint32_t n_owing);
/* Rank 0, before it computes such a step: they are n rows. gang_logits, which is to come before the
 * next step, has them then without waiting. */
void gang_take_before_rows(struct gang *g, uint32_t n);

/* Rank 0: the step that follows. */
enum err gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb);
/* Rank 0, for as long as there is none: whether the others are there, ten times a second, and that
 * it is, four times in wait_ms. To be called as often as one likes: it waits for nobody, and one
 * that hangs breaks the gang after wait_ms, or that of stages. */
enum err gang_idle(struct gang *g, uint64_t now_ns, struct errbuf *eb);
/* The others: rows and page tables of the next step, until the next call; n_rows is 0 where there
 * is none yet. */
enum err gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb);

/* A step's pieces, in the order in which every rank takes them: a run of its rows each. */
uint32_t gang_pieces(const struct gang *g, uint32_t n_rows);
struct shard_run gang_piece(const struct gang *g, uint32_t n_rows, uint32_t piece);

/* Whether this rank's stage begins with the embedding, and whether it ends with the head. */
bool gang_is_first(const struct gang *g);
bool gang_is_last(const struct gang *g);
/* x [n][n_embd], the residual of a piece: from the stage before this one, once it has it; to the
 * next one, which need not have taken the piece before it yet, but the one before that. */
enum err gang_receive(struct gang *g, uint32_t n, float *x, struct errbuf *eb);
enum err gang_send(struct gang *g, uint32_t n, const float *x, struct errbuf *eb);

/* The first stage: out [n][n_embd] = the rows of the embedding; `weight` is the part that is here,
 * or NULL. */
enum err gang_embed(struct gang *g, const struct weight *weight, const int32_t *ids, uint32_t n,
                    float scale, float *out, struct errbuf *eb);
/* Behind the embedding of a step, and at its end: where the backend can hold the step back and
 * bytes go from device to device, all that shards exchange in between is done at once at the end,
 * with one wait for all of it where it was so before. `so_far`: what the step came to, which is
 * returned with its text in `eb` where it is an error. */
void gang_put_off(struct gang *g);
enum err gang_run(struct gang *g, enum err so_far, struct errbuf *eb);
/* As backend_ops.matmul with the whole matrix: `job` has this rank's part of it, its weight NULL
 * where there is none (and `in` is not read). */
enum err gang_matmul(struct gang *g, uint32_t layer, enum gang_matrix which, const struct act *in,
                     uint32_t n, const struct matmul_job *job, struct errbuf *eb);
/* n rows of logits, which rank 0 has in `logits` [n][vocabulary] afterwards: `weight` is the part
 * of the head that is here, or NULL, and `bias` its part of that, or NULL. All ranks of the last
 * stage come to it, at the end of the step; and rank 0, where that is another stage once it has
 * told as many steps more as it likes (gang_owing_max), for the oldest of those that owe logits. */
enum err gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                     const struct act *in, uint32_t n, float *logits, struct errbuf *eb);

#endif
