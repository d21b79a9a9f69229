/*
 * loop_failures.h - what to do when a turn could not be stored: whose fault it was.
 *
 * No room: nobody's; nothing more is decided until there is some. A disk or memory that fails:
 * nobody's either; the store is opened again, and after some failures with no commit between them
 * the program ends. All else is about what was to be stored, and would be so each time: from then
 * on a turn is one event, so that the next failure says which. The request of such a turn is
 * answered for good, the job that could not be stored is ended, and where there was no request the
 * program ends after some tries, since time would bring the same turn again for ever.
 *
 * Each time, everybody's session is over. A worker comes back by itself and says the same again:
 * one that was refused for good more than a few times is not heard for a while, longer each time,
 * so that the others have theirs. Clients are told, and do not: behind one may be many.
 *
 * Pure: no clock, no store. Thread: one.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_FAILURES_H
#define CLOISTER_COORDINATOR_LOOP_FAILURES_H

#include "common/err.h"
#include "common/id.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stdint.h>

/* With no commit between them. */
#define FAILURES_DISK_MAX 5u
/* Turns that no request is to blame for, with none of that kind stored in between. */
#define FAILURES_INTERNAL_MAX 3u
/* One event a turn for so long after the last failure: who lost a session comes back within 5 s. */
#define FAILURES_ALONE_MS 15000u

/* Requests of one worker's key, refused for good, that cost it nothing. */
#define FAILURES_KEY_FREE 2u
/* Then it waits, twice as long each time. Who was good for so long after it begins anew. */
#define FAILURES_KEY_MS_MIN 30000u
#define FAILURES_KEY_MS_MAX (16u * FAILURES_KEY_MS_MIN)
#define FAILURES_KEYS_MAX   64u /* remembered; the one that is heard soonest goes first */

struct failures_key {
    uint8_t public_key[32];
    unsigned times; /* 0: none is here */
    uint64_t until_ms;
};

struct failures {
    uint64_t alone_until_ms;
    bool time_waits; /* since the last turn that could have been its */
    unsigned disk, internal;
    struct failures_key keys[FAILURES_KEYS_MAX];
};

/* A turn that failed. */
struct failures_turn {
    unsigned events;                    /* its ends aside */
    const struct wire_request *request; /* one of them; NULL: none was a request */
    struct id job_id;                   /* of what was refused; zero: of no job, or not known */
};

enum failures_answer {
    FAILURES_FREEZE,   /* nothing can be stored: refuse until it can */
    FAILURES_REOPEN,   /* open the store again and go on; everybody may ask again */
    FAILURES_BLAME,    /* as REOPEN, but the turn's request would never be stored */
    FAILURES_END_DISK, /* storage cannot be used */
    FAILURES_END,      /* what must be stored is refused each time */
};

/* *ret_lost: a job to end because it cannot be stored as it would be; zero: none. */
enum failures_answer failures_judge(struct failures *f, enum err cause,
                                    const struct failures_turn *turn, uint64_t now_ms,
                                    struct id *ret_lost);
/* A turn was stored; `with_request`: one of its events was a request. */
void failures_stored(struct failures *f, bool with_request);
/* A request of the worker with this key was refused for good. */
void failures_blame(struct failures *f, const uint8_t public_key[32], uint64_t now_ms);
/* How long it is not heard yet; 0: it is. */
uint64_t failures_key_wait_ms(const struct failures *f, const uint8_t public_key[32],
                              uint64_t now_ms);
/* One event a turn. */
bool failures_alone(const struct failures *f, uint64_t now_ms);
/* Then time and requests take turns, so that neither keeps the other out: whether it is time's. To
 * be asked before each look for requests; and to be told of each event that was time's. */
bool failures_time_first(struct failures *f, uint64_t now_ms);
void failures_time_passed(struct failures *f);

#endif
