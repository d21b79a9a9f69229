/*
 * base64.h - RFC 4648 section 4 over libcrypto, strict: one text for one sequence of bytes.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_BASE64_H
#define CLOISTER_COORDINATOR_LEDGER_BASE64_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>

#define BASE64_TEXT_BYTES(size) (((size) + 2) / 3 * 4 + 1) /* with NUL */

/* `ret_text` has BASE64_TEXT_BYTES(size). */
void base64_encode(const void *bytes, size_t size, char *ret_text);
/* Replaces what is in `out`. False for anything that base64_encode would not have written (white
 * space, missing padding, bits behind the end) and without memory (out->failed). */
bool base64_decode(const char *text, size_t text_size, struct buf *out);

#endif
