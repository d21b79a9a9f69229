/*
 * state.h - what the core knows, for the files of coordinator/core alone. Gangs have gang.h.
 *
 * Memory: one struct core_job for every stored job (static-asserted below), and small things for
 * the few that run, wait in a poll or are connected. Allocation failure ends the process (the
 * store is the truth, restart is quick); what peers can make us allocate is bounded at admission.
 */
#ifndef CLOISTER_COORDINATOR_CORE_STATE_H
#define CLOISTER_COORDINATOR_CORE_STATE_H

#include "common/check.h"
#include "common/limits.h"
#include "common/shard_cut.h"
#include "coordinator/core/core.h"
#include "coordinator/core/tree.h"

#include <stdlib.h>
#include <string.h>

/* ---- time ---- */

enum core_timer_kind {
    CORE_TIMER_JOB = 1, /* deadline, or nobody watches */
    CORE_TIMER_WATCH,
    CORE_TIMER_PULL,
    CORE_TIMER_SESSION,
    CORE_TIMER_WORKER,
    CORE_TIMER_MODEL,
};

struct core_timer {
    struct tree_node node;
    uint64_t at_ms;
    uint64_t order; /* kind << 56 | running number: equal times go off as they were set */
};

/* ---- names ---- */

/* An interned string: equal text, equal pointer, while somebody holds it. */
struct core_name {
    struct tree_node node;
    uint32_t holders;
    bool dropped;          /* in the list of names that nobody held */
    uint64_t dropped_turn; /* when the last holder went */
    uint64_t listed_turn;
    struct core_name *next_dropped;
    const char *text;
    char own[];
};

struct core_tenant {
    struct tree_node node;
    const char *name;
    uint64_t budget_tokens; /* 0: no limit */
    uint64_t reserved_tokens;
    uint64_t settled_tokens;
    struct tree jobs; /* core_job.of_tenant: by id */
    bool dirty;
    struct core_tenant *next_dirty;
};

/* Who sent a job: shared by all jobs of one client key. */
struct core_owner {
    struct tree_node node;
    struct core_tenant *tenant;
    const char *principal;
    uint8_t key_fingerprint[32];
    const char *project;
    const char *cost_center;
    uint32_t jobs;
};

struct core_usage {
    struct tree_node node;
    const char *tenant;
    const char *model;
    uint32_t day;
    struct record_usage row;
    bool dirty;
    struct core_usage *next_dirty;
};

/* ---- jobs ---- */

enum core_job_flag {
    CORE_JOB_CANCEL_ON_DISCONNECT = 1,
    CORE_JOB_LISTED = 2, /* in the list of jobs to be looked at when the turn ends */
    CORE_JOB_DIRTY = 4,  /* to be stored then */
    CORE_JOB_NEWS = 8,   /* its watchers have something to hear */
};

struct core_lease;
struct core_watch;
struct core_model;

