/*
 * quant_type.h - tensor element types by their GGUF ids, with block sizes. Layout of each block:
 * quant_block.h.
 */
#ifndef CLOISTER_WORKER_KERNELS_QUANT_TYPE_H
#define CLOISTER_WORKER_KERNELS_QUANT_TYPE_H

#include <stdbool.h>
#include <stdint.h>

enum quant_type {
    QUANT_TYPE_F32 = 0,
    QUANT_TYPE_F16 = 1,
    QUANT_TYPE_Q4_0 = 2,
    QUANT_TYPE_Q4_1 = 3,
    QUANT_TYPE_Q5_0 = 6,
    QUANT_TYPE_Q5_1 = 7,
    QUANT_TYPE_Q8_0 = 8,
    QUANT_TYPE_Q2_K = 10,
    QUANT_TYPE_Q3_K = 11,
    QUANT_TYPE_Q4_K = 12,
    QUANT_TYPE_Q5_K = 13,
    QUANT_TYPE_Q6_K = 14,
    QUANT_TYPE_IQ4_NL = 20,
    QUANT_TYPE_IQ4_XS = 23,
    QUANT_TYPE_BF16 = 30,
    QUANT_TYPE_MXFP4 = 39,
};

struct quant_type_info {
    const char *name;     /* "Q4_1" */
    uint32_t block_items; /* elements a block: 1, 32, 64, 128 or 256; 0 for retired ids */
    uint32_t block_bytes; /* 0 for retired ids */
    bool supported;       /* this build has kernels for it; false: known by name only */
};

#ifndef __cplusplus /* kernels; there the name is the struct's constructor */
/* NULL for an id that GGUF never had. Retired ids (4, 5: Q4_2, Q4_3; 31-33, 36-38: repacked ones)
 * and ids without kernels are returned with supported = false, so that a refusal can name them. */
const struct quant_type_info *quant_type_info(uint32_t type_id);
#endif

#endif
