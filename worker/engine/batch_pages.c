/* The pages of one sequence: held, promised to others, found in the cache. */
#include "worker/engine/batch_internal.h"

#include "common/check.h"

uint32_t *batch_seq_pages(struct batch *b, const struct batch_seq *seq)
{
    return &b->pages[(size_t)seq->slot * b->stride];
}

uint32_t batch_pages_for(const struct batch *b, uint32_t positions)
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

bool batch_seq_take_ready(struct batch *b, struct batch_seq *seq)
{
    uint32_t page, size = b->config.page_tokens;

    while (seq->n_computed == seq->n_named * size && page_is_reusable(b, seq, seq->n_named)) {
        struct kv_place place = place_at(b, seq, seq->n_named, seq->serial);
        enum kv_match match = kv_pages_find(b->kv, &place, &page);
        if (match != KV_MATCH_READY)
            return match == KV_MATCH_CLAIMED;
        kv_pages_hold(b->kv, page);
        CHECK(seq->n_pages == seq->n_named);
        batch_seq_pages(b, seq)[seq->n_pages++] = page;
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

uint32_t batch_seq_count_ready(const struct batch *b, const struct batch_seq *seq,
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
void batch_seq_drop_pages(struct batch *b, struct batch_seq *seq)
{
    while (seq->n_pages > 0)
        kv_pages_drop(b->kv, batch_seq_pages(b, seq)[--seq->n_pages]);
    seq->n_computed = seq->n_named = seq->n_ready = 0;
    seq->serial = 0;
    seq->unnamed = false;
    seq->n_planned = 0;
}

void batch_seq_claim(struct batch *b, struct batch_seq *seq, uint32_t end)
{
    while (page_is_reusable(b, seq, seq->n_named) && seq->n_named * b->config.page_tokens < end) {
        struct kv_place place = place_at(b, seq, seq->n_named, seq->serial);
        seq->serial = kv_pages_claim(b->kv, batch_seq_pages(b, seq)[seq->n_named], &place);
        seq->n_named++;
    }
}

/* Names a page that became full with drawn ids, or whose logits were wanted. Where the cache has
 * the same text already, that page is held instead: the bits are the same. */
static void seq_name_full(struct batch *b, struct batch_seq *seq)
{
    uint32_t *page = &batch_seq_pages(b, seq)[seq->n_named], other;
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

void batch_seq_publish(struct batch *b, struct batch_seq *seq)
{
    uint32_t full = seq->n_computed / b->config.page_tokens;

    while (seq->n_ready < seq->n_named && seq->n_ready < full)
        kv_pages_ready(b->kv, batch_seq_pages(b, seq)[seq->n_ready++]);
    while (seq->space != 0 && !seq->unnamed && seq->n_named < full)
        seq_name_full(b, seq);
}
