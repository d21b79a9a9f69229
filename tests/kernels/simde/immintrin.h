/*
 * immintrin.h - stands before the compiler's own when vec_avx512.h is compiled for the test of the
 * 512-bit kernels on machines without AVX-512. SIMDe says in portable C, independently of us, what
 * each intrinsic does; the conversions its 0.7 lacks, and the fused multiply-add, which it rounds
 * twice, are written out.
 */
#ifndef CLOISTER_TESTS_KERNELS_SIMDE_IMMINTRIN_H
#define CLOISTER_TESTS_KERNELS_SIMDE_IMMINTRIN_H

#include "worker/kernels/half.h"

#include <math.h>

#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx2.h>
#include <simde/x86/avx512.h>

static inline __m512 _mm512_cvtepi32_ps(__m512i x)
{
    int32_t from[16];
    float to[16];
    simde_mm512_storeu_si512(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = (float)from[i];
    return simde_mm512_loadu_ps(to);
}

static inline __m512i _mm512_cvtepi8_epi32(__m128i x)
{
    int8_t from[16];
    int32_t to[16];
    simde_mm_storeu_si128(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = from[i];
    return simde_mm512_loadu_si512(to);
}

static inline __m512i _mm512_cvtepu8_epi32(__m128i x)
{
    uint8_t from[16];
    uint32_t to[16];
    simde_mm_storeu_si128(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = from[i];
    return simde_mm512_loadu_si512(to);
}

static inline __m512i _mm512_cvtepu16_epi32(__m256i x)
{
    uint16_t from[16];
    uint32_t to[16];
    simde_mm256_storeu_si256(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = from[i];
    return simde_mm512_loadu_si512(to);
}

static inline __m512 _mm512_cvtph_ps(__m256i x)
{
    uint16_t from[16];
    float to[16];
    simde_mm256_storeu_si256(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = half_to_float(from[i]);
    return simde_mm512_loadu_ps(to);
}

static inline __m256i _mm512_cvtps_ph(__m512 x, int rounding)
{
    float from[16];
    uint16_t to[16];
    (void)rounding; /* to nearest even is the only one the kernels ask for */
    simde_mm512_storeu_ps(from, x);
    for (int i = 0; i < 16; i++)
        to[i] = half_from_float(from[i]);
    return simde_mm256_loadu_epi16(to);
}

static inline __m512i _mm512_srai_epi32(__m512i x, unsigned count)
{
    int32_t lanes[16];
    simde_mm512_storeu_si512(lanes, x);
    for (int i = 0; i < 16; i++)
        lanes[i] = lanes[i] >> count;
    return simde_mm512_loadu_si512(lanes);
}

/* SIMDe's name for it is a macro of four arguments. */
#undef _mm512_madd_epi16
static inline __m512i _mm512_madd_epi16(__m512i a, __m512i b)
{
    return simde_mm512_madd_epi16(a, b);
}

#undef _mm512_fmadd_ps
static inline __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    float x[16];
    float y[16];
    float z[16];
    simde_mm512_storeu_ps(x, a);
    simde_mm512_storeu_ps(y, b);
    simde_mm512_storeu_ps(z, c);
    for (int i = 0; i < 16; i++)
        z[i] = fmaf(x[i], y[i], z[i]);
    return simde_mm512_loadu_ps(z);
}

#endif
