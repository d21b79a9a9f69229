#include "client/cli/output.h"

#include "common/buf.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define COUNT_EXACT (1ull << 53) /* what a program with doubles can still read */

json_t *output_text(const void *bytes, size_t size)
{
    struct buf text;
    buf_init(&text);
    utf8_append(&text, bytes, size);
    json_t *value = text.failed ? NULL : json_stringn(buf_str(&text), text.size);
    buf_fini(&text);
    return value;
}

json_t *output_string(const char *text)
{
    return output_text(text, strlen(text));
}

json_t *output_count(uint64_t count)
{
    if (count <= COUNT_EXACT)
        return json_integer((json_int_t)count);
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, count);
    return json_string(text);
}

json_t *output_hex(const uint8_t *bytes, size_t size)
{
    char text[2 * 64 + 1];
    if (size > 64)
        return NULL;
    hex_encode(bytes, size, text);
    return json_string(text);
}

json_t *output_time(uint64_t wall_ns)
{
    if (wall_ns == 0)
        return json_null();
    char text[CLOCK_TEXT_BYTES];
    clock_format(wall_ns, text);
    return json_string(text);
}

json_t *output_usage(const struct cloister_usage *u)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",              //
                     "prompt_tokens", output_count(u->prompt_tokens),         //
                     "prompt_cached", output_count(u->prompt_cached),         //
                     "prompt_computed", output_count(u->prompt_computed),     //
                     "resumed_tokens", output_count(u->resumed_tokens),       //
                     "completion_tokens", output_count(u->completion_tokens), //
                     "queue_us", output_count(u->queue_us),                   //
                     "prefill_us", output_count(u->prefill_us),               //
                     "decode_us", output_count(u->decode_us));
}

static json_t *output_job_error(enum cloister_error error, const char *text)
{
    if (error == CLOISTER_OK)
        return json_null();
    return json_pack("{s:s, s:o}", "code", cloister_error_name(error), "text", output_string(text));
}

/* A ledger record's number; the wire counts from 1 so that 0 can say none. */
static json_t *output_record(uint64_t record)
{
    return record == 0 ? json_null() : output_count(record - 1);
}

json_t *output_job_info(const struct cloister_job_info *i)
{
    return json_pack(
        "{s:s, s:o, s:o, s:s, s:s, s:i, s:o, s:o, s:o, s:i, s:o, s:i, s:o, s:o, s:s, s:o, s:o, "
        "s:o, s:i, s:o, s:o}",
        "id", i->id,                                         //
        "model", output_string(i->model),                    //
        "tenant", output_string(i->tenant),                  //
        "state", cloister_state_name(i->state),              //
        "class", cloister_class_name(i->job_class),          //
        "priority", (int)i->priority,                        //
        "submitted", output_time(i->submitted_wall_ns),      //
        "started", output_time(i->started_wall_ns),          //
        "ended", output_time(i->ended_wall_ns),              //
        "attempts", (int)i->attempts,                        //
        "worker", output_string(i->worker),                  //
        "max_tokens", (int)i->max_tokens,                    //
        "usage", output_usage(&i->usage),                    //
        "reserved_tokens", output_count(i->reserved_tokens), //
        "finish", cloister_finish_name(i->finish),           //
        "error", output_job_error(i->error, i->error_text),  //
        "reserve_record", output_record(i->reserve_record),  //
        "settle_record", output_record(i->settle_record),    //
        "queued_ahead", (int)i->queued_ahead,                //
        "project", output_string(i->project),                //
        "cost_center", output_string(i->cost_center));
}

static json_t *output_prompt(const struct cloister_job *job)
{
    if (job->text.size > 0)
        return json_pack("{s:o}", "text", output_text(job->text.data, job->text.size));
    json_t *list = json_array();
    for (size_t i = 0; i < job->n_messages; i++)
        json_array_append_new(list, json_pack("{s:o, s:o}",                                 //
                                              "role", output_string(job->messages[i].role), //
                                              "content",
                                              output_text(job->messages[i].content.data,
                                                          job->messages[i].content.size)));
    for (size_t i = 0; i < job->n_prompt_ids; i++)
        json_array_append_new(list, json_integer(job->prompt_ids[i]));
    return json_pack("{s:o}", job->n_prompt_ids > 0 ? "ids" : "messages", list);
}

