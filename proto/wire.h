/*
 * wire.h - the messages of proto/cloister.proto as plain C structs.
 *
 * What decode hands out has been validated: every enum is one of its values and not _UNSPECIFIED
 * where the message needs it, every id is 16 bytes, every digest and key has its length (all zero
 * where the sender left it empty and that is allowed), every count and size is within limits.h,
 * every float is finite, every string is UTF-8 without control characters and NUL-terminated.
 * Code behind it never sees a peer's raw data. Strings are never NULL.
 *
 * Field comments are those of the .proto file, which says what each is for.
 *
 * Ownership: decoded pointers lie in the caller's arena. Encoding copies. Thread: any.
 */
#ifndef CLOISTER_PROTO_WIRE_H
#define CLOISTER_PROTO_WIRE_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1u

/* Hello.features: none is needed yet; a peer's unknown bits are ignored. */
#define WIRE_FEATURES 0u

struct wire_bytes {
    const uint8_t *data;
    size_t size;
};

enum wire_role {
    WIRE_ROLE_UNSPECIFIED = 0,
    WIRE_ROLE_WORKER = 1,
    WIRE_ROLE_CLIENT = 2,
};

enum wire_model_state {
    WIRE_MODEL_STATE_UNSPECIFIED = 0,
    WIRE_MODEL_STATE_AVAILABLE = 1, /* on disk */
    WIRE_MODEL_STATE_LOADING = 2,
    WIRE_MODEL_STATE_READY = 3,
    WIRE_MODEL_STATE_FAILED = 4, /* `error` says why */
};

enum wire_finish {
    WIRE_FINISH_UNSPECIFIED = 0, /* still going */
    WIRE_FINISH_STOP = 1,
    WIRE_FINISH_LENGTH = 2,
    WIRE_FINISH_CANCELLED = 3,
    WIRE_FINISH_ERROR = 4,
};

enum wire_prompt_kind {
    WIRE_PROMPT_KIND_UNSPECIFIED = 0,
    WIRE_PROMPT_KIND_CHAT = 1,
    WIRE_PROMPT_KIND_TEXT = 2,
    WIRE_PROMPT_KIND_IDS = 3,
};

enum wire_job_class {
    WIRE_JOB_CLASS_UNSPECIFIED = 0,
    WIRE_JOB_CLASS_INTERACTIVE = 1,
    WIRE_JOB_CLASS_STANDARD = 2,
    WIRE_JOB_CLASS_BATCH = 3,
};

enum wire_job_state {
    WIRE_JOB_STATE_UNSPECIFIED = 0,
    WIRE_JOB_STATE_QUEUED = 1,
    WIRE_JOB_STATE_LEASED = 2,
    WIRE_JOB_STATE_RUNNING = 3,
    WIRE_JOB_STATE_DONE = 4,
    WIRE_JOB_STATE_FAILED = 5,
    WIRE_JOB_STATE_CANCELLED = 6,
    WIRE_JOB_STATE_REJECTED = 7,
    WIRE_JOB_STATE_EXPIRED = 8,
};

enum wire_worker_state {
    WIRE_WORKER_STATE_UNSPECIFIED = 0,
    WIRE_WORKER_STATE_ALIVE = 1,
    WIRE_WORKER_STATE_SUSPECT = 2,
    WIRE_WORKER_STATE_GONE = 3,
};

struct wire_error {
    uint32_t code;    /* enum err */
    const char *text; /* one line: place and reason */
    bool retryable;
    uint64_t retry_after_ms; /* 0: not known */
};

struct wire_model_offer {
    const char *name;
    uint8_t weights_digest[32]; /* SHA-256 of the file */
    uint8_t tokenizer_digest[32];
    const char *architecture;
    const char *quantization; /* "Q4_1" */
    uint64_t parameters;
    uint64_t file_bytes;
    uint32_t context_tokens; /* per job, as this worker would serve it */
    uint64_t weights_bytes;  /* predicted from the header */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
    const char *chat_template; /* its name, or empty: chat jobs are refused */
    /* The most tokens that a prompt can become, worked out from the file's tokenizer and template:
     * per_job + per_message * messages + per_kib * bytes / 1024, rounded up. per_kib 0: not known.
     */
    uint32_t prompt_tokens_per_job;     /* BOS, a system message that the template brings, ... */
    uint32_t prompt_tokens_per_message; /* its role and what stands around it */
    uint32_t prompt_tokens_per_kib;     /* for 1024 bytes of text or of messages' contents */
    struct wire_bytes shape; /* packed (common/shard_cut.h) and checked: it can be unpacked. Empty:
                              * the worker does not say how it may be cut */
    /* Context, slots, cache, step and build in words: workers whose words are the same can compute
     * it together. Empty: this one cannot. */
    const char *gang_settings;
    uint64_t rank_bytes; /* what each rank of a gang holds beside its share, at most */
};

