/*
 * cloister.h - the C interface to a Cloister coordinator. This header is the manual.
 *
 * A program connects, submits a job under an id it made itself, and watches it: text arrives piece
 * by piece, exactly once and in order, whatever breaks on the way. The coordinator may be
 * restarted, the worker may die, the network may go away: the library dials again, says Hello
 * again, and goes on at the token it had reached.
 *
 *     struct cloister_options options = CLOISTER_OPTIONS_INIT;
 *     struct cloister_problem problem;
 *     struct cloister *c;
 *     options.url = "tcp://127.0.0.1:7420";
 *     if (cloister_connect(&c, &options, &problem) != CLOISTER_OK)
 *         die(problem.text);
 *
 *     struct cloister_message message = {.role = "user", .content = {"Why is the sky blue?", 20}};
 *     struct cloister_job job = CLOISTER_JOB_INIT;
 *     job.model = "smollm2";
 *     job.messages = &message;
 *     job.n_messages = 1;
 *     char id[CLOISTER_ID_BYTES];
 *     cloister_id_new(id);
 *     if (cloister_submit(c, id, &job, NULL, &problem) != CLOISTER_OK ||
 *         cloister_watch(c, id, 0, print_text, NULL, &problem) != CLOISTER_OK)
 *         die(problem.text);
 *     cloister_close(c);
 *
 * Build with `pkg-config --cflags --libs cloister`.
 *
 * ERRORS. Every function that can fail returns an enum cloister_error and fills the caller's
 * struct cloister_problem (which may be NULL) with one line that says what happened and where.
 * Outputs are untouched on failure. Nothing here prints, exits, or installs a signal handler.
 *
 * OWNERSHIP. What goes in is borrowed for the call. Results of queries hang on one
 * struct cloister_result; freeing it ends every pointer handed out with it. Strings are
 * NUL-terminated UTF-8, never NULL, except where `size` stands beside them: prompts and completions
 * are bytes, and what a model writes may not be UTF-8.
 *
 * THREADS. A struct cloister may be used by any number of threads at once; calls of one thread
 * wait, those of others go on. cloister_close: when no other call is under way. Everything else is
 * the caller's own. Do not fork while a connection is open.
 *
 * RETRIES. A call that gets no answer is repeated, with the same id, until `wait_ms` is over: the
 * coordinator carries each out once. BUSY answers are repeated likewise, no sooner than they ask
 * for. Everything else is handed to the caller at once.
 *
 * VERSIONS. The numbers below are the header's; cloister_library_version() is the library's.
 * Structs that callers fill begin with `size` and grow at their end, so that a program built with
 * an older header keeps working with a newer library of the same soname. All other structs keep
 * their layout as long as the soname does.
 */
#ifndef CLOISTER_H
#define CLOISTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CLOISTER_VERSION_MAJOR 0
#define CLOISTER_VERSION_MINOR 1
#define CLOISTER_VERSION_PATCH 0

#define CLOISTER_API __attribute__((visibility("default")))

/* ------------------------------------------------------------------ errors */

enum cloister_error {
    CLOISTER_OK = 0,
    CLOISTER_ERROR_INVALID = 1,     /* an argument or a peer's message is malformed */
    CLOISTER_ERROR_NOT_FOUND = 2,   /* no such job or model */
    CLOISTER_ERROR_CONFLICT = 3,    /* the same id with other content; an ambiguous short id */
    CLOISTER_ERROR_REFUSED = 4,     /* not allowed: identity, quota, policy */
    CLOISTER_ERROR_TOO_LARGE = 5,   /* over a bound, or can never fit any worker */
    CLOISTER_ERROR_BUSY = 6,        /* a queue is full; retry_after_ms says when to come back */
    CLOISTER_ERROR_UNAVAILABLE = 7, /* nobody answers, or the coordinator is shutting down */
    CLOISTER_ERROR_TIMEOUT = 8,     /* a deadline passed */
    CLOISTER_ERROR_CANCELLED = 9,   /* cloister_interrupt, or a callback said stop */
    CLOISTER_ERROR_IO = 10,         /* a system call failed */
    CLOISTER_ERROR_NO_SPACE = 11,   /* the coordinator's disk is full; nothing was accepted */
    CLOISTER_ERROR_NO_MEMORY = 12,
    CLOISTER_ERROR_CORRUPT = 13,     /* bytes fail their signature or structure */
    CLOISTER_ERROR_UNSUPPORTED = 14, /* another protocol version, an architecture nobody runs */
    CLOISTER_ERROR_STALE = 15,       /* handled inside; a caller never sees it */
    CLOISTER_ERROR_INTERNAL = 16,    /* a bug, caught */
    CLOISTER_ERROR_FORKED = 17, /* two copies of the ledger are in use; its operator has to look */
    CLOISTER_ERROR_LOST = 18,   /* the device that computed it is gone */
};

