/*
 * shm_meet_host.h - rank 0's side of shm_meet.h: who calls, who is let in, and what all get when
 * the gang is complete. Internal to worker/coll. Thread: the caller's.
 */
#ifndef CLOISTER_WORKER_COLL_SHM_MEET_HOST_H
#define CLOISTER_WORKER_COLL_SHM_MEET_HOST_H

#include "worker/coll/shm_meet.h"

/* `self`: a pidfd of this process, the caller's. Strangers, garbage and ranks of older epochs are
 * shown out and change nothing. A rank of this epoch that differs or ends, or one of a newer epoch,
 * ends the meeting for everybody, with the reason; ranks that call soon after still hear
 * it. Where `mine` declines, all that is done is to tell. */
enum err shm_meet_host(const struct coll_hello *mine, int self, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct shm_meeting *ret_meeting, struct errbuf *eb);

#endif
