/* What shards have computed in parts, added up in the order of the tree. */
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/products.h"

#define JOIN_THREADS 128

/* An element a thread. Sums that wait stand in shared memory, a column of it for each thread. */
__global__ void __launch_bounds__(JOIN_THREADS) join_kernel(const struct cuda_join join)
{
    CUDA_SHARED(float, sums, SUM_GROUPS_MAX *JOIN_THREADS);
    const uint64_t element = (uint64_t)blockIdx.x * JOIN_THREADS + threadIdx.x;
    if (element >= (uint64_t)join.n * join.cols)
        return;
    const uint32_t row = (uint32_t)(element / join.cols), col = (uint32_t)(element % join.cols);
    float *const own = sums + threadIdx.x;
    for (uint32_t p = 0; p < join.n_parts; p++)
        own[p * JOIN_THREADS] = join.part[p].at[row * join.part[p].stride + col];
    for (uint32_t i = 0; i < join.n_joins; i++) {
        float *const into = own + join.join[i].into * JOIN_THREADS;
        *into = *into + own[join.join[i].from * JOIN_THREADS];
    }
    float sum = own[0];
    if (join.bias != nullptr)
        sum = sum + join.bias[col];
    const uint64_t at = row * join.out_stride + col;
    join.out[at] = join.onto != nullptr ? join.onto[at] + sum : sum;
}

struct cuda_launched cuda_join_sums(const struct cuda_join *join, cudaStream_t stream)
{
    const uint64_t elements = (uint64_t)join->n * join->cols;
    return CUDA_LAUNCH(join_kernel, (uint32_t)((elements + JOIN_THREADS - 1) / JOIN_THREADS),
                       JOIN_THREADS, 0, stream, *join);
}
