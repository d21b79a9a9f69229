/*
 * config_scan.h - a first pass over a configuration file, before libconfig's parser sees it.
 *
 * libconfig 1.5 recurses over nesting, wraps integers past 32 bits to other numbers, drops \x00,
 * lets a comment run to the end of the file, and reads other files at @include. The scan refuses
 * all of that with a line number, and hands on a copy in which each integer is marked as 64-bit.
 * Thread: any.
 */
#ifndef CLOISTER_COMMON_CONFIG_SCAN_H
#define CLOISTER_COMMON_CONFIG_SCAN_H

#include "common/buf.h"
#include "common/err.h"

/* Appends the rewritten text to `out`, NUL-terminated, same number of lines. ERR_INVALID and
 * ERR_TOO_LARGE with "NAME:LINE: reason". */
enum err config_scan(const char *text, size_t size, const char *name, struct buf *out,
                     struct errbuf *eb);

/* The name of setting `index` from 0, as they stand in a text that config_scan has passed; "" where
 * there are fewer, cut where it does not fit. */
void config_scan_name(const char *text, size_t size, size_t index, char *ret_name,
                      size_t name_bytes);

#endif
