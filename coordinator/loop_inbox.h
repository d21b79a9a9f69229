/*
 * loop_inbox.h - requests on their way from the transport's threads to the loop: a bounded ring and
 * an eventfd that is readable while there may be something in it.
 *
 * Full means that the loop has fallen far behind: what comes then is dropped unanswered and
 * counted, and whoever sent it tries again with the same id.
 *
 * Thread: inbox_push from any, the rest from the loop's.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_INBOX_H
#define CLOISTER_COORDINATOR_LOOP_INBOX_H

#include "common/err.h"
#include "common/transport.h"

#include <stdint.h>

struct inbox;

enum err inbox_open(struct inbox **ret_inbox, struct errbuf *eb);
void inbox_close(struct inbox *in); /* frees what is still in it */
int inbox_fd(const struct inbox *in);

void inbox_push(void *inbox, struct transport_request *request); /* a transport_request_fn */
struct transport_request *inbox_pop(struct inbox *in);           /* NULL where it is empty */
void inbox_clear_wake(struct inbox *in);                         /* before popping until empty */
uint64_t inbox_dropped(struct inbox *in);

#endif