#define CLOISTER_PROBLEM_BYTES 1024

struct cloister_problem {
    enum cloister_error code;
    bool retryable;          /* the same call may succeed later */
    uint64_t retry_after_ms; /* 0: not known */
    char text[CLOISTER_PROBLEM_BYTES];
};

/* "not_found", "busy", ...; "unknown" outside the list. */
CLOISTER_API const char *cloister_error_name(enum cloister_error code);

/* "0.1.0 (revision)". */
CLOISTER_API const char *cloister_library_version(void);

/* -------------------------------------------------------------- connection */

struct cloister;

enum cloister_notice {
    CLOISTER_NOTICE_WAITING = 1,     /* nobody answers; still trying. text: why */
    CLOISTER_NOTICE_RECONNECTED = 2, /* going on */
    CLOISTER_NOTICE_BUSY = 3,        /* the coordinator asked us to come back later */
};

/* Told from the thread that waits; must return soon and not call back into the library. */
typedef void cloister_notice_fn(void *arg, enum cloister_notice notice, const char *text);

struct cloister_options {
    size_t size;
    const char *url;     /* tcp://HOST:PORT or tls+tcp://HOST:PORT */
    const char *ca_file; /* PEM; these three for tls+tcp, NULL for tcp */
    const char *cert_file;
    const char *key_file;
    const char *node;               /* what this client is called; NULL: the host's name */
    const char *tenant;             /* whose quota and bill; NULL: "default" */
    const char *identity_file;      /* Ed25519 key in PEM, made where missing; NULL: a key for this
                                     * connection alone */
    const uint8_t *coordinator_key; /* 32 bytes: the only coordinator to talk to; NULL: any */
    uint64_t wait_ms;               /* patience of a call that nobody answers */
    uint64_t stream_wait_ms;        /* patience of cloister_watch, from the last word heard on */
    cloister_notice_fn *on_notice;
    void *notice_arg;
};

#define CLOISTER_OPTIONS_INIT                                                                      \
    {                                                                                              \
        .size = sizeof(struct cloister_options), .wait_ms = 10000, .stream_wait_ms = 300000        \
    }

/* Dials, says Hello, proves who we are and checks the coordinator's proof. REFUSED: it does not
 * know us, or is not the one in coordinator_key. UNAVAILABLE: nobody answered within wait_ms;
 * the text says what the network said. */
CLOISTER_API enum cloister_error cloister_connect(struct cloister **ret_connection,
                                                  const struct cloister_options *options,
                                                  struct cloister_problem *problem);
/* NULL is allowed. */
CLOISTER_API void cloister_close(struct cloister *c);

/* Ends every call under way, and every later one, with CANCELLED. Thread: any, but not a signal
 * handler. */
CLOISTER_API void cloister_interrupt(struct cloister *c);

struct cloister_server {
    char name[129];
    char build[129];
    uint8_t public_key[32]; /* to be pinned in coordinator_key */
};
CLOISTER_API void cloister_get_server(struct cloister *c, struct cloister_server *ret_server);
/* Ours, as the coordinator knows us. */
CLOISTER_API void cloister_get_public_key(struct cloister *c, uint8_t ret_key[32]);

