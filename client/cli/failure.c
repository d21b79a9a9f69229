/* How a command says that it failed: one line, what happened and where, then what to do next. */
#include "client/cli/cli.h"
#include "common/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int cli_fail(int code, const char *fmt, ...)
{
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    struct buf line;
    buf_init(&line);
    utf8_append_safe(&line, text, strlen(text), false);
    fflush(stdout);
    fprintf(stderr, "cloister: %s\n", line.failed ? "no memory" : buf_str(&line));
    buf_fini(&line);
    return code;
}

int cli_exit_for(enum cloister_error code)
{
    switch (code) {
    case CLOISTER_OK:
        return CLI_EXIT_OK;
    case CLOISTER_ERROR_INVALID:
    case CLOISTER_ERROR_CONFLICT:
        return CLI_EXIT_USAGE;
    case CLOISTER_ERROR_NOT_FOUND:
        return CLI_EXIT_NOT_FOUND;
    case CLOISTER_ERROR_REFUSED:
    case CLOISTER_ERROR_TOO_LARGE:
    case CLOISTER_ERROR_UNSUPPORTED:
        return CLI_EXIT_REFUSED;
    case CLOISTER_ERROR_BUSY:
    case CLOISTER_ERROR_NO_SPACE:
        return CLI_EXIT_BUSY;
    case CLOISTER_ERROR_UNAVAILABLE:
    case CLOISTER_ERROR_TIMEOUT:
        return CLI_EXIT_UNREACHABLE;
    case CLOISTER_ERROR_CANCELLED:
        return CLI_EXIT_CANCELLED;
    case CLOISTER_ERROR_IO:
    case CLOISTER_ERROR_NO_MEMORY:
    case CLOISTER_ERROR_CORRUPT:
    case CLOISTER_ERROR_STALE:
    case CLOISTER_ERROR_INTERNAL:
    case CLOISTER_ERROR_FORKED:
    case CLOISTER_ERROR_LOST:
        break;
    }
    return CLI_EXIT_FAILED;
}

int cli_exit_for_state(enum cloister_state state)
{
    switch (state) {
    case CLOISTER_STATE_DONE:
        return CLI_EXIT_OK;
    case CLOISTER_STATE_CANCELLED:
        return CLI_EXIT_CANCELLED;
    case CLOISTER_STATE_FAILED:
    case CLOISTER_STATE_REJECTED:
    case CLOISTER_STATE_EXPIRED:
        return CLI_EXIT_JOB_FAILED;
    case CLOISTER_STATE_QUEUED:
    case CLOISTER_STATE_LEASED:
    case CLOISTER_STATE_RUNNING:
        break;
    }
    return CLI_EXIT_FAILED;
}

int cli_fail_problem(const struct cloister_problem *problem)
{
    int code = cli_exit_for(problem->code);
    char next[160] = "";
    if (problem->code == CLOISTER_ERROR_UNAVAILABLE)
        snprintf(next, sizeof next,
                 "; is it running (systemctl status cloister-coordinator)? another address is "
                 "given with --url or CLOISTER_URL");
    else if (code == CLI_EXIT_BUSY && problem->retry_after_ms > 0)
        snprintf(next, sizeof next, "; try again in %llu s, or let --wait do it",
                 (unsigned long long)(problem->retry_after_ms + 999) / 1000);
    else if (code == CLI_EXIT_NOT_FOUND)
        snprintf(next, sizeof next, "; `cloister jobs` and `cloister models` list what there is");
    return cli_fail(code, "%s%s", problem->text, next);
}

int cli_find_job(struct cli *cli, const char *operand, char ret_id[CLOISTER_ID_BYTES])
{
    struct cloister_problem problem;
    if (cloister_find_job(cli->cluster, operand, ret_id, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    return CLI_EXIT_OK;
}

int cli_finish_output(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return CLI_EXIT_OK;
    return cli_fail(CLI_EXIT_FAILED, "standard output: %s", strerror(errno));
}
