/*
 * loop.h - the coordinator as a process: turns messages into events, commits each turn, answers.
 *
 * One thread owns the core. A turn gathers what arrives while the turn before it is being
 * committed by the commit thread; its replies leave when it is durable itself. When a commit fails
 * nothing of that turn, or of the one gathered behind it, is said to anyone: the core is thrown
 * away and restored from the store, sessions end, and everybody says Hello again.
 *
 * On ERR_NO_SPACE it goes on reading and refuses what would have to be stored, until a probe
 * succeeds. On any other storage error, also of that probe or of a checkpoint, it closes the store,
 * opens and verifies it again, and goes on, or ends when that fails. What is refused each time is
 * found by turns of one event, and ended or answered for good (loop_failures.h).
 */
#ifndef CLOISTER_COORDINATOR_LOOP_H
#define CLOISTER_COORDINATOR_LOOP_H

#include "common/crypto.h"
#include "common/transport.h"
#include "coordinator/core/core.h"

struct loop_config {
    struct core_config core;
    struct transport_endpoint endpoint;
    const struct crypto_key *key; /* signs Hello and checkpoints */
    const char *store_path;
    uint64_t map_bytes;
    const char *origin;          /* of the ledger */
    const char *checkpoint_path; /* outside the store */
    uint64_t checkpoint_records;
    uint64_t checkpoint_ms;
};

struct loop;

/* Signals must be blocked already: it takes SIGTERM, SIGINT and SIGHUP through a signalfd. Opens
 * store and ledger, restores, listens. Everything in `config` is borrowed. */
enum err loop_open(struct loop **ret_loop, const struct loop_config *config, struct errbuf *eb);
/* Until SIGTERM or SIGINT (ERR_OK), or storage that cannot be used any more. */
enum err loop_run(struct loop *l, struct errbuf *eb);
/* After an error of loop_run: the disk is well, but something that has to be stored is refused each
 * time, and there is nobody whom one could tell. */
bool loop_is_stuck(const struct loop *l);
void loop_close(struct loop *l);

#endif
