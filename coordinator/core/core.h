/*
 * core.h - the coordinator as a pure machine: events in, effects out.
 *
 * It owns what the cluster knows: jobs, queues, sessions, workers, leases, budgets. It has no
 * clock, no randomness, no disk and no socket: time and random bits are fields of the event, and
 * everything it wants done in the world is an effect that the caller carries out. The same events
 * give the same effects and the same core_state_hash(), on any machine.
 *
 * A turn is any number of events, ended by CORE_EVENT_TURN_END. The effects of one turn are one
 * transaction: the caller first makes all of its PUT, DELETE and LEDGER effects durable, together,
 * and only then sends its REPLY effects. When that fails the core has gone ahead of the disk: the
 * caller frees it and restores another from the store; nothing of the turn was said to anyone.
 *
 * What is large stays out of memory: prompts and tokens are read from the store when a reply
 * needs them (`enum core_fill`).
 *
 * What requests ask for is bounded by who gathers them. What the core does by itself in a turn,
 * when time has passed or a queue moves, is bounded by CORE_TURN_WORK_MAX: the rest is due at once,
 * in the next turn.
 *
 * Ownership: an event's pointers must live as long as the effects of its turn, which point into
 * them. Thread: one owner. The strings that effects point to are immutable and live until the turn
 * after theirs has ended too, so that another thread may carry the effects out: a turn may be ended
 * while those of the one before are under way, and the next one only when they are done.
 */
#ifndef CLOISTER_COORDINATOR_CORE_CORE_H
#define CLOISTER_COORDINATOR_CORE_CORE_H

#include "common/arena.h"
#include "common/err.h"
#include "common/id.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct core;

/* ---- configuration ---- */

struct core_tenant_config {
    const char *name;
    uint64_t budget_tokens; /* 0: no limit */
};

struct core_key_config {
    uint8_t public_key[32];
    const char *name;   /* the node that may use it; empty: any name */
    const char *tenant; /* clients */
    bool is_operator;   /* clients: sees and cancels every tenant's jobs */
};

/* How a model is cut that several workers compute together. */
enum core_gang_split {
    CORE_GANG_SPLIT_AUTO = 0,   /* whichever is better */
    CORE_GANG_SPLIT_SHARDS = 1, /* each has a part of every layer */
    CORE_GANG_SPLIT_STAGES = 2, /* each has some of the layers */
    /* Each host has some of the layers, and each of its workers a part of those; stages where hosts
     * have not as many workers each. */
    CORE_GANG_SPLIT_HOSTS = 3,
};

struct core_config {
    const char *node; /* this coordinator's name */
    const char *build;
    uint8_t public_key[32];

    uint64_t heartbeat_ms;    /* workers report at least this often */
    uint64_t lease_ms;        /* silence after which a worker's leases go elsewhere */
    uint64_t grace_ms;        /* after a restart: how long workers have to come back */
    uint64_t disconnect_ms;   /* cancel_on_disconnect: how long nobody may watch */
    uint64_t session_idle_ms; /* a client session unheard for this long is forgotten */
    uint64_t residency_ms;    /* a model stays loaded this long before it may be unloaded */
    uint64_t load_retry_ms;   /* a model that failed to load is tried again after this */
    uint64_t energy_ms;       /* a GPU's energy counter is recorded this often; 0: never */
    uint64_t stall_ms;        /* health: the oldest thing that should have moved */

    uint64_t queue_jobs_max;
    uint64_t queue_tokens_max;
    uint64_t queue_age_max_ms; /* of the oldest waiting job, before new ones are turned away */
    uint32_t worker_leases_max;
    uint32_t gang_workers_max; /* that may compute a model together; below 2: none do */
    enum core_gang_split gang_split;
    uint32_t default_max_tokens;
    /* Above this those that ended first are removed, a minute after their end; the ledger stays. */
    uint64_t retain_ended_jobs;

