#include "worker/engine/batch.h"

#include "common/check.h"
#include "common/limits.h"
#include "worker/engine/kv_pages.h"

#include <stdlib.h>
#include <string.h>

#define SLOT_NONE UINT32_MAX
#define STEP_NONE UINT32_MAX

struct batch_seq {
    void *owner;
    int32_t *ids;
    uint32_t n_ids;
    uint32_t n_limit;
    uint32_t logits_from;
    uint32_t job_class;
    uint64_t space;
    uint64_t arrived; /* order of arrival */
    uint32_t passed;  /* jobs that came later and were admitted while this one waited */

    uint32_t slot;       /* SLOT_NONE: in line */
    uint32_t n_computed; /* positions whose K and V are in the cache */
    uint32_t n_pages;    /* pages held, those of the cache's pages in pages[slot] */
    uint32_t n_named;    /* of these, from the first on, pages that have a name */
    uint32_t n_ready;    /* of these, pages that others may use */
    uint64_t serial;     /* of the last page that has a name; 0: none */
    bool unnamed;        /* its further pages get no name: somebody else computes the next one */
    uint32_t step;       /* under way: its place among batch.steps, or STEP_NONE */
    uint32_t n_planned;  /* rows of that step, or of the one that is being planned */
    uint64_t served;     /* number of the last step that had a row of this sequence */
    uint32_t n_most;     /* most that n_computed ever was */
    uint32_t n_cached;
};

/* A step under way. */
struct batch_step {
    int32_t *row_ids;
    uint32_t *row_position, *row_slot; /* [step_tokens] */
    bool *row_draw;                    /* [logits_rows] */
    struct batch_seq **logits_seq;     /* [logits_rows] */
    uint32_t n_rows, n_logits, n_prompt, n_draws;
};

struct batch {
    struct batch_config config;
    struct kv_pages *kv;
    struct batch_seq **slots; /* [config.slots] NULL: free */
    uint32_t *pages;          /* [config.slots][stride] */
    uint32_t stride;
    uint32_t n_running;

    struct batch_seq **waiting; /* [config.waiting_max + config.slots], in no order */
    uint32_t n_waiting;

    uint64_t n_steps, n_arrived, n_preempted, n_cached;

    struct batch_seq **order; /* [slots] those who can be planned, in the order they are served */
    struct batch_step steps[BATCH_PLANS_MAX]; /* of config.plans_max the oldest is `oldest` */
    uint32_t oldest, n_under_way;
};

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

/* ---- a sequence's pages ----------------------------------------------------------------- */

static uint32_t min_u32(uint32_t a, uint32_t z)
{
    return a < z ? a : z;
}

static uint32_t *seq_pages(struct batch *b, const struct batch_seq *seq)
{
    return &b->pages[(size_t)seq->slot * b->stride];
}

static uint32_t pages_for(const struct batch *b, uint32_t positions)
{
    return (positions + b->config.page_tokens - 1) / b->config.page_tokens;
}

static struct kv_place place_at(const struct batch *b, const struct batch_seq *seq, uint32_t page,
                                uint64_t before)
{
    return (struct kv_place){
        .space = seq->space,
        .before = before,
        .ids = seq->ids + (size_t)page * b->config.page_tokens,
    };
}

/* Whether the sequence may hold page `index` instead of computing it: nothing is wanted of it but
 * its K and V. */
static bool page_is_reusable(const struct batch *b, const struct batch_seq *seq, uint32_t index)
{
    return seq->space != 0 && !seq->unnamed &&
           (uint64_t)(index + 1) * b->config.page_tokens <= seq->logits_from;
}

/* Holds the pages that are there already, from where the sequence stands. True when it has to wait
 * for one that another computes now. */
