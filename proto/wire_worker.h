/*
 * wire_worker.h - what workers and the coordinator say to each other: offers, memory, states of
 * models, gangs, commands, leases. Of proto/wire.h, whose rules hold here.
 */
#ifndef CLOISTER_PROTO_WIRE_WORKER_H
#define CLOISTER_PROTO_WIRE_WORKER_H

#include "common/shard_room.h"
#include "proto/wire_types.h"

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
    uint64_t rank_bytes;    /* what each rank of a gang holds beside its share, at most */
    struct shard_room room; /* what that follows from, however the model is cut */
};

enum wire_gang_transport {
    WIRE_GANG_TRANSPORT_UNSPECIFIED = 0,
    WIRE_GANG_TRANSPORT_SHM = 1,  /* memory of one host */
    WIRE_GANG_TRANSPORT_UCX = 2,  /* TCP or RDMA between hosts */
    WIRE_GANG_TRANSPORT_NCCL = 3, /* from GPU to GPU; it stands on one of the others */
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
    enum wire_gang_transport control; /* what NCCL stands on, SHM or UCX; of others none */
};

/* Where the others find a rank whose transport, or control, is UCX. */
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

/* What there is to know of a worker's NCCL before it is in a gang over it. */
struct wire_nccl {
    const char *version;   /* "2.27.7"; ranks must have the same. Empty: there is none */
    uint32_t controls;     /* bit set, 1 << wire_gang_transport: what such a gang may stand on */
    uint64_t memory_bytes; /* of the GPU, that it is reckoned to take for each group of ranks */
};

struct wire_worker_hello {
    const struct wire_model_offer *models;
    size_t n_models;
    struct wire_memory memory;
    const char *device; /* "cpu" or the GPU's name */
    const char *isa;    /* "scalar", "avx2", "avx512", "amx", "sm_90" */
    uint32_t threads;
    const struct wire_lease_held *leases;
    size_t n_leases;
    const struct wire_model_status *status;
    size_t n_status;
    const struct wire_gpu *gpus; /* none, or the one that it computes on */
    size_t n_gpus;
    uint8_t host[16];      /* the same for workers that can share memory; or all zero */
    uint32_t transports;   /* bit set, 1 << wire_gang_transport: how it can join others in a gang */
    struct wire_nccl nccl; /* where NCCL is one of them */
    uint64_t read_bytes_per_s; /* at which its device reads weights; 0: not known */
};

struct wire_pull {
    uint64_t acked_command; /* all commands up to this one were taken */
    uint32_t wait_ms;
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

#endif
