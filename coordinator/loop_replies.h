/*
 * loop_replies.h - requests that were taken and are not answered yet, and their answers: packed,
 * and given to the transport.
 *
 * Who asked is answered once: by the turn that its request came to, by a later one where the core
 * parked it (a Pull, a Watch), or with an error when the core that knew it is thrown away. Where
 * its connection is gone it is dropped instead.
 *
 * Ownership: a pending request belongs to the ring, and owns what the transport brought, until it
 * is answered or dropped. Thread: the loop's.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_REPLIES_H
#define CLOISTER_COORDINATOR_LOOP_REPLIES_H

#include "common/buf.h"
#include "common/err.h"
#include "common/id.h"
#include "common/transport.h"
#include "proto/wire.h"

#include <stdint.h>

/* The core's tag of a request is the address of this. */
struct pending {
    struct pending *prev, *next;
    struct transport_request *request;
    /* Which the reply repeats. Zero until the request was decoded. */
    uint64_t session;
    struct id request_id;
};

struct replies {
    struct transport_server *server; /* borrowed; set before the first reply */
    struct pending pending;          /* head of the ring of those unanswered */
    struct buf packed;               /* the one that is being said */
};

void replies_init(struct replies *r);
void replies_fini(struct replies *r); /* who is still unanswered stays so */

/* Takes the request. Never NULL. */
struct pending *replies_expect(struct replies *r, struct transport_request *request);
/* Each of these ends `p`. One that cannot be packed becomes an error that says why. */
void replies_send(struct replies *r, struct pending *p, const struct wire_reply *reply);
void replies_error(struct replies *r, struct pending *p, enum err code, const char *text);
/* The same, with when to ask again: 0: at once, where `code` lets it. */
void replies_later(struct replies *r, struct pending *p, enum err code, const char *text,
                   uint64_t retry_after_ms);
void replies_drop(struct pending *p);
/* To all of them. */
void replies_error_all(struct replies *r, enum err code, const char *text);

#endif
