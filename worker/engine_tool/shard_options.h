/*
 * shard_options.h - the flags that say how a model is cut: --shards, --stages, --split; and how its
 * ranks reach each other: --transport.
 * Thread: main.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_SHARD_OPTIONS_H
#define CLOISTER_WORKER_ENGINE_TOOL_SHARD_OPTIONS_H

#include "common/err.h"
#include "common/flags.h"
#include "worker/engine/engine.h"

#include <stdint.h>

struct shard_flags {
    uint64_t shards, stages; /* 0: not given */
    const char *split;       /* NULL: not given */
    const char *transport;   /* NULL: not given */
};

extern const struct flag shard_flags_table[];

/* Sets `shard` and `gang` of the model: shards is 0 where no flag was given, the whole model;
 * without
 * --shards there are as many as the split says; of the gang only the transport is meant (ranks.h).
 * ERR_INVALID says what of the flags does not fit. */
enum err shard_options_of(const struct shard_flags *flags, struct engine_model_config *model,
                          struct errbuf *eb);

#endif
