#include "tests/kernels/matrix.h"

#include <string.h>

static bool matrix_read(void *ctx, uint64_t at, void *to, size_t size)
{
    memcpy(to, (const uint8_t *)ctx + at, size);
    return true;
}

enum err matrix_load(struct backend *b, enum quant_type type, const void *data, uint32_t rows,
                     uint32_t cols, const struct sum_cut *cut, struct weight **ret_weight,
                     struct errbuf *eb)
{
    uint32_t failed;
    const struct weight_job job = {
        .type = type,
        .rows = rows,
        .cols = cols,
        .cut = cut != NULL ? *cut : sum_cut_whole(cols, 1, 1),
        .source = {.read = matrix_read, .ctx = (void *)(uintptr_t)data},
        .ret_weight = ret_weight,
    };
    return b->ops->weights_read(b, &job, 1, &failed, eb);
}
