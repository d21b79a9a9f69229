/* The stepper's draws: the rows of a step are shared out between the backend's threads. */
#include "worker/engine/engine_internal.h"

#include "worker/engine/forward.h"

struct draw_row {
    struct engine_job_state *job;
    const float *logits;
    uint32_t index; /* of the row of logits */
};

struct drawing {
    struct engine_model_state *model;
    const struct draw_row *rows;
    uint32_t n_rows;
    _Atomic uint32_t next;
};

/* One drawer: takes rows until there are none. Which one takes which decides nothing. */
static void draw_task(void *ctx, uint32_t task, uint32_t thread)
{
    struct drawing *d = ctx;
    struct sampler *sampler = d->model->samplers[task];
    uint32_t at;

    (void)thread;
    while ((at = atomic_fetch_add(&d->next, 1)) < d->n_rows) {
        const struct draw_row *row = &d->rows[at];
        const struct sampling *sampling = &row->job->request.sampling;
        uint32_t n_ids;
        const int32_t *ids = batch_ids(row->job->seq, &n_ids);
        int32_t id = sampler_draw(sampler, sampling, row->logits, ids, n_ids, n_ids);
        d->model->drawn[row->index] = id;
        if (sampling->logprobs)
            sampler_logprobs(sampler, row->logits, id, sampling->top_logprobs,
                             &d->model->logprobs[row->index]);
    }
}

void model_draw(struct engine_model_state *model, const struct batch_plan *plan)
{
    struct runtime *r = model->runtime;
    struct draw_row rows[ENGINE_JOBS_MAX]; /* a job draws once a step */
    struct drawing d = {.model = model, .rows = rows};

    for (uint32_t i = 0; i < plan->n_logits; i++) {
        struct engine_job_state *job = batch_owner(plan->logits_seq[i]);
        const float *logits = forward_logits(r, i);
        if (job->digest != NULL)
            sha256_update(job->digest, logits, r->hparams.vocab_size * sizeof *logits);
        if (plan->draw[i])
            rows[d.n_rows++] = (struct draw_row){.job = job, .logits = logits, .index = i};
    }
    r->backend->ops->share(r->backend, draw_task, &d,
                           d.n_rows < r->drawers ? d.n_rows : r->drawers);
}
