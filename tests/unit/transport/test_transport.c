#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/transport.h"
#include "tests/unit/transport/fixture.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

static void echo_check(struct transport_client *client, const char *text)
{
    struct errbuf eb = {{0}};
    struct buf reply;
    buf_init(&reply);
    assert_int_equal(transport_call(client, text, strlen(text), 10000, &reply, &eb), ERR_OK);
    assert_string_equal(buf_str(&reply), text);
    buf_fini(&reply);
}

/* ---- what it is for ---- */

static void echo_any_size(void **state)
{
    static const size_t sizes[] = {0, 1, 1000, 1 << 20, LIMIT_FRAME_BYTES};
    struct test_server server;
    struct buf reply;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_client *client = test_client_open(server.url, NULL);
    uint8_t *bytes = malloc(LIMIT_FRAME_BYTES);
    assert_non_null(bytes);
    for (size_t i = 0; i < LIMIT_FRAME_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    buf_init(&reply);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(transport_call(client, bytes, sizes[i], 30000, &reply, NULL), ERR_OK);
        assert_int_equal(reply.size, sizes[i]);
        assert_true(sizes[i] == 0 || memcmp(reply.data, bytes, sizes[i]) == 0);
    }
    buf_fini(&reply);
    free(bytes);
    transport_client_close(client);
    test_server_close(&server);
}

/* Many polls of one client, all parked, then all answered at once and in another order. */
static void parked_calls_are_answered_in_any_order(void **state)
{
    enum { CALLS = 1000 };
    static struct test_call calls[CALLS];
    struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    for (uint32_t i = 0; i < CALLS; i++)
        test_call_start(&calls[i], client, &i, sizeof i, 30000);
    test_server_wait_held(&server, CALLS);
    /* 389 and 1000 have no common factor: every index once. */
    for (size_t i = 0; i < CALLS; i++)
        test_server_echo_held(&server, (i * 389 + 17) % CALLS);
    server.n_held = 0;
    for (uint32_t i = 0; i < CALLS; i++) {
        assert_int_equal(test_call_wait(&calls[i]), ERR_OK);
        assert_int_equal(calls[i].size, sizeof i);
        assert_memory_equal(calls[i].bytes, &i, sizeof i);
        test_call_end(&calls[i]);
    }
    transport_client_close(client);
    test_server_close(&server);
}

static void *many_echoes(void *arg)
{
    struct transport_client *client = arg;
    for (int i = 0; i < 200; i++) {
        char text[32];
        (void)snprintf(text, sizeof text, "%p %d", (void *)&text, i);
        echo_check(client, text);
    }
    return NULL;
}

static void threads_share_one_client(void **state)
{
    pthread_t threads[8];
    struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_client *client = test_client_open(server.url, NULL);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, many_echoes, client), 0);
    for (size_t i = 0; i < 8; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    transport_client_close(client);
    test_server_close(&server);
}

static void requests_name_their_connection(void **state)
{
    struct test_server server;
    struct test_call calls[3];
    uint64_t seen[3];
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *one = test_client_open(server.url, NULL);
    struct transport_client *other = test_client_open(server.url, NULL);
    for (size_t i = 0; i < 3; i++) {
        test_call_start(&calls[i], i == 1 ? other : one, "x", 1, 10000);
        test_server_wait_held(&server, i + 1);
        seen[i] = transport_request_connection(server.held[i]);
        assert_true(seen[i] != 0);
    }
    assert_true(seen[0] == seen[2]);
    assert_true(seen[0] != seen[1]);
    for (size_t i = 0; i < 3; i++) {
        test_server_echo_held(&server, i);
        assert_int_equal(test_call_wait(&calls[i]), ERR_OK);
        test_call_end(&calls[i]);
    }
    transport_client_close(other);
    transport_client_close(one);
    test_server_close(&server);
}

/* ---- bounds ---- */

