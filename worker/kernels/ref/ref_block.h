/* ref_block.h - a quantized block spelled out. Internal to ref/. */
#ifndef CLOISTER_WORKER_KERNELS_REF_REF_BLOCK_H
#define CLOISTER_WORKER_KERNELS_REF_REF_BLOCK_H

#include "worker/kernels/backend.h"

/* 32 elements of a quantized row: w = (d * scale) * q + m * min, where the first 16 elements have
 * scale[0] and min[0] and the others scale[1] and min[1]. Where one scale serves all 32 it is part
 * of d and m, and the integers are 1. */
struct ref_block {
    float d;
    float m;
    bool has_min;
    int32_t scale[2];
    int32_t min[2];
    int32_t q[32];
};

bool ref_type_is_float(enum quant_type type);
float ref_float_element(enum quant_type type, const uint8_t *row, uint32_t k);
void ref_block_read(enum quant_type type, const uint8_t *row, uint32_t block,
                    struct ref_block *ret_block);

#endif
