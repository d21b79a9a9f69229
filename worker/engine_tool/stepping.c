#include "worker/engine_tool/stepping.h"

/* Some commands look at the logits themselves. */
static void want_all(void *ctx, struct draws *draws, const struct batch_plan *plan)
{
    const struct stepping *s = ctx;

    for (uint32_t i = 0; i < plan->n_logits; i++) {
        draws->sampling[i] = &s->likeliest;
        draws->whole[i] = true;
    }
}

enum err stepping_open(struct stepping *ret_stepping, const struct engine_config *engine,
                       const struct engine_model_config *model, struct errbuf *eb)
{
    struct stepping *s = ret_stepping;
    struct engine_config config;
    struct engine_model_config own = *model;
    enum err err = runtime_config_complete(engine, &config, eb);

    *s = (struct stepping){.likeliest = sampling_default()};
    if (err == ERR_OK)
        err = ranks_start(&s->ranks, &config, &own, eb);
    if (err == ERR_OK)
        err = ranks_watch(&s->ranks, NULL, NULL, eb);
    if (err == ERR_OK)
        err = runtime_open(&s->runtime, &config, &own, &s->ranks.lost, eb);
    err = ranks_watched(&s->ranks, err, eb);
    if (err != ERR_OK) {
        stepping_close(s);
        return err;
    }
    s->config = (struct batch_config){
        .slots = config.sequences,
        .waiting_max = config.sequences,
        .pages = s->runtime->kv_pages,
        .page_tokens = KV_PAGE_TOKENS,
        .context_tokens = s->runtime->context_tokens,
        .step_tokens = config.step_tokens,
        .chunk_tokens = config.chunk_tokens,
        .beside_tokens = config.beside_tokens,
        .logits_rows = s->runtime->logits_rows,
        .headroom_pages = 0,
        .pass_max = 1,
        .plans_max = steps_max(s->runtime),
    };
    err = batch_new(&s->batch, &s->config, eb);
    if (err == ERR_OK)
        err = draws_open(&s->draws, s->runtime, config.isa, eb);
    if (err != ERR_OK) {
        stepping_close(s);
        return err;
    }
    steps_init(&s->steps, s->batch, s->runtime, &s->draws, want_all, s);
    return ERR_OK;
}

void stepping_close(struct stepping *s)
{
    batch_free(s->batch);
    runtime_close(s->runtime);
    draws_close(&s->draws);
    ranks_join(&s->ranks);
    *s = (struct stepping){0};
}

enum err stepping_step(struct stepping *s, struct batch_plan *ret_plan, struct errbuf *eb)
{
    const struct batch_plan *plan = NULL;
    enum err err = ERR_OK;

    *ret_plan = (struct batch_plan){0};
    do {
        while (batch_admit(s->batch) != NULL)
            continue;
        err = steps_turn(&s->steps, true, &plan, eb);
    } while (err == ERR_OK && plan == NULL && s->steps.n > 0);
    if (err != ERR_OK || plan == NULL)
        return err;
    *ret_plan = *plan;
    (void)steps_commit(&s->steps);
    return ERR_OK;
}
