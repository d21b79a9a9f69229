/*
 * What a peer can make us hold, and for how long: requests, replies, frames that do not end,
 * connections. Peers here are bare sockets, since transport.h itself keeps to all of it.
 */
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/transport.h"
#include "common/transport_conn.h"
#include "common/transport_nng.h"
#include "tests/unit/transport/fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

#define SOON_MS 8000u
static const char asks[] = "\0SP\0\0\x30\0\0";

/* ---- a server that admits who says so ---- */

static struct transport_server *door;
static char door_url[64];
static atomic_uint door_seen;

static void door_request(void *arg, struct transport_request *r)
{
    size_t size;
    const char *bytes = transport_request_bytes(r, &size);
    (void)arg;
    (void)atomic_fetch_add(&door_seen, 1);
    if (size == 5 && memcmp(bytes, "known", 5) == 0)
        transport_request_admit(r);
    (void)transport_request_reply(door, r, bytes, size, NULL);
}

static void door_open(uint32_t stranger_ms, uint64_t idle_ms)
{
    const struct transport_endpoint endpoint = {.url = "tcp://127.0.0.1:0"};
    struct errbuf eb = {{0}};
    assert_int_equal(transport_server_open(&door, &endpoint, door_request, NULL, &eb), ERR_OK);
    transport_server_expect(door, stranger_ms, idle_ms);
    (void)snprintf(door_url, sizeof door_url, "tcp://127.0.0.1:%u", transport_server_port(door));
    atomic_store(&door_seen, 0);
}

static enum err say(struct transport_client *client, const char *text)
{
    struct test_call call;
    test_call_start(&call, client, text, strlen(text), 5000);
    enum err err = test_call_wait(&call);
    test_call_end(&call);
    return err;
}

static void send_all(int fd, const void *bytes, size_t size)
{
    const char *from = bytes;
    while (size > 0) {
        ssize_t n = send(fd, from, size, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* closed meanwhile */
        from += n;
        size -= (size_t)n;
    }
}

/* Whether the other side has closed it, looking for so long. */
static bool is_closed(int fd, unsigned within_ms)
{
    char bytes[4096];
    uint64_t until_ms = clock_mono_ms() + within_ms;
    for (;;) {
        ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN))
            return true;
        if (n < 0 && clock_mono_ms() >= until_ms)
            return false;
        if (n < 0)
            test_sleep_ms(10);
    }
}

