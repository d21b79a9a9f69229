/*
 * The client of transport.h: one connection, dialed again whenever it is gone, and the calls on it.
 *
 * A thread of its own dials and minds the time: it ends calls whose deadline is over, and those
 * that were cancelled, because a cancel must not call back into who asked for it.
 *
 * A call's time runs from when its request was sent. Before that it runs only while the connection
 * takes nothing at all, so that on a slow line a large request ends neither itself nor those behind
 * it; and the request of a call that ended is taken out of the queue, so that trying again on such
 * a line does not queue it twice.
 */
#include "common/transport.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/transport_conn.h"
#include "common/transport_nng.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A restarted coordinator is found within the longer one. */
#define RECONNECT_MS_MIN 20
#define RECONNECT_MS_MAX 100
/* Nobody answers there at all. */
#define DIAL_TIMEOUT_MS 10000
/* Looks after the connection. */
#define TICK_MS 1000
/* Calls by their id; a power of two. */
#define BUCKETS 256u
/* Requests that are not sent yet: one more is ERR_BUSY. */
#define UNSENT_BYTES_MAX (4 * (size_t)LIMIT_FRAME_BYTES)
/* Sent is what the system has taken. On a slow line it may hold some megabytes, which no answer has
 * shown to be gone: the calls behind them have the time that takes. */
#define SYSTEM_BYTES_MAX  (4u << 20)
#define SYSTEM_BYTES_RATE 128u /* a ms, at least */
/* A server from which nothing was heard for so long, though it was asked, and not in the time of a
 * call, is not there any more, whatever the system says. */
#define SILENCE_MS 5000u

enum call_state {
    CALL_QUEUED,  /* waits for a connection */
    CALL_SENDING, /* with the connection that is up, not wholly sent */
    CALL_SENT,    /* waits for its reply */
    CALL_ENDING,  /* on its way to on_reply, or behind it */
};

struct transport_call {
    struct transport_client *client;
    struct transport_call *next, *previous; /* in the order they began; `next` in a list to end */
    struct transport_call *next_in_bucket;
    uint32_t id;
    enum call_state state;
    bool cancelled;
    unsigned references; /* the user's, that of the operation */
    uint32_t timeout_ms;
    uint64_t deadline_ms;
    struct transport_frame *frame; /* QUEUED: ours; SENDING: the connection's */
    size_t frame_size;
    uint64_t sent_to; /* SENT: of the client's sent_bytes */
    transport_reply_fn *on_reply;
    void *arg;
    enum err err; /* once ENDING */
};

struct transport_client {
    nng_stream_dialer *dialer;
    nng_aio *dial;
    char url[320];
    pthread_t thread;

    pthread_mutex_t lock; /* of all below, and of starting to dial */
    pthread_cond_t changed;
    unsigned references; /* the owner's, the connection's, each call's */
    bool closing;
    bool dialing;
    bool dialed;                 /* ever */
    struct transport_conn *conn; /* held; also while it goes down */
    bool up;                     /* requests may be sent on it */
    uint64_t dial_at_ms;
    unsigned dial_wait_ms;
    uint32_t last_id;
    struct transport_call *first, *last; /* all but ENDING */
    size_t unsent_bytes;                 /* of those QUEUED and SENDING */
    uint64_t sent_bytes, gone_bytes; /* taken by the system; of them surely not in it any more */
    uint64_t gone_ms;
    uint64_t asked_ns; /* the first request sent since the server was heard */
    struct transport_call *buckets[BUCKETS];
    size_t ending;    /* calls whose on_reply has not returned */
    uint64_t wake_ms; /* when the thread looks next */
};

static void client_unlock_release(struct transport_client *c)
{
    bool last = --c->references == 0;
    (void)pthread_mutex_unlock(&c->lock);
    if (!last)
        return;
    (void)pthread_cond_destroy(&c->changed);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

/* With the lock held; false when the time is over. */
static bool wait_until(struct transport_client *c, uint64_t until_ms)
{
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&c->changed, &c->lock, &until) == 0;
}

