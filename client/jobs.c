/* Jobs: submit, watch, cancel. */
#include "client/connection.h"

#include "common/clock.h"
#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

#define WATCH_WAIT_MS     20000u
#define WATCH_GRACE_MS    10000u /* of an answer, after the poll's own time */
#define WATCH_EMPTY_MS    50u    /* an answer that says nothing new counts as an early one */
#define WATCH_STRAYS_MOST 16u    /* answers for another place, one after the other */

_Static_assert(WATCH_WAIT_MS <= LIMIT_POLL_MS, "the coordinator parks no poll for longer");

static int bias_compare(const void *a, const void *z)
{
    const struct wire_logit_bias *x = a, *y = z;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* By ascending id, as the wire has them; it refuses what is there twice. */
static enum err biases_to_wire(const struct cloister_job *job, struct arena *arena,
                               const struct wire_logit_bias **ret_biases,
                               struct cloister_problem *problem)
{
    if (job->n_logit_bias > LIMIT_LOGIT_BIASES)
        return problem_set(problem, ERR_TOO_LARGE, "%zu logit biases; a job may have %u",
                           job->n_logit_bias, LIMIT_LOGIT_BIASES);
    struct wire_logit_bias *biases = arena_alloc_array(arena, job->n_logit_bias, sizeof *biases);
    if (!biases)
        return problem_set(problem, ERR_NO_MEMORY, "no memory for the job");
    for (size_t i = 0; i < job->n_logit_bias; i++) {
        if (job->logit_bias[i].id < 0)
            return problem_set(problem, ERR_INVALID, "logit bias %zu is for token %d", i,
                               job->logit_bias[i].id);
        biases[i] = (struct wire_logit_bias){.id = (uint32_t)job->logit_bias[i].id,
                                             .bias = job->logit_bias[i].bias};
    }
    qsort(biases, job->n_logit_bias, sizeof *biases, bias_compare);
    *ret_biases = biases;
    return ERR_OK;
}

/* What is wrong with the job before anything is copied. */
static enum err job_check(const struct cloister_job *job, struct cloister_problem *problem)
{
    int prompts = (job->n_messages > 0) + (job->text.size > 0) + (job->n_prompt_ids > 0);
    if (!job->model || !job->model[0])
        return problem_set(problem, ERR_INVALID, "the job names no model");
    if (prompts != 1)
        return problem_set(problem, ERR_INVALID,
                           prompts == 0
                               ? "the job has no prompt"
                               : "the job has more than one prompt: messages, text or tokens");
    if (job->n_messages > LIMIT_CHAT_MESSAGES)
        return problem_set(problem, ERR_TOO_LARGE, "%zu messages; a chat may have %u",
                           job->n_messages, LIMIT_CHAT_MESSAGES);
    if (job->n_stops > LIMIT_STOP_STRINGS)
        return problem_set(problem, ERR_TOO_LARGE, "%zu stop strings; a job may have %u",
                           job->n_stops, LIMIT_STOP_STRINGS);
    return ERR_OK;
}

static enum err texts_to_wire(const struct cloister_job *job, struct arena *arena,
                              struct wire_job *ret_job, struct cloister_problem *problem)
{
    struct wire_chat_message *messages =
        arena_alloc_array(arena, job->n_messages, sizeof *messages);
    struct wire_bytes *stops = arena_alloc_array(arena, job->n_stops, sizeof *stops);
    if (!messages || !stops)
        return problem_set(problem, ERR_NO_MEMORY, "no memory for the job");
    for (size_t i = 0; i < job->n_messages; i++) {
        messages[i].role = job->messages[i].role ? job->messages[i].role : "";
        messages[i].content.data = job->messages[i].content.data;
        messages[i].content.size = job->messages[i].content.size;
    }
    for (size_t i = 0; i < job->n_stops; i++)
        stops[i] = (struct wire_bytes){.data = job->stops[i].data, .size = job->stops[i].size};
    ret_job->messages = messages;
    ret_job->n_messages = job->n_messages;
    ret_job->stops = stops;
    ret_job->n_stops = job->n_stops;
    return ERR_OK;
}

static struct wire_sampling sampling_to_wire(const struct cloister_job *job,
                                             const struct wire_logit_bias *biases)
{
    const struct cloister_sampling *s = &job->sampling;
    return (struct wire_sampling){.temperature = s->temperature,
                                  .top_k = s->top_k,
                                  .top_p = s->top_p,
                                  .min_p = s->min_p,
                                  .repetition_penalty = s->repetition_penalty,
                                  .presence_penalty = s->presence_penalty,
                                  .frequency_penalty = s->frequency_penalty,
                                  .seed = s->seed,
                                  .typical_p = job->typical_p,
                                  .logit_bias = biases,
                                  .n_logit_bias = job->n_logit_bias};
}

/* The public job as the wire wants it; arrays lie in `arena`. */
static enum err job_to_wire(const struct cloister_job *given, struct arena *arena,
                            struct wire_job *ret_job, struct cloister_problem *problem)
{
    if (given->size < offsetof(struct cloister_job, cost_center) + sizeof given->cost_center)
        return problem_set(problem, ERR_INVALID,
                           "the job's size is not set; begin with CLOISTER_JOB_INIT");
    /* A program that was built against an older header knows fewer members. */
    struct cloister_job whole = {0};
    const struct cloister_job *job = &whole;
    const struct wire_logit_bias *biases = NULL;
    memcpy(&whole, given, given->size < sizeof whole ? given->size : sizeof whole);
    struct wire_job wire = {
        .model = job->model,
        .prompt_kind = job->n_messages > 0  ? WIRE_PROMPT_KIND_CHAT
                       : job->text.size > 0 ? WIRE_PROMPT_KIND_TEXT
                                            : WIRE_PROMPT_KIND_IDS,
        .text = {.data = job->text.data, .size = job->text.size},
        .prompt_ids = job->prompt_ids,
        .n_prompt_ids = job->n_prompt_ids,
        .max_tokens = job->max_tokens,
        .job_class = (enum wire_job_class)job->job_class,
        .priority = job->priority,
        .deadline_ms = job->deadline_ms,
        .cancel_on_disconnect = job->cancel_on_disconnect,
        .project = job->project ? job->project : "",
        .cost_center = job->cost_center ? job->cost_center : "",
        .stop_tokens = job->stop_tokens,
        .n_stop_tokens = job->n_stop_tokens,
        .logprobs = job->logprobs,
        .top_logprobs = job->top_logprobs,
    };
    enum err err = job_check(job, problem);
    if (err == ERR_OK)
        err = texts_to_wire(job, arena, &wire, problem);
    if (err == ERR_OK)
        err = biases_to_wire(job, arena, &biases, problem);
    if (err != ERR_OK)
        return err;
    wire.sampling = sampling_to_wire(job, biases);
    *ret_job = wire;
    return ERR_OK;
}

enum cloister_error cloister_submit(struct cloister *c, const char *id,
                                    const struct cloister_job *job,
                                    struct cloister_receipt *ret_receipt,
                                    struct cloister_problem *problem)
{
    struct arena scratch, arena;
    arena_init(&scratch, LIMIT_DECODE_BYTES);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    struct wire_request request = {.kind = WIRE_REQUEST_SUBMIT};
    struct wire_reply reply;
    enum err err = argument_id(id, &request.submit.job_id, problem);
    if (err == ERR_OK)
        err = job_to_wire(job, &scratch, &request.submit.job, problem);
    if (err == ERR_OK)
        err = connection_call(c, &request, CONNECTION_CALL_TIMEOUT_MS, c->wait_ms, &arena, &reply,
                              problem);
    if (err == ERR_OK && ret_receipt)
        *ret_receipt = (struct cloister_receipt){.state = (enum cloister_state)reply.submit.state,
                                                 .duplicate = reply.submit.duplicate,
                                                 .queued_ahead = reply.submit.queued_ahead};
    arena_fini(&scratch);
    arena_fini(&arena);
    return (enum cloister_error)err;
}

/* ---- watching ---- */

struct watcher {
    struct cloister *connection;
    struct id job_id;
    uint32_t at; /* tokens the caller has */
    enum wire_job_state state;
    unsigned strays;
    cloister_event_fn *on_event;
    void *arg;
};

void usage_from_wire(const struct wire_work_usage *u, struct cloister_usage *ret_usage)
{
    *ret_usage = (struct cloister_usage){.prompt_tokens = u->prompt_tokens,
                                         .prompt_cached = u->prompt_cached,
                                         .prompt_computed = u->prompt_computed,
                                         .resumed_tokens = u->resumed_tokens,
                                         .completion_tokens = u->completion_tokens,
                                         .queue_us = u->queue_us,
                                         .prefill_us = u->prefill_us,
                                         .decode_us = u->decode_us};
}

/* An answer for another job or place would lose or double text: it is dropped and asked for again.
 * Text belongs to tokens, so a piece without any may carry text only where the job ends. */
static bool watch_is_stray(const struct watcher *w, const struct wire_watch_reply *r)
{
    return id_compare(&r->job_id, &w->job_id) != 0 || r->first != w->at ||
           r->n_ids > UINT32_MAX - w->at || (r->n_ids == 0 && r->text.size > 0 && !r->end);
}

static struct cloister_logprob logprob_from_wire(const struct wire_token_logprob *one)
{
    return (struct cloister_logprob){.id = (int32_t)one->id,
                                     .logprob = one->logprob,
                                     .bytes = {one->bytes.data, one->bytes.size}};
}

/* Of all tokens of the reply, in `arena`; NULL where it has none. */
static enum err logprobs_from_wire(const struct wire_watch_reply *r, struct arena *arena,
                                   const struct cloister_logprob **ret_logprobs,
                                   struct cloister_problem *problem)
{
    *ret_logprobs = NULL;
    if (r->n_logprobs == 0)
        return ERR_OK;
    struct cloister_logprob *list = arena_alloc_array(arena, r->n_logprobs, sizeof *list);
    for (size_t i = 0; list && i < r->n_logprobs; i++) {
        struct wire_token_logprobs one;
        struct errbuf eb = {0};
        enum err err = wire_token_logprobs_decode(&r->logprobs[i], arena, &one, &eb);
        if (err != ERR_OK)
            return problem_set(problem, err, "token %zu: %s", r->first + i, eb.text);
        struct cloister_logprob *top = arena_alloc_array(arena, one.n_top, sizeof *top);
        if (!top)
            return problem_set(problem, ERR_NO_MEMORY, "no memory for logprobs");
        for (size_t k = 0; k < one.n_top; k++)
            top[k] = logprob_from_wire(&one.top[k]);
        list[i] = logprob_from_wire(&one.drawn);
        list[i].top = top;
        list[i].n_top = one.n_top;
    }
    *ret_logprobs = list;
    return list ? ERR_OK : problem_set(problem, ERR_NO_MEMORY, "no memory for logprobs");
}

/* True when the watch is over, with its result in ret_err. */
static bool watch_deliver(struct watcher *w, const struct wire_watch_reply *r, enum err *ret_err,
                          struct cloister_problem *problem)
{
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    struct cloister_event event = {
        .state = (enum cloister_state)r->state,
        .first = r->first,
        .ids = r->ids,
        .n_ids = r->n_ids,
        .text = {.data = r->text.data, .size = r->text.size},
        .end = r->end,
        .finish = (enum cloister_finish)r->finish,
        .error = (enum cloister_error)r->error.code,
        .error_text = r->error.text ? r->error.text : "",
    };
    usage_from_wire(&r->usage, &event.usage);
    w->at += (uint32_t)r->n_ids;
    w->state = r->state;
    *ret_err = logprobs_from_wire(r, &arena, &event.logprobs, problem);
    bool over = r->end || *ret_err != ERR_OK;
    if (*ret_err == ERR_OK && w->on_event(w->arg, &event) != 0 && !r->end) {
        *ret_err = problem_set(problem, ERR_CANCELLED, "the watcher had enough");
        over = true;
    }
    arena_fini(&arena);
    return over;
}

enum cloister_error cloister_watch(struct cloister *c, const char *id, uint32_t first,
                                   cloister_event_fn *on_event, void *arg,
                                   struct cloister_problem *problem)
{
    struct watcher w = {.connection = c, .at = first, .on_event = on_event, .arg = arg};
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    enum err err = argument_id(id, &w.job_id, problem);
    bool over = err != ERR_OK;
    while (!over) {
        struct wire_request request = {
            .kind = WIRE_REQUEST_WATCH,
            .watch = {.job_id = w.job_id, .first = w.at, .wait_ms = WATCH_WAIT_MS}};
        struct wire_reply reply;
        uint64_t asked = clock_mono_ms();
        err = connection_call(c, &request, WATCH_WAIT_MS + WATCH_GRACE_MS, c->stream_wait_ms,
                              &arena, &reply, problem);
        if (err != ERR_OK)
            break;
        const struct wire_watch_reply *r = &reply.watch;
        bool stray = watch_is_stray(&w, r);
        if (stray && ++w.strays > WATCH_STRAYS_MOST) {
            err = problem_set(problem, ERR_CORRUPT,
                              "the coordinator keeps answering for token %u instead of %u",
                              r->first, w.at);
            break;
        }
        bool news = !stray && (r->n_ids > 0 || r->end || r->state != w.state);
        if (!stray)
            w.strays = 0;
        if (news)
            over = watch_deliver(&w, r, &err, problem);
        else if (clock_mono_ms() - asked < WATCH_EMPTY_MS && !connection_sleep(c, WATCH_EMPTY_MS)) {
            err = problem_set(problem, ERR_CANCELLED, "interrupted");
            break;
        }
    }
    arena_fini(&arena);
    return (enum cloister_error)err;
}

enum cloister_error cloister_cancel(struct cloister *c, const char *id, const char *reason,
                                    enum cloister_state *ret_state,
                                    struct cloister_problem *problem)
{
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    struct wire_request request = {.kind = WIRE_REQUEST_CANCEL,
                                   .cancel = {.reason = reason ? reason : ""}};
    struct wire_reply reply;
    enum err err = argument_id(id, &request.cancel.job_id, problem);
    if (err == ERR_OK)
        err = connection_call(c, &request, CONNECTION_CALL_TIMEOUT_MS, c->wait_ms, &arena, &reply,
                              problem);
    if (err == ERR_OK && ret_state)
        *ret_state = (enum cloister_state)reply.cancel.state;
    arena_fini(&arena);
    return (enum cloister_error)err;
}
