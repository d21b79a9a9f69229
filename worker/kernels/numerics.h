/*
 * numerics.h - the scalar mathematics of every path that decides a token, written once.
 *
 * Each function is a fixed sequence of IEEE single precision operations: add, multiply, divide,
 * comparison, and fused multiply-add where fmaf() is written. Compiled as scalar, as SIMD (the
 * functions have no branches, so loops over them vectorize) and for a GPU they give the same bits.
 * No libm: its results change between versions. (fmaf is one instruction, or an exact emulation.)
 * Needs -ffp-contract=off, no -ffast-math, no flushing of subnormals.
 *
 * Bounds are in units in the last place against the exact value, shown over every float in range
 * by tests/kernels/test_numerics.c --full (a stride of them without). Polynomials: Cephes (Moshier,
 * public domain), evaluated with fmaf. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_NUMERICS_H
#define CLOISTER_WORKER_KERNELS_NUMERICS_H

#include "worker/kernels/device_code.h"
#include "worker/kernels/half.h"
#include "worker/kernels/philox.h"

#include <math.h>
#include <stdint.h>

/* e^x, at most 2 ulp, subnormal results included; exactly 1 at 0; infinity above ln(FLT_MAX),
 * +0 below ln of half the least subnormal. NaN gives 0: a score that is no number weighs nothing.
 */
