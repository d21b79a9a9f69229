#include "coordinator/loop.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/notify.h"
#include "coordinator/loop_commit.h"
#include "coordinator/loop_failures.h"
#include "coordinator/loop_fill.h"
#include "coordinator/loop_inbox.h"
#include "coordinator/loop_prepare.h"
#include "coordinator/loop_restore.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define TURN_EVENTS_MAX 16384u
/* A turn is ended when its events have taken this long, or its replies will: who waits for a
 * heartbeat to be answered waits for two turns. */
#define TURN_NS_MAX     20000000u
#define TURN_WEIGHT_MAX 1024u
/* Of a reply that may have as many bytes as a frame carries: 16 of them are a turn, since what is
 * packed lies in memory until its peer takes it. The others wait for the next turn. */
#define LARGE_WEIGHT       (TURN_WEIGHT_MAX / 16)
#define TURN_BYTES_SOFT    (64u << 20) /* no more is gathered beyond it */
#define TURN_BYTES_MAX     (1u << 30)
#define FILL_ARENA_BYTES   (256u << 20) /* for one reply: commands bring several jobs */
#define PROBE_EVERY_MS     2000u
#define COMMITS_REMEMBERED 256u
#define LOOK_EVERY_MS      1000u
#define STOP_MS_MAX        3000u
#define GOODBYE_MS         200u   /* for the last replies to leave */
#define STRANGER_MS        20000u /* to say both Hellos */
#define UNTAKEN_LOOK_MS    10     /* whether peers have taken their replies */

/* A request that waits for its reply; the core's tag is its address. */
struct pending {
    struct pending *prev, *next;
    struct transport_request *request;
    uint64_t session;
    struct id request_id;
};

struct turn {
    struct arena arena;
    struct core_effects effects;
    size_t n_events;
    size_t n_requests;
    /* The last one, and its way back: what there is to say to it where it is the only one. */
    const struct wire_request *request;
    struct pending *asked;
    uint64_t took_ns; /* to gather */
    size_t weight;    /* of the replies */
};

struct loop {
    const struct loop_config *config;
    struct core *core;
    struct store *store;
    struct ledger *ledger;
    struct committer *committer;
    struct inbox *inbox;
    struct transport_server *server;
    int epoll_fd, signal_fd, timer_fd;
    uint64_t boot_epoch;

    struct turn turns[2];
    struct turn *gathering;
    struct turn *committing; /* NULL: none */
    struct pending pending;  /* head of the ring of those unanswered */
    struct arena fill;       /* what one reply brings from the store, until it is packed */

    bool forked;                /* another copy of this ledger signs with our key */
    struct errbuf unsigned_why; /* why no checkpoint is signed; empty where it is */

    uint64_t commit_ms; /* when the one under way began */
    bool more;          /* the last turn was full before the inbox was empty */
    bool untaken;       /* what is in the inbox waits until peers take their replies */
    struct id lost;     /* a job that cannot be read, or stored, any more; zero: none */
    struct errbuf lost_why;
    struct failures failures;
    bool timers_first; /* while a turn is one event: they and requests in turn */
    bool stuck;

    bool stopping;
    uint64_t stop_ms;
    uint64_t look_ms;
    uint64_t probe_ms;
    uint64_t requests;
    uint64_t refused; /* frames that could not be decoded, and Hellos that must wait */
    uint64_t commits;
    uint64_t commit_us_max;
    uint32_t commit_us[COMMITS_REMEMBERED];
    struct buf packed;
};

/* ---- replies ---- */

static void pending_free(struct pending *p)
{
    p->prev->next = p->next;
    p->next->prev = p->prev;
    free(p);
}

