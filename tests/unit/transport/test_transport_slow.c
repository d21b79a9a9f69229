/*
 * The client of transport.h and a server that is slow, or silent: what is sent, what is not, and
 * how long it takes. The server is a bare socket.
 */
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/transport.h"
#include "tests/unit/transport/fixture.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

static const uint8_t answers[8] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};

/* Listens with a small window, so that little is on its way; the URL is that of the port. */
static int listen_slow(char url[64])
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int small = 65536;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    CHECK(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    (void)snprintf(url, 64, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    return fd;
}

static int accept_hello(int listener)
{
    uint8_t hello[8];
    int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0 && send(fd, answers, sizeof answers, MSG_NOSIGNAL) == sizeof answers);
    CHECK(recv(fd, hello, sizeof hello, MSG_WAITALL) == sizeof hello);
    return fd;
}

struct slow_server {
    int fd;
    size_t bytes_a_step; /* every 10 ms; 0: as fast as it comes */
    unsigned answered_max;
    atomic_size_t got;
    atomic_uint answered;
};

static bool slow_read(struct slow_server *s, uint8_t *bytes, size_t size)
{
    static _Thread_local uint8_t trash[1 << 20];
    for (size_t got = 0; got < size;) {
        size_t want = size - got;
        if (want > sizeof trash)
            want = sizeof trash;
        if (s->bytes_a_step > 0 && want > s->bytes_a_step)
            want = s->bytes_a_step;
        ssize_t n = recv(s->fd, bytes != NULL ? bytes + got : trash, want, 0);
        if (n <= 0)
            return false;
        got += (size_t)n;
        (void)atomic_fetch_add(&s->got, (size_t)n);
        if (s->bytes_a_step > 0 && bytes == NULL)
            test_sleep_ms(10);
    }
    return true;
}

