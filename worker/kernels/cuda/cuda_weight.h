/*
 * cuda_weight.h - a matrix on the device, as the host part has it. Internal to cuda/.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_CUDA_WEIGHT_H
#define CLOISTER_WORKER_KERNELS_CUDA_CUDA_WEIGHT_H

#include "worker/kernels/cuda/cuda_internal.h"
#include "worker/kernels/cuda/products.h"

struct weight {
    enum quant_type type;
    uint32_t rows;
    uint32_t cols;
    uint32_t lead;   /* stored blocks in front of the first group's */
    uint32_t blocks; /* stored blocks of a row */
    struct sum_cut cut;
    uint32_t n_leaves;
    uint32_t even_blocks; /* see struct cuda_product */
    uint64_t stride;      /* bytes from tile to tile, or from row to row of a float type */
    /* device, one allocation */
    uint8_t *data;
    uint32_t *leaves; /* [n_leaves], behind the data */
};

/* The leaves of a matrix's sum, or of those groups that are here: their number; their words
 * (weight_layout.h) unless `ret_leaves` is NULL. */
uint32_t cuda_weight_leaves(const struct sum_cut *cut, uint32_t lead, uint32_t *ret_leaves);

#endif
