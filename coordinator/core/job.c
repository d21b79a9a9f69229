/*
 * job.c - one job: found by id, moved from state to state along the table of legal moves, ended
 * once, stored when the turn ends.
 */
#include "coordinator/core/state.h"

/* Which state may follow which. A job is made QUEUED; the ends have no way out. */
static const uint16_t legal_moves[9] = {
    [WIRE_JOB_STATE_QUEUED] = 1u << WIRE_JOB_STATE_LEASED | 1u << WIRE_JOB_STATE_FAILED |
                              1u << WIRE_JOB_STATE_CANCELLED | 1u << WIRE_JOB_STATE_REJECTED |
                              1u << WIRE_JOB_STATE_EXPIRED,
    [WIRE_JOB_STATE_LEASED] = 1u << WIRE_JOB_STATE_RUNNING | 1u << WIRE_JOB_STATE_QUEUED |
                              1u << WIRE_JOB_STATE_FAILED | 1u << WIRE_JOB_STATE_CANCELLED |
                              1u << WIRE_JOB_STATE_EXPIRED,
    [WIRE_JOB_STATE_RUNNING] = 1u << WIRE_JOB_STATE_QUEUED | 1u << WIRE_JOB_STATE_DONE |
                               1u << WIRE_JOB_STATE_FAILED | 1u << WIRE_JOB_STATE_CANCELLED |
                               1u << WIRE_JOB_STATE_REJECTED | 1u << WIRE_JOB_STATE_EXPIRED,
};

bool job_move_is_legal(enum wire_job_state from, enum wire_job_state to)
{
    return (unsigned)from < 9 && (unsigned)to < 9 && (legal_moves[from] >> to & 1u) != 0;
}

bool job_is_ended(const struct core_job *j)
{
    return j->state >= WIRE_JOB_STATE_DONE;
}

/* The ledger's order: its numbers are stored, and no clock can set them back. */
int ended_compare(const struct tree_node *a, const struct tree_node *b)
{
    const struct core_job *x = tree_entry(a, const struct core_job, by_order);
    const struct core_job *y = tree_entry(b, const struct core_job, by_order);
    if (x->settle_seq != y->settle_seq)
        return x->settle_seq < y->settle_seq ? -1 : 1;
    return id_compare(&x->id, &y->id);
}

static size_t bucket_of(const struct core *c, const struct id *id)
{
    uint64_t low, high;
    memcpy(&low, id->bytes, sizeof low);
    memcpy(&high, id->bytes + 8, sizeof high);
    uint64_t x = low * 0x9e3779b97f4a7c15u ^ high;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    return (size_t)x & (c->n_buckets - 1);
}

static void buckets_grow(struct core *c)
{
    struct core_job **old = c->buckets;
    size_t n_old = c->n_buckets;
    c->n_buckets = n_old == 0 ? 1024 : n_old * 2;
    c->buckets = core_alloc(c->n_buckets * sizeof(struct core_job *));
    for (size_t i = 0; i < n_old; i++) {
        for (struct core_job *j = old[i], *next; j != NULL; j = next) {
            next = j->next_hash;
            size_t b = bucket_of(c, &j->id);
            j->next_hash = c->buckets[b];
            c->buckets[b] = j;
        }
    }
    free(old);
}

struct core_job *job_find(const struct core *c, const struct id *id)
{
    if (c->n_buckets == 0)
        return NULL;
    struct core_job *j = c->buckets[bucket_of(c, id)];
    while (j != NULL && id_compare(&j->id, id) != 0)
        j = j->next_hash;
    return j;
}

static uint64_t id_part(const struct core_job *j, size_t at)
{
    uint64_t part = 0;
    for (size_t i = 0; i < 8; i++)
        part = part << 8 | j->id.bytes[at + i];
    return part;
}

/* As id_compare, in two words: it is what a restart with many jobs spends its time on. */
int job_id_order(const struct core_job *a, const struct core_job *b)
{
    uint64_t p = id_part(a, 0), q = id_part(b, 0);
    if (p == q) {
        p = id_part(a, 8);
        q = id_part(b, 8);
    }
    return p < q ? -1 : p > q;
}

