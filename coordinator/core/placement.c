/*
 * placement.c - which worker gets the next job of a model. A row of predicates says who could take
 * it and in which number the others fail; among those who could, the least expected time to the
 * first token wins, then the lowest name. Loading and making room are things a job can wait for,
 * so they are part of that time.
 *
 * When the first job of a model's queue cannot be placed, every worker whose context is long enough
 * for it is kept for it: one that waits for room is never overtaken there, however few can take it.
 * The others go on with the first job that fits their shorter contexts, so that a job which no
 * worker can take holds up nobody. A turn looks at as many jobs as it places, and at one more for
 * each length of context, however many wait.
 *
 * What no worker has room for alone, several may have together: gang.c.
 */
#include "common/gang_number.h"
#include "coordinator/core/gang.h"
#include "coordinator/core/state.h"

#include <stdarg.h>
#include <stdio.h>

#define RATE_UNKNOWN      20u     /* tokens/s, before anything was measured */
#define LOAD_BYTES_PER_MS 200000u /* likewise, for reading weights */
#define LOAD_FAILURES_MAX 3u
#define LOAD_GIVEN_UP     20u /* load_retry_ms: then what stood in its way may be gone */
#define LOOK_AGAIN_MS     500u
#define LAST_WORKER_MS    10000u /* dislike of the worker on which it ended badly */
#define ROWS_MAX          LIMIT_CANDIDATES
#define CONTEXTS_MAX      16u /* different lengths of context in one look; the next goes on */

typedef bool placement_predicate_fn(const struct core *c, const struct core_job *j,
                                    const struct core_hosting *h, struct placement_row *row);

__attribute__((format(printf, 2, 3))) static bool fails(struct placement_row *row, const char *fmt,
                                                        ...)
{
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(row->detail, sizeof row->detail, fmt, ap);
    va_end(ap);
    return false;
}

static bool is_alive(const struct core *c, const struct core_job *j, const struct core_hosting *h,
                     struct placement_row *row)
{
    const struct core_worker *w = h->worker;
    (void)j;
    if (w->session != NULL && w->state == WIRE_WORKER_STATE_ALIVE)
        return true;
    return fails(row, "%s, silent for %llu ms", wire_worker_state_name(w->state),
                 (unsigned long long)(c->now_ms - w->heard_ms));
}

bool hosting_is_given_up(const struct core *c, const struct core_hosting *h)
{
    return h->state == WIRE_MODEL_STATE_FAILED && h->failures >= LOAD_FAILURES_MAX &&
           !h->load_asked && c->now_ms < h->failed_ms + LOAD_GIVEN_UP * c->config->load_retry_ms;
}

static bool is_usable(const struct core *c, const struct core_job *j, const struct core_hosting *h,
                      struct placement_row *row)
{
    if (!h->same_file)
        return fails(row, "its file of this name has another digest than the one in use");
    if (h->unload_asked)
        return fails(row, "it is being unloaded there");
    if (h->state == WIRE_MODEL_STATE_FAILED) {
        const char *why = h->error != NULL ? h->error : "no reason given";
        if (hosting_is_given_up(c, h))
            return fails(row, "it failed to load %u times: %.100s", h->failures, why);
        uint64_t again_ms = h->failed_ms + c->config->load_retry_ms;
        if (c->now_ms < again_ms)
            return fails(row, "it failed to load, next try in %llu ms: %.80s",
                         (unsigned long long)(again_ms - c->now_ms), why);
    }
    if (j->max_tokens > h->offer.context_tokens)
        return fails(row, "up to %u tokens do not fit its context of %u", j->max_tokens,
                     h->offer.context_tokens);
    return true;
}

