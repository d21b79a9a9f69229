/*
 * A gang that is split: the ranks of each colour have operations of their own, beside each other
 * and beside those of the gang; and whatever breaks one of its parts is known to every rank, in the
 * words and ranks of the gang, wherever it waits.
 *
 *   test_coll_split shm|ucx|hosts
 *
 * hosts: over libucx, with neighbours that are of one host, so that some parts are over shm.
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static enum coll_transport transport;
static uint32_t host_ranks;

#define DEAD_NS 2000000000u /* all others must know by then */
#define NONE    COLL_COLOR_NONE

static void nap(uint32_t ms)
{
    const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* ---- parts compute ---- */

#define COLORS_MAX 8u
struct way {
    const char *name;
    uint32_t n_ranks;
    size_t bytes_max; /* of the gang */
    uint32_t color[COLORS_MAX];
    size_t part_bytes_max[COLORS_MAX]; /* by colour; 0: 1 MiB */
};

static const struct way ways[] = {
    {"all of one colour", 4, 1 << 16, {0}, {0}},
    {"odd and even", 4, 1 << 16, {0, 1, 0, 1}, {0}},
    {"one each", 3, 1 << 16, {2, 1, 0}, {0}},
    {"some of none", 5, 1 << 16, {NONE, 3, NONE, 3, 3}, {0}},
    {"nobody", 2, 1 << 16, {NONE, NONE}, {0}},
    {"of other sizes", 4, 1 << 16, {1, 0, 0, 1}, {2 * COLL_ALIGN, 1 << 20}},
    {"by way of a narrow gang", 5, 5 * COLL_ALIGN, {0, 1, 1, 0, 1}, {0}},
    {"alone", 1, 1 << 12, {0}, {0}},
};

static size_t part_bytes(const struct way *way, uint32_t color)
{
    const size_t bytes = color == NONE ? 0 : way->part_bytes_max[color];
    return bytes == 0 ? 1u << 20 : bytes;
}

/* Everyone's bytes to all of `c`, whose ranks are members[0..n-1] of the gang. */
static enum err gather_all(struct coll *c, const uint32_t members[], uint32_t n, size_t size,
                           uint64_t op, struct errbuf *eb)
{
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *mine;
    const uint32_t self = members[coll_rank(c)];
    for (uint32_t k = 0; k < n; k++)
        bytes[k] = size;
    enum err e = coll_all_gather_begin(c, bytes, crew_soon(60000), &mine, eb);
    if (e != ERR_OK)
        return e;
    crew_fill(mine, size, 5, op, self, 0);
    e = coll_end(c, crew_soon(60000), parts, eb);
    for (uint32_t k = 0; k < n && e == ERR_OK; k++)
        if (!crew_is_filled(parts[k], size, 5, op, members[k], 0))
            return err_set(eb, ERR_CORRUPT, "operation %u: rank %u has other bytes", (unsigned)op,
                           members[k]);
    return e;
}

static enum coll_transport transport_of(const uint32_t members[], uint32_t n)
{
    bool is_one_host = host_ranks > 0;
    for (uint32_t k = 0; k < n && is_one_host; k++)
        is_one_host = members[k] / host_ranks == members[0] / host_ranks;
    return is_one_host ? COLL_TRANSPORT_SHM : transport;
}

static uint32_t members_of(const struct way *way, uint32_t color, uint32_t ret[])
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < way->n_ranks; r++)
        if (way->color[r] == color)
            ret[n++] = r;
    return n;
}

