/*
 * wire_types.h - what several messages are made of: names of states, errors, jobs. Of proto/wire.h,
 * whose rules hold here.
 */
#ifndef CLOISTER_PROTO_WIRE_TYPES_H
#define CLOISTER_PROTO_WIRE_TYPES_H

#include "common/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

#endif
