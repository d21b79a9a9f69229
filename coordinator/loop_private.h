/*
 * loop_private.h - what the files of the loop share: its state, and the one thread that has it.
 *
 *     loop.c           opens and closes; waits for signals, time, requests and the commit thread
 *     loop_gather.c    events into the turn that is gathered
 *     loop_finish.c    ends that turn: to the commit thread, and to who waits for its replies
 *     loop_recover.c   core and store made again when something could not be stored
 *
 * There are two turns. One is gathered; the other is with the commit thread, or none is. When the
 * one is durable the other goes there first, and only then are its replies packed, so that the
 * disk works meanwhile.
 *
 * Thread: every field of `struct loop`, and every function here, is the loop's thread's, and takes
 * no lock. Others do some of its work behind objects with a lock of their own:
 *
 *     transport's      inbox_push alone: they see `inbox` (the mutex in loop_inbox.c)
 *     committing one   between committer_start and the result: `store`, `ledger` and the effects of
 *                      `committing`, which the mutex in loop_commit.c hands over and back
 *
 * While the committing thread has them the loop neither changes those effects nor ends another turn
 * (what they point to lies in that turn's arena, or is the core's, which keeps it as long: core.h),
 * and closes neither store nor ledger. Reading from both goes on, in transactions of its own and
 * under the ledger's lock.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_PRIVATE_H
#define CLOISTER_COORDINATOR_LOOP_PRIVATE_H

#include "coordinator/loop.h"
#include "coordinator/loop_commit.h"
#include "coordinator/loop_failures.h"
#include "coordinator/loop_inbox.h"
#include "coordinator/loop_replies.h"
#include "coordinator/loop_turn.h"

#define LOOP_LOOK_EVERY_MS      1000u /* whether a checkpoint is due */
#define LOOP_COMMITS_REMEMBERED 256u
/* A commit that has taken so long is no slow one: whoever asks how things are is to hear it. */
#define LOOP_OVERDUE_MS 2000u

struct loop {
    const struct loop_config *config;
    struct core *core; /* NULL after a failure that ends the program */
    struct store *store;
    struct ledger *ledger;
    struct committer *committer;
    struct inbox *inbox;
    struct transport_server *server;
    int epoll_fd, signal_fd, timer_fd;
    uint64_t boot_epoch;

    /* Turns. */
    struct turn turns[2];
    struct turn *gathering;
    struct turn *committing; /* NULL: none, though a checkpoint may be under way */
    struct replies replies;
    struct arena fill;  /* what one reply brings from the store, until it is packed */
    uint64_t commit_ms; /* when what is with the commit thread went there */
    bool more;          /* the last turn was full before the inbox was empty */
    bool untaken;       /* what is in the inbox waits until peers take their replies */

    /* What failed. */
    struct failures failures;
    struct id lost; /* a job that cannot be read, or stored, any more; zero: none */
    struct errbuf lost_why;
    enum err unread; /* of a reader that could not begin; ERR_OK: the store reads */
    struct errbuf unread_why;
    bool forked;                /* another copy of this ledger signs with our key */
    struct errbuf unsigned_why; /* why no checkpoint is signed; empty where it is */
    bool stuck;                 /* loop_is_stuck */

    bool stopping;
    /* Monotonic. */
    uint64_t stop_ms;  /* when that began */
    uint64_t look_ms;  /* when to look next whether a checkpoint is due, */
    uint64_t probe_ms; /* and whether anything can be stored again, while the core is frozen */

    /* For Status. */
    uint64_t requests;
    uint64_t refused; /* frames that could not be decoded, and Hellos that must wait */
    uint64_t commits;
    uint64_t commit_us_max;
    uint32_t commit_us[LOOP_COMMITS_REMEMBERED]; /* a ring */
};

/* ---- loop_gather.c ---- */

/* An event of now. */
void gather_event(struct loop *l, struct core_event *event);
void gather_plain(struct loop *l, enum core_event_kind kind); /* that has nothing but its kind */
/* While turns are single events: it has that one, and must end before there is another. */
bool gather_is_taken(const struct loop *l);
/* From the inbox until that is empty or the turn is full. */
void gather_requests(struct loop *l);
/* The core's timers, where one is due. */
void gather_time(struct loop *l);

/* ---- loop_finish.c ---- */

/* Where a result waits: its replies, or what is to be done when it was not stored. An error ends
 * the program. */
enum err finish_commit(struct loop *l, struct errbuf *eb);
/* Nothing is under way: what was gathered becomes a turn. */
void finish_turn(struct loop *l);
/* Replies that promise nothing leave before their turn ends, so that with a disk that hangs
 * somebody can still ask what is wrong. */
void finish_unbound(struct loop *l);
/* How long the commit thread has been at it; 0: it is idle. */
uint64_t finish_commit_age_ms(const struct loop *l);
/* Records that no checkpoint covers yet: the commit thread knows whether it is time. */
void finish_checkpoint_look(struct loop *l);
/* The last one, so that everything that was promised is signed. Waits for what is under way. */
void finish_checkpoint_last(struct loop *l);

/* ---- loop_recover.c ---- */

enum err recover_storage_open(struct loop *l, struct errbuf *eb);
void recover_storage_close(struct loop *l);
enum err recover_core_open(struct loop *l, struct errbuf *eb);
void recover_turns_reset(struct loop *l);

/* Nothing of `turn` is stored: what its replies were is not said. NULL: there was none. ERR_OK: it
 * goes on, from what is stored; an error ends the program. */
enum err recover_from_commit(struct loop *l, const struct turn *turn,
                             const struct committer_result *result, struct errbuf *eb);
/* The same, where the ledger's last checkpoint is not of this log. */
enum err recover_from_fork(struct loop *l, struct errbuf *eb);
/* What no turn's commit says: while nothing can be stored, whether that is over; and that the store
 * has to be opened again, since it begins nothing more. An error ends the program. */
enum err recover_look(struct loop *l, struct errbuf *eb);
/* Ends the job that cannot be read, or stored. Not while replies are filled: the effects of that
 * turn may be with the commit thread. */
void recover_job_lost(struct loop *l);

#endif