struct core_job *job_new(struct core *c, const struct id *id, struct core_owner *owner)
{
    if (tree_count(&c->jobs) >= c->n_buckets)
        buckets_grow(c);
    struct core_job *j = core_alloc(sizeof *j);
    j->id = *id;
    j->worker = "";
    j->deadline_ms = UINT64_MAX;
    size_t b = bucket_of(c, id);
    j->next_hash = c->buckets[b];
    c->buckets[b] = j;
    j->owner = owner;
    tree_insert(&c->jobs, &j->by_id);
    tree_insert(&owner->tenant->jobs, &j->of_tenant);
    return j;
}

void job_free(struct core_job *j)
{
    free(j->error_text);
    free(j);
}

void job_remove(struct core *c, struct core_job *j, struct core_effects *fx)
{
    CHECK(job_is_ended(j) && j->lease == NULL && j->watches == NULL);
    CHECK((j->flags & CORE_JOB_LISTED) == 0);
    effect_add(fx, CORE_EFFECT_DELETE_JOB)->job_id = j->id;
    struct core_job **at = &c->buckets[bucket_of(c, &j->id)];
    while (*at != j)
        at = &(*at)->next_hash;
    *at = j->next_hash;
    tree_remove(&c->jobs, &j->by_id);
    tree_remove(&j->owner->tenant->jobs, &j->of_tenant);
    tree_remove(&c->ended, &j->by_order);
    timer_clear(c, &j->timer);
    c->count[j->state]--;
    j->model->jobs--;
    owner_drop(c, j->owner);
    name_drop(c, j->worker);
    job_free(j);
}

void job_touch(struct core *c, struct core_job *j, unsigned flags)
{
    j->flags = (uint8_t)(j->flags | flags);
    if ((j->flags & CORE_JOB_LISTED) != 0)
        return;
    j->flags |= CORE_JOB_LISTED;
    j->next_listed = NULL;
    *c->listed_jobs_end = j;
    c->listed_jobs_end = &j->next_listed;
    c->n_listed++;
}

void job_move(struct core *c, struct core_job *j, enum wire_job_state to)
{
    CHECK(job_move_is_legal((enum wire_job_state)j->state, to));
    if (j->state == WIRE_JOB_STATE_QUEUED)
        queue_remove(c, j);
    c->count[j->state]--;
    j->state = (uint8_t)to;
    c->count[to]++;
    if (to == WIRE_JOB_STATE_QUEUED)
        queue_insert(c, j);
    else if (to == WIRE_JOB_STATE_RUNNING && j->started_wall_ns == 0)
        j->started_wall_ns = c->wall_ns;
    job_touch(c, j, CORE_JOB_DIRTY);
}

void job_set_error(struct core_job *j, enum err code, const char *text)
{
    free(j->error_text);
    j->error_text = NULL;
    j->error_code = (uint8_t)code;
    if (code != ERR_OK && text != NULL && text[0] != '\0') {
        size_t size = strlen(text) + 1;
        j->error_text = core_alloc(size);
        memcpy(j->error_text, text, size);
    }
}

uint64_t job_reserved_tokens(const struct core_job *j)
{
    return (uint64_t)j->prompt_bound + j->max_tokens;
}

void job_usage(const struct core_job *j, struct wire_work_usage *ret_usage)
{
    uint64_t computed = j->prompt_computed;
    *ret_usage = (struct wire_work_usage){.prompt_tokens = j->prompt_tokens,
                                          .prompt_cached = j->prompt_cached,
                                          .completion_tokens = j->tokens,
                                          .queue_us = j->queue_us,
                                          .prefill_us = j->prefill_us,
                                          .decode_us = j->decode_us};
    if (j->lease != NULL) {
        const struct wire_work_usage *u = &j->lease->usage;
        computed += u->prompt_computed;
        ret_usage->resumed_tokens = u->resumed_tokens;
        ret_usage->queue_us += u->queue_us;
        ret_usage->prefill_us += u->prefill_us;
        ret_usage->decode_us += u->decode_us;
    }
    ret_usage->prompt_computed = computed > UINT32_MAX ? UINT32_MAX : (uint32_t)computed;
}

