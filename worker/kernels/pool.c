#include "worker/kernels/pool.h"

#include "common/check.h"
#include "worker/kernels/backend.h"
#include "worker/kernels/topology.h"

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
    uint32_t node;
    pthread_t thread;
};

/* A thread's tasks: end << 32 | next. Who claims one adds 1; what it got says in itself whether it
 * is one (next < end), so a worker that comes late harms nothing and the owner need not wait until
 * every worker has looked. */
struct pool_queue {
    _Alignas(64) _Atomic uint64_t ticket;
};

struct pool {
    uint32_t n_threads;
    uint32_t n_workers; /* started; n_threads - 1 once open */
    uint32_t spins;
    struct pool_worker *workers;
    struct topology topology;
    uint32_t n_nodes; /* with a thread, of the topology's, in order */
    uint32_t threads_before[TOPOLOGY_NODES_MAX + 1]; /* of nodes 0 .. k - 1 */

    /* The operation. Written by the owner before any ticket is, read by who holds a task of it. */
    pool_fn *fn;
    void *ctx;
    uint32_t n_tasks;

    struct pool_queue *queues;          /* [n_threads] */
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

static bool pool_has_task_of(struct pool *pool, uint32_t queue)
{
    uint64_t ticket = atomic_load_explicit(&pool->queues[queue].ticket, memory_order_acquire);
    return (uint32_t)ticket < (uint32_t)(ticket >> 32);
}

static bool pool_has_task(struct pool *pool)
{
    for (uint32_t queue = 0; queue < pool->n_threads; queue++) {
        if (pool_has_task_of(pool, queue))
            return true;
    }
    return false;
}

/* Runs tasks of one queue until none is left; how many. */
static uint32_t pool_work_on(struct pool *pool, uint32_t queue, uint32_t thread)
{
    uint32_t n = 0;
    for (; pool_has_task_of(pool, queue); n++) {
        uint64_t ticket =
            atomic_fetch_add_explicit(&pool->queues[queue].ticket, 1, memory_order_acq_rel);
        uint32_t task = (uint32_t)ticket;
        if (task >= (uint32_t)(ticket >> 32))
            break;
        pool->fn(pool->ctx, task, thread);
    }
    return n;
}

/* Those of queue `home` first, then of its node, then of all. Nobody waits for all queues to be
 * filled: who is looking around just then may begin with another's. What a thread has run it says
 * once, at the end; until then the operation is not over, and everything here is still its own. */
static void pool_work(struct pool *pool, uint32_t node, uint32_t home, uint32_t thread)
{
    const uint32_t first = pool->threads_before[node];
    const uint32_t own = pool->threads_before[node + 1] - first;
    uint32_t n = 0;
    for (uint32_t i = 0; i < own; i++)
        n += pool_work_on(pool, first + (home - first + i) % own, thread);
    for (uint32_t i = own; i < pool->n_threads; i++)
        n += pool_work_on(pool, (first + i) % pool->n_threads, thread);
    if (n == 0)
        return;
    const uint32_t n_tasks = pool->n_tasks; /* the next operation's, once these are done */
    if (atomic_fetch_add(&pool->done, n) + n == n_tasks && atomic_load(&pool->owner_waits))
        pool_futex_wake(&pool->done, 1);
}

static void *pool_worker_main(void *arg)
{
    struct pool_worker *worker = arg;
    struct pool *pool = worker->pool;
    for (;;) {
        uint32_t seen = atomic_load(&pool->generation);
        if (atomic_load(&pool->stop))
            return NULL;
        if (pool_has_task(pool)) {
            pool_work(pool, worker->node, worker->index, worker->index);
            continue;
        }
        for (uint32_t spin = 0; spin < pool->spins && atomic_load(&pool->generation) == seen;
             spin++)
            pool_pause();
        if (atomic_load(&pool->generation) != seen)
            continue;
        /* The owner raises the generation, then looks at sleepers; we raise sleepers, then look at
         * the generation (in the kernel). One of the two sees the other. */
        atomic_fetch_add(&pool->sleepers, 1);
        pool_futex_wait(&pool->generation, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
    }
}

/* Where the owner is now: it is the caller's thread, which is free to move. */
static uint32_t pool_owner_node(const struct pool *pool)
{
    if (pool->n_nodes == 1)
        return 0;
    int cpu = sched_getcpu();
    uint32_t node =
        cpu >= 0 && cpu < CPU_SETSIZE ? pool->topology.node_of[cpu] : pool->topology.node_of[0];
    return node < pool->n_nodes ? node : 0;
}

/* A node's tasks, a run of them to each of its threads. */
static void pool_fill(struct pool *pool, uint32_t node, uint32_t first, uint32_t end)
{
    const uint32_t before = pool->threads_before[node];
    const uint32_t threads = pool->threads_before[node + 1] - before;
    const uint64_t n = end - first;
    for (uint32_t i = 0; i < threads; i++)
        atomic_store(&pool->queues[before + i].ticket,
                     (first + n * (i + 1) / threads) << 32 | (first + n * i / threads));
}

void pool_run_nodes(struct pool *pool, pool_fn *fn, void *ctx, const uint32_t *first)
{
    const uint32_t n_tasks = first[pool->n_nodes];
    CHECK(first[0] == 0 && n_tasks < POOL_TASKS_MAX);
    if (n_tasks <= 1 || pool->n_threads == 1) {
        for (uint32_t task = 0; task < n_tasks; task++)
            fn(ctx, task, 0);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->n_tasks = n_tasks;
    atomic_store(&pool->done, 0);
    for (uint32_t node = 0; node < pool->n_nodes; node++)
        pool_fill(pool, node, first[node], first[node + 1]);
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers) > 0)
        pool_futex_wake(&pool->generation, (int)pool->n_workers);

    const uint32_t node = pool_owner_node(pool);
    pool_work(pool, node, pool->threads_before[node], 0);
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

void pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks)
{
    uint32_t first[TOPOLOGY_NODES_MAX + 1];
    for (uint32_t node = 0; node <= pool->n_nodes; node++)
        first[node] = pool_share(pool, n_tasks, node);
    pool_run_nodes(pool, fn, ctx, first);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->n_threads;
}

uint32_t pool_nodes(const struct pool *pool)
{
    return pool->n_nodes;
}

uint32_t pool_share(const struct pool *pool, uint32_t n, uint32_t node)
{
    return (uint32_t)((uint64_t)n * pool->threads_before[node] / pool->n_threads);
}

/* The usable CPU of thread `index`: evenly over all of them, those of a node beside each other. */
static uint32_t pool_cpu_of(const struct pool *pool, uint32_t index)
{
    return (uint32_t)((uint64_t)index * pool->topology.n_cpus / pool->n_threads);
}

/* Nodes without a thread are left out, and the others renumbered. */
static void pool_settle_nodes(struct pool *pool)
{
    struct topology *t = &pool->topology;
    uint32_t node_of[POOL_THREADS_MAX];
    uint32_t threads_of[TOPOLOGY_NODES_MAX] = {0};
    uint32_t renumbered[TOPOLOGY_NODES_MAX] = {0};
    for (uint32_t i = 0; i < pool->n_threads; i++) {
        uint32_t cpu = pool_cpu_of(pool, i);
        node_of[i] = 0;
        while (t->first[node_of[i] + 1] <= cpu)
            node_of[i]++;
        threads_of[node_of[i]]++;
    }
    for (uint32_t node = 0; node < t->n_nodes; node++) {
        renumbered[node] = pool->n_nodes;
        if (threads_of[node] == 0)
            continue;
        pool->threads_before[pool->n_nodes + 1] =
            pool->threads_before[pool->n_nodes] + threads_of[node];
        pool->n_nodes++;
    }
    for (uint32_t i = 1; i < pool->n_threads; i++)
        pool->workers[i - 1].node = renumbered[node_of[i]];
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        t->node_of[cpu] = (uint8_t)renumbered[t->node_of[cpu]];
}

/* Best effort: a refused pin costs speed only. */
static void pool_pin(struct pool *pool, uint32_t index)
{
    const struct topology *t = &pool->topology;
    const bool to_one = pool->n_threads == t->n_cpus;
    if (!t->is_known || (!to_one && t->n_nodes == 1))
        return;
    uint32_t first = pool_cpu_of(pool, index);
    uint32_t end = first + 1;
    for (uint32_t node = 0; !to_one && node < t->n_nodes; node++) {
        if (t->first[node] <= first && first < t->first[node + 1]) {
            end = t->first[node + 1];
            first = t->first[node];
        }
    }
    cpu_set_t some;
    CPU_ZERO(&some);
    for (uint32_t i = first; i < end; i++)
        CPU_SET(t->cpus[i], &some);
    (void)pthread_setaffinity_np(pool->workers[index - 1].thread, sizeof some, &some);
}

uint32_t backend_threads_auto(void)
{
    struct topology topology;
    topology_of_process(&topology);
    return topology.n_cpus < POOL_THREADS_MAX ? topology.n_cpus : POOL_THREADS_MAX;
}

enum err pool_new(uint32_t threads, struct pool **ret_pool, struct errbuf *eb)
{
    struct topology topology;
    topology_of_process(&topology);
    return pool_new_on(&topology, threads, ret_pool, eb);
}

enum err pool_new_on(const struct topology *topology, uint32_t threads, struct pool **ret_pool,
                     struct errbuf *eb)
{
    if (threads == 0)
        threads = topology->n_cpus < POOL_THREADS_MAX ? topology->n_cpus : POOL_THREADS_MAX;
    if (threads > POOL_THREADS_MAX)
        return err_set(eb, ERR_INVALID, "%u threads, at most %u", threads, POOL_THREADS_MAX);