static void reply_send(struct loop *l, struct pending *p, const struct wire_reply *reply)
{
    struct errbuf eb = {{0}};
    buf_clear(&l->packed);
    enum err err = wire_reply_encode(reply, &l->packed, &eb);
    if (err != ERR_OK) {
        struct wire_reply instead = {.session = p->session,
                                     .request_id = p->request_id,
                                     .kind = WIRE_REPLY_ERROR,
                                     .error = {.code = (uint32_t)err, .text = eb.text}};
        log_warn("a reply of kind %d could not be packed: %s", reply->kind, eb.text);
        buf_clear(&l->packed);
        CHECK(wire_reply_encode(&instead, &l->packed, NULL) == ERR_OK);
    }
    err = transport_request_reply(l->server, p->request, l->packed.data, l->packed.size, &eb);
    if (err != ERR_OK)
        log_debug("a reply was not sent: %s", eb.text);
    pending_free(p);
}

static void reply_later(struct loop *l, struct pending *p, enum err code, const char *text,
                        uint64_t retry_after_ms)
{
    struct wire_reply reply = {.session = p->session,
                               .request_id = p->request_id,
                               .kind = WIRE_REPLY_ERROR,
                               .error = {.code = (uint32_t)code,
                                         .text = text,
                                         .retryable = err_retryable(code),
                                         .retry_after_ms = retry_after_ms}};
    reply_send(l, p, &reply);
}

static void reply_error(struct loop *l, struct pending *p, enum err code, const char *text)
{
    reply_later(l, p, code, text, 0);
}

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t commit_us_median(const struct loop *l)
{
    uint32_t sorted[COMMITS_REMEMBERED];
    size_t n = l->commits < COMMITS_REMEMBERED ? (size_t)l->commits : COMMITS_REMEMBERED;
    if (n == 0)
        return 0;
    memcpy(sorted, l->commit_us, n * sizeof sorted[0]);
    qsort(sorted, n, sizeof sorted[0], compare_u32);
    return sorted[n / 2];
}

static void turn_reset(struct turn *turn)
{
    arena_reset(&turn->arena);
    core_effects_init(&turn->effects, &turn->arena);
    turn->n_events = turn->n_requests = 0;
    turn->request = NULL;
    turn->asked = NULL;
    turn->took_ns = 0;
    turn->weight = 0;
}

static void turn_reply(struct loop *l, struct turn *turn)
{
    struct errbuf eb = {{0}};
    struct store_txn *txn = NULL;
    struct fill_context context = {
        .store = l->store,
        .ledger = l->ledger,
        .key = l->config->key,
        .origin = l->config->origin,
        .commits = l->commits,
        .commit_us_median = commit_us_median(l),
        .commit_us_max = l->commit_us_max,
        .requests = l->requests,
        .refused = l->refused,
        .unsigned_why = l->unsigned_why.text[0] != '\0' ? l->unsigned_why.text : NULL,
        .dropped = inbox_dropped(l->inbox)};

    for (struct core_effect *e = turn->effects.first; e != NULL; e = e->next) {
        if (e->kind != CORE_EFFECT_REPLY)
            continue;
        struct pending *p = (struct pending *)(uintptr_t)e->reply.tag;
        enum err err = ERR_OK;
        if (transport_request_way(p->request).closed) {
            transport_request_free(p->request);
            pending_free(p);
            continue;
        }
        if (e->reply.fill != CORE_FILL_NONE && txn == NULL)
            err = store_begin(l->store, false, &txn, &eb);
        if (err == ERR_OK)
            err = fill_reply(&context, txn, e, &l->fill, &eb);
        if (err == ERR_OK) {
            reply_send(l, p, &e->reply.reply);
        } else {
            log_error("a reply could not be completed: %s", eb.text);
            reply_error(l, p, err, eb.text);
        }
        arena_reset(&l->fill);
        if (!id_is_zero(&context.unreadable)) {
            l->lost = context.unreadable;
            l->lost_why = eb;
            context.unreadable = (struct id){{0}};
        }
    }
    store_abort(txn);
    turn_reset(turn);
}

/* ---- events ---- */

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

static void event_step(struct loop *l, struct core_event *event)
{
    event->mono_ns = clock_mono_ns();
    event->held_back = committer_busy(l->committer) &&
                       event->mono_ns / 1000000u - l->commit_ms > l->config->core.lease_ms / 8;
    event->wall_ns = clock_wall_ns();
    struct turn *turn = l->gathering;
    struct core_effect *last = turn->effects.last;
    core_step(l->core, event, &turn->effects);
    turn->n_events++;
    for (struct core_effect *e = last != NULL ? last->next : turn->effects.first; e != NULL;
         e = e->next)
        turn->weight += reply_weight(e);
}

