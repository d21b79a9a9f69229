/*
 * What can go wrong between GPUs: every rank reports the same reason, which names who it was, and
 * none waits longer than it said it would. What a rank lacks is an error of that one; to the others
 * it is unavailable. The library is the one that stands in for NCCL
 * (tests/nccl_stand_in), the device one of host memory; other failures, of ranks and not of NCCL,
 * are test_broken.c's.
 *
 *   test_coll_nccl nccl
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/coll/nccl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS = 3, OPERATIONS = 8, WAIT_MS = 700 };
/* More than are put on a stream at once. */
enum { MANY = 2 * NCCL_RUN_MAX + 6 };

struct mishap {
    const char *name;
    const char *stand_in; /* NCCL_STAND_IN of all */
    const char *version;  /* NCCL_STAND_IN_VERSION of all, or of rank 1 alone */
    bool is_version_of_one;
    bool is_one_gpu;         /* ranks 0 and 2 */
    bool is_full;            /* rank 1's device */
    bool is_other_transport; /* rank 1's */
    bool is_put_off;         /* all operations are done at the end */
    bool is_many;            /* ... and there are more of them */
    bool is_unknown;         /* ... which rank 2 is not ready for */
    bool is_other_size;      /* ... of rank 1's third */
    bool is_one_more;        /* ... of rank 1's */
    enum err e;
    enum err e_of_one; /* rank 1, which lacks something; ERR_OK: all have `e` */
    bool is_of_each;   /* who lacks something speaks of itself */
    const char *says, *also;
};

static enum err no_memory(void *ctx, size_t bytes, void **ret_memory, struct errbuf *eb)
{
    (void)ctx;
    (void)ret_memory;
    return err_set(eb, ERR_NO_MEMORY, "%zu bytes on this GPU", bytes);
}

static void prepare(struct crew_rank *g, const struct mishap *m)
{
    if (m->stand_in != NULL)
        CHECK(setenv("NCCL_STAND_IN", m->stand_in, 1) == 0);
    if (m->version != NULL && (g->rank == 1 || !m->is_version_of_one))
        CHECK(setenv("NCCL_STAND_IN_VERSION", m->version, 1) == 0);
    if (m->is_one_gpu && g->rank == 2)
        g->device.stream.id[0] = 0;
    if (m->is_full && g->rank == 1)
        g->device.stream.alloc = no_memory;
    if (m->is_other_transport && g->rank == 1)
        g->config.transport = COLL_TRANSPORT_SHM;
}

/* All-gathers, even and uneven by turns, so that both of NCCL's ways are gone. */
static enum err play(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    if (arg != NULL)
        prepare(g, arg);
    enum err e = coll_open(&c, &g->config, crew_soon(arg == NULL ? 60000 : WAIT_MS), eb);
    for (uint64_t i = 0; i < OPERATIONS && e == ERR_OK; i++) {
        size_t bytes[COLL_RANKS_MAX];
        const void *parts[COLL_RANKS_MAX];
        void *mine;
        for (uint32_t r = 0; r < RANKS; r++)
            bytes[r] = i % 2 == 0 ? 4096 : 1000 * r;
        const uint64_t until = crew_soon(arg == NULL ? 60000 : WAIT_MS);
        e = coll_all_gather_begin(c, bytes, until, &mine, eb);
        if (e != ERR_OK)
            break;
        crew_fill(mine, bytes[g->rank], 5, i, g->rank, 0);
        e = coll_end(c, until, parts, eb);
        for (uint32_t r = 0; r < RANKS && e == ERR_OK; r++)
            CHECK(crew_is_filled(parts[r], bytes[r], 5, i, r, 0));
        atomic_fetch_add(&g->gang->report[g->rank].steps, 1);
    }
    coll_close(c);
    return e;
}

/* Of a rank whose operations are put off: what its device does with each of them. */
struct later {
    struct crew_rank *g;
    size_t bytes[MANY + 1][RANKS];
    void *mine[MANY + 1];
    const void *parts[MANY + 1][COLL_RANKS_MAX];
    uint32_t n, at, n_seen;
    struct later_turn {
        struct later *of;
        uint32_t i;
    } turn[MANY + 2];
};