static void put_be32(uint8_t *bytes, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* The first twelve bytes of a request whose payload has `size`. */
static void send_head(int fd, uint32_t size)
{
    uint8_t head[12] = {0};
    put_be32(head + 4, size + 4);
    put_be32(head + 8, 0x80000001u);
    send_all(fd, head, sizeof head);
}

/* ---- requests that nobody has answered yet ---- */

static size_t held_of(struct test_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    size_t n = server->n_held;
    (void)pthread_mutex_unlock(&server->lock);
    return n;
}

static void a_connection_has_so_many_requests_unanswered(void **state)
{
    enum { REQUESTS = 10000, MOST = 4096 };
    static struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    int fd = test_tcp_connect(test_server_port(&server));
    send_all(fd, asks, 8);
    for (int i = 0; i < REQUESTS; i++)
        send_head(fd, 0);
    test_server_wait_held(&server, MOST);
    test_sleep_ms(200);
    assert_int_equal(held_of(&server), MOST); /* its array has room for no more, either */
    struct transport_client *other = test_client_open(server.url, NULL);
    (void)pthread_mutex_lock(&server.lock);
    server.keep = false;
    (void)pthread_mutex_unlock(&server.lock);
    assert_int_equal(say(other, "x"), ERR_OK); /* nobody else waits for it */

    for (size_t i = 0; i < MOST; i++)
        test_server_echo_held(&server, i);
    server.n_held = 0;
    for (size_t got = 0; got < 8 + REQUESTS * 12;) {
        char bytes[65536];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        assert_true(n > 0);
        got += (size_t)n;
    }
    transport_client_close(other);
    assert_int_equal(close(fd), 0);
    test_server_close(&server);
}

static void who_takes_no_replies_is_closed_in_the_end(void **state)
{
    enum { REQUESTS = 2000, REPLY_BYTES = 200000 };
    static struct test_server server;
    static char reply[REPLY_BYTES];
    size_t i = 0;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    int fd = test_tcp_connect(test_server_port(&server));
    send_all(fd, asks, 8);
    for (int k = 0; k < REQUESTS; k++)
        send_head(fd, 0);
    test_server_wait_held(&server, REQUESTS);
    for (; i < REQUESTS && !transport_request_way(server.held[i]).closed; i++) {
        assert_in_range(transport_request_way(server.held[i]).queued_bytes, 0, 270 << 20);
        (void)transport_request_reply(server.server, server.held[i], reply, sizeof reply, NULL);
    }
    assert_in_range(i, 1, REQUESTS - 1);
    for (; i < REQUESTS; i++)
        transport_request_free(server.held[i]);
    server.n_held = 0;
    assert_int_equal(close(fd), 0);
    test_server_close(&server);
}

/* ---- frames that do not end: one connection, under a clock of ours ---- */

struct watched {
    atomic_size_t buffer; /* the most that on_buffer said */
    atomic_uint frames;
    atomic_bool up, down;
};

static void watched_up(void *arg, struct transport_conn *conn)
{
    (void)conn;
    atomic_store(&((struct watched *)arg)->up, true);
}

static void watched_frame(void *arg, struct transport_conn *conn, struct transport_received *frame)
{
    (void)conn;
    (void)atomic_fetch_add(&((struct watched *)arg)->frames, 1);
    free(frame->block);
}

static bool watched_buffer(void *arg, struct transport_conn *conn, size_t bytes)
{
    struct watched *w = arg;
    (void)conn;
    if (bytes > atomic_load(&w->buffer))
        atomic_store(&w->buffer, bytes);
    return true;
}

static void watched_down(void *arg, struct transport_conn *conn)
{
    (void)conn;
    atomic_store(&((struct watched *)arg)->down, true);
}

static void wait_for(atomic_bool *what)
{
    uint64_t until_ms = clock_mono_ms() + SOON_MS;
    while (!atomic_load(what)) {
        assert_true(clock_mono_ms() < until_ms);
        test_sleep_ms(2);
    }
}

static const struct transport_conn_ops watched_ops = {
    .ours = TRANSPORT_PROTOCOL_REP,
    .theirs = TRANSPORT_PROTOCOL_REQ,
    .on_up = watched_up,
    .on_frame = watched_frame,
    .on_buffer = watched_buffer,
    .on_down = watched_down,
};

/* Its other end is the socket. */
static struct transport_conn *watched_new(struct watched *w, int *ret_fd)
{
    const struct transport_endpoint endpoint = {.url = "tcp://127.0.0.1:0"};
    nng_stream_listener *listener;
    nng_aio *aio;
    uint16_t port;

    assert_int_equal(transport_listener_new(&listener, &port, &endpoint, NULL), ERR_OK);
    assert_int_equal(nng_aio_alloc(&aio, NULL, NULL), 0);
    nng_stream_listener_accept(listener, aio);
    *ret_fd = test_tcp_connect(port);
    nng_aio_wait(aio);
    assert_int_equal(nng_aio_result(aio), 0);
    struct transport_conn *conn = transport_conn_new(nng_aio_get_output(aio, 0), &watched_ops, w);
    assert_non_null(conn);
    transport_conn_start(conn);
    nng_aio_free(aio);
    nng_stream_listener_free(listener);
    send_all(*ret_fd, asks, 8);
    wait_for(&w->up);
    return conn;
}

static void wait_heard(struct transport_conn *conn, size_t frame_bytes, const struct watched *w)
{
    uint64_t until_ms = clock_mono_ms() + SOON_MS;
    while (atomic_load(&w->buffer) < frame_bytes) {
        assert_true(clock_mono_ms() < until_ms);
        test_sleep_ms(2);
    }
    while (transport_conn_look(conn).frame_ms == 0)
        test_sleep_ms(2);
}

/* What is announced costs nothing; what has come costs twice as much at most. */
static void a_body_grows_as_it_comes(void **state)
{
    enum { SENT = 300000 };
    static uint8_t bytes[SENT];
    struct watched w = {0};
    int fd;
    (void)state;

    struct transport_conn *conn = watched_new(&w, &fd);
    send_head(fd, LIMIT_FRAME_BYTES);
    test_sleep_ms(50);
    assert_int_equal(atomic_load(&w.buffer), 0);
    send_all(fd, bytes, sizeof bytes);
    wait_heard(conn, SENT, &w);
    test_sleep_ms(50);
    assert_in_range(atomic_load(&w.buffer), SENT, 2 * SENT + TRANSPORT_SMALL_BYTES);
    transport_conn_close(conn);
    wait_for(&w.down);
    transport_conn_release(conn);
    assert_int_equal(close(fd), 0);
}

static void a_frame_that_stops_or_crawls_ends_the_connection(void **state)
{
    static uint8_t bytes[100000];
    (void)state;

    for (int crawls = 0; crawls < 2; crawls++) {
        struct watched w = {0};
        int fd;
        struct transport_conn *conn = watched_new(&w, &fd);
        uint64_t start_ms = clock_mono_ms();
        send_head(fd, LIMIT_FRAME_BYTES);
        send_all(fd, bytes, sizeof bytes);
        wait_heard(conn, sizeof bytes, &w);
        for (int i = 0; crawls && i < 50; i++) {
            send_all(fd, bytes, 1);
            test_sleep_ms(2);
        }
        transport_conn_check(conn, start_ms + TRANSPORT_PACE_MS - 1000);
        assert_false(transport_conn_look(conn).closed);
        transport_conn_check(conn, start_ms + TRANSPORT_PACE_MS + 1000);
        wait_for(&w.down);
        transport_conn_release(conn);
        assert_int_equal(close(fd), 0);
    }
}

/* The time begins again with every TRANSPORT_PACE_BYTES. */
static void a_frame_that_keeps_the_pace_stays(void **state)
{
    static uint8_t bytes[TRANSPORT_PACE_BYTES];
    struct watched w = {0};
    int fd;
    (void)state;

    struct transport_conn *conn = watched_new(&w, &fd);
    send_head(fd, LIMIT_FRAME_BYTES);
    test_sleep_ms(500);
    uint64_t middle_ms = clock_mono_ms();
    send_all(fd, bytes, sizeof bytes);
    wait_heard(conn, sizeof bytes, &w);
    test_sleep_ms(50);
    transport_conn_check(conn, middle_ms + TRANSPORT_PACE_MS - 100);
    assert_false(transport_conn_look(conn).closed);
    for (size_t sent = sizeof bytes; sent < LIMIT_FRAME_BYTES; sent += sizeof bytes)
        send_all(fd, bytes, sizeof bytes);
    uint64_t until_ms = clock_mono_ms() + SOON_MS;
    while (atomic_load(&w.frames) == 0) {
        assert_true(clock_mono_ms() < until_ms);
        test_sleep_ms(2);
    }
    /* Between frames there is no hurry. */
    test_sleep_ms(20);
    transport_conn_check(conn, clock_mono_ms() + 100 * TRANSPORT_PACE_MS);
    assert_false(transport_conn_look(conn).closed);
    transport_conn_close(conn);
    wait_for(&w.down);
    transport_conn_release(conn);
    assert_int_equal(close(fd), 0);
}

static void who_takes_nothing_loses_its_connection(void **state)
{
    static uint8_t bytes[8 << 20];
    struct watched w = {0};
    int fd;
    (void)state;

    struct transport_conn *conn = watched_new(&w, &fd);
    struct transport_frame *frame = transport_frame_new(0x80000001u, bytes, sizeof bytes);
    assert_true(frame != NULL && transport_conn_send(conn, frame));
    test_sleep_ms(100);
    transport_conn_check(conn, clock_mono_ms() + TRANSPORT_PACE_MS - 1000);
    assert_false(transport_conn_look(conn).closed);
    transport_conn_check(conn, clock_mono_ms() + TRANSPORT_PACE_MS + 1000);
    wait_for(&w.down);
    transport_conn_release(conn);
    assert_int_equal(close(fd), 0);
}

/* ---- strangers ---- */

static void strangers_share_a_small_part_of_memory(void **state)
{
    enum { STRANGERS = 12, EACH = 8 << 20 };
    static uint8_t bytes[EACH];
    int fds[STRANGERS];
    size_t closed = 0;
    (void)state;

    door_open(60000, 60000);
    struct transport_client *known = test_client_open(door_url, NULL);
    assert_int_equal(say(known, "known"), ERR_OK);
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = test_tcp_connect(transport_server_port(door));
        send_all(fds[i], asks, 8);
        send_head(fds[i], LIMIT_FRAME_BYTES);
        send_all(fds[i], bytes, sizeof bytes);
    }
    test_sleep_ms(300);
    for (int i = 0; i < STRANGERS; i++)
        closed += is_closed(fds[i], 0);
    /* 64 MiB for all; a buffer of 8 MiB that has come has 8 or 16. */
    assert_in_range(closed, STRANGERS - 8, STRANGERS - 3);
    assert_false(is_closed(fds[STRANGERS - 1], 0)); /* those who came first went first */
    assert_true(is_closed(fds[0], 0));
    assert_int_equal(say(known, "still here"), ERR_OK);
    for (int i = 0; i < STRANGERS; i++)
        assert_int_equal(close(fds[i]), 0);
    transport_client_close(known);
    transport_server_close(door);
}

