/*
 * Who is let into a gang and who is not: ranks that differ, ranks of older and newer epochs, ranks
 * that die on the way in, strangers, and programs that speak nonsense.
 *
 *   test_coll_meeting shm|ucx
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "tests/unit/common/fake_groups.h"
#include "worker/coll/hello.h"
#include "worker/coll/shm.h"
#include "worker/coll/shm_segment.h"
#include "worker/coll/shm_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static enum coll_transport transport;

#define TOLD_NS 2000000000u

/* ---- ranks that differ ---- */

struct difference {
    const char *name;
    void (*apply)(struct coll_config *config);
    const char *says;
};

static void other_plan(struct coll_config *config)
{
    config->plan[31] ^= 1;
}
static void other_build(struct coll_config *config)
{
    config->build = "1.1 test";
}
static void other_size(struct coll_config *config)
{
    config->bytes_max -= 64;
}
static void other_count(struct coll_config *config)
{
    config->n_ranks++;
}

static const struct difference differences[] = {
    {"plan", other_plan, "has another plan than"},
    {"build", other_build, "runs 1."},
    {"bytes_max", other_size, "makes room for operations of"},
    {"n_ranks", other_count, "of a gang of"},
};

struct meeting {
    const struct difference *difference;
    uint32_t who;
    uint32_t deadline_ms;
};

static enum err meet(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct meeting *m = arg;
    struct coll *c = NULL;
    if (m->difference != NULL && g->rank == m->who)
        m->difference->apply(&g->config);
    atomic_store(&g->gang->report[g->rank].steps, 1);
    enum err e = coll_open(&c, &g->config, crew_soon(m->deadline_ms), eb);
    CHECK((e == ERR_OK) == (c != NULL));
    coll_close(c);
    return e;
}

static void test_ranks_that_differ_make_no_gang(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof differences / sizeof differences[0]; i++) {
        for (uint32_t who = 0; who < 3; who++) {
            struct meeting m = {&differences[i], who, 1500};
            struct crew gang;
            unsigned n_told = 0;
            crew_init(&gang, transport, 3, meet, &m);
            crew_start(&gang);
            (void)crew_carry(&gang);
            /* A rank that expects more cards than there are is told that the gang ended. */
            if (transport == COLL_TRANSPORT_UCX && differences[i].apply == other_count)
                (void)shutdown(gang.card_fd[who], SHUT_RDWR);
            assert_true(crew_wait(&gang, 20000));
            for (uint32_t r = 0; r < 3; r++) {
                const struct crew_report *report = &gang.report[r];
                const bool is_told = report->e == ERR_CONFLICT &&
                                     strstr(report->eb.text, differences[i].says) != NULL;
                n_told += is_told;
                /* Who comes when rank 0 has given up finds nobody there. */
                if (!is_told && report->e != ERR_TIMEOUT && report->e != ERR_UNAVAILABLE)
                    fail_msg("%s of rank %u, rank %u: %s: %s", differences[i].name, who, r,
                             err_name(report->e), report->eb.text);
            }
            assert_true(n_told >= 2);
            crew_fini(&gang);
        }
    }
}

/* ---- a rank that never comes, one that dies on the way in ---- */

static enum err one_stays_away(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct meeting *m = arg;
    if (g->rank == m->who)
        return ERR_OK;
    return meet(g, arg, eb);
}

static void test_a_rank_that_never_comes_is_named(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip(); /* there it is the coordinator that waits */
    for (uint32_t who = 0; who < 3; who++) {
        struct meeting m = {NULL, who, 400};
        struct crew gang;
        crew_init(&gang, transport, 3, one_stays_away, &m);
        crew_start(&gang);
        assert_true(crew_wait(&gang, 20000));
        for (uint32_t r = 0; r < 3; r++) {
            const struct crew_report *report = &gang.report[r];
            if (r == who)
                continue;
            /* Whose deadline came first tells the others, or leaves them. */
            assert_true(report->e == ERR_TIMEOUT || report->e == ERR_UNAVAILABLE);
            assert_non_null(strstr(report->eb.text, "rank "));
        }
        crew_fini(&gang);
    }
}

