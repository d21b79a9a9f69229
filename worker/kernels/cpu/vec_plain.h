/*
 * vec_plain.h - the 16-lane operations of vec_avx512.h in plain C: what each of them means, and
 * the means to run the 512-bit kernels' logic on a machine that has no AVX-512. Used by tests.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_VEC_PLAIN_H
#define CLOISTER_WORKER_KERNELS_CPU_VEC_PLAIN_H

#include "worker/kernels/half.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define VEC_LANES       16
#define VEC_COLS_MAX    4
#define VEC_LEAF_PANELS 3
#define VEC_QUERIES_MAX 8
#define VEC_INLINE      static inline

typedef struct {
    float v[VEC_LANES];
} vec_f;
typedef struct {
    int32_t v[VEC_LANES];
} vec_i;
typedef struct {
    uint8_t v[VEC_LANES * 4];
} vec_b;
typedef vec_i vec_dot;
typedef vec_b vec_w8;
typedef int8_t vec_wide_x;

#define VEC_EACH(i) for (int i = 0; i < VEC_LANES; i++)

VEC_INLINE vec_f vec_f_set(float x)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = x;
    return r;
}

VEC_INLINE vec_f vec_f_load(const float *p)
{
    vec_f r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}

VEC_INLINE void vec_f_store(float *p, vec_f x)
{
    memcpy(p, x.v, sizeof x.v);
}

VEC_INLINE vec_f vec_f_add(vec_f a, vec_f b)
{
    VEC_EACH(i) a.v[i] = a.v[i] + b.v[i];
    return a;
}

VEC_INLINE vec_f vec_f_mul(vec_f a, vec_f b)
{
    VEC_EACH(i) a.v[i] = a.v[i] * b.v[i];
    return a;
}

VEC_INLINE vec_f vec_f_fma(vec_f a, vec_f b, vec_f c)
{
    VEC_EACH(i) c.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
    return c;
}

VEC_INLINE vec_f vec_f_max(vec_f a, vec_f b)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return r;
}

VEC_INLINE float vec_f_sum16(const vec_f *v)
{
    vec_f t = *v;
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            t.v[i] = t.v[i] + t.v[i + half];
    }
    return t.v[0];
}

VEC_INLINE float vec_f_max16(const vec_f *v)
{
    vec_f t = *v;
    for (int half = 8; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            t.v[i] = t.v[i] > t.v[i + half] ? t.v[i] : t.v[i + half];
    }
    return t.v[0];
}

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = (float)x.v[i];
    return r;
}

VEC_INLINE vec_i vec_i_set(int32_t x)
{
    vec_i r;
    VEC_EACH(i) r.v[i] = x;
    return r;
}

VEC_INLINE vec_i vec_i_load(const int32_t *p)
{
    vec_i r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}

VEC_INLINE void vec_i_store(int32_t *p, vec_i x)
{
    memcpy(p, x.v, sizeof x.v);
}

VEC_INLINE vec_i vec_i_add(vec_i a, vec_i b)
{
    VEC_EACH(i) a.v[i] += b.v[i];
    return a;
}

VEC_INLINE vec_i vec_i_sub(vec_i a, vec_i b)
{
    VEC_EACH(i) a.v[i] = (int32_t)((uint32_t)a.v[i] - (uint32_t)b.v[i]);
    return a;
}

VEC_INLINE vec_f vec_f_load_half(const void *p)
{
    uint16_t halves[VEC_LANES];
    memcpy(halves, p, sizeof halves);
    vec_f r;
    VEC_EACH(i) r.v[i] = half_to_float(halves[i]);
    return r;
}

VEC_INLINE vec_f vec_f_load_bfloat(const void *p)
{
    uint16_t halves[VEC_LANES];
    memcpy(halves, p, sizeof halves);
    vec_f r;
    VEC_EACH(i) r.v[i] = bfloat_to_float(halves[i]);
    return r;
}

VEC_INLINE vec_f vec_f_load_i8(const int8_t *p)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = (float)p[i];
    return r;
}

VEC_INLINE vec_f vec_f_load_u8(const uint8_t *p)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = (float)p[i];
    return r;
}

VEC_INLINE void vec_f_store_half(uint16_t *p, vec_f x)
{
    VEC_EACH(i) p[i] = half_from_float(x.v[i]);
}

VEC_INLINE vec_b vec_b_load(const uint8_t *p)
{
    vec_b r;
    memcpy(r.v, p, sizeof r.v);
    return r;
}

/* The same four bytes for every lane. */
VEC_INLINE vec_b vec_b_quad(const int8_t *p)
{
    vec_b r;
    VEC_EACH(i) memcpy(r.v + 4 * i, p, 4);
    return r;
}

VEC_INLINE void vec_b_store(uint8_t *p, vec_b x)
{
    memcpy(p, x.v, sizeof x.v);
}

VEC_INLINE vec_b vec_b_or(vec_b a, vec_b b)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        a.v[i] = a.v[i] | b.v[i];
    return a;
}

/* The bytes of x moved right (or left, where `right` is negative), those bits of them that are in
 * `mask`, which has none that come from another byte. */