/* Two splits of the gang are alive at a time: as the way has it, and neighbours in twos. */
static enum err play_parts(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct way *way = arg;
    const uint32_t color = way->color[g->rank], pair = g->rank / 2;
    uint32_t all[COLL_RANKS_MAX], members[COLL_RANKS_MAX], pairs[2] = {2 * pair, 2 * pair + 1};
    struct coll *c = NULL, *part = NULL, *twos = NULL;
    const unsigned files = crew_count_files();
    const uint32_t n = members_of(way, color, members);
    const uint32_t n_pairs = 2 * pair + 1 < way->n_ranks ? 2 : 1;
    const size_t size = part_bytes(way, color) / COLL_RANKS_MAX / 2;
    enum err e = crew_open(g, &c, eb);
    for (uint32_t r = 0; r < way->n_ranks; r++)
        all[r] = r;
    if (e == ERR_OK)
        e = coll_split(c, color, part_bytes(way, color), crew_soon(60000), &part, eb);
    if (e == ERR_OK)
        e = coll_split(c, pair, 4096, crew_soon(60000), &twos, eb);
    CHECK(e != ERR_OK || (part == NULL) == (color == NONE));
    for (uint32_t i = 0; part != NULL && e == ERR_OK && i < n; i++)
        if (members[i] == g->rank)
            CHECK(coll_rank(part) == i && coll_n_ranks(part) == n);
    CHECK(part == NULL || coll_transport_of(part) == transport_of(members, n));
    CHECK(twos == NULL || coll_transport_of(twos) == transport_of(pairs, n_pairs));
    for (uint64_t op = 0; op < 40 && e == ERR_OK; op++) {
        if (op % 4 == 3)
            e = gather_all(c, all, way->n_ranks, COLL_ALIGN, op, eb);
        else if (op % 4 == 1)
            e = gather_all(twos, pairs, n_pairs, 1000, op, eb);
        else if (part != NULL)
            e = gather_all(part, members, n, size, op, eb);
    }
    coll_close(twos);
    coll_close(part);
    /* The gang goes on without its parts, and can be split again. */
    for (uint32_t i = 0; i < 3 && e == ERR_OK; i++) {
        e = coll_split(c, i, 4096, crew_soon(60000), &part, eb);
        if (e == ERR_OK)
            e = gather_all(part, all, way->n_ranks, COLL_ALIGN, i, eb);
        if (e == ERR_OK)
            coll_close(part);
    }
    coll_close(c);
    if (transport == COLL_TRANSPORT_SHM && !g->gang->is_threads)
        CHECK(crew_count_files() == files);
    return e;
}

static void ranks_of_a_colour_have_operations_of_their_own(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        for (unsigned is_threads = 0; is_threads < 2; is_threads++) {
            struct way way = ways[i];
            struct crew gang;
            const unsigned shared = crew_count_shared();
            crew_init(&gang, transport, way.n_ranks, play_parts, &way);
            gang.host_ranks = host_ranks;
            gang.is_threads = is_threads != 0;
            gang.bytes_max = way.bytes_max;
            crew_run(&gang);
            assert_int_equal(crew_count_shared(), shared);
        }
    }
}

/* ---- a part breaks ---- */

/* Ranks 0 1 2 3: parts {0, 1} and {2, 3}, and a link {1, 2} between them. */
#define RANKS 4u

struct breaks {
    uint32_t victim;
    enum {
        VICTIM_PLAYS,   /* until it is killed */
        VICTIM_ABORTS,  /* its part */
        VICTIM_STOPS,   /* by its flag */
        VICTIM_LEAVES,  /* closes all it has */
        VICTIM_DIFFERS, /* does another operation in its part */
        VICTIM_HANGS,   /* computes for longer than others wait */
    } does;
    enum {
        OTHERS_IN_PARTS, /* each pair works on its own, and nobody asks anything of the gang */
        OTHERS_IN_GANG,  /* those that have no part with the victim wait for the gang */
        OTHERS_IN_LINK,  /* rank 1 waits for rank 2 */
    } where;
    bool closes_at_once; /* who hears of it, while others may not have heard */
};

/* What the others do while the victim is about to go. */
static enum err wait_around(struct crew_rank *g, const struct breaks *b, struct coll *c,
                            struct coll *part, struct coll *link, struct errbuf *eb)
{
    const uint32_t pair[2] = {g->rank / 2 * 2, g->rank / 2 * 2 + 1}, ends[2] = {1, 2};
    const bool is_with_victim = b->victim / 2 == g->rank / 2;
    /* Nobody but the victim is at fault, and none is to be late for another's sake. */
    if (b->where == OTHERS_IN_GANG && !is_with_victim)
        return coll_barrier(c, crew_soon(60000), eb);
    if (b->where == OTHERS_IN_LINK && link != NULL && !is_with_victim)
        return gather_all(link, ends, 2, 64, 0, eb);
    return gather_all(part, pair, 2, 1000, 0, eb);
}

