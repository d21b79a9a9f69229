/* cloister submit: one job, its answer as it comes. */
#include "client/cli/command_values.h"
#include "client/cli/output.h"
#include "client/cli/interrupt.h"
#include "client/cli/show.h"
#include "common/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define SUBMIT(field) offsetof(struct submit_values, field)

static const struct flag submit_flags[] = {
    {.name = "system",
     .type = FLAG_TEXT,
     .argument = "TEXT",
     .offset = SUBMIT(system),
     .help = "A system message before the prompt."},
    {.name = "file",
     .letter = 'f',
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = SUBMIT(file),
     .help = "The prompt is this file's content; - is standard input. With a prompt as well: the "
             "prompt, an empty line, the file."},
    {.name = "raw",
     .type = FLAG_SWITCH,
     .offset = SUBMIT(raw),
     .help = "The prompt is continued as it is, without the model's chat template."},
    {.name = "stop",
     .type = FLAG_TEXTS,
     .argument = "TEXT",
     .offset = SUBMIT(stops),
     .max = LIMIT_STOP_STRINGS,
     .help = "The answer ends before this text. May be repeated."},
    {.name = "answers",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = SUBMIT(answers),
     .min = 1,
     .max = LIMIT_COMPLETIONS,
     .help = "N answers (1), each a job of its own, one after the other; the seed of answer i is "
             "--seed + i, from 0. Needs a temperature above 0."},
    {.name = "detach",
     .letter = 'd',
     .type = FLAG_SWITCH,
     .offset = SUBMIT(detach),
     .help = "Prints the job's id once it is accepted, and leaves."},
    {.name = "cancel-on-disconnect",
     .type = FLAG_SWITCH,
     .offset = SUBMIT(cancel_on_disconnect),
     .help = "The job ends when nobody watches it any more. Otherwise it runs on."},
    {0}};

const struct flag_set submit_sets[] = {
    {.flags = submit_flags},
    {.flags = job_flags_table, .offset = offsetof(struct submit_values, job)},
    {.flags = sampling_flags_table, .offset = offsetof(struct submit_values, job.sampling)},
    {0}};

void submit_defaults(void *values)
{
    struct submit_values *v = values;
    job_flags_defaults(&v->job, "interactive");
    v->answers = 1;
}