static bool has_slot(const struct core *c, const struct core_job *j, const struct core_hosting *h,
                     struct placement_row *row)
{
    const struct core_worker *w = h->worker;
    const struct wire_model_status *s = &h->status;
    uint32_t leases = tree_count(&w->leases);
    if (leases >= c->config->worker_leases_max)
        return fails(row, "%u of %u leases are out", leases, c->config->worker_leases_max);
    if (w->making_room != NULL && w->making_room != j->model)
        return fails(row, "it is being emptied for %.100s", w->making_room->name);
    for (uint32_t r = 1; h->gang != NULL && r < h->gang->n_ranks; r++) {
        const struct core_hosting *other = h->gang->rank[r].hosting;
        const struct core_model *m = other != NULL ? other->worker->making_room : NULL;
        if (m != NULL && m != j->model)
            return fails(row, "%.60s, of the same gang, is being emptied for %.60s",
                         other->worker->name, m->name);
    }
    if (c->now_ms < w->back_until_ms && w->returns > 1)
        return fails(row, "it gave jobs back %u times without a token, next try in %llu ms",
                     w->returns, (unsigned long long)(w->back_until_ms - c->now_ms));
    if (c->now_ms < h->busy_until_ms)
        return fails(row, "it turned a job away, next try in %llu ms",
                     (unsigned long long)(h->busy_until_ms - c->now_ms));
    if (row->ready && s->kv_pages > 0 && s->kv_pages_free == 0 && s->waiting > 0)
        return fails(row, "none of its %u KV pages is free and %u jobs wait there", s->kv_pages,
                     s->waiting);
    return true;
}

/* Jobs of a gang are the first rank's, and a later rank's to wait for. */
static bool is_jobs_place(const struct core *c, const struct core_job *j,
                          const struct core_hosting *h, struct placement_row *row)
{
    (void)c;
    (void)j;
    if (h->gang == NULL)
        return true;
    if (h->rank > 0)
        return fails(row, "it is rank %u of gang " GANG_NUMBER ", whose jobs go to %.100s", h->rank,
                     GANG_NUMBER_ARGS(h->gang->number),
                     h->gang->rank[0].worker != NULL ? h->gang->rank[0].worker
                                                     : "a worker that is not back yet");
    if (!row->ready && !row->loading)
        return fails(row, "its gang is not there yet");
    return true;
}

static bool is_evictable(const struct core *c, const struct core_hosting *h)
{
    const struct core_hosting *first = h->gang != NULL ? h->gang->rank[0].hosting : h;
    return hosting_is_ready(h) && (first == NULL || first->leases == 0) && !h->unload_asked &&
           c->now_ms >= h->ready_ms + c->config->residency_ms;
}

uint64_t worker_evictable_bytes(const struct core *c, const struct core_worker *w)
{
    uint64_t sum = 0;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        sum += is_evictable(c, h) ? hosting_need_bytes(h) : 0;
    }
    return sum;
}

uint64_t worker_leaving_bytes(const struct core_worker *w)
{
    uint64_t sum = 0;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_worker);
        sum += h->unload_asked && hosting_holds_memory(h) ? hosting_need_bytes(h) : 0;
    }
    return sum;
}

static uint64_t unused_bytes(const struct core_worker *w)
{
    uint64_t pending = worker_pending_bytes(w);
    return w->memory.free_bytes > pending ? w->memory.free_bytes - pending : 0;
}

static uint64_t unclaimed_bytes(const struct core_worker *w)
{
    uint64_t capacity = worker_capacity_bytes(w), claimed = worker_claimed_bytes(w);
    return capacity > claimed ? capacity - claimed : 0;
}

uint64_t worker_room_bytes(const struct core_worker *w)
{
    uint64_t unused = unused_bytes(w), unclaimed = unclaimed_bytes(w);
    return unused < unclaimed ? unused : unclaimed;
}

static bool has_memory(const struct core *c, const struct core_job *j, const struct core_hosting *h,
                       struct placement_row *row)
{
    const struct core_worker *w = h->worker;
    uint64_t room = worker_room_bytes(w);
    (void)j;
    if (row->ready || row->loading || row->need_bytes <= room)
        return true;
    uint64_t gain = worker_evictable_bytes(c, w) + worker_leaving_bytes(w);
    if (row->need_bytes <= room + gain) {
        row->evict = true;
        return true;
    }
    return fails(row,
                 "needs %llu bytes; free %llu, unclaimed %llu, idle models hold %llu, strangers "
                 "hold %llu",
                 (unsigned long long)row->need_bytes, (unsigned long long)row->free_bytes,
                 (unsigned long long)row->unclaimed_bytes, (unsigned long long)gain,
                 (unsigned long long)worker_stranger_bytes(w));
}

static const struct {
    const char *name;
    placement_predicate_fn *holds;
} predicates[] = {
    {"alive", is_alive}, {"model", is_usable},   {"gang", is_jobs_place},
    {"slots", has_slot}, {"memory", has_memory},
};

