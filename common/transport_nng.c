/*
 * What nng 1.5 does, where it decided the shape of this file (docs/protocol.md, "Under it"):
 *
 * - The server uses cooked REP with one context a held request. Raw REP keeps the way back in the
 *   message and needs no contexts, but it drops replies without a word once 64 wait for one pipe,
 *   which a client with many parked polls reaches at once. A context's reply waits instead.
 * - REQ with an infinite resend time never sends a request twice: when the pipe drops, a receive
 *   that waits ends with NNG_ECONNRESET. With a finite one it would send again by itself.
 * - A context holds one request and one aio: a call is a context and an aio, kept for the next
 *   call, so that the usual call opens nothing.
 * - An aio that was stopped runs no callback for what is started on it later, so that calls are
 *   counted, cancelled and waited for before anything is stopped.
 */
#include "common/transport.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/transport_endpoint.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* nng counts its own header against the limit: a word per hop, one here. */
#define RECV_CAP_BYTES (LIMIT_FRAME_BYTES + 64u)
/* A restarted coordinator is found within the longer one. */
#define RECONNECT_MS_MIN 20
#define RECONNECT_MS_MAX 100
/* Contexts that wait for a request; the callback replaces each at once. */
#define RECEIVERS 16
/* A peer that takes no replies loses them after this. */
#define REPLY_TIMEOUT_MS 30000

static enum err nng_fail(struct errbuf *eb, int rv, const char *what, const char *url)
{
    enum err code = ERR_IO;

    switch (rv) {
    case NNG_ENOMEM:
        code = ERR_NO_MEMORY;
        break;
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
        code = ERR_INVALID;
        break;
    case NNG_ENOTSUP:
        code = ERR_UNSUPPORTED;
        break;
    default:
        break;
    }
    return err_set(eb, code, "%s: %s: %s", url, what, nng_strerror(rv));
}

/* ---- TLS ---- */

static enum err tls_config_new(nng_tls_config **ret_config, nng_tls_mode mode,
                               const struct transport_endpoint *endpoint,
                               const struct transport_pem *pem, struct errbuf *eb)
{
    nng_tls_config *config = NULL;
    const char *what = "TLS";
    int rv = nng_tls_config_alloc(&config, mode);

    if (rv == 0)
        rv = nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_2);
    if (rv == 0)
        rv = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
    if (rv == 0) {
        what = endpoint->tls.ca_file;
        rv = nng_tls_config_ca_chain(config, buf_str(&pem->ca), NULL);
    }
    if (rv == 0) {
        what = endpoint->tls.cert_file;
        rv = nng_tls_config_own_cert(config, buf_str(&pem->cert), buf_str(&pem->key), NULL);
    }
    if (rv == 0 && mode == NNG_TLS_MODE_CLIENT) {
        what = "TLS server name";
        rv = nng_tls_config_server_name(config, pem->host);
    }
    if (rv != 0) {
        if (config != NULL)
            nng_tls_config_free(config);
        return err_set(eb, rv == NNG_ENOMEM ? ERR_NO_MEMORY : ERR_INVALID,
                       "%s: not accepted by the TLS library: %s", what, nng_strerror(rv));
    }
    *ret_config = config;
    return ERR_OK;
}

/* ---- server ---- */

enum request_state {
    REQUEST_IDLE,
    REQUEST_RECEIVING,
    REQUEST_HELD, /* the user has it */
    REQUEST_REPLYING,
};

/* One context of the server's socket; the same object serves request after request. */
struct transport_request {
    struct transport_server *server;
    struct transport_request *next_made;
    struct transport_request *next_idle;
    enum request_state state;
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *msg; /* while HELD */
};

struct transport_server {
    nng_socket socket;
    uint16_t port;
    transport_request_fn *on_request;
    void *arg;

    pthread_mutex_t lock;           /* of all below */
    struct transport_request *made; /* every one, freed with the server */
    struct transport_request *idle; /* neither receiving nor held nor replying */
    size_t receiving;               /* contexts that wait for a request */
    size_t held;                    /* by the user: they keep the server's memory */
    bool closing, closed;
};

static void server_receive_more(struct transport_server *s);
static void request_callback(void *arg);