__attribute__((visibility("default"))) void nccl_stand_in_queue(void *stream, bool (*turn)(void *),
                                                                void *arg);

/* On the stream, between two operations: looks at what the last one brought, writes the next. */
static bool later_turn(void *arg)
{
    const struct later_turn *t = arg;
    struct later *l = t->of;
    const uint32_t own = l->g->rank;
    for (uint32_t r = 0; t->i > 0 && r < RANKS; r++)
        CHECK(crew_is_filled(l->parts[t->i - 1][r], l->bytes[t->i - 1][r], 6, t->i - 1, r, 0));
    if (t->i < l->n)
        crew_fill(l->mine[t->i], l->bytes[t->i][own], 6, t->i, own, 0);
    l->n_seen++;
    return true;
}

static void later_next(void *ctx)
{
    struct later *l = ctx;
    l->turn[l->at] = (struct later_turn){l, l->at};
    nccl_stand_in_queue(l->g->device.stream.queue, later_turn, &l->turn[l->at]);
    l->at++;
}

/* Where all are ready, ranks wait for as many as may be on a stream at once. */
static size_t waits_of(const struct mishap *m, uint32_t n)
{
    return m->is_unknown ? n : (n + NCCL_RUN_MAX - 1) / NCCL_RUN_MAX;
}

/* All-gathers as in `play`, twice, put off and done at once. */
static enum err play_later(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct mishap *m = arg;
    struct coll *c = NULL;
    prepare(g, m);
    enum err e = coll_open(&c, &g->config, crew_soon(WAIT_MS), eb);
    for (uint32_t turn = 0; turn < 2 && e == ERR_OK; turn++) {
        struct later l = {.g = g, .n = m->is_many ? MANY : OPERATIONS};
        if (m->is_one_more && g->rank == 1)
            l.n++;
        coll_put_off(c);
        for (uint32_t i = 0; i < l.n && e == ERR_OK; i++) {
            for (uint32_t r = 0; r < RANKS; r++)
                l.bytes[i][r] = i % 2 == 0 ? 4096 : 1000 * r;
            if (m->is_other_size && g->rank == 1 && i == 2)
                l.bytes[i][0] = 64;
            e = coll_all_gather_begin(c, l.bytes[i], crew_soon(WAIT_MS), &l.mine[i], eb);
            if (e == ERR_OK)
                e = coll_end(c, crew_soon(WAIT_MS), l.parts[i], eb);
        }
        if (e != ERR_OK) {
            coll_forget(c);
            break;
        }
        const struct coll_queue queue = {later_next, &l, !(m->is_unknown && g->rank == 2)};
        const size_t marks = g->device.n_marks;
        e = coll_run(c, &queue, WAIT_MS * UINT64_C(1000000), eb);
        CHECK(e != ERR_OK || l.at == l.n + 1);
        CHECK(e != ERR_OK || g->device.n_marks - marks == waits_of(m, l.n));
        g->device.stream.mark(g->device.stream.ctx);
        while (e == ERR_OK && !g->device.stream.is_done(g->device.stream.ctx))
            continue;
        CHECK(e != ERR_OK || l.n_seen == l.n + 1);
        atomic_fetch_add(&g->gang->report[g->rank].steps, 1);
    }
    coll_close(c);
    return e;
}

/* Operations that are put off and forgotten, then as `play`. */
static enum err play_forget(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    (void)arg;
    enum err e = coll_open(&c, &g->config, crew_soon(WAIT_MS), eb);
    for (uint64_t i = 0; i < OPERATIONS && e == ERR_OK; i++) {
        const size_t bytes[RANKS] = {64, 64, 64};
        const void *parts[COLL_RANKS_MAX];
        const bool is_forgotten = i == 0 || i == 3;
        void *mine;
        if (is_forgotten)
            coll_put_off(c);
        for (uint32_t turn = 0; turn < (is_forgotten ? 3 : 1) && e == ERR_OK; turn++) {
            e = coll_all_gather_begin(c, bytes, crew_soon(WAIT_MS), &mine, eb);
            if (e == ERR_OK)
                crew_fill(mine, bytes[g->rank], 7, i, g->rank, 0);
            if (e == ERR_OK)
                e = coll_end(c, crew_soon(WAIT_MS), parts, eb);
        }
        if (is_forgotten)
            coll_forget(c);
        for (uint32_t r = 0; r < RANKS && e == ERR_OK && !is_forgotten; r++)
            CHECK(crew_is_filled(parts[r], bytes[r], 7, i, r, 0));
    }
    coll_close(c);
    return e;
}