/* ---- a rank that is told to stop ---- */

struct halt {
    struct meeting meeting; /* whose `who` never comes */
    uint32_t told;
};

static void *halt_soon(void *arg)
{
    (void)poll(NULL, 0, 200);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

static enum err one_is_told_to_stop(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct halt *halt = arg;
    atomic_bool stop = false;
    pthread_t teller;
    if (g->rank != halt->told)
        return one_stays_away(g, arg, eb);
    g->config.stop = &stop;
    CHECK(pthread_create(&teller, NULL, halt_soon, &stop) == 0);
    enum err e = one_stays_away(g, arg, eb);
    CHECK(pthread_join(teller, NULL) == 0);
    return e;
}

static void test_a_rank_that_is_told_to_stop_waits_no_longer(void **state)
{
    (void)state;
    for (uint32_t told = 0; told < 2; told++) {
        struct halt halt = {.meeting = {NULL, 2, 60000}, .told = told};
        struct crew gang;
        const uint64_t since = clock_mono_ns();
        crew_init(&gang, transport, 3, one_is_told_to_stop, &halt);
        crew_start(&gang);
        const uint64_t until = crew_soon(20000);
        while (!atomic_load(&gang.report[told].is_done) && clock_mono_ns() < until)
            (void)poll(NULL, 0, 2);
        assert_int_equal(gang.report[told].e, ERR_CANCELLED);
        assert_non_null(strstr(gang.report[told].eb.text, "told to stop"));
        assert_true(gang.report[told].ended_ns < since + 800000000u);
        /* Over shm the others see it; the cards of ucx are the coordinator's, who knows. */
        if (transport == COLL_TRANSPORT_UCX)
            (void)shutdown(gang.card_fd[1 - told], SHUT_RDWR);
        assert_true(crew_wait(&gang, 20000));
        assert_true(gang.report[1 - told].e == ERR_CANCELLED ||
                    gang.report[1 - told].e == ERR_UNAVAILABLE);
        crew_fini(&gang);
    }
}

/* ---- a rank that cannot come ---- */

struct refuser {
    struct meeting meeting; /* whose `who` declines */
    uint32_t late;          /* a rank that comes when the others know already */
};

static enum err one_declines(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct refuser *refuser = arg;
    struct crew_report *report = g->gang->report;
    if (g->rank == refuser->late) /* one that is done: told, or rank 0 told */
        crew_reach(g->gang, refuser->meeting.who > 0 ? refuser->meeting.who : 3 - g->rank, 1);
    if (g->rank != refuser->meeting.who) {
        struct coll *c = NULL;
        const enum err e = coll_open(&c, &g->config, crew_soon(60000), eb);
        atomic_store(&report[g->rank].steps, 1);
        coll_close(c);
        return e;
    }
    memset(g->config.plan, 0x55, sizeof g->config.plan); /* not known yet */
    g->config.bytes_max = 0;
    coll_decline(&g->config, ERR_CORRUPT, "its file is\x1b torn", crew_soon(1500));
    atomic_store(&report[g->rank].steps, 1);
    return ERR_OK;
}

static void test_a_rank_that_cannot_come_says_why(void **state)
{
    (void)state;
    for (uint32_t who = 0; who < 3; who++) {
        for (uint32_t late = 0; late < 4; late++) {
            if (late < 3 && (transport != COLL_TRANSPORT_SHM || late == who || late == 0))
                continue;
            struct refuser refuser = {.meeting = {NULL, who, 60000}, .late = late};
            const uint64_t since = clock_mono_ns();
            char name[32];
            struct crew gang;
            crew_init(&gang, transport, 3, one_declines, &refuser);
            crew_start(&gang);
            assert_true(crew_carry(&gang));
            assert_true(crew_wait(&gang, 20000));
            (void)snprintf(name, sizeof name, "rank %u does not come", who);
            for (uint32_t r = 0; r < 3; r++) {
                const struct crew_report *report = &gang.report[r];
                if (r == who)
                    continue;
                if (report->e != ERR_CORRUPT || strstr(report->eb.text, name) == NULL ||
                    strstr(report->eb.text, "its file is? torn") == NULL)
                    fail_msg("rank %u, %u declines, %u late: %s: %s", r, who, late,
                             err_name(report->e), report->eb.text);
                assert_true(report->ended_ns < since + TOLD_NS);
            }
            crew_fini(&gang);
        }
    }
}

/* The first 3 of 4 are there when one of them is killed. */
static enum err the_last_is_late(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    if (g->rank == 3) {
        struct pollfd p = {.fd = -1};
        atomic_store(&g->gang->report[3].steps, 1);
        (void)poll(&p, 1, 60000);
    }
    return meet(g, arg, eb);
}

/* The listener and each connection to it have the gang's name. */
static void wait_for_callers(struct crew *gang, unsigned n)
{
    struct sockaddr_un name;
    const uint64_t until = crew_soon(20000);
    unsigned found = 0;
    (void)shm_socket_name(gang->group, &name);
    while (found < n + 1) {
        char line[512];
        FILE *f = fopen("/proc/net/unix", "r");
        assert_non_null(f);
        for (found = 0; fgets(line, sizeof line, f) != NULL;)
            found += strstr(line, name.sun_path + 1) != NULL;
        fclose(f);
        assert_true(clock_mono_ns() < until);
        (void)poll(NULL, 0, 5);
    }
}

static void test_kill_of_each_rank_at_the_meeting(void **state)
{
    (void)state;
    for (uint32_t who = 0; who < 3; who++) {
        struct meeting m = {NULL, who, 60000};
        struct crew gang;
        crew_init(&gang, transport, 4, the_last_is_late, &m);
        crew_start(&gang);
        crew_reach(&gang, COLL_RANKS_MAX, 1);
        if (transport == COLL_TRANSPORT_SHM)
            wait_for_callers(&gang, 2);
        (void)poll(NULL, 0, 200);
        const uint64_t since = clock_mono_ns();
        crew_kill(&gang, who);
        if (transport == COLL_TRANSPORT_UCX) {
            /* The coordinator sees it as it sees any worker's end, and ends the gang. */
            for (uint32_t r = 0; r < 4; r++)
                (void)shutdown(gang.card_fd[r], SHUT_RDWR);
        }
        for (uint32_t r = 0; r < 3; r++) {
            const struct crew_report *report = &gang.report[r];
            const uint64_t until = crew_soon(20000);
            while (r != who && !atomic_load(&report->is_done) && clock_mono_ns() < until)
                (void)poll(NULL, 0, 2);
            if (r == who)
                continue;
            assert_true(atomic_load(&report->is_done));
            assert_int_equal(report->e, ERR_UNAVAILABLE);
            assert_true(report->ended_ns < since + TOLD_NS);
            if (transport == COLL_TRANSPORT_SHM) {
                char name[32];
                (void)snprintf(name, sizeof name, "rank %u went away", who);
                assert_non_null(strstr(report->eb.text, name));
            }
        }
        crew_kill(&gang, 3);
        crew_fini(&gang);
    }
}

/* Cards are carried, and then one of the ranks is gone before the first barrier. */
static void test_kill_of_each_rank_behind_the_meeting(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_UCX)
        skip(); /* there the meeting ends for all at once */
    for (uint32_t who = 0; who < 3; who++) {
        struct meeting m = {NULL, who, 60000};
        struct crew gang;
        crew_init(&gang, transport, 3, meet, &m);
        crew_start(&gang);
        crew_reach(&gang, COLL_RANKS_MAX, 1);
        struct pollfd p = {.fd = gang.card_fd[who], .events = POLLIN};
        assert_int_equal(poll(&p, 1, 20000), 1); /* its card is up */
        assert_int_equal(kill(gang.pid[who], SIGSTOP), 0);
        assert_true(crew_carry(&gang));
        (void)poll(NULL, 0, 300);
        const uint64_t since = clock_mono_ns();
        crew_kill(&gang, who);
        assert_true(crew_wait(&gang, 20000));
        for (uint32_t r = 0; r < 3; r++) {
            const struct crew_report *report = &gang.report[r];
            char name[32];
            (void)snprintf(name, sizeof name, "rank %u", who);
            if (r == who)
                continue;
            assert_int_equal(report->e, ERR_UNAVAILABLE);
            assert_non_null(strstr(report->eb.text, name));
            assert_true(report->ended_ns < since + TOLD_NS);
        }
        crew_fini(&gang);
    }
}