struct core_job {
    struct id id;
    uint8_t content_digest[32];
    struct core_job *next_hash;
    struct core_job *next_listed;
    struct tree_node by_id;
    struct tree_node of_tenant; /* among its tenant's, by id */
    struct tree_node in_queue;  /* of its model, while QUEUED */
    struct tree_node by_order;  /* of its model's that are queued, or of all that ended */
    struct core_timer timer;
    struct core_model *model;
    struct core_owner *owner;
    struct core_lease *lease;   /* LEASED, RUNNING */
    struct core_watch *watches; /* parked */
    const char *worker;         /* the present or last one; "" before the first */
    char *error_text;           /* NULL: none */
    uint64_t submit_order;
    uint64_t submitted_wall_ns;
    uint64_t submitted_ms;
    uint64_t deadline_wall_ns;
    uint64_t deadline_ms; /* monotonic; UINT64_MAX: none */
    uint64_t started_wall_ns;
    uint64_t ended_wall_ns;
    uint64_t ended_ms;   /* or the start, where that was later */
    uint64_t watched_ms; /* when somebody last watched */
    uint64_t lease_epoch;
    uint64_t prompt_computed; /* this and the next four: attempts that are over */
    uint64_t computed_tokens;
    uint64_t queue_us;
    uint64_t prefill_us;
    uint64_t decode_us;
    uint64_t text_bytes;
    uint64_t reserve_seq;
    uint64_t settle_seq;
    uint32_t prompt_bound;
    uint32_t prompt_tokens;
    uint32_t prompt_cached;
    uint32_t max_tokens;
    uint32_t tokens;
    uint32_t queue_least; /* max_tokens in its subtree of in_queue */
    uint32_t decision;    /* slot in the ring of decisions + 1; 0: none */
    uint8_t state;        /* enum wire_job_state */
    uint8_t job_class;
    uint8_t priority;
    uint8_t finish;
    uint8_t error_code;
    uint8_t attempts;
    uint8_t deaths;
    uint8_t flags;
    uint8_t returns; /* times that workers gave it back since its last token */
};

#define CORE_RETURNS_MAX 16u /* then the job fails: nobody will do it */

_Static_assert(sizeof(struct core_job) <= 448, "a million stored jobs take 448 MB");

struct core_watch {
    struct core_timer timer;
    struct core_watch *next; /* of the same job */
    struct core_job *job;
    uint64_t tag;
    uint64_t session;
    struct id request_id;
    uint32_t first;
};

/* ---- workers and models ---- */

/* Each 0 until it was measured. */
struct core_measure {
    uint64_t bytes; /* of the loaded model */
    uint64_t load_ms;
    uint32_t prefill_tokens_per_s, decode_tokens_per_s;
};

/* One model on one worker. */
struct core_gang;

struct core_hosting {
    struct tree_node by_model;  /* among the workers of its model, by worker name */
    struct tree_node by_worker; /* among the models of its worker, by model name */
    struct core_worker *worker;
    struct core_model *model;
    struct wire_model_offer offer; /* strings interned */
    bool same_file;                /* its digests are the model's */
    enum wire_model_state state;
    bool load_asked, unload_asked;
    char *error;
    uint32_t failures;
    uint64_t failed_ms;
    uint64_t busy_until_ms; /* it turned a job away: not asked again before */
    uint64_t asked_ms;
    uint64_t ready_ms;
    uint64_t used_ms; /* when its last lease ended */
    struct wire_model_status status;
    struct core_measure measured;     /* by this worker, the last that can be true */
    struct core_measure learned_from; /* as it was when the model learned from it */
    uint32_t leases;
    uint64_t lease_tokens;  /* still to come from them, prompts included */
    struct core_gang *gang; /* NULL: the worker has, or would have, the whole model */
    uint32_t rank;          /* in it */
    uint64_t share_bytes;   /* of a gang's rank, until its memory is back; 0: the whole model's */
};

/* Workers that compute one model together. Known from when their loads are asked for until the
 * first of them has left; jobs go to rank 0, whose lease is the gang's. */
struct core_gang_rank {
    const char *worker;           /* held */
    struct core_hosting *hosting; /* NULL: not come back from an earlier life of ours yet */
    uint64_t weight;
    uint64_t need_bytes;       /* of its share, as reckoned when it was formed; 0: not known */
    bool is_guessed;           /* what is claimed for it, until it is READY and says */
    struct wire_bytes address; /* owned; none yet: size 0 */
};

#define CORE_GANGS_OVER_MAX 1024u

/* What a worker may be counted on to have for its share. */
enum gang_room {
    GANG_ROOM_NOW,
    GANG_ROOM_EVICTED,  /* once idle models are unloaded */
    GANG_ROOM_EMPTIED,  /* once all its models are */
    GANG_ROOM_CAPACITY, /* if they were empty, and a model could be cut anywhere */
};

