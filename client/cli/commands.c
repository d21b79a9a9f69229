/* The table of commands, and the help that is printed from it. */
#include "client/cli/command_values.h"

#include "common/buf.h"
#include "common/nearest.h"

#include <string.h>

#define HELP_COLUMNS  96u
#define GLOBAL(field) offsetof(struct cli_globals, field)

static const struct flag global_flags[] = {
    {.name = "json",
     .type = FLAG_SWITCH,
     .offset = GLOBAL(json),
     .help = "Prints one JSON document, for programs. The fields are in docs/cli.md."},
    {.name = "verbose",
     .letter = 'v',
     .type = FLAG_SWITCH,
     .offset = GLOBAL(verbose),
     .help = "Says more on standard error: tokens, times, the seed."},
    {.name = "url",
     .letter = 'u',
     .type = FLAG_TEXT,
     .argument = "URL",
     .offset = GLOBAL(url),
     .help = "The coordinator, tcp://HOST:PORT or tls+tcp://HOST:PORT. Goes before CLOISTER_URL "
             "and client.cfg."},
    {.name = "tenant",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = GLOBAL(tenant),
     .help = "Whose quota and bill it is. Goes before client.cfg."},
    {.name = "wait",
     .letter = 'w',
     .type = FLAG_DURATION,
     .argument = "TIME",
     .offset = GLOBAL(wait_ms),
     .given = GLOBAL(has_wait),
     .min = 0,
     .max = 24 * 3600 * 1000,
     .help = "How long to keep trying while nobody answers or all is busy, such as 30s (10s, and "
             "5m for a job that is being watched)."},
    {.name = "identity",
     .letter = 'i',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = GLOBAL(identity),
     .help = "Our key; made where it is missing (client.key beside client.cfg)."},
    {.name = "config",
     .letter = 'c',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = GLOBAL(config),
     .help = "Read this instead of the user's or the system's client.cfg."},
    {.name = "check-config",
     .type = FLAG_SWITCH,
     .offset = GLOBAL(check_config),
     .help = "Reads the configuration, says what is wrong with it, and ends."},
    {.name = "print-config",
     .type = FLAG_SWITCH,
     .offset = GLOBAL(print_config),
     .help = "Prints a client.cfg with every key explained, and ends."},
    {.name = "help", .letter = 'h', .type = FLAG_SWITCH, .offset = GLOBAL(help), .help = "This."},
    {.name = "version",
     .letter = 'V',
     .type = FLAG_SWITCH,
     .offset = GLOBAL(version),
     .help = "Prints the version and git revision."},
    {0}};
const struct flag_set cli_global_sets[] = {{.flags = global_flags}, {0}};

