#include "worker/engine/batch.h"

#include "common/check.h"
#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

struct batch_sequence {
    void *owner; /* NULL: free */
    int32_t *ids;
    uint32_t n_ids;
    uint32_t n_limit;
    uint32_t n_computed; /* positions whose K and V are in the cache */
    uint32_t logits_from;
    uint32_t n_pages;
    uint32_t n_planned; /* rows of the planned step */
    uint64_t admitted;  /* order of admission */
    uint64_t served;    /* number of the last step that had a row of this sequence */
};

struct batch {
    struct batch_config config;
    struct batch_sequence *slots; /* [config.slots] */
    uint32_t *pages;              /* [config.slots][stride] */
    uint32_t stride;
    uint32_t *free_pages; /* stack */
    uint32_t n_free_pages;
    uint32_t n_running;

    struct batch_sequence *waiting; /* ring of config.waiting_max */
    uint32_t waiting_first, n_waiting;

    uint64_t n_steps, n_admitted;
    bool planned;

    uint32_t *order; /* [slots] running slots in the order they are served */
    int32_t *row_ids;
    uint32_t *row_position, *row_slot; /* [step_tokens] */
    bool *row_draw;                    /* [logits_rows] */
    uint32_t *logits_slot;             /* [logits_rows] */
    uint32_t n_rows, n_logits;
};

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
        e = config_range(eb, "logits_rows", c->logits_rows, c->slots, 1u << 20);
    return e;
}

uint32_t batch_pages_needed(const struct batch_config *config, uint32_t n_limit)
{
    return (n_limit - 1 + config->page_tokens - 1) / config->page_tokens;
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
    b->slots = calloc(config->slots, sizeof *b->slots);
    b->pages = calloc((size_t)config->slots * b->stride, sizeof *b->pages);
    b->free_pages = calloc(config->pages, sizeof *b->free_pages);
    b->waiting = calloc(config->waiting_max, sizeof *b->waiting);
    b->order = calloc(config->slots, sizeof *b->order);
    b->row_ids = calloc(config->step_tokens, sizeof *b->row_ids);
    b->row_position = calloc(config->step_tokens, sizeof *b->row_position);
    b->row_slot = calloc(config->step_tokens, sizeof *b->row_slot);
    b->row_draw = calloc(config->logits_rows, sizeof *b->row_draw);
    b->logits_slot = calloc(config->logits_rows, sizeof *b->logits_slot);
    if (b->slots == NULL || b->pages == NULL || b->free_pages == NULL || b->waiting == NULL ||
        b->order == NULL || b->row_ids == NULL || b->row_position == NULL || b->row_slot == NULL ||
        b->row_draw == NULL || b->logits_slot == NULL) {
        batch_free(b);
        return err_set(eb, ERR_NO_MEMORY, "batch: no memory for %u slots", config->slots);
    }
    while (b->n_free_pages < config->pages) {
        b->free_pages[b->n_free_pages] = config->pages - 1 - b->n_free_pages;
        b->n_free_pages++;
    }
    *ret_batch = b;
    return ERR_OK;
}

void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    if (b->slots != NULL)
        for (uint32_t i = 0; i < b->config.slots; i++)
            free(b->slots[i].ids);
    if (b->waiting != NULL)
        for (uint32_t i = 0; i < b->config.waiting_max; i++)
            free(b->waiting[i].ids);
    free(b->slots);
    free(b->pages);
    free(b->free_pages);
    free(b->waiting);
    free(b->order);
    free(b->row_ids);
    free(b->row_position);
    free(b->row_slot);
    free(b->row_draw);
    free(b->logits_slot);
    free(b);
}

static struct batch_sequence *waiting_at(struct batch *b, uint32_t index)
{
    return &b->waiting[(b->waiting_first + index) % b->config.waiting_max];
}

enum err batch_add(struct batch *b, const struct batch_job *job, struct errbuf *eb)
{
    const struct batch_config *c = &b->config;
    struct batch_sequence seq = {0};

