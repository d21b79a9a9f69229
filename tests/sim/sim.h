/*
 * sim.h - a whole cluster on a virtual clock: the real core with the real apply, fill and restore
 * over a store in memory, workers and clients that speak the real wire messages, and a network and
 * a coordinator that fail as the seed says.
 *
 * One thread, no wall clock, no sleep. A seed decides everything but keys: signatures and evidence
 * hashes differ from run to run, the course of events does not.
 */
#ifndef CLOISTER_TESTS_SIM_SIM_H
#define CLOISTER_TESTS_SIM_SIM_H

#include "common/arena.h"
#include "common/buf.h"
#include "common/crypto.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"
#include "proto/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_MS             1000000u /* in ns */
#define SIM_ACTORS_MAX     8u
#define SIM_JOBS_MAX       64u
#define SIM_SLOTS          4u
#define SIM_LEASES         64u
#define SIM_MODELS         3u
#define SIM_TOKENS_MAX     40u
#define SIM_TEXT_PER_TOKEN 16u

struct sim;
struct sim_actor;

/* What can go wrong, in parts of a million. */
struct sim_faults {
    uint32_t lost, doubled;                            /* a message, either way */
    uint32_t crash_before, crash_after;                /* the coordinator, around a commit */
    uint32_t no_space, slow;                           /* a commit */
    uint32_t worker_dies, worker_hangs, worker_leaves; /* in a step of 20 ms */
    uint32_t engine_fails, forgets;                    /* a job, in a step */
};

/* ---- network and clock (sim.c) ---- */

struct sim_call {
    bool under_way;
    uint64_t number; /* of this call: an answer to an older one is not for us */
    struct id request_id;
    enum wire_request_kind kind;
    uint64_t deadline_ns;
};

enum sim_event_kind {
    SIM_REQUEST = 1, /* reaches the coordinator */
    SIM_REPLY,       /* reaches an actor */
    SIM_WAKE,        /* of an actor */
    SIM_TURN,        /* the coordinator ends a turn */
    SIM_COMMITTED,   /* the disk is done */
    SIM_RESTART,
    SIM_SPACE, /* storing works again */
};

struct sim_event {
    uint64_t at_ns;
    uint64_t order;
    enum sim_event_kind kind;
    uint32_t actor;
    uint32_t slot;
    uint64_t number; /* call, or incarnation of the coordinator */
    uint8_t *bytes;
    size_t size;
};

struct sim_actor_ops {
    void (*wake)(struct sim *s, struct sim_actor *a);
    /* reply NULL: none came in time */
    void (*answered)(struct sim *s, struct sim_actor *a, uint32_t slot,
                     const struct wire_reply *reply);
};

/* What the session of either side needs. */
struct sim_peer {
    uint64_t session;
    bool established;
};

struct sim_actor {
    const struct sim_actor_ops *ops;
    uint32_t index;
    char name[16];
    struct crypto_key *key;
    struct sim_peer peer;
    struct sim_call calls[SIM_SLOTS];
    void *own; /* worker or client */
};

struct sim_turn {
    struct arena arena;
    struct core_effects effects;
    size_t n_events;
};

/* A job as its client knows it, and as it must come out. */
struct sim_job {
    struct id id;
    uint32_t client;
    uint32_t model;
    uint64_t seed;
    uint32_t max_tokens;
    uint64_t deadline_ms;
    bool cancel_on_disconnect;
    bool will_cancel;
    uint32_t cancel_after; /* tokens */
    uint64_t start_ns;
    /* the client's view */
    bool accepted, refused, cancelled, over;
    enum wire_job_state state;
    enum wire_finish finish;
    int32_t ids[SIM_TOKENS_MAX + 8];
    uint32_t n_ids;
    uint8_t text[(SIM_TOKENS_MAX + 8) * SIM_TEXT_PER_TOKEN];
    size_t text_size;
    struct wire_work_usage usage;
};

/* Of a worker, in the half of the clusters that have GPUs. */
struct sim_gpu {
    char uuid[8]; /* "GPU-1"; some share one. Empty: it computes on a CPU */
    bool has_nccl;
};

