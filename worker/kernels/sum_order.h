/*
 * sum_order.h - the fixed order of every sum along K (docs/numerics.md): blocks of 32 in leaves of
 * 8, leaves in groups, groups in a tree. The order follows from the matrix alone.
 * Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_SUM_ORDER_H
#define CLOISTER_WORKER_KERNELS_SUM_ORDER_H

#include <stdint.h>

#define SUM_LEAF_BLOCKS 8u
#define SUM_GROUPS_MAX  64u

/* First block of group g; group g ends where g + 1 begins. Groups are alike where their number
 * divides the blocks (those of attention output then end with KV heads); else they are whole
 * leaves, if there are as many, since a leaf of one or two blocks costs nearly what a full one
 * does. */
static inline uint32_t sum_group_begin(uint32_t g, uint32_t groups, uint32_t blocks)
{
    uint32_t leaves = (blocks + SUM_LEAF_BLOCKS - 1) / SUM_LEAF_BLOCKS;
    if (blocks % groups == 0 || leaves < groups)
        return (uint32_t)((uint64_t)g * blocks / groups);
    uint32_t begin = (uint32_t)((uint64_t)g * leaves / groups) * SUM_LEAF_BLOCKS;
    return begin < blocks ? begin : blocks;
}

/* The group tree, in place, over n partial sums `stride` floats apart: neighbours are added, then
 * neighbours of those; an odd one out waits for the next level. The left half of every node is
 * the largest power of two below its width, so a shard that holds a power-of-two run of groups at
 * a multiple of its length holds a whole subtree. The sum ends in partial[0]. */
static inline void sum_group_tree(float *partial, uint32_t n, uint32_t stride)
{
    for (uint32_t step = 1; step < n; step *= 2) {
        for (uint32_t i = 0; i + step < n; i += 2 * step)
            partial[i * stride] += partial[(i + step) * stride];
    }
}

/* Halving tree over `n` lanes, n a power of two: lane i takes lane i + n / 2, and so on down. */
static inline float sum_lane_tree(float *lanes, uint32_t n)
{
    for (uint32_t half = n / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

#endif
