/*
 * quant_raw.h - 32 elements of a row of any quantized type, taken apart into the numbers that the
 * file packs in bits. What they mean is one rule for all types:
 *
 *   w = (d * scale) * value + m * min          scale, min: of its half of the 32 elements
 *
 * with value = quant_raw_value(type, q). Types without sub-blocks have scales and minimums of 1;
 * types without a minimum have m = 0. quant_raw_read.h reads them. Internal to kernels/. Thread:
 * any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_QUANT_RAW_H
#define CLOISTER_WORKER_KERNELS_QUANT_RAW_H

#include "worker/kernels/half.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/quant_type.h"

#include <stdbool.h>

struct quant_raw {
    uint16_t d; /* binary16; MXFP4: bfloat16 */
    uint16_t m; /* binary16 */
    int8_t scale[2];
    uint8_t min[2];
    uint8_t q[QUANT_BLOCK_ITEMS]; /* as stored: unsigned, Q8_0 as two's complement */
};

CLOISTER_DEVICE static inline bool quant_raw_has_min(enum quant_type type)
{
    return type == QUANT_TYPE_Q4_1 || type == QUANT_TYPE_Q5_1 || type == QUANT_TYPE_Q2_K ||
           type == QUANT_TYPE_Q4_K || type == QUANT_TYPE_Q5_K;
}

static inline float quant_raw_d(enum quant_type type, const struct quant_raw *raw)
{
    return type == QUANT_TYPE_MXFP4 ? bfloat_to_float(raw->d) : half_to_float(raw->d);
}

/* The integer that a stored quant stands for. */
static inline int32_t quant_raw_value(enum quant_type type, uint8_t q)
{
    switch (type) {
    case QUANT_TYPE_Q4_0:
        return q - 8;
    case QUANT_TYPE_Q5_0:
        return q - 16;
    case QUANT_TYPE_Q8_0:
        return (int8_t)q;
    case QUANT_TYPE_Q3_K:
        return q - 4;
    case QUANT_TYPE_Q6_K:
        return q - 32;
    case QUANT_TYPE_IQ4_NL:
    case QUANT_TYPE_IQ4_XS:
        return quant_iq4_values[q & 15];
    case QUANT_TYPE_MXFP4:
        return quant_mxfp4_values[q & 15];
    default:
        return q;
    }
}

#endif
