/*
 * tool.h - what the commands of cloister-engine share: exit codes, one-line errors, strict numbers,
 * JSON output. Thread: main.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_TOOL_H
#define CLOISTER_WORKER_ENGINE_TOOL_TOOL_H

#include "common/buf.h"
#include "common/err.h"
#include "common/flags.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum tool_exit {
    TOOL_EXIT_OK = 0,
    TOOL_EXIT_FAILED = 1, /* the file, the model or the job */
    TOOL_EXIT_USAGE = 2,  /* the command line */
};

/* "cloister-engine: <text>" on stderr; return the exit code. */
int tool_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* What went wrong with a file. Most errors begin with its path, and it is not said twice. */
int tool_fail_file(const char *path, const struct errbuf *eb);
int tool_usage(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Whole text, decimal, within the bounds; false otherwise. */
bool tool_parse_u32(const char *text, uint32_t min, uint32_t max, uint32_t *ret_value);

/* Everything of a stream, up to `max` bytes. */
enum err tool_read_all(FILE *from, size_t max, struct buf *ret_bytes, struct errbuf *eb);

/* Ids separated by white space or commas, brackets around them allowed. */
enum err tool_parse_ids(const char *text, size_t size, int32_t **ret_ids, size_t *ret_count,
                        struct errbuf *eb);

/* A JSON string; bytes that are not UTF-8 become U+FFFD, one for each broken part. */
json_t *tool_json_text(const void *bytes, size_t size);
json_t *tool_json_ids(const int32_t *ids, size_t count);
/* Prints and frees the value, and checks that stdout took it. */
int tool_json_print(json_t *value, bool pretty);
/* Flushes stdout; TOOL_EXIT_FAILED where it is full or closed. */
int tool_finish_output(void);

/* One command: an entry of main.c's table. */
struct tool_command {
    const char *name;
    const char *operands; /* "FILE", as usage shows them */
    int n_operands;
    const char *summary;            /* one line */
    const struct flag_set *sets;    /* NULL: no flags */
    size_t values_bytes;            /* of the struct that the sets describe */
    void (*defaults)(void *values); /* NULL: zeroes */
    /* `values` and operands are parsed and counted. Returns an exit code. */
    int (*run)(void *values, char **operands);
};

extern const struct tool_command tool_info_command;
extern const struct tool_command tool_tokenize_command;
extern const struct tool_command tool_detokenize_command;
extern const struct tool_command tool_generate_command;
extern const struct tool_command tool_estimate_command;
extern const struct tool_command tool_bench_command;
extern const struct tool_command tool_perplexity_command;

#endif