static bool seq_take_ready(struct batch *b, struct batch_seq *seq)
{
    uint32_t page, size = b->config.page_tokens;

    while (seq->n_computed == seq->n_named * size && page_is_reusable(b, seq, seq->n_named)) {
        struct kv_place place = place_at(b, seq, seq->n_named, seq->serial);
        enum kv_match match = kv_pages_find(b->kv, &place, &page);
        if (match != KV_MATCH_READY)
            return match == KV_MATCH_CLAIMED;
        kv_pages_hold(b->kv, page);
        CHECK(seq->n_pages == seq->n_named);
        seq_pages(b, seq)[seq->n_pages++] = page;
        seq->serial = kv_pages_serial(b->kv, page);
        seq->n_named++;
        seq->n_ready++;
        if (seq->n_computed >= seq->n_most) {
            seq->n_cached += size;
            b->n_cached += size;
            seq->n_most = seq->n_computed + size;
        }
        seq->n_computed += size;
    }
    return false;
}

/* How many pages the cache has of what the sequence begins with; *ret_kept: of these, those that
 * nobody holds, which kv_pages_available counts. */
static uint32_t seq_count_ready(const struct batch *b, const struct batch_seq *seq,
                                uint32_t *ret_kept)
{
    uint32_t n = 0, page;
    uint64_t before = 0;

    *ret_kept = 0;
    while (page_is_reusable(b, seq, n)) {
        struct kv_place place = place_at(b, seq, n, before);
        if (kv_pages_find(b->kv, &place, &page) != KV_MATCH_READY)
            break;
        before = kv_pages_serial(b->kv, page);
        *ret_kept += !kv_pages_held(b->kv, page);
        n++;
    }
    return n;
}

/* From the end to the beginning, which is then reused longest. */
static void seq_drop_pages(struct batch *b, struct batch_seq *seq)
{
    while (seq->n_pages > 0)
        kv_pages_drop(b->kv, seq_pages(b, seq)[--seq->n_pages]);
    seq->n_computed = seq->n_named = seq->n_ready = 0;
    seq->serial = 0;
    seq->unnamed = false;
    seq->n_planned = 0;
}

/* ---- the line --------------------------------------------------------------------------- */

static uint32_t class_now(const struct batch *b, const struct batch_seq *seq)
{
    return seq->passed >= b->config.pass_max ? 0 : seq->job_class;
}

static bool comes_before(const struct batch *b, const struct batch_seq *a,
                         const struct batch_seq *z)
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
        if (first == NULL || comes_before(b, b->waiting[i], first))
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

/* The running job that comes last. While it is under way nobody else makes way in its place: it is
 * free at a commit that comes for certain. */
static struct batch_seq *last_running(const struct batch *b)
{
    struct batch_seq *last = NULL;

    for (uint32_t i = 0; i < b->config.slots; i++)
        if (b->slots[i] != NULL && (last == NULL || comes_before(b, last, b->slots[i])))
            last = b->slots[i];
    return last;
}

static void preempt(struct batch *b, struct batch_seq *seq)
{
    CHECK(!batch_is_under_way(seq));
    seq_drop_pages(b, seq);
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
    uint32_t now = pages_for(b, seq->n_ids);
    uint32_t wanted = all - now > b->config.headroom_pages ? now + b->config.headroom_pages : all;

    return wanted > seq->n_pages ? wanted - seq->n_pages : 0;
}

static bool pages_suffice(const struct batch *b, const struct batch_seq *seq)
{
    uint32_t kept, ready = seq_count_ready(b, seq, &kept);
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
        struct batch_seq *victim = last_running(b);
        if (class_now(b, victim) <= class_now(b, seq) || !victims_suffice(b, seq) ||
            batch_is_under_way(victim))
            return NULL;
        preempt(b, victim);
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
    (void)seq_take_ready(b, seq);
    return seq;
}

void batch_remove(struct batch *b, struct batch_seq *seq)
{
    CHECK(!batch_is_under_way(seq));
    if (seq->slot == SLOT_NONE) {
        waiting_take(b, seq);
    } else {
        seq_drop_pages(b, seq);
        b->slots[seq->slot] = NULL;
        b->n_running--;
    }
    seq_free(seq);
}

/* ---- planning --------------------------------------------------------------------------- */

