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
    ID_BYTES = 4,
    BUFFER_BYTES = 16384,
    IOV_MAX_COUNT = 8, /* as many as an nng aio takes */
};
#define ID_FLAG 0x80000000u
/* Over this many bytes queued for a peer no more is read from it. */
#define QUEUED_BYTES_MAX (4 * (size_t)LIMIT_FRAME_BYTES)
/* For the peer to say what it is. */
#define HELLO_TIMEOUT_MS 10000
/* A peer that takes nothing loses its connection after this. */
#define SEND_TIMEOUT_MS 30000

struct transport_conn {
    const struct transport_conn_ops *ops;
    void *arg;
    uint64_t number;
    nng_stream *stream;
    nng_aio *rx, *tx;
    atomic_uint references;

    pthread_mutex_t lock; /* of all below */
    bool closed, ended;
    bool rx_busy; /* a receive is under way, or its callback runs */
    bool tx_busy;
    bool rx_paused; /* until the peer has taken what is queued for it */
    bool up;
    struct transport_frame *tx_first, **tx_last;
    size_t tx_offset; /* bytes of the first that are sent */
    size_t tx_bytes;  /* of all that is queued */
    uint64_t made_ms, tx_progress_ms;

    /* Of who receives: the callback while rx_busy. */
    size_t head_size;                   /* bytes of head that are there */
    uint8_t *body;                      /* once the head is whole */
    size_t body_size, body_got, direct; /* `direct`: asked for straight into the body */
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
    struct transport_frame *frame = malloc(sizeof *frame + HEAD_BYTES + ID_BYTES + size);
    if (frame == NULL)
        return NULL;
    frame->next = NULL;
    frame->size = HEAD_BYTES + ID_BYTES + size;
    put_be(frame->bytes, HEAD_BYTES, ID_BYTES + size);
    transport_frame_set_id(frame, id);
    if (size > 0)
        memcpy(frame->bytes + HEAD_BYTES + ID_BYTES, payload, size);
    return frame;
}

