/*
 * engine_internal.h - what the engine's threads share. Included by engine_*.c alone.
 *
 * Four threads meet here:
 *   caller   engine_submit, _cancel, _load, _unload, _poll (engine.c)
 *   loader   files to runtimes (engine_load.c)
 *   preparer prompts to token ids (engine_prepare.c)
 *   stepper  owns every runtime that is ready, and steps them (engine_step.c)
 * and one more for each model that is shared with other engines (engine_gang.c).
 *
 * `lock` guards everything in struct engine and the fields marked [lock]. A job or model passes
 * from thread to thread through its list; fields marked [holder] belong to whose list it is on.
 */
#ifndef CLOISTER_WORKER_ENGINE_ENGINE_INTERNAL_H
#define CLOISTER_WORKER_ENGINE_ENGINE_INTERNAL_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "worker/engine/batch.h"
#include "worker/engine/draws.h"
#include "worker/engine/engine.h"
#include "worker/engine/gang.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_shape.h"
#include "worker/engine/steps.h"
#include "worker/engine/stream.h"

#include <pthread.h>
#include <stdatomic.h>

/* Jobs known at once, those whose FINISHED was not polled yet included: with at most three events
 * waiting for each, this bounds the event queue too. */
#define ENGINE_JOBS_MAX   1024u
#define ENGINE_MODELS_MAX 256u

enum source_kind { SOURCE_KIND_JOB, SOURCE_KIND_MODEL };

/* Whoever has events waiting stands once in the line of sources. */
struct source {
    enum source_kind kind;
    bool in_line;
    struct source *next;
};

struct job_list {
    struct engine_job_state *first, **last;
};

/* As in struct engine_event. */
struct logprob_list {
    struct engine_logprob *at;
    size_t count, capacity;
    struct buf bytes;
};

struct engine_job_state {
    struct source source;          /* [lock] */
    struct engine_job_state *next; /* in the list it is on */
    struct arena arena;            /* the request's copies */
    struct arena lasting;          /* of these, what is needed to the end: biases, stop tokens */
    struct engine_job request;     /* pointers into the two */
    struct engine_model_state *model;
    atomic_bool cancelled;

    /* [holder]: preparer, then stepper */
    struct tokens ids; /* prompt and behind it the resume ids */
    uint32_t n_prompt;
    struct stream stream;
    struct logprob_list held_logprobs; /* of the tokens that wait in the stream */
    struct sha256_stream *digest;      /* NULL unless wanted */
    bool redraw;                       /* the last resume id is drawn once more, for its logits */
    int32_t redraw_id;
    bool in_batch; /* in line or running */
    bool running;  /* was admitted: what has preempted it since does not show */
    struct batch_seq *seq;
    uint64_t submitted_ns, admitted_ns, first_token_ns;
    struct engine_usage usage;
    enum engine_finish finish;
    enum err error;
    struct errbuf error_text;
    uint64_t counted_tokens; /* this job's part of model->unbatched_tokens; [lock] */

    /* [lock] what waits for engine_poll */
    bool ended; /* no thread but the caller's touches it any more */
    bool has_started, has_tokens, has_finished;
    struct tokens started_ids;
    struct tokens out_ids;
    struct tokens out_text_sizes; /* one for each of out_ids */
    struct buf out_text;
    struct logprob_list out_logprobs;
    uint32_t out_first;
    struct engine_usage out_usage;
    uint8_t out_sha256[SHA256_BYTES];
};

enum model_stage {
    MODEL_STAGE_LOADING,
    MODEL_STAGE_READY,
    MODEL_STAGE_GONE, /* failed or unloaded; waits for its last event to be polled */
};

struct rate {
    uint64_t tokens, ns;
};

struct engine_model_state {
    struct source source; /* [lock] */
    struct engine *engine;
    struct engine_model_state *next_to_load;
    uint32_t model_id;
    char *path;
    struct engine_model_config config; /* path points to `path`, gang to `gang` */
    struct gang_config gang;           /* coll.build points to `build` */
    char *build;
    pthread_t gang_thread;
    bool has_thread;
    atomic_bool unload;        /* set once, by engine_unload, engine_close, model_break */
    bool broken;               /* [lock] its gang ended: it fails, with `error` */
    enum model_stage stage;    /* [lock] */
    uint32_t n_jobs;           /* [lock] jobs that have not ended */
    uint64_t unbatched_tokens; /* [lock] max_tokens and given prompt ids of jobs not in the batch */
    struct job_list held;      /* [lock] jobs that came before the model was ready */

