/*
 * vec_probe.h - the wrappers of one vec_*.h behind ordinary functions over 16 lanes, so that the
 * wrappers of different instruction sets can be compared. Included after the vec_*.h, with PROBE
 * defined as the name of the table; vec_probe_api.h is what the test sees.
 */
#include "tests/kernels/vec_probe_api.h"

#define PROBE_HALVES (16 / VEC_LANES)

static void probe_arithmetic(const float *a, const float *b, const float *c, float *ret_sum,
                             float *ret_product, float *ret_fma)
{
    for (int at = 0; at < 16; at += VEC_LANES) {
        vec_f x = vec_f_load(a + at);
        vec_f y = vec_f_load(b + at);
        vec_f_store(ret_sum + at, vec_f_add(x, y));
        vec_f_store(ret_product + at, vec_f_mul(x, y));
        vec_f_store(ret_fma + at, vec_f_fma(x, y, vec_f_load(c + at)));
    }
}

static void probe_convert(const uint16_t *halves, const int8_t *bytes, const float *floats,
                          float *ret_half, float *ret_bfloat, float *ret_i8, float *ret_set,
                          uint16_t *ret_halves)
{
    for (int at = 0; at < 16; at += VEC_LANES) {
        vec_f_store(ret_half + at, vec_f_load_half(halves + at));
        vec_f_store(ret_bfloat + at, vec_f_load_bfloat(halves + at));
        vec_f_store(ret_i8 + at, vec_f_load_i8(bytes + at));
        vec_f_store(ret_set + at, vec_f_set(floats[0]));
        vec_f_store_half(ret_halves + at, vec_f_load(floats + at));
    }
}

/* As a block of the panel kernels: weights of 16 rows x 32 columns, x of 32. */
static void probe_dot4(const uint8_t *w, const int8_t *x, int32_t bias, float *ret_sums)
{
    for (int h = 0; h < PROBE_HALVES; h++) {
        vec_dot4 acc = vec_dot4_start(bias);
        for (int i = 0; i < 4; i++) {
            vec_b both = vec_b_load(w + i * 64 + h * VEC_LANES * 4);
            acc = vec_dot4_add(acc, vec_b_low(both), vec_b_quad(x + 4 * i));
            acc = vec_dot4_add(acc, vec_b_high(both), vec_b_quad(x + 16 + 4 * i));
        }
        vec_f_store(ret_sums + h * VEC_LANES, vec_f_from_i(vec_dot4_sum(acc, bias)));
    }
}

static void probe_dot8(const uint8_t *w, const int8_t *x, int32_t sum_x, float *ret_sums)
{
    for (int h = 0; h < PROBE_HALVES; h++) {
        vec_dot8 acc = vec_dot8_start(sum_x);
        for (int i = 0; i < 8; i++)
            acc = vec_dot8_add(acc, vec_w8_of(vec_b_load(w + i * 64 + h * VEC_LANES * 4)),
                               vec_b_quad(x + 4 * i));
        vec_f_store(ret_sums + h * VEC_LANES, vec_f_from_i(vec_dot8_sum(acc)));
    }
}

const struct vec_probe PROBE = {probe_arithmetic, probe_convert, probe_dot4, probe_dot8};
