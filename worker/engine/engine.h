/*
 * engine.h - runs models: steps every running sequence of a model together (continuous batching
 * over a paged KV cache) and says what happened in events.
 *
 * Three threads: a loader (files to models, each with a backend of its own), a preparer (prompts to
 * token ids), and a stepper (one step of each model in turn); and one more for each model that is
 * shared with other engines (docs/engine.md, "A gang"). Neither a long load nor a long prompt
 * delays a step. Callers put commands in and take events out; both go through bounded queues, and
 * `notify` is called (from one of these threads; it must only wake the caller, e.g. write an
 * eventfd) whenever there is a new event.
 *
 * What tokens a job gets depends on the model file, its prompt ids, sampling and seed alone: not
 * on what runs beside it, how the prompt is cut into chunks, threads, or instruction set. A job
 * with `resume` ids goes on behind them as if it had made them itself.
 *
 * Events that are not polled wait: a job has at most three, since tokens add to those that wait
 * already, and it counts as in use until its last one is polled.
 *
 * Ownership: engine_submit copies the job. An event's pointers are valid until the next
 * engine_poll. Thread: commands and engine_poll from one caller thread.
 */
#ifndef CLOISTER_WORKER_ENGINE_ENGINE_H
#define CLOISTER_WORKER_ENGINE_ENGINE_H

#include "common/err.h"
#include "common/shard_room.h"
#include "worker/engine/sampling.h"
#include "worker/engine/shard_plan.h"
#include "worker/kernels/backend.h"
#include "worker/model/chat.h"
#include "worker/model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;

#define ENGINE_STEP_TOKENS_MIN 2u /* a prompt's row beside one that draws */
#define ENGINE_STEP_TOKENS_MAX 65536u

enum engine_backend { ENGINE_BACKEND_CPU = 0, ENGINE_BACKEND_CUDA = 1 };

struct gang_config; /* gang.h */

struct engine_config {
    enum engine_backend backend;
    uint32_t gpu;           /* CUDA: which one, as CUDA counts them */
    enum backend_isa isa;   /* of the CPU backend, and of drawing on either */
    uint32_t threads;       /* 0: backend_threads_auto */
    uint32_t step_tokens;   /* token budget of one step, prompt and decode together; 0: 512 */
    uint32_t chunk_tokens;  /* most prompt tokens of one job in one step; 0: step_tokens */
    uint32_t beside_tokens; /* most prompt tokens in a step in which a job draws; 0: 128 */
    uint32_t sequences;     /* most jobs running at once, per model; 0: 64 */
    void (*notify)(void *arg);
    void *notify_arg;
};

/* What a model, or one rank's share of it, will hold, from its header alone. Bytes. */
struct engine_estimate {
    uint64_t weights_bytes;
    uint64_t kv_page_bytes;  /* for KV_PAGE_TOKENS positions of one sequence */
    uint64_t kv_bytes;       /* the pool: kv_page_bytes * pages for the asked context and slots */
    uint64_t scratch_bytes;  /* activations, logits, rope tables, tokenizer */
    uint64_t exchange_bytes; /* what ranks hand each other (gang_memory); a whole model has none */
    uint32_t context_tokens; /* per job, after the file's own maximum */
    uint32_t kv_pages;
};

static inline uint64_t engine_estimate_total(const struct engine_estimate *e)
{
    return e->weights_bytes + e->kv_bytes + e->scratch_bytes + e->exchange_bytes;
}

struct engine_model_config {
    const char *path;
    uint32_t context_tokens; /* most positions of one job; 0: the file's own, at most 8192 */
    uint32_t slots;          /* the KV pool holds this many full contexts' worth; 0: 4 */
    enum kv_type kv_type;
    struct shard_request shard; /* shards of 0: the whole model */
    uint32_t rank;              /* whose share is loaded */
    /* How the ranks meet, where there are several; `rank` and their number must be the same there.
     * Copied, but for what its rendezvous points to, which is used until MODEL_READY, _FAILED or
     * _GONE, also to say that this rank cannot come. Its `stop` is the engine's: engine_unload and
     * engine_close end whatever waits. */
    const struct gang_config *gang;
    /* The file that is meant: its gguf_identity when it was described, and model_file_digest of it.
     * Where the identity is another by now and the digest, too, loading fails with ERR_CONFLICT. */
    bool is_bound;
    uint8_t identity[GGUF_IDENTITY_BYTES];
    uint8_t digest[32];
};

