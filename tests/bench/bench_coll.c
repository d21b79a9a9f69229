/*
 * bench_coll [ROUNDS]: microseconds an all-gather takes, by size, ranks and transport, beside a
 * memcpy of the same bytes in the same run. Ranks are processes.
 *
 *   bytes     one rank's part
 *   hand over the operation alone: begin and end, nobody touches the bytes. What a matrix product
 *             pays that writes its sums in place anyway
 *   whole     each rank copies its part in and all parts out
 *   memcpy    the same bytes, one part in and all parts out, copied by each rank for itself, all
 *             ranks at once as in the operation
 *   ratio     whole / memcpy
 *
 * Medians over the operations of rank 0. With more ranks than processors an operation waits for
 * ranks that are not running: what that costs is the scheduler's.
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BENCH_SIZES    8u
#define BENCH_ROUNDS   400u
#define BENCH_PART_MAX ((size_t)4 << 20)

static const size_t bench_sizes[BENCH_SIZES] = {256,   1024,   4096,     16384,
                                                65536, 262144, 1u << 20, BENCH_PART_MAX};

struct figures {
    double hand_over, whole, copy; /* microseconds */
};

struct bench {
    uint32_t rounds;
    struct figures *figures; /* [BENCH_SIZES], shared, by rank 0 */
};

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, uint32_t n)
{
    qsort(values, n, sizeof *values, compare_doubles);
    return values[n / 2];
}

struct room {
    struct coll *c;
    uint32_t n_ranks;
    size_t part;
    size_t bytes[COLL_RANKS_MAX];
    uint8_t *mine, *all; /* this rank's own memory */
    uint8_t *stage;      /* where a memcpy of a part goes to and comes from again */
};

static void all_gather(struct room *r, bool with_bytes)
{
    struct errbuf eb = {{0}};
    void *to;
    const void *parts[COLL_RANKS_MAX];
    enum err e = coll_all_gather_begin(r->c, r->bytes, crew_soon(60000), &to, &eb);
    if (e == ERR_OK) {
        if (with_bytes)
            memcpy(to, r->mine, r->part);
        e = coll_end(r->c, crew_soon(60000), parts, &eb);
    }
    if (e != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        exit(1);
    }
    for (uint32_t from = 0; from < r->n_ranks && with_bytes; from++)
        memcpy(r->all + from * r->part, parts[from], r->part);
}

static void copy_alone(struct room *r)
{
    memcpy(r->stage, r->mine, r->part);
    for (uint32_t from = 0; from < r->n_ranks; from++)
        memcpy(r->all + from * r->part, r->stage + from * r->part, r->part);
}

static void bench_size(struct room *r, uint32_t rounds, struct figures *ret_figures)
{
    double *times = calloc((size_t)rounds * 3, sizeof *times);
    CHECK(times != NULL);
    struct errbuf eb;
    for (uint32_t what = 0; what < 3; what++) {
        /* All begin together, the first operations warm memory up. */
        CHECK(coll_barrier(r->c, crew_soon(60000), &eb) == ERR_OK);
        for (uint32_t i = 0; i < rounds + rounds / 8; i++) {
            const uint64_t before = clock_mono_ns();
            if (what == 2)
                copy_alone(r);
            else
                all_gather(r, what == 1);
            if (i >= rounds / 8)
                times[what * rounds + i - rounds / 8] = (double)(clock_mono_ns() - before) / 1000.0;
        }
    }
    ret_figures->hand_over = median(times, rounds);
    ret_figures->whole = median(times + rounds, rounds);
    ret_figures->copy = median(times + 2 * rounds, rounds);
    free(times);
}

/* A processor of its own for each rank, where there are as many. */
static void pin(uint32_t rank, uint32_t n_ranks)
{
    cpu_set_t mine, all;
    CHECK(sched_getaffinity(0, sizeof all, &all) == 0);
    if ((uint32_t)CPU_COUNT(&all) < n_ranks)
        return;
    uint32_t seen = 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all) || seen++ != rank)
            continue;
        CPU_ZERO(&mine);
        CPU_SET(cpu, &mine);
        CHECK(sched_setaffinity(0, sizeof mine, &mine) == 0);
    }
}

/* Less of what takes long. */
static uint32_t rounds_of(uint32_t rounds, size_t part)
{
    const size_t less = part > 65536 ? part / 65536 : 1;
    return (uint32_t)(rounds / less) + 8;
}

static enum err bench_rank(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    const struct bench *bench = arg;
    struct room r = {.n_ranks = g->config.n_ranks};
    pin(g->rank, r.n_ranks);
    enum err e = crew_open(g, &r.c, eb);
    if (e != ERR_OK)
        return e;
    r.mine = malloc(BENCH_PART_MAX);
    r.all = malloc(BENCH_PART_MAX * r.n_ranks);
    r.stage = malloc(BENCH_PART_MAX * r.n_ranks);
    CHECK(r.mine != NULL && r.all != NULL && r.stage != NULL);
    memset(r.mine, (int)g->rank + 1, BENCH_PART_MAX);
    memset(r.all, 0, BENCH_PART_MAX * r.n_ranks);
    memset(r.stage, 0, BENCH_PART_MAX * r.n_ranks);
    for (uint32_t i = 0; i < BENCH_SIZES; i++) {
        struct figures figures;
        r.part = bench_sizes[i];
        for (uint32_t q = 0; q < r.n_ranks; q++)
            r.bytes[q] = r.part;
        bench_size(&r, rounds_of(bench->rounds, r.part), &figures);
        if (g->rank == 0)
            bench->figures[i] = figures;
    }
    free(r.mine);
    free(r.all);
    free(r.stage);
    coll_close(r.c);
    return ERR_OK;
}

static void bench_gang(enum coll_transport transport, const char *name, uint32_t n_ranks,
                       struct bench *bench)
{
    struct crew gang;
    crew_init(&gang, transport, n_ranks, bench_rank, bench);
    gang.bytes_max = BENCH_PART_MAX * n_ranks;
    crew_start(&gang);
    CHECK(crew_carry(&gang) && crew_wait(&gang, 3600 * 1000));
    for (uint32_t r = 0; r < n_ranks; r++)
        CHECK(atomic_load(&gang.report[r].is_done) && gang.report[r].e == ERR_OK);
    crew_fini(&gang);
    for (uint32_t i = 0; i < BENCH_SIZES; i++) {
        const struct figures *f = &bench->figures[i];
        printf("%s  %u ranks  %8zu bytes  %9.1f us hand over  %9.1f us whole  %9.1f us memcpy  "
               "ratio %6.2f\n",
               name, n_ranks, bench_sizes[i], f->hand_over, f->whole, f->copy, f->whole / f->copy);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"shm", "ucx"};
    struct bench bench = {.rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : BENCH_ROUNDS};
    const size_t bytes = BENCH_SIZES * sizeof *bench.figures;
    if (bench.rounds == 0 || bench.rounds > 1000000) {
        fprintf(stderr, "usage: bench_coll [ROUNDS]\n");
        return 2;
    }
    bench.figures = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(bench.figures != MAP_FAILED);
    for (unsigned t = 0; t < 2; t++) {
        enum coll_transport transport;
        CHECK(coll_transport_parse(names[t], &transport));
        if (!crew_has_transport(transport)) {
            printf("%s  not in this build, or not on this machine\n", names[t]);
            continue;
        }
        for (uint32_t n = 2; n <= 4; n += 2)
            bench_gang(transport, names[t], n, &bench);
    }
    munmap(bench.figures, bytes);
    return 0;
}