static bool turn_is_taken(const struct loop *l)
{
    return l->gathering->n_events > 0 && failures_alone(&l->failures, clock_mono_ms());
}

static void event_plain(struct loop *l, enum core_event_kind kind)
{
    struct core_event event = {.kind = kind};
    event_step(l, &event);
}

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
    reply_later(l, p, ERR_BUSY, eb.text, wait_ms);
    return true;
}

static void request_step(struct loop *l, struct transport_request *request)
{
    struct errbuf eb = {{0}};
    struct core_event event;
    size_t size;
    const void *bytes = transport_request_bytes(request, &size);
    struct turn *turn = l->gathering;
    struct wire_request *decoded = arena_alloc(&turn->arena, sizeof *decoded);
    struct pending *p = calloc(1, sizeof *p);
    CHECK(decoded != NULL && p != NULL);

    p->request = request;
    p->prev = l->pending.prev;
    p->next = &l->pending;
    p->prev->next = p->next->prev = p;
    l->requests++;
    enum err err = prepare_request(l->core, bytes, size, &turn->arena, decoded, &event, &eb);
    p->session = decoded->session;
    p->request_id = decoded->request_id;
    if (err != ERR_OK) {
        /* A peer's error: said, counted, and no matter for the core. */
        l->refused++;
        log_debug("a request was refused: %s", eb.text);
        reply_error(l, p, err, eb.text);
        return;
    }
    if (decoded->kind == WIRE_REQUEST_HELLO && decoded->hello.role == WIRE_ROLE_WORKER &&
        hello_must_wait(l, p, &decoded->hello))
        return;
    event.tag = (uint64_t)(uintptr_t)p;
    event.connection = transport_request_connection(request);
    if (decoded->kind == WIRE_REQUEST_HELLO)
        crypto_random(event.random, sizeof event.random);
    turn->n_requests++;
    turn->request = decoded;
    turn->asked = p;
    event_step(l, &event);
    if (core_session_established(l->core, decoded->session, event.connection))
        transport_request_admit(request);
}

static bool turn_is_full(const struct turn *turn)
{
    return turn->n_events >= TURN_EVENTS_MAX || turn->arena.used_bytes >= TURN_BYTES_SOFT ||
           turn->took_ns >= TURN_NS_MAX || turn->weight >= TURN_WEIGHT_MAX;
}

static void timers_look(struct loop *l)
{
    if (turn_is_taken(l) || clock_mono_ms() < core_next_ms(l->core))
        return;
    event_plain(l, CORE_EVENT_TICK);
    l->timers_first = false;
}

static void requests_gather(struct loop *l)
{
    struct turn *turn = l->gathering;
    uint64_t began_ns = clock_mono_ns();

    inbox_clear_wake(l->inbox);
    l->untaken = false;
    while (!(l->more = turn_is_full(turn) || turn_is_taken(l))) {
        struct transport_request *request = inbox_pop(l->inbox, &l->untaken);
        if (request == NULL)
            break;
        request_step(l, request);
        uint64_t now_ns = clock_mono_ns();
        turn->took_ns += now_ns - began_ns;
        began_ns = now_ns;
    }
}

/* ---- storage ---- */

static enum err storage_open(struct loop *l, struct errbuf *eb)
{
    const struct loop_config *k = l->config;
    struct store_lmdb_config store = {.path = k->store_path, .map_bytes = k->map_bytes};
    struct ledger_config ledger = {
        .origin = k->origin, .key = k->key, .checkpoint_path = k->checkpoint_path};
    enum err err = store_open_lmdb(&l->store, &store, eb);
    if (err == ERR_OK)
        err = ledger_open(&l->ledger, l->store, &ledger, eb);
    return err;
}

static void storage_close(struct loop *l)
{
    ledger_close(l->ledger);
    store_close(l->store);
    l->ledger = NULL;
    l->store = NULL;
}