/* Over what ranks talk. Of NCCL: and what it stands on; of the others UNSPECIFIED. */
struct gang_way {
    enum wire_gang_transport transport, control;
};

struct core_gang {
    struct tree_node node;
    uint64_t number;
    uint8_t group[16];
    struct core_model *model;
    struct gang_way way; /* of one that was formed before we were started: not known */
    bool has_met;        /* all addresses were handed out */
    bool has_worked;     /* a token came of it */
    char *why;           /* it was formed */
    uint32_t n_ranks;
    uint32_t n_stages; /* of one that was formed before we were started: 0, not known */
    struct core_gang_rank rank[SHARD_RANKS_MAX];
};

struct core_model {
    struct tree_node node;
    const char *name;
    struct tree hosts; /* core_hosting.by_model */
    struct tree queue; /* core_job.in_queue */
    struct tree ages;  /* core_job.by_order, of those in the queue: the first is the oldest */
    uint64_t queued_tokens;
    uint32_t leased;
    uint32_t jobs;       /* stored ones, over or not */
    uint64_t offered_ms; /* when a worker last had it */
    bool wanted;         /* by the Hello that room is made for */
    bool known;          /* a worker offered it once, now or before a restart */
    bool expected;
    struct record_learned learned; /* strings interned */
    bool learned_dirty;
    struct core_model *next_learned;
    bool place_dirty; /* its queue is to be looked at when the turn ends */
    struct core_model *next_place;
    struct core_timer timer; /* to look again: a residency or a retry is over */
    uint32_t look_reach;     /* the context where the next look goes on; 0: with the longest */
    bool look_again;         /* something has changed above it meanwhile */
    char *gang_over;         /* why its last gang ended; NULL: there was none */
    uint64_t gang_after_ms;  /* the next is not formed, or looked for, before */
    struct {
        enum gang_room room; /* by the rooms before it there is none */
        uint32_t next;       /* gang_choice.next; 0: it came to its end */
        uint64_t at_ms;
    } gang_look;            /* where the last look for one ran out of time */
    uint32_t gang_failures; /* in a row that brought no token */
    uint64_t gang_failed;   /* the number of the last of them to be formed; 0: none */
    bool gang_worked;       /* one has brought some */
    uint64_t nccl_after_ms; /* until then its gangs do without NCCL, if they can */
    uint32_t nccl_failures; /* in a row, of gangs over NCCL that brought no token */
    uint64_t nccl_failed;   /* the number of the last of them to be formed; 0: none */
};

struct core_session;

struct core_worker {
    struct tree_node node;
    const char *name;
    uint8_t public_key[32];
    uint8_t key_fingerprint[32];
    enum wire_worker_state state;
    bool awaited; /* known from the store only; has not come back yet */
    struct core_session *session;
    struct core_timer timer;
    uint64_t heard_ms;
    uint64_t heard_held_ms; /* core.held_ms then */
    uint32_t returns;       /* times in a row that it gave jobs back, no token in between */
    uint64_t back_until_ms; /* it gave jobs back again: gets no other before */
    const char *device, *isa, *build;
    uint32_t threads;
    uint8_t host[16];
    uint32_t transports;
    struct wire_nccl nccl;     /* names interned; no version: it has none */
    uint64_t read_bytes_per_s; /* of its device; 0: not known, LIMIT_READ_BYTES_PER_S at most */
    struct wire_memory memory;
    struct wire_gpu gpu; /* names interned; an empty uuid: it has none */
    uint64_t metered_ms; /* when its counter was last recorded; 0: not since our start */
    struct tree hosting; /* core_hosting.by_worker */
    struct tree leases;  /* core_lease.node */
    uint64_t lease_tokens;
    uint64_t tokens;
    const struct core_model *making_room; /* the others get no new jobs until it is loaded */
    uint64_t room_bytes;                  /* that it is to have */
};