/* Refuses what loading would refuse, but for damage in the matrices and memory that is not there.
 */
enum err engine_estimate_file(const struct engine_config *config,
                              const struct engine_model_config *model,
                              struct engine_estimate *ret_estimate, struct errbuf *eb);

/* The model's shape, as cuts for several workers go by (common/shard_cut.h), and the numbers by
 * which what each rank holds follows from a cut (common/shard_room.h). `model` is not cut. */
enum err engine_shape_file(const struct engine_config *config,
                           const struct engine_model_config *model, struct shard_shape *ret_shape,
                           struct shard_room *ret_room, struct errbuf *eb);

enum err engine_open(struct engine **ret_engine, const struct engine_config *config,
                     struct errbuf *eb);
/* Ends running jobs without events and joins the threads. */
void engine_close(struct engine *e);

const char *engine_isa_name(const struct engine *e);

/* Starts loading under the caller's `model_id`; ENGINE_EVENT_MODEL_READY or _FAILED follows; of a
 * gang that ends, _FAILED follows _READY. Jobs
 * may be submitted at once: they wait for it. The id is free again after _FAILED or _GONE. */
enum err engine_load(struct engine *e, uint32_t model_id, const struct engine_model_config *model,
                     struct errbuf *eb);
/* Jobs of the model end with ENGINE_FINISH_ERROR (ERR_UNAVAILABLE); ENGINE_EVENT_MODEL_GONE
 * follows once its memory is free. A model that waits for other ranks, to meet them, to load or in
 * a step, waits no longer. */
enum err engine_unload(struct engine *e, uint32_t model_id, struct errbuf *eb);

enum engine_prompt_kind {
    ENGINE_PROMPT_IDS,  /* token ids as given */
    ENGINE_PROMPT_TEXT, /* raw text: BOS where the file wants it, specials are plain text */
    ENGINE_PROMPT_CHAT, /* messages through the file's chat template */
};

struct engine_job {
    uint64_t job_id; /* the caller's; unique among running jobs */
    uint32_t model_id;
    enum engine_prompt_kind prompt_kind;
    const int32_t *prompt_ids;
    size_t n_prompt_ids;
    const char *text;
    size_t text_size;
    bool text_special; /* ENGINE_PROMPT_TEXT: control tokens in the text become their ids */
    const struct chat_message *messages;
    size_t n_messages;
    const int32_t *resume_ids; /* tokens that an earlier attempt already delivered */
    size_t n_resume_ids;
    uint32_t max_tokens; /* resume ids count */
    struct sampling sampling;
    const struct sampling_stop *stops; /* [n_stops] */
    size_t n_stops;
    const int32_t *stop_tokens; /* [n_stop_tokens] end the answer, as an end-of-generation token */
    size_t n_stop_tokens;       /* does, whatever ignore_end says; at most LIMIT_STOP_TOKENS */
    uint32_t job_class; /* 0 is the best: it is admitted first, and others make room for it */
    /* Jobs of one space share the pages of the KV cache that hold the same beginning of a text, and
     * so can tell by the time it takes what others of it have asked. 0: shares with nobody. */
    uint64_t space;
    bool ignore_end; /* go on past end-of-generation tokens up to max_tokens */
    bool want_logits_digest;
};

/* Everything wrong with a job that needs the tokenizer comes as its FINISHED event; what can be
 * seen at once (unknown model id, job id in use, queue full: ERR_BUSY) is returned.
 * ERR_UNAVAILABLE: the model is being unloaded, or is another rank than 0 of a gang here. Nothing
 * is wrong with the job then: elsewhere it can run. */