static void wake_at(struct transport_client *c, uint64_t when_ms)
{
    if (when_ms < c->wake_ms) {
        c->wake_ms = when_ms;
        (void)pthread_cond_broadcast(&c->changed);
    }
}

/* ---- calls; the lock is held unless said otherwise ---- */

static void call_add(struct transport_client *c, struct transport_call *call)
{
    call->previous = c->last;
    *(c->last != NULL ? &c->last->next : &c->first) = call;
    c->last = call;
    call->next_in_bucket = c->buckets[call->id % BUCKETS];
    c->buckets[call->id % BUCKETS] = call;
}

static bool call_is_unsent(const struct transport_call *call)
{
    return call->state == CALL_QUEUED || call->state == CALL_SENDING;
}

/* To ENDING: whoever does this calls call_deliver. */
static void call_take(struct transport_call *call, enum err err)
{
    struct transport_client *c = call->client;
    struct transport_call **p = &c->buckets[call->id % BUCKETS];

    while (*p != call)
        p = &(*p)->next_in_bucket;
    *p = call->next_in_bucket;
    *(call->previous != NULL ? &call->previous->next : &c->first) = call->next;
    *(call->next != NULL ? &call->next->previous : &c->last) = call->previous;
    call->next = call->previous = NULL;
    if (call_is_unsent(call))
        c->unsent_bytes -= call->frame_size;
    /* What nng has of it goes out all the same, and is freed once sent. */
    if (call->state == CALL_SENDING && !transport_conn_unsend(c->conn, call->frame))
        call->frame = NULL;
    call->state = CALL_ENDING;
    call->err = err;
    c->ending++;
}

static void call_unlock_release(struct transport_call *call)
{
    struct transport_client *c = call->client;

    if (--call->references > 0) {
        (void)pthread_mutex_unlock(&c->lock);
        return;
    }
    free(call);
    client_unlock_release(c);
}

/* Without the lock. */
static void call_deliver(struct transport_call *call, const void *reply, size_t size)
{
    struct transport_client *c = call->client;

    free(call->frame);
    call->frame = NULL;
    call->on_reply(call->arg, call->err, reply, size);
    (void)pthread_mutex_lock(&c->lock);
    c->ending--;
    (void)pthread_cond_broadcast(&c->changed);
    call_unlock_release(call);
}

/* Without the lock. */
static void calls_deliver(struct transport_call *list)
{
    while (list != NULL) {
        struct transport_call *call = list;
        list = call->next;
        call->next = NULL;
        call_deliver(call, NULL, 0);
    }
}

static void call_send(struct transport_client *c, struct transport_call *call)
{
    /* False: it goes down, and the next one takes it. */
    if (transport_conn_send(c->conn, call->frame))
        call->state = CALL_SENDING;
}

static struct transport_call *call_find(struct transport_client *c, uint32_t id)
{
    struct transport_call *call = c->buckets[id % BUCKETS];

    while (call != NULL && call->id != id)
        call = call->next_in_bucket;
    return call;
}

/* ---- the connection ---- */

