/*
 * fair_split.h - cuts a row of units into one run for each of some holders, who have weights, such
 * that the largest cost / weight of a run is as small as any such cut can make it.
 *
 * Integers only, and every choice between equals is made by a stated rule: the same input gives the
 * same cut everywhere. Bounds of the caller, so that nothing overflows: FAIR_SPLIT_COST_MAX for all
 * costs of a split and what the holders had before together, FAIR_SPLIT_WEIGHT_MAX for a weight.
 *
 * Thread: any (pure).
 */
#ifndef CLOISTER_COMMON_FAIR_SPLIT_H
#define CLOISTER_COMMON_FAIR_SPLIT_H

#include <stdbool.h>
#include <stdint.h>

#define FAIR_SPLIT_HOLDERS_MAX 16u
#define FAIR_SPLIT_UNITS_MAX   1024u
#define FAIR_SPLIT_COST_MAX    (1ull << 52)
#define FAIR_SPLIT_WEIGHT_MAX  (1ull << 48)

/* A run first .. end - 1 costs sum[end] - sum[first], and `shared_cost` for each of the things that
 * `shared_units` neighbouring units have in common and that it has a unit of. An empty one costs
 * nothing. */
struct fair_units {
    uint32_t count;        /* 1 to FAIR_SPLIT_UNITS_MAX */
    const uint64_t *sum;   /* [count + 1], from 0, never falling */
    uint32_t shared_units; /* 0: nothing is shared */
    uint64_t shared_cost;
    uint32_t least; /* units that each holder must have: 0 or 1; with 1 there are enough */
};

struct fair_holders {
    uint32_t count;         /* 1 to FAIR_SPLIT_HOLDERS_MAX */
    const uint64_t *weight; /* [count]; 0: gets nothing that costs; not all are 0, none is with
                             * `least` */
    const uint64_t *had;    /* [count] cost of what each has already; NULL: nothing */
};

uint64_t fair_cost(const struct fair_units *units, uint32_t first, uint32_t end);

/* Holder i gets ret_border[i] .. ret_border[i + 1] - 1. Of the cuts with the smallest largest
 * cost / weight the one with the smallest sum over holders of (had + cost)^2 / weight (each rounded
 * down to 1 / 65536); of those the one with the smallest ret_border[1], then [2] and so on. */
void fair_split(const struct fair_units *units, const struct fair_holders *holders,
                uint32_t *ret_border);

/* The same for any number of units that all cost the same: each in turn goes to the holder who then
 * has the smallest count / weight, of several to the last. Largest count / weight is the smallest
 * that can be (d'Hondt's rule). */
void fair_split_alike(uint32_t n_units, const struct fair_holders *holders, uint32_t *ret_border);

#endif