static void a_stranger_asks_little_at_once(void **state)
{
    static struct test_server server;
    (void)state;

    test_server_open(&server, 0, NULL, true);
    transport_server_expect(server.server, 60000, 60000);
    int fd = test_tcp_connect(test_server_port(&server));
    send_all(fd, asks, 8);
    for (int i = 0; i < 100; i++)
        send_head(fd, 0);
    test_server_wait_held(&server, 16);
    test_sleep_ms(200);
    assert_int_equal(held_of(&server), 16);
    transport_request_admit(server.held[0]); /* and as soon as it is known, the rest comes */
    test_server_wait_held(&server, 100);
    assert_int_equal(close(fd), 0);
    test_server_close(&server);
}

static void a_stranger_stays_for_a_while(void **state)
{
    (void)state;

    door_open(300, 3600000);
    struct transport_client *known = test_client_open(door_url, NULL);
    assert_int_equal(say(known, "known"), ERR_OK);
    int talks = test_tcp_connect(transport_server_port(door));
    int silent = test_tcp_connect(transport_server_port(door));
    send_all(talks, asks, 8);
    send_head(talks, 0);
    assert_true(is_closed(talks, SOON_MS));
    assert_true(is_closed(silent, SOON_MS));
    struct test_call call; /* on its old connection, or it would end */
    unsigned seen = atomic_load(&door_seen);
    test_call_start(&call, known, "x", 1, 5000);
    assert_int_equal(test_call_wait(&call), ERR_OK);
    test_call_end(&call);
    assert_int_equal(atomic_load(&door_seen), seen + 1);
    assert_int_equal(close(talks), 0);
    assert_int_equal(close(silent), 0);
    transport_client_close(known);
    transport_server_close(door);
}

