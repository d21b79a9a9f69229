/*
 * progress.h - one line on a terminal that is written over and over: how much is done, how fast it
 * goes, when it will be over. Thread: one owner.
 */
#ifndef CLOISTER_CLI_PROGRESS_H
#define CLOISTER_CLI_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

struct progress {
    size_t total, done_before; /* lines; those that were done when it began */
    uint64_t began_ms;         /* monotonic */
};

struct progress_now {
    size_t done, failed, running; /* done counts those of before, and failed ones */
    uint64_t tokens;              /* completion tokens in this run */
    uint64_t now_ms;
};

#define PROGRESS_TEXT_BYTES 256

/* "[#####.....] 123/1000 12 %  4.5 lines/s  310 tokens/s  3 min 05 s left, 2 with errors", no
 * wider than `columns`; without a line feed. */
void progress_format(const struct progress *p, const struct progress_now *now, unsigned columns,
                     char ret_text[PROGRESS_TEXT_BYTES]);

#endif
