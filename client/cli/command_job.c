/* cloister job: all there is to know about one; cloister cancel: its end. */
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "common/buf.h"
#include "common/clock.h"
#include "common/units.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

static const struct flag job_own_flags[] = {{.name = "prompt",
                                             .letter = 'p',
                                             .type = FLAG_SWITCH,
                                             .offset = offsetof(struct job_values, prompt),
                                             .help = "Shows the prompt too."},
                                            {0}};
const struct flag_set job_sets[] = {{.flags = job_own_flags}, {0}};

static const struct flag cancel_flags[] = {{.name = "reason",
                                            .type = FLAG_TEXT,
                                            .argument = "TEXT",
                                            .offset = offsetof(struct cancel_values, reason),
                                            .help = "Recorded with the job."},
                                           {0}};
const struct flag_set cancel_sets[] = {{.flags = cancel_flags}, {0}};

static void job_line(struct buf *out, const char *name, const char *text)
{
    if (!text[0])
        return;
    buf_printf(out, "%-14s", name);
    utf8_append_safe(out, text, strlen(text), false);
    buf_append_byte(out, '\n');
}

static void job_time(struct buf *out, const char *name, uint64_t wall_ns)
{
    char text[64];
    time_t seconds = (time_t)(wall_ns / 1000000000u);
    struct tm tm;
    if (wall_ns == 0 || !localtime_r(&seconds, &tm))
        return;
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S %Z", &tm);
    job_line(out, name, text);
}

static void job_usage(struct buf *out, const struct cloister_usage *u)
{
    char queue[UNITS_TEXT_BYTES], prefill[UNITS_TEXT_BYTES], decode[UNITS_TEXT_BYTES];
    units_duration_format(u->queue_us / 1000, queue);
    units_duration_format(u->prefill_us / 1000, prefill);
    units_duration_format(u->decode_us / 1000, decode);
    buf_printf(
        out,
        "%-14s%" PRIu32 " prompt (%" PRIu32 " cached, %" PRIu32 " computed), %" PRIu32 " answer",
        "tokens", u->prompt_tokens, u->prompt_cached, u->prompt_computed, u->completion_tokens);
    if (u->resumed_tokens > 0)
        buf_printf(out, ", %" PRIu32 " read again after a worker was lost", u->resumed_tokens);
    buf_printf(out, "\n%-14s%s in queue, %s prompt, %s answer\n", "time", queue, prefill, decode);
}

static void job_sampling(struct buf *out, const struct cloister_job *job)
{
    const struct cloister_sampling *s = &job->sampling;
    buf_printf(out, "%-14stemperature %g", "sampling", (double)s->temperature);
    if (s->temperature > 0)
        buf_printf(out, ", top-p %g, top-k %" PRIu32 ", min-p %g, seed %" PRIu64, (double)s->top_p,
                   s->top_k, (double)s->min_p, s->seed);
    if (s->repetition_penalty != 1)
        buf_printf(out, ", repetition penalty %g", (double)s->repetition_penalty);
    if (s->presence_penalty != 0 || s->frequency_penalty != 0)
        buf_printf(out, ", presence penalty %g, frequency penalty %g", (double)s->presence_penalty,
                   (double)s->frequency_penalty);
    buf_printf(out, ", at most %" PRIu32 " tokens\n", job->max_tokens);
}

static void job_prompt(struct buf *out, const struct cloister_job *job)
{
    for (size_t i = 0; i < job->n_messages; i++) {
        buf_append_byte(out, '\n');
        utf8_append_safe(out, job->messages[i].role, strlen(job->messages[i].role), false);
        buf_append_str(out, ":\n");
        utf8_append_safe(out, job->messages[i].content.data, job->messages[i].content.size, true);
        buf_append_byte(out, '\n');
    }
    if (job->text.size > 0) {
        buf_append_byte(out, '\n');
        utf8_append_safe(out, job->text.data, job->text.size, true);
        buf_append_byte(out, '\n');
    }
    if (job->n_prompt_ids > 0)
        buf_printf(out, "\n(the prompt is %zu token ids)\n", job->n_prompt_ids);
}

