#include "worker/engine/gang_told.h"

#include "common/check.h"

#include <string.h>

/* This, then ids, positions and sequences of its rows, then what is new in page
 * tables. */
struct gang_head {
    uint32_t n_rows;
    uint32_t n_logits;
    uint32_t n_pages;
};

struct gang_page {
    uint32_t sequence, index, page;
};

_Static_assert(sizeof(struct gang_head) == 12 && sizeof(struct gang_page) == 12, "words");

size_t gang_told_bytes(const struct gang_limits *l)
{
    return sizeof(struct gang_head) + (size_t)l->rows * 3 * sizeof(uint32_t) +
           (size_t)l->sequences * l->sequence_pages * sizeof(struct gang_page);
}

/* Of rows on one sequence that go on, only the last sees all that the others see. */
static bool is_last_of_run(const uint32_t *slot, const uint32_t *position, uint32_t n_rows,
                           uint32_t row)
{
    return row + 1 == n_rows || slot[row + 1] != slot[row] || position[row + 1] <= position[row];
}

/* What the plan's rows read of page tables and was not told yet. */
static uint32_t pages_new(struct gang_told *t, const struct batch_plan *plan, struct gang_page *ret)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < plan->n_rows; i++) {
        if (!is_last_of_run(plan->slot, plan->position, plan->n_rows, i))
            continue;
        const uint32_t slot = plan->slot[i];
        const uint32_t *pages = plan->pages + (size_t)slot * plan->pages_stride;
        uint32_t *told = t->pages + (size_t)slot * t->limits->sequence_pages;
        const uint32_t count = plan->position[i] / KV_PAGE_TOKENS + 1;
        CHECK(slot < t->limits->sequences && count <= t->limits->sequence_pages);
        for (uint32_t k = 0; k < count; k++) {
            if (told[k] == pages[k])
                continue;
            told[k] = pages[k];
            ret[n++] = (struct gang_page){slot, k, pages[k]};
        }
    }
    return n;
}

size_t gang_told_put(struct gang_told *t, const struct batch_plan *plan)
{
    struct gang_head head = {0};
    size_t size = sizeof head;

    if (plan != NULL) {
        const size_t n = plan->n_rows;
        uint32_t *words = t->words + sizeof head / sizeof *words;
        CHECK(n <= t->limits->rows && plan->n_logits <= t->limits->logits_rows);
        memcpy(words, plan->ids, n * sizeof *words);
        memcpy(words + n, plan->position, n * sizeof *words);
        memcpy(words + 2 * n, plan->slot, n * sizeof *words);
        head.n_rows = plan->n_rows;
        head.n_logits = plan->n_logits;
        head.n_pages = pages_new(t, plan, (struct gang_page *)(void *)(words + 3 * n));
        size += 3 * n * sizeof *words + head.n_pages * sizeof(struct gang_page);
    }
    memcpy(t->words, &head, sizeof head);
    return size;
}

static enum err told_wrong(const char *what, uint32_t value, struct errbuf *eb)
{
    return err_set(eb, ERR_INTERNAL, "rank 0 told of a step with %s %u", what, value);
}

static enum err words_check(struct gang_told *t, const struct gang_head *head, size_t size,
                            struct errbuf *eb)
{
    const struct gang_limits *l = t->limits;
    const uint32_t *words = t->words + sizeof *head / sizeof *words;

    if (head->n_rows > l->rows)
        return told_wrong("a number of rows of", head->n_rows, eb);
    if (head->n_logits > l->logits_rows || head->n_logits > head->n_rows)
        return told_wrong("a number of logits of", head->n_logits, eb);
    if (head->n_pages > (uint64_t)l->sequences * l->sequence_pages)
        return told_wrong("a number of pages of", head->n_pages, eb);
    if (size != sizeof *head + (size_t)head->n_rows * 3 * sizeof *words +
                    head->n_pages * sizeof(struct gang_page))
        return told_wrong("another size than its rows have,", (uint32_t)size, eb);
    const uint32_t *position = words + head->n_rows, *slot = position + head->n_rows;
    const struct gang_page *page = (const void *)(slot + head->n_rows);
    for (uint32_t i = 0; i < head->n_rows; i++) {
        if (words[i] >= t->vocab)
            return told_wrong("token", words[i], eb);
        if (slot[i] >= l->sequences)
            return told_wrong("sequence", slot[i], eb);
        if (position[i] >= l->context_tokens)
            return told_wrong("position", position[i], eb);
    }
    for (uint32_t i = 0; i < head->n_pages; i++) {
        if (page[i].sequence >= l->sequences)
            return told_wrong("a page of sequence", page[i].sequence, eb);
        if (page[i].index >= l->sequence_pages)
            return told_wrong("a page in place", page[i].index, eb);
        if (page[i].page >= l->kv_pages)
            return told_wrong("page", page[i].page, eb);
        t->pages[(size_t)page[i].sequence * l->sequence_pages + page[i].index] = page[i].page;
    }
    for (uint32_t i = 0; i < head->n_rows; i++) {
        const uint32_t *pages = t->pages + (size_t)slot[i] * l->sequence_pages;
        if (!is_last_of_run(slot, position, head->n_rows, i))
            continue;
        for (uint32_t k = 0; k <= position[i] / KV_PAGE_TOKENS; k++)
            if (pages[k] >= l->kv_pages)
                return told_wrong("no page for position", position[i], eb);
    }
    return ERR_OK;
}

enum err gang_told_take(struct gang_told *t, const void *bytes, size_t size,
                        struct batch_plan *ret_plan, struct errbuf *eb)
{
    struct gang_head head;

    if (size < sizeof head || size > gang_told_bytes(t->limits))
        return told_wrong("a size of", (uint32_t)size, eb);
    memcpy(t->words, bytes, size);
    memcpy(&head, t->words, sizeof head);
    enum err e = words_check(t, &head, size, eb);
    if (e != ERR_OK)
        return e;
    const uint32_t *words = t->words + sizeof head / sizeof *words;
    *ret_plan = (struct batch_plan){
        .n_rows = head.n_rows,
        .ids = (const int32_t *)words,
        .position = words + head.n_rows,
        .slot = words + 2 * (size_t)head.n_rows,
        .n_logits = head.n_logits,
        .pages = t->pages,
        .pages_stride = t->limits->sequence_pages,
    };
    return ERR_OK;
}