void job_record(const struct core_job *j, struct record_job *ret_record)
{
    struct record_job r = {
        .job_id = j->id,
        .tenant = j->owner->tenant->name,
        .model = j->model->name,
        .state = j->state,
        .job_class = j->job_class,
        .priority = j->priority,
        .max_tokens = j->max_tokens,
        .submit_order = j->submit_order,
        .submitted_wall_ns = j->submitted_wall_ns,
        .deadline_wall_ns = j->deadline_wall_ns,
        .started_wall_ns = j->started_wall_ns,
        .ended_wall_ns = j->ended_wall_ns,
        .attempts = j->attempts,
        .deaths = j->deaths,
        .lease_epoch = j->lease_epoch,
        .worker = j->worker,
        .prompt_tokens = j->prompt_tokens,
        .prompt_cached = j->prompt_cached,
        .prompt_computed = j->prompt_computed,
        .tokens = j->tokens,
        .text_bytes = j->text_bytes,
        .computed_tokens = j->computed_tokens,
        .queue_us = j->queue_us,
        .prefill_us = j->prefill_us,
        .decode_us = j->decode_us,
        .finish = j->finish,
        .error_code = j->error_code,
        .error_text = j->error_text != NULL ? j->error_text : "",
        .reserved_tokens = job_reserved_tokens(j),
        .reserve_seq = j->reserve_seq,
        .settle_seq = j->settle_seq,
        .cancel_on_disconnect = (j->flags & CORE_JOB_CANCEL_ON_DISCONNECT) != 0,
        .project = j->owner->project,
        .cost_center = j->owner->cost_center,
        .principal = j->owner->principal,
        .prompt_tokens_bound = j->prompt_bound,
    };
    memcpy(r.content_digest, j->content_digest, sizeof r.content_digest);
    memcpy(r.key_fingerprint, j->owner->key_fingerprint, sizeof r.key_fingerprint);
    if (j->lease != NULL) {
        const struct wire_work_usage *u = &j->lease->usage;
        r.attempt_prompt_computed = u->prompt_computed;
        r.attempt_computed_tokens = u->completion_tokens;
        r.attempt_queue_us = u->queue_us;
        r.attempt_prefill_us = u->prefill_us;
        r.attempt_decode_us = u->decode_us;
        r.prompt_computed += r.attempt_prompt_computed;
        r.computed_tokens += r.attempt_computed_tokens;
        r.queue_us += r.attempt_queue_us;
        r.prefill_us += r.attempt_prefill_us;
        r.decode_us += r.attempt_decode_us;
    }
    *ret_record = r;
}

void job_end(struct core *c, struct core_job *j, enum wire_job_state state, enum wire_finish finish,
             enum err code, const char *text, struct core_effects *fx)
{
    CHECK(wire_job_state_is_end(state) && !job_is_ended(j));
    if (j->lease != NULL)
        lease_end(c, j->lease);
    job_move(c, j, state);
    timer_clear(c, &j->timer);
    j->finish = (uint8_t)finish;
    j->ended_wall_ns = c->wall_ns;
    job_set_error(j, code, text);
    rate_count(c, job_load_tokens(j) + j->tokens);
    ledger_finish(c, j, fx);
    j->ended_ms = c->now_ms;
    tree_insert(&c->ended, &j->by_order);
    job_touch(c, j, CORE_JOB_DIRTY | CORE_JOB_NEWS);
}

/* One timer a job: its deadline, or the moment at which nobody has watched it for too long. */
void job_timer_set(struct core *c, struct core_job *j)
{
    uint64_t at = j->deadline_ms;
    if ((j->flags & CORE_JOB_CANCEL_ON_DISCONNECT) != 0 && j->watches == NULL) {
        uint64_t gone = j->watched_ms + c->config->disconnect_ms;
        at = gone < at ? gone : at;
    }
    timer_set(c, &j->timer, CORE_TIMER_JOB, at);
}

void job_timer_fire(struct core *c, struct core_job *j, struct core_effects *fx)
{
    if (c->frozen) {
        timer_set(c, &j->timer, CORE_TIMER_JOB, c->now_ms + 1000);
        return;
    }
    if (j->lease != NULL)
        lease_stop(c, j->lease);
    if (c->now_ms >= j->deadline_ms) {
        job_end(c, j, WIRE_JOB_STATE_EXPIRED, WIRE_FINISH_CANCELLED, ERR_TIMEOUT,
                "the job's deadline passed", fx);
        return;
    }
    job_end(c, j, WIRE_JOB_STATE_CANCELLED, WIRE_FINISH_CANCELLED, ERR_CANCELLED,
            "nobody watched the job any more, and it asked to be cancelled then", fx);
}
