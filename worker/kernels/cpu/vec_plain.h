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
#define VEC_COLS_MAX    8
#define VEC_DOT_COLS    8
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
typedef vec_i vec_dot4;
typedef vec_i vec_dot8;
typedef vec_b vec_w8;

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

VEC_INLINE vec_f vec_f_from_i(vec_i x)
{
    vec_f r;
    VEC_EACH(i) r.v[i] = (float)x.v[i];
    return r;
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

VEC_INLINE vec_b vec_b_low(vec_b x)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        x.v[i] = x.v[i] & 15;
    return x;
}

VEC_INLINE vec_b vec_b_high(vec_b x)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        x.v[i] = x.v[i] >> 4;
    return x;
}

/* Lane i takes up the four products of its unsigned bytes of w with its signed bytes of x. */
VEC_INLINE vec_i vec_plain_dot(vec_i acc, vec_b w, vec_b x)
{
    VEC_EACH(i)
    {
        for (int j = 0; j < 4; j++)
            acc.v[i] += (int32_t)w.v[4 * i + j] * (int32_t)(int8_t)x.v[4 * i + j];
    }
    return acc;
}

VEC_INLINE vec_dot4 vec_dot4_start(int32_t bias)
{
    vec_dot4 r;
    VEC_EACH(i) r.v[i] = bias;
    return r;
}

VEC_INLINE vec_dot4 vec_dot4_add(vec_dot4 acc, vec_b w, vec_b x)
{
    return vec_plain_dot(acc, w, x);
}

VEC_INLINE vec_i vec_dot4_sum(vec_dot4 acc, int32_t bias)
{
    (void)bias;
    return acc;
}

VEC_INLINE vec_w8 vec_w8_of(vec_b w)
{
    for (int i = 0; i < VEC_LANES * 4; i++)
        w.v[i] = w.v[i] ^ 0x80;
    return w;
}

VEC_INLINE vec_dot8 vec_dot8_start(int32_t sum_x)
{
    return vec_dot4_start(-128 * sum_x);
}

VEC_INLINE vec_dot8 vec_dot8_add(vec_dot8 acc, vec_w8 w, vec_b x)
{
    return vec_plain_dot(acc, w, x);
}

VEC_INLINE vec_i vec_dot8_sum(vec_dot8 acc)
{
    return acc;
}

#endif
