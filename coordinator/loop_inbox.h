/*
 * loop_inbox.h - requests on their way from the transport's threads to the loop: a queue for each
 * connection, taken from in turn, so that who asks much waits for himself alone; and an eventfd
 * that is readable while there may be something in it.
 *
 * A connection whose peer leaves many replies untaken is passed over until it takes them. What came
 * on a connection that is gone is dropped: nobody could hear the answer, and who asked tries again.
 *
 * Full means that the loop has fallen far behind: what comes then is dropped unanswered and
 * counted, and whoever sent it tries again with the same id. A connection of which nothing waits
 * has room for a small request all the same: heartbeats get through.
 *
 * Thread: inbox_push from any, the rest from the loop's.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_INBOX_H
#define CLOISTER_COORDINATOR_LOOP_INBOX_H

#include "common/err.h"
#include "common/transport.h"

#include <stdbool.h>
#include <stdint.h>

/* Replies to one connection that it has not taken, before its requests wait. */
#define INBOX_UNTAKEN_BYTES ((size_t)8 << 20)
/* Beside what is waiting already. */
#define INBOX_SMALL_BYTES ((size_t)64 << 10)

struct inbox_limits {
    size_t requests, bytes;
};
extern const struct inbox_limits inbox_limits_default;

struct inbox;

enum err inbox_open(struct inbox **ret_inbox, const struct inbox_limits *limits, struct errbuf *eb);
void inbox_close(struct inbox *in); /* frees what is still in it */
int inbox_fd(const struct inbox *in);

void inbox_push(void *inbox, struct transport_request *request); /* a transport_request_fn */
/* NULL where it is empty, or every request in it waits for its peer: then *ret_waits, and nothing
 * says when to look again. */
struct transport_request *inbox_pop(struct inbox *in, bool *ret_waits);
void inbox_clear_wake(struct inbox *in); /* before popping until empty */
uint64_t inbox_dropped(struct inbox *in);

#endif
