/* The matrix product: leaves of 8 blocks, groups of leaves, a tree of groups. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/ref/ref_block.h"
#include "worker/kernels/sum_order.h"

#include <math.h>

/* One leaf: blocks begin .. end - 1 of x, from +0. */
static float ref_leaf(const struct weight *w, const uint8_t *row, const int8_t *q,
                      const float *scales, uint32_t begin, uint32_t end)
{
    float acc = 0.0f;
    for (uint32_t b = begin; b < end; b++) {
        struct ref_block block;
        ref_block_read(w->type, row, w->lead + b, &block);
        const int8_t *x = q + (size_t)b * QUANT_BLOCK_ITEMS;
        int32_t isum = 0;
        int32_t msum = 0;
        for (uint32_t half = 0; half < 2; half++) {
            int32_t products = 0;
            int32_t sx = 0;
            for (uint32_t j = 16 * half; j < 16 * half + 16; j++) {
                products += block.q[j] * x[j];
                sx += x[j];
            }
            isum += block.scale[half] * products;
            msum += block.min[half] * sx;
        }
        acc = fmaf(block.d * scales[b], (float)isum, acc);
        if (block.has_min)
            acc = fmaf(block.m, scales[b] * (float)msum, acc);
    }
    return acc;
}

static float ref_group_quantized(const struct weight *w, const uint8_t *row, const int8_t *q,
                                 const float *scales, uint32_t begin, uint32_t end)
{
    float sum = 0.0f;
    for (uint32_t leaf = begin; leaf < end; leaf += SUM_LEAF_BLOCKS) {
        uint32_t leaf_end = leaf + SUM_LEAF_BLOCKS < end ? leaf + SUM_LEAF_BLOCKS : end;
        float acc = ref_leaf(w, row, q, scales, leaf, leaf_end);
        sum = leaf == begin ? acc : sum + acc;
    }
    return sum;
}

static float ref_group_float(const struct weight *w, const uint8_t *row, const float *x,
                             uint32_t begin, uint32_t end)
{
    float lanes[32] = {0};
    uint32_t last = end * QUANT_BLOCK_ITEMS < w->cols ? end * QUANT_BLOCK_ITEMS : w->cols;
    for (uint32_t k = begin * QUANT_BLOCK_ITEMS; k < last; k++)
        lanes[k % 32] = fmaf(ref_float_element(w->type, row, k), x[k], lanes[k % 32]);
    return sum_lane_tree(lanes, 32);
}

/* Group g of one output. Blocks count from the weight's own first one, x from the first group. */
static float ref_group(const struct weight *w, const struct act *x, uint32_t x_row, uint32_t w_row,
                       uint32_t g)
{
    const uint8_t *row = w->data + w->row_bytes * w_row;
    uint32_t first = sum_group_begin(&w->cut, w->cut.first);
    uint32_t begin = sum_group_begin(&w->cut, g) - first;
    uint32_t end = sum_group_begin(&w->cut, g + 1) - first;
    if (ref_type_is_float(w->type))
        return ref_group_float(w, row, x->floats + (size_t)x_row * x->cols_max, begin, end);
    return ref_group_quantized(w, row, x->q + (size_t)x_row * x->blocks_max * QUANT_BLOCK_ITEMS,
                               x->scales + (size_t)x_row * x->blocks_max, begin, end);
}

static float ref_node(const struct weight *w, const struct act *x, uint32_t x_row, uint32_t w_row,
                      struct sum_node node)
{
    float partial[SUM_GROUPS_MAX];
    for (uint32_t i = 0; i < node.count; i++)
        partial[i] = ref_group(w, x, x_row, w_row, node.first + i);
    sum_group_tree(partial, node.count, 1);
    return partial[0];
}

static void ref_product(const struct act *x, uint32_t n, const struct matmul_job *job,
                        struct sum_node node, float *out)
{
    const struct weight *w = job->weight;
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t r = 0; r < w->rows; r++) {
            float *to = out + (size_t)i * job->out_stride + r;
            float result = ref_node(w, x, i, r, node);
            if (job->bias != NULL)
                result = result + job->bias[r];
            *to = job->accumulate ? *to + result : result;
        }
    }
}

void ref_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                uint32_t n_jobs)
{
    (void)b;
    for (const struct matmul_job *job = jobs; job < jobs + n_jobs; job++) {
        const struct weight *w = job->weight;
        struct sum_node nodes[SUM_NODES_MAX];
        uint32_t n_nodes = sum_nodes(&w->cut, nodes);
        CHECK(n <= x->rows_max && w->cols <= x->cols_max);
        CHECK(x->floats != NULL || !ref_type_is_float(w->type));
        CHECK(nodes[0].count == w->cut.groups || (job->bias == NULL && !job->accumulate));
        for (uint32_t i = 0; i < n_nodes; i++)
            ref_product(x, n, job, nodes[i], job->out + i * job->node_stride);
    }
}

void ref_join(struct backend *b, uint32_t n, const struct join_job *job)
{
    (void)b;
    CHECK(job->n_parts >= 1 && job->n_parts <= SUM_GROUPS_MAX && job->n_joins < job->n_parts);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t r = 0; r < job->cols; r++) {
            float sum[SUM_GROUPS_MAX];
            for (uint32_t p = 0; p < job->n_parts; p++)
                sum[p] = job->part[p].at[i * job->part[p].stride + r];
            for (const struct sum_join *j = job->joins; j < job->joins + job->n_joins; j++)
                sum[j->into] = sum[j->into] + sum[j->from];
            const size_t at = i * job->out_stride + r;
            float result = job->bias != NULL ? sum[0] + job->bias[r] : sum[0];
            job->out[at] = job->onto != NULL ? job->onto[at] + result : result;
        }
    }
}
