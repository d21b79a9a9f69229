/*
 * model_options.h - options that bench, perplexity and estimate share: which file, on which
 * instruction set and threads, with which cache. Thread: main.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_MODEL_OPTIONS_H
#define CLOISTER_WORKER_ENGINE_TOOL_MODEL_OPTIONS_H

#include "worker/engine/engine.h"

#include <getopt.h>
#include <stdbool.h>

struct model_options {
    struct engine_config engine; /* isa and threads are taken */
    struct engine_model_config model;
    bool json;
};

/* For a command's table of long options, whose own ids begin at MODEL_OPTION_END. */
enum {
    MODEL_OPTION_THREADS = 1,
    MODEL_OPTION_ISA,
    MODEL_OPTION_KV,
    MODEL_OPTION_CONTEXT,
    MODEL_OPTION_SLOTS,
    MODEL_OPTION_JSON,
    MODEL_OPTION_END,
};
#define MODEL_OPTION_ROWS                                                                          \
    {"threads", required_argument, NULL, MODEL_OPTION_THREADS},                                    \
        {"isa", required_argument, NULL, MODEL_OPTION_ISA},                                        \
        {"kv", required_argument, NULL, MODEL_OPTION_KV},                                          \
        {"context", required_argument, NULL, MODEL_OPTION_CONTEXT},                                \
        {"slots", required_argument, NULL, MODEL_OPTION_SLOTS},                                    \
    {                                                                                              \
        "json", no_argument, NULL, MODEL_OPTION_JSON                                               \
    }

/* Takes one option of those above. Prints why not and returns an exit code other than OK. */
int model_options_take(struct model_options *o, const char *command, int id, const char *text);

#endif