/* libucx 1.13 has assertions that fail where a peer ends in the very moment in which it is
 * connected to (docs/collectives.md): its matter, and said. */
static bool is_crash_of_libucx(const struct crew *gang, uint32_t r)
{
    const int status = gang->status[r];
    const bool is_one = transport == COLL_TRANSPORT_UCX && WIFSIGNALED(status) &&
                        WTERMSIG(status) == SIGABRT && !atomic_load(&gang->report[r].is_done);
    if (is_one)
        fprintf(stderr, "rank %u was ended by an assertion of libucx\n", r);
    return is_one;
}

/* At any moment of the way in: the others come in or are told, and nobody hangs. */
static void test_kill_of_a_rank_while_ranks_connect(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (uint32_t round = 0; round < 24; round++) {
        const uint32_t who = round % 3;
        struct meeting m = {NULL, who, transport == COLL_TRANSPORT_SHM ? 600 : 20000};
        struct crew gang;
        crew_init(&gang, transport, 3, meet, &m);
        crew_start(&gang);
        if (transport == COLL_TRANSPORT_SHM)
            crew_reach(&gang, COLL_RANKS_MAX, 1);
        assert_true(crew_carry(&gang));
        const struct timespec t = {0, (long)(crew_random(&seed) % 20000000)};
        nanosleep(&t, NULL);
        crew_kill(&gang, who);
        assert_true(crew_wait(&gang, 20000));
        for (uint32_t r = 0; r < 3; r++) {
            const struct crew_report *report = &gang.report[r];
            if (r == who || is_crash_of_libucx(&gang, r))
                continue;
            assert_true(atomic_load(&report->is_done));
            /* Who calls a rank 0 that is gone already waits for the next one until the deadline. */
            if (report->e != ERR_OK && report->e != ERR_UNAVAILABLE &&
                !(report->e == ERR_TIMEOUT && transport == COLL_TRANSPORT_SHM))
                fail_msg("rank %u: %s: %s", r, err_name(report->e), report->eb.text);
        }
        crew_fini(&gang);
    }
}

