#include "worker/engine/kv_pages.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum page_state {
    PAGE_STATE_BLANK, /* no name */
    PAGE_STATE_CLAIMED,
    PAGE_STATE_READY,
};

struct page {
    enum page_state state;
    uint32_t holders;
    uint64_t space, before, serial;
    uint32_t next_in_bucket;
    uint32_t newer, older; /* among ready pages that nobody holds */
};

struct kv_pages {
    uint32_t n_pages, page_tokens;
    struct page *pages;
    int32_t *ids;       /* [n_pages][page_tokens], of those with a name */
    uint32_t *buckets;  /* [n_buckets] by the hash of the name */
    uint32_t n_buckets; /* a power of two */
    uint32_t *blank;    /* stack of pages without name and holder */
    uint32_t n_blank;
    uint32_t newest, oldest, n_kept; /* ready pages that nobody holds */
    uint64_t last_serial;
};

struct kv_pages *kv_pages_new(uint32_t n_pages, uint32_t page_tokens)
{
    struct kv_pages *p = calloc(1, sizeof *p);

    CHECK(n_pages >= 1 && n_pages <= 1u << 30 && page_tokens >= 1);
    if (p == NULL)
        return NULL;
    p->n_pages = n_pages;
    p->page_tokens = page_tokens;
    p->n_buckets = 1;
    while (p->n_buckets < n_pages)
        p->n_buckets *= 2;
    p->pages = calloc(n_pages, sizeof *p->pages);
    p->ids = calloc((size_t)n_pages * page_tokens, sizeof *p->ids);
    p->buckets = malloc(p->n_buckets * sizeof *p->buckets);
    p->blank = malloc(n_pages * sizeof *p->blank);
    if (p->pages == NULL || p->ids == NULL || p->buckets == NULL || p->blank == NULL) {
        kv_pages_free(p);
        return NULL;
    }
    memset(p->buckets, 0xff, p->n_buckets * sizeof *p->buckets);
    while (p->n_blank < n_pages) {
        p->blank[p->n_blank] = n_pages - 1 - p->n_blank;
        p->n_blank++;
    }
    p->newest = p->oldest = KV_PAGE_NONE;
    return p;
}

void kv_pages_free(struct kv_pages *p)
{
    if (p == NULL)
        return;
    free(p->pages);
    free(p->ids);
    free(p->buckets);
    free(p->blank);
    free(p);
}

uint32_t kv_pages_available(const struct kv_pages *p)
{
    return p->n_blank + p->n_kept;
}

static struct page *page_at(const struct kv_pages *p, uint32_t page)
{
    CHECK(page < p->n_pages);
    return &p->pages[page];
}

/* ---- names ---- */

static uint32_t *bucket_of(const struct kv_pages *p, const struct kv_place *place)
{
    const uint64_t head[2] = {place->space, place->before};
    uint64_t seed = XXH3_64bits(head, sizeof head);

    uint64_t hash =
        XXH3_64bits_withSeed(place->ids, (size_t)p->page_tokens * sizeof *place->ids, seed);
    return &p->buckets[hash & (p->n_buckets - 1)];
}

static struct kv_place place_of(const struct kv_pages *p, uint32_t page)
{
    return (struct kv_place){.space = p->pages[page].space,
                             .before = p->pages[page].before,
                             .ids = &p->ids[(size_t)page * p->page_tokens]};
}

static void page_unname(struct kv_pages *p, uint32_t page)
{
    struct kv_place place = place_of(p, page);
    uint32_t *at = bucket_of(p, &place);

    while (*at != page)
        at = &p->pages[*at].next_in_bucket;
    *at = p->pages[page].next_in_bucket;
    p->pages[page].state = PAGE_STATE_BLANK;
}

enum kv_match kv_pages_find(const struct kv_pages *p, const struct kv_place *place,
                            uint32_t *ret_page)
{
    size_t size = (size_t)p->page_tokens * sizeof *place->ids;

    CHECK(place->space != 0);
    for (uint32_t page = *bucket_of(p, place); page != KV_PAGE_NONE;
         page = p->pages[page].next_in_bucket) {
        const struct page *found = &p->pages[page];
        if (found->space != place->space || found->before != place->before ||
            memcmp(&p->ids[(size_t)page * p->page_tokens], place->ids, size) != 0)
            continue;
        *ret_page = page;
        return found->state == PAGE_STATE_READY ? KV_MATCH_READY : KV_MATCH_CLAIMED;
    }
    return KV_MATCH_ABSENT;
}

uint64_t kv_pages_claim(struct kv_pages *p, uint32_t page, const struct kv_place *place)
{
    struct page *q = page_at(p, page);
    uint32_t *bucket = bucket_of(p, place);

    CHECK(q->holders > 0 && q->state == PAGE_STATE_BLANK && place->space != 0);
    memcpy(&p->ids[(size_t)page * p->page_tokens], place->ids,
           (size_t)p->page_tokens * sizeof *place->ids);
    q->space = place->space;
    q->before = place->before;
    q->serial = ++p->last_serial;
    q->state = PAGE_STATE_CLAIMED;
    q->next_in_bucket = *bucket;
    *bucket = page;
    return q->serial;
}

void kv_pages_ready(struct kv_pages *p, uint32_t page)
{
    struct page *q = page_at(p, page);

    CHECK(q->state == PAGE_STATE_CLAIMED);
    q->state = PAGE_STATE_READY;
}

uint64_t kv_pages_serial(const struct kv_pages *p, uint32_t page)
{
    const struct page *q = page_at(p, page);

    CHECK(q->state != PAGE_STATE_BLANK);
    return q->serial;
}

/* ---- ready pages that nobody holds, by when they were dropped ---- */

static void kept_add(struct kv_pages *p, uint32_t page)
{
    p->pages[page].newer = KV_PAGE_NONE;
    p->pages[page].older = p->newest;
    *(p->newest != KV_PAGE_NONE ? &p->pages[p->newest].newer : &p->oldest) = page;
    p->newest = page;
    p->n_kept++;
}

static void kept_remove(struct kv_pages *p, uint32_t page)
{
    const struct page *q = &p->pages[page];

    *(q->newer != KV_PAGE_NONE ? &p->pages[q->newer].older : &p->newest) = q->older;
    *(q->older != KV_PAGE_NONE ? &p->pages[q->older].newer : &p->oldest) = q->newer;
    p->n_kept--;
}

/* ---- holders ---- */

uint32_t kv_pages_take(struct kv_pages *p)
{
    uint32_t page;

    if (p->n_blank > 0) {
        page = p->blank[--p->n_blank];
    } else if (p->n_kept > 0) {
        page = p->oldest;
        kept_remove(p, page);
        page_unname(p, page);
    } else {
        return KV_PAGE_NONE;
    }
    p->pages[page].holders = 1;
    return page;
}

void kv_pages_hold(struct kv_pages *p, uint32_t page)
{
    struct page *q = page_at(p, page);

    CHECK(q->state == PAGE_STATE_READY);
    if (q->holders++ == 0)
        kept_remove(p, page);
}

void kv_pages_drop(struct kv_pages *p, uint32_t page)
{
    struct page *q = page_at(p, page);

    CHECK(q->holders > 0);
    if (--q->holders > 0)
        return;
    if (q->state == PAGE_STATE_READY) {
        kept_add(p, page);
        return;
    }
    if (q->state == PAGE_STATE_CLAIMED)
        page_unname(p, page);
    p->blank[p->n_blank++] = page;
}

bool kv_pages_held(const struct kv_pages *p, uint32_t page)
{
    return page_at(p, page)->holders > 0;
}
