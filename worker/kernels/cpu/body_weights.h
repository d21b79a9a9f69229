/*
 * body_weights.h - what the integer products need of each quantized type: from a panel (panel.h) to
 * vectors of quads and scales. Included by kernel_bodies.h. Everything here is inlined where the
 * kind is a constant, so that nothing of the choice is left.
 */

#define BODY_HALVES ((int)(PANEL_ROWS / VEC_LANES))
#define BODY_UNROLL _Pragma("GCC unroll 16")

/*
 * How a type is multiplied. Unsigned weights u of at most `top` stand for u - off; the integer sum
 * is taken from u, and off * sum(x) is taken away, both in int32; what is left is below 2^24, so
 * that it is a float exactly. Wide types have signed weights of 8 bits.
 */
struct body_traits {
    uint8_t top;
    uint8_t off;
    bool has_min;
    bool has_halves; /* a scale for each 16 columns */
    bool is_wide;
};

/*                                  top off min    halves wide */
#define BODY_TRAITS_Q4                                                                             \
    {                                                                                              \
        15, 8, false, false, false                                                                 \
    }
#define BODY_TRAITS_Q4_MIN                                                                         \
    {                                                                                              \
        15, 0, true, false, false                                                                  \
    }
#define BODY_TRAITS_Q5                                                                             \
    {                                                                                              \
        31, 16, false, false, false                                                                \
    }
#define BODY_TRAITS_Q5_MIN                                                                         \
    {                                                                                              \
        31, 0, true, false, false                                                                  \
    }
#define BODY_TRAITS_Q2_K                                                                           \
    {                                                                                              \
        3, 0, true, true, false                                                                    \
    }
#define BODY_TRAITS_Q3_K                                                                           \
    {                                                                                              \
        7, 4, false, true, false                                                                   \
    }
#define BODY_TRAITS_Q6_K                                                                           \
    {                                                                                              \
        63, 32, false, true, false                                                                 \
    }
#define BODY_TRAITS_MXFP4                                                                          \
    {                                                                                              \
        24, 12, false, false, false                                                                \
    }
#define BODY_TRAITS_WIDE                                                                           \
    {                                                                                              \
        0, VEC_WIDE_OFF, false, false, true                                                        \
    }

static const struct body_traits body_traits[PANEL_KIND_COUNT] = {
    [PANEL_KIND_Q4_0] = BODY_TRAITS_Q4,     [PANEL_KIND_Q4_1] = BODY_TRAITS_Q4_MIN,
    [PANEL_KIND_Q5_0] = BODY_TRAITS_Q5,     [PANEL_KIND_Q5_1] = BODY_TRAITS_Q5_MIN,
    [PANEL_KIND_Q8_0] = BODY_TRAITS_WIDE,   [PANEL_KIND_Q2_K] = BODY_TRAITS_Q2_K,
    [PANEL_KIND_Q3_K] = BODY_TRAITS_Q3_K,   [PANEL_KIND_Q4_K] = BODY_TRAITS_Q4_MIN,
    [PANEL_KIND_Q5_K] = BODY_TRAITS_Q5_MIN, [PANEL_KIND_Q6_K] = BODY_TRAITS_Q6_K,
    [PANEL_KIND_IQ4_NL] = BODY_TRAITS_WIDE, [PANEL_KIND_IQ4_XS] = BODY_TRAITS_WIDE,
    [PANEL_KIND_MXFP4] = BODY_TRAITS_MXFP4,
};

/* The values of MXFP4 as unsigned weights. */
static const int8_t body_mxfp4_unsigned[16] = {12, 13, 14, 15, 16, 18, 20, 24,
                                               12, 11, 10, 9,  8,  6,  4,  0};

/* Where block b of a panel and its super-block's numbers are. */
VEC_INLINE const uint8_t *body_super_at(const enum panel_kind kind, const uint8_t *panel,
                                        uint32_t b)
{
    return panel + (size_t)(b / PANEL_SUPER_BLOCKS) * panel_super_bytes(&panel_layouts[kind]);
}

VEC_INLINE const uint8_t *body_block_at(const enum panel_kind kind, const uint8_t *super,
                                        uint32_t b)
{
    const struct panel_layout *l = &panel_layouts[kind];
    return super + panel_head_bytes(l) + (size_t)(b % PANEL_SUPER_BLOCKS) * panel_block_bytes(l);
}

/* `bits` of each weight of quad i, moved to bit `to`. */
VEC_INLINE vec_b body_field(const uint8_t *plane, const int bits, const int i, const int h,
                            const int to)
{
    const int per_byte = 8 / bits;
    vec_b x = vec_b_load(plane + (size_t)(i / per_byte) * PANEL_QUAD_BYTES + h * VEC_LANES * 4);
    return bits == 8 ? x : vec_b_field(x, bits * (i % per_byte) - to, ((1 << bits) - 1) << to);
}

/* Quad i of the rows of half h: unsigned weights, or signed ones of a wide type. */
VEC_INLINE vec_b body_quad(const enum panel_kind kind, const uint8_t *block, const int i,
                           const int h)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const uint8_t *low = block + panel_quants_at(l);
    vec_b q = body_field(low, l->low_bits, i, h, 0);
    if (l->high_bits > 0)
        q = vec_b_or(q, body_field(low + (size_t)l->low_bits * PANEL_QUAD_BYTES, l->high_bits, i, h,
                                   l->low_bits));
    if (kind == PANEL_KIND_IQ4_NL || kind == PANEL_KIND_IQ4_XS)
        q = vec_b_lookup(quant_iq4_values, q);
    if (kind == PANEL_KIND_MXFP4)
        q = vec_b_lookup(body_mxfp4_unsigned, q);
    return q;
}