static void run_mishap(const struct mishap *m)
{
    struct mishap own = *m;
    struct crew gang;
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, m->is_put_off ? play_later : play, &own);
    const uint64_t since = clock_mono_ns();
    crew_start(&gang);
    assert_true(crew_wait(&gang, 20000));
    const struct crew_report *first = &gang.report[0];
    for (uint32_t r = 0; r < RANKS; r++) {
        const struct crew_report *report = &gang.report[r];
        const enum err e = r == 1 && m->e_of_one != ERR_OK ? m->e_of_one : m->e;
        char whose[32] = "";
        if (m->is_of_each)
            (void)snprintf(whose, sizeof whose, "rank %u: ", r);
        if (report->e != e || strncmp(report->eb.text, whose, strlen(whose)) != 0 ||
            strstr(report->eb.text, m->says) == NULL || strstr(report->eb.text, m->also) == NULL)
            fail_msg("%s: rank %u: %s: %s", m->name, r, err_name(report->e), report->eb.text);
        if (!m->is_other_transport && !m->is_of_each &&
            strcmp(report->eb.text, first->eb.text) != 0)
            fail_msg("%s: rank %u says \"%s\", rank 0 \"%s\"", m->name, r, report->eb.text,
                     first->eb.text);
        /* Opening, the operation, and room for a busy machine. */
        if (report->ended_ns - since > (2 * WAIT_MS + 1500) * UINT64_C(1000000))
            fail_msg("%s: rank %u took too long", m->name, r);
    }
    crew_fini(&gang);
}