static void who_was_known_stays_until_it_is_idle(void **state)
{
    (void)state;

    door_open(10000, 700);
    int fd = test_tcp_connect(transport_server_port(door));
    uint8_t request[17] = {[7] = 9, [8] = 0x80, [11] = 1};
    memcpy(request + 12, "known", 5);
    send_all(fd, asks, 8);
    for (int i = 0; i < 10; i++) { /* 2 s in all */
        send_all(fd, request, sizeof request);
        assert_false(is_closed(fd, 200));
    }
    assert_true(is_closed(fd, SOON_MS));
    assert_int_equal(close(fd), 0);
    transport_server_close(door);
}

/* ---- connections ---- */

/* In a process of its own, since it is this one's files that are to run out. */
static int hold_connections(const char *port, int n)
{
    for (int i = 0; i < n; i++)
        send_all(test_tcp_connect((uint16_t)atoi(port)), asks, 8);
    (void)pause();
    return 0;
}

static void too_many_connections_leave_files_and_keep_who_is_known(void **state)
{
    struct rlimit before, few;
    char port[16];
    char *argv[] = {"test_transport_bounds", "--hold", port, NULL};
    pid_t child;
    (void)state;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = (struct rlimit){.rlim_cur = 200, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    door_open(60000, 60000);
    struct transport_client *known = test_client_open(door_url, NULL);
    assert_int_equal(say(known, "known"), ERR_OK);
    (void)snprintf(port, sizeof port, "%u", transport_server_port(door));
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    test_sleep_ms(1500);

    FILE *f = fopen("/dev/null", "r");
    assert_non_null(f);
    (void)fclose(f);
    assert_int_equal(say(known, "still here"), ERR_OK);
    struct transport_client *another = test_client_open(door_url, NULL);
    assert_int_equal(say(another, "known"), ERR_OK);
    assert_int_equal(say(another, "and stays"), ERR_OK);

    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    transport_client_close(another);
    transport_client_close(known);
    transport_server_close(door);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--hold") == 0)
        return hold_connections(argv[2], 180);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_has_so_many_requests_unanswered),
        cmocka_unit_test(who_takes_no_replies_is_closed_in_the_end),
        cmocka_unit_test(a_body_grows_as_it_comes),
        cmocka_unit_test(a_frame_that_stops_or_crawls_ends_the_connection),
        cmocka_unit_test(a_frame_that_keeps_the_pace_stays),
        cmocka_unit_test(who_takes_nothing_loses_its_connection),
        cmocka_unit_test(strangers_share_a_small_part_of_memory),
        cmocka_unit_test(a_stranger_asks_little_at_once),
        cmocka_unit_test(a_stranger_stays_for_a_while),
        cmocka_unit_test(who_was_known_stays_until_it_is_idle),
        cmocka_unit_test(too_many_connections_leave_files_and_keep_who_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