/* ---- epochs ---- */

/* Rank 2 of epoch 6 calls while epoch 7 meets; rank 0 of epoch 6 listens while epoch 7 comes. */
static enum err by_epoch(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const uint32_t *stale = arg;
    struct coll *c = NULL;
    if (g->rank == *stale || (*stale == 3 && g->rank >= 3)) {
        g->config.epoch = 6;
        g->config.rank = *stale == 3 ? g->rank - 3 : g->rank;
    }
    g->config.n_ranks = *stale == 3 ? 3 : g->config.n_ranks;
    atomic_store(&g->gang->report[g->rank].steps, 1);
    if (*stale == 3 && g->rank < 3) {
        crew_reach(g->gang, 4, 1);
        (void)poll(NULL, 0, 200);
    }
    enum err e = coll_open(&c, &g->config, crew_soon(*stale == 3 ? 30000 : 4000), eb);
    coll_close(c);
    return e;
}

static void test_a_rank_of_an_older_epoch_is_refused(void **state)
{
    (void)state;
    uint32_t stale = 2;
    struct crew gang;
    crew_init(&gang, transport, 3, by_epoch, &stale);
    crew_start(&gang);
    (void)crew_carry(&gang);
    assert_true(crew_wait(&gang, 20000));
    assert_int_equal(gang.report[2].e, ERR_STALE);
    assert_non_null(strstr(gang.report[2].eb.text, "epoch 6"));
    assert_non_null(strstr(gang.report[2].eb.text, "epoch 7"));
    /* The others wait for the rank 2 that is meant, until the first of them has waited long enough
     * (shm), or see whose card it is (ucx). */
    for (uint32_t r = 0; r < 2; r++) {
        const enum err e = gang.report[r].e;
        assert_true(transport == COLL_TRANSPORT_SHM ? e == ERR_TIMEOUT || e == ERR_UNAVAILABLE
                                                    : e == ERR_STALE);
    }
    crew_fini(&gang);
}

