/*
 * connection.h - what a struct cloister is inside: one transport client, one session, and calls
 * that are repeated until they are answered.
 *
 * Errors travel inside the library as `enum err` with a struct cloister_problem; the public
 * numbers are the same ones (asserted in names.c).
 */
#ifndef CLOISTER_CLIENT_CONNECTION_H
#define CLOISTER_CLIENT_CONNECTION_H

#include "client/cloister.h"
#include "common/arena.h"
#include "common/crypto.h"
#include "common/err.h"
#include "common/transport.h"
#include "proto/wire.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct cloister {
    /* Fixed after connection_open. */
    struct transport_endpoint endpoint;
    char *node, *tenant;
    struct crypto_key *key;
    bool pinned;
    uint8_t coordinator_key[ED25519_PUBLIC_BYTES];
    uint64_t wait_ms, stream_wait_ms;
    cloister_notice_fn *on_notice;
    void *notice_arg;
    struct transport_client *transport;

    pthread_mutex_t mutex;  /* what follows */
    pthread_cond_t changed; /* any of it did; monotonic clock */
    uint64_t session;       /* 0: none, say Hello */
    bool greeting;          /* a thread is saying it */
    bool interrupted;
    struct cloister_server server;
};

/* Where a decoded reply lives; what every query's result is made of. */
struct cloister_result {
    struct arena arena;
    struct cloister_result *next; /* a page of the same answer */
};

/* One request and its answer's bytes, no repeating. ERR_CANCELLED when interrupted. */
enum err connection_exchange(struct cloister *c, const struct buf *request, uint32_t timeout_ms,
                             struct buf *reply, struct errbuf *eb);

/* A request until it is answered (WIRE_REQUEST_NONE: until there is a session; no
 * arena or reply then): says Hello where there is none, repeats under the same
 * request id with growing pauses until `wait_ms` have passed, comes back later where told to.
 * timeout_ms: for one attempt. The reply lies in `arena` and is of the request's kind; an error
 * reply is returned as its code. Fills request->session and request_id. */
enum err connection_call(struct cloister *c, struct wire_request *request, uint32_t timeout_ms,
                         uint64_t wait_ms, struct arena *arena, struct wire_reply *ret_reply,
                         struct cloister_problem *problem);
#define CONNECTION_CALL_TIMEOUT_MS 10000u

/* Waits, ending early (false) when interrupted. */
bool connection_sleep(struct cloister *c, uint64_t ms);

/* hello.c: both rounds of it; the new session's number. Never repeats by itself. */
enum err hello_say(struct cloister *c, uint32_t timeout_ms, uint64_t *ret_session,
                   struct cloister_server *ret_server, struct cloister_problem *problem);

/* probe.c: asks the network itself why nobody answers; one line without the address, such as
 * "connection refused". */
#define PROBE_TEXT_BYTES 160
void probe_explain(const char *url, char ret_text[PROBE_TEXT_BYTES]);

/* Fills and returns the code; `problem` may be NULL. */
enum err problem_set(struct cloister_problem *problem, enum err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
enum err problem_from(struct cloister_problem *problem, enum err code, const struct errbuf *eb);

/* jobs.c */
void usage_from_wire(const struct wire_work_usage *u, struct cloister_usage *ret_usage);

/* An id argument; ERR_INVALID names it. */
enum err argument_id(const char *text, struct id *ret_id, struct cloister_problem *problem);

#endif