static enum err core_open(struct loop *l, struct errbuf *eb)
{
    uint64_t jobs = 0, began_ns = clock_mono_ns();
    enum err err = restore_core(l->store, l->ledger, &l->config->core, l->boot_epoch, began_ns,
                                clock_wall_ns(), &l->core, &jobs, eb);
    if (err == ERR_OK)
        log_info("restored %llu jobs and %llu ledger records in %llu ms", (unsigned long long)jobs,
                 (unsigned long long)ledger_size(l->ledger),
                 (unsigned long long)((clock_mono_ns() - began_ns) / 1000000u));
    return err;
}

static void turns_reset(struct loop *l)
{
    for (int i = 0; i < 2; i++)
        turn_reset(&l->turns[i]);
    l->gathering = &l->turns[0];
    l->committing = NULL;
}

/* The core is ahead of what is on disk: it is made again from there. Who waits for a reply hears
 * that it failed, never that it was done. */
static void core_drop(struct loop *l, enum err answer, const char *reason)
{
    while (l->pending.next != &l->pending)
        reply_error(l, l->pending.next, answer, reason);
    turns_reset(l);
    core_free(l->core);
    l->core = NULL;
}

/* `freeze`: why nothing can be stored now, and what that is called; or NULL. */
static enum err core_return(struct loop *l, enum err code, const char *freeze, struct errbuf *eb)
{
    enum err err = core_open(l, eb);
    if (err != ERR_OK)
        return err;
    if (l->stopping)
        event_plain(l, CORE_EVENT_STOP);
    if (freeze != NULL) {
        struct core_event event = {.kind = CORE_EVENT_FREEZE, .reason = freeze, .code = code};
        event_step(l, &event);
    }
    return ERR_OK;
}

static enum err storage_again(struct loop *l, struct errbuf *eb)
{
    storage_close(l);
    enum err err = storage_open(l, eb);
    return err == ERR_OK ? err : err_prefix(eb, err, "opening the store again after an error");
}

/* For good: asked again it would be refused again. */
static void asked_blame(struct loop *l, const struct turn *turn, enum err cause, const char *text)
{
    struct errbuf reason = {{0}};
    enum err code = err_retryable(cause) ? ERR_INTERNAL : cause;
    uint8_t public_key[32];
    if (core_session_worker_key(l->core, turn->request->session, public_key))
        failures_blame(&l->failures, public_key, clock_mono_ms());
    (void)err_set(&reason, code, "what this request asks for cannot be stored: %s", text);
    log_error("a request was refused for good: %s", reason.text);
    reply_error(l, turn->asked, code, reason.text);
}

static enum err commit_failed(struct loop *l, const struct turn *turn,
                              const struct committer_result *result, struct errbuf *eb)
{
    struct errbuf reason = {{0}};
    /* Ends of turns are events too. */
    struct failures_turn failed = {.events = turn != NULL ? (unsigned)turn->n_events - 1 : 0,
                                   .request =
                                       turn != NULL && turn->n_requests > 0 ? turn->request : NULL,
                                   .job_id = result->job_id};
    enum failures_answer answer =
        failures_judge(&l->failures, result->err, &failed, clock_mono_ms(), &l->lost);
    bool is_full = answer == FAILURES_FREEZE;

    log_error("storing failed, nothing of it was acknowledged: %s", result->eb.text);
    (void)err_set(&reason, result->err, "the coordinator cannot store: %s", result->eb.text);
    l->lost_why = reason;
    if (answer == FAILURES_BLAME)
        asked_blame(l, turn, result->err, result->eb.text);
    core_drop(l, is_full ? ERR_NO_SPACE : ERR_UNAVAILABLE, reason.text);
    if (answer == FAILURES_END_DISK)
        return err_set(eb, result->err,
                       "storing failed %u times and nothing was stored between: %s",
                       FAILURES_DISK_MAX, result->eb.text);
    if (answer == FAILURES_END) {
        l->stuck = true;
        return err_set(eb, result->err,
                       "what has to be stored next was refused %u times; all that was acknowledged "
                       "is stored: %s",
                       FAILURES_INTERNAL_MAX, result->eb.text);
    }
    enum err err = is_full ? ERR_OK : storage_again(l, eb);
    if (err != ERR_OK)
        return err;
    l->probe_ms = clock_mono_ms() + PROBE_EVERY_MS;
    return core_return(l, ERR_NO_SPACE, is_full ? reason.text : NULL, eb);
}