    CHECK(job->owner != NULL && !b->planned);
    if (job->n_ids == 0)
        return err_set(eb, ERR_INVALID, "the prompt is empty: there is no token to go on from");
    if (job->n_limit <= job->n_ids || job->n_limit > c->context_tokens)
        return err_set(eb, ERR_INVALID,
                       "%u tokens with room for %u more do not fit a context of %u", job->n_ids,
                       job->n_limit - job->n_ids, c->context_tokens);
    if (job->logits_from >= job->n_ids)
        return err_set(eb, ERR_INVALID, "logits wanted from position %u of %u", job->logits_from,
                       job->n_ids);
    seq.n_pages = batch_pages_needed(c, job->n_limit);
    if (seq.n_pages > c->pages)
        return err_set(eb, ERR_TOO_LARGE,
                       "%u tokens need %u KV pages of %u tokens; the whole pool has %u",
                       job->n_limit, seq.n_pages, c->page_tokens, c->pages);
    if (b->n_waiting == c->waiting_max)
        return err_set(eb, ERR_BUSY, "%u jobs wait already; the line is full", b->n_waiting);
    seq.ids = malloc((size_t)job->n_limit * sizeof *seq.ids);
    if (seq.ids == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %u token ids", job->n_limit);
    memcpy(seq.ids, job->ids, (size_t)job->n_ids * sizeof *seq.ids);
    seq.owner = job->owner;
    seq.n_ids = job->n_ids;
    seq.n_limit = job->n_limit;
    seq.logits_from = job->logits_from;
    *waiting_at(b, b->n_waiting) = seq;
    b->n_waiting++;
    return ERR_OK;
}

void *batch_admit(struct batch *b, uint32_t *ret_slot)
{
    uint32_t slot = 0;

    CHECK(!b->planned);
    if (b->n_waiting == 0 || b->n_running == b->config.slots)
        return NULL;
    struct batch_sequence *first = waiting_at(b, 0);
    if (first->n_pages > b->n_free_pages)
        return NULL;
    while (b->slots[slot].owner != NULL)
        slot++;
    struct batch_sequence *seq = &b->slots[slot];
    *seq = *first;
    *first = (struct batch_sequence){0};
    b->waiting_first = (b->waiting_first + 1) % b->config.waiting_max;
    b->n_waiting--;
    for (uint32_t i = 0; i < seq->n_pages; i++)
        b->pages[(size_t)slot * b->stride + i] = b->free_pages[--b->n_free_pages];
    seq->admitted = b->n_admitted++;
    seq->served = b->n_steps;
    b->n_running++;
    *ret_slot = slot;
    return seq->owner;
}

bool batch_remove(struct batch *b, const void *owner)
{
    CHECK(!b->planned);
    for (uint32_t i = 0; i < b->n_waiting; i++) {
        if (waiting_at(b, i)->owner != owner)
            continue;
        free(waiting_at(b, i)->ids);
        for (; i + 1 < b->n_waiting; i++)
            *waiting_at(b, i) = *waiting_at(b, i + 1);
        *waiting_at(b, b->n_waiting - 1) = (struct batch_sequence){0};
        b->n_waiting--;
        return true;
    }
    for (uint32_t slot = 0; slot < b->config.slots; slot++) {
        struct batch_sequence *seq = &b->slots[slot];
        if (seq->owner != owner || owner == NULL)
            continue;
        for (uint32_t i = seq->n_pages; i > 0; i--)
            b->free_pages[b->n_free_pages++] = b->pages[(size_t)slot * b->stride + i - 1];
        free(seq->ids);
        *seq = (struct batch_sequence){0};
        b->n_running--;
        return true;
    }
    return false;
}

/* Longest not served first, then in order of admission. */
static bool served_before(const struct batch_sequence *a, const struct batch_sequence *z)
{
    if (a->served != z->served)
        return a->served < z->served;
    return a->admitted < z->admitted;
}

/* Insertion sort: from one step to the next the order hardly changes. */
static uint32_t running_in_order(struct batch *b)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < b->config.slots; slot++) {
        uint32_t at = n;
        if (b->slots[slot].owner == NULL)
            continue;
        while (at > 0 && served_before(&b->slots[slot], &b->slots[b->order[at - 1]])) {
            b->order[at] = b->order[at - 1];
            at--;
        }
        b->order[at] = slot;
        n++;
    }
    return n;
}

static bool is_decode(const struct batch_sequence *seq)
{
    return seq->n_ids - seq->n_computed == 1;
}

static uint32_t min_u32(uint32_t a, uint32_t z)
{
    return a < z ? a : z;
}

/* Shares the step's rows out into n_planned. Every job that draws costs one row and one row of
 * logits; a piece of a prompt costs logits only from its logits_from on. */
static void share_rows(struct batch *b, uint32_t n_running)
{
    uint32_t rows = b->config.step_tokens, logits = b->config.logits_rows;
    bool prompts = false;

    for (uint32_t i = 0; i < n_running; i++) {
        struct batch_sequence *seq = &b->slots[b->order[i]];
        CHECK(seq->n_ids < seq->n_limit && seq->n_computed < seq->n_ids);
        seq->n_planned = 0;
        prompts = prompts || !is_decode(seq);
    }
    uint32_t quarter = rows / 4 > 0 ? rows / 4 : 1;
    uint32_t for_decode = prompts ? rows - quarter : rows;
    for (uint32_t i = 0; i < n_running && for_decode > 0 && logits > 0; i++) {
        struct batch_sequence *seq = &b->slots[b->order[i]];
        if (!is_decode(seq))
            continue;
        seq->n_planned = 1;
        rows--;
        for_decode--;
        logits--;
    }
    for (uint32_t i = 0; i < n_running && rows > 0; i++) {
        struct batch_sequence *seq = &b->slots[b->order[i]];
        if (is_decode(seq))
            continue;
        uint32_t n = min_u32(seq->n_ids - seq->n_computed, min_u32(b->config.chunk_tokens, rows));
        uint32_t end = seq->n_computed + n;
        if (end > seq->logits_from) {
            uint32_t from = seq->logits_from > seq->n_computed ? seq->logits_from : seq->n_computed;
            uint32_t kept = min_u32(end - from, logits);
            end = from + kept;
            logits -= kept;
        }
        seq->n_planned = end - seq->n_computed;
        rows -= seq->n_planned;
    }
}

