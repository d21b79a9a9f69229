/* bench.cu - the two shapes of a matrix product, as plainly as they can be written: how fast does
 * the emulation run them. */
#include "tests/cuda_emulation/bench.h"

#include "worker/kernels/cuda/device.h"

static __global__ void gemv_kernel(const int8_t *w, const int8_t *x, int32_t *y, uint32_t rows,
                                   uint32_t cols)
{
    uint32_t lane = threadIdx.x % 32;
    uint32_t row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    int32_t sum = 0;
    for (uint32_t k = 16 * lane; k < cols; k += 16 * 32) {
        uint4 a = device_load16_once(w + (size_t)row * cols + k);
        uint4 b = device_load16(x + k);
        sum = device_dp4a(a.x, b.x, sum);
        sum = device_dp4a(a.y, b.y, sum);
        sum = device_dp4a(a.z, b.z, sum);
        sum = device_dp4a(a.w, b.w, sum);
    }
    for (int by = 16; by > 0; by /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, by);
    if (lane == 0 && row < rows)
        y[row] = sum;
}

struct cuda_launched launch_gemv(const int8_t *w, const int8_t *x, int32_t *y, uint32_t rows,
                                 uint32_t cols, cudaStream_t stream)
{
    return CUDA_LAUNCH(gemv_kernel, rows / 4, 128, 0, stream, w, x, y, rows, cols);
}

static __global__ void gemm_kernel(const int8_t *w, const int8_t *x, int32_t *c, uint32_t n,
                                   uint32_t cols)
{
    uint32_t lane = threadIdx.x % 32;
    uint32_t row = blockIdx.x * 64 + threadIdx.x / 32 * 16 + lane / 4;
    uint32_t column = blockIdx.y * 8 + lane / 4;
    const int8_t *a = w + (size_t)row * cols + lane % 4 * 4;
    const int8_t *b = x + (size_t)column * cols + lane % 4 * 4;
    int32_t sum[4] = {0, 0, 0, 0};
    for (uint32_t k = 0; k < cols; k += 32) {
        uint32_t fa[4] = {*(const uint32_t *)(a + k), *(const uint32_t *)(a + 8 * cols + k),
                          *(const uint32_t *)(a + k + 16),
                          *(const uint32_t *)(a + 8 * cols + k + 16)};
        uint32_t fb[2] = {*(const uint32_t *)(b + k), *(const uint32_t *)(b + k + 16)};
        device_mma_m16n8k32(sum, fa, fb);
    }
    int32_t *out = c + (size_t)row * n + blockIdx.y * 8 + lane % 4 * 2;
    out[0] = sum[0];
    out[1] = sum[1];
    out[8 * n] = sum[2];
    out[8 * n + 1] = sum[3];
}

struct cuda_launched launch_gemm(const int8_t *w, const int8_t *x, int32_t *c, uint32_t rows,
                                 uint32_t n, uint32_t cols, cudaStream_t stream)
{
    return CUDA_LAUNCH(gemm_kernel, dim3(rows / 64, n / 8), 128, 0, stream, w, x, c, n, cols);
}
