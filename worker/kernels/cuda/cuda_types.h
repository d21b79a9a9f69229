/*
 * cuda_types.h - what kernels and the host part both see: plain structs that launches pass by
 * value. C and C++. Pointers are device memory.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_CUDA_TYPES_H
#define CLOISTER_WORKER_KERNELS_CUDA_CUDA_TYPES_H

#include <stdint.h>

/* The longest row is 2^20 columns and a step has at most 65,536 rows: rows go along grid.x. */
#define CUDA_GRID_X_MAX 0x7fffffffu

/*
 * Activations of a step, quantized per (row, block of 32 columns). Written by every operation that
 * makes activations (quantize.h), read by matrix products.
 *
 *   q       [rows_max][q_stride] signed bytes. q_stride is a multiple of 32, rows begin at a
 *           multiple of 32 bytes, a last block that is short is filled up with zeros.
 *   scales  [rows_max][blocks] dx
 *   sums    [rows_max][blocks] dx * (float)sx, sx being the sum of the block's q
 *   pairs   [rows_max][blocks] the sums of the first and the last 16 q of a block, as two int16,
 *           the first in the low half: for types with a scale per 16 columns
 *   floats  [rows_max][cols_max] the values themselves, for weights of a float type; NULL: not
 *           kept
 */
struct cuda_act {
    int8_t *q;
    float *scales;
    float *sums;
    int32_t *pairs;
    float *floats;
    uint32_t q_stride; /* bytes */
    uint32_t blocks;   /* of a row of cols_max columns */
    uint32_t cols_max;
};

/* A row of a step: where it stands and which rows stand beside it. 16 bytes, one load. */
struct cuda_row {
    uint32_t position;
    uint32_t pages_at; /* its sequence's page 0 in cuda_rows.pages */
    uint32_t
        run_begin; /* rows run_begin .. run_end - 1 of the step are this sequence's, one position */
    uint32_t run_end; /* after another: what reads K and V together */
};

/* The rows of one launch: `count` from `first` on. */
struct cuda_rows {
    const struct cuda_row *row; /* of the whole step */
    const uint32_t *pages;      /* page ids, one sequence behind another */
    uint32_t first;
    uint32_t count;
};

#endif