static void every_mishap_ends_the_gang_with_its_reason(void **state)
{
    static const struct mishap mishaps[] = {
        {.name = "too old",
         .version = "21704",
         .e = ERR_UNSUPPORTED,
         .is_of_each = true,
         .says = "libnccl.so.2 is NCCL 2.17.4",
         .also = "2.18.1 or newer"},
        {.name = "one too old",
         .version = "2804",
         .is_version_of_one = true,
         .e = ERR_UNAVAILABLE,
         .e_of_one = ERR_UNSUPPORTED,
         .says = "rank 1: libnccl.so.2 is NCCL 2.8.4",
         .also = ""},
        {.name = "another version",
         .version = "22304",
         .is_version_of_one = true,
         .e = ERR_CONFLICT,
         .says = "rank 1 has NCCL 2.23.4, rank 0 has 2.27.3",
         .also = ""},
        {.name = "two on one GPU",
         .is_one_gpu = true,
         .e = ERR_CONFLICT,
         .says = "ranks 0 and 2 are on one GPU",
         .also = "NCCL wants one for each"},
        {.name = "no memory on the device",
         .is_full = true,
         .e = ERR_UNAVAILABLE,
         .e_of_one = ERR_NO_MEMORY,
         .says = "rank 1: ",
         .also = "bytes on this GPU"},
        {.name = "another transport",
         .is_other_transport = true,
         .e = ERR_CONFLICT,
         .says = "rank",
         .also = "plan"},
        {.name = "no communicator",
         .stand_in = "init:1",
         .e = ERR_UNAVAILABLE,
         .says = "meeting: rank 1: NCCL: system error",
         .also = "told to"},
        {.name = "a meeting without end",
         .stand_in = "meet:2",
         .e = ERR_TIMEOUT,
         .says = "rank",
         .also = "past the deadline"},
        {.name = "an operation is refused",
         .stand_in = "call:1:3",
         .e = ERR_UNAVAILABLE,
         .says = "all_gather 3: rank 1: NCCL: system error",
         .also = ""},
        {.name = "an error on the way",
         .stand_in = "async:0:4",
         .e = ERR_UNAVAILABLE,
         .says = "all_gather 4: rank 0: NCCL: unhandled cuda error",
         .also = ""},
        {.name = "an operation without end",
         .stand_in = "hang:2:5",
         .e = ERR_TIMEOUT,
         .says = "all_gather 5: NCCL kept rank",
         .also = "waiting past the deadline"},
        {.name = "put off: an operation is refused",
         .is_put_off = true,
         .stand_in = "call:1:3",
         .e = ERR_UNAVAILABLE,
         .says = "all_gather 3: rank 1: NCCL: system error",
         .also = ""},
        {.name = "put off: an error on the way",
         .is_put_off = true,
         .stand_in = "async:0:4",
         .e = ERR_UNAVAILABLE,
         .says = "rank 0: NCCL: unhandled cuda error",
         .also = ""},
        {.name = "put off: an operation without end",
         .is_put_off = true,
         .stand_in = "hang:2:5",
         .e = ERR_TIMEOUT,
         .says = "all_gather 8: NCCL kept rank",
         .also = "waiting past the deadline"},
        {.name = "put off, not ready: an operation without end",
         .is_put_off = true,
         .is_unknown = true,
         .stand_in = "hang:2:5",
         .e = ERR_TIMEOUT,
         .says = "all_gather 5: NCCL kept rank",
         .also = "waiting past the deadline"},
        {.name = "put off: another size",
         .is_put_off = true,
         .is_other_size = true,
         .e = ERR_INTERNAL,
         .says = "run 8: rank",
         .also = "has other operations than rank"},
        {.name = "put off: one more",
         .is_put_off = true,
         .is_one_more = true,
         .e = ERR_INTERNAL,
         .says = ": rank",
         .also = "has other operations than rank"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof mishaps / sizeof mishaps[0]; i++)
        run_mishap(&mishaps[i]);
}

static void what_is_put_off_is_done_in_order(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct mishap none = {.is_put_off = true,
                              .is_many = i == 3,
                              .is_unknown = i == 1,
                              .stand_in = i == 2 ? "slow:0:3" : NULL};
        struct crew gang;
        crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play_later, &none);
        crew_run(&gang);
    }
}

static void what_is_forgotten_is_not_done(void **state)
{
    struct crew gang;
    (void)state;
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play_forget, NULL);
    crew_run(&gang);
}

/* NCCL alone would wait for it for ever. */
static void a_rank_killed_while_the_others_wait_for_nccl_is_named(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2 * RANKS; i++) {
        const bool is_put_off = i >= RANKS; /* in the second run then */
        const uint32_t victim = i % RANKS;
        struct mishap never = {.stand_in = is_put_off ? "hang:0:12" : "hang:0:4"};
        struct crew gang;
        crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, is_put_off ? play_later : play, &never);
        crew_start(&gang);
        crew_reach(&gang, COLL_RANKS_MAX, is_put_off ? 1 : 3);
        crew_kill(&gang, victim);
        const uint64_t since = clock_mono_ns();
        assert_true(crew_wait(&gang, 20000));
        for (uint32_t r = 0; r < RANKS; r++) {
            const struct crew_report *report = &gang.report[r];
            char name[32];
            (void)snprintf(name, sizeof name, "rank %u ended", victim);
            if (r == victim)
                continue;
            if (report->e != ERR_UNAVAILABLE || strstr(report->eb.text, name) == NULL)
                fail_msg("rank %u, victim %u: %s: %s", r, victim, err_name(report->e),
                         report->eb.text);
            assert_true(report->ended_ns < since + UINT64_C(2000000000));
        }
        crew_fini(&gang);
    }
}

/* Who has all bytes of an operation may close, while others still wait for theirs. */
static void a_rank_that_is_done_and_leaves_is_no_loss(void **state)
{
    struct mishap slow = {.stand_in = "slow:0:8"};
    struct crew gang;
    (void)state;
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play, &slow);
    crew_start(&gang);
    assert_true(crew_wait(&gang, 20000));
    for (uint32_t r = 0; r < RANKS; r++) {
        if (gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s", r, gang.report[r].eb.text);
    }
    assert_true(gang.report[0].ended_ns > gang.report[1].ended_ns);
    crew_fini(&gang);
}