static void oversize_request_is_not_sent(void **state)
{
    struct errbuf eb = {{0}};
    struct test_server server;
    struct buf reply;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_client *client = test_client_open(server.url, NULL);
    uint8_t *bytes = calloc(1, LIMIT_FRAME_BYTES + 1);
    assert_non_null(bytes);
    buf_init(&reply);
    assert_int_equal(transport_call(client, bytes, LIMIT_FRAME_BYTES + 1, 1000, &reply, &eb),
                     ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "LIMIT_FRAME_BYTES"));
    assert_int_equal(server.n_seen, 0);
    echo_check(client, "and goes on");
    buf_fini(&reply);
    free(bytes);
    transport_client_close(client);
    test_server_close(&server);
}

static void oversize_reply_is_an_error_for_who_sends_it(void **state)
{
    struct errbuf eb = {{0}};
    struct test_server server;
    struct test_call call;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    uint8_t *bytes = calloc(1, LIMIT_FRAME_BYTES + 1);
    assert_non_null(bytes);
    test_call_start(&call, client, "x", 1, 300);
    test_server_wait_held(&server, 1);
    assert_int_equal(
        transport_request_reply(server.server, server.held[0], bytes, LIMIT_FRAME_BYTES + 1, &eb),
        ERR_TOO_LARGE);
    server.n_held = 0;
    assert_int_equal(test_call_wait(&call), ERR_TIMEOUT);
    test_call_end(&call);
    free(bytes);
    transport_client_close(client);
    test_server_close(&server);
}

/* What a peer that is no cloister may write to the port; none may harm the server. */
static void garbage_harms_nobody(void **state)
{
    static const struct {
        const char *what;
        const char *bytes;
        size_t size;
    } rows[] = {
        {"nothing", "", 0},
        {"HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
        {"half a header", "\0SP", 3},
        {"another protocol", "\0SP\0\0\x10\0\0", 8},
        {"an empty message", "\0SP\0\0\x30\0\0\0\0\0\0\0\0\0\0", 16},
        {"a message without a request id", "\0SP\0\0\x30\0\0\0\0\0\0\0\0\0\2ab", 18},
        {"a message cut short", "\0SP\0\0\x30\0\0\0\0\0\0\0\0\1\0abc", 19},
        {"hops without end",
         "\0SP\0\0\x30\0\0\0\0\0\0\0\0\0\x28"
         "0123456789012345678901234567890123456789",
         56},
        {"17 MB", "\0SP\0\0\x30\0\0\0\0\0\0\1\x10\0\0", 16},
        {"2^63 bytes", "\0SP\0\0\x30\0\0\x80\0\0\0\0\0\0\0", 16},
    };
    struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_client *client = test_client_open(server.url, NULL);
    echo_check(client, "before");
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            int fd = test_tcp_connect(test_server_port(&server));
            assert_true(send(fd, rows[i].bytes, rows[i].size, MSG_NOSIGNAL) ==
                        (ssize_t)rows[i].size);
            if (round == 1)
                test_sleep_ms(20);
            struct linger abort = {.l_onoff = 1, .l_linger = 0};
            if (round == 2)
                (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
            assert_int_equal(close(fd), 0);
        }
    }
    assert_int_equal(server.n_seen, 1);
    echo_check(client, "the old connection lives");
    struct transport_client *another = test_client_open(server.url, NULL);
    echo_check(another, "and new ones are accepted");
    transport_client_close(another);
    transport_client_close(client);
    test_server_close(&server);
}

/* ---- ends ---- */

static void silence_is_a_timeout(void **state)
{
    struct errbuf eb = {{0}};
    struct test_server server;
    struct buf reply;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    buf_init(&reply);
    uint64_t start = clock_mono_ms();
    assert_int_equal(transport_call(client, "x", 1, 150, &reply, &eb), ERR_TIMEOUT);
    uint64_t took = clock_mono_ms() - start;
    assert_in_range(took, 150, 5000);
    assert_non_null(strstr(eb.text, "150 ms"));
    buf_fini(&reply);
    transport_client_close(client);
    test_server_close(&server);
}