    const struct core_tenant_config *tenants;
    size_t n_tenants;
    uint64_t default_budget_tokens; /* of tenants that are not listed; 0: no limit */

    /* Nobody listed: any key is let in. The caller allows that on loopback only. */
    bool open_workers, open_clients;
    const struct core_key_config *workers;
    size_t n_workers;
    const struct core_key_config *clients;
    size_t n_clients;
    const char *const *expected_models; /* jobs for these wait even before any worker came */
    size_t n_expected_models;
    uint32_t tree_seed; /* secret: job ids are chosen by clients (tree.h) */
};

void core_config_defaults(struct core_config *config);

/* ---- events ---- */

enum core_event_kind {
    CORE_EVENT_REQUEST = 1,
    CORE_EVENT_TICK,     /* time has passed */
    CORE_EVENT_FREEZE,   /* nothing can be stored: refuse what would need it, with `reason` */
    CORE_EVENT_UNFREEZE, /* storing works again */
    CORE_EVENT_STOP,     /* shutting down: no new jobs, parked requests are answered */
    CORE_EVENT_JOB_LOST, /* what is stored of `job_id` cannot be read any more: `reason` */
    CORE_EVENT_TURN_END,
};

struct core_event {
    enum core_event_kind kind;
    /* Replies have been held back for long (a slow commit): who is silent may be waiting for one.
     * The time since the last event counts against no worker. */
    bool held_back;
    uint64_t mono_ns;
    uint64_t wall_ns;
    uint64_t random[5]; /* fresh bits, with every Hello */

    /* REQUEST. `tag` names the way back and returns in the one REPLY to it; `connection` is what it
     * came on: a session is good on the one that it was opened on. */
    uint64_t tag;
    uint64_t connection;
    const struct wire_request *request;
    /* What only the caller can work out, because it takes cryptography or packing: */
    bool hello_verified;          /* Hello: the signature over our challenge is right */
    uint8_t key_fingerprint[32];  /* Hello: SHA-256 of the public key */
    struct wire_bytes packed_job; /* Submit: wire_job_encode */
    uint8_t content_digest[32];   /* Submit: SHA-256 of packed_job */

    struct id job_id;   /* JOB_LOST */
    const char *reason; /* FREEZE, JOB_LOST */
    enum err code;      /* FREEZE: what everybody is told, ERR_NO_SPACE or ERR_FORKED */
};

/* ---- effects ---- */

enum core_effect_kind {
    CORE_EFFECT_PUT_JOB = 1,
    CORE_EFFECT_PUT_CONTENT,
    CORE_EFFECT_PUT_CHUNK,
    CORE_EFFECT_DELETE_JOB, /* record, content and chunks */
    CORE_EFFECT_PUT_USAGE,
    CORE_EFFECT_PUT_BALANCE,
    CORE_EFFECT_PUT_LEARNED,
    CORE_EFFECT_DELETE_LEARNED, /* of `learned.model`; the rest is empty */
    CORE_EFFECT_LEDGER,
    CORE_EFFECT_REPLY,
};

/* What the caller adds to a reply from the store before it is packed. */
enum core_fill {
    CORE_FILL_NONE,
    CORE_FILL_HELLO,    /* sign; `hello` has the sender's nonce */
    CORE_FILL_COMMANDS, /* each RUN's job (with `max_tokens` of the record) and resume ids */
    CORE_FILL_TOKENS,   /* Watch: tokens [first, tokens), whole chunks, and their text */
    CORE_FILL_CONTENT,  /* GetJob: the Job */
    CORE_FILL_LEDGER,   /* LedgerRange: everything */
    CORE_FILL_STATUS,   /* what the core cannot know: store, ledger, commits, requests */
};

/* Of one RUN command. */
struct core_run_fill {
    uint32_t max_tokens;
    uint32_t tokens; /* completion tokens stored: the resume ids */
};

