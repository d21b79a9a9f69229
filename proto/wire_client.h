/*
 * wire_client.h - what clients and the coordinator say to each other: jobs and their streams,
 * explanations, lists, accounts, the ledger. Of proto/wire.h, whose rules hold here.
 */
#ifndef CLOISTER_PROTO_WIRE_CLIENT_H
#define CLOISTER_PROTO_WIRE_CLIENT_H

#include "proto/wire_worker.h"

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
    uint64_t read_bytes_per_s; /* at which its device reads weights; 0: not known */
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

#endif
