/*
 * job_flags.h - the flags that say what a job is to compute, shared by submit and batch.
 */
#ifndef CLOISTER_CLI_JOB_FLAGS_H
#define CLOISTER_CLI_JOB_FLAGS_H

#include "client/cli/cli.h"
#include "common/limits.h"
#include "common/sampling_flags.h"

struct job_flags {
    struct sampling_flags sampling;
    const char *model, *job_class, *project, *cost_center;
    uint64_t seed, priority, deadline_ms;
    bool has_seed;
    /* What the texts say, for the job. */
    struct cloister_logit_bias bias_values[LIMIT_LOGIT_BIASES];
    int32_t stop_token_values[LIMIT_STOP_TOKENS];
};

/* Beside sampling_flags_table. */
extern const struct flag job_flags_table[];

void job_flags_defaults(struct job_flags *flags, const char *job_class);

/* Fills all of `job` but its prompt and stop strings; it points into `flags`. A seed that is needed
 * and not given is drawn, and noted in `flags`, so that it can be shown. Returns an exit code. */
int job_flags_apply(struct job_flags *flags, const struct cli_settings *settings,
                    struct cloister_job *job);

/* The model of jobs that name none: --model, client.cfg, or the only one in the cluster; prints
 * what there is to choose from where that does not settle it. The text lives as long as
 * ret_result (NULL where there was no need to ask). */
int job_flags_model(struct cli *cli, const struct job_flags *flags,
                    struct cloister_result **ret_result, const char **ret_model);

#endif