static void server_free(struct transport_server *s)
{
    while (s->made != NULL) {
        struct transport_request *r = s->made;
        s->made = r->next_made;
        free(r);
    }
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
}

/* NULL when memory is refused. With the lock held. */
static struct transport_request *request_take(struct transport_server *s)
{
    struct transport_request *r = s->idle;
    if (r != NULL) {
        s->idle = r->next_idle;
        return r;
    }
    r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->server = s;
    if (nng_ctx_open(&r->ctx, s->socket) != 0) {
        free(r);
        return NULL;
    }
    if (nng_aio_alloc(&r->aio, request_callback, r) != 0) {
        (void)nng_ctx_close(r->ctx);
        free(r);
        return NULL;
    }
    r->next_made = s->made;
    s->made = r;
    return r;
}

/* Brings the number of receiving contexts back to RECEIVERS. */
static void server_receive_more(struct transport_server *s)
{
    for (;;) {
        (void)pthread_mutex_lock(&s->lock);
        struct transport_request *r = NULL;
        if (!s->closing && s->receiving < RECEIVERS)
            r = request_take(s);
        if (r != NULL) {
            r->state = REQUEST_RECEIVING;
            s->receiving++;
        }
        (void)pthread_mutex_unlock(&s->lock);
        if (r == NULL)
            return;
        nng_aio_set_timeout(r->aio, NNG_DURATION_INFINITE);
        nng_ctx_recv(r->ctx, r->aio);
    }
}

/* From any state to IDLE. Frees the server where it waited for this one only. */
static void request_idle(struct transport_request *r)
{
    struct transport_server *s = r->server;

    (void)pthread_mutex_lock(&s->lock);
    if (r->state == REQUEST_RECEIVING)
        s->receiving--;
    if (r->state == REQUEST_HELD)
        s->held--;
    r->state = REQUEST_IDLE;
    r->next_idle = s->idle;
    s->idle = r;
    bool last = s->closed && s->held == 0;
    (void)pthread_mutex_unlock(&s->lock);
    if (last)
        server_free(s);
}

/* A request has come, or waiting for one has ended. */
static void request_received(struct transport_request *r)
{
    struct transport_server *s = r->server;

    if (nng_aio_result(r->aio) != 0) {
        /* Only closing, or no memory: then a later reply brings the receivers back. */
        request_idle(r);
        return;
    }
    r->msg = nng_aio_get_msg(r->aio);
    nng_aio_set_msg(r->aio, NULL);
    (void)pthread_mutex_lock(&s->lock);
    bool closing = s->closing;
    s->receiving--;
    s->held++;
    r->state = REQUEST_HELD;
    (void)pthread_mutex_unlock(&s->lock);
    if (closing) {
        transport_request_free(r);
        return;
    }
    server_receive_more(s);
    s->on_request(s->arg, r);
}

static void request_callback(void *arg)
{
    struct transport_request *r = arg;
    struct transport_server *s = r->server;

    if (r->state == REQUEST_RECEIVING) {
        request_received(r);
        return;
    }
    if (nng_aio_result(r->aio) != 0) {
        nng_msg_free(nng_aio_get_msg(r->aio)); /* timed out, or closing */
        nng_aio_set_msg(r->aio, NULL);
    }
    request_idle(r);
    server_receive_more(s);
}

static int listener_set(nng_listener listener, nng_tls_config *tls)
{
    int rv = nng_listener_set_size(listener, NNG_OPT_RECVMAXSZ, RECV_CAP_BYTES);
    if (rv == 0)
        rv = nng_listener_set_bool(listener, NNG_OPT_TCP_NODELAY, true);
    if (rv == 0)
        rv = nng_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE, true);
    if (rv == 0 && tls != NULL)
        rv = nng_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG, tls);
    return rv;
}

