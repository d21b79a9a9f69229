/* The stepper: owns every model that is ready, and computes one step of each in turn. */
#include "worker/engine/engine_internal.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/engine/forward.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* Rates forget: when more than this much work is in one, half of it goes. */
#define RATE_WINDOW_NS 4000000000ull
/* How often an idle stepper looks after the ranks it leads. */
#define GANG_LOOK_NS 100000000

void job_end_locked(struct engine *e, struct engine_job_state *job, enum engine_finish finish,
                    enum err error, const char *text)
{
    struct engine_model_state *model = job->model;

    job->finish = finish;
    job->error = error;
    if (error != ERR_OK)
        (void)err_set(&job->error_text, error, "%s", text);
    if (job->digest != NULL) {
        sha256_finish(job->digest, job->out_sha256);
        job->digest = NULL;
    }
    model->n_jobs--;
    model->unbatched_tokens -= job->counted_tokens;
    job->counted_tokens = 0;
    events_job_finished(e, job);
    if (model->n_jobs == 0 && atomic_load(&model->unload)) {
        e->changed = true;
        pthread_cond_signal(&e->step_wake);
    }
}

/* ---- what placement is told ------------------------------------------------------------- */

static uint32_t rate_per_s(const struct rate *rate)
{
    return rate->ns == 0 ? 0 : (uint32_t)(rate->tokens * 1000000000ull / rate->ns);
}

static void model_publish_locked(struct engine_model_state *model)
{
    struct batch_state state = batch_state(model->batch);

    model->load.running = state.running;
    model->load.queued_tokens = state.queued_tokens;
    model->load.kv_pages_free = state.pages_free;
    model->load.prefill_tokens_per_s = rate_per_s(&model->prefill);
    model->load.decode_tokens_per_s = rate_per_s(&model->decode);
}

/* Why a model that goes ends its jobs; what is written there is the stepper's own. */
static const char *model_end_text(const struct engine_model_state *model)
{
    return model->broken ? model->error_text.text : "the model was unloaded";
}

/* ---- one job ---------------------------------------------------------------------------- */

static void job_times(struct engine_job_state *job, uint64_t now)
{
    uint64_t first = job->first_token_ns != 0 ? job->first_token_ns : now;

    job->usage.prefill_us = (first - job->admitted_ns) / 1000;
    job->usage.decode_us = (now - first) / 1000;
}

/* What a preemption made it compute again does not count again. */
static void job_count_prompt(struct engine_job_state *job)
{
    uint32_t done = batch_computed(job->seq), cached = batch_cached(job->seq);

    done = done < job->n_prompt ? done : job->n_prompt;
    job->usage.prompt_cached = cached < done ? cached : done;
    job->usage.prompt_computed = done - job->usage.prompt_cached;
}

/* Hands out what the stream lets go. */
static enum err job_give(struct engine *e, struct engine_job_state *job)
{
    struct stream_piece piece;
    uint32_t n_ids;
    const int32_t *completion = batch_ids(job->seq, &n_ids) + job->n_prompt;
    enum err err;

    if (!stream_take(&job->stream, &piece))
        return ERR_OK;
    engine_lock(e);
    err = events_job_piece(e, job, completion + piece.first, &piece);
    engine_unlock(e);
    if (err != ERR_OK) /* not handed out, so it does not count */
        stream_put_back(&job->stream);
    return err;
}

/* Takes the job out of the batch and tells its end. */
static void job_finish(struct engine *e, struct engine_job_state *job, enum engine_finish finish,
                       enum err error, const char *text)
{
    if (job->running) {
        job_count_prompt(job);
        job_times(job, clock_mono_ns());
        if (finish != ENGINE_FINISH_ERROR) {
            stream_end(&job->stream);
            if (job_give(e, job) != ERR_OK) {
                finish = ENGINE_FINISH_ERROR;
                error = ERR_NO_MEMORY;
                text = "no memory for the answer's text";
            }
        }
        if (finish == ENGINE_FINISH_ERROR)
            job->usage.completion_tokens = job->stream.taken;
    }
    batch_remove(job->model->batch, job->seq);
    job->seq = NULL;
    engine_lock(e);
    /* Whoever sees the job's end sees its pages free. */
    model_publish_locked(job->model);
    job_end_locked(e, job, finish, error, text);
    engine_unlock(e);
}

