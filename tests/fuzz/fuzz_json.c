/*
 * fuzz_json: any bytes as a line of a batch. What is refused says why; what is accepted is a job
 * within its bounds, and its answer is one line of JSON that is known again.
 */
#include "client/cli/batch_line.h"
#include "common/check.h"
#include "common/limits.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char id[] = "0190abcdef0123456789abcdef012345";

static void check_written(const struct buf *out)
{
    char again[CLOISTER_ID_BYTES];
    bool failed;
    CHECK(!out->failed && out->size > 0 && out->data[out->size - 1] == '\n');
    CHECK(!memchr(out->data, '\n', out->size - 1));
    CHECK(batch_line_read(buf_str(out), out->size, again, &failed) && strcmp(again, id) == 0);
}

static void check_job(const struct cloister_job *job)
{
    const struct cloister_sampling *s = &job->sampling;
    CHECK(job->model && job->model[0] && strlen(job->model) <= LIMIT_NAME_BYTES);
    CHECK((job->n_messages > 0) + (job->text.size > 0) + (job->n_prompt_ids > 0) == 1);
    CHECK(job->n_messages <= LIMIT_CHAT_MESSAGES && job->n_stops <= LIMIT_STOP_STRINGS);
    CHECK(job->max_tokens >= 1 && job->max_tokens <= LIMIT_MAX_TOKENS && job->priority <= 9);
    CHECK(isfinite(s->temperature) && s->top_p >= 0 && s->top_p <= 1 && s->repetition_penalty > 0);
    size_t bytes = 0;
    for (size_t i = 0; i < job->n_messages; i++) {
        const struct cloister_bytes *content = &job->messages[i].content;
        for (size_t j = 0; j < content->size; j++)
            bytes += ((const uint8_t *)content->data)[j] != 0;
    }
    CHECK(bytes <= BATCH_LINE_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cloister_job defaults = CLOISTER_JOB_INIT;
    struct batch_line line;
    struct errbuf eb = {0};
    struct buf out;
    char unused[CLOISTER_ID_BYTES];
    bool failed;
    buf_init(&out);
    enum err err = batch_line_parse((const char *)data, size, &defaults, &line, &eb);
    if (err != ERR_OK) {
        CHECK(eb.text[0]);
        batch_line_write_invalid(id, line.custom_id, eb.text, &out);
    } else {
        check_job(&line.job);
        const struct batch_choice choice = {.text = {data, size}, .finish = CLOISTER_FINISH_STOP};
        struct batch_answer answer = {.id = id,
                                      .custom_id = line.custom_id,
                                      .model = line.job.model,
                                      .chat = line.chat,
                                      .choices = &choice,
                                      .n_choices = 1,
                                      .state = CLOISTER_STATE_DONE,
                                      .error_text = ""};
        batch_line_write(&answer, &out);
    }
    check_written(&out);
    batch_line_read((const char *)data, size, unused, &failed);
    batch_line_fini(&line);
    buf_fini(&out);
    return 0;
}
