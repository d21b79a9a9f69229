/*
 * bench_kernels - how fast the matrix products and attention are, beside what the machine can do.
 *
 *   bench_kernels [--isa NAME] [--threads N] [--rows R] [--cols C] [--n N] [--ms N] [--type NAME]
 *                 [--time wall|cpu]
 *
 * Prints GB/s of weights and GOPS (a multiply and an add are two) for each type and number of
 * columns, with their share of two limits measured in the same run: how fast memory is read, as a
 * worker measures it (read_rate.h), and a loop of the instruction set's integer products that never
 * leaves the registers. `--time cpu` counts this process's processor time per thread, for machines
 * that do other work as well: with one thread it is exact, with more it also counts their waiting;
 * memory is measured by the wall's clock all the same. Not a test.
 */
#include "tests/kernels/matrix.h"
#include "common/clock.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/pool.h"
#include "worker/kernels/read_rate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

struct options {
    struct backend_cpu_config config;
    uint32_t rows;
    uint32_t cols;
    uint32_t n; /* columns of activations; 0: 1 to 512 */
    uint32_t ms;
    const char *type; /* NULL: all; attention and order are types of their own here */
};

struct limits {
    double read_gb;   /* GB/s */
    double peak_gops; /* of the 8-bit product in registers; 0 where none is measured */
};

#define PEAK_LOOPS 100000u

#if defined(__x86_64__)
__attribute__((target("avx2"))) static void peak_avx2(void)
{
    __m256i acc[8];
    __m256i w = _mm256_set1_epi8(3);
    __m256i x = _mm256_set1_epi8(5);
    for (int k = 0; k < 8; k++)
        acc[k] = _mm256_set1_epi16((short)k);
    for (uint32_t i = 0; i < PEAK_LOOPS; i++) {
#pragma GCC unroll 8
        for (int k = 0; k < 8; k++) {
            __m256i product = _mm256_maddubs_epi16(w, x);
            __asm__ volatile("" : "+x"(product)); /* keeps it inside the loop */
            acc[k] = _mm256_add_epi16(acc[k], product);
        }
    }
    __m256i all = acc[0];
    for (int k = 1; k < 8; k++)
        all = _mm256_xor_si256(all, acc[k]);
    __asm__ volatile("" : : "x"(all));
}

__attribute__((target("avx512f,avx512vnni"))) static void peak_avx512(void)
{
    __m512i acc[12];
    __m512i w = _mm512_set1_epi32(0x03030303);
    __m512i x = _mm512_set1_epi32(0x05050505);
    for (int k = 0; k < 12; k++)
        acc[k] = _mm512_set1_epi32(k);
    for (uint32_t i = 0; i < PEAK_LOOPS; i++) {
#pragma GCC unroll 12
        for (int k = 0; k < 12; k++) {
            __m512i sum = _mm512_dpbusd_epi32(acc[k], w, x);
            __asm__ volatile("" : "+v"(sum));
            acc[k] = sum;
        }
    }
    __m512i all = acc[0];
    for (int k = 1; k < 12; k++)
        all = _mm512_xor_si512(all, acc[k]);
    __asm__ volatile("" : : "v"(all));
}
#endif

#if defined(__x86_64__)
/* Four products of 16 x 16 x 64 bytes, of registers that nobody filled. */
static void peak_amx(void)
{
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16}};
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
    for (uint32_t i = 0; i < PEAK_LOOPS / 16; i++) {
        __asm__ volatile("tdpbssd %tmm5, %tmm4, %tmm0\n\t"
                         "tdpbssd %tmm5, %tmm4, %tmm1\n\t"
                         "tdpbssd %tmm5, %tmm4, %tmm2\n\t"
                         "tdpbssd %tmm5, %tmm4, %tmm3");
    }
    __asm__ volatile("tilerelease");
}
#endif

static void peak_task(void *ctx, uint32_t task, uint32_t thread)
{
    (void)task;
    (void)thread;
#if defined(__x86_64__)
    if (strcmp(ctx, "amx") == 0)
        peak_amx();
    else if (strcmp(ctx, "avx512") == 0)
        peak_avx512();
    else if (strcmp(ctx, "avx2") == 0)
        peak_avx2();
#else
    (void)ctx;
#endif
}

