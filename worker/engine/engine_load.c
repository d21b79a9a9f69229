/* The loader: one thread that turns files into runtimes, one after the other. */
#include "worker/engine/engine_internal.h"

#include "common/check.h"
#include "common/clock.h"

#include <stdlib.h>

/* Tokens that each running job may draw before another's admission could cost it its pages. */
#define HEADROOM_PAGES 4u
/* Jobs of a better class that may pass one that waits. */
#define PASS_MAX 16u

/* What steps a runtime: the batch, and what draws. */
static enum err open_stepping(struct engine *e, struct engine_model_state *model, struct errbuf *eb)
{
    const struct runtime *r = model->runtime;
    const struct batch_config config = {
        .slots = e->config.sequences,
        .waiting_max = ENGINE_JOBS_MAX,
        .pages = r->kv_pages,
        .page_tokens = KV_PAGE_TOKENS,
        .context_tokens = r->context_tokens,
        .step_tokens = e->config.step_tokens,
        .chunk_tokens = e->config.chunk_tokens,
        .beside_tokens = e->config.beside_tokens,
        .logits_rows = r->logits_rows,
        .headroom_pages = HEADROOM_PAGES,
        .pass_max = PASS_MAX,
        .plans_max = steps_max(r),
    };
    enum err err = batch_new(&model->batch, &config, eb);

    if (err != ERR_OK)
        return err;
    steps_init(&model->steps, model->batch, model->runtime, &model->draws, model_want, NULL);
    return draws_open(&model->draws, r, e->config.isa, eb);
}

void model_close_stepping(struct engine_model_state *model)
{
    runtime_close(model->runtime);
    batch_free(model->batch);
    draws_close(&model->draws);
    model->runtime = NULL;
    model->batch = NULL;
}

static void load_done(struct engine *e, struct engine_model_state *model)
{
    const struct runtime *r = model->runtime;
    struct engine_job_state *job;

    model->stage = MODEL_STAGE_READY;
    model->ready.weights_bytes = r->weights_bytes;
    model->ready.kv_bytes = r->kv_bytes;
    model->ready.scratch_bytes = r->scratch_bytes;
    model->ready.exchange_bytes = r->exchange_bytes;
    model->ready.context_tokens = r->context_tokens;
    model->load.kv_pages = model->load.kv_pages_free = r->kv_pages;
    while ((job = job_list_pop(&model->held)) != NULL)
        job_list_push(&e->to_prepare, job);
    pthread_cond_signal(&e->prepare_wake);
    pthread_cond_signal(&e->step_wake); /* rank 0 of a gang is to be heard from now on */
    events_model(e, model, &model->has_ready);
}

static void load_failed(struct engine *e, struct engine_model_state *model)
{
    struct engine_job_state *job;

    while ((job = job_list_pop(&model->held)) != NULL)
        job_end_locked(e, job, ENGINE_FINISH_ERROR, ERR_UNAVAILABLE,
                       atomic_load(&model->unload) ? "the model was unloaded"
                                                   : model->error_text.text);
    model->stage = MODEL_STAGE_GONE;
    events_model(e, model, atomic_load(&model->unload) ? &model->has_gone : &model->has_failed);
}

bool load_model(struct engine *e, struct engine_model_state *model)
{
    uint64_t start = clock_mono_ms();
    enum err err = runtime_open(&model->runtime, &e->config, &model->config, &model->unload,
                                &model->error_text);

    if (err == ERR_OK && !model_follows(model))
        err = open_stepping(e, model, &model->error_text);
    if (err != ERR_OK && model->runtime != NULL && model->runtime->gang != NULL)
        gang_abort(model->runtime->gang, model->error_text.text);
    if (err != ERR_OK || atomic_load(&model->unload))
        model_close_stepping(model);
    engine_lock(e);
    model->error = err;
    model->load_ms = clock_mono_ms() - start;
    /* Unloaded in between: the runtime is here still, and the stepper takes it from now on. */
    const bool is_ready = model->runtime != NULL;
    if (is_ready)
        load_done(e, model);
    else
        load_failed(e, model);
    if (atomic_load(&model->unload)) {
        e->changed = true;
        pthread_cond_signal(&e->step_wake);
    }
    engine_unlock(e);
    return is_ready;
}

void *engine_loader_main(void *arg)
{
    struct engine *e = arg;

    for (;;) {
        engine_lock(e);
        while (e->to_load == NULL && !atomic_load(&e->stop))
            CHECK(pthread_cond_wait(&e->load_wake, &e->lock) == 0);
        struct engine_model_state *model = e->to_load;
        if (model != NULL)
            e->to_load = model->next_to_load;
        engine_unlock(e);
        if (atomic_load(&e->stop))
            return NULL;
        (void)load_model(e, model);
    }
}