enum wire_gang_transport {
    WIRE_GANG_TRANSPORT_UNSPECIFIED = 0,
    WIRE_GANG_TRANSPORT_SHM = 1, /* memory of one host */
    WIRE_GANG_TRANSPORT_UCX = 2, /* TCP or RDMA between hosts */
};

/* Workers that compute one model together, each a share of it (docs/shards.md). */
struct wire_gang_member {
    const char *worker;
    uint64_t weight; /* shares are in proportion to these */
};

/* One worker's place in a gang. */
struct wire_gang_place {
    uint64_t gang;     /* counts up, and is never used again; 0: the whole model */
    uint8_t group[16]; /* by which its ranks find each other, for them alone */
    uint32_t rank;
    uint32_t stages; /* that the layers are cut into; each has as many members */
    enum wire_gang_transport transport;
    const struct wire_gang_member *members; /* by rank */
    size_t n_members;
};

/* Where the others find a rank whose transport is UCX. */
struct wire_gang_address {
    uint64_t gang;
    uint32_t rank;
    struct wire_bytes address;
};

struct wire_memory {
    uint64_t total_bytes;  /* of the device */
    uint64_t free_bytes;   /* as the device or the kernel says now */
    uint64_t budget_bytes; /* configured for this worker; 0: all of it */
    uint64_t used_bytes;   /* by this worker */
};

/* Numbers of a GPU that not every one tells. */
enum wire_gpu_known {
    WIRE_GPU_KNOWN_PROCESSES = 1u << 0,
    WIRE_GPU_KNOWN_OWN_BYTES = 1u << 1, /* its used_bytes is the device's word, not the worker's */
    WIRE_GPU_KNOWN_UTILIZATION = 1u << 2,
    WIRE_GPU_KNOWN_POWER = 1u << 3,
    WIRE_GPU_KNOWN_ENERGY = 1u << 4,
    WIRE_GPU_KNOWN_TEMPERATURE = 1u << 5,
    WIRE_GPU_KNOWN_ECC = 1u << 6,
};

/* What a GPU says of itself. Numbers that it does not tell are 0, and their bit in `known` as well.
 */
struct wire_gpu {
    const char *uuid;
    const char *pci;    /* "00000000:3B:00.0" */
    const char *driver; /* version */
    uint32_t known;     /* bit set, WIRE_GPU_KNOWN_* */
    uint32_t utilization_percent;
    uint64_t power_mw;
    uint64_t energy_mj; /* since the driver was loaded */
    uint32_t temperature_c;
    uint64_t ecc_uncorrected;        /* since the driver was loaded */
    uint64_t xid;                    /* the last critical error that the driver named; 0: none */
    uint32_t stranger_processes;     /* other people's */
    uint64_t stranger_process_bytes; /* what they are told to hold, as far as it is told */
    const char *trouble;             /* what is wrong with it, or empty */
};

struct wire_lease_held {
    struct id job_id;
    uint64_t epoch;
    uint32_t tokens; /* completion tokens the worker has, prefix included */
};

struct wire_model_status {
    const char *name;
    enum wire_model_state state;
    const char *error;
    uint64_t weights_bytes; /* measured */
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
    uint64_t load_ms;
    uint32_t running;
    uint32_t waiting;
    uint64_t queued_tokens;
    uint32_t prefill_tokens_per_s;
    uint32_t decode_tokens_per_s;
    uint32_t kv_pages_free;
    uint32_t kv_pages;
    uint32_t failures; /* loads that failed since it was last ready */
    /* Its place in a gang; ranks 0: it is there whole, or not at all. A gang that another rank
     * ended leaves a model AVAILABLE, and `error` says what was heard of it. Of a model that is
     * AVAILABLE it is the gang of the last LOAD that was taken: it is over. */
    uint64_t gang;
    uint32_t rank;
    uint32_t ranks;
    uint64_t exchange_bytes; /* what the ranks hand each other, measured */
};

