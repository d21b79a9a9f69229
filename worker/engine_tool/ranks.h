/*
 * ranks.h - a model on several processes of this machine, a shard each: --shards and --split. This
 * process becomes rank 0 and goes on as if it had the model alone; the others are its children.
 *
 * Ownership: ranks_join ends what ranks_start began. Thread: main, before any other is started.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_RANKS_H
#define CLOISTER_WORKER_ENGINE_TOOL_RANKS_H

#include "worker/engine/engine.h"
#include "worker/engine/gang.h"

#include <sys/types.h>

struct ranks {
    struct gang_config gang; /* rank 0's; `model` points to it afterwards */
    pid_t child[SHARD_RANKS_MAX];
    uint32_t n_children;
};

/* Starts the other ranks of model->shard; nothing where it asks for none. Where no number of
 * threads was given, ranks share out the machine's. A rank that fails later says so on stderr. */
enum err ranks_start(struct ranks *ret_ranks, struct engine_config *engine,
                     struct engine_model_config *model, struct errbuf *eb);
/* Once rank 0 has closed its model: waits for the others. */
void ranks_join(struct ranks *r);

#endif
