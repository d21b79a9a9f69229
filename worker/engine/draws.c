#include "worker/engine/draws.h"

#include "worker/engine/forward.h"

#include <stdatomic.h>
#include <stdlib.h>

enum err draws_open(struct draws *ret_draws, const struct runtime *runtime, enum backend_isa isa,
                    struct errbuf *eb)
{
    uint32_t n_vocab = runtime->hparams.vocab_size;
    struct draws d = {
        .sampling = calloc(runtime->logits_rows, sizeof *d.sampling),
        .rows = calloc(runtime->logits_rows, sizeof *d.rows),
        .ids = calloc(runtime->logits_rows, sizeof *d.ids),
        .logprobs = calloc(runtime->logits_rows, sizeof *d.logprobs),
    };
    bool failed = d.sampling == NULL || d.rows == NULL || d.ids == NULL || d.logprobs == NULL;

    while (d.n_samplers < runtime->drawers && !failed) {
        struct sampler *sampler = sampler_new(n_vocab, sample_kernels_of(isa));
        failed = sampler == NULL;
        if (!failed)
            d.samplers[d.n_samplers++] = sampler;
    }
    *ret_draws = d;
    return failed ? err_set(eb, ERR_NO_MEMORY, "no memory for %u samplers over %u tokens",
                            runtime->drawers, n_vocab)
                  : ERR_OK;
}

void draws_close(struct draws *d)
{
    for (uint32_t i = 0; i < d->n_samplers; i++)
        sampler_free(d->samplers[i]);
    free(d->sampling);
    free(d->rows);
    free(d->ids);
    free(d->logprobs);
    *d = (struct draws){0};
}

struct drawing {
    struct draws *draws;
    struct runtime *runtime;
    const struct batch_plan *plan;
    uint32_t n_rows;
    _Atomic uint32_t next;
};

static void draw_row(const struct drawing *d, struct sampler *sampler, uint32_t row)
{
    const struct batch_seq *seq = d->plan->logits_seq[row];
    const struct sampling *sampling = d->draws->sampling[row];
    const float *logits = forward_logits(d->runtime, row);
    uint32_t n_ids;
    const int32_t *ids = batch_ids(seq, &n_ids);
    int32_t id = sampler_draw(sampler, sampling, logits, ids, n_ids, n_ids);

    d->draws->ids[row] = id;
    if (sampling->logprobs)
        sampler_logprobs(sampler, logits, id, sampling->top_logprobs, &d->draws->logprobs[row]);
}

/* One drawer: takes rows until there are none. */
static void draw_task(void *ctx, uint32_t task, uint32_t thread)
{
    struct drawing *d = ctx;
    uint32_t at;

    (void)thread;
    while ((at = atomic_fetch_add(&d->next, 1)) < d->n_rows)
        draw_row(d, d->draws->samplers[task], d->draws->rows[at]);
}

bool draws_are_greedy(const struct draws *d, const struct batch_plan *plan)
{
    for (uint32_t i = 0; i < plan->n_logits; i++)
        if (!sampling_is_greedy(d->sampling[i]))
            return false;
    return true;
}

void draws_step(struct draws *d, struct runtime *runtime, const struct batch_plan *plan)
{
    struct backend *backend = runtime->backend;
    struct drawing drawing = {.draws = d, .runtime = runtime, .plan = plan};

    if (runtime->only_best) {
        for (uint32_t i = 0; i < plan->n_logits; i++)
            d->ids[i] = forward_best(runtime, i);
        return;
    }
    for (uint32_t i = 0; i < plan->n_logits; i++)
        if (plan->draw[i])
            d->rows[drawing.n_rows++] = i;
    backend->ops->share(backend, draw_task, &drawing,
                        drawing.n_rows < d->n_samplers ? drawing.n_rows : d->n_samplers);
}
