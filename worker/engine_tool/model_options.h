/*
 * model_options.h - flags that generate, bench, perplexity and estimate share: on which backend,
 * instruction set and threads a model runs, with which cache, and how the result is printed.
 * Thread: main.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_MODEL_OPTIONS_H
#define CLOISTER_WORKER_ENGINE_TOOL_MODEL_OPTIONS_H

#include "common/flags.h"
#include "worker/engine/engine.h"

#include <stdbool.h>

struct model_flags {
    const char *backend, *isa, *kv; /* NULL: not given */
    uint64_t gpu, threads, context;
    bool json;
};

extern const struct flag model_flags_table[];

struct model_options {
    struct engine_config engine;
    struct engine_model_config model;
    bool json;
};

/* What was not given stays 0: the engine's own default. */
struct model_options model_options_of(const struct model_flags *flags, const char *path);

#endif
