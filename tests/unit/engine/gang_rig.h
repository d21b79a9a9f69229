/*
 * gang_rig.h - one model on several engines of this process, over shared memory, and what one
 * engine answers for comparison.
 */
#ifndef CLOISTER_TESTS_UNIT_ENGINE_GANG_RIG_H
#define CLOISTER_TESTS_UNIT_ENGINE_GANG_RIG_H

#include "tests/unit/engine/rig.h"
#include "worker/engine/gang.h"

#define GANG_RIG_MODEL     7u
#define GANG_RIG_RANKS_MAX 8u

/* A gang with a group id of its own, and long times. */
struct gang_config gang_rig_config(uint32_t n_ranks);

struct gang_rig {
    uint32_t n;
    struct rig rig[GANG_RIG_RANKS_MAX];
    struct gang_config gang[GANG_RIG_RANKS_MAX];
    struct engine_model_config model[GANG_RIG_RANKS_MAX];
};

/* An engine for each of the model's shards and stages, and the orders to load; they do not load
 * before all are there. */
void gang_rig_open(struct gang_rig *r, const struct engine_config *config,
                   const struct engine_model_config *model);
/* Fails the test where a rank does not become ready. */
void gang_rig_ready(struct gang_rig *r);
void gang_rig_close(struct gang_rig *r);

/* A job whose prompt is longer than a page. */
struct engine_job gang_rig_job(uint64_t job_id);

/* Answers 1 to GANG_RIG_JOBS: a job with two beside it, so that steps have rows of several
 * sequences. `text` is the prompt of the longest, at least 32 characters; NULL: gang_rig_job's. */
#define GANG_RIG_JOBS   3u
#define GANG_RIG_TOKENS 24u
void gang_rig_jobs(struct rig *rig, const char *text);

/* What one engine answers to each of the jobs. */
struct gang_rig_answers {
    int32_t ids[GANG_RIG_JOBS][GANG_RIG_TOKENS];
    uint8_t sha256[GANG_RIG_JOBS][32];
};
void gang_rig_alone(const struct engine_config *config, const struct engine_model_config *model,
                    const char *text, struct gang_rig_answers *ret);

/* The model's ranks hold what was reckoned for each from the header, and answer the same; also when
 * they are asked again, behind prompts that they remember. */
void gang_rig_compare(const char *what, const struct engine_config *config,
                      const struct engine_model_config *model, const char *text,
                      const struct gang_rig_answers *alone);

#endif
