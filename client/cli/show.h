/*
 * show.h - a job's answer on its way out: text as it comes, or one JSON document at the end.
 */
#ifndef CLOISTER_CLI_SHOW_H
#define CLOISTER_CLI_SHOW_H

#include "client/cli/cli.h"
#include "client/cli/text.h"
#include "common/buf.h"

#include <jansson.h>

struct show {
    struct cli *cli;
    char id[CLOISTER_ID_BYTES];
    uint32_t from; /* token of the answer to begin at */
    struct text_sink sink;
    struct buf text;               /* collected for --json */
    struct buf ids;                /* int32_t each */
    json_t *logprobs;              /* a list; empty where none came */
    uint64_t started_ms, first_ms; /* monotonic; 0: no token yet */
    struct cloister_event last;    /* without what it carried: its text and ids are gone */
    char error_text[CLOISTER_PROBLEM_BYTES];
    bool ended, output_failed;
};

void show_init(struct show *show, struct cli *cli, const char *id);
void show_fini(struct show *show);

/* Watches from token `from` (0 after show_init) to the end, then prints what is left to print.
 * `seed` goes into the JSON document and, with -v, into the line on stderr, where has_seed. Returns
 * an exit code. */
int show_run(struct show *show, bool has_seed, uint64_t seed);

#endif
