/*
 * sample_math.h - what one id of a row weighs, for every path that draws: the CPU's passes over a
 * row (sample.h) and a device's (pick.h). One source, so the same bits.
 *
 * Every id's value is z = (logit - greatest) / temperature, two roundings, so that the best id has
 * 0; a logit of +infinity counts as FLT_MAX. A NaN is no candidate, nor is -infinity. A probability
 * is a whole number: mass(z) = floor(2^40 * nm_exp(z)). Sums of masses are exact and therefore have
 * no order.
 *
 * Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_SAMPLE_MATH_H
#define CLOISTER_WORKER_KERNELS_SAMPLE_MATH_H

#include "worker/kernels/device_code.h"
#include "worker/kernels/numerics.h"

#include <float.h>
#include <stdint.h>

/* exp(-30) * 2^40 is 0.1: no mass. */
#define SAMPLE_MASS_Z_MIN -30.0f
/* Above nm_gumbel of every word: the greatest, that of word 0, is 33 ln 2. */
#define SAMPLE_GUMBEL_MAX 22.9f

/* A NaN stays one: the comparison is false. */
CLOISTER_DEVICE static inline float sample_z(float logit, float greatest, float temperature)
{
    float tame = logit > FLT_MAX ? FLT_MAX : logit;

    return (tame - greatest) / temperature;
}

CLOISTER_DEVICE static inline uint64_t sample_mass(float z)
{
    uint32_t bits = half_float_bits(nm_exp(z));
    uint32_t right = 127u - (bits >> 23);

    /* e = m * 2^(exponent - 150), so 2^40 e is m * 2^17 shifted right by 127 - exponent. A
     * subnormal e has no mass, whatever its missing leading bit says. */
    right = right < 63u ? right : 63u;
    return ((uint64_t)((bits & 0x7fffffu) | 0x800000u) << 17) >> right;
}

/* At least nm_gumbel(word), with no logarithm. That is -ln(E) with E >= v, v a little above the
 * word's upper 24 bits as a fraction f; and log2 f is at least f's bits as a number, in units of
 * 2^-23, less 127. So -ln 2 times that is a bound, far above it (88) where f is 0. The slack covers
 * all roundings. */
CLOISTER_DEVICE static inline float sample_gumbel_bound(uint32_t word)
{
    const float scale = -0.69314718f * 0x1p-23f, offset = 0.69314718f * 127.0f + 0.01f;
    float f = (float)(int32_t)(word >> 8) * 0x1p-24f;

    return offset + scale * (float)(int32_t)half_float_bits(f);
}

#endif
