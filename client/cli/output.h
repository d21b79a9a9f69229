/*
 * output.h - results for programs: jansson values from libcloister's structs. Field names are
 * documented in docs/cli.md and only ever added to. Text that is not UTF-8 has U+FFFD for what is
 * ill-formed; ids, numbers and digests are exact. Numbers past 2^53 (seeds) are strings of digits.
 *
 * Ownership: json_t as jansson has it; NULL where memory was refused. Thread: any.
 */
#ifndef CLOISTER_CLI_OUTPUT_H
#define CLOISTER_CLI_OUTPUT_H

#include "client/cli/cli.h"

#include <jansson.h>

json_t *output_text(const void *bytes, size_t size);
json_t *output_string(const char *text); /* of a peer, UTF-8 already */
json_t *output_count(uint64_t count);
json_t *output_hex(const uint8_t *bytes, size_t size);
json_t *output_time(uint64_t wall_ns); /* RFC 3339; null for 0 */
json_t *output_usage(const struct cloister_usage *usage);
json_t *output_job_info(const struct cloister_job_info *info);
/* As OpenAI's API has it: token, logprob, bytes; with the likeliest in its place: top_logprobs. */
json_t *output_logprob(const struct cloister_logprob *logprob);
/* Appends those of all the event's tokens. */
void output_logprobs_add(json_t *list, const struct cloister_event *event);
/* What was asked: prompt, sampling, limits. */
json_t *output_job(const struct cloister_job *job);

/* Prints one document and a line feed, and frees it (NULL: says that memory is out). `pretty`:
 * over several lines. Returns an exit code. */
int output_print(json_t *document, bool pretty);

/* A table as table_print makes it, or whatever else is in `text`, to stdout. Frees `text`. */
struct buf;
int output_print_text(struct buf *text);

#endif