/* The second place holds a checkpoint that is not of our log: two copies of the store are in use,
 * or one was set back beneath us. Whatever is accepted now is in one of two logs of which only one
 * can be kept, so nothing more is, until somebody has looked. */
static enum err ledger_forked(struct loop *l, struct errbuf *eb)
{
    struct errbuf reason = {{0}};
    (void)err_set(&reason, ERR_CORRUPT, "the ledger and its last checkpoint do not agree: %s",
                  l->unsigned_why.text);
    log_error("nothing more is accepted: %s", reason.text);
    core_drop(l, ERR_UNAVAILABLE, reason.text); /* asked again, it hears the rest */
    l->forked = true;
    l->probe_ms = UINT64_MAX; /* room on the disk would mend nothing */
    return core_return(l, ERR_FORKED, reason.text, eb);
}

static void space_probe(struct loop *l)
{
    struct errbuf eb = {{0}};
    if (!core_frozen(l->core) || clock_mono_ms() < l->probe_ms || committer_busy(l->committer))
        return;
    if (restore_probe(l->store, &eb) == ERR_OK) {
        log_info("storing works again");
        event_plain(l, CORE_EVENT_UNFREEZE);
    } else {
        l->probe_ms = clock_mono_ms() + PROBE_EVERY_MS;
    }
}

/* Not while replies are filled: the effects of that turn may be with the commit thread. */
static void job_lost(struct loop *l)
{
    struct core_event event = {
        .kind = CORE_EVENT_JOB_LOST, .job_id = l->lost, .reason = l->lost_why.text};
    if (id_is_zero(&l->lost) || turn_is_taken(l))
        return;
    event_step(l, &event);
    l->lost = (struct id){{0}};
}

/* ---- turns ---- */

static bool turn_wants_checkpoint(const struct loop *l, const struct turn *turn)
{
    char note[LEDGER_NOTE_BYTES];
    return fill_wants_checkpoint(&turn->effects, ledger_size(l->ledger),
                                 ledger_checkpoint_read(l->ledger, note));
}

/* Ends the gathering turn. True where it has work for the commit thread. */
static bool turn_end(struct loop *l)
{
    timers_look(l);
    event_plain(l, CORE_EVENT_TURN_END);
    return l->gathering->effects.n_persist > 0 || turn_wants_checkpoint(l, l->gathering);
}

static void turn_commit(struct loop *l)
{
    l->committing = l->gathering;
    const struct core_effects *effects = &l->committing->effects;
    l->commit_ms = clock_mono_ms();
    committer_start(l->committer, l->store, l->ledger, effects->n_persist > 0 ? effects : NULL,
                    turn_wants_checkpoint(l, l->committing));
}

static struct turn *turn_other(struct loop *l, const struct turn *turn)
{
    return turn == &l->turns[0] ? &l->turns[1] : &l->turns[0];
}

/* Nothing is under way: what was gathered becomes a turn. */
static void turn_finish(struct loop *l)
{
    if (committer_busy(l->committer))
        return;
    if (l->gathering->n_events == 0) {
        turn_reset(l->gathering); /* it may be full of what was refused */
        return;
    }
    if (turn_end(l)) {
        turn_commit(l);
        l->gathering = turn_other(l, l->committing);
    } else {
        turn_reply(l, l->gathering);
    }
}

