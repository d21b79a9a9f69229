#include "coordinator/loop_private.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "coordinator/loop_prepare.h"

#define OVERDUE_RETRY_MS 1000u

void gather_event(struct loop *l, struct core_event *event)
{
    event->mono_ns = clock_mono_ns();
    event->held_back = committer_busy(l->committer) &&
                       event->mono_ns / 1000000u - l->commit_ms > l->config->core.lease_ms / 8;
    event->wall_ns = clock_wall_ns();
    turn_step(l->gathering, l->core, event);
}

void gather_plain(struct loop *l, enum core_event_kind kind)
{
    struct core_event event = {.kind = kind};
    gather_event(l, &event);
}

bool gather_is_taken(const struct loop *l)
{
    return l->gathering->n_events > 0 && failures_alone(&l->failures, clock_mono_ms());
}

void gather_time(struct loop *l)
{
    if (gather_is_taken(l) || clock_mono_ms() < core_next_ms(l->core))
        return;
    gather_plain(l, CORE_EVENT_TICK);
    failures_time_passed(&l->failures);
}

/* ---- requests ---- */

/* A worker's that would only end everybody's session again. */
static bool hello_must_wait(struct loop *l, struct pending *p, const struct wire_hello *hello)
{
    struct errbuf eb = {{0}};
    uint64_t wait_ms = failures_key_wait_ms(&l->failures, hello->public_key, clock_mono_ms());
    if (wait_ms == 0)
        return false;
    l->refused++;
    (void)err_set(&eb, ERR_BUSY,
                  "worker %s: what it asked for could not be stored, again and again; it is heard "
                  "again in %llu s",
                  hello->node, (unsigned long long)(wait_ms / 1000 + 1));
    replies_later(&l->replies, p, ERR_BUSY, eb.text, wait_ms);
    return true;
}

static bool is_of_a_client(enum wire_request_kind kind)
{
    switch (kind) {
    case WIRE_REQUEST_SUBMIT:
    case WIRE_REQUEST_WATCH:
    case WIRE_REQUEST_CANCEL:
    case WIRE_REQUEST_LIST_JOBS:
    case WIRE_REQUEST_GET_JOB:
    case WIRE_REQUEST_EXPLAIN:
    case WIRE_REQUEST_LIST_WORKERS:
    case WIRE_REQUEST_LIST_MODELS:
    case WIRE_REQUEST_USAGE:
    case WIRE_REQUEST_LEDGER_RANGE:
        return true;
    default:
        return false;
    }
}

/* A client's, while the disk hangs: kept, it would only be in the way of who asks what is wrong, so
 * it is not even decoded into the turn. A worker's is kept: it has few under way, and what it
 * reports is needed. */
static bool client_must_wait(struct loop *l, struct pending *p, const void *bytes, size_t size)
{
    struct errbuf eb = {{0}};
    struct core_event event;
    struct wire_request decoded;
    uint64_t age_ms = finish_commit_age_ms(l);
    if (age_ms < LOOP_OVERDUE_MS)
        return false;
    enum err err = prepare_request(l->core, bytes, size, &l->fill, &decoded, &event, &eb);
    arena_reset(&l->fill);
    if (err != ERR_OK || !is_of_a_client(decoded.kind))
        return false;
    p->session = decoded.session;
    p->request_id = decoded.request_id;
    l->refused++;
    (void)err_set(&eb, ERR_BUSY,
                  "the coordinator's disk hangs: what is being stored has taken %llu s so far",
                  (unsigned long long)(age_ms / 1000));
    replies_later(&l->replies, p, ERR_BUSY, eb.text, OVERDUE_RETRY_MS);
    return true;
}

static void request_step(struct loop *l, struct transport_request *request)
{
    struct errbuf eb = {{0}};
    struct core_event event;
    size_t size;
    const void *bytes = transport_request_bytes(request, &size);
    struct turn *turn = l->gathering;
    struct pending *p = replies_expect(&l->replies, request);

    l->requests++;
    if (client_must_wait(l, p, bytes, size))
        return;
    struct wire_request *decoded = arena_alloc(&turn->arena, sizeof *decoded);
    CHECK(decoded != NULL);
    enum err err = prepare_request(l->core, bytes, size, &turn->arena, decoded, &event, &eb);
    p->session = decoded->session;
    p->request_id = decoded->request_id;
    if (err != ERR_OK) {
        /* A peer's error: said, counted, and no matter for the core. */
        l->refused++;
        log_debug("a request was refused: %s", eb.text);
        replies_error(&l->replies, p, err, eb.text);
        return;
    }
    if (decoded->kind == WIRE_REQUEST_HELLO && decoded->hello.role == WIRE_ROLE_WORKER &&
        hello_must_wait(l, p, &decoded->hello))
        return;
    event.tag = (uint64_t)(uintptr_t)p;
    event.connection = transport_request_connection(request);
    if (decoded->kind == WIRE_REQUEST_HELLO)
        crypto_random(event.random, sizeof event.random);
    const size_t n_unbound = turn->n_unbound;
    gather_event(l, &event);
    turn->n_unbound_events += turn->n_unbound > n_unbound;
    if (turn->n_unbound == n_unbound) {
        turn->n_requests++;
        turn->request = decoded;
        turn->asked = p;
    }
    if (core_session_established(l->core, decoded->session, event.connection))
        transport_request_admit(request);
}

void gather_requests(struct loop *l)
{
    struct turn *turn = l->gathering;
    uint64_t began_ns = clock_mono_ns();

    inbox_clear_wake(l->inbox);
    l->untaken = false;
    /* A turn that cannot end keeps nobody waiting by its length, and it is to be asked why: a look
     * at a time is bounded. */
    if (finish_commit_age_ms(l) >= LOOP_OVERDUE_MS)
        turn->took_ns = 0;
    while (!(l->more = turn_is_full(turn) || gather_is_taken(l))) {
        struct transport_request *request = inbox_pop(l->inbox, &l->untaken);
        if (request == NULL)
            break;
        request_step(l, request);
        uint64_t now_ns = clock_mono_ns();
        turn->took_ns += now_ns - began_ns;
        began_ns = now_ns;
    }
}
