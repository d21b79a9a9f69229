/*
 * cli.h - what the commands of `cloister` share: settings, flags, the connection, exit codes.
 *
 * A command is one entry of the table in commands.c and one file command_NAME.c. It gets its
 * values already parsed and checked, prints its result to stdout, and returns an exit code;
 * failures are one line on stderr (cli_fail). Help, completion and the man page's test all read
 * the same tables.
 *
 * Thread: main's, except where a file says otherwise.
 */
#ifndef CLOISTER_CLI_CLI_H
#define CLOISTER_CLI_CLI_H

#include "client/cloister.h"
#include "common/transport.h"
#include "common/flags.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit codes, as cloister(1) documents them. Never renumbered. */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILED = 1, /* system call, memory, a peer that makes no sense */
    CLI_EXIT_USAGE = 2,  /* flags, configuration, malformed input */
    CLI_EXIT_NOT_FOUND = 3,
    CLI_EXIT_REFUSED = 4,     /* identity, quota, policy, too large for any worker */
    CLI_EXIT_UNREACHABLE = 5, /* nobody answers */
    CLI_EXIT_BUSY = 6,        /* come back later */
    CLI_EXIT_JOB_FAILED = 7,  /* failed, rejected or expired */
    CLI_EXIT_CANCELLED = 8,
    CLI_EXIT_NOT_VERIFIED = 9,
};

/* Flags that every command takes. */
struct cli_globals {
    const char *config, *url, *tenant, *identity;
    uint64_t wait_ms;
    bool has_wait, json, verbose, help, version, check_config, print_config;
};

/* client.cfg. */
struct cli_settings {
    const char *url, *node, *tenant, *identity, *coordinator_key, *model, *project, *cost_center;
    uint64_t wait_ms, stream_wait_ms;
    struct transport_tls tls;
};

struct config;

struct cli {
    struct cli_globals globals;
    struct cli_settings settings;
    struct config *config;    /* owns the settings' strings */
    struct cloister *cluster; /* NULL until cli_connect */
    char *identity_path;      /* where it was made up from the home directory */
    bool stdout_is_terminal, stderr_is_terminal;
};

struct cli_command {
    const char *name;     /* "submit"; two words for a subcommand: "ledger export" */
    const char *summary;  /* one line */
    const char *operands; /* "PROMPT|-"; "" where there are none */
    const char *description;
    const struct flag_set *sets; /* its own flags; ends with an all-zero entry; NULL: none */
    size_t values_bytes;
    void (*defaults)(void *values); /* NULL: zeroes */
    int operands_min, operands_max;
    bool offline; /* needs neither configuration nor coordinator */
    int (*run)(struct cli *cli, void *values, char **operands, int n_operands);
};

extern const struct cli_command cli_commands[]; /* ends with an all-zero entry */
extern const struct flag_set cli_global_sets[];

/* The table's entry for the words of argv; NULL. ret_words: how many words its name has. */
const struct cli_command *cli_command_find(char **words, int n_words, int *ret_words);
/* "ledger", which is the first word of commands and none itself. */
bool cli_command_is_half(const char *word);
/* The one that is meant most likely; NULL where none is like it. */
const char *cli_command_nearest(const char *word);
void cli_print_help(FILE *out);
void cli_print_command_help(const struct cli_command *command, FILE *out);

/* settings.c: the file, then CLOISTER_URL, then flags. Prints and returns an exit code. */
int cli_settings_load(struct cli *cli);
void cli_settings_example(FILE *out);
/* client.key beside the user's client.cfg, its folder made; NULL with a message printed. */
char *cli_identity_path(void);

/* Connects once; prints why not. CLI_EXIT_OK or the exit code. */
int cli_connect(struct cli *cli);

/* "cloister: TEXT" in one line on stderr, control characters neutralised. Returns `code`. */
int cli_fail(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A problem of the library: its text, what to do next, the exit code that fits. */
int cli_fail_problem(const struct cloister_problem *problem);
int cli_exit_for(enum cloister_error code);
/* For a job that is over. */
int cli_exit_for_state(enum cloister_state state);

/* An operand into a whole job id; prints why not. */
int cli_find_job(struct cli *cli, const char *operand, char ret_id[CLOISTER_ID_BYTES]);

/* Flushes stdout; a full disk or closed pipe is an error and not silence. */
int cli_finish_output(void);

/* completion.c: the script for "bash", "zsh" or "fish"; false for any other shell. */
struct buf;
bool completion_write(const char *shell, struct buf *out);

/* The commands. */
int command_batch(struct cli *cli, void *values, char **operands, int n_operands);
int command_cancel(struct cli *cli, void *values, char **operands, int n_operands);
int command_completion(struct cli *cli, void *values, char **operands, int n_operands);
int command_explain(struct cli *cli, void *values, char **operands, int n_operands);
int command_help(struct cli *cli, void *values, char **operands, int n_operands);
int command_job(struct cli *cli, void *values, char **operands, int n_operands);
int command_jobs(struct cli *cli, void *values, char **operands, int n_operands);
int command_ledger_export(struct cli *cli, void *values, char **operands, int n_operands);
int command_ledger_verify(struct cli *cli, void *values, char **operands, int n_operands);
int command_models(struct cli *cli, void *values, char **operands, int n_operands);
int command_models_plan(struct cli *cli, void *values, char **operands, int n_operands);
int command_status(struct cli *cli, void *values, char **operands, int n_operands);
int command_submit(struct cli *cli, void *values, char **operands, int n_operands);
int command_usage(struct cli *cli, void *values, char **operands, int n_operands);
int command_watch(struct cli *cli, void *values, char **operands, int n_operands);
int command_workers(struct cli *cli, void *values, char **operands, int n_operands);

#endif
