/*
 * batch_line.h - one line of a batch, in OpenAI's form, into a job; and a finished job into one
 * line of output.
 *
 * In:  {"custom_id": "...", "method": "POST", "url": "/v1/chat/completions", "body": {...}} or
 *      "/v1/completions". Fields that cannot change the answer here are passed over (user,
 *      metadata, store, service_tier); those that would and that the cluster does not do
 *      (stream other than false, tools, ...) are errors, as is any field nobody knows.
 * Out: {"id", "custom_id", "response": {"status_code", "request_id", "body"}, "error"}.
 *
 * Source: OpenAI's Batch API reference, chat.completion and text_completion objects.
 *
 * Ownership: a parsed line owns all that its job points to. Thread: any.
 */
#ifndef CLOISTER_CLI_BATCH_LINE_H
#define CLOISTER_CLI_BATCH_LINE_H

#include "client/cloister.h"
#include "common/buf.h"
#include "common/err.h"

#include <jansson.h>
#include <stdbool.h>

#define BATCH_LINE_BYTES      (16u << 20)
#define BATCH_CUSTOM_ID_BYTES 512u

struct batch_line {
    json_t *root;
    const char *custom_id; /* NULL where the line has none that can be used */
    bool chat;
    bool has_seed;
    struct cloister_job job;
    struct cloister_message *messages;
    struct cloister_bytes *stops;
    int32_t *prompt_ids;
    int32_t *stop_tokens;
    struct cloister_logit_bias *biases;
    uint32_t n_choices; /* answers wanted */
    struct buf parts;   /* contents that came in several text parts, joined */
};

/* `defaults` is what the body does not say, its prompt and stops aside; defaults->model may be
 * NULL. On an error custom_id is still set where it could be read. batch_line_fini in either case.
 */
enum err batch_line_parse(const char *text, size_t size, const struct cloister_job *defaults,
                          struct batch_line *ret_line, struct errbuf *eb);
void batch_line_fini(struct batch_line *line);

struct batch_choice {
    struct cloister_bytes text;
    enum cloister_finish finish;
    json_t *logprobs; /* a list of output_logprob, not owned; NULL: none were asked for */
};

struct batch_answer {
    const char *id; /* the job's; of several, the first one's */
    const char *custom_id, *model;
    bool chat;
    const struct batch_choice *choices; /* one for each job */
    size_t n_choices;
    enum cloister_state state;
    enum cloister_error error; /* of the job, or of handing it over */
    const char *error_text;
    struct cloister_usage usage; /* of all jobs together: each is metered */
    int64_t created;             /* seconds since 1970 */
};

/* Appends the line with its line feed. An answer that is not there becomes a response with the
 * status code that OpenAI's API would give. */
void batch_line_write(const struct batch_answer *answer, struct buf *out);
/* The same for a line that never became a job: "response" is null, "error" says why. */
void batch_line_write_invalid(const char *id, const char *custom_id, const char *message,
                              struct buf *out);

/* The job id in a line of output, and whether it holds an error instead of an answer; false where
 * the line is not one of ours. */
bool batch_line_read(const char *text, size_t size, char ret_id[CLOISTER_ID_BYTES],
                     bool *ret_failed);

#endif