/* The token that is drawn again because only the digest was missing. */
static void job_redrawn(struct engine *e, struct engine_job_state *job, int32_t id)
{
    if (id == job->redraw_id)
        job_finish(e, job, job->finish, ERR_OK, "");
    else
        job_finish(e, job, ENGINE_FINISH_ERROR, ERR_CONFLICT,
                   "the resume ids are not those that this job draws");
}

static void job_token(struct engine *e, struct engine_job_state *job, int32_t id,
                      const struct sampling_logprobs *logprobs, uint64_t now)
{
    struct engine_model_state *model = job->model;
    const struct tokenizer *t = model->runtime->tokenizer;
    bool is_end = job_is_end(job, id);
    struct buf bytes;
    enum err err;

    if (job->first_token_ns == 0)
        job->first_token_ns = now;
    if (job->redraw) {
        job_redrawn(e, job, id);
        return;
    }
    job->usage.completion_tokens++;
    job_count_prompt(job);
    job_times(job, now);
    buf_init(&bytes);
    if (!is_end)
        tokenizer_decode(t, id, false, false, &bytes);
    err = bytes.failed ? ERR_NO_MEMORY : stream_push(&job->stream, bytes.data, bytes.size);
    buf_fini(&bytes);
    if (err == ERR_OK && job->request.sampling.logprobs &&
        !logprob_list_add(&job->held_logprobs, t, logprobs))
        err = ERR_NO_MEMORY;
    if (err == ERR_OK && (is_end || stream_stopped(&job->stream))) {
        job_finish(e, job, ENGINE_FINISH_STOP, ERR_OK, "");
        return;
    }
    if (err == ERR_OK && batch_full(job->seq)) {
        job_finish(e, job, ENGINE_FINISH_LENGTH, ERR_OK, "");
        return;
    }
    if (err == ERR_OK)
        err = job_give(e, job);
    if (err != ERR_OK)
        job_finish(e, job, ENGINE_FINISH_ERROR, err, "no memory for the answer's text");
}

/* ---- one model -------------------------------------------------------------------------- */

static void model_add(struct engine *e, struct engine_job_state *job)
{
    struct engine_model_state *model = job->model;
    uint64_t limit = (uint64_t)job->n_prompt + job->request.max_tokens;
    struct errbuf eb = {{0}};
    struct batch_job add = {
        .owner = job,
        .ids = job->ids.ids,
        .n_ids = (uint32_t)job->ids.count,
        .logits_from = job->digest != NULL ? job->n_prompt - 1 : (uint32_t)job->ids.count - 1,
        .job_class = job->request.job_class,
        .space = job->request.space,
    };

    add.n_limit =
        limit < model->runtime->context_tokens ? (uint32_t)limit : model->runtime->context_tokens;
    if (job->redraw)
        add.n_limit = add.n_ids + 1;
    enum err err = ERR_OK;
    if (atomic_load(&model->unload))
        err = err_set(&eb, ERR_UNAVAILABLE, "%s", model_end_text(model));
    else
        err = batch_add(model->batch, &add, &job->seq, &eb);
    engine_lock(e);
    if (err != ERR_OK) {
        job_end_locked(e, job, ENGINE_FINISH_ERROR, err, eb.text);
    } else {
        job->in_batch = true;
        model->unbatched_tokens -= job->counted_tokens;
        job->counted_tokens = 0;
    }
    engine_unlock(e);
}

static void model_admit(struct engine *e, struct engine_model_state *model)
{
    struct batch_seq *seq;

    while ((seq = batch_admit(model->batch)) != NULL) {
        struct engine_job_state *job = batch_owner(seq);
        if (job->running)
            continue; /* it was preempted, and nobody but the batch needs to know */
        job->running = true;
        job->admitted_ns = clock_mono_ns();
        job->usage.queue_us = (job->admitted_ns - job->submitted_ns) / 1000;
        job_count_prompt(job);
        engine_lock(e);
        events_job_started(e, job);
        engine_unlock(e);
    }
}

static void rate_add(struct rate *rate, uint64_t tokens, uint64_t ns)
{
    rate->tokens += tokens;
    rate->ns += ns;
    while (rate->ns > RATE_WINDOW_NS) {
        rate->tokens /= 2;
        rate->ns /= 2;
    }
}

