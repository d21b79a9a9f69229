/*
 * ranks.h - a model on several processes of this machine, a shard each: --shards and --split. This
 * process becomes rank 0 and goes on as if it had the model alone; the others are its children.
 *
 * Until the gang stands, a rank that ends ends all: it is watched. What it died of is told by rank
 * 0, whose message is the only one. Afterwards the gang itself sees what becomes of its ranks.
 *
 * Ownership: ranks_join ends what ranks_start began. Thread: main; ranks_start before any other is
 * started.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_RANKS_H
#define CLOISTER_WORKER_ENGINE_TOOL_RANKS_H

#include "worker/engine/engine.h"
#include "worker/engine/gang.h"
#include "worker/engine_tool/rank_cards.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

/* In place: threads and `model` point into it. */
struct ranks {
    struct gang_config gang;      /* rank 0's; `model` points to it afterwards */
    struct rank_cards cards;      /* over a network */
    pid_t child[SHARD_RANKS_MAX]; /* 0: it has ended */
    uint32_t n_children;
    int reasons; /* a pipe: why ranks end that could not load */

    pthread_t watcher;
    bool is_watching;
    atomic_bool is_over; /* the watch */
    void (*notify)(void *arg);
    void *notify_arg;
    atomic_bool lost;  /* a rank ended before the gang stood: rank 0 is to stop loading */
    struct errbuf why; /* written before `lost` */
};

/* Starts the other ranks of model->shard; nothing where it asks for none. They meet by the
 * transport of model->gang, over shared memory where that is NULL. Where no number of threads was
 * given, ranks share out the machine's. */
enum err ranks_start(struct ranks *ret_ranks, struct engine_config *engine,
                     struct engine_model_config *model, struct errbuf *eb);
/* Before rank 0 loads: `lost` becomes true when a rank ends, and `notify` (from another thread; may
 * be NULL) is called then. */
enum err ranks_watch(struct ranks *r, void (*notify)(void *arg), void *arg, struct errbuf *eb);
/* Once rank 0 has loaded, or given up with `err`; returns `err`, or why a rank ended where that is
 * what rank 0 stopped for. */
enum err ranks_watched(struct ranks *r, enum err err, struct errbuf *eb);
/* Once rank 0 has closed its model: waits for the others. */
void ranks_join(struct ranks *r);

#endif
