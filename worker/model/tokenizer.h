/*
 * tokenizer.h - text to token ids and back, from what the GGUF file says.
 *
 * Two families: byte-level BPE ("gpt2" in the file; words cut by the pre-tokenizer that it names,
 * through PCRE2) and SentencePiece ("llama"; merges by score, byte fallback).
 * Any bytes are legal input, valid UTF-8 or not. detokenize(tokenize(bytes)) == bytes for
 * byte-level BPE and for SPM with byte fallback, with two exceptions that SentencePiece files bring
 * with them: U+2581 comes back as a space, and where the file asks for a space prefix, text behind
 * a special token comes back with a space before it (that at the start is taken away again).
 *
 * A vocabulary may lack tokens for some bytes (SmolLM2's has none for 21 of the 256, among them
 * 0xFF): text with such a byte is refused by its offset, since leaving it out would change the text
 * in silence.
 *
 * Control tokens ("<|im_end|>") come out of text only with TOKENIZER_SPECIAL_PARSE. User-defined
 * tokens are matched whole in any text, as their models were trained.
 *
 * Ids equal those of llama.cpp for valid UTF-8, with two exceptions: it drops what the vocabulary
 * has no byte token for, and it can merge plain text into a control token.
 *
 * Linear: a megabyte of one letter, spaces or digits takes no longer than prose.
 *
 * Ownership: the tokenizer copies what it needs; the gguf may be closed. Thread: any, once it is
 * open; what an encode learns about the vocabulary is the same in all of them.
 */
#ifndef CLOISTER_WORKER_MODEL_TOKENIZER_H
#define CLOISTER_WORKER_MODEL_TOKENIZER_H

#include "common/buf.h"
#include "common/err.h"
#include "worker/model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

#define TOKENIZER_VOCAB_MAX (1 << 21)
#define TOKENIZER_TEXT_MAX  (1u << 30) /* bytes of one encode */
#define TOKENIZER_TOKEN_MAX 1024u      /* bytes of one token's text */

/* A growing list of ids. Zero-initialise; tokens_fini frees. */
struct tokens {
    int32_t *ids;
    size_t count;
    size_t capacity;
};
void tokens_fini(struct tokens *t);
enum err tokens_append(struct tokens *t, int32_t id);

enum err tokenizer_open(struct tokenizer **ret_tokenizer, const struct gguf *g, struct errbuf *eb);
void tokenizer_close(struct tokenizer *t);

enum tokenizer_special {
    TOKENIZER_SPECIAL_PLAIN, /* control tokens in the text are ordinary characters: user text */
    TOKENIZER_SPECIAL_PARSE, /* control tokens in the text become their ids: template text */
};

/* Appends the ids of `bytes`; never adds BOS or EOS by itself. `at_start`: this is the beginning
 * of the sequence, where SPM puts its space prefix. ERR_NO_MEMORY, ERR_TOO_LARGE past
 * TOKENIZER_TEXT_MAX, or ERR_INVALID with the offset where the vocabulary cannot express a byte
 * (and, in SPM, has no unknown token either); `tokens` is then as it was. */
enum err tokenizer_encode(const struct tokenizer *t, const void *bytes, size_t size,
                          enum tokenizer_special special, bool at_start, struct tokens *tokens,
                          struct errbuf *eb);

/* One text of parts from different hands: `size` bytes of it are template or user text. The parts
 * are tokenized as the one text they make, except that a control token must lie within a single
 * TOKENIZER_SPECIAL_PARSE part. The sizes add up to the text's. */
struct tokenizer_span {
    size_t size;
    enum tokenizer_special special;
};
enum err tokenizer_encode_spans(const struct tokenizer *t, const void *bytes,
                                const struct tokenizer_span *spans, size_t n_spans, bool at_start,
                                struct tokens *tokens, struct errbuf *eb);

/* Appends the bytes of one token; control tokens give nothing unless `special`. Ids out of range
 * give nothing. `first`: the first token of the text, whose SPM space prefix is dropped. */
void tokenizer_decode(const struct tokenizer *t, int32_t id, bool special, bool first,
                      struct buf *out);

int32_t tokenizer_vocab_size(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t);   /* -1 where there is none */
int32_t tokenizer_eos(const struct tokenizer *t);   /* -1 where there is none */
bool tokenizer_adds_bos(const struct tokenizer *t); /* the file asks for BOS before raw text */
bool tokenizer_is_end(const struct tokenizer *t, int32_t id); /* EOS, EOT and their like */
/* The id whose text is exactly this control token, or -1. */
int32_t tokenizer_find_special(const struct tokenizer *t, const char *text);
/* SHA-256 over all of the file that decides ids: kind, pattern, vocabulary, types, merges, scores.
 */
void tokenizer_digest(const struct tokenizer *t, uint8_t ret_digest[32]);
const char *tokenizer_kind(const struct tokenizer *t); /* "bpe smollm", "spm" */
/* The version of Unicode that libpcre2 splits words by, "14.0.0". Letters that are newer than it
 * can split otherwise on a machine with a newer library. */
void tokenizer_unicode_version(char ret_text[32]);
/* How many tokens a text can become at most: `fixed` and so many for 1024 bytes of it, of a
 * prompt's parts by whose they are. In byte-level BPE a token takes a byte at least. SPM knows two
 * ways to more: a space prefix stands at the start and behind each special token, and a space
 * becomes three byte tokens where the vocabulary does not let text become U+2581. */
struct tokenizer_bound {
    uint32_t fixed; /* BOS, and the prefix at the start */
    uint32_t per_kib_user;
    uint32_t per_kib_template; /* no less: control tokens come out of it, too */
};
void tokenizer_bound(const struct tokenizer *t, struct tokenizer_bound *ret_bound);

#endif
