/*
 * core.c - one step: the event goes to the file that knows about it; at the end of a turn jobs are
 * placed, polls answered, and everything that changed is handed out to be stored, once.
 */
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#define REMOVALS_PER_TURN 256u
#define KEPT_MS           (2 * LIMIT_POLL_MS) /* whoever waited for the end has come back by then */

void *core_alloc(size_t size)
{
    void *p = calloc(1, size);
    CHECK(p != NULL);
    return p;
}

void core_config_defaults(struct core_config *config)
{
    *config = (struct core_config){
        .node = "coordinator",
        .build = "",
        .heartbeat_ms = 1000,
        .lease_ms = 10000,
        .grace_ms = 20000,
        .disconnect_ms = 15000,
        .session_idle_ms = 3600000,
        .residency_ms = 30000,
        .load_retry_ms = 30000,
        .energy_ms = 600000,
        .stall_ms = 120000,
        .queue_jobs_max = 1000000,
        .queue_tokens_max = 2000000000,
        .queue_age_max_ms = 24ull * 3600 * 1000,
        .worker_leases_max = 64,
        .gang_workers_max = SHARD_RANKS_MAX,
        .default_max_tokens = 512,
        .retain_ended_jobs = 1000000,
        .open_workers = true,
        .open_clients = true,
    };
}

static int job_id_compare(const struct tree_node *a, const struct tree_node *b)
{
    return job_id_order(tree_entry(a, const struct core_job, by_id),
                        tree_entry(b, const struct core_job, by_id));
}

struct core *core_new(const struct core_config *config)
{
    struct core *c = core_alloc(sizeof *c);
    c->config = config;
    c->listed_jobs_end = &c->listed_jobs;
    tree_init(&c->timers, timer_compare);
    tree_init(&c->jobs, job_id_compare);
    tree_seed(&c->jobs, config->tree_seed);
    tree_init(&c->ended, ended_compare);
    names_init(c);
    tenants_init(c);
    models_init(c);
    workers_init(c);
    gangs_init(c);
    sessions_init(c);
    for (size_t i = 0; i < config->n_tenants; i++)
        (void)tenant_get(c, config->tenants[i].name);
    for (size_t i = 0; i < config->n_expected_models; i++)
        model_get(c, config->expected_models[i])->expected = true;
    return c;
}

void core_free(struct core *c)
{
    struct tree_node *n;
    if (c == NULL)
        return;
    explain_free(c);
    sessions_free(c);
    workers_free(c);
    gangs_free(c);
    while ((n = c->jobs.root) != NULL) {
        struct core_job *j = tree_entry(n, struct core_job, by_id);
        watches_free(j);
        tree_remove(&c->jobs, n);
        job_free(j);
    }
    models_free(c);
    tenants_free(c);
    names_free(c);
    free(c->buckets);
    free(c->frozen_text);
    free(c);
}

bool core_frozen(const struct core *c)
{
    return c->frozen;
}

uint64_t core_next_ms(const struct core *c)
{
    const struct core_timer *t = tree_entry(tree_first(&c->timers), const struct core_timer, node);
    /* Often enough to tell a silent worker from a moment in which we were held up ourselves. */
    uint64_t own = c->heard_ms + c->config->lease_ms / 8;
    if (c->tick_work >= CORE_TURN_WORK_MAX) /* this turn has to end first */
        return own;
    return t != NULL && t->at_ms < own ? t->at_ms : own;
}

/* ---- requests ---- */

static void request_from_worker(struct core *c, const struct core_event *event,
                                struct core_session *s, struct core_effects *fx)
{
    switch (event->request->kind) {
    case WIRE_REQUEST_PULL:
        session_pull(c, event, s, fx);
        break;
    case WIRE_REQUEST_REPORT:
        report_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_GOODBYE:
        session_goodbye(c, event, s, fx);
        break;
    default:
        reply_error(fx, event, ERR_REFUSED, 0, "this request is for clients, not for workers");
        break;
    }
}

static void request_from_client(struct core *c, const struct core_event *event,
                                struct core_session *s, struct core_effects *fx)
{
    switch (event->request->kind) {
    case WIRE_REQUEST_SUBMIT:
        submit_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_WATCH:
        watch_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_CANCEL:
        cancel_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_LIST_JOBS:
        list_jobs_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_GET_JOB:
        get_job_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_EXPLAIN:
        explain_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_LIST_WORKERS:
        list_workers_step(c, event, fx);
        break;
    case WIRE_REQUEST_LIST_MODELS:
        list_models_step(c, event, fx);
        break;
    case WIRE_REQUEST_USAGE:
        usage_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_LEDGER_RANGE:
        ledger_range_step(c, event, s, fx);
        break;
    case WIRE_REQUEST_STATUS:
        status_step(c, event, fx);
        break;
    case WIRE_REQUEST_GOODBYE:
        session_goodbye(c, event, s, fx);
        break;
    default:
        reply_error(fx, event, ERR_REFUSED, 0, "this request is for workers, not for clients");
        break;
    }
}

