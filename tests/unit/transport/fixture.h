/*
 * fixture.h - a server that echoes, or keeps what it gets until the test says, and a client; for
 * the tests of transport.h.
 */
#ifndef CLOISTER_TESTS_UNIT_TRANSPORT_FIXTURE_H
#define CLOISTER_TESTS_UNIT_TRANSPORT_FIXTURE_H

#include "common/transport.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct test_server {
    struct transport_server *server;
    char url[64];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool keep; /* hold requests instead of echoing */
    struct transport_request *held[4096];
    size_t n_held;
    size_t n_seen;
};

/* `port` 0 chooses one; the URL in use is in t->url. */
void test_server_open(struct test_server *t, uint16_t port, const struct transport_tls *tls,
                      bool keep);
void test_server_close(struct test_server *t); /* frees what it holds */
uint16_t test_server_port(const struct test_server *t);
void test_server_wait_held(struct test_server *t, size_t n); /* until it holds n */
void test_server_echo_held(struct test_server *t, size_t index);

struct transport_client *test_client_open(const char *url, const struct transport_tls *tls);

/* What came of one asynchronous call. */
struct test_call {
    struct transport_call *call;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int replies;
    enum err err;
    char bytes[64];
    size_t size;
};

void test_call_start(struct test_call *t, struct transport_client *c, const void *bytes,
                     size_t size, uint32_t timeout_ms);
enum err test_call_wait(struct test_call *t);
void test_call_end(struct test_call *t); /* frees it; checks that it was answered once */

/* Bytes straight onto a TCP connection; returns the socket. */
int test_tcp_connect(uint16_t port);
uint16_t test_port_free(void);
void test_sleep_ms(unsigned ms);

#endif
