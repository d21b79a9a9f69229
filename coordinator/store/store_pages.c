#include "coordinator/store/store_pages.h"

#include "common/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_MAGIC   0xbeefc0deu
#define META_VERSION 1u
#define META_PAGES   2u

#define PAGE_BRANCH   0x01u
#define PAGE_LEAF     0x02u
#define PAGE_OVERFLOW 0x04u
#define PAGE_META     0x08u

#define NODE_BIG   0x01u /* the value lies in pages of its own */
#define NODE_TABLE 0x02u /* the value is the root of a table */

#define TABLE_INTEGER_KEYS 0x08u

#define PAGE_BYTES_MIN  256u
#define PAGE_BYTES_MAX  32768u
#define PAGE_HEAD_BYTES 16u
#define NODE_HEAD_BYTES 8u
#define KEY_BYTES_MAX   511u
#define DEPTH_MAX       32u
#define NO_PAGE         UINT64_MAX

/* A file may end before the last page that its meta page counts: what a transaction took and gave
 * back is never written. By more than this it was cut. */
#define SHORT_BYTES_MAX ((uint64_t)1 << 30)
/* Of a file that is not in memory, so much is asked for ahead. */
#define AHEAD_BYTES_MAX ((off_t)1 << 30)

_Static_assert(sizeof(size_t) == 8, "LMDB's numbers are as wide as the machine's");

/* As they lie in the file. */
struct page_head {
    uint64_t number;
    uint16_t pad;
    uint16_t flags;
    uint16_t lower, upper; /* together: how many pages an overflow has */
};

struct table_root {
    uint32_t pad; /* of the free list: the page size */
    uint16_t flags;
    uint16_t depth;
    uint64_t n_branch, n_leaf, n_overflow;
    uint64_t entries;
    uint64_t root;
};

struct meta {
    uint32_t magic, version;
    uint64_t address, map_bytes;
    struct table_root free, main;
    uint64_t last_page;
    uint64_t txn;
};

_Static_assert(sizeof(struct page_head) == PAGE_HEAD_BYTES, "");
_Static_assert(sizeof(struct table_root) == 48, "");
_Static_assert(sizeof(struct meta) == 136, "");

struct node {
    uint32_t size; /* of the value; in a branch, with flags, the child */
    uint16_t flags;
    uint16_t key_size;
    const uint8_t *key;
};

enum table_kind { TABLE_FREE, TABLE_MAIN, TABLE_OURS };

struct table {
    enum table_kind kind;
    char name[40];
    struct table_root root;
    uint64_t entries; /* seen so far */
    /* What the next key must not lie before. */
    bool has_bound, bound_is_taken;
    size_t bound_size;
    uint8_t bound[KEY_BYTES_MAX];
};

struct walk {
    const char *place;
    int fd;
    uint64_t file_bytes;
    uint32_t page_bytes;
    uint64_t n_pages;
    uint64_t txn;
    uint64_t *used, *freed; /* a bit a page */
    uint8_t *levels[DEPTH_MAX];
    uint64_t *taken; /* a bit for every two bytes of the page that is looked at */
    struct table *tables;
    size_t n_tables;
    struct errbuf *eb;
};

__attribute__((format(printf, 4, 5))) static enum err
fault(const struct walk *w, const struct table *t, uint64_t page, const char *fmt, ...)
{
    char what[200];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(w->eb, ERR_CORRUPT, "store %s: data.mdb is damaged: page %llu%s%s: %s", w->place,
                   (unsigned long long)page, t != NULL ? ", " : "", t != NULL ? t->name : "", what);
}

static enum err bytes_read(const struct walk *w, const struct table *t, uint64_t page, void *bytes,
                           size_t size)
{
    uint64_t at = page * w->page_bytes;
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(w->fd, (uint8_t *)bytes + done, size - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set_errno(w->eb, errno, "store %s: data.mdb: page %llu", w->place,
                                 (unsigned long long)page);
        if (got == 0)
            return fault(w, t, page, "it lies behind the end of the file: cut short to %llu bytes",
                         (unsigned long long)w->file_bytes);
        done += (size_t)got;
    }
    return ERR_OK;
}

