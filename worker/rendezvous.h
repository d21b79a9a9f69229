/*
 * rendezvous.h - how a rank of a gang over libucx gets the others' addresses: what
 * coll_rendezvous.exchange puts up on the thread that loads the model lies here until the agent has
 * said it to the coordinator (Report.addresses), and the thread waits here until the coordinator
 * has told everybody's (CommandMeet).
 *
 * One for each life of a gang, and one exchange in it. Memory: this rank's address and one from
 * each rank, LIMIT_GANG_ADDRESS_BYTES each at most.
 *
 * Ownership: the agent opens and closes it; it must not be closed while the gang's thread is in the
 * exchange or uses what that brought, that is before the model is ready, has failed or is gone.
 * Thread: the exchange on the gang's thread, all else on the agent's; `notify` is called on the
 * gang's.
 */
#ifndef CLOISTER_WORKER_RENDEZVOUS_H
#define CLOISTER_WORKER_RENDEZVOUS_H

#include "common/err.h"
#include "proto/wire.h"
#include "worker/coll/coll.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rendezvous;

/* `notify` (which must only wake the agent) is called when there is an address to say. */
enum err rendezvous_open(struct rendezvous **ret_rendezvous, uint32_t rank, uint32_t n_ranks,
                         void (*notify)(void *arg), void *notify_arg, struct errbuf *eb);
void rendezvous_close(struct rendezvous *r);

/* For coll_config. The exchange ends with ERR_TOO_LARGE (an address that no message carries),
 * ERR_TIMEOUT, ERR_CANCELLED (*stop), ERR_NO_MEMORY. */
struct coll_rendezvous rendezvous_of(struct rendezvous *r);

/* What this rank has to say until it has met the others: false where there is nothing. The bytes
 * are good until rendezvous_close. */
bool rendezvous_says(struct rendezvous *r, struct wire_bytes *ret_mine);
/* True once for each address that was put up. */
bool rendezvous_has_news(struct rendezvous *r);

/* The ranks' addresses, which are copied, wake the exchange. Refused, and nothing changes:
 * ERR_STALE where nobody waits, ERR_CONFLICT for another number of ranks or another address than
 * this rank's own in its place, ERR_NO_MEMORY. */
enum err rendezvous_meet(struct rendezvous *r, const struct wire_bytes *addresses, size_t n,
                         struct errbuf *eb);

#endif
