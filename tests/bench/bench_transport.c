/*
 * bench_transport [SECONDS]: echo rate of 64 bytes over loopback with 16 clients, first bare nng
 * (raw REP, one REQ socket a thread), then transport.h, in one run on the same machine. Then how
 * many replies of a burst to one connection arrive: raw REP keeps 64 a pipe and drops what comes
 * while those wait, so that it depends on how fast the peer reads; transport.h drops none.
 */
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/transport.h"
#include "tests/bench/bare_nng.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLIENTS       16
#define PAYLOAD_BYTES 64

static atomic_bool stopping;
static atomic_ullong echoes;

/* ---- bare nng ---- */

static void *raw_client(void *arg)
{
    const char *url = arg;
    nng_socket socket;
    char bytes[PAYLOAD_BYTES] = {0};

    CHECK(nng_req0_open(&socket) == 0 && nng_dial(socket, url, NULL, 0) == 0);
    while (!atomic_load(&stopping)) {
        size_t size = sizeof bytes;
        CHECK(nng_send(socket, bytes, sizeof bytes, 0) == 0);
        CHECK(nng_recv(socket, bytes, &size, 0) == 0);
        (void)atomic_fetch_add(&echoes, 1);
    }
    (void)nng_close(socket);
    return NULL;
}

static double clients_run(void *(*client)(void *), void *arg, double seconds)
{
    pthread_t threads[CLIENTS];

    atomic_store(&stopping, false);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(pthread_create(&threads[i], NULL, client, arg) == 0);
    nng_msleep(200); /* all are connected */
    unsigned long long first = atomic_load(&echoes);
    uint64_t start = clock_mono_ns();
    nng_msleep((nng_duration)(seconds * 1000));
    unsigned long long last = atomic_load(&echoes);
    double took = (double)(clock_mono_ns() - start) / 1e9;
    atomic_store(&stopping, true);
    for (int i = 0; i < CLIENTS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    return (double)(last - first) / took;
}

static double raw_bench(double seconds)
{
    char url[64];
    struct bare_nng_echo *echo = bare_nng_echo_start(url);
    double rate = clients_run(raw_client, url, seconds);
    bare_nng_echo_stop(echo);
    return rate;
}

/* ---- transport.h ---- */

struct echo_server {
    struct transport_server *server;
};

static void echo_request(void *arg, struct transport_request *request)
{
    struct echo_server *s = arg;
    size_t size;
    const void *bytes = transport_request_bytes(request, &size);
    (void)transport_request_reply(s->server, request, bytes, size, NULL);
}

static void *our_client(void *arg)
{
    const struct transport_endpoint endpoint = {.url = arg};
    struct transport_client *client;
    struct errbuf eb = {{0}};
    struct buf reply;
    char bytes[PAYLOAD_BYTES] = {0};

    buf_init(&reply);
    CHECK(transport_client_open(&client, &endpoint, &eb) == ERR_OK);
    while (!atomic_load(&stopping)) {
        CHECK(transport_call(client, bytes, sizeof bytes, 10000, &reply, &eb) == ERR_OK);
        (void)atomic_fetch_add(&echoes, 1);
    }
    transport_client_close(client);
    buf_fini(&reply);
    return NULL;
}

static double our_bench(double seconds)
{
    const struct transport_endpoint endpoint = {.url = "tcp://127.0.0.1:0"};
    struct echo_server s;
    struct errbuf eb = {{0}};
    char url[64];

    CHECK(transport_server_open(&s.server, &endpoint, echo_request, &s, &eb) == ERR_OK);
    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", transport_server_port(s.server));
    double rate = clients_run(our_client, url, seconds);
    transport_server_close(s.server);
    return rate;
}

/* ---- a burst of replies to one connection ---- */

#define BURST       400
#define BURST_BYTES 200000

struct burst {
    struct transport_server *server;
    struct transport_request *held[BURST];
    atomic_int n_held;
    atomic_int n_ok;
};

static void burst_request(void *arg, struct transport_request *request)
{
    struct burst *b = arg;
    b->held[atomic_fetch_add(&b->n_held, 1)] = request;
}

static void burst_reply(void *arg, enum err err, const void *reply, size_t reply_size)
{
    struct burst *b = arg;
    (void)reply;
    if (err == ERR_OK && reply_size == BURST_BYTES)
        (void)atomic_fetch_add(&b->n_ok, 1);
}

static int our_burst(void)
{
    static struct burst b;
    static char bytes[BURST_BYTES];
    static struct transport_call *calls[BURST];
    const struct transport_endpoint endpoint = {.url = "tcp://127.0.0.1:0"};
    struct transport_client *client;
    char url[64];

    CHECK(transport_server_open(&b.server, &endpoint, burst_request, &b, NULL) == ERR_OK);
    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", transport_server_port(b.server));
    CHECK(transport_client_open(&client, &(struct transport_endpoint){.url = url}, NULL) == ERR_OK);
    for (int i = 0; i < BURST; i++)
        CHECK(transport_call_start(client, "x", 1, 5000, burst_reply, &b, &calls[i], NULL) ==
              ERR_OK);
    while (atomic_load(&b.n_held) < BURST)
        nng_msleep(10);
    for (int i = 0; i < BURST; i++)
        CHECK(transport_request_reply(b.server, b.held[i], bytes, sizeof bytes, NULL) == ERR_OK);
    nng_msleep(1000);
    int ok = atomic_load(&b.n_ok);
    transport_client_close(client);
    transport_server_close(b.server);
    for (int i = 0; i < BURST; i++)
        transport_call_free(calls[i]);
    return ok;
}

static int raw_burst(void)
{
    static nng_ctx contexts[BURST];
    static nng_aio *aios[BURST];
    static nng_msg *held[BURST];
    nng_socket client;
    char url[64];
    int ok = 0;
    nng_socket server = bare_nng_listen(url);

    CHECK(nng_req0_open(&client) == 0 && nng_dial(client, url, NULL, 0) == 0);
    for (int i = 0; i < BURST; i++) {
        nng_msg *msg;
        CHECK(nng_ctx_open(&contexts[i], client) == 0);
        CHECK(nng_aio_alloc(&aios[i], NULL, NULL) == 0 && nng_msg_alloc(&msg, 1) == 0);
        nng_aio_set_msg(aios[i], msg);
        nng_ctx_send(contexts[i], aios[i]);
        nng_aio_wait(aios[i]);
        CHECK(nng_aio_result(aios[i]) == 0);
        CHECK(nng_recvmsg(server, &held[i], 0) == 0);
        nng_aio_set_timeout(aios[i], 2000);
        nng_ctx_recv(contexts[i], aios[i]);
    }
    for (int i = 0; i < BURST; i++) {
        CHECK(nng_msg_realloc(held[i], BURST_BYTES) == 0);
        CHECK(nng_sendmsg(server, held[i], 0) == 0);
    }
    for (int i = 0; i < BURST; i++) {
        nng_aio_wait(aios[i]);
        if (nng_aio_result(aios[i]) == 0) {
            ok++;
            nng_msg_free(nng_aio_get_msg(aios[i]));
        }
        nng_aio_free(aios[i]);
        (void)nng_ctx_close(contexts[i]);
    }
    (void)nng_close(client);
    (void)nng_close(server);
    return ok;
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? strtod(argv[1], NULL) : 2.0;

    double raw = raw_bench(seconds);
    double ours = our_bench(seconds);
    printf("echo of %d bytes, %d clients, tcp loopback\n", PAYLOAD_BYTES, CLIENTS);
    printf("  bare nng, raw REP   %8.0f/s\n", raw);
    printf("  transport.h         %8.0f/s  (%.2f of it)\n", ours, ours / raw);
    printf("%d replies of %d bytes at once to one connection: arrived\n", BURST, BURST_BYTES);
    printf("  bare nng, raw REP   %8d\n", raw_burst());
    printf("  transport.h         %8d\n", our_burst());
    return 0;
}
