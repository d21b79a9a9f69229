/*
 * bench_cuda - how fast the matrix products of the CUDA backend are, beside what the GPU can do.
 *
 *   bench_cuda [--gpu N] [--rows R] [--cols C] [--groups G] [--n N] [--ms N] [--type NAME]
 *
 * For each type and number of columns of x: microseconds, GB/s of weights and TOPS (a multiply and
 * an add are two), and their shares of two limits measured in the same run: copying memory on the
 * device, read and written bytes counted, and a loop of int8 mma (dp4a up to 8 columns) that never
 * leaves the registers. So many copies of a matrix take turns that no cache holds them. Without a
 * GPU it says so and exits with 77. Not a test.
 */
#include "tests/kernels/matrix.h"
#include "common/clock.h"
#include "tests/bench/bench_cuda_peak.h"
#include "worker/kernels/backend.h"

#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SKIPPED    77
#define COPY_BYTES ((size_t)1 << 30)
/* Of matrices that take turns: ten times an H100's second-level cache. */
#define TURNS_BYTES ((uint64_t)1 << 29)
#define TURNS_MAX   64u
#define COLUMNS_MAX 512u

struct options {
    struct backend_cuda_config config;
    uint32_t rows, cols, groups;
    uint32_t n; /* columns of x; 0: 1 to COLUMNS_MAX */
    uint32_t ms;
    const char *type; /* NULL: all */
};

struct limits {
    double copy_gb; /* GB/s */
    double dp4a_tops, mma_tops;
};

static void die(const char *what, const char *why)
{
    (void)fprintf(stderr, "bench_cuda: %s: %s\n", what, why);
    exit(EXIT_FAILURE);
}

static void must(cudaError_t e, const char *what)
{
    if (e != cudaSuccess)
        die(what, cudaGetErrorString(e));
}

static double seconds(uint64_t from_ns)
{
    return (double)(clock_mono_ns() - from_ns) * 1e-9;
}

static double copy_limit(void)
{
    enum { TIMES = 20 };
    void *from, *to;

    must(cudaMalloc(&from, COPY_BYTES), "memory for the copy");
    must(cudaMalloc(&to, COPY_BYTES), "memory for the copy");
    must(cudaMemset(from, 1, COPY_BYTES), "the copy");
    must(cudaMemcpy(to, from, COPY_BYTES, cudaMemcpyDeviceToDevice), "the copy");
    must(cudaDeviceSynchronize(), "the copy");
    uint64_t begin = clock_mono_ns();
    for (int i = 0; i < TIMES; i++)
        must(cudaMemcpyAsync(to, from, COPY_BYTES, cudaMemcpyDeviceToDevice, NULL), "the copy");
    must(cudaDeviceSynchronize(), "the copy");
    double s = seconds(begin);
    must(cudaFree(from), "memory");
    must(cudaFree(to), "memory");
    return 2.0 * TIMES * (double)COPY_BYTES / s * 1e-9;
}

static double peak_limit(enum bench_peak peak, int multiprocessors)
{
    void *sink;

    must(cudaMalloc(&sink, sizeof(int32_t)), "memory");
    must(bench_cuda_peak(peak, (uint32_t)multiprocessors, sink, NULL).error, "a loop in registers");
    must(cudaDeviceSynchronize(), "a loop in registers");
    uint64_t begin = clock_mono_ns();
    must(bench_cuda_peak(peak, (uint32_t)multiprocessors, sink, NULL).error, "a loop in registers");
    must(cudaDeviceSynchronize(), "a loop in registers");
    double s = seconds(begin);
    must(cudaFree(sink), "memory");
    return bench_cuda_peak_operations(peak, (uint32_t)multiprocessors) / s * 1e-12;
}

/* Bytes of a file's matrix: any quants; no scale is negative, above 1 or no number, since no byte
 * is above 0x3b (1 is 0x3c00 as binary16). */
static uint8_t *matrix_bytes(uint64_t size)
{
    uint64_t state = 88172645463325252ull;
    uint8_t *data = malloc(size);
    if (data == NULL)
        die("a matrix", "no memory");
    for (uint64_t i = 0; i < size; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data[i] = (uint8_t)(state >> 32 & 0x3b);
    }
    return data;
}

struct turns {
    uint32_t count;
    uint64_t bytes; /* of one matrix */
    struct weight *weight[TURNS_MAX];
};

static void turns_load(struct turns *t, struct backend *b, enum quant_type type,
                       const struct options *o)
{
    const struct sum_cut cut = sum_cut_whole(o->cols, o->groups, o->groups > 1 ? 8 : 1);
    uint8_t *data = matrix_bytes(weight_row_bytes(type, o->cols, &cut) * o->rows);
    struct errbuf eb = {{0}};

    t->bytes = backend_cuda_weight_bytes(type, o->rows, o->cols, &cut);
    t->count = (uint32_t)(TURNS_BYTES / t->bytes) + 2;
    t->count = t->count < TURNS_MAX ? t->count : TURNS_MAX;
    for (uint32_t i = 0; i < t->count; i++) {
        if (matrix_load(b, type, data, o->rows, o->cols, &cut, &t->weight[i], &eb) != ERR_OK)
            die("a matrix", eb.text);
    }
    free(data);
}

