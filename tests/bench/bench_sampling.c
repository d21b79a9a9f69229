/*
 * bench_sampling - microseconds a draw takes with a vocabulary of 262,144, top-k off, 32 streams.
 *
 *   bench_sampling [--isa NAME] [--threads N] [--rounds N] [--against PROGRAM]
 *
 * Prints one thread's time for a draw, that of all threads sharing the streams of a step, and,
 * with a PROGRAM that does the same draws another way (llama_sampling), its time and how many times
 * as fast ours is. Each figure is the median of alternating runs. Not a test.
 */
#include "common/clock.h"
#include "tests/bench/sampling_rows.h"
#include "worker/engine/sampling.h"
#include "worker/kernels/pool.h"

#include <stdio.h>
#include <string.h>

#define RUNS 5

struct bench {
    const float *logits;
    struct sampling params;
    struct sampler *samplers[POOL_THREADS_MAX];
    uint64_t position;
    _Atomic uint32_t sum;
};

static void draw_stream(void *ctx, uint32_t task, uint32_t thread)
{
    struct bench *b = ctx;
    b->sum += (uint32_t)sampler_draw(b->samplers[thread], &b->params,
                                     b->logits + (size_t)task * ROWS_VOCAB, NULL, 0, b->position);
}

static double us_per_draw(struct bench *b, struct pool *pool, uint32_t rounds)
{
    uint64_t start = clock_mono_ns();
    for (uint32_t round = 0; round < rounds; round++) {
        b->position = round;
        pool_run(pool, draw_stream, b, ROWS_STREAMS);
    }
    return (double)(clock_mono_ns() - start) / 1e3 / rounds / ROWS_STREAMS;
}

static int compare_doubles(const void *a, const void *z)
{
    double x = *(const double *)a, y = *(const double *)z;
    return x < y ? -1 : x > y;
}

static double median(double *values)
{
    qsort(values, RUNS, sizeof *values, compare_doubles);
    return values[RUNS / 2];
}

static double other_us(const char *program, size_t which, uint32_t rounds)
{
    char command[4096];
    double us = 0;
    snprintf(command, sizeof command, "'%s' %zu %u", program, which, rounds);
    FILE *f = popen(command, "r");
    if (f == NULL || fscanf(f, "%lf", &us) != 1 || pclose(f) != 0) {
        fprintf(stderr, "bench_sampling: %s failed\n", command);
        exit(1);
    }
    return us;
}

int main(int argc, char **argv)
{
    enum backend_isa isa = BACKEND_ISA_AUTO;
    uint32_t threads = 0, rounds = 3;
    const char *against = NULL;
    struct pool *one = NULL, *all = NULL;
    struct errbuf eb = {{0}};
    struct bench b = {.sum = 0};

    for (int i = 1; i < argc; i += 2) {
        bool has = i + 1 < argc, ok = has;
        if (has && strcmp(argv[i], "--isa") == 0)
            ok = backend_isa_parse(argv[i + 1], &isa) && sample_kernels_of(isa) != NULL;
        else if (has && strcmp(argv[i], "--threads") == 0)
            ok = (threads = (uint32_t)strtoul(argv[i + 1], NULL, 10)) <= POOL_THREADS_MAX;
        else if (has && strcmp(argv[i], "--rounds") == 0)
            ok = (rounds = (uint32_t)strtoul(argv[i + 1], NULL, 10)) > 0;
        else if (has && strcmp(argv[i], "--against") == 0)
            against = argv[i + 1];
        else
            ok = false;
        if (!ok) {
            fprintf(stderr, "usage: bench_sampling [--isa NAME] [--threads N] [--rounds N] "
                            "[--against PROGRAM]\n");
            return 2;
        }
    }
    if (pool_new(1, &one, &eb) != ERR_OK || pool_new(threads, &all, &eb) != ERR_OK) {
        fprintf(stderr, "bench_sampling: %s\n", eb.text);
        return 1;
    }
    const struct sample_kernels *kernels = sample_kernels_of(isa);
    for (uint32_t i = 0; i < pool_threads(all); i++)
        if ((b.samplers[i] = sampler_new(ROWS_VOCAB, kernels)) == NULL)
            return 1;
    float *rows[2] = {rows_make(false), rows_make(true)};
    printf("%s, %u threads; us a draw\n%-40s %9s %9s", kernels->name, pool_threads(all), "",
           "1 thread", "all");
    printf(against ? " %9s %8s %8s\n" : "\n", "other", "ratio 1", "ratio");
    for (size_t which = 0; which < ROWS_CASES; which++) {
        const struct rows_case *c = &rows_cases[which];
        double alone[RUNS], shared[RUNS], other[RUNS];
        b.logits = rows[c->flat];
        b.params = sampling_default();
        b.params.temperature = c->temperature;
        b.params.top_p = c->top_p;
        b.params.min_p = c->min_p;
        b.params.seed = 1;
        for (int run = 0; run < RUNS; run++) {
            alone[run] = us_per_draw(&b, one, rounds);
            shared[run] = us_per_draw(&b, all, rounds);
            other[run] = against ? other_us(against, which, 1) : 0;
        }
        double a = median(alone), s = median(shared), o = median(other);
        printf("%-40s %9.1f %9.1f", c->name, a, s);
        if (against)
            printf(" %9.1f %7.1fx %7.1fx", o, o / a, o / s);
        printf("\n");
        fflush(stdout);
    }
    for (uint32_t i = 0; i < pool_threads(all); i++)
        sampler_free(b.samplers[i]);
    free(rows[0]);
    free(rows[1]);
    pool_free(one);
    pool_free(all);
    return 0;
}
