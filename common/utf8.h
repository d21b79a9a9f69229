/*
 * utf8.h - UTF-8 as The Unicode Standard 15, table 3-7 defines it: no overlong forms, surrogates
 * or values past U+10FFFF. Thread: any.
 */
#ifndef CLOISTER_COMMON_UTF8_H
#define CLOISTER_COMMON_UTF8_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length in bytes of the well-formed sequence at `bytes`, with its code point; 0 where there is
 * none (ret_code untouched). size 0 gives 0. */
size_t utf8_decode(const void *bytes, size_t size, uint32_t *ret_code);

/* How many bytes at `bytes` one U+FFFD stands for where utf8_decode says 0: the longest start of a
 * sequence that could have gone on ("maximal subpart"), at least 1. */
size_t utf8_bad_length(const void *bytes, size_t size);

/* True where the bytes are ill-formed only because they end in the middle of a sequence; used to
 * hold back the end of a stream's piece. ret_tail: bytes of that unfinished sequence. */
bool utf8_tail_unfinished(const void *bytes, size_t size, size_t *ret_tail);

/* C0, DEL, C1, line and paragraph separators, and the marks that turn the direction of writing:
 * what must not reach a terminal or a log from a peer. */
bool utf8_is_control(uint32_t code);

/* Well-formed and without control characters. */
bool utf8_is_plain(const void *bytes, size_t size);

/* Appends the bytes with ill-formed sequences as U+FFFD, one for each broken part, and all else as
 * it is: for JSON strings. */
void utf8_append(struct buf *out, const void *bytes, size_t size);

/* Likewise, and safe to show: control characters become visible escapes (\x1b, \u202e).
 * keep_lines: line feeds and tabs stay. */
void utf8_append_safe(struct buf *out, const void *bytes, size_t size, bool keep_lines);

#endif
