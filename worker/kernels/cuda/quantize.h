/*
 * quantize.h - activations become 8 bits, in the two ways a warp may hold them. C++, for kernels.
 *
 * d = amax / 127, q = rint(x * (127 / amax)), half to even; magnitudes compare as their bits do, so
 * that the maximum has no order and a NaN stands above infinity (numerics.h, nm_quantize_scale).
 * Every lane of the warp calls these at the same place.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_QUANTIZE_H
#define CLOISTER_WORKER_KERNELS_CUDA_QUANTIZE_H

#include "worker/kernels/cuda/cuda_types.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/numerics.h"

/* A product that is no number (infinity times 0) gives 0. */
DEVICE_INLINE int32_t quantize_round(float x, float inverse)
{
    return __float2int_rn(x * inverse);
}

DEVICE_INLINE uint32_t quantize_magnitude(float x)
{
    return half_float_bits(x) & 0x7fffffffu;
}

/* What is known of a block: written by one lane. */
DEVICE_INLINE void quantize_store_block(const struct cuda_act &out, size_t block, float scale,
                                        int32_t first, int32_t second)
{
    out.scales[block] = scale;
    out.sums[block] = scale * (float)(first + second);
    out.pairs[block] = (int32_t)(((uint32_t)first & 0xffffu) | (uint32_t)second << 16);
}

/* Eight lanes hold a block of a row, four elements each in order: lane 8i + j elements 4j .. 4j + 3
 * of its block. Where `valid` is false nothing is written. */
DEVICE_INLINE void quantize_quads(const struct cuda_act &out, uint32_t row, uint32_t block,
                                  bool valid, const float (&y)[4])
{
    const uint32_t part = threadIdx.x % 8;
    uint32_t amax = 0;
    for (int i = 0; i < 4; i++)
        amax = max(amax, quantize_magnitude(y[i]));
    for (int step = 1; step < 8; step *= 2)
        amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    float scale, inverse;
    nm_quantize_scale(amax, &scale, &inverse);
    uint32_t packed = 0;
    int32_t sum = 0;
    for (int i = 0; i < 4; i++) {
        const int32_t q = quantize_round(y[i], inverse);
        packed |= ((uint32_t)q & 0xffu) << (8 * i);
        sum += q;
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const int32_t second = __shfl_xor_sync(0xffffffffu, sum, 4);
    if (!valid)
        return;
    int8_t *q = out.q + (size_t)row * out.q_stride + (size_t)block * 32 + part * 4;
    *reinterpret_cast<uint32_t *>(q) = packed;
    if (part == 0)
        quantize_store_block(out, (size_t)row * out.blocks + block, scale, sum, second);
}

/* The lanes hold one block, an element each; gives its 8 bits to the lane, and the scale. */
DEVICE_INLINE int32_t quantize_lanes(float y, float *ret_scale)
{
    uint32_t amax = quantize_magnitude(y);
    for (int step = 16; step > 0; step /= 2)
        amax = max(amax, __shfl_xor_sync(0xffffffffu, amax, step));
    float inverse;
    nm_quantize_scale(amax, ret_scale, &inverse);
    return quantize_round(y, inverse);
}

/* The same, stored as block `block` of a row. */
DEVICE_INLINE void quantize_lanes_store(const struct cuda_act &out, uint32_t row, uint32_t block,
                                        float y)
{
    const uint32_t lane = threadIdx.x % 32;
    float scale;
    const int32_t q = quantize_lanes(y, &scale);
    int32_t sum = q;
    for (int step = 8; step > 0; step /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const int32_t second = __shfl_xor_sync(0xffffffffu, sum, 16);
    out.q[(size_t)row * out.q_stride + (size_t)block * 32 + lane] = (int8_t)q;
    if (lane == 0)
        quantize_store_block(out, (size_t)row * out.blocks + block, scale, sum, second);
}

#endif
