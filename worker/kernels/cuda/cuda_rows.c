/* Operations on rows and elements: checks and launches. */
#include "worker/kernels/cuda/cuda_internal.h"
#include "worker/kernels/cuda/kernels.h"

#include "common/check.h"

static struct cuda_backend *rows_enter(struct backend *b, const struct act *out, uint32_t n,
                                       uint32_t cols)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    CHECK(out == NULL || (n <= out->rows_max && cols <= out->cols_max));
    cuda_enter(cuda);
    return cuda;
}

void cuda_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out)
{
    struct cuda_backend *cuda = rows_enter(b, out, n, cols);
    if (n > 0 && cols > 0)
        CUDA_DO_LAUNCH(cuda_launch_quantize(cuda->stream, x, n, cols, out->device),
                       "quantize of %u rows of %u", n, cols);
}

void cuda_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
               float eps, struct act *out)
{
    struct cuda_backend *cuda = rows_enter(b, out, n, cols);
    if (n > 0 && cols > 0)
        CUDA_DO_LAUNCH(cuda_launch_norm(cuda->stream, x, n, cols, gain, eps, out->device),
                       "norm of %u rows of %u", n, cols);
}

void cuda_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                   float eps, float *out)
{
    struct cuda_backend *cuda = rows_enter(b, NULL, n, cols);
    if (n > 0 && cols > 0)
        CUDA_DO_LAUNCH(cuda_launch_norm_add(cuda->stream, x, n, cols, gain, eps, out),
                       "norm_add of %u rows of %u", n, cols);
}

void cuda_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
               enum activation activation, struct act *out)
{
    struct cuda_backend *cuda = rows_enter(b, out, n, cols);
    if (n > 0 && cols > 0)
        CUDA_DO_LAUNCH(cuda_launch_gate(cuda->stream, gate, up, n, cols,
                                        activation == ACTIVATION_GELU_TANH, out->device),
                       "gate of %u rows of %u", n, cols);
}

void cuda_pick(struct backend *b, const float *x, uint32_t n, uint32_t cols,
               const struct pick *picks, float *ret_picked)
{
    struct cuda_backend *cuda = rows_enter(b, NULL, n, cols);
    if (n == 0)
        return;
    const struct pick *wanted = cuda_input(cuda, picks, n * sizeof *picks);
    CUDA_DO_LAUNCH(
        cuda_launch_pick(cuda->stream, x, n, cols, wanted, (struct picked *)(void *)ret_picked),
        "picking of %u rows of %u", n, cols);
}

void cuda_softcap(struct backend *b, float *x, size_t count, float cap)
{
    struct cuda_backend *cuda = rows_enter(b, NULL, 0, 0);
    if (count > 0)
        CUDA_DO_LAUNCH(cuda_launch_softcap(cuda->stream, x, count, cap), "softcap of %zu floats",
                       count);
}

void cuda_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n, uint32_t cols,
                float *out)
{
    struct cuda_backend *cuda = rows_enter(b, NULL, n, cols);
    if (n == 0 || cols == 0)
        return;
    const uint32_t *places = cuda_input(cuda, at, n * sizeof *at);
    CUDA_DO_LAUNCH(cuda_launch_place(cuda->stream, rows, places, n, cols, out),
                   "place of %u rows of %u", n, cols);
}
