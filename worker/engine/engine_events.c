/* What the engine says: events wait in their job or model, which stands in one line. */
#include "worker/engine/engine_internal.h"

#include "common/check.h"

#include <string.h>

void source_push(struct engine *e, struct source *source)
{
    e->notify_due = true;
    if (source->in_line)
        return;
    source->in_line = true;
    source->next = NULL;
    if (e->line_last != NULL)
        e->line_last->next = source;
    else
        e->line_first = source;
    e->line_last = source;
}

/* What it has to say now stands before all that others said since it got its place. */
static void source_push_front(struct engine *e, struct source *source)
{
    CHECK(!source->in_line);
    source->in_line = true;
    source->next = e->line_first;
    e->line_first = source;
    if (e->line_last == NULL)
        e->line_last = source;
}

static struct source *source_pop(struct engine *e)
{
    struct source *source = e->line_first;

    if (source == NULL)
        return NULL;
    e->line_first = source->next;
    if (e->line_first == NULL)
        e->line_last = NULL;
    source->in_line = false;
    return source;
}

void events_job_started(struct engine *e, struct engine_job_state *job)
{
    job->started_ids = job->ids;
    job->started_ids.count = job->n_prompt;
    job->ids = (struct tokens){0};
    job->out_usage = job->usage;
    job->has_started = true;
    source_push(e, &job->source);
}

enum err events_job_piece(struct engine *e, struct engine_job_state *job, const int32_t *ids,
                          const struct stream_piece *piece)
{
    if (!job->has_tokens)
        job->out_first = piece->first;
    CHECK(piece->first == job->out_first + job->out_ids.count);
    if (!buf_reserve(&job->out_text, piece->text_size)) {
        job->out_text.failed = false; /* what waits in it is good */
        return ERR_NO_MEMORY;
    }
    size_t before = job->out_ids.count, at = 0;
    for (uint32_t i = 0; i < piece->n_tokens; i++) {
        size_t end = piece->ends[i] < piece->text_size ? piece->ends[i] : piece->text_size;
        if (tokens_append(&job->out_ids, ids[i]) != ERR_OK ||
            tokens_append(&job->out_text_sizes, (int32_t)(end - at)) != ERR_OK) {
            job->out_ids.count = job->out_text_sizes.count = before;
            return ERR_NO_MEMORY;
        }
        at = end;
    }
    if (job->request.sampling.logprobs &&
        !logprob_list_move(&job->held_logprobs, &job->out_logprobs, piece->n_tokens)) {
        job->out_ids.count = job->out_text_sizes.count = before;
        return ERR_NO_MEMORY;
    }
    buf_append(&job->out_text, piece->text, piece->text_size);
    job->out_usage = job->usage;
    job->has_tokens = true;
    source_push(e, &job->source);
    return ERR_OK;
}

void events_job_finished(struct engine *e, struct engine_job_state *job)
{
    CHECK(!job->ended);
    if (!job->has_tokens)
        job->out_first = job->stream.taken;
    job->out_usage = job->usage;
    job->has_finished = true;
    job->ended = true;
    source_push(e, &job->source);
}

void events_model(struct engine *e, struct engine_model_state *model, bool *has_event)
{
    *has_event = true;
    source_push(e, &model->source);
}

/* Hands the list over to the caller and takes the one he had for the next. */
static void swap_ids(struct tokens *a, struct tokens *z)
{
    struct tokens t = *a;
    *a = *z;
    *z = t;
    z->count = 0;
}

static void poll_tokens(struct engine *e, struct engine_job_state *job, struct engine_event *ev)
{
    struct buf text = job->out_text;

    ev->first = job->out_first;
    if (!job->has_tokens)
        return;
    struct logprob_list logprobs = job->out_logprobs;
    job->out_logprobs = e->polled_logprobs;
    job->out_logprobs.count = 0;
    buf_clear(&job->out_logprobs.bytes);
    e->polled_logprobs = logprobs;
    swap_ids(&e->polled_ids, &job->out_ids);
    swap_ids(&e->polled_text_sizes, &job->out_text_sizes);
    job->out_text = e->polled_text;
    buf_clear(&job->out_text);
    e->polled_text = text;
    ev->ids = e->polled_ids.ids;
    ev->n_ids = e->polled_ids.count;
    ev->text = buf_str(&e->polled_text);
    ev->text_size = e->polled_text.size;
    ev->text_sizes = e->polled_text_sizes.ids;
    ev->logprobs = e->polled_logprobs.at;
    ev->n_logprobs = e->polled_logprobs.count;
    ev->logprob_bytes = buf_str(&e->polled_logprobs.bytes);
    job->has_tokens = false;
}