/* -------------------------------------------------------------------- jobs */

#define CLOISTER_ID_BYTES 33 /* 32 hex digits and NUL */

/* Ids of one hour begin alike. What people see and type is the short form, the last 8 digits. */
#define CLOISTER_SHORT_ID_BYTES 9
CLOISTER_API void cloister_id_short(const char *id, char ret_short[CLOISTER_SHORT_ID_BYTES]);

/* A new id: asking twice under one id does the work once. */
CLOISTER_API void cloister_id_new(char ret_id[CLOISTER_ID_BYTES]);
/* The id that belongs to these bytes under `base`, an id kept by the caller: for programs that must
 * come to the same ids again after a crash. It carries the time of `base`. False: `base` is no id.
 */
CLOISTER_API bool cloister_id_derive(const char *base, const void *bytes, size_t size,
                                     char ret_id[CLOISTER_ID_BYTES]);

struct cloister_bytes {
    const void *data;
    size_t size;
};

struct cloister_message {
    const char *role; /* "system", "user", "assistant" */
    struct cloister_bytes content;
};

enum cloister_class {
    CLOISTER_CLASS_INTERACTIVE = 1,
    CLOISTER_CLASS_STANDARD = 2,
    CLOISTER_CLASS_BATCH = 3,
};

struct cloister_sampling {
    float temperature;        /* 0: always the likeliest token */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* 1: off */
    float min_p;              /* 0: off */
    float repetition_penalty; /* 1: off */
    float presence_penalty;   /* 0: off */
    float frequency_penalty;  /* 0: off */
    uint64_t seed;            /* the same job with the same seed gives the same text, anywhere */
};

struct cloister_logit_bias {
    int32_t id;
    float bias; /* -100 .. 100, added to the token's logit */
};

/* Exactly one of messages, text and prompt_ids is the prompt. */
struct cloister_job {
    size_t size;
    const char *model;
    const struct cloister_message *messages; /* chat: the model's template is applied */
    size_t n_messages;
    struct cloister_bytes text; /* as it is, no template */
    const int32_t *prompt_ids;  /* tokens */
    size_t n_prompt_ids;
    struct cloister_sampling sampling;
    uint32_t max_tokens;
    const struct cloister_bytes *stops; /* the text ends before the first of these */
    size_t n_stops;
    enum cloister_class job_class;
    uint32_t priority;         /* 0 .. 9, 9 first */
    uint64_t deadline_ms;      /* after submission; 0: none */
    bool cancel_on_disconnect; /* else it runs on when nobody watches */
    const char *project;       /* for the bill; NULL: none */
    const char *cost_center;
    float typical_p;                              /* 0 and 1: off */
    const struct cloister_logit_bias *logit_bias; /* each id once */
    size_t n_logit_bias;
    const int32_t *stop_tokens; /* end the answer and add no text */
    size_t n_stop_tokens;
    bool logprobs;         /* of each token are wanted, */
    uint32_t top_logprobs; /* and of this many of the likeliest in its place: up to 20 */
};

#define CLOISTER_JOB_INIT                                                                          \
    {                                                                                              \
        .size = sizeof(struct cloister_job), .sampling = {.top_p = 1, .repetition_penalty = 1},    \
        .max_tokens = 256, .job_class = CLOISTER_CLASS_STANDARD, .priority = 5                     \
    }

enum cloister_state {
    CLOISTER_STATE_QUEUED = 1,
    CLOISTER_STATE_LEASED = 2,
    CLOISTER_STATE_RUNNING = 3,
    CLOISTER_STATE_DONE = 4, /* this and all below: over */
    CLOISTER_STATE_FAILED = 5,
    CLOISTER_STATE_CANCELLED = 6,
    CLOISTER_STATE_REJECTED = 7,
    CLOISTER_STATE_EXPIRED = 8,
};

