/* cloister: one program, one table of commands. */
#include "client/cli/cli.h"

#include "common/config.h"
#include "common/program.h"
#include "common/version.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int main_no_command(void)
{
    cli_print_help(stderr);
    return CLI_EXIT_USAGE;
}

/* --version, --help, --check-config and --print-config stand for a command. */
static bool main_is_answered(struct cli *cli, const struct cli_command *command, int *ret_code)
{
    const struct cli_globals *g = &cli->globals;
    *ret_code = CLI_EXIT_OK;
    if (g->version) {
        printf("cloister %s (%s)\n", cloister_version, cloister_revision);
    } else if (g->help) {
        if (command)
            cli_print_command_help(command, stdout);
        else
            cli_print_help(stdout);
    } else if (g->print_config) {
        cli_settings_example(stdout);
    } else if (g->check_config) {
        *ret_code = cli_settings_load(cli);
        if (*ret_code == CLI_EXIT_OK)
            printf("the configuration is good; the coordinator is %s\n", cli->settings.url);
    } else {
        return false;
    }
    if (*ret_code == CLI_EXIT_OK)
        *ret_code = cli_finish_output();
    return true;
}

static int main_run(struct cli *cli, int argc, char **argv)
{
    struct errbuf eb = {0};
    struct flag_target targets[2] = {{.sets = cli_global_sets, .values = &cli->globals}};
    char **words = argv + 1;
    int n_words, n_named = 0, n_operands = 0, code;
    if (flags_parse(words, argc - 1, targets, 1, true, &n_words, &eb) != ERR_OK)
        return cli_fail(CLI_EXIT_USAGE, "%s; see cloister --help", eb.text);
    const struct cli_command *command = cli_command_find(words, n_words, &n_named);
    if (n_words == 0)
        return main_is_answered(cli, NULL, &code) ? code : main_no_command();
    if (!command && cli_command_is_half(words[0]))
        return cli_fail(CLI_EXIT_USAGE,
                        "%s needs a second word, and \"%s\" is none of them; see "
                        "cloister help %s",
                        words[0], n_words > 1 ? words[1] : "", words[0]);
    if (!command) {
        const char *nearest = cli_command_nearest(words[0]);
        return cli_fail(CLI_EXIT_USAGE, "there is no command \"%s\"%s%s%s (see cloister --help)",
                        words[0], nearest != NULL ? "; the nearest one is \"" : "",
                        nearest != NULL ? nearest : "", nearest != NULL ? "\"" : "");
    }
    void *values = calloc(1, command->values_bytes + 1);
    if (!values)
        return cli_fail(CLI_EXIT_FAILED, "no memory");
    if (command->defaults)
        command->defaults(values);
    /* The command's own flags go first: `usage --tenant` is not the global one. */
    targets[0] = (struct flag_target){.sets = command->sets, .values = values};
    targets[1] = (struct flag_target){.sets = cli_global_sets, .values = &cli->globals};
    char **operands = words + n_named;
    if (flags_parse(operands, n_words - n_named, targets, 2, false, &n_operands, &eb) != ERR_OK) {
        code = cli_fail(CLI_EXIT_USAGE, "%s; see cloister help %s", eb.text, command->name);
        goto out;
    }
    if (main_is_answered(cli, command, &code))
        goto out;
    if (n_operands < command->operands_min || n_operands > command->operands_max) {
        code = cli_fail(CLI_EXIT_USAGE, "%s operands; write: cloister %s [FLAGS]%s%s",
                        n_operands < command->operands_min ? "missing" : "too many", command->name,
                        command->operands[0] ? " " : "", command->operands);
        goto out;
    }
    code = command->offline ? CLI_EXIT_OK : cli_settings_load(cli);
    if (code == CLI_EXIT_OK)
        code = command->run(cli, values, operands, n_operands);
out:
    free(values);
    return code;
}

int main(int argc, char **argv)
{
    program_hold_standard_files();
    struct cli cli = {.stdout_is_terminal = isatty(STDOUT_FILENO) == 1,
                      .stderr_is_terminal = isatty(STDERR_FILENO) == 1};
    /* A closed pipe is an error of write, which says where; not a silent end. */
    signal(SIGPIPE, SIG_IGN);
    int code = main_run(&cli, argc, argv);
    cloister_close(cli.cluster);
    config_free(cli.config);
    free(cli.identity_path);
    return code;
}
