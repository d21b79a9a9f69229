#include "client/cli/batch_line.h"

#include "client/cli/output.h"
#include "common/limits.h"
#include "common/units.h"
#include "common/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <stddef.h>
#include <string.h>

#define BATCH_ID_PREFIX "batch_req_"

/* ---- reading ---- */

struct batch_reader {
    struct batch_line *line;
    struct errbuf *eb;
};

static enum err batch_number(struct batch_reader *r, const char *name, const json_t *value,
                             double least, double most, double *ret_number)
{
    double number = json_number_value(value);
    if (!json_is_number(value) || !isfinite(number) || number < least || number > most)
        return err_set(r->eb, ERR_INVALID, "body.%s must be a number, %g to %g", name, least, most);
    *ret_number = number;
    return ERR_OK;
}

static enum err batch_float(struct batch_reader *r, const char *name, const json_t *value,
                            double least, double most, float *ret_number)
{
    double number = 0;
    enum err err = batch_number(r, name, value, least, most, &number);
    if (err == ERR_OK)
        *ret_number = (float)number;
    return err;
}

static enum err batch_integer(struct batch_reader *r, const char *name, const json_t *value,
                              json_int_t least, json_int_t most, json_int_t *ret_number)
{
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most)
        return err_set(r->eb, ERR_INVALID,
                       "body.%s must be a whole number, %" JSON_INTEGER_FORMAT
                       " to %" JSON_INTEGER_FORMAT,
                       name, least, most);
    *ret_number = number;
    return ERR_OK;
}

/* A message's content: text, or a list of text parts, which are joined. */
static enum err batch_content(struct batch_reader *r, size_t index, const json_t *value,
                              struct cloister_bytes *ret_bytes, bool *ret_joined)
{
    *ret_joined = false;
    if (json_is_string(value)) {
        *ret_bytes = (struct cloister_bytes){json_string_value(value), json_string_length(value)};
        return ERR_OK;
    }
    if (!json_is_array(value) || json_array_size(value) == 0)
        return err_set(r->eb, ERR_INVALID,
                       "body.messages[%zu].content must be a string or a list of text parts",
                       index);
    size_t begin = r->line->parts.size;
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *part = json_array_get(value, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *text = json_object_get(part, "text");
        if (!type || strcmp(type, "text") != 0 || !json_is_string(text))
            return err_set(r->eb, ERR_UNSUPPORTED,
                           "body.messages[%zu].content[%zu] is not a text part, and only text is "
                           "understood",
                           index, i);
        buf_append(&r->line->parts, json_string_value(text), json_string_length(text));
    }
    /* The buffer may still move: an offset until all are read, then a pointer. */
    *ret_bytes = (struct cloister_bytes){(void *)(uintptr_t)begin, r->line->parts.size - begin};
    *ret_joined = true;
    return ERR_OK;
}

static enum err batch_messages(struct batch_reader *r, const json_t *value)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value) || n == 0)
        return err_set(r->eb, ERR_INVALID,
                       "body.messages must be a list with at least one message");
    if (n > LIMIT_CHAT_MESSAGES)
        return err_set(r->eb, ERR_TOO_LARGE, "body.messages has %zu messages; it may have %u", n,
                       LIMIT_CHAT_MESSAGES);
    struct cloister_message *messages = calloc(n, sizeof *messages);
    bool *joined = calloc(n, sizeof *joined);
    r->line->messages = messages;
    enum err err = messages && joined ? ERR_OK : err_set(r->eb, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; err == ERR_OK && i < n; i++) {
        const json_t *message = json_array_get(value, i);
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *key;
        json_t *unused;
        if (!role || !role[0] || strlen(role) > LIMIT_NAME_BYTES ||
            !utf8_is_plain(role, strlen(role)))
            err = err_set(r->eb, ERR_INVALID, "body.messages[%zu].role is missing or no name", i);
        json_object_foreach((json_t *)message, key, unused)
        {
            if (err == ERR_OK && strcmp(key, "role") != 0 && strcmp(key, "content") != 0)
                err = err_set(r->eb, ERR_UNSUPPORTED, "body.messages[%zu].%.64s is not understood",
                              i, key);
        }
        messages[i].role = role;
        if (err == ERR_OK)
            err = batch_content(r, i, json_object_get(message, "content"), &messages[i].content,
                                &joined[i]);
    }
    if (err == ERR_OK && r->line->parts.failed)
        err = err_set(r->eb, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; err == ERR_OK && i < n; i++)
        if (joined[i])
            messages[i].content.data =
                buf_str(&r->line->parts) + (uintptr_t)messages[i].content.data;
    free(joined);
    r->line->job.messages = messages;
    r->line->job.n_messages = n;
    return err;
}

