/* cloister usage: tokens by tenant, model and day, and what budgets are left. */
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

#define USAGE(field) offsetof(struct usage_values, field)

static const struct flag usage_flags[] = {
    {.name = "from",
     .type = FLAG_DAY,
     .argument = "DAY",
     .offset = USAGE(from),
     .help = "From this day on (UTC), such as 2026-01-31."},
    {.name = "to",
     .type = FLAG_DAY,
     .argument = "DAY",
     .offset = USAGE(to),
     .help = "Up to and with this day (UTC)."},
    {.name = "model",
     .letter = 'm',
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = USAGE(model),
     .help = "Only this model."},
    {.name = "tenant",
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = USAGE(tenant),
     .help = "Only this tenant, among those that may be seen."},
    {0}};
const struct flag_set usage_sets[] = {{.flags = usage_flags}, {0}};

static void usage_day(uint32_t day, char ret_text[16])
{
    snprintf(ret_text, 16, "%04u-%02u-%02u", day / 10000 % 10000, day / 100 % 100, day % 100);
}

static json_t *usage_document(const struct cloister_usage_report *r)
{
    json_t *rows = json_array(), *balances = json_array();
    for (size_t i = 0; i < r->n_rows; i++) {
        const struct cloister_usage_row *row = &r->rows[i];
        char day[16];
        usage_day(row->day, day);
        json_array_append_new(
            rows, json_pack("{s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o}",                //
                            "tenant", output_string(row->tenant),                      //
                            "model", output_string(row->model),                        //
                            "day", day,                                                //
                            "jobs", output_count(row->jobs),                           //
                            "prompt_tokens", output_count(row->prompt_tokens),         //
                            "prompt_cached", output_count(row->prompt_cached),         //
                            "completion_tokens", output_count(row->completion_tokens), //
                            "computed_tokens", output_count(row->computed_tokens)));
    }
    for (size_t i = 0; i < r->n_balances; i++) {
        const struct cloister_balance *b = &r->balances[i];
        json_array_append_new(balances,
                              json_pack("{s:o, s:o, s:o, s:o}",                              //
                                        "tenant", output_string(b->tenant),                  //
                                        "budget_tokens", output_count(b->budget_tokens),     //
                                        "reserved_tokens", output_count(b->reserved_tokens), //
                                        "settled_tokens", output_count(b->settled_tokens)));
    }
    return json_pack("{s:o, s:o}", "rows", rows, "balances", balances);
}

static void usage_rows(const struct cloister_usage_report *r, struct buf *out)
{
    static const char *const heads[] = {"DAY",     "TENANT",  "MODEL",     ">JOBS", ">PROMPT",
                                        ">CACHED", ">ANSWER", ">COMPUTED", NULL};
    struct cloister_usage_row all = {0};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i <= r->n_rows; i++) {
        const struct cloister_usage_row *row = i < r->n_rows ? &r->rows[i] : &all;
        char day[16] = "total";
        if (i < r->n_rows) {
            usage_day(row->day, day);
            all.jobs += row->jobs;
            all.prompt_tokens += row->prompt_tokens;
            all.prompt_cached += row->prompt_cached;
            all.completion_tokens += row->completion_tokens;
            all.computed_tokens += row->computed_tokens;
        } else if (r->n_rows < 2) {
            break;
        }
        table_text(&t, day);
        table_text(&t, i < r->n_rows ? row->tenant : " ");
        table_text(&t, i < r->n_rows ? row->model : " ");
        table_count(&t, row->jobs);
        table_count(&t, row->prompt_tokens);
        table_count(&t, row->prompt_cached);
        table_count(&t, row->completion_tokens);
        table_count(&t, row->computed_tokens);
    }
    table_print(&t, text_terminal_columns(0), "nothing was used in these days", out);
    table_fini(&t);
}

static void usage_balances(const struct cloister_usage_report *r, struct buf *out)
{
    static const char *const heads[] = {"TENANT",    ">BUDGET", ">SETTLED",
                                        ">RESERVED", ">LEFT",   NULL};
    if (r->n_balances == 0)
        return;
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < r->n_balances; i++) {
        const struct cloister_balance *b = &r->balances[i];
        uint64_t taken = b->settled_tokens + b->reserved_tokens;
        table_text(&t, b->tenant);
        if (b->budget_tokens > 0)
            table_count(&t, b->budget_tokens);
        else
            table_text(&t, "no limit");
        table_count(&t, b->settled_tokens);
        table_count(&t, b->reserved_tokens);
        if (b->budget_tokens > 0)
            table_count(&t, b->budget_tokens > taken ? b->budget_tokens - taken : 0);
        else
            table_text(&t, "");
    }
    buf_append_byte(out, '\n');
    table_print(&t, text_terminal_columns(0), "", out);
    table_fini(&t);
}

int command_usage(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)operands;
    (void)n_operands;
    const struct usage_values *v = values;
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_usage_report *report;
    if (v->from && v->to && v->from > v->to)
        return cli_fail(CLI_EXIT_USAGE, "--from is after --to");
    int code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_get_usage(cli->cluster, v->tenant, v->model, v->from, v->to, &result, &report,
                           &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        code = output_print(usage_document(report), true);
    } else {
        struct buf text;
        buf_init(&text);
        usage_rows(report, &text);
        usage_balances(report, &text);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}
