/* cloister batch: a file of jobs, so many at a time, each line of output once. */
#include "client/cli/batch_line.h"
#include "client/cli/batch_plan.h"
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "client/cli/progress.h"
#include "client/cli/interrupt.h"
#include "client/cli/show.h"
#include "client/cli/text.h"

#include "common/clock.h"
#include "common/crypto.h"
#include "common/id.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BATCH(field)           offsetof(struct batch_values, field)
#define BATCH_CONCURRENCY_MOST 512u
#define BATCH_TICK_MS          200u
#define BATCH_SYNC_MS          5000u
#define BATCH_BUSY_MS          1000u

static const struct flag batch_flags[] = {
    {.name = "output",
     .letter = 'o',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = BATCH(output),
     .help = "Where the answers go, a line each; - is standard output, from which no "
             "batch can go on. Required."},
    {.name = "concurrency",
     .letter = 'j',
     .type = FLAG_UINT,
     .argument = "N",
     .offset = BATCH(concurrency),
     .min = 1,
     .max = BATCH_CONCURRENCY_MOST,
     .help = "Lines under way at once (32)."},
    {.name = "restart",
     .type = FLAG_SWITCH,
     .offset = BATCH(restart),
     .help = "Empties the output and begins anew."},
    {.name = "no-progress",
     .type = FLAG_SWITCH,
     .offset = BATCH(no_progress),
     .help = "No progress bar, even on a terminal."},
    {0}};

const struct flag_set batch_sets[] = {
    {.flags = batch_flags},
    {.flags = job_flags_table, .offset = offsetof(struct batch_values, job)},
    {.flags = sampling_flags_table, .offset = offsetof(struct batch_values, job.sampling)},
    {0}};

void batch_defaults(void *values)
{
    struct batch_values *v = values;
    job_flags_defaults(&v->job, "batch");
    v->concurrency = 32;
}

struct batch {
    struct cli *cli;
    struct batch_plan plan;
    struct cloister_job defaults;
    bool has_seed;
    struct interrupt *interrupt;

    pthread_mutex_t mutex; /* what follows, and the plan's output and states */
    pthread_cond_t ended;  /* a thread */
    size_t next;           /* line to look at */
    size_t n_threads, running, done, failed;
    uint64_t tokens;
    bool stop;
    int code; /* why it stopped */
    char reason[CLOISTER_PROBLEM_BYTES];
};

static void batch_stop(struct batch *b, int code, const char *reason)
{
    pthread_mutex_lock(&b->mutex);
    if (!b->stop) {
        b->stop = true;
        b->code = code;
        snprintf(b->reason, sizeof b->reason, "%s", reason);
    }
    pthread_mutex_unlock(&b->mutex);
}

/* One line of output; the line counts as done only once it is written. */
static void batch_write(struct batch *b, struct batch_plan_line *line, struct buf *text,
                        bool failed, uint32_t tokens)
{
    struct errbuf eb = {0};
    enum err err = text->failed ? err_set(&eb, ERR_NO_MEMORY, "no memory") : ERR_OK;
    pthread_mutex_lock(&b->mutex);
    if (err == ERR_OK)
        err = batch_plan_append(&b->plan, text->data, text->size, &eb);
    if (err == ERR_OK) {
        line->state = BATCH_LINE_DONE;
        b->done++;
        b->failed += failed;
        b->tokens += tokens;
    }
    pthread_mutex_unlock(&b->mutex);
    if (err != ERR_OK)
        batch_stop(b, CLI_EXIT_FAILED, eb.text);
}

/* One answer of a line on its way in. */
struct batch_collect {
    struct buf text;
    json_t *logprobs; /* NULL: none are wanted */
    enum cloister_state state;
    enum cloister_finish finish;
    enum cloister_error error;
    struct cloister_usage usage;
    char error_text[CLOISTER_PROBLEM_BYTES];
};

static int batch_on_event(void *arg, const struct cloister_event *event)
{
    struct batch_collect *c = arg;
    buf_append(&c->text, event->text.data, event->text.size);
    if (c->logprobs)
        output_logprobs_add(c->logprobs, event);
    c->state = event->state;
    c->finish = event->finish;
    c->error = event->error;
    c->usage = event->usage;
    snprintf(c->error_text, sizeof c->error_text, "%s", event->error_text);
    return c->text.failed;
}