static uint64_t load_time_ms(const struct core_hosting *h)
{
    uint64_t ms = hosting_load_ms(h);
    return ms > 0 ? ms : h->offer.weights_bytes / LOAD_BYTES_PER_MS + 100u;
}

void placement_judge(const struct core *c, const struct core_job *j, struct core_hosting *h,
                     struct placement_row *ret_row)
{
    const struct core_worker *w = h->worker;
    struct placement_row row = {
        .hosting = h,
        .need_bytes = hosting_need_bytes(h),
        .free_bytes = unused_bytes(w),
        .unclaimed_bytes = unclaimed_bytes(w),
        .queued_tokens = w->lease_tokens,
        .ready = hosting_is_ready(h),
        .loading = hosting_is_loading(h),
    };
    row.tokens_per_s = hosting_tokens_per_s(h);
    if (row.tokens_per_s == 0)
        row.tokens_per_s = RATE_UNKNOWN;

    for (size_t i = 0; i < sizeof predicates / sizeof predicates[0]; i++) {
        if (!predicates[i].holds(c, j, h, &row)) {
            row.predicate = predicates[i].name;
            break;
        }
    }
    if (!row.ready) {
        row.load_ms = load_time_ms(h);
        uint64_t passed = row.loading ? c->now_ms - h->asked_ms : 0;
        row.load_ms = passed < row.load_ms ? row.load_ms - passed : 1;
    }
    row.cost_ms = row.queued_tokens * 1000u / row.tokens_per_s + row.load_ms;
    if (j->deaths > 0 && strcmp(j->worker, w->name) == 0)
        row.cost_ms += LAST_WORKER_MS;
    *ret_row = row;
}

static void model_load(struct core *c, struct core_hosting *h)
{
    struct core_command *cmd = session_command(c, h->worker->session, WIRE_COMMAND_LOAD);
    cmd->model = name_intern(c, h->model->name);
    h->load_asked = true;
    h->asked_ms = c->now_ms;
}

static uint64_t last_used_ms(const struct core_hosting *h)
{
    const struct core_hosting *first = h->gang != NULL ? h->gang->rank[0].hosting : NULL;
    return first != NULL ? first->used_ms : h->used_ms;
}

/* The load itself is asked for when they are gone. */
void worker_evict(struct core *c, struct core_worker *w, uint64_t need_bytes,
                  struct core_effects *fx)
{
    while (worker_room_bytes(w) + worker_leaving_bytes(w) < need_bytes) {
        struct core_hosting *oldest = NULL;
        for (struct tree_node *n = tree_first(&w->hosting); n != NULL;
             n = tree_above(&w->hosting, n)) {
            struct core_hosting *h = tree_entry(n, struct core_hosting, by_worker);
            if (is_evictable(c, h) && (oldest == NULL || last_used_ms(h) < last_used_ms(oldest)))
                oldest = h;
        }
        if (oldest == NULL)
            return;
        if (oldest->gang != NULL)
            gang_end(c, oldest->gang, LEASE_FAULT_NONE, "its room is needed for another model", fx);
        else
            hosting_unload(c, oldest);
    }
}

static void job_lease(struct core *c, struct core_job *j, struct core_hosting *h)
{
    struct core_worker *w = h->worker;
    job_move(c, j, WIRE_JOB_STATE_LEASED);
    if (j->attempts < UINT8_MAX)
        j->attempts++;
    j->lease_epoch++;
    name_replace(c, &j->worker, w->name);
    struct core_lease *l = lease_new(c, j, w, h);
    struct core_command *cmd = session_command(c, w->session, WIRE_COMMAND_RUN);
    cmd->job_id = j->id;
    cmd->epoch = l->epoch;
}

uint64_t worker_emptied_bytes(const struct core_worker *w)
{
    uint64_t capacity = worker_capacity_bytes(w),
             emptied = unused_bytes(w) + worker_claimed_bytes(w);
    return capacity < emptied ? capacity : emptied;
}

/* A worker whose models are never idle would never have room for another one. When a job has
 * waited for a whole residency, the worker with the least to finish is emptied for it. */
