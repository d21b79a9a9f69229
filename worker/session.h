/*
 * session.h - this worker's conversation with the coordinator: Hello with proof of identity, one
 * parked Pull, one Report at a time, Goodbye. Redials for ever; what is said and heard goes
 * through the agent's table of functions.
 *
 * Thread: everything here runs on the agent's thread; only arrival of a reply is noted on the
 * transport's threads, and announced by writing `wake_fd` (an eventfd).
 */
#ifndef CLOISTER_WORKER_SESSION_H
#define CLOISTER_WORKER_SESSION_H

#include "common/arena.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/transport.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

struct session_ops {
    /* Fills what the second Hello says. */
    enum err (*hello)(void *arg, struct arena *arena, struct wire_worker_hello *ret_hello);
    void (*up)(void *arg);
    /* Commands come in order, each at least once: a repeated one must change nothing. */
    void (*command)(void *arg, const struct wire_command *command);
    /* False where there is nothing to say and no heartbeat is due. */
    bool (*report)(void *arg, bool heartbeat, struct arena *arena, struct wire_report *ret_report);
    void (*report_answered)(void *arg, const struct wire_report_reply *reply);
    /* Whether the last Report arrived is not known. */
    void (*report_lost)(void *arg);
};

struct session_config {
    struct transport_endpoint endpoint;
    const char *node;
    const struct crypto_key *key;
    const uint8_t *coordinator_key; /* the only one accepted; NULL: any */
    const struct session_ops *ops;
    void *ops_arg;
    int wake_fd;
};

struct session;

enum err session_open(struct session **ret_session, const struct session_config *config,
                      struct errbuf *eb);
void session_close(struct session *s);

/* Takes what arrived and starts what is due. Call it on every wake-up and at least each 100 ms. */
void session_run(struct session *s, uint64_t now_ms);

/* Starts a Goodbye; session_said_goodbye tells when it was answered or has failed. */
void session_goodbye(struct session *s, const char *reason);
bool session_said_goodbye(const struct session *s);

/* Says Hello again, so that the coordinator hears which leases we hold: after leases were dropped
 * of which it does not know. */
void session_restart(struct session *s, uint64_t now_ms, const char *why);

/* When the coordinator last answered anything, and how long without that ends our leases. */
uint64_t session_heard_ms(const struct session *s);
uint64_t session_lease_ms(const struct session *s);

#endif
