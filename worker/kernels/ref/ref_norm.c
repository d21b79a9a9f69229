/* RMSNorm. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/sum_order.h"

#include <math.h>
#include <stdlib.h>

void ref_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
              float eps, struct act *out)
{
    (void)b;
    float *y = malloc((size_t)cols * sizeof *y + 1);
    CHECK(y != NULL);
    for (uint32_t i = 0; i < n; i++) {
        const float *row = x + (size_t)i * cols;
        float lanes[16] = {0};
        for (uint32_t k = 0; k < cols; k++)
            lanes[k % 16] = fmaf(row[k], row[k], lanes[k % 16]);
        float mean = sum_lane_tree(lanes, 16) / (float)cols;
        float r = 1.0f / sqrtf(mean + eps);
        for (uint32_t k = 0; k < cols; k++)
            y[k] = row[k] * r * gain[k];
        ref_act_store(out, i, y, cols);
    }
    free(y);
}
