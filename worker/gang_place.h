/*
 * gang_place.h - a worker's place in a gang: what a CommandLoad says of it, kept as plain values,
 * and as the engine takes it. A place of gang 0 is the whole model.
 *
 * Thread: plain values, any.
 */
#ifndef CLOISTER_WORKER_GANG_PLACE_H
#define CLOISTER_WORKER_GANG_PLACE_H

#include "common/shard_cut.h"
#include "proto/wire.h"
#include "worker/coll/coll.h"
#include "worker/engine/engine.h"
#include "worker/engine/gang.h"

#include <stdbool.h>
#include <stdint.h>

struct gang_offer; /* gang_offer.h */

#define GANG_WITH_BYTES        256u
#define GANG_TEXT_BYTES        24u
#define GANG_SHARES_TEXT_BYTES 128u

struct gang_place {
    uint64_t gang;
    uint8_t group[COLL_GROUP_BYTES];
    uint32_t rank, n_ranks, stages;
    enum coll_transport transport, control; /* control: of nccl */
    uint64_t weights[SHARD_RANKS_MAX];
    char leader[GANG_WITH_BYTES]; /* the worker that is rank 0 */
    char with[GANG_WITH_BYTES];   /* all of them by rank, for people: "w1, w2, w3" */
};

/* Numbers are one coordinator's, and one that lost its store begins anew: groups tell them apart.
 */
bool gang_place_same(const struct gang_place *a, const struct gang_place *z);

/* `from` has passed proto/wire.c. */
void gang_place_of(const struct wire_gang_place *from, struct gang_place *ret_place);

/* The rank's share instead of the whole model; `offer` is this worker's. `model->gang` points to
 * `ret_gang`, `build` is borrowed; a rendezvous is the caller's to fill in. */
void gang_place_apply(const struct gang_place *place, const char *build,
                      const struct gang_offer *offer, struct engine_model_config *model,
                      struct gang_config *ret_gang);

/* shm, or ucx, which wants a rendezvous. */
enum coll_transport gang_place_meets_over(const struct gang_place *place);

/* True where a gang that failed with `e` was ended by another rank, or did not come about for want
 * of one: nothing is wrong here. */
bool gang_ended_elsewhere(enum err e);

/* As people say a gang's number: "3.17", the coordinator's 3rd life and its 17th gang. */
const char *gang_text(uint64_t gang, char ret_text[GANG_TEXT_BYTES]);
/* "even shares"; "shares 75 %, 25 %" by rank, before the model is cut where it can be. */
const char *gang_shares_text(const struct gang_place *place, char ret_text[GANG_SHARES_TEXT_BYTES]);

#endif