struct core_lease {
    struct tree_node node; /* of its worker, by job id */
    struct core_job *job;
    struct core_worker *worker;
    struct core_hosting *hosting; /* NULL until an awaited worker is back */
    uint64_t epoch;
    bool handed;                  /* its RUN was given to the worker, which may have begun it */
    uint64_t load_tokens;         /* what it adds to lease_tokens now */
    uint64_t moved_ms;            /* last token, or the start */
    uint64_t heard_ms;            /* when the worker last spoke of it, or the start */
    uint64_t heard_held_ms;       /* core.held_ms then */
    struct wire_work_usage usage; /* of this attempt */
};

/* ---- sessions ---- */

struct core_command {
    struct core_command *next;
    uint64_t seq;
    enum wire_command_kind kind;
    const char *model; /* held; NULL: none */
    struct id job_id;
    uint64_t epoch; /* RUN, CANCEL: the lease's; LOAD, MEET: the gang's number, 0: none */
};

struct core_session {
    struct tree_node node;
    struct tree_node opened; /* while it has said Hello once */
    struct tree_node by_connection;
    struct tree_node by_key; /* an established client's */
    uint64_t order;          /* when it began, or was last found to be in use, among its key's */
    uint64_t order_ms;
    uint64_t id;
    uint64_t connection; /* it is good on this one alone */
    enum wire_role role;
    bool established;
    const char *node_name;
    uint8_t public_key[32];
    uint8_t challenge[CORE_CHALLENGE_BYTES];
    struct core_tenant *tenant; /* clients */
    uint8_t key_fingerprint[32];
    bool is_operator;
    struct core_timer timer;
    uint64_t heard_ms;
    /* workers */
    struct core_worker *worker;
    struct core_command *outbox, **outbox_end;
    uint64_t next_command;
    bool pull_parked;
    uint64_t pull_tag;
    struct id pull_request_id;
    struct core_timer pull_timer;
    bool deliver; /* in the list of those with something to pull */
    struct core_session *next_deliver;
};

/* ---- decisions, kept for explain ---- */

#define CORE_DECISIONS           4096u
#define CORE_DECISION_CANDIDATES 16u

struct core_decision {
    struct id job_id;
    uint64_t wall_ns;
    struct wire_candidate *candidates; /* details owned, names interned */
    size_t n_candidates;
    size_t n_considered;
};

struct core {
    const struct core_config *config;

    uint64_t now_ms;
    uint64_t mono_ns;
    uint64_t wall_ns;
    uint64_t started_ms;
    uint64_t boot_epoch;
    uint64_t ledger_size;
    uint64_t heard_ms; /* time of the last event: a gap means that we were held up */
    uint64_t held_ms;  /* time in all that we were: it counts against nobody */

    bool frozen;
    enum err frozen_code;
    char *frozen_text; /* why */
    bool stopping;

    struct tree timers;
    uint64_t timer_order;
    struct tree names;
    struct core_name *dropped_names, **dropped_names_end;
    uint64_t turns; /* that have ended */
    struct tree tenants;
    struct tree owners;
    struct tree usages;

    struct core_job **buckets;
    size_t n_buckets;
    struct tree jobs;  /* by id */
    struct tree ended; /* as they ended: the first is removed first */
    uint64_t next_order;
    uint64_t count[9]; /* per state */
    uint64_t queued_tokens;

    struct tree models;
    struct tree workers;
    struct tree gangs;    /* by number */
    uint64_t gang_number; /* the last one given */
    /* Of earlier boots, those that have ended since: no member that comes back later has one of
     * them. Until the time of grace is over. */
    uint64_t gangs_over[CORE_GANGS_OVER_MAX];
    size_t n_gangs_over;
    struct tree sessions;
    struct tree sessions_open; /* not yet established: the oldest first */
    struct tree sessions_by_connection;
    struct tree sessions_by_key; /* established clients' */
    uint64_t session_order;
    uint64_t swept_ms; /* when quiet clients were last looked for */