static void request_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    if (event->request->kind == WIRE_REQUEST_HELLO) {
        session_hello(c, event, fx);
        return;
    }
    struct core_session *s = session_of(c, event);
    if (s == NULL || !s->established) {
        reply_error(fx, event, ERR_STALE, 0,
                    "this session is not known on this connection: say Hello again");
        fx->last->reply.promises_nothing = true; /* a Hello and Status may leave at once, too */
        return;
    }
    session_heard(c, s);
    if (s->role == WIRE_ROLE_WORKER)
        request_from_worker(c, event, s, fx);
    else
        request_from_client(c, event, s, fx);
}

/* ---- time ---- */

/* Nobody could be heard: all begin anew. */
static void workers_hear_all(struct core *c)
{
    for (struct tree_node *n = tree_first(&c->workers); n != NULL; n = tree_above(&c->workers, n)) {
        struct core_worker *w = tree_entry(n, struct core_worker, node);
        w->heard_ms = c->now_ms;
        w->heard_held_ms = c->held_ms;
        for (struct tree_node *k = tree_first(&w->leases); k != NULL; k = tree_above(&w->leases, k))
            lease_heard(c, tree_entry(k, struct core_lease, node));
    }
}

static void timer_fire(struct core *c, struct core_timer *t, struct core_effects *fx)
{
    switch (timer_kind(t)) {
    case CORE_TIMER_JOB:
        job_timer_fire(c, tree_entry(t, struct core_job, timer), fx);
        break;
    case CORE_TIMER_WATCH:
        watch_timer_fire(c, tree_entry(t, struct core_watch, timer), fx);
        break;
    case CORE_TIMER_PULL:
        session_pull_answer(c, tree_entry(t, struct core_session, pull_timer), fx);
        break;
    case CORE_TIMER_SESSION:
        session_timer_fire(c, tree_entry(t, struct core_session, timer), fx);
        break;
    case CORE_TIMER_WORKER:
        worker_timer_fire(c, tree_entry(t, struct core_worker, timer), fx);
        break;
    case CORE_TIMER_MODEL: {
        struct core_model *m = tree_entry(t, struct core_model, timer);
        bool again = m->look_again;
        model_touch(c, m);
        m->look_again = again; /* time alone is no change */
        break;
    }
    }
}

/* A worker's timer may change all jobs that it has, so what is counted is what came of it. */
static void tick_step(struct core *c, struct core_effects *fx)
{
    struct tree_node *n;
    gangs_expire(c, fx);
    while (c->tick_work < CORE_TURN_WORK_MAX && (n = tree_first(&c->timers)) != NULL) {
        struct core_timer *t = tree_entry(n, struct core_timer, node);
        if (t->at_ms > c->now_ms)
            break;
        size_t before = c->n_listed;
        tree_remove(&c->timers, n);
        timer_fire(c, t, fx);
        c->tick_work += 1 + (c->n_listed - before);
    }
}

/* ---- the end of a turn ---- */

static void turn_place(struct core *c, struct core_effects *fx)
{
    while (c->place_models != NULL) {
        struct core_model *m = c->place_models;
        c->place_models = m->next_place;
        m->place_dirty = false;
        placement_run(c, m, fx);
    }
}

static void turn_deliver(struct core *c, struct core_effects *fx)
{
    while (c->deliver_sessions != NULL) {
        struct core_session *s = c->deliver_sessions;
        c->deliver_sessions = s->next_deliver;
        s->deliver = false;
        if (s->pull_parked && (s->outbox != NULL || c->stopping))
            session_pull_answer(c, s, fx);
    }
}

static void turn_store(struct core *c, struct core_effects *fx)
{
    for (struct core_job *j = c->listed_jobs, *next; j != NULL; j = next) {
        next = j->next_listed;
        if ((j->flags & CORE_JOB_NEWS) != 0)
            watch_answer_all(c, j, false, fx);
        if ((j->flags & CORE_JOB_DIRTY) != 0) {
            struct core_effect *e = effect_add(fx, CORE_EFFECT_PUT_JOB);
            job_record(j, &e->job);
            e->job.error_text = effect_text(fx, e->job.error_text);
        }
        j->flags = (uint8_t)(j->flags & ~(CORE_JOB_LISTED | CORE_JOB_DIRTY | CORE_JOB_NEWS));
    }
    c->listed_jobs = NULL;
    c->listed_jobs_end = &c->listed_jobs;
    c->n_listed = 0;
    for (struct core_tenant *t = c->dirty_tenants; t != NULL; t = t->next_dirty) {
        t->dirty = false;
        effect_add(fx, CORE_EFFECT_PUT_BALANCE)->balance =
            (struct record_balance){.tenant = t->name,
                                    .reserved_tokens = t->reserved_tokens,
                                    .settled_tokens = t->settled_tokens};
    }
    c->dirty_tenants = NULL;
    for (struct core_usage *u = c->dirty_usages; u != NULL; u = u->next_dirty) {
        u->dirty = false;
        effect_add(fx, CORE_EFFECT_PUT_USAGE)->usage = u->row;
    }
    c->dirty_usages = NULL;
    while (c->dirty_learned != NULL && !c->frozen) {
        struct core_model *m = c->dirty_learned;
        c->dirty_learned = m->next_learned;
        m->learned_dirty = false;
        effect_add(fx, CORE_EFFECT_PUT_LEARNED)->learned = m->learned;
    }
}

