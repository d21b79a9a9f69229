/*
 * id.h - 128-bit ids that the side which asks makes itself, so that asking twice does it once.
 *
 * Layout of RFC 9562 UUID version 7: 48 bits of Unix milliseconds, then random bits, so that byte
 * order is nearly order of creation. Text is 32 lower-case hex digits. Ids of one hour begin alike,
 * so what people see and type is the short form, the last 8 digits, all of them random.
 */
#ifndef CLOISTER_COMMON_ID_H
#define CLOISTER_COMMON_ID_H

#include <stdbool.h>
#include <stdint.h>

#define ID_BYTES      16
#define ID_TEXT_BYTES 33 /* with NUL */

#define ID_SHORT_BYTES      4
#define ID_SHORT_TEXT_BYTES 9 /* with NUL */

struct id {
    uint8_t bytes[ID_BYTES];
};

struct id id_new(void); /* from the wall clock and the system's random generator */
void id_format(const struct id *id, char ret_text[ID_TEXT_BYTES]);
bool id_parse(const char *text, struct id *ret_id); /* 32 hex digits exactly */
int id_compare(const struct id *a, const struct id *b);
bool id_is_zero(const struct id *id);

#endif
