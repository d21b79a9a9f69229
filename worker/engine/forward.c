#include "worker/engine/forward.h"

#include "common/check.h"

_Static_assert(MODEL_ROPES <= BACKEND_STEP_ROPES_MAX, "a step has room for all tables");

/* A run of a step's rows. Rows stand one behind the other in every buffer, so a run is an offset.
 */
struct rows {
    uint32_t first, count;
    struct step_rows step;
};

static struct rows rows_of(const struct batch_plan *plan, uint32_t first, uint32_t end)
{
    return (struct rows){
        .first = first,
        .count = end - first,
        .step =
            {
                .n_rows = end - first,
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

/* norm -> q, k, v in one pass over the input -> rotation -> cache. A shard may have no heads. */
static void forward_qkv(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct model_layer_hparams *l = &h->layer[layer];
    const struct runtime_parts *w = &r->layers[layer];
    struct backend *b = r->backend;

    if (r->shard->layer[layer].heads.first == r->shard->layer[layer].heads.end)
        return;
    const uint32_t n_heads = shard_run_count(r->shard->layer[layer].heads);
    const uint32_t n_kv_heads = shard_run_count(r->shard->layer[layer].kv_heads);
    const uint32_t q_cols = n_heads * h->head_dim, kv_cols = n_kv_heads * h->head_dim;
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
        .n_heads = n_heads,
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
static enum err forward_branch(struct runtime *r, uint32_t layer, enum gang_matrix which,
                               const struct rows *rows, const struct act *in,
                               struct matmul_job last, const float *post_norm, struct errbuf *eb)
{
    struct backend *b = r->backend;
    uint32_t n_embd = r->hparams.n_embd;
    float *x = row_at(r->x, rows, n_embd);
    enum err e = ERR_OK;

    last.out_stride = n_embd;
    last.out = post_norm == NULL ? x : row_at(r->branch, rows, n_embd);
    last.accumulate = post_norm == NULL;
    if (r->gang == NULL)
        b->ops->matmul(b, in, rows->count, &last, 1);
    else
        e = gang_matmul(r->gang, layer, which, in, rows->count, &last, eb);
    if (e == ERR_OK && post_norm != NULL)
        b->ops->norm_add(b, last.out, rows->count, n_embd, post_norm, r->hparams.rms_eps, x);
    return e;
}

/* This rank's heads, all that it has of them; it may have none. */
static void forward_heads(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct model_layer_hparams *l = &h->layer[layer];
    const struct shard_run heads = r->shard->layer[layer].heads;
    const uint32_t n_heads = shard_run_count(heads), per_kv = l->n_heads / l->n_kv_heads;

    if (n_heads == 0)
        return;
    const struct attention_job attention = {
        .kv = r->kv[r->shape.cache_of[layer]],
        .layer = r->shape.layer_of[layer],
        .rows = &rows->step,
        .q = row_at(r->q, rows, n_heads * h->head_dim),
        .n_heads = n_heads,
        .group = per_kv,
        .skip = heads.first % per_kv,
        .scale = h->attention_scale,
        .window = l->window,
        .softcap = h->attention_softcap,
        .out = r->act_attention,
    };
    r->backend->ops->attention(r->backend, &attention);
}

static enum err forward_attention(struct runtime *r, uint32_t layer, const struct rows *rows,
                                  struct errbuf *eb)
{
    const struct runtime_parts *w = &r->layers[layer];

    forward_heads(r, layer, rows);
    return forward_branch(r, layer, GANG_MATRIX_ATTENTION, rows, r->act_attention,
                          part_job(w, MODEL_PART_ATTN_OUTPUT, MODEL_PART_ATTN_OUTPUT_BIAS, NULL, 0),
                          w->vector[MODEL_PART_ATTN_POST_NORM], eb);
}

static enum err forward_ffn(struct runtime *r, uint32_t layer, const struct rows *rows,
                            struct errbuf *eb)
{
    const struct model_hparams *h = &r->hparams;
    const struct runtime_parts *w = &r->layers[layer];
    struct backend *b = r->backend;
    const uint32_t n_ff = shard_run_count(r->shard->layer[layer].ff);
    float *gate = row_at(r->gate, rows, n_ff), *up = row_at(r->up, rows, n_ff);
    const struct matmul_job products[] = {
        part_job(w, MODEL_PART_FFN_GATE, MODEL_PART_FFN_GATE_BIAS, gate, n_ff),
        part_job(w, MODEL_PART_FFN_UP, MODEL_PART_FFN_UP_BIAS, up, n_ff),
    };

    if (n_ff > 0) {
        b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd,
                     w->vector[MODEL_PART_FFN_NORM], h->rms_eps, r->act_embd);
        b->ops->matmul(b, r->act_embd, rows->count, products, 2);
        b->ops->gate(b, gate, up, rows->count, n_ff, h->activation, r->act_ffn);
    }
    return forward_branch(r, layer, GANG_MATRIX_FFN, rows, r->act_ffn,
                          part_job(w, MODEL_PART_FFN_DOWN, MODEL_PART_FFN_DOWN_BIAS, NULL, 0),
                          w->vector[MODEL_PART_FFN_POST_NORM], eb);
}

static bool is_last_stage(const struct runtime *r)
{
    return r->gang == NULL || gang_is_last(r->gang);
}

static enum err forward_head(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    const struct rows logits = rows_of(plan, plan->n_rows - plan->n_logits, plan->n_rows);
    const struct rows *rows = &logits;
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    const struct matmul_job head = {.weight = r->head,
                                    .out = r->logits,
                                    .out_stride = h->vocab_size,
                                    .bias = r->whole.vector[MODEL_PART_OUTPUT_BIAS]};

    enum err e = ERR_OK;

    if (rows->count == 0)
        return ERR_OK;
    if (is_last_stage(r))
        b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd,
                     r->whole.vector[MODEL_PART_OUTPUT_NORM], h->rms_eps, r->act_embd);
    if (r->gang == NULL)
        b->ops->matmul(b, r->act_embd, rows->count, &head, 1);
    else
        e = gang_logits(r->gang, head.weight, head.bias, r->act_embd, rows->count, r->logits, eb);
    if (e == ERR_OK && h->logit_softcap > 0.0f && r->logits != NULL)
        b->ops->softcap(b, r->logits, (size_t)rows->count * h->vocab_size, h->logit_softcap);
    if (e == ERR_OK && r->picks != NULL)
        b->ops->pick(b, r->logits, rows->count, h->vocab_size, r->picks, r->picked);
    return e;
}

static enum err forward_embed(struct runtime *r, const struct batch_plan *plan,
                              const struct rows *rows, struct errbuf *eb)
{
    const struct weight *weight = r->whole.matrix[MODEL_PART_TOKEN_EMBD];
    const int32_t *ids = plan->ids + rows->first;
    const float scale = r->hparams.embed_scale;
    float *x = row_at(r->x, rows, r->hparams.n_embd);
    struct backend *b = r->backend;

    if (r->gang != NULL)
        return gang_is_first(r->gang) ? gang_embed(r->gang, weight, ids, rows->count, scale, x, eb)
                                      : gang_receive(r->gang, rows->count, x, eb);
    b->ops->embed(b, weight, ids, rows->count, scale, x);
    return ERR_OK;
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

/* What the host looks at when the step is done: what was picked, and rows that are wanted as they
 * are, those side by side as one. How many. */
static uint32_t step_pieces(const struct runtime *r, const struct batch_plan *plan)
{
    const size_t cols = r->hparams.vocab_size;
    uint32_t n = 0, rows_from;

    if (r->logits == NULL || plan->n_logits == 0)
        return 0;
    if (r->picks != NULL)
        r->pieces[n++] = (struct backend_piece){r->picked, (size_t)plan->n_logits * PICKED_FLOATS};
    rows_from = n;
    for (uint32_t i = 0; i < plan->n_logits; i++) {
        if (r->picks != NULL && r->picks[i].kind != PICK_ROW)
            continue;
        const float *row = r->logits + i * cols;
        if (n > rows_from && r->pieces[n - 1].at + r->pieces[n - 1].count == row)
            r->pieces[n - 1].count += cols;
        else
            r->pieces[n++] = (struct backend_piece){row, cols};
    }
    return n;
}

/* `has_logits`: they are computed, or brought, in this step. */
static struct backend_step step_of(const struct runtime *r, const struct batch_plan *plan,
                                   bool has_logits)
{
    struct backend_step step = {
        .ids = plan->ids,
        .rows = rows_of(plan, 0, plan->n_rows).step,
        .n_results = has_logits ? plan->n_logits : 0,
        .picks = has_logits ? r->picks : NULL,
        .pieces = r->pieces,
        .n_pieces = has_logits ? step_pieces(r, plan) : 0,
        .rope_dim = r->hparams.rope_dim,
        .is_fixed = r->gang == NULL,
        .may_hold = r->gang != NULL, /* exchanges lie between its operations */
    };
    uint32_t n = 0;

    for (uint32_t i = 0; i < MODEL_ROPES; i++)
        if (r->rope[i] != NULL)
            step.rope[n++] = rope_table_cells(r->rope[i]);
    return step;
}

/* A run of rows through the layers that are here. */
static enum err forward_piece(struct runtime *r, const struct batch_plan *plan,
                              struct shard_run piece, struct errbuf *eb)
{
    const struct shard_run layers = r->shard->layers;
    const uint32_t n_embd = r->hparams.n_embd, silent = plan->n_rows - plan->n_logits;
    struct rows rows = rows_of(plan, piece.first, piece.end);
    enum err e = forward_embed(r, plan, &rows, eb);

    if (e == ERR_OK && r->gang != NULL)
        gang_put_off(r->gang);
    for (uint32_t layer = layers.first; e == ERR_OK && layer < layers.end; layer++) {
        forward_qkv(r, layer, &rows);
        /* Behind the last layer's K and V nobody looks at rows without logits any more. */
        if (layer + 1 == r->hparams.n_layers) {
            if (piece.end <= silent)
                return ERR_OK;
            rows = rows_of(plan, shard_larger(piece.first, silent), piece.end);
        }
        e = forward_attention(r, layer, &rows, eb);
        if (e == ERR_OK)
            e = forward_ffn(r, layer, &rows, eb);
    }
    return e != ERR_OK || is_last_stage(r)
               ? e
               : gang_send(r->gang, rows.count, row_at(r->x, &rows, n_embd), eb);
}

/* Nothing here may depend on what the plan's arrays hold: the backend may replay it. */
static enum err forward_layers(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    const uint32_t n_pieces = r->gang == NULL ? 1 : gang_pieces(r->gang, plan->n_rows);
    const struct shard_run all = {0, plan->n_rows};
    enum err e = ERR_OK;

    for (uint32_t i = 0; e == ERR_OK && i < n_pieces; i++)
        e = forward_piece(r, plan, r->gang == NULL ? all : gang_piece(r->gang, plan->n_rows, i),
                          eb);
    return e == ERR_OK && is_last_stage(r) ? forward_head(r, plan, eb) : e;
}

static enum err forward_compute(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    struct backend *b = r->backend;
    enum err e = ERR_OK;

    forward_reach(r, plan);
    const struct backend_step step = step_of(r, plan, is_last_stage(r));
    if (!b->ops->step_begin(b, &step))
        e = forward_layers(r, plan, eb);
    if (r->gang != NULL)
        e = gang_run(r->gang, e, eb);
    b->ops->step_end(b);
    return e;
}

enum err forward_step(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    enum err e = ERR_OK;

    CHECK(plan->n_rows <= r->step_rows && plan->n_logits <= r->logits_rows);
    if (r->gang != NULL)
        e = gang_tell(r->gang, plan, eb);
    return e == ERR_OK ? forward_compute(r, plan, eb) : e;
}

bool forward_owes_logits(const struct runtime *r, const struct batch_plan *plan)
{
    return !is_last_stage(r) && plan->n_logits > 0;
}

enum err forward_collect(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    struct backend *b = r->backend;
    const struct backend_step step = step_of(r, plan, true);
    enum err e = ERR_OK;

    CHECK(forward_owes_logits(r, plan));
    if (!b->ops->step_begin(b, &step))
        e = forward_head(r, plan, eb);
    b->ops->step_end(b);
    return e;
}

enum err forward_follow(struct runtime *r, struct errbuf *eb)
{
    struct batch_plan plan;
    enum err e = gang_hear(r->gang, &plan, eb);

    return e != ERR_OK || plan.n_rows == 0 ? e : forward_compute(r, &plan, eb);
}

const float *forward_logits(struct runtime *r, uint32_t row)
{
    struct backend *b = r->backend;
    uint32_t n = r->hparams.vocab_size;

    return b->ops->buffer_host(b, r->logits + (size_t)row * n, n);
}

const struct picked *forward_picked(struct runtime *r, uint32_t row)
{
    struct backend *b = r->backend;

    return (const struct picked *)(const void *)b->ops->buffer_host(
        b, r->picked + (size_t)row * PICKED_FLOATS, PICKED_FLOATS);
}

void forward_logits_read(struct runtime *r, uint32_t row, float *ret_logits)
{
    struct backend *b = r->backend;
    uint32_t n = r->hparams.vocab_size;

    b->ops->buffer_read(b, r->logits + (size_t)row * n, ret_logits, n);
}
