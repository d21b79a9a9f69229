/* The thread pool, and the machine's memory nodes as it sees them. */
#include "worker/kernels/pool.h"
#include "worker/kernels/topology.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static void test_lists_of_cpus(void **state)
{
    (void)state;
    static const struct {
        const char *list;
        const char *seen; /* NULL: not a list */
    } cases[] = {
        {"0\n", "0"},   {"0-3\n", "0 1 2 3"}, {"0-1,8,10-11\n", "0 1 8 10 11"},
        {"", ""},       {"\n", ""},           {"1023", "1023"},
        {"1024", NULL}, {"0-1024", NULL},     {"3-1", NULL},
        {"-1", NULL},   {"1-", NULL},         {"1,,2", NULL},
        {"1 2", NULL},  {"one", NULL},        {"99999999999999999999999", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cpu_set_t set;
        char seen[64] = "";
        bool ok = topology_parse(cases[i].list, &set);
        assert_int_equal(ok, cases[i].seen != NULL);
        for (uint32_t cpu = 0; ok && cpu < CPU_SETSIZE; cpu++) {
            size_t at = strlen(seen);
            if (CPU_ISSET(cpu, &set))
                (void)snprintf(seen + at, sizeof seen - at, "%s%u", at > 0 ? " " : "", cpu);
        }
        if (ok)
            assert_string_equal(seen, cases[i].seen);
    }
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[300];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* A folder as /sys/devices/system/node: lists[k] is of node k, NULL where it is not there. */
static void write_nodes(char *ret_dir, const char *online, const char *const *lists, uint32_t n)
{
    strcpy(ret_dir, "/tmp/cloister-nodes-XXXXXX");
    assert_non_null(mkdtemp(ret_dir));
    write_file(ret_dir, "online", online);
    for (uint32_t k = 0; k < n; k++) {
        char name[32];
        char path[300];
        if (lists[k] == NULL)
            continue;
        (void)snprintf(path, sizeof path, "%s/node%u", ret_dir, k);
        assert_int_equal(mkdir(path, 0700), 0);
        (void)snprintf(name, sizeof name, "node%u/cpulist", k);
        write_file(ret_dir, name, lists[k]);
    }
}

static void remove_nodes(const char *dir, const char *const *lists, uint32_t n)
{
    char path[300];
    for (uint32_t k = 0; k < n; k++) {
        if (lists[k] == NULL)
            continue;
        (void)snprintf(path, sizeof path, "%s/node%u/cpulist", dir, k);
        assert_int_equal(unlink(path), 0);
        (void)snprintf(path, sizeof path, "%s/node%u", dir, k);
        assert_int_equal(rmdir(path), 0);
    }
    (void)snprintf(path, sizeof path, "%s/online", dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

/* "0 1 | 4 5": the CPUs by node. */
static void describe(const struct topology *t, char *ret_text, size_t size)
{
    ret_text[0] = '\0';
    for (uint32_t node = 0; node < t->n_nodes; node++) {
        for (uint32_t i = t->first[node]; i < t->first[node + 1]; i++) {
            size_t at = strlen(ret_text);
            const char *before = i > t->first[node] ? " " : node > 0 ? " | " : "";
            (void)snprintf(ret_text + at, size - at, "%s%u", before, (unsigned)t->cpus[i]);
            assert_int_equal(t->node_of[t->cpus[i]], node);
        }
    }
    assert_int_equal(t->first[t->n_nodes], t->n_cpus);
}

static void test_nodes_of_a_machine(void **state)
{
    (void)state;
    static const struct {
        const char *allowed;
        const char *online;
        const char *lists[3];
        const char *seen;
    } cases[] = {
        {"0-1", "0\n", {"0-1\n"}, "0 1"},
        {"0-7", "0-1\n", {"0-3\n", "4-7\n"}, "0 1 2 3 | 4 5 6 7"},
        {"0-7", "0-1\n", {"0-1,4-5\n", "2-3,6-7\n"}, "0 1 4 5 | 2 3 6 7"},
        {"2-5", "0-1\n", {"0-3\n", "4-7\n"}, "2 3 | 4 5"},
        {"4-7", "0-1\n", {"0-3\n", "4-7\n"}, "4 5 6 7"},         /* node 0 is not ours */
        {"0-3", "0,2\n", {"0-1\n", NULL, "2-3\n"}, "0 1 | 2 3"}, /* node 1 is switched off */
        {"0-3", "0-2\n", {"0-1\n", "\n", "2-3\n"}, "0 1 | 2 3"}, /* one of memory alone */
        {"0-3", "0-1\n", {"0-1\n", NULL}, "0 1 2 3"},            /* what is missing is added */
        {"0-3", "0-1\n", {"0-1\n", "rubbish\n"}, "0 1 2 3"},
        {"0-3", "0-1\n", {"0-3\n", "2-3\n"}, "0 1 2 3"}, /* a CPU is of one node */
        {"0-3", "rubbish\n", {"0-1\n", "2-3\n"}, "0 1 2 3"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[64];
        char seen[128];
        cpu_set_t allowed;
        struct topology t;
        write_nodes(dir, cases[i].online, cases[i].lists, 3);
        assert_true(topology_parse(cases[i].allowed, &allowed));
        topology_read(dir, &allowed, &t);
        assert_true(t.is_known);
        describe(&t, seen, sizeof seen);
        assert_string_equal(seen, cases[i].seen);
        remove_nodes(dir, cases[i].lists, 3);
    }
}

static void test_what_cannot_be_read_is_one_node(void **state)
{
    (void)state;
    struct topology t;
    cpu_set_t allowed;
    assert_true(topology_parse("1,3", &allowed));
    topology_read("/nowhere", &allowed, &t);
    assert_int_equal(t.n_nodes, 1);
    assert_int_equal(t.n_cpus, 2);
    assert_int_equal(t.cpus[0], 1);
    assert_int_equal(t.cpus[1], 3);
    CPU_ZERO(&allowed);
    topology_read("/nowhere", &allowed, &t);
    assert_false(t.is_known);
    assert_int_equal(t.n_nodes, 1);
    assert_true(t.n_cpus >= 1);
    topology_of_process(&t);
    assert_true(t.is_known && t.n_cpus >= 1 && t.n_nodes >= 1);
}

static struct topology machine(uint32_t n_nodes, const uint32_t *cpus_of)
{
    struct topology t = {.n_nodes = n_nodes};
    for (uint32_t k = 0; k < n_nodes; k++) {
        t.n_cpus += cpus_of[k];
        t.first[k + 1] = t.n_cpus;
    }
    return t; /* not is_known: there are no such CPUs to be pinned to */
}

struct count_run {
    _Atomic uint32_t *times;
    _Atomic uint32_t thread_max;
};

static void count_task(void *ctx, uint32_t task, uint32_t thread)
{
    struct count_run *run = ctx;
    atomic_fetch_add(&run->times[task], 1);
    uint32_t max = atomic_load(&run->thread_max);
    while (thread > max && !atomic_compare_exchange_weak(&run->thread_max, &max, thread))
        ;
}

/* Every task once, whatever the number of threads, back to back and after sleeping. */
static void check_every_task_once(const struct topology *t)
{
    static _Atomic uint32_t times[513];
    for (uint32_t threads = 1; threads <= 7; threads += 2) {
        struct pool *pool;
        struct errbuf eb = {0};
        assert_int_equal(pool_new_on(t, threads, &pool, &eb), ERR_OK);
        assert_int_equal(pool_threads(pool), threads);
        for (uint32_t round = 0; round < 600; round++) {
            uint32_t n = round % 514;
            memset(times, 0, sizeof times);
            struct count_run run = {.times = times};
            pool_run(pool, count_task, &run, n);
            for (uint32_t i = 0; i < 513; i++)
                assert_int_equal(times[i], i < n);
            assert_true(run.thread_max < threads);
            if (round % 100 == 99)
                usleep(2000); /* long enough for workers to fall asleep */
        }
        pool_free(pool);
    }
}

static void test_every_task_runs_once(void **state)
{
    (void)state;
    struct topology own;
    topology_of_process(&own);
    check_every_task_once(&own);
    struct topology two = machine(2, (const uint32_t[]){2, 1});
    check_every_task_once(&two);
    struct topology four = machine(4, (const uint32_t[]){1, 3, 1, 2});
    check_every_task_once(&four);
}

/* Nodes have tasks as they have threads; a node without a thread has none. */
static void test_shares(void **state)
{
    (void)state;
    static const struct {
        uint32_t n_nodes;
        uint32_t cpus_of[4];
        uint32_t threads;
        uint32_t nodes;     /* expected */
        uint32_t shares[4]; /* of 120 */
    } cases[] = {
        {1, {4}, 3, 1, {120}},
        {2, {2, 2}, 4, 2, {60, 60}},
        {2, {3, 1}, 4, 2, {90, 30}},
        {2, {4, 4}, 2, 2, {60, 60}},
        {2, {2, 1}, 6, 2, {80, 40}},
        {2, {4, 4}, 1, 1, {120}},
        {4, {4, 4, 4, 4}, 2, 2, {60, 60}},
        {4, {1, 1, 1, 1}, 3, 3, {40, 40, 40}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct topology t = machine(cases[i].n_nodes, cases[i].cpus_of);
        struct pool *pool;
        struct errbuf eb = {0};
        assert_int_equal(pool_new_on(&t, cases[i].threads, &pool, &eb), ERR_OK);
        assert_int_equal(pool_nodes(pool), cases[i].nodes);
        assert_int_equal(pool_share(pool, 120, 0), 0);
        for (uint32_t k = 0; k < cases[i].nodes; k++)
            assert_int_equal(pool_share(pool, 120, k + 1) - pool_share(pool, 120, k),
                             cases[i].shares[k]);
        pool_free(pool);
    }
}

/* The first task of each thread waits for the other thread's, so both have one of every run. */
#define FIRST_NONE UINT32_MAX

struct meeting {
    _Atomic uint32_t here;
    uint32_t first[2]; /* [thread] */
};

static void meet(void *ctx, uint32_t task, uint32_t thread)
{
    struct meeting *m = ctx;
    if (m->first[thread] != FIRST_NONE)
        return;
    m->first[thread] = task;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < 2)
        usleep(10);
}

static void check_own_first(uint32_t owner_node)
{
    struct topology t = machine(2, (const uint32_t[]){1, 1});
    struct pool *pool;
    struct errbuf eb = {0};
    memset(t.node_of, (int)owner_node, sizeof t.node_of); /* whichever CPU the owner is on */
    assert_int_equal(pool_new_on(&t, 2, &pool, &eb), ERR_OK);
    /* A worker that looks around while the ranges are put out sees node 0's first and may take one,
     * which is rare. One that did not care for its node would always begin there. */
    uint32_t own = 0;
    for (int round = 0; round < 200; round++) {
        struct meeting m = {.first = {FIRST_NONE, FIRST_NONE}};
        pool_run(pool, meet, &m, 8);
        assert_int_equal(m.first[0] >= 4, owner_node == 1);
        own += m.first[1] >= 4;
    }
    assert_true(own > 100);
    /* All tasks of one node: the other thread helps. */
    for (int round = 0; round < 200; round++) {
        struct meeting m = {.first = {FIRST_NONE, FIRST_NONE}};
        const uint32_t first[3] = {0, round % 2 == 0 ? 2 : 0, 2};
        pool_run_nodes(pool, meet, &m, first);
        assert_int_not_equal(m.first[0], m.first[1]);
    }
    pool_free(pool);
}

/* Threads of one node have a run of tasks each, and help each other where one has none. */
static void check_own_run_first(void)
{
    const struct topology t = machine(1, (const uint32_t[]){2});
    struct pool *pool;
    struct errbuf eb = {0};
    uint32_t own = 0;
    assert_int_equal(pool_new_on(&t, 2, &pool, &eb), ERR_OK);
    for (int round = 0; round < 200; round++) {
        struct meeting m = {.first = {FIRST_NONE, FIRST_NONE}};
        pool_run(pool, meet, &m, 9);
        own += m.first[0] == 0 && m.first[1] == 4;
    }
    assert_true(own > 100); /* whoever looks around just then, as above */
    for (int round = 0; round < 200; round++) {
        struct meeting m = {.first = {FIRST_NONE, FIRST_NONE}};
        pool_run(pool, meet, &m, 2);
        assert_int_equal(m.first[0] + m.first[1], 1);
    }
    pool_free(pool);
}

static void test_a_thread_takes_its_own_first(void **state)
{
    (void)state;
    check_own_run_first();
    check_own_first(0);
    check_own_first(1);
}

/* Each thread takes one task, since each task waits for all the others. */
struct gathering {
    uint32_t threads;
    _Atomic uint32_t here;
    cpu_set_t may[8]; /* [thread] */
};

static void gather(void *ctx, uint32_t task, uint32_t thread)
{
    struct gathering *g = ctx;
    (void)task;
    (void)sched_getaffinity(0, sizeof g->may[thread], &g->may[thread]);
    atomic_fetch_add(&g->here, 1);
    while (atomic_load(&g->here) < g->threads)
        usleep(10);
}

static void gather_on(const struct topology *t, uint32_t threads, struct gathering *ret)
{
    struct pool *pool;
    struct errbuf eb = {0};
    *ret = (struct gathering){.threads = threads};
    assert_int_equal(pool_new_on(t, threads, &pool, &eb), ERR_OK);
    pool_run(pool, gather, ret, threads);
    pool_free(pool);
}

/* On this machine's own CPUs, as one node and as if they were two. The owner is left as it is. */
static void test_threads_are_pinned(void **state)
{
    (void)state;
    struct topology own;
    struct gathering g;
    cpu_set_t all;
    topology_of_process(&own);
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    if (own.n_cpus < 2 || sched_setaffinity(0, sizeof all, &all) != 0) {
        print_message("one CPU, or no say in it: left out\n");
        return;
    }
    if (own.n_cpus > 4)
        own.n_cpus = 4; /* as many threads as that below */
    own.n_nodes = 1;
    own.first[1] = own.n_cpus;
    memset(own.node_of, 0, sizeof own.node_of);
    /* As many threads as CPUs: each worker has one of its own. */
    gather_on(&own, own.n_cpus, &g);
    assert_true(CPU_EQUAL(&g.may[0], &all));
    for (uint32_t i = 1; i < own.n_cpus; i++) {
        assert_int_equal(CPU_COUNT(&g.may[i]), 1);
        assert_true(CPU_ISSET(own.cpus[i], &g.may[i]));
    }
    /* More or fewer: anywhere on the node. */
    gather_on(&own, own.n_cpus + 1, &g);
    for (uint32_t i = 1; i <= own.n_cpus; i++)
        assert_true(CPU_EQUAL(&g.may[i], &all));
    /* Of two nodes: on its node, whose threads are the first half, the owner's, and the second. */
    own.n_nodes = 2;
    own.first[1] = own.n_cpus / 2;
    own.first[2] = own.n_cpus;
    for (uint32_t i = own.first[1]; i < own.n_cpus; i++)
        own.node_of[own.cpus[i]] = 1;
    const uint32_t threads = 2 * own.n_cpus;
    gather_on(&own, threads, &g);
    for (uint32_t i = 1; i < threads; i++) {
        const uint32_t node = i * own.n_cpus / threads >= own.first[1];
        assert_int_equal(CPU_COUNT(&g.may[i]), own.first[node + 1] - own.first[node]);
        for (uint32_t k = own.first[node]; k < own.first[node + 1]; k++)
            assert_true(CPU_ISSET(own.cpus[k], &g.may[i]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_of_cpus),
        cmocka_unit_test(test_nodes_of_a_machine),
        cmocka_unit_test(test_what_cannot_be_read_is_one_node),
        cmocka_unit_test(test_every_task_runs_once),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_a_thread_takes_its_own_first),
        cmocka_unit_test(test_threads_are_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