static enum err commit_finish(struct loop *l, struct errbuf *eb)
{
    struct committer_result result;
    if (!committer_take(l->committer, &result))
        return ERR_OK;
    struct turn *done = l->committing;
    l->committing = NULL;
    if (result.err != ERR_OK)
        return commit_failed(l, done, &result, eb);
    l->unsigned_why = result.unsigned_why;
    if (result.unsigned_err == ERR_OK)
        l->unsigned_why.text[0] = '\0';
    bool forked = result.unsigned_err == ERR_CORRUPT && !l->forked;
    if (done == NULL)
        return forked ? ledger_forked(l, eb) : ERR_OK;
    if (result.commit_us > 0)
        l->commit_us[l->commits++ % COMMITS_REMEMBERED] =
            result.commit_us > UINT32_MAX ? UINT32_MAX : (uint32_t)result.commit_us;
    if (result.commit_us > l->commit_us_max)
        l->commit_us_max = result.commit_us;
    if (result.commit_us > 0)
        failures_stored(&l->failures, done->n_requests > 0);
    if (forked) { /* what is stored was accepted */
        turn_reply(l, done);
        return ledger_forked(l, eb);
    }
    /* The next turn first, so that the disk works while these replies are packed. */
    if (l->gathering->n_events > 0 && turn_end(l)) {
        turn_commit(l);
        turn_reply(l, done);
        l->gathering = done;
    } else {
        turn_reply(l, done);
        if (l->gathering->n_events > 0)
            turn_reply(l, l->gathering);
    }
    return ERR_OK;
}

/* ---- the loop ---- */

static void signals_take(struct loop *l)
{
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP || l->stopping)
            continue; /* there is nothing to read again */
        log_info("stopping: signal %u", info.ssi_signo);
        notify_state("STOPPING=1");
        l->stopping = true;
        l->stop_ms = clock_mono_ms();
        event_plain(l, CORE_EVENT_STOP);
    }
}

static void timer_set(struct loop *l)
{
    uint64_t at_ms = core_next_ms(l->core);
    if (l->look_ms < at_ms)
        at_ms = l->look_ms;
    if (core_frozen(l->core) && l->probe_ms < at_ms)
        at_ms = l->probe_ms;
    /* Zero would switch it off. */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ms / 1000u),
                                           .tv_nsec = (long)(at_ms % 1000u) * 1000000 + 1}};
    CHECK(timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

/* Records that no checkpoint covers yet: the commit thread knows whether it is time. */
static void checkpoint_look(struct loop *l)
{
    char note[LEDGER_NOTE_BYTES];
    uint64_t now_ms = clock_mono_ms();
    if (now_ms < l->look_ms)
        return;
    l->look_ms = now_ms + LOOK_EVERY_MS;
    if (!committer_busy(l->committer) && !core_frozen(l->core) &&
        ledger_checkpoint_read(l->ledger, note) != ledger_size(l->ledger)) {
        l->commit_ms = now_ms;
        committer_start(l->committer, l->store, l->ledger, NULL, false);
    }
}

static bool is_over(const struct loop *l)
{
    if (!l->stopping)
        return false;
    if (clock_mono_ms() >= l->stop_ms + STOP_MS_MAX)
        return true;
    return !committer_busy(l->committer) && l->gathering->n_events == 0;
}

enum err loop_run(struct loop *l, struct errbuf *eb)
{
    enum err err = ERR_OK;
    while (!is_over(l) && err == ERR_OK) {
        struct epoll_event events[4];
        uint64_t n;
        timer_set(l);
        /* A full turn left requests in the inbox: with the disk idle nothing else would wake us. */
        int wait_ms = l->more && !committer_busy(l->committer) ? 0 : -1;
        if (wait_ms < 0 && l->untaken)
            wait_ms = UNTAKEN_LOOK_MS;
        if (epoll_wait(l->epoll_fd, events, 4, wait_ms) < 0 && errno != EINTR)
            return err_set_errno(eb, errno, "epoll_wait");
        if (read(l->timer_fd, &n, sizeof n) < 0)
            n = 0; /* it was another one */
        signals_take(l);
        /* Who was heard in time is heard first; but no requests keep time from passing. */
        if (l->timers_first && failures_alone(&l->failures, clock_mono_ms()))
            timers_look(l);
        l->timers_first = true;
        requests_gather(l);
        timers_look(l);
        err = commit_finish(l, eb);
        if (err != ERR_OK)
            break;
        space_probe(l);
        job_lost(l);
        turn_finish(l);
        checkpoint_look(l);
    }
    return err;
}

static enum err fds_open(struct loop *l, struct errbuf *eb)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    l->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->signal_fd < 0 || l->timer_fd < 0 || l->epoll_fd < 0)
        return err_set_errno(eb, errno, "signalfd, timerfd or epoll");
    const int fds[] = {l->signal_fd, l->timer_fd, inbox_fd(l->inbox), committer_fd(l->committer)};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        struct epoll_event want = {.events = EPOLLIN, .data = {.fd = fds[i]}};
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fds[i], &want) != 0)
            return err_set_errno(eb, errno, "epoll_ctl");
    }
    return ERR_OK;
}

