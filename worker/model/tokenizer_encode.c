/*
 * tokenizer_encode.c - merges of neighbouring symbols, for both families.
 *
 * Symbols are a linked list in an array; a heap holds the merges that are possible now, best
 * first and leftmost among equals, as one 64-bit number: (order << 32 | left symbol). Each merge
 * takes one number out and puts two in at most, so a word of n symbols takes O(n log n). An entry
 * whose symbols have changed since is recognised when it comes up and dropped.
 */
#include "worker/model/tokenizer_internal.h"

#include "common/utf8.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define NO_SYMBOL UINT32_MAX

struct symbol {
    uint32_t prev;
    uint32_t next;
    uint32_t start; /* SPM: bytes in the escaped text */
    union {
        int32_t id;    /* BPE: its token, -1 once it is merged away */
        uint32_t size; /* SPM: 0 once it is merged away */
    };
};

struct encoder {
    const struct tokenizer *t;
    const uint8_t *text; /* all of it, for offsets in messages */
    struct tokens *tokens;
    struct errbuf *eb;
    struct symbol *symbols;
    size_t symbols_capacity;
    uint64_t *heap;
    size_t heap_count;
    size_t heap_capacity;
    struct buf scratch;
};

/* Bytes of the character at `p`, 0 where there is no valid one. */
static size_t utf8_size(const uint8_t *p, size_t size)
{
    uint32_t code;
    return utf8_decode(p, size, &code);
}

void tokens_fini(struct tokens *t)
{
    free(t->ids);
    *t = (struct tokens){0};
}

enum err tokens_append(struct tokens *t, int32_t id)
{
    if (t->count == t->capacity) {
        size_t capacity = t->capacity < 64 ? 64 : t->capacity + t->capacity / 2;
        int32_t *ids = realloc(t->ids, capacity * sizeof *ids);
        if (ids == NULL)
            return ERR_NO_MEMORY;
        t->ids = ids;
        t->capacity = capacity;
    }
    t->ids[t->count++] = id;
    return ERR_OK;
}

static enum err out_of_memory(struct encoder *e)
{
    return err_set(e->eb, ERR_NO_MEMORY, "no memory to tokenize");
}

static enum err append(struct encoder *e, int32_t id)
{
    return tokens_append(e->tokens, id) == ERR_OK ? ERR_OK : out_of_memory(e);
}

/* --- the heap --- */

static enum err heap_push(struct encoder *e, uint64_t entry)
{
    if (e->heap_count == e->heap_capacity) {
        size_t capacity = e->heap_capacity < 256 ? 256 : e->heap_capacity * 2;
        uint64_t *heap = realloc(e->heap, capacity * sizeof *heap);
        if (heap == NULL)
            return out_of_memory(e);
        e->heap = heap;
        e->heap_capacity = capacity;
    }
    size_t at = e->heap_count++;
    while (at > 0 && entry < e->heap[(at - 1) / 2]) {
        e->heap[at] = e->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->heap[at] = entry;
    return ERR_OK;
}

static uint64_t heap_pop(struct encoder *e)
{
    uint64_t top = e->heap[0];
    uint64_t last = e->heap[--e->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= e->heap_count)
            break;
        if (child + 1 < e->heap_count && e->heap[child + 1] < e->heap[child])
            child++;
        if (last <= e->heap[child])
            break;
        e->heap[at] = e->heap[child];
        at = child;
    }
    if (e->heap_count > 0)
        e->heap[at] = last;
    return top;
}

static enum err symbols_reserve(struct encoder *e, size_t count)
{
    if (count <= e->symbols_capacity)
        return ERR_OK;
    size_t capacity = count < 256 ? 256 : count;
    struct symbol *symbols = realloc(e->symbols, capacity * sizeof *symbols);
    if (symbols == NULL)
        return out_of_memory(e);
    e->symbols = symbols;
    e->symbols_capacity = capacity;
    return ERR_OK;
}

static void symbols_join(struct encoder *e, uint32_t left, uint32_t right)
{
    struct symbol *s = e->symbols;
    s[left].next = s[right].next;
    if (s[right].next != NO_SYMBOL)
        s[s[right].next].prev = left;
}

/* --- byte-level BPE --- */

static enum err bpe_offer(struct encoder *e, uint32_t left)
{
    const struct symbol *s = e->symbols;
    if (left == NO_SYMBOL || s[left].next == NO_SYMBOL)
        return ERR_OK;
    int64_t rank = pair_map_find(e->t, s[left].id, s[s[left].next].id);
    return rank < 0 ? ERR_OK : heap_push(e, (uint64_t)rank << 32 | left);
}