struct wire_worker_hello {
    const struct wire_model_offer *models;
    size_t n_models;
    struct wire_memory memory;
    const char *device; /* "cpu" or the GPU's name */
    const char *isa;    /* "scalar", "avx2", "avx512", "sm_90" */
    uint32_t threads;
    const struct wire_lease_held *leases;
    size_t n_leases;
    const struct wire_model_status *status;
    size_t n_status;
    const struct wire_gpu *gpus; /* none, or the one that it computes on */
    size_t n_gpus;
    uint8_t host[16];    /* the same for workers that can share memory; or all zero */
    uint32_t transports; /* bit set, 1 << wire_gang_transport: how it can join others in a gang */
};

/* Said twice: first without a signature, which earns a challenge; then with it. */
struct wire_hello {
    enum wire_role role;
    const char *node;                /* the sender's name */
    uint64_t features;               /* bit set, WIRE_FEATURE_* */
    const char *build;               /* version and revision */
    uint8_t public_key[32];          /* Ed25519, 32 bytes */
    uint8_t nonce[32];               /* 32 bytes; the coordinator signs it */
    struct wire_bytes signature;     /* 64 bytes, or empty in the first Hello */
    const char *tenant;              /* clients */
    struct wire_worker_hello worker; /* workers, in the second Hello */
};

struct wire_hello_reply {
    bool established;            /* false: sign `challenge` and say Hello again with this session */
    uint8_t challenge[32];       /* 32 bytes */
    uint8_t public_key[32];      /* the coordinator's */
    struct wire_bytes signature; /* over the sender's nonce */
    const char *coordinator;     /* its name */
    const char *build;
    uint64_t features;
    uint64_t heartbeat_ms; /* report at least this often */
    uint64_t lease_ms;     /* a worker unheard for this long stops its leases by itself */
};

struct wire_pull {
    uint64_t acked_command; /* all commands up to this one were taken */
    uint32_t wait_ms;
};

struct wire_chat_message {
    const char *role;
    struct wire_bytes content; /* any bytes */
};

struct wire_logit_bias {
    uint32_t id;
    float bias;
};

struct wire_sampling {
    float temperature;
    uint32_t top_k;
    float top_p;
    float min_p;
    float repetition_penalty;
    float presence_penalty;
    float frequency_penalty;
    uint64_t seed;
    float typical_p; /* 0 and 1: off */
    const struct wire_logit_bias *logit_bias;
    size_t n_logit_bias;
};

/* A token and the natural logarithm of its probability, as the model itself sees it. */
struct wire_token_logprob {
    uint32_t id;
    float logprob;
    struct wire_bytes bytes; /* what it is written with; cut where it is very long */
};

/* What stands for one completion token in the lists called logprobs, packed. */
struct wire_token_logprobs {
    struct wire_token_logprob drawn;
    const struct wire_token_logprob *top; /* likeliest first */
    size_t n_top;
};

/* What is to be computed. Stored as it came; nothing in it is changed by the cluster. */
struct wire_job {
    const char *model;
    enum wire_prompt_kind prompt_kind;
    const struct wire_chat_message *messages;
    size_t n_messages;
    struct wire_bytes text;
    const int32_t *prompt_ids;
    size_t n_prompt_ids;
    struct wire_sampling sampling;
    uint32_t max_tokens;
    const struct wire_bytes *stops;
    size_t n_stops;
    enum wire_job_class job_class;
    uint32_t priority;         /* 0 .. 9, 9 first, within a class */
    uint64_t deadline_ms;      /* after submission; 0: none */
    bool cancel_on_disconnect; /* else it runs on when nobody watches */
    const char *project;
    const char *cost_center;
    const int32_t *stop_tokens; /* end the answer and add no text */
    size_t n_stop_tokens;
    bool logprobs;         /* of each token are wanted, */
    uint32_t top_logprobs; /* and of this many of the likeliest in its place */
};

