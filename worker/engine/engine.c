/* The caller's side of the engine, and its beginning and end. */
#include "worker/engine/engine_internal.h"
#include "worker/engine/runtime_backend.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

/* The request's copies: all text, and ids up to a full context twice. */
#define JOB_ARENA_BYTES   (LIMIT_PROMPT_BYTES + (24u << 20))
#define JOB_LASTING_BYTES (64u << 10)

void engine_lock(struct engine *e)
{
    CHECK(pthread_mutex_lock(&e->lock) == 0);
}

void engine_unlock(struct engine *e)
{
    bool notify = e->notify_due;

    e->notify_due = false;
    CHECK(pthread_mutex_unlock(&e->lock) == 0);
    if (notify && e->config.notify != NULL)
        e->config.notify(e->config.notify_arg);
}

struct engine_model_state *engine_model_find(struct engine *e, uint32_t model_id)
{
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i]->model_id == model_id)
            return e->models[i];
    return NULL;
}

void job_list_init(struct job_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

void job_list_push(struct job_list *list, struct engine_job_state *job)
{
    job->next = NULL;
    *list->last = job;
    list->last = &job->next;
}

struct engine_job_state *job_list_pop(struct job_list *list)
{
    struct engine_job_state *job = list->first;

    if (job != NULL) {
        list->first = job->next;
        if (list->first == NULL)
            list->last = &list->first;
    }
    return job;
}

void job_free(struct engine_job_state *job)
{
    if (job == NULL)
        return;
    arena_fini(&job->arena);
    arena_fini(&job->lasting);
    logprob_list_fini(&job->held_logprobs);
    logprob_list_fini(&job->out_logprobs);
    tokens_fini(&job->ids);
    tokens_fini(&job->started_ids);
    tokens_fini(&job->out_ids);
    tokens_fini(&job->out_text_sizes);
    buf_fini(&job->out_text);
    stream_fini(&job->stream);
    sha256_free(job->digest);
    free(job);
}

void model_free(struct engine_model_state *model)
{
    if (model == NULL)
        return;
    if (model->has_thread)
        CHECK(pthread_join(model->gang_thread, NULL) == 0);
    CHECK(model->runtime == NULL);
    free(model->path);
    free(model->build);
    free(model);
}

/* ---- open and close --------------------------------------------------------------------- */

/* Opens a backend once, so that a forced instruction set or a GPU that the machine lacks is an
 * error now and not at the first model. */
static enum err probe_backend(struct engine *e, struct errbuf *eb)
{
    struct backend *b = NULL;
    enum err err = runtime_backend_open(&b, &e->config, 1, eb);

    if (err != ERR_OK)
        return err;
    e->isa_name = b->ops->name;
    b->ops->close(b);
    return ERR_OK;
}

/* The stepper waits for instants of the clock that nobody sets. */
static void step_wake_init(pthread_cond_t *wake)
{
    pthread_condattr_t attr;

    CHECK(pthread_condattr_init(&attr) == 0);
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(wake, &attr) == 0);
    CHECK(pthread_condattr_destroy(&attr) == 0);
}

enum err engine_open(struct engine **ret_engine, const struct engine_config *config,
                     struct errbuf *eb)
{
    struct engine *e = calloc(1, sizeof *e);
    enum err err;

