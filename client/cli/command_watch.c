/* cloister watch: the answer of a job that is there already, from its first token. */
#include "client/cli/show.h"

int command_watch(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)values;
    (void)n_operands;
    char id[CLOISTER_ID_BYTES];
    struct interrupt interrupt;
    /* Ctrl-C ends the watching, not the job. */
    interrupt_start(&interrupt, cli, false);
    int code = cli_connect(cli);
    if (code == CLI_EXIT_OK) {
        interrupt_connected(&interrupt, cli->cluster);
        code = cli_find_job(cli, operands[0], id);
    }
    if (code == CLI_EXIT_OK) {
        struct show show;
        show_init(&show, cli, id);
        code = show_run(&show, false, 0);
        show_fini(&show);
    }
    interrupt_stop(&interrupt);
    return code;
}