struct wire_command_load {
    const char *model;
    struct wire_gang_place place; /* gang 0: the whole model */
};

struct wire_command_unload {
    const char *model;
};

struct wire_command_run {
    struct id job_id;
    uint64_t epoch; /* of the lease; reports of another one are dropped */
    uint32_t attempt;
    struct wire_job job;
    const int32_t *resume_ids; /* completion tokens already metered */
    size_t n_resume_ids;
    uint32_t resume_text_bytes; /* of the text they stand for, already delivered */
    const char *tenant;         /* whose job it is */
};

struct wire_command_cancel {
    struct id job_id;
    uint64_t epoch;
};

/* What all ranks of a gang have reported, once the last has. */
struct wire_command_meet {
    const char *model;
    uint64_t gang;
    const struct wire_bytes *addresses; /* by rank */
    size_t n_addresses;
};

enum wire_command_kind {
    WIRE_COMMAND_LOAD = 10,
    WIRE_COMMAND_UNLOAD = 11,
    WIRE_COMMAND_RUN = 12,
    WIRE_COMMAND_CANCEL = 13,
    WIRE_COMMAND_MEET = 14,
};

struct wire_command {
    uint64_t seq; /* per session, from 1 */
    enum wire_command_kind kind;
    union {
        struct wire_command_load load;
        struct wire_command_unload unload;
        struct wire_command_run run;
        struct wire_command_cancel cancel;
        struct wire_command_meet meet;
    };
};

struct wire_pull_reply {
    const struct wire_command *commands; /* ascending seq; said again until acked */
    size_t n_commands;
};

struct wire_work_usage {
    uint32_t prompt_tokens;
    uint32_t prompt_cached;
    uint32_t prompt_computed;
    uint32_t resumed_tokens;
    uint32_t completion_tokens;
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
};

struct wire_lease_progress {
    struct id job_id;
    uint64_t epoch;
    uint32_t first; /* index of ids[0] in the completion */
    const int32_t *ids;
    size_t n_ids;
    struct wire_bytes text;       /* what these ids add */
    struct wire_work_usage usage; /* so far, by this attempt */
    enum wire_finish finish;
    struct wire_error error; /* with FINISH_ERROR */
    /* Bytes of text that each id adds, as many as ids; none: all come with the last one. What is
     * over stands behind the last token, where the job ends. */
    const int32_t *text_sizes;
    size_t n_text_sizes;
    const struct wire_bytes *logprobs; /* of each id a packed wire_token_logprobs; or none */
    size_t n_logprobs;
};

/* Whether text_sizes go with n_ids ids and text_size bytes of text. */
bool wire_text_sizes_fit(const int32_t *text_sizes, size_t n_text_sizes, size_t n_ids,
                         size_t text_size);

struct wire_report {
    const struct wire_lease_progress *leases;
    size_t n_leases;
    const struct wire_model_status *models;
    size_t n_models;
    struct wire_memory memory;
    const struct wire_gpu *gpus; /* as in wire_worker_hello */
    size_t n_gpus;
    const struct wire_gang_address *addresses; /* said again until the gang has met */
    size_t n_addresses;
};

struct wire_lease_ack {
    struct id job_id;
    uint64_t epoch;
    bool fenced;   /* not yours any more: stop and forget it */
    uint32_t next; /* report from this token on */
};

struct wire_report_reply {
    const struct wire_lease_ack *leases;
    size_t n_leases;
};

struct wire_goodbye {
    const char *reason;
};

struct wire_submit {
    struct id job_id; /* 16 bytes, made by the client */
    struct wire_job job;
};

struct wire_submit_reply {
    struct id job_id;
    enum wire_job_state state;
    bool duplicate; /* this id was accepted before, with the same content */
    uint32_t queued_ahead;
};

struct wire_watch {
    struct id job_id;
    uint32_t first; /* tokens from here on */
    uint32_t wait_ms;
};

struct wire_watch_reply {
    struct id job_id;
    enum wire_job_state state;
    uint32_t first;
    const int32_t *ids;
    size_t n_ids;
    struct wire_bytes text;
    bool end; /* the job is over and this was the last of it */
    enum wire_finish finish;
    struct wire_error error;
    struct wire_work_usage usage;      /* prompt tokens from the start on, completion so far */
    const struct wire_bytes *logprobs; /* as in wire_lease_progress */
    size_t n_logprobs;
};