static void forget_job(struct engine *e, struct engine_job_state *job)
{
    for (uint32_t i = 0; i < e->n_jobs; i++)
        if (e->jobs[i] == job) {
            e->jobs[i] = e->jobs[--e->n_jobs];
            job_free(job);
            return;
        }
    CHECK(false);
}

static void poll_job(struct engine *e, struct engine_job_state *job, struct engine_event *ev)
{
    *ev = (struct engine_event){
        .model_id = job->request.model_id,
        .job_id = job->request.job_id,
        .usage = job->out_usage,
        .text = "",
    };
    if (job->has_started) {
        ev->kind = ENGINE_EVENT_STARTED;
        swap_ids(&e->polled_ids, &job->started_ids);
        ev->ids = e->polled_ids.ids;
        ev->n_ids = e->polled_ids.count;
        job->has_started = false;
        /* In front: behind it may stand its model's end, which comes after the job's. */
        if (job->has_tokens || job->has_finished)
            source_push_front(e, &job->source);
        return;
    }
    poll_tokens(e, job, ev);
    if (!job->has_finished) {
        ev->kind = ENGINE_EVENT_TOKENS;
        return;
    }
    ev->kind = ENGINE_EVENT_FINISHED;
    ev->finish = job->finish;
    ev->error = job->error;
    memcpy(ev->error_text, job->error_text.text, sizeof ev->error_text);
    memcpy(ev->logits_sha256, job->out_sha256, sizeof ev->logits_sha256);
    forget_job(e, job);
}

static void forget_model(struct engine *e, struct engine_model_state *model)
{
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i] == model) {
            e->models[i] = e->models[--e->n_models];
            return;
        }
    CHECK(false);
}

/* True: it was the model's last event, and the caller's to free without the lock. */
static bool poll_model(struct engine *e, struct engine_model_state *model, struct engine_event *ev)
{
    *ev = (struct engine_event){.model_id = model->model_id, .text = ""};
    if (model->has_ready) {
        ev->kind = ENGINE_EVENT_MODEL_READY;
        ev->weights_bytes = model->ready.weights_bytes;
        ev->kv_bytes = model->ready.kv_bytes;
        ev->scratch_bytes = model->ready.scratch_bytes;
        ev->exchange_bytes = model->ready.exchange_bytes;
        ev->context_tokens = model->ready.context_tokens;
        ev->load_ms = model->load_ms;
        model->has_ready = false;
        /* Behind its jobs, all of which stand in line by now. */
        if (model->has_gone || model->has_failed)
            source_push(e, &model->source);
        return false;
    }
    ev->kind = ENGINE_EVENT_MODEL_GONE;
    if (model->has_failed) {
        ev->kind = ENGINE_EVENT_MODEL_FAILED;
        ev->error = model->error;
        memcpy(ev->error_text, model->error_text.text, sizeof ev->error_text);
    }
    forget_model(e, model);
    return true;
}

bool engine_poll(struct engine *e, struct engine_event *ret_event)
{
    struct engine_model_state *over = NULL;
    struct source *source;

    engine_lock(e);
    source = source_pop(e);
    if (source != NULL && source->kind == SOURCE_KIND_JOB)
        poll_job(e, (struct engine_job_state *)source, ret_event);
    else if (source != NULL && poll_model(e, (struct engine_model_state *)source, ret_event))
        over = (struct engine_model_state *)source;
    /* Pushing back what has more to say is no news for the caller, who is here. */
    e->notify_due = false;
    engine_unlock(e);
    model_free(over);
    return source != NULL;
}