static enum err play_to_break(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct breaks *b = arg;
    struct crew_report *report = &g->gang->report[g->rank];
    struct coll *c = NULL, *part = NULL, *link = NULL;
    const bool is_linked = g->rank == 1 || g->rank == 2;
    atomic_bool stop = false;
    g->config.stop = &stop;
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK)
        e = coll_split(c, g->rank / 2, 1 << 16, crew_soon(60000), &part, eb);
    if (e == ERR_OK)
        e = coll_split(c, is_linked ? 0 : NONE, 4096, crew_soon(60000), &link, eb);
    for (uint32_t i = 0; e == ERR_OK; i++) {
        if (g->rank == b->victim && i == 20) {
            if (b->does == VICTIM_LEAVES)
                break;
            if (b->does == VICTIM_ABORTS)
                coll_abort(part, "the operator said so");
            if (b->does == VICTIM_STOPS)
                atomic_store(&stop, true);
            if (b->does == VICTIM_DIFFERS) {
                e = coll_barrier(part, crew_soon(60000), eb);
                continue;
            }
            if (b->does == VICTIM_HANGS) {
                const size_t bytes[2] = {0, 0};
                const void *parts[2];
                void *mine;
                nap(1500);
                e = coll_all_gather_begin(part, bytes, crew_soon(60000), &mine, eb);
                if (e == ERR_OK)
                    e = coll_end(part, crew_soon(60000), parts, eb);
                continue;
            }
        }
        if (b->does == VICTIM_HANGS && i == 20 && g->rank / 2 == b->victim / 2) {
            const size_t bytes[2] = {0, 0};
            const void *parts[2];
            void *mine;
            e = coll_all_gather_begin(part, bytes, crew_soon(300), &mine, eb);
            if (e == ERR_OK)
                e = coll_end(part, crew_soon(300), parts, eb);
            continue;
        }
        e = wait_around(g, b, c, part, link, eb);
        atomic_fetch_add(&report->steps, 1);
    }
    if (e != ERR_OK && c != NULL && !b->closes_at_once) {
        /* All of it is broken, for the same reason. */
        struct coll *const each[] = {c, part, link};
        for (size_t i = 0; i < 3; i++) {
            struct errbuf again = {{0}};
            const uint64_t before = clock_mono_ns();
            if (each[i] == NULL)
                continue;
            CHECK(coll_barrier(each[i], crew_soon(60000), &again) == e);
            if (strstr(again.text, eb->text) == NULL) {
                fprintf(stderr, "rank %u: first %s, then %s\n", g->rank, eb->text, again.text);
                CHECK(false);
            }
            CHECK(clock_mono_ns() - before < 200000000u);
        }
    }
    coll_close(link);
    coll_close(part);
    coll_close(c);
    return e;
}

static void assert_all_told(struct crew *gang, uint32_t victim, uint64_t since_ns, enum err e,
                            const char *says)
{
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        const struct crew_report *report = &gang->report[r];
        if (r == victim)
            continue;
        assert_true(atomic_load(&report->is_done));
        if (report->e != e || strstr(report->eb.text, says) == NULL)
            fail_msg("rank %u, victim %u: %s: %s", r, victim, err_name(report->e), report->eb.text);
        if (report->ended_ns > since_ns + DEAD_NS)
            fail_msg("rank %u was told after %llu ms", r,
                     (unsigned long long)((report->ended_ns - since_ns) / 1000000u));
        /* In shared memory one is the first to say it; over a network two may be. */
        const struct crew_report *first = &gang->report[victim == 0 ? 1 : 0];
        if (transport == COLL_TRANSPORT_SHM)
            assert_string_equal(report->eb.text, first->eb.text);
    }
}