static void nobody_there_is_unavailable(void **state)
{
    struct errbuf eb = {{0}};
    char url[64];
    struct buf reply;
    (void)state;

    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", test_port_free());
    struct transport_client *client = test_client_open(url, NULL);
    buf_init(&reply);
    assert_int_equal(transport_call(client, "x", 1, 200, &reply, &eb), ERR_UNAVAILABLE);
    assert_non_null(strstr(eb.text, url));
    buf_fini(&reply);
    transport_client_close(client);
}

static void call_waits_for_the_server_to_come(void **state)
{
    struct test_server server;
    struct test_call call;
    char url[64];
    uint16_t port = test_port_free();
    (void)state;

    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", port);
    struct transport_client *client = test_client_open(url, NULL);
    test_call_start(&call, client, "early", 5, 20000);
    test_sleep_ms(300);
    test_server_open(&server, port, NULL, false);
    uint64_t start = clock_mono_ms();
    assert_int_equal(test_call_wait(&call), ERR_OK);
    assert_in_range(clock_mono_ms() - start, 0, 2000);
    test_call_end(&call);
    transport_client_close(client);
    test_server_close(&server);
}

/* The coordinator dies with a call parked: the caller hears of it at once, and finds the next one
 * at the same place. The request is not sent again by itself. */
static void server_restart_ends_calls_and_is_found_again(void **state)
{
    struct test_server server;
    struct test_call call;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    uint16_t port = test_server_port(&server);
    struct transport_client *client = test_client_open(server.url, NULL);
    for (int round = 0; round < 5; round++) {
        test_call_start(&call, client, "parked", 6, 60000);
        test_server_wait_held(&server, 1);
        uint64_t start = clock_mono_ms();
        test_server_close(&server);
        assert_int_equal(test_call_wait(&call), ERR_UNAVAILABLE);
        assert_in_range(clock_mono_ms() - start, 0, 2000);
        test_call_end(&call);

        test_server_open(&server, port, NULL, false);
        start = clock_mono_ms();
        echo_check(client, "again");
        assert_in_range(clock_mono_ms() - start, 0, 2000);
        assert_int_equal(server.n_seen, 1);
        (void)pthread_mutex_lock(&server.lock);
        server.keep = true;
        (void)pthread_mutex_unlock(&server.lock);
    }
    transport_client_close(client);
    test_server_close(&server);
}

/* A reply to somebody who is gone is no error: it proves nothing either. */
static void client_gone_before_the_reply(void **state)
{
    struct test_server server;
    struct test_call call;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    test_call_start(&call, client, "x", 1, 60000);
    test_server_wait_held(&server, 1);
    transport_client_close(client);
    assert_int_equal(test_call_wait(&call), ERR_CANCELLED);
    test_call_end(&call);
    test_server_echo_held(&server, 0);
    server.n_held = 0;
    server.keep = false;
    client = test_client_open(server.url, NULL);
    echo_check(client, "the next one");
    transport_client_close(client);
    test_server_close(&server);
}

static void client_killed_while_it_waits(void **state)
{
    struct test_server server;
    char *argv[] = {"test_transport", "--wait-at", server.url, NULL};
    pid_t child;
    int status;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    test_server_wait_held(&server, 10);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    for (size_t i = 0; i < 10; i++)
        test_server_echo_held(&server, i);
    server.n_held = 0;
    server.keep = false;
    struct transport_client *client = test_client_open(server.url, NULL);
    echo_check(client, "the next one");
    transport_client_close(client);
    test_server_close(&server);
}

/* In the process that is to be killed. */
static int wait_at(const char *url)
{
    static struct test_call calls[10];
    struct transport_client *client = test_client_open(url, NULL);
    for (size_t i = 0; i < 10; i++)
        test_call_start(&calls[i], client, "x", 1, 60000);
    (void)pause();
    return 0;
}

/* ---- cancelling ---- */