static void conn_up(void *arg, struct transport_conn *conn)
{
    struct transport_client *c = arg;

    (void)conn;
    (void)pthread_mutex_lock(&c->lock);
    c->up = true;
    c->gone_bytes = c->sent_bytes;
    c->dial_wait_ms = RECONNECT_MS_MIN;
    for (struct transport_call *call = c->first; call != NULL; call = call->next) {
        if (call->state == CALL_QUEUED)
            call_send(c, call);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

static void conn_frame(void *arg, struct transport_conn *conn, struct transport_received *frame)
{
    struct transport_client *c = arg;

    (void)conn;
    (void)pthread_mutex_lock(&c->lock);
    struct transport_call *call = call_find(c, frame->id);
    if (call != NULL && call->state == CALL_QUEUED)
        call = NULL; /* nobody can answer it yet */
    if (call != NULL) {
        if (call->state == CALL_SENT && call->sent_to > c->gone_bytes)
            c->gone_bytes = call->sent_to;
        call_take(call, ERR_OK);
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (call != NULL) /* else it is over: cancelled, or too late */
        call_deliver(call, frame->payload, frame->size);
    free(frame->block);
}

/* One more request was sent: how long what the system holds of it and before it may take. */
static uint64_t system_ms(struct transport_client *c, size_t size, uint64_t now_ms)
{
    c->gone_bytes += (now_ms - c->gone_ms) * SYSTEM_BYTES_RATE;
    c->gone_ms = now_ms;
    if (c->gone_bytes > c->sent_bytes)
        c->gone_bytes = c->sent_bytes;
    c->sent_bytes += size;
    if (c->gone_bytes + SYSTEM_BYTES_MAX < c->sent_bytes)
        c->gone_bytes = c->sent_bytes - SYSTEM_BYTES_MAX;
    return (c->sent_bytes - c->gone_bytes) / SYSTEM_BYTES_RATE;
}

static void conn_sent(void *arg, struct transport_conn *conn, struct transport_frame *list)
{
    struct transport_client *c = arg;
    uint64_t now_ns = clock_mono_ns(), now_ms = now_ns / 1000000u;

    (void)pthread_mutex_lock(&c->lock);
    if (transport_conn_look(conn).heard_ns >= c->asked_ns)
        c->asked_ns = now_ns;
    for (struct transport_frame *frame = list, *next; frame != NULL; frame = next) {
        next = frame->next;
        uint64_t held_ms = system_ms(c, frame->size, now_ms);
        struct transport_call *call = call_find(c, frame->id);
        if (call != NULL && call->state == CALL_SENDING) {
            call->state = CALL_SENT;
            call->frame = NULL;
            call->deadline_ms = now_ms + call->timeout_ms + held_ms;
            call->sent_to = c->sent_bytes;
            c->unsent_bytes -= call->frame_size;
        }
        free(frame);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

/* When to dial after one that failed, or a connection that went. */
static void dial_later(struct transport_client *c)
{
    c->dial_at_ms = clock_mono_ms() + c->dial_wait_ms;
    c->dial_wait_ms =
        c->dial_wait_ms * 2 < RECONNECT_MS_MAX ? c->dial_wait_ms * 2 : RECONNECT_MS_MAX;
    wake_at(c, c->dial_at_ms);
}

static void conn_down(void *arg, struct transport_conn *conn)
{
    struct transport_client *c = arg;
    struct transport_call *ended = NULL, **end = &ended;

    (void)pthread_mutex_lock(&c->lock);
    CHECK(c->conn == conn);
    c->up = false;
    for (struct transport_call *call = c->first, *next; call != NULL; call = next) {
        next = call->next;
        if (call->state != CALL_QUEUED) {
            call_take(call, ERR_UNAVAILABLE);
            *end = call;
            end = &call->next;
        }
    }
    c->conn = NULL;
    dial_later(c);
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    calls_deliver(ended);
    transport_conn_release(conn);
    (void)pthread_mutex_lock(&c->lock);
    client_unlock_release(c);
}

static const struct transport_conn_ops client_ops = {
    .ours = TRANSPORT_PROTOCOL_REQ,
    .theirs = TRANSPORT_PROTOCOL_REP,
    .on_up = conn_up,
    .on_frame = conn_frame,
    .on_sent = conn_sent,
    .on_down = conn_down,
};

static void dial_callback(void *arg)
{
    struct transport_client *c = arg;
    struct transport_conn *conn = NULL;

    if (nng_aio_result(c->dial) == 0)
        conn = transport_conn_new(nng_aio_get_output(c->dial, 0), &client_ops, c);
    (void)pthread_mutex_lock(&c->lock);
    if (conn != NULL) {
        c->conn = conn;
        c->references++;
        transport_conn_hold(conn);
    } else {
        dial_later(c);
    }
    c->dialing = false;
    bool closing = c->closing;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    if (conn == NULL)
        return;
    if (closing)
        transport_conn_close(conn);
    else
        transport_conn_start(conn);
    transport_conn_release(conn);
}

/* ---- the thread ---- */

/* Whether the call's time is over; moves its deadline where it is not. */
static bool call_is_late(struct transport_client *c, struct transport_call *call, uint64_t now_ms)
{
    if (call->deadline_ms > now_ms)
        return false;
    if (call->state != CALL_SENDING)
        return true;
    uint64_t taken_ms = transport_conn_look(c->conn).taken_ms;
    if (taken_ms + call->timeout_ms > now_ms)
        call->deadline_ms = taken_ms + call->timeout_ms;
    /* Half of it may be there: then it is the connection's to say what is too slow. */
    else if (call->frame_size > TRANSPORT_SMALL_BYTES &&
             transport_conn_is_sending(c->conn, call->frame))
        call->deadline_ms = now_ms + TICK_MS;
    return call->deadline_ms <= now_ms;
}

static enum err late_error(const struct transport_client *c, const struct transport_call *call)
{
    /* Never sent and nobody to send it to: the peer is not there. */
    return call->state == CALL_QUEUED && !c->up ? ERR_UNAVAILABLE : ERR_TIMEOUT;
}

/* Asked, and silent since. */
static bool server_is_silent(const struct transport_client *c, uint64_t now_ms)
{
    return c->conn != NULL && now_ms >= c->asked_ns / 1000000u + SILENCE_MS &&
           transport_conn_look(c->conn).heard_ns < c->asked_ns;
}

/* Takes the calls that are over. */
static struct transport_call *calls_over(struct transport_client *c, uint64_t now_ms,
                                         bool *ret_silent)
{
    struct transport_call *ended = NULL, **end = &ended;

    *ret_silent = false;
    for (struct transport_call *call = c->first, *next; call != NULL; call = next) {
        next = call->next;
        if (call->cancelled || c->closing) {
            call_take(call, ERR_CANCELLED);
        } else if (call_is_late(c, call, now_ms)) {
            if (call->state == CALL_SENT)
                *ret_silent = *ret_silent || server_is_silent(c, now_ms);
            call_take(call, late_error(c, call));
        } else {
            continue;
        }
        *end = call;
        end = &call->next;
    }
    return ended;
}

/* An idle client need not come back to a server that wants no idle connections; but it dials once,
 * so that its first call finds a connection. */
static bool is_dialing_due(const struct transport_client *c)
{
    return !c->dialing && c->conn == NULL && !c->closing && (c->first != NULL || !c->dialed);
}

static uint64_t next_wake(const struct transport_client *c, uint64_t now_ms)
{
    uint64_t wake_ms = now_ms + TICK_MS;

    for (const struct transport_call *call = c->first; call != NULL; call = call->next) {
        if (call->deadline_ms < wake_ms)
            wake_ms = call->deadline_ms;
    }
    if (is_dialing_due(c) && c->dial_at_ms < wake_ms)
        wake_ms = c->dial_at_ms;
    return wake_ms;
}

static void *client_run(void *arg)
{
    struct transport_client *c = arg;
    uint64_t check_ms = 0;

    (void)pthread_mutex_lock(&c->lock);
    for (;;) {
        uint64_t now_ms = clock_mono_ms();
        bool silent;
        struct transport_call *ended = calls_over(c, now_ms, &silent);
        struct transport_conn *conn = now_ms >= check_ms || silent ? c->conn : NULL;
        if (c->closing && ended == NULL)
            break;
        if (is_dialing_due(c) && c->dial_at_ms <= now_ms) {
            c->dialing = c->dialed = true;
            nng_stream_dialer_dial(c->dialer, c->dial);
        }
        if (conn != NULL)
            transport_conn_hold(conn);
        c->wake_ms = ended != NULL ? now_ms : next_wake(c, now_ms);
        if (ended != NULL || conn != NULL) {
            (void)pthread_mutex_unlock(&c->lock);
            calls_deliver(ended);
            if (conn != NULL) {
                check_ms = now_ms + TICK_MS;
                if (silent)
                    transport_conn_close(conn);
                else
                    transport_conn_check(conn, now_ms);
                transport_conn_release(conn);
            }
            (void)pthread_mutex_lock(&c->lock);
        }
        while (!c->closing && c->wake_ms > clock_mono_ms() && wait_until(c, c->wake_ms))
            ;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* ---- open and close ---- */

static struct transport_client *client_new(const char *url)
{
    pthread_condattr_t attr;
    struct transport_client *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    if (nng_aio_alloc(&c->dial, dial_callback, c) != 0) {
        free(c);
        return NULL;
    }
    nng_aio_set_timeout(c->dial, DIAL_TIMEOUT_MS);
    CHECK(strlen(url) < sizeof c->url);
    strcpy(c->url, url);
    c->references = 1;
    c->dial_wait_ms = RECONNECT_MS_MIN;
    CHECK(pthread_condattr_init(&attr) == 0 &&
          pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0 && pthread_cond_init(&c->changed, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    return c;
}

enum err transport_client_open(struct transport_client **ret_client,
                               const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    nng_stream_dialer *dialer;

    enum err err = transport_dialer_new(&dialer, endpoint, eb);
    if (err != ERR_OK)
        return err;
    struct transport_client *c = client_new(endpoint->url);
    if (c == NULL) {
        nng_stream_dialer_free(dialer);
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory", endpoint->url);
    }
    c->dialer = dialer;
    if (pthread_create(&c->thread, NULL, client_run, c) != 0) {
        nng_stream_dialer_free(dialer);
        nng_aio_free(c->dial);
        (void)pthread_mutex_lock(&c->lock);
        client_unlock_release(c);
        return err_set(eb, ERR_NO_MEMORY, "%s: no thread", endpoint->url);
    }
    *ret_client = c;
    return ERR_OK;
}

void transport_client_close(struct transport_client *c)
{
    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->closing = true;
    (void)pthread_cond_broadcast(&c->changed);
    (void)pthread_mutex_unlock(&c->lock);
    (void)pthread_join(c->thread, NULL);

    uint64_t until_ms = clock_mono_ms() + TRANSPORT_CLOSE_TIMEOUT_MS;
    nng_stream_dialer_close(c->dialer);
    (void)pthread_mutex_lock(&c->lock);
    while (c->ending > 0) /* on nng's threads */
        (void)pthread_cond_wait(&c->changed, &c->lock);
    while (c->dialing && wait_until(c, until_ms))
        ;
    bool dialing = c->dialing;
    struct transport_conn *conn = c->conn;
    if (conn != NULL)
        transport_conn_hold(conn);
    (void)pthread_mutex_unlock(&c->lock);
    if (!dialing) {
        nng_aio_free(c->dial);
        nng_stream_dialer_free(c->dialer);
    }
    if (conn != NULL) {
        transport_conn_close(conn);
        transport_conn_release(conn);
    }
    (void)pthread_mutex_lock(&c->lock);
    while (c->conn != NULL && wait_until(c, until_ms))
        ;
    if (dialing || c->conn != NULL)
        log_error("transport: %s: the client's close left a connection to the end of the process",
                  c->url);
    if (dialing)
        c->references++; /* should its callback come yet, it finds the client */
    client_unlock_release(c);
}

bool transport_client_is_connected(struct transport_client *c)
{
    (void)pthread_mutex_lock(&c->lock);
    bool up = c->up;
    (void)pthread_mutex_unlock(&c->lock);
    return up;
}

/* ---- calls ---- */

enum err transport_call_start(struct transport_client *c, const void *bytes, size_t size,
                              uint32_t timeout_ms, transport_reply_fn *on_reply, void *arg,
                              struct transport_call **ret_call, struct errbuf *eb)
{
    if (size > LIMIT_FRAME_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "a request of %zu bytes is over LIMIT_FRAME_BYTES (%u)",
                       size, LIMIT_FRAME_BYTES);
    struct transport_call *call = calloc(1, sizeof *call);
    struct transport_frame *frame = transport_frame_new(TRANSPORT_ID_FLAG, bytes, size);
    if (call == NULL || frame == NULL) {
        free(call);
        free(frame);
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory for a call of %zu bytes", c->url, size);
    }
    *call = (struct transport_call){
        .client = c,
        .state = CALL_QUEUED,
        .references = 2,
        .timeout_ms = timeout_ms,
        .deadline_ms = clock_mono_ms() + timeout_ms,
        .frame = frame,
        .frame_size = frame->size,
        .on_reply = on_reply,
        .arg = arg,
    };
    (void)pthread_mutex_lock(&c->lock);
    bool full = c->unsent_bytes > 0 && c->unsent_bytes + frame->size > UNSENT_BYTES_MAX;
    if (c->closing || full) {
        (void)pthread_mutex_unlock(&c->lock);
        free(call);
        free(frame);
        return full ? err_set(eb, ERR_BUSY, "%s: %zu MiB wait to be sent already", c->url,
                              UNSENT_BYTES_MAX >> 20)
                    : err_set(eb, ERR_CANCELLED, "%s: the client is closing", c->url);
    }
    *ret_call = call; /* before the callback can run */
    call->id = TRANSPORT_ID_FLAG | ++c->last_id;
    transport_frame_set_id(frame, call->id);
    c->references++;
    call_add(c, call);
    c->unsent_bytes += call->frame_size;
    if (c->up)
        call_send(c, call);
    wake_at(c, is_dialing_due(c) ? c->dial_at_ms : call->deadline_ms);
    (void)pthread_mutex_unlock(&c->lock);
    return ERR_OK;
}

void transport_call_cancel(struct transport_call *call)
{
    struct transport_client *c = call->client;

    (void)pthread_mutex_lock(&c->lock);
    if (call->state != CALL_ENDING) {
        call->cancelled = true;
        wake_at(c, 0);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void transport_call_free(struct transport_call *call)
{
    if (call == NULL)
        return;
    (void)pthread_mutex_lock(&call->client->lock);
    call_unlock_release(call);
}

/* ---- a call that waits ---- */

struct waiting_call {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done;
    enum err err;
    struct buf *reply;
};

static void waiting_reply(void *arg, enum err err, const void *reply, size_t reply_size)
{
    struct waiting_call *w = arg;

    (void)pthread_mutex_lock(&w->lock);
    w->err = err;
    if (err == ERR_OK) {
        buf_append(w->reply, reply, reply_size);
        if (w->reply->failed)
            w->err = ERR_NO_MEMORY;
    }
    w->done = true;
    (void)pthread_cond_signal(&w->ended);
    (void)pthread_mutex_unlock(&w->lock);
}

enum err transport_call(struct transport_client *c, const void *bytes, size_t size,
                        uint32_t timeout_ms, struct buf *reply, struct errbuf *eb)
{
    struct waiting_call w = {.reply = reply};
    struct transport_call *call;

    buf_clear(reply);
    CHECK(pthread_mutex_init(&w.lock, NULL) == 0 && pthread_cond_init(&w.ended, NULL) == 0);
    enum err err = transport_call_start(c, bytes, size, timeout_ms, waiting_reply, &w, &call, eb);
    if (err == ERR_OK) {
        (void)pthread_mutex_lock(&w.lock);
        while (!w.done)
            (void)pthread_cond_wait(&w.ended, &w.lock);
        (void)pthread_mutex_unlock(&w.lock);
        err = w.err;
        if (err == ERR_TIMEOUT)
            (void)err_set(eb, err, "%s: no answer within %u ms", c->url, timeout_ms);
        else if (err == ERR_UNAVAILABLE)
            (void)err_set(eb, err, "%s: not reachable, or the connection dropped", c->url);
        else if (err != ERR_OK)
            (void)err_set(eb, err, "%s: %s", c->url, err_name(err));
        transport_call_free(call);
    }
    (void)pthread_cond_destroy(&w.ended);
    (void)pthread_mutex_destroy(&w.lock);
    return err;
}