    struct core_decision *decisions;
    uint32_t next_decision;

    struct core_job *listed_jobs, **listed_jobs_end;
    size_t n_listed;
    size_t tick_work;  /* of this turn, up to CORE_TURN_WORK_MAX */
    size_t place_work; /* likewise, of queues that are looked at */
    struct core_tenant *dirty_tenants;
    struct core_usage *dirty_usages;
    struct core_model *dirty_learned;
    struct core_model *place_models;
    struct core_session *deliver_sessions;

    /* tokens that ended per second, smoothed: what retry-after is worked out from */
    uint64_t rate_window_ms;
    uint64_t rate_window_tokens;
    uint64_t rate_milli_tokens_per_s;

    uint64_t n_parked;
    uint64_t stale_reports;
};

/* ---- core.c ---- */
void *core_alloc(size_t size); /* zeroed; never NULL */

/* ---- timer.c ---- */
int timer_compare(const struct tree_node *a, const struct tree_node *b);
void timer_set(struct core *c, struct core_timer *t, enum core_timer_kind kind, uint64_t at_ms);
void timer_clear(struct core *c, struct core_timer *t); /* fine where it is not set */
enum core_timer_kind timer_kind(const struct core_timer *t);

/* ---- names.c ---- */
void names_init(struct core *c);
void names_free(struct core *c);
const char *name_intern(struct core *c,
                        const char *text); /* and held: until name_drop, or for good */
/* The text itself stays until no effect of this turn can point to it any more. */
void name_drop(struct core *c, const char *text);
void name_replace(struct core *c, const char **name, const char *text);
void names_sweep(struct core *c); /* when a turn ends */

/* ---- tenant.c ---- */
struct core_tenant *tenant_find(const struct core *c, const char *name);
struct core_tenant *tenant_get(struct core *c, const char *name); /* made where missing */
void tenant_touch(struct core *c, struct core_tenant *t);
/* One job more, or one less, is theirs: without any they are forgotten. */
struct core_owner *owner_hold(struct core *c, const struct core_owner *like);
void owner_drop(struct core *c, struct core_owner *o);
struct core_usage *usage_get(struct core *c, const char *tenant, const char *model, uint32_t day);
void usage_touch(struct core *c, struct core_usage *u);
void tenants_init(struct core *c);
void tenants_free(struct core *c);

