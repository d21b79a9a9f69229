/*
 * flags.h - command line flags from tables: --name VALUE, --name=VALUE, -n VALUE, and -- where the
 * flags end. Each value is checked by type and range; an unknown flag names the nearest valid one;
 * a flag given twice is an error unless it may repeat. Numbers are read strictly.
 *
 * Ownership: text values point into argv. Thread: any.
 */
#ifndef CLOISTER_COMMON_FLAGS_H
#define CLOISTER_COMMON_FLAGS_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flag_type {
    FLAG_NONE = 0, /* ends a table */
    FLAG_SWITCH,   /* bool, no value */
    FLAG_TEXT,     /* const char * */
    FLAG_TEXTS,    /* struct flag_texts; may repeat */
    FLAG_UINT,     /* uint64_t; min .. max */
    FLAG_FLOAT,    /* double; float_min .. float_max */
    FLAG_DURATION, /* uint64_t milliseconds; min .. max */
    FLAG_SIZE,     /* uint64_t bytes, from 8GiB; min .. max */
    FLAG_DAY,      /* uint32_t yyyymmdd, from 2026-01-31 */
    FLAG_CHOICE,   /* const char *, one of .choices */
};

#define FLAG_TEXTS_MOST 1024u

struct flag_texts {
    const char *items[FLAG_TEXTS_MOST];
    size_t count;
};

struct flag {
    const char *name; /* without the dashes */
    char letter;      /* 0: none */
    enum flag_type type;
    const char *argument; /* what help calls the value; NULL for a switch */
    const char *help;
    size_t offset;
    size_t given; /* offset of a bool that is set where the flag appears; 0: none */
    uint64_t min, max;
    double float_min, float_max;
    const char *const *choices; /* ends with NULL */
};

/* A table and where its struct lies in the values it is read into. */
struct flag_set {
    const struct flag *flags; /* NULL ends a list of sets */
    size_t offset;
};

struct flag_target {
    const struct flag_set *sets;
    void *values;
};

/* Sorts argv's words: flags are stored through the targets (the first that knows one wins),
 * operands are moved to the front of `words`, in order. ret_operands counts them. ERR_INVALID says
 * what is wrong in words for the person at the keyboard. stop_at_operand: the first operand ends
 * it, it and everything behind it are operands. */
enum err flags_parse(char **words, int n_words, const struct flag_target *targets, size_t n_targets,
                     bool stop_at_operand, int *ret_operands, struct errbuf *eb);

/* Prints "  -m, --model NAME   help", wrapped, for each flag of the sets. */
struct buf;
void flags_describe(const struct flag_set *sets, unsigned columns, struct buf *out);

/* The text in lines of at most `columns`, each `indent` blanks in, the first one where `at` columns
 * are written already. */
void flags_wrap(const char *text, size_t indent, size_t columns, size_t at, struct buf *out);

/* yyyy-mm-dd, a day that exists, as yyyymmdd. */
bool flag_day_parse(const char *text, uint32_t *ret_day);

#endif
