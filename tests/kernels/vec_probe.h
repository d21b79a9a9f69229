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

static void probe_trees(const float *lanes, const float *others, float *ret_max, float *ret_sum16,
                        float *ret_max16)
{
    vec_f v[PROBE_HALVES];
    for (int h = 0; h < PROBE_HALVES; h++) {
        v[h] = vec_f_load(lanes + h * VEC_LANES);
        vec_f_store(ret_max + h * VEC_LANES, vec_f_max(v[h], vec_f_load(others + h * VEC_LANES)));
    }
    *ret_sum16 = vec_f_sum16(v);
    *ret_max16 = vec_f_max16(v);
}

static void probe_convert(const uint16_t *halves, const int8_t *bytes, const float *floats,
                          float *ret_half, float *ret_bfloat, float *ret_i8, float *ret_u8,
                          float *ret_set, uint16_t *ret_halves)
{
    for (int at = 0; at < 16; at += VEC_LANES) {
        vec_f_store(ret_half + at, vec_f_load_half(halves + at));
        vec_f_store(ret_bfloat + at, vec_f_load_bfloat(halves + at));
        vec_f_store(ret_i8 + at, vec_f_load_i8(bytes + at));
        vec_f_store(ret_u8 + at, vec_f_load_u8((const uint8_t *)bytes + at));
        vec_f_store(ret_set + at, vec_f_set(floats[0]));
        vec_f_store_half(ret_halves + at, vec_f_load(floats + at));
    }
}

VEC_INLINE vec_i probe_block(const int depth, const uint8_t *w, const int8_t *x, int h, int begin,
                             int end, const vec_i *scale)
{
    vec_i sum = vec_i_set(0);
    vec_dot dot =
        vec_dot_first(vec_b_load(w + begin * 64 + h * VEC_LANES * 4), vec_b_quad(x + 4 * begin));
    for (int i = begin; i < end; i++) {
        vec_b quad = vec_b_load(w + i * 64 + h * VEC_LANES * 4);
        if (i > begin)
            dot = i % depth == 0 ? vec_dot_first(quad, vec_b_quad(x + 4 * i))
                                 : vec_dot_add(dot, quad, vec_b_quad(x + 4 * i));
        if (i % depth == depth - 1 || i == end - 1)
            sum = vec_i_add(sum, scale != NULL ? vec_dot_scaled(dot, *scale) : vec_dot_sum(dot));
    }
    return sum;
}

/* Through memory, as stored sums go. */
VEC_INLINE void probe_store(float *to, vec_i x)
{
    int32_t lanes[VEC_LANES];
    vec_i_store(lanes, x);
    vec_f_store(to, vec_f_from_i(vec_i_load(lanes)));
}

static void probe_dot(int top, const uint8_t *w, const int8_t *x, float *ret_sums)
{
    for (int h = 0; h < PROBE_HALVES; h++)
        probe_store(ret_sums + h * VEC_LANES,
                    top == 0   ? probe_block(VEC_DOT_DEPTH(15), w, x, h, 0, 8, NULL)
                    : top == 1 ? probe_block(VEC_DOT_DEPTH(31), w, x, h, 0, 8, NULL)
                               : probe_block(VEC_DOT_DEPTH(63), w, x, h, 0, 8, NULL));
}

static void probe_dot_halves(int top, const uint8_t *w, const int8_t *x, const int8_t *scales,
                             int32_t pair, float *ret_sums, float *ret_pairs, float *ret_nibbles)
{
    for (int h = 0; h < PROBE_HALVES; h++) {
        vec_i both = vec_pair_load(scales + h * VEC_LANES * 2);
        vec_i first = vec_pair_first(both);
        vec_i second = vec_pair_second(both);
        vec_i sum = top < 2 ? vec_i_add(probe_block(4, w, x, h, 0, 4, &first),
                                        probe_block(4, w, x, h, 4, 8, &second))
                            : vec_i_add(probe_block(VEC_DOT_DEPTH(63), w, x, h, 0, 4, &first),
                                        probe_block(VEC_DOT_DEPTH(63), w, x, h, 4, 8, &second));
        probe_store(ret_sums + h * VEC_LANES, sum);
        probe_store(ret_pairs + h * VEC_LANES,
                    vec_pair_mul(vec_pair_times(both, -32), vec_i_set(pair)));
        probe_store(ret_nibbles + h * VEC_LANES,
                    vec_i_add(vec_pair_mul(vec_pair_nibbles(both, 0), vec_i_set(pair)),
                              vec_pair_mul(vec_pair_nibbles(both, 4), vec_i_set(pair))));
    }
}

