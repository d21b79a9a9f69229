/* Who waits and who runs. */
#include "worker/engine/batch_internal.h"

#include "common/check.h"
#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

/* ---- begin and end ---------------------------------------------------------------------- */

static enum err config_range(struct errbuf *eb, const char *name, uint32_t value, uint32_t min,
                             uint32_t max)
{
    if (value < min || value > max)
        return err_set(eb, ERR_INVALID, "batch: %s is %u; %u to %u are allowed", name, value, min,
                       max);
    return ERR_OK;
}

static enum err config_check(const struct batch_config *c, struct errbuf *eb)
{
    enum err e = config_range(eb, "slots", c->slots, 1, 1u << 16);

    if (e == ERR_OK)
        e = config_range(eb, "waiting_max", c->waiting_max, 1, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "pages", c->pages, 1, 1u << 30);
    if (e == ERR_OK)
        e = config_range(eb, "page_tokens", c->page_tokens, 1, 1u << 16);
    if (e == ERR_OK)
        e = config_range(eb, "context_tokens", c->context_tokens, 2, LIMIT_CONTEXT_TOKENS);
    if (e == ERR_OK)
        e = config_range(eb, "step_tokens", c->step_tokens, 2, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "chunk_tokens", c->chunk_tokens, 1, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "beside_tokens", c->beside_tokens, 1, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "logits_rows", c->logits_rows, c->slots, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "pass_max", c->pass_max, 1, 1u << 20);
    if (e == ERR_OK)
        e = config_range(eb, "plans_max", c->plans_max, 1, BATCH_PLANS_MAX);
    return e;
}

uint32_t batch_pages_needed(const struct batch_config *config, uint32_t n_limit)
{
    return (n_limit - 1 + config->page_tokens - 1) / config->page_tokens;
}

/* False when memory is refused. */
static bool step_open(struct batch_step *step, const struct batch_config *config)
{
    step->row_ids = calloc(config->step_tokens, sizeof *step->row_ids);
    step->row_position = calloc(config->step_tokens, sizeof *step->row_position);
    step->row_slot = calloc(config->step_tokens, sizeof *step->row_slot);
    step->row_draw = calloc(config->logits_rows, sizeof *step->row_draw);
    step->logits_seq = calloc(config->logits_rows, sizeof(struct batch_seq *));
    return step->row_ids != NULL && step->row_position != NULL && step->row_slot != NULL &&
           step->row_draw != NULL && step->logits_seq != NULL;
}

static void step_close(struct batch_step *step)
{
    free(step->row_ids);
    free(step->row_position);
    free(step->row_slot);
    free(step->row_draw);
    free(step->logits_seq);
}

enum err batch_new(struct batch **ret_batch, const struct batch_config *config, struct errbuf *eb)
{
    enum err e = config_check(config, eb);
    struct batch *b;

    if (e != ERR_OK)
        return e;
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return err_set(eb, ERR_NO_MEMORY, "batch: no memory");
    b->config = *config;
    b->stride = batch_pages_needed(config, config->context_tokens);
    b->kv = kv_pages_new(config->pages, config->page_tokens);
    b->slots = calloc(config->slots, sizeof(struct batch_seq *));
    b->pages = calloc((size_t)config->slots * b->stride, sizeof *b->pages);
    b->waiting = calloc((size_t)config->waiting_max + config->slots, sizeof(struct batch_seq *));
    b->order = calloc(config->slots, sizeof(struct batch_seq *));
    bool failed = b->kv == NULL || b->slots == NULL || b->pages == NULL || b->waiting == NULL ||
                  b->order == NULL;
    for (uint32_t i = 0; i < config->plans_max; i++)
        failed = !step_open(&b->steps[i], config) || failed;
    if (failed) {
        batch_free(b);
        return err_set(eb, ERR_NO_MEMORY, "batch: no memory for %u slots", config->slots);
    }
    *ret_batch = b;
    return ERR_OK;
}

static void seq_free(struct batch_seq *seq)
{
    if (seq == NULL)
        return;
    free(seq->ids);
    free(seq);
}

void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    for (uint32_t i = 0; b->slots != NULL && i < b->config.slots; i++)
        seq_free(b->slots[i]);
    for (uint32_t i = 0; i < b->n_waiting; i++)
        seq_free(b->waiting[i]);
    kv_pages_free(b->kv);
    free(b->slots);
    free(b->pages);
    free(b->waiting);
    free(b->order);
    for (uint32_t i = 0; i < BATCH_PLANS_MAX; i++)
        step_close(&b->steps[i]);
    free(b);
}