/* Longest not served first, then as in line. */
static bool served_before(const struct batch *b, const struct batch_seq *a,
                          const struct batch_seq *z)
{
    if (a->served != z->served)
        return a->served < z->served;
    return comes_before(b, a, z);
}

/* Those who run and are not under way. Insertion sort: from one step to the next the order hardly
 * changes. */
static uint32_t free_in_order(struct batch *b)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < b->config.slots; slot++) {
        struct batch_seq *seq = b->slots[slot];
        uint32_t at = n;
        if (seq == NULL || batch_is_under_way(seq))
            continue;
        while (at > 0 && served_before(b, seq, b->order[at - 1])) {
            b->order[at] = b->order[at - 1];
            at--;
        }
        b->order[at] = seq;
        n++;
    }
    return n;
}

static bool is_decode(const struct batch_seq *seq)
{
    return seq->n_ids - seq->n_computed == 1;
}

/* Names the pages that the piece up to `end` begins or fills, so that nobody else computes them.
 * seq_take_ready has just found that the first is not there, and so no other is. Pages that are
 * only filled by ids still to be drawn are named when they are full. */
static void seq_claim(struct batch *b, struct batch_seq *seq, uint32_t end)
{
    while (page_is_reusable(b, seq, seq->n_named) && seq->n_named * b->config.page_tokens < end) {
        struct kv_place place = place_at(b, seq, seq->n_named, seq->serial);
        seq->serial = kv_pages_claim(b->kv, seq_pages(b, seq)[seq->n_named], &place);
        seq->n_named++;
    }
}

/* Pages for positions up to `end`; preempts whoever comes last for them. How far they reach: less
 * where that one is under way, 0 where it was the sequence itself. */
static uint32_t seq_reserve(struct batch *b, struct batch_seq *seq, uint32_t end)
{
    uint32_t needed = pages_for(b, end);

    while (seq->n_pages < needed) {
        uint32_t page = kv_pages_take(b->kv);
        while (page == KV_PAGE_NONE) {
            struct batch_seq *victim = last_running(b);
            if (batch_is_under_way(victim))
                return seq->n_pages * b->config.page_tokens;
            preempt(b, victim);
            if (victim == seq)
                return 0;
            page = kv_pages_take(b->kv);
        }
        seq_pages(b, seq)[seq->n_pages++] = page;
    }
    return end;
}

/* Rows up to `end` whose logits are wanted. */
static uint32_t logits_until(const struct batch_seq *seq, uint32_t end)
{
    uint32_t from = seq->logits_from > seq->n_computed ? seq->logits_from : seq->n_computed;

    return end > from ? end - from : 0;
}

/* Gives `seq` up to `rows` rows, of which up to `logits` with logits. Returns what it got. */
static uint32_t seq_plan(struct batch *b, struct batch_seq *seq, uint32_t rows, uint32_t *logits)
{
    uint32_t end = seq->n_computed + min_u32(seq->n_ids - seq->n_computed, rows);
    uint32_t with_logits = logits_until(seq, end);

    if (with_logits > *logits)
        end -= with_logits - *logits;
    if (end > seq->n_computed)
        end = seq_reserve(b, seq, end);
    if (end <= seq->n_computed)
        return 0;
    seq_claim(b, seq, end);
    *logits -= logits_until(seq, end);
    seq->n_planned = end - seq->n_computed;
    return seq->n_planned;
}

static uint32_t share_of(uint32_t n, uint32_t parts)
{
    return (n + parts - 1) / parts;
}

/* Of the `n` who could draw now, those that this step takes. What is free is shared out over the
 * plans that may still be made; no part is larger than it were if all were even. */
static uint32_t decodes_most(const struct batch *b, uint32_t n)
{
    return min_u32(share_of(n, b->config.plans_max - b->n_under_way),
                   share_of(b->n_running, b->config.plans_max));
}

static bool draws_under_way(const struct batch *b)
{
    for (uint32_t i = 0; i < b->n_under_way; i++)
        if (b->steps[(b->oldest + i) % b->config.plans_max].n_draws > 0)
            return true;
    return false;
}