enum cloister_finish {
    CLOISTER_FINISH_NONE = 0, /* not finished */
    CLOISTER_FINISH_STOP = 1, /* the model ended, or a stop string or stop token came */
    CLOISTER_FINISH_LENGTH = 2,
    CLOISTER_FINISH_CANCELLED = 3,
    CLOISTER_FINISH_ERROR = 4,
};

CLOISTER_API const char *cloister_state_name(enum cloister_state state);
CLOISTER_API const char *cloister_class_name(enum cloister_class job_class);
CLOISTER_API const char *cloister_finish_name(enum cloister_finish finish);
/* The names above; false on anything else. */
CLOISTER_API bool cloister_state_parse(const char *name, enum cloister_state *ret_state);
CLOISTER_API bool cloister_class_parse(const char *name, enum cloister_class *ret_class);

struct cloister_usage {
    uint32_t prompt_tokens;
    uint32_t prompt_cached;   /* of them, taken from a cache */
    uint32_t prompt_computed; /* by all attempts together: may be more than prompt_tokens */
    uint32_t resumed_tokens;  /* computed before and read again after a worker was lost */
    uint32_t completion_tokens;
    uint64_t queue_us, prefill_us, decode_us;
};

struct cloister_receipt {
    enum cloister_state state;
    bool duplicate; /* this id was accepted before, with this content */
    uint32_t queued_ahead;
};

/* Accepted means: on the coordinator's disk. CONFLICT: the id is taken by other content. BUSY,
 * REFUSED, TOO_LARGE: refused, the text says why in numbers. ret_receipt may be NULL. */
CLOISTER_API enum cloister_error cloister_submit(struct cloister *c, const char *id,
                                                 const struct cloister_job *job,
                                                 struct cloister_receipt *ret_receipt,
                                                 struct cloister_problem *problem);

/* A token and the natural logarithm of its probability, as the model itself sees it: before biases,
 * penalties and temperature. -9999 stands for no probability at all. */
struct cloister_logprob {
    int32_t id;
    float logprob;
    struct cloister_bytes bytes;        /* what it is written with, at most 256 */
    const struct cloister_logprob *top; /* the likeliest in its place, likeliest first */
    size_t n_top;
};

/* A piece of a job's answer. Valid during the callback. */
struct cloister_event {
    enum cloister_state state;
    uint32_t first; /* index of ids[0] in the completion */
    const int32_t *ids;
    size_t n_ids;
    struct cloister_bytes text; /* what these tokens add; a character may be cut between pieces */
    bool end;                   /* the job is over and this was the last piece */
    enum cloister_finish finish;
    enum cloister_error error; /* where it failed */
    const char *error_text;
    struct cloister_usage usage;
    const struct cloister_logprob *logprobs; /* [n_ids]; NULL: none were asked for */
};

/* Non-zero: enough, cloister_watch returns CANCELLED (the job goes on). Runs on the caller's
 * thread; it may call back into the library (cloister_cancel, say). */
typedef int cloister_event_fn(void *arg, const struct cloister_event *event);

/* Hands over what the job says from token `first` on, each token once and in order, until its end
 * (the text begins with what that token adds, which may be inside a character); returns then with
 * OK, however the job ended: the last event tells. NOT_FOUND: no such job.
 * UNAVAILABLE: nobody answered for stream_wait_ms; watching again from the token reached goes on.
 */
CLOISTER_API enum cloister_error cloister_watch(struct cloister *c, const char *id, uint32_t first,
                                                cloister_event_fn *on_event, void *arg,
                                                struct cloister_problem *problem);

/* Asks for the end of a job. One that is over stays what it was: ret_state (may be NULL). */
CLOISTER_API enum cloister_error cloister_cancel(struct cloister *c, const char *id,
                                                 const char *reason, enum cloister_state *ret_state,
                                                 struct cloister_problem *problem);

/* ----------------------------------------------------------------- queries */