struct wire_cancel {
    struct id job_id;
    const char *reason;
};

struct wire_cancel_reply {
    enum wire_job_state state; /* after it; a job that was over stays what it was */
};

struct wire_job_info {
    struct id job_id;
    const char *model;
    const char *tenant;
    enum wire_job_state state;
    enum wire_job_class job_class;
    uint32_t priority;
    uint64_t submitted_wall_ns;
    uint64_t started_wall_ns; /* 0: not yet */
    uint64_t ended_wall_ns;
    uint32_t attempts;
    const char *worker; /* the present or last one */
    uint32_t max_tokens;
    struct wire_work_usage usage;
    uint64_t reserved_tokens;
    enum wire_finish finish;
    struct wire_error error;
    uint64_t reserve_seq; /* ledger records of this job, seq + 1; 0: none */
    uint64_t settle_seq;
    uint32_t queued_ahead;
    const char *project;
    const char *cost_center;
};

struct wire_list_jobs {
    const char *tenant; /* empty: all that the caller may see */
    const char *model;
    uint32_t states;         /* bit set, 1 << JobState; 0: all */
    struct wire_bytes after; /* page on behind this job id */
    uint32_t limit;
    struct wire_bytes id_prefix; /* up to 16 bytes, whole bytes */
    bool newest_first;
    struct wire_bytes id_short; /* the last ID_SHORT_BYTES of the id begin with these */
    struct wire_bytes id_end;   /* the id ends with these */
};

struct wire_list_jobs_reply {
    const struct wire_job_info *jobs;
    size_t n_jobs;  /* fewer than asked for, or none, also where there are more */
    bool more;      /* there may be others behind `next` */
    struct id next; /* `after` of the next page */
};

struct wire_get_job {
    struct id job_id;
};

struct wire_get_job_reply {
    struct wire_job_info info;
    struct wire_job job;
};

struct wire_explain {
    struct id job_id;
};

struct wire_candidate {
    const char *worker;
    bool chosen;
    const char *predicate; /* the one that failed, or empty: "memory", "model", "alive", "slots" */
    const char *detail;    /* in numbers */
    uint64_t need_bytes;
    uint64_t free_bytes;      /* what the worker says */
    uint64_t unclaimed_bytes; /* capacity less every claim */
    uint64_t queued_tokens;
    uint32_t tokens_per_s;
    uint64_t load_ms;
    uint64_t cost_ms; /* expected time to first token */
};

struct wire_explain_reply {
    enum wire_job_state state;
    const char *summary; /* one sentence */
    uint32_t queued_ahead;
    uint64_t decided_wall_ns;
    const struct wire_candidate *candidates;
    size_t n_candidates;
    const char *gang; /* who computes it together and why, or empty */
};

struct wire_worker_info {
    const char *name;
    enum wire_worker_state state;
    const char *device;
    const char *isa;
    const char *build;
    uint32_t threads;
    struct wire_memory memory;
    uint64_t claimed_bytes;
    uint64_t stranger_bytes; /* in use on the device, but neither ours nor free */
    const struct wire_model_status *models;
    size_t n_models;
    uint32_t leases;
    uint64_t seen_ms;            /* since it was last heard */
    uint64_t tokens;             /* completion tokens since it said Hello */
    uint8_t key_fingerprint[32]; /* SHA-256 of its public key */
    const struct wire_gpu *gpus; /* as last reported */
    size_t n_gpus;
};

struct wire_list_workers {
    const char *after; /* page on behind this name */
};

struct wire_list_workers_reply {
    const struct wire_worker_info *workers; /* in order of their names */
    size_t n_workers;
    bool more; /* there may be others behind the last one */
};

struct wire_model_info {
    struct wire_model_offer offer;
    uint32_t workers; /* that have the file */
    uint32_t loading;
    uint32_t ready;
    uint32_t running;
    uint32_t waiting; /* queued at the coordinator */
};

struct wire_list_models {
    const char *model; /* only this one, and with its shape; empty: all, without */
};