/* completions: a text, a list with one text, or a list of token ids. */
static enum err batch_prompt(struct batch_reader *r, const json_t *value)
{
    struct cloister_job *job = &r->line->job;
    if (json_is_array(value) && json_array_size(value) == 1 &&
        json_is_string(json_array_get(value, 0)))
        value = json_array_get(value, 0);
    if (json_is_string(value) && json_string_length(value) > 0) {
        job->text = (struct cloister_bytes){json_string_value(value), json_string_length(value)};
        return ERR_OK;
    }
    size_t n = json_array_size(value);
    if (n == 0)
        return err_set(r->eb, ERR_INVALID, "body.prompt must be a text or a list of token ids");
    if (n > LIMIT_CONTEXT_TOKENS)
        return err_set(r->eb, ERR_TOO_LARGE, "body.prompt has %zu tokens; it may have %u", n,
                       LIMIT_CONTEXT_TOKENS);
    r->line->prompt_ids = calloc(n, sizeof *r->line->prompt_ids);
    if (!r->line->prompt_ids)
        return err_set(r->eb, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return err_set(r->eb, ERR_INVALID,
                           "body.prompt[%zu] is not a token id; a line has one prompt", i);
        r->line->prompt_ids[i] = (int32_t)json_integer_value(id);
    }
    job->prompt_ids = r->line->prompt_ids;
    job->n_prompt_ids = n;
    return ERR_OK;
}

static enum err batch_stop(struct batch_reader *r, const json_t *value)
{
    bool one = json_is_string(value);
    size_t n = one ? 1 : json_array_size(value);
    if (!one && !json_is_array(value))
        return err_set(r->eb, ERR_INVALID, "body.stop must be a text or a list of texts");
    if (n > LIMIT_STOP_STRINGS)
        return err_set(r->eb, ERR_TOO_LARGE, "body.stop has %zu texts; it may have %u", n,
                       LIMIT_STOP_STRINGS);
    r->line->stops = calloc(n + 1, sizeof *r->line->stops);
    if (!r->line->stops)
        return err_set(r->eb, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *text = one ? value : json_array_get(value, i);
        size_t size = json_string_length(text);
        if (!json_is_string(text) || size == 0 || size > LIMIT_STOP_BYTES)
            return err_set(r->eb, ERR_INVALID, "body.stop[%zu] must be a text of 1 to %u bytes", i,
                           LIMIT_STOP_BYTES);
        r->line->stops[i] = (struct cloister_bytes){json_string_value(text), size};
    }
    r->line->job.stops = r->line->stops;
    r->line->job.n_stops = n;
    return ERR_OK;
}

static enum err batch_stop_tokens(struct batch_reader *r, const json_t *value)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value))
        return err_set(r->eb, ERR_INVALID, "body.stop_token_ids must be a list of token ids");
    if (n > LIMIT_STOP_TOKENS)
        return err_set(r->eb, ERR_TOO_LARGE, "body.stop_token_ids has %zu tokens; it may have %u",
                       n, LIMIT_STOP_TOKENS);
    r->line->stop_tokens = calloc(n + 1, sizeof *r->line->stop_tokens);
    if (!r->line->stop_tokens)
        return err_set(r->eb, ERR_NO_MEMORY, "no memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return err_set(r->eb, ERR_INVALID, "body.stop_token_ids[%zu] is not a token id", i);
        r->line->stop_tokens[i] = (int32_t)json_integer_value(id);
    }
    r->line->job.stop_tokens = r->line->stop_tokens;
    r->line->job.n_stop_tokens = n;
    return ERR_OK;
}

