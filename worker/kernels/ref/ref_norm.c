/* RMSNorm, and what is done with logits: their softcap, and the greatest of a row. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"
#include "worker/kernels/sum_order.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void ref_norm_row(const float *x, uint32_t cols, const float *gain, float eps, float *ret_y)
{
    float lanes[16] = {0};
    for (uint32_t k = 0; k < cols; k++)
        lanes[k % 16] = fmaf(x[k], x[k], lanes[k % 16]);
    float mean = sum_lane_tree(lanes, 16) / (float)cols;
    float r = 1.0f / sqrtf(mean + eps);
    for (uint32_t k = 0; k < cols; k++)
        ret_y[k] = x[k] * r * gain[k];
}

void ref_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
              float eps, struct act *out)
{
    (void)b;
    float *y = malloc((size_t)cols * sizeof *y + 1);
    CHECK(y != NULL);
    for (uint32_t i = 0; i < n; i++) {
        ref_norm_row(x + (size_t)i * cols, cols, gain, eps, y);
        ref_act_store(out, i, y, cols);
    }
    free(y);
}

void ref_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                  float eps, float *out)
{
    (void)b;
    float *y = malloc((size_t)cols * sizeof *y + 1);
    CHECK(y != NULL);
    for (uint32_t i = 0; i < n; i++) {
        ref_norm_row(x + (size_t)i * cols, cols, gain, eps, y);
        for (uint32_t k = 0; k < cols; k++)
            out[(size_t)i * cols + k] = out[(size_t)i * cols + k] + y[k];
    }
    free(y);
}

void ref_softcap(struct backend *b, float *x, size_t count, float cap)
{
    (void)b;
    for (size_t i = 0; i < count; i++)
        x[i] = cap * nm_tanh(x[i] / cap);
}
