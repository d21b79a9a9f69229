/*
 * How connections end: both sides at once, in the middle of a frame, with a peer that is killed.
 * Afterwards nothing may be left, and nobody may wait.
 */
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/transport.h"
#include "tests/unit/transport/fixture.h"
#include "tests/unit/transport/tls_files.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

enum { PARKED = 8, TALKERS = 4 };
/* Milliseconds as a rule; this much on a busy machine, under a sanitizer. */
#define SOON_MS 4000

static struct tls_files files;

struct variant {
    bool tls;
    size_t reply_size; /* large ones are sent and received in many steps */
    int rounds;
};

static const struct transport_tls *variant_tls(const struct variant *v)
{
    static struct transport_tls tls;
    tls = tls_files_endpoint(&files);
    return v->tls ? &tls : NULL;
}

static void spin_us(unsigned us)
{
    uint64_t until_ns = clock_mono_ns() + (uint64_t)us * 1000;
    while (clock_mono_ns() < until_ns)
        ;
}

/* ---- both sides close at once ---- */

struct closer {
    pthread_barrier_t *start;
    struct test_server *server; /* or */
    struct transport_client *client;
    unsigned delay_us;
    const uint8_t *reply;
    size_t reply_size;
    uint64_t took_ms;
};

/* As a coordinator ends: it answers who is parked, and goes. */
static void *close_server(void *arg)
{
    struct closer *c = arg;
    struct transport_request *held[PARKED];

    (void)pthread_barrier_wait(c->start);
    spin_us(c->delay_us);
    (void)pthread_mutex_lock(&c->server->lock);
    size_t n = c->server->n_held;
    memcpy(held, c->server->held, n * sizeof held[0]);
    c->server->n_held = 0;
    (void)pthread_mutex_unlock(&c->server->lock);
    for (size_t i = 0; i < n; i++)
        (void)transport_request_reply(c->server->server, held[i], c->reply, c->reply_size, NULL);
    uint64_t start_ms = clock_mono_ms();
    test_server_close(c->server);
    c->took_ms = clock_mono_ms() - start_ms;
    return NULL;
}

static void *close_client(void *arg)
{
    struct closer *c = arg;

    (void)pthread_barrier_wait(c->start);
    spin_us(c->delay_us);
    uint64_t start_ms = clock_mono_ms();
    transport_client_close(c->client);
    c->took_ms = clock_mono_ms() - start_ms;
    return NULL;
}

static void both_close_at_once(void **state)
{
    const struct variant *v = *state;
    const struct transport_tls *tls = variant_tls(v);
    unsigned seed = 1, spread_us = v->tls ? 20000 : 600;
    uint8_t *reply = calloc(1, v->reply_size);
    assert_non_null(reply);

    for (int round = 0; round < v->rounds; round++) {
        static struct test_server server;
        struct test_call calls[PARKED];
        pthread_barrier_t start;
        pthread_t threads[2];
        test_server_open(&server, 0, tls, true);
        struct transport_client *client = test_client_open(server.url, tls);
        for (size_t i = 0; i < PARKED; i++)
            test_call_start(&calls[i], client, "x", 1, 60000);
        /* Some rounds end during the dialing, or the handshake. */
        if (round % 4 != 0)
            test_server_wait_held(&server, PARKED);
        assert_int_equal(pthread_barrier_init(&start, NULL, 2), 0);
        struct closer sides[2] = {
            {.start = &start,
             .server = &server,
             .delay_us = (unsigned)rand_r(&seed) % spread_us,
             .reply = reply,
             .reply_size = v->reply_size},
            {.start = &start, .client = client, .delay_us = (unsigned)rand_r(&seed) % spread_us},
        };
        assert_int_equal(pthread_create(&threads[0], NULL, close_server, &sides[0]), 0);
        assert_int_equal(pthread_create(&threads[1], NULL, close_client, &sides[1]), 0);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            assert_in_range(sides[i].took_ms, 0, SOON_MS);
        }
        for (size_t i = 0; i < PARKED; i++)
            test_call_end(&calls[i]);
        (void)pthread_barrier_destroy(&start);
    }
    free(reply);
}

static void close_while_nobody_answers(void **state)
{
    char url[64];
    unsigned seed = 1;
    (void)state;

    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%u", test_port_free());
    for (int round = 0; round < 200; round++) {
        struct test_call call;
        struct transport_client *client = test_client_open(url, NULL);
        test_call_start(&call, client, "x", 1, 60000);
        spin_us((unsigned)rand_r(&seed) % (round % 20 == 0 ? 40000 : 500));
        uint64_t start_ms = clock_mono_ms();
        transport_client_close(client);
        assert_in_range(clock_mono_ms() - start_ms, 0, SOON_MS);
        assert_int_equal(test_call_wait(&call), ERR_CANCELLED);
        test_call_end(&call);
    }
}

