/*
 * tokenizer_encode.c - a text into words, a word into ids.
 *
 * Byte-level BPE cuts at its pre-tokenizer's borders. SentencePiece has no words of its own, but no
 * merge can cross a place where two bytes meet that stand side by side in no token, and in most
 * vocabularies no token has a space behind anything else: so the text falls into words there too,
 * each of which is merged for itself, with the same result.
 *
 * Most words are tokens. Whether a token's text merges to the token and not to others is found out
 * the first time that it comes up as a word, and remembered.
 */
#include "worker/model/tokenizer_internal.h"

#include "common/utf8.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct encoder {
    const struct tokenizer *t;
    const uint8_t *text; /* all of it, for offsets in messages */
    struct tokens *tokens;
    struct errbuf *eb;
    struct merger merger;
    uint8_t *escaped; /* SPM: a piece of text with U+2581 for its spaces */
    size_t escaped_capacity;
};

/* Bytes of the character at `p`, 0 where there is no valid one. */
static inline size_t utf8_size(const uint8_t *p, size_t size)
{
    uint32_t code;
    return size > 0 && p[0] < 0x80 ? 1 : utf8_decode(p, size, &code);
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

/* The token whose text the word is, or -1. */
static int32_t whole_token(const struct tokenizer *t, const void *text, size_t size)
{
    int32_t id = text_map_find(t, text, size);
    return id >= 0 && t->tokens[id].mergeable ? id : -1;
}

static bool whole_is(const struct tokenizer *t, int32_t id, enum whole whole)
{
    return atomic_load_explicit(&t->whole[id], memory_order_relaxed) == whole;
}

static void whole_learn(const struct tokenizer *t, int32_t id, bool merges_to_itself)
{
    if (id >= 0)
        atomic_store_explicit(&t->whole[id], merges_to_itself ? WHOLE_YES : WHOLE_NO,
                              memory_order_relaxed);
}

/* --- byte-level BPE --- */

static int32_t bpe_whole_token(const struct tokenizer *t, const uint8_t *word, size_t size)
{
    char text[2 * TOKENIZER_TOKEN_MAX];
    size_t used = 0;
    if (size > t->text_size_max)
        return -1;
    for (size_t i = 0; i < size; i++) {
        memcpy(text + used, t->alphabet[word[i]], 2);
        used += t->alphabet_size[word[i]];
    }
    return whole_token(t, text, used);
}

static enum err bpe_word(void *context, const uint8_t *word, size_t size)
{
    struct encoder *e = context;
    const struct tokenizer *t = e->t;
    struct merger *m = &e->merger;
    if (size == 1 && t->byte_ids[word[0]] >= 0)
        return append(e, t->byte_ids[word[0]]);
    int32_t whole = bpe_whole_token(t, word, size);
    if (whole >= 0 && (t->ignore_merges || whole_is(t, whole, WHOLE_YES)))
        return append(e, whole);

    if (merger_reserve(m, size) != ERR_OK)
        return out_of_memory(e);
    for (size_t i = 0; i < size; i++) {
        int32_t id = t->byte_ids[word[i]];
        if (id < 0)
            return err_set(e->eb, ERR_INVALID,
                           "byte %zu of the text is 0x%02x, for which this model's vocabulary has "
                           "no token",
                           (size_t)(word + i - e->text), word[i]);
        m->pieces[i] = (struct piece){.start = (uint32_t)i, .size = 1, .id = id};
    }
    size_t count = size;
    if (merger_run(m, &count) != ERR_OK)
        return out_of_memory(e);
    whole_learn(t, whole, count == 1 && m->pieces[0].id == whole);
    enum err err = ERR_OK;
    for (size_t i = 0; i < count && err == ERR_OK; i++)
        err = append(e, m->pieces[i].id);
    return err;
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

#define SPACE      "\u2581"
#define SPACE_SIZE 3u

/* U+2581 counts as one byte on both sides of a border, one that UTF-8 has no use for: its own bytes
 * begin and end other characters that words are full of. */
enum { SPACE_KEY = 0xff };

static inline bool is_space(const uint8_t *p, size_t size)
{
    return size >= SPACE_SIZE && memcmp(p, SPACE, SPACE_SIZE) == 0;
}

static inline unsigned left_key(const uint8_t *text, size_t at)
{
    return at >= SPACE_SIZE && is_space(text + at - SPACE_SIZE, SPACE_SIZE) ? SPACE_KEY
                                                                            : text[at - 1];
}

static inline unsigned right_key(const uint8_t *text, size_t size, size_t at)
{
    return is_space(text + at, size - at) ? SPACE_KEY : text[at];
}

static inline bool spm_joins(const struct tokenizer *t, unsigned left, unsigned right)
{
    return ((unsigned)t->joins[left * 32 + right / 8] >> (right % 8) & 1u) != 0;
}

enum err spm_joins_init(struct tokenizer *t, struct errbuf *eb)
{
    t->joins = calloc(256 * 32, 1);
    if (t->joins == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the pairs of bytes in tokens");
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct token *token = &t->tokens[id];
        const uint8_t *text = (const uint8_t *)t->blob + token->text;
        if (!token->mergeable)
            continue;
        for (size_t at = 1; at < token->text_size; at++) {
            unsigned left = left_key(text, at);
            unsigned right = right_key(text, token->text_size, at);
            uint8_t *bits = &t->joins[left * 32 + right / 8];
            *bits = (uint8_t)(*bits | 1u << (right % 8));
        }
    }
    return ERR_OK;
}

/* A character that is no token. */
static enum err spm_unknown(struct encoder *e, const struct piece *p, size_t fragment_at)
{
    const struct tokenizer *t = e->t;
    const uint8_t *bytes = e->escaped + p->start;
    enum err err = ERR_OK;
    bool known = true;
    for (uint32_t i = 0; i < p->size; i++)
        known = known && t->byte_ids[bytes[i]] >= 0;
    for (uint32_t i = 0; i < p->size && known && err == ERR_OK; i++)
        err = append(e, t->byte_ids[bytes[i]]);
    if (known)
        return err;
    if (t->unknown >= 0)
        return append(e, t->unknown);
    return err_set(e->eb, ERR_INVALID,
                   "in the text from byte %zu on is the byte 0x%02x in a character for which this "
                   "model's vocabulary has no token, nor one for its bytes, nor an unknown token",
                   fragment_at, bytes[0]);
}

/* Bytes of the character at `at` in the escaped text, or 1. */
static inline size_t spm_char_size(const struct encoder *e, size_t at, size_t end)
{
    if (e->escaped[at] < 0x80)
        return 1;
    if (is_space(e->escaped + at, end - at))
        return SPACE_SIZE;
    size_t n = utf8_size(e->escaped + at, end - at);
    return n > 0 ? n : 1;
}

/* The bytes from `start` to `end` of the escaped text; nothing merges across its ends. */
static enum err spm_word(struct encoder *e, size_t start, size_t end, size_t fragment_at)
{
    const struct tokenizer *t = e->t;
    struct merger *m = &e->merger;
    int32_t whole = whole_token(t, e->escaped + start, end - start);
    if (whole >= 0 && whole_is(t, whole, WHOLE_YES))
        return append(e, whole);
    if (merger_reserve(m, end - start) != ERR_OK)
        return out_of_memory(e);
    size_t count = 0;
    for (size_t at = start; at < end; count++) {
        size_t n = spm_char_size(e, at, end);
        m->pieces[count] = (struct piece){.start = (uint32_t)at, .size = (uint32_t)n, .id = -1};
        at += n;
    }
    m->text = e->escaped;
    if (merger_run(m, &count) != ERR_OK)
        return out_of_memory(e);
    whole_learn(t, whole, count == 1);
    if (count == 1)
        m->pieces[0].id = whole;
    enum err err = ERR_OK;
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        const struct piece *p = &m->pieces[i];
        int32_t id =
            p->id >= 0 || count == 1 ? p->id : whole_token(t, e->escaped + p->start, p->size);
        err = id >= 0 ? append(e, id) : spm_unknown(e, p, fragment_at);
    }
    return err;
}

/* Gives the size of `text` in e->escaped, where it gets U+2581 for spaces. */
static enum err spm_escape(struct encoder *e, const uint8_t *text, size_t size, bool prefix,
                           size_t *ret_size)
{
    size_t need = size + SPACE_SIZE;
    for (size_t i = 0; i < size; i++)
        need += text[i] == ' ' ? SPACE_SIZE - 1 : 0;
    if (need > e->escaped_capacity) {
        free(e->escaped);
        e->escaped_capacity = 0;
        e->escaped = malloc(need);
        if (e->escaped == NULL)
            return out_of_memory(e);
        e->escaped_capacity = need;
    }
    uint8_t *out = e->escaped;
    if (prefix) {
        memcpy(out, SPACE, SPACE_SIZE);
        out += SPACE_SIZE;
    }
    for (size_t i = 0; i < size; i++) {
        if (text[i] == ' ') {
            memcpy(out, SPACE, SPACE_SIZE);
            out += SPACE_SIZE;
        } else {
            *out++ = text[i];
        }
    }
    *ret_size = (size_t)(out - e->escaped);
    return ERR_OK;
}

static enum err spm_fragment(struct encoder *e, const uint8_t *text, size_t size, bool prefix)
{
    size_t end = 0;
    size_t start = 0;
    enum err err = spm_escape(e, text, size, prefix, &end);
    unsigned left = 0;
    for (size_t at = 0; at < end && err == ERR_OK;) {
        size_t n = spm_char_size(e, at, end);
        unsigned right = right_key(e->escaped, end, at);
        if (at > start && !spm_joins(e->t, left, right)) {
            err = spm_word(e, start, at, (size_t)(text - e->text));
            start = at;
        }
        left = right == SPACE_KEY ? SPACE_KEY : e->escaped[at + n - 1];
        at += n;
    }
    if (err == ERR_OK && start < end)
        err = spm_word(e, start, end, (size_t)(text - e->text));
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

    struct encoder e = {.t = t, .text = bytes, .tokens = tokens, .eb = eb, .merger = {.t = t}};
    enum err err = specials_split(t, bytes, size, spans, &fragments, eb);
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
    merger_fini(&e.merger);
    free(e.escaped);
    return err;
}

enum err tokenizer_encode(const struct tokenizer *t, const void *bytes, size_t size,
                          enum tokenizer_special special, bool at_start, struct tokens *tokens,
                          struct errbuf *eb)
{
    const struct tokenizer_span span = {.size = size, .special = special};
    return tokenizer_encode_spans(t, bytes, &span, 1, at_start, tokens, eb);
}