static uint32_t bench_cpu_threads; /* 0: wall time */

static uint64_t now_ns(void)
{
    struct timespec t;
    if (bench_cpu_threads == 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        return clock_mono_ns();
    return ((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec) / bench_cpu_threads;
}

static double seconds_since(uint64_t start_ns)
{
    return (double)(now_ns() - start_ns) * 1e-9;
}

static void measure_limits(const char *isa, uint32_t threads, struct limits *ret_limits)
{
    struct pool *pool;
    struct errbuf eb = {0};
    *ret_limits = (struct limits){0};
    if (pool_new(threads, &pool, &eb) != ERR_OK)
        return;
    struct read_rate rate = {0};
    if (read_rate_measure(threads, READ_RATE_BYTES_MAX, &rate, &eb) == ERR_OK)
        ret_limits->read_gb = (double)rate.bytes_per_s * 1e-9;
    double ops = strcmp(isa, "amx") == 0      ? 4.0 * 16 * 16 * 64 * 2 / 16
                 : strcmp(isa, "avx512") == 0 ? 12.0 * 64 * 2
                 : strcmp(isa, "avx2") == 0   ? 8.0 * 32 * 2
                                              : 0.0;
    uint32_t tasks = pool_threads(pool) * 4;
    for (int round = 0; round < 50 && ops > 0.0; round++) {
        uint64_t start = now_ns();
        pool_run(pool, peak_task, (void *)(uintptr_t)isa, tasks);
        double gops = ops * PEAK_LOOPS * tasks * 1e-9 / seconds_since(start);
        ret_limits->peak_gops = gops > ret_limits->peak_gops ? gops : ret_limits->peak_gops;
    }
    pool_free(pool);
}

/* Without the top exponents of binary16 and float: scales are numbers. */
static void fill(void *bytes, size_t count, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1u;
    for (size_t i = 0; i < count; i++) {
        x = x * 1664525u + 1013904223u;
        ((uint8_t *)bytes)[i] = (uint8_t)(x >> 24 & 0x7b);
    }
}

static void bench_matmul(struct backend *b, const struct options *o, const struct limits *limits,
                         enum quant_type type)
{
    static const uint32_t counts[] = {1, 2, 4, 8, 16, 32, 64, 512};
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    size_t row_bytes = (size_t)(o->cols / info->block_items) * info->block_bytes;
    uint8_t *data = malloc(o->rows * row_bytes);
    struct errbuf eb = {0};
    struct weight *w;
    if (data == NULL)
        return;
    fill(data, o->rows * row_bytes, 1);
    /* Its scale is a bare exponent; others would make subnormal numbers, which are slow. */
    for (size_t i = 0; type == QUANT_TYPE_MXFP4 && i < o->rows * row_bytes; i += info->block_bytes)
        data[i] = 120;
    enum err err = matrix_load(b, type, data, o->rows, o->cols, NULL, &w, &eb);
    free(data);
    if (err != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        return;
    }
    const struct sum_cut cut = sum_cut_whole(o->cols, 1, 1);
    double weight_gb = (double)backend_cpu_weight_bytes(type, o->rows, o->cols, &cut) * 1e-9;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        uint32_t n = counts[i];
        if (o->n > 0 && i > 0)
            break;
        if (o->n > 0)
            n = o->n;
        float *x = b->ops->buffer_new(b, (size_t)n * o->cols);
        float *out = b->ops->buffer_new(b, (size_t)n * o->rows);
        struct act *a = b->ops->act_new(b, n, o->cols, true);
        if (x == NULL || out == NULL || a == NULL)
            return;
        for (size_t k = 0; k < (size_t)n * o->cols; k++)
            x[k] = (float)((int)(k * 7919 % 255) - 127) * 0.01f;
        b->ops->quantize(b, x, n, o->cols, a);
        const struct matmul_job job = {.weight = w, .out = out, .out_stride = o->rows};
        b->ops->matmul(b, a, n, &job, 1);
        /* The best of several rounds: other programs on the machine only ever slow one down. */
        double best = 1e9;
        uint64_t begin = now_ns();
        do {
            uint64_t start = now_ns();
            b->ops->matmul(b, a, n, &job, 1);
            double s = seconds_since(start);
            best = s < best ? s : best;
        } while (seconds_since(begin) < o->ms * 1e-3);
        double gops = 2.0 * o->rows * o->cols * n * 1e-9 / best;
        double gb = weight_gb / best;
        printf("%-6s n=%-4u %9.1f us %8.2f GB/s (%5.1f %% of memory) %8.1f GOPS", info->name, n,
               best * 1e6, gb, 100.0 * gb / limits->read_gb, gops);
        if (limits->peak_gops > 0.0 && info->block_items > 1)
            printf(" (%5.1f %% of peak)", 100.0 * gops / limits->peak_gops);
        printf("\n");
        b->ops->act_free(b, a);
        b->ops->buffer_free(b, x);
        b->ops->buffer_free(b, out);
    }
    b->ops->weight_free(b, w);
}

/* One product of n columns, timed once. */
static double matmul_seconds(struct backend *b, const struct act *x, uint32_t n,
                             const struct weight *w, float *out, uint32_t rows)
{
    const struct matmul_job job = {.weight = w, .out = out, .out_stride = rows};
    uint64_t start = now_ns();
    b->ops->matmul(b, x, n, &job, 1);
    return seconds_since(start);
}

static int compare_doubles(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

/*
 * What the fixed order of sums costs. A matrix that may be split between devices is summed in
 * groups that a tree joins, so that any cut gives the same bits; the same kernels with one group
 * have no tree. In turns, the median of the ratios of neighbours.
 */
static void bench_order(struct backend *b, enum quant_type type)
{
    enum { ROUNDS = 31 };
    static const uint32_t counts[] = {1, 32, 512};
    const uint32_t rows = 1536;
    const uint32_t cols = 8960;
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    const struct sum_cut cut = backend_cut_ffn(cols);
    size_t row_bytes = (size_t)(cols / info->block_items) * info->block_bytes;
    uint8_t *data = malloc(rows * row_bytes);
    struct errbuf eb = {0};
    struct weight *free_order = NULL;
    struct weight *fixed = NULL;
    if (data == NULL)
        return;
    fill(data, rows * row_bytes, 1);
    if (matrix_load(b, type, data, rows, cols, NULL, &free_order, &eb) != ERR_OK ||
        matrix_load(b, type, data, rows, cols, &cut, &fixed, &eb) != ERR_OK)
        fprintf(stderr, "%s\n", eb.text);
    free(data);
    for (size_t i = 0; fixed != NULL && i < sizeof counts / sizeof counts[0]; i++) {
        const uint32_t n = counts[i];
        double ratios[ROUNDS];
        float *x = b->ops->buffer_new(b, (size_t)n * cols);
        float *out = b->ops->buffer_new(b, (size_t)n * rows);
        struct act *a = b->ops->act_new(b, n, cols, true);
        if (x == NULL || out == NULL || a == NULL)
            return;
        for (size_t k = 0; k < (size_t)n * cols; k++)
            x[k] = (float)((int)(k * 7919 % 255) - 127) * 0.01f;
        b->ops->quantize(b, x, n, cols, a);
        for (int round = -1; round < ROUNDS; round++) {
            const bool is_first = round % 2 == 0;
            double one = matmul_seconds(b, a, n, is_first ? fixed : free_order, out, rows);
            double two = matmul_seconds(b, a, n, is_first ? free_order : fixed, out, rows);
            if (round >= 0)
                ratios[round] = is_first ? one / two : two / one;
        }
        qsort(ratios, ROUNDS, sizeof ratios[0], compare_doubles);
        printf("order  %-6s n=%-4u %u groups take %.3f of the time of one (%.3f to %.3f)\n",
               info->name, n, cut.groups, ratios[ROUNDS / 2], ratios[ROUNDS / 4],
               ratios[ROUNDS - 1 - ROUNDS / 4]);
        b->ops->act_free(b, a);
        b->ops->buffer_free(b, x);
        b->ops->buffer_free(b, out);
    }
    b->ops->weight_free(b, free_order);
    b->ops->weight_free(b, fixed);
}

/* SmolLM2's heads: 9 of 64 over 3 KV heads; one row at the end of a context, and a chunk of 64. */
static void bench_attention(struct backend *b, const struct options *o, const struct limits *limits,
                            enum kv_type type)
{
    enum { HEADS = 9, KV_HEADS = 3, DIM = 64, PAGES = 128, ROWS_MAX = 64 };
    const struct kv_shape shape = {1, KV_HEADS, DIM, DIM, type, PAGES};
    struct errbuf eb = {0};
    struct kv *kv;
    if (b->ops->kv_new(b, &shape, &kv, &eb) != ERR_OK)
        return;
    uint32_t pages[PAGES];
    uint32_t position[ROWS_MAX];
    uint32_t sequence[ROWS_MAX] = {0};
    float *table = calloc((size_t)PAGES * KV_PAGE_TOKENS * DIM, sizeof *table);
    float *q = b->ops->buffer_new(b, ROWS_MAX * HEADS * DIM);
    float *k = b->ops->buffer_new(b, ROWS_MAX * KV_HEADS * DIM);
    float *v = b->ops->buffer_new(b, ROWS_MAX * KV_HEADS * DIM);
    struct act *out = b->ops->act_new(b, ROWS_MAX, HEADS * DIM, false);
    if (table == NULL || q == NULL || k == NULL || v == NULL || out == NULL)
        return;
    for (uint32_t i = 0; i < PAGES; i++)
        pages[i] = i;
    for (size_t i = 0; i < (size_t)PAGES * KV_PAGE_TOKENS * DIM; i += 2)
        table[i] = 1.0f;
    for (size_t i = 0; i < ROWS_MAX * HEADS * DIM; i++)
        q[i] = (float)((int)(i * 7919 % 255) - 127) * 0.01f;
    for (size_t i = 0; i < ROWS_MAX * KV_HEADS * DIM; i++)
        k[i] = v[i] = (float)((int)(i * 104729 % 255) - 127) * 0.01f;
    struct step_rows rows = {ROWS_MAX, position, sequence, pages, PAGES};
    for (uint32_t base = 0; base < PAGES * KV_PAGE_TOKENS; base += ROWS_MAX) {
        for (uint32_t i = 0; i < ROWS_MAX; i++)
            position[i] = base + i;
        const struct rope_kv_job job = {.kv = kv,
                                        .rows = &rows,
                                        .q = q,
                                        .k = k,
                                        .v = v,
                                        .n_heads = HEADS,
                                        .rope_dim = DIM,
                                        .table = table};
        b->ops->rope_kv(b, &job);
    }
    static const uint32_t lengths[] = {128, 1024, 4096};
    static const uint32_t counts[] = {1, 8, 64};
    for (size_t l = 0; l < 3; l++) {
        for (size_t c = 0; c < 3; c++) {
            rows.n_rows = counts[c];
            for (uint32_t i = 0; i < counts[c]; i++)
                position[i] = lengths[l] - counts[c] + i;
            const struct attention_job job = {
                .kv = kv, .rows = &rows, .q = q, .n_heads = HEADS, .scale = 0.125f, .out = out};
            b->ops->attention(b, &job);
            double best = 1e9;
            uint64_t begin = now_ns();
            do {
                uint64_t start = now_ns();
                b->ops->attention(b, &job);
                double s = seconds_since(start);
                best = s < best ? s : best;
            } while (seconds_since(begin) < o->ms * 1e-3);
            double bytes = (double)backend_kv_page_bytes(&shape) * lengths[l] / KV_PAGE_TOKENS;
            double flops = 4.0 * HEADS * DIM * lengths[l] * counts[c];
            printf("attention %s context %-5u rows %-3u %9.1f us %8.2f GB/s (%5.1f %% of memory) "
                   "%7.1f GFLOPS\n",
                   type == KV_TYPE_F16 ? "f16 " : "q8_0", lengths[l], counts[c], best * 1e6,
                   bytes * 1e-9 / best, 100.0 * bytes * 1e-9 / best / limits->read_gb,
                   flops * 1e-9 / best);
        }
    }
    free(table);
    b->ops->buffer_free(b, q);
    b->ops->buffer_free(b, k);
    b->ops->buffer_free(b, v);
    b->ops->act_free(b, out);
    b->ops->kv_free(b, kv);
}

static int usage(void)
{
    fprintf(stderr,
            "usage: bench_kernels [--isa auto|scalar|avx2|avx512|amx] [--threads N] [--rows R] "
            "[--cols C] [--n N] [--ms N] [--type NAME] [--time wall|cpu]\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct options o = {.rows = 49152, .cols = 1536, .ms = 100};
    bool cpu_time = false;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 >= argc)
            return usage();
        uint32_t number = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--isa") == 0) {
            if (!backend_isa_parse(argv[i + 1], &o.config.isa))
                return usage();
        } else if (strcmp(argv[i], "--threads") == 0) {
            o.config.threads = number;
        } else if (strcmp(argv[i], "--rows") == 0) {
            o.rows = number;
        } else if (strcmp(argv[i], "--cols") == 0) {
            o.cols = number;
        } else if (strcmp(argv[i], "--n") == 0) {
            o.n = number;
        } else if (strcmp(argv[i], "--ms") == 0) {
            o.ms = number;
        } else if (strcmp(argv[i], "--type") == 0) {
            o.type = argv[i + 1];
        } else if (strcmp(argv[i], "--time") == 0 && strcmp(argv[i + 1], "cpu") == 0) {
            cpu_time = true;
        } else if (strcmp(argv[i], "--time") != 0 || strcmp(argv[i + 1], "wall") != 0) {
            return usage();
        }
    }
    if (cpu_time)
        bench_cpu_threads = o.config.threads > 0 ? o.config.threads : 1;
    struct errbuf eb = {0};
    struct backend *b;
    if (backend_cpu_open(&b, &o.config, &eb) != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        return 1;
    }
    struct limits limits;
    measure_limits(b->ops->name, o.config.threads, &limits);
    printf("%s, %u x %u: memory reads %.1f GB/s, 8-bit products in registers %.0f GOPS\n",
           b->ops->name, o.rows, o.cols, limits.read_gb, limits.peak_gops);
    static const enum quant_type types[] = {
        QUANT_TYPE_Q4_1,  QUANT_TYPE_Q4_0, QUANT_TYPE_Q5_0,   QUANT_TYPE_Q5_1,
        QUANT_TYPE_Q8_0,  QUANT_TYPE_Q2_K, QUANT_TYPE_Q3_K,   QUANT_TYPE_Q4_K,
        QUANT_TYPE_Q5_K,  QUANT_TYPE_Q6_K, QUANT_TYPE_IQ4_NL, QUANT_TYPE_IQ4_XS,
        QUANT_TYPE_MXFP4, QUANT_TYPE_F16,  QUANT_TYPE_BF16,   QUANT_TYPE_F32,
    };
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        if (o.type == NULL || strcmp(o.type, quant_type_info((uint32_t)types[t])->name) == 0)
            bench_matmul(b, &o, &limits, types[t]);
    }
    if (o.type == NULL || strcmp(o.type, "order") == 0) {
        bench_order(b, QUANT_TYPE_Q4_1);
        bench_order(b, QUANT_TYPE_Q8_0);
        bench_order(b, QUANT_TYPE_Q6_K);
    }
    if (o.type == NULL || strcmp(o.type, "attention") == 0) {
        bench_attention(b, &o, &limits, KV_TYPE_F16);
        bench_attention(b, &o, &limits, KV_TYPE_Q8_0);
    }
    b->ops->close(b);
    return 0;
}
