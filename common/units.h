/*
 * units.h - numbers as people write them, in configuration files and on the command line, read
 * strictly: the whole text must be the number, or it is none. Thread: any.
 */
#ifndef CLOISTER_COMMON_UNITS_H
#define CLOISTER_COMMON_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decimal, with an optional minus for the signed one; no blanks, no plus, no overflow. */
bool units_int_parse(const char *text, int64_t *ret_value);
bool units_uint_parse(const char *text, uint64_t *ret_value);
/* Decimal or exponent form, finite; "inf", "nan" and hexadecimal are refused. */
bool units_float_parse(const char *text, double *ret_value);
/* A token id and what is added to its logit, from "50256:-100". */
bool units_bias_parse(const char *text, int32_t *ret_id, float *ret_bias);

/* "500ms", "30s", "5m", "2h", "1d": a whole number and its unit. "0" needs none. */
bool units_duration_parse(const char *text, uint64_t *ret_ms);
/* "4096B", "64KiB", "8GiB", "1TiB", and the decimal "kB", "MB", "GB", "TB". "0" needs none. */
bool units_size_parse(const char *text, uint64_t *ret_bytes);

/* "3,1", "80GiB,24GiB": one whole number or size for each of at most `most` who share something. */
bool units_shares_parse(const char *text, size_t most, uint64_t *ret_shares, size_t *ret_count);

#define UNITS_TEXT_BYTES 32
/* For people, rounded: "950 ms", "12.3 s", "4 min 05 s", "3 h 20 min", "12 d 4 h". */
void units_duration_format(uint64_t ms, char ret_text[UNITS_TEXT_BYTES]);
/* For people, rounded: "512 B", "93.1 MiB", "8.00 GiB". */
void units_size_format(uint64_t bytes, char ret_text[UNITS_TEXT_BYTES]);
/* For people: "1,234,567". */
void units_count_format(uint64_t count, char ret_text[UNITS_TEXT_BYTES]);

/* Exactly, in the largest unit without a remainder, so that the parsers above give it back. */
void units_duration_write(uint64_t ms, char ret_text[UNITS_TEXT_BYTES]);
void units_size_write(uint64_t bytes, char ret_text[UNITS_TEXT_BYTES]);

#endif