/* {"50256": -100, ...} */
static enum err batch_logit_bias(struct batch_reader *r, const json_t *value)
{
    size_t n = json_object_size(value);
    if (!json_is_object(value))
        return err_set(r->eb, ERR_INVALID, "body.logit_bias must be an object of token ids");
    if (n > LIMIT_LOGIT_BIASES)
        return err_set(r->eb, ERR_TOO_LARGE, "body.logit_bias has %zu tokens; it may have %u", n,
                       LIMIT_LOGIT_BIASES);
    r->line->biases = calloc(n + 1, sizeof *r->line->biases);
    if (!r->line->biases)
        return err_set(r->eb, ERR_NO_MEMORY, "no memory");
    const char *key;
    json_t *bias;
    n = 0;
    json_object_foreach((json_t *)value, key, bias)
    {
        uint64_t id;
        double number = json_number_value(bias);
        /* One spelling of a number, so that no token can be there twice. */
        if (!units_uint_parse(key, &id) || id > INT32_MAX || (key[0] == '0' && key[1]))
            return err_set(r->eb, ERR_INVALID, "body.logit_bias: %.64s is not a token id", key);
        if (!json_is_number(bias) || !(number >= -100 && number <= 100))
            return err_set(r->eb, ERR_INVALID,
                           "body.logit_bias of token %.64s must be a number, -100 to 100", key);
        r->line->biases[n++] =
            (struct cloister_logit_bias){.id = (int32_t)id, .bias = (float)number};
    }
    r->line->job.logit_bias = r->line->biases;
    r->line->job.n_logit_bias = n;
    return ERR_OK;
}

/* Chat: true and, beside it, top_logprobs. Completions: how many of the likeliest. */
static enum err batch_logprobs(struct batch_reader *r, const char *name, const json_t *value)
{
    struct cloister_job *job = &r->line->job;
    json_int_t number = 0;
    if (r->line->chat && strcmp(name, "logprobs") == 0) {
        if (!json_is_boolean(value))
            return err_set(r->eb, ERR_INVALID, "body.logprobs must be true or false");
        job->logprobs = json_is_true(value);
        return ERR_OK;
    }
    if (!r->line->chat && json_is_false(value))
        return ERR_OK;
    enum err err = batch_integer(r, name, value, 0, LIMIT_TOP_LOGPROBS, &number);
    job->top_logprobs = (uint32_t)number;
    job->logprobs = job->logprobs || !r->line->chat;
    return err;
}

static enum err batch_model(struct batch_reader *r, const json_t *value)
{
    const char *model = json_string_value(value);
    if (!model || !model[0] || strlen(model) > LIMIT_NAME_BYTES ||
        !utf8_is_plain(model, strlen(model)))
        return err_set(r->eb, ERR_INVALID, "body.model must be a name of 1 to %u bytes",
                       LIMIT_NAME_BYTES);
    r->line->job.model = model;
    return ERR_OK;
}

static enum err batch_max_tokens(struct batch_reader *r, const char *name, const json_t *value)
{
    json_int_t number = 0;
    enum err err = batch_integer(r, name, value, 1, LIMIT_MAX_TOKENS, &number);
    if (err == ERR_OK)
        r->line->job.max_tokens = (uint32_t)number;
    return err;
}

/* Fields of which only one value is what the cluster does anyway. */
static enum err batch_only(struct batch_reader *r, const char *name, bool is_that, const char *that)
{
    if (is_that)
        return ERR_OK;
    return err_set(r->eb, ERR_UNSUPPORTED, "body.%s is not supported, except as %s", name, that);
}

