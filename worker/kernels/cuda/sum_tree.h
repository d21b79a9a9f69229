/*
 * sum_tree.h - the order of a sum beyond its leaves (sum_order.h), as it goes: leaves are added
 * within their group, groups by the tree. C++ only, included by .cu files.
 *
 * The tree over groups 0 .. n - 1 that adds neighbours, then neighbours of those, is a binary
 * counter: group g carries into as many sums as g has low bits set, and what is pending at the end
 * is added from the shortest up. So at most one sum a level is kept: seven for 64 groups.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_SUM_TREE_H
#define CLOISTER_WORKER_KERNELS_CUDA_SUM_TREE_H

#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/products.h"

#define SUM_TREE_LEVELS 7
static_assert((1u << (SUM_TREE_LEVELS - 1)) >= SUM_GROUPS_MAX, "a level for each power of two");

/* Takes up group number `index` of a node. Levels are `stride` floats apart. */
DEVICE_INLINE void sum_tree_add(float *levels, uint32_t stride, uint32_t index, float sum)
{
    for (; index & 1; index >>= 1, levels += stride)
        sum = *levels + sum;
    *levels = sum;
}

/* The sum of the `count` groups that were added, at least one. */
DEVICE_INLINE float sum_tree_take(const float *levels, uint32_t stride, uint32_t count)
{
    for (; (count & 1) == 0; count >>= 1)
        levels += stride;
    float sum = *levels;
    for (count >>= 1; count > 0; count >>= 1) {
        levels += stride;
        if (count & 1)
            sum = *levels + sum;
    }
    return sum;
}

/* How far one element's sum is; `levels` beside it are its own. */
struct sum_groups {
    float group;       /* the leaves of this group so far */
    uint32_t complete; /* groups of this node */
    uint32_t leaves;   /* of this group; 0: the next one is the first */
};

DEVICE_INLINE void sum_groups_leaf(struct sum_groups &s, float *levels, uint32_t stride, float acc,
                                   uint32_t leaf)
{
    s.group = s.leaves++ == 0 ? acc : s.group + acc;
    if ((leaf & WEIGHT_LEAF_GROUP_END) == 0)
        return;
    sum_tree_add(levels, stride, s.complete++, s.group);
    s.leaves = 0;
}

/* At the end of a node: its sum; then for the next one. */
DEVICE_INLINE float sum_groups_take(struct sum_groups &s, const float *levels, uint32_t stride)
{
    const float sum = sum_tree_take(levels, stride, s.complete);
    s.complete = 0;
    return sum;
}

/* The product that part `part` of a launch is of, and which of its parts it is. */
DEVICE_INLINE const struct cuda_product &product_of(const struct cuda_products &products,
                                                    uint32_t part, uint32_t *ret_part)
{
    uint32_t i = 0;
    while (i + 1 < products.count && part >= products.of[i + 1].first_part)
        i++;
    *ret_part = part - products.of[i].first_part;
    return products.of[i];
}

/* Blocks of leaf i, without a load where they follow from i: what is behind waits for nothing then.
 */
DEVICE_INLINE void product_leaf(const struct cuda_product &product, uint32_t i, uint32_t *ret_begin,
                                uint32_t *ret_end)
{
    if (product.even_blocks > 0) {
        *ret_begin = i * SUM_LEAF_BLOCKS;
        *ret_end = min(*ret_begin + SUM_LEAF_BLOCKS, product.even_blocks);
        return;
    }
    const uint32_t leaf = product.leaves[i];
    *ret_begin = weight_leaf_begin(leaf);
    *ret_end = weight_leaf_end(leaf);
}

/* Element `row` of column `column` of node `node`; rows past the matrix are dropped. */
DEVICE_INLINE void product_store(const struct cuda_product &product, uint32_t node, uint32_t column,
                                 uint32_t row, float sum)
{
    if (row >= product.rows)
        return;
    float *const out =
        product.out + node * product.node_stride + (uint64_t)column * product.out_stride + row;
    if (product.bias != nullptr)
        sum = sum + product.bias[row];
    *out = product.accumulate ? *out + sum : sum;
}

#endif
