/*
 * Every operation x ranks x sizes against a plain oracle: what a rank must find is made again from
 * (seed, operation, sender, receiver), never taken from the gang.
 *
 *   test_coll_operations shm|ucx
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static enum coll_transport transport;

#define DEADLINE_MS 120000u

/* ---- one operation, checked ---- */

struct script {
    uint64_t seed;
    uint32_t n_operations;
    bool is_jittery; /* ranks dawdle now and then */
};

static enum err play_all_gather(struct crew_rank *g, struct coll *c, uint64_t op,
                                const size_t bytes[], uint32_t root, bool to_root,
                                struct errbuf *eb)
{
    void *mine;
    const void *parts[COLL_RANKS_MAX];
    const uint32_t n = coll_n_ranks(c);
    enum err e = to_root ? coll_gather_begin(c, root, bytes, crew_soon(DEADLINE_MS), &mine, eb)
                         : coll_all_gather_begin(c, bytes, crew_soon(DEADLINE_MS), &mine, eb);
    if (e != ERR_OK)
        return e;
    CHECK((uintptr_t)mine % COLL_ALIGN == 0);
    crew_fill(mine, bytes[g->rank], 1, op, g->rank, 0);
    e = coll_end(c, crew_soon(DEADLINE_MS), parts, eb);
    for (uint32_t from = 0; from < n && e == ERR_OK; from++) {
        if (to_root && g->rank != root)
            CHECK(parts[from] == NULL);
        else if (!crew_is_filled(parts[from], bytes[from], 1, op, from, 0))
            e = err_set(eb, ERR_CORRUPT, "operation %llu: the part of rank %u, %zu bytes, differs",
                        (unsigned long long)op, from, bytes[from]);
    }
    /* Whole multiples lie as one array. */
    for (uint32_t from = 1; from < n && e == ERR_OK && !to_root; from++) {
        if (bytes[from - 1] % COLL_ALIGN == 0)
            CHECK((const uint8_t *)parts[from] ==
                  (const uint8_t *)parts[from - 1] + bytes[from - 1]);
    }
    return e;
}