enum err transport_server_open(struct transport_server **ret_server,
                               const struct transport_endpoint *endpoint,
                               transport_request_fn *on_request, void *arg, struct errbuf *eb)
{
    struct transport_pem pem;
    nng_tls_config *tls = NULL;
    nng_listener listener;
    struct transport_server *s = NULL;
    bool opened = false;
    int port = 0;
    int rv;

    enum err err = transport_endpoint_load(endpoint, &pem, eb);
    if (err != ERR_OK)
        return err;
    if (pem.tls) {
        err = tls_config_new(&tls, NNG_TLS_MODE_SERVER, endpoint, &pem, eb);
        if (err != ERR_OK)
            goto out;
    }
    s = calloc(1, sizeof *s);
    if (s == NULL) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory", endpoint->url);
        goto out;
    }
    s->on_request = on_request;
    s->arg = arg;
    CHECK(pthread_mutex_init(&s->lock, NULL) == 0);
    rv = nng_rep0_open(&s->socket);
    if (rv != 0) {
        err = nng_fail(eb, rv, "opening", endpoint->url);
        goto out;
    }
    opened = true;
    rv = nng_socket_set_size(s->socket, NNG_OPT_RECVMAXSZ, RECV_CAP_BYTES);
    if (rv == 0)
        rv = nng_listener_create(&listener, s->socket, endpoint->url);
    if (rv == 0)
        rv = listener_set(listener, tls);
    if (rv == 0)
        rv = nng_listener_start(listener, 0);
    if (rv != 0) {
        err = nng_fail(eb, rv, "listening", endpoint->url);
        goto out;
    }
    if (nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0)
        s->port = (uint16_t)port;
    /* From here on requests come, so that nothing may fail: the first context is made before. */
    s->idle = request_take(s);
    if (s->idle == NULL) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory", endpoint->url);
        goto out;
    }
    *ret_server = s;
    server_receive_more(s);
    s = NULL;
out:
    if (s != NULL && opened)
        (void)nng_close(s->socket);
    if (s != NULL)
        server_free(s);
    if (tls != NULL)
        nng_tls_config_free(tls);
    transport_pem_fini(&pem);
    return err;
}

void transport_server_close(struct transport_server *s)
{
    if (s == NULL)
        return;
    (void)pthread_mutex_lock(&s->lock);
    s->closing = true;
    struct transport_request *made = s->made; /* none is added from here on */
    (void)pthread_mutex_unlock(&s->lock);
    for (struct transport_request *r = made; r != NULL; r = r->next_made) {
        nng_aio_stop(r->aio);
        nng_msg_free(nng_aio_get_msg(r->aio)); /* a reply that came too late to be started */
    }
    for (struct transport_request *r = made; r != NULL; r = r->next_made)
        (void)nng_ctx_close(r->ctx);
    (void)nng_close(s->socket);
    for (struct transport_request *r = made; r != NULL; r = r->next_made)
        nng_aio_free(r->aio);
    (void)pthread_mutex_lock(&s->lock);
    s->closed = true;
    bool last = s->held == 0;
    (void)pthread_mutex_unlock(&s->lock);
    if (last)
        server_free(s);
}

uint16_t transport_server_port(const struct transport_server *s)
{
    return s->port;
}

const void *transport_request_bytes(const struct transport_request *r, size_t *ret_size)
{
    *ret_size = nng_msg_len(r->msg);
    return nng_msg_body(r->msg);
}

void transport_request_free(struct transport_request *r)
{
    if (r == NULL)
        return;
    CHECK(r->state == REQUEST_HELD);
    nng_msg_free(r->msg);
    r->msg = NULL;
    request_idle(r);
}

enum err transport_request_reply(struct transport_server *s, struct transport_request *r,
                                 const void *bytes, size_t size, struct errbuf *eb)
{
    nng_msg *msg;

    CHECK(r->server == s && r->state == REQUEST_HELD);
    if (size > LIMIT_FRAME_BYTES) {
        transport_request_free(r);
        return err_set(eb, ERR_TOO_LARGE, "a reply of %zu bytes is over LIMIT_FRAME_BYTES (%u)",
                       size, LIMIT_FRAME_BYTES);
    }
    if (nng_msg_alloc(&msg, size) != 0) {
        transport_request_free(r);
        return err_set(eb, ERR_NO_MEMORY, "no memory for a reply of %zu bytes", size);
    }
    if (size > 0)
        memcpy(nng_msg_body(msg), bytes, size);
    (void)pthread_mutex_lock(&s->lock);
    bool closing = s->closing;
    if (!closing) {
        s->held--;
        r->state = REQUEST_REPLYING;
    }
    (void)pthread_mutex_unlock(&s->lock);
    if (closing) {
        nng_msg_free(msg);
        transport_request_free(r);
        return err_set(eb, ERR_CANCELLED, "the server is closing");
    }
    nng_msg_free(r->msg);
    r->msg = NULL;
    nng_aio_set_msg(r->aio, msg);
    nng_aio_set_timeout(r->aio, REPLY_TIMEOUT_MS);
    nng_ctx_send(r->ctx, r->aio);
    return ERR_OK;
}