struct sim {
    uint64_t seed, random;
    struct sim_faults faults;
    bool calm; /* faults are over: everything must come to an end */
    uint64_t now_ns, wall_base_ns;
    uint64_t order;
    struct sim_event *heap;
    size_t n_heap, cap_heap;
    uint64_t next_number;

    struct sim_actor actors[SIM_ACTORS_MAX];
    uint32_t n_actors, n_workers;
    struct sim_gpu gpus[SIM_ACTORS_MAX]; /* of workers */
    uint32_t nccl_ranks;                 /* places in gangs over NCCL that were given out */
    uint32_t uneven_ranks;               /* likewise, in gangs with shares that are not even */
    struct sim_job jobs[SIM_JOBS_MAX];
    uint32_t n_jobs;
    uint64_t trace; /* hash over everything that happened */

    /* the coordinator (sim_coordinator.c) */
    struct core_config config;
    struct core_tenant_config tenants[2];
    struct crypto_key *key;
    struct store *store;
    struct ledger *ledger;
    char checkpoint_path[64];
    struct core *core;
    struct core *shadow; /* sees the same events, must come to the same state */
    uint64_t boot_epoch;
    uint64_t incarnation;
    struct sim_turn turns[2], shadow_turn;
    struct sim_turn *gathering, *committing;
    bool turn_set;
    uint64_t commit_ns; /* when the one under way began */
    uint64_t commits, crashes, freezes, restores;
    struct sim_pending {
        bool used;
        uint32_t actor, slot;
        uint64_t number;
        uint64_t session;
        struct id request_id;
    } pending[4096];
    char failure[512]; /* first violated invariant */
};

uint64_t sim_random(struct sim *s);
uint64_t sim_below(struct sim *s, uint64_t n);
bool sim_chance(struct sim *s, uint32_t per_million); /* never once it is calm */
void sim_post(struct sim *s, uint64_t in_ns, struct sim_event event);
void sim_wake(struct sim *s, struct sim_actor *a, uint64_t in_ms);
void sim_fail(struct sim *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_mix(struct sim *s, uint64_t x);
/* Sends a request; the slot must be free. */
void sim_call(struct sim *s, struct sim_actor *a, uint32_t slot, struct wire_request *request,
              uint32_t timeout_ms);
/* Hello, first or second; true once the session stands. */
void sim_hello(struct sim *s, struct sim_actor *a, uint32_t slot, const uint8_t *challenge,
               const struct wire_hello *like);
uint64_t sim_ms(const struct sim *s);

/* Runs one seed to its end; false with s->failure. */
bool sim_run(struct sim *s, uint64_t seed);
void sim_fini(struct sim *s);

/* ---- the coordinator ---- */
void coordinator_open(struct sim *s);
void coordinator_close(struct sim *s);
void coordinator_request(struct sim *s, const struct sim_event *event);
void coordinator_turn(struct sim *s);
void coordinator_committed(struct sim *s);
void coordinator_restart(struct sim *s);
void coordinator_space(struct sim *s);
uint64_t coordinator_tick_ns(const struct sim *s); /* UINT64_MAX while it is down */
void coordinator_tick(struct sim *s);

/* ---- workers and clients ---- */
extern const struct sim_actor_ops sim_worker_ops, sim_client_ops;
void worker_open(struct sim *s, struct sim_actor *a);
void worker_close(struct sim_actor *a);
void client_open(struct sim *s, struct sim_actor *a);
void client_close(struct sim_actor *a);
bool clients_over(const struct sim *s);

extern const char *const sim_model_names[SIM_MODELS];
uint32_t sim_model_index(const char *name); /* of one of them */
/* What an undisturbed run gives: id and text of position `at`, and how long it is. */
int32_t token_id(uint64_t seed, uint32_t at);
size_t token_text(uint64_t seed, uint32_t at, char ret_text[SIM_TEXT_PER_TOKEN]);
uint32_t token_count(uint64_t seed, uint32_t max_tokens, enum wire_finish *ret_finish);
uint32_t prompt_count(uint64_t seed);

/* ---- what must hold (sim_check.c) ---- */
void check_effects(struct sim *s, const struct core_effects *effects);
void check_end(struct sim *s);

#endif