VEC_INLINE vec_b vec_b_none(void)
{
    return (vec_b){{0}};
}

VEC_INLINE vec_b vec_b_sub(vec_b x, const int number)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        x.v[i] = (uint8_t)(x.v[i] - number);
    return x;
}

VEC_INLINE vec_b vec_b_times(vec_b x, vec_i numbers)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        x.v[i] = (uint8_t)(x.v[i] * (uint32_t)numbers.v[i / 4]);
    return x;
}

VEC_INLINE vec_b vec_b_field(vec_b x, const int right, const int mask)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        x.v[i] = (uint8_t)((right >= 0 ? x.v[i] >> right : x.v[i] << -right) & mask);
    return x;
}

/* Every index is below 16. */
VEC_INLINE vec_b vec_b_lookup(const int8_t table[16], vec_b index)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        index.v[i] = (uint8_t)table[index.v[i]];
    return index;
}

/*
 * Sums of products of unsigned weights with signed x: lane i takes up the four products of its
 * bytes. VEC_DOT_DEPTH(top) quads of weights up to `top` may be added before vec_dot_sum or
 * vec_dot_scaled makes int32 of them (AVX2 holds them in int16 until then). VEC_DOT_INT32: they are
 * int32 from the beginning, and a vec_dot may begin with any vec_i.
 */
#define VEC_DOT_DEPTH(top) ((void)(top), 8)
#define VEC_DOT_INT32      1

VEC_INLINE vec_dot vec_dot_add(vec_dot acc, vec_b w, vec_b x)
{
    VEC_EACH(i)
    {
        for (int j = 0; j < 4; j++)
            acc.v[i] += (int32_t)w.v[4 * i + j] * (int32_t)(int8_t)x.v[4 * i + j];
    }
    return acc;
}

VEC_INLINE vec_dot vec_dot_first(vec_b w, vec_b x)
{
    return vec_dot_add(vec_i_set(0), w, x);
}

VEC_INLINE vec_i vec_dot_sum(vec_dot acc)
{
    return acc;
}

/* `scale` comes from vec_pair_first or vec_pair_second. */
VEC_INLINE vec_i vec_dot_scaled(vec_dot acc, vec_i scale)
{
    VEC_EACH(i) acc.v[i] *= scale.v[i];
    return acc;
}

/* Pairs: two int16 in a lane, here from two signed bytes. */
VEC_INLINE vec_i vec_pair_of(int32_t first, int32_t second, vec_i pair, const int lane)
{
    pair.v[lane] = (int32_t)(((uint32_t)first & 0xffffu) | (uint32_t)second << 16);
    return pair;
}

VEC_INLINE int32_t vec_pair_at(vec_i pair, const int lane, const int which)
{
    return (int16_t)((uint32_t)pair.v[lane] >> (16 * which));
}

VEC_INLINE vec_i vec_pair_load(const int8_t *p)
{
    vec_i r = vec_i_set(0);
    VEC_EACH(i) r = vec_pair_of(p[2 * i], p[2 * i + 1], r, i);
    return r;
}

/* Bits `right` .. `right` + 3 of both. */
VEC_INLINE vec_i vec_pair_nibbles(vec_i pair, const int right)
{
    VEC_EACH(i)
    pair = vec_pair_of(vec_pair_at(pair, i, 0) >> right & 15, vec_pair_at(pair, i, 1) >> right & 15,
                       pair, i);
    return pair;
}

VEC_INLINE vec_i vec_pair_times(vec_i pair, const int factor)
{
    VEC_EACH(i)
    pair = vec_pair_of(vec_pair_at(pair, i, 0) * factor, vec_pair_at(pair, i, 1) * factor, pair, i);
    return pair;
}

/* The sum of both products. */
VEC_INLINE vec_i vec_pair_mul(vec_i a, vec_i b)
{
    VEC_EACH(i)
    a.v[i] =
        vec_pair_at(a, i, 0) * vec_pair_at(b, i, 0) + vec_pair_at(a, i, 1) * vec_pair_at(b, i, 1);
    return a;
}

VEC_INLINE vec_i vec_pair_first(vec_i pair)
{
    VEC_EACH(i) pair.v[i] = vec_pair_at(pair, i, 0);
    return pair;
}

VEC_INLINE vec_i vec_pair_second(vec_i pair)
{
    VEC_EACH(i) pair.v[i] = vec_pair_at(pair, i, 1);
    return pair;
}

/* Signed weights, added up to VEC_WIDE_OFF * sum(x) too much: vec_w8_* straight from memory,
 * vec_wide_* through a stored form of VEC_WIDE_BYTES a weight, in as many vectors, against x as
 * vec_wide_x. */
VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        w.v[i] = w.v[i] ^ 0x80;
    return w;
}

VEC_INLINE vec_i vec_w8_add(vec_i acc, vec_w8 w, vec_b x)
{
    return vec_dot_add(acc, w, x);
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
    return vec_dot_add(acc, w, x);
}

VEC_INLINE void vec_wide_widen(const int8_t *x, vec_wide_x *ret_wide)
{
    memcpy(ret_wide, x, 32);
}

#endif