/* ---- peers that are killed ---- */

static pid_t child_start(const char *what, const char *url, const struct transport_tls *tls)
{
    char *argv[] = {"test_transport_close",
                    (char *)what,
                    (char *)url,
                    tls != NULL ? (char *)tls->ca_file : NULL,
                    tls != NULL ? (char *)tls->cert_file : NULL,
                    tls != NULL ? (char *)tls->key_file : NULL,
                    NULL};
    pid_t child;
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    return child;
}

static void child_kill(pid_t child)
{
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
}

struct talker {
    pthread_t thread;
    struct transport_client *client;
    const uint8_t *bytes;
    size_t size;
    atomic_bool *stop;
    atomic_uint *answered;
};

static void *talk(void *arg)
{
    struct talker *t = arg;
    struct buf reply;

    buf_init(&reply);
    while (!atomic_load(t->stop)) {
        if (transport_call(t->client, t->bytes, t->size, 5000, &reply, NULL) == ERR_OK)
            (void)atomic_fetch_add(t->answered, 1);
    }
    buf_fini(&reply);
    return NULL;
}

/* Frames in both directions all the time, so that wherever it ends, it ends in the middle. */
static void talkers_start(struct talker talkers[TALKERS], struct transport_client *client,
                          const uint8_t *bytes, size_t size, atomic_bool *stop,
                          atomic_uint *answered)
{
    for (size_t i = 0; i < TALKERS; i++) {
        talkers[i] = (struct talker){
            .client = client, .bytes = bytes, .size = size, .stop = stop, .answered = answered};
        CHECK(pthread_create(&talkers[i].thread, NULL, talk, &talkers[i]) == 0);
    }
}

static size_t files_open(void)
{
    size_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        n++;
    (void)closedir(folder);
    return n;
}

static size_t requests_seen(struct test_server *server)
{
    (void)pthread_mutex_lock(&server->lock);
    size_t n = server->n_seen;
    (void)pthread_mutex_unlock(&server->lock);
    return n;
}

/* A server that keeps what belongs to a dead client soon has no files left for a living one. */
static void a_server_outlives_clients_that_are_killed(void **state)
{
    const struct variant *v = *state;
    const struct transport_tls *tls = variant_tls(v);
    static struct test_server server;
    unsigned seed = 1;

    test_server_open(&server, 0, tls, false);
    size_t files_before = files_open();
    for (int round = 0; round < v->rounds; round++) {
        size_t seen = requests_seen(&server);
        pid_t child = child_start("--talk-at", server.url, tls);
        uint64_t start_ms = clock_mono_ms();
        while (requests_seen(&server) < seen + 2 * TALKERS) {
            assert_in_range(clock_mono_ms() - start_ms, 0, 20000);
            test_sleep_ms(1);
        }
        spin_us((unsigned)rand_r(&seed) % 3000);
        child_kill(child);
    }
    uint64_t start_ms = clock_mono_ms();
    while (files_open() > files_before) {
        assert_in_range(clock_mono_ms() - start_ms, 0, 20000);
        test_sleep_ms(10);
    }
    start_ms = clock_mono_ms();
    test_server_close(&server);
    assert_in_range(clock_mono_ms() - start_ms, 0, SOON_MS);
}

static void a_client_outlives_servers_that_are_killed(void **state)
{
    const struct variant *v = *state;
    const struct transport_tls *tls = variant_tls(v);
    struct talker talkers[TALKERS];
    atomic_bool stop = false;
    atomic_uint answered = 0;
    unsigned seed = 1;
    char url[64];
    uint8_t *bytes = calloc(1, v->reply_size);
    assert_non_null(bytes);

    (void)snprintf(url, sizeof url, "%s://127.0.0.1:%u", v->tls ? "tls+tcp" : "tcp",
                   test_port_free());
    struct transport_client *client = test_client_open(url, tls);
    talkers_start(talkers, client, bytes, v->reply_size, &stop, &answered);
    for (int round = 0; round <= v->rounds; round++) {
        unsigned before = atomic_load(&answered);
        pid_t child = child_start("--serve-at", url, tls);
        uint64_t start_ms = clock_mono_ms();
        while (atomic_load(&answered) < before + 2) {
            assert_in_range(clock_mono_ms() - start_ms, 0, 20000);
            test_sleep_ms(1);
        }
        spin_us((unsigned)rand_r(&seed) % 3000);
        if (round == v->rounds) { /* so that the last calls need not wait for their time */
            atomic_store(&stop, true);
            for (size_t i = 0; i < TALKERS; i++)
                assert_int_equal(pthread_join(talkers[i].thread, NULL), 0);
        }
        child_kill(child);
    }
    uint64_t start_ms = clock_mono_ms();
    transport_client_close(client);
    assert_in_range(clock_mono_ms() - start_ms, 0, SOON_MS);
    free(bytes);
}

