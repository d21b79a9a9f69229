#include "client/cli/show.h"

#include "client/cli/output.h"
#include "common/clock.h"
#include "common/units.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

void show_init(struct show *show, struct cli *cli, const char *id)
{
    memset(show, 0, sizeof *show);
    show->cli = cli;
    snprintf(show->id, sizeof show->id, "%s", id);
    text_sink_init(&show->sink, stdout, cli->stdout_is_terminal);
    buf_init(&show->text);
    buf_init(&show->ids);
    show->logprobs = json_array();
    show->started_ms = clock_mono_ms();
}

void show_fini(struct show *show)
{
    buf_fini(&show->text);
    buf_fini(&show->ids);
    json_decref(show->logprobs);
}

static int show_on_event(void *arg, const struct cloister_event *event)
{
    struct show *show = arg;
    if (event->n_ids > 0 && show->first_ms == 0)
        show->first_ms = clock_mono_ms();
    if (show->cli->globals.json) {
        buf_append(&show->text, event->text.data, event->text.size);
        buf_append(&show->ids, event->ids, event->n_ids * sizeof *event->ids);
        output_logprobs_add(show->logprobs, event);
        show->output_failed = show->text.failed || show->ids.failed;
    } else if (event->text.size > 0) {
        show->output_failed = !text_sink_write(&show->sink, event->text.data, event->text.size);
    }
    show->last = *event;
    /* They end with the call. */
    show->last.ids = NULL;
    show->last.logprobs = NULL;
    show->last.text = (struct cloister_bytes){0};
    show->last.error_text = show->error_text;
    snprintf(show->error_text, sizeof show->error_text, "%s", event->error_text);
    show->ended = event->end;
    return show->output_failed;
}

static json_t *show_document(const struct show *show, bool has_seed, uint64_t seed)
{
    json_t *ids = json_array();
    const int32_t *values = (const void *)show->ids.data;
    for (size_t i = 0; i < show->ids.size / sizeof *values; i++)
        json_array_append_new(ids, json_integer(values[i]));
    json_t *error = json_null();
    if (show->last.error != CLOISTER_OK)
        error = json_pack("{s:s, s:o}", "code", cloister_error_name(show->last.error), "text",
                          output_string(show->error_text));
    json_t *logprobs = json_array_size(show->logprobs) > 0
                           ? json_pack("{s:O}", "content", show->logprobs)
                           : json_null();
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:s, s:o, s:o, s:o}",            //
                     "id", show->id,                                             //
                     "state", cloister_state_name(show->last.state),             //
                     "text", output_text(buf_str(&show->text), show->text.size), //
                     "ids", ids, "logprobs", logprobs,                           //
                     "finish", cloister_finish_name(show->last.finish),          //
                     "usage", output_usage(&show->last.usage),                   //
                     "seed", has_seed ? output_count(seed) : json_null(),        //
                     "error", error);
}

/* "42 prompt tokens (32 cached), 97 answer tokens; first after 300 ms, 101.0 tokens/s; finish:
 * stop; seed 7; job ..." */
static void show_usage_line(const struct show *show, bool has_seed, uint64_t seed)
{
    const struct cloister_usage *u = &show->last.usage;
    uint64_t now = clock_mono_ms();
    char first[UNITS_TEXT_BYTES], seed_text[48] = "";
    units_duration_format(show->first_ms ? show->first_ms - show->started_ms : 0, first);
    uint64_t decode_ms = show->first_ms && now > show->first_ms ? now - show->first_ms : 1;
    if (has_seed)
        snprintf(seed_text, sizeof seed_text, "; seed %" PRIu64, seed);
    fprintf(stderr,
            "%" PRIu32 " prompt tokens (%" PRIu32 " cached), %" PRIu32 " answer tokens; first "
            "after %s, %.1f tokens/s; finish: %s%s; job %s\n",
            u->prompt_tokens, u->prompt_cached, u->completion_tokens, first,
            (double)u->completion_tokens * 1000 / (double)decode_ms,
            cloister_finish_name(show->last.finish), seed_text, show->id);
}

int show_run(struct show *show, bool has_seed, uint64_t seed)
{
    struct cloister_problem problem;
    enum cloister_error err =
        cloister_watch(show->cli->cluster, show->id, show->from, show_on_event, show, &problem);
    bool json = show->cli->globals.json;
    if (show->output_failed)
        return cli_fail(CLI_EXIT_FAILED, "standard output: %s; the job goes on: cloister watch %s",
                        json ? "no memory" : strerror(errno), show->id);
    if (!json && !text_sink_end(&show->sink))
        return cli_fail(CLI_EXIT_FAILED, "standard output: %s", strerror(errno));
    if (err != CLOISTER_OK) {
        int code = cli_exit_for(err);
        if (err == CLOISTER_ERROR_CANCELLED || err == CLOISTER_ERROR_UNAVAILABLE)
            return cli_fail(code,
                            "%s; the job is with the coordinator, look again with: cloister "
                            "watch %s",
                            problem.text, show->id);
        return cli_fail_problem(&problem);
    }
    int code = cli_exit_for_state(show->last.state);
    if (json) {
        int printed = output_print(show_document(show, has_seed, seed), false);
        if (printed != CLI_EXIT_OK)
            return printed;
    }
    if (code == CLI_EXIT_JOB_FAILED)
        cli_fail(code, "job %s %s: %s", show->id, cloister_state_name(show->last.state),
                 show->error_text[0] ? show->error_text : "the coordinator gave no reason");
    else if (code == CLI_EXIT_CANCELLED)
        cli_fail(code, "job %s was cancelled after %" PRIu32 " tokens", show->id,
                 show->last.usage.completion_tokens);
    if (show->cli->globals.verbose)
        show_usage_line(show, has_seed, seed);
    return code;
}
