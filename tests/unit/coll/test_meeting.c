/*
 * Which ranks are let into a gang and which are not: those that differ, those of older and newer
 * epochs, those that die on the way in. test_strangers.c has what calls and is no rank.
 *
 *   test_coll_meeting shm|ucx
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/coll/shm_socket.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
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
    };
    transport = crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
