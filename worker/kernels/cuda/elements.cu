/* elements.cu - operations element by element: the softcap of logits, and rows put in their place.
 * Bound by memory: each float is read and written once. */
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/numerics.h"

#define ELEMENTS_THREADS 256
#define ELEMENTS_EACH    4 /* of a thread: loads under way together */

__global__ void __launch_bounds__(ELEMENTS_THREADS)
    elements_softcap(float *x, size_t count, float cap)
{
    const size_t begin = (size_t)blockIdx.x * (ELEMENTS_THREADS * ELEMENTS_EACH) + threadIdx.x;
    float y[ELEMENTS_EACH];
#pragma unroll
    for (int i = 0; i < ELEMENTS_EACH; i++) {
        const size_t k = begin + i * ELEMENTS_THREADS;
        y[i] = k < count ? x[k] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < ELEMENTS_EACH; i++) {
        const size_t k = begin + i * ELEMENTS_THREADS;
        if (k < count)
            x[k] = cap * nm_tanh(y[i] / cap);
    }
}

__global__ void __launch_bounds__(ELEMENTS_THREADS)
    elements_place(const float *rows, const uint32_t *at, uint32_t cols, float *out)
{
    const float *from = rows + (size_t)blockIdx.x * cols;
    float *to = out + (size_t)at[blockIdx.x] * cols;
    for (uint32_t k = threadIdx.x; k < cols; k += ELEMENTS_THREADS)
        to[k] = from[k];
}

extern "C" struct cuda_launched cuda_launch_softcap(cudaStream_t stream, float *x, size_t count,
                                                    float cap)
{
    const size_t each = ELEMENTS_THREADS * ELEMENTS_EACH;
    return CUDA_LAUNCH(elements_softcap, dim3((unsigned)((count + each - 1) / each)),
                       dim3(ELEMENTS_THREADS), 0, stream, x, count, cap);
}

extern "C" struct cuda_launched cuda_launch_place(cudaStream_t stream, const float *rows,
                                                  const uint32_t *at, uint32_t n, uint32_t cols,
                                                  float *out)
{
    return CUDA_LAUNCH(elements_place, dim3(n), dim3(ELEMENTS_THREADS), 0, stream, rows, at, cols,
                       out);
}
