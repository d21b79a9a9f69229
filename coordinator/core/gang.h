/*
 * gang.h - gangs within the core: which workers compute a model together and by what shares, over
 * what they talk, and a gang's life. The structs of a gang are in state.h.
 *
 * Ownership and thread: as state.h's.
 */
#ifndef CLOISTER_COORDINATOR_CORE_GANG_H
#define CLOISTER_COORDINATOR_CORE_GANG_H

#include "coordinator/core/state.h"

/* ---- gang_choose.c ---- */
/* By what the shares of a gang are cut. */
enum gang_shares {
    GANG_SHARES_EVEN,
    GANG_SHARES_BANDWIDTH, /* in proportion to it */
    GANG_SHARES_FILLED,    /* likewise, but for those that have no room for so much */
    GANG_SHARES_ROOM,      /* in proportion to the room that each has */
};
struct gang_choice {
    struct gang_way way;
    uint32_t n_ranks, n_stages;
    struct core_hosting *rank[SHARD_RANKS_MAX];
    uint64_t weight[SHARD_RANKS_MAX];
    uint64_t need_bytes[SHARD_RANKS_MAX];
    uint64_t room_bytes[SHARD_RANKS_MAX];
    enum gang_shares shares;
    size_t work;   /* that it took to choose, or to find none: as core.place_work has it */
    uint32_t next; /* where none was found: from here on there was no time; 0: there was */
};
/* The fewest of the hostings in `from`, all of one model, that have room for it together: on one
 * host, or else over the network; where as few have it over NCCL as well, over that. `first`: what
 * the last look gave as `next`; 0 begins from the start. */
bool gang_choose(const struct core *c, struct core_hosting *const from[], size_t n_from,
                 enum gang_room room, uint32_t first, struct gang_choice *ret_choice);

/* ---- gang_share.c ---- */
enum gang_speeds {
    GANG_SPEEDS_UNKNOWN, /* of one at least */
    GANG_SPEEDS_ALIKE,
    GANG_SPEEDS_DIFFER,
};
/* Bandwidths as weights, small numbers that are the same for about the same ratios; 1 for each
 * where they are not known or alike. 1 to SHARD_RANKS_MAX of them. */
enum gang_speeds gang_speeds_of(const uint64_t *bytes_per_s, uint32_t n, uint64_t *ret_weight);
/* `bytes` in proportion to `wanted`, none of which is 0, but to nobody more than it has room for.
 * False where all rooms together are not enough. */
bool gang_share_fill(const uint64_t *wanted, const uint64_t *room, uint32_t n, uint64_t bytes,
                     uint64_t *ret_bytes);
/* "shares by bandwidth: a 4831.8 MB at 30.0 GB/s, b 1610.6 MB at 10.0 GB/s" */
const char *gang_shares_text(const struct gang_choice *choice, struct core_effects *fx);

/* ---- gang_way.c ---- */
/* They say that they can share memory. */
bool gang_on_one_host(const struct core_hosting *a, const struct core_hosting *b);
/* Never both in a gang over NCCL. */
bool gang_on_one_gpu(const struct core_hosting *a, const struct core_hosting *b);
/* Whether they can talk so, and mean the same by the model; of workers that do (joins(a, a)) an
 * equivalence. */
bool gang_way_joins(struct gang_way way, const struct core_hosting *a,
                    const struct core_hosting *b);
/* What that rank takes beside its part of matrices and pool, NCCL's memory included. */
uint64_t gang_beside_bytes(struct gang_way way, const struct core_hosting *h, uint32_t shards,
                           uint32_t stages, uint32_t rank);
/* The most that it can be where neither the way nor the cut is known. */
uint64_t gang_beside_bytes_max(const struct core_hosting *h, uint32_t n_ranks, uint32_t rank);
/* Its gangs failed over NCCL lately, and again. */
bool gang_without_nccl(const struct core *c, const struct core_model *m);
/* Its first token came: what failed over NCCL before it was formed counts no more. */
void gang_nccl_worked(struct core_gang *g);
/* A gang over it ended before its first token, by what a rank met or became of. */
void gang_nccl_failed(struct core *c, const struct core_gang *g);
/* "shm"; "" where it is not known. */
const char *gang_way_name(struct gang_way way);
/* "; nccl: ..." or "; not over nccl: ...", where the ranks have GPUs. */
const char *gang_way_why(const struct core *c, const struct gang_choice *choice,
                         struct core_effects *fx);

/* ---- gang.c ---- */
void gangs_init(struct core *c);
void gangs_free(struct core *c);
struct core_gang *gang_find(const struct core *c, uint64_t number);
/* Where no worker alone can have the model that a waiting job is for: a gang is formed, or room
 * made for one. False where there is nothing to wait for. */
bool gang_try(struct core *c, struct core_job *j, const struct placement_row *rows, size_t n_rows,
              uint32_t reach, struct core_effects *fx);
/* One worker alone will do: those that were being emptied for a share of it go on as before. */
void gang_members_give_up(struct core *c, const struct core_model *m);
/* Whether the worker would be of a gang for this model. */
bool gang_can_have(const struct core *c, const struct core_hosting *h);
/* Whether those that have the model's file, or those of them that can still be hoped to load it,
 * could hold it together, if they were empty. */
bool gang_is_possible(const struct core *c, const struct core_model *m, bool only_hopeful);
/* Its members unload, its jobs go elsewhere. `fault` is what running ones may have to do with it:
 * DEATH, a member died; RETURN, one left or failed. */
void gang_end(struct core *c, struct core_gang *g, enum lease_fault fault, const char *what,
              struct core_effects *fx);
/* Those of an earlier life of ours that are not whole by now end. */
void gangs_expire(struct core *c, struct core_effects *fx);
/* Some came of it. */
void gang_token(struct core_gang *g);
/* Said by a worker that has just said Hello: it has a rank of a gang that an earlier life of ours
 * formed, or of one that we still know. */
void gang_rejoin(struct core *c, struct core_hosting *h, const struct wire_model_status *status);
/* A worker says Hello again: its ranks are kept for what it says next, and gang_missed ends the
 * gangs in which it has none any more. */
void gang_part(struct core_hosting *h);
void gang_missed(struct core *c, struct core_worker *w, struct core_effects *fx);
/* The member's status after it was taken. */
void gang_status(struct core *c, struct core_hosting *h, struct core_effects *fx);
void gang_address(struct core *c, struct core_worker *w, const struct wire_gang_address *address);
void gang_place(const struct core_gang *g, const struct core_worker *w, struct core_effects *fx,
                struct wire_gang_place *ret_place);
const struct wire_bytes *gang_addresses(const struct core_gang *g, struct core_effects *fx);
/* "1.3: w1, w2 over shm; needs ..." */
const char *gang_text(const struct core_gang *g, struct core_effects *fx);

#endif