static void a_rank_that_is_killed_ends_all_parts(void **state)
{
    (void)state;
    for (unsigned where = OTHERS_IN_PARTS; where <= OTHERS_IN_LINK; where++) {
        for (uint32_t victim = 0; victim < RANKS; victim++) {
            struct breaks b = {.victim = victim, .does = VICTIM_PLAYS, .where = where};
            struct crew gang;
            char rank[32], also[32];
            const unsigned shared = crew_count_shared();
            crew_init(&gang, transport, RANKS, play_to_break, &b);
            gang.host_ranks = host_ranks;
            crew_start(&gang);
            assert_true(crew_carry(&gang));
            crew_reach(&gang, victim, 30);
            const uint64_t since = clock_mono_ns();
            crew_kill(&gang, victim);
            assert_true(crew_wait(&gang, 20000));
            (void)snprintf(rank, sizeof rank, "rank %u ended", victim);
            (void)snprintf(also, sizeof also, "rank %u", victim);
            assert_all_told(&gang, victim, since, ERR_UNAVAILABLE,
                            transport == COLL_TRANSPORT_SHM ? rank : also);
            assert_int_equal(crew_count_shared(), shared);
            crew_fini(&gang);
        }
    }
}

/* The first to hear of it may be gone before the others have: it is not taken for the victim. */
static void a_rank_that_closes_for_it_is_not_blamed(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 32; i++) {
        struct breaks b = {.victim = i % RANKS, .where = i / RANKS % 3, .closes_at_once = true};
        struct crew gang;
        char rank[32];
        crew_init(&gang, transport, RANKS, play_to_break, &b);
        gang.host_ranks = host_ranks;
        crew_start(&gang);
        assert_true(crew_carry(&gang));
        crew_reach(&gang, b.victim, 30);
        const uint64_t since = clock_mono_ns();
        crew_kill(&gang, b.victim);
        assert_true(crew_wait(&gang, 20000));
        (void)snprintf(rank, sizeof rank, "rank %u ", b.victim);
        assert_all_told(&gang, b.victim, since, ERR_UNAVAILABLE, rank);
        crew_fini(&gang);
    }
}