static enum err bpe_merge(struct encoder *e, uint32_t count)
{
    struct symbol *s = e->symbols;
    enum err err = ERR_OK;
    e->heap_count = 0;
    for (uint32_t i = 0; i + 1 < count && err == ERR_OK; i++)
        err = bpe_offer(e, i);
    while (e->heap_count > 0 && err == ERR_OK) {
        uint64_t entry = heap_pop(e);
        const struct merge *m = &e->t->merges[entry >> 32];
        uint32_t left = (uint32_t)entry;
        uint32_t right = s[left].next;
        if (s[left].id != m->left || right == NO_SYMBOL || s[right].id != m->right)
            continue;
        s[left].id = m->merged;
        s[right].id = -1;
        symbols_join(e, left, right);
        err = bpe_offer(e, s[left].prev);
        if (err == ERR_OK)
            err = bpe_offer(e, left);
    }
    for (uint32_t i = 0; i != NO_SYMBOL && err == ERR_OK; i = s[i].next)
        err = append(e, s[i].id);
    return err;
}

/* A word that is a token by itself, for the models that look there before they merge. */
static int32_t bpe_whole_word(struct encoder *e, const uint8_t *word, size_t size)
{
    if (size > e->t->text_size_max)
        return -1;
    char text[2 * TOKENIZER_TOKEN_MAX];
    size_t used = 0;
    for (size_t i = 0; i < size; i++)
        used += byte_alphabet_encode(word[i], text + used);
    int32_t id = text_map_find(e->t, text, used);
    return id >= 0 && e->t->tokens[id].mergeable ? id : -1;
}

static enum err bpe_word(void *context, const uint8_t *word, size_t size)
{
    struct encoder *e = context;
    if (e->t->ignore_merges) {
        int32_t id = bpe_whole_word(e, word, size);
        if (id >= 0)
            return append(e, id);
    }
    enum err err = symbols_reserve(e, size);
    if (err != ERR_OK)
        return err;
    for (size_t i = 0; i < size; i++) {
        int32_t id = e->t->byte_ids[word[i]];
        if (id < 0)
            return err_set(e->eb, ERR_INVALID,
                           "byte %zu of the text is 0x%02x, for which this model's vocabulary has "
                           "no token",
                           (size_t)(word + i - e->text), word[i]);
        e->symbols[i] = (struct symbol){.prev = i > 0 ? (uint32_t)i - 1 : NO_SYMBOL,
                                        .next = i + 1 < size ? (uint32_t)i + 1 : NO_SYMBOL,
                                        .id = id};
    }
    return bpe_merge(e, (uint32_t)size);
}

/* Bytes that are not UTF-8 are words of their own: the patterns are about characters. */
static enum err bpe_fragment(struct encoder *e, const uint8_t *text, size_t size)
{
    enum err err = ERR_OK;
    size_t at = 0;
    while (at < size && err == ERR_OK) {
        size_t valid = at;
        for (size_t n = 1; valid < size && n > 0; valid += n)
            n = utf8_size(text + valid, size - valid);
        if (valid > at) {
            err = pre_tokenizer_split(e->t->splitter, text + at, valid - at, bpe_word, e, e->eb);
            at = valid;
            continue;
        }
        while (valid < size && utf8_size(text + valid, size - valid) == 0)
            valid++;
        err = bpe_word(e, text + at, valid - at);
        at = valid;
    }
    return err;
}

/* --- SentencePiece --- */