/* Problems that another try, or another day, may not have: the line stays undone. */
static bool batch_is_passing(enum cloister_error error)
{
    return error == CLOISTER_ERROR_UNAVAILABLE || error == CLOISTER_ERROR_TIMEOUT ||
           error == CLOISTER_ERROR_CANCELLED || error == CLOISTER_ERROR_IO ||
           error == CLOISTER_ERROR_NO_MEMORY || error == CLOISTER_ERROR_NO_SPACE ||
           error == CLOISTER_ERROR_CORRUPT || error == CLOISTER_ERROR_INTERNAL ||
           error == CLOISTER_ERROR_FORKED || error == CLOISTER_ERROR_LOST;
}

/* Hands the job over, as often as the coordinator is busy: a batch has time. */
static enum cloister_error batch_submit(struct batch *b, const char *id,
                                        const struct cloister_job *job,
                                        struct cloister_problem *problem)
{
    for (;;) {
        enum cloister_error err = cloister_submit(b->cli->cluster, id, job, NULL, problem);
        if (err != CLOISTER_ERROR_BUSY)
            return err;
        uint64_t ms =
            problem->retry_after_ms > BATCH_BUSY_MS ? problem->retry_after_ms : BATCH_BUSY_MS;
        for (uint64_t slept = 0; slept < ms; slept += BATCH_TICK_MS) {
            if (interrupt_was_hit(b->interrupt)) {
                problem->code = CLOISTER_ERROR_CANCELLED;
                return CLOISTER_ERROR_CANCELLED;
            }
            struct timespec tick = {.tv_nsec = BATCH_TICK_MS * 1000000l};
            nanosleep(&tick, NULL);
        }
    }
}

/* The job of a line's answer: the first one has the line's id, the others ids made from it, so that
 * a line that is tried again finds its jobs. */
static void batch_choice_id(const struct batch_plan_line *line, size_t index,
                            char ret_id[CLOISTER_ID_BYTES])
{
    char text[CLOISTER_ID_BYTES + 32];
    uint8_t digest[SHA256_BYTES];
    struct id id;
    batch_plan_id(line, ret_id);
    if (index == 0)
        return;
    int size = snprintf(text, sizeof text, "%s answer %zu", ret_id, index);
    sha256(text, (size_t)size, digest);
    memcpy(id.bytes, digest, sizeof id.bytes);
    id_format(&id, ret_id);
}

/* All answers are handed over before the first is waited for, so that they are computed side by
 * side. */
static enum cloister_error batch_answers(struct batch *b, const struct batch_plan_line *line,
                                         const struct batch_line *parsed,
                                         struct batch_collect *collect,
                                         struct cloister_problem *problem)
{
    struct cloister_job job = parsed->job;
    char id[CLOISTER_ID_BYTES];
    enum cloister_error err = CLOISTER_OK;
    batch_plan_id(line, id);
    /* A seed of its own for each line, the same one when the line is tried again; and of its own
     * for each answer. */
    if (job.sampling.temperature > 0 && !parsed->has_seed && !b->has_seed)
        job.sampling.seed = strtoull(id + CLOISTER_ID_BYTES - 1 - 13, NULL, 16);
    for (size_t i = 0; err == CLOISTER_OK && i < parsed->n_choices; i++) {
        batch_choice_id(line, i, id);
        err = batch_submit(b, id, &job, problem);
        job.sampling.seed++;
    }
    for (size_t i = 0; err == CLOISTER_OK && i < parsed->n_choices; i++) {
        batch_choice_id(line, i, id);
        err = cloister_watch(b->cli->cluster, id, 0, batch_on_event, &collect[i], problem);
    }
    return err;
}

/* What became of all answers: the first that is not there speaks for the line. */
static void batch_answer_fill(struct batch_answer *answer, const struct batch_collect *collect,
                              struct batch_choice *choices)
{
    for (size_t i = 0; i < answer->n_choices; i++) {
        const struct batch_collect *c = &collect[i];
        choices[i] = (struct batch_choice){.text = {buf_str(&c->text), c->text.size},
                                           .finish = c->finish,
                                           .logprobs = c->logprobs};
        answer->usage.prompt_tokens += c->usage.prompt_tokens;
        answer->usage.prompt_cached += c->usage.prompt_cached;
        answer->usage.completion_tokens += c->usage.completion_tokens;
        bool good = answer->error == CLOISTER_OK && answer->state == CLOISTER_STATE_DONE;
        if (i == 0 || good) {
            answer->state = c->state;
            answer->error = c->error;
            answer->error_text = c->error_text;
        }
    }
    answer->choices = choices;
}