/* ---- the line --------------------------------------------------------------------------- */

static uint32_t class_now(const struct batch *b, const struct batch_seq *seq)
{
    return seq->passed >= b->config.pass_max ? 0 : seq->job_class;
}

bool batch_comes_before(const struct batch *b, const struct batch_seq *a, const struct batch_seq *z)
{
    uint32_t class_a = class_now(b, a), class_z = class_now(b, z);

    if (class_a != class_z)
        return class_a < class_z;
    return a->arrived < z->arrived;
}

enum err batch_add(struct batch *b, const struct batch_job *job, struct batch_seq **ret_seq,
                   struct errbuf *eb)
{
    const struct batch_config *c = &b->config;

    if (job->n_ids == 0)
        return err_set(eb, ERR_INVALID, "the prompt is empty: there is no token to go on from");
    if (job->n_limit <= job->n_ids || job->n_limit > c->context_tokens)
        return err_set(eb, ERR_INVALID,
                       "%u tokens with room for %u more do not fit a context of %u", job->n_ids,
                       job->n_limit - job->n_ids, c->context_tokens);
    if (job->logits_from >= job->n_ids)
        return err_set(eb, ERR_INVALID, "logits wanted from position %u of %u", job->logits_from,
                       job->n_ids);
    if (batch_pages_needed(c, job->n_limit) > c->pages)
        return err_set(eb, ERR_TOO_LARGE,
                       "%u tokens need %u KV pages of %u tokens; the whole pool has %u",
                       job->n_limit, batch_pages_needed(c, job->n_limit), c->page_tokens, c->pages);
    if (b->n_waiting >= c->waiting_max)
        return err_set(eb, ERR_BUSY, "%u jobs wait already; the line is full", b->n_waiting);
    struct batch_seq *seq = calloc(1, sizeof *seq);
    if (seq == NULL || (seq->ids = malloc((size_t)job->n_limit * sizeof *seq->ids)) == NULL) {
        free(seq);
        return err_set(eb, ERR_NO_MEMORY, "no memory for %u token ids", job->n_limit);
    }
    memcpy(seq->ids, job->ids, (size_t)job->n_ids * sizeof *seq->ids);
    seq->owner = job->owner;
    seq->n_ids = job->n_ids;
    seq->n_limit = job->n_limit;
    seq->logits_from = job->logits_from;
    seq->job_class = job->job_class;
    seq->space = job->space;
    seq->arrived = b->n_arrived++;
    seq->slot = SLOT_NONE;
    seq->step = STEP_NONE;
    b->waiting[b->n_waiting++] = seq;
    *ret_seq = seq;
    return ERR_OK;
}

static struct batch_seq *first_waiting(const struct batch *b)
{
    struct batch_seq *first = NULL;

    for (uint32_t i = 0; i < b->n_waiting; i++)
        if (first == NULL || batch_comes_before(b, b->waiting[i], first))
            first = b->waiting[i];
    return first;
}

static void waiting_take(struct batch *b, const struct batch_seq *seq)
{
    uint32_t i = 0;

    while (b->waiting[i] != seq)
        i++;
    b->waiting[i] = b->waiting[--b->n_waiting];
}

struct batch_seq *batch_last_running(const struct batch *b)
{
    struct batch_seq *last = NULL;

    for (uint32_t i = 0; i < b->config.slots; i++)
        if (b->slots[i] != NULL && (last == NULL || batch_comes_before(b, last, b->slots[i])))
            last = b->slots[i];
    return last;
}

void batch_preempt(struct batch *b, struct batch_seq *seq)
{
    CHECK(!batch_is_under_way(seq));
    batch_seq_drop_pages(b, seq);
    b->slots[seq->slot] = NULL;
    seq->slot = SLOT_NONE;
    b->n_running--;
    b->waiting[b->n_waiting++] = seq;
    b->n_preempted++;
}

/* ---- admission -------------------------------------------------------------------------- */

