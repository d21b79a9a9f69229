/* generate_options.h - the command line of cloister-engine generate. Thread: main. */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_GENERATE_OPTIONS_H
#define CLOISTER_WORKER_ENGINE_TOOL_GENERATE_OPTIONS_H

#include "common/buf.h"
#include "common/limits.h"
#include "common/sampling_flags.h"
#include "worker/engine/engine.h"
#include "worker/engine_tool/model_options.h"
#include "worker/engine_tool/shard_options.h"

/* As they are given. */
struct generate_flags {
    struct model_flags model;
    struct shard_flags shard;
    struct sampling_flags sampling;
    const char *prompt, *prompt_file, *prompt_ids, *resume_ids, *system;
    bool special, raw, chat, ignore_end;
    uint64_t seed, chunk, beside;
    struct flag_texts stops;
};

extern const struct flag_set generate_flags_sets[];
void generate_flags_defaults(void *values); /* a struct generate_flags */

enum generate_mode {
    GENERATE_MODE_AUTO, /* chat where the file's template is recognised, else raw */
    GENERATE_MODE_RAW,
    GENERATE_MODE_CHAT,
    GENERATE_MODE_IDS,
};

/* As they are meant. */
struct generate_options {
    const char *path;
    enum generate_mode mode;
    struct buf prompt; /* RAW, CHAT, AUTO */
    int32_t *prompt_ids;
    size_t n_prompt_ids;
    int32_t *resume_ids;
    size_t n_resume_ids;
    const char *system; /* NULL: none */
    bool special, ignore_end, json;
    uint32_t max_tokens;
    struct sampling sampling;
    struct sampling_stop stops[LIMIT_STOP_STRINGS];
    size_t n_stops;
    int32_t stop_tokens[LIMIT_STOP_TOKENS];
    size_t n_stop_tokens;
    struct sampling_bias biases[LIMIT_LOGIT_BIASES]; /* sampling.biases */
    uint32_t beside;
    struct engine_config engine;
    struct engine_model_config model;
};

/* Says what is wrong on stderr; returns an exit code (tool.h). generate_options_fini in any case;
 * the options point into `flags` and themselves. */
int generate_options_read(struct generate_options *ret_options, const struct generate_flags *flags,
                          const char *path);
void generate_options_fini(struct generate_options *o);

#endif
