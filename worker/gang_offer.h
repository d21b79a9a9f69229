/*
 * gang_offer.h - what a worker says of itself so that the coordinator can join it with others: with
 * whom it can share memory, over what else it can talk, which NCCL it has for its GPU, and with
 * which settings it computes a part of a model.
 *
 * Ownership: the texts of settings belong to the catalogue. Thread: any.
 */
#ifndef CLOISTER_WORKER_GANG_OFFER_H
#define CLOISTER_WORKER_GANG_OFFER_H

#include "common/err.h"
#include "worker/catalogue.h"
#include "worker/coll/coll.h"

#include <stdbool.h>
#include <stdint.h>

/* What the configuration allows. */
enum gang_choice {
    GANG_CHOICE_AUTO = 0, /* whatever works here */
    GANG_CHOICE_SHM = 1,
    GANG_CHOICE_UCX = 2,
    GANG_CHOICE_NCCL = 3,
};

struct gang_offer {
    uint8_t host[COLL_HOST_BYTES]; /* the same for workers that shm can join; or all zero */
    uint32_t transports;           /* bit set, 1 << wire_gang_transport */
    /* Of NCCL, where it is one of them: what it may stand on here, a bit set like the above; its
     * version; and what it is reckoned to take of the GPU for each group of ranks. */
    uint32_t controls;
    char nccl_version[COLL_NCCL_VERSION_BYTES];
    uint64_t nccl_bytes;
};

/* Looks at this process and machine. `nccl_bytes`: what NCCL is reckoned to take, for a worker that
 * computes on a GPU; it has no NCCL otherwise. ERR_UNSUPPORTED, with the reason, where what is
 * chosen by name does not work here. */
enum err gang_offer_read(enum gang_choice choice, enum engine_backend backend, uint64_t nccl_bytes,
                         struct gang_offer *ret_offer, struct errbuf *eb);

/* Whether a place in a gang is what was offered: ERR_UNSUPPORTED names what was not. */
enum err gang_offer_covers(const struct gang_offer *offer, enum coll_transport transport,
                           enum coll_transport control, struct errbuf *eb);

/* Has the catalogue's models say what they would be in a gang. With which settings: everything in
 * which ranks must agree (struct gang_limits), but for the file, whose digest is offered already.
 * And what a rank holds beside its part of matrices and pool, and beside NCCL's own memory, at
 * most, in a gang of any size over any of what is offered. Nothing is said of models that cannot be
 * cut. */
enum err gang_offer_models(struct catalogue *c, const struct gang_offer *offer,
                           const struct engine_config *engine, const char *build,
                           struct errbuf *eb);

#endif
