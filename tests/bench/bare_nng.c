#include "tests/bench/bare_nng.h"

#include "common/check.h"
#include "common/clock.h"

#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECEIVERS 16

/* ---- the server ---- */

struct receiver {
    nng_socket socket;
    nng_aio *aio;
    bool sending;
};

struct bare_nng_echo {
    nng_socket socket;
    struct receiver receivers[RECEIVERS];
};

nng_socket bare_nng_listen(char ret_url[64])
{
    nng_socket socket;
    nng_listener listener;
    int port;

    CHECK(nng_rep0_open_raw(&socket) == 0);
    CHECK(nng_listen(socket, "tcp://127.0.0.1:0", &listener, 0) == 0);
    CHECK(nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port) == 0);
    (void)snprintf(ret_url, 64, "tcp://127.0.0.1:%d", port);
    return socket;
}

static void receiver_step(void *arg)
{
    struct receiver *r = arg;
    if (nng_aio_result(r->aio) != 0)
        return;
    if (r->sending) {
        r->sending = false;
        nng_recv_aio(r->socket, r->aio);
    } else {
        r->sending = true; /* the received message holds the way back in its header */
        nng_send_aio(r->socket, r->aio);
    }
}

struct bare_nng_echo *bare_nng_echo_start(char ret_url[64])
{
    struct bare_nng_echo *echo = calloc(1, sizeof *echo);
    CHECK(echo != NULL);
    echo->socket = bare_nng_listen(ret_url);
    for (int i = 0; i < RECEIVERS; i++) {
        struct receiver *r = &echo->receivers[i];
        r->socket = echo->socket;
        CHECK(nng_aio_alloc(&r->aio, receiver_step, r) == 0);
        nng_recv_aio(r->socket, r->aio);
    }
    return echo;
}

void bare_nng_echo_stop(struct bare_nng_echo *echo)
{
    for (int i = 0; i < RECEIVERS; i++)
        nng_aio_stop(echo->receivers[i].aio);
    (void)nng_close(echo->socket);
    for (int i = 0; i < RECEIVERS; i++)
        nng_aio_free(echo->receivers[i].aio);
    free(echo);
}

/* ---- clients with a window ---- */

struct run {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    uint32_t to_send, to_come;
    size_t size;
};

struct caller {
    struct run *run;
    nng_ctx ctx;
    nng_aio *aio;
    bool sending;
};

static void caller_send(struct caller *c)
{
    nng_msg *msg;
    CHECK(nng_msg_alloc(&msg, c->run->size) == 0);
    memset(nng_msg_body(msg), 0, c->run->size);
    nng_aio_set_msg(c->aio, msg);
    c->sending = true;
    nng_ctx_send(c->ctx, c->aio);
}

/* True when there is one more to send. */
static bool run_take(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
    bool more = run->to_send > 0;
    run->to_send -= more;
    (void)pthread_mutex_unlock(&run->lock);
    return more;
}

static void run_came(struct run *run)
{
    (void)pthread_mutex_lock(&run->lock);
    if (--run->to_come == 0)
        (void)pthread_cond_signal(&run->ended);
    (void)pthread_mutex_unlock(&run->lock);
}

static void caller_step(void *arg)
{
    struct caller *c = arg;
    CHECK(nng_aio_result(c->aio) == 0);
    if (c->sending) {
        c->sending = false;
        nng_ctx_recv(c->ctx, c->aio);
        return;
    }
    nng_msg_free(nng_aio_get_msg(c->aio));
    if (run_take(c->run))
        caller_send(c);
    run_came(c->run);
}

double bare_nng_echo_rate(uint32_t n_clients, uint32_t window, uint32_t n_requests, size_t size)
{
    struct run run = {.to_send = n_requests, .to_come = n_requests, .size = size};
    uint32_t n_callers = n_clients * window;
    struct caller *callers = calloc(n_callers, sizeof *callers);
    nng_socket *sockets = calloc(n_clients, sizeof *sockets);
    char url[64];

    CHECK(callers != NULL && sockets != NULL);
    CHECK(pthread_mutex_init(&run.lock, NULL) == 0 && pthread_cond_init(&run.ended, NULL) == 0);
    struct bare_nng_echo *echo = bare_nng_echo_start(url);
    for (uint32_t i = 0; i < n_clients; i++)
        CHECK(nng_req0_open(&sockets[i]) == 0 && nng_dial(sockets[i], url, NULL, 0) == 0);
    for (uint32_t i = 0; i < n_callers; i++) {
        callers[i].run = &run;
        CHECK(nng_ctx_open(&callers[i].ctx, sockets[i / window]) == 0);
        CHECK(nng_aio_alloc(&callers[i].aio, caller_step, &callers[i]) == 0);
        nng_aio_set_timeout(callers[i].aio, 30000);
    }
    uint64_t began_ns = clock_mono_ns();
    for (uint32_t i = 0; i < n_callers && run_take(&run); i++)
        caller_send(&callers[i]);
    (void)pthread_mutex_lock(&run.lock);
    while (run.to_come > 0)
        (void)pthread_cond_wait(&run.ended, &run.lock);
    (void)pthread_mutex_unlock(&run.lock);
    double seconds = (double)(clock_mono_ns() - began_ns) / 1e9;
    for (uint32_t i = 0; i < n_callers; i++) {
        nng_aio_free(callers[i].aio);
        (void)nng_ctx_close(callers[i].ctx);
    }
    for (uint32_t i = 0; i < n_clients; i++)
        (void)nng_close(sockets[i]);
    bare_nng_echo_stop(echo);
    (void)pthread_cond_destroy(&run.ended);
    (void)pthread_mutex_destroy(&run.lock);
    free(callers);
    free(sockets);
    return n_requests / seconds;
}
