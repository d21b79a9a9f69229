/* cloister jobs: a list, newest first. */
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

#include "common/clock.h"

#include <string.h>

#define JOBS(field)     offsetof(struct jobs_values, field)
#define JOBS_PAGE_ROWS  500u
#define JOBS_LIMIT_MOST 1000000u

static const struct flag jobs_flags[] = {
    {.name = "state",
     .type = FLAG_TEXT,
     .argument = "STATE,...",
     .offset = JOBS(state),
     .help = "Only jobs in these states: queued, leased, running, done, failed, cancelled, "
             "rejected, expired; or \"active\" for the first three."},
    {.name = "model",
     .letter = 'm',
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = JOBS(model),
     .help = "Only jobs for this model."},
    {.name = "tenant",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = JOBS(tenant),
     .help = "Only this tenant's jobs, among those that may be seen."},
    {.name = "prefix",
     .type = FLAG_TEXT,
     .argument = "HEX",
     .offset = JOBS(prefix),
     .help = "Only jobs whose short id (the column JOB) begins with these digits."},
    {.name = "limit",
     .letter = 'n',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = JOBS(limit),
     .min = 1,
     .max = JOBS_LIMIT_MOST,
     .help = "At most N jobs (20)."},
    {0}};

const struct flag_set jobs_sets[] = {{.flags = jobs_flags}, {0}};

void jobs_defaults(void *values)
{
    ((struct jobs_values *)values)->limit = 20;
}

/* "queued,running" into the query's bits. */
static int jobs_states(const char *text, uint32_t *ret_states)
{
    char copy[256];
    if (strlen(text) >= sizeof copy)
        return cli_fail(CLI_EXIT_USAGE, "--state: too long");
    strcpy(copy, text);
    char *rest = copy, *name;
    uint32_t states = 0;
    while ((name = strsep(&rest, ","))) {
        enum cloister_state state;
        if (strcmp(name, "active") == 0)
            states |= 1u << CLOISTER_STATE_QUEUED | 1u << CLOISTER_STATE_LEASED |
                      1u << CLOISTER_STATE_RUNNING;
        else if (cloister_state_parse(name, &state))
            states |= 1u << state;
        else
            return cli_fail(CLI_EXIT_USAGE,
                            "--state: \"%s\" is none; there are queued, leased, running, done, "
                            "failed, cancelled, rejected, expired and active",
                            name);
    }
    *ret_states = states;
    return CLI_EXIT_OK;
}

static void jobs_row(struct table *t, const struct cloister_job_info *j)
{
    uint64_t end = j->ended_wall_ns ? j->ended_wall_ns : clock_wall_ns();
    uint64_t took_ns = end > j->submitted_wall_ns ? end - j->submitted_wall_ns : 0;
    table_job(t, j->id);
    table_text(t, cloister_state_name(j->state));
    table_text(t, j->model);
    table_time(t, j->submitted_wall_ns);
    table_duration(t, took_ns / 1000000);
    table_count(t, j->usage.prompt_tokens);
    table_count(t, j->usage.completion_tokens);
    if (j->state == CLOISTER_STATE_QUEUED)
        table_printf(t, "%u ahead", j->queued_ahead);
    else if (j->error != CLOISTER_OK)
        table_text(t, j->error_text);
    else
        table_text(t, j->worker);
}

int command_jobs(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)operands;
    (void)n_operands;
    const struct jobs_values *v = values;
    struct cloister_jobs_query query = CLOISTER_JOBS_QUERY_INIT;
    query.model = v->model;
    query.tenant = v->tenant;
    query.short_prefix = v->prefix;
    int code = v->state ? jobs_states(v->state, &query.states) : CLI_EXIT_OK;
    if (code == CLI_EXIT_OK)
        code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    static const char *const heads[] = {"JOB",     "STATE",   "MODEL", "SUBMITTED", ">TOOK",
                                        ">PROMPT", ">ANSWER", "WHERE", NULL};
    struct table table;
    table_init(&table, heads);
    json_t *list = json_array();
    char after[CLOISTER_ID_BYTES];
    uint64_t left = v->limit;
    bool more = true;
    while (left > 0 && more) {
        struct cloister_problem problem;
        struct cloister_result *result;
        const struct cloister_job_info *jobs;
        size_t n;
        query.limit = left < JOBS_PAGE_ROWS ? (uint32_t)left : JOBS_PAGE_ROWS;
        if (cloister_list_jobs(cli->cluster, &query, &result, &jobs, &n, &more, &problem) !=
            CLOISTER_OK) {
            code = cli_fail_problem(&problem);
            goto out;
        }
        for (size_t i = 0; i < n; i++) {
            if (cli->globals.json)
                json_array_append_new(list, output_job_info(&jobs[i]));
            else
                jobs_row(&table, &jobs[i]);
            memcpy(after, jobs[i].id, sizeof after);
        }
        query.after = after;
        left -= n < left ? n : left;
        more = more && n > 0;
        cloister_result_free(result);
    }
    if (cli->globals.json) {
        code = output_print(json_pack("{s:O, s:b}", "jobs", list, "more", more), true);
    } else {
        struct buf text;
        buf_init(&text);
        table_print(&table, text_terminal_columns(0), "no jobs", &text);
        code = output_print_text(&text);
        if (code == CLI_EXIT_OK && more && cli->stdout_is_terminal)
            fprintf(stderr, "there are more; --limit shows them\n");
    }
out:
    json_decref(list);
    table_fini(&table);
    return code;
}
