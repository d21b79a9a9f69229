/*
 * record.h - what is kept on disk, as plain C structs: values of the store and records of the
 * ledger (proto/record.proto, whose comments say what each field is for).
 *
 * Decode validates lengths, enums and UTF-8 as wire.h does: a value that fails is ERR_CORRUPT with
 * the field's name. Strings are never NULL. The packed bytes of a ledger record are canonical:
 * encode(decode(bytes)) == bytes, and decode refuses bytes for which that does not hold.
 *
 * Ownership: decoded pointers lie in the caller's arena. Encoding copies. Thread: any.
 */
#ifndef CLOISTER_PROTO_RECORD_H
#define CLOISTER_PROTO_RECORD_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/err.h"
#include "common/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum record_ledger_kind {
    RECORD_LEDGER_UNSPECIFIED = 0,
    RECORD_LEDGER_RESERVE = 1,
    RECORD_LEDGER_SETTLE = 2,
    RECORD_LEDGER_VOID = 3,
    RECORD_LEDGER_EXPIRE = 4,
    RECORD_LEDGER_KEY = 5,   /* the key that signs from here on */
    RECORD_LEDGER_METER = 6, /* a device's energy counter was read */
};

enum record_count_source {
    RECORD_COUNT_SOURCE_UNSPECIFIED = 0,
    RECORD_COUNT_SOURCE_ENGINE = 1,
};

/* What is kept on disk: values of the store and records of the ledger. A stored value is wrapped by
 * the store with a schema version and checksum. One job's state; what it computes (Job of
 * cloister.proto) is stored beside it and never changes. */
struct record_job {
    struct id job_id;
    uint8_t content_digest[32]; /* SHA-256 of the packed Job: the same id with other content */
    const char *tenant;
    const char *model;
    uint32_t state; /* JobState */
    uint32_t job_class;
    uint32_t priority;
    uint32_t max_tokens;
    uint64_t submit_order; /* dense, in order of acceptance */
    uint64_t submitted_wall_ns;
    uint64_t deadline_wall_ns; /* 0: none */
    uint64_t started_wall_ns;
    uint64_t ended_wall_ns;
    uint32_t attempts;
    uint64_t lease_epoch;
    const char *worker;
    uint32_t prompt_tokens;
    uint32_t prompt_cached;
    uint64_t prompt_computed; /* over all attempts */
    uint32_t tokens;          /* completion tokens stored */
    uint64_t text_bytes;      /* of text stored */
    uint64_t computed_tokens; /* completion tokens computed over all attempts */
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
    uint32_t finish;
    uint32_t error_code;
    const char *error_text;
    uint64_t reserved_tokens;
    uint64_t reserve_seq; /* seq + 1 of the ledger record; 0: none */
    uint64_t settle_seq;
    bool cancel_on_disconnect;
    const char *project;
    const char *cost_center;
    const char *principal; /* name of the client node */
    uint8_t key_fingerprint[32];
    uint64_t prompt_tokens_bound; /* most that the prompt can be, reserved before it is counted */
    uint32_t deaths;              /* attempts that ended with their worker or its engine */
    /* What the present attempt has reported so far; it is contained in the totals above. */
    uint64_t attempt_prompt_computed;
    uint64_t attempt_computed_tokens;
    uint64_t attempt_queue_us;
    uint64_t attempt_prefill_us;
    uint64_t attempt_decode_us;
};

/* A run of completion tokens as one Report brought them. Key: job id, index of the first. */
struct record_chunk {
    const int32_t *ids;
    size_t n_ids;
    const uint8_t *text;
    size_t text_size;
    const int32_t *text_sizes; /* as in struct wire_lease_progress */
    size_t n_text_sizes;
    const struct wire_bytes *logprobs; /* as in struct wire_lease_progress */
    size_t n_logprobs;
};

struct record_usage {
    const char *tenant;
    const char *model;
    uint32_t day;
    uint64_t jobs;
    uint64_t prompt_tokens;
    uint64_t prompt_cached;
    uint64_t completion_tokens;
    uint64_t computed_tokens;
};

struct record_balance {
    const char *tenant;
    uint64_t reserved_tokens;
    uint64_t settled_tokens;
};