struct cloister_result;
CLOISTER_API void cloister_result_free(struct cloister_result *result); /* NULL is allowed */

struct cloister_job_info {
    char id[CLOISTER_ID_BYTES];
    const char *model, *tenant, *worker, *project, *cost_center;
    enum cloister_state state;
    enum cloister_class job_class;
    uint32_t priority;
    uint64_t submitted_wall_ns, started_wall_ns, ended_wall_ns; /* since 1970; 0: not yet */
    uint32_t attempts, max_tokens, queued_ahead;
    struct cloister_usage usage;
    uint64_t reserved_tokens;
    enum cloister_finish finish;
    enum cloister_error error;
    const char *error_text;
    uint64_t reserve_record, settle_record; /* ledger sequence number + 1; 0: none */
};

struct cloister_jobs_query {
    size_t size;
    const char *tenant; /* NULL: all that we may see */
    const char *model;  /* NULL: all */
    uint32_t states;    /* bits 1 << enum cloister_state; 0: all */
    const char *after;  /* page on behind this id; NULL: from the start */
    uint32_t limit;     /* 1 .. 1000 */
    const char *prefix; /* ids that begin with these hex digits; NULL: all */
    bool newest_first;
    const char *short_prefix; /* ids whose short form begins with these; NULL: all */
    const char *ending;       /* ids that end with these; NULL: all */
};

#define CLOISTER_JOBS_QUERY_INIT                                                                   \
    {                                                                                              \
        .size = sizeof(struct cloister_jobs_query), .limit = 100, .newest_first = true             \
    }

CLOISTER_API enum cloister_error
cloister_list_jobs(struct cloister *c, const struct cloister_jobs_query *query,
                   struct cloister_result **ret_result, const struct cloister_job_info **ret_jobs,
                   size_t *ret_n_jobs, bool *ret_more, struct cloister_problem *problem);

/* The one job that `digits` (2 to 32 hex digits) stand for: the beginning of its short form; where
 * there is none, the beginning of its id; where there is none, the end of it. CONFLICT lists the
 * jobs there are. A whole id is not looked for. */
CLOISTER_API enum cloister_error cloister_find_job(struct cloister *c, const char *digits,
                                                   char ret_id[CLOISTER_ID_BYTES],
                                                   struct cloister_problem *problem);

/* ret_job (may be NULL) is the job as it was submitted. */
CLOISTER_API enum cloister_error cloister_get_job(struct cloister *c, const char *id,
                                                  struct cloister_result **ret_result,
                                                  const struct cloister_job_info **ret_info,
                                                  const struct cloister_job **ret_job,
                                                  struct cloister_problem *problem);

struct cloister_candidate {
    const char *worker;
    bool chosen;
    const char *predicate; /* the one that failed, or empty */
    const char *detail;
    uint64_t need_bytes, free_bytes, unclaimed_bytes;
    uint64_t queued_tokens;
    uint32_t tokens_per_s;
    uint64_t load_ms, cost_ms;
};

/* Why a job is where it is: the decision that placed it, with every worker that was looked at. */
struct cloister_explanation {
    enum cloister_state state;
    const char *summary;
    uint32_t queued_ahead;
    uint64_t decided_wall_ns; /* 0: not yet */
    const struct cloister_candidate *candidates;
    size_t n_candidates;
    const char *gang; /* which workers compute it together, and why; or empty */
};

/* NOT_FOUND: no such job, or not one that this key may see. */
CLOISTER_API enum cloister_error
cloister_explain(struct cloister *c, const char *id, struct cloister_result **ret_result,
                 const struct cloister_explanation **ret_explanation,
                 struct cloister_problem *problem);

struct cloister_memory {
    uint64_t total_bytes, free_bytes, budget_bytes, used_bytes; /* budget 0: no limit set */
};

