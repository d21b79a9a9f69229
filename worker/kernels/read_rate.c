#include "worker/kernels/read_rate.h"

#include "common/clock.h"
#include "worker/kernels/pool.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

#define TASK_BYTES   ((size_t)256 << 10)
#define THREAD_BYTES ((uint64_t)8 << 20)
#define LEAST_BYTES  ((uint64_t)64 << 20) /* unless there is room for less only */
#define LINE_BYTES   64u
#define PASSES_MAX   32u
#define PASSES_NS    100000000u /* no other pass is begun after this time */

struct buffer {
    uint8_t *data;
    bool has_clflushopt;   /* an order of magnitude faster than what every x86-64 has */
    _Atomic uint64_t sink; /* lest nobody needs what was read */
};

static void task_touch(void *ctx, uint32_t task, uint32_t thread)
{
    const struct buffer *b = ctx;
    (void)thread;
    memset(b->data + (size_t)task * TASK_BYTES, (int)(task & 0xff), TASK_BYTES);
}

#if defined(__x86_64__)
#define LEAF_7_EBX_CLFLUSHOPT (1u << 23)

static bool has_clflushopt(void)
{
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & LEAF_7_EBX_CLFLUSHOPT) != 0;
}

__attribute__((target("clflushopt"))) static void flush_opt(uint8_t *at)
{
    for (size_t i = 0; i < TASK_BYTES; i += LINE_BYTES)
        _mm_clflushopt(at + i);
}

static void flush(const uint8_t *at)
{
    for (size_t i = 0; i < TASK_BYTES; i += LINE_BYTES)
        _mm_clflush(at + i);
}

static void task_flush(void *ctx, uint32_t task, uint32_t thread)
{
    const struct buffer *b = ctx;
    uint8_t *at = b->data + (size_t)task * TASK_BYTES;
    (void)thread;
    if (b->has_clflushopt)
        flush_opt(at);
    else
        flush(at);
    _mm_mfence();
}
#endif

static void task_read(void *ctx, uint32_t task, uint32_t thread)
{
    struct buffer *b = ctx;
    const uint64_t *at = (const uint64_t *)(const void *)(b->data + (size_t)task * TASK_BYTES);
    uint64_t sum[8] = {0}, all = 0;
    (void)thread;
    for (size_t i = 0; i < TASK_BYTES / sizeof *at; i += 8) {
        for (size_t k = 0; k < 8; k++)
            sum[k] ^= at[i + k];
    }
    for (size_t k = 0; k < 8; k++)
        all ^= sum[k];
    atomic_fetch_xor(&b->sink, all);
}

static uint64_t buffer_bytes(const struct pool *pool, uint64_t most)
{
#if defined(__x86_64__)
    uint64_t bytes = THREAD_BYTES * pool_threads(pool);
    bytes = bytes < LEAST_BYTES ? LEAST_BYTES : bytes;
    bytes = bytes > READ_RATE_BYTES_MAX ? READ_RATE_BYTES_MAX : bytes;
#else
    uint64_t bytes = READ_RATE_BYTES_MAX;
    (void)pool;
#endif
    bytes = bytes > most ? most : bytes;
    return bytes - bytes % TASK_BYTES;
}

static void passes_run(struct pool *pool, struct buffer *b, struct read_rate *rate)
{
    const uint32_t n_tasks = (uint32_t)(rate->bytes / TASK_BYTES);
    const uint64_t began_ns = clock_mono_ns();
    uint64_t best_ns = UINT64_MAX;

    pool_run(pool, task_touch, b, n_tasks);
    do {
#if defined(__x86_64__)
        pool_run(pool, task_flush, b, n_tasks);
#endif
        const uint64_t at_ns = clock_mono_ns();
        pool_run(pool, task_read, b, n_tasks);
        const uint64_t took_ns = clock_mono_ns() - at_ns;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
        rate->passes++;
    } while (rate->passes < PASSES_MAX && clock_mono_ns() - began_ns < PASSES_NS);
    best_ns = best_ns > 0 ? best_ns : 1;
    rate->bytes_per_s = (uint64_t)((double)rate->bytes * 1e9 / (double)best_ns) + 1;
}

enum err read_rate_measure(uint32_t threads, uint64_t most, struct read_rate *ret_rate,
                           struct errbuf *eb)
{
    struct pool *pool = NULL;
    struct read_rate rate = {0};

    if (most < READ_RATE_BYTES_MIN)
        return err_set(eb, ERR_NO_MEMORY, "%llu bytes are too little to measure with",
                       (unsigned long long)most);
    enum err e = pool_new(threads, &pool, eb);
    if (e != ERR_OK)
        return e;
    rate.bytes = buffer_bytes(pool, most);
    struct buffer b = {
        .data = mmap(NULL, rate.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
    if (b.data == MAP_FAILED) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for %llu bytes to read",
                    (unsigned long long)rate.bytes);
    } else {
#if defined(__x86_64__)
        b.has_clflushopt = has_clflushopt();
#endif
        passes_run(pool, &b, &rate);
        (void)munmap(b.data, rate.bytes);
        *ret_rate = rate;
    }
    pool_free(pool);
    return e;
}