static bool batch_is_one(const json_t *value)
{
    return json_is_integer(value) && json_integer_value(value) == 1;
}

static bool batch_is_text_format(const json_t *value)
{
    const char *type = json_string_value(json_object_get(value, "type"));
    return json_object_size(value) == 1 && type && strcmp(type, "text") == 0;
}

static bool batch_is_empty(const json_t *value)
{
    return json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* Numbers that go into the job as they are; false where the field is none of them. */
static bool batch_number_field(struct batch_reader *r, const char *name, const json_t *value,
                               enum err *ret_err)
{
#define FLOAT(field) offsetof(struct cloister_job, field)
    static const struct {
        const char *name;
        double min, max;
        size_t offset;
    } floats[] = {
        {"temperature", 0, 100, FLOAT(sampling.temperature)},
        {"top_p", 0, 1, FLOAT(sampling.top_p)},
        {"min_p", 0, 1, FLOAT(sampling.min_p)},
        {"typical_p", 0, 1, FLOAT(typical_p)},
        {"repetition_penalty", 0.01, 100, FLOAT(sampling.repetition_penalty)},
        {"presence_penalty", -2, 2, FLOAT(sampling.presence_penalty)},
        {"frequency_penalty", -2, 2, FLOAT(sampling.frequency_penalty)},
    };
#undef FLOAT
    struct cloister_job *job = &r->line->job;
    json_int_t number = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        if (strcmp(name, floats[i].name) != 0)
            continue;
        float *field = (float *)(void *)((char *)job + floats[i].offset);
        *ret_err = batch_float(r, name, value, floats[i].min, floats[i].max, field);
        return true;
    }
    if (strcmp(name, "top_k") == 0) {
        *ret_err = batch_integer(r, name, value, 0, UINT32_MAX, &number);
        job->sampling.top_k = (uint32_t)number;
    } else if (strcmp(name, "seed") == 0) {
        *ret_err = batch_integer(r, name, value, INT64_MIN, INT64_MAX, &number);
        job->sampling.seed = (uint64_t)number;
        r->line->has_seed = *ret_err == ERR_OK;
    } else if (strcmp(name, "priority") == 0) {
        *ret_err = batch_integer(r, name, value, 0, 9, &number);
        job->priority = (uint32_t)number;
    } else if (strcmp(name, "n") == 0) {
        *ret_err = batch_integer(r, name, value, 1, LIMIT_COMPLETIONS, &number);
        r->line->n_choices = (uint32_t)number;
    } else {
        return false;
    }
    return true;
}

/* What OpenAI's API has and this one does not: refused unless it asks for nothing. */
static enum err batch_foreign_field(struct batch_reader *r, const char *name, const json_t *value)
{
    if (strcmp(name, "stream") == 0 || strcmp(name, "echo") == 0)
        return batch_only(r, name, json_is_false(value), "false");
    if (strcmp(name, "best_of") == 0)
        return batch_only(r, name, batch_is_one(value), "1");
    if (strcmp(name, "response_format") == 0)
        return batch_only(r, name, batch_is_text_format(value), "{\"type\":\"text\"}");
    if (strcmp(name, "tools") == 0 || strcmp(name, "functions") == 0)
        return batch_only(r, name, batch_is_empty(value), "an empty one");
    return err_set(r->eb, ERR_UNSUPPORTED, "body.%.64s is not understood", name);
}