    if (e == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for an engine");
    err = runtime_config_complete(config, &e->config, eb);
    if (err == ERR_OK)
        err = probe_backend(e, eb);
    if (err != ERR_OK) {
        free(e);
        return err;
    }
    CHECK(pthread_mutex_init(&e->lock, NULL) == 0);
    CHECK(pthread_cond_init(&e->load_wake, NULL) == 0);
    CHECK(pthread_cond_init(&e->prepare_wake, NULL) == 0);
    step_wake_init(&e->step_wake);
    job_list_init(&e->to_prepare);
    job_list_init(&e->prepared);
    int failed = pthread_create(&e->loader, NULL, engine_loader_main, e);
    e->n_threads += failed == 0;
    if (failed == 0)
        failed = pthread_create(&e->preparer, NULL, engine_preparer_main, e);
    e->n_threads += failed == 0;
    if (failed == 0)
        failed = pthread_create(&e->stepper, NULL, engine_stepper_main, e);
    e->n_threads += failed == 0;
    if (failed != 0) {
        engine_close(e);
        return err_set_errno(eb, failed, "cannot start a thread");
    }
    *ret_engine = e;
    return ERR_OK;
}

void engine_close(struct engine *e)
{
    if (e == NULL)
        return;
    engine_lock(e);
    atomic_store(&e->stop, true);
    for (uint32_t i = 0; i < e->n_models; i++)
        atomic_store(&e->models[i]->unload, true);
    pthread_cond_signal(&e->load_wake);
    pthread_cond_signal(&e->prepare_wake);
    pthread_cond_signal(&e->step_wake);
    CHECK(pthread_mutex_unlock(&e->lock) == 0);
    pthread_t threads[] = {e->loader, e->preparer, e->stepper};
    for (uint32_t i = 0; i < e->n_threads; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    /* All threads first: one that ends its model writes to the model's jobs, and to what stands
     * before it in line. */
    for (uint32_t i = 0; i < e->n_models; i++) {
        struct engine_model_state *model = e->models[i];
        if (model->has_thread)
            CHECK(pthread_join(model->gang_thread, NULL) == 0);
        model->has_thread = false;
    }
    for (uint32_t i = 0; i < e->n_jobs; i++)
        job_free(e->jobs[i]);
    for (uint32_t i = 0; i < e->n_models; i++) {
        model_close_stepping(e->models[i]);
        model_free(e->models[i]);
    }
    tokens_fini(&e->polled_ids);
    logprob_list_fini(&e->polled_logprobs);
    tokens_fini(&e->polled_text_sizes);
    buf_fini(&e->polled_text);
    pthread_cond_destroy(&e->load_wake);
    pthread_cond_destroy(&e->prepare_wake);
    pthread_cond_destroy(&e->step_wake);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

const char *engine_isa_name(const struct engine *e)
{
    return e->isa_name;
}

/* ---- models ----------------------------------------------------------------------------- */

/* False when memory is refused. */
static bool model_config_copy(struct engine_model_state *model,
                              const struct engine_model_config *config)
{
    model->path = strdup(config->path);
    model->config = *config;
    model->config.path = model->path;
    if (config->gang == NULL)
        return model->path != NULL;
    model->build = strdup(config->gang->coll.build);
    model->gang = *config->gang;
    model->gang.coll.build = model->build;
    model->config.gang = &model->gang;
    return model->path != NULL && model->build != NULL;
}

enum err engine_load(struct engine *e, uint32_t model_id, const struct engine_model_config *config,
                     struct errbuf *eb)
{
    struct engine_model_state *model = calloc(1, sizeof *model);
    enum err err = ERR_OK;

    if (model == NULL || !model_config_copy(model, config)) {
        model_free(model);
        return err_set(eb, ERR_NO_MEMORY, "no memory for model %u", model_id);
    }
    model->engine = e;
    model->source.kind = SOURCE_KIND_MODEL;
    model->model_id = model_id;
    job_list_init(&model->held);
    engine_lock(e);
    if (engine_model_find(e, model_id) != NULL) {
        err = err_set(eb, ERR_CONFLICT, "model %u is loaded or loading already", model_id);
    } else if (e->n_models == ENGINE_MODELS_MAX) {
        err = err_set(eb, ERR_BUSY, "%u models are loaded already", e->n_models);
    } else if (config->gang != NULL) {
        int failed = pthread_create(&model->gang_thread, NULL, engine_gang_main, model);
        model->has_thread = failed == 0;
        if (failed != 0)
            err = err_set_errno(eb, failed, "cannot start a thread");
        else
            e->models[e->n_models++] = model;
    } else {
        struct engine_model_state **at = &e->to_load;
        while (*at != NULL)
            at = &(*at)->next_to_load;
        *at = model;
        e->models[e->n_models++] = model;
        pthread_cond_signal(&e->load_wake);
    }
    engine_unlock(e);
    if (err != ERR_OK)
        model_free(model);
    return err;
}

enum err engine_unload(struct engine *e, uint32_t model_id, struct errbuf *eb)
{
    struct engine_model_state *model;
    enum err err = ERR_OK;

    engine_lock(e);
    model = engine_model_find(e, model_id);
    if (model == NULL || model->stage == MODEL_STAGE_GONE) {
        err = err_set(eb, ERR_NOT_FOUND, "model %u is not loaded", model_id);
    } else {
        atomic_store(&model->unload, true);
        e->changed = true;
        pthread_cond_signal(&e->step_wake);
    }
    engine_unlock(e);
    return err;
}

void engine_load_read(struct engine *e, uint32_t model_id, struct engine_load_now *ret_load)
{
    struct engine_model_state *model;

    *ret_load = (struct engine_load_now){0};
    engine_lock(e);
    model = engine_model_find(e, model_id);
    if (model != NULL) {
        *ret_load = model->load;
        ret_load->waiting =
            model->n_jobs > ret_load->running ? model->n_jobs - ret_load->running : 0;
        ret_load->queued_tokens += model->unbatched_tokens;
    }
    engine_unlock(e);
}

/* ---- jobs ------------------------------------------------------------------------------- */

static enum err check_request(const struct engine_job *job, struct errbuf *eb)
{
    size_t text = job->text_size;

    if (job->max_tokens == 0 || job->max_tokens > LIMIT_MAX_TOKENS)
        return err_set(eb, ERR_INVALID, "max_tokens is %u; 1 to %u are allowed", job->max_tokens,
                       LIMIT_MAX_TOKENS);
    if (job->n_resume_ids > job->max_tokens)
        return err_set(eb, ERR_INVALID, "%zu resume ids for %u max_tokens", job->n_resume_ids,
                       job->max_tokens);
    if (job->n_prompt_ids > LIMIT_CONTEXT_TOKENS)
        return err_set(eb, ERR_TOO_LARGE, "%zu prompt ids; at most %u are allowed",
                       job->n_prompt_ids, LIMIT_CONTEXT_TOKENS);
    if (job->n_messages > LIMIT_CHAT_MESSAGES)
        return err_set(eb, ERR_TOO_LARGE, "%zu messages; at most %u are allowed", job->n_messages,
                       LIMIT_CHAT_MESSAGES);
    for (size_t i = 0; i < job->n_messages; i++) {
        size_t size = job->messages[i].role_size + job->messages[i].content_size;
        if (size > LIMIT_PROMPT_BYTES || (text += size) > LIMIT_PROMPT_BYTES)
            break;
    }
    if (text > LIMIT_PROMPT_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "the prompt is longer than %u bytes", LIMIT_PROMPT_BYTES);
    if (job->n_stop_tokens > LIMIT_STOP_TOKENS)
        return err_set(eb, ERR_TOO_LARGE, "%zu stop tokens; at most %u are allowed",
                       job->n_stop_tokens, LIMIT_STOP_TOKENS);
    return sampling_check(&job->sampling, eb);
}

/* Copies what the request points to. False when memory is refused. */
static bool copy_request(struct engine_job_state *job, const struct engine_job *from)
{
    struct engine_job *to = &job->request;
    struct chat_message *messages = NULL;
    bool ok;

    *to = *from;
    to->prompt_ids =
        (void *)arena_copy(&job->arena, from->prompt_ids, from->n_prompt_ids * sizeof(int32_t));
    to->resume_ids =
        (void *)arena_copy(&job->arena, from->resume_ids, from->n_resume_ids * sizeof(int32_t));
    to->text = arena_copy(&job->arena, from->text, from->text_size);
    messages = arena_alloc_array(&job->arena, from->n_messages, sizeof *messages);
    ok = to->prompt_ids != NULL && to->resume_ids != NULL && to->text != NULL && messages != NULL;
    if (from->n_stop_tokens > 0) {
        to->stop_tokens = (void *)arena_copy(&job->lasting, from->stop_tokens,
                                             from->n_stop_tokens * sizeof(int32_t));
        ok = ok && to->stop_tokens != NULL;
    }
    if (from->sampling.n_biases > 0) {
        to->sampling.biases =
            (void *)arena_copy(&job->lasting, from->sampling.biases,
                               from->sampling.n_biases * sizeof *from->sampling.biases);
        ok = ok && to->sampling.biases != NULL;
    }
    for (size_t i = 0; ok && i < from->n_messages; i++) {
        messages[i] = from->messages[i];
        messages[i].role =
            arena_copy(&job->arena, from->messages[i].role, from->messages[i].role_size);
        messages[i].content =
            arena_copy(&job->arena, from->messages[i].content, from->messages[i].content_size);
        ok = messages[i].role != NULL && messages[i].content != NULL;
    }
    to->messages = messages;
    to->stops = NULL; /* the stream has them */
    return ok;
}

static enum err job_new(struct engine_job_state **ret_job, const struct engine_job *request,
                        struct errbuf *eb)
{
    struct engine_job_state *job;
    enum err err = check_request(request, eb);

    if (err != ERR_OK)
        return err;
    job = calloc(1, sizeof *job);
    if (job == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a job");
    job->source.kind = SOURCE_KIND_JOB;
    arena_init(&job->arena, JOB_ARENA_BYTES);
    arena_init(&job->lasting, JOB_LASTING_BYTES);
    buf_init(&job->out_text);
    err = stream_init(&job->stream, request->stops, request->n_stops, eb);
    if (err == ERR_OK && !copy_request(job, request))
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a job's prompt");
    if (err == ERR_OK && request->want_logits_digest) {
        job->digest = sha256_new();
        if (job->digest == NULL)
            err = err_set(eb, ERR_NO_MEMORY, "no memory for a digest");
    }
    if (err != ERR_OK) {
        job_free(job);
        return err;
    }
    job->submitted_ns = clock_mono_ns();
    job->usage.resumed_tokens = (uint32_t)request->n_resume_ids;
    job->usage.completion_tokens = (uint32_t)request->n_resume_ids;
    job->counted_tokens = request->max_tokens + request->n_prompt_ids;
    *ret_job = job;
    return ERR_OK;
}

static struct engine_job_state *job_find(struct engine *e, uint64_t job_id)
{
    for (uint32_t i = 0; i < e->n_jobs; i++)
        if (e->jobs[i]->request.job_id == job_id)
            return e->jobs[i];
    return NULL;
}

enum err engine_submit(struct engine *e, const struct engine_job *request, struct errbuf *eb)
{
    struct engine_job_state *job = NULL;
    struct engine_model_state *model;
    enum err err = job_new(&job, request, eb);

    if (err != ERR_OK)
        return err;
    engine_lock(e);
    model = engine_model_find(e, request->model_id);
    if (model == NULL)
        err = err_set(eb, ERR_NOT_FOUND, "model %u is not loaded", request->model_id);
    else if (model->stage == MODEL_STAGE_GONE || atomic_load(&model->unload))
        err = err_set(eb, ERR_UNAVAILABLE, "model %u is being unloaded", request->model_id);
    else if (model_follows(model))
        err = err_set(eb, ERR_UNAVAILABLE,
                      "model %u is rank %u of a gang here: rank 0 takes its jobs",
                      request->model_id, model->gang.coll.rank);
    else if (job_find(e, request->job_id) != NULL)
        err = err_set(eb, ERR_CONFLICT, "job %llu is running already",
                      (unsigned long long)request->job_id);
    else if (e->n_jobs == ENGINE_JOBS_MAX)
        err = err_set(eb, ERR_BUSY, "%u jobs are here already; try again when one has ended",
                      e->n_jobs);
    if (err == ERR_OK) {
        job->model = model;
        e->jobs[e->n_jobs++] = job;
        model->n_jobs++;
        model->unbatched_tokens += job->counted_tokens;
        if (model->stage == MODEL_STAGE_READY) {
            job_list_push(&e->to_prepare, job);
            pthread_cond_signal(&e->prepare_wake);
        } else {
            job_list_push(&model->held, job);
        }
    }
    engine_unlock(e);
    if (err != ERR_OK)
        job_free(job);
    return err;
}

/* A job that waits for its model is on no thread's hands: it ends here. */
static void cancel_held(struct engine *e, struct engine_job_state *job)
{
    struct job_list *held = &job->model->held, kept;
    struct engine_job_state *other;
    bool found = false;

    job_list_init(&kept);
    while ((other = job_list_pop(held)) != NULL) {
        found = found || other == job;
        if (other != job)
            job_list_push(&kept, other);
    }
    job_list_init(held);
    while ((other = job_list_pop(&kept)) != NULL)
        job_list_push(held, other);
    if (found)
        job_end_locked(e, job, ENGINE_FINISH_CANCELLED, ERR_OK, "");
}

void engine_cancel(struct engine *e, uint64_t job_id)
{
    struct engine_job_state *job;

    engine_lock(e);
    job = job_find(e, job_id);
    if (job != NULL && !job->ended) {
        atomic_store(&job->cancelled, true);
        e->changed = true;
        pthread_cond_signal(&e->step_wake);
        if (job->model->stage == MODEL_STAGE_LOADING)
            cancel_held(e, job);
    }
    engine_unlock(e);
}
