/* The gated activation of the feed-forward layer. */
#include "worker/kernels/ref/ref.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"

#include <stdlib.h>

void ref_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
              enum activation activation, struct act *out)
{
    (void)b;
    float *y = malloc((size_t)cols * sizeof *y + 1);
    CHECK(y != NULL);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < cols; k++) {
            float g = gate[(size_t)i * cols + k];
            float a = activation == ACTIVATION_SILU ? nm_silu(g) : nm_gelu_tanh(g);
            y[k] = a * up[(size_t)i * cols + k];
        }
        ref_act_store(out, i, y, cols);
    }
    free(y);
}
