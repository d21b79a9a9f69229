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
#define VEC_LEAF_PANELS 1
#define VEC_QUERIES_MAX 3
#define VEC_INLINE      static inline __attribute__((always_inline))

/* Integer sums have no order, so the compiler would multiply first and add at the end, with every
 * product of a block spilled to the stack. An empty statement that may change the sum makes it add
 * now. */
#define VEC_SETTLE(sum) __asm__("" : "+x"(sum))

typedef __m256 vec_f;
typedef __m256i vec_i;
typedef __m256i vec_b;
typedef __m256i vec_dot;
typedef struct {
    __m256i signs;
    __m256i magnitudes;
} vec_w8;
typedef int16_t vec_wide_x;

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

/* a > b ? a : b: b where either is no number. */
VEC_INLINE vec_f vec_f_max(vec_f a, vec_f b)
{
    return _mm256_max_ps(a, b);
}

/* Of 16 lanes, in 16 / VEC_LANES vectors: lane i takes lane i + 8, then i + 4, i + 2, i + 1. */
VEC_INLINE float vec_f_sum16(const vec_f *v)
{
    __m256 t = _mm256_add_ps(v[0], v[1]);
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

VEC_INLINE float vec_f_max16(const vec_f *v)
{
    __m256 t = _mm256_max_ps(v[0], v[1]);
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    return _mm256_cvtepi32_ps(x);
}

VEC_INLINE vec_i vec_i_set(int32_t x)
{
    return _mm256_set1_epi32(x);
}

VEC_INLINE vec_i vec_i_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

VEC_INLINE void vec_i_store(int32_t *p, vec_i x)
{
    _mm256_storeu_si256((__m256i *)p, x);
}

VEC_INLINE vec_i vec_i_add(vec_i a, vec_i b)
{
    return _mm256_add_epi32(a, b);
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

VEC_INLINE vec_f vec_f_load_u8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)));
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

VEC_INLINE void vec_b_store(uint8_t *p, vec_b x)
{
    _mm256_storeu_si256((__m256i *)p, x);
}

VEC_INLINE vec_b vec_b_or(vec_b a, vec_b b)
{
    return _mm256_or_si256(a, b);
}

/* Bits that cross from one byte of a 16-bit word to the other fall to the mask. */
VEC_INLINE vec_b vec_b_field(vec_b x, const int right, const int mask)
{
    x = right >= 0 ? _mm256_srli_epi16(x, right) : _mm256_slli_epi16(x, -right);
    return _mm256_and_si256(x, _mm256_set1_epi8((char)mask));
}

VEC_INLINE vec_b vec_b_lookup(const int8_t table[16], vec_b index)
{
    __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    return _mm256_shuffle_epi8(both, index);
}

/* Pairs of columns: 2 * 15 * 127 fits int16 eight times over, 2 * 31 * 127 four times, 2 * 63 * 127
 * twice. */
#define VEC_DOT_DEPTH(top) ((top) <= 15 ? 8 : (top) <= 31 ? 4 : 2)
#define VEC_DOT_INT32      0

VEC_INLINE vec_dot vec_dot_first(vec_b w, vec_b x)
{
    return _mm256_maddubs_epi16(w, x);
}

VEC_INLINE vec_dot vec_dot_add(vec_dot acc, vec_b w, vec_b x)
{
    acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x));
    VEC_SETTLE(acc);
    return acc;
}

VEC_INLINE vec_i vec_dot_sum(vec_dot acc)
{
    return _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
}

VEC_INLINE vec_i vec_dot_scaled(vec_dot acc, vec_i scale)
{
    return _mm256_madd_epi16(acc, scale);
}

VEC_INLINE vec_i vec_pair_load(const int8_t *p)
{
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
}

VEC_INLINE vec_i vec_pair_nibbles(vec_i pair, const int right)
{
    return _mm256_and_si256(_mm256_srli_epi16(pair, right), _mm256_set1_epi16(15));
}

VEC_INLINE vec_i vec_pair_times(vec_i pair, const int factor)
{
    return _mm256_mullo_epi16(pair, _mm256_set1_epi16((short)factor));
}

VEC_INLINE vec_i vec_pair_mul(vec_i a, vec_i b)
{
    return _mm256_madd_epi16(a, b);
}

/* For vec_dot_scaled: the scale in both halves of a lane, for both of its sums. */
VEC_INLINE vec_i vec_pair_first(vec_i pair)
{
    return _mm256_shuffle_epi8(pair,
                               _mm256_set_epi8(13, 12, 13, 12, 9, 8, 9, 8, 5, 4, 5, 4, 1, 0, 1, 0,
                                               13, 12, 13, 12, 9, 8, 9, 8, 5, 4, 5, 4, 1, 0, 1, 0));
}

VEC_INLINE vec_i vec_pair_second(vec_i pair)
{
    return _mm256_shuffle_epi8(pair, _mm256_set_epi8(15, 14, 15, 14, 11, 10, 11, 10, 7, 6, 7, 6, 3,
                                                     2, 3, 2, 15, 14, 15, 14, 11, 10, 11, 10, 7, 6,
                                                     7, 6, 3, 2, 3, 2));
}

/* Signed 8-bit weights of one use: |w| <= 128 as the unsigned operand, w's sign moved to x; a pair
 * of at most 2 * 128 * 127 fits int16, two pairs might not. */
VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    return (vec_w8){.signs = w, .magnitudes = _mm256_abs_epi8(w)};
}

VEC_INLINE vec_i vec_w8_add(vec_i acc, vec_w8 w, vec_b x)
{
    __m256i pairs = _mm256_maddubs_epi16(w.magnitudes, _mm256_sign_epi8(x, w.signs));
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    VEC_SETTLE(acc);
    return acc;
}

/* Of many uses: as int16, columns 0 and 1 of a quad in one vector and 2 and 3 in the other, which
 * costs twice the memory and saves moving signs. */
#define VEC_WIDE_BYTES 2
#define VEC_WIDE_OFF   0

VEC_INLINE void vec_wide_store(uint8_t *p, vec_b w)
{
    const __m256i low = _mm256_set_epi8(13, -1, 12, -1, 9, -1, 8, -1, 5, -1, 4, -1, 1, -1, 0, -1,
                                        13, -1, 12, -1, 9, -1, 8, -1, 5, -1, 4, -1, 1, -1, 0, -1);
    const __m256i high =
        _mm256_set_epi8(15, -1, 14, -1, 11, -1, 10, -1, 7, -1, 6, -1, 3, -1, 2, -1, 15, -1, 14, -1,
                        11, -1, 10, -1, 7, -1, 6, -1, 3, -1, 2, -1);
    vec_b_store(p, _mm256_srai_epi16(_mm256_shuffle_epi8(w, low), 8));
    vec_b_store(p + 32, _mm256_srai_epi16(_mm256_shuffle_epi8(w, high), 8));
}

VEC_INLINE vec_b vec_wide_load(const uint8_t *p, const int part)
{
    return vec_b_load(p + 32 * part);
}

VEC_INLINE vec_b vec_wide_quad(const vec_wide_x *p, const int part)
{
    return vec_b_quad((const int8_t *)(p + 2 * part));
}

VEC_INLINE vec_i vec_wide_add(vec_i acc, vec_b w, vec_b x)
{
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(w, x));
    VEC_SETTLE(acc);
    return acc;
}

/* 32 columns of x. */
VEC_INLINE void vec_wide_widen(const int8_t *x, vec_wide_x *ret_wide)
{
    for (int k = 0; k < 32; k += 16)
        _mm256_storeu_si256((__m256i *)(ret_wide + k),
                            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(x + k))));
}

#endif