/* What is asked of the step's logits; where that is little, they stay where they are. */
void model_want(void *ctx, struct draws *draws, const struct batch_plan *plan)
{
    (void)ctx;
    for (uint32_t i = 0; i < plan->n_logits; i++) {
        const struct engine_job_state *job = batch_owner(plan->logits_seq[i]);
        draws->sampling[i] = &job->request.sampling;
        draws->whole[i] = job->digest != NULL;
    }
}

static void model_digest(struct engine_model_state *model, const struct batch_plan *plan)
{
    struct runtime *r = model->runtime;

    for (uint32_t i = 0; i < plan->n_logits; i++) {
        const struct engine_job_state *job = batch_owner(plan->logits_seq[i]);
        if (job->digest != NULL)
            sha256_update(job->digest, forward_logits(r, i), r->hparams.vocab_size * sizeof(float));
    }
}

/* Begins a step where one can and may be, and hands out the tokens of one that has ended; false
 * where none is under way. */
static bool model_step(struct engine *e, struct engine_model_state *model, bool may_plan)
{
    const struct batch_plan *plan;
    struct errbuf eb;

    if (may_plan)
        model_admit(e, model);
    enum err err = steps_turn(&model->steps, may_plan, &plan, &eb);
    if (err != ERR_OK) {
        model_break(e, model, err, &eb);
        return true;
    }
    if (plan == NULL)
        return model->steps.n > 0;
    model_digest(model, plan);
    const uint64_t took_ns = steps_commit(&model->steps);

    uint64_t now = clock_mono_ns();
    uint32_t n_decode = plan->n_rows - plan->n_prompt;
    /* A step counts for the kind of work it has most of: sharing its time out by rows would make
     * a decode beside a long prompt look fast. */
    if (plan->n_prompt > n_decode)
        rate_add(&model->prefill, plan->n_prompt, took_ns);
    else
        rate_add(&model->decode, n_decode, took_ns);
    /* A sequence draws once in a step, so none that has ended is met again. */
    for (uint32_t i = 0; i < plan->n_logits; i++)
        if (plan->draw[i])
            job_token(e, batch_owner(plan->logits_seq[i]), model->draws.ids[i],
                      &model->draws.logprobs[i], now);
    engine_lock(e);
    model_publish_locked(model);
    engine_unlock(e);
    return true;
}

static bool model_has_work(const struct engine_model_state *model)
{
    const struct batch_state state = batch_state(model->batch);

    return state.running + state.waiting > 0;
}

/* A model's turn: one step, which, with stages, leaves others under way. While another model
 * computes, this one's ranks would have to wait for that without knowing why; so where there is one
 * that has work, a turn is as many steps as can be under way at a time, and ends when they have. */
static bool model_turn(struct engine *e, struct engine_model_state *model, bool has_others)
{
    bool is_busy = model_step(e, model, true);

    for (uint32_t i = 1; has_others && is_busy && model->steps.n > 0; i++)
        is_busy = model_step(e, model, i < model->steps.max);
    return is_busy;
}

/* False where none has anything to do. */
static bool models_turn(struct engine *e, struct engine_model_state *const models[], uint32_t n)
{
    uint32_t n_working = 0;
    bool is_busy = false;

    for (uint32_t i = 0; n > 1 && i < n; i++)
        n_working += model_has_work(models[i]);
    /* What was left under way while there was one. */
    for (uint32_t i = 0; n_working > 1 && i < n; i++)
        while (models[i]->steps.n > 0)
            (void)model_step(e, models[i], false);
    for (uint32_t i = 0; i < n; i++) {
        if (model_turn(e, models[i], n_working > 1))
            is_busy = true;
        else
            model_gang_idle(e, models[i], clock_mono_ns());
    }
    return is_busy;
}

/* ---- the thread ------------------------------------------------------------------------- */

/* Jobs in the batch that are to end: cancelled ones, and all of a model that is unloaded, whose
 * steps are given up. True where some cannot yet, since they are in a step under way. */
