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
#include "proto/wire_client.h"
#include "proto/wire_types.h"
#include "proto/wire_worker.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_VERSION 1u

/* Hello.features: none is needed yet; a peer's unknown bits are ignored. */
#define WIRE_FEATURES 0u

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

struct wire_goodbye {
    const char *reason;
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