const struct cli_command cli_commands[] = {
    {.name = "submit",
     .summary = "submit a job and print its answer as it comes",
     .operands = "PROMPT|-",
     .description = "The prompt is the operand, standard input (-) or a file (--file). Ctrl-C "
                    "cancels the job; a second Ctrl-C leaves at once. If the coordinator or a "
                    "worker goes away meanwhile, the answer goes on where it was.",
     .sets = submit_sets,
     .values_bytes = sizeof(struct submit_values),
     .defaults = submit_defaults,
     .operands_max = 1,
     .run = command_submit},
    {.name = "batch",
     .summary = "run a file of OpenAI batch lines",
     .operands = "IN.jsonl|-",
     .description =
         "Each line of IN.jsonl is {\"custom_id\":...,\"method\":\"POST\",\"url\":"
         "\"/v1/chat/completions\" or \"/v1/completions\",\"body\":{...}}. Each gives one line in "
         "the output, in the order in which they end. Run the same command again after any "
         "interruption: it goes on, and no line is lost or done twice. The flags are for lines "
         "whose body does not say. Beside the output, OUT.jsonl.state remembers the batch.",
     .sets = batch_sets,
     .values_bytes = sizeof(struct batch_values),
     .defaults = batch_defaults,
     .operands_min = 1,
     .operands_max = 1,
     .run = command_batch},
    {.name = "watch",
     .summary = "print the answer of a job that is there already",
     .operands = "JOB",
     .description =
         "What is there, then as it comes, to the end. Ctrl-C ends the watching; the job "
         "goes on.",
     .sets = watch_sets,
     .values_bytes = sizeof(struct watch_values),
     .operands_min = 1,
     .operands_max = 1,
     .run = command_watch},
    {.name = "jobs",
     .summary = "list jobs, newest first",
     .operands = "",
     .description = "",
     .sets = jobs_sets,
     .values_bytes = sizeof(struct jobs_values),
     .defaults = jobs_defaults,
     .run = command_jobs},
    {.name = "job",
     .summary = "show one job",
     .operands = "JOB",
     .description = "State, tokens, times, sampling, ledger records.",
     .sets = job_sets,
     .values_bytes = sizeof(struct job_values),
     .operands_min = 1,
     .operands_max = 1,
     .run = command_job},
    {.name = "cancel",
     .summary = "end jobs",
     .operands = "JOB...",
     .description = "What was delivered until then is billed. A job that was over stays as it was.",
     .sets = cancel_sets,
     .values_bytes = sizeof(struct cancel_values),
     .operands_min = 1,
     .operands_max = 1000,
     .run = command_cancel},
    {.name = "explain",
     .summary = "say why a job is where it is",
     .operands = "JOB",
     .description = "Every worker that was looked at, which was chosen, and what each of the "
                    "others lacks, in numbers.",
     .operands_min = 1,
     .operands_max = 1,
     .run = command_explain},
    {.name = "workers",
     .summary = "list workers, their memory and models",
     .operands = "",
     .description = "FREE is what the device says; CLAIMED is what the coordinator has given away; "
                    "STRANGERS is in use by others on the same device.",
     .run = command_workers},
    {.name = "models",
     .summary = "list models and where they are loaded",
     .operands = "",
     .description = "",
     .run = command_models},
    {.name = "models plan",
     .summary = "show how a model would be cut for several workers",
     .operands = "MODEL",
     .description =
         "Which layers, heads, feed-forward columns and rows of the vocabulary each of them would "
         "hold (a range where layers differ), and their bytes, worked out from what a worker that "
         "has the model says of it. SCRATCH is at most that of the whole model, and there is what "
         "they hand each other: `cloister-engine estimate FILE` says both exactly, from the file.",
     .sets = models_plan_sets,
     .values_bytes = sizeof(struct models_plan_values),
     .operands_min = 1,
     .operands_max = 1,
     .run = command_models_plan},
    {.name = "usage",
     .summary = "show tokens by tenant, model and day",
     .operands = "",
     .description = "ANSWER tokens are those that were delivered and are billed; COMPUTED ones "
                    "include work that was done again after a worker was lost.",
     .sets = usage_sets,
     .values_bytes = sizeof(struct usage_values),
     .run = command_usage},
    {.name = "ledger export",
     .summary = "write the ledger to a file",
     .operands = "",
     .description = "JSONL: every record with its fields and its hashed bytes, then the signed "
                    "checkpoint.",
     .sets = ledger_export_sets,
     .values_bytes = sizeof(struct ledger_export_values),
     .run = command_ledger_export},
    {.name = "ledger verify",
     .summary = "check an exported ledger, offline",
     .operands = "FILE|-",
     .description = "Recomputes every hash, total and the signature from the file alone. Talks to "
                    "nobody. Exit code 9 names the first line that is wrong.",
     .sets = ledger_verify_sets,
     .values_bytes = sizeof(struct ledger_verify_values),
     .operands_min = 1,
     .operands_max = 1,
     .offline = true,
     .run = command_ledger_verify},
    {.name = "status",
     .summary = "say whether the coordinator is well",
     .operands = "",
     .description = "Exit code 0 only when it is healthy.",
     .run = command_status},
    {.name = "completion",
     .summary = "print the completion script for a shell",
     .operands = "bash|zsh|fish",
     .description = "For example: cloister completion bash > /etc/bash_completion.d/cloister",
     .operands_min = 1,
     .operands_max = 1,
     .offline = true,
     .run = command_completion},
    {.name = "help",
     .summary = "explain a command",
     .operands = "[COMMAND]",
     .description = "",
     .operands_max = 2,
     .offline = true,
     .run = command_help},
    {0}};

