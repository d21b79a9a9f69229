/*
 * batch_plan.h - what of a batch is left to do: the input's lines, the ids that belong to them, and
 * what the output has already.
 *
 * A batch has an id of its own, kept with a digest of the input and the flags in OUT.jsonl.state.
 * The id of a line's job is derived from it, the line's number and the line's bytes: handing a line
 * over twice is therefore one job, whatever was interrupted where. Output is appended whole lines
 * at a time; a torn last line is cut off at the next start.
 *
 * Standard input is copied to a file without a name first, and is otherwise an input like any
 * other: the same lines with the same output go on. Standard output keeps nothing, so a batch into
 * it has no state, no lock and no second run.
 *
 * Ownership: batch_plan_close frees all. Thread: one owner while opening; then lines are read, and
 * `done` written, under the caller's lock.
 */
#ifndef CLOISTER_CLI_BATCH_PLAN_H
#define CLOISTER_CLI_BATCH_PLAN_H

#include "client/cloister.h"
#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum batch_line_state {
    BATCH_LINE_PENDING,
    BATCH_LINE_DONE,    /* in the output */
    BATCH_LINE_INVALID, /* to be written as an error */
};

struct batch_plan_line {
    uint64_t offset;
    uint32_t size;
    uint32_t number; /* from 1, empty lines counted */
    uint8_t id[16];
    enum batch_line_state state;
    char *problem; /* of an invalid line: "line 7: ..." */
};

struct batch_plan {
    int in, out, state; /* files; `state` holds the lock; -1: none, standard output */
    char base_id[CLOISTER_ID_BYTES];
    struct batch_plan_line *lines;
    size_t n_lines, capacity;
    size_t n_done, n_failed; /* found in the output at the start; errors among them */
    bool resumed;
};

struct batch_plan_config {
    const char *input, *output;          /* "-": standard input, standard output */
    const char *flags;                   /* text of all that changes a job; must stay the same */
    const struct cloister_job *defaults; /* lines are parsed with */
    bool restart;                        /* forget output and state */
};

bool batch_plan_is_standard(const char *path);

/* ERR_NOT_FOUND and ERR_IO name the file; ERR_BUSY: another run has this output; ERR_CONFLICT: the
 * input or the flags are others than the batch was begun with, or the output belongs to none. */
enum err batch_plan_open(struct batch_plan *plan, const struct batch_plan_config *config,
                         struct errbuf *eb);
void batch_plan_close(struct batch_plan *plan);

/* The bytes of a line, to be freed. Thread: any. */
enum err batch_plan_read(const struct batch_plan *plan, const struct batch_plan_line *line,
                         char **ret_text, struct errbuf *eb);
void batch_plan_id(const struct batch_plan_line *line, char ret_id[CLOISTER_ID_BYTES]);
/* Whole lines to the output, in one write where the system allows. Under the caller's lock. */
enum err batch_plan_append(struct batch_plan *plan, const void *bytes, size_t size,
                           struct errbuf *eb);

#endif
