/*
 * tokenizer_internal.h - the parts of a tokenizer, private to tokenizer*.c.
 *
 *   tokenizer.c          opening and checking, decoding, accessors
 *   tokenizer_bound.c    how many tokens a text can become
 *   tokenizer_vocab.c    text of a token to its id; pairs of ids to their merge; the alphabet of bytes
 *   tokenizer_special.c  special tokens in a text
 *   tokenizer_patterns.c the patterns of each named split
 *   tokenizer_pre.c      the split of a text into words, by PCRE2
 *   tokenizer_encode.c   a text into words, a word into ids
 *   tokenizer_merge.c    the merges within a word
 *   tokenizer_queue.c    which merge comes next
 */
#ifndef CLOISTER_WORKER_MODEL_TOKENIZER_INTERNAL_H
#define CLOISTER_WORKER_MODEL_TOKENIZER_INTERNAL_H

#include "worker/model/tokenizer.h"

enum tokenizer_family { TOKENIZER_FAMILY_BPE, TOKENIZER_FAMILY_SPM };

/* The file's token types, by their values in tokenizer.ggml.token_type. */
enum token_type {
    TOKEN_TYPE_NORMAL = 1,
    TOKEN_TYPE_UNKNOWN = 2,
    TOKEN_TYPE_CONTROL = 3,
    TOKEN_TYPE_USER = 4,
    TOKEN_TYPE_UNUSED = 5,
    TOKEN_TYPE_BYTE = 6,
};

struct token {
    uint32_t text; /* offset in `blob`: the text as the file has it */
    uint32_t text_size;
    uint32_t piece; /* offset in `blob`: the bytes it decodes to */
    uint32_t piece_size;
    float score;
    uint8_t type;   /* enum token_type */
    bool mergeable; /* plain text may become it */
    bool is_end;
};

struct merge {
    int32_t left;
    int32_t right;
    int32_t merged;
};

/* Open addressing, keyed by a seed drawn at open so that nobody can prepare collisions. A slot says
 * enough to pass it by without looking elsewhere; 0 where it is empty. */
struct text_map {
    uint64_t *slots; /* upper half of the text's hash, id + 1 */
    uint32_t mask;
    uint64_t seed;
};
struct pair_map {
    uint64_t *slots; /* a bit that says taken, left id, right id, rank: 1 and three times 21 bits */
    uint32_t mask;
    uint64_t seed;
};

/* What is known about merging the bytes of a token as a word: nothing, that they become the token,
 * or that they do not. */
enum whole { WHOLE_UNKNOWN, WHOLE_YES, WHOLE_NO };

struct trie;          /* tokenizer_special.c */
struct pre_tokenizer; /* tokenizer_pre.c */

struct tokenizer {
    enum tokenizer_family family;
    char kind[40];
    const struct pre_split *split; /* BPE */
    struct token *tokens;
    int32_t n_tokens;
    char *blob;
    uint32_t blob_size;
    struct text_map texts;
    struct merge *merges; /* by rank */
    uint32_t n_merges;
    struct pair_map pairs;
    struct trie *specials;
    struct pre_tokenizer *splitter; /* BPE */
    int32_t byte_ids[256];          /* -1 where the vocabulary has no token for the byte */
    /* BPE: each byte as a character of the alphabet, one or two bytes. */
    char alphabet[256][2];
    uint8_t alphabet_size[256];
    /* SPM: a bit for each pair of bytes that stand side by side in a token's text; where a text has
     * another pair, no merge crosses. See tokenizer_encode.c. */
    uint8_t *joins;
    /* By id, learnt while encoding. Any thread may write, and all write the same. */
    _Atomic uint8_t *whole; /* enum whole */
    uint32_t text_size_max;
    int32_t bos, eos, eot, unknown;
    bool adds_bos;
    bool ignore_merges; /* a word that is a token is taken whole */
    bool adds_space_prefix;
    uint8_t digest[32];
};

/* --- tokenizer_vocab.c --- */

/* ERR_INVALID with both ids where two tokens have one text. */
enum err text_map_init(struct text_map *m, const struct tokenizer *t, struct errbuf *eb);
int32_t text_map_find(const struct tokenizer *t, const void *text, size_t size); /* or -1 */
enum err pair_map_init(struct pair_map *m, const struct tokenizer *t, struct errbuf *eb);
int64_t pair_map_find(const struct tokenizer *t, int32_t left, int32_t right); /* rank or -1 */
/* GPT-2's alphabet: every byte as one visible character. Writes its UTF-8, returns 1 or 2. */
size_t byte_alphabet_encode(uint8_t byte, char ret_text[2]);
/* The byte of the character at `text`, which takes *ret_size bytes; -1 where it is none. */
int byte_alphabet_decode(const char *text, size_t size, size_t *ret_size);

