#include "worker/engine/forward.h"

#include "common/check.h"

_Static_assert(MODEL_ROPES <= BACKEND_STEP_ROPES_MAX, "a step has room for all tables");

/* A run of a step's rows: all of them, or its last ones. Rows stand one behind the other in every
 * buffer, so a run is an offset. */
struct rows {
    uint32_t first, count;
    struct step_rows step;
};

static struct rows rows_from(const struct batch_plan *plan, uint32_t first)
{
    return (struct rows){
        .first = first,
        .count = plan->n_rows - first,
        .step =
            {
                .n_rows = plan->n_rows - first,
                .position = plan->position + first,
                .sequence = plan->slot + first,
                .page_table = plan->pages,
                .page_table_stride = plan->pages_stride,
            },
    };
}

static float *row_at(float *buffer, const struct rows *rows, uint32_t cols)
{
    return buffer + (size_t)rows->first * cols;
}

/* The job of one matrix of a layer, with its bias where there is one. */
static struct matmul_job part_job(const struct runtime_parts *w, enum model_part matrix,
                                  enum model_part bias, float *out, uint32_t cols)
{
    return (struct matmul_job){
        .weight = w->matrix[matrix], .out = out, .out_stride = cols, .bias = w->vector[bias]};
}

/* norm -> q, k, v in one pass over the input -> rotation -> cache. */
static void forward_qkv(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct model_layer_hparams *l = &h->layer[layer];
    const struct runtime_parts *w = &r->layers[layer];
    struct backend *b = r->backend;
    uint32_t q_cols = l->n_heads * h->head_dim, kv_cols = l->n_kv_heads * h->head_dim;
    float *q = row_at(r->q, rows, q_cols);
    float *k = row_at(r->k, rows, kv_cols), *v = row_at(r->v, rows, kv_cols);
    const struct matmul_job products[] = {
        part_job(w, MODEL_PART_ATTN_Q, MODEL_PART_ATTN_Q_BIAS, q, q_cols),
        part_job(w, MODEL_PART_ATTN_K, MODEL_PART_ATTN_K_BIAS, k, kv_cols),
        part_job(w, MODEL_PART_ATTN_V, MODEL_PART_ATTN_V_BIAS, v, kv_cols),
    };
    const struct rope_kv_job rope = {
        .kv = r->kv[r->shape.cache_of[layer]],
        .layer = r->shape.layer_of[layer],
        .rows = &rows->step,
        .q = q,
        .k = k,
        .v = v,
        .q_norm = w->vector[MODEL_PART_ATTN_Q_NORM],
        .k_norm = w->vector[MODEL_PART_ATTN_K_NORM],
        .norm_eps = h->rms_eps,
        .n_heads = l->n_heads,
        .rope_dim = h->rope_dim,
        .style = h->rope_style,
        .table = rope_table_cells(r->rope[l->rope]),
    };

    b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd,
                 w->vector[MODEL_PART_ATTN_NORM], h->rms_eps, r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, products, 3);
    b->ops->rope_kv(b, &rope);
}

/* The end of a branch: its last matrix, added to the residual as it is, or normed first. */
static void forward_branch(struct runtime *r, const struct rows *rows, const struct act *in,
                           struct matmul_job last, const float *post_norm)
{
    struct backend *b = r->backend;
    uint32_t n_embd = r->hparams.n_embd;
    float *x = row_at(r->x, rows, n_embd);

    last.out_stride = n_embd;
    last.out = post_norm == NULL ? x : row_at(r->branch, rows, n_embd);
    last.accumulate = post_norm == NULL;
    b->ops->matmul(b, in, rows->count, &last, 1);
    if (post_norm != NULL)
        b->ops->norm_add(b, last.out, rows->count, n_embd, post_norm, r->hparams.rms_eps, x);
}

static void forward_attention(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct model_layer_hparams *l = &h->layer[layer];
    const struct runtime_parts *w = &r->layers[layer];
    struct backend *b = r->backend;
    const struct attention_job attention = {
        .kv = r->kv[r->shape.cache_of[layer]],
        .layer = r->shape.layer_of[layer],
        .rows = &rows->step,
        .q = row_at(r->q, rows, l->n_heads * h->head_dim),
        .n_heads = l->n_heads,
        .scale = h->attention_scale,
        .window = l->window,
        .softcap = h->attention_softcap,
        .out = r->act_attention,
    };

    b->ops->attention(b, &attention);
    forward_branch(r, rows, r->act_attention,
                   part_job(w, MODEL_PART_ATTN_OUTPUT, MODEL_PART_ATTN_OUTPUT_BIAS, NULL, 0),
                   w->vector[MODEL_PART_ATTN_POST_NORM]);
}

