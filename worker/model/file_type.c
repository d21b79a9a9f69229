#include "worker/model/file_type.h"

#include "worker/kernels/quant_type.h"

#include <stddef.h>
#include <stdint.h>

/* By llama.cpp's enum llama_ftype (include/llama.h), with the names that llama-quantize takes. What
 * is missing was removed there. */
static const char *const file_type_names[] = {
    [0] = "F32",      [1] = "F16",      [2] = "Q4_0",       [3] = "Q4_1",    [7] = "Q8_0",
    [8] = "Q5_0",     [9] = "Q5_1",     [10] = "Q2_K",      [11] = "Q3_K_S", [12] = "Q3_K_M",
    [13] = "Q3_K_L",  [14] = "Q4_K_S",  [15] = "Q4_K_M",    [16] = "Q5_K_S", [17] = "Q5_K_M",
    [18] = "Q6_K",    [19] = "IQ2_XXS", [20] = "IQ2_XS",    [21] = "Q2_K_S", [22] = "IQ3_XS",
    [23] = "IQ3_XXS", [24] = "IQ1_S",   [25] = "IQ4_NL",    [26] = "IQ3_S",  [27] = "IQ3_M",
    [28] = "IQ2_S",   [29] = "IQ2_M",   [30] = "IQ4_XS",    [31] = "IQ1_M",  [32] = "BF16",
    [36] = "TQ1_0",   [37] = "TQ2_0",   [38] = "MXFP4_MOE", [39] = "NVFP4",  [40] = "Q1_0",
    [41] = "Q2_0",
};

/* "Q4_1" of a file whose head is Q8_0. */
static const char *name_by_bytes(const struct gguf *g)
{
    uint64_t bytes[64] = {0};
    uint32_t best = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        if ((uint32_t)t->type < 64)
            bytes[t->type] += t->size;
    }
    for (uint32_t i = 1; i < 64; i++) {
        if (bytes[i] > bytes[best])
            best = i;
    }
    const struct quant_type_info *info = quant_type_info(best);
    return info != NULL ? info->name : "unknown";
}

const char *model_file_type_name(const struct gguf *g)
{
    uint32_t type;
    if (gguf_get_u32(g, "general.file_type", &type, NULL) == ERR_OK &&
        type < sizeof file_type_names / sizeof file_type_names[0] && file_type_names[type] != NULL)
        return file_type_names[type];
    return name_by_bytes(g);
}
