/*
 * vec_avx2.h - the vector operations kernel_bodies.h is written in: 8 lanes, AVX2 with FMA and
 * F16C. vec_plain.h says in plain C what each of them means.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_VEC_AVX2_H
#define CLOISTER_WORKER_KERNELS_CPU_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES       8
#define VEC_COLS_MAX    4 /* columns of x beside each other: 8 of 16 registers are sums */
#define VEC_DOT_COLS    3 /* the same where a sum takes four registers */
#define VEC_QUERIES_MAX 3
#define VEC_INLINE      static inline __attribute__((always_inline))

/* Integer sums have no order, so the compiler would multiply first and add at the end, with every
 * product of a block spilled to the stack. An empty statement that may change the sum makes it add
 * now. */
#define VEC_SETTLE(sum) __asm__("" : "+x"(sum))

typedef __m256 vec_f;
typedef __m256i vec_i;
typedef __m256i vec_b;
typedef __m256i vec_dot4;
typedef __m256i vec_dot8;
typedef struct {
    __m256i signs;
    __m256i magnitudes;
} vec_w8;

VEC_INLINE vec_f vec_f_set(float x)
{
    return _mm256_set1_ps(x);
}

VEC_INLINE vec_f vec_f_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

VEC_INLINE void vec_f_store(float *p, vec_f x)
{
    _mm256_storeu_ps(p, x);
}

VEC_INLINE vec_f vec_f_add(vec_f a, vec_f b)
{
    return _mm256_add_ps(a, b);
}

VEC_INLINE vec_f vec_f_mul(vec_f a, vec_f b)
{
    return _mm256_mul_ps(a, b);
}

VEC_INLINE vec_f vec_f_fma(vec_f a, vec_f b, vec_f c)
{
    return _mm256_fmadd_ps(a, b, c);
}

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    return _mm256_cvtepi32_ps(x);
}

VEC_INLINE vec_f vec_f_load_half(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

VEC_INLINE vec_f vec_f_load_bfloat(const void *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

VEC_INLINE vec_f vec_f_load_i8(const int8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

VEC_INLINE void vec_f_store_half(uint16_t *p, vec_f x)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

VEC_INLINE vec_b vec_b_load(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

VEC_INLINE vec_b vec_b_quad(const int8_t *p)
{
    int32_t quad;
    memcpy(&quad, p, sizeof quad);
    return _mm256_set1_epi32(quad);
}

VEC_INLINE vec_b vec_b_low(vec_b x)
{
    return _mm256_and_si256(x, _mm256_set1_epi8(15));
}

VEC_INLINE vec_b vec_b_high(vec_b x)
{
    return _mm256_and_si256(_mm256_srli_epi16(x, 4), _mm256_set1_epi8(15));
}

/* 4-bit weights: eight pair sums of at most 2 * 15 * 127 fit int16, and are widened once. */
VEC_INLINE vec_dot4 vec_dot4_start(int32_t bias)
{
    (void)bias;
    return _mm256_setzero_si256();
}

VEC_INLINE vec_dot4 vec_dot4_add(vec_dot4 acc, vec_b w, vec_b x)
{
    acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x));
    VEC_SETTLE(acc);
    return acc;
}

VEC_INLINE vec_i vec_dot4_sum(vec_dot4 acc, int32_t bias)
{
    vec_i wide = _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
    return _mm256_add_epi32(wide, _mm256_set1_epi32(bias));
}

/* Signed 8-bit weights: |w| <= 128 as the unsigned operand, w's sign moved to x; a pair of at most
 * 2 * 128 * 127 fits int16, two pairs might not. */
VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    return (vec_w8){.signs = w, .magnitudes = _mm256_abs_epi8(w)};
}

VEC_INLINE vec_dot8 vec_dot8_start(int32_t sum_x)
{
    (void)sum_x;
    return _mm256_setzero_si256();
}

VEC_INLINE vec_dot8 vec_dot8_add(vec_dot8 acc, vec_w8 w, vec_b x)
{
    __m256i pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x, w.signs));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    VEC_SETTLE(acc);
    return acc;
}

VEC_INLINE vec_i vec_dot8_sum(vec_dot8 acc)
{
    return acc;
}

#endif
