/*
 * shm_meet.h - how the ranks of one host find each other: rank 0 listens on a Unix socket whose
 * name follows from the group id, the others call. Rank 0 lets in who says the right hello, and
 * when all are there hands out the shared memory and, for each rank, a pidfd by which its end is
 * seen (a process number may be another process by then; a pidfd never is).
 *
 * The socket has no file (Linux's abstract names): nothing is left behind. Whoever calls must be of
 * the same user; what callers send is bounded and looked at field by field, and a caller that says
 * nothing is shown out after a second.
 *
 * Internal to worker/coll. Thread: the caller's.
 */
#ifndef CLOISTER_WORKER_COLL_SHM_MEET_H
#define CLOISTER_WORKER_COLL_SHM_MEET_H

#include "worker/coll/coll_ops.h"
#include "worker/coll/hello.h"

struct shm_meeting {
    int memory;                /* the memfd */
    int pidfd[COLL_RANKS_MAX]; /* readable when the rank's process has ended; of all ranks */
};

/* Ownership: the caller closes the files. */
enum err shm_meet(const struct coll_hello *mine, const struct coll_watch *watch,
                  uint64_t deadline_ns, struct shm_meeting *ret_meeting, struct errbuf *eb);
void shm_meeting_fini(struct shm_meeting *meeting, uint32_t n_ranks);

#endif