static enum err play_exchange(struct crew_rank *g, struct coll *c, uint64_t op,
                              const size_t bytes[], struct errbuf *eb)
{
    void *mine[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    const uint32_t n = coll_n_ranks(c);
    enum err e = coll_exchange_begin(c, bytes, crew_soon(DEADLINE_MS), mine, eb);
    if (e != ERR_OK)
        return e;
    for (uint32_t to = 0; to < n; to++)
        crew_fill(mine[to], bytes[g->rank * n + to], 2, op, g->rank, to);
    e = coll_end(c, crew_soon(DEADLINE_MS), parts, eb);
    for (uint32_t from = 0; from < n && e == ERR_OK; from++) {
        if (!crew_is_filled(parts[from], bytes[from * n + g->rank], 2, op, from, g->rank))
            e = err_set(eb, ERR_CORRUPT, "operation %llu: the piece of rank %u differs",
                        (unsigned long long)op, from);
    }
    return e;
}

static enum err play_broadcast(struct crew_rank *g, struct coll *c, uint64_t op, uint32_t root,
                               size_t size, struct errbuf *eb)
{
    static _Thread_local uint8_t plan[1u << 20];
    const void *got;
    size_t got_size;
    CHECK(size <= sizeof plan);
    if (g->rank == root)
        crew_fill(plan, size, 3, op, root, 0);
    enum err e = coll_broadcast(c, root, plan, g->rank == root ? size : 12345,
                                crew_soon(DEADLINE_MS), &got, &got_size, eb);
    if (g->rank == root)
        memset(plan, 0xee, size); /* it was taken when the call returned */
    if (e == ERR_OK && (got_size != size || !crew_is_filled(got, size, 3, op, root, 0)))
        e = err_set(eb, ERR_CORRUPT, "operation %llu: the root's %zu bytes differ",
                    (unsigned long long)op, size);
    return e;
}

/* ---- tables ---- */

static const uint32_t all_ranks[] = {1, 2, 3, 4, 8, 16};

/* Bytes of rank r in an operation of n ranks. */
static const struct shares {
    const char *name;
    size_t base, per_rank;
    bool only_first, only_last, all_but_first;
} all_shares[] = {
    {"nothing", 0, 0, false, false, false},
    {"one byte", 1, 0, false, false, false},
    {"odd", 77, 0, false, false, false},
    {"a line", 64, 0, false, false, false},
    {"pages", 4096, 0, false, false, false},
    {"a page and one", 4097, 0, false, false, false},
    {"uneven", 3, 1001, false, false, false},
    {"uneven whole lines", 64, 640, false, false, false},
    {"large", 60000, 0, false, false, false},
    {"large, uneven", 1, 7777, false, false, false},
    {"the first alone", 50001, 0, true, false, false},
    {"the last alone", 50001, 0, false, true, false},
    {"all but the first", 9999, 5, false, false, true},
};

static size_t share_of(const struct shares *s, uint32_t r, uint32_t n)
{
    if ((s->only_first && r != 0) || (s->only_last && r != n - 1) || (s->all_but_first && r == 0))
        return 0;
    return s->base + s->per_rank * r;
}

static enum err every_operation(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    uint64_t op = 0;
    size_t bytes[COLL_RANKS_MAX], pairs[COLL_RANKS_MAX * COLL_RANKS_MAX];
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    const uint32_t n = g->config.n_ranks;
    for (unsigned i = 0; i < sizeof all_shares / sizeof all_shares[0] && e == ERR_OK; i++) {
        const struct shares *s = &all_shares[i];
        for (uint32_t r = 0; r < n; r++) {
            bytes[r] = share_of(s, r, n);
            for (uint32_t to = 0; to < n; to++)
                pairs[r * n + to] = share_of(s, r, n) / n + (share_of(s, r, n) > 0 ? to : 0);
        }
        e = play_all_gather(g, c, op++, bytes, 0, false, eb);
        if (e == ERR_OK)
            e = play_exchange(g, c, op++, pairs, eb);
        if (e == ERR_OK)
            e = coll_barrier(c, crew_soon(DEADLINE_MS), eb);
        for (uint32_t root = 0; root < n && e == ERR_OK; root++) {
            e = play_all_gather(g, c, op++, bytes, root, true, eb);
            if (e == ERR_OK)
                e = play_broadcast(g, c, op++, root, bytes[root], eb);
        }
        if (e != ERR_OK)
            err_prefix(eb, e, "%s", s->name);
    }
    coll_close(c);
    return e;
}

static void test_every_operation_ranks_and_shares(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof all_ranks / sizeof all_ranks[0]; i++) {
        struct crew gang;
        crew_init(&gang, transport, all_ranks[i], every_operation, NULL);
        crew_run(&gang);
    }
}

static void test_ranks_that_are_threads(void **state)
{
    static const uint32_t ranks[] = {1, 2, 3, 8};
    (void)state;
    for (unsigned i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        struct crew gang;
        crew_init(&gang, transport, ranks[i], every_operation, NULL);
        gang.is_threads = true;
        crew_run(&gang);
    }
}

/* ---- large ---- */

static enum err large_parts(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    size_t bytes[COLL_RANKS_MAX];
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    for (uint64_t op = 0; op < 4 && e == ERR_OK; op++) {
        for (uint32_t r = 0; r < g->config.n_ranks; r++)
            bytes[r] = ((size_t)5 << 20) + op * 1000 + r;
        e = play_all_gather(g, c, op, bytes, 0, false, eb);
    }
    coll_close(c);
    return e;
}

static void test_parts_of_megabytes(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 4; n += 2) {
        struct crew gang;
        crew_init(&gang, transport, n, large_parts, NULL);
        gang.bytes_max = (size_t)24 << 20;
        crew_run(&gang);
    }
}