/* Jobs that ended longest ago go, a few a turn. Their ledger records stay. One that has just ended
 * stays too, however many there are: the reply that tells its end is still to be filled from the
 * store, it may be lost and asked for again, and so may the Submit: the same id would be a new job.
 */
static void turn_remove(struct core *c, struct core_effects *fx)
{
    for (unsigned i = 0; i < REMOVALS_PER_TURN && !c->frozen; i++) {
        struct core_job *j = tree_entry(tree_first(&c->ended), struct core_job, by_order);
        if (tree_count(&c->ended) <= c->config->retain_ended_jobs ||
            c->now_ms < j->ended_ms + KEPT_MS)
            return;
        job_remove(c, j, fx);
    }
}

static void turn_end(struct core *c, struct core_effects *fx)
{
    turn_place(c, fx);
    turn_deliver(c, fx);
    turn_store(c, fx);
    turn_remove(c, fx);
    /* What cannot be stored must not have been decided. */
    CHECK(!c->frozen || fx->n_persist == 0);
    names_sweep(c);
    c->tick_work = c->place_work = 0;
}

static void stop_step(struct core *c, struct core_effects *fx)
{
    c->stopping = true;
    for (struct tree_node *n = tree_first(&c->sessions); n != NULL; n = tree_above(&c->sessions, n))
        session_deliver(c, tree_entry(n, struct core_session, node));
    for (struct tree_node *n = tree_first(&c->jobs); n != NULL; n = tree_above(&c->jobs, n))
        watch_answer_all(c, tree_entry(n, struct core_job, by_id), true, fx);
}

static void freeze_step(struct core *c, enum err code, const char *reason)
{
    free(c->frozen_text);
    size_t size = strlen(reason) + 1;
    c->frozen_text = core_alloc(size);
    memcpy(c->frozen_text, reason, size);
    c->frozen_code = code;
    c->frozen = true;
}

static void unfreeze_step(struct core *c)
{
    c->frozen = false;
    workers_hear_all(c); /* while nothing could be stored nobody could be taken back */
    for (struct tree_node *n = tree_first(&c->models); n != NULL; n = tree_above(&c->models, n))
        model_touch(c, tree_entry(n, struct core_model, node));
}

/* It would fail each Pull that should bring it to a worker, and with it all that stands behind. */
static void job_lost_step(struct core *c, const struct core_event *event, struct core_effects *fx)
{
    struct core_job *j = job_find(c, &event->job_id);
    if (j == NULL || job_is_ended(j) || c->frozen)
        return;
    if (j->lease != NULL)
        lease_stop(c, j->lease);
    job_end(c, j, WIRE_JOB_STATE_FAILED, WIRE_FINISH_ERROR, ERR_CORRUPT, event->reason, fx);
}

void core_step(struct core *c, const struct core_event *event, struct core_effects *effects)
{
    c->mono_ns = event->mono_ns;
    c->wall_ns = event->wall_ns;
    c->now_ms = event->mono_ns / 1000000u;
    CHECK(c->now_ms >= c->heard_ms);
    uint64_t gap_ms = c->now_ms - c->heard_ms;
    /* Nobody could be heard while we were held up ourselves (a stopped machine), and who waits for
     * a reply that a slow disk holds back may have nothing to say. */
    if (event->held_back || gap_ms > c->config->lease_ms / 4)
        c->held_ms += gap_ms;
    c->heard_ms = c->now_ms;

    switch (event->kind) {
    case CORE_EVENT_REQUEST:
        request_step(c, event, effects);
        break;
    case CORE_EVENT_TICK:
        tick_step(c, effects);
        break;
    case CORE_EVENT_FREEZE:
        freeze_step(c, event->code, event->reason);
        break;
    case CORE_EVENT_UNFREEZE:
        unfreeze_step(c);
        break;
    case CORE_EVENT_STOP:
        stop_step(c, effects);
        break;
    case CORE_EVENT_JOB_LOST:
        job_lost_step(c, event, effects);
        break;
    case CORE_EVENT_TURN_END:
        turn_end(c, effects);
        break;
    }
}
