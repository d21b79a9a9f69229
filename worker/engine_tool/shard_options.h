/*
 * shard_options.h - the flags that say how a model is cut: --shards, --stages, --split.
 * Thread: main.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_SHARD_OPTIONS_H
#define CLOISTER_WORKER_ENGINE_TOOL_SHARD_OPTIONS_H

#include "common/err.h"
#include "common/flags.h"
#include "worker/engine/shard_plan.h"

#include <stdint.h>

struct shard_flags {
    uint64_t shards, stages; /* 0: not given */
    const char *split;       /* NULL: not given */
};

extern const struct flag shard_flags_table[];

/* shards is 0 where no flag was given: the whole model. Without --shards there are as many as the
 * split says. ERR_INVALID says what of the flags does not fit. */
enum err shard_options_of(const struct shard_flags *flags, struct shard_request *ret_request,
                          struct errbuf *eb);

#endif