struct core_effect {
    struct core_effect *next;
    enum core_effect_kind kind;
    struct id job_id; /* PUT_CONTENT, PUT_CHUNK, DELETE_JOB */
    union {
        struct record_job job;
        struct wire_bytes content;
        struct {
            uint32_t first;
            struct record_chunk record;
        } chunk;
        struct record_usage usage;
        struct record_balance balance;
        struct record_learned learned;
        /* `seq` is the number it must get: the core counts along, the log must agree. What
         * comes from the job's content and tokens (seed, sampling_digest, prompt_hash, and
         * output_hash where tokens were delivered) is for the caller to fill in. */
        struct record_ledger ledger;
        struct {
            uint64_t tag;
            enum core_fill fill;
            /* Says nothing that has to be durable first, so it may leave before. */
            bool promises_nothing;
            struct wire_reply reply;
            uint8_t nonce[32];                /* FILL_HELLO */
            struct wire_hello hello;          /* FILL_HELLO */
            const struct core_run_fill *runs; /* FILL_COMMANDS: [n_commands] */
            uint32_t tokens;                  /* FILL_TOKENS */
            struct wire_ledger_range range;   /* FILL_LEDGER */
        } reply;
    };
};

struct core_effects {
    struct arena *arena; /* what the effects are made in */
    struct core_effect *first, *last;
    size_t n_persist; /* effects that must be durable before any reply leaves */
    size_t n_replies;
};

void core_effects_init(struct core_effects *effects, struct arena *arena);

/* ---- the machine ---- */

/* Of a turn: timers that go off and jobs that they change, and as many jobs placed or given up. */
#define CORE_TURN_WORK_MAX 8192u

/* `config` and all that it points to are borrowed while the core lives. */
struct core *core_new(const struct core_config *config);
void core_free(struct core *c);

/* Restoring: everything stored, in any order, then the end. ERR_CORRUPT where records do not fit
 * together (job ids twice, a state that cannot be). */
enum err core_restore_job(struct core *c, const struct record_job *record, struct errbuf *eb);
enum err core_restore_usage(struct core *c, const struct record_usage *record, struct errbuf *eb);
enum err core_restore_balance(struct core *c, const struct record_balance *record,
                              struct errbuf *eb);
enum err core_restore_learned(struct core *c, const struct record_learned *record,
                              struct errbuf *eb);
/* Leases go on for grace_ms. Checks that each tenant's reserved tokens are those of its unfinished
 * jobs. */
enum err core_restore_end(struct core *c, uint64_t mono_ns, uint64_t wall_ns, uint64_t boot_epoch,
                          uint64_t ledger_size, struct errbuf *eb);

/* Of the table in ledger_rules.c; every record of a job's end says it. */
#define LEDGER_POLICY_ID 1u
/* Prompt tokens that a record of a job's end makes its tenant owe: what balance and usage count. */
uint64_t core_ledger_prompt_billable(const struct record_ledger *record);

void core_step(struct core *c, const struct core_event *event, struct core_effects *effects);

/* The challenge given to a session that has said its first Hello; false where there is none. */
#define CORE_CHALLENGE_BYTES 32u
bool core_session_challenge(const struct core *c, uint64_t session,
                            uint8_t ret_challenge[CORE_CHALLENGE_BYTES]);
/* The key of a worker's session whose both Hellos were said; false where it is none. */
bool core_session_worker_key(const struct core *c, uint64_t session, uint8_t ret_public_key[32]);
/* Whether both Hellos of it were said, on that connection. */
bool core_session_established(const struct core *c, uint64_t session, uint64_t connection);
/* When the next TICK is due, in monotonic ms; UINT64_MAX: nothing waits for time. */
uint64_t core_next_ms(const struct core *c);
bool core_frozen(const struct core *c);
/* Over everything that decides what happens next, in id order. */
uint64_t core_state_hash(const struct core *c);

#endif
