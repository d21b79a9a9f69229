/*
 * loop_fill.h - what a reply needs and the core does not keep: prompts, tokens, ledger records,
 * signatures, numbers of the process. Read from the store after the turn is durable,
 * or, for what promises nothing, while it waits for a disk that hangs.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_FILL_H
#define CLOISTER_COORDINATOR_LOOP_FILL_H

#include "common/arena.h"
#include "common/crypto.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"

struct fill_context {
    struct store *store;
    const struct ledger *ledger;
    const struct crypto_key *key; /* signs Hello */
    const char *origin;
    /* for Status */
    uint64_t commits;
    uint64_t commit_us_median;
    uint64_t commit_us_max;
    uint64_t requests, refused, dropped;
    const char *unsigned_why; /* why no checkpoint is signed; NULL where one is */
    uint64_t commit_age_ms;   /* of a commit that takes longer than it should; 0: none does */
    /* out: a job that was to run and cannot be read from the store; zero: none */
    struct id unreadable;
};

/* Who reads the ledger to its end is given it signed up to the last record. True where a reply of
 * this turn does, the log having `size` records before it and `signed_size` under a checkpoint:
 * pages that end before, and a log that is signed already, cost no signature. */
bool fill_wants_checkpoint(const struct core_effects *effects, uint64_t size, uint64_t signed_size);

/* Completes effect->reply.reply; allocations come from `arena`. On error the caller answers with
 * the error instead. `txn` is a reader begun after the turn's commit. */
enum err fill_reply(struct fill_context *context, struct store_txn *txn, struct core_effect *effect,
                    struct arena *arena, struct errbuf *eb);

#endif
