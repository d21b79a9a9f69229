/*
 * best.cu - the greatest element of each row, so that of a row of logits that is drawn from by that
 * alone 4 bytes go to the host, and not 512 KB of a vocabulary of 128 K.
 *
 * A block has a row: each thread goes through every 512th element, ascending, so that the first of
 * equal ones stays; then pairs of (value, index) are compared, the lower index winning a tie.
 */
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/numerics.h"

#include <float.h>

#define BEST_THREADS 512
#define BEST_WARPS   (BEST_THREADS / 32)
#define BEST_EACH    8 /* of a thread: loads under way together */

struct best {
    float value;
    uint32_t index;
};

/* Comparisons with a NaN are false: it is never better. */
DEVICE_INLINE void best_take(struct best &of, float value, uint32_t index)
{
    const float tame = value > FLT_MAX ? FLT_MAX : value;
    if (tame > of.value || (tame == of.value && index < of.index)) {
        of.value = tame;
        of.index = index;
    }
}

DEVICE_INLINE void best_of_warp(struct best &of)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, of.value, step);
        const uint32_t index = __shfl_xor_sync(0xffffffffu, of.index, step);
        best_take(of, value, index);
    }
}

__global__ void __launch_bounds__(BEST_THREADS)
    best_kernel(const float *x, uint32_t cols, uint32_t *best)
{
    CUDA_SHARED(float, values, BEST_WARPS);
    CUDA_SHARED(uint32_t, indices, BEST_WARPS);
    const float *const row = x + (size_t)blockIdx.x * cols;
    /* -infinity is no better than this: index 0 where there is nothing else. */
    struct best of = {-INFINITY, 0};
    for (uint32_t from = threadIdx.x; from < cols; from += BEST_THREADS * BEST_EACH) {
        float value[BEST_EACH];
#pragma unroll
        for (uint32_t i = 0; i < BEST_EACH; i++) {
            const uint32_t at = from + i * BEST_THREADS;
            value[i] = at < cols ? row[at] : -INFINITY;
        }
#pragma unroll
        for (uint32_t i = 0; i < BEST_EACH; i++)
            best_take(of, value[i], from + i * BEST_THREADS);
    }
    best_of_warp(of);
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (lane == 0) {
        values[warp] = of.value;
        indices[warp] = of.index;
    }
    __syncthreads();
    if (warp > 0)
        return;
    of = {lane < BEST_WARPS ? values[lane] : -INFINITY, lane < BEST_WARPS ? indices[lane] : 0};
    best_of_warp(of);
    if (lane == 0)
        best[blockIdx.x] = of.index;
}

extern "C" struct cuda_launched cuda_launch_best(cudaStream_t stream, const float *x, uint32_t n,
                                                 uint32_t cols, uint32_t *best)
{
    return CUDA_LAUNCH(best_kernel, dim3(n), dim3(BEST_THREADS), 0, stream, x, cols, best);
}
