/* Steps: whose rows the next one has, and what becomes of those under way. */
#include "worker/engine/batch_internal.h"

#include "common/check.h"

/* ---- planning --------------------------------------------------------------------------- */

/* Longest not served first, then as in line. */
static bool served_before(const struct batch *b, const struct batch_seq *a,
                          const struct batch_seq *z)
{
    if (a->served != z->served)
        return a->served < z->served;
    return batch_comes_before(b, a, z);
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

/* Pages for positions up to `end`; preempts whoever comes last for them. How far they reach: less
 * where that one is under way, 0 where it was the sequence itself. */
static uint32_t seq_reserve(struct batch *b, struct batch_seq *seq, uint32_t end)
{
    uint32_t needed = batch_pages_for(b, end);

    while (seq->n_pages < needed) {
        uint32_t page = kv_pages_take(b->kv);
        while (page == KV_PAGE_NONE) {
            struct batch_seq *victim = batch_last_running(b);
            if (batch_is_under_way(victim))
                return seq->n_pages * b->config.page_tokens;
            batch_preempt(b, victim);
            if (victim == seq)
                return 0;
            page = kv_pages_take(b->kv);
        }
        batch_seq_pages(b, seq)[seq->n_pages++] = page;
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
    uint32_t end = seq->n_computed + batch_min(seq->n_ids - seq->n_computed, rows);
    uint32_t with_logits = logits_until(seq, end);

    if (with_logits > *logits)
        end -= with_logits - *logits;
    if (end > seq->n_computed)
        end = seq_reserve(b, seq, end);
    if (end <= seq->n_computed)
        return 0;
    batch_seq_claim(b, seq, end);
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
    return batch_min(share_of(n, b->config.plans_max - b->n_under_way),
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
        batch_min(could_decode < n_free ? rows - quarter : rows, decodes_most(b, could_decode));
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
            batch_seq_take_ready(b, seq))
            continue;
        uint32_t most = batch_min(b->config.chunk_tokens, batch_min(rows, for_prompts));
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
        uint32_t end = batch_min(seq->n_computed + seq->n_planned, seq->logits_from);
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
    /* A piece that needs pages took the rows of all who had one, and had to go itself for who comes
     * before it and was not meant to be in this step: once more for those who are left. Where a
     * step is under way they may wait for that. */
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
        batch_seq_publish(b, seq);
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