enum err engine_submit(struct engine *e, const struct engine_job *job, struct errbuf *eb);
/* FINISHED (cancelled) follows unless the job has finished already. */
void engine_cancel(struct engine *e, uint64_t job_id);

enum engine_event_kind {
    ENGINE_EVENT_MODEL_READY,
    ENGINE_EVENT_MODEL_FAILED,
    ENGINE_EVENT_MODEL_GONE,
    ENGINE_EVENT_STARTED,  /* prompt counted and admitted to the batch */
    ENGINE_EVENT_TOKENS,   /* tokens that may be delivered, with the text they add */
    ENGINE_EVENT_FINISHED, /* the last event of a job; may carry last tokens and text too */
};

enum engine_finish {
    ENGINE_FINISH_NONE,
    ENGINE_FINISH_STOP,   /* end-of-generation or stop token, or stop string */
    ENGINE_FINISH_LENGTH, /* max_tokens or the context is used up */
    ENGINE_FINISH_CANCELLED,
    ENGINE_FINISH_ERROR,
};

struct engine_usage {
    uint32_t prompt_tokens;     /* all of the prompt */
    uint32_t prompt_cached;     /* of these, taken from the prefix cache */
    uint32_t prompt_computed;   /* of these, computed by this attempt */
    uint32_t resumed_tokens;    /* resume ids replayed by this attempt */
    uint32_t completion_tokens; /* sampled so far, resume ids and a final end token included */
    uint64_t queue_us, prefill_us, decode_us;
};

/* One token's logprob, and how many bytes it is written with; control tokens have bytes too. */
struct engine_logprob {
    struct sampling_logprob of;
    uint32_t n_top; /* of a drawn token: so many of the likeliest follow it; 0 in those */
    uint32_t n_bytes;
};

struct engine_event {
    enum engine_event_kind kind;
    uint32_t model_id;
    uint64_t job_id;
    /* TOKENS, FINISHED: ids [first, first + n_ids) of the completion; text is the bytes that they
     * add, whole characters unless the model itself broke one. Held back until no stop string can
     * begin in them. What is still held back at the end comes with FINISHED, except where a job
     * ends in an error: then it is neither handed out nor counted, so that an attempt elsewhere
     * can go on from what was. STARTED: ids are the prompt's, first is 0. */
    uint32_t first;
    const int32_t *ids;
    size_t n_ids;
    const char *text;
    size_t text_size;
    const int32_t *text_sizes; /* [n_ids] bytes of text that each id adds; not with STARTED */
    /* TOKENS, FINISHED of a job that wants logprobs: of each id the drawn token and the likeliest,
     * in order, and behind one another the bytes of all of them. */
    const struct engine_logprob *logprobs;
    size_t n_logprobs;
    const char *logprob_bytes;
    enum engine_finish finish;
    enum err error; /* MODEL_FAILED, and FINISHED with ENGINE_FINISH_ERROR */
    char error_text[ERRBUF_BYTES];
    struct engine_usage usage;
    uint8_t logits_sha256[32]; /* FINISHED with want_logits_digest: every sampled position's logits,
                                  float32 little endian, in order; those of resume ids too (they
                                  are computed again), so that a resumed job has the digest of an
                                  undisturbed one */
    /* MODEL_READY: measured, in the classes of engine_estimate; their sum is what is held */
    uint64_t weights_bytes, kv_bytes, scratch_bytes, exchange_bytes;
    uint64_t load_ms;
    uint32_t context_tokens;
};

/* False when there is no event now. */
bool engine_poll(struct engine *e, struct engine_event *ret_event);

/* Load as it is now, for placement: queued = not yet computed prompt tokens plus max_tokens still
 * to come; rates are smoothed over the last seconds of work, 0 before any. */
struct engine_load_now {
    uint32_t running;
    uint32_t waiting;
    uint64_t queued_tokens;
    uint32_t prefill_tokens_per_s;
    uint32_t decode_tokens_per_s;
    uint32_t kv_pages_free;
    uint32_t kv_pages;
};
void engine_load_read(struct engine *e, uint32_t model_id, struct engine_load_now *ret_load);

#endif