/* Twice the same number, as vec_pair_mul takes it. */
VEC_INLINE int32_t body_pair(int number)
{
    return (int32_t)(((uint32_t)number & 0xffffu) * 0x10001u);
}

/* Of the rows of one half and one block. What a type does not have is not set. */
struct body_scales {
    vec_f d;
    vec_f m;
    vec_i first; /* halves: scales of the first 16 columns, of the others, */
    vec_i second;
    vec_i fix; /* and what pairs of sums of x are multiplied with: -off * scale, or the minimum */
};

VEC_INLINE struct body_scales body_scales_of(const enum panel_kind kind, const uint8_t *super,
                                             const uint8_t *block, const int h)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const uint8_t *halves = l->super_halves > 0 ? super : block;
    const uint8_t *bytes = block + (size_t)PANEL_ROWS * 2 * l->halves;
    const uint8_t *m_at = halves + PANEL_ROWS * 2 + h * VEC_LANES * 2;
    struct body_scales s = {0};
    s.d = kind == PANEL_KIND_MXFP4 ? vec_f_load_bfloat(halves + h * VEC_LANES * 2)
                                   : vec_f_load_half(halves + h * VEC_LANES * 2);
    if (body_traits[kind].has_min)
        s.m = vec_f_load_half(m_at);
    if (body_traits[kind].has_halves) {
        vec_i pair = vec_pair_load((const int8_t *)bytes + h * VEC_LANES * 2);
        if (kind == PANEL_KIND_Q2_K) {
            s.fix = vec_pair_nibbles(pair, 4);
            pair = vec_pair_nibbles(pair, 0);
        } else {
            s.fix = vec_pair_times(pair, -(int)body_traits[kind].off);
        }
        s.first = vec_pair_first(pair);
        s.second = vec_pair_second(pair);
    } else if (kind == PANEL_KIND_IQ4_XS) {
        s.d = vec_f_mul(s.d, vec_f_load_i8((const int8_t *)bytes + h * VEC_LANES));
    } else if (l->bytes == 2) {
        s.d = vec_f_mul(s.d, vec_f_load_u8(bytes + h * VEC_LANES));
        s.m = vec_f_mul(s.m, vec_f_load_u8(bytes + PANEL_ROWS + h * VEC_LANES));
    }
    return s;
}

/*
 * Up to 8 blocks of a panel taken apart once for many columns of x: quads as the products take
 * them, scales as they are used.
 */
struct body_leaf {
    _Alignas(64) uint8_t quads[SUM_LEAF_BLOCKS * PANEL_QUADS * PANEL_QUAD_BYTES * VEC_WIDE_BYTES];
    _Alignas(64) float d[SUM_LEAF_BLOCKS][PANEL_ROWS];
    float m[SUM_LEAF_BLOCKS][PANEL_ROWS];
    float scale[2][SUM_LEAF_BLOCKS][PANEL_ROWS]; /* of halves, where VEC_DOT_INT32 */
    int32_t first[SUM_LEAF_BLOCKS][PANEL_ROWS];  /* of halves, elsewhere: for vec_dot_scaled */
    int32_t second[SUM_LEAF_BLOCKS][PANEL_ROWS];
    int32_t fix[SUM_LEAF_BLOCKS][PANEL_ROWS]; /* body_uses_fix */
};

/* Pairs of sums of x are multiplied with fix: for minima, and, where sums do not begin at it, for
 * the offset. */
VEC_INLINE bool body_uses_fix(const struct body_traits t)
{
    return t.has_halves && (t.has_min || !VEC_DOT_INT32);
}

/* Bytes from one quad to the next, and from one half to the next. */
VEC_INLINE size_t body_leaf_quad(const bool is_wide, const uint32_t b, const int i, const int h)
{
    const size_t width = is_wide ? VEC_WIDE_BYTES : 1;
    return ((size_t)b * PANEL_QUADS + (size_t)i) * PANEL_QUAD_BYTES * width +
           (size_t)h * VEC_LANES * 4 * width;
}

/* Blocks begin .. end - 1, at most 8. */
VEC_INLINE void body_leaf_fill(const enum panel_kind kind, const uint8_t *panel, uint32_t begin,
                               uint32_t end, struct body_leaf *leaf)
{
    const struct body_traits t = body_traits[kind];
    for (uint32_t b = begin; b < end; b++) {
        const uint8_t *super = body_super_at(kind, panel, b);
        const uint8_t *block = body_block_at(kind, super, b);
        const uint32_t at = b - begin;
        for (int h = 0; h < BODY_HALVES; h++) {
            struct body_scales s = body_scales_of(kind, super, block, h);
            vec_f_store(leaf->d[at] + h * VEC_LANES, s.d);
            if (t.has_min)
                vec_f_store(leaf->m[at] + h * VEC_LANES, s.m);
            if (t.has_halves) {
                if (VEC_DOT_INT32) {
                    vec_f_store(leaf->scale[0][at] + h * VEC_LANES, vec_f_from_i(s.first));
                    vec_f_store(leaf->scale[1][at] + h * VEC_LANES, vec_f_from_i(s.second));
                } else {
                    vec_i_store(leaf->first[at] + h * VEC_LANES, s.first);
                    vec_i_store(leaf->second[at] + h * VEC_LANES, s.second);
                }
                if (body_uses_fix(t))
                    vec_i_store(leaf->fix[at] + h * VEC_LANES, s.fix);
            }
            BODY_UNROLL
            for (int i = 0; i < PANEL_QUADS; i++) {
                uint8_t *to = leaf->quads + body_leaf_quad(t.is_wide, at, i, h);
                vec_b q = body_quad(kind, block, i, h);
                if (t.is_wide)
                    vec_wide_store(to, q);
                else
                    vec_b_store(to, q);
            }
        }
    }
}