static void put_row(struct batch *b, uint32_t slot, uint32_t position)
{
    b->row_ids[b->n_rows] = b->slots[slot].ids[position];
    b->row_position[b->n_rows] = position;
    b->row_slot[b->n_rows] = slot;
    b->n_rows++;
}

bool batch_plan_step(struct batch *b, struct batch_plan *ret_plan)
{
    uint32_t n_running, n_prompt = 0;

    CHECK(!b->planned);
    n_running = running_in_order(b);
    if (n_running == 0)
        return false;
    b->n_steps++;
    b->n_rows = 0;
    b->n_logits = 0;
    share_rows(b, n_running);

    for (uint32_t i = 0; i < n_running; i++) {
        struct batch_sequence *seq = &b->slots[b->order[i]];
        uint32_t end = min_u32(seq->n_computed + seq->n_planned, seq->logits_from);
        if (seq->n_planned > 0)
            seq->served = b->n_steps;
        if (!is_decode(seq))
            n_prompt += seq->n_planned;
        for (uint32_t position = seq->n_computed; position < end; position++)
            put_row(b, b->order[i], position);
    }
    for (uint32_t i = 0; i < n_running; i++) {
        struct batch_sequence *seq = &b->slots[b->order[i]];
        uint32_t end = seq->n_computed + seq->n_planned;
        uint32_t position = seq->n_computed > seq->logits_from ? seq->n_computed : seq->logits_from;
        for (; position < end; position++) {
            b->logits_slot[b->n_logits] = b->order[i];
            b->row_draw[b->n_logits++] = position == seq->n_ids - 1;
            put_row(b, b->order[i], position);
        }
    }
    CHECK(b->n_rows > 0 && b->n_rows <= b->config.step_tokens &&
          b->n_logits <= b->config.logits_rows);
    b->planned = true;
    *ret_plan = (struct batch_plan){
        .n_rows = b->n_rows,
        .ids = b->row_ids,
        .position = b->row_position,
        .slot = b->row_slot,
        .n_logits = b->n_logits,
        .draw = b->row_draw,
        .n_prompt = n_prompt,
        .pages = b->pages,
        .pages_stride = b->stride,
    };
    return true;
}

void batch_commit(struct batch *b, const int32_t *drawn)
{
    CHECK(b->planned);
    b->planned = false;
    for (uint32_t slot = 0; slot < b->config.slots; slot++) {
        struct batch_sequence *seq = &b->slots[slot];
        if (seq->owner == NULL)
            continue;
        seq->n_computed += seq->n_planned;
        seq->n_planned = 0;
    }
    for (uint32_t i = 0; i < b->n_logits; i++) {
        struct batch_sequence *seq = &b->slots[b->logits_slot[i]];
        if (!b->row_draw[i])
            continue;
        CHECK(seq->n_ids < seq->n_limit && seq->n_computed == seq->n_ids);
        seq->ids[seq->n_ids++] = drawn[i];
    }
}

bool batch_full(const struct batch *b, uint32_t slot)
{
    CHECK(slot < b->config.slots && b->slots[slot].owner != NULL);
    return b->slots[slot].n_ids == b->slots[slot].n_limit;
}

void *batch_owner(const struct batch *b, uint32_t slot)
{
    CHECK(slot < b->config.slots);
    return b->slots[slot].owner;
}

const int32_t *batch_ids(const struct batch *b, uint32_t slot, uint32_t *ret_count)
{
    CHECK(slot < b->config.slots && b->slots[slot].owner != NULL);
    *ret_count = b->slots[slot].n_ids;
    return b->slots[slot].ids;
}

uint32_t batch_computed(const struct batch *b, uint32_t slot)
{
    CHECK(slot < b->config.slots && b->slots[slot].owner != NULL);
    return b->slots[slot].n_computed;
}

struct batch_state batch_state(const struct batch *b)
{
    struct batch_state state = {
        .running = b->n_running,
        .waiting = b->n_waiting,
        .pages_free = b->n_free_pages,
    };

    for (uint32_t i = 0; i < b->config.slots; i++)
        if (b->slots[i].owner != NULL)
            state.queued_tokens += b->slots[i].n_limit - b->slots[i].n_computed;
    for (uint32_t i = 0; i < b->n_waiting; i++)
        state.queued_tokens += b->waiting[(b->waiting_first + i) % b->config.waiting_max].n_limit;
    return state;
}
