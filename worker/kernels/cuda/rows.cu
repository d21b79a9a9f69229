/*
 * rows.cu - operations on rows of activations: quantize, gate, norm, norm added to the residual.
 * What they make goes into the matrix products as 8 bits, so quantization is part of each.
 *
 * A block has one row (or a piece of one), a thread four columns at a time: 16 bytes a load, and
 * eight lanes are a block of 32 (quantize.h).
 *
 * What bounds a norm: the sum of squares is 16 chains of fmaf by index modulo 16, and a chain
 * cannot be shared out. So all threads fetch the row into shared memory, 16 lanes walk it, 4 cycles
 * a step (the latency of an FFMA, loads being ahead of it), and all threads finish: cols / 4
 * cycles, 0.6 us at 4,096 columns and 1.8 GHz, which a step of one row pays twice a layer and a
 * step of many rows hides behind those of other rows, since a multiprocessor has up to 8 blocks.
 */
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/cuda/quantize.h"

#define ROWS_THREADS 256
#define ROWS_TILE    4096u /* columns in shared memory at a time: 16 KB */

enum rows_op { ROWS_OP_QUANTIZE, ROWS_OP_SILU, ROWS_OP_GELU };

/* Four columns of a row of floats, 0 behind its end. */
DEVICE_INLINE void rows_load(const float *row, uint32_t k, uint32_t cols, bool is_aligned,
                             float (&x)[4])
{
    if (is_aligned && k + 4 <= cols) {
        const uint4 v = device_load16(row + k);
        x[0] = half_bits_float(v.x);
        x[1] = half_bits_float(v.y);
        x[2] = half_bits_float(v.z);
        x[3] = half_bits_float(v.w);
        return;
    }
    for (uint32_t i = 0; i < 4; i++)
        x[i] = k + i < cols ? row[k + i] : 0.0f;
}

DEVICE_INLINE void rows_store(float *row, uint32_t k, uint32_t cols, bool is_aligned,
                              const float (&x)[4])
{
    if (is_aligned && k + 4 <= cols) {
        const uint4 v = {half_float_bits(x[0]), half_float_bits(x[1]), half_float_bits(x[2]),
                         half_float_bits(x[3])};
        device_store16(row + k, v);
        return;
    }
    for (uint32_t i = 0; i < 4; i++) {
        if (k + i < cols)
            row[k + i] = x[i];
    }
}

DEVICE_INLINE void rows_emit(const struct cuda_act &out, uint32_t row, uint32_t quad, uint32_t cols,
                             const float (&y)[4])
{
    quantize_quads(out, row, quad / 8, quad < (cols + 31) / 32 * 8, y);
    if (out.floats != NULL)
        rows_store(out.floats + (size_t)row * out.cols_max, quad * 4, cols, out.cols_max % 4 == 0,
                   y);
}

template <enum rows_op Op>
__global__ void __launch_bounds__(ROWS_THREADS)
    rows_map(const float *x, const float *up, uint32_t cols, struct cuda_act out)
{
    const uint32_t row = blockIdx.x;
    const uint32_t quad = blockIdx.y * ROWS_THREADS + threadIdx.x;
    const bool is_aligned = cols % 4 == 0;
    const size_t at = (size_t)row * cols;
    float y[4];
    rows_load(x + at, quad * 4, cols, is_aligned, y);
    if (Op != ROWS_OP_QUANTIZE) {
        float u[4];
        rows_load(up + at, quad * 4, cols, is_aligned, u);
        for (int i = 0; i < 4; i++)
            y[i] = (Op == ROWS_OP_SILU ? nm_silu(y[i]) : nm_gelu_tanh(y[i])) * u[i];
    }
    rows_emit(out, row, quad, cols, y);
}

/* The tile's share of lane `lane`'s chain. */
DEVICE_INLINE float rows_squares(const float *tile, uint32_t count, uint32_t lane, float sum)
{
    uint32_t k = lane;
    /* Loads of 16 steps are issued before the first of them is used. */
    for (; k + 15 * 16 < count; k += 16 * 16) {
        float x[16];
#pragma unroll
        for (int i = 0; i < 16; i++)
            x[i] = tile[k + 16 * i];
#pragma unroll
        for (int i = 0; i < 16; i++)
            sum = fmaf(x[i], x[i], sum);
    }
    for (; k < count; k += 16)
        sum = fmaf(tile[k], tile[k], sum);
    return sum;
}

