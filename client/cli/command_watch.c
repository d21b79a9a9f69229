/* cloister watch: the answer of a job that is there already. */
#include "client/cli/command_values.h"
#include "client/cli/interrupt.h"
#include "client/cli/show.h"

#include "common/limits.h"

static const struct flag watch_flags[] = {
    {.name = "from",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = offsetof(struct watch_values, from),
     .min = 0,
     .max = LIMIT_MAX_TOKENS,
     .help =
         "Begins at this token of the answer, counted from 0: where `ids` of --json ended (0)."},
    {0}};

const struct flag_set watch_sets[] = {{.flags = watch_flags}, {0}};

int command_watch(struct cli *cli, void *values, char **operands, int n_operands)
{
    const struct watch_values *v = values;
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
        show.from = (uint32_t)v->from;
        code = show_run(&show, false, 0);
        show_fini(&show);
    }
    interrupt_stop(&interrupt);
    return code;
}