/* ---- a peer that takes nothing ---- */

/* It is read from no more, once there is much to be sent to it, and keeps nobody else waiting. */
static void who_takes_no_replies_is_not_read_from(void **state)
{
    enum { FRAME_BYTES = 1 << 20 };
    static uint8_t frame[8 + 4 + FRAME_BYTES] = {[5] = FRAME_BYTES >> 16, [7] = 4, [8] = 0x80};
    static struct test_server server;
    size_t sent = 0;
    uint64_t idle_since_ms = clock_mono_ms();
    (void)state;

    test_server_open(&server, 0, NULL, false);
    int fd = test_tcp_connect(test_server_port(&server));
    assert_int_equal(send(fd, "\0SP\0\0\x30\0\0", 8, MSG_NOSIGNAL), 8);
    while (clock_mono_ms() - idle_since_ms < 1000) {
        size_t at = sent % sizeof frame;
        ssize_t n = send(fd, frame + at, sizeof frame - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            sent += (size_t)n;
            idle_since_ms = clock_mono_ms();
        } else {
            assert_int_equal(errno, EAGAIN);
            test_sleep_ms(1);
        }
        assert_in_range(sent, 0, 200 * sizeof frame);
    }
    struct transport_client *client = test_client_open(server.url, NULL);
    struct test_call call;
    test_call_start(&call, client, "x", 1, 20000);
    assert_int_equal(test_call_wait(&call), ERR_OK);
    test_call_end(&call);
    transport_client_close(client);
    assert_int_equal(close(fd), 0);
    test_server_close(&server);
}

/* ---- the processes that are to be killed ---- */

static int child_talk(const char *url, const struct transport_tls *tls)
{
    static uint8_t bytes[100000];
    struct talker talkers[TALKERS];
    atomic_bool stop = false;
    atomic_uint answered = 0;

    talkers_start(talkers, test_client_open(url, tls), bytes, sizeof bytes, &stop, &answered);
    (void)pause();
    return 1;
}

static int child_serve(const char *url, const struct transport_tls *tls)
{
    static struct test_server server;
    test_server_open(&server, (uint16_t)atoi(strrchr(url, ':') + 1), tls, false);
    (void)pause();
    return 1;
}

static int files_setup(void **state)
{
    (void)state;
    tls_files_make(&files);
    return 0;
}

static int files_teardown(void **state)
{
    (void)state;
    tls_files_remove(&files);
    return 0;
}

int main(int argc, char **argv)
{
    static struct variant small = {.reply_size = 20, .rounds = 200};
    static struct variant large = {.reply_size = 1 << 20, .rounds = 50};
    static struct variant secure = {.tls = true, .reply_size = 20, .rounds = 40};
    static struct variant killed = {.reply_size = 1000, .rounds = 30};
    static struct variant killed_secure = {.tls = true, .reply_size = 1000, .rounds = 10};

    if (argc == 3 || argc == 6) {
        struct transport_tls tls = {argc == 6 ? argv[3] : NULL, argc == 6 ? argv[4] : NULL,
                                    argc == 6 ? argv[5] : NULL};
        return (strcmp(argv[1], "--talk-at") == 0 ? child_talk
                                                  : child_serve)(argv[2], argc == 6 ? &tls : NULL);
    }
#define VARIANT(test, of)                                                                          \
    {                                                                                              \
#test " (" #of ")", test, NULL, NULL, &of                                                  \
    }
    const struct CMUnitTest tests[] = {
        VARIANT(both_close_at_once, small),
        VARIANT(both_close_at_once, large),
        VARIANT(both_close_at_once, secure),
        cmocka_unit_test(close_while_nobody_answers),
        VARIANT(a_server_outlives_clients_that_are_killed, killed),
        VARIANT(a_server_outlives_clients_that_are_killed, killed_secure),
        VARIANT(a_client_outlives_servers_that_are_killed, killed),
        VARIANT(a_client_outlives_servers_that_are_killed, killed_secure),
        cmocka_unit_test(who_takes_no_replies_is_not_read_from),
    };
    return cmocka_run_group_tests(tests, files_setup, files_teardown);
}
