/*
 * vec_avx512.h - as vec_avx2.h: 16 lanes, AVX-512 F, BW, VL and VNNI.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_VEC_AVX512_H
#define CLOISTER_WORKER_KERNELS_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES 16
/* Columns of x and panels beside each other: 12 sums of integers and 12 of floats in 32 registers.
 */
#define VEC_COLS_MAX    4
#define VEC_LEAF_PANELS 3
#define VEC_QUERIES_MAX 8
#define VEC_INLINE      static inline __attribute__((always_inline))

typedef __m512 vec_f;
typedef __m512i vec_i;
typedef __m512i vec_b;
typedef __m512i vec_dot;
typedef __m512i vec_w8;
typedef int8_t vec_wide_x;

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

VEC_INLINE vec_f vec_f_max(vec_f a, vec_f b)
{
    return _mm512_max_ps(a, b);
}

VEC_INLINE float vec_f_sum16(const vec_f *v)
{
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(*v), 1));
    __m256 t = _mm256_add_ps(_mm512_castps512_ps256(*v), high);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

VEC_INLINE float vec_f_max16(const vec_f *v)
{
    __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(*v), 1));
    __m256 t = _mm256_max_ps(_mm512_castps512_ps256(*v), high);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    return _mm512_cvtepi32_ps(x);
}

VEC_INLINE vec_i vec_i_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}

VEC_INLINE vec_i vec_i_load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

VEC_INLINE void vec_i_store(int32_t *p, vec_i x)
{
    _mm512_storeu_si512(p, x);
}

VEC_INLINE vec_i vec_i_add(vec_i a, vec_i b)
{
    return _mm512_add_epi32(a, b);
}

VEC_INLINE vec_i vec_i_sub(vec_i a, vec_i b)
{
    return _mm512_sub_epi32(a, b);
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

VEC_INLINE vec_f vec_f_load_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
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

VEC_INLINE void vec_b_store(uint8_t *p, vec_b x)
{
    _mm512_storeu_si512(p, x);
}

VEC_INLINE vec_b vec_b_or(vec_b a, vec_b b)
{
    return _mm512_or_si512(a, b);
}

VEC_INLINE vec_b vec_b_none(void)
{
    return _mm512_setzero_si512();
}

/* Bytes less a number, modulo 256. */
VEC_INLINE vec_b vec_b_sub(vec_b x, const int number)
{
    return _mm512_sub_epi8(x, _mm512_set1_epi8((char)number));
}

/* The four bytes of each lane times the lane's number, modulo 256. */
VEC_INLINE vec_b vec_b_times(vec_b x, vec_i numbers)
{
    const __m512i low = _mm512_set1_epi16(0xff);
    const __m512i both = _mm512_or_si512(_mm512_slli_epi32(numbers, 16),
                                         _mm512_and_si512(numbers, _mm512_set1_epi32(0xffff)));
    const __m512i even = _mm512_and_si512(_mm512_mullo_epi16(x, both), low);
    const __m512i odd = _mm512_mullo_epi16(_mm512_srli_epi16(x, 8), both);
    return _mm512_or_si512(even, _mm512_slli_epi16(odd, 8));
}

/* Bits that cross from one byte to the next fall to the mask. */
VEC_INLINE vec_b vec_b_field(vec_b x, const int right, const int mask)
{
    x = right >= 0 ? _mm512_srli_epi32(x, (unsigned)right) : _mm512_slli_epi32(x, (unsigned)-right);
    return _mm512_and_si512(x, _mm512_set1_epi32((int32_t)(0x01010101u * (unsigned)mask)));
}

VEC_INLINE vec_b vec_b_lookup(const int8_t table[16], vec_b index)
{
    __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    return _mm512_shuffle_epi8(all, index);
}

/* vpdpbusd multiplies unsigned bytes of its first factor with signed bytes of its second and adds
 * four products to an int32 without saturation: weights first, x second, a whole block. */
#define VEC_DOT_DEPTH(top) ((void)(top), 8)
#define VEC_DOT_INT32      1

VEC_INLINE vec_dot vec_dot_first(vec_b w, vec_b x)
{
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), w, x);
}

VEC_INLINE vec_dot vec_dot_add(vec_dot acc, vec_b w, vec_b x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

VEC_INLINE vec_i vec_dot_sum(vec_dot acc)
{
    return acc;
}

VEC_INLINE vec_i vec_dot_scaled(vec_dot acc, vec_i scale)
{
    return _mm512_mullo_epi32(acc, scale);
}

VEC_INLINE vec_i vec_pair_load(const int8_t *p)
{
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
}

VEC_INLINE vec_i vec_pair_nibbles(vec_i pair, const int right)
{
    return _mm512_and_si512(_mm512_srli_epi32(pair, (unsigned)right),
                            _mm512_set1_epi32(0x000f000f));
}

VEC_INLINE vec_i vec_pair_times(vec_i pair, const int factor)
{
    return _mm512_mullo_epi16(pair, _mm512_set1_epi16((short)factor));
}

VEC_INLINE vec_i vec_pair_mul(vec_i a, vec_i b)
{
    return _mm512_madd_epi16(a, b);
}

VEC_INLINE vec_i vec_pair_first(vec_i pair)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(pair, 16), 16);
}

VEC_INLINE vec_i vec_pair_second(vec_i pair)
{
    return _mm512_srai_epi32(pair, 16);
}

/* Signed weights become unsigned by adding 128 (flipping the top bit); the sum is then too large by
 * 128 * sum(x), which the kernel takes away. */
VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    return _mm512_xor_si512(w, _mm512_set1_epi32((int32_t)0x80808080u));
}

VEC_INLINE vec_i vec_w8_add(vec_i acc, vec_w8 w, vec_b x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

#define VEC_WIDE_BYTES 1
#define VEC_WIDE_OFF   128

VEC_INLINE void vec_wide_store(uint8_t *p, vec_b w)
{
    vec_b_store(p, vec_w8_of(w));
}

VEC_INLINE vec_b vec_wide_load(const uint8_t *p, const int part)
{
    (void)part;
    return vec_b_load(p);
}

VEC_INLINE vec_b vec_wide_quad(const vec_wide_x *p, const int part)
{
    (void)part;
    return vec_b_quad(p);
}

VEC_INLINE vec_i vec_wide_add(vec_i acc, vec_b w, vec_b x)
{
    return _mm512_dpbusd_epi32(acc, w, x);
}

VEC_INLINE void vec_wide_widen(const int8_t *x, vec_wide_x *ret_wide)
{
    memcpy(ret_wide, x, 32);
}

#endif
