/*
 * body_products.h - a block of one panel, as it lies in memory, times a few columns of x over the
 * wrappers of a vec_*.h: the integer products and what they are multiplied with. Included by
 * kernel_bodies.h. body_leaf.h does the same with blocks that were taken apart.
 *
 * Loops over columns of x and halves of a panel have constant bounds in every instance, so that
 * their sums live in registers.
 */

/* Columns of x that go straight at a time. */
#define BODY_STRAIGHT_COLS 4

/* Instances are for a power of two of columns: how many of `cols` the next one takes, and which it
 * is. */
VEC_INLINE uint32_t body_step(uint32_t cols, uint32_t most, uint32_t *ret_instance)
{
    uint32_t step = 1;
    *ret_instance = 0;
    while (2 * step <= cols && 2 * step <= most) {
        step *= 2;
        ++*ret_instance;
    }
    return step;
}

/* What columns have of a block, for one vector of rows: isum, d and m, and what else the type of
 * the minimum asks for: fix and pairs of halves, or sum(x) times dx. */
struct body_taken {
    vec_f d, dx, isum, m;
    vec_i fix;
    const int32_t *pairs;
    const float *sum;
};

/* acc + d * dx * isum, then the minimum's part, m * (dx * msum): in this order, wherever blocks are
 * added. */
VEC_INLINE vec_f body_take(const bool has_min, const bool has_halves, const struct body_taken t,
                           vec_f acc)
{
    acc = vec_f_fma(vec_f_mul(t.d, t.dx), t.isum, acc);
    if (!has_min)
        return acc;
    const vec_f msum = has_halves
                           ? vec_f_mul(t.dx, vec_f_from_i(vec_pair_mul(t.fix, vec_i_set(*t.pairs))))
                           : vec_f_set(*t.sum);
    return vec_f_fma(t.m, msum, acc);
}

/* The integer sums of one block: isum + off * sum(x), without off for types with halves. */
VEC_INLINE void body_sums(const struct body_traits t, const enum panel_kind kind, const int cols,
                          const uint8_t *block, const int8_t *q, size_t q_stride,
                          const struct body_scales *s, vec_i (*sums)[BODY_HALVES])
{
    const int limit = t.has_halves ? 4 : 8;
    const int depth = VEC_DOT_DEPTH(t.top) < limit ? VEC_DOT_DEPTH(t.top) : limit;
    vec_dot dot[BODY_STRAIGHT_COLS][BODY_HALVES];
    BODY_UNROLL
    for (int i = 0; i < PANEL_QUADS; i++) {
        vec_b w[BODY_HALVES];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            w[h] = body_quad(kind, block, i, h);
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            vec_b x = vec_b_quad(q + (size_t)c * q_stride + 4 * i);
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++) {
                dot[c][h] =
                    i % depth == 0 ? vec_dot_first(w[h], x) : vec_dot_add(dot[c][h], w[h], x);
                if (i % depth == depth - 1) {
                    vec_i part = !t.has_halves ? vec_dot_sum(dot[c][h])
                                 : i < 4       ? vec_dot_scaled(dot[c][h], s[h].first)
                                               : vec_dot_scaled(dot[c][h], s[h].second);
                    sums[c][h] = i < depth ? part : vec_i_add(sums[c][h], part);
                }
            }
        }
    }
}

/* The same of a wide type. */
VEC_INLINE void body_sums_wide(const enum panel_kind kind, const int cols, const uint8_t *block,
                               const int8_t *q, size_t q_stride, vec_i (*sums)[BODY_HALVES])
{
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            sums[c][h] = vec_i_set(0);
    }
    BODY_UNROLL
    for (int i = 0; i < PANEL_QUADS; i++) {
        vec_w8 w[BODY_HALVES];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            w[h] = vec_w8_of(body_quad(kind, block, i, h));
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            vec_b x = vec_b_quad(q + (size_t)c * q_stride + 4 * i);
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                sums[c][h] = vec_w8_add(sums[c][h], w[h], x);
        }
    }
}

/* One block, taken up by acc. The products take the
 * processor's multipliers, which additions do not, so what can be an addition of integers is one:
 * the offset of unsigned weights, once per column of x. */
VEC_INLINE void body_block(const struct body_traits t, const enum panel_kind kind, const int cols,
                           const uint8_t *super, const uint8_t *block, const struct kernel_input *x,
                           const int8_t *q, size_t cell, vec_f (*acc)[BODY_HALVES])
{
    struct body_scales s[BODY_HALVES];
    vec_i sums[BODY_STRAIGHT_COLS][BODY_HALVES];
    BODY_UNROLL
    for (int h = 0; h < BODY_HALVES; h++)
        s[h] = body_scales_of(kind, super, block, h);
    if (t.is_wide)
        body_sums_wide(kind, cols, block, q, x->q_stride, sums);
    else
        body_sums(t, kind, cols, block, q, x->q_stride, s, sums);
    const vec_i off = vec_i_set(body_pair(-(int)t.off));
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        const size_t at = cell + (size_t)c * x->block_stride;
        const vec_f dx = vec_f_set(x->scales[at]);
        const vec_i shift =
            t.off > 0 && !t.has_halves ? vec_pair_mul(off, vec_i_set(x->pairs[at])) : vec_i_set(0);
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++) {
            vec_i sum = sums[c][h];
            if (t.off > 0 && t.has_halves)
                sum = vec_i_add(sum, vec_pair_mul(s[h].fix, vec_i_set(x->pairs[at])));
            if (t.off > 0 && !t.has_halves)
                sum = vec_i_add(sum, shift);
            acc[c][h] = body_take(t.has_min, t.has_halves,
                                  (struct body_taken){.d = s[h].d,
                                                      .dx = dx,
                                                      .isum = vec_f_from_i(sum),
                                                      .m = s[h].m,
                                                      .fix = s[h].fix,
                                                      .pairs = &x->pairs[at],
                                                      .sum = &x->sums[at]},
                                  acc[c][h]);
        }
    }
}
