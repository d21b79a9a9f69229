/*
 * half.h - binary16 and bfloat16 to and from float, exact, in plain integer arithmetic: the same
 * bits as the conversion instructions of x86 (F16C), ARM and CUDA, whatever the machine has.
 *
 * To 16 bits: round to nearest, ties to even; overflow gives infinity; subnormals are kept; a NaN
 * stays a NaN, quiet, with the upper bits of its payload. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_HALF_H
#define CLOISTER_WORKER_KERNELS_HALF_H

#include "worker/kernels/device_code.h"

#include <stdint.h>
#include <string.h>

CLOISTER_DEVICE static inline uint32_t half_float_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

CLOISTER_DEVICE static inline float half_bits_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

CLOISTER_DEVICE static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 0x1fu;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 31) {
        uint32_t quiet = mantissa != 0 ? 0x400000u : 0;
        return half_bits_float(sign | 0x7f800000u | quiet | mantissa << 13);
    }
    if (exponent == 0) {
        /* mantissa * 2^-24 is exact, and the sign of a zero is kept by the OR. */
        float magnitude = (float)mantissa * 0x1p-24f;
        return half_bits_float(sign | half_float_bits(magnitude));
    }
    return half_bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

CLOISTER_DEVICE static inline uint16_t half_from_float(float x)
{
    uint32_t u = half_float_bits(x);
    uint32_t sign = (u >> 16) & 0x8000u;
    uint32_t magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | (magnitude >> 13 & 0x1ffu));
    if (magnitude >= 0x477ff000u) /* 65520, half way to 2^16: rounds to infinity */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        /* Below 2^-14 the result is a multiple of 2^-24. Adding 0.5, whose last place is 2^-24,
         * makes the adder round to nearest even at just that place. */
        float sum = half_bits_float(magnitude) + 0.5f;
        return (uint16_t)(sign | (half_float_bits(sum) - 0x3f000000u));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    uint32_t rounded = magnitude + 0xfffu + odd - 0x38000000u;
    return (uint16_t)(sign | rounded >> 13);
}

CLOISTER_DEVICE static inline float bfloat_to_float(uint16_t b)
{
    return half_bits_float((uint32_t)b << 16);
}

#endif