/* ---- any sequence ---- */

/* Every rank draws the same operations from the seed, and dawdles by a number of its own. */
static enum err any_sequence(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct script *script = arg;
    struct coll *c = NULL;
    uint64_t draw = script->seed, own = script->seed * 31 + g->rank;
    size_t bytes[COLL_RANKS_MAX * COLL_RANKS_MAX];
    const uint32_t n = g->config.n_ranks;
    static const uint32_t sizes[] = {0, 1, 100, 4096, 30000};
    enum err e = crew_open(g, &c, eb);
    for (uint64_t op = 0; op < script->n_operations && e == ERR_OK; op++) {
        const uint32_t kind = (uint32_t)(crew_random(&draw) % 5);
        const uint32_t root = (uint32_t)(crew_random(&draw) % n);
        const uint32_t most = sizes[crew_random(&draw) % 5];
        for (uint32_t i = 0; i < n * n; i++)
            bytes[i] = crew_random(&draw) % (most / (kind == 3 ? n : 1) + 1);
        if (script->is_jittery && crew_random(&own) % 8 == 0) {
            const struct timespec t = {0, (long)(crew_random(&own) % 300000)};
            nanosleep(&t, NULL);
        }
        switch (kind) {
        case 0:
            e = play_all_gather(g, c, op, bytes, 0, false, eb);
            break;
        case 1:
            e = play_all_gather(g, c, op, bytes, root, true, eb);
            break;
        case 2:
            e = play_broadcast(g, c, op, root, bytes[root], eb);
            break;
        case 3:
            e = play_exchange(g, c, op, bytes, eb);
            break;
        default:
            e = coll_barrier(c, crew_soon(DEADLINE_MS), eb);
            break;
        }
        if (e != ERR_OK)
            err_prefix(eb, e, "seed %llu", (unsigned long long)script->seed);
    }
    coll_close(c);
    return e;
}

static void test_any_sequence_of_operations(void **state)
{
    static const uint32_t ranks[] = {2, 3, 5, 16};
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct script script = {seed, ranks[seed % 4] == 16 ? 100 : 400, seed % 2 == 0};
        struct crew gang;
        crew_init(&gang, transport, ranks[seed % 4], any_sequence, &script);
        gang.is_threads = seed > 4;
        crew_run(&gang);
    }
}

/* ---- results live until the next operation ends ---- */

static enum err results_live_on(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    void *mine;
    const void *parts[2][COLL_RANKS_MAX];
    size_t bytes[COLL_RANKS_MAX];
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    for (uint32_t r = 0; r < g->config.n_ranks; r++)
        bytes[r] = 3000;
    for (uint64_t op = 0; op < 200 && e == ERR_OK; op++) {
        e = coll_all_gather_begin(c, bytes, crew_soon(DEADLINE_MS), &mine, eb);
        if (e != ERR_OK)
            break;
        crew_fill(mine, bytes[g->rank], 4, op, g->rank, 0);
        /* The others may be anywhere between this operation's begin and its end. */
        for (uint32_t r = 0; r < g->config.n_ranks && op > 0; r++)
            CHECK(crew_is_filled(parts[(op - 1) % 2][r], bytes[r], 4, op - 1, r, 0));
        e = coll_end(c, crew_soon(DEADLINE_MS), parts[op % 2], eb);
    }
    coll_close(c);
    return e;
}

static void test_results_live_until_the_next_operation_ends(void **state)
{
    (void)state;
    struct crew gang;
    crew_init(&gang, transport, 3, results_live_on, NULL);
    crew_run(&gang);
}

/* ---- what is refused without breaking anything ---- */

