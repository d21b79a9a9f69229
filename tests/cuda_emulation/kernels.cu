/* kernels.cu - kernels that use what the emulation has, each written so that its result is known.
 */
#include "tests/cuda_emulation/kernels.h"

#include "worker/kernels/cuda/device.h"

#define ALL 0xffffffffu

/* --- Barriers and shared memory --- */

/* The block's sum of in[], by halving in shared memory. */
static __global__ void sum_kernel(const int *in, int *out)
{
    CUDA_SHARED(int, part, 256);
    unsigned t = threadIdx.x;
    part[t] = in[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half)
            part[t] += part[t + half];
        __syncthreads();
    }
    if (t == 0)
        out[blockIdx.x] = part[0];
}

struct cuda_launched launch_sum(const int *in, int *out, unsigned blocks, unsigned threads,
                                cudaStream_t stream)
{
    return CUDA_LAUNCH(sum_kernel, blocks, threads, 0, stream, in, out);
}

/* out[block] = count, all, any of in[] != 0, through the barriers that count. */
static __global__ void barrier_votes_kernel(const int *in, int *out)
{
    int p = in[blockIdx.x * blockDim.x + threadIdx.x];
    int count = __syncthreads_count(p);
    int all = __syncthreads_and(p);
    int any = __syncthreads_or(p);
    if (threadIdx.x == 0) {
        out[3 * blockIdx.x] = count;
        out[3 * blockIdx.x + 1] = all;
        out[3 * blockIdx.x + 2] = any;
    }
}

struct cuda_launched launch_barrier_votes(const int *in, int *out, unsigned blocks,
                                          unsigned threads, cudaStream_t stream)
{
    return CUDA_LAUNCH(barrier_votes_kernel, blocks, threads, 0, stream, in, out);
}

/* Where each thread is: six words. */
static __global__ void places_kernel(unsigned *out)
{
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned *o = out + 6 * (block * threads + thread);
    o[0] = blockIdx.x;
    o[1] = blockIdx.y;
    o[2] = blockIdx.z;
    o[3] = threadIdx.x;
    o[4] = threadIdx.y;
    o[5] = threadIdx.z;
}

struct cuda_launched launch_places(unsigned *out, const unsigned grid[3], const unsigned block[3],
                                   cudaStream_t stream)
{
    return CUDA_LAUNCH(places_kernel, dim3(grid[0], grid[1], grid[2]),
                       dim3(block[0], block[1], block[2]), 0, stream, out);
}

/* out[i] = in[count - 1 - i] through dynamic shared memory, one block. */
static __global__ void reverse_kernel(const float *in, float *out)
{
    CUDA_SHARED_DYNAMIC(float, all);
    unsigned t = threadIdx.x;
    all[t] = in[t];
    __syncthreads();
    out[t] = all[blockDim.x - 1 - t];
}

struct cuda_launched launch_reverse(const float *in, float *out, unsigned threads,
                                    size_t shared_bytes, cudaStream_t stream)
{
    return CUDA_LAUNCH(reverse_kernel, 1, threads, shared_bytes, stream, in, out);
}

cudaError_t allow_reverse(size_t shared_bytes)
{
    return cudaFuncSetAttribute(reverse_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)shared_bytes);
}

/* --- Warps --- */

/* One row of `SHUFFLES` words per lane: what each shuffle and vote gives for value lane * lane + 1.
 */
static __global__ void shuffles_kernel(unsigned *out)
{
    unsigned lane = threadIdx.x % 32;
    unsigned value = lane * lane + 1;
    unsigned *o = out + SHUFFLES * threadIdx.x;
    o[0] = __shfl_sync(ALL, value, 5);
    o[1] = __shfl_sync(ALL, value, (int)lane + 1);
    o[2] = __shfl_up_sync(ALL, value, 3);
    o[3] = __shfl_down_sync(ALL, value, 3);
    o[4] = __shfl_xor_sync(ALL, value, 16);
    o[5] = __shfl_sync(ALL, value, 2, 8);
    o[6] = __shfl_down_sync(ALL, value, 2, 8);
    o[7] = __ballot_sync(ALL, lane % 3 == 0);
    o[8] = (unsigned)__all_sync(ALL, lane < 31);
    o[9] = (unsigned)__any_sync(ALL, lane == 31);
    o[10] = __match_any_sync(ALL, lane % 5);
    unsigned half = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    o[11] = __shfl_xor_sync(half, value, 1);
    long long wide = __shfl_xor_sync(ALL, (long long)value << 32 | lane, 1);
    o[12] = (unsigned)(wide >> 32) + (unsigned)wide;
    o[13] = __float_as_uint(__shfl_xor_sync(ALL, (float)value, 2));
}

