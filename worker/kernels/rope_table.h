/*
 * rope_table.h - cosines and sines of rotary position embedding, computed once per model.
 *
 * In double precision from our own polynomials, never libm, whose last bits differ between
 * versions: the table, and with it every token, depends on the parameters alone. Rounded to float
 * it is within 1 ulp of the exact value at every position up to ROPE_TABLE_POSITIONS_MAX.
 *
 * Sources: Su et al., "RoFormer", 2021: pair i of position p is turned by p * base^(-2i / dim).
 * Peng et al., "YaRN", 2023: pairs that turn less than once over the original context are slowed by
 * the scaling factor, those that turn more than 32 times are not, between them it goes linearly by
 * the pair's index; vectors are made longer by 1 + 0.1 ln(factor). Which index is where follows
 * llama.cpp (ggml_rope_yarn_corr_dims), as the files are made for it.
 */
#ifndef CLOISTER_WORKER_KERNELS_ROPE_TABLE_H
#define CLOISTER_WORKER_KERNELS_ROPE_TABLE_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define ROPE_TABLE_POSITIONS_MAX (1u << 20)
#define ROPE_TABLE_DIM_MAX       1024u

struct rope_params {
    double base;          /* rope.freq_base, > 0 and finite */
    uint32_t dim;         /* even, 2 .. ROPE_TABLE_DIM_MAX: how many elements of a head turn */
    double linear_scale;  /* positions are divided by it (rope.scaling.factor); 1: none */
    const float *factors; /* [dim / 2], angle of pair i is divided by factors[i], or NULL */
    double magnitude;     /* cosines and sines are multiplied by it; 0: they are not */
    uint32_t
        yarn_context; /* positions before stretching: linear_scale is yarn's factor; 0: no yarn */
};

struct rope_table;

/* A table for positions 0 .. n_positions - 1, with room for all and none computed yet. ERR_INVALID
 * for a parameter out of its range, with its name. Ownership: the caller frees it. Thread: any. */
enum err rope_table_new(const struct rope_params *params, uint32_t n_positions,
                        struct rope_table **ret_table, struct errbuf *eb);
void rope_table_free(struct rope_table *table); /* takes NULL */

/* Computes what is missing of the first n_positions; most jobs stay far below their context, so a
 * table is filled as far as positions are used. A cell is a function of its position and pair: the
 * bits do not depend on how the table grew. Thread: one owner, while nobody reads the table. */
void rope_table_reach(struct rope_table *table, uint32_t n_positions);

/* [n_positions][dim / 2][2] = cos, sin; the same memory throughout. */
const float *rope_table_cells(const struct rope_table *table);

/* What such a table holds, of which what is not reached stays untouched. */
uint64_t rope_table_bytes(uint32_t dim, uint32_t n_positions);

#endif