struct wire_list_models_reply {
    const struct wire_model_info *models;
    size_t n_models;
};

struct wire_usage {
    const char *tenant; /* empty: all that the caller may see */
    const char *model;
    uint32_t day_from;        /* yyyymmdd in UTC, 0: open */
    uint32_t day_to;          /* inclusive */
    const char *after_tenant; /* page on behind this row; */
    const char *after_model;
    uint32_t after_day; /* 0: from the beginning */
};

struct wire_usage_row {
    const char *tenant;
    const char *model;
    uint32_t day;
    uint64_t jobs;
    uint64_t prompt_tokens;
    uint64_t prompt_cached;
    uint64_t completion_tokens; /* billable */
    uint64_t computed_tokens;   /* all that was computed, retries too */
};

struct wire_usage_balance {
    const char *tenant;
    uint64_t budget_tokens; /* 0: no limit */
    uint64_t reserved_tokens;
    uint64_t settled_tokens;
};

struct wire_usage_reply {
    const struct wire_usage_row *rows;
    size_t n_rows;
    const struct wire_usage_balance *balances; /* on the first page */
    size_t n_balances;
    bool more;               /* there may be others behind the row that `next` names */
    const char *next_tenant; /* with more: the `after` of the next page */
    const char *next_model;
    uint32_t next_day;
};

struct wire_ledger_range {
    uint64_t first; /* seq */
    uint32_t limit;
};

struct wire_ledger_range_reply {
    uint64_t first;
    const struct wire_bytes *records; /* LedgerRecord, exactly as hashed */
    size_t n_records;
    uint64_t size;          /* records in the log now */
    const char *checkpoint; /* the newest signed note, or empty */
    const char *origin;
    uint8_t public_key[32];
};

struct wire_status_reply {
    const char *coordinator;
    const char *build;
    uint64_t uptime_ms;
    bool healthy;
    const char *const *reasons; /* why not */
    size_t n_reasons;
    uint64_t queued;
    uint64_t leased;
    uint64_t running;
    uint64_t ended;
    uint64_t queued_tokens;
    uint32_t workers_alive;
    uint32_t workers_known;
    uint64_t oldest_queued_ms;
    uint64_t oldest_running_idle_ms; /* since the last token of the job that moved least */
    uint64_t store_used_bytes;
    uint64_t store_map_bytes;
    uint64_t ledger_size;
    uint64_t checkpoint_size;
    uint64_t commits;
    uint64_t commit_us_median;
    uint64_t commit_us_max;
    bool admission_open;
    uint64_t requests;
    uint64_t parked;
    uint64_t stale_reports;
    uint64_t refused; /* requests that could not be read */
    uint64_t dropped; /* requests thrown away unanswered: the loop had fallen far behind */
};

enum wire_request_kind {
    WIRE_REQUEST_NONE = 0,
    WIRE_REQUEST_HELLO = 10,
    WIRE_REQUEST_PULL = 11,
    WIRE_REQUEST_REPORT = 12,
    WIRE_REQUEST_GOODBYE = 13,
    WIRE_REQUEST_SUBMIT = 20,
    WIRE_REQUEST_WATCH = 21,
    WIRE_REQUEST_CANCEL = 22,
    WIRE_REQUEST_LIST_JOBS = 23,
    WIRE_REQUEST_GET_JOB = 24,
    WIRE_REQUEST_EXPLAIN = 25,
    WIRE_REQUEST_LIST_WORKERS = 26,
    WIRE_REQUEST_LIST_MODELS = 27,
    WIRE_REQUEST_USAGE = 28,
    WIRE_REQUEST_LEDGER_RANGE = 29,
    WIRE_REQUEST_STATUS = 30,
};

struct wire_request {
    uint64_t session;
    struct id request_id;
    enum wire_request_kind kind;
    union {
        struct wire_hello hello;
        struct wire_pull pull;
        struct wire_report report;
        struct wire_goodbye goodbye;
        struct wire_submit submit;
        struct wire_watch watch;
        struct wire_cancel cancel;
        struct wire_list_jobs list_jobs;
        struct wire_get_job get_job;
        struct wire_explain explain;
        struct wire_list_workers list_workers;
        struct wire_list_models list_models;
        struct wire_usage usage;
        struct wire_ledger_range ledger_range;
    };
};

