/*
 * tokenizer_vocab.c - what a vocabulary is looked up by: the text of a token for its id, a pair of
 * ids for their merge; and the alphabet that byte-level vocabularies are written in.
 *
 * Both maps are open-addressed tables whose hash has a seed of its own in every process: no file
 * can be made so that all of its tokens meet in one place.
 */
#include "worker/model/tokenizer_internal.h"

#include "common/crypto.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#define ID_BITS 21
_Static_assert(TOKENIZER_VOCAB_MAX <= 1 << ID_BITS, "three ids and a bit make a slot");
#define RANK_MASK ((1ull << ID_BITS) - 1)

/* At most half full, so that a probe ends soon. */
static uint64_t *slots_new(uint64_t count, uint32_t *ret_mask)
{
    uint64_t slots = 16;
    while (slots < count * 2)
        slots *= 2;
    *ret_mask = (uint32_t)(slots - 1);
    return calloc(slots, sizeof(uint64_t));
}

/* The id in a slot whose hash and text are these, or -1. */
static inline int32_t slot_match(const struct tokenizer *t, uint64_t slot, uint64_t hash,
                                 const void *text, size_t size)
{
    if (slot >> 32 != hash >> 32)
        return -1;
    int32_t id = (int32_t)((uint32_t)slot - 1);
    const struct token *token = &t->tokens[id];
    return token->text_size == size && memcmp(t->blob + token->text, text, size) == 0 ? id : -1;
}

enum err text_map_init(struct text_map *m, const struct tokenizer *t, struct errbuf *eb)
{
    m->slots = slots_new((uint64_t)t->n_tokens, &m->mask);
    if (m->slots == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %" PRId32 " tokens", t->n_tokens);
    crypto_random(&m->seed, sizeof m->seed);
    for (int32_t id = 0; id < t->n_tokens; id++) {
        const struct token *token = &t->tokens[id];
        if (token->text_size == 0)
            continue;
        const char *text = t->blob + token->text;
        uint64_t hash = XXH3_64bits_withSeed(text, token->text_size, m->seed);
        uint32_t at = (uint32_t)hash & m->mask;
        for (; m->slots[at] != 0; at = (at + 1) & m->mask) {
            int32_t other = slot_match(t, m->slots[at], hash, text, token->text_size);
            if (other >= 0) {
                char shown[80];
                gguf_string_print((struct gguf_string){text, token->text_size}, shown,
                                  sizeof shown);
                return err_set(eb, ERR_INVALID,
                               "key 'tokenizer.ggml.tokens': tokens %" PRId32 " and %" PRId32
                               " are both '%s'",
                               other, id, shown);
            }
        }
        m->slots[at] = hash >> 32 << 32 | ((uint32_t)id + 1);
    }
    return ERR_OK;
}

int32_t text_map_find(const struct tokenizer *t, const void *text, size_t size)
{
    const struct text_map *m = &t->texts;
    if (size == 0 || size > t->text_size_max)
        return -1;
    uint64_t hash = XXH3_64bits_withSeed(text, size, m->seed);
    uint32_t at = (uint32_t)hash & m->mask;
    for (; m->slots[at] != 0; at = (at + 1) & m->mask) {
        int32_t id = slot_match(t, m->slots[at], hash, text, size);
        if (id >= 0)
            return id;
    }
    return -1;
}

static inline uint64_t pair_key(int32_t left, int32_t right)
{
    return 1ull << 63 | (uint64_t)(uint32_t)left << (2 * ID_BITS) |
           (uint64_t)(uint32_t)right << ID_BITS;
}

/* The finalizer of SplitMix64 over the seeded pair. */
static inline uint32_t pair_hash(uint64_t seed, uint64_t key)
{
    uint64_t x = key ^ seed;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (uint32_t)(x ^ (x >> 31));
}

enum err pair_map_init(struct pair_map *m, const struct tokenizer *t, struct errbuf *eb)
{
    m->slots = slots_new(t->n_merges, &m->mask);
    if (m->slots == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %" PRIu32 " merges", t->n_merges);
    crypto_random(&m->seed, sizeof m->seed);
    for (uint32_t rank = 0; rank < t->n_merges; rank++) {
        const struct merge *merge = &t->merges[rank];
        /* A merge that would make a control token out of text is as if it were not there. */
        if (!t->tokens[merge->merged].mergeable)
            continue;
        uint64_t key = pair_key(merge->left, merge->right);
        uint32_t at = pair_hash(m->seed, key) & m->mask;
        for (; m->slots[at] != 0; at = (at + 1) & m->mask) {
            if ((m->slots[at] & ~RANK_MASK) == key)
                return err_set(eb, ERR_INVALID,
                               "key 'tokenizer.ggml.merges': elements %" PRIu32 " and %" PRIu32
                               " are the same merge",
                               (uint32_t)(m->slots[at] & RANK_MASK), rank);
        }
        m->slots[at] = key | rank;
    }
    return ERR_OK;
}

int64_t pair_map_find(const struct tokenizer *t, int32_t left, int32_t right)
{
    const struct pair_map *m = &t->pairs;
    uint64_t key = pair_key(left, right);
    uint32_t at = pair_hash(m->seed, key) & m->mask;
    for (; m->slots[at] != 0; at = (at + 1) & m->mask) {
        if ((m->slots[at] & ~RANK_MASK) == key)
            return (int64_t)(m->slots[at] & RANK_MASK);
    }
    return -1;
}

/* Source: GPT-2's bytes_to_unicode: visible Latin-1 characters stand for themselves, the other 68
 * bytes, in order, for U+0100 to U+0143. */
static bool byte_is_visible(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
}

size_t byte_alphabet_encode(uint8_t byte, char ret_text[2])
{
    unsigned point = byte;
    if (!byte_is_visible(byte)) {
        if (byte <= 0x20)
            point = 0x100u + byte;
        else if (byte <= 0xa0)
            point = 0x121u + (byte - 0x7fu);
        else
            point = 0x143u;
    }
    if (point < 0x80) {
        ret_text[0] = (char)point;
        return 1;
    }
    ret_text[0] = (char)(0xc0u | point >> 6);
    ret_text[1] = (char)(0x80u | (point & 0x3fu));
    return 2;
}

int byte_alphabet_decode(const char *text, size_t size, size_t *ret_size)
{
    unsigned first = (unsigned char)text[0];
    *ret_size = 1;
    if (first < 0x80)
        return byte_is_visible(first) ? (int)first : -1;
    if (size < 2 || (first & 0xe0u) != 0xc0u || ((unsigned char)text[1] & 0xc0u) != 0x80u)
        return -1;
    *ret_size = 2;
    unsigned point = (first & 0x1fu) << 6 | ((unsigned char)text[1] & 0x3fu);
    if (point >= 0x80 && point < 0x100 && byte_is_visible(point))
        return (int)point;
    if (point >= 0x100 && point <= 0x120)
        return (int)(point - 0x100u);
    if (point >= 0x121 && point <= 0x142)
        return (int)(point - 0x121u + 0x7fu);
    return point == 0x143 ? 0xad : -1;
}