/* All of a file, to the bound a prompt has. */
static int submit_read(FILE *f, const char *name, struct buf *out)
{
    char chunk[65536];
    size_t n;
    while (out->size <= LIMIT_PROMPT_BYTES && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
    if (ferror(f))
        return cli_fail(CLI_EXIT_FAILED, "%s: %s", name, strerror(errno));
    if (out->failed)
        return cli_fail(CLI_EXIT_FAILED, "%s: no memory to read it", name);
    if (out->size > LIMIT_PROMPT_BYTES)
        return cli_fail(CLI_EXIT_USAGE, "%s: larger than the %u bytes a prompt may have", name,
                        LIMIT_PROMPT_BYTES);
    return CLI_EXIT_OK;
}

static int submit_read_file(const char *path, struct buf *out)
{
    if (strcmp(path, "-") == 0)
        return submit_read(stdin, "standard input", out);
    FILE *f = fopen(path, "rbe");
    if (!f)
        return cli_fail(CLI_EXIT_USAGE, "%s: %s", path, strerror(errno));
    int code = submit_read(f, path, out);
    fclose(f);
    return code;
}

/* The prompt: an operand, standard input for "-", a file, or operand and file. */
static int submit_prompt(const struct submit_values *v, char **operands, int n_operands,
                         struct buf *out)
{
    int code = CLI_EXIT_OK;
    if (n_operands == 0 && !v->file)
        return cli_fail(CLI_EXIT_USAGE,
                        "no prompt; write it behind the flags, name a file with --file, or pipe it "
                        "in with -");
    bool from_stdin = n_operands == 1 && strcmp(operands[0], "-") == 0;
    if (from_stdin && v->file && strcmp(v->file, "-") == 0)
        return cli_fail(CLI_EXIT_USAGE, "standard input can be read once: - or --file -, not both");
    if (from_stdin)
        code = submit_read(stdin, "standard input", out);
    else if (n_operands == 1)
        buf_append_str(out, operands[0]);
    if (code == CLI_EXIT_OK && v->file) {
        if (out->size > 0)
            buf_append_str(out, "\n\n");
        code = submit_read_file(v->file, out);
    }
    if (code == CLI_EXIT_OK && out->size == 0)
        code = cli_fail(CLI_EXIT_USAGE, "the prompt is empty");
    return code;
}

/* The seed of answer i is the first one's plus i. */
static uint64_t submit_seed(const struct submit_values *v, size_t i)
{
    return v->job.seed + i;
}

static int submit_detached(struct cli *cli, const char *id, const struct cloister_receipt *receipt,
                           const struct submit_values *v, size_t i)
{
    uint64_t seed = submit_seed(v, i);
    if (cli->globals.json)
        return output_print(json_pack("{s:s, s:s, s:o, s:o}", "id", id, "state",
                                      cloister_state_name(receipt->state), "queued_ahead",
                                      output_count(receipt->queued_ahead), "seed",
                                      v->job.has_seed ? output_count(seed) : json_null()),
                            false);
    printf("%s\n", id);
    if (cli->globals.verbose && v->job.has_seed)
        fprintf(stderr, "seed %" PRIu64 "\n", seed);
    return cli_finish_output();
}

/* Answers that nobody waits for any more. What cannot be cancelled now runs to its end. */
static void submit_cancel(struct cli *cli, char (*ids)[CLOISTER_ID_BYTES], size_t n)
{
    struct cloister_problem problem;
    for (size_t i = 0; i < n; i++)
        if (cloister_cancel(cli->cluster, ids[i], "another answer of it was not wanted", NULL,
                            &problem) != CLOISTER_OK)
            cli_fail_problem(&problem);
}

/* Hands all answers over, so that they are computed side by side. */
static int submit_all(struct cli *cli, struct submit_values *v, struct interrupt *interrupt,
                      struct cloister_job *job, char (*ids)[CLOISTER_ID_BYTES])
{
    struct cloister_problem problem;
    struct cloister_receipt receipt;
    for (size_t i = 0; i < v->answers; i++) {
        cloister_id_new(ids[i]);
        job->sampling.seed = submit_seed(v, i);
        enum cloister_error err = cloister_submit(cli->cluster, ids[i], job, &receipt, &problem);
        if (err != CLOISTER_OK)
            submit_cancel(cli, ids, i);
        if (err == CLOISTER_ERROR_CANCELLED)
            return cli_fail(CLI_EXIT_CANCELLED,
                            "interrupted while the job was being handed over; if it was accepted, "
                            "`cloister cancel %s` ends it",
                            ids[i]);
        if (err != CLOISTER_OK)
            return cli_fail_problem(&problem);
        if (v->detach) {
            int code = submit_detached(cli, ids[i], &receipt, v, i);
            if (code != CLI_EXIT_OK)
                return code;
            continue;
        }
        if (i == 0)
            interrupt_name_job(interrupt, ids[i]);
        if (cli->globals.verbose && receipt.queued_ahead > 0)
            fprintf(stderr, "cloister: job %s waits behind %u others\n", ids[i],
                    receipt.queued_ahead);
    }
    return CLI_EXIT_OK;
}

static int submit_send(struct cli *cli, struct submit_values *v, struct interrupt *interrupt,
                       struct cloister_job *job)
{
    static char ids[LIMIT_COMPLETIONS][CLOISTER_ID_BYTES];
    int code = submit_all(cli, v, interrupt, job, ids), result = code;
    for (size_t i = 0; code == CLI_EXIT_OK && !v->detach && i < v->answers; i++) {
        struct show show;
        interrupt_name_job(interrupt, ids[i]);
        if (v->answers > 1 && !cli->globals.json)
            printf("%s--- answer %zu of %" PRIu64 "\n", i > 0 ? "\n" : "", i + 1, v->answers);
        show_init(&show, cli, ids[i]);
        code = show_run(&show, v->job.has_seed, submit_seed(v, i));
        show_fini(&show);
        if (code != CLI_EXIT_OK)
            result = code;
        /* One that failed says nothing about the others. */
        if (code == CLI_EXIT_JOB_FAILED)
            code = CLI_EXIT_OK;
        else if (code != CLI_EXIT_OK)
            submit_cancel(cli, ids + i + 1, v->answers - i - 1);
    }
    return result;
}

int command_submit(struct cli *cli, void *values, char **operands, int n_operands)
{
    struct submit_values *v = values;
    struct cloister_result *models = NULL;
    struct cloister_job job;
    struct cloister_message messages[2];
    struct cloister_bytes stops[FLAG_TEXTS_MOST];
    struct interrupt interrupt;
    struct buf prompt;
    buf_init(&prompt);
    if (v->raw && v->system)
        return cli_fail(CLI_EXIT_USAGE, "--raw leaves no place for a --system message");
    if (v->answers > 1 && v->job.sampling.temperature == 0)
        return cli_fail(CLI_EXIT_USAGE,
                        "--answers %" PRIu64 " would all be the same: at temperature 0 nothing is "
                        "drawn; give a --temperature",
                        v->answers);
    int code = submit_prompt(v, operands, n_operands, &prompt);
    if (code != CLI_EXIT_OK) {
        buf_fini(&prompt);
        return code;
    }
    interrupt_start(&interrupt, cli, true);
    code = cli_connect(cli);
    if (code != CLI_EXIT_OK)
        goto out;
    interrupt_connected(&interrupt, cli->cluster);
    code = job_flags_apply(&v->job, &cli->settings, &job);
    if (code == CLI_EXIT_OK)
        code = job_flags_model(cli, &v->job, &models, &job.model);
    if (code != CLI_EXIT_OK)
        goto out;
    for (size_t i = 0; i < v->stops.count; i++)
        stops[i] = (struct cloister_bytes){v->stops.items[i], strlen(v->stops.items[i])};
    job.stops = stops;
    job.n_stops = v->stops.count;
    job.cancel_on_disconnect = v->cancel_on_disconnect;
    if (v->raw) {
        job.text = (struct cloister_bytes){buf_str(&prompt), prompt.size};
    } else {
        if (v->system)
            messages[job.n_messages++] = (struct cloister_message){
                .role = "system", .content = {v->system, strlen(v->system)}};
        messages[job.n_messages++] =
            (struct cloister_message){.role = "user", .content = {buf_str(&prompt), prompt.size}};
        job.messages = messages;
    }
    code = submit_send(cli, v, &interrupt, &job);
out:
    interrupt_stop(&interrupt);
    cloister_result_free(models);
    buf_fini(&prompt);
    return code;
}