/* --- tokenizer_special.c --- */

struct fragment {
    size_t start;
    size_t size;
    int32_t id; /* a special token, or -1 for text */
};
struct fragments {
    struct fragment *items;
    size_t count;
    size_t capacity;
};

enum err trie_new(struct trie **ret, const struct tokenizer *t, struct errbuf *eb);
void trie_free(struct trie *trie);
/* Cuts `text` at its special tokens: the longest ones of the whole text first, equally long ones
 * from left to right, as llama.cpp does. `size` is not 0, and what the spans add up to. */
enum err specials_split(const struct tokenizer *t, const uint8_t *text, size_t size,
                        const struct tokenizer_span *spans, struct fragments *ret_fragments,
                        struct errbuf *eb);

/* --- tokenizer_queue.c --- */

/* Entries of an order and a position come out by order, those of one order by position.
 * Zero-initialise and clear before the first use. */
struct queue_heap {
    uint64_t *items;
    size_t count;
    size_t capacity;
};
struct queue {
    struct queue_node *nodes;
    uint32_t n_nodes, nodes_capacity, free_node;
    struct queue_list *lists;
    uint32_t n_lists, lists_capacity, last_list;
    struct queue_slot *slots;
    uint32_t slots_mask, round;
    struct queue_heap orders; /* order << 32 | list, of the lists that are not empty */
    struct queue_heap strays; /* order << 32 | position, of what no list could take */
};
void queue_clear(struct queue *q);
bool queue_push(struct queue *q, uint32_t order, uint32_t position);          /* false: no memory */
bool queue_pop(struct queue *q, uint32_t *ret_order, uint32_t *ret_position); /* false: empty */
void queue_fini(struct queue *q);

/* --- tokenizer_merge.c --- */

struct piece {
    uint32_t start; /* SPM: where it is in `text` */
    uint32_t size;
    int32_t id; /* BPE: always; SPM: of what a merge made, else -1 */
};

/* Zero-initialise, with the tokenizer. Fill `pieces` after a reserve, run, and find in it what is
 * left. */
struct merger {
    const struct tokenizer *t;
    const uint8_t *text; /* SPM: what the pieces are cut from */
    struct piece *pieces;
    size_t pieces_capacity;
    struct pair *pairs;
    size_t pairs_capacity;
    struct link *links;
    size_t links_capacity;
    struct pair_memo *memo;
    struct queue queue;
};
enum err merger_reserve(struct merger *m, size_t count); /* ERR_NO_MEMORY, as with run */
enum err merger_run(struct merger *m, size_t *count);
void merger_fini(struct merger *m);

/* --- tokenizer_encode.c --- */

enum err spm_joins_init(struct tokenizer *t, struct errbuf *eb); /* once `mergeable` is known */

/* --- tokenizer_patterns.c --- */

#define PRE_PASSES_MAX 6

struct pre_split {
    const char *kind;
    const char *passes[PRE_PASSES_MAX + 1]; /* patterns; each splits what the one before left;
                                               NULL ends */
};

struct pre_type {
    const char *name; /* tokenizer.ggml.pre */
    const char *kind; /* of its split, which several names can have */
    bool ignore_merges;
    bool adds_bos;
};

const struct pre_type *pre_type_find(struct gguf_string name); /* NULL where there is none */
const struct pre_split *pre_split_of(const struct pre_type *type);
/* One name of each kind, for messages; cut where it does not fit. */
void pre_type_list(char *ret_text, size_t size);

/* --- tokenizer_pre.c --- */

enum err pre_tokenizer_new(struct pre_tokenizer **ret, const struct pre_split *split,
                           struct errbuf *eb);
void pre_tokenizer_free(struct pre_tokenizer *p);

/* Calls `word` for each piece of `text` (valid UTF-8), in order; stops at its first error. */
typedef enum err pre_word_fn(void *context, const uint8_t *text, size_t size);
enum err pre_tokenizer_split(const struct pre_tokenizer *p, const uint8_t *text, size_t size,
                             pre_word_fn *word, void *context, struct errbuf *eb);

#endif
