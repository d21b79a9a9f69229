/*
 * sample.h - the passes over a whole row of logits that drawing a token takes, one table of them
 * per instruction set, all with the same bits. What is done with them, and in which order, is
 * worker/engine/sampling.c; nothing here knows a parameter's name.
 *
 * A row is whole blocks of 64 logits. Those that differ from what the model said (penalties, bias)
 * and the short last one are blocks of their own, so that the model's logits are never written and
 * never copied. What an id's logit makes of it, z, its mass and its noise, is sample_math.h.
 *
 * Thread: any; a table touches nothing but its arguments.
 */
#ifndef CLOISTER_WORKER_KERNELS_SAMPLE_H
#define CLOISTER_WORKER_KERNELS_SAMPLE_H

#include "worker/kernels/backend.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/sample_math.h"

#include <stdbool.h>
#include <stdint.h>

#define SAMPLE_BLOCK 64u

struct sample_row {
    const float *logits; /* [n_blocks * 64], but for the last block where that is `own` */
    const float *own;    /* [..][64] blocks that replace those of `logits` */
    /* [n_blocks] 0: the block is in `logits`; else it is own[own_at - 1] */
    const uint32_t *own_at;
    uint32_t n_blocks;
    const float *block_max; /* [n_blocks], of block_max() */
    float greatest;         /* at most FLT_MAX, above -infinity */
    float temperature;      /* above 0 */
};

/* Who may be drawn. An id has to pass all of it. */
struct sample_filter {
    float floor; /* z >= floor: implied by what follows, so that whole blocks can be passed over */
    /* A prefix of the order (z descending, id ascending): up to and including this one. */
    float last_z;
    uint32_t last_id;
    bool need_mass; /* mass(z) > 0 */
    float min_p;    /* nm_exp(z - best_z) >= min_p */
    float best_z;
    /* A prefix of the order (|z - center| ascending, id ascending). */
    bool has_center;
    float center, last_distance;
    uint32_t last_distance_id;
};

/* What the best sum so far is: of z + Gumbel noise; ties go to the lower id. */
struct sample_best {
    float sum;
    uint32_t id;
};

struct sample_kernels {
    const char *name; /* "scalar", "avx2", "avx512" */

    /* ret_max[n_blocks]: the greatest logit of each block, NaN left out; -infinity where there is
     * no other. Reads neither block_max nor greatest nor temperature. */
    void (*block_max)(const struct sample_row *row, float *ret_max);
    /* The sum of all masses. */
    uint64_t (*mass_sum)(const struct sample_row *row);
    /* Ids with z >= cut, ascending, and their z; returns how many. Room for all of the row. */
    uint32_t (*gather)(const struct sample_row *row, float cut, uint32_t *ret_ids, float *ret_z);
    /* mass[i] = mass(z[i]); returns their sum. */
    uint64_t (*masses)(const float *z, uint32_t n, uint64_t *ret_mass);
    /* The best of `best` and z + nm_token_gumbel(seed, position, id) over the ids that the filter
     * lets pass. Noise is computed only for blocks that hold an id which could still win. */
    void (*draw)(const struct sample_row *row, const struct sample_filter *filter, uint64_t seed,
                 uint32_t position, struct sample_best *best);
};

/* NULL where this machine cannot run it; AUTO is the best that it can. */
const struct sample_kernels *sample_kernels_of(enum backend_isa isa);

static inline bool sample_filter_keeps(const struct sample_filter *f, float z, uint32_t id)
{
    if (!(z >= f->floor) || z == -INFINITY)
        return false;
    if (z < f->last_z || (z == f->last_z && id > f->last_id))
        return false;
    if (f->need_mass && sample_mass(z) == 0)
        return false;
    if (f->min_p > 0.0f && nm_exp(z - f->best_z) < f->min_p)
        return false;
    if (f->has_center) {
        float distance = fabsf(z - f->center);
        if (distance > f->last_distance ||
            (distance == f->last_distance && id > f->last_distance_id))
            return false;
    }
    return true;
}

#endif