static void job_describe(struct buf *out, const struct cloister_job_info *i,
                         const struct cloister_job *job, bool prompt)
{
    char text[160], short_id[CLOISTER_SHORT_ID_BYTES];
    cloister_id_short(i->id, short_id);
    job_line(out, "job", short_id);
    job_line(out, "whole id", i->id);
    job_line(out, "state", cloister_state_name(i->state));
    if (i->error != CLOISTER_OK)
        job_line(out, "error", i->error_text);
    if (i->finish != CLOISTER_FINISH_NONE)
        job_line(out, "finish", cloister_finish_name(i->finish));
    job_line(out, "model", i->model);
    job_line(out, "tenant", i->tenant);
    snprintf(text, sizeof text, "%s, priority %" PRIu32, cloister_class_name(i->job_class),
             i->priority);
    job_line(out, "class", text);
    job_line(out, "project", i->project);
    job_line(out, "cost center", i->cost_center);
    if (i->state == CLOISTER_STATE_QUEUED)
        buf_printf(out, "%-14s%" PRIu32 " jobs ahead of it\n", "queue", i->queued_ahead);
    job_line(out, "worker", i->worker);
    if (i->attempts > 0)
        buf_printf(out, "%-14s%" PRIu32 "\n", "attempts", i->attempts);
    job_time(out, "submitted", i->submitted_wall_ns);
    job_time(out, "started", i->started_wall_ns);
    job_time(out, "ended", i->ended_wall_ns);
    job_usage(out, &i->usage);
    if (i->reserved_tokens > 0)
        buf_printf(out, "%-14s%" PRIu64 " tokens\n", "reserved", i->reserved_tokens);
    job_sampling(out, job);
    if (i->reserve_record > 0)
        buf_printf(out, "%-14sreserved in record %" PRIu64, "ledger", i->reserve_record - 1);
    if (i->settle_record > 0)
        buf_printf(out, ", settled in record %" PRIu64, i->settle_record - 1);
    if (i->reserve_record > 0)
        buf_append_byte(out, '\n');
    if (prompt)
        job_prompt(out, job);
}

int command_job(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)n_operands;
    const struct job_values *v = values;
    char id[CLOISTER_ID_BYTES];
    struct cloister_problem problem;
    struct cloister_result *result;
    const struct cloister_job_info *info;
    const struct cloister_job *job;
    int code = cli_connect(cli);
    if (code == CLI_EXIT_OK)
        code = cli_find_job(cli, operands[0], id);
    if (code != CLI_EXIT_OK)
        return code;
    if (cloister_get_job(cli->cluster, id, &result, &info, &job, &problem) != CLOISTER_OK)
        return cli_fail_problem(&problem);
    if (cli->globals.json) {
        json_t *document = output_job_info(info);
        if (document && json_object_update_new(document, output_job(job)) != 0) {
            json_decref(document);
            document = NULL;
        }
        code = output_print(document, true);
    } else {
        struct buf text;
        buf_init(&text);
        job_describe(&text, info, job, v->prompt);
        code = output_print_text(&text);
    }
    cloister_result_free(result);
    return code;
}

int command_cancel(struct cli *cli, void *values, char **operands, int n_operands)
{
    const struct cancel_values *v = values;
    json_t *list = json_array();
    int worst = cli_connect(cli);
    for (int i = 0; i < n_operands && cli->cluster; i++) {
        char id[CLOISTER_ID_BYTES];
        struct cloister_problem problem;
        enum cloister_state state;
        char short_id[CLOISTER_SHORT_ID_BYTES];
        int code = cli_find_job(cli, operands[i], id);
        if (code == CLI_EXIT_OK)
            cloister_id_short(id, short_id);
        if (code == CLI_EXIT_OK &&
            cloister_cancel(cli->cluster, id, v->reason, &state, &problem) != CLOISTER_OK)
            code = cli_fail_problem(&problem);
        if (code != CLI_EXIT_OK) {
            worst = code;
            continue;
        }
        if (cli->globals.json)
            json_array_append_new(
                list, json_pack("{s:s, s:s}", "id", id, "state", cloister_state_name(state)));
        else
            printf("%s %s\n", short_id,
                   state == CLOISTER_STATE_CANCELLED              ? "cancelled"
                   : cli_exit_for_state(state) != CLI_EXIT_FAILED ? "was over already"
                                                                  : "is being cancelled");
    }
    if (cli->globals.json && cli->cluster) {
        int code = output_print(json_pack("{s:O}", "jobs", list), true);
        worst = worst == CLI_EXIT_OK ? code : worst;
    }
    json_decref(list);
    return worst == CLI_EXIT_OK ? cli_finish_output() : worst;
}