static void what_cannot_be_is_refused(void **state)
{
    struct host_device device;
    struct coll_config config = {.transport = COLL_TRANSPORT_NCCL, .n_ranks = 1, .build = ""};
    struct coll *c = NULL;
    struct errbuf eb;

    (void)state;
    host_device_init(&device, 0);
    assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "rank 0 has none"));
    config.device = &device.stream;
    config.control = COLL_TRANSPORT_NCCL;
    assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "stands on shm or ucx"));
    config.control = COLL_TRANSPORT_SHM;
    config.bytes_max = COLL_BYTES_MAX + 1;
    assert_int_equal(coll_open(&c, &config, crew_soon(1000), &eb), ERR_TOO_LARGE);
    assert_null(c);
}

static void it_stands_on_ucx_as_well(void **state)
{
    struct crew gang;
    (void)state;
    if (!crew_has_transport(COLL_TRANSPORT_UCX))
        skip();
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play, NULL);
    gang.control = COLL_TRANSPORT_UCX;
    crew_run(&gang);
}

/* Ranks 0 and 1 split off; what 1 lacks for that rank 2, which is not of it, hears as well. */
static enum err play_splitting(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL, *part = NULL;
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    CHECK(e == ERR_OK);
    if (g->rank == 1)
        g->device.stream.alloc = no_memory;
    e = coll_split(c, g->rank / 2, 4096, crew_soon(WAIT_MS), &part, eb);
    coll_close(part);
    coll_close(c);
    return e;
}

static void what_a_rank_lacks_for_a_part_is_its_own_trouble(void **state)
{
    struct crew gang;
    (void)state;
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play_splitting, NULL);
    crew_start(&gang);
    assert_true(crew_wait(&gang, 20000));
    for (uint32_t r = 0; r < RANKS; r++) {
        const struct crew_report *report = &gang.report[r];
        if (report->e != (r == 1 ? ERR_NO_MEMORY : ERR_UNAVAILABLE) ||
            strstr(report->eb.text, "rank 1: ") == NULL ||
            strstr(report->eb.text, "bytes on this GPU") == NULL)
            fail_msg("rank %u: %s: %s", r, err_name(report->e), report->eb.text);
    }
    crew_fini(&gang);
}

/* A rank that cannot come says so over what the others meet on. */
static enum err play_declining(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    (void)arg;
    if (g->rank == 1) {
        g->config.device = NULL;
        coll_decline(&g->config, ERR_CORRUPT, "its file is bad", crew_soon(5000));
        return err_set(eb, ERR_CORRUPT, "its file is bad");
    }
    enum err e = crew_open(g, &c, eb);
    coll_close(c);
    return e;
}

static void a_rank_that_does_not_come_says_why(void **state)
{
    struct crew gang;
    (void)state;
    crew_init(&gang, COLL_TRANSPORT_NCCL, RANKS, play_declining, NULL);
    crew_start(&gang);
    assert_true(crew_wait(&gang, 20000));
    for (uint32_t r = 0; r < RANKS; r++) {
        assert_int_equal(gang.report[r].e, ERR_CORRUPT);
        assert_non_null(strstr(gang.report[r].eb.text, "its file is bad"));
    }
    crew_fini(&gang);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_off_is_done_in_order),
        cmocka_unit_test(what_is_forgotten_is_not_done),
        cmocka_unit_test(every_mishap_ends_the_gang_with_its_reason),
        cmocka_unit_test(a_rank_killed_while_the_others_wait_for_nccl_is_named),
        cmocka_unit_test(a_rank_that_is_done_and_leaves_is_no_loss),
        cmocka_unit_test(what_cannot_be_is_refused),
        cmocka_unit_test(it_stands_on_ucx_as_well),
        cmocka_unit_test(what_a_rank_lacks_for_a_part_is_its_own_trouble),
        cmocka_unit_test(a_rank_that_does_not_come_says_why),
    };
    (void)crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