static void batch_write_answer(struct batch *b, struct batch_plan_line *line,
                               const struct batch_answer *answer)
{
    struct buf text;
    buf_init(&text);
    batch_line_write(answer, &text);
    bool failed = answer->error != CLOISTER_OK || answer->state != CLOISTER_STATE_DONE;
    batch_write(b, line, &text, failed, answer->usage.completion_tokens);
    buf_fini(&text);
}

static void batch_run_job(struct batch *b, struct batch_plan_line *line,
                          const struct batch_line *parsed)
{
    char id[CLOISTER_ID_BYTES], error_text[CLOISTER_PROBLEM_BYTES];
    struct cloister_problem problem;
    size_t n = parsed->n_choices;
    struct batch_answer answer = {.id = id,
                                  .custom_id = parsed->custom_id,
                                  .model = parsed->job.model,
                                  .chat = parsed->chat,
                                  .n_choices = n,
                                  .created = (int64_t)time(NULL)};
    struct batch_collect *collect = calloc(n, sizeof *collect);
    struct batch_choice *choices = calloc(n, sizeof *choices);
    if (!collect || !choices) {
        batch_stop(b, CLI_EXIT_FAILED, "no memory for an answer");
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        collect[i].state = CLOISTER_STATE_REJECTED;
        collect[i].logprobs = parsed->job.logprobs ? json_array() : NULL;
        buf_init(&collect[i].text);
    }
    batch_plan_id(line, id);
    enum cloister_error err = batch_answers(b, line, parsed, collect, &problem);
    bool failed = false;
    for (size_t i = 0; i < n; i++)
        failed = failed || collect[i].text.failed;
    if (failed) {
        batch_stop(b, CLI_EXIT_FAILED, "no memory for an answer");
    } else if (err != CLOISTER_OK && batch_is_passing(err)) {
        batch_stop(b, cli_exit_for(err), problem.text);
    } else {
        batch_answer_fill(&answer, collect, choices);
        if (err != CLOISTER_OK) {
            answer.error = err;
            snprintf(error_text, sizeof error_text, "line %" PRIu32 ": %s", line->number,
                     problem.text);
            answer.error_text = error_text;
        }
        batch_write_answer(b, line, &answer);
    }
    for (size_t i = 0; i < n; i++) {
        buf_fini(&collect[i].text);
        json_decref(collect[i].logprobs);
    }
out:
    free(collect);
    free(choices);
}

static void batch_run_line(struct batch *b, struct batch_plan_line *line)
{
    struct errbuf eb = {0};
    struct batch_line parsed = {0};
    char *text = NULL;
    buf_init(&parsed.parts);
    enum err err = ERR_OK;
    /* Lines over the bound are not read again: what is wrong with them is known. */
    if (line->size <= BATCH_LINE_BYTES)
        err = batch_plan_read(&b->plan, line, &text, &eb);
    if (err != ERR_OK) {
        batch_stop(b, CLI_EXIT_FAILED, eb.text);
        return;
    }
    if (text)
        err = batch_line_parse(text, line->size, &b->defaults, &parsed, &eb);
    if (line->state == BATCH_LINE_INVALID) {
        char id[CLOISTER_ID_BYTES];
        struct buf out;
        buf_init(&out);
        batch_plan_id(line, id);
        batch_line_write_invalid(id, parsed.custom_id, line->problem, &out);
        batch_write(b, line, &out, true, 0);
        buf_fini(&out);
    } else if (err != ERR_OK) {
        /* It was good when the plan was made. */
        batch_stop(b, CLI_EXIT_FAILED, "the input was changed while it was read");
    } else {
        batch_run_job(b, line, &parsed);
    }
    batch_line_fini(&parsed);
    free(text);
}

static void *batch_thread(void *arg)
{
    struct batch *b = arg;
    pthread_mutex_lock(&b->mutex);
    for (;;) {
        while (b->next < b->plan.n_lines && b->plan.lines[b->next].state == BATCH_LINE_DONE)
            b->next++;
        if (b->stop || b->next == b->plan.n_lines)
            break;
        struct batch_plan_line *line = &b->plan.lines[b->next++];
        b->running++;
        pthread_mutex_unlock(&b->mutex);
        batch_run_line(b, line);
        pthread_mutex_lock(&b->mutex);
        b->running--;
    }
    b->n_threads--;
    pthread_cond_signal(&b->ended);
    pthread_mutex_unlock(&b->mutex);
    return NULL;
}

static void batch_show_progress(struct batch *b, const struct progress *progress, bool last)
{
    char text[PROGRESS_TEXT_BYTES];
    struct progress_now now = {.done = b->done,
                               .failed = b->failed,
                               .running = b->running,
                               .tokens = b->tokens,
                               .now_ms = clock_mono_ms()};
    progress_format(progress, &now, text_terminal_columns(100), text);
    fprintf(stderr, "\r\x1b[K%s%s", text, last ? "\n" : "");
}