static enum err batch_field(struct batch_reader *r, const char *name, const json_t *value)
{
    static const char *const passed_over[] = {
        "user", "metadata", "store", "service_tier", "stream_options", "safety_identifier"};
    enum err err;
    for (size_t i = 0; i < sizeof passed_over / sizeof *passed_over; i++)
        if (strcmp(name, passed_over[i]) == 0)
            return ERR_OK;
    /* null is how many writers say "not given". */
    if (json_is_null(value))
        return ERR_OK;
    if (strcmp(name, "model") == 0)
        return batch_model(r, value);
    if (r->line->chat && strcmp(name, "messages") == 0)
        return batch_messages(r, value);
    if (!r->line->chat && strcmp(name, "prompt") == 0)
        return batch_prompt(r, value);
    if (strcmp(name, "max_tokens") == 0 || strcmp(name, "max_completion_tokens") == 0)
        return batch_max_tokens(r, name, value);
    if (batch_number_field(r, name, value, &err))
        return err;
    if (strcmp(name, "stop") == 0)
        return batch_stop(r, value);
    if (strcmp(name, "stop_token_ids") == 0)
        return batch_stop_tokens(r, value);
    if (strcmp(name, "logit_bias") == 0)
        return batch_logit_bias(r, value);
    if (strcmp(name, "logprobs") == 0 || (r->line->chat && strcmp(name, "top_logprobs") == 0))
        return batch_logprobs(r, name, value);
    return batch_foreign_field(r, name, value);
}

static enum err batch_envelope(struct batch_reader *r, const json_t **ret_body)
{
    const json_t *root = r->line->root;
    if (!json_is_object(root))
        return err_set(r->eb, ERR_INVALID, "the line is not a JSON object");
    const json_t *custom_id = json_object_get(root, "custom_id");
    size_t size = json_string_length(custom_id);
    if (!json_is_string(custom_id) || size == 0 || size > BATCH_CUSTOM_ID_BYTES)
        return err_set(r->eb, ERR_INVALID, "custom_id must be a text of 1 to %u bytes",
                       BATCH_CUSTOM_ID_BYTES);
    r->line->custom_id = json_string_value(custom_id);
    const char *key;
    json_t *unused;
    json_object_foreach((json_t *)root, key, unused)
    {
        if (strcmp(key, "custom_id") != 0 && strcmp(key, "method") != 0 &&
            strcmp(key, "url") != 0 && strcmp(key, "body") != 0)
            return err_set(r->eb, ERR_INVALID, "%.64s is not understood", key);
    }
    const char *method = json_string_value(json_object_get(root, "method"));
    const char *url = json_string_value(json_object_get(root, "url"));
    if (!method || strcmp(method, "POST") != 0)
        return err_set(r->eb, ERR_INVALID, "method must be \"POST\"");
    if (url && strcmp(url, "/v1/chat/completions") == 0)
        r->line->chat = true;
    else if (!url || strcmp(url, "/v1/completions") != 0)
        return err_set(r->eb, ERR_UNSUPPORTED,
                       "url must be \"/v1/chat/completions\" or \"/v1/completions\"");
    *ret_body = json_object_get(root, "body");
    if (!json_is_object(*ret_body))
        return err_set(r->eb, ERR_INVALID, "body must be an object");
    return ERR_OK;
}

enum err batch_line_parse(const char *text, size_t size, const struct cloister_job *defaults,
                          struct batch_line *ret_line, struct errbuf *eb)
{
    struct batch_line *line = ret_line;
    struct batch_reader r = {.line = line, .eb = eb};
    memset(line, 0, sizeof *line);
    buf_init(&line->parts);
    line->job = *defaults;
    line->n_choices = 1;
    if (size > BATCH_LINE_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "the line has %zu bytes; it may have %u", size,
                       BATCH_LINE_BYTES);
    json_error_t error;
    line->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!line->root)
        return err_set(eb, ERR_INVALID, "not JSON: %s (column %d)", error.text, error.column);
    const json_t *body;
    enum err err = batch_envelope(&r, &body);
    if (err != ERR_OK)
        return err;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)body, key, value)
    {
        err = batch_field(&r, key, value);
        if (err != ERR_OK)
            return err;
    }
    const struct cloister_job *job = &line->job;
    if (!job->model)
        return err_set(eb, ERR_INVALID,
                       "body.model is missing, and neither --model nor client.cfg names one");
    if (job->n_messages == 0 && job->text.size == 0 && job->n_prompt_ids == 0)
        return err_set(eb, ERR_INVALID, "body.%s is missing", line->chat ? "messages" : "prompt");
    if (job->top_logprobs > 0 && !job->logprobs)
        return err_set(eb, ERR_INVALID,
                       "body.top_logprobs is %" PRIu32 ", but logprobs is not true",
                       job->top_logprobs);
    if (line->n_choices > 1 && job->sampling.temperature <= 0)
        return err_set(eb, ERR_INVALID,
                       "body.n is %" PRIu32 ", and all answers would be the same at temperature 0",
                       line->n_choices);
    return ERR_OK;
}

