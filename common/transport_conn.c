/*
 * Why not nng's sockets: in nng 1.5 an operation that is started on a stopped aio ends without a
 * callback, and the transports under the sockets do start some. They receive a message in two
 * steps, length and body, and send a large one in many; a pipe that is closed between two of them
 * (because the peer died while both talked) is waited for without end by the one thread that
 * disposes of connections. From then on no connection of the process is disposed of, none is dialed
 * again, and nng_close never returns. Later versions repaired tcp, not TLS.
 *
 * So this file keeps the steps in its own hands, by these rules:
 * - Every operation is started under the lock, after a look at `closed`; `closed` is set and the
 *   stream closed under the lock. Nothing is ever started on a stream that we closed.
 * - No aio is stopped, cancelled or waited for. Closing the stream ends what is under way, with a
 *   callback; the last callback disposes of the connection.
 * - nng's TLS may swallow an operation that is started after the connection broke by itself and
 *   before we were told. transport_conn_check finds such a connection, because its socket has no
 *   peer any more, and closes it, which brings the callback.
 */
#include "common/transport_conn.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    HEAD_BYTES = 8,
    FRAME_ID_BYTES = 4,
    BUFFER_BYTES = 16384,
    IOV_MAX_COUNT = 8, /* as many as an nng aio takes */
};
/* What nng has can no longer be taken back: beside the first frame no more than this. */
#define BATCH_BYTES (128u << 10)
/* A peer for whom more than this is queued loses its connection. */
#define QUEUED_BYTES_MAX ((size_t)256 << 20)

/* How fast something moves: `want` bytes from `since_ms` on, then the next. */
struct pace {
    uint64_t since_ms; /* 0: nothing is to be moved */
    size_t want, moved;
};

struct transport_conn {
    const struct transport_conn_ops *ops;
    void *arg;
    uint64_t number;
    nng_stream *stream;
    nng_aio *rx, *tx;
    atomic_uint references;

    pthread_mutex_t lock; /* of all below */
    bool closed, ended;
    bool rx_busy;   /* a receive is under way, or its callback runs */
    bool rx_waking; /* what is under way is only a call back */
    bool rx_paused; /* over its bounds */
    bool tx_busy;
    bool up;
    struct transport_frame *tx_first, *tx_last;
    size_t tx_offset; /* bytes of the first that are sent */
    size_t tx_bytes;  /* of all that is queued */
    struct pace rx_pace, tx_pace;
    uint64_t made_ms, frame_ms, taken_ms, heard_ns;
    unsigned held, held_max; /* frames on_frame was given */
    size_t held_bytes, bytes_max;

    /* Of who receives: the callback while rx_busy. */
    size_t head_size; /* bytes of head that are there */
    uint8_t *body;    /* once the head is whole; grows as bytes come */
    size_t body_size, body_capacity, body_got;
    size_t direct;                 /* bytes asked for straight into the body */
    size_t buffer_at, buffer_size; /* not looked at yet */
    uint64_t frames;               /* that were whole */
    uint8_t head[HEAD_BYTES];
    uint8_t buffer[BUFFER_BYTES];
};

static void rx_callback(void *arg);
static void tx_callback(void *arg);

