/*
 * quant_check.h - whether a matrix as the file has it holds numbers only.
 *
 * Quants are integers of any value; what can be no number is a scale or minimum of a block
 * (infinity and NaN in binary16, the NaN that OCP Microscaling 1.0 gives the exponent 255) and an
 * element of a float type. One such number makes every token that reads it meaningless, without a
 * sign: it is found while the file is loaded. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_QUANT_CHECK_H
#define CLOISTER_WORKER_KERNELS_QUANT_CHECK_H

#include "worker/kernels/quant_type.h"

#include <stdint.h>

/* The first of `count` blocks that holds what is no finite number, `count` where there is none. A
 * block is quant_type_info's: one element of a float type. Types without kernels pass. */
uint64_t quant_check_finite(enum quant_type type, const uint8_t *blocks, uint64_t count);

#endif
