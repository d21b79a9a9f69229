/*
 * tokenizer_merge.c - merges of neighbouring pieces of a word, for both families.
 *
 * The best pair of all is merged first, the leftmost among equals, until no two neighbours make a
 * token. Each piece knows the order of the pair that it makes with its right neighbour. A short
 * word looks through those; a long one, which may be a megabyte, has a queue, where an entry whose
 * pair has another order by now is dropped when it comes up. A merge asks for two pairs, so n
 * pieces take O(n log n) at worst.
 */
#include "worker/model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

#define NO_ORDER UINT32_MAX
#define NO_PIECE UINT32_MAX

enum {
    SHORT_WORD = 48,
    COMMON = 8,      /* a pass is worth while for that part of the pairs */
    RARE_PASSES = 4, /* over the whole word, that may be spent on less */
};

/* Numbers that sort as floats do, the greatest first. -0 and +0 are one score. */
static uint32_t score_order(float score)
{
    uint32_t bits;
    float positive_zero = score + 0.0f;
    memcpy(&bits, &positive_zero, sizeof bits);
    uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

/* What two neighbours make: its order, NO_ORDER where they make nothing. */
static uint32_t pair_order(const struct merger *m, const struct piece *left,
                           const struct piece *right, int32_t *ret_merged)
{
    const struct tokenizer *t = m->t;
    if (t->family == TOKENIZER_FAMILY_BPE) {
        int64_t rank = pair_map_find(t, left->id, right->id);
        if (rank < 0)
            return NO_ORDER;
        *ret_merged = t->merges[rank].merged;
        return (uint32_t)rank;
    }
    int32_t id = text_map_find(t, m->text + left->start, (size_t)left->size + right->size);
    if (id < 0 || !t->tokens[id].mergeable)
        return NO_ORDER;
    *ret_merged = id;
    return score_order(t->tokens[id].score);
}

/* --- short words --- */

static size_t merge_short(struct merger *m, size_t count)
{
    struct piece *p = m->pieces;
    uint32_t orders[SHORT_WORD];
    int32_t merged[SHORT_WORD];
    for (size_t i = 0; i + 1 < count; i++)
        orders[i] = pair_order(m, &p[i], &p[i + 1], &merged[i]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            best = orders[i] < orders[best] ? i : best;
        if (orders[best] == NO_ORDER)
            break;
        p[best].id = merged[best];
        p[best].size += p[best + 1].size;
        count--;
        for (size_t i = best + 1; i < count; i++) {
            p[i] = p[i + 1];
            orders[i - 1] = orders[i];
            merged[i - 1] = merged[i];
        }
        if (best > 0)
            orders[best - 1] = pair_order(m, &p[best - 1], &p[best], &merged[best - 1]);
        if (best + 1 < count)
            orders[best] = pair_order(m, &p[best], &p[best + 1], &merged[best]);
    }
    return count;
}

/* --- long words --- */

/* Of a piece and the next one. */
struct pair {
    uint32_t order; /* NO_ORDER too where the piece was merged away */
    int32_t merged; /* what they make */
};

/* Neighbours in the queue's turn, when merging leaves gaps. */
struct link {
    uint32_t prev;
    uint32_t next;
};

/* The last pairs that were asked for, by their ids: a long word asks for the same ones often. */
enum { MEMO_BITS = 11 };
struct pair_memo {
    uint64_t key; /* left id + 1, right id + 1; 0 where empty */
    uint32_t order;
    int32_t merged;
};

static uint32_t pair_order_again(struct merger *m, const struct piece *left,
                                 const struct piece *right, int32_t *ret_merged)
{
    if (left->id < 0 || right->id < 0)
        return pair_order(m, left, right, ret_merged);
    uint64_t key = ((uint64_t)(uint32_t)left->id + 1) << 32 | ((uint32_t)right->id + 1);
    struct pair_memo *memo = &m->memo[key * 0x9e3779b97f4a7c15ull >> (64 - MEMO_BITS)];
    if (memo->key != key) {
        memo->order = pair_order(m, left, right, &memo->merged);
        memo->key = key;
    }
    *ret_merged = memo->merged;
    return memo->order;
}

/* Makes the pairs, gives every piece its id where it has one and its pair's order. */
static bool long_begin(struct merger *m, size_t count)
{
    struct piece *p = m->pieces;
    if (m->memo == NULL) {
        m->memo = calloc((size_t)1 << MEMO_BITS, sizeof *m->memo);
        if (m->memo == NULL)
            return false;
    }
    if (count > m->pairs_capacity) {
        free(m->pairs);
        m->pairs_capacity = 0;
        m->pairs = malloc(count * sizeof *m->pairs);
        if (m->pairs == NULL)
            return false;
        m->pairs_capacity = count;
    }
    for (size_t i = 0; i < count && m->t->family == TOKENIZER_FAMILY_SPM; i++) {
        const uint8_t *text = m->text + p[i].start;
        if (i > 0 && p[i].size == p[i - 1].size &&
            memcmp(text, m->text + p[i - 1].start, p[i].size) == 0) {
            p[i].id = p[i - 1].id;
            continue;
        }
        int32_t id = text_map_find(m->t, text, p[i].size);
        p[i].id = id >= 0 && m->t->tokens[id].mergeable ? id : -1;
    }
    for (size_t i = 0; i + 1 < count; i++) {
        if (i > 0 && p[i].id >= 0 && p[i].id == p[i - 1].id && p[i + 1].id == p[i].id)
            m->pairs[i] = m->pairs[i - 1];
        else
            m->pairs[i].order = pair_order_again(m, &p[i], &p[i + 1], &m->pairs[i].merged);
    }
    m->pairs[count - 1].order = NO_ORDER;
    return true;
}

/* Merges all pairs of `order`, the best there is, from left to right. A merge can make a pair that
 * is as good or better, which then goes before everything that is left. */
static void merge_all_of(struct merger *m, size_t *count, uint32_t order)
{
    struct piece *p = m->pieces;
    struct pair *q = m->pairs;
    size_t n = *count;
    size_t used = 0;
    for (size_t i = 0; i < n; used++) {
        p[used] = p[i];
        q[used] = q[i];
        i++;
        while (q[used].order <= order || (used > 0 && q[used - 1].order <= order)) {
            if (used > 0 && q[used - 1].order <= q[used].order) {
                used--;
                p[used].size += p[used + 1].size;
            } else {
                p[used].size += p[i++].size;
            }
            p[used].id = q[used].merged;
            q[used].order =
                i < n ? pair_order_again(m, &p[used], &p[i], &q[used].merged) : NO_ORDER;
            if (used > 0)
                q[used - 1].order =
                    pair_order_again(m, &p[used - 1], &p[used], &q[used - 1].merged);
        }
    }
    *count = used;
}

/* While the best pair is a common one, as in a run of one letter, all of its kind go in one pass
 * over the word, which needs no queue. Rare ones come between, at the ends of runs: they may cost
 * some passes, too. False: nothing is left to merge. */
static bool merge_batches(struct merger *m, size_t *count)
{
    size_t to_spend = *count * RARE_PASSES;
    for (;;) {
        uint32_t best = NO_ORDER;
        size_t n_best = 0;
        for (size_t i = 0; i < *count; i++) {
            uint32_t order = m->pairs[i].order;
            n_best = order < best ? 1 : n_best + (order == best);
            best = order < best ? order : best;
        }
        if (best == NO_ORDER)
            return false;
        size_t count_before = *count;
        if (n_best < count_before / COMMON && to_spend < count_before)
            return true;
        merge_all_of(m, count, best);
        if (count_before - *count >= count_before / (2 * COMMON))
            continue;
        if (to_spend < count_before)
            return true;
        to_spend -= count_before;
    }
}

static bool pair_offer(struct merger *m, uint32_t left)
{
    struct pair *q = &m->pairs[left];
    uint32_t right = m->links[left].next;
    q->order = right == NO_PIECE
                   ? NO_ORDER
                   : pair_order_again(m, &m->pieces[left], &m->pieces[right], &q->merged);
    return q->order == NO_ORDER || queue_push(&m->queue, q->order, left);
}

/* One merge after the other. */
static bool merge_queued(struct merger *m, size_t *count)
{
    struct piece *p = m->pieces;
    struct pair *q = m->pairs;
    uint32_t n = (uint32_t)*count;
    uint32_t order;
    uint32_t left;
    if (n > m->links_capacity) {
        free(m->links);
        m->links_capacity = 0;
        m->links = malloc(n * sizeof *m->links);
        if (m->links == NULL)
            return false;
        m->links_capacity = n;
    }
    struct link *l = m->links;
    queue_clear(&m->queue);
    for (uint32_t i = 0; i < n; i++) {
        l[i].prev = i > 0 ? i - 1 : NO_PIECE;
        l[i].next = i + 1 < n ? i + 1 : NO_PIECE;
        if (q[i].order != NO_ORDER && !queue_push(&m->queue, q[i].order, i))
            return false;
    }
    while (queue_pop(&m->queue, &order, &left)) {
        if (q[left].order != order)
            continue;
        uint32_t right = l[left].next;
        p[left].id = q[left].merged;
        p[left].size += p[right].size;
        q[right].order = NO_ORDER;
        l[left].next = l[right].next;
        if (l[left].next != NO_PIECE)
            l[l[left].next].prev = left;
        if (l[left].prev != NO_PIECE && !pair_offer(m, l[left].prev))
            return false;
        if (!pair_offer(m, left))
            return false;
    }
    size_t used = 0;
    for (uint32_t i = 0; i != NO_PIECE; i = l[i].next)
        p[used++] = p[i];
    *count = used;
    return true;
}

static bool merge_long(struct merger *m, size_t *count)
{
    return long_begin(m, *count) && (!merge_batches(m, count) || merge_queued(m, count));
}

/* --- words --- */

enum err merger_reserve(struct merger *m, size_t count)
{
    if (count <= m->pieces_capacity)
        return ERR_OK;
    size_t capacity = count < 256 ? 256 : count;
    struct piece *pieces = realloc(m->pieces, capacity * sizeof *pieces);
    if (pieces == NULL)
        return ERR_NO_MEMORY;
    m->pieces = pieces;
    m->pieces_capacity = capacity;
    return ERR_OK;
}

enum err merger_run(struct merger *m, size_t *count)
{
    if (*count <= SHORT_WORD) {
        *count = merge_short(m, *count);
        return ERR_OK;
    }
    return merge_long(m, count) ? ERR_OK : ERR_NO_MEMORY;
}

void merger_fini(struct merger *m)
{
    free(m->pieces);
    free(m->pairs);
    free(m->links);
    free(m->memo);
    queue_fini(&m->queue);
}
