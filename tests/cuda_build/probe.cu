// Kernels of the tests' own, in the product's manner: that the compiler, its flags, the budgets and
// the look at the machine code work is shown on them whatever the product's kernels are.
#include "tests/cuda_build/probe.h"

#include <cuda_runtime.h>

// Integer dot products: 16 bytes a load, four products an instruction.
__global__ void __launch_bounds__(128) probe_dot(const int4 *a, const int4 *b, int *out)
{
    __shared__ int partial[128];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const int4 x = a[i], y = b[i];
    partial[threadIdx.x] =
        __dp4a(x.x, y.x, __dp4a(x.y, y.y, __dp4a(x.z, y.z, __dp4a(x.w, y.w, 0))));
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (threadIdx.x < step)
            partial[threadIdx.x] += partial[threadIdx.x + step];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        out[blockIdx.x] = partial[0];
}

// A product and a sum that have to be rounded one after the other.
template <int Terms> __global__ void probe_sum(const float *a, const float *b, float *out)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    float sum = 0.0f;
    for (int k = 0; k < Terms; k++)
        sum = sum + a[i * Terms + k] * b[i * Terms + k];
    out[i] = sum;
}

static int probe_end(void)
{
    cudaError_t e = cudaGetLastError();
    return e != cudaSuccess ? e : cudaDeviceSynchronize();
}

extern "C" int probe_dot_run(const int8_t *a, const int8_t *b, int32_t *out, unsigned blocks)
{
    probe_dot<<<blocks, 128>>>((const int4 *)a, (const int4 *)b, out);
    return probe_end();
}

extern "C" int probe_sum_run(const float *a, const float *b, float *out, unsigned blocks)
{
    probe_sum<PROBE_TERMS><<<blocks, 32>>>(a, b, out);
    return probe_end();
}