/* Numbers of a GPU that not every one tells. */
enum cloister_gpu_known {
    CLOISTER_GPU_KNOWN_PROCESSES = 1u << 0,
    CLOISTER_GPU_KNOWN_OWN_BYTES = 1u << 1, /* memory.used_bytes is the device's word */
    CLOISTER_GPU_KNOWN_UTILIZATION = 1u << 2,
    CLOISTER_GPU_KNOWN_POWER = 1u << 3,
    CLOISTER_GPU_KNOWN_ENERGY = 1u << 4,
    CLOISTER_GPU_KNOWN_TEMPERATURE = 1u << 5,
    CLOISTER_GPU_KNOWN_ECC = 1u << 6,
};

/* What a worker's GPU says of itself; numbers without their bit in `known` are 0. */
struct cloister_gpu {
    const char *uuid; /* empty: the device is no GPU */
    const char *pci, *driver;
    uint32_t known; /* bit set, CLOISTER_GPU_KNOWN_* */
    uint32_t utilization_percent, temperature_c;
    uint64_t power_mw, energy_mj; /* energy since the driver was loaded */
    uint64_t ecc_uncorrected;     /* likewise */
    uint64_t xid;                 /* the last critical error that the driver named; 0: none */
    uint32_t stranger_processes;
    uint64_t stranger_process_bytes;
    const char *trouble; /* what is wrong with it, or empty */
};

struct cloister_worker_model {
    const char *name;
    const char *state; /* "available", "loading", "ready", "failed" */
    const char *error;
    uint64_t weights_bytes, kv_bytes, scratch_bytes, load_ms;
    uint32_t running, waiting;
    uint64_t queued_tokens;
    uint32_t prefill_tokens_per_s, decode_tokens_per_s;
    uint32_t kv_pages_free, kv_pages;
    /* Its place among workers that compute it together; ranks 0: it is not with others. */
    uint64_t gang;
    uint32_t rank, ranks;
    uint64_t exchange_bytes; /* what they hand each other */
};

struct cloister_worker {
    const char *name;
    const char *state; /* "alive", "suspect", "gone" */
    const char *device, *isa, *build;
    uint32_t threads;
    struct cloister_memory memory;
    uint64_t claimed_bytes, stranger_bytes;
    const struct cloister_worker_model *models;
    size_t n_models;
    uint32_t leases;
    uint64_t seen_ms; /* since it was last heard */
    uint64_t tokens;
    uint8_t key_fingerprint[32];
    struct cloister_gpu gpu;
    uint64_t read_bytes_per_s; /* at which its device reads weights; 0: not known */
};

/* Every worker that is known, gone ones as long as they are remembered, by name. Anybody. */
CLOISTER_API enum cloister_error cloister_list_workers(struct cloister *c,
                                                       struct cloister_result **ret_result,
                                                       const struct cloister_worker **ret_workers,
                                                       size_t *ret_n_workers,
                                                       struct cloister_problem *problem);

struct cloister_model {
    const char *name, *architecture, *quantization, *chat_template;
    uint8_t weights_digest[32], tokenizer_digest[32]; /* SHA-256 */
    uint64_t parameters, file_bytes;
    uint32_t context_tokens;
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
    uint32_t workers, loading, ready, running, waiting;
};

/* Every model that a worker offers, by name, each once. Anybody. */
CLOISTER_API enum cloister_error cloister_list_models(struct cloister *c,
                                                      struct cloister_result **ret_result,
                                                      const struct cloister_model **ret_models,
                                                      size_t *ret_n_models,
                                                      struct cloister_problem *problem);

/* What one of several workers would hold of a model that is cut. Runs are first and end; where
 * layers differ, the least and the most of any. */
struct cloister_shard {
    uint32_t rank, stage;
    uint32_t layers[2];
    uint32_t heads[2], kv_heads[2], ffn_columns[2];
    uint32_t vocabulary[2]; /* rows of the embedding or of the head; both 0: none */
    uint64_t weights_bytes, kv_bytes;
    uint64_t scratch_bytes, exchange_bytes; /* scratch_bytes 0: neither is known */
};