/* Shares the step's rows out into n_planned. Every job that draws costs one row and one row of
 * logits; a piece of a prompt costs logits only from its logits_from on. */
static void share_rows(struct batch *b, uint32_t n_free)
{
    uint32_t rows = b->config.step_tokens, logits = b->config.logits_rows;
    uint32_t for_prompts = rows, n_decodes = 0, could_decode = 0;

    for (uint32_t i = 0; i < n_free; i++) {
        struct batch_seq *seq = b->order[i];
        CHECK(seq->n_ids < seq->n_limit && seq->n_computed < seq->n_ids);
        seq->n_planned = 0;
        could_decode += is_decode(seq);
    }
    uint32_t quarter = rows / 4 > 0 ? rows / 4 : 1;
    uint32_t for_decode =
        min_u32(could_decode < n_free ? rows - quarter : rows, decodes_most(b, could_decode));
    for (uint32_t i = 0; i < n_free && for_decode > 0 && logits > 0; i++) {
        struct batch_seq *seq = b->order[i];
        /* A sequence that an earlier one preempted has left its slot. */
        if (seq->slot == SLOT_NONE || !is_decode(seq) || seq_plan(b, seq, 1, &logits) == 0)
            continue;
        rows--;
        for_decode--;
        n_decodes++;
    }
    if (n_decodes > 0 || draws_under_way(b))
        for_prompts = b->config.beside_tokens;
    for (uint32_t i = 0; i < n_free && rows > 0 && for_prompts > 0; i++) {
        struct batch_seq *seq = b->order[i];
        if (seq->slot == SLOT_NONE || seq->n_planned > 0 || is_decode(seq) ||
            seq_take_ready(b, seq))
            continue;
        uint32_t most = min_u32(b->config.chunk_tokens, min_u32(rows, for_prompts));
        uint32_t n = seq_plan(b, seq, most, &logits);
        rows -= n;
        for_prompts -= n;
    }
}

static void put_row(struct batch_step *step, const struct batch_seq *seq, uint32_t position)
{
    step->row_ids[step->n_rows] = seq->ids[position];
    step->row_position[step->n_rows] = position;
    step->row_slot[step->n_rows] = seq->slot;
    step->n_rows++;
}

static void put_rows(struct batch *b, uint32_t n_free, uint32_t at)
{
    struct batch_step *step = &b->steps[at];

    step->n_rows = step->n_logits = step->n_prompt = step->n_draws = 0;
    for (uint32_t i = 0; i < n_free; i++) {
        struct batch_seq *seq = b->order[i];
        if (seq->slot == SLOT_NONE || seq->n_planned == 0)
            continue;
        uint32_t end = min_u32(seq->n_computed + seq->n_planned, seq->logits_from);
        seq->served = b->n_steps;
        seq->step = at;
        if (!is_decode(seq))
            step->n_prompt += seq->n_planned;
        for (uint32_t position = seq->n_computed; position < end; position++)
            put_row(step, seq, position);
    }
    for (uint32_t i = 0; i < n_free; i++) {
        struct batch_seq *seq = b->order[i];
        if (seq->slot == SLOT_NONE)
            continue;
        uint32_t end = seq->n_computed + seq->n_planned;
        uint32_t position = seq->n_computed > seq->logits_from ? seq->n_computed : seq->logits_from;
        for (; position < end; position++) {
            const bool draws = position == seq->n_ids - 1;
            step->logits_seq[step->n_logits] = seq;
            step->row_draw[step->n_logits++] = draws;
            step->n_draws += draws;
            put_row(step, seq, position);
        }
    }
}