static void room_make(struct core *c, const struct core_job *j, const struct placement_row *rows,
                      size_t n_rows)
{
    struct core_worker *best = NULL;
    if (c->now_ms < j->submitted_ms + c->config->residency_ms)
        return;
    for (size_t i = 0; i < n_rows; i++) {
        const struct placement_row *row = &rows[i];
        struct core_worker *w = row->hosting->worker;
        if (w->making_room == j->model && row->need_bytes <= worker_emptied_bytes(w))
            return;
        if (row->predicate == NULL || strcmp(row->predicate, "memory") != 0 ||
            w->making_room != NULL || row->need_bytes > worker_emptied_bytes(w))
            continue;
        if (best == NULL || w->lease_tokens < best->lease_tokens)
            best = w;
    }
    if (best != NULL) {
        best->making_room = j->model;
        best->room_bytes = hosting_need_bytes(hosting_find(best, j->model->name));
    }
}

/* The model itself is not looked at again for that: it is what asked for the room. */
void worker_room_clear(struct core *c, struct core_worker *w)
{
    const struct core_model *m = w->making_room;
    w->making_room = NULL;
    for (struct tree_node *n = tree_first(&w->hosting); n != NULL; n = tree_above(&w->hosting, n)) {
        struct core_model *other = tree_entry(n, struct core_hosting, by_worker)->model;
        if (other != m)
            model_touch(c, other);
    }
}

static bool load_is_off(const struct core *c, const struct core_hosting *h)
{
    return h->state == WIRE_MODEL_STATE_FAILED &&
           (hosting_is_given_up(c, h) || c->now_ms < h->failed_ms + c->config->load_retry_ms);
}

/* Over when the model is there, cannot come, does not fit an empty worker any more, or nobody waits
 * for it. */
static void room_release(struct core *c, const struct core_model *m)
{
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->worker->making_room != m)
            continue;
        if (tree_count(&m->queue) > 0 && h->state != WIRE_MODEL_STATE_READY && !load_is_off(c, h) &&
            h->worker->room_bytes <= worker_emptied_bytes(h->worker))
            continue;
        worker_room_clear(c, h->worker);
    }
}

/* True where some that have the model's file failed to load it, and the others have no room for it,
 * neither alone nor together. */
static bool model_is_hopeless(const struct core *c, const struct core_model *m,
                              const struct core_hosting **ret_last)
{
    *ret_last = NULL;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (!h->same_file)
            continue;
        if (hosting_is_given_up(c, h))
            *ret_last = h;
        else if (hosting_holds_memory(h) ||
                 hosting_need_bytes(h) <= worker_capacity_bytes(h->worker))
            return false;
    }
    return *ret_last != NULL && !gang_is_possible(c, m, true);
}

static void queue_fail(struct core *c, struct core_model *m, const struct core_hosting *h,
                       struct core_effects *fx)
{
    const char *text =
        effect_printf(fx, "no worker can load model %s; %s: %s", m->name, h->worker->name,
                      h->error != NULL ? h->error : "no reason given");
    struct tree_node *n;
    for (; c->place_work < CORE_TURN_WORK_MAX && (n = tree_first(&m->queue)) != NULL;
         c->place_work++)
        job_end(c, tree_entry(n, struct core_job, in_queue), WIRE_JOB_STATE_FAILED,
                WIRE_FINISH_ERROR, ERR_UNAVAILABLE, text, fx);
}

static size_t rows_judge(const struct core *c, const struct core_model *m, const struct core_job *j,
                         struct placement_row *rows)
{
    size_t n_rows = 0;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL && n_rows < ROWS_MAX;
         n = tree_above(&m->hosts, n))
        placement_judge(c, j, tree_entry(n, struct core_hosting, by_model), &rows[n_rows++]);
    return n_rows;
}

/* Of those with a context of no more than `reach`. */
static const struct placement_row *rows_best(const struct placement_row *rows, size_t n_rows,
                                             uint32_t reach)
{
    const struct placement_row *best = NULL;
    for (size_t i = 0; i < n_rows; i++) {
        if (rows[i].predicate == NULL && rows[i].hosting->offer.context_tokens <= reach &&
            (best == NULL || rows[i].cost_ms < best->cost_ms))
            best = &rows[i];
    }
    return best;
}

/* The longest context below `limit` among the workers that have the model's file; 0: none. */
static uint32_t context_below(const struct core_model *m, uint32_t limit)
{
    uint32_t longest = 0;
    for (struct tree_node *n = tree_first(&m->hosts); n != NULL; n = tree_above(&m->hosts, n)) {
        const struct core_hosting *h = tree_entry(n, const struct core_hosting, by_model);
        if (h->same_file && h->offer.context_tokens < limit && h->offer.context_tokens > longest)
            longest = h->offer.context_tokens;
    }
    return longest;
}

