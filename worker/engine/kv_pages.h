/*
 * kv_pages.h - the pages of the KV cache: which are free, who holds the others, and what text is in
 * those that can be used again (prefix reuse).
 *
 * A page that holds `page_tokens` positions of a text may be named by that text: by its ids, by the
 * page before it, and by the space they belong to (a tenant's; nothing is shared between two
 * spaces). A sequence that begins with the same ids holds the same pages and does not compute them
 * again. Names are compared whole: a hash only finds the candidates. The page before is meant by
 * its serial number, which is never used twice, so that a page that went and came back with other
 * text is not taken for its old self.
 *
 * A page is named when its computation begins (claimed) and may be used by others once it is
 * ready. A ready page that nobody holds stays, and is given away only when no other is left: those
 * not held longest first.
 *
 * Pure: no clock, thread, file; the same calls give the same answers.
 * Ownership: kv_pages_free frees everything. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_KV_PAGES_H
#define CLOISTER_WORKER_ENGINE_KV_PAGES_H

#include <stdbool.h>
#include <stdint.h>

struct kv_pages;

#define KV_PAGE_NONE UINT32_MAX

/* Where a page of text stands. */
struct kv_place {
    uint64_t space;     /* not 0 */
    uint64_t before;    /* serial number of the page before it; 0: the text begins here */
    const int32_t *ids; /* [page_tokens] */
};

enum kv_match {
    KV_MATCH_ABSENT,
    KV_MATCH_CLAIMED, /* somebody computes it now */
    KV_MATCH_READY,
};

/* NULL when memory is refused. Both at least 1. */
struct kv_pages *kv_pages_new(uint32_t n_pages, uint32_t page_tokens);
void kv_pages_free(struct kv_pages *p);

/* How many kv_pages_take can give. */
uint32_t kv_pages_available(const struct kv_pages *p);

/* A page without a name and with one holder; KV_PAGE_NONE when all are held. */
uint32_t kv_pages_take(struct kv_pages *p);
/* One more holder of a ready page. */
void kv_pages_hold(struct kv_pages *p, uint32_t page);
/* One less. With its last holder a page without a name, or one that is not ready, is free. Dropped
 * from a text's end to its beginning, so that its beginning stays longest. */
void kv_pages_drop(struct kv_pages *p, uint32_t page);
bool kv_pages_held(const struct kv_pages *p, uint32_t page);

/* *ret_page unless ABSENT. */
enum kv_match kv_pages_find(const struct kv_pages *p, const struct kv_place *place,
                            uint32_t *ret_page);
/* Names a held page without a name; nothing may be there under that name. The ids are copied.
 * Returns its serial number. */
uint64_t kv_pages_claim(struct kv_pages *p, uint32_t page, const struct kv_place *place);
void kv_pages_ready(struct kv_pages *p, uint32_t page);
uint64_t kv_pages_serial(const struct kv_pages *p, uint32_t page);

#endif