/* ---- effects.c ---- */
struct core_effect *effect_add(struct core_effects *fx, enum core_effect_kind kind);
/* Copies into the arena of the turn. */
const char *effect_text(struct core_effects *fx, const char *text);
const char *effect_printf(struct core_effects *fx, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void *effect_alloc(struct core_effects *fx, size_t count, size_t size);
struct core_effect *reply_add(struct core_effects *fx, uint64_t tag, uint64_t session,
                              const struct id *request_id, int kind);
struct core_effect *reply_to(struct core_effects *fx, const struct core_event *event);
void reply_error(struct core_effects *fx, const struct core_event *event, enum err code,
                 uint64_t retry_after_ms, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- job.c ---- */
struct core_job *job_find(const struct core *c, const struct id *id);
struct core_job *job_new(struct core *c, const struct id *id, struct core_owner *owner);
int job_id_order(const struct core_job *a, const struct core_job *b);
void job_remove(struct core *c, struct core_job *j, struct core_effects *fx);
void job_free(struct core_job *j);
void job_move(struct core *c, struct core_job *j, enum wire_job_state to);
bool job_move_is_legal(enum wire_job_state from, enum wire_job_state to);
void job_touch(struct core *c, struct core_job *j, unsigned flags);
void job_set_error(struct core_job *j, enum err code, const char *text);
void job_record(const struct core_job *j, struct record_job *ret_record);
void job_usage(const struct core_job *j, struct wire_work_usage *ret_usage);
uint64_t job_reserved_tokens(const struct core_job *j);
/* Ends a job that is not ended: lease, queue, ledger, budget, usage, watchers. */
void job_end(struct core *c, struct core_job *j, enum wire_job_state state, enum wire_finish finish,
             enum err code, const char *text, struct core_effects *fx);
void job_timer_set(struct core *c, struct core_job *j);
void job_timer_fire(struct core *c, struct core_job *j, struct core_effects *fx);
bool job_is_ended(const struct core_job *j);
int ended_compare(const struct tree_node *a, const struct tree_node *b);

/* ---- queue.c ---- */
int queue_compare(const struct tree_node *a, const struct tree_node *b);
void queue_init(struct core_model *m);
int queue_order_compare(const struct tree_node *a, const struct tree_node *b);
void queue_insert(struct core *c, struct core_job *j);
void queue_remove(struct core *c, struct core_job *j);
uint32_t queue_ahead(const struct core_job *j);
/* The first whose max_tokens are no more than `limit`; NULL where there is none. */
struct core_job *queue_first_within(const struct core_model *m, uint32_t limit);
uint64_t queue_oldest_ms(const struct core *c, const struct core_model *m); /* age; 0: empty */
uint64_t job_load_tokens(const struct core_job *j);
void rate_count(struct core *c, uint64_t tokens);
uint64_t rate_retry_after_ms(const struct core *c, uint64_t tokens);

/* ---- submit.c ---- */
uint32_t prompt_tokens_bound(const struct core_model *m, const struct wire_job *job);
void submit_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx);
void cancel_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx);

/* ---- model.c ---- */
struct core_model *model_find(const struct core *c, const char *name);
struct core_model *model_get(struct core *c, const char *name);
void model_touch(struct core *c, struct core_model *m); /* look at its queue */
void model_learned_touch(struct core *c, struct core_model *m);
/* Where these would be more than may be known, models that no worker has any more, and no stored
 * job asks for, are forgotten, the longest unseen first. Returns how many would be known then. */
size_t models_make_room(struct core *c, const struct wire_worker_hello *hello,
                        struct core_effects *fx);
struct core_hosting *hosting_find(const struct core_worker *w, const char *model);
void hosting_offer(struct core *c, struct core_worker *w, const struct wire_model_offer *offer);
void hosting_status(struct core *c, struct core_worker *w, const struct wire_model_status *status,
                    struct core_effects *fx);
void hosting_remove(struct core *c, struct core_hosting *h);
/* Where nobody serves the file that the name stands for any more, and no job of it is unfinished,
 * the name moves to one that is served. */
void model_choose_file(struct core *c, struct core_model *m);
/* The greatest of what the workers that have the model's file say of its prompts; where none is
 * here, what the last of them said; where nobody said, a rate that is enough for any vocabulary and
 * for a template that brings no more than a few thousand tokens of its own. */
struct prompt_rate {
    uint32_t per_job, per_message, per_kib;
};
struct prompt_rate model_prompt_rate(const struct core_model *m);
uint64_t hosting_need_bytes(const struct core_hosting *h);
uint64_t hosting_load_ms(const struct core_hosting *h);      /* 0: not known */
uint32_t hosting_tokens_per_s(const struct core_hosting *h); /* 0: not known */
bool hosting_holds_memory(const struct core_hosting *h);
/* It failed so often that jobs are not kept waiting for the next try. */
bool hosting_is_given_up(const struct core *c, const struct core_hosting *h);
/* As what it is wanted for: the whole model, or its rank of the gang. */
bool hosting_is_ready(const struct core_hosting *h);
bool hosting_is_loading(const struct core_hosting *h);
void hosting_unload(struct core *c, struct core_hosting *h);
void models_init(struct core *c);
void models_free(struct core *c);