/* 1 / sqrt(mean of squares + eps), for all threads of the block. */
DEVICE_INLINE float rows_factor(const float *row, uint32_t cols, float eps)
{
    CUDA_SHARED(float, tile, ROWS_TILE);
    CUDA_SHARED(float, factor, 1);
    float sum = 0.0f;
    for (uint32_t begin = 0; begin < cols; begin += ROWS_TILE) {
        const uint32_t count = min(cols - begin, ROWS_TILE);
        for (uint32_t k = threadIdx.x; k < count; k += ROWS_THREADS)
            tile[k] = row[begin + k];
        __syncthreads();
        if (threadIdx.x < 16)
            sum = rows_squares(tile, count, threadIdx.x, sum);
        __syncthreads();
    }
    if (threadIdx.x < 32) {
        for (int step = 8; step > 0; step /= 2)
            sum = sum + __shfl_xor_sync(0xffffffffu, sum, step);
        if (threadIdx.x == 0)
            factor[0] = 1.0f / sqrtf(sum / (float)cols + eps);
    }
    __syncthreads();
    return factor[0];
}

DEVICE_INLINE void rows_normed(const float *row, const float *gain, uint32_t k, uint32_t cols,
                               bool is_aligned, float r, float (&y)[4])
{
    float g[4];
    rows_load(row, k, cols, is_aligned, y);
    rows_load(gain, k, cols, true, g);
    for (int i = 0; i < 4; i++)
        y[i] = y[i] * r * g[i];
}

__global__ void __launch_bounds__(ROWS_THREADS)
    rows_norm(const float *x, uint32_t cols, const float *gain, float eps, struct cuda_act out)
{
    const uint32_t row = blockIdx.x;
    const float *in = x + (size_t)row * cols;
    const float r = rows_factor(in, cols, eps);
    const uint32_t quads = (cols + 31) / 32 * 8;
    for (uint32_t begin = 0; begin < quads; begin += ROWS_THREADS) {
        const uint32_t quad = begin + threadIdx.x;
        float y[4];
        rows_normed(in, gain, quad * 4, cols, cols % 4 == 0, r, y);
        rows_emit(out, row, quad, cols, y);
    }
}

__global__ void __launch_bounds__(ROWS_THREADS)
    rows_norm_add(const float *x, uint32_t cols, const float *gain, float eps, float *sum)
{
    const float *in = x + (size_t)blockIdx.x * cols;
    float *out = sum + (size_t)blockIdx.x * cols;
    const float r = rows_factor(in, cols, eps);
    const bool is_aligned = cols % 4 == 0;
    for (uint32_t k = threadIdx.x * 4; k < cols; k += ROWS_THREADS * 4) {
        float y[4], o[4];
        rows_normed(in, gain, k, cols, is_aligned, r, y);
        rows_load(out, k, cols, is_aligned, o);
        for (int i = 0; i < 4; i++)
            o[i] = o[i] + y[i];
        rows_store(out, k, cols, is_aligned, o);
    }
}

static dim3 rows_grid(uint32_t n, uint32_t cols)
{
    return dim3(n, ((cols + 31) / 32 * 8 + ROWS_THREADS - 1) / ROWS_THREADS);
}

extern "C" struct cuda_launched cuda_launch_quantize(cudaStream_t stream, const float *x,
                                                     uint32_t n, uint32_t cols, struct cuda_act out)
{
    return CUDA_LAUNCH(rows_map<ROWS_OP_QUANTIZE>, rows_grid(n, cols), dim3(ROWS_THREADS), 0,
                       stream, x, (const float *)NULL, cols, out);
}

extern "C" struct cuda_launched cuda_launch_gate(cudaStream_t stream, const float *gate,
                                                 const float *up, uint32_t n, uint32_t cols,
                                                 bool gelu, struct cuda_act out)
{
    if (gelu)
        return CUDA_LAUNCH(rows_map<ROWS_OP_GELU>, rows_grid(n, cols), dim3(ROWS_THREADS), 0,
                           stream, gate, up, cols, out);
    return CUDA_LAUNCH(rows_map<ROWS_OP_SILU>, rows_grid(n, cols), dim3(ROWS_THREADS), 0, stream,
                       gate, up, cols, out);
}

extern "C" struct cuda_launched cuda_launch_norm(cudaStream_t stream, const float *x, uint32_t n,
                                                 uint32_t cols, const float *gain, float eps,
                                                 struct cuda_act out)
{
    return CUDA_LAUNCH(rows_norm, dim3(n), dim3(ROWS_THREADS), 0, stream, x, cols, gain, eps, out);
}

extern "C" struct cuda_launched cuda_launch_norm_add(cudaStream_t stream, const float *x,
                                                     uint32_t n, uint32_t cols, const float *gain,
                                                     float eps, float *sum)
{
    return CUDA_LAUNCH(rows_norm_add, dim3(n), dim3(ROWS_THREADS), 0, stream, x, cols, gain, eps,
                       sum);
}