/* Threads until all lines are done or something stops it; progress meanwhile. */
static const char *batch_output_name(const struct batch_values *v)
{
    return batch_plan_is_standard(v->output) ? "standard output" : v->output;
}

static int batch_run(struct batch *b, const struct batch_values *v)
{
    bool bar = b->cli->stderr_is_terminal && !v->no_progress;
    struct progress progress = {
        .total = b->plan.n_lines, .done_before = b->plan.n_done, .began_ms = clock_mono_ms()};
    size_t wanted = b->plan.n_lines - b->plan.n_done;
    if (wanted > v->concurrency)
        wanted = (size_t)v->concurrency;
    pthread_t *threads = calloc(wanted + 1, sizeof *threads);
    if (!threads)
        return cli_fail(CLI_EXIT_FAILED, "no memory");
    size_t started = 0;
    pthread_mutex_lock(&b->mutex);
    for (; started < wanted; started++)
        if (pthread_create(&threads[started], NULL, batch_thread, b) != 0)
            break;
    b->n_threads = started;
    if (started == 0 && wanted > 0) {
        b->stop = true;
        b->code = CLI_EXIT_FAILED;
        snprintf(b->reason, sizeof b->reason, "no thread could be started");
    }
    uint64_t synced_ms = clock_mono_ms();
    while (b->n_threads > 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += BATCH_TICK_MS * 1000000l;
        until.tv_sec += until.tv_nsec / 1000000000l;
        until.tv_nsec %= 1000000000l;
        pthread_cond_timedwait(&b->ended, &b->mutex, &until);
        if (bar)
            batch_show_progress(b, &progress, false);
        if (clock_mono_ms() - synced_ms >= BATCH_SYNC_MS) {
            synced_ms = clock_mono_ms();
            pthread_mutex_unlock(&b->mutex);
            fdatasync(b->plan.out);
            pthread_mutex_lock(&b->mutex);
        }
    }
    if (bar)
        batch_show_progress(b, &progress, true);
    pthread_mutex_unlock(&b->mutex);
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    if (fsync(b->plan.out) < 0 && errno != EINVAL)
        return cli_fail(CLI_EXIT_FAILED, "%s: %s", batch_output_name(v), strerror(errno));
    return CLI_EXIT_OK;
}

static int batch_report(struct batch *b, const struct batch_values *v)
{
    size_t left = b->plan.n_lines - b->done;
    if (b->cli->globals.json)
        output_print(json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}",            //
                               "output", output_string(v->output),          //
                               "lines", output_count(b->plan.n_lines),      //
                               "done", output_count(b->done),               //
                               "done_before", output_count(b->plan.n_done), //
                               "failed", output_count(b->failed),           //
                               "completion_tokens", output_count(b->tokens)),
                     true);
    bool to_file = !batch_plan_is_standard(v->output);
    if (b->stop)
        return cli_fail(b->code, "%s; %zu of %zu lines are left%s", b->reason, left,
                        b->plan.n_lines,
                        to_file ? ", run the same command again to go on"
                                : ", and lost; with an output file the batch could go on");
    if (!b->cli->globals.json && b->plan.n_done == b->plan.n_lines)
        fprintf(stderr, "all %zu lines of %s are done already\n", b->done, v->output);
    else if (!b->cli->globals.json)
        fprintf(stderr, "%zu lines done, %zu of them before; %" PRIu64 " answer tokens\n", b->done,
                b->plan.n_done, b->tokens);
    if (b->failed > 0)
        return cli_fail(CLI_EXIT_JOB_FAILED, "%zu lines have errors; they are in %s", b->failed,
                        batch_output_name(v));
    return CLI_EXIT_OK;
}