/* A reply's kind is its request's, or _ERROR. */
#define WIRE_REPLY_ERROR 9

struct wire_reply {
    uint64_t session;
    struct id request_id;
    int kind; /* WIRE_REPLY_ERROR or enum wire_request_kind */
    union {
        struct wire_error error;
        struct wire_hello_reply hello;
        struct wire_pull_reply pull;
        struct wire_report_reply report;
        struct wire_submit_reply submit;
        struct wire_watch_reply watch;
        struct wire_cancel_reply cancel;
        struct wire_list_jobs_reply list_jobs;
        struct wire_get_job_reply get_job;
        struct wire_explain_reply explain;
        struct wire_list_workers_reply list_workers;
        struct wire_list_models_reply list_models;
        struct wire_usage_reply usage;
        struct wire_ledger_range_reply ledger_range;
        struct wire_status_reply status;
    };
};

/* Encode: checks its own side of every limit (ERR_TOO_LARGE, ERR_INVALID with the field's path)
 * and appends the packed message; `out` is untouched on error. A NULL string counts as empty. Text
 * for people (errors, reasons, details) is cut and cleaned instead of refused, so that it arrives.
 * A message over LIMIT_FRAME_BYTES is ERR_TOO_LARGE as a whole: who fills a list of large things
 * (PullReply, LedgerRangeReply) stops before that. Decode: ERR_INVALID / ERR_TOO_LARGE /
 * ERR_UNSUPPORTED (version) with the field's path; outputs untouched on error, except that
 * request_id and session of a message whose envelope could be read are set, so that the error can
 * be answered. */
enum err wire_request_encode(const struct wire_request *request, struct buf *out,
                             struct errbuf *eb);
enum err wire_request_decode(const void *bytes, size_t size, struct arena *arena,
                             struct wire_request *ret_request, struct errbuf *eb);
enum err wire_reply_encode(const struct wire_reply *reply, struct buf *out, struct errbuf *eb);
enum err wire_reply_decode(const void *bytes, size_t size, struct arena *arena,
                           struct wire_reply *ret_reply, struct errbuf *eb);

/* A Job alone: how it is stored, digested and compared. Same rules. */
enum err wire_job_encode(const struct wire_job *job, struct buf *out, struct errbuf *eb);
enum err wire_job_decode(const void *bytes, size_t size, struct arena *arena,
                         struct wire_job *ret_job, struct errbuf *eb);
enum err wire_sampling_encode(const struct wire_sampling *sampling, struct buf *out,
                              struct errbuf *eb);
enum err wire_token_logprobs_encode(const struct wire_token_logprobs *logprobs, struct buf *out,
                                    struct errbuf *eb);
enum err wire_token_logprobs_decode(const struct wire_bytes *packed, struct arena *arena,
                                    struct wire_token_logprobs *ret_logprobs, struct errbuf *eb);

/* Names for people: "queued", "interactive", ... ; "unknown" outside the enum. */
const char *wire_job_state_name(enum wire_job_state state);
const char *wire_job_class_name(enum wire_job_class job_class);
const char *wire_finish_name(enum wire_finish finish);
const char *wire_model_state_name(enum wire_model_state state);
const char *wire_worker_state_name(enum wire_worker_state state);
bool wire_job_state_parse(const char *text, enum wire_job_state *ret_state);
bool wire_job_class_parse(const char *text, enum wire_job_class *ret_class);
/* DONE, FAILED, CANCELLED, REJECTED, EXPIRED. */
bool wire_job_state_is_end(enum wire_job_state state);

/* What is signed in Hello (by the node, over the coordinator's challenge) and in its reply (by the
 * coordinator, over the node's nonce): a domain string, the 32 bytes, the session, the signer's
 * public key, the role and the names, each length-prefixed, so that no signature means two things.
 */
void wire_hello_signed_bytes(const uint8_t challenge[32], uint64_t session,
                             const struct wire_hello *hello, struct buf *out);
void wire_hello_reply_signed_bytes(const uint8_t nonce[32], uint64_t session,
                                   const struct wire_hello_reply *reply, struct buf *out);

#endif