/* One that is too long for every worker there is does not wait for ever: it would end up as the
 * oldest, for which others are turned away. */
static void queue_reject(struct core *c, struct core_model *m, struct core_effects *fx)
{
    uint32_t reach = context_below(m, UINT32_MAX);
    for (; reach > 0 && c->place_work < CORE_TURN_WORK_MAX &&
           queue_oldest_ms(c, m) > c->config->queue_age_max_ms;
         c->place_work++) {
        struct core_job *j = tree_entry(tree_first(&m->ages), struct core_job, by_order);
        if (j->max_tokens <= reach)
            return;
        const char *text = effect_printf(fx,
                                         "up to %u tokens fit no worker that has model %s: the "
                                         "longest context is %u, and it waited for %llu s",
                                         j->max_tokens, m->name, reach,
                                         (unsigned long long)(queue_oldest_ms(c, m) / 1000));
        job_end(c, j, j->tokens == 0 ? WIRE_JOB_STATE_REJECTED : WIRE_JOB_STATE_FAILED,
                WIRE_FINISH_ERROR, ERR_TOO_LARGE, text, fx);
    }
}

/* True where it is leased; else it waits for what was asked for, or for others to finish. */
static bool job_place(struct core *c, struct core_job *j, const struct placement_row *rows,
                      size_t n_rows, uint32_t reach, struct core_effects *fx)
{
    const struct placement_row *best = rows_best(rows, n_rows, reach);
    if (best == NULL) {
        if (!gang_try(c, j, rows, n_rows, reach, fx))
            room_make(c, j, rows, n_rows);
        return false;
    }
    struct core_hosting *h = best->hosting;
    if (!best->ready) {
        gang_members_give_up(c, j->model);
        if (best->evict)
            worker_evict(c, h->worker, best->need_bytes, fx);
        else if (!best->loading)
            model_load(c, h);
        return false;
    }
    explain_keep(c, j, rows, n_rows, (size_t)(best - rows));
    job_lease(c, j, h);
    return true;
}

/* From the longest context down, or from where the last look ended: what waits for long ones keeps
 * nobody from short ones, however many lengths there are. */
static void queue_place(struct core *c, struct core_model *m, struct core_effects *fx)
{
    size_t n_hosts = tree_count(&m->hosts);
    struct placement_row *rows =
        effect_alloc(fx, n_hosts < ROWS_MAX ? n_hosts : ROWS_MAX, sizeof(struct placement_row));
    uint32_t reach = m->look_reach != 0 ? m->look_reach : context_below(m, UINT32_MAX);
    struct core_job *j;
    unsigned contexts = 0;
    while (c->place_work < CORE_TURN_WORK_MAX && contexts < CONTEXTS_MAX &&
           (j = queue_first_within(m, reach)) != NULL) {
        c->place_work++;
        if (!job_place(c, j, rows, rows_judge(c, m, j, rows), reach, fx)) {
            reach = context_below(m, j->max_tokens);
            contexts++;
        }
    }
    m->look_reach = contexts == CONTEXTS_MAX && queue_first_within(m, reach) != NULL ? reach : 0;
}

void placement_run(struct core *c, struct core_model *m, struct core_effects *fx)
{
    const struct core_hosting *last;

    room_release(c, m);
    timer_clear(c, &m->timer);
    if (c->frozen || c->stopping)
        return;
    model_choose_file(c, m);
    if (model_is_hopeless(c, m, &last))
        queue_fail(c, m, last, fx);
    queue_reject(c, m, fx);
    if (tree_count(&m->queue) == 0) {
        m->look_reach = 0;
        m->look_again = false;
        return;
    }
    queue_place(c, m, fx);
    /* Costs, retries and residencies change with time alone. A full turn goes on in the next one,
     * and where a look had to begin in the middle another one follows from the top. */
    bool is_full = c->place_work >= CORE_TURN_WORK_MAX || m->look_reach != 0 || m->look_again;
    if (m->look_reach == 0)
        m->look_again = false;
    if (tree_count(&m->queue) > 0)
        timer_set(c, &m->timer, CORE_TIMER_MODEL, c->now_ms + (is_full ? 0 : LOOK_AGAIN_MS));
}