struct cuda_launched launch_shuffles(unsigned *out, unsigned threads, cudaStream_t stream)
{
    return CUDA_LAUNCH(shuffles_kernel, 1, threads, 0, stream, out);
}

/* Lanes write, the warp meets, lanes read their neighbour's: no block barrier. */
static __global__ void neighbours_kernel(int *out)
{
    CUDA_SHARED(int, words, 64);
    unsigned t = threadIdx.x;
    words[t] = (int)t;
    __syncwarp();
    out[t] = words[t ^ 1u];
    __syncwarp(t % 32 < 16 ? 0x0000ffffu : 0xffff0000u);
    words[t ^ 2u] = out[t];
    __syncwarp();
    out[t] += words[t ^ 5u];
}

struct cuda_launched launch_neighbours(int *out, cudaStream_t stream)
{
    return CUDA_LAUNCH(neighbours_kernel, 1, 64, 0, stream, out);
}

/* --- Matrix fragments --- */

/* One warp: c[16][8] = a[16][k] * b[8][k]^T, elements placed by hand. */
static __global__ void mma_kernel(const int8_t *a, const int8_t *b, int32_t *c, int k)
{
    int group = (int)threadIdx.x / 4;
    int in_group = (int)threadIdx.x % 4;
    int32_t sum[4] = {1, 2, 3, 4};
    const uint32_t *a_words = (const uint32_t *)a;
    const uint32_t *b_words = (const uint32_t *)b;
    int w = k / 4; /* words of a row */
    if (k == 32) {
        uint32_t fa[4] = {a_words[group * w + in_group], a_words[(group + 8) * w + in_group],
                          a_words[group * w + in_group + 4],
                          a_words[(group + 8) * w + in_group + 4]};
        uint32_t fb[2] = {b_words[group * w + in_group], b_words[group * w + in_group + 4]};
        device_mma_m16n8k32(sum, fa, fb);
    } else {
        uint32_t fa[2] = {a_words[group * w + in_group], a_words[(group + 8) * w + in_group]};
        uint32_t fb[1] = {b_words[group * w + in_group]};
        device_mma_m16n8k16(sum, fa, fb);
    }
    c[group * 8 + in_group * 2] = sum[0];
    c[group * 8 + in_group * 2 + 1] = sum[1];
    c[(group + 8) * 8 + in_group * 2] = sum[2];
    c[(group + 8) * 8 + in_group * 2 + 1] = sum[3];
}

struct cuda_launched launch_mma(const int8_t *a, const int8_t *b, int32_t *c, int k,
                                cudaStream_t stream)
{
    return CUDA_LAUNCH(mma_kernel, 1, 32, 0, stream, a, b, c, k);
}

/* The same product of 32 columns with both operands through shared memory and ldmatrix. */
static __global__ void mma_ldmatrix_kernel(const int8_t *a, const int8_t *b, int32_t *c)
{
    CUDA_SHARED(uint4, a_tile, 32); /* [16 rows][2 halves of 16 bytes] */
    CUDA_SHARED(uint4, b_tile, 16);
    unsigned lane = threadIdx.x;
    a_tile[lane] = device_load16((const uint4 *)a + lane);
    if (lane < 16)
        b_tile[lane] = device_load16((const uint4 *)b + lane);
    __syncwarp();
    uint32_t fa[4];
    uint32_t fb[4]; /* of b there are two, which come twice */
    int32_t sum[4] = {0, 0, 0, 0};
    /* Matrices: rows 0-7 and 8-15 of the first 16 bytes, then of the second. */
    device_ldmatrix_x4(fa, &a_tile[2 * (lane % 16) + lane / 16]);
    device_ldmatrix_x4(fb, &b_tile[2 * (lane % 8) + lane / 8 % 2]);
    const uint32_t two[2] = {fb[0], fb[1]};
    device_mma_m16n8k32(sum, fa, two);
    for (unsigned i = 0; i < 4; i++)
        c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}