static json_t *output_logprob_alone(const struct cloister_logprob *logprob)
{
    const uint8_t *p = logprob->bytes.data;
    json_t *bytes = json_array();
    for (size_t i = 0; i < logprob->bytes.size; i++)
        json_array_append_new(bytes, json_integer(p[i]));
    return json_pack("{s:o, s:f, s:o}",                            //
                     "token", output_text(p, logprob->bytes.size), //
                     "logprob", (double)logprob->logprob, "bytes", bytes);
}

json_t *output_logprob(const struct cloister_logprob *logprob)
{
    json_t *value = output_logprob_alone(logprob);
    json_t *top = json_array();
    for (size_t i = 0; i < logprob->n_top; i++)
        json_array_append_new(top, output_logprob_alone(&logprob->top[i]));
    json_object_set_new(value, "top_logprobs", top);
    return value;
}

void output_logprobs_add(json_t *list, const struct cloister_event *event)
{
    for (size_t i = 0; event->logprobs && i < event->n_ids; i++)
        json_array_append_new(list, output_logprob(&event->logprobs[i]));
}

/* Ids with their biases, as OpenAI's API has them. */
static json_t *output_biases(const struct cloister_job *job)
{
    json_t *biases = json_object();
    for (size_t i = 0; i < job->n_logit_bias; i++) {
        char id[16];
        snprintf(id, sizeof id, "%d", job->logit_bias[i].id);
        json_object_set_new(biases, id, json_real((double)job->logit_bias[i].bias));
    }
    return biases;
}

json_t *output_job(const struct cloister_job *job)
{
    json_t *stop_tokens = json_array();
    for (size_t i = 0; i < job->n_stop_tokens; i++)
        json_array_append_new(stop_tokens, json_integer(job->stop_tokens[i]));
    json_t *stops = json_array();
    for (size_t i = 0; i < job->n_stops; i++)
        json_array_append_new(stops, output_text(job->stops[i].data, job->stops[i].size));
    const struct cloister_sampling *s = &job->sampling;
    return json_pack("{s:o, s:o, s:o, s:{s:f, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:o}, s:o, "
                     "s:o, s:b, s:b, s:i}",                                          //
                     "prompt", output_prompt(job),                                   //
                     "stop_tokens", stop_tokens,                                     //
                     "stop", stops,                                                  //
                     "sampling",                                                     //
                     "temperature", (double)s->temperature,                          //
                     "top_k", (int)s->top_k,                                         //
                     "top_p", (double)s->top_p,                                      //
                     "min_p", (double)s->min_p,                                      //
                     "typical_p", job->typical_p > 0 ? (double)job->typical_p : 1.0, //
                     "repetition_penalty", (double)s->repetition_penalty,            //
                     "presence_penalty", (double)s->presence_penalty,                //
                     "frequency_penalty", (double)s->frequency_penalty,              //
                     "logit_bias", output_biases(job),                               //
                     "seed", output_count(s->seed),                                  //
                     "max_tokens", output_count(job->max_tokens),                    //
                     "deadline_ms", output_count(job->deadline_ms),                  //
                     "cancel_on_disconnect", job->cancel_on_disconnect,              //
                     "logprobs", job->logprobs, "top_logprobs", (int)job->top_logprobs);
}

int output_print(json_t *document, bool pretty)
{
    if (!document)
        return cli_fail(CLI_EXIT_FAILED, "no memory to print the result");
    size_t flags = JSON_REAL_PRECISION(7) | (pretty ? JSON_INDENT(2) : JSON_COMPACT);
    errno = 0;
    int failed = json_dumpf(document, stdout, flags);
    json_decref(document);
    if (failed && !ferror(stdout))
        return cli_fail(CLI_EXIT_FAILED, "no memory to print the result");
    putchar('\n');
    return cli_finish_output();
}

int output_print_text(struct buf *text)
{
    int code;
    if (text->failed) {
        code = cli_fail(CLI_EXIT_FAILED, "no memory to print the result");
    } else {
        fwrite(buf_str(text), 1, text->size, stdout);
        code = cli_finish_output();
    }
    buf_fini(text);
    return code;
}
