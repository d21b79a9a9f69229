/*
 * loop_commit.h - a thread that makes one turn after the other durable and signs checkpoints, so
 * that the loop goes on reading while the disk works.
 *
 * At most one turn is with it. The turn's effects must stay as they are until the result was taken.
 *
 * Thread: all functions from the loop's.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_COMMIT_H
#define CLOISTER_COORDINATOR_LOOP_COMMIT_H

#include "common/err.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"

#include <stdbool.h>
#include <stdint.h>

struct committer;

struct committer_config {
    uint64_t checkpoint_records; /* sign after so many new records, */
    uint64_t checkpoint_ms;      /* or when the oldest unsigned one is this old */
};

enum err committer_open(struct committer **ret_committer, const struct committer_config *config,
                        struct errbuf *eb);
/* Waits for the turn that is under way. */
void committer_close(struct committer *c);
int committer_fd(const struct committer *c); /* readable when a result waits */

/* Only while it is idle. `effects` NULL: looks whether a checkpoint is due, nothing else; `sign`:
 * signs one in any case. */
void committer_start(struct committer *c, struct store *store, struct ledger *ledger,
                     const struct core_effects *effects, bool sign);
bool committer_busy(const struct committer *c);

struct committer_result {
    enum err err;
    struct errbuf eb;
    struct id job_id;   /* of what was refused; zero: of no job, or not known */
    uint64_t commit_us; /* 0 where there was nothing to commit */
    /* Why the last checkpoint that was due is not signed; ERR_OK when it is. The records are safe
     * either way. */
    enum err unsigned_err;
    struct errbuf unsigned_why;
};
/* False while it is still working. */
bool committer_take(struct committer *c, struct committer_result *ret_result);
void committer_wait(struct committer *c, struct committer_result *ret_result);

#endif
