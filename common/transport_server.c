/*
 * The server of transport.h: a listener, its connections, and the requests they brought. A request
 * holds its connection, so that its reply finds the way, or its end, in any order and at any time.
 *
 * Nothing that peers do may take more than a fixed part of files and memory. What a connection
 * holds is bounded by transport_conn.h; what all of them hold together is bounded here, by closing
 * one: of connections the oldest of a stranger, of frames that are coming in the one that takes
 * longest, of replies the peer that leaves most untaken.
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
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

/* Looks after the connections, and accepts again when files or memory had run out. */
#define TICK_MS 1000

/* Of a stranger's connection, and of one whose peer is known. */
#define STRANGER_REQUESTS_MAX 16u
#define STRANGER_BYTES_MAX    ((size_t)1 << 20)
#define PEER_REQUESTS_MAX     4096u
#define PEER_BYTES_MAX        ((size_t)64 << 20)
/* Of all together: buffers of frames over TRANSPORT_SMALL_BYTES that are coming in, those of
 * strangers among them, and replies that are not taken. */
#define LARGE_BYTES_MAX          ((size_t)256 << 20)
#define STRANGER_LARGE_BYTES_MAX ((size_t)64 << 20)
#define REPLY_BYTES_MAX          ((size_t)1 << 30)
#define REPLY_BYTES_LOOK         ((size_t)64 << 20) /* after so many more they are added up */
/* Files that are not for connections: of store, ledger, log. */
#define FILES_KEPT 64u
/* Connections that are being closed may stand beside those that replace them. */
#define CLOSING_MAX 16u
/* The same complaint again. */
#define COMPLAIN_EVERY_MS 60000u

struct peer {
    struct transport_server *server;
    struct transport_conn *conn; /* held */
    atomic_uint references;      /* the connection's, each request's, who looks at it */
    atomic_bool known;
    atomic_uint_fast64_t known_ms; /* when it last was */

    /* under the server's lock */
    size_t index;
    uint64_t made_ms;
    bool evicted;
    size_t large_bytes; /* of the frame that is coming in */
    uint64_t large_ms;
};

struct transport_request {
    struct peer *peer;
    struct transport_received frame;
};

enum complaint { COMPLAINT_ACCEPT, COMPLAINT_CONNECTIONS, COMPLAINT_MEMORY, COMPLAINT_COUNT };

struct transport_server {
    nng_stream_listener *listener;
    nng_aio *accept;
    uint16_t port;
    transport_request_fn *on_request;
    void *arg;
    atomic_uint references; /* the owner's, each peer's */
    atomic_bool closing;
    pthread_t ticker;
    size_t peers_max;
    atomic_size_t replied_bytes; /* since they were added up */
    atomic_uint stranger_ms;     /* 0: there are no strangers */
    atomic_uint_fast64_t idle_ms;