/* ---- worker.c ---- */
struct core_worker *worker_find(const struct core *c, const char *name);
struct core_worker *worker_get(struct core *c, const char *name);
/* Where as many are known as may be, the one that has been gone for the longest time is forgotten.
 * False where none of them is gone. */
bool workers_make_room(struct core *c);
void worker_hello(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx);
void worker_heard(struct core *c, struct core_worker *w);
/* For how long, without the time in which we could not have heard. */
uint64_t worker_silent_ms(const struct core *c, const struct core_worker *w);
/* Jobs came back from it: it gets others only after a while, the longer the more often this happens
 * without a token in between. */
void worker_gave_back(struct core *c, struct core_worker *w);
void worker_timer_fire(struct core *c, struct core_worker *w, struct core_effects *fx);
void worker_lost(struct core *c, struct core_worker *w, bool died, struct core_effects *fx);
void worker_memory(struct core_worker *w, const struct wire_memory *memory);
void worker_gpus(struct core *c, struct core_worker *w, const struct wire_gpu *gpus, size_t n_gpus);
uint64_t worker_capacity_bytes(const struct core_worker *w);
uint64_t worker_claimed_bytes(const struct core_worker *w);
uint64_t worker_pending_bytes(const struct core_worker *w);
uint64_t worker_stranger_bytes(const struct core_worker *w);
void workers_touch_models(struct core *c, struct core_worker *w);
void workers_init(struct core *c);
void workers_free(struct core *c);

/* ---- lease.c ---- */
struct core_lease *lease_new(struct core *c, struct core_job *j, struct core_worker *w,
                             struct core_hosting *h);
/* Takes it from the worker; the attempt's usage goes into the job's totals. */
void lease_end(struct core *c, struct core_lease *l);
void lease_reload(struct core *c, struct core_lease *l); /* its load_tokens may have changed */
void lease_bind(struct core *c, struct core_lease *l, struct core_hosting *h);
/* Tells the worker to stop; the lease itself stays until it is ended. */
void lease_stop(struct core *c, struct core_lease *l);
void lease_heard(const struct core *c, struct core_lease *l);
uint64_t lease_silent_ms(const struct core *c, const struct core_lease *l);
/* We were held up since its worker last spoke of it: the worker may have given it up for that. */
bool lease_was_held_up(const struct core *c, const struct core_lease *l);
/* Back to the queue with the tokens it has. */
enum lease_fault {
    LEASE_FAULT_NONE,   /* nobody's: it never began, or we were away */
    LEASE_FAULT_DEATH,  /* worker or engine ended with it: counts towards quarantine */
    LEASE_FAULT_RETURN, /* the worker gave it back: counts, until a token comes */
    LEASE_FAULT_FULL,   /* likewise for want of room: counts where the worker does nothing else */
};
void lease_requeue(struct core *c, struct core_lease *l, enum lease_fault fault, const char *why,
                   struct core_effects *fx);
/* Of a lease whose worker, or one of its gang, is gone. */
enum lease_fault lease_fault_of_death(const struct core_lease *l);

/* ---- session.c ---- */
struct core_session *session_find(const struct core *c, uint64_t id);
/* The request's, where it came on that session's connection; else NULL. */
struct core_session *session_of(const struct core *c, const struct core_event *event);
void session_hello(struct core *c, const struct core_event *event, struct core_effects *fx);
void session_end(struct core *c, struct core_session *s, struct core_effects *fx);
void session_heard(struct core *c, struct core_session *s);
bool session_may_see(const struct core_session *s, const struct core_job *j);
struct core_command *session_command(struct core *c, struct core_session *s,
                                     enum wire_command_kind kind);
void session_pull(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx);
void session_deliver(struct core *c, struct core_session *s);
void session_pull_answer(struct core *c, struct core_session *s, struct core_effects *fx);
void session_timer_fire(struct core *c, struct core_session *s, struct core_effects *fx);
void sessions_init(struct core *c);
void session_goodbye(struct core *c, const struct core_event *event, struct core_session *s,
                     struct core_effects *fx);