/* Answers each request with nothing, until the client hangs up. */
static void *slow_serve(void *arg)
{
    struct slow_server *s = arg;
    uint8_t head[12];

    while (slow_read(s, head, sizeof head)) {
        size_t size =
            (size_t)head[4] << 24 | (size_t)head[5] << 16 | (size_t)head[6] << 8 | head[7];
        uint8_t reply[12] = {
            [7] = 4, [8] = head[8], [9] = head[9], [10] = head[10], [11] = head[11]};
        if (!slow_read(s, NULL, size - 4))
            break;
        if (s->answered_max > 0 && atomic_load(&s->answered) >= s->answered_max)
            continue;
        if (send(s->fd, reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply)
            break;
        (void)atomic_fetch_add(&s->answered, 1);
    }
    return NULL;
}

/* A line that takes nothing: the first call lies in it half sent. */
struct stalled {
    struct slow_server server;
    struct transport_client *client;
    struct test_call first;
    pthread_t thread;
    int listener;
};

static void stalled_open(struct stalled *s, const uint8_t *bytes, size_t size)
{
    char url[64];

    *s = (struct stalled){.listener = listen_slow(url)};
    s->client = test_client_open(url, NULL);
    s->server.fd = accept_hello(s->listener);
    test_call_start(&s->first, s->client, bytes, size, 20000);
    test_sleep_ms(100);
}

/* The server reads on, and the first call is answered. */
static void stalled_go_on(struct stalled *s)
{
    assert_int_equal(pthread_create(&s->thread, NULL, slow_serve, &s->server), 0);
    assert_int_equal(test_call_wait(&s->first), ERR_OK);
    test_call_end(&s->first);
}

static void stalled_close(struct stalled *s)
{
    transport_client_close(s->client);
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    assert_int_equal(close(s->server.fd), 0);
    assert_int_equal(close(s->listener), 0);
}

/* Trying again on a line that takes nothing must not fill it for when it does. */
static void what_ended_unsent_is_never_sent(void **state)
{
    enum { FIRST = 8 << 20, NEXT = 1 << 20, TRIES = 20 };
    static uint8_t bytes[FIRST];
    struct test_call next;
    struct stalled s;
    (void)state;

    stalled_open(&s, bytes, FIRST);
    for (int i = 0; i < TRIES; i++) {
        test_call_start(&next, s.client, bytes, NEXT, 50);
        assert_int_equal(test_call_wait(&next), ERR_TIMEOUT);
        test_call_end(&next);
    }
    stalled_go_on(&s);
    test_call_start(&next, s.client, bytes, 1, 20000);
    assert_int_equal(test_call_wait(&next), ERR_OK);
    test_call_end(&next);
    assert_int_equal(atomic_load(&s.server.got), FIRST + 1 + 2 * 12);
    stalled_close(&s);
}

static void cancelled_calls_are_not_sent_either(void **state)
{
    enum { FIRST = 8 << 20, CALLS = 200 };
    static uint8_t bytes[FIRST];
    static struct test_call calls[CALLS];
    struct stalled s;
    (void)state;

    stalled_open(&s, bytes, FIRST);
    for (int i = 0; i < CALLS; i++)
        test_call_start(&calls[i], s.client, bytes, 1000, 20000);
    for (int i = 0; i < CALLS; i++) {
        int k = (i * 37) % CALLS; /* from anywhere in the queue */
        transport_call_cancel(calls[k].call);
        assert_int_equal(test_call_wait(&calls[k]), ERR_CANCELLED);
        test_call_end(&calls[k]);
    }
    stalled_go_on(&s);
    test_sleep_ms(100);
    assert_int_equal(atomic_load(&s.server.got), FIRST + 12);
    stalled_close(&s);
}

static void unsent_requests_are_bounded(void **state)
{
    enum { CALLS = 6 };
    struct test_call calls[CALLS];
    struct transport_call *refused;
    struct errbuf eb = {{0}};
    char url[64];
    int n = 0;
    (void)state;

    uint8_t *bytes = calloc(1, LIMIT_FRAME_BYTES);
    assert_non_null(bytes);
    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", test_port_free());
    struct transport_client *client = test_client_open(url, NULL);
    for (; n < 3; n++)
        test_call_start(&calls[n], client, bytes, LIMIT_FRAME_BYTES, 20000);
    test_call_start(&calls[n++], client, bytes, LIMIT_FRAME_BYTES - 1000, 20000);
    assert_int_equal(transport_call_start(client, bytes, 2000, 20000, NULL, NULL, &refused, &eb),
                     ERR_BUSY);
    assert_non_null(strstr(eb.text, "64 MiB"));
    transport_call_cancel(calls[0].call);
    assert_int_equal(test_call_wait(&calls[0]), ERR_CANCELLED);
    test_call_start(&calls[n++], client, bytes, 2000, 20000); /* and now there is room */
    transport_client_close(client);
    for (int i = 0; i < n; i++)
        test_call_end(&calls[i]);
    free(bytes);
}

/* Many times the time of a call, and no call ends: neither the large one nor the small behind it.
 */
static void a_slow_line_takes_a_large_request(void **state)
{
    enum { SIZE = 8 << 20, TIMEOUT_MS = 400 };
    static uint8_t bytes[SIZE];
    struct test_call large, small;
    struct slow_server s = {.bytes_a_step = 30000};
    pthread_t thread;
    char url[64];
    (void)state;

    int listener = listen_slow(url);
    struct transport_client *client = test_client_open(url, NULL);
    s.fd = accept_hello(listener);
    assert_int_equal(pthread_create(&thread, NULL, slow_serve, &s), 0);
    uint64_t start_ms = clock_mono_ms();
    test_call_start(&large, client, bytes, SIZE, TIMEOUT_MS);
    test_call_start(&small, client, bytes, 100, 5 * TIMEOUT_MS);
    assert_int_equal(test_call_wait(&large), ERR_OK);
    assert_int_equal(test_call_wait(&small), ERR_OK);
    assert_in_range(clock_mono_ms() - start_ms, 3 * TIMEOUT_MS, 60000);
    test_call_end(&large);
    test_call_end(&small);
    transport_client_close(client);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(close(s.fd), 0);
    assert_int_equal(close(listener), 0);
}

/* The host went, and nobody said so: the client finds out by itself, and dials again. */
static void a_server_that_falls_silent_is_left(void **state)
{
    struct slow_server servers[2] = {{.answered_max = 3}, {0}};
    pthread_t threads[2];
    struct test_call call;
    char url[64];
    int timeouts = 0;
    (void)state;

    int listener = listen_slow(url);
    struct transport_client *client = test_client_open(url, NULL);
    servers[0].fd = accept_hello(listener);
    assert_int_equal(pthread_create(&threads[0], NULL, slow_serve, &servers[0]), 0);
    for (int i = 0; i < 3; i++) {
        test_call_start(&call, client, "x", 1, 5000);
        assert_int_equal(test_call_wait(&call), ERR_OK);
        test_call_end(&call);
    }
    enum err err = ERR_TIMEOUT;
    for (bool accepted = false; err != ERR_OK; timeouts++) {
        assert_in_range(timeouts, 0, 5);
        test_call_start(&call, client, "x", 1, 2000);
        struct timeval wait = {.tv_usec = 100000};
        fd_set fds;
        FD_ZERO(&fds);
        FD_SET(listener, &fds);
        if (!accepted && select(listener + 1, &fds, NULL, NULL, &wait) == 1) {
            accepted = true;
            servers[1].fd = accept_hello(listener);
            assert_int_equal(pthread_create(&threads[1], NULL, slow_serve, &servers[1]), 0);
        }
        err = test_call_wait(&call);
        test_call_end(&call);
    }
    transport_client_close(client);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(close(servers[i].fd), 0);
    }
    assert_int_equal(close(listener), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_ended_unsent_is_never_sent),
        cmocka_unit_test(cancelled_calls_are_not_sent_either),
        cmocka_unit_test(unsent_requests_are_bounded),
        cmocka_unit_test(a_slow_line_takes_a_large_request),
        cmocka_unit_test(a_server_that_falls_silent_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
