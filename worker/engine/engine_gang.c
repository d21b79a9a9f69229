/*
 * A model of which this engine holds a share, as a rank of a gang. It has a thread of its own:
 * loading waits for other ranks, which nobody else should wait for; and ranks other than 0 go on to
 * compute what rank 0 tells them, beside whatever the stepper does.
 */
#include "worker/engine/engine_internal.h"

#include "common/check.h"
#include "worker/engine/forward.h"

bool model_follows(const struct engine_model_state *model)
{
    return model->config.gang != NULL && model->gang.coll.rank > 0;
}

/* The gang is over: so is the model here. Its memory is free before anybody hears of it. */
static void follow_end(struct engine *e, struct engine_model_state *model, enum err error,
                       const struct errbuf *eb)
{
    struct runtime *runtime;

    engine_lock(e);
    runtime = model->runtime;
    model->runtime = NULL;
    engine_unlock(e);
    runtime_close(runtime);
    engine_lock(e);
    model->stage = MODEL_STAGE_GONE;
    model->error = error;
    model->error_text = *eb;
    events_model(e, model, atomic_load(&model->unload) ? &model->has_gone : &model->has_failed);
    engine_unlock(e);
}

void *engine_gang_main(void *arg)
{
    struct engine_model_state *model = arg;
    struct engine *e = model->engine;
    struct errbuf eb = {{0}};
    enum err err = ERR_OK;

    /* A model that failed, or that the stepper has now, is not ours to look at: whoever is told
     * that it is gone waits for this thread, and may hold the lock. */
    if (!load_model(e, model) || !model_follows(model))
        return NULL;
    /* Told to unload, it ends by the flag that its gang looks at (coll_config.stop). */
    while (err == ERR_OK)
        err = forward_follow(model->runtime, &eb);
    follow_end(e, model, err, &eb);
    return NULL;
}

void model_gang_idle(struct engine *e, struct engine_model_state *model, uint64_t now_ns)
{
    struct gang *gang = model->runtime->gang;
    struct errbuf eb;

    if (gang == NULL)
        return;
    enum err err = gang_idle(gang, now_ns, &eb);
    if (err != ERR_OK)
        model_break(e, model, err, &eb);
}

void model_break(struct engine *e, struct engine_model_state *model, enum err error,
                 const struct errbuf *eb)
{
    engine_lock(e);
    /* Of a model that is told to go, this is how a step ends: it is gone then, and did not fail. */
    if (!atomic_load(&model->unload)) {
        model->broken = true;
        model->error = error;
        model->error_text = *eb;
        atomic_store(&model->unload, true);
    }
    e->changed = true;
    engine_unlock(e);
}