static void test_an_older_gang_makes_way_for_a_newer_one(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip(); /* there the coordinator carries the cards of one epoch */
    /* Ranks 0 and 1 of epoch 6 wait for a rank 2 that is gone; then all three of epoch 7 come. */
    uint32_t stale = 3;
    struct crew gang;
    crew_init(&gang, transport, 5, by_epoch, &stale);
    crew_start(&gang);
    assert_true(crew_wait(&gang, 60000));
    for (uint32_t r = 0; r < 3; r++) {
        if (gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s", r, gang.report[r].eb.text);
    }
    /* Either it saw the newer epoch, or it was never heard again. */
    for (uint32_t r = 3; r < 5; r++)
        assert_true(gang.report[r].e == ERR_STALE || gang.report[r].e == ERR_UNAVAILABLE ||
                    gang.report[r].e == ERR_TIMEOUT);
    crew_fini(&gang);
}

/* ---- strangers (shm: at the socket) ---- */

static int call(const uint8_t group[COLL_GROUP_BYTES])
{
    struct sockaddr_un name;
    const socklen_t size = shm_socket_name(group, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    const uint64_t until = crew_soon(20000);
    while (connect(fd, (const struct sockaddr *)&name, size) != 0) {
        assert_true(errno == ECONNREFUSED || errno == EAGAIN);
        assert_true(clock_mono_ns() < until);
        (void)poll(NULL, 0, 1);
    }
    return fd;
}

/* The code with which rank 0 refuses; ERR_OK where it only hangs up. */
static enum err refused_with(int fd)
{
    uint8_t packet[SHM_PACKET_BYTES];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
    const ssize_t got = recv(fd, packet, sizeof packet, 0);
    if (got <= 0)
        return ERR_OK;
    assert_true(got >= 8);
    assert_int_equal(coll_get_u32(packet), SHM_PACKET_REFUSED);
    return (enum err)coll_get_u32(packet + 4);
}

static void hello_of(struct crew *gang, struct coll_hello *ret_hello, uint32_t rank)
{
    struct coll_config config = {.transport = transport,
                                 .epoch = gang->epoch,
                                 .rank = rank,
                                 .n_ranks = gang->n_ranks,
                                 .build = "1.0 test",
                                 .bytes_max = gang->bytes_max};
    memcpy(config.group, gang->group, sizeof config.group);
    assert_int_equal(coll_hello_of(&config, ret_hello, NULL), ERR_OK);
}

static void strangers_call(struct crew *gang)
{
    uint8_t bytes[2 * SHM_PACKET_BYTES];
    struct coll_hello hello;
    uint64_t seed = 5;
    int silent[60];
    /* More who say nothing than there is room for. */
    for (unsigned i = 0; i < 60; i++)
        silent[i] = call(gang->group);
    /* Garbage of every length. */
    for (size_t size = 1; size < sizeof bytes; size = size * 2 + 1) {
        int fd = call(gang->group);
        crew_fill(bytes, size, seed++, 0, 0, 0);
        assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
        assert_int_equal(refused_with(fd), ERR_CORRUPT);
        close(fd);
    }
    /* A right hello but for one byte: of the magic, of the group id, of its texts' ends. */
    for (uint32_t at = 0; at < COLL_HELLO_BYTES; at++) {
        const bool is_group = at >= 36 && at < 36 + COLL_GROUP_BYTES;
        const bool is_end =
            at == COLL_HELLO_BYTES - 1 || at == COLL_HELLO_BYTES - COLL_WHY_BYTES - 4 - 1;
        if (at >= 8 && !is_group && !is_end)
            continue; /* a rank of this gang that differs ends the meeting: another test's */
        hello_of(gang, &hello, 1);
        coll_hello_encode(&hello, bytes);
        bytes[at] ^= 0x40;
        int fd = call(gang->group);
        assert_int_equal(send(fd, bytes, COLL_HELLO_BYTES, MSG_NOSIGNAL), COLL_HELLO_BYTES);
        assert_int_equal(refused_with(fd), is_group ? ERR_REFUSED : ERR_CORRUPT);
        close(fd);
    }
    static const struct {
        uint8_t group_xor;
        int64_t epoch_add;
        bool truncated;
        enum err e;
    } cases[] = {
        {1, 0, false, ERR_REFUSED},
        {0, -1, false, ERR_STALE},
        {0, 0, true, ERR_CORRUPT},
        {0, 0, false, ERR_CORRUPT}, /* no pidfd with it */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = call(gang->group);
        hello_of(gang, &hello, 1);
        hello.group[3] ^= cases[i].group_xor;
        hello.epoch += (uint64_t)cases[i].epoch_add;
        coll_hello_encode(&hello, bytes);
        const size_t size = COLL_HELLO_BYTES - cases[i].truncated;
        assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
        assert_int_equal(refused_with(fd), cases[i].e);
        close(fd);
    }
    /* Many files at once. */
    int fd = call(gang->group);
    int files[SHM_FILES_MAX];
    for (unsigned i = 0; i < SHM_FILES_MAX; i++)
        files[i] = silent[0];
    hello_of(gang, &hello, 1);
    coll_hello_encode(&hello, bytes);
    assert_true(shm_socket_send(fd, bytes, COLL_HELLO_BYTES, files, SHM_FILES_MAX));
    assert_int_equal(refused_with(fd), ERR_CORRUPT);
    close(fd);
    for (unsigned i = 0; i < 60; i++)
        close(silent[i]);
}

/* Rank 0 first; the others when the strangers were there. */
static enum err rank_0_first(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    const unsigned files = crew_count_files();
    (void)arg;
    while (g->rank > 0 && atomic_load(&g->gang->report[0].steps) == 0)
        (void)poll(NULL, 0, 5);
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK)
        e = coll_barrier(c, crew_soon(60000), eb);
    coll_close(c);
    CHECK(crew_count_files() == files);
    return e;
}

static void test_strangers_change_nothing(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip();
    struct crew gang;
    crew_init(&gang, transport, 3, rank_0_first, NULL);
    crew_start(&gang);
    strangers_call(&gang);
    atomic_store(&gang.report[0].steps, 1);
    assert_true(crew_wait(&gang, 60000));
    for (uint32_t r = 0; r < 3; r++) {
        if (gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s", r, gang.report[r].eb.text);
    }
    crew_fini(&gang);
}

/* ---- who answers in rank 0's place (shm) ---- */

/* Rank 1 calls a rank 0 that is played here. */
static void false_host(const void *const packets[], const size_t sizes[], unsigned n,
                       bool with_files, enum err e, const char *says)
{
    struct meeting m = {NULL, 0, 20000};
    struct crew gang;
    struct sockaddr_un name;
    crew_init(&gang, transport, 2, one_stays_away, &m);
    const socklen_t size = shm_socket_name(gang.group, &name);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&name, size), 0);
    assert_int_equal(listen(listener, 4), 0);
    crew_start(&gang);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < n; i++) {
        uint8_t bytes[4 + COLL_HELLO_BYTES];
        int files[3] = {listener, listener, listener};
        if (packets[i] == NULL) {
            struct coll_hello hello;
            hello_of(&gang, &hello, 0);
            coll_put_u32(bytes, SHM_PACKET_WELCOME);
            coll_hello_encode(&hello, bytes + 4);
            assert_true(shm_socket_send(fd, bytes, sizeof bytes, NULL, 0));
        } else {
            const bool is_last = with_files && i == n - 1;
            (void)shm_socket_send(fd, packets[i], sizes[i], files, is_last ? 3 : 0);
        }
    }
    assert_true(crew_wait(&gang, 20000));
    if (gang.report[1].e != e || strstr(gang.report[1].eb.text, says) == NULL)
        fail_msg("%s: %s", err_name(gang.report[1].e), gang.report[1].eb.text);
    close(fd);
    close(listener);
    crew_fini(&gang);
}

