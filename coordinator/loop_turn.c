#include "coordinator/loop_turn.h"

#define TURN_EVENTS_MAX 16384u
/* A turn is ended when its events have taken this long, or its replies will: who waits for a
 * heartbeat to be answered waits for two turns. */
#define TURN_NS_MAX     20000000u
#define TURN_WEIGHT_MAX 1024u
/* Of a reply that may have as many bytes as a frame carries: 16 of them are a turn, since what is
 * packed lies in memory until its peer takes it. The others wait for the next turn. */
#define LARGE_WEIGHT    (TURN_WEIGHT_MAX / 16)
#define TURN_BYTES_SOFT (64u << 20) /* no more is gathered beyond it */
#define TURN_BYTES_MAX  (1u << 30)

void turn_init(struct turn *turn)
{
    arena_init(&turn->arena, TURN_BYTES_MAX);
    turn_reset(turn);
}

void turn_fini(struct turn *turn)
{
    arena_fini(&turn->arena);
}

void turn_reset(struct turn *turn)
{
    arena_reset(&turn->arena);
    core_effects_init(&turn->effects, &turn->arena);
    turn->n_events = turn->n_requests = turn->n_unbound = turn->n_unbound_events = 0;
    turn->request = NULL;
    turn->asked = NULL;
    turn->took_ns = 0;
    turn->weight = 0;
}

/* What a reply will cost beside packing little: what it brings from the store, and long lists. */
static size_t reply_weight(const struct core_effect *e)
{
    if (e->kind != CORE_EFFECT_REPLY)
        return 0;
    const struct wire_reply *reply = &e->reply.reply;
    switch (e->reply.fill) {
    case CORE_FILL_COMMANDS:
        return reply->pull.n_commands;
    case CORE_FILL_TOKENS:
        return 1 + (e->reply.tokens - reply->watch.first) / 1024;
    case CORE_FILL_CONTENT:
    case CORE_FILL_LEDGER:
        return LARGE_WEIGHT;
    case CORE_FILL_NONE:
        if (reply->kind == (int)WIRE_REQUEST_LIST_JOBS ||
            reply->kind == (int)WIRE_REQUEST_LIST_WORKERS || reply->kind == (int)WIRE_REQUEST_USAGE)
            return TURN_WEIGHT_MAX / 32;
        break;
    case CORE_FILL_HELLO:
    case CORE_FILL_STATUS:
        break;
    }
    return 0;
}

void turn_step(struct turn *turn, struct core *core, const struct core_event *event)
{
    struct core_effect *last = turn->effects.last;
    core_step(core, event, &turn->effects);
    turn->n_events++;
    for (struct core_effect *e = last != NULL ? last->next : turn->effects.first; e != NULL;
         e = e->next) {
        turn->weight += reply_weight(e);
        turn->n_unbound += e->kind == CORE_EFFECT_REPLY && e->reply.promises_nothing;
    }
}

bool turn_is_full(const struct turn *turn)
{
    return turn->n_events - turn->n_unbound_events >= TURN_EVENTS_MAX ||
           turn->arena.used_bytes >= TURN_BYTES_SOFT || turn->took_ns >= TURN_NS_MAX ||
           turn->weight >= TURN_WEIGHT_MAX;
}