/* How many of the words are the name's, one after the other; 0 where they are not all there. */
static int command_matches(const char *name, char **words, int n_words)
{
    int n = 0;
    while (*name) {
        size_t size = strcspn(name, " ");
        if (n >= n_words || strlen(words[n]) != size || memcmp(words[n], name, size) != 0)
            return 0;
        n++;
        name += size;
        name += *name == ' ';
    }
    return n;
}

const struct cli_command *cli_command_find(char **words, int n_words, int *ret_words)
{
    const struct cli_command *found = NULL;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        int n = command_matches(c->name, words, n_words);
        if (n > 0 && (!found || n > *ret_words)) { /* "models plan" rather than "models" */
            *ret_words = n;
            found = c;
        }
    }
    return found;
}

bool cli_command_is_half(const char *word)
{
    size_t size = strlen(word);
    for (const struct cli_command *c = cli_commands; c->name; c++)
        if (strncmp(c->name, word, size) == 0 && c->name[size] == ' ')
            return true;
    return false;
}

const char *cli_command_nearest(const char *word)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 2 + 1;
    for (const struct cli_command *c = cli_commands; c->name; c++) {
        char first[32];
        snprintf(first, sizeof first, "%.*s", (int)strcspn(c->name, " "), c->name);
        size_t distance = nearest_distance(word, first);
        if (distance < best_distance) {
            best = c->name;
            best_distance = distance;
        }
    }
    return best;
}

static void help_put(struct buf *text, FILE *out)
{
    fputs(buf_str(text), out);
    buf_fini(text);
}

void cli_print_help(FILE *out)
{
    struct buf text;
    buf_init(&text);
    buf_append_str(&text, "cloister: jobs for language models on a cluster of your own\n\n"
                          "  cloister submit \"Why is the sky blue?\"\n"
                          "  cloister [FLAGS] COMMAND ...\n\nCommands:\n");
    for (const struct cli_command *c = cli_commands; c->name; c++)
        buf_printf(&text, "  %-16s %s\n", c->name, c->summary);
    buf_append_str(&text, "\nFlags of every command:\n");
    flags_describe(cli_global_sets, HELP_COLUMNS, &text);
    buf_append_str(
        &text,
        "\nA JOB is its short id as `cloister jobs` shows it, the first digits of it where they\n"
        "name one job, or its whole id.\n"
        "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 refused, 5 unreachable,\n"
        "6 busy, 7 the job failed, 8 cancelled, 9 not verified.\n"
        "`cloister help COMMAND` says more; so does cloister(1).\n");
    help_put(&text, out);
}

void cli_print_command_help(const struct cli_command *command, FILE *out)
{
    struct buf text;
    buf_init(&text);
    buf_printf(&text, "cloister %s%s%s%s: %s\n", command->name, command->sets ? " [FLAGS]" : "",
               command->operands[0] ? " " : "", command->operands, command->summary);
    if (command->description[0]) {
        buf_append_byte(&text, '\n');
        flags_wrap(command->description, 0, HELP_COLUMNS, 0, &text);
    }
    if (command->sets) {
        buf_append_str(&text, "\nFlags:\n");
        flags_describe(command->sets, HELP_COLUMNS, &text);
    }
    buf_append_str(&text, "\nFlags of every command are listed by `cloister --help`.\n");
    help_put(&text, out);
}

int command_help(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)cli;
    (void)values;
    int n;
    if (n_operands == 0) {
        cli_print_help(stdout);
        return cli_finish_output();
    }
    const struct cli_command *command = cli_command_find(operands, n_operands, &n);
    if (command && n == n_operands) {
        cli_print_command_help(command, stdout);
        return cli_finish_output();
    }
    /* "help ledger": both of its commands. */
    bool found = false;
    size_t size = strlen(operands[0]);
    for (const struct cli_command *c = cli_commands; c->name && n_operands == 1; c++) {
        if (strncmp(c->name, operands[0], size) != 0 || c->name[size] != ' ')
            continue;
        if (found)
            putchar('\n');
        cli_print_command_help(c, stdout);
        found = true;
    }
    if (found)
        return cli_finish_output();
    return cli_fail(CLI_EXIT_USAGE, "there is no command \"%s\"; the nearest one is \"%s\"",
                    operands[0], cli_command_nearest(operands[0]));
}