enum err loop_open(struct loop **ret_loop, const struct loop_config *config, struct errbuf *eb)
{
    struct loop *l = calloc(1, sizeof *l);
    struct committer_config commits = {.checkpoint_records = config->checkpoint_records,
                                       .checkpoint_ms = config->checkpoint_ms};
    if (l == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the loop");
    l->config = config;
    l->signal_fd = l->timer_fd = l->epoll_fd = -1;
    l->pending.prev = l->pending.next = &l->pending;
    buf_init(&l->packed);
    for (int i = 0; i < 2; i++)
        arena_init(&l->turns[i].arena, TURN_BYTES_MAX);
    arena_init(&l->fill, FILL_ARENA_BYTES);
    turns_reset(l);
    l->look_ms = clock_mono_ms() + LOOK_EVERY_MS;

    enum err err = storage_open(l, eb);
    if (err == ERR_OK)
        err = restore_boot(l->store, l->ledger, config->core.node, config->key, clock_mono_ns(),
                           clock_wall_ns(), &l->boot_epoch, eb);
    if (err == ERR_OK)
        err = core_open(l, eb);
    if (err == ERR_OK)
        err = inbox_open(&l->inbox, &inbox_limits_default, eb);
    if (err == ERR_OK)
        err = committer_open(&l->committer, &commits, eb);
    if (err == ERR_OK)
        err = fds_open(l, eb);
    if (err == ERR_OK)
        err = transport_server_open(&l->server, &config->endpoint, inbox_push, l->inbox, eb);
    if (err != ERR_OK) {
        loop_close(l);
        return err;
    }
    transport_server_expect(l->server, STRANGER_MS,
                            config->core.session_idle_ms + config->core.lease_ms +
                                2 * LIMIT_POLL_MS);
    log_info("listening on %s, ledger %s, boot %llu", config->endpoint.url, config->origin,
             (unsigned long long)l->boot_epoch);
    notify_state("READY=1");
    *ret_loop = l;
    return ERR_OK;
}

/* The last checkpoint, so that everything that was promised is signed. */
static void last_checkpoint(struct loop *l)
{
    struct committer_result result;
    if (committer_busy(l->committer))
        committer_wait(l->committer, &result);
    if (l->ledger != NULL && l->core != NULL && !core_frozen(l->core)) {
        committer_start(l->committer, l->store, l->ledger, NULL, true);
        committer_wait(l->committer, &result);
    }
}

bool loop_is_stuck(const struct loop *l)
{
    return l->stuck;
}

void loop_close(struct loop *l)
{
    if (l == NULL)
        return;
    if (l->committer != NULL)
        last_checkpoint(l);
    committer_close(l->committer);
    if (l->server != NULL) {
        struct timespec rest = {.tv_nsec = (long)GOODBYE_MS * 1000000};
        nanosleep(&rest, NULL);
        while (l->pending.next != &l->pending) {
            transport_request_free(l->pending.next->request);
            pending_free(l->pending.next);
        }
        transport_server_close(l->server);
    }
    inbox_close(l->inbox);
    core_free(l->core);
    storage_close(l);
    for (int i = 0; i < 2; i++)
        arena_fini(&l->turns[i].arena);
    arena_fini(&l->fill);
    buf_fini(&l->packed);
    if (l->signal_fd >= 0)
        close(l->signal_fd);
    if (l->timer_fd >= 0)
        close(l->timer_fd);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    free(l);
}
