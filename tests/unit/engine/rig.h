/*
 * rig.h - an engine with a caller that takes its events and keeps the answers. It checks of every
 * event what must hold for all: tokens come in order, each once, and nothing comes after the end.
 */
#ifndef CLOISTER_TESTS_UNIT_ENGINE_RIG_H
#define CLOISTER_TESTS_UNIT_ENGINE_RIG_H

#include "worker/engine/engine.h"

#include <semaphore.h>

#define RIG_JOBS 256

struct answer {
    bool wanted, started, finished;
    uint32_t n_events;
    struct tokens prompt, ids;
    struct buf text;
    struct engine_logprob *logprobs;
    size_t n_logprobs;
    enum engine_finish finish;
    enum err error;
    char error_text[ERRBUF_BYTES];
    struct engine_usage usage;
    uint8_t sha256[32];
};

struct rig {
    struct engine *engine;
    sem_t news;
    struct answer answers[RIG_JOBS]; /* by job id */
    struct engine_event model_event; /* the last one */
    uint32_t n_model_events;
};

/* Fails the test where the engine does not open. */
void rig_open(struct rig *rig, const struct engine_config *config);
void rig_close(struct rig *rig);

/* Waits for one event and files it; the test fails after a minute of silence. */
void rig_next(struct rig *rig);
void rig_until_model_event(struct rig *rig);
void rig_load(struct rig *rig, uint32_t model_id, const struct engine_model_config *model);
/* Forgets what was kept under the job's id, and submits. */
enum err rig_submit(struct rig *rig, const struct engine_job *job, struct errbuf *eb);
struct answer *rig_wait(struct rig *rig, uint64_t job_id);
struct answer *rig_run(struct rig *rig, const struct engine_job *job);

void answer_fini(struct answer *a);

#endif