/* Numbers that sort as floats do, the greatest first. -0 and +0 are one score. */
static uint32_t spm_order(float score)
{
    uint32_t bits;
    float positive_zero = score + 0.0f;
    memcpy(&bits, &positive_zero, sizeof bits);
    uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static int32_t spm_token(const struct encoder *e, uint32_t start, size_t size)
{
    int32_t id = text_map_find(e->t, e->scratch.data + start, size);
    return id >= 0 && e->t->tokens[id].mergeable ? id : -1;
}

/* The token that symbol `left` and its neighbour make together, or -1. */
static int32_t spm_pair(const struct encoder *e, uint32_t left)
{
    const struct symbol *s = e->symbols;
    if (left == NO_SYMBOL || s[left].size == 0 || s[left].next == NO_SYMBOL)
        return -1;
    return spm_token(e, s[left].start, (size_t)s[left].size + s[s[left].next].size);
}

static enum err spm_offer(struct encoder *e, uint32_t left)
{
    int32_t id = spm_pair(e, left);
    if (id < 0)
        return ERR_OK;
    return heap_push(e, (uint64_t)spm_order(e->t->tokens[id].score) << 32 | left);
}

static enum err spm_symbol(struct encoder *e, const struct symbol *s, size_t fragment_at)
{
    const uint8_t *bytes = e->scratch.data + s->start;
    int32_t id = spm_token(e, s->start, s->size);
    if (id >= 0)
        return append(e, id);
    enum err err = ERR_OK;
    bool known = true;
    for (uint32_t i = 0; i < s->size; i++)
        known = known && e->t->byte_ids[bytes[i]] >= 0;
    for (uint32_t i = 0; i < s->size && known && err == ERR_OK; i++)
        err = append(e, e->t->byte_ids[bytes[i]]);
    if (known)
        return err;
    if (e->t->unknown >= 0)
        return append(e, e->t->unknown);
    return err_set(e->eb, ERR_INVALID,
                   "in the text from byte %zu on is the byte 0x%02x in a character for which this "
                   "model's vocabulary has no token, nor one for its bytes, nor an unknown token",
                   fragment_at, bytes[0]);
}

static enum err spm_fragment(struct encoder *e, const uint8_t *text, size_t size, bool prefix)
{
    struct buf *b = &e->scratch;
    enum err err;
    buf_clear(b);
    if (prefix)
        buf_append_str(b, "\u2581");
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ')
            buf_append_str(b, "\u2581");
        else
            buf_append_byte(b, text[i]);
    }
    if (b->failed)
        return out_of_memory(e);

    uint32_t count = 0;
    for (size_t at = 0; at < b->size; count++) {
        size_t n = utf8_size(b->data + at, b->size - at);
        at += n > 0 ? n : 1;
    }
    err = symbols_reserve(e, count);
    if (err != ERR_OK)
        return err;
    struct symbol *s = e->symbols;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t n = utf8_size(b->data + at, b->size - at);
        s[i] = (struct symbol){.prev = i > 0 ? i - 1 : NO_SYMBOL,
                               .next = i + 1 < count ? i + 1 : NO_SYMBOL,
                               .start = (uint32_t)at,
                               .size = (uint32_t)(n > 0 ? n : 1)};
        at += s[i].size;
    }
    e->heap_count = 0;
    for (uint32_t i = 0; i + 1 < count && err == ERR_OK; i++)
        err = spm_offer(e, i);
    while (e->heap_count > 0 && err == ERR_OK) {
        uint64_t entry = heap_pop(e);
        uint32_t left = (uint32_t)entry;
        int32_t id = spm_pair(e, left);
        if (id < 0 || spm_order(e->t->tokens[id].score) != (uint32_t)(entry >> 32))
            continue;
        uint32_t right = s[left].next;
        s[left].size += s[right].size;
        s[right].size = 0;
        symbols_join(e, left, right);
        err = spm_offer(e, s[left].prev);
        if (err == ERR_OK)
            err = spm_offer(e, left);
    }
    for (uint32_t i = 0; count > 0 && i != NO_SYMBOL && err == ERR_OK; i = s[i].next)
        err = spm_symbol(e, &s[i], (size_t)(text - e->text));
    return err;
}

/* --- the whole text --- */

enum err tokenizer_encode_spans(const struct tokenizer *t, const void *bytes,
                                const struct tokenizer_span *spans, size_t n_spans, bool at_start,
                                struct tokens *tokens, struct errbuf *eb)
{
    struct fragments fragments = {0};
    size_t count_before = tokens->count;
    size_t size = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (spans[i].size > TOKENIZER_TEXT_MAX - size)
            return err_set(eb, ERR_TOO_LARGE, "a text of more than %u bytes", TOKENIZER_TEXT_MAX);
        size += spans[i].size;
    }
    if (size == 0)
        return ERR_OK;

    struct encoder e = {.t = t, .text = bytes, .tokens = tokens, .eb = eb};
    enum err err = specials_split(t, bytes, size, spans, n_spans, &fragments, eb);
    bool after_special = at_start;
    for (size_t i = 0; i < fragments.count && err == ERR_OK; i++) {
        const struct fragment *f = &fragments.items[i];
        if (f->id >= 0)
            err = append(&e, f->id);
        else if (t->family == TOKENIZER_FAMILY_BPE)
            err = bpe_fragment(&e, e.text + f->start, f->size);
        else
            err =
                spm_fragment(&e, e.text + f->start, f->size, after_special && t->adds_space_prefix);
        after_special = f->id >= 0;
    }
    if (err != ERR_OK)
        tokens->count = count_before;
    free(fragments.items);
    free(e.symbols);
    free(e.heap);
    buf_fini(&e.scratch);
    return err;
}

enum err tokenizer_encode(const struct tokenizer *t, const void *bytes, size_t size,
                          enum tokenizer_special special, bool at_start, struct tokens *tokens,
                          struct errbuf *eb)
{
    const struct tokenizer_span span = {.size = size, .special = special};
    return tokenizer_encode_spans(t, bytes, &span, 1, at_start, tokens, eb);
}