struct cloister_plan {
    uint32_t shards, stages; /* of each stage; how many stages */
    uint8_t digest[32];      /* of who holds what; ranks compare it */
    const struct cloister_shard *ranks;
    size_t n_ranks;
    struct cloister_model model;
};

/* How a model would be cut into `shards` shards, or `stages` stages of so many each (0 or 1: no
 * stages), at most 16 together; `weights`, one for each, say in what proportion (NULL: even). Bytes
 * are what each worker would hold, as the first of those that have the file says: within a
 * hundredth of all of it, within two where there are stages, and but for what NCCL takes of a GPU.
 * CLOISTER_ERROR_NOT_FOUND: no such model, or no worker is here that says how it may be cut. */
CLOISTER_API enum cloister_error
cloister_plan_model(struct cloister *c, const char *model, uint32_t shards, uint32_t stages,
                    const uint64_t *weights, size_t n_weights, struct cloister_result **ret_result,
                    const struct cloister_plan **ret_plan, struct cloister_problem *problem);

struct cloister_usage_row {
    const char *tenant, *model;
    uint32_t day; /* yyyymmdd in UTC */
    uint64_t jobs, prompt_tokens, prompt_cached, completion_tokens, computed_tokens;
};

struct cloister_balance {
    const char *tenant;
    uint64_t budget_tokens; /* 0: no limit */
    uint64_t reserved_tokens, settled_tokens;
};

struct cloister_usage_report {
    const struct cloister_usage_row *rows;
    size_t n_rows;
    const struct cloister_balance *balances;
    size_t n_balances;
};

/* tenant and model may be NULL; days are yyyymmdd in UTC, inclusive, 0: open. All there is, however
 * many pages it takes; cloister_list_workers likewise. */
CLOISTER_API enum cloister_error cloister_get_usage(struct cloister *c, const char *tenant,
                                                    const char *model, uint32_t day_from,
                                                    uint32_t day_to,
                                                    struct cloister_result **ret_result,
                                                    const struct cloister_usage_report **ret_report,
                                                    struct cloister_problem *problem);

struct cloister_ledger_page {
    uint64_t first;                       /* sequence number of records[0] */
    const struct cloister_bytes *records; /* exactly as hashed */
    size_t n_records;
    uint64_t ledger_size;   /* records there are now */
    const char *checkpoint; /* the newest signed note, or "" */
    const char *origin;
    uint8_t public_key[32];
};

/* Records from number `first` on, at most `limit` (0 or above 1000: 1000) and as many as fit a
 * reply; none where `first` is the ledger's end. Operators only (REFUSED). `cloister ledger export`
 * makes of them the file that `cloister ledger verify` checks. */
CLOISTER_API enum cloister_error cloister_get_ledger(struct cloister *c, uint64_t first,
                                                     uint32_t limit,
                                                     struct cloister_result **ret_result,
                                                     const struct cloister_ledger_page **ret_page,
                                                     struct cloister_problem *problem);

struct cloister_status {
    const char *coordinator, *build;
    uint64_t uptime_ms;
    bool healthy;
    const char *const *reasons; /* why not */
    size_t n_reasons;
    uint64_t queued, leased, running, ended, queued_tokens;
    uint32_t workers_alive, workers_known;
    uint64_t oldest_queued_ms, oldest_running_idle_ms;
    uint64_t store_used_bytes, store_map_bytes;
    uint64_t ledger_size, checkpoint_size;
    uint64_t commits, commit_us_median, commit_us_max;
    bool admission_open;
    uint64_t requests, parked, stale_reports;
    uint64_t refused; /* requests that could not be read */
    uint64_t dropped; /* requests thrown away unanswered: the coordinator had fallen far behind */
};

/* How the coordinator is. Anybody. */
CLOISTER_API enum cloister_error cloister_get_status(struct cloister *c,
                                                     struct cloister_result **ret_result,
                                                     const struct cloister_status **ret_status,
                                                     struct cloister_problem *problem);

#ifdef __cplusplus
}
#endif

#endif