static void what_ends_one_part_ends_all(void **state)
{
    static const struct {
        unsigned does;
        enum err e;
        const char *says;
    } rows[] = {
        {VICTIM_ABORTS, ERR_CANCELLED, "rank 3 ended the gang: the operator said so"},
        {VICTIM_STOPS, ERR_CANCELLED, "rank 3 was told to stop"},
        {VICTIM_LEAVES, ERR_UNAVAILABLE, "rank 3 left the gang"},
        {VICTIM_DIFFERS, ERR_INTERNAL, "rank 3"},
        {VICTIM_HANGS, ERR_TIMEOUT, "rank 3 kept rank 2 waiting"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (unsigned where = OTHERS_IN_PARTS; where <= OTHERS_IN_LINK; where++) {
            struct breaks b = {.victim = 3, .does = rows[i].does, .where = where};
            struct crew gang;
            crew_init(&gang, transport, RANKS, play_to_break, &b);
            gang.host_ranks = host_ranks;
            gang.is_threads = i % 2 == 0;
            const uint64_t since = clock_mono_ns();
            crew_start(&gang);
            assert_true(crew_carry(&gang));
            assert_true(crew_wait(&gang, 20000));
            /* Of which most is for meeting, and for the hang. */
            assert_all_told(&gang, 3, since + 2 * DEAD_NS, rows[i].e, rows[i].says);
            crew_fini(&gang);
        }
    }
}

/* ---- no split ---- */

struct no_split {
    enum {
        SPLIT_OF_BROKEN,    /* the gang was broken before */
        SPLIT_WITHOUT_ONE,  /* a rank ends instead */
        SPLIT_DIFFERENT,    /* ranks of a colour ask for other sizes */
        SPLIT_TOO_LARGE,    /* one colour asks for more than there is */
        SPLIT_WITH_A_SLEEP, /* a rank comes past the deadline */
    } what;
};

static enum err play_no_split(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct no_split *what = arg;
    struct coll *c = NULL, *part = NULL;
    size_t bytes_max = 4096;
    const unsigned files = crew_count_files();
    enum err e = crew_open(g, &c, eb);
    /* libucx 1.13 may end a process while it still connects to one that goes away, for which an
     * operation is soon enough: docs/collectives.md, "What is not there". */
    if (e == ERR_OK && transport == COLL_TRANSPORT_UCX)
        nap(200);
    if (e == ERR_OK && g->rank == 1) {
        if (what->what == SPLIT_OF_BROKEN)
            coll_abort(c, "the operator said so");
        if (what->what == SPLIT_WITHOUT_ONE)
            _exit(0);
        if (what->what == SPLIT_WITH_A_SLEEP)
            nap(800);
        if (what->what == SPLIT_DIFFERENT)
            bytes_max = 8192;
    }
    /* The memory of a whole machine, and of a colour that rank 1 is not of. */
    if (what->what == SPLIT_TOO_LARGE && g->rank != 1)
        bytes_max = COLL_BYTES_MAX + 1;
    if (e == ERR_OK)
        e = coll_split(c, g->rank == 1 && what->what == SPLIT_TOO_LARGE ? 1 : 0, bytes_max,
                       crew_soon(what->what == SPLIT_WITH_A_SLEEP ? 300 : 60000), &part, eb);
    CHECK(part == NULL);
    if (e != ERR_OK && c != NULL) {
        struct errbuf again = {{0}};
        CHECK(coll_split(c, 0, 64, crew_soon(60000), &part, &again) == e);
        CHECK(strstr(again.text, eb->text) != NULL);
    }
    coll_close(c);
    if (transport == COLL_TRANSPORT_SHM)
        CHECK(crew_count_files() == files);
    return e;
}

static void a_split_that_fails_ends_the_gang(void **state)
{
    static const struct {
        unsigned what;
        enum err e;
        const char *says;
    } rows[] = {
        {SPLIT_OF_BROKEN, ERR_CANCELLED, "rank 1 ended the gang: the operator said so"},
        {SPLIT_WITHOUT_ONE, ERR_UNAVAILABLE, "rank 1"},
        {SPLIT_DIFFERENT, ERR_CONFLICT,
         "rank 1 makes room for operations of 8192 bytes, rank 0 of 4096"},
        {SPLIT_TOO_LARGE, ERR_TOO_LARGE, "operations of 68719476737 bytes"},
        {SPLIT_WITH_A_SLEEP, ERR_TIMEOUT, "rank 1 kept rank"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct no_split what = {.what = rows[i].what};
        struct crew gang;
        crew_init(&gang, transport, 3, play_no_split, &what);
        gang.host_ranks = host_ranks;
        crew_start(&gang);
        assert_true(crew_carry(&gang));
        assert_true(crew_wait(&gang, 20000));
        for (uint32_t r = 0; r < 3; r++) {
            const struct crew_report *report = &gang.report[r];
            if (r == 1 && what.what == SPLIT_WITHOUT_ONE)
                continue;
            if (report->e != rows[i].e || strstr(report->eb.text, rows[i].says) == NULL)
                fail_msg("%zu, rank %u: %s: %s", i, r, err_name(report->e), report->eb.text);
        }
        crew_fini(&gang);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_of_a_colour_have_operations_of_their_own),
        cmocka_unit_test(a_rank_that_is_killed_ends_all_parts),
        cmocka_unit_test(a_rank_that_closes_for_it_is_not_blamed),
        cmocka_unit_test(what_ends_one_part_ends_all),
        cmocka_unit_test(a_split_that_fails_ends_the_gang),
    };
    if (argc == 2 && strcmp(argv[1], "hosts") == 0) {
        char *const over_ucx[] = {argv[0], (char[]){"ucx"}, NULL};
        transport = crew_transport(2, (char **)over_ucx);
        host_ranks = 2;
    } else {
        transport = crew_transport(argc, argv);
    }
    return cmocka_run_group_tests_name(argv[1], tests, NULL, NULL);
}
