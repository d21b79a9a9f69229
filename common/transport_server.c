/*
 * The server of transport.h: a listener, its connections, and the requests they brought. A request
 * holds its connection, so that its reply finds the way, or its end, in any order and at any time.
 */
#include "common/transport.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/transport_conn.h"
#include "common/transport_nng.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

/* Looks after the connections, and accepts again when files or memory had run out. */
#define TICK_MS 1000
/* Of one connection: requests that are not answered, and bytes of them and of replies. */
#define PEER_REQUESTS_MAX 4096u
#define PEER_BYTES_MAX    ((size_t)64 << 20)

struct transport_request {
    struct transport_server *server;
    struct transport_conn *conn;
    struct transport_received frame;
};

struct transport_server {
    nng_stream_listener *listener;
    nng_aio *accept;
    uint16_t port;
    transport_request_fn *on_request;
    void *arg;
    atomic_uint references; /* the owner's, each connection's, each request's */
    atomic_bool closing;
    pthread_t ticker;

    pthread_mutex_t lock; /* of all below, and of starting to accept */
    pthread_cond_t changed;
    bool accepting;
    struct transport_conn **peers; /* each held */
    size_t n_peers, peers_capacity;
};

static void server_release(struct transport_server *s)
{
    if (atomic_fetch_sub(&s->references, 1) != 1)
        return;
    free(s->peers);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

/* With the lock held; false when the time is over. */
static bool wait_until(struct transport_server *s, uint64_t until_ms)
{
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&s->changed, &s->lock, &until) == 0;
}

/* ---- connections ---- */

static void conn_up(void *arg, struct transport_conn *conn)
{
    (void)arg;
    (void)conn;
}

static void conn_frame(void *arg, struct transport_conn *conn, struct transport_received *frame)
{
    struct transport_server *s = arg;
    struct transport_request *r = atomic_load(&s->closing) ? NULL : malloc(sizeof *r);

    if (r == NULL) {
        free(frame->block); /* closing, or no memory: as if it had never come */
        transport_conn_frame_done(conn, frame->size);
        return;
    }
    *r = (struct transport_request){.server = s, .conn = conn, .frame = *frame};
    transport_conn_hold(conn);
    (void)atomic_fetch_add(&s->references, 1);
    s->on_request(s->arg, r);
}

static void conn_down(void *arg, struct transport_conn *conn)
{
    struct transport_server *s = arg;
    size_t i = 0;

    (void)pthread_mutex_lock(&s->lock);
    while (i < s->n_peers && s->peers[i] != conn)
        i++;
    CHECK(i < s->n_peers);
    s->peers[i] = s->peers[--s->n_peers];
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    transport_conn_release(conn);
    server_release(s);
}

static const struct transport_conn_ops server_ops = {
    .ours = TRANSPORT_PROTOCOL_REP,
    .theirs = TRANSPORT_PROTOCOL_REQ,
    .on_up = conn_up,
    .on_frame = conn_frame,
    .on_down = conn_down,
};

/* Room for one more. With the lock held. False when memory is refused. */
static bool peers_reserve(struct transport_server *s)
{
    if (s->n_peers < s->peers_capacity)
        return true;
    size_t capacity = s->peers_capacity > 0 ? 2 * s->peers_capacity : 16;
    struct transport_conn **peers = realloc(s->peers, capacity * sizeof *peers);
    if (peers == NULL)
        return false;
    s->peers = peers;
    s->peers_capacity = capacity;
    return true;
}