void transport_frame_set_id(struct transport_frame *frame, uint32_t id)
{
    CHECK((id & ID_FLAG) != 0);
    put_be(frame->bytes + HEAD_BYTES, ID_BYTES, id);
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
    c->tx_last = &c->tx_first;
    c->made_ms = clock_mono_ms();
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

static void conn_end(struct transport_conn *c)
{
    /* Freed by another thread: this one may be the callback of either. */
    nng_aio_reap(c->rx);
    nng_aio_reap(c->tx);
    nng_stream_free(c->stream);
    while (c->tx_first != NULL) {
        struct transport_frame *frame = c->tx_first;
        c->tx_first = frame->next;
        free(frame);
    }
    free(c->body);
    c->ops->on_down(c->arg, c);
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

void transport_conn_check(struct transport_conn *c, uint64_t now_ms)
{
    nng_sockaddr peer;

    (void)pthread_mutex_lock(&c->lock);
    if (!c->closed && ((!c->up && now_ms > c->made_ms + HELLO_TIMEOUT_MS) ||
                       (c->tx_busy && now_ms > c->tx_progress_ms + SEND_TIMEOUT_MS) ||
                       nng_stream_get_addr(c->stream, NNG_OPT_REMADDR, &peer) != 0))
        close_locked(c);
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}

/* ---- receiving ---- */

static void rx_start(struct transport_conn *c)
{
    nng_iov iov[2];
    unsigned n = 0;

    c->direct = c->body != NULL ? c->body_size - c->body_got : 0;
    if (c->direct > 0)
        iov[n++] = (nng_iov){.iov_buf = c->body + c->body_got, .iov_len = c->direct};
    iov[n++] = (nng_iov){.iov_buf = c->buffer, .iov_len = sizeof c->buffer};
    (void)nng_aio_set_iov(c->rx, n, iov);
    c->rx_busy = true;
    nng_stream_recv(c->stream, c->rx);
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

static bool head_received(struct transport_conn *c, bool up)
{
    if (!up)
        return hello_received(c);
    uint64_t size = get_be(c->head, HEAD_BYTES);
    if (size < ID_BYTES || size > ID_BYTES + LIMIT_FRAME_BYTES)
        return false;
    c->body = malloc((size_t)size);
    c->body_size = (size_t)size;
    c->body_got = 0;
    return c->body != NULL;
}

static bool body_received(struct transport_conn *c)
{
    struct transport_received frame = {
        .id = (uint32_t)get_be(c->body, ID_BYTES),
        .block = c->body,
        .payload = c->body + ID_BYTES,
        .size = c->body_size - ID_BYTES,
    };
    if ((frame.id & ID_FLAG) == 0)
        return false; /* it has come through devices, which we have none of */
    c->body = NULL;
    c->head_size = 0;
    c->ops->on_frame(c->arg, c, &frame);
    return true;
}

/* False when the peer talks nonsense, or memory is refused. */
static bool rx_take(struct transport_conn *c, size_t size, bool up)
{
    const uint8_t *bytes = c->buffer;

    if (c->direct > 0) {
        size_t n = size < c->direct ? size : c->direct;
        c->body_got += n;
        size -= n;
        if (c->body_got == c->body_size && !body_received(c))
            return false;
    }
    while (size > 0) {
        bool in_head = c->body == NULL;
        size_t want = in_head ? HEAD_BYTES - c->head_size : c->body_size - c->body_got;
        size_t n = size < want ? size : want;
        memcpy(in_head ? c->head + c->head_size : c->body + c->body_got, bytes, n);
        bytes += n;
        size -= n;
        if (in_head) {
            c->head_size += n;
            if (n == want && !head_received(c, up))
                return false;
            up = up || n == want;
        } else {
            c->body_got += n;
            if (n == want && !body_received(c))
                return false;
        }
    }
    return true;
}

static void rx_callback(void *arg)
{
    struct transport_conn *c = arg;
    size_t size = nng_aio_count(c->rx);

    (void)pthread_mutex_lock(&c->lock);
    bool good = nng_aio_result(c->rx) == 0 && size > 0 && !c->closed;
    bool up = c->up;
    (void)pthread_mutex_unlock(&c->lock);
    if (good)
        good = rx_take(c, size, up);

    (void)pthread_mutex_lock(&c->lock);
    c->rx_busy = false;
    if (!good)
        close_locked(c);
    else if (c->tx_bytes > QUEUED_BYTES_MAX)
        c->rx_paused = true;
    else if (!c->closed)
        rx_start(c);
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
    size_t offset = c->tx_offset;

    for (struct transport_frame *f = c->tx_first; f != NULL && n < IOV_MAX_COUNT; f = f->next) {
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
    *c->tx_last = frame;
    c->tx_last = &frame->next;
    c->tx_bytes += frame->size;
    if (!c->tx_busy) {
        c->tx_progress_ms = clock_mono_ms();
        tx_start(c);
    }
}

static void tx_sent(struct transport_conn *c, size_t size)
{
    c->tx_bytes -= size;
    c->tx_offset += size;
    c->tx_progress_ms = clock_mono_ms();
    while (c->tx_first != NULL && c->tx_offset >= c->tx_first->size) {
        struct transport_frame *frame = c->tx_first;
        c->tx_offset -= frame->size;
        c->tx_first = frame->next;
        free(frame);
    }
    if (c->tx_first == NULL)
        c->tx_last = &c->tx_first;
}

static void tx_callback(void *arg)
{
    struct transport_conn *c = arg;

    (void)pthread_mutex_lock(&c->lock);
    c->tx_busy = false;
    if (nng_aio_result(c->tx) != 0)
        close_locked(c);
    else
        tx_sent(c, nng_aio_count(c->tx));
    if (!c->closed && c->tx_first != NULL)
        tx_start(c);
    if (!c->closed && c->rx_paused && c->tx_bytes <= QUEUED_BYTES_MAX) {
        c->rx_paused = false;
        rx_start(c);
    }
    bool end = end_is_here(c);
    (void)pthread_mutex_unlock(&c->lock);
    if (end)
        conn_end(c);
}

bool transport_conn_send(struct transport_conn *c, struct transport_frame *frame)
{
    (void)pthread_mutex_lock(&c->lock);
    bool closed = c->closed;
    if (!closed)
        tx_queue(c, frame);
    (void)pthread_mutex_unlock(&c->lock);
    return !closed;
}

void transport_conn_start(struct transport_conn *c)
{
    struct transport_frame *hello = malloc(sizeof *hello + HEAD_BYTES);

    if (hello != NULL) {
        static const uint8_t start[HEAD_BYTES] = {0, 'S', 'P', 0};
        hello->size = HEAD_BYTES;
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
