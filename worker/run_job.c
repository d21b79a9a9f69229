#include "worker/run_job.h"

#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

static struct sampling sampling_of(const struct wire_sampling *w)
{
    struct sampling s = sampling_default();
    s.temperature = w->temperature;
    s.top_k = w->top_k;
    s.top_p = w->top_p;
    s.min_p = w->min_p;
    s.repetition_penalty = w->repetition_penalty;
    s.presence_penalty = w->presence_penalty;
    s.frequency_penalty = w->frequency_penalty;
    s.seed = w->seed;
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
    struct chat_message *messages = NULL;
    struct engine_job job = {
        .job_id = lease->engine_id,
        .model_id = lease->model_id,
        .resume_ids = lease->run.resume_ids,
        .n_resume_ids = lease->run.n_resume_ids,
        .max_tokens = w->max_tokens,
        .sampling = sampling_of(&w->sampling),
        .stops = stops,
        .n_stops = w->n_stops,
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
