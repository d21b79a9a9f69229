/* cloister-engine: the engine without a cluster. See docs/engine.md and cloister-engine(1). */
#include "worker/engine_tool/tool.h"

#include "common/crypto.h"
#include "common/program.h"
#include "common/version.h"
#include "worker/model/hparams.h"

#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define HELP_COLUMNS 96u

static int digest_run(void *values, char **operands)
{
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_HEX_BYTES];
    struct errbuf eb = {{0}};

    (void)values;
    if (model_file_digest(operands[0], digest, &eb) != ERR_OK)
        return tool_fail_file(operands[0], &eb);
    hex_encode(digest, sizeof digest, text);
    printf("%s  %s\n", text, operands[0]);
    return tool_finish_output();
}

static const struct tool_command digest_command = {
    .name = "digest",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "SHA-256 of the file",
    .run = digest_run,
};

static const struct tool_command *const commands[] = {
    &tool_info_command,       &digest_command,          &tool_tokenize_command,
    &tool_detokenize_command, &tool_generate_command,   &tool_estimate_command,
    &tool_bench_command,      &tool_perplexity_command,
};

struct main_flags {
    bool help, version;
};

static const struct flag main_flags_table[] = {
    {.name = "help",
     .letter = 'h',
     .type = FLAG_SWITCH,
     .offset = offsetof(struct main_flags, help),
     .help = "This, or behind a command what it does and its flags."},
    {.name = "version",
     .letter = 'V',
     .type = FLAG_SWITCH,
     .offset = offsetof(struct main_flags, version),
     .help = "Prints the version and git revision, and ends."},
    {0}};
static const struct flag_set main_sets[] = {{main_flags_table, 0}, {0}};

static int print(struct buf *text)
{
    fputs(buf_str(text), stdout);
    buf_fini(text);
    return tool_finish_output();
}

static int print_help(void)
{
    struct buf text;

    buf_init(&text);
    buf_append_str(&text, "cloister-engine COMMAND FILE [FLAGS]\n\nThe engine without a cluster.\n"
                          "\nCommands:\n");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        buf_printf(&text, "  %-11s %-10s %s\n", commands[i]->name, commands[i]->operands,
                   commands[i]->summary);
    buf_append_str(&text, "\nFlags:\n");
    flags_describe(main_sets, HELP_COLUMNS, &text);
    buf_append_str(&text, "\nExit status: 0 done; 1 the file, the model or the job failed; 2 wrong "
                          "command line.\n");
    return print(&text);
}

static int print_command_help(const struct tool_command *command)
{
    struct buf text;

    buf_init(&text);
    buf_printf(&text, "cloister-engine %s %s%s: %s\n", command->name, command->operands,
               command->sets != NULL ? " [FLAGS]" : "", command->summary);
    if (command->sets != NULL) {
        buf_append_str(&text, "\nFlags:\n");
        flags_describe(command->sets, HELP_COLUMNS, &text);
    }
    return print(&text);
}

static int print_version(void)
{
    printf("cloister-engine %s (%s)\n", cloister_version, cloister_revision);
    return tool_finish_output();
}

static int run_command(const struct tool_command *command, char **words, int n_words)
{
    struct main_flags own = {0};
    struct errbuf eb = {{0}};
    void *values = calloc(1, command->values_bytes + 1);
    const struct flag_target targets[] = {{command->sets, values}, {main_sets, &own}};
    int n_operands, result;

    if (values == NULL)
        return tool_fail("no memory");
    if (command->defaults != NULL)
        command->defaults(values);
    if (flags_parse(words, n_words, targets, 2, false, &n_operands, &eb) != ERR_OK)
        result = tool_usage("%s: %s", command->name, eb.text);
    else if (own.help)
        result = print_command_help(command);
    else if (own.version)
        result = print_version();
    else if (n_operands != command->n_operands)
        result = tool_usage("%s: %d operands where %s is needed", command->name, n_operands,
                            command->operands);
    else
        result = command->run(values, words);
    free(values);
    return result;
}

int main(int argc, char **argv)
{
    struct main_flags own = {0};
    const struct flag_target target = {main_sets, &own};
    struct errbuf eb = {{0}};
    char **words = argv + 1;
    int n_words;

    program_hold_standard_files();
    /* A closed pipe is an error of write, which says where; not a silent end. */
    signal(SIGPIPE, SIG_IGN);
    if (flags_parse(words, argc > 0 ? argc - 1 : 0, &target, 1, true, &n_words, &eb) != ERR_OK)
        return tool_usage("%s", eb.text);
    if (own.help)
        return print_help();
    if (own.version)
        return print_version();
    if (n_words == 0)
        return tool_usage("a command is needed");
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(words[0], commands[i]->name) == 0)
            return run_command(commands[i], words + 1, n_words - 1);
    return tool_usage("'%s' is no command", words[0]);
}