static void bench_columns(struct backend *b, const struct turns *t, struct act *x, float *out,
                          uint32_t n, const struct options *o, const struct limits *limits,
                          const char *type)
{
    float one;
    uint64_t times = 0;
    double s = 0.0;

    /* Once each, then for as long as asked. */
    for (uint32_t i = 0; i < t->count; i++) {
        const struct matmul_job job = {.weight = t->weight[i], .out = out, .out_stride = o->rows};
        b->ops->matmul(b, x, n, &job, 1);
    }
    b->ops->buffer_read(b, out, &one, 1);
    uint64_t begin = clock_mono_ns();
    while (s < o->ms * 1e-3) {
        for (uint32_t i = 0; i < t->count; i++) {
            const struct matmul_job job = {
                .weight = t->weight[i], .out = out, .out_stride = o->rows};
            b->ops->matmul(b, x, n, &job, 1);
        }
        b->ops->buffer_read(b, out, &one, 1);
        times += t->count;
        s = seconds(begin);
    }
    const double each = s / (double)times;
    const double gb = (double)t->bytes / each * 1e-9;
    const double tops = 2.0 * n * o->rows * o->cols / each * 1e-12;
    const double peak = n <= 8 ? limits->dp4a_tops : limits->mma_tops;
    printf("%-7s %5u %10.1f %9.1f %6.1f %% %9.2f %6.1f %%\n", type, n, each * 1e6, gb,
           100.0 * gb / limits->copy_gb, tops, 100.0 * tops / peak);
}

static void bench_type(struct backend *b, enum quant_type type, const struct options *o,
                       const struct limits *limits)
{
    const uint32_t n_max = o->n > 0 ? o->n : COLUMNS_MAX;
    const size_t count = (size_t)n_max * o->cols;
    float *host = malloc(count * sizeof *host);
    struct turns turns;

    if (host == NULL)
        die("activations", "no memory");
    for (size_t i = 0; i < count; i++)
        host[i] = (float)((i * 2654435761u) % 2001) * 1e-3f - 1.0f;
    turns_load(&turns, b, type, o);
    struct act *x = b->ops->act_new(b, n_max, o->cols, true);
    float *in = b->ops->buffer_new(b, count);
    float *out = b->ops->buffer_new(b, (size_t)n_max * o->rows);
    if (x == NULL || in == NULL || out == NULL)
        die("activations", "no memory");
    b->ops->buffer_write(b, in, host, count);
    b->ops->quantize(b, in, n_max, o->cols, x);
    for (uint32_t n = o->n > 0 ? o->n : 1; n <= n_max; n *= 2)
        bench_columns(b, &turns, x, out, n, o, limits, quant_type_info((uint32_t)type)->name);
    b->ops->buffer_free(b, in);
    b->ops->buffer_free(b, out);
    b->ops->act_free(b, x);
    for (uint32_t i = 0; i < turns.count; i++)
        b->ops->weight_free(b, turns.weight[i]);
    free(host);
}

static uint32_t number(const char *text)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);
    if (*text == '\0' || *end != '\0' || v > UINT32_MAX)
        die(text, "no number");
    return (uint32_t)v;
}

static struct options options_of(int argc, char **argv)
{
    struct options o = {.rows = 14336, .cols = 4096, .groups = 1, .ms = 200};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--gpu") == 0)
            o.config.device = number(argv[i + 1]);
        else if (strcmp(argv[i], "--rows") == 0)
            o.rows = number(argv[i + 1]);
        else if (strcmp(argv[i], "--cols") == 0)
            o.cols = number(argv[i + 1]);
        else if (strcmp(argv[i], "--groups") == 0)
            o.groups = number(argv[i + 1]);
        else if (strcmp(argv[i], "--n") == 0)
            o.n = number(argv[i + 1]);
        else if (strcmp(argv[i], "--ms") == 0)
            o.ms = number(argv[i + 1]);
        else if (strcmp(argv[i], "--type") == 0)
            o.type = argv[i + 1];
        else
            die(argv[i], "unknown option");
    }
    if (argc % 2 == 0)
        die(argv[argc - 1], "a value is missing");
    return o;
}

int main(int argc, char **argv)
{
    const struct options o = options_of(argc, argv);
    struct errbuf eb = {{0}};
    struct backend *b;
    int multiprocessors, count = 0;

    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) {
        printf("no CUDA device\n");
        return SKIPPED;
    }
    if (backend_cuda_open(&b, &o.config, &eb) != ERR_OK)
        die("opening the GPU", eb.text);
    must(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount,
                                (int)o.config.device),
         "multiprocessors");
    const struct limits limits = {.copy_gb = copy_limit(),
                                  .dp4a_tops = peak_limit(BENCH_PEAK_DP4A, multiprocessors),
                                  .mma_tops = peak_limit(BENCH_PEAK_MMA, multiprocessors)};
    printf("%s, %d multiprocessors: copy %.0f GB/s, dp4a %.1f TOPS, int8 mma %.1f TOPS\n",
           b->ops->name, multiprocessors, limits.copy_gb, limits.dp4a_tops, limits.mma_tops);
    printf("%u x %u, %u groups\n", o.rows, o.cols, o.groups);
    printf("type    columns       us      GB/s  of copy      TOPS  of peak\n");
    for (uint32_t type = 0; type < 64; type++) {
        const struct quant_type_info *info = quant_type_info(type);
        if (info == NULL || !info->supported || o.cols % info->block_items != 0 ||
            (o.type != NULL && strcmp(o.type, info->name) != 0))
            continue;
        bench_type(b, (enum quant_type)type, &o, &limits);
    }
    b->ops->close(b);
    return 0;
}
