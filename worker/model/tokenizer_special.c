/*
 * tokenizer_special.c - special tokens in a text.
 *
 * A trie over their texts gives, at each position, the longest token that begins there. A heap
 * takes positions in the order in which tokens win: longer ones before shorter ones over the whole
 * text, then from left to right. A position that lost bytes to a longer token comes back with the
 * next shorter token that begins there. Tokens that nothing contests, which is nearly all, do not
 * come to the heap; text without specials costs one look at a table a byte.
 */
#include "worker/model/tokenizer_internal.h"

#include <stdlib.h>
#include <string.h>

struct trie_node {
    uint32_t child;   /* first child, 0 for none: node 0 is the root and nobody's child */
    uint32_t sibling; /* next child of the same parent */
    int32_t id;       /* the token that ends here, or -1 */
    uint8_t byte;
};

struct trie {
    struct trie_node *nodes;
    uint32_t count;
    uint32_t capacity;
    uint32_t first[256];   /* the root's children by byte, 0 for none */
    uint32_t longest[256]; /* bytes of the longest token that begins so */
};

static bool token_is_special(const struct token *token)
{
    return token->text_size > 0 &&
           (token->type == TOKEN_TYPE_CONTROL || token->type == TOKEN_TYPE_USER ||
            token->type == TOKEN_TYPE_UNKNOWN);
}

static uint32_t trie_step(const struct trie *trie, uint32_t node, uint8_t byte)
{
    uint32_t child = trie->nodes[node].child;
    while (child != 0 && trie->nodes[child].byte != byte)
        child = trie->nodes[child].sibling;
    return child;
}

static uint32_t trie_add(struct trie *trie, uint8_t byte)
{
    if (trie->count == trie->capacity) {
        uint32_t capacity = trie->capacity < 256 ? 256 : trie->capacity * 2;
        struct trie_node *nodes = realloc(trie->nodes, capacity * sizeof *nodes);
        if (nodes == NULL)
            return 0;
        trie->nodes = nodes;
        trie->capacity = capacity;
    }
    trie->nodes[trie->count] = (struct trie_node){.id = -1, .byte = byte};
    return trie->count++;
}

static bool trie_insert(struct trie *trie, const uint8_t *text, size_t size, int32_t id)
{
    uint32_t node = trie->first[text[0]];
    if (node == 0) {
        node = trie_add(trie, text[0]);
        if (node == 0)
            return false;
        trie->first[text[0]] = node;
    }
    for (size_t i = 1; i < size; i++) {
        uint32_t next = trie_step(trie, node, text[i]);
        if (next == 0) {
            next = trie_add(trie, text[i]);
            if (next == 0)
                return false;
            trie->nodes[next].sibling = trie->nodes[node].child;
            trie->nodes[node].child = next;
        }
        node = next;
    }
    trie->nodes[node].id = id;
    if (size > trie->longest[text[0]])
        trie->longest[text[0]] = (uint32_t)size;
    return true;
}

