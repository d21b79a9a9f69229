/*
 * shm.h - one rank's place in a gang of one host. Internal to worker/coll: shm.c has the
 * operations, shm_wait.c how a rank waits for another and what it does when that one is gone.
 */
#ifndef CLOISTER_WORKER_COLL_SHM_H
#define CLOISTER_WORKER_COLL_SHM_H

#include "worker/coll/coll_ops.h"
#include "worker/coll/shm_meet.h"
#include "worker/coll/shm_segment.h"

struct shm {
    struct coll base;
    struct shm_segment segment;
    struct shm_meeting meeting;
    bool is_crowded; /* more ranks than processors: turning in circles keeps the others from work */
};

/* That the calling thread may run on, at least 1. Ranks of one host are taken to share them: a
 * cpuset's or taskset's are fewer than the machine's. */
uint32_t shm_processors(void);

/* Until `peer` has come to operation `seq`, the present one or the one before. On error the gang is
 * broken, on every rank. */
enum err shm_wait(struct shm *s, uint32_t peer, uint32_t seq, uint64_t deadline_ns,
                  struct errbuf *eb);

/* Whether a rank has come to operation `seq`, with what it wrote. */
static inline bool shm_has_come(const struct shm_rank *line, uint32_t seq)
{
    const uint32_t arrived = atomic_load_explicit(&line->arrived, memory_order_acquire);
    return (int32_t)(arrived - seq) >= 0;
}

/* Tells all that this rank has come to operation `seq`, with everything written before the call. */
void shm_arrive(struct shm *s, uint32_t seq);

/* Breaks the gang for `code` and the text in `eb`, and wakes who sleeps. Where another rank was
 * first, `eb` and the result become that rank's reason. Thread: any. */
enum err shm_break(struct shm *s, enum err code, struct errbuf *eb);

/* ERR_OK, or why the gang is broken. */
enum err shm_broken(struct shm *s, struct errbuf *eb);

/* The same: which it is from now on where this rank was told to stop. */
enum err shm_go_on(struct shm *s, struct errbuf *eb);

/* The first rank whose process ended without a word; n_ranks where there is none. */
uint32_t shm_dead(const struct shm *s);

/* Wakes those who sleep on this rank's line. */
void shm_wake(struct shm_rank *line);

#endif