void batch_line_fini(struct batch_line *line)
{
    json_decref(line->root);
    free(line->messages);
    free(line->stops);
    free(line->prompt_ids);
    free(line->stop_tokens);
    free(line->biases);
    buf_fini(&line->parts);
}

/* ---- writing ---- */

static void batch_put(json_t *document, struct buf *out)
{
    char *text = document ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(7)) : NULL;
    if (text) {
        buf_append_str(out, text);
        buf_append_byte(out, '\n');
    } else {
        out->failed = true;
    }
    free(text);
    json_decref(document);
}

static json_t *batch_request_id(const char *id)
{
    char text[sizeof BATCH_ID_PREFIX + CLOISTER_ID_BYTES];
    snprintf(text, sizeof text, BATCH_ID_PREFIX "%s", id);
    return json_string(text);
}

static int batch_status_code(const struct batch_answer *a)
{
    switch (a->error) {
    case CLOISTER_OK:
        return a->state == CLOISTER_STATE_DONE        ? 200
               : a->state == CLOISTER_STATE_CANCELLED ? 499
               : a->state == CLOISTER_STATE_EXPIRED   ? 504
                                                      : 500;
    case CLOISTER_ERROR_INVALID:
    case CLOISTER_ERROR_UNSUPPORTED:
        return 400;
    case CLOISTER_ERROR_REFUSED:
        return 403;
    case CLOISTER_ERROR_NOT_FOUND:
        return 404;
    case CLOISTER_ERROR_CONFLICT:
        return 409;
    case CLOISTER_ERROR_TOO_LARGE:
        return 413;
    case CLOISTER_ERROR_CANCELLED:
        return 499;
    case CLOISTER_ERROR_TIMEOUT:
        return 504;
    default:
        return 500;
    }
}

/* The same for the older API: lists beside one another. */
static json_t *batch_text_logprobs(const json_t *list)
{
    json_t *tokens = json_array(), *own = json_array(), *top = json_array(), *at = json_array();
    json_int_t offset = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *one = json_array_get(list, i), *others = json_object_get(one, "top_logprobs");
        const char *token = json_string_value(json_object_get(one, "token"));
        json_t *likeliest = json_object();
        for (size_t k = 0; k < json_array_size(others); k++) {
            const json_t *other = json_array_get(others, k);
            json_object_set(likeliest, json_string_value(json_object_get(other, "token")),
                            json_object_get(other, "logprob"));
        }
        json_array_append(tokens, json_object_get(one, "token"));
        json_array_append(own, json_object_get(one, "logprob"));
        json_array_append_new(top, likeliest);
        json_array_append_new(at, json_integer(offset));
        for (; token && *token; token++)
            offset += ((unsigned char)*token & 0xC0) != 0x80; /* characters, not bytes */
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", tokens, "token_logprobs", own,
                     "top_logprobs", top, "text_offset", at);
}

static json_t *batch_choice(const struct batch_answer *a, size_t index)
{
    const struct batch_choice *c = &a->choices[index];
    const char *finish = c->finish == CLOISTER_FINISH_LENGTH ? "length" : "stop";
    json_t *text = output_text(c->text.data, c->text.size);
    json_t *logprobs = !c->logprobs ? json_null()
                       : a->chat    ? json_pack("{s:O, s:n}", "content", c->logprobs, "refusal")
                                    : batch_text_logprobs(c->logprobs);
    if (a->chat)
        return json_pack("{s:i, s:{s:s, s:o}, s:o, s:s}", "index", (int)index, "message", "role",
                         "assistant", "content", text, "logprobs", logprobs, "finish_reason",
                         finish);
    return json_pack("{s:i, s:o, s:o, s:s}", "index", (int)index, "text", text, "logprobs",
                     logprobs, "finish_reason", finish);
}