static void test_a_false_rank_0_crashes_nobody(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip();
    static const uint8_t nonsense[] = "this is no packet", go[] = {SHM_PACKET_GO, 0, 0, 0};
    static const uint8_t welcome[200] = {SHM_PACKET_WELCOME, 0, 0, 0, 9, 9};
    static const uint8_t refused[] = {SHM_PACKET_REFUSED, 0, 0, 0, 5, 0, 0, 0, 'n', 'o', 27, '!'};
    static const uint8_t code_99[] = {SHM_PACKET_REFUSED, 0, 0, 0, 99, 0, 0, 0};
    const struct {
        const void *packet[2]; /* NULL: the right welcome */
        size_t size[2];
        unsigned n;
        bool with_files;
        enum err e;
        const char *says;
    } cases[] = {
        {{nonsense}, {sizeof nonsense}, 1, false, ERR_CORRUPT, "make no sense"},
        {{welcome}, {sizeof welcome}, 1, false, ERR_CORRUPT, "no hello"},
        {{refused}, {sizeof refused}, 1, false, ERR_TOO_LARGE, "refused by rank 0: no?!"},
        {{code_99}, {sizeof code_99}, 1, false, ERR_CORRUPT, "unknown code 99"},
        {{NULL, go}, {0, sizeof go}, 2, true, ERR_CORRUPT, "no sealed memory"},
        {{NULL, go}, {0, sizeof go}, 2, false, ERR_CORRUPT, "files"},
        {{NULL, nonsense}, {0, sizeof nonsense}, 2, true, ERR_CORRUPT, "make no sense"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        false_host(cases[i].packet, cases[i].size, cases[i].n, cases[i].with_files, cases[i].e,
                   cases[i].says);
}

/* ---- cards that were changed on the way (ucx) ---- */

struct carrier {
    void (*change)(uint8_t *card, size_t *size);
    enum err e;
    const char *says;
};

static void change_address(uint8_t *card, size_t *size)
{
    card[*size - 7] ^= 0xff;
}
static void change_length(uint8_t *card, size_t *size)
{
    (void)card;
    *size -= 20;
}
static void change_all(uint8_t *card, size_t *size)
{
    crew_fill(card, *size, 99, 0, 0, 0);
}
static void change_to_nothing(uint8_t *card, size_t *size)
{
    (void)card;
    *size = 1;
}
static void change_group(uint8_t *card, size_t *size)
{
    (void)size;
    card[32 + 8 + 12 + 16 + 4] ^= 1;
}

static const struct carrier carriers[] = {
    {change_address, ERR_CORRUPT, "changed on the way"},
    {change_length, ERR_CORRUPT, "changed on the way"},
    {change_all, ERR_CORRUPT, "rank 1"},
    {change_to_nothing, ERR_CORRUPT, "no rank's address"},
    {change_group, ERR_REFUSED, "another gang"},
};

static enum err (*carry_right)(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                               const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb);
static const struct carrier *carrier_now;

static enum err carry_wrong(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                            const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    static _Thread_local uint8_t card[CREW_CARD_MAX];
    enum err e = carry_right(ctx, mine, size, deadline_ns, stop, ret, eb);
    if (e == ERR_OK) {
        memcpy(card, ret[1].data, ret[1].size);
        carrier_now->change(card, &ret[1].size);
        ret[1].data = card;
    }
    return e;
}

static enum err with_changed_card(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    carrier_now = arg;
    carry_right = g->config.rendezvous.exchange;
    if (g->rank == 0)
        g->config.rendezvous.exchange = carry_wrong;
    enum err e = coll_open(&c, &g->config, crew_soon(1500), eb);
    coll_close(c);
    return e;
}

static void test_cards_that_were_changed_are_refused(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_UCX)
        skip();
    for (unsigned i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        struct crew gang;
        crew_init(&gang, transport, 2, with_changed_card, (void *)(uintptr_t)&carriers[i]);
        crew_start(&gang);
        assert_true(crew_carry(&gang));
        assert_true(crew_wait(&gang, 20000));
        if (gang.report[0].e != carriers[i].e ||
            strstr(gang.report[0].eb.text, carriers[i].says) == NULL)
            fail_msg("case %u: %s: %s", i, err_name(gang.report[0].e), gang.report[0].eb.text);
        assert_true(gang.report[1].e != ERR_OK);
        crew_fini(&gang);
    }
}

/* A rank that was given some of the machine's processors counts these, not the machine's. */
static void test_processors_are_those_that_a_rank_may_use(void **state)
{
    cpu_set_t before, one;
    size_t first = 0;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(shm_processors(), CPU_COUNT(&before));
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(shm_processors(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

static int has_64_mib_left(void)
{
    const struct {
        size_t bytes_max;
        enum err want;
    } rows[] = {{1 << 20, ERR_OK}, {40 << 20, ERR_NO_MEMORY}, {1 << 20, ERR_OK}};
    for (int i = 0; i < 3; i++) {
        struct errbuf eb = {{0}};
        int fd = -1;
        if (shm_segment_make(rows[i].bytes_max, &fd, &eb) != rows[i].want)
            return 1 + i;
        if (rows[i].want == ERR_OK ? close(fd) != 0
                                   : strstr(eb.text, ": 67108864 are available") == NULL)
            return 10 + i;
    }
    return 0;
}

/* It would not be refused: the kernel would end some process of the cgroup. */
static void test_what_a_cgroup_has_not_is_not_taken(void **state)
{
    const int said = fake_groups_run(96 << 20, 32 << 20, 0, has_64_mib_left);
    (void)state;
    if (said < 0)
        skip();
    assert_int_equal(said, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranks_that_differ_make_no_gang),
        cmocka_unit_test(test_a_rank_that_never_comes_is_named),
        cmocka_unit_test(test_a_rank_that_is_told_to_stop_waits_no_longer),
        cmocka_unit_test(test_a_rank_that_cannot_come_says_why),
        cmocka_unit_test(test_kill_of_each_rank_at_the_meeting),
        cmocka_unit_test(test_kill_of_each_rank_behind_the_meeting),
        cmocka_unit_test(test_kill_of_a_rank_while_ranks_connect),
        cmocka_unit_test(test_a_rank_of_an_older_epoch_is_refused),
        cmocka_unit_test(test_an_older_gang_makes_way_for_a_newer_one),
        cmocka_unit_test(test_strangers_change_nothing),
        cmocka_unit_test(test_a_false_rank_0_crashes_nobody),
        cmocka_unit_test(test_cards_that_were_changed_are_refused),
        cmocka_unit_test(test_processors_are_those_that_a_rank_may_use),
        cmocka_unit_test(test_what_a_cgroup_has_not_is_not_taken),
    };
    transport = crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