struct cuda_launched launch_mma_ldmatrix(const int8_t *a, const int8_t *b, int32_t *c,
                                         cudaStream_t stream)
{
    return CUDA_LAUNCH(mma_ldmatrix_kernel, 1, 32, 0, stream, a, b, c);
}

/* --- Asynchronous copies --- */

/* Sums `tiles` tiles of blockDim.x vectors through two stages; the tile after next is under way
 * while one is added up. Vectors from `valid` on count as zeros. */
static __global__ void stages_kernel(const uint4 *in, unsigned *out, unsigned tiles, unsigned valid)
{
    CUDA_SHARED(uint4, stage, 2 * 64);
    unsigned t = threadIdx.x;
    unsigned n = blockDim.x;
    unsigned sum = 0;
    for (unsigned s = 0; s < 2; s++) {
        if (s < tiles)
            device_async_copy16_or_zero(&stage[s * n + t], in + s * n + t, s * n + t < valid);
        device_async_commit();
    }
    for (unsigned tile = 0; tile < tiles; tile++) {
        device_async_wait<1>();
        __syncthreads();
        uint4 v = stage[tile % 2 * n + (t + 1) % n];
        sum += v.x + v.y + v.z + v.w;
        __syncthreads();
        if (tile + 2 < tiles)
            device_async_copy16_or_zero(&stage[tile % 2 * n + t], in + (tile + 2) * n + t,
                                        (tile + 2) * n + t < valid);
        device_async_commit();
    }
    out[t] = sum;
}

struct cuda_launched launch_stages(const uint4 *in, unsigned *out, unsigned tiles, unsigned valid,
                                   cudaStream_t stream)
{
    return CUDA_LAUNCH(stages_kernel, 1, 64, 0, stream, in, out, tiles, valid);
}

/* --- Atomics and arithmetic --- */

/* Words: sum, least, greatest, bits, number of threads that added modulo 5, and one more. */
static __global__ void atomics_kernel(int *out)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    atomicAdd(&out[0], i);
    atomicMin(&out[1], i - 7);
    atomicMax(&out[2], i);
    atomicOr((unsigned *)&out[3], 1u << (i % 31));
    atomicInc((unsigned *)&out[4], 4);
    atomicCAS(&out[5], i, i + 1);
}

struct cuda_launched launch_atomics(int *out, unsigned blocks, unsigned threads,
                                    cudaStream_t stream)
{
    return CUDA_LAUNCH(atomics_kernel, blocks, threads, 0, stream, out);
}

/* Every half there and back, and every product of bytes in one place of the word. */
static __global__ void arithmetic_kernel(uint16_t *halves, int *products)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    halves[i] = device_half_from_float(device_half_to_float((uint16_t)i));
    uint32_t a = (i & 0xffu) * 0x01010101u;
    uint32_t b = (i >> 8) << 16;
    products[i] = device_dp4a(a, b, -5);
}

struct cuda_launched launch_arithmetic(uint16_t *halves, int *products, cudaStream_t stream)
{
    return CUDA_LAUNCH(arithmetic_kernel, 256, 256, 0, stream, halves, products);
}

/* --- Accesses whose cost is known --- */

/* Words `stride` apart: each lane of a warp then has a sector of its own, or shares one. */
static __global__ void strided_kernel(const int *in, int *out, unsigned stride)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * stride];
}

struct cuda_launched launch_strided(const int *in, int *out, unsigned stride, unsigned threads,
                                    cudaStream_t stream)
{
    return CUDA_LAUNCH(strided_kernel, 1, threads, 0, stream, in, out, stride);
}

static __global__ void vectors_kernel(const uint4 *in, uint4 *out)
{
    unsigned i = threadIdx.x;
    device_store16(&out[i], device_load16_once(&in[i]));
}

struct cuda_launched launch_vectors(const uint4 *in, uint4 *out, unsigned threads,
                                    cudaStream_t stream)
{
    return CUDA_LAUNCH(vectors_kernel, 1, threads, 0, stream, in, out);
}

/* Shared words `stride` apart: their banks. */
static __global__ void banks_kernel(int *out, unsigned stride)
{
    CUDA_SHARED(int, words, 32 * 33);
    unsigned t = threadIdx.x;
    words[t * stride] = (int)t;
    __syncwarp();
    out[t] = words[t * stride];
}

struct cuda_launched launch_banks(int *out, unsigned stride, cudaStream_t stream)
{
    return CUDA_LAUNCH(banks_kernel, 1, 32, 0, stream, out, stride);
}