static void probe_dot_signed(const uint8_t *w, const int8_t *x, float sum_x, float *ret_sums,
                             float *ret_wide)
{
    vec_wide_x wide_x[32];
    vec_wide_widen(x, wide_x);
    for (int h = 0; h < PROBE_HALVES; h++) {
        vec_i straight = vec_i_set(0);
        vec_i wide = vec_i_set(0);
        for (int i = 0; i < 8; i++) {
            uint8_t stored[VEC_LANES * 4 * VEC_WIDE_BYTES];
            vec_b quad = vec_b_load(w + i * 64 + h * VEC_LANES * 4);
            straight = vec_w8_add(straight, vec_w8_of(quad), vec_b_quad(x + 4 * i));
            vec_wide_store(stored, quad);
            for (int part = 0; part < VEC_WIDE_BYTES; part++)
                wide = vec_wide_add(wide, vec_wide_load(stored, part),
                                    vec_wide_quad(wide_x + 4 * i, part));
        }
        vec_f off = vec_f_set(-(float)VEC_WIDE_OFF);
        vec_f_store(ret_sums + h * VEC_LANES,
                    vec_f_fma(off, vec_f_set(sum_x), vec_f_from_i(straight)));
        vec_f_store(ret_wide + h * VEC_LANES, vec_f_fma(off, vec_f_set(sum_x), vec_f_from_i(wide)));
    }
}

static void probe_fields(const uint8_t *bytes, const int8_t *table, uint8_t (*ret_fields)[64])
{
    for (int h = 0; h < PROBE_HALVES; h++) {
        const int at = h * VEC_LANES * 4;
        vec_b x = vec_b_load(bytes + at);
        vec_b four = vec_b_field(x, 4, 15);
        vec_b two = vec_b_field(x, -2, 0x30);
        vec_b_store(ret_fields[0] + at, four);
        vec_b_store(ret_fields[1] + at, two);
        vec_b_store(ret_fields[2] + at, vec_b_field(x, 7 - 4, 16));
        vec_b_store(ret_fields[3] + at, vec_b_or(four, two));
        vec_b_store(ret_fields[4] + at, vec_b_lookup(table, four));
    }
}

#if VEC_LANES == 16
static void probe_signed_weights(const uint8_t *bytes, const int32_t *numbers,
                                 const int32_t *others, uint8_t (*ret_bytes)[64],
                                 int32_t *ret_numbers)
{
    vec_b x = vec_b_load(bytes);
    vec_b_store(ret_bytes[0], vec_b_sub(x, 8));
    vec_b_store(ret_bytes[1], vec_b_sub(x, 32));
    vec_b_store(ret_bytes[2], vec_b_times(x, vec_i_load(numbers)));
    vec_b_store(ret_bytes[3], vec_b_none());
    vec_i_store(ret_numbers, vec_i_sub(vec_i_load(numbers), vec_i_load(others)));
}
#define PROBE_SIGNED_WEIGHTS probe_signed_weights
#else
#define PROBE_SIGNED_WEIGHTS NULL
#endif

const struct vec_probe PROBE = {probe_arithmetic, probe_trees,         probe_convert,
                                probe_dot,        probe_dot_halves,    probe_dot_signed,
                                probe_fields,     PROBE_SIGNED_WEIGHTS};