    struct pool *pool = aligned_alloc(64, (sizeof *pool + 63) / 64 * 64);
    struct pool_worker *workers = calloc(threads, sizeof *workers);
    struct pool_queue *queues = aligned_alloc(64, threads * sizeof *queues);
    if (pool == NULL || workers == NULL || queues == NULL) {
        free(pool);
        free(workers);
        free(queues);
        return err_set(eb, ERR_NO_MEMORY, "a pool of %u threads", threads);
    }
    memset(pool, 0, sizeof *pool);
    memset(queues, 0, threads * sizeof *queues);
    pool->n_threads = threads;
    pool->workers = workers;
    pool->queues = queues;
    pool->topology = *topology;
    pool_settle_nodes(pool);
    /* With more threads than cores a spinning thread keeps a working one off its core. */
    pool->spins = threads <= topology->n_cpus ? POOL_SPINS : 0;
    for (uint32_t i = 0; i + 1 < threads; i++) {
        workers[i].pool = pool;
        workers[i].index = i + 1;
        int rc = pthread_create(&workers[i].thread, NULL, pool_worker_main, &workers[i]);
        if (rc != 0) {
            pool_free(pool);
            return err_set_errno(eb, rc, "thread %u of %u", i + 1, threads);
        }
        pool->n_workers = i + 1;
        pool_pin(pool, i + 1);
    }
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
    free(pool->queues);
    free(pool);
}
