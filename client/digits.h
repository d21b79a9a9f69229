/*
 * digits.h - some of the hex digits of an id, as people type them. Thread: any.
 */
#ifndef CLOISTER_CLIENT_DIGITS_H
#define CLOISTER_CLIENT_DIGITS_H

#include "client/cloister.h"
#include "common/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct digits {
    char text[CLOISTER_ID_BYTES]; /* lower case */
    size_t count;
    uint8_t bytes[ID_BYTES]; /* count / 2 whole ones: an odd digit is in the text alone */
};

/* False where they are none, or more than `most`. Of an odd number the last digit stays out of the
 * bytes; with `from_end` the first. */
bool digits_parse(const char *text, size_t most, bool from_end, struct digits *ret_digits);

#endif
