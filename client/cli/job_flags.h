/*
 * job_flags.h - the flags that say what a job is to compute, shared by submit and batch.
 */
#ifndef CLOISTER_CLI_JOB_FLAGS_H
#define CLOISTER_CLI_JOB_FLAGS_H

#include "client/cli/cli.h"

struct job_flags {
    const char *model, *job_class, *project, *cost_center;
    uint64_t max_tokens, top_k, seed, priority, deadline_ms;
    double temperature, top_p, min_p;
    double repetition_penalty, presence_penalty, frequency_penalty;
    double typical_p;
    struct flag_texts biases, stop_tokens;
    uint64_t top_logprobs;
    bool has_seed, has_logprobs;
    /* What the texts say, for the job. */
    struct cloister_logit_bias bias_values[FLAG_TEXTS_MOST];
    int32_t stop_token_values[FLAG_TEXTS_MOST];
};

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
