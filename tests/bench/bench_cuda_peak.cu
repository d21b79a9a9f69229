/* How many integer products a device can do: the same wrappers as the kernels', in registers only.
 */
#include "tests/bench/bench_cuda_peak.h"
#include "worker/kernels/cuda/device.h"

#define PEAK_BLOCKS 4 /* of a multiprocessor */
#define PEAK_WARPS  8
#define PEAK_CHAINS 8 /* independent sums */
#define PEAK_LOOPS  4096

template <bool Mma> __global__ void __launch_bounds__(PEAK_WARPS * 32) peak_kernel(int32_t *sink)
{
    uint32_t a[4] = {threadIdx.x, threadIdx.x + 1, threadIdx.x + 2, threadIdx.x + 3};
    uint32_t b[2] = {threadIdx.x + 4, threadIdx.x + 5};
    int32_t c[PEAK_CHAINS][4] = {};
    for (uint32_t i = 0; i < PEAK_LOOPS; i++) {
#pragma unroll
        for (uint32_t k = 0; k < PEAK_CHAINS; k++) {
            if constexpr (Mma) {
                device_mma_m16n8k32(c[k], a, b);
            } else {
#pragma unroll
                for (uint32_t e = 0; e < 4; e++)
                    c[k][e] = device_dp4a(a[e], b[k % 2] + i, c[k][e]);
            }
        }
    }
    int32_t sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < PEAK_CHAINS; k++)
        sum += c[k][0] + c[k][1] + c[k][2] + c[k][3];
    if (sum == 0x7eadbeef) /* hardly ever; the compiler cannot know */
        *sink = sum;
}

struct cuda_launched bench_cuda_peak(enum bench_peak peak, uint32_t multiprocessors, void *sink,
                                     cudaStream_t stream)
{
    const uint32_t blocks = multiprocessors * PEAK_BLOCKS;
    if (peak == BENCH_PEAK_MMA)
        return CUDA_LAUNCH((peak_kernel<true>), blocks, PEAK_WARPS * 32, 0, stream,
                           static_cast<int32_t *>(sink));
    return CUDA_LAUNCH((peak_kernel<false>), blocks, PEAK_WARPS * 32, 0, stream,
                       static_cast<int32_t *>(sink));
}

double bench_cuda_peak_operations(enum bench_peak peak, uint32_t multiprocessors)
{
    const double warps = (double)multiprocessors * PEAK_BLOCKS * PEAK_WARPS;
    const double products = peak == BENCH_PEAK_MMA ? 16.0 * 8 * 32 : 4.0 * 4 * 32;
    return 2.0 * warps * PEAK_LOOPS * PEAK_CHAINS * products;
}