/* What a load taught us, per (model digest, context, slots, build). */
struct record_learned {
    const char *model;
    uint8_t weights_digest[32];
    uint64_t predicted_bytes;
    uint64_t measured_bytes;
    uint64_t load_ms;
    uint32_t prefill_tokens_per_s;
    uint32_t decode_tokens_per_s;
    /* The offer it belongs to, so that a restarted coordinator knows its models before any worker
     * is back. */
    uint8_t tokenizer_digest[32];
    const char *architecture;
    const char *quantization;
    uint64_t parameters;
    uint64_t file_bytes;
    uint32_t context_tokens;
    uint64_t weights_bytes;
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
    const char *chat_template;
    uint32_t prompt_tokens_per_job;
    uint32_t prompt_tokens_per_message;
    uint32_t prompt_tokens_per_kib;
};

/* Canonical: fields ascending, no unknown ones, default values left out: what protobuf-c packs.
 * Leaf of the Merkle tree: SHA-256(0x00 || these bytes). */
#define RECORD_LEDGER_SCHEMA 1u

struct record_ledger {
    uint32_t schema; /* RECORD_LEDGER_SCHEMA */
    enum record_ledger_kind kind;
    uint64_t seq;
    const char *node; /* the coordinator */
    uint64_t boot_epoch;
    uint64_t wall_ns;
    uint64_t mono_ns;
    struct id job_id;
    uint32_t attempt;
    const char *tenant;
    const char *project;
    const char *cost_center;
    const char *principal;
    uint8_t key_fingerprint[32]; /* of the client */
    const char *model;
    uint8_t weights_digest[32];
    uint8_t tokenizer_digest[32];
    const char *engine_build;
    const char *quantization;
    uint32_t shards;
    const char *worker;
    uint64_t seed;
    uint8_t sampling_digest[32]; /* SHA-256 of the packed Sampling */
    uint32_t max_tokens;
    uint64_t reserved_tokens; /* RESERVE: prompt bound + max_tokens */
    uint64_t reserve_seq;     /* the others: seq + 1 of the RESERVE they end */
    enum record_count_source count_source;
    uint64_t prompt_tokens;
    uint64_t prompt_cached;
    uint64_t prompt_computed;     /* over all attempts */
    uint64_t completion_computed; /* over all attempts */
    uint64_t completion_delivered;
    uint64_t completion_billable;
    uint32_t policy_id;
    uint32_t finish;         /* Finish */
    uint32_t outcome;        /* JobState at the end */
    uint8_t prompt_hash[32]; /* HMAC-SHA-256 of the packed Job under the ledger's evidence key */
    uint8_t output_hash[32]; /* ... of the completion's ids, int32 little endian */
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
    uint8_t public_key[32]; /* KEY */
    const char *device;     /* METER: its UUID, of the worker's */
    uint64_t energy_mj;     /* METER: its counter, which begins at 0 with its driver */
};

enum err record_job_encode(const struct record_job *record, struct buf *out, struct errbuf *eb);
enum err record_job_decode(const void *bytes, size_t size, struct arena *arena,
                           struct record_job *ret_record, struct errbuf *eb);
enum err record_chunk_encode(const struct record_chunk *record, struct buf *out, struct errbuf *eb);
enum err record_chunk_decode(const void *bytes, size_t size, struct arena *arena,
                             struct record_chunk *ret_record, struct errbuf *eb);
enum err record_usage_encode(const struct record_usage *record, struct buf *out, struct errbuf *eb);
enum err record_usage_decode(const void *bytes, size_t size, struct arena *arena,
                             struct record_usage *ret_record, struct errbuf *eb);
enum err record_balance_encode(const struct record_balance *record, struct buf *out,
                               struct errbuf *eb);
enum err record_balance_decode(const void *bytes, size_t size, struct arena *arena,
                               struct record_balance *ret_record, struct errbuf *eb);
enum err record_learned_encode(const struct record_learned *record, struct buf *out,
                               struct errbuf *eb);
enum err record_learned_decode(const void *bytes, size_t size, struct arena *arena,
                               struct record_learned *ret_record, struct errbuf *eb);
enum err record_ledger_encode(const struct record_ledger *record, struct buf *out,
                              struct errbuf *eb);
enum err record_ledger_decode(const void *bytes, size_t size, struct arena *arena,
                              struct record_ledger *ret_record, struct errbuf *eb);

const char *record_ledger_kind_name(enum record_ledger_kind kind); /* "RESERVE", ... */

#endif