static void cancel_ends_a_parked_call(void **state)
{
    struct test_server server;
    struct test_call call;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    test_call_start(&call, client, "x", 1, 60000);
    test_server_wait_held(&server, 1);
    transport_call_cancel(call.call);
    assert_int_equal(test_call_wait(&call), ERR_CANCELLED);
    transport_call_cancel(call.call);
    test_call_end(&call);
    transport_client_close(client);
    test_server_close(&server);
}

/* Cancel may meet the call at any step: unsent, sent, answered, over. Each is answered once. */
static void cancel_races_with_completion(void **state)
{
    struct test_server server;
    int cancelled = 0;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_client *client = test_client_open(server.url, NULL);
    echo_check(client, "connected");
    for (unsigned i = 0; i < 1000; i++) {
        struct test_call call;
        test_call_start(&call, client, "x", 1, 60000);
        for (volatile unsigned spin = 0; spin < (i % 100) * 500; spin++)
            ;
        transport_call_cancel(call.call);
        enum err err = test_call_wait(&call);
        assert_true(err == ERR_OK || err == ERR_CANCELLED);
        cancelled += err == ERR_CANCELLED;
        test_call_end(&call);
    }
    assert_true(cancelled > 0);
    echo_check(client, "and it still works");
    transport_client_close(client);
    test_server_close(&server);
}

static void close_cancels_what_is_under_way(void **state)
{
    static struct test_call calls[100];
    struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    struct transport_client *client = test_client_open(server.url, NULL);
    for (size_t i = 0; i < 100; i++)
        test_call_start(&calls[i], client, "x", 1, 60000);
    test_server_wait_held(&server, 10);
    transport_client_close(client);
    for (size_t i = 0; i < 100; i++) {
        assert_int_equal(calls[i].replies, 1);
        assert_int_equal(calls[i].err, ERR_CANCELLED);
        test_call_end(&calls[i]);
    }
    test_server_close(&server);
}

static void open_and_close_leave_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct test_server server;
        test_server_open(&server, 0, NULL, false);
        struct transport_client *client = test_client_open(server.url, NULL);
        if (i % 3 != 0)
            echo_check(client, "x");
        if (i % 2 == 0) {
            transport_client_close(client);
            test_server_close(&server);
        } else {
            test_server_close(&server);
            transport_client_close(client);
        }
    }
    transport_client_close(NULL);
    transport_server_close(NULL);
    transport_call_free(NULL);
}

static void a_port_in_use_is_said(void **state)
{
    struct errbuf eb = {{0}};
    struct test_server server;
    struct transport_server *second;
    (void)state;

    test_server_open(&server, 0, NULL, false);
    struct transport_endpoint endpoint = {.url = server.url};
    assert_int_equal(transport_server_open(&second, &endpoint, NULL, NULL, &eb), ERR_IO);
    assert_non_null(strstr(eb.text, server.url));
    assert_non_null(strstr(eb.text, "in use"));
    test_server_close(&server);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--wait-at") == 0)
        return wait_at(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(echo_any_size),
        cmocka_unit_test(parked_calls_are_answered_in_any_order),
        cmocka_unit_test(threads_share_one_client),
        cmocka_unit_test(requests_name_their_connection),
        cmocka_unit_test(oversize_request_is_not_sent),
        cmocka_unit_test(oversize_reply_is_an_error_for_who_sends_it),
        cmocka_unit_test(garbage_harms_nobody),
        cmocka_unit_test(silence_is_a_timeout),
        cmocka_unit_test(nobody_there_is_unavailable),
        cmocka_unit_test(call_waits_for_the_server_to_come),
        cmocka_unit_test(server_restart_ends_calls_and_is_found_again),
        cmocka_unit_test(client_gone_before_the_reply),
        cmocka_unit_test(client_killed_while_it_waits),
        cmocka_unit_test(cancel_ends_a_parked_call),
        cmocka_unit_test(cancel_races_with_completion),
        cmocka_unit_test(close_cancels_what_is_under_way),
        cmocka_unit_test(open_and_close_leave_nothing),
        cmocka_unit_test(a_port_in_use_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
