/*
 * vec_avx512.h - as vec_avx2.h: 16 lanes, AVX-512 F, BW, VL and VNNI.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_VEC_AVX512_H
#define CLOISTER_WORKER_KERNELS_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES       16
#define VEC_COLS_MAX    8
#define VEC_DOT_COLS    8
#define VEC_QUERIES_MAX 8
#define VEC_INLINE      static inline __attribute__((always_inline))

typedef __m512 vec_f;
typedef __m512i vec_i;
typedef __m512i vec_b;
typedef __m512i vec_dot4;
typedef __m512i vec_dot8;
typedef __m512i vec_w8;

VEC_INLINE vec_f vec_f_set(float x)
{
    return _mm512_set1_ps(x);
}

VEC_INLINE vec_f vec_f_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

VEC_INLINE void vec_f_store(float *p, vec_f x)
{
    _mm512_storeu_ps(p, x);
}

VEC_INLINE vec_f vec_f_add(vec_f a, vec_f b)
{
    return _mm512_add_ps(a, b);
}

VEC_INLINE vec_f vec_f_mul(vec_f a, vec_f b)
{
    return _mm512_mul_ps(a, b);
}

VEC_INLINE vec_f vec_f_fma(vec_f a, vec_f b, vec_f c)
{
    return _mm512_fmadd_ps(a, b, c);
}

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    return _mm512_cvtepi32_ps(x);
}

VEC_INLINE vec_f vec_f_load_half(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

VEC_INLINE vec_f vec_f_load_bfloat(const void *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

VEC_INLINE vec_f vec_f_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

VEC_INLINE void vec_f_store_half(uint16_t *p, vec_f x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

VEC_INLINE vec_b vec_b_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

VEC_INLINE vec_b vec_b_quad(const int8_t *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm512_set1_epi32(quad);
}

VEC_INLINE vec_b vec_b_low(vec_b x)
{
    return _mm512_and_si512(x, _mm512_set1_epi32(0x0f0f0f0f));
}

VEC_INLINE vec_b vec_b_high(vec_b x)
{
    return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi32(0x0f0f0f0f));
}

/* vpdpbusd multiplies unsigned bytes of its first factor with signed bytes of its second and adds
 * four products to an int32 without saturation: weights first, x second. */
VEC_INLINE vec_dot4 vec_dot4_start(int32_t bias)
{
    return _mm512_set1_epi32(bias);
}

VEC_INLINE vec_dot4 vec_dot4_add(vec_dot4 acc, vec_b w, vec_b x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

VEC_INLINE vec_i vec_dot4_sum(vec_dot4 acc, int32_t bias)
{
    (void)bias;
    return acc;
}

/* Signed weights become unsigned by adding 128 (flipping the top bit); the sum is then too large by
 * 128 * sum(x), which the start value takes away. */
VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    return _mm512_xor_si512(w, _mm512_set1_epi32((int32_t)0x80808080u));
}

VEC_INLINE vec_dot8 vec_dot8_start(int32_t sum_x)
{
    return _mm512_set1_epi32(-128 * sum_x);
}

VEC_INLINE vec_dot8 vec_dot8_add(vec_dot8 acc, vec_w8 w, vec_b x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

VEC_INLINE vec_i vec_dot8_sum(vec_dot8 acc)
{
    return acc;
}

#endif
