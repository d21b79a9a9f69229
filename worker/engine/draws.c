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
        .whole = calloc(runtime->logits_rows, sizeof *d.whole),
        .picks = calloc(runtime->logits_rows, sizeof *d.picks),
        .rows = calloc(runtime->logits_rows, sizeof *d.rows),
        .short_of = calloc(runtime->logits_rows, sizeof *d.short_of),
        .ids = calloc(runtime->logits_rows, sizeof *d.ids),
        .logprobs = calloc(runtime->logits_rows, sizeof *d.logprobs),
    };
    bool failed = d.sampling == NULL || d.whole == NULL || d.picks == NULL || d.rows == NULL ||
                  d.short_of == NULL || d.ids == NULL || d.logprobs == NULL;

    while (d.n_samplers < runtime->drawers && !failed) {
        struct sampler *sampler = sampler_new(n_vocab, sample_kernels_of(isa));
        failed = sampler == NULL;
        if (!failed)
            d.samplers[d.n_samplers++] = sampler;
    }
    if (runtime->picked != NULL && !failed) {
        d.copies = calloc((size_t)d.n_samplers * n_vocab, sizeof *d.copies);
        failed = d.copies == NULL;
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
    free(d->whole);
    free(d->picks);
    free(d->rows);
    free(d->short_of);
    free(d->copies);
    free(d->ids);
    free(d->logprobs);
    *d = (struct draws){0};
}

struct drawing {
    struct draws *draws;
    struct runtime *runtime;
    const struct batch_plan *plan;
    const uint32_t *rows;
    uint32_t n_rows;
    const float *copies; /* [n_rows][vocab_size] of the rows, or NULL: they are where they were */
    _Atomic uint32_t next;
    _Atomic uint32_t n_short;
};

void draws_ask(struct draws *d, struct runtime *runtime, const struct batch_plan *plan)
{
    bool any = false;

    runtime->picks = NULL;
    if (runtime->picked == NULL)
        return;
    for (uint32_t i = 0; i < plan->n_logits; i++) {
        uint32_t n_ids;
        (void)batch_ids(plan->logits_seq[i], &n_ids);
        d->picks[i] = sampling_pick(d->sampling[i], runtime->hparams.vocab_size, n_ids);
        if (d->whole[i])
            d->picks[i].kind = PICK_ROW;
        any = any || d->picks[i].kind != PICK_ROW;
    }
    if (any)
        runtime->picks = d->picks;
}

static void draw_from(const struct drawing *d, struct sampler *sampler, uint32_t row,
                      const float *logits)
{
    const struct sampling *sampling = d->draws->sampling[row];
    uint32_t n_ids;
    const int32_t *ids = batch_ids(d->plan->logits_seq[row], &n_ids);
    int32_t id = sampler_draw(sampler, sampling, logits, ids, n_ids, n_ids);

    d->draws->ids[row] = id;
    if (sampling->logprobs)
        sampler_logprobs(sampler, logits, id, sampling->top_logprobs, &d->draws->logprobs[row]);
}

static void draw_row(struct drawing *d, struct sampler *sampler, uint32_t at)
{
    struct draws *draws = d->draws;
    const uint32_t row = d->rows[at];
    const struct pick *picks = d->runtime->picks;

    if (d->copies != NULL)
        draw_from(d, sampler, row, d->copies + (size_t)at * d->runtime->hparams.vocab_size);
    else if (picks == NULL || picks[row].kind == PICK_ROW)
        draw_from(d, sampler, row, forward_logits(d->runtime, row));
    else if (!sampler_draw_picked(sampler, draws->sampling[row], &picks[row],
                                  forward_picked(d->runtime, row), &draws->ids[row]))
        draws->short_of[atomic_fetch_add(&d->n_short, 1)] = row;
}

/* One drawer: takes rows until there are none. */
static void draw_task(void *ctx, uint32_t task, uint32_t thread)
{
    struct drawing *d = ctx;
    uint32_t at;

    (void)thread;
    while ((at = atomic_fetch_add(&d->next, 1)) < d->n_rows)
        draw_row(d, d->draws->samplers[task], at);
}

static void draw_all(struct drawing *d)
{
    struct backend *backend = d->runtime->backend;
    const uint32_t n_samplers = d->draws->n_samplers;

    backend->ops->share(backend, draw_task, d, d->n_rows < n_samplers ? d->n_rows : n_samplers);
}

/* As many rows at a time as there are who draw. */
static void draw_short(struct draws *d, struct runtime *runtime, const struct batch_plan *plan,
                       uint32_t n_short)
{
    const size_t n_vocab = runtime->hparams.vocab_size;

    for (uint32_t from = 0, n; from < n_short; from += n) {
        n = n_short - from < d->n_samplers ? n_short - from : d->n_samplers;
        for (uint32_t i = 0; i < n; i++)
            forward_logits_read(runtime, d->short_of[from + i], d->copies + i * n_vocab);
        struct drawing drawing = {.draws = d,
                                  .runtime = runtime,
                                  .plan = plan,
                                  .rows = d->short_of + from,
                                  .n_rows = n,
                                  .copies = d->copies};
        draw_all(&drawing);
    }
}

void draws_step(struct draws *d, struct runtime *runtime, const struct batch_plan *plan)
{
    struct drawing drawing = {.draws = d, .runtime = runtime, .plan = plan, .rows = d->rows};

    for (uint32_t i = 0; i < plan->n_logits; i++)
        if (plan->draw[i])
            d->rows[drawing.n_rows++] = i;
    draw_all(&drawing);
    draw_short(d, runtime, plan, drawing.n_short);
}
