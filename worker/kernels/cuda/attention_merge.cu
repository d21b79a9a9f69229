/*
 * attention_merge.cu - the partial sums of pages that blocks have shared out, folded ascending.
 *
 * A block has one head of one row. The factors of 32 pages at a time are worked out side by side (a
 * running maximum is a prefix of maxima), then every thread folds its elements of dim_v: two
 * dependent operations a page, 8 cycles, so 0.1 us for 24 pages (768 positions); what it reads was
 * written a moment ago and is in the second-level cache.
 */
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/cuda/quantize.h"

#define MERGE_THREADS 128
#define MERGE_DIMS    4 /* elements of a thread: heads of 512 at most */

/* Lane l's page: its running maximum, the one before it, and from these its factors. */
DEVICE_INLINE float merge_factors(float top, bool is_there, float before, float *ret_a,
                                  float *ret_b)
{
    const uint32_t lane = threadIdx.x % 32;
    float running = is_there ? top : half_bits_float(0xff800000u);
    for (uint32_t step = 1; step < 32; step *= 2) {
        const float other = __shfl_up_sync(0xffffffffu, running, step);
        if (lane >= step)
            running = other > running ? other : running;
    }
    running = before > running ? before : running;
    float last = __shfl_up_sync(0xffffffffu, running, 1);
    last = lane == 0 ? before : last;
    *ret_a = nm_exp(last - running);
    *ret_b = nm_exp(top - running);
    return __shfl_sync(0xffffffffu, running, 31);
}

__global__ void __launch_bounds__(MERGE_THREADS) attention_merge(struct cuda_attention a)
{
    CUDA_SHARED(float, factor_a, 32);
    CUDA_SHARED(float, factor_b, 32);
    CUDA_SHARED(float, sums, 32);
    const struct cuda_row where = a.rows.row[a.rows.first + blockIdx.x];
    const uint32_t first = a.window > 0 && where.position >= a.window
                               ? (where.position + 1 - a.window) / CUDA_KV_POSITIONS
                               : 0;
    const uint32_t n = where.position / CUDA_KV_POSITIONS - first + 1;
    const uint32_t dim = a.kv.dim_v;
    const size_t pages = a.splits * a.split_pages;
    const size_t row_head = (size_t)blockIdx.x * a.n_heads + blockIdx.y;
    const float *tops = a.partials + 2 * row_head * pages;
    const float *values =
        a.partials + 2 * a.rows.count * a.n_heads * pages + row_head * pages * dim;
    float top = half_bits_float(0xff800000u), total = 0.0f, out[MERGE_DIMS];
    for (int v = 0; v < MERGE_DIMS; v++)
        out[v] = 0.0f;

    for (uint32_t begin = 0; begin < n; begin += 32) {
        if (threadIdx.x < 32) {
            const uint32_t page = begin + threadIdx.x;
            const bool is_there = page < n;
            const float page_top = is_there ? tops[2 * page] : 0.0f;
            float fa, fb;
            top = merge_factors(page_top, is_there, top, &fa, &fb);
            factor_a[threadIdx.x] = fa;
            factor_b[threadIdx.x] = fb;
            sums[threadIdx.x] = is_there ? tops[2 * page + 1] : 0.0f;
        }
        __syncthreads();
        const uint32_t count = min(n - begin, 32u);
        for (uint32_t i = 0; i < count; i++) {
            const float *page = values + (size_t)(begin + i) * dim;
            const bool is_first = begin + i == 0;
            total = is_first ? sums[i] : fmaf(sums[i], factor_b[i], total * factor_a[i]);
#pragma unroll
            for (int v = 0; v < MERGE_DIMS; v++) {
                const uint32_t d = threadIdx.x + v * MERGE_THREADS;
                if (d >= dim)
                    break;
                out[v] = is_first ? page[d] : fmaf(page[d], factor_b[i], out[v] * factor_a[i]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int v = 0; v < MERGE_DIMS; v++) {
        const uint32_t d = threadIdx.x + v * MERGE_THREADS;
        const uint32_t at = blockIdx.y * dim + d;
        const float y = out[v] / total;
        if (d / 32 * 32 >= dim)
            break;
        if (a.floats != NULL) {
            if (d < dim)
                a.floats[(size_t)blockIdx.x * a.n_heads * dim + at] = y;
            continue;
        }
        quantize_lanes_store(a.out, blockIdx.x, at / 32, y);
        if (a.out.floats != NULL)
            a.out.floats[(size_t)blockIdx.x * a.out.cols_max + at] = y;
    }
}

extern "C" struct cuda_launched cuda_launch_attention_merge(cudaStream_t stream,
                                                            const struct cuda_attention *a)
{
    return CUDA_LAUNCH(attention_merge, dim3(a->rows.count, a->n_heads), dim3(MERGE_THREADS), 0,
                       stream, *a);
}