static json_t *batch_completion(const struct batch_answer *a)
{
    char id[CLOISTER_ID_BYTES + 16];
    snprintf(id, sizeof id, "%s-%s", a->chat ? "chatcmpl" : "cmpl", a->id);
    const struct cloister_usage *u = &a->usage;
    json_t *choices = json_array();
    for (size_t i = 0; i < a->n_choices; i++)
        json_array_append_new(choices, batch_choice(a, i));
    return json_pack("{s:s, s:s, s:I, s:o, s:o, s:{s:I, s:I, s:I, s:{s:I}}}",             //
                     "id", id,                                                            //
                     "object", a->chat ? "chat.completion" : "text_completion",           //
                     "created", (json_int_t)a->created,                                   //
                     "model", output_string(a->model),                                    //
                     "choices", choices,                                                  //
                     "usage",                                                             //
                     "prompt_tokens", (json_int_t)u->prompt_tokens,                       //
                     "completion_tokens", (json_int_t)u->completion_tokens,               //
                     "total_tokens", (json_int_t)u->prompt_tokens + u->completion_tokens, //
                     "prompt_tokens_details",                                             //
                     "cached_tokens", (json_int_t)u->prompt_cached);
}

static json_t *batch_failure(const struct batch_answer *a)
{
    const char *reason = a->error_text[0] ? a->error_text : cloister_state_name(a->state);
    const char *code =
        a->error == CLOISTER_OK ? cloister_state_name(a->state) : cloister_error_name(a->error);
    return json_pack("{s:{s:o, s:s, s:n, s:s}}", "error", "message", output_string(reason), "type",
                     batch_status_code(a) < 500 ? "invalid_request_error" : "server_error", "param",
                     "code", code);
}

void batch_line_write(const struct batch_answer *a, struct buf *out)
{
    int status = batch_status_code(a);
    batch_put(json_pack("{s:o, s:o, s:{s:i, s:s, s:o}, s:n}", //
                        "id", batch_request_id(a->id),        //
                        "custom_id", output_string(a->custom_id),
                        "response",                                                     //
                        "status_code", status,                                          //
                        "request_id", a->id,                                            //
                        "body", status == 200 ? batch_completion(a) : batch_failure(a), //
                        "error"),
              out);
}

void batch_line_write_invalid(const char *id, const char *custom_id, const char *message,
                              struct buf *out)
{
    batch_put(json_pack("{s:o, s:o, s:n, s:{s:s, s:o}}",                                 //
                        "id", batch_request_id(id),                                      //
                        "custom_id", custom_id ? output_string(custom_id) : json_null(), //
                        "response",                                                      //
                        "error", "code", "invalid_line", "message", output_string(message)),
              out);
}

bool batch_line_read(const char *text, size_t size, char ret_id[CLOISTER_ID_BYTES],
                     bool *ret_failed)
{
    json_error_t error;
    /* A model may have written a NUL. */
    json_t *root = json_loadb(text, size, JSON_ALLOW_NUL, &error);
    const char *id = json_string_value(json_object_get(root, "id"));
    size_t prefix = strlen(BATCH_ID_PREFIX);
    bool good = id && strncmp(id, BATCH_ID_PREFIX, prefix) == 0 &&
                strlen(id) == prefix + CLOISTER_ID_BYTES - 1 &&
                strspn(id + prefix, "0123456789abcdef") == CLOISTER_ID_BYTES - 1;
    if (good) {
        json_t *status = json_object_get(json_object_get(root, "response"), "status_code");
        memcpy(ret_id, id + prefix, CLOISTER_ID_BYTES);
        *ret_failed = json_integer_value(status) != 200;
    }
    json_decref(root);
    return good;
}
