/*
 * tokenizer.h - text to token ids and back, from what the GGUF file says.
 *
 * Two families: byte-level BPE ("gpt2" in the file; pre-tokenizer patterns llama-bpe, smollm,
 * qwen2, gpt-2 through PCRE2) and SentencePiece ("llama"; merges by score, byte fallback).
 * Any bytes are legal input. detokenize(tokenize(bytes)) == bytes for byte-level BPE and for SPM
 * with byte fallback (up to the added space prefix, which decoding takes away again).
 *
 * Linear: a megabyte of one letter, spaces or digits takes no longer than prose.
 *
 * Ownership: the tokenizer copies what it needs; the gguf may be closed. Thread: read-only after
 * open; encode and decode from any thread.
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
 * of the sequence, where SPM puts its space prefix. ERR_NO_MEMORY, or ERR_INVALID where the file's
 * vocabulary cannot express a byte (SPM without byte tokens and without an unknown token). */
enum err tokenizer_encode(const struct tokenizer *t, const void *bytes, size_t size,
                          enum tokenizer_special special, bool at_start, struct tokens *tokens,
                          struct errbuf *eb);

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
/* SHA-256 over everything that decides ids: kind, pattern, vocabulary, types, merges, scores. */
void tokenizer_digest(const struct tokenizer *t, uint8_t ret_digest[32]);
/* Most tokens that `size` bytes of text can become; what admission reserves before a worker has
 * counted. */
size_t tokenizer_tokens_max(size_t size);

#endif