static enum err too_large(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    void *mine;
    struct errbuf why = {{0}};
    size_t bytes[COLL_RANKS_MAX] = {40000, 60000};
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK) {
        CHECK(coll_all_gather_begin(c, bytes, crew_soon(1000), &mine, &why) == ERR_TOO_LARGE);
        CHECK(strstr(why.text, "bytes_max of 65536") != NULL);
        bytes[1] = SIZE_MAX - 10;
        CHECK(coll_all_gather_begin(c, bytes, crew_soon(1000), &mine, &why) == ERR_TOO_LARGE);
        bytes[1] = 20000;
        e = play_all_gather(g, c, 1, bytes, 0, false, eb);
    }
    coll_close(c);
    return e;
}

static void test_too_large_is_refused_and_the_gang_lives(void **state)
{
    (void)state;
    struct crew gang;
    crew_init(&gang, transport, 2, too_large, NULL);
    gang.bytes_max = 65536;
    crew_run(&gang);
}

static void test_impossible_gangs_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t rank, n_ranks;
        size_t bytes_max;
        enum err e;
    } cases[] = {
        {0, 0, 64, ERR_INVALID},
        {0, 17, 64, ERR_INVALID},
        {3, 3, 64, ERR_INVALID},
        {0, 1, SIZE_MAX, ERR_TOO_LARGE},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct coll *c = NULL;
        struct errbuf eb = {{0}};
        struct coll_config config = {.transport = transport,
                                     .rank = cases[i].rank,
                                     .n_ranks = cases[i].n_ranks,
                                     .build = "",
                                     .bytes_max = cases[i].bytes_max};
        assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), cases[i].e);
        assert_true(eb.text[0] != '\0');
        assert_null(c);
    }
}

static void test_more_memory_than_there_is_is_refused(void **state)
{
    (void)state;
    const size_t pages = (size_t)sysconf(_SC_PHYS_PAGES);
    if (transport != COLL_TRANSPORT_SHM || pages * 4096 >= 2 * COLL_BYTES_MAX)
        skip(); /* libucx's ranks take theirs when they use it; or there is as much as one may ask
                 */
    struct coll *c = NULL;
    struct errbuf eb = {{0}};
    struct coll_config config = {
        .transport = transport, .n_ranks = 1, .build = "", .bytes_max = COLL_BYTES_MAX};
    assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), ERR_NO_MEMORY);
    assert_non_null(strstr(eb.text, "available"));
    assert_null(c);
}

/* What is reckoned with is what is mapped. */
static void test_a_gang_holds_what_is_said(void **state)
{
    static const size_t sizes[] = {0, 1, 4096, 100000, 3u << 20};
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip(); /* there it is the very number that is mapped */
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const struct coll_config config = {
            .transport = transport, .n_ranks = 1, .build = "", .bytes_max = sizes[i]};
        struct coll *c = NULL;
        struct errbuf eb = {{0}};
        char line[512];
        uint64_t mapped = 0;
        assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), ERR_OK);
        FILE *f = fopen("/proc/self/maps", "re");
        assert_non_null(f);
        while (fgets(line, sizeof line, f) != NULL) {
            unsigned long long begin, end;
            if (strstr(line, "cloister-coll") != NULL &&
                sscanf(line, "%llx-%llx", &begin, &end) == 2)
                mapped += end - begin;
        }
        fclose(f);
        assert_int_equal(mapped, coll_memory(transport, sizes[i]));
        coll_close(c);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation_ranks_and_shares),
        cmocka_unit_test(test_ranks_that_are_threads),
        cmocka_unit_test(test_parts_of_megabytes),
        cmocka_unit_test(test_any_sequence_of_operations),
        cmocka_unit_test(test_results_live_until_the_next_operation_ends),
        cmocka_unit_test(test_too_large_is_refused_and_the_gang_lives),
        cmocka_unit_test(test_impossible_gangs_are_refused),
        cmocka_unit_test(test_a_gang_holds_what_is_said),
        cmocka_unit_test(test_more_memory_than_there_is_is_refused),
    };
    transport = crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