/* ---- client ---- */

enum call_step { CALL_SENDING, CALL_RECEIVING };

/* A context and an aio; when nobody refers to it any more it waits for the next call. */
struct transport_call {
    struct transport_client *client;
    struct transport_call *next_made;
    struct transport_call *next_idle;
    nng_ctx ctx;
    nng_aio *aio;
    transport_reply_fn *on_reply;
    void *arg;
    enum call_step step;
    uint64_t deadline_ms;
    atomic_uint references; /* the user's, that of the operation, that of who starts one */
    atomic_bool cancelled;
    bool under_way; /* under the client's lock: on_reply has not returned yet */
};

struct transport_client {
    nng_socket socket;
    char url[320];
    atomic_int pipes; /* connections that are up: 0 or 1 */

    pthread_mutex_t lock; /* of all below */
    pthread_cond_t ended;
    struct transport_call *made;
    struct transport_call *idle;
    size_t referred;  /* calls that somebody refers to: they keep the client's memory */
    size_t under_way; /* calls whose on_reply has not returned */
    bool closing, closed;
};

static void call_callback(void *arg);

static void client_free(struct transport_client *c)
{
    while (c->made != NULL) {
        struct transport_call *call = c->made;
        c->made = call->next_made;
        free(call);
    }
    (void)pthread_cond_destroy(&c->ended);
    (void)pthread_mutex_destroy(&c->lock);
    free(c);
}

static void pipe_added(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct transport_client *c = arg;
    (void)pipe;
    (void)event;
    (void)atomic_fetch_add(&c->pipes, 1);
}

static void pipe_removed(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct transport_client *c = arg;
    (void)pipe;
    (void)event;
    (void)atomic_fetch_sub(&c->pipes, 1);
}

static int socket_set(struct transport_client *c)
{
    int rv = nng_req0_open(&c->socket);
    if (rv != 0)
        return rv;
    rv = nng_socket_set_ms(c->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (rv == 0)
        rv = nng_socket_set_size(c->socket, NNG_OPT_RECVMAXSZ, RECV_CAP_BYTES);
    if (rv == 0)
        rv = nng_socket_set_ms(c->socket, NNG_OPT_RECONNMINT, RECONNECT_MS_MIN);
    if (rv == 0)
        rv = nng_socket_set_ms(c->socket, NNG_OPT_RECONNMAXT, RECONNECT_MS_MAX);
    if (rv == 0)
        rv = nng_pipe_notify(c->socket, NNG_PIPE_EV_ADD_POST, pipe_added, c);
    if (rv == 0)
        rv = nng_pipe_notify(c->socket, NNG_PIPE_EV_REM_POST, pipe_removed, c);
    if (rv != 0)
        (void)nng_close(c->socket);
    return rv;
}

static int dialer_start(struct transport_client *c, nng_tls_config *tls)
{
    nng_dialer dialer;
    int rv = nng_dialer_create(&dialer, c->socket, c->url);
    if (rv == 0)
        rv = nng_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true);
    if (rv == 0)
        rv = nng_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
    if (rv == 0 && tls != NULL)
        rv = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls);
    if (rv == 0)
        rv = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
    return rv;
}