void sessions_free(struct core *c);

/* ---- report.c ---- */
void report_step(struct core *c, const struct core_event *event, struct core_session *s,
                 struct core_effects *fx);

/* ---- watch.c ---- */
void watch_step(struct core *c, const struct core_event *event, struct core_session *s,
                struct core_effects *fx);
void watch_answer_all(struct core *c, struct core_job *j, bool even_without_news,
                      struct core_effects *fx);
void watch_timer_fire(struct core *c, struct core_watch *w, struct core_effects *fx);
void watches_free(struct core_job *j);

/* ---- placement.c, explain.c ---- */
struct placement_row {
    struct core_hosting *hosting;
    const char *predicate; /* NULL: it could take the job now, or after a load */
    char detail[192];
    uint64_t need_bytes, free_bytes, unclaimed_bytes;
    uint64_t queued_tokens;
    uint32_t tokens_per_s;
    uint64_t load_ms;
    uint64_t cost_ms;
    bool ready;   /* loaded there */
    bool loading; /* or asked to */
    bool evict;   /* fits once idle models are unloaded */
};
void placement_judge(const struct core *c, const struct core_job *j, struct core_hosting *h,
                     struct placement_row *ret_row);
void placement_run(struct core *c, struct core_model *m, struct core_effects *fx);
void explain_keep(struct core *c, struct core_job *j, const struct placement_row *rows,
                  size_t n_rows, size_t chosen);
void explain_step(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx);
void explain_free(struct core *c);

/* Both numbers must allow a load: what the device says is free, and what is left of the capacity
 * after every claim. Strangers show up in the first, loads under way in the second. */
uint64_t worker_room_bytes(const struct core_worker *w);
/* Of models that are being unloaded. */
uint64_t worker_leaving_bytes(const struct core_worker *w);
/* It is not emptied any more. */
void worker_room_clear(struct core *c, struct core_worker *w);
/* Of models that could be unloaded. */
uint64_t worker_evictable_bytes(const struct core *c, const struct core_worker *w);
/* If it were emptied of models: strangers may have taken what that would bring. */
uint64_t worker_emptied_bytes(const struct core_worker *w);
/* Unloads idle models, the longest unused first, until there is room. */
void worker_evict(struct core *c, struct core_worker *w, uint64_t need_bytes,
                  struct core_effects *fx);

/* ---- ledger_rules.c ---- */
struct ledger_rule {
    enum wire_job_state outcome;
    bool computed; /* the prompt was computed, or tokens were delivered */
    enum record_ledger_kind kind;
    bool bill_prompt;
    bool bill_completion;
};
const struct ledger_rule *ledger_rule_for(enum wire_job_state outcome, bool computed);
void ledger_reserve(struct core *c, struct core_job *j, struct core_effects *fx);
void ledger_finish(struct core *c, struct core_job *j, struct core_effects *fx);
void ledger_meter(struct core *c, struct core_worker *w, struct core_effects *fx);

/* ---- list.c, status.c ---- */
void job_info(const struct core *c, const struct core_job *j, struct core_effects *fx,
              struct wire_job_info *ret_info);
void list_jobs_step(struct core *c, const struct core_event *event, struct core_session *s,
                    struct core_effects *fx);
void get_job_step(struct core *c, const struct core_event *event, struct core_session *s,
                  struct core_effects *fx);
void list_workers_step(struct core *c, const struct core_event *event, struct core_effects *fx);
void list_models_step(struct core *c, const struct core_event *event, struct core_effects *fx);
void usage_step(struct core *c, const struct core_event *event, struct core_session *s,
                struct core_effects *fx);
void ledger_range_step(struct core *c, const struct core_event *event, struct core_session *s,
                       struct core_effects *fx);
void status_step(struct core *c, const struct core_event *event, struct core_effects *fx);

#endif
