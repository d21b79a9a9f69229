/*
 * text.h - text from elsewhere on its way to a terminal: whatever a model, a worker or another
 * tenant wrote, it cannot move the cursor, change colours or hide what it says. Thread: any.
 */
#ifndef CLOISTER_CLI_TEXT_H
#define CLOISTER_CLI_TEXT_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Columns that the text takes on a terminal: East Asian wide and emoji count two, combining marks
 * none. */
size_t text_columns(const char *text);

/* Columns of the terminal on stdout; `fallback` where it is none. */
unsigned text_terminal_columns(unsigned fallback);

/* A stream of pieces to a file: the very bytes where it is no terminal, else made safe, with a
 * character that is cut between two pieces held back until it is whole. */
struct text_sink {
    FILE *file;
    bool safe;
    char held[4];
    size_t n_held;
    bool at_line_start; /* nothing written since the last line feed */
};

void text_sink_init(struct text_sink *sink, FILE *file, bool safe);
/* Writes and flushes; false when the file refuses (errno tells). */
bool text_sink_write(struct text_sink *sink, const void *bytes, size_t size);
/* What was held back; on a terminal also a line feed where the text ended without. */
bool text_sink_end(struct text_sink *sink);

#endif