static void put_be(uint8_t *bytes, size_t size, uint64_t value)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static uint64_t get_be(const uint8_t *bytes, size_t size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

struct transport_frame *transport_frame_new(uint32_t id, const void *payload, size_t size)
{
    CHECK(size <= LIMIT_FRAME_BYTES);
    struct transport_frame *frame = malloc(sizeof *frame + HEAD_BYTES + FRAME_ID_BYTES + size);
    if (frame == NULL)
        return NULL;
    frame->next = frame->previous = NULL;
    frame->sending = false;
    frame->size = HEAD_BYTES + FRAME_ID_BYTES + size;
    put_be(frame->bytes, HEAD_BYTES, FRAME_ID_BYTES + size);
    transport_frame_set_id(frame, id);
    if (size > 0)
        memcpy(frame->bytes + HEAD_BYTES + FRAME_ID_BYTES, payload, size);
    return frame;
}

void transport_frame_set_id(struct transport_frame *frame, uint32_t id)
{
    CHECK((id & TRANSPORT_ID_FLAG) != 0);
    frame->id = id;
    put_be(frame->bytes + HEAD_BYTES, FRAME_ID_BYTES, id);
}

struct transport_conn *transport_conn_new(nng_stream *stream, const struct transport_conn_ops *ops,
                                          void *arg)
{
    static atomic_uint_fast64_t made;
    struct transport_conn *c = calloc(1, sizeof *c);
    if (c == NULL || nng_aio_alloc(&c->rx, rx_callback, c) != 0 ||
        nng_aio_alloc(&c->tx, tx_callback, c) != 0) {
        if (c != NULL && c->rx != NULL)
            nng_aio_free(c->rx);
        free(c);
        nng_stream_free(stream);
        return NULL;
    }
    nng_aio_set_timeout(c->rx, NNG_DURATION_INFINITE);
    nng_aio_set_timeout(c->tx, NNG_DURATION_INFINITE);
    c->stream = stream;
    c->ops = ops;
    c->arg = arg;
    c->heard_ns = clock_mono_ns();
    c->made_ms = c->taken_ms = c->heard_ns / 1000000u;
    c->number = atomic_fetch_add(&made, 1) + 1;
    atomic_init(&c->references, 2);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    return c;
}

uint64_t transport_conn_number(const struct transport_conn *c)
{
    return c->number;
}

void transport_conn_hold(struct transport_conn *c)
{
    (void)atomic_fetch_add(&c->references, 1);
}

void transport_conn_release(struct transport_conn *c)
{
    if (atomic_fetch_sub(&c->references, 1) != 1)
        return;
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ---- the end ---- */

static void close_locked(struct transport_conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    nng_stream_close(c->stream);
}

/* Whether the caller is the one to call conn_end, after unlocking. */
static bool end_is_here(struct transport_conn *c)
{
    if (!c->closed || c->rx_busy || c->tx_busy || c->ended)
        return false;
    c->ended = true;
    return true;
}

static void frames_free(struct transport_frame *list)
{
    while (list != NULL) {
        struct transport_frame *next = list->next;
        free(list);
        list = next;
    }
}

static void conn_end(struct transport_conn *c)
{
    /* Freed by another thread: this one may be the callback of either. */
    nng_aio_reap(c->rx);
    nng_aio_reap(c->tx);
    nng_stream_free(c->stream);
    free(c->body);
    c->ops->on_down(c->arg, c);
    frames_free(c->tx_first);
    transport_conn_release(c);
}

void transport_conn_close(struct transport_conn *c)
{
    (void)pthread_mutex_lock(&c->lock);
    close_locked(c);
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}

/* ---- how fast ---- */

static void pace_begin(struct pace *p, uint64_t now_ms, size_t left)
{
    p->since_ms = left > 0 ? now_ms : 0;
    p->want = left < TRANSPORT_PACE_BYTES ? left : TRANSPORT_PACE_BYTES;
    p->moved = 0;
}

static void pace_move(struct pace *p, uint64_t now_ms, size_t moved, size_t left)
{
    p->moved += moved;
    if (p->moved >= p->want)
        pace_begin(p, now_ms, left);
}

static bool pace_is_slow(const struct pace *p, uint64_t now_ms)
{
    return p->since_ms != 0 && now_ms > p->since_ms + TRANSPORT_PACE_MS;
}

void transport_conn_check(struct transport_conn *c, uint64_t now_ms)
{
    nng_sockaddr peer;

    (void)pthread_mutex_lock(&c->lock);
    if (!c->closed && ((!c->up && now_ms > c->made_ms + TRANSPORT_HELLO_MS) ||
                       pace_is_slow(&c->tx_pace, now_ms) || pace_is_slow(&c->rx_pace, now_ms) ||
                       nng_stream_get_addr(c->stream, NNG_OPT_REMADDR, &peer) != 0))
        close_locked(c);
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}

struct transport_conn_state transport_conn_look(struct transport_conn *c)
{
    (void)pthread_mutex_lock(&c->lock);
    struct transport_conn_state state = {
        .closed = c->closed,
        .heard_ns = c->heard_ns,
        .taken_ms = c->taken_ms,
        .frame_ms = c->frame_ms,
        .queued_bytes = c->tx_bytes,
    };
    (void)pthread_mutex_unlock(&c->lock);
    return state;
}

/* ---- receiving ---- */

/* Whether it is at so many eighths of its bounds; with the lock held. */
static bool rx_is_over(const struct transport_conn *c, unsigned eighths)
{
    return c->held_max > 0 && (c->held >= (uint64_t)c->held_max * eighths / 8 ||
                               c->held_bytes + c->tx_bytes > c->bytes_max / 8 * eighths);
}

static void rx_start(struct transport_conn *c)
{
    nng_iov iov[2];
    unsigned n = 0;

    c->direct = c->body != NULL ? c->body_capacity - c->body_got : 0;
    if (c->direct > 0)
        iov[n++] = (nng_iov){.iov_buf = c->body + c->body_got, .iov_len = c->direct};
    iov[n++] = (nng_iov){.iov_buf = c->buffer, .iov_len = sizeof c->buffer};
    (void)nng_aio_set_iov(c->rx, n, iov);
    c->rx_busy = true;
    nng_stream_recv(c->stream, c->rx);
}

/* With the lock held, and nothing under way. */
static void rx_go_on(struct transport_conn *c)
{
    if (c->body == NULL && c->head_size == 0 && rx_is_over(c, 8)) {
        c->rx_paused = true;
    } else if (c->buffer_at < c->buffer_size) {
        /* Who lifts the pause may not be called back from within: on a thread of nng's. */
        c->rx_busy = c->rx_waking = true;
        nng_sleep_aio(0, c->rx);
    } else {
        rx_start(c);
    }
}

/* Some way below the bounds, so that it does not stop again at once. */
static void rx_resume(struct transport_conn *c)
{
    if (c->closed || !c->rx_paused || rx_is_over(c, 7))
        return;
    c->rx_paused = false;
    rx_go_on(c);
}

void transport_conn_bound(struct transport_conn *c, unsigned frames, size_t bytes)
{
    (void)pthread_mutex_lock(&c->lock);
    c->held_max = frames;
    c->bytes_max = bytes;
    rx_resume(c);
    (void)pthread_mutex_unlock(&c->lock);
}

void transport_conn_frame_done(struct transport_conn *c, size_t size)
{
    (void)pthread_mutex_lock(&c->lock);
    CHECK(c->held > 0 && c->held_bytes >= size);
    c->held--;
    c->held_bytes -= size;
    rx_resume(c);
    (void)pthread_mutex_unlock(&c->lock);
}

/* The first eight bytes. */
static bool hello_received(struct transport_conn *c)
{
    uint8_t hello[HEAD_BYTES] = {0, 'S', 'P', 0};

    put_be(hello + 4, 2, c->ops->theirs);
    if (memcmp(c->head, hello, sizeof hello) != 0)
        return false;
    c->head_size = 0;
    (void)pthread_mutex_lock(&c->lock);
    c->up = true;
    (void)pthread_mutex_unlock(&c->lock);
    c->ops->on_up(c->arg, c);
    return true;
}

/* Room for more of the body, never for more than twice what has come of it: what a peer announces
 * costs it as much as us. */
static bool body_grow(struct transport_conn *c)
{
    size_t capacity = c->body == NULL ? BUFFER_BYTES : 2 * c->body_capacity;

    if (capacity > c->body_size)
        capacity = c->body_size;
    if (capacity > TRANSPORT_SMALL_BYTES && c->ops->on_buffer != NULL &&
        !c->ops->on_buffer(c->arg, c, capacity))
        return false;
    uint8_t *body = realloc(c->body, capacity);
    if (body == NULL)
        return false;
    c->body = body;
    c->body_capacity = capacity;
    return true;
}

static bool head_received(struct transport_conn *c, bool up)
{
    if (!up)
        return hello_received(c);
    uint64_t size = get_be(c->head, HEAD_BYTES);
    if (size < FRAME_ID_BYTES || size > FRAME_ID_BYTES + LIMIT_FRAME_BYTES)
        return false;
    c->body_size = (size_t)size;
    c->body_got = 0;
    return body_grow(c);
}

static bool body_received(struct transport_conn *c)
{
    struct transport_received frame = {
        .id = (uint32_t)get_be(c->body, FRAME_ID_BYTES),
        .block = c->body,
        .payload = c->body + FRAME_ID_BYTES,
        .size = c->body_size - FRAME_ID_BYTES,
    };
    if ((frame.id & TRANSPORT_ID_FLAG) == 0)
        return false; /* it has come through devices, which we have none of */
    if (c->body_capacity > TRANSPORT_SMALL_BYTES && c->ops->on_buffer != NULL)
        (void)c->ops->on_buffer(c->arg, c, 0);
    c->body = NULL;
    c->head_size = 0;
    c->frames++;
    (void)pthread_mutex_lock(&c->lock);
    if (c->held_max > 0) {
        c->held++;
        c->held_bytes += frame.size;
    }
    (void)pthread_mutex_unlock(&c->lock);
    c->ops->on_frame(c->arg, c, &frame);
    return true;
}

/* `n` bytes of the body are there. False when the peer talks nonsense, or memory is refused. */
static bool body_got(struct transport_conn *c, size_t n)
{
    c->body_got += n;
    if (c->body_got == c->body_size)
        return body_received(c);
    return c->body_got < c->body_capacity || body_grow(c);
}

static bool frame_may_begin(struct transport_conn *c)
{
    (void)pthread_mutex_lock(&c->lock);
    bool may = !c->closed && !rx_is_over(c, 8);
    (void)pthread_mutex_unlock(&c->lock);
    return may;
}

/* What is in the buffer, as far as the bounds let it. */
static bool buffer_take(struct transport_conn *c, bool up)
{
    while (c->buffer_at < c->buffer_size) {
        bool in_head = c->body == NULL;
        if (in_head && c->head_size == 0 && !frame_may_begin(c))
            return true;
        size_t size = c->buffer_size - c->buffer_at;
        size_t want = in_head ? HEAD_BYTES - c->head_size : c->body_capacity - c->body_got;
        size_t n = size < want ? size : want;
        memcpy(in_head ? c->head + c->head_size : c->body + c->body_got, c->buffer + c->buffer_at,
               n);
        c->buffer_at += n;
        if (in_head) {
            c->head_size += n;
            if (n == want && !head_received(c, up))
                return false;
            up = up || n == want;
        } else if (!body_got(c, n)) {
            return false;
        }
    }
    return true;
}

static bool rx_take(struct transport_conn *c, size_t size, bool up)
{
    size_t n = size < c->direct ? size : c->direct;

    c->direct = 0;
    c->buffer_at = 0;
    c->buffer_size = size - n;
    return (n == 0 || body_got(c, n)) && buffer_take(c, up);
}

/* The frame that is coming in, and how fast; with the lock held. */
static void rx_pace_look(struct transport_conn *c, size_t size, bool another, uint64_t now_ms)
{
    size_t left = 0;

    if (c->body != NULL)
        left = c->body_size - c->body_got;
    else if (c->head_size > 0)
        left = HEAD_BYTES - c->head_size;
    if (another || c->rx_pace.since_ms == 0) {
        pace_begin(&c->rx_pace, now_ms, left);
        c->frame_ms = left > 0 ? now_ms : 0;
    } else {
        pace_move(&c->rx_pace, now_ms, size, left);
    }
}

static void rx_callback(void *arg)
{
    struct transport_conn *c = arg;
    uint64_t now_ns = clock_mono_ns();
    uint64_t frames = c->frames;

    (void)pthread_mutex_lock(&c->lock);
    bool waking = c->rx_waking;
    c->rx_waking = false;
    size_t size = waking ? 0 : nng_aio_count(c->rx);
    bool good = nng_aio_result(c->rx) == 0 && (size > 0 || waking) && !c->closed;
    bool up = c->up;
    if (size > 0)
        c->heard_ns = now_ns;
    (void)pthread_mutex_unlock(&c->lock);
    if (waking) /* a sleep leaves its own time behind */
        nng_aio_set_timeout(c->rx, NNG_DURATION_INFINITE);
    if (good)
        good = waking ? buffer_take(c, up) : rx_take(c, size, up);

    (void)pthread_mutex_lock(&c->lock);
    c->rx_busy = false;
    if (!good)
        close_locked(c);
    if (!c->closed) {
        rx_pace_look(c, size, c->frames != frames, now_ns / 1000000u);
        rx_go_on(c);
    }
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}

/* ---- sending ---- */

static void tx_start(struct transport_conn *c)
{
    nng_iov iov[IOV_MAX_COUNT];
    unsigned n = 0;
    size_t offset = c->tx_offset, bytes = 0;

    for (struct transport_frame *f = c->tx_first; f != NULL && n < IOV_MAX_COUNT; f = f->next) {
        bytes += f->size;
        if (n > 0 && bytes > BATCH_BYTES)
            break;
        f->sending = true;
        iov[n++] = (nng_iov){.iov_buf = f->bytes + offset, .iov_len = f->size - offset};
        offset = 0;
    }
    (void)nng_aio_set_iov(c->tx, n, iov);
    c->tx_busy = true;
    nng_stream_send(c->stream, c->tx);
}

static void tx_queue(struct transport_conn *c, struct transport_frame *frame)
{
    frame->next = NULL;
    frame->previous = c->tx_last;
    *(c->tx_last != NULL ? &c->tx_last->next : &c->tx_first) = frame;
    c->tx_last = frame;
    c->tx_bytes += frame->size;
    if (!c->tx_busy) {
        c->taken_ms = clock_mono_ms();
        pace_begin(&c->tx_pace, c->taken_ms, c->tx_bytes);
        tx_start(c);
    }
}

static void tx_unlink(struct transport_conn *c, struct transport_frame *frame)
{
    *(frame->previous != NULL ? &frame->previous->next : &c->tx_first) = frame->next;
    *(frame->next != NULL ? &frame->next->previous : &c->tx_last) = frame->previous;
    frame->next = frame->previous = NULL;
}

/* Returns those that are sent whole. */
static struct transport_frame *tx_sent(struct transport_conn *c, size_t size)
{
    struct transport_frame *list = NULL, **last = &list;

    c->tx_bytes -= size;
    c->tx_offset += size;
    c->taken_ms = clock_mono_ms();
    pace_move(&c->tx_pace, c->taken_ms, size, c->tx_bytes);
    while (c->tx_first != NULL && c->tx_offset >= c->tx_first->size) {
        struct transport_frame *frame = c->tx_first;
        c->tx_offset -= frame->size;
        tx_unlink(c, frame);
        *last = frame;
        last = &frame->next;
    }
    return list;
}

static void tx_callback(void *arg)
{
    struct transport_conn *c = arg;
    struct transport_frame *sent = NULL;

    (void)pthread_mutex_lock(&c->lock);
    if (nng_aio_result(c->tx) != 0)
        close_locked(c);
    else
        sent = tx_sent(c, nng_aio_count(c->tx));
    if (sent != NULL && c->ops->on_sent != NULL) {
        /* Still busy, so that on_down waits for it. */
        (void)pthread_mutex_unlock(&c->lock);
        c->ops->on_sent(c->arg, c, sent);
        (void)pthread_mutex_lock(&c->lock);
        sent = NULL;
    }
    c->tx_busy = false;
    if (!c->closed && c->tx_first != NULL)
        tx_start(c);
    rx_resume(c);
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    frames_free(sent);
    if (end)
        conn_end(c);
}

bool transport_conn_send(struct transport_conn *c, struct transport_frame *frame)
{
    (void)pthread_mutex_lock(&c->lock);
    if (c->tx_bytes > QUEUED_BYTES_MAX)
        close_locked(c); /* some of it is being sent: the end is that callback's */
    bool closed = c->closed;
    if (!closed)
        tx_queue(c, frame);
    (void)pthread_mutex_unlock(&c->lock);
    return !closed;
}

bool transport_conn_unsend(struct transport_conn *c, struct transport_frame *frame)
{
    (void)pthread_mutex_lock(&c->lock);
    bool free_yet = !c->closed && !frame->sending;
    if (free_yet) {
        tx_unlink(c, frame);
        c->tx_bytes -= frame->size;
        if (c->tx_pace.want > c->tx_pace.moved + c->tx_bytes)
            c->tx_pace.want = c->tx_pace.moved + c->tx_bytes;
    }
    (void)pthread_mutex_unlock(&c->lock);
    return free_yet;
}

bool transport_conn_is_sending(struct transport_conn *c, const struct transport_frame *frame)
{
    (void)pthread_mutex_lock(&c->lock);
    bool sending = frame->sending;
    (void)pthread_mutex_unlock(&c->lock);
    return sending;
}

void transport_conn_start(struct transport_conn *c)
{
    struct transport_frame *hello = malloc(sizeof *hello + HEAD_BYTES);

    if (hello != NULL) {
        static const uint8_t start[HEAD_BYTES] = {0, 'S', 'P', 0};
        hello->size = HEAD_BYTES;
        hello->id = 0;
        hello->sending = false;
        memcpy(hello->bytes, start, HEAD_BYTES);
        put_be(hello->bytes + 4, 2, c->ops->ours);
    }
    (void)pthread_mutex_lock(&c->lock);
    if (hello == NULL)
        close_locked(c);
    if (!c->closed) {
        tx_queue(c, hello);
        rx_start(c);
    } else {
        free(hello);
    }
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}