    pthread_mutex_t lock; /* of all below, and of starting to accept */
    pthread_cond_t changed;
    bool opened;
    bool accepting;
    struct peer **peers;
    size_t n_peers, peers_capacity;
    size_t large_bytes, stranger_large_bytes;
    struct {
        uint64_t said_ms;
        unsigned unsaid;
    } complaints[COMPLAINT_COUNT];
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

/* With the lock held. What a peer can cause may not fill the log. */
static void complain(struct transport_server *s, enum complaint what, const char *text)
{
    uint64_t now_ms = clock_mono_ms();

    if (s->complaints[what].said_ms != 0 &&
        now_ms < s->complaints[what].said_ms + COMPLAIN_EVERY_MS) {
        s->complaints[what].unsaid++;
        return;
    }
    if (s->complaints[what].unsaid > 0)
        log_warn("transport: %s (and %u times since this was said last)", text,
                 s->complaints[what].unsaid);
    else
        log_warn("transport: %s", text);
    s->complaints[what].said_ms = now_ms;
    s->complaints[what].unsaid = 0;
}

/* ---- peers ---- */

static void peer_release(struct peer *p)
{
    if (atomic_fetch_sub(&p->references, 1) != 1)
        return;
    transport_conn_release(p->conn);
    server_release(p->server);
    free(p);
}

static bool peer_is_stranger(const struct peer *p)
{
    return atomic_load(&p->server->stranger_ms) > 0 && !atomic_load(&p->known);
}

/* With the lock held. */
static void peer_large_set(struct peer *p, size_t bytes)
{
    struct transport_server *s = p->server;

    s->large_bytes += bytes - p->large_bytes;
    if (!atomic_load(&p->known))
        s->stranger_large_bytes += bytes - p->large_bytes;
    if (bytes == 0)
        p->large_ms = 0;
    else if (p->large_ms == 0)
        p->large_ms = clock_mono_ms();
    p->large_bytes = bytes;
}

/* With the lock held, which it lets go of meanwhile. */
static void peer_evict(struct peer *p)
{
    struct transport_server *s = p->server;

    p->evicted = true;
    peer_large_set(p, 0);
    (void)atomic_fetch_add(&p->references, 1);
    (void)pthread_mutex_unlock(&s->lock);
    transport_conn_close(p->conn);
    peer_release(p);
    (void)pthread_mutex_lock(&s->lock);
}

/* Backwards, so that one that goes meanwhile, and is replaced by the last, hides no other. */
static void peers_each(struct transport_server *s, void (*visit)(struct peer *p))
{
    (void)pthread_mutex_lock(&s->lock);
    for (size_t i = s->n_peers; i-- > 0;) {
        if (i >= s->n_peers)
            continue;
        struct peer *p = s->peers[i];
        (void)atomic_fetch_add(&p->references, 1);
        (void)pthread_mutex_unlock(&s->lock);
        visit(p);
        peer_release(p);
        (void)pthread_mutex_lock(&s->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

static void peer_close(struct peer *p)
{
    transport_conn_close(p->conn);
}

static void peer_check(struct peer *p)
{
    struct transport_server *s = p->server;
    uint64_t now_ms = clock_mono_ms();
    struct transport_conn_state state = transport_conn_look(p->conn);

    if (peer_is_stranger(p)) {
        uint64_t until_ms = p->made_ms + atomic_load(&s->stranger_ms);
        /* What it has begun in time, and sends fast enough, it may end. */
        if (now_ms > until_ms && (state.frame_ms == 0 || state.frame_ms > until_ms)) {
            transport_conn_close(p->conn);
            return;
        }
    } else if (atomic_load(&s->stranger_ms) > 0 &&
               now_ms > atomic_load(&p->known_ms) + atomic_load(&s->idle_ms)) {
        transport_conn_close(p->conn);
        return;
    }
    transport_conn_check(p->conn, now_ms);
}

/* The one whose large frame has been coming in for longest; with the lock held. */
static struct peer *peer_slowest(const struct transport_server *s, bool strangers)
{
    struct peer *slowest = NULL;

    for (size_t i = 0; i < s->n_peers; i++) {
        struct peer *p = s->peers[i];
        if (p->large_bytes > 0 && (!strangers || peer_is_stranger(p)) &&
            (slowest == NULL || p->large_ms < slowest->large_ms))
            slowest = p;
    }
    return slowest;
}

/* With the lock held. */
static struct peer *peer_oldest_stranger(const struct transport_server *s)
{
    struct peer *oldest = NULL;

    for (size_t i = 0; i < s->n_peers; i++) {
        struct peer *p = s->peers[i];
        if (!p->evicted && peer_is_stranger(p) && (oldest == NULL || p->made_ms < oldest->made_ms))
            oldest = p;
    }
    return oldest;
}

static void replies_look(struct transport_server *s)
{
    (void)pthread_mutex_lock(&s->lock);
    for (;;) {
        size_t sum = 0, most = 0;
        struct peer *worst = NULL;
        for (size_t i = 0; i < s->n_peers; i++) {
            struct peer *p = s->peers[i];
            size_t bytes = p->evicted ? 0 : transport_conn_look(p->conn).queued_bytes;
            sum += bytes;
            if (bytes > most) {
                most = bytes;
                worst = p;
            }
        }
        if (sum <= REPLY_BYTES_MAX || worst == NULL)
            break;
        complain(s, COMPLAINT_MEMORY, "peers leave too many replies untaken: one was closed");
        peer_evict(worst);
    }
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- connections ---- */

static void conn_up(void *arg, struct transport_conn *conn)
{
    (void)arg;
    (void)conn;
}

static void conn_frame(void *arg, struct transport_conn *conn, struct transport_received *frame)
{
    struct peer *p = arg;
    struct transport_server *s = p->server;
    struct transport_request *r = atomic_load(&s->closing) ? NULL : malloc(sizeof *r);

    if (r == NULL) {
        free(frame->block); /* closing, or no memory: as if it had never come */
        transport_conn_frame_done(conn, frame->size);
        return;
    }
    *r = (struct transport_request){.peer = p, .frame = *frame};
    (void)atomic_fetch_add(&p->references, 1);
    s->on_request(s->arg, r);
}

static bool conn_buffer(void *arg, struct transport_conn *conn, size_t bytes)
{
    struct peer *p = arg;
    struct transport_server *s = p->server;

    (void)conn;
    (void)pthread_mutex_lock(&s->lock);
    if (!p->evicted)
        peer_large_set(p, bytes);
    while (!p->evicted && bytes > 0) {
        struct peer *victim = NULL;
        if (s->stranger_large_bytes > STRANGER_LARGE_BYTES_MAX)
            victim = peer_slowest(s, true);
        if (victim == NULL && s->large_bytes > LARGE_BYTES_MAX)
            victim = peer_slowest(s, false);
        if (victim == NULL)
            break;
        complain(s, COMPLAINT_MEMORY, "too many large requests at once: one was closed");
        peer_evict(victim);
    }
    bool stays = !p->evicted;
    (void)pthread_mutex_unlock(&s->lock);
    return stays;
}

static void conn_down(void *arg, struct transport_conn *conn)
{
    struct peer *p = arg;
    struct transport_server *s = p->server;

    (void)conn;
    (void)pthread_mutex_lock(&s->lock);
    CHECK(p->index < s->n_peers && s->peers[p->index] == p);
    peer_large_set(p, 0);
    s->peers[p->index] = s->peers[--s->n_peers];
    s->peers[p->index]->index = p->index;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
    peer_release(p);
}

static const struct transport_conn_ops server_ops = {
    .ours = TRANSPORT_PROTOCOL_REP,
    .theirs = TRANSPORT_PROTOCOL_REQ,
    .on_up = conn_up,
    .on_frame = conn_frame,
    .on_buffer = conn_buffer,
    .on_down = conn_down,
};

/* Room for one more. With the lock held. False when memory is refused. */
static bool peers_reserve(struct transport_server *s)
{
    if (s->n_peers < s->peers_capacity)
        return true;
    size_t capacity = s->peers_capacity > 0 ? 2 * s->peers_capacity : 16;
    struct peer **peers = realloc(s->peers, capacity * sizeof(struct peer *));
    if (peers == NULL)
        return false;
    s->peers = peers;
    s->peers_capacity = capacity;
    return true;
}

/* A place for one more connection: with too many, that of a stranger who came first. With the lock
 * held. */
static bool peers_make_room(struct transport_server *s)
{
    char text[128];

    if (s->n_peers < s->peers_max)
        return true;
    (void)snprintf(text, sizeof text, "all of %zu connections are in use", s->peers_max);
    complain(s, COMPLAINT_CONNECTIONS, text);
    struct peer *oldest = peer_oldest_stranger(s);
    if (oldest != NULL)
        peer_evict(oldest);
    return oldest != NULL && s->n_peers < s->peers_max + CLOSING_MAX;
}

/* Takes the stream. NULL when memory is refused. */
static struct peer *peer_new(struct transport_server *s, nng_stream *stream)
{
    struct peer *p = calloc(1, sizeof *p);
    if (p == NULL) {
        nng_stream_free(stream);
        return NULL;
    }
    p->server = s;
    p->made_ms = clock_mono_ms();
    atomic_init(&p->references, 1);
    atomic_init(&p->known, false);
    atomic_init(&p->known_ms, p->made_ms);
    p->conn = transport_conn_new(stream, &server_ops, p);
    if (p->conn == NULL) {
        free(p);
        return NULL;
    }
    bool stranger = atomic_load(&s->stranger_ms) > 0;
    transport_conn_bound(p->conn, stranger ? STRANGER_REQUESTS_MAX : PEER_REQUESTS_MAX,
                         stranger ? STRANGER_BYTES_MAX : PEER_BYTES_MAX);
    (void)atomic_fetch_add(&s->references, 1);
    return p;
}

/* ---- accepting ---- */

static void accept_start(struct transport_server *s)
{
    s->accepting = true;
    nng_stream_listener_accept(s->listener, s->accept);
}

static void stream_accepted(struct transport_server *s, nng_stream *stream)
{
    struct peer *p = NULL;

    (void)pthread_mutex_lock(&s->lock);
    bool room = peers_make_room(s) && peers_reserve(s);
    if (room && (p = peer_new(s, stream)) != NULL) {
        (void)atomic_fetch_add(&p->references, 1);
        p->index = s->n_peers;
        s->peers[s->n_peers++] = p;
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (!room)
        nng_stream_free(stream);
    if (p == NULL)
        return; /* no memory, or too many: the peer finds its connection closed */
    transport_conn_start(p->conn);
    peer_release(p);
}

static void accept_callback(void *arg)
{
    struct transport_server *s = arg;
    int rv = nng_aio_result(s->accept);

    if (rv == 0)
        stream_accepted(s, nng_aio_get_output(s->accept, 0));
    (void)pthread_mutex_lock(&s->lock);
    s->accepting = false;
    if (rv == 0 && !atomic_load(&s->closing)) {
        accept_start(s);
    } else if (!atomic_load(&s->closing)) {
        char text[128]; /* the ticker tries again */
        (void)snprintf(text, sizeof text, "a connection cannot be accepted: %s", nng_strerror(rv));
        complain(s, COMPLAINT_ACCEPT, text);
    }
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
        if (!atomic_load(&s->closing) && !s->accepting && s->opened)
            accept_start(s);
        (void)pthread_mutex_unlock(&s->lock);
        peers_each(s, peer_check);
        (void)pthread_mutex_lock(&s->lock);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- open and close ---- */

static size_t peers_most(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY ||
        files.rlim_cur > LIMIT_CONNECTIONS + FILES_KEPT)
        return LIMIT_CONNECTIONS;
    size_t most = (size_t)files.rlim_cur;
    return most > 2 * FILES_KEPT ? most - FILES_KEPT : most / 2;
}

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
    s->peers_max = peers_most();
    atomic_init(&s->references, 1);
    atomic_init(&s->closing, false);
    atomic_init(&s->replied_bytes, 0);
    atomic_init(&s->stranger_ms, 0);
    atomic_init(&s->idle_ms, 0);
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
    s->opened = true;
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
    peers_each(s, peer_close);
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

void transport_server_expect(struct transport_server *s, uint32_t stranger_ms, uint64_t idle_ms)
{
    CHECK(stranger_ms > 0);
    atomic_store(&s->idle_ms, idle_ms);
    atomic_store(&s->stranger_ms, stranger_ms);
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
    return transport_conn_number(r->peer->conn);
}

void transport_request_admit(struct transport_request *r)
{
    struct peer *p = r->peer;

    atomic_store(&p->known_ms, clock_mono_ms());
    if (atomic_load(&p->known))
        return;
    (void)pthread_mutex_lock(&p->server->lock);
    if (!atomic_exchange(&p->known, true))
        p->server->stranger_large_bytes -= p->large_bytes;
    (void)pthread_mutex_unlock(&p->server->lock);
    transport_conn_bound(p->conn, PEER_REQUESTS_MAX, PEER_BYTES_MAX);
}

struct transport_way transport_request_way(const struct transport_request *r)
{
    struct transport_conn_state state = transport_conn_look(r->peer->conn);
    return (struct transport_way){.closed = state.closed, .queued_bytes = state.queued_bytes};
}

void transport_request_free(struct transport_request *r)
{
    if (r == NULL)
        return;
    transport_conn_frame_done(r->peer->conn, r->frame.size);
    peer_release(r->peer);
    free(r->frame.block);
    free(r);
}

enum err transport_request_reply(struct transport_server *s, struct transport_request *r,
                                 const void *bytes, size_t size, struct errbuf *eb)
{
    enum err err = ERR_OK;
    struct transport_frame *frame = NULL;

    CHECK(r->peer->server == s);
    if (size > LIMIT_FRAME_BYTES)
        err = err_set(eb, ERR_TOO_LARGE, "a reply of %zu bytes is over LIMIT_FRAME_BYTES (%u)",
                      size, LIMIT_FRAME_BYTES);
    else if (atomic_load(&s->closing))
        err = err_set(eb, ERR_CANCELLED, "the server is closing");
    else if ((frame = transport_frame_new(r->frame.id, bytes, size)) == NULL)
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a reply of %zu bytes", size);
    /* Where the peer is gone, so is the reply. */
    if (frame != NULL && !transport_conn_send(r->peer->conn, frame))
        free(frame);
    transport_request_free(r);
    if (frame != NULL && atomic_fetch_add(&s->replied_bytes, size) + size > REPLY_BYTES_LOOK) {
        atomic_store(&s->replied_bytes, 0);
        replies_look(s);
    }
    return err;
}
