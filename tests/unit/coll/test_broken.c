/*
 * What breaks a gang, and what every other rank is told: the rank that is at fault and what was
 * waited for, within two seconds of a death, and again at once from every later call. Nothing is
 * left behind: no file, no memory, no name.
 *
 *   test_coll_broken shm|ucx
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static enum coll_transport transport;

#define DEAD_NS 2000000000u /* the others must know by then */

static void nap(uint32_t ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* ---- bodies ---- */

struct play {
    uint32_t victim;
    enum {
        VICTIM_PLAYS,        /* like all others, until somebody ends it */
        VICTIM_WRITES,       /* stays between begin and end */
        VICTIM_PAUSES,       /* stays there for a while, and goes on */
        VICTIM_ABORTS,       /* in the third operation, from another thread */
        VICTIM_STOPS,        /* the same by its flag */
        VICTIM_ABORTS_LAST,  /* and closes without looking at it again */
        VICTIM_CLOSES,       /* where the others go on */
        VICTIM_DIFFERS_KIND, /* does another operation */
        VICTIM_DIFFERS_SIZE, /* has another size of the last rank's part */
    } victim_does;
    uint32_t operation_ms;        /* deadline of each */
    size_t bytes, last, its_last; /* of the parts; 0, 0, 0: 20000, 20000, 19996 */
};

static void *abort_soon(void *arg)
{
    nap(50);
    coll_abort(arg, "the operator said so");
    return NULL;
}

static void *stop_soon(void *arg)
{
    nap(50);
    atomic_store((atomic_bool *)arg, true);
    return NULL;
}

/* All-gathers until there is an error, which must come again at once. */
static enum err play_on(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct play *play = arg;
    struct crew_report *report = &g->gang->report[g->rank];
    struct coll *c = NULL;
    pthread_t aborter;
    bool is_aborting = false;
    atomic_bool stop = false;
    const unsigned files = crew_count_files();
    const bool is_victim = g->rank == play->victim;
    g->config.stop = &stop;
    enum err e = crew_open(g, &c, eb);
    for (uint32_t i = 0; e == ERR_OK; i++) {
        size_t bytes[COLL_RANKS_MAX];
        const void *parts[COLL_RANKS_MAX];
        void *mine;
        for (uint32_t r = 0; r < g->config.n_ranks; r++)
            bytes[r] = play->bytes == 0 ? 20000 : play->bytes;
        if (play->bytes > 0)
            bytes[g->config.n_ranks - 1] = play->last;
        if (is_victim && i == 3) {
            if (play->victim_does == VICTIM_CLOSES)
                break;
            if (play->victim_does == VICTIM_ABORTS_LAST) {
                coll_abort(c, "the operator said so");
                break;
            }
            if (play->victim_does == VICTIM_ABORTS || play->victim_does == VICTIM_STOPS) {
                const bool is_abort = play->victim_does == VICTIM_ABORTS;
                CHECK(pthread_create(&aborter, NULL, is_abort ? abort_soon : stop_soon,
                                     is_abort ? (void *)c : (void *)&stop) == 0);
                is_aborting = true;
            }
            if (play->victim_does == VICTIM_DIFFERS_SIZE)
                bytes[g->config.n_ranks - 1] = play->bytes == 0 ? 19996 : play->its_last;
            if (play->victim_does == VICTIM_DIFFERS_KIND) {
                e = coll_barrier(c, crew_soon(play->operation_ms), eb);
                continue;
            }
        }
        e = coll_all_gather_begin(c, bytes, crew_soon(play->operation_ms), &mine, eb);
        if (e != ERR_OK)
            break;
        if (is_victim && i == 3 &&
            (play->victim_does == VICTIM_WRITES || play->victim_does == VICTIM_PAUSES)) {
            atomic_fetch_add(&report->steps, 1000);
            nap(play->victim_does == VICTIM_WRITES ? 60000 : 2000);
        }
        memset(mine, (int)i, bytes[g->rank]);
        e = coll_end(c, crew_soon(play->operation_ms), parts, eb);
        atomic_fetch_add(&report->steps, 1);
    }
    if (e != ERR_OK && c != NULL) {
        struct errbuf again = {{0}};
        const uint64_t before = clock_mono_ns();
        CHECK(coll_barrier(c, crew_soon(60000), &again) == e);
        CHECK(strstr(again.text, eb->text) != NULL);
        CHECK(clock_mono_ns() - before < 100000000u);
    }
    if (is_aborting)
        CHECK(pthread_join(aborter, NULL) == 0);
    coll_close(c);
    /* What libucx opens once stays open: the second gang must not add to it. */
    if (transport == COLL_TRANSPORT_SHM)
        CHECK(crew_count_files() == files);
    return e;
}

/* Each rank but the victim reports `e` with both texts, within two seconds of `since_ns`. */
static void assert_told(struct crew *gang, uint32_t victim, uint64_t since_ns, enum err e,
                        const char *says, const char *also)
{
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        const struct crew_report *report = &gang->report[r];
        if (r == victim)
            continue;
        assert_true(atomic_load(&report->is_done));
        if (report->e != e || strstr(report->eb.text, says) == NULL ||
            strstr(report->eb.text, also) == NULL)
            fail_msg("rank %u of %u, victim %u: %s: %s", r, gang->n_ranks, victim,
                     err_name(report->e), report->eb.text);
        if (report->ended_ns > since_ns + DEAD_NS)
            fail_msg("rank %u was told after %llu ms", r,
                     (unsigned long long)((report->ended_ns - since_ns) / 1000000u));
    }
}

