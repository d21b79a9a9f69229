/*
 * program.h - what the daemons have in common before their own work begins: the flags that each of
 * them takes, how these are answered, how a failure to start is said, and the signals.
 *
 *     struct program_options options;
 *     int status = program_begin(&program, argc, argv, &values, &options);
 *     if (status != PROGRAM_GO_ON)
 *         return status;
 *
 * Thread: main, before any other thread starts.
 */
#ifndef CLOISTER_COMMON_PROGRAM_H
#define CLOISTER_COMMON_PROGRAM_H

#include "common/buf.h"
#include "common/err.h"
#include "common/flags.h"
#include "common/log.h"

#include <limits.h>
#include <stdbool.h>

enum program_status {
    PROGRAM_GO_ON = -1, /* no exit status: there is more to do */
    PROGRAM_STATUS_OK = 0,
    PROGRAM_STATUS_FAILED = 1,
    PROGRAM_STATUS_USAGE = 2, /* command line or configuration */
};

struct program {
    const char *name;                       /* "cloister-worker" */
    const char *log_name;                   /* "worker" */
    const char *summary;                    /* a sentence or two, lines of at most 96 columns */
    const char *statuses;                   /* "Exit status: ..." */
    const struct flag *flags;               /* its own; ends with an all-zero entry */
    void (*print_example)(struct buf *out); /* the configuration with every key */
};

/* What every program takes. */
struct program_options {
    const char *config, *log_level;
    bool check_config, print_config, print_key, version, help;
};

/* Reads the command line into `values` (the program's own flags) and ret_options, answers --help,
 * --version and --print-config, opens the log, and blocks SIGTERM, SIGINT, SIGHUP and SIGPIPE:
 * threads started later inherit that, so that only a signalfd hears them. PROGRAM_GO_ON, or the
 * exit status. */
int program_begin(const struct program *p, int argc, char **argv, void *values,
                  struct program_options *ret_options);

/* Where standard input, output or error is closed, puts something there that can be neither read
 * nor written, so that no file or connection opened later gets its number and with it what is
 * printed. The first thing of a main. */
void program_hold_standard_files(void);

/* Opens the log again, now that the configuration is known: --log-level goes before it. */
void program_log(const struct program *p, const struct program_options *options,
                 enum log_level configured);

/* "NAME: TEXT" on stderr; returns `status`. */
int program_fail(const struct program *p, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* What --check-config prints where nothing is wrong: "the configuration is good; TEXT". */
int program_config_is_good(const struct program *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Flushes what was printed: a full disk or a closed pipe is a failure. */
int program_finish_output(const struct program *p);

/* A line with the public key as hex, as it is written into the other side's configuration. */
struct crypto_key;
int program_print_key(const struct program *p, const struct crypto_key *key);

/* A path from the command line, relative to where the program was started: made absolute in `buf`,
 * which *path then points to. NULL stays NULL. */
enum err program_absolute_path(const char **path, char buf[PATH_MAX], struct errbuf *eb);

#endif