    /* loader, then stepper; the preparer reads tokenizer and chat */
    struct runtime *runtime;
    struct batch *batch;
    struct draws draws;
    struct steps steps;
    struct rate prefill, decode;

    bool has_ready, has_failed, has_gone; /* [lock] */
    struct {
        uint64_t weights_bytes, kv_bytes, scratch_bytes, exchange_bytes;
        uint32_t context_tokens;
    } ready; /* [lock] the runtime may be gone before its event is polled */
    uint64_t load_ms;
    enum err error;
    struct errbuf error_text;
    struct engine_load_now load; /* [lock] as of the last step; waiting is added to on reading */
};

struct engine {
    struct engine_config config;
    const char *isa_name;

    pthread_mutex_t lock;
    pthread_cond_t load_wake, prepare_wake, step_wake;
    pthread_t loader, preparer, stepper;
    uint32_t n_threads; /* started, in the order above */
    atomic_bool stop;
    bool notify_due;

    struct engine_job_state *jobs[ENGINE_JOBS_MAX];
    uint32_t n_jobs;
    struct engine_model_state *models[ENGINE_MODELS_MAX];
    uint32_t n_models;

    struct engine_model_state *to_load;
    struct job_list to_prepare, prepared;
    bool changed; /* a cancel or unload that the stepper has not looked at yet */

    struct source *line_first, *line_last;
    struct tokens polled_ids; /* what the last polled event points to */
    struct tokens polled_text_sizes;
    struct buf polled_text;
    struct logprob_list polled_logprobs;
};

/* engine.c */
void engine_lock(struct engine *e);
/* Unlocks, and notifies the caller where events came up under the lock. */
void engine_unlock(struct engine *e);
struct engine_model_state *engine_model_find(struct engine *e, uint32_t model_id); /* [lock] */

void job_list_init(struct job_list *list);
void job_list_push(struct job_list *list, struct engine_job_state *job);
struct engine_job_state *job_list_pop(struct job_list *list);

/* engine_events.c: all under the lock */
void source_push(struct engine *e, struct source *source);
void events_job_started(struct engine *e, struct engine_job_state *job);
/* Hands the stream's next piece out; ERR_NO_MEMORY: nothing of it is, and the job is to end. */
enum err events_job_piece(struct engine *e, struct engine_job_state *job, const int32_t *ids,
                          const struct stream_piece *piece);
/* The last event; afterwards the job belongs to the caller's thread. */
void events_job_finished(struct engine *e, struct engine_job_state *job);
void events_model(struct engine *e, struct engine_model_state *model, bool *has_event);

void job_free(struct engine_job_state *job);
/* Not under the lock: waits for its thread, which is ending. */
void model_free(struct engine_model_state *model);

/* engine_prepare.c: the answer ends with this token. */
bool job_is_end(const struct engine_job_state *job, int32_t id);

/* engine_logprobs.c: appends a token's. False when memory is refused: the list is as it was. */
bool logprob_list_add(struct logprob_list *list, const struct tokenizer *t,
                      const struct sampling_logprobs *logprobs);
/* Moves those of the first n_tokens tokens to the end of another list. False as above. */
bool logprob_list_move(struct logprob_list *from, struct logprob_list *to, size_t n_tokens);
void logprob_list_fini(struct logprob_list *list);

/* engine_load.c: on a thread that may wait for a file, and for other ranks. False where it failed
 */
bool load_model(struct engine *e, struct engine_model_state *model);
/* engine_gang.c */
void *engine_gang_main(void *model);
/* Another rank plans its steps: it takes no jobs. */
bool model_follows(const struct engine_model_state *model);
/* The stepper: rank 0 has nothing to do just now, which the others are to hear now and then, and
 * looks whether they are there. */
void model_gang_idle(struct engine *e, struct engine_model_state *model, uint64_t now_ns);
/* The stepper: the model cannot go on; its jobs end, then it. */
void model_break(struct engine *e, struct engine_model_state *model, enum err error,
                 const struct errbuf *eb);

/* engine_step.c: steps_want, of plans whose jobs are an engine's */
void model_want(void *ctx, struct draws *draws, const struct batch_plan *plan);
/* engine_load.c: closes runtime, batch and sampler; the runtime's owner */
void model_close_stepping(struct engine_model_state *model);

/* engine_step.c: tells a job's end, from whichever thread holds it and with the lock; it is not in
 * the batch (any more). */
void job_end_locked(struct engine *e, struct engine_job_state *job, enum engine_finish finish,
                    enum err error, const char *text);

/* The threads. */
void *engine_loader_main(void *arg);
void *engine_preparer_main(void *arg);
void *engine_stepper_main(void *arg);

#endif
