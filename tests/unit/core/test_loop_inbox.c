/*
 * The inbox between transport and loop, with real connections: who floods it waits for himself, who
 * asks little is always heard, and what nobody waits for is not done.
 */
#include "common/clock.h"
#include "coordinator/loop_inbox.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#define SOON_MS 8000u

static struct inbox *inbox;
static struct transport_server *server;

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

static void setup(const struct inbox_limits *limits)
{
    const struct transport_endpoint endpoint = {.url = "tcp://127.0.0.1:0"};
    struct errbuf eb = {{0}};
    assert_int_equal(inbox_open(&inbox, limits, &eb), ERR_OK);
    assert_int_equal(transport_server_open(&server, &endpoint, inbox_push, inbox, &eb), ERR_OK);
}

static void teardown(void)
{
    transport_server_close(server);
    inbox_close(inbox);
}

static int peer_open(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(transport_server_port(server)),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
    return fd;
}

/* A request of one byte. */
static void peer_ask(int fd, char what)
{
    uint8_t frame[13] = {[7] = 5, [8] = 0x80, [11] = 1, [12] = (uint8_t)what};
    assert_int_equal(send(fd, frame, sizeof frame, MSG_NOSIGNAL), sizeof frame);
}

static char request_byte(const struct transport_request *r)
{
    size_t size;
    const char *bytes = transport_request_bytes(r, &size);
    assert_int_equal(size, 1);
    return bytes[0];
}

/* The next one, waiting for it; NULL when none comes within the time. */
static struct transport_request *pop_within(unsigned ms)
{
    uint64_t until_ms = clock_mono_ms() + ms;
    struct transport_request *r;
    bool waits;
    while ((r = inbox_pop(inbox, &waits)) == NULL && clock_mono_ms() < until_ms)
        sleep_ms(2);
    return r;
}

static void one_of_each_connection_in_turn(void **state)
{
    const char *expected = "aBCaCaCaaaaaaa";
    int flood, b, c;
    (void)state;

    setup(&inbox_limits_default);
    flood = peer_open();
    for (int i = 0; i < 10; i++)
        peer_ask(flood, 'a');
    struct pollfd wake = {.fd = inbox_fd(inbox), .events = POLLIN};
    assert_int_equal(poll(&wake, 1, SOON_MS), 1);
    sleep_ms(100);
    b = peer_open();
    peer_ask(b, 'B');
    sleep_ms(100);
    c = peer_open();
    for (int i = 0; i < 3; i++)
        peer_ask(c, 'C');
    sleep_ms(100);
    inbox_clear_wake(inbox);
    assert_int_equal(poll(&wake, 1, 0), 0);
    for (size_t i = 0; i < 14; i++) {
        struct transport_request *r = pop_within(SOON_MS);
        assert_non_null(r);
        assert_int_equal(request_byte(r), expected[i]);
        transport_request_free(r);
    }
    bool waits = true;
    assert_null(inbox_pop(inbox, &waits));
    assert_false(waits);
    assert_true(close(flood) == 0 && close(b) == 0 && close(c) == 0);
    teardown();
}

static void a_full_inbox_takes_one_of_who_has_none_in_it(void **state)
{
    const struct inbox_limits few = {.requests = 5, .bytes = 1 << 20};
    (void)state;

    setup(&few);
    int flood = peer_open();
    for (int i = 0; i < 12; i++)
        peer_ask(flood, 'a');
    uint64_t until_ms = clock_mono_ms() + SOON_MS;
    while (inbox_dropped(inbox) < 7 && clock_mono_ms() < until_ms)
        sleep_ms(2);
    assert_int_equal(inbox_dropped(inbox), 7);
    int other = peer_open();
    peer_ask(other, 'B'); /* a heartbeat */
    peer_ask(other, 'C'); /* and no more */
    while (inbox_dropped(inbox) < 8 && clock_mono_ms() < until_ms)
        sleep_ms(2);
    for (const char *expected = "aBaaaa"; *expected != '\0'; expected++) {
        struct transport_request *r = pop_within(SOON_MS);
        assert_non_null(r);
        assert_int_equal(request_byte(r), *expected);
        transport_request_free(r);
    }
    assert_null(pop_within(50));
    assert_int_equal(inbox_dropped(inbox), 8);
    assert_true(close(flood) == 0 && close(other) == 0);
    teardown();
}

static void what_nobody_waits_for_is_not_handed_out(void **state)
{
    (void)state;

    setup(&inbox_limits_default);
    int gone = peer_open();
    for (int i = 0; i < 10; i++)
        peer_ask(gone, 'a');
    int stays = peer_open();
    peer_ask(stays, 'B');
    sleep_ms(200);
    assert_int_equal(close(gone), 0);
    sleep_ms(200);
    struct transport_request *r = pop_within(SOON_MS);
    assert_non_null(r);
    assert_int_equal(request_byte(r), 'B');
    transport_request_free(r);
    assert_null(pop_within(100));
    assert_int_equal(close(stays), 0);
    teardown();
}

static void who_takes_no_replies_waits_and_nobody_else(void **state)
{
    static char reply[4 << 20];
    size_t replies = 0;
    bool waits = false;
    (void)state;

    setup(&inbox_limits_default);
    int greedy = peer_open();
    for (int i = 0; i < 20; i++)
        peer_ask(greedy, 'a');
    for (struct transport_request *r; (r = pop_within(200)) != NULL; replies++)
        (void)transport_request_reply(server, r, reply, sizeof reply, NULL);
    /* Some are with the system. */
    assert_in_range(replies, 3, 10);
    assert_null(inbox_pop(inbox, &waits));
    assert_true(waits);
    int other = peer_open();
    peer_ask(other, 'B');
    struct transport_request *r = pop_within(SOON_MS);
    assert_non_null(r);
    assert_int_equal(request_byte(r), 'B');
    transport_request_free(r);

    /* It takes them after all. */
    size_t wanted = 8 + 20 * (sizeof reply + 12);
    uint64_t until_ms = clock_mono_ms() + 4 * SOON_MS;
    for (size_t got = 0; got < wanted;) {
        static char bytes[1 << 20];
        assert_true(clock_mono_ms() < until_ms);
        ssize_t n = recv(greedy, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n > 0)
            got += (size_t)n;
        while ((r = inbox_pop(inbox, &waits)) != NULL)
            (void)transport_request_reply(server, r, reply, sizeof reply, NULL);
    }
    assert_true(close(greedy) == 0 && close(other) == 0);
    teardown();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_each_connection_in_turn),
        cmocka_unit_test(a_full_inbox_takes_one_of_who_has_none_in_it),
        cmocka_unit_test(what_nobody_waits_for_is_not_handed_out),
        cmocka_unit_test(who_takes_no_replies_waits_and_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