enum err transport_client_open(struct transport_client **ret_client,
                               const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    struct transport_pem pem;
    nng_tls_config *tls = NULL;
    struct transport_client *c = NULL;
    int rv;

    enum err err = transport_endpoint_load(endpoint, &pem, eb);
    if (err != ERR_OK)
        return err;
    if (pem.tls) {
        err = tls_config_new(&tls, NNG_TLS_MODE_CLIENT, endpoint, &pem, eb);
        if (err != ERR_OK)
            goto out;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        err = err_set(eb, ERR_NO_MEMORY, "%s: no memory", endpoint->url);
        goto out;
    }
    CHECK(strlen(endpoint->url) < sizeof c->url);
    strcpy(c->url, endpoint->url);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0 && pthread_cond_init(&c->ended, NULL) == 0);
    rv = socket_set(c);
    if (rv != 0) {
        err = nng_fail(eb, rv, "opening", endpoint->url);
        goto out;
    }
    rv = dialer_start(c, tls);
    if (rv != 0) {
        err = nng_fail(eb, rv, "dialing", endpoint->url);
        (void)nng_close(c->socket);
        goto out;
    }
    *ret_client = c;
    c = NULL;
out:
    if (c != NULL)
        client_free(c);
    if (tls != NULL)
        nng_tls_config_free(tls);
    transport_pem_fini(&pem);
    return err;
}

void transport_client_close(struct transport_client *c)
{
    if (c == NULL)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->closing = true;
    struct transport_call *made = c->made; /* none is added from here on */
    for (struct transport_call *call = made; call != NULL; call = call->next_made) {
        if (call->under_way) {
            atomic_store(&call->cancelled, true);
            nng_aio_abort(call->aio, NNG_ECANCELED);
        }
    }
    while (c->under_way > 0)
        (void)pthread_cond_wait(&c->ended, &c->lock);
    (void)pthread_mutex_unlock(&c->lock);

    for (struct transport_call *call = made; call != NULL; call = call->next_made)
        nng_aio_stop(call->aio);
    for (struct transport_call *call = made; call != NULL; call = call->next_made)
        (void)nng_ctx_close(call->ctx);
    (void)nng_close(c->socket);
    for (struct transport_call *call = made; call != NULL; call = call->next_made)
        nng_aio_free(call->aio);

    (void)pthread_mutex_lock(&c->lock);
    c->closed = true;
    bool last = c->referred == 0;
    (void)pthread_mutex_unlock(&c->lock);
    if (last)
        client_free(c);
}

/* With the lock held. NULL when memory is refused. */
static struct transport_call *call_take(struct transport_client *c)
{
    struct transport_call *call = c->idle;
    if (call != NULL) {
        c->idle = call->next_idle;
        return call;
    }
    call = calloc(1, sizeof *call);
    if (call == NULL)
        return NULL;
    call->client = c;
    if (nng_ctx_open(&call->ctx, c->socket) != 0) {
        free(call);
        return NULL;
    }
    if (nng_aio_alloc(&call->aio, call_callback, call) != 0) {
        (void)nng_ctx_close(call->ctx);
        free(call);
        return NULL;
    }
    call->next_made = c->made;
    c->made = call;
    return call;
}

static void call_release(struct transport_call *call)
{
    struct transport_client *c = call->client;

    if (atomic_fetch_sub(&call->references, 1) != 1)
        return;
    (void)pthread_mutex_lock(&c->lock);
    c->referred--;
    call->next_idle = c->idle;
    c->idle = call;
    bool last = c->closed && c->referred == 0;
    (void)pthread_mutex_unlock(&c->lock);
    if (last)
        client_free(c);
}

/* Who has just started an operation looks here: a cancel that came before it found nothing to
 * abort. Gives back the reference that kept the call from being used again meanwhile. */
static void call_started(struct transport_call *call)
{
    if (atomic_load(&call->cancelled))
        nng_aio_abort(call->aio, NNG_ECANCELED);
    call_release(call);
}

static enum err call_error(const struct transport_call *call, int rv)
{
    switch (rv) {
    case NNG_ETIMEDOUT:
        /* Never sent and nobody to send it to: the peer is not there. */
        return call->step == CALL_SENDING && atomic_load(&call->client->pipes) <= 0
                   ? ERR_UNAVAILABLE
                   : ERR_TIMEOUT;
    case NNG_ECANCELED:
    case NNG_ECLOSED:
        return ERR_CANCELLED;
    case NNG_ENOMEM:
        return ERR_NO_MEMORY;
    default:
        return ERR_UNAVAILABLE; /* the connection dropped */
    }
}

