#include "client/cli/table.h"

#include "client/cli/text.h"
#include "client/cloister.h"
#include "common/check.h"
#include "common/units.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TABLE_GAP 2u

void table_init(struct table *t, const char *const *heads)
{
    memset(t, 0, sizeof *t);
    buf_init(&t->cells);
    for (; heads[t->n_columns]; t->n_columns++) {
        CHECK(t->n_columns < TABLE_COLUMNS_MOST);
        const char *head = heads[t->n_columns];
        t->right[t->n_columns] = head[0] == '>';
        t->heads[t->n_columns] = head + (head[0] == '>');
    }
}

void table_fini(struct table *t)
{
    buf_fini(&t->cells);
    free(t->starts);
}

static void table_begin_cell(struct table *t)
{
    if (t->n_cells == t->cells_capacity) {
        size_t capacity = t->cells_capacity ? t->cells_capacity * 2 : 64;
        size_t *starts = realloc(t->starts, capacity * sizeof *starts);
        if (!starts) {
            t->failed = true;
            return;
        }
        t->starts = starts;
        t->cells_capacity = capacity;
    }
    t->starts[t->n_cells++] = t->cells.size;
}

void table_text(struct table *t, const char *text)
{
    table_begin_cell(t);
    if (!text[0])
        text = "-";
    utf8_append_safe(&t->cells, text, strlen(text), false);
    buf_append_byte(&t->cells, 0);
}

void table_job(struct table *t, const char *id)
{
    char short_id[CLOISTER_SHORT_ID_BYTES];
    cloister_id_short(id, short_id);
    table_text(t, short_id);
}

void table_printf(struct table *t, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    table_text(t, text);
}

void table_count(struct table *t, uint64_t count)
{
    char text[UNITS_TEXT_BYTES];
    units_count_format(count, text);
    table_text(t, text);
}

void table_size(struct table *t, uint64_t bytes)
{
    char text[UNITS_TEXT_BYTES];
    units_size_format(bytes, text);
    table_text(t, text);
}

void table_duration(struct table *t, uint64_t ms)
{
    char text[UNITS_TEXT_BYTES];
    units_duration_format(ms, text);
    table_text(t, text);
}

void table_time(struct table *t, uint64_t wall_ns)
{
    char text[64] = "";
    time_t seconds = (time_t)(wall_ns / 1000000000u);
    struct tm tm;
    if (wall_ns != 0 && localtime_r(&seconds, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    table_text(t, text);
}

/* Bytes of `text` that fit `columns`; the rest is cut, and an ellipsis stands for it. */
static size_t table_cut(const char *text, size_t columns)
{
    size_t size = strlen(text), used = 0, i = 0;
    while (i < size) {
        uint32_t code;
        size_t n = utf8_decode(text + i, size - i, &code);
        char one[8] = {0};
        memcpy(one, text + i, n ? n : 1);
        size_t width = text_columns(one);
        if (used + width > columns)
            break;
        used += width;
        i += n ? n : 1;
    }
    return i;
}

static const char *table_cell(const struct table *t, size_t row, size_t column)
{
    return row == 0 ? t->heads[column]
                    : buf_str(&t->cells) + t->starts[(row - 1) * t->n_columns + column];
}

static void table_blanks(struct buf *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        buf_append_byte(out, ' ');
}

static void table_print_last(const char *text, size_t room, struct buf *out)
{
    if (room == 0 || text_columns(text) <= room) {
        buf_append_str(out, text);
        return;
    }
    buf_append(out, text, table_cut(text, room - 1));
    buf_append_str(out, "\xE2\x80\xA6");
}

void table_print(const struct table *t, unsigned columns, const char *empty, struct buf *out)
{
    if (t->failed || t->cells.failed) {
        out->failed = true;
        return;
    }
    CHECK(t->n_cells % t->n_columns == 0);
    size_t rows = t->n_cells / t->n_columns;
    if (rows == 0) {
        buf_printf(out, "%s\n", empty);
        return;
    }
    size_t widths[TABLE_COLUMNS_MOST] = {0};
    for (size_t row = 0; row <= rows; row++) {
        for (size_t column = 0; column < t->n_columns; column++) {
            size_t width = text_columns(table_cell(t, row, column));
            if (width > widths[column])
                widths[column] = width;
        }
    }
    for (size_t row = 0; row <= rows; row++) {
        size_t at = 0;
        for (size_t column = 0; column < t->n_columns; column++) {
            const char *text = table_cell(t, row, column);
            size_t blanks = widths[column] - text_columns(text);
            bool last = column + 1 == t->n_columns;
            if (t->right[column])
                table_blanks(out, blanks);
            if (last && !t->right[column])
                /* Never cut to less than a word or two, however narrow the terminal. */
                table_print_last(text, columns > at + 12 ? columns - at : columns ? 12 : 0, out);
            else
                buf_append_str(out, text);
            if (!last) {
                if (!t->right[column])
                    table_blanks(out, blanks);
                table_blanks(out, TABLE_GAP);
                at += widths[column] + TABLE_GAP;
            }
        }
        buf_append_byte(out, '\n');
    }
}
