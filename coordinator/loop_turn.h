/*
 * loop_turn.h - one turn: the events since the turn before it, what they came to, and how much of
 * that one turn may hold.
 *
 * A turn is gathered, ended by CORE_EVENT_TURN_END, made durable where it has anything to store,
 * and then answered (loop_private.h says which of the two that there are is where). What a turn is
 * bounded by is how long others wait for it: for its events to be taken, for its replies to be
 * packed, and for the memory that both lie in until their peers took them.
 *
 * Ownership: requests and effects lie in the turn's arena, until turn_reset. `asked` is borrowed of
 * loop_replies.h. Thread: the loop's; while the turn is with the committing thread nobody changes
 * it, and that one reads `effects`.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_TURN_H
#define CLOISTER_COORDINATOR_LOOP_TURN_H

#include "common/arena.h"
#include "coordinator/core/core.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pending;

struct turn {
    struct arena arena;
    struct core_effects effects;
    size_t n_events;         /* its end among them */
    size_t n_requests;       /* whose replies wait for its end */
    size_t n_unbound;        /* replies that need not, and have not left */
    size_t n_unbound_events; /* that came to nothing but such replies */
    /* The last one, and its way back: what there is to say to it where it is the only one. */
    const struct wire_request *request;
    struct pending *asked;
    uint64_t took_ns; /* to gather */
    size_t weight;    /* of the replies */
};

void turn_init(struct turn *turn);
void turn_fini(struct turn *turn);
void turn_reset(struct turn *turn); /* of no events again */

/* One event: what the core makes of it is added to the turn. */
void turn_step(struct turn *turn, struct core *core, const struct core_event *event);
/* Nothing more is to be gathered for it. */
bool turn_is_full(const struct turn *turn);

#endif
