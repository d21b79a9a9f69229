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
 * Then milliseconds a sum takes that each rank has a part of, and all want whole
 * (docs/collectives.md, "Who finishes a sum"), by rows and width; making the parts is not counted:
 *
 *   whole     an all-gather of the parts, and each rank adds up all of them
 *   by rows   an exchange, each rank adds up its run of rows, and an all-gather of these
 *   received  by each rank in either way
 *
 * Medians over the operations of rank 0. With more ranks than processors an operation waits for
 * ranks that are not running: what that costs is the scheduler's.
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/kernels/backend.h"

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

#define BENCH_SUMS    8u
#define BENCH_SUM_MAX ((size_t)512 * 4096 * sizeof(float))

static const struct {
    uint32_t rows, width;
} bench_sums[BENCH_SUMS] = {{8, 576},  {32, 576},  {128, 576},  {512, 576},
                            {8, 4096}, {32, 4096}, {128, 4096}, {512, 4096}};

struct figures {
    double hand_over, whole, copy; /* microseconds */
};

/* In memory that the ranks share, by rank 0. */
struct shown {
    struct figures gather[BENCH_SIZES];
    double sum[BENCH_SUMS][2]; /* whole, by rows; microseconds */
};

struct bench {
    uint32_t rounds;
    struct shown *shown;
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

/* Less of what takes long. */
static uint32_t rounds_of(uint32_t rounds, size_t part)
{
    const size_t less = part > 65536 ? part / 65536 : 1;
    return (uint32_t)(rounds / less) + 8;
}

/* ---- sums ---- */

struct sums {
    struct coll *c;
    struct backend *b;
    uint32_t rank, n_ranks, rows, width;
    float *x; /* [rows][width], what the sum is added to */
};

static uint32_t first_row(const struct sums *s, uint32_t rank)
{
    return s->rows * rank / s->n_ranks;
}

static void must(enum err e, const struct errbuf *eb)
{
    if (e == ERR_OK)
        return;
    fprintf(stderr, "%s\n", eb->text);
    exit(1);
}

/* Everyone's sums of `n` rows, one behind another in a part each, onto x from `first` on. */
static void add_up(const struct sums *s, const void *const parts[], uint32_t n, uint32_t first,
                   float *out)
{
    struct join_part part[COLL_RANKS_MAX];
    struct sum_node nodes[COLL_RANKS_MAX];
    struct sum_join joins[SUM_GROUPS_MAX];
    for (uint32_t k = 0; k < s->n_ranks; k++) {
        part[k] = (struct join_part){parts[k], s->width};
        nodes[k] = (struct sum_node){k, 1};
    }
    const struct join_job job = {.part = part,
                                 .n_parts = s->n_ranks,
                                 .joins = joins,
                                 .n_joins = sum_joins(nodes, s->n_ranks, s->n_ranks, joins),
                                 .cols = s->width,
                                 .out = out,
                                 .out_stride = s->width,
                                 .onto = s->x + (size_t)first * s->width};
    s->b->ops->join(s->b, n, &job);
}

/* Nanoseconds but for the making of the parts. */
static uint64_t sum_whole(const struct sums *s)
{
    const size_t part = (size_t)s->rows * s->width * sizeof(float);
    size_t bytes[COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    struct errbuf eb = {{0}};
    void *mine;
    for (uint32_t k = 0; k < s->n_ranks; k++)
        bytes[k] = part;
    uint64_t before = clock_mono_ns();
    must(coll_all_gather_begin(s->c, bytes, crew_soon(60000), &mine, &eb), &eb);
    const uint64_t begun = clock_mono_ns() - before;
    memset(mine, 0, part);
    before = clock_mono_ns();
    must(coll_end(s->c, crew_soon(60000), parts, &eb), &eb);
    add_up(s, parts, s->rows, 0, s->x);
    return begun + clock_mono_ns() - before;
}

static uint64_t sum_by_rows(const struct sums *s)
{
    const size_t row = s->width * sizeof(float);
    const uint32_t first = first_row(s, s->rank), own = first_row(s, s->rank + 1) - first;
    size_t bytes[COLL_RANKS_MAX * COLL_RANKS_MAX];
    const void *parts[COLL_RANKS_MAX];
    void *pieces[COLL_RANKS_MAX], *mine;
    struct errbuf eb = {{0}};
    for (uint32_t i = 0; i < s->n_ranks * s->n_ranks; i++) {
        const uint32_t to = i % s->n_ranks;
        bytes[i] = (first_row(s, to + 1) - first_row(s, to)) * row;
    }
    uint64_t before = clock_mono_ns();
    must(coll_exchange_begin(s->c, bytes, crew_soon(60000), pieces, &eb), &eb);
    const uint64_t begun = clock_mono_ns() - before;
    memset(pieces[0], 0, s->rows * row);
    before = clock_mono_ns();
    must(coll_end(s->c, crew_soon(60000), parts, &eb), &eb);
    must(coll_all_gather_begin(s->c, bytes, crew_soon(60000), &mine, &eb), &eb);
    add_up(s, parts, own, first, mine);
    must(coll_end(s->c, crew_soon(60000), parts, &eb), &eb);
    memcpy(s->x, parts[0], s->rows * row);
    return begun + clock_mono_ns() - before;
}

static void bench_sum(struct sums *s, uint32_t rounds, double ret_us[2])
{
    double *times = calloc((size_t)rounds * 2, sizeof *times);
    CHECK(times != NULL);
    /* In turns: a machine's slow moments meet both. */
    for (uint32_t i = 0; i < rounds + 2; i++) {
        const uint64_t whole = sum_whole(s), by_rows = sum_by_rows(s);
        if (i < 2)
            continue; /* memory warms up */
        times[i - 2] = (double)whole / 1000.0;
        times[rounds + i - 2] = (double)by_rows / 1000.0;
    }
    ret_us[0] = median(times, rounds);
    ret_us[1] = median(times + rounds, rounds);
    free(times);
}

static void bench_all_sums(struct coll *c, uint32_t rank, const struct bench *bench)
{
    const struct backend_cpu_config config = {.threads = 1};
    struct sums s = {.c = c, .rank = rank, .n_ranks = coll_n_ranks(c)};
    struct errbuf eb = {{0}};
    must(backend_cpu_open(&s.b, &config, &eb), &eb);
    s.x = s.b->ops->buffer_new(s.b, BENCH_SUM_MAX / sizeof *s.x);
    CHECK(s.x != NULL);
    for (uint32_t i = 0; i < BENCH_SUMS; i++) {
        double us[2];
        s.rows = bench_sums[i].rows;
        s.width = bench_sums[i].width;
        bench_sum(&s, rounds_of(bench->rounds, (size_t)s.rows * s.width * sizeof(float)), us);
        if (rank == 0)
            memcpy(bench->shown->sum[i], us, sizeof us);
    }
    s.b->ops->buffer_free(s.b, s.x);
    s.b->ops->close(s.b);
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
            bench->shown->gather[i] = figures;
    }
    bench_all_sums(r.c, g->rank, bench);
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
    gang.bytes_max = BENCH_SUM_MAX * n_ranks;
    crew_start(&gang);
    CHECK(crew_carry(&gang) && crew_wait(&gang, 3600 * 1000));
    for (uint32_t r = 0; r < n_ranks; r++)
        CHECK(atomic_load(&gang.report[r].is_done) && gang.report[r].e == ERR_OK);
    crew_fini(&gang);
    for (uint32_t i = 0; i < BENCH_SIZES; i++) {
        const struct figures *f = &bench->shown->gather[i];
        printf("%s  %u ranks  %8zu bytes  %9.1f us hand over  %9.1f us whole  %9.1f us memcpy  "
               "ratio %6.2f\n",
               name, n_ranks, bench_sizes[i], f->hand_over, f->whole, f->copy, f->whole / f->copy);
    }
    for (uint32_t i = 0; i < BENCH_SUMS; i++) {
        const double *us = bench->shown->sum[i];
        const double part = (double)bench_sums[i].rows * bench_sums[i].width * 4 / 1e6;
        const double others = n_ranks - 1;
        printf("%s  %u ranks  a sum of %3u x %4u: whole %8.3f ms, received %6.2f MB; by rows %8.3f "
               "ms, "
               "received %6.2f MB  whole / by rows %5.2f\n",
               name, n_ranks, bench_sums[i].rows, bench_sums[i].width, us[0] / 1000, others * part,
               us[1] / 1000, 2 * others / n_ranks * part, us[0] / us[1]);
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"shm", "ucx"};
    struct bench bench = {.rounds = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : BENCH_ROUNDS};
    const size_t bytes = sizeof *bench.shown;
    if (bench.rounds == 0 || bench.rounds > 1000000) {
        fprintf(stderr, "usage: bench_coll [ROUNDS]\n");
        return 2;
    }
    bench.shown = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(bench.shown != MAP_FAILED);
    for (unsigned t = 0; t < 2; t++) {
        enum coll_transport transport;
        CHECK(coll_transport_parse(names[t], &transport));
        if (!crew_has_transport(transport)) {
            printf("%s  not in this build, or not on this machine\n", names[t]);
            continue;
        }
        for (uint32_t n = 2; n <= 8; n *= 2)
            bench_gang(transport, names[t], n, &bench);
    }
    munmap(bench.shown, bytes);
    return 0;
}
