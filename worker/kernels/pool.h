/*
 * pool.h - a few threads that share the tasks of one operation.
 *
 * Tasks are numbered. Each thread has a run of them, which it takes one by one, so that it goes
 * through memory in order and claims without a word to the others; who is done helps the others, so
 * a slow core takes fewer. No result may depend on which thread ran a task. Workers spin for a
 * moment between operations, because the next one usually follows within microseconds, then sleep
 * on a futex.
 *
 * On a machine of several memory nodes (topology.h) the tasks are cut into one range for each node,
 * in proportion to its threads, and these share that out. A thread helps those of its node first.
 * Whoever cuts a matrix the same way when it is loaded and when it is used has most of it read from
 * near memory, since Linux puts a page where it is first touched.
 *
 * Thread: one owner calls pool_run and pool_free.
 */
#ifndef CLOISTER_WORKER_KERNELS_POOL_H
#define CLOISTER_WORKER_KERNELS_POOL_H

#include "common/err.h"
#include "common/limits.h"
#include "worker/kernels/topology.h"

#include <stdint.h>

struct pool;

#define POOL_THREADS_MAX LIMIT_WORKER_THREADS
#define POOL_TASKS_MAX   (1u << 24)

/* `threads` in all, the owner among them, at most POOL_THREADS_MAX; 0: backend_threads_auto.
 * Where there are as many threads as cores, each worker is pinned to one; where there are several
 * nodes, to its node at least. */
enum err pool_new(uint32_t threads, struct pool **ret_pool, struct errbuf *eb);
enum err pool_new_on(const struct topology *topology, uint32_t threads, struct pool **ret_pool,
                     struct errbuf *eb);
void pool_free(struct pool *pool);

uint32_t pool_threads(const struct pool *pool);

/* Nodes that have a thread. Of n things in order, those from pool_share(n, node) on, up to
 * pool_share(n, node + 1), are the node's. */
uint32_t pool_nodes(const struct pool *pool);
uint32_t pool_share(const struct pool *pool, uint32_t n, uint32_t node);

/* A task: its number, and that of the thread it runs on, 0 .. threads - 1, for scratch memory. */
typedef void pool_fn(void *ctx, uint32_t task, uint32_t thread);

/* Runs fn for tasks 0 .. n_tasks - 1 and returns when all are done. One task runs in place. Node
 * k's are those of pool_share, or first[k] .. first[k + 1] - 1 with first[0] = 0. */
void pool_run(struct pool *pool, pool_fn *fn, void *ctx, uint32_t n_tasks);
void pool_run_nodes(struct pool *pool, pool_fn *fn, void *ctx, const uint32_t *first);

#endif