/* Backwards, so that one that goes meanwhile, and is replaced by the last, hides no other. */
static void peers_each(struct transport_server *s, void (*visit)(struct transport_conn *conn))
{
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = s->n_peers; i-- > 0;) {
        if (i >= s->n_peers)
            continue;
        struct transport_conn *conn = s->peers[i];
        transport_conn_hold(conn);
        (void)pthread_mutex_unlock(&s->lock);
        visit(conn);
        transport_conn_release(conn);
        (void)pthread_mutex_lock(&s->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

static void peer_check(struct transport_conn *conn)
{
    transport_conn_check(conn, clock_mono_ms());
}

/* ---- accepting ---- */

static void accept_start(struct transport_server *s)
{
    s->accepting = true;
    nng_stream_listener_accept(s->listener, s->accept);
}

static void stream_accepted(struct transport_server *s, nng_stream *stream)
{
    (void)pthread_mutex_lock(&s->lock);
    bool room = peers_reserve(s);
    struct transport_conn *conn = NULL;
    if (room)
        conn = transport_conn_new(stream, &server_ops, s);
    if (conn != NULL) {
        (void)atomic_fetch_add(&s->references, 1);
        transport_conn_bound(conn, PEER_REQUESTS_MAX, PEER_BYTES_MAX);
        transport_conn_hold(conn);
        s->peers[s->n_peers++] = conn;
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (!room)
        nng_stream_free(stream);
    if (conn == NULL)
        return; /* no memory: the peer finds its connection closed */
    transport_conn_start(conn);
    transport_conn_release(conn);
}

static void accept_callback(void *arg)
{
    struct transport_server *s = arg;
    int rv = nng_aio_result(s->accept);

    if (rv == 0)
        stream_accepted(s, nng_aio_get_output(s->accept, 0));
    (void)pthread_mutex_lock(&s->lock);
    s->accepting = false;
    if (rv == 0 && !atomic_load(&s->closing))
        accept_start(s);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static void *ticker_run(void *arg)
{
    struct transport_server *s = arg;

    (void)pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->closing)) {
        uint64_t next_ms = clock_mono_ms() + TICK_MS;
        while (!atomic_load(&s->closing) && wait_until(s, next_ms))
            ;
        if (!atomic_load(&s->closing) && !s->accepting)
            accept_start(s);
        (void)pthread_mutex_unlock(&s->lock);
        peers_each(s, peer_check);
        (void)pthread_mutex_lock(&s->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- open and close ---- */

static struct transport_server *server_new(transport_request_fn *on_request, void *arg)
{
    pthread_condattr_t attr;
    struct transport_server *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    if (nng_aio_alloc(&s->accept, accept_callback, s) != 0) {
        free(s);
        return NULL;
    }
    nng_aio_set_timeout(s->accept, NNG_DURATION_INFINITE);
    s->on_request = on_request;
    s->arg = arg;
    atomic_init(&s->references, 1);
    atomic_init(&s->closing, false);
    CHECK(pthread_condattr_init(&attr) == 0 &&
          pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0 && pthread_cond_init(&s->changed, &attr) == 0);
    (void)pthread_condattr_destroy(&attr);
    return s;
}

enum err transport_server_open(struct transport_server **ret_server,
                               const struct transport_endpoint *endpoint,
                               transport_request_fn *on_request, void *arg, struct errbuf *eb)
{
    struct transport_server *s = server_new(on_request, arg);
    if (s == NULL)
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory", endpoint->url);
    enum err err = transport_listener_new(&s->listener, &s->port, endpoint, eb);
    if (err == ERR_OK && pthread_create(&s->ticker, NULL, ticker_run, s) != 0) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no thread", endpoint->url);
        nng_stream_listener_free(s->listener);
    }
    if (err != ERR_OK) {
        nng_aio_free(s->accept);
        server_release(s);
        return err;
    }
    *ret_server = s; /* before the first request can come */
    (void)pthread_mutex_lock(&s->lock);
    if (!s->accepting)
        accept_start(s);
    (void)pthread_mutex_unlock(&s->lock);
    return ERR_OK;
}

void transport_server_close(struct transport_server *s)
{
    if (s == NULL)
        return;
    (void)pthread_mutex_lock(&s->lock);
    atomic_store(&s->closing, true);
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->ticker, NULL);

    uint64_t until_ms = clock_mono_ms() + TRANSPORT_CLOSE_TIMEOUT_MS;
    nng_stream_listener_close(s->listener);
    (void)pthread_mutex_lock(&s->lock);
    while (s->accepting && wait_until(s, until_ms))
        ;
    bool accepting = s->accepting;
    (void)pthread_mutex_unlock(&s->lock);
    peers_each(s, transport_conn_close);
    (void)pthread_mutex_lock(&s->lock);
    while (s->n_peers > 0 && wait_until(s, until_ms))
        ;
    size_t left = s->n_peers;
    (void)pthread_mutex_unlock(&s->lock);

    if (accepting || left > 0) {
        log_error("transport: the server's close left %zu connections%s to the end of the process",
                  left, accepting ? " and the listener" : "");
    }
    if (!accepting) {
        nng_aio_free(s->accept);
        nng_stream_listener_free(s->listener);
        server_release(s);
    }
}

uint16_t transport_server_port(const struct transport_server *s)
{
    return s->port;
}

/* ---- requests ---- */

const void *transport_request_bytes(const struct transport_request *r, size_t *ret_size)
{
    *ret_size = r->frame.size;
    return r->frame.payload;
}

uint64_t transport_request_connection(const struct transport_request *r)
{
    return transport_conn_number(r->conn);
}

void transport_request_free(struct transport_request *r)
{
    if (r == NULL)
        return;
    transport_conn_frame_done(r->conn, r->frame.size);
    transport_conn_release(r->conn);
    server_release(r->server);
    free(r->frame.block);
    free(r);
}

enum err transport_request_reply(struct transport_server *s, struct transport_request *r,
                                 const void *bytes, size_t size, struct errbuf *eb)
{
    enum err err = ERR_OK;
    struct transport_frame *frame = NULL;

    CHECK(r->server == s);
    if (size > LIMIT_FRAME_BYTES)
        err = err_set(eb, ERR_TOO_LARGE, "a reply of %zu bytes is over LIMIT_FRAME_BYTES (%u)",
                      size, LIMIT_FRAME_BYTES);
    else if (atomic_load(&s->closing))
        err = err_set(eb, ERR_CANCELLED, "the server is closing");
    else if ((frame = transport_frame_new(r->frame.id, bytes, size)) == NULL)
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a reply of %zu bytes", size);
    /* Where the peer is gone, so is the reply. */
    if (frame != NULL && !transport_conn_send(r->conn, frame))
        free(frame);
    transport_request_free(r);
    return err;
}
