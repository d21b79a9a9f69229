/*
 * command_values.h - what each command's flags are read into, and its tables. Kept together so
 * that commands.c, help and completion see them.
 */
#ifndef CLOISTER_CLI_COMMAND_VALUES_H
#define CLOISTER_CLI_COMMAND_VALUES_H

#include "client/cli/job_flags.h"

struct submit_values {
    struct job_flags job;
    const char *system, *file;
    struct flag_texts stops;
    uint64_t answers;
    bool raw, detach, cancel_on_disconnect;
};
extern const struct flag_set submit_sets[];
void submit_defaults(void *values);

struct batch_values {
    struct job_flags job;
    const char *output;
    uint64_t concurrency;
    bool restart, no_progress;
};
extern const struct flag_set batch_sets[];
void batch_defaults(void *values);

struct watch_values {
    uint64_t from;
};
extern const struct flag_set watch_sets[];

struct jobs_values {
    const char *state, *model, *tenant, *prefix;
    uint64_t limit;
};
extern const struct flag_set jobs_sets[];
void jobs_defaults(void *values);

struct job_values {
    bool prompt;
};
extern const struct flag_set job_sets[];

struct cancel_values {
    const char *reason;
};
extern const struct flag_set cancel_sets[];

struct usage_values {
    const char *tenant, *model;
    uint32_t from, to;
};
extern const struct flag_set usage_sets[];

struct models_plan_values {
    uint64_t shards, stages;
    const char *split;
};
extern const struct flag_set models_plan_sets[];

struct ledger_export_values {
    const char *output;
    uint64_t from;
};
extern const struct flag_set ledger_export_sets[];

struct ledger_verify_values {
    const char *key, *origin, *against;
};
extern const struct flag_set ledger_verify_sets[];

#endif
