/* cloister explain: why a job is where it is, and for which byte it waits. */
#include "client/cli/cli.h"
#include "client/cli/output.h"
#include "client/cli/table.h"
#include "client/cli/text.h"

#include "common/utf8.h"

#include <string.h>

static json_t *explain_document(const char *id, const struct cloister_explanation *e)
{
    json_t *list = json_array();
    for (size_t i = 0; i < e->n_candidates; i++) {
        const struct cloister_candidate *c = &e->candidates[i];
        json_array_append_new(
            list, json_pack("{s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", //
                            "worker", output_string(c->worker),                        //
                            "chosen", c->chosen,                                       //
                            "predicate", output_string(c->predicate),                  //
                            "detail", output_string(c->detail),                        //
                            "need_bytes", output_count(c->need_bytes),                 //
                            "free_bytes", output_count(c->free_bytes),                 //
                            "unclaimed_bytes", output_count(c->unclaimed_bytes),       //
                            "queued_tokens", output_count(c->queued_tokens),           //
                            "tokens_per_s", output_count(c->tokens_per_s),             //
                            "load_ms", output_count(c->load_ms),                       //
                            "cost_ms", output_count(c->cost_ms)));
    }
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o}",         //
                     "id", id,                                      //
                     "state", cloister_state_name(e->state),        //
                     "summary", output_string(e->summary),          //
                     "queued_ahead", output_count(e->queued_ahead), //
                     "decided", output_time(e->decided_wall_ns),    //
                     "candidates", list,                            //
                     "gang", e->gang[0] != '\0' ? output_string(e->gang) : json_null());
}

static void explain_table(const struct cloister_explanation *e, struct buf *out)
{
    static const char *const heads[] = {"WORKER",     "VERDICT", ">NEEDS",    ">FREE",
                                        ">UNCLAIMED", ">QUEUED", ">TOKENS/S", ">LOAD",
                                        ">COST",      "WHY",     NULL};
    struct table t;
    table_init(&t, heads);
    for (size_t i = 0; i < e->n_candidates; i++) {
        const struct cloister_candidate *c = &e->candidates[i];
        table_text(&t, c->worker);
        if (c->chosen)
            table_text(&t, "chosen");
        else if (c->predicate[0])
            table_printf(&t, "no: %s", c->predicate);
        else
            table_text(&t, "possible");
        table_size(&t, c->need_bytes);
        table_size(&t, c->free_bytes);
        table_size(&t, c->unclaimed_bytes);
        table_count(&t, c->queued_tokens);
        table_count(&t, c->tokens_per_s);
        table_duration(&t, c->load_ms);
        table_duration(&t, c->cost_ms);
        table_text(&t, c->detail);
    }
    table_print(&t, text_terminal_columns(0), "no worker was looked at", out);
    table_fini(&t);
}

int command_explain(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)values;
    (void)n_operands;
    char id[CLOISTER_ID_BYTES], short_id[CLOISTER_SHORT_ID_BYTES];
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_explanation *e;
    int code = cli_connect(cli);
    if (code == CLI_EXIT_OK)
        code = cli_find_job(cli, operands[0], id);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_explain(cli->cluster, id, &result, &e, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        code = output_print(explain_document(id, e), true);
    } else {
        struct buf text;
        buf_init(&text);
        cloister_id_short(id, short_id);
        buf_printf(&text, "job %s is %s", short_id, cloister_state_name(e->state));
        if (e->state == CLOISTER_STATE_QUEUED)
            buf_printf(&text, ", behind %u others", e->queued_ahead);
        buf_append_str(&text, "\n");
        utf8_append_safe(&text, e->summary, strlen(e->summary), false);
        if (e->gang[0] != '\0') {
            buf_append_str(&text, "\nits gang: ");
            utf8_append_safe(&text, e->gang, strlen(e->gang), false);
        }
        buf_append_str(&text, "\n\n");
        explain_table(e, &text);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}
