/*
 * sum_order.h - the fixed order of every sum along K (docs/numerics.md): blocks of 32 in leaves of
 * 8, leaves in groups, groups in a tree. The order follows from the matrix alone; which of its
 * groups a shard holds does not change it.
 * Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_SUM_ORDER_H
#define CLOISTER_WORKER_KERNELS_SUM_ORDER_H

#include "worker/kernels/device_code.h"

#include <stdint.h>

#define SUM_BLOCK_ITEMS 32u
#define SUM_LEAF_BLOCKS 8u
#define SUM_GROUPS_MAX  64u

/* How the columns of a matrix are cut into groups, and which of them one weight holds. */
struct sum_cut {
    uint32_t blocks;     /* of the whole matrix */
    uint32_t groups;     /* of the whole matrix, at most SUM_GROUPS_MAX and one per unit */
    uint32_t unit;       /* blocks that no border of a group parts; the last unit may be short */
    uint32_t first, end; /* groups first .. end - 1 are here: all of them, but for a shard */
};

CLOISTER_DEVICE static inline struct sum_cut sum_cut_whole(uint32_t cols, uint32_t groups,
                                                           uint32_t unit)
{
    struct sum_cut cut; /* member by member: C++ has no such literals */
    cut.blocks = (cols + SUM_BLOCK_ITEMS - 1) / SUM_BLOCK_ITEMS;
    cut.groups = groups;
    cut.unit = unit;
    cut.first = 0;
    cut.end = groups;
    return cut;
}

CLOISTER_DEVICE static inline uint32_t sum_cut_units(const struct sum_cut *cut)
{
    return (cut->blocks + cut->unit - 1) / cut->unit;
}

/* First block of group g of the whole matrix; group g ends where g + 1 begins. */
CLOISTER_DEVICE static inline uint32_t sum_group_begin(const struct sum_cut *cut, uint32_t g)
{
    uint64_t begin = (uint64_t)g * sum_cut_units(cut) / cut->groups * cut->unit;
    return begin < cut->blocks ? (uint32_t)begin : cut->blocks;
}

/* The group tree, in place, over n partial sums `stride` floats apart: neighbours are added, then
 * neighbours of those; an odd one out waits for the next level. The sum ends in partial[0]. */
CLOISTER_DEVICE static inline void sum_group_tree(float *partial, uint32_t n, uint32_t stride)
{
    for (uint32_t step = 1; step < n; step *= 2) {
        for (uint32_t i = 0; i + step < n; i += 2 * step)
            partial[i * stride] += partial[(i + step) * stride];
    }
}

/* A subtree of the group tree: groups first .. first + count - 1. Its own sum is sum_group_tree's
 * over them, since the left half of every node is the largest power of two below its width. */
struct sum_node {
    uint32_t first;
    uint32_t count;
};

#define SUM_NODES_MAX 12u /* that a run of at most SUM_GROUPS_MAX groups is made of */

/* The largest subtrees that make up the groups that a weight holds, ascending; their number. A
 * weight that holds all groups has one. */
CLOISTER_DEVICE static inline uint32_t sum_nodes(const struct sum_cut *cut,
                                                 struct sum_node *ret_nodes)
{
    uint32_t n = 0;
    for (uint32_t at = cut->first; at < cut->end; at += ret_nodes[n++].count) {
        uint32_t width = 1;
        while (at % (2 * width) == 0 && at + width < cut->groups &&
               (at + 2 * width <= cut->end || cut->end == cut->groups))
            width *= 2;
        uint32_t left = cut->groups - at;
        ret_nodes[n].first = at;
        ret_nodes[n].count = width < left ? width : left;
    }
    return n;
}

/* One addition of the rest of the tree: the sum at `into` takes up the one at `from`. */
struct sum_join {
    uint16_t into;
    uint16_t from;
};

/* What is left to add once all nodes of a matrix are there, ascending and whole: at most
 * n_nodes - 1 additions, in this order; the sum ends in node 0. */
CLOISTER_DEVICE static inline uint32_t sum_joins(const struct sum_node *nodes, uint32_t n_nodes,
                                                 uint32_t groups, struct sum_join *ret_joins)
{
    uint16_t node_at[SUM_GROUPS_MAX]; /* by its first group, plus 1; 0: no node begins there */
    uint32_t n = 0;
    for (uint32_t g = 0; g < groups; g++)
        node_at[g] = 0;
    for (uint32_t i = 0; i < n_nodes; i++)
        node_at[nodes[i].first] = (uint16_t)(i + 1);
    for (uint32_t step = 1; step < groups; step *= 2) {
        for (uint32_t i = 0; i + step < groups; i += 2 * step) {
            if (node_at[i] == 0 || node_at[i + step] == 0)
                continue;
            ret_joins[n].into = (uint16_t)(node_at[i] - 1);
            ret_joins[n++].from = (uint16_t)(node_at[i + step] - 1);
        }
    }
    return n;
}

/* Halving tree over `n` lanes, n a power of two: lane i takes lane i + n / 2, and so on down. */
CLOISTER_DEVICE static inline float sum_lane_tree(float *lanes, uint32_t n)
{
    for (uint32_t half = n / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

#endif