static void forward_ffn(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct runtime_parts *w = &r->layers[layer];
    struct backend *b = r->backend;
    uint32_t n_ff = h->layer[layer].n_ff;
    float *gate = row_at(r->gate, rows, n_ff), *up = row_at(r->up, rows, n_ff);
    const struct matmul_job products[] = {
        part_job(w, MODEL_PART_FFN_GATE, MODEL_PART_FFN_GATE_BIAS, gate, n_ff),
        part_job(w, MODEL_PART_FFN_UP, MODEL_PART_FFN_UP_BIAS, up, n_ff),
    };

    b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd,
                 w->vector[MODEL_PART_FFN_NORM], h->rms_eps, r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, products, 2);
    b->ops->gate(b, gate, up, rows->count, n_ff, h->activation, r->act_ffn);
    forward_branch(r, rows, r->act_ffn,
                   part_job(w, MODEL_PART_FFN_DOWN, MODEL_PART_FFN_DOWN_BIAS, NULL, 0),
                   w->vector[MODEL_PART_FFN_POST_NORM]);
}

static void forward_head(struct runtime *r, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    const struct matmul_job head = {.weight = r->head,
                                    .out = r->logits,
                                    .out_stride = h->vocab_size,
                                    .bias = r->whole.vector[MODEL_PART_OUTPUT_BIAS]};

    b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd,
                 r->whole.vector[MODEL_PART_OUTPUT_NORM], h->rms_eps, r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, &head, 1);
    if (h->logit_softcap > 0.0f)
        b->ops->softcap(b, r->logits, (size_t)rows->count * h->vocab_size, h->logit_softcap);
}

/* The rope tables as far as the step's positions. */
static void forward_reach(struct runtime *r, const struct batch_plan *plan)
{
    uint32_t end = 0;

    for (uint32_t i = 0; i < plan->n_rows; i++)
        end = plan->position[i] >= end ? plan->position[i] + 1 : end;
    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        if (r->rope[i] != NULL)
            rope_table_reach(r->rope[i], end);
}

static struct backend_step step_of(const struct runtime *r, const struct batch_plan *plan)
{
    struct backend_step step = {
        .ids = plan->ids,
        .rows = rows_from(plan, 0).step,
        .n_results = plan->n_logits,
        .results = r->logits,
        .results_count = (size_t)plan->n_logits * r->hparams.vocab_size,
        .rope_dim = r->hparams.rope_dim,
        .is_fixed = true,
    };
    uint32_t n = 0;

    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        if (r->rope[i] != NULL)
            step.rope[n++] = rope_table_cells(r->rope[i]);
    return step;
}

/* Nothing here may depend on what the plan's arrays hold: the backend may replay it. */
static void forward_layers(struct runtime *r, const struct batch_plan *plan)
{
    struct backend *b = r->backend;
    struct rows rows = rows_from(plan, 0);

    b->ops->embed(b, r->whole.matrix[MODEL_PART_TOKEN_EMBD], plan->ids, plan->n_rows,
                  r->hparams.embed_scale, r->x);
    for (uint32_t layer = 0; layer < r->hparams.n_layers; layer++) {
        forward_qkv(r, layer, &rows);
        /* Behind the last layer's K and V nobody looks at rows without logits any more. */
        if (layer + 1 == r->hparams.n_layers) {
            if (plan->n_logits == 0)
                return;
            rows = rows_from(plan, plan->n_rows - plan->n_logits);
        }
        forward_attention(r, layer, &rows);
        forward_ffn(r, layer, &rows);
    }
    forward_head(r, &rows);
}

void forward_step(struct runtime *r, const struct batch_plan *plan)
{
    struct backend *b = r->backend;

    CHECK(plan->n_rows <= r->step_rows && plan->n_logits <= r->logits_rows);
    forward_reach(r, plan);
    const struct backend_step step = step_of(r, plan);
    if (!b->ops->step_begin(b, &step))
        forward_layers(r, plan);
    b->ops->step_end(b);
}

const float *forward_logits(struct runtime *r, uint32_t row)
{
    struct backend *b = r->backend;
    uint32_t n = r->hparams.vocab_size;

    return b->ops->buffer_host(b, r->logits + (size_t)row * n, n);
}
