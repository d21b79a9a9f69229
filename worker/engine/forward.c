#include "worker/engine/forward.h"

#include "common/check.h"

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

/* norm -> q, k, v in one pass over the input -> rotation -> cache. */
static void forward_qkv(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct runtime_layer *w = &r->layers[layer];
    struct backend *b = r->backend;
    uint32_t q_cols = h->n_heads * h->head_dim, kv_cols = h->n_kv_heads * h->head_dim;
    const struct matmul_job products[] = {
        {.weight = w->attn_q, .out = row_at(r->q, rows, q_cols), .out_stride = q_cols},
        {.weight = w->attn_k, .out = row_at(r->k, rows, kv_cols), .out_stride = kv_cols},
        {.weight = w->attn_v, .out = row_at(r->v, rows, kv_cols), .out_stride = kv_cols},
    };
    const struct rope_kv_job rope = {
        .kv = r->kv,
        .layer = layer,
        .rows = &rows->step,
        .q = row_at(r->q, rows, q_cols),
        .k = row_at(r->k, rows, kv_cols),
        .v = row_at(r->v, rows, kv_cols),
        .n_heads = h->n_heads,
        .rope_dim = h->rope_dim,
        .style = h->rope_style,
        .table = r->rope,
    };

    b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd, w->attn_norm, h->rms_eps,
                 r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, products, 3);
    b->ops->rope_kv(b, &rope);
}

static void forward_attention(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    const struct attention_job attention = {
        .kv = r->kv,
        .layer = layer,
        .rows = &rows->step,
        .q = row_at(r->q, rows, h->n_heads * h->head_dim),
        .n_heads = h->n_heads,
        .scale = r->attention_scale,
        .out = r->act_attention,
    };
    const struct matmul_job output = {
        .weight = r->layers[layer].attn_output,
        .out = row_at(r->x, rows, h->n_embd),
        .out_stride = h->n_embd,
        .accumulate = true,
    };

    b->ops->attention(b, &attention);
    b->ops->matmul(b, r->act_attention, rows->count, &output, 1);
}

static void forward_ffn(struct runtime *r, uint32_t layer, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    const struct runtime_layer *w = &r->layers[layer];
    struct backend *b = r->backend;
    float *x = row_at(r->x, rows, h->n_embd);
    float *gate = row_at(r->gate, rows, h->n_ff), *up = row_at(r->up, rows, h->n_ff);
    const struct matmul_job products[] = {
        {.weight = w->ffn_gate, .out = gate, .out_stride = h->n_ff},
        {.weight = w->ffn_up, .out = up, .out_stride = h->n_ff},
    };
    const struct matmul_job down = {
        .weight = w->ffn_down, .out = x, .out_stride = h->n_embd, .accumulate = true};

    b->ops->norm(b, x, rows->count, h->n_embd, w->ffn_norm, h->rms_eps, r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, products, 2);
    b->ops->gate(b, gate, up, rows->count, h->n_ff, r->activation, r->act_ffn);
    b->ops->matmul(b, r->act_ffn, rows->count, &down, 1);
}

static void forward_head(struct runtime *r, const struct rows *rows)
{
    const struct model_hparams *h = &r->hparams;
    struct backend *b = r->backend;
    const struct matmul_job head = {
        .weight = r->output, .out = r->logits, .out_stride = h->vocab_size};

    b->ops->norm(b, row_at(r->x, rows, h->n_embd), rows->count, h->n_embd, r->output_norm,
                 h->rms_eps, r->act_embd);
    b->ops->matmul(b, r->act_embd, rows->count, &head, 1);
}

void forward_step(struct runtime *r, const struct batch_plan *plan)
{
    struct backend *b = r->backend;
    struct rows rows = rows_from(plan, 0);

    CHECK(plan->n_rows <= r->step_rows && plan->n_logits <= r->logits_rows);
    b->ops->embed(b, r->token_embd, plan->ids, plan->n_rows, r->embed_scale, r->x);
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

const float *forward_logits(struct runtime *r, uint32_t row)
{
    struct backend *b = r->backend;
    uint32_t n = r->hparams.vocab_size;

    b->ops->buffer_read(b, r->logits + (size_t)row * n, r->host_logits, n);
    return r->host_logits;
}