bool batch_plan_step(struct batch *b, struct batch_plan *ret_plan)
{
    uint32_t at = (b->oldest + b->n_under_way) % b->config.plans_max, n_free;
    struct batch_step *step = &b->steps[at];

    if (b->n_under_way == b->config.plans_max)
        return false;
    n_free = free_in_order(b);
    if (n_free == 0)
        return false;
    b->n_steps++;
    share_rows(b, n_free);
    put_rows(b, n_free, at);
    /* All had to wait for a page of one that was then preempted: once more without it. Where a step
     * is under way they may wait for that. */
    while (step->n_rows == 0) {
        if (b->n_under_way > 0)
            return false;
        n_free = free_in_order(b);
        share_rows(b, n_free);
        put_rows(b, n_free, at);
    }
    CHECK(step->n_rows <= b->config.step_tokens && step->n_logits <= b->config.logits_rows);
    b->n_under_way++;
    *ret_plan = (struct batch_plan){
        .n_rows = step->n_rows,
        .ids = step->row_ids,
        .position = step->row_position,
        .slot = step->row_slot,
        .n_logits = step->n_logits,
        .logits_seq = step->logits_seq,
        .draw = step->row_draw,
        .n_prompt = step->n_prompt,
        .pages = b->pages,
        .pages_stride = b->stride,
    };
    return true;
}

/* ---- after the step --------------------------------------------------------------------- */

/* Names a page that became full with drawn ids, or whose logits were wanted. Where the cache has
 * the same text already, that page is held instead: the bits are the same. */
static void seq_name_full(struct batch *b, struct batch_seq *seq)
{
    uint32_t *page = &seq_pages(b, seq)[seq->n_named], other;
    struct kv_place place = place_at(b, seq, seq->n_named, seq->serial);

    switch (kv_pages_find(b->kv, &place, &other)) {
    case KV_MATCH_CLAIMED:
        seq->unnamed = true;
        return;
    case KV_MATCH_READY:
        kv_pages_hold(b->kv, other);
        kv_pages_drop(b->kv, *page);
        *page = other;
        seq->serial = kv_pages_serial(b->kv, other);
        break;
    case KV_MATCH_ABSENT:
        seq->serial = kv_pages_claim(b->kv, *page, &place);
        kv_pages_ready(b->kv, *page);
        break;
    }
    seq->n_named++;
    seq->n_ready++;
}

static void seq_publish(struct batch *b, struct batch_seq *seq)
{
    uint32_t full = seq->n_computed / b->config.page_tokens;

    while (seq->n_ready < seq->n_named && seq->n_ready < full)
        kv_pages_ready(b->kv, seq_pages(b, seq)[seq->n_ready++]);
    while (seq->space != 0 && !seq->unnamed && seq->n_named < full)
        seq_name_full(b, seq);
}

void batch_abandon(struct batch *b)
{
    CHECK(b->n_under_way > 0);
    b->n_under_way = 0;
    for (uint32_t i = 0; i < b->config.slots; i++) {
        if (b->slots[i] == NULL)
            continue;
        b->slots[i]->n_planned = 0;
        b->slots[i]->step = STEP_NONE;
    }
}

void batch_commit(struct batch *b, const int32_t *drawn)
{
    const struct batch_step *step = &b->steps[b->oldest];

    CHECK(b->n_under_way > 0);
    for (uint32_t slot = 0; slot < b->config.slots; slot++) {
        struct batch_seq *seq = b->slots[slot];
        if (seq == NULL || seq->step != b->oldest)
            continue;
        seq->n_computed += seq->n_planned;
        seq->n_planned = 0;
        seq->step = STEP_NONE;
        if (seq->n_computed > seq->n_most)
            seq->n_most = seq->n_computed;
        seq_publish(b, seq);
    }
    for (uint32_t i = 0; i < step->n_logits; i++) {
        struct batch_seq *seq = step->logits_seq[i];
        /* Should the sequence be preempted and computed again, these logits are not wanted twice.
         */
        seq->logits_from = step->row_position[step->n_rows - step->n_logits + i] + 1;
        if (!step->row_draw[i])
            continue;
        CHECK(seq->n_ids < seq->n_limit && seq->n_computed == seq->n_ids);
        seq->ids[seq->n_ids++] = drawn[i];
    }
    b->oldest = (b->oldest + 1) % b->config.plans_max;
    b->n_under_way--;
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