static void call_end(struct transport_call *call, enum err err, nng_msg *reply)
{
    struct transport_client *c = call->client;

    call->on_reply(call->arg, err, reply != NULL ? nng_msg_body(reply) : NULL,
                   reply != NULL ? nng_msg_len(reply) : 0);
    if (reply != NULL)
        nng_msg_free(reply);
    (void)pthread_mutex_lock(&c->lock);
    call->under_way = false;
    if (--c->under_way == 0)
        (void)pthread_cond_broadcast(&c->ended);
    (void)pthread_mutex_unlock(&c->lock);
    call_release(call);
}

static void call_callback(void *arg)
{
    struct transport_call *call = arg;
    int rv = nng_aio_result(call->aio);
    nng_msg *msg = nng_aio_get_msg(call->aio);

    if (call->step == CALL_RECEIVING) {
        nng_aio_set_msg(call->aio, NULL);
        call_end(call, rv == 0 ? ERR_OK : call_error(call, rv), rv == 0 ? msg : NULL);
        return;
    }
    if (rv != 0) {
        nng_aio_set_msg(call->aio, NULL);
        nng_msg_free(msg);
        call_end(call, call_error(call, rv), NULL);
        return;
    }
    uint64_t now_ms = clock_mono_ms();
    if (now_ms >= call->deadline_ms) {
        call_end(call, ERR_TIMEOUT, NULL);
        return;
    }
    call->step = CALL_RECEIVING;
    nng_aio_set_timeout(call->aio, (nng_duration)(call->deadline_ms - now_ms));
    (void)atomic_fetch_add(&call->references, 1);
    nng_ctx_recv(call->ctx, call->aio);
    call_started(call);
}

enum err transport_call_start(struct transport_client *c, const void *bytes, size_t size,
                              uint32_t timeout_ms, transport_reply_fn *on_reply, void *arg,
                              struct transport_call **ret_call, struct errbuf *eb)
{
    nng_msg *msg;
    nng_duration timeout = timeout_ms > INT32_MAX ? INT32_MAX : (nng_duration)timeout_ms;

    if (size > LIMIT_FRAME_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "a request of %zu bytes is over LIMIT_FRAME_BYTES (%u)",
                       size, LIMIT_FRAME_BYTES);
    if (nng_msg_alloc(&msg, size) != 0)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a request of %zu bytes", size);
    if (size > 0)
        memcpy(nng_msg_body(msg), bytes, size);

    (void)pthread_mutex_lock(&c->lock);
    bool closing = c->closing;
    struct transport_call *call = closing ? NULL : call_take(c);
    if (call != NULL) {
        c->referred++;
        c->under_way++;
        call->under_way = true;
    }
    (void)pthread_mutex_unlock(&c->lock);
    if (call == NULL) {
        nng_msg_free(msg);
        return closing ? err_set(eb, ERR_CANCELLED, "%s: the client is closing", c->url)
                       : err_set(eb, ERR_NO_MEMORY, "%s: no memory for a call", c->url);
    }
    call->on_reply = on_reply;
    call->arg = arg;
    call->step = CALL_SENDING;
    call->deadline_ms = clock_mono_ms() + (uint64_t)timeout;
    atomic_store(&call->cancelled, false);
    atomic_store(&call->references, 3);
    *ret_call = call; /* before the callback can run */
    nng_aio_set_msg(call->aio, msg);
    nng_aio_set_timeout(call->aio, timeout > 0 ? timeout : 1);
    nng_ctx_send(call->ctx, call->aio);
    call_started(call);
    return ERR_OK;
}

void transport_call_cancel(struct transport_call *call)
{
    struct transport_client *c = call->client;

    (void)pthread_mutex_lock(&c->lock);
    if (call->under_way) {
        atomic_store(&call->cancelled, true);
        nng_aio_abort(call->aio, NNG_ECANCELED);
    }
    (void)pthread_mutex_unlock(&c->lock);
}

void transport_call_free(struct transport_call *call)
{
    if (call != NULL)
        call_release(call);
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