static const char *rank_name(uint32_t rank)
{
    static char name[32];
    (void)snprintf(name, sizeof name, "rank %u", rank);
    return name;
}

/* ---- kill -9 ---- */

static void kill_one(uint32_t n_ranks, uint32_t victim, bool is_writing)
{
    struct play play = {
        .victim = victim,
        .victim_does = is_writing ? VICTIM_WRITES : VICTIM_PLAYS,
        .operation_ms = 60000,
    };
    struct crew gang;
    const unsigned shared = crew_count_shared();
    crew_init(&gang, transport, n_ranks, play_on, &play);
    crew_start(&gang);
    assert_true(crew_carry(&gang));
    if (is_writing)
        crew_reach(&gang, victim, 1000);
    else
        crew_reach(&gang, COLL_RANKS_MAX, 20 + victim);
    const uint64_t since = clock_mono_ns();
    crew_kill(&gang, victim);
    assert_true(crew_wait(&gang, 20000));
    assert_told(&gang, victim, since, ERR_UNAVAILABLE, rank_name(victim),
                transport == COLL_TRANSPORT_SHM ? "waited for" : "ended");
    assert_int_equal(crew_count_shared(), shared);
    crew_fini(&gang);
}

static void test_kill_of_each_rank_in_turn(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 4; n++) {
        for (uint32_t victim = 0; victim < n; victim++)
            kill_one(n, victim, false);
    }
}

static void test_kill_of_each_rank_while_it_writes_its_part(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 4; victim++)
        kill_one(4, victim, true);
    kill_one(16, 9, true);
}

/* ---- hangs ---- */

static void test_a_stopped_rank_runs_into_the_deadline(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        /* Where it has handed over to all or to none: else one of the others could be the one that
         * a third is seen to wait for. */
        struct play play = {.victim = victim, .victim_does = VICTIM_PAUSES, .operation_ms = 700};
        struct crew gang;
        crew_init(&gang, transport, 3, play_on, &play);
        crew_start(&gang);
        assert_true(crew_carry(&gang));
        crew_reach(&gang, victim, 1000);
        const uint64_t since = clock_mono_ns();
        assert_int_equal(kill(gang.pid[victim], SIGSTOP), 0);
        for (uint32_t r = 0; r < 3; r++) {
            const uint64_t until = crew_soon(20000);
            while (r != victim && !atomic_load(&gang.report[r].is_done) && clock_mono_ns() < until)
                nap(2);
        }
        assert_told(&gang, victim, since, ERR_TIMEOUT, rank_name(victim), "past the deadline");
        /* When it goes on, it finds the gang broken. */
        assert_int_equal(kill(gang.pid[victim], SIGCONT), 0);
        assert_true(crew_wait(&gang, 20000));
        assert_true(gang.report[victim].e == ERR_TIMEOUT ||
                    gang.report[victim].e == ERR_UNAVAILABLE);
        crew_fini(&gang);
    }
}

/* A rank that computes for long beside the gang is not taken for dead. */
static enum err compute_long(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK && g->rank == 1)
        nap(2500);
    if (e == ERR_OK)
        e = coll_barrier(c, crew_soon(60000), eb);
    coll_close(c);
    return e;
}

static void test_a_rank_that_computes_for_long_is_waited_for(void **state)
{
    (void)state;
    struct crew gang;
    crew_init(&gang, transport, 2, compute_long, NULL);
    gang.silence_ms = 0; /* the default: less than it computes */
    crew_run(&gang);
}

/* ---- aborts, goodbyes, differences ---- */