static bool end_jobs(struct engine *e)
{
    struct engine_job_state *jobs[ENGINE_JOBS_MAX];
    uint32_t n = 0;
    bool has_more = false;

    engine_lock(e);
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i]->stage == MODEL_STAGE_READY && atomic_load(&e->models[i]->unload))
            steps_abandon(&e->models[i]->steps);
    for (uint32_t i = 0; i < e->n_jobs; i++) {
        struct engine_job_state *job = e->jobs[i];
        if (!job->in_batch || job->ended ||
            (!atomic_load(&job->cancelled) && !atomic_load(&job->model->unload)))
            continue;
        if (batch_is_under_way(job->seq))
            has_more = true;
        else
            jobs[n++] = job;
    }
    engine_unlock(e);
    for (uint32_t i = 0; i < n; i++) {
        if (atomic_load(&jobs[i]->cancelled))
            job_finish(e, jobs[i], ENGINE_FINISH_CANCELLED, ERR_OK, "");
        else
            job_finish(e, jobs[i], ENGINE_FINISH_ERROR, ERR_UNAVAILABLE,
                       model_end_text(jobs[i]->model));
    }
    return has_more;
}

static void take_prepared(struct engine *e, struct job_list *jobs)
{
    struct engine_job_state *job;

    while ((job = job_list_pop(jobs)) != NULL)
        model_add(e, job);
}

/* Frees models that are to go and have no job left. */
static void unload_models(struct engine *e)
{
    struct engine_model_state *models[ENGINE_MODELS_MAX];
    uint32_t n = 0;

    engine_lock(e);
    for (uint32_t i = 0; i < e->n_models; i++)
        if (e->models[i]->stage == MODEL_STAGE_READY && atomic_load(&e->models[i]->unload) &&
            e->models[i]->n_jobs == 0 && !model_follows(e->models[i]))
            models[n++] = e->models[i];
    engine_unlock(e);
    for (uint32_t i = 0; i < n; i++) {
        model_close_stepping(models[i]);
        engine_lock(e);
        models[i]->stage = MODEL_STAGE_GONE;
        if (!models[i]->broken)
            models[i]->error = ERR_OK;
        events_model(e, models[i],
                     models[i]->broken ? &models[i]->has_failed : &models[i]->has_gone);
        engine_unlock(e);
    }
}

/* [lock] Until something is to do. The ranks of a gang hear of rank 0 also when nothing is. */
static void stepper_wait(struct engine *e)
{
    struct timespec until;
    bool leads = false;

    for (uint32_t i = 0; i < e->n_models; i++)
        leads = leads || (e->models[i]->stage == MODEL_STAGE_READY &&
                          e->models[i]->config.gang != NULL && !model_follows(e->models[i]));
    if (!leads) {
        CHECK(pthread_cond_wait(&e->step_wake, &e->lock) == 0);
        return;
    }
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_nsec += GANG_LOOK_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    int waited = pthread_cond_timedwait(&e->step_wake, &e->lock, &until);
    CHECK(waited == 0 || waited == ETIMEDOUT);
}

void *engine_stepper_main(void *arg)
{
    struct engine *e = arg;
    bool busy = false, must_end = false; /* jobs that could not end yet */

    for (;;) {
        struct engine_model_state *models[ENGINE_MODELS_MAX];
        struct job_list prepared;
        uint32_t n_models = 0;
        bool changed;
        job_list_init(&prepared);
        engine_lock(e);
        if (!busy && !e->changed && e->prepared.first == NULL && !atomic_load(&e->stop))
            stepper_wait(e);
        changed = e->changed;
        e->changed = false;
        for (struct engine_job_state *job; (job = job_list_pop(&e->prepared)) != NULL;)
            job_list_push(&prepared, job);
        engine_unlock(e);
        if (atomic_load(&e->stop))
            return NULL;
        take_prepared(e, &prepared);
        /* After the prepared ones: a job that was cancelled on its way here is in the batch now,
         * and its mark was made before or together with `changed`. */
        if (changed || must_end) {
            must_end = end_jobs(e);
            unload_models(e);
        }
        engine_lock(e);
        for (uint32_t i = 0; i < e->n_models; i++)
            if (e->models[i]->stage == MODEL_STAGE_READY && !atomic_load(&e->models[i]->unload) &&
                !model_follows(e->models[i]))
                models[n_models++] = e->models[i];
        engine_unlock(e);
        busy = models_turn(e, models, n_models);
    }
}
