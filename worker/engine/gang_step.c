/* What rank 0 tells the others before each step, and how they take it. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"

#include <string.h>

#define LOOK_NS 100000000u /* how often an idle rank 0 looks whether the others are there */

/* A step on its way: this, then ids, positions and sequences of its rows, then what is new in page
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
static uint32_t pages_new(struct gang *g, const struct batch_plan *plan, struct gang_page *ret)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < plan->n_rows; i++) {
        if (!is_last_of_run(plan->slot, plan->position, plan->n_rows, i))
            continue;
        const uint32_t slot = plan->slot[i];
        const uint32_t *pages = plan->pages + (size_t)slot * plan->pages_stride;
        uint32_t *told = g->pages + (size_t)slot * g->limits.sequence_pages;
        const uint32_t count = plan->position[i] / KV_PAGE_TOKENS + 1;
        CHECK(slot < g->limits.sequences && count <= g->limits.sequence_pages);
        for (uint32_t k = 0; k < count; k++) {
            if (told[k] == pages[k])
                continue;
            told[k] = pages[k];
            ret[n++] = (struct gang_page){slot, k, pages[k]};
        }
    }
    return n;
}

/* The head, and behind it `size` bytes that are in place. */
static enum err tell(struct gang *g, const struct gang_head *head, size_t size, struct errbuf *eb)
{
    const void *bytes;

    CHECK(g->rank == 0);
    memcpy(g->told, head, sizeof *head);
    g->told_ns = clock_mono_ns();
    return coll_broadcast(g->coll, 0, g->told, sizeof *head + size, gang_deadline(g->wait_ns),
                          &bytes, &size, eb);
}

enum err gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb)
{
    struct gang_head head = {.n_rows = plan->n_rows, .n_logits = plan->n_logits};
    const size_t n = plan->n_rows;
    uint32_t *words = g->told + sizeof head / sizeof *words;

    CHECK(n <= g->limits.rows && plan->n_logits <= g->limits.logits_rows);
    memcpy(words, plan->ids, n * sizeof *words);
    memcpy(words + n, plan->position, n * sizeof *words);
    memcpy(words + 2 * n, plan->slot, n * sizeof *words);
    head.n_pages = pages_new(g, plan, (struct gang_page *)(void *)(words + 3 * n));
    return tell(g, &head, 3 * n * sizeof *words + head.n_pages * sizeof(struct gang_page), eb);
}

enum err gang_idle(struct gang *g, uint64_t now_ns, struct errbuf *eb)
{
    const struct gang_head nothing = {0};
    enum err e = ERR_OK;

    if (now_ns - g->looked_ns >= LOOK_NS) {
        g->looked_ns = now_ns;
        e = coll_check(g->coll, eb);
    }
    return e == ERR_OK && now_ns - g->told_ns >= g->wait_ns / 4 ? tell(g, &nothing, 0, eb) : e;
}

static enum err heard_wrong(struct gang *g, const char *what, uint32_t value, struct errbuf *eb)
{
    struct errbuf why;
    (void)err_set(&why, ERR_INTERNAL, "rank 0 told of a step with %s %u", what, value);
    gang_abort(g, why.text);
    *eb = why;
    return ERR_INTERNAL;
}

/* Rank 0 is of our own build, but what it says decides what is read and written here. */
static enum err heard_check(struct gang *g, const struct gang_head *head, size_t size,
                            struct errbuf *eb)
{
    const struct gang_limits *l = &g->limits;
    const uint32_t *words = g->told + sizeof *head / sizeof *words;

    if (head->n_rows > l->rows)
        return heard_wrong(g, "a number of rows of", head->n_rows, eb);
    if (head->n_logits > l->logits_rows || head->n_logits > head->n_rows)
        return heard_wrong(g, "a number of logits of", head->n_logits, eb);
    if (head->n_pages > (uint64_t)l->sequences * l->sequence_pages)
        return heard_wrong(g, "a number of pages of", head->n_pages, eb);
    if (size != sizeof *head + (size_t)head->n_rows * 3 * sizeof *words +
                    head->n_pages * sizeof(struct gang_page))
        return heard_wrong(g, "another size than its rows have,", (uint32_t)size, eb);
    const uint32_t *position = words + head->n_rows, *slot = position + head->n_rows;
    const struct gang_page *page = (const void *)(slot + head->n_rows);
    for (uint32_t i = 0; i < head->n_rows; i++) {
        if (words[i] >= g->vocab)
            return heard_wrong(g, "token", words[i], eb);
        if (slot[i] >= l->sequences)
            return heard_wrong(g, "sequence", slot[i], eb);
        if (position[i] >= l->context_tokens)
            return heard_wrong(g, "position", position[i], eb);
    }
    for (uint32_t i = 0; i < head->n_pages; i++) {
        if (page[i].sequence >= l->sequences)
            return heard_wrong(g, "a page of sequence", page[i].sequence, eb);
        if (page[i].index >= l->sequence_pages)
            return heard_wrong(g, "a page in place", page[i].index, eb);
        if (page[i].page >= l->kv_pages)
            return heard_wrong(g, "page", page[i].page, eb);
        g->pages[(size_t)page[i].sequence * l->sequence_pages + page[i].index] = page[i].page;
    }
    for (uint32_t i = 0; i < head->n_rows; i++) {
        const uint32_t *pages = g->pages + (size_t)slot[i] * l->sequence_pages;
        if (!is_last_of_run(slot, position, head->n_rows, i))
            continue;
        for (uint32_t k = 0; k <= position[i] / KV_PAGE_TOKENS; k++)
            if (pages[k] >= l->kv_pages)
                return heard_wrong(g, "no page for position", position[i], eb);
    }
    return ERR_OK;
}

enum err gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb)
{
    const void *bytes;
    size_t size;
    struct gang_head head;
    /* Rank 0 may be computing something else, for long; that it is gone is seen at once. */
    enum err e = coll_broadcast(g->coll, 0, NULL, 0, gang_deadline(g->load_ns), &bytes, &size, eb);

    if (e != ERR_OK)
        return e;
    if (size < sizeof head || size > gang_told_bytes(&g->limits))
        return heard_wrong(g, "bytes", (uint32_t)size, eb);
    memcpy(g->told, bytes, size);
    memcpy(&head, g->told, sizeof head);
    e = heard_check(g, &head, size, eb);
    if (e != ERR_OK)
        return e;
    const uint32_t *words = g->told + sizeof head / sizeof *words;
    *ret_plan = (struct batch_plan){
        .n_rows = head.n_rows,
        .ids = (const int32_t *)words,
        .position = words + head.n_rows,
        .slot = words + 2 * (size_t)head.n_rows,
        .n_logits = head.n_logits,
        .pages = g->pages,
        .pages_stride = g->limits.sequence_pages,
    };
    return ERR_OK;
}
