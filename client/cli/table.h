/*
 * table.h - aligned tables for people. Cells are made safe for a terminal; the last column is cut
 * to the terminal's width, the others never are. Thread: one owner.
 */
#ifndef CLOISTER_CLI_TABLE_H
#define CLOISTER_CLI_TABLE_H

#include "common/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_COLUMNS_MOST 16u

struct table {
    size_t n_columns;
    const char *heads[TABLE_COLUMNS_MOST];
    bool right[TABLE_COLUMNS_MOST];
    struct buf cells; /* NUL-terminated, one behind the other */
    size_t *starts;   /* of each cell */
    size_t n_cells, cells_capacity;
    bool failed;
};

/* `heads` ends with NULL; one that begins with '>' is aligned to the right (numbers). */
void table_init(struct table *t, const char *const *heads);
void table_fini(struct table *t);

void table_text(struct table *t, const char *text); /* "" is shown as "-" */
void table_printf(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void table_job(struct table *t, const char *id);    /* its short form */
void table_count(struct table *t, uint64_t count);  /* 1,234,567 */
void table_size(struct table *t, uint64_t bytes);   /* 93.1 MiB */
void table_duration(struct table *t, uint64_t ms);  /* 12.3 s */
void table_time(struct table *t, uint64_t wall_ns); /* 2026-01-31 12:00:00 in local time; 0: "-" */

/* columns: the terminal's width, 0: no limit. `empty` is printed where there are no rows. */
void table_print(const struct table *t, unsigned columns, const char *empty, struct buf *out);

#endif