static void play_through(struct play *play, uint32_t n_ranks, struct crew *ret_gang,
                         uint64_t *ret_since)
{
    crew_init(ret_gang, transport, n_ranks, play_on, play);
    crew_start(ret_gang);
    assert_true(crew_carry(ret_gang));
    crew_reach(ret_gang, COLL_RANKS_MAX, 3);
    *ret_since = clock_mono_ns();
    assert_true(crew_wait(ret_gang, 20000));
}

static void test_an_abort_wakes_every_rank(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        struct play play = {.victim = victim, .victim_does = VICTIM_ABORTS, .operation_ms = 60000};
        struct crew gang;
        uint64_t since;
        play_through(&play, 3, &gang, &since);
        assert_told(&gang, COLL_RANKS_MAX, since, ERR_CANCELLED, rank_name(victim),
                    "the operator said so");
        crew_fini(&gang);
    }
}

/* A rank that operates without ever having to wait looks at its flag all the same. */
static void test_a_rank_that_is_told_to_stop_tells_the_others(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        struct play play = {.victim = victim, .victim_does = VICTIM_STOPS, .operation_ms = 60000};
        struct crew gang;
        uint64_t since;
        play_through(&play, 3, &gang, &since);
        assert_told(&gang, COLL_RANKS_MAX, since, ERR_CANCELLED, rank_name(victim),
                    "was told to stop");
        crew_fini(&gang);
    }
}

static void test_the_reason_of_an_abort_outlives_its_rank(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        struct play play = {
            .victim = victim, .victim_does = VICTIM_ABORTS_LAST, .operation_ms = 60000};
        struct crew gang;
        uint64_t since;
        play_through(&play, 3, &gang, &since);
        assert_told(&gang, victim, since, ERR_CANCELLED, rank_name(victim), "the operator said so");
        crew_fini(&gang);
    }
}

/* ---- nobody needs anything just now ---- */

struct idle {
    uint32_t victim;
    enum { IDLE_DIES, IDLE_LEAVES, IDLE_STOPS } victim_does;
};

/* Rank 0 has nothing to do, and looks; the others wait for it. */
static enum err idle_on(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct idle *idle = arg;
    struct crew_report *report = &g->gang->report[g->rank];
    struct coll *c = NULL;
    atomic_bool stop = false;
    const void *bytes;
    size_t size;
    g->config.stop = &stop;
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK)
        e = coll_check(c, eb);
    atomic_store(&report->steps, 1);
    if (e == ERR_OK && g->rank == idle->victim && idle->victim_does != IDLE_DIES) {
        nap(200);
        atomic_store(&stop, idle->victim_does == IDLE_STOPS);
        if (idle->victim_does == IDLE_STOPS)
            e = coll_check(c, eb);
    } else if (g->rank == 0) {
        for (; e == ERR_OK; nap(10)) {
            const uint64_t before = clock_mono_ns();
            e = coll_check(c, eb);
            if (clock_mono_ns() - before > 80000000u)
                atomic_store(&report->steps, 99); /* it waited for something */
        }
    } else if (e == ERR_OK) {
        e = coll_broadcast(c, 0, NULL, 0, crew_soon(60000), &bytes, &size, eb);
    }
    coll_close(c);
    return e;
}

static void test_a_loss_is_seen_between_operations(void **state)
{
    (void)state;
    static const struct {
        int does;
        enum err e;
        const char *says;
    } cases[] = {
        {IDLE_DIES, ERR_UNAVAILABLE, "ended"},
        {IDLE_LEAVES, ERR_UNAVAILABLE, "left the gang after operation"},
        {IDLE_STOPS, ERR_CANCELLED, "was told to stop"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint32_t victim = 1; victim < 3; victim++) {
            struct idle idle = {.victim = victim};
            struct crew gang;
            idle.victim_does = cases[i].does;
            crew_init(&gang, transport, 3, idle_on, &idle);
            crew_start(&gang);
            assert_true(crew_carry(&gang));
            crew_reach(&gang, COLL_RANKS_MAX, 1);
            nap(100);
            const uint64_t since = clock_mono_ns();
            if (cases[i].does == IDLE_DIES)
                crew_kill(&gang, victim);
            assert_true(crew_wait(&gang, 20000));
            assert_told(&gang, victim, since, cases[i].e, rank_name(victim), cases[i].says);
            for (uint32_t r = 0; r < 3; r++)
                assert_true(atomic_load(&gang.report[r].steps) == 1);
            crew_fini(&gang);
        }
    }
}