enum err trie_new(struct trie **ret, const struct tokenizer *t, struct errbuf *eb)
{
    struct trie *trie = calloc(1, sizeof *trie);
    if (trie == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the special tokens");
    (void)trie_add(trie, 0); /* the root; its failure shows as nodes == NULL */
    bool built = trie->nodes != NULL;
    for (int32_t id = 0; built && id < t->n_tokens; id++) {
        const struct token *token = &t->tokens[id];
        if (token_is_special(token))
            built = trie_insert(trie, (const uint8_t *)t->blob + token->text, token->text_size, id);
    }
    if (!built) {
        trie_free(trie);
        return err_set(eb, ERR_NO_MEMORY, "no memory for the special tokens");
    }
    *ret = trie;
    return ERR_OK;
}

void trie_free(struct trie *trie)
{
    if (trie == NULL)
        return;
    free(trie->nodes);
    free(trie);
}

/* The longest token at `text` of at most `size` bytes; control tokens of at most `parse_size`. */
static int32_t trie_longest(const struct tokenizer *t, const uint8_t *text, size_t size,
                            size_t parse_size)
{
    const struct trie *trie = t->specials;
    int32_t best = -1;
    uint32_t node = size > 0 ? trie->first[text[0]] : 0;
    for (size_t i = 1; node != 0; i++) {
        int32_t id = trie->nodes[node].id;
        if (id >= 0 && (t->tokens[id].type == TOKEN_TYPE_USER || i <= parse_size))
            best = id;
        node = i < size ? trie_step(trie, node, text[i]) : 0;
    }
    return best;
}

/* --- candidates --- */

struct candidate {
    size_t start;
    size_t parse_end; /* end of the parsed span it lies in; `start` or less outside of one */
    int32_t id;
    uint32_t size;
};

struct candidates {
    struct candidate *items; /* a heap */
    size_t count;
    size_t capacity;
};

static bool candidate_before(const struct candidate *a, const struct candidate *b)
{
    return a->size != b->size ? a->size > b->size : a->start < b->start;
}

static bool candidates_push(struct candidates *h, struct candidate c)
{
    if (h->count == h->capacity) {
        size_t capacity = h->capacity < 64 ? 64 : h->capacity * 2;
        struct candidate *items = realloc(h->items, capacity * sizeof *items);
        if (items == NULL)
            return false;
        h->items = items;
        h->capacity = capacity;
    }
    size_t at = h->count++;
    while (at > 0 && candidate_before(&c, &h->items[(at - 1) / 2])) {
        h->items[at] = h->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    h->items[at] = c;
    return true;
}

static struct candidate candidates_pop(struct candidates *h)
{
    struct candidate top = h->items[0];
    struct candidate last = h->items[--h->count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= h->count)
            break;
        if (child + 1 < h->count && candidate_before(&h->items[child + 1], &h->items[child]))
            child++;
        if (!candidate_before(&h->items[child], &last))
            break;
        h->items[at] = h->items[child];
        at = child;
    }
    if (h->count > 0)
        h->items[at] = last;
    return top;
}

static bool fragments_push(struct fragments *f, struct fragment item)
{
    if (f->count == f->capacity) {
        size_t capacity = f->capacity < 16 ? 16 : f->capacity * 2;
        struct fragment *items = realloc(f->items, capacity * sizeof *items);
        if (items == NULL)
            return false;
        f->items = items;
        f->capacity = capacity;
    }
    f->items[f->count++] = item;
    return true;
}

static int fragment_compare(const void *a, const void *b)
{
    const struct fragment *x = a;
    const struct fragment *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static bool is_taken(const uint8_t *taken, size_t at)
{
    return ((unsigned)taken[at / 8] >> (at % 8) & 1u) != 0;
}

/* No longer token begins within the one of `size` bytes at `text`: nothing can take bytes from it
 * but what begins before it. */
static bool is_longest_within(const struct tokenizer *t, const uint8_t *text, size_t text_size,
                              size_t size)
{
    for (size_t i = 1; i < size; i++) {
        if (t->specials->longest[text[i]] <= size)
            continue;
        int32_t id = trie_longest(t, text + i, text_size - i, SIZE_MAX);
        if (id >= 0 && t->tokens[id].text_size > size)
            return false;
    }
    return true;
}

/* Where special tokens begin, with the longest of each place. Those that no other can take bytes
 * from are in `sure`, in order. */
static bool candidates_find(const struct tokenizer *t, const uint8_t *text, size_t size,
                            const struct tokenizer_span *spans, struct candidates *h,
                            struct fragments *sure)
{
    size_t span = 0;
    size_t span_end = spans[0].size;
    size_t contested_end = 0; /* of the candidates so far */
    for (size_t at = 0; at < size;) {
        if (t->specials->first[text[at]] == 0) {
            at++;
            continue;
        }
        while (at >= span_end)
            span_end += spans[++span].size;
        size_t parse_end = spans[span].special == TOKENIZER_SPECIAL_PARSE ? span_end : 0;
        int32_t id = trie_longest(t, text + at, size - at, parse_end > at ? parse_end - at : 0);
        if (id < 0) {
            at++;
            continue;
        }
        uint32_t token_size = t->tokens[id].text_size;
        if (at >= contested_end && is_longest_within(t, text + at, size - at, token_size)) {
            if (!fragments_push(sure, (struct fragment){.start = at, .size = token_size, .id = id}))
                return false;
            at += token_size;
            continue;
        }
        struct candidate c = {.start = at, .parse_end = parse_end, .id = id, .size = token_size};
        if (!candidates_push(h, c))
            return false;
        if (at + token_size > contested_end)
            contested_end = at + token_size;
        at++;
    }
    return true;
}

enum err specials_split(const struct tokenizer *t, const uint8_t *text, size_t size,
                        const struct tokenizer_span *spans, struct fragments *ret_fragments,
                        struct errbuf *eb)
{
    enum err e = ERR_OK;
    struct candidates h = {0};
    uint8_t *taken = NULL; /* a bit a byte */

    if (!candidates_find(t, text, size, spans, &h, ret_fragments))
        goto no_memory;
    if (h.count > 0) {
        taken = calloc(size / 8 + 1, 1);
        if (taken == NULL)
            goto no_memory;
    }
    while (h.count > 0) {
        struct candidate c = candidates_pop(&h);
        size_t last = c.start + c.size - 1;
        if (is_taken(taken, c.start))
            continue;
        /* What is taken already is at least as long as this one, so it covers one end or none. */
        if (is_taken(taken, last)) {
            size_t parse_size = c.parse_end > c.start ? c.parse_end - c.start : 0;
            c.id = trie_longest(t, text + c.start, c.size - 1u, parse_size);
            if (c.id < 0)
                continue;
            c.size = t->tokens[c.id].text_size;
            if (!candidates_push(&h, c))
                goto no_memory;
            continue;
        }
        for (size_t i = c.start; i <= last; i++)
            taken[i / 8] = (uint8_t)(taken[i / 8] | 1u << (i % 8));
        if (!fragments_push(ret_fragments,
                            (struct fragment){.start = c.start, .size = c.size, .id = c.id}))
            goto no_memory;
    }

    size_t n_specials = ret_fragments->count;
    if (n_specials > 0)
        qsort(ret_fragments->items, n_specials, sizeof *ret_fragments->items, fragment_compare);
    size_t at = 0;
    for (size_t i = 0; i <= n_specials; i++) {
        size_t next = i < n_specials ? ret_fragments->items[i].start : size;
        size_t next_size = i < n_specials ? ret_fragments->items[i].size : 0;
        if (next > at &&
            !fragments_push(ret_fragments,
                            (struct fragment){.start = at, .size = next - at, .id = -1}))
            goto no_memory;
        at = next + next_size;
    }
    if (n_specials > 0)
        qsort(ret_fragments->items, ret_fragments->count, sizeof *ret_fragments->items,
              fragment_compare);
    goto out;
no_memory:
    e = err_set(eb, ERR_NO_MEMORY, "no memory to cut %zu bytes of text at special tokens", size);
out:
    free(h.items);
    free(taken);
    return e;
}
