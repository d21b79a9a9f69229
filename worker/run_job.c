#include "worker/run_job.h"

#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

static struct sampling sampling_of(const struct wire_job *job, struct sampling_bias *biases)
{
    const struct wire_sampling *w = &job->sampling;
    struct sampling s = sampling_default();
    s.temperature = w->temperature;
    s.top_k = w->top_k;
    s.top_p = w->top_p;
    s.min_p = w->min_p;
    s.repetition_penalty = w->repetition_penalty;
    s.presence_penalty = w->presence_penalty;
    s.frequency_penalty = w->frequency_penalty;
    s.seed = w->seed;
    s.typical_p = w->typical_p == 0.0f ? 1.0f : w->typical_p;
    for (size_t i = 0; i < w->n_logit_bias; i++)
        biases[i] = (struct sampling_bias){.id = (int32_t)w->logit_bias[i].id,
                                           .bias = w->logit_bias[i].bias};
    s.biases = biases;
    s.n_biases = w->n_logit_bias;
    s.logprobs = job->logprobs;
    s.top_logprobs = job->top_logprobs;
    return s;
}

/* The engine's best class is 0. */
static uint32_t class_rank(enum wire_job_class job_class)
{
    switch (job_class) {
    case WIRE_JOB_CLASS_INTERACTIVE:
        return 0;
    case WIRE_JOB_CLASS_STANDARD:
        return 1;
    case WIRE_JOB_CLASS_BATCH:
    case WIRE_JOB_CLASS_UNSPECIFIED: /* wire.c lets no unspecified class through */
        break;
    }
    return 2;
}

enum err run_job_submit(struct engine *engine, const struct lease *lease, uint64_t space,
                        struct errbuf *eb)
{
    const struct wire_job *w = &lease->run.job;
    struct sampling_stop stops[LIMIT_STOP_STRINGS];
    struct sampling_bias biases[LIMIT_LOGIT_BIASES];
    struct chat_message *messages = NULL;
    struct engine_job job = {
        .job_id = lease->engine_id,
        .model_id = lease->model_id,
        .resume_ids = lease->run.resume_ids,
        .n_resume_ids = lease->run.n_resume_ids,
        .max_tokens = w->max_tokens,
        .sampling = sampling_of(w, biases),
        .stops = stops,
        .n_stops = w->n_stops,
        .stop_tokens = w->stop_tokens,
        .n_stop_tokens = w->n_stop_tokens,
        .job_class = class_rank(w->job_class),
        .space = space,
    };

    for (size_t i = 0; i < w->n_stops; i++)
        stops[i] = (struct sampling_stop){.bytes = (const char *)w->stops[i].data,
                                          .size = w->stops[i].size};
    switch (w->prompt_kind) {
    case WIRE_PROMPT_KIND_IDS:
        job.prompt_kind = ENGINE_PROMPT_IDS;
        job.prompt_ids = w->prompt_ids;
        job.n_prompt_ids = w->n_prompt_ids;
        break;
    case WIRE_PROMPT_KIND_TEXT:
        job.prompt_kind = ENGINE_PROMPT_TEXT;
        job.text = (const char *)w->text.data;
        job.text_size = w->text.size;
        break;
    case WIRE_PROMPT_KIND_CHAT:
    case WIRE_PROMPT_KIND_UNSPECIFIED: /* wire.c lets no unspecified kind through */
        job.prompt_kind = ENGINE_PROMPT_CHAT;
        messages = calloc(w->n_messages + 1, sizeof *messages);
        if (messages == NULL)
            return err_set(eb, ERR_NO_MEMORY, "no memory for %zu messages", w->n_messages);
        for (size_t i = 0; i < w->n_messages; i++)
            messages[i] =
                (struct chat_message){.role = w->messages[i].role,
                                      .role_size = strlen(w->messages[i].role),
                                      .content = (const char *)w->messages[i].content.data,
                                      .content_size = w->messages[i].content.size};
        job.messages = messages;
        job.n_messages = w->n_messages;
        break;
    }
    enum err e = engine_submit(engine, &job, eb);
    free(messages);
    return e;
}

/* ---- what it made ---- */

static struct wire_token_logprob logprob_of(const struct engine_logprob *one, const char *bytes)
{
    /* A token of hundreds of bytes is a run of blanks or dashes; its id says which. */
    size_t size = one->n_bytes < LIMIT_LOGPROB_BYTES ? one->n_bytes : LIMIT_LOGPROB_BYTES;
    return (struct wire_token_logprob){.id = (uint32_t)one->of.id,
                                       .logprob = one->of.logprob,
                                       .bytes = {.data = (const uint8_t *)bytes, .size = size}};
}

/* The logprobs of one token, packed; `at` and `bytes` go on behind them. */
static enum err logprobs_pack(const struct engine_logprob **at, const char **bytes, struct buf *out,
                              struct errbuf *eb)
{
    struct wire_token_logprob top[LIMIT_TOP_LOGPROBS];
    struct wire_token_logprobs packed = {
        .drawn = logprob_of(*at, *bytes), .top = top, .n_top = (*at)->n_top};
    for (size_t i = 0; i <= packed.n_top; i++) {
        if (i > 0)
            top[i - 1] = logprob_of(*at, *bytes);
        *bytes += (*at)->n_bytes;
        (*at)++;
    }
    return wire_token_logprobs_encode(&packed, out, eb);
}

enum err run_job_output(struct lease *lease, const struct engine_event *ev, struct errbuf *eb)
{
    struct lease_output output = {.first = ev->first,
                                  .ids = ev->ids,
                                  .text_sizes = ev->text_sizes,
                                  .n_ids = ev->n_ids,
                                  .text = ev->text,
                                  .text_size = ev->text_size};
    const struct engine_logprob *at = ev->logprobs;
    const char *bytes = ev->logprob_bytes;
    struct wire_bytes *logprobs = NULL;
    struct buf all;
    enum err e = ERR_OK;

    buf_init(&all);
    if (ev->n_logprobs > 0) {
        logprobs = calloc(ev->n_ids, sizeof *logprobs);
        if (logprobs == NULL)
            e = err_set(eb, ERR_NO_MEMORY, "no memory for %zu logprobs", ev->n_ids);
        for (size_t i = 0; e == ERR_OK && i < ev->n_ids; i++) {
            size_t before = all.size;
            e = logprobs_pack(&at, &bytes, &all, eb);
            logprobs[i].size = all.size - before;
        }
        /* The buffer has stopped moving. */
        for (size_t i = 0, from = 0; e == ERR_OK && i < ev->n_ids; i++) {
            logprobs[i].data = all.data + from;
            from += logprobs[i].size;
        }
        output.logprobs = logprobs;
    }
    if (e == ERR_OK)
        e = lease_append(lease, &output, eb);
    free(logprobs);
    buf_fini(&all);
    return e;
}