/* Everything that changes a job, so that a batch is not gone on with under other flags. */
static void batch_flags_text(const struct batch_values *v, const struct cloister_job *job,
                             struct buf *out)
{
    const struct job_flags *f = &v->job;
    buf_printf(out,
               "model %s, max-tokens %" PRIu64 ", temperature %.9g, top-p %.9g, top-k %" PRIu64
               ", min-p %.9g, penalties %.9g %.9g %.9g, class %s, priority %" PRIu64
               ", deadline %" PRIu64 " ms, project %s, cost-center %s",
               job->model ? job->model : "-", f->sampling.max_tokens, f->sampling.temperature,
               f->sampling.top_p, f->sampling.top_k, f->sampling.min_p,
               f->sampling.repetition_penalty, f->sampling.presence_penalty,
               f->sampling.frequency_penalty, f->job_class, f->priority, f->deadline_ms,
               job->project ? job->project : "-", job->cost_center ? job->cost_center : "-");
    if (f->has_seed)
        buf_printf(out, ", seed %" PRIu64, f->seed);
    /* Only where they are given, so that a batch begun without them is gone on with. */
    if (f->sampling.typical_p < 1)
        buf_printf(out, ", typical-p %.9g", f->sampling.typical_p);
    for (size_t i = 0; i < f->sampling.biases.count; i++)
        buf_printf(out, ", logit-bias %s", f->sampling.biases.items[i]);
    for (size_t i = 0; i < f->sampling.stop_tokens.count; i++)
        buf_printf(out, ", stop-token %s", f->sampling.stop_tokens.items[i]);
    if (f->sampling.has_logprobs)
        buf_printf(out, ", logprobs %" PRIu64, f->sampling.top_logprobs);
}

static int batch_open(struct batch *b, struct batch_values *v, const char *input)
{
    struct errbuf eb = {0};
    struct buf flags;
    buf_init(&flags);
    b->has_seed = v->job.has_seed;
    v->job.has_seed = true; /* none is to be drawn here: each line has its own */
    int code = job_flags_apply(&v->job, &b->cli->settings, &b->defaults);
    v->job.has_seed = b->has_seed;
    if (code != CLI_EXIT_OK)
        return code;
    b->defaults.model = v->job.model ? v->job.model : b->cli->settings.model;
    batch_flags_text(v, &b->defaults, &flags);
    struct batch_plan_config config = {.input = input,
                                       .output = v->output,
                                       .flags = buf_str(&flags),
                                       .defaults = &b->defaults,
                                       .restart = v->restart};
    enum err err = batch_plan_open(&b->plan, &config, &eb);
    buf_fini(&flags);
    if (err == ERR_OK)
        return CLI_EXIT_OK;
    return cli_fail(err == ERR_BUSY                               ? CLI_EXIT_BUSY
                    : err == ERR_CONFLICT || err == ERR_NOT_FOUND ? CLI_EXIT_USAGE
                                                                  : CLI_EXIT_FAILED,
                    "%s", eb.text);
}

/* Invalid lines, the first few of them, before hours are spent on the good ones. */
static void batch_tell_invalid(const struct batch *b, const struct batch_values *v)
{
    enum { TOLD_MOST = 5 };
    size_t invalid = 0;
    for (size_t i = 0; i < b->plan.n_lines; i++) {
        if (b->plan.lines[i].state != BATCH_LINE_INVALID)
            continue;
        if (++invalid <= TOLD_MOST)
            cli_fail(CLI_EXIT_USAGE, "%s", b->plan.lines[i].problem);
    }
    if (invalid > TOLD_MOST)
        cli_fail(CLI_EXIT_USAGE, "and %zu more invalid lines; all are in %s", invalid - TOLD_MOST,
                 batch_output_name(v));
}

int command_batch(struct cli *cli, void *values, char **operands, int n_operands)
{
    (void)n_operands;
    struct batch_values *v = values;
    struct batch b = {.cli = cli};
    struct interrupt interrupt;
    if (!v->output)
        return cli_fail(CLI_EXIT_USAGE, "batch: --output is missing: where the answers go");
    if (batch_plan_is_standard(v->output) && (v->restart || cli->globals.json))
        return cli_fail(CLI_EXIT_USAGE, "batch: --%s needs an output file, not standard output",
                        v->restart ? "restart" : "json");
    int code = batch_open(&b, v, operands[0]);
    if (code != CLI_EXIT_OK)
        return code;
    pthread_mutex_init(&b.mutex, NULL);
    pthread_cond_init(&b.ended, NULL);
    b.done = b.plan.n_done;
    b.failed = b.plan.n_failed;
    b.interrupt = &interrupt;
    batch_tell_invalid(&b, v);
    interrupt_start(&interrupt, cli, false);
    if (b.done < b.plan.n_lines)
        code = cli_connect(cli);
    if (code == CLI_EXIT_OK) {
        if (cli->cluster)
            interrupt_connected(&interrupt, cli->cluster);
        code = batch_run(&b, v);
    }
    if (code == CLI_EXIT_OK)
        code = batch_report(&b, v);
    interrupt_stop(&interrupt);
    pthread_cond_destroy(&b.ended);
    pthread_mutex_destroy(&b.mutex);
    batch_plan_close(&b.plan);
    return code;
}