static void test_who_closes_early_is_named(void **state)
{
    (void)state;
    for (uint32_t victim = 0; victim < 3; victim++) {
        struct play play = {.victim = victim, .victim_does = VICTIM_CLOSES, .operation_ms = 60000};
        struct crew gang;
        uint64_t since;
        play_through(&play, 3, &gang, &since);
        assert_told(&gang, victim, since, ERR_UNAVAILABLE, rank_name(victim), "left the gang");
        assert_int_equal(gang.report[victim].e, ERR_OK);
        crew_fini(&gang);
    }
}

static void test_ranks_that_differ_are_found_out(void **state)
{
    (void)state;
    /* In the operation in which they differ, and not in one behind it. */
    enum { CHUNK = 256 << 10 }; /* in which ucx sends a part */
    static const struct {
        int does;
        const char *says, *also;
        size_t bytes, last, its_last;
    } cases[] = {
        {VICTIM_DIFFERS_KIND, "at barrier", "at all_gather", 0, 0, 0},
        {VICTIM_DIFFERS_SIZE, "rank", "other sizes", 0, 0, 0},
        {VICTIM_DIFFERS_SIZE, "rank", "other sizes", 64, CHUNK, 2 * CHUNK},
        {VICTIM_DIFFERS_SIZE, "rank", "other sizes", 64, 3 * CHUNK, 2 * CHUNK},
        {VICTIM_DIFFERS_SIZE, "rank", "other sizes", 64, CHUNK + 4, CHUNK},
        {VICTIM_DIFFERS_SIZE, "rank", "other sizes", 64, 0, CHUNK},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct play play = {.victim = 1,
                            .operation_ms = 60000,
                            .bytes = cases[i].bytes,
                            .last = cases[i].last,
                            .its_last = cases[i].its_last};
        struct crew gang;
        uint64_t since;
        play.victim_does = cases[i].does;
        play_through(&play, 3, &gang, &since);
        assert_told(&gang, COLL_RANKS_MAX, since, ERR_INTERNAL, cases[i].says, cases[i].also);
        if (cases[i].does == VICTIM_DIFFERS_SIZE)
            assert_int_equal(atomic_load(&gang.report[play.victim].steps), 4);
        crew_fini(&gang);
    }
}

/* ---- nothing left behind ---- */

/* Many gangs in one process, broken ones among them. */
static enum err come_and_go(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    (void)arg;
    unsigned files = 0;
    enum err e = ERR_OK;
    for (uint32_t life = 0; life < 12 && e == ERR_OK; life++) {
        struct coll *c = NULL;
        struct errbuf why = {{0}};
        g->config.epoch = life;
        e = crew_open(g, &c, eb);
        if (e != ERR_OK)
            break;
        e = coll_barrier(c, crew_soon(60000), eb);
        if (life % 3 == 2 && g->rank != 0 && e == ERR_CANCELLED)
            e = ERR_OK; /* rank 0 was through before, and said enough */
        if (life % 3 == 2 && g->rank == 0)
            coll_abort(c, "enough");
        if (life % 3 == 2)
            CHECK(coll_barrier(c, crew_soon(60000), &why) == ERR_CANCELLED);
        coll_close(c);
        if (life == 2)
            files = crew_count_files();
        if (life > 2)
            CHECK(crew_count_files() == files);
    }
    return e;
}

static void test_files_are_closed_in_every_life(void **state)
{
    (void)state;
    struct crew gang;
    crew_init(&gang, transport, 3, come_and_go, NULL);
    crew_start(&gang);
    if (transport == COLL_TRANSPORT_UCX) {
        for (uint32_t life = 0; life < 12; life++)
            assert_true(crew_carry(&gang));
    }
    assert_true(crew_wait(&gang, 120000));
    for (uint32_t r = 0; r < 3; r++) {
        if (gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s", r, gang.report[r].eb.text);
    }
    crew_fini(&gang);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill_of_each_rank_in_turn),
        cmocka_unit_test(test_kill_of_each_rank_while_it_writes_its_part),
        cmocka_unit_test(test_a_stopped_rank_runs_into_the_deadline),
        cmocka_unit_test(test_a_rank_that_computes_for_long_is_waited_for),
        cmocka_unit_test(test_an_abort_wakes_every_rank),
        cmocka_unit_test(test_a_rank_that_is_told_to_stop_tells_the_others),
        cmocka_unit_test(test_the_reason_of_an_abort_outlives_its_rank),
        cmocka_unit_test(test_a_loss_is_seen_between_operations),
        cmocka_unit_test(test_who_closes_early_is_named),
        cmocka_unit_test(test_ranks_that_differ_are_found_out),
        cmocka_unit_test(test_files_are_closed_in_every_life),
    };
    transport = crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
