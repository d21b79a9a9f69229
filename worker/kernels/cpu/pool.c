#include "worker/kernels/cpu/pool.h"

#include "common/check.h"
#include "worker/kernels/backend.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* About 0.1 ms of pause instructions. */
#define POOL_SPINS 6000u

struct pool_worker {
    struct pool *pool;
    uint32_t index;
    pthread_t thread;
};

struct pool {
    uint32_t n_threads;
    uint32_t n_workers; /* started; n_threads - 1 once open */
    uint32_t spins;
    struct pool_worker *workers;

    /* The operation. Written by the owner before `ticket` is, read by who holds a task of it. */
    pool_fn *fn;
    void *ctx;

    /* n_tasks << 32 | next task. A worker claims a task by adding 1; what it got says in itself
     * whether it is one (next < n_tasks), so a worker that comes late harms nothing and the owner
     * need not wait until every worker has looked. */
    _Alignas(64) _Atomic uint64_t ticket;
    _Alignas(64) _Atomic uint32_t done; /* tasks finished; a futex for the owner */
    _Atomic uint32_t owner_waits;
    _Alignas(64) _Atomic uint32_t generation; /* a futex for the workers */
    _Atomic uint32_t sleepers;
    _Atomic bool stop;
};

static void pool_futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void pool_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

static void pool_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static bool pool_has_task(struct pool *pool)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    return (uint32_t)ticket < (uint32_t)(ticket >> 32);
}

/* Runs tasks until none is left. */
static void pool_work(struct pool *pool, uint32_t thread)
{
    while (pool_has_task(pool)) {
        uint64_t ticket = atomic_fetch_add_explicit(&pool->ticket, 1, memory_order_acq_rel);
        uint32_t task = (uint32_t)ticket;
        uint32_t n_tasks = (uint32_t)(ticket >> 32);
        if (task >= n_tasks)
            return;
        pool->fn(pool->ctx, task, thread);
        uint32_t done = atomic_fetch_add(&pool->done, 1) + 1;
        if (done == n_tasks && atomic_load(&pool->owner_waits))
            pool_futex_wake(&pool->done, 1);
    }
}

static void *pool_worker_main(void *arg)
{
    struct pool_worker *worker = arg;
    struct pool *pool = worker->pool;
    for (;;) {
        uint32_t seen = atomic_load(&pool->generation);
        if (atomic_load(&pool->stop))
            return NULL;
        uint32_t spin = 0;
        while (!pool_has_task(pool) && spin < pool->spins) {
            pool_pause();
            spin++;
        }
        if (pool_has_task(pool)) {
            pool_work(pool, worker->index);
            continue;
        }
        /* The owner raises the generation, then looks at sleepers; we raise sleepers, then look at
         * the generation (in the kernel). One of the two sees the other. */
        atomic_fetch_add(&pool->sleepers, 1);
        pool_futex_wait(&pool->generation, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
}

void pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks)
{
    CHECK(n_tasks < POOL_TASKS_MAX);
    if (n_tasks <= 1 || pool->n_threads == 1) {
        for (uint32_t task = 0; task < n_tasks; task++)
            fn(ctx, task, 0);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    atomic_store(&pool->done, 0);
    atomic_store(&pool->ticket, (uint64_t)n_tasks << 32);
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0)
        pool_futex_wake(&pool->generation, (int)pool->n_workers);

    pool_work(pool, 0);
    for (uint32_t spin = 0; spin < pool->spins; spin++) {
        if (atomic_load(&pool->done) == n_tasks)
            return;
        pool_pause();
    }
    atomic_store(&pool->owner_waits, 1);
    for (;;) {
        uint32_t done = atomic_load(&pool->done);
        if (done == n_tasks)
            break;
        pool_futex_wait(&pool->done, done);
    }
    atomic_store(&pool->owner_waits, 0);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}

/* Best effort: a refused pin costs speed only. */
static void pool_pin(struct pool *pool, const cpu_set_t *allowed)
{
    uint32_t worker = 0;
    bool first = true;
    for (size_t cpu = 0; cpu < CPU_SETSIZE && worker < pool->n_workers; cpu++) {
        if (!CPU_ISSET(cpu, allowed))
            continue;
        if (first) {
            first = false; /* the owner's */
            continue;
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        (void)pthread_setaffinity_np(pool->workers[worker].thread, sizeof one, &one);
        worker++;
    }
}

/* The set stays empty where the machine has more CPUs than it can hold. */
static uint32_t cores_usable(cpu_set_t *ret_allowed)
{
    CPU_ZERO(ret_allowed);
    if (sched_getaffinity(0, sizeof *ret_allowed, ret_allowed) == 0)
        return (uint32_t)CPU_COUNT(ret_allowed);
    CPU_ZERO(ret_allowed);
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (uint32_t)online : 1;
}

uint32_t backend_threads_auto(void)
{
    cpu_set_t allowed;
    uint32_t cores = cores_usable(&allowed);
    return cores < POOL_THREADS_MAX ? cores : POOL_THREADS_MAX;
}

enum err pool_new(uint32_t threads, struct pool **ret_pool, struct errbuf *eb)
{
    cpu_set_t allowed;
    uint32_t cores = cores_usable(&allowed);
    if (threads == 0)
        threads = backend_threads_auto();
    if (threads > POOL_THREADS_MAX)
        return err_set(eb, ERR_INVALID, "%u threads, at most %u", threads, POOL_THREADS_MAX);

    struct pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    struct pool_worker *workers = calloc(threads, sizeof *workers);
    if (pool == NULL || workers == NULL) {
        free(pool);
        free(workers);
        return err_set(eb, ERR_NO_MEMORY, "a pool of %u threads", threads);
    }
    memset(pool, 0, sizeof *pool);
    pool->n_threads = threads;
    pool->workers = workers;
    /* With more threads than cores a spinning thread keeps a working one off its core. */
    pool->spins = threads <= cores ? POOL_SPINS : 0;
    for (uint32_t i = 0; i + 1 < threads; i++) {
        workers[i].pool = pool;
        workers[i].index = i + 1;
        int rc = pthread_create(&workers[i].thread, NULL, pool_worker_main, &workers[i]);
        if (rc != 0) {
            pool_free(pool);
            return err_set_errno(eb, rc, "thread %u of %u", i + 1, threads);
        }
        pool->n_workers = i + 1;
    }
    if (threads == cores)
        pool_pin(pool, &allowed);
    *ret_pool = pool;
    return ERR_OK;
}

void pool_free(struct pool *pool)
{
    if (pool == NULL)
        return;
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->generation, 1);
    pool_futex_wake(&pool->generation, (int)pool->n_workers);
    for (uint32_t i = 0; i < pool->n_workers; i++)
        pthread_join(pool->workers[i].thread, NULL);
    free(pool->workers);
    free(pool);
}