static bool bit_take(uint64_t *bits, uint64_t at)
{
    uint64_t bit = (uint64_t)1 << (at & 63);
    bool was = (bits[at >> 6] & bit) != 0;
    bits[at >> 6] |= bit;
    return !was;
}

static uint16_t u16_at(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t u64_at(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* ---- one page ---- */

static enum err page_take(const struct walk *w, const struct table *t, uint64_t from, uint64_t page)
{
    if (page < META_PAGES || page >= w->n_pages)
        return fault(w, t, from, "it points to page %llu of %llu", (unsigned long long)page,
                     (unsigned long long)w->n_pages);
    if (!bit_take(w->used, page))
        return fault(w, t, from, "it points to page %llu, which is used elsewhere",
                     (unsigned long long)page);
    return ERR_OK;
}

static struct node node_at(const uint8_t *page, size_t offset)
{
    const uint8_t *p = page + offset;
    struct node n = {.flags = u16_at(p + 4), .key_size = u16_at(p + 6), .key = p + NODE_HEAD_BYTES};
    memcpy(&n.size, p, sizeof n.size);
    return n;
}

static uint64_t node_child(const struct node *n)
{
    return n->size | (uint64_t)n->flags << 32;
}

static uint64_t node_bytes(const struct node *n, bool is_branch)
{
    uint64_t value = is_branch ? 0 : (n->flags & NODE_BIG) != 0 ? sizeof(uint64_t) : n->size;
    return NODE_HEAD_BYTES + n->key_size + value;
}

/* Entries lie between `upper` and the page's end; two that overlap would be torn apart when LMDB
 * moves one of them. */
static bool place_take(struct walk *w, uint64_t offset, uint64_t bytes)
{
    bool fresh = true;
    for (uint64_t i = offset / 2; i < (offset + bytes + 1) / 2; i++)
        fresh = bit_take(w->taken, i) && fresh;
    return fresh;
}

static unsigned page_entries(const uint8_t *page)
{
    return (unsigned)(u16_at(page + 12) - PAGE_HEAD_BYTES) / 2;
}

/* The page's own structure; what its entries lead to is for those who follow them. */
static enum err page_check(struct walk *w, const struct table *t, uint64_t number,
                           const uint8_t *page, bool is_branch)
{
    struct page_head head;
    memcpy(&head, page, sizeof head);
    if (head.number != number)
        return fault(w, t, number, "it calls itself page %llu", (unsigned long long)head.number);
    if (head.flags != (is_branch ? PAGE_BRANCH : PAGE_LEAF))
        return fault(w, t, number, "a %s was expected, its kind is %#x",
                     is_branch ? "branch" : "leaf", head.flags);
    if (head.lower < PAGE_HEAD_BYTES || head.lower % 2 != 0 || head.upper < head.lower ||
        head.upper > w->page_bytes)
        return fault(w, t, number, "its free space is said to be from %u to %u", head.lower,
                     head.upper);
    unsigned n = page_entries(page);
    /* LMDB may leave a branch of its free list with one child (its ITS#8336). */
    unsigned least = is_branch && t->kind != TABLE_FREE ? 2 : 1;
    if (n < least)
        return fault(w, t, number, "it has %u entries", n);
    memset(w->taken, 0, w->page_bytes / 16);
    for (unsigned i = 0; i < n; i++) {
        unsigned offset = u16_at(page + PAGE_HEAD_BYTES + 2 * i);
        if (offset % 2 != 0 || offset < head.upper || offset + NODE_HEAD_BYTES > w->page_bytes)
            return fault(w, t, number, "entry %u is said to begin at byte %u", i, offset);
        struct node node = node_at(page, offset);
        uint64_t bytes = node_bytes(&node, is_branch);
        if (node.key_size > KEY_BYTES_MAX || offset + bytes > w->page_bytes)
            return fault(w, t, number,
                         "entry %u is said to have a key of %u and a value of %u bytes", i,
                         node.key_size, node.size);
        if (!place_take(w, offset, bytes))
            return fault(w, t, number, "entry %u lies over another one", i);
    }
    return ERR_OK;
}

/* ---- keys ---- */

static int keys_compare(const struct table *t, const uint8_t *a, size_t a_size, const uint8_t *b,
                        size_t b_size)
{
    if (t->kind == TABLE_FREE) { /* both were seen to have 8 bytes */
        uint64_t x = u64_at(a), y = u64_at(b);
        return x < y ? -1 : x > y;
    }
    int order = memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order != 0 ? order : a_size < b_size ? -1 : a_size > b_size;
}

/* Keys are met in the order in which a walk through the leaves meets them, and between two children
 * of a branch the key that parts them. It may be the next leaf's first, and not the last one. */
static enum err key_step(const struct walk *w, struct table *t, uint64_t page, unsigned entry,
                         const struct node *n, bool is_taken)
{
    if (n->key_size == 0 || (t->kind == TABLE_FREE && n->key_size != sizeof(uint64_t)))
        return fault(w, t, page, "entry %u has a key of %u bytes", entry, n->key_size);
    if (t->has_bound) {
        int order = keys_compare(t, n->key, n->key_size, t->bound, t->bound_size);
        if (order < 0 || (order == 0 && (t->bound_is_taken || !is_taken)))
            return fault(w, t, page, "the key of entry %u is out of order", entry);
    }
    t->has_bound = true;
    t->bound_is_taken = is_taken;
    t->bound_size = n->key_size;
    memcpy(t->bound, n->key, n->key_size);
    return ERR_OK;
}

/* ---- values ---- */

/* Marks the pages of a value longer than a page. */
static enum err big_value_check(const struct walk *w, const struct table *t, uint64_t from,
                                unsigned entry, const struct node *n, uint64_t *ret_first)
{
    struct page_head head;
    uint64_t first = u64_at(n->key + n->key_size);
    uint64_t need = ((uint64_t)n->size + PAGE_HEAD_BYTES + w->page_bytes - 1) / w->page_bytes;
    enum err e = page_take(w, t, from, first);
    if (e == ERR_OK)
        e = bytes_read(w, t, first, &head, sizeof head);
    if (e != ERR_OK)
        return e;
    uint64_t count = head.lower | (uint64_t)head.upper << 16;
    if (head.number != first || head.flags != PAGE_OVERFLOW)
        return fault(w, t, first, "it should hold the value of entry %u of page %llu", entry,
                     (unsigned long long)from);
    if (count < need || count > w->n_pages - first)
        return fault(w, t, first, "a value of %u bytes is said to fill %llu pages", n->size,
                     (unsigned long long)count);
    if ((first + need) * w->page_bytes > w->file_bytes)
        return fault(w, t, first,
                     "its value of %u bytes lies behind the end of the file: cut short to %llu "
                     "bytes",
                     n->size, (unsigned long long)w->file_bytes);
    for (uint64_t i = 1; i < count && e == ERR_OK; i++)
        e = page_take(w, t, first, first + i);
    *ret_first = first;
    return e;
}

static enum err root_check(const struct walk *w, const struct table *t, uint64_t page)
{
    const struct table_root *r = &t->root;
    unsigned flags = t->kind == TABLE_FREE ? TABLE_INTEGER_KEYS : 0;
    bool is_empty = r->root == NO_PAGE;
    if (r->flags != flags)
        return fault(w, t, page, "its flags are %#x, not %#x", r->flags, flags);
    if (r->depth > DEPTH_MAX || is_empty != (r->depth == 0) || is_empty != (r->entries == 0))
        return fault(w, t, page, "its depth is %u, for %llu values", r->depth,
                     (unsigned long long)r->entries);
    return ERR_OK;
}

/* An entry of the main table names another one, which is walked after it. */
static enum err table_found(struct walk *w, const struct table *t, uint64_t page, unsigned entry,
                            const struct node *n)
{
    if (n->flags != NODE_TABLE || n->size != sizeof(struct table_root))
        return fault(w, t, page, "entry %u is no table", entry);
    struct table *more = realloc(w->tables, (w->n_tables + 1) * sizeof *more);
    if (more == NULL)
        return err_set(w->eb, ERR_NO_MEMORY, "store %s: out of memory", w->place);
    w->tables = more;
    struct table *found = &more[w->n_tables++];
    *found = (struct table){.kind = TABLE_OURS};
    (void)snprintf(found->name, sizeof found->name, "table %.*s",
                   n->key_size < 30 ? n->key_size : 30, (const char *)n->key);
    for (char *c = found->name; *c != '\0'; c++)
        *c = *c >= ' ' && *c < 0x7f ? *c : '?';
    memcpy(&found->root, n->key + n->key_size, sizeof found->root);
    return root_check(w, found, page);
}

/* A list of free pages: how many, then their numbers, descending. */
static enum err free_list_check(const struct walk *w, const struct table *t, uint64_t page,
                                unsigned entry, const uint8_t *list, uint64_t size)
{
    uint64_t count = size >= 8 ? u64_at(list) : 0, last = w->n_pages;
    if (size < 8 || size % 8 != 0 || count > size / 8 - 1)
        return fault(w, t, page, "free list %u has %llu bytes for %llu pages", entry,
                     (unsigned long long)size, (unsigned long long)count);
    for (uint64_t i = 1; i <= count; i++) {
        uint64_t number = u64_at(list + 8 * i);
        if (number < META_PAGES || number >= last)
            return fault(w, t, page, "free list %u: page %llu does not belong there", entry,
                         (unsigned long long)number);
        if (!bit_take(w->freed, number))
            return fault(w, t, page, "free list %u: page %llu is free twice", entry,
                         (unsigned long long)number);
        last = number;
    }
    return ERR_OK;
}

static enum err free_entry_check(struct walk *w, const struct table *t, uint64_t page,
                                 unsigned entry, const struct node *n, uint64_t big_page)
{
    uint8_t *copy;
    if (u64_at(n->key) > w->txn)
        return fault(w, t, page, "free list %u is of transaction %llu, the last one was %llu",
                     entry, (unsigned long long)u64_at(n->key), (unsigned long long)w->txn);
    if (big_page == 0)
        return free_list_check(w, t, page, entry, n->key + n->key_size, n->size);
    copy = malloc(PAGE_HEAD_BYTES + (size_t)n->size);
    if (copy == NULL)
        return err_set(w->eb, ERR_NO_MEMORY, "store %s: out of memory", w->place);
    enum err e = bytes_read(w, t, big_page, copy, PAGE_HEAD_BYTES + (size_t)n->size);
    if (e == ERR_OK)
        e = free_list_check(w, t, page, entry, copy + PAGE_HEAD_BYTES, n->size);
    free(copy);
    return e;
}

static enum err leaf_entry_check(struct walk *w, struct table *t, uint64_t page, unsigned entry,
                                 const struct node *n)
{
    uint64_t big_page = 0;
    enum err e = key_step(w, t, page, entry, n, true);
    t->entries++;
    if (e != ERR_OK)
        return e;
    if (t->kind == TABLE_MAIN)
        return table_found(w, t, page, entry, n);
    if ((n->flags & ~NODE_BIG) != 0)
        return fault(w, t, page, "entry %u has flags %#x", entry, n->flags);
    if ((n->flags & NODE_BIG) != 0)
        e = big_value_check(w, t, page, entry, n, &big_page);
    if (e == ERR_OK && t->kind == TABLE_FREE)
        e = free_entry_check(w, t, page, entry, n, big_page);
    return e;
}

/* ---- trees ---- */

static enum err level_buffer(struct walk *w, unsigned level)
{
    if (w->levels[level] == NULL)
        w->levels[level] = malloc(w->page_bytes);
    return w->levels[level] != NULL
               ? ERR_OK
               : err_set(w->eb, ERR_NO_MEMORY, "store %s: out of memory", w->place);
}

/* `level` 0 is the root; all leaves are on the last level. */
static enum err page_walk(struct walk *w, struct table *t, uint64_t from, uint64_t number,
                          unsigned level)
{
    bool is_branch = level + 1 < t->root.depth;
    enum err e = page_take(w, t, from, number);
    if (e == ERR_OK)
        e = level_buffer(w, level);
    uint8_t *page = w->levels[level];
    if (e == ERR_OK)
        e = bytes_read(w, t, number, page, w->page_bytes);
    if (e == ERR_OK)
        e = page_check(w, t, number, page, is_branch);
    unsigned n = e == ERR_OK ? page_entries(page) : 0;
    for (unsigned i = 0; i < n && e == ERR_OK; i++) {
        struct node node = node_at(page, u16_at(page + PAGE_HEAD_BYTES + 2 * i));
        if (!is_branch) {
            e = leaf_entry_check(w, t, number, i, &node);
            continue;
        }
        if (i > 0) /* LMDB does not look at the first one's key */
            e = key_step(w, t, number, i, &node, false);
        if (e == ERR_OK)
            e = page_walk(w, t, number, node_child(&node), level + 1);
    }
    return e;
}

static enum err table_walk(struct walk *w, struct table *t, uint64_t from)
{
    if (t->root.root == NO_PAGE)
        return ERR_OK;
    enum err e = page_walk(w, t, from, t->root.root, 0);
    if (e == ERR_OK && t->entries != t->root.entries)
        e = fault(w, t, t->root.root, "it has %llu values, %llu were counted",
                  (unsigned long long)t->entries, (unsigned long long)t->root.entries);
    return e;
}

static enum err trees_walk(struct walk *w, const struct meta *meta, unsigned from)
{
    struct table free_list = {.kind = TABLE_FREE, .name = "free pages", .root = meta->free};
    struct table main_table = {.kind = TABLE_MAIN, .name = "list of tables", .root = meta->main};
    enum err e = root_check(w, &free_list, from);
    if (e == ERR_OK)
        e = root_check(w, &main_table, from);
    if (e == ERR_OK)
        e = table_walk(w, &main_table, from);
    for (size_t i = 0; i < w->n_tables && e == ERR_OK; i++)
        e = table_walk(w, &w->tables[i], meta->main.root);
    if (e == ERR_OK)
        e = table_walk(w, &free_list, from);
    for (uint64_t i = 0; i < w->n_pages && e == ERR_OK; i += 64) {
        uint64_t both = w->used[i / 64] & w->freed[i / 64];
        if (both != 0)
            e = fault(w, NULL, i + (uint64_t)__builtin_ctzll(both), "it is used, and free");
    }
    /* Lost pages are only waste, but a count that is too high would soon be a map that is full. */
    uint64_t last = w->n_pages - 1;
    bool is_known =
        last < META_PAGES || ((w->used[last / 64] | w->freed[last / 64]) >> last % 64 & 1) != 0;
    if (e == ERR_OK && !is_known)
        e = fault(w, NULL, from, "it counts %llu pages, of which the last is neither used nor free",
                  (unsigned long long)w->n_pages);
    return e;
}

/* ---- the meta pages ---- */

static enum err meta_read(struct walk *w, unsigned page, struct meta *ret_meta)
{
    struct {
        struct page_head head;
        struct meta meta;
    } found;
    enum err e = bytes_read(w, NULL, page, &found, sizeof found);
    if (e != ERR_OK)
        return e;
    const struct meta *m = &found.meta;
    if (found.head.number != page || found.head.flags != PAGE_META || m->magic != META_MAGIC)
        return fault(w, NULL, page, "it is no meta page of LMDB");
    if (m->version != META_VERSION)
        return fault(w, NULL, page, "its format is %u, this build reads %u", m->version,
                     META_VERSION);
    uint32_t bytes = m->free.pad;
    if (bytes < PAGE_BYTES_MIN || bytes > PAGE_BYTES_MAX || (bytes & (bytes - 1)) != 0)
        return fault(w, NULL, page, "it says that pages have %u bytes", bytes);
    if (page > 0 && bytes != w->page_bytes)
        return fault(w, NULL, page, "it says that pages have %u bytes, page 0 says %u", bytes,
                     w->page_bytes);
    w->page_bytes = bytes;
    *ret_meta = *m;
    return ERR_OK;
}

/* Transactions write the two in turn, so their numbers follow each other. LMDB takes the higher. */
static enum err meta_choose(struct walk *w, const struct meta metas[META_PAGES], unsigned *ret_page)
{
    uint64_t a = metas[0].txn, b = metas[1].txn;
    bool fresh = a == 0 && b == 0;
    if (!fresh && (a % 2 != 0 || (a > b ? a - b : b - a) != 1))
        return fault(w, NULL, a % 2 != 0 ? 0 : 1,
                     "the meta pages are of transactions %llu and %llu: they do not follow",
                     (unsigned long long)a, (unsigned long long)b);
    *ret_page = a < b ? 1 : 0;
    const struct meta *m = &metas[*ret_page];
    uint64_t pages_max = (w->file_bytes + SHORT_BYTES_MAX) / w->page_bytes;
    if (m->last_page < META_PAGES - 1 || m->last_page >= pages_max)
        return fault(w, NULL, *ret_page,
                     "it counts %llu pages, but the file has %llu bytes: it was cut short",
                     (unsigned long long)m->last_page + 1, (unsigned long long)w->file_bytes);
    w->n_pages = m->last_page + 1;
    w->txn = m->txn;
    return ERR_OK;
}

static enum err file_walk(struct walk *w)
{
    struct meta metas[META_PAGES];
    unsigned chosen = 0;
    w->page_bytes = PAGE_BYTES_MIN; /* until page 0 says more */
    for (unsigned i = 0; i < META_PAGES; i++) {
        enum err e = meta_read(w, i, &metas[i]);
        if (e != ERR_OK)
            return e;
    }
    enum err e = meta_choose(w, metas, &chosen);
    if (e != ERR_OK)
        return e;
    size_t words = (size_t)(w->n_pages / 64 + 1);
    w->used = calloc(words, sizeof *w->used);
    w->freed = calloc(words, sizeof *w->freed);
    w->taken = calloc(w->page_bytes / 128 + 1, sizeof *w->taken);
    if (w->used == NULL || w->freed == NULL || w->taken == NULL)
        return err_set(w->eb, ERR_NO_MEMORY, "store %s: out of memory", w->place);
    for (unsigned i = 0; i < META_PAGES; i++)
        (void)bit_take(w->used, i);
    return trees_walk(w, &metas[chosen], chosen);
}

enum err store_pages_check(const char *place, const char *file, struct errbuf *eb)
{
    struct walk w = {.place = place, .eb = eb};
    struct stat st;
    enum err e = ERR_OK;

    w.fd = open(file, O_RDONLY | O_CLOEXEC);
    if (w.fd < 0)
        return errno == ENOENT ? ERR_OK : err_set_errno(eb, errno, "store %s: data.mdb", place);
    if (fstat(w.fd, &st) != 0) {
        e = err_set_errno(eb, errno, "store %s: data.mdb", place);
    } else if (st.st_size > 0) {
        w.file_bytes = (uint64_t)st.st_size;
        (void)posix_fadvise(w.fd, 0, st.st_size < AHEAD_BYTES_MAX ? st.st_size : AHEAD_BYTES_MAX,
                            POSIX_FADV_WILLNEED);
        e = file_walk(&w);
    }
    for (unsigned i = 0; i < DEPTH_MAX; i++)
        free(w.levels[i]);
    free(w.used);
    free(w.freed);
    free(w.taken);
    free(w.tables);
    close(w.fd);
    return e;
}