CLOISTER_DEVICE static inline float nm_exp(float x)
{
    /* Written so that a NaN fails the comparison and takes the bound, as maxps does. */
    float clamped = x > -104.0f ? x : -104.0f;
    clamped = clamped < 89.0f ? clamped : 89.0f;
    /* Adding 1.5 * 2^23 leaves round(x / ln 2) in the low bits of the sum. */
    const float magic = 12582912.0f;
    float shifted = fmaf(clamped, 1.44269504088896341f, magic);
    int32_t n = (int32_t)half_float_bits(shifted) - 0x4b400000;
    float nf = shifted - magic;
    float r = fmaf(nf, -0.693359375f, clamped);
    r = fmaf(nf, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = fmaf(p, r, 1.3981999507e-3f);
    p = fmaf(p, r, 8.3334519073e-3f);
    p = fmaf(p, r, 4.1665795894e-2f);
    p = fmaf(p, r, 1.6666665459e-1f);
    p = fmaf(p, r, 5.0000001201e-1f);
    float y = fmaf(p, r * r, r) + 1.0f;
    /* Two factors, because 2^n alone is not a normal float for n = 128 or below -126. The first
     * product is exact, so a subnormal result is rounded once. */
    int32_t n1 = n >> 1;
    int32_t n2 = n - n1;
    float s1 = half_bits_float((uint32_t)(n1 + 127) << 23);
    float s2 = half_bits_float((uint32_t)(n2 + 127) << 23);
    return y * s1 * s2;
}

/* ln(1 + f) for f in [sqrt(1/2) - 1, sqrt(2) - 1], plus e * ln 2. */
CLOISTER_DEVICE static inline float nm_log_reduced(float f, float e)
{
    float z = f * f;
    float p = 7.0376836292e-2f;
    p = fmaf(p, f, -1.1514610310e-1f);
    p = fmaf(p, f, 1.1676998740e-1f);
    p = fmaf(p, f, -1.2420140846e-1f);
    p = fmaf(p, f, 1.4249322787e-1f);
    p = fmaf(p, f, -1.6668057665e-1f);
    p = fmaf(p, f, 2.0000714765e-1f);
    p = fmaf(p, f, -2.4999993993e-1f);
    p = fmaf(p, f, 3.3333331174e-1f);
    float y = f * z * p;
    y = fmaf(e, -2.12194440e-4f, y);
    y = fmaf(z, -0.5f, y);
    return fmaf(e, 0.693359375f, f + y);
}

/* Natural logarithm of a positive normal or subnormal x, at most 2 ulp; exactly 0 at 1. -infinity
 * at 0, +infinity at +infinity, NaN for a negative x or a NaN. */
CLOISTER_DEVICE static inline float nm_log(float x)
{
    /* A subnormal is scaled up first; 2^23 is exact. */
    float small = x < 0x1p-126f ? 1.0f : 0.0f;
    float scaled = x < 0x1p-126f ? x * 0x1p23f : x;
    uint32_t u = half_float_bits(scaled);
    /* 0x3f3504f3 is sqrt(1/2): the mantissa lands in [sqrt(1/2), sqrt(2)). */
    int32_t e = (int32_t)(u - 0x3f3504f3u) >> 23;
    float m = half_bits_float(u - ((uint32_t)e << 23));
    float y = nm_log_reduced(m - 1.0f, fmaf(small, -23.0f, (float)e));
    y = x == 0.0f ? -half_bits_float(0x7f800000u) : y;
    y = x == half_bits_float(0x7f800000u) ? x : y;
    return x >= 0.0f ? y : half_bits_float(0x7fc00000u);
}

/* Hyperbolic tangent, at most 2 ulp. */
CLOISTER_DEVICE static inline float nm_tanh(float x)
{
    float a = half_bits_float(half_float_bits(x) & 0x7fffffffu);
    float z = x * x;
    float p = -5.70498872745e-3f;
    p = fmaf(p, z, 2.06390887954e-2f);
    p = fmaf(p, z, -5.37397155531e-2f);
    p = fmaf(p, z, 1.33314422036e-1f);
    p = fmaf(p, z, -3.33332819422e-1f);
    float near_zero = fmaf(p * z, x, x);
    float far = 1.0f - 2.0f / (nm_exp(a + a) + 1.0f);
    float y = !(a >= 0.625f) ? near_zero : far; /* a NaN stays one */
    return half_bits_float(half_float_bits(y) | (half_float_bits(x) & 0x80000000u));
}

/* x / (1 + e^-x), at most 4 ulp. */
CLOISTER_DEVICE static inline float nm_silu(float x)
{
    return x / (1.0f + nm_exp(-x));
}

/* 0.5 x (1 + tanh(u)), u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + e^-2u): the same function
 * without the cancellation for negative x. At most 16 ulp from x = -3 up, 160 below, where the
 * function itself is under 0.004. */
CLOISTER_DEVICE static inline float nm_gelu_tanh(float x)
{
    float u2 = x * fmaf(x * x, 0.044715f * 1.59576912160573f, 1.59576912160573f);
    return x / (1.0f + nm_exp(-u2));
}

/* The standard Gumbel variate that belongs to a uniform word: -ln(E), E = -ln(1 - v), v = (word +
 * 1/2) / 2^32. Near v = 0, where the large variates are that win a draw, E is computed from v
 * itself, so all 32 bits count. Finite for every word. */
CLOISTER_DEVICE static inline float nm_gumbel(uint32_t word)
{
    float v = fmaf((float)word, 0x1p-32f, 0x1p-33f);
    float direct = nm_log_reduced(-v, 0.0f);
    /* Words near the top round v up to 1; the greatest float below it stands for them. */
    float w = 1.0f - v;
    w = w > 0x1p-25f ? w : 0x1p-25f;
    float e = v < 0.25f ? -direct : -nm_log(w);
    return -nm_log(e);
}

/* Gumbel noise for one token: argmax over tokens of (logit / temperature + noise) is a draw from
 * softmax(logit / temperature). Keyed by (seed, position, token) and by nothing else. */
CLOISTER_DEVICE static inline float nm_token_gumbel(uint64_t seed, uint32_t position,
                                                    uint32_t token)
{
    return nm_gumbel(philox_token_word(seed, position, token));
}

/* Scale and its inverse for a block whose largest magnitude has these bits: q = rint(x *
 * *ret_inverse), x ~ q * *ret_scale. Both 0, and with them every q, where the block has nothing to
 * say in 8 bits: all zero, so small that the inverse overflows, or with an infinity or NaN in it.
 */
CLOISTER_DEVICE static inline void nm_quantize_scale(uint32_t amax_bits, float *ret_scale,
                                                     float *ret_inverse)
{
    float amax = half_bits_float(amax_bits);
    float inverse = 127.0f / amax;
    uint32_t inverse_bits = half_float_bits(inverse);
    /* Magnitudes compare as their bits do, NaN above infinity. */
    int usable = amax_bits < 0x7f800000u && inverse_bits < 0x7f800000u;
    *ret_scale = usable ? amax / 127.0f : 0.0f;
    *ret_inverse = usable ? inverse : 0.0f;
}

#endif