/* Pages that a running job is yet to take of those it was admitted with, headroom included. */
static uint32_t seq_owed(const struct batch *b, const struct batch_seq *seq)
{
    uint32_t all = batch_pages_needed(&b->config, seq->n_limit);
    uint32_t now = batch_pages_for(b, seq->n_ids);
    uint32_t wanted = all - now > b->config.headroom_pages ? now + b->config.headroom_pages : all;

    return wanted > seq->n_pages ? wanted - seq->n_pages : 0;
}

static bool pages_suffice(const struct batch *b, const struct batch_seq *seq)
{
    uint32_t kept, ready = batch_seq_count_ready(b, seq, &kept);
    uint64_t owed = seq_owed(b, seq) - ready;

    if (b->n_running == 0)
        return true; /* everything but its own pages is free, and the pool has room for it */
    for (uint32_t i = 0; i < b->config.slots; i++)
        if (b->slots[i] != NULL)
            owed += seq_owed(b, b->slots[i]);
    return owed + kept <= kv_pages_available(b->kv);
}

/* Whether preempting all running jobs of a worse class would make room. */
static bool victims_suffice(const struct batch *b, const struct batch_seq *seq)
{
    uint64_t have = kv_pages_available(b->kv), owed = seq_owed(b, seq);
    uint32_t n_victims = 0;

    for (uint32_t i = 0; i < b->config.slots; i++) {
        const struct batch_seq *other = b->slots[i];
        if (other == NULL)
            continue;
        if (class_now(b, other) > class_now(b, seq)) {
            have += other->n_pages;
            n_victims++;
        } else {
            owed += seq_owed(b, other);
        }
    }
    return n_victims > 0 && owed <= have;
}

struct batch_seq *batch_admit(struct batch *b)
{
    struct batch_seq *seq = first_waiting(b);
    uint32_t slot = 0;

    if (seq == NULL)
        return NULL;
    while (b->n_running == b->config.slots || !pages_suffice(b, seq)) {
        struct batch_seq *victim = batch_last_running(b);
        if (class_now(b, victim) <= class_now(b, seq) || !victims_suffice(b, seq) ||
            batch_is_under_way(victim))
            return NULL;
        batch_preempt(b, victim);
    }
    waiting_take(b, seq);
    for (uint32_t i = 0; i < b->n_waiting; i++)
        if (b->waiting[i]->arrived < seq->arrived && b->waiting[i]->passed < b->config.pass_max)
            b->waiting[i]->passed++;
    while (b->slots[slot] != NULL)
        slot++;
    b->slots[slot] = seq;
    b->n_running++;
    seq->slot = slot;
    seq->served = b->n_steps;
    (void)batch_seq_take_ready(b, seq);
    return seq;
}

void batch_remove(struct batch *b, struct batch_seq *seq)
{
    CHECK(!batch_is_under_way(seq));
    if (seq->slot == SLOT_NONE) {
        waiting_take(b, seq);
    } else {
        batch_seq_drop_pages(b, seq);
        b->slots[seq->slot] = NULL;
        b->n_running--;
    }
    seq_free(seq);
}

/* ---- looking ---------------------------------------------------------------------------- */

void *batch_owner(const struct batch_seq *seq)
{
    return seq->owner;
}

bool batch_is_under_way(const struct batch_seq *seq)
{
    return seq->step != STEP_NONE;
}

uint32_t batch_slot(const struct batch_seq *seq)
{
    return seq->slot;
}

bool batch_full(const struct batch_seq *seq)
{
    return seq->n_ids == seq->n_limit;
}

const int32_t *batch_ids(const struct batch_seq *seq, uint32_t *ret_count)
{
    *ret_count = seq->n_ids;
    return seq->ids;
}

uint32_t batch_computed(const struct batch_seq *seq)
{
    return seq->n_most;
}

uint32_t batch_cached(const struct batch_seq *seq)
{
    return seq->n_cached;
}

struct batch_state batch_state(const struct batch *b)
{
    struct batch_state state = {
        .running = b->n_running,
        .waiting = b->n_waiting,
        .pages_free = kv_pages_available(b->kv),
        .preemptions = b->n_preempted,
        .cached_tokens = b->n_cached,
    };

    for (uint32_t i = 0; i < b->config.slots; i++)
        if (b->slots[i] != NULL)
            state.queued_tokens += b->slots[i]->n_limit - b->slots[i]->n_computed;
    for (uint32_t i = 0; i < b->n_waiting; i++)
        state.queued_tokens += b->waiting[i]->n_limit;
    return state;
}
