#include "worker/kernels/quant_type.h"

#include <stddef.h>

/* By GGUF id. Sizes are those of ggml's block structures; retired ids keep 0, since no file of
 * today can hold them and their old layouts changed under one id. */
static const struct quant_type_info quant_type_infos[] = {
    [QUANT_TYPE_F32] = {"F32", 1, 4, true},
    [QUANT_TYPE_F16] = {"F16", 1, 2, true},
    [QUANT_TYPE_Q4_0] = {"Q4_0", 32, 18, true},
    [QUANT_TYPE_Q4_1] = {"Q4_1", 32, 20, true},
    [4] = {"Q4_2", 0, 0, false},
    [5] = {"Q4_3", 0, 0, false},
    [QUANT_TYPE_Q5_0] = {"Q5_0", 32, 22, true},
    [QUANT_TYPE_Q5_1] = {"Q5_1", 32, 24, true},
    [QUANT_TYPE_Q8_0] = {"Q8_0", 32, 34, true},
    [9] = {"Q8_1", 32, 36, false},
    [QUANT_TYPE_Q2_K] = {"Q2_K", 256, 84, true},
    [QUANT_TYPE_Q3_K] = {"Q3_K", 256, 110, true},
    [QUANT_TYPE_Q4_K] = {"Q4_K", 256, 144, true},
    [QUANT_TYPE_Q5_K] = {"Q5_K", 256, 176, true},
    [QUANT_TYPE_Q6_K] = {"Q6_K", 256, 210, true},
    [15] = {"Q8_K", 256, 292, false},
    [16] = {"IQ2_XXS", 256, 66, false},
    [17] = {"IQ2_XS", 256, 74, false},
    [18] = {"IQ3_XXS", 256, 98, false},
    [19] = {"IQ1_S", 256, 50, false},
    [QUANT_TYPE_IQ4_NL] = {"IQ4_NL", 32, 18, true},
    [21] = {"IQ3_S", 256, 110, false},
    [22] = {"IQ2_S", 256, 82, false},
    [QUANT_TYPE_IQ4_XS] = {"IQ4_XS", 256, 136, true},
    [24] = {"I8", 1, 1, false},
    [25] = {"I16", 1, 2, false},
    [26] = {"I32", 1, 4, false},
    [27] = {"I64", 1, 8, false},
    [28] = {"F64", 1, 8, false},
    [29] = {"IQ1_M", 256, 56, false},
    [QUANT_TYPE_BF16] = {"BF16", 1, 2, true},
    [31] = {"Q4_0_4_4", 0, 0, false},
    [32] = {"Q4_0_4_8", 0, 0, false},
    [33] = {"Q4_0_8_8", 0, 0, false},
    [34] = {"TQ1_0", 256, 54, false},
    [35] = {"TQ2_0", 256, 66, false},
    [36] = {"IQ4_NL_4_4", 0, 0, false},
    [37] = {"IQ4_NL_4_8", 0, 0, false},
    [38] = {"IQ4_NL_8_8", 0, 0, false},
    [QUANT_TYPE_MXFP4] = {"MXFP4", 32, 17, true},
    [40] = {"NVFP4", 64, 36, false},
    [41] = {"Q1_0", 128, 18, false},
    [42] = {"Q2_0", 64, 18, false},
};

const struct quant_type_info *quant_type_info(uint32_t type_id)
{
    if (type_id >= sizeof quant_type_infos / sizeof quant_type_infos[0])
        return NULL;
    return quant_type_infos[type_id].name != NULL ? &quant_type_infos[type_id] : NULL;
}
