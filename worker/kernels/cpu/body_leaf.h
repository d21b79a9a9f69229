/*
 * body_leaf.h - many columns of x with vectors: leaves of some panels are taken apart once
 * (body_weights.h) into memory that stays in the first-level cache, and all columns pass by them.
 * Included by kernel_bodies.h; body_passage.h says what it defines.
 */

/* As many panels as leave room for x in a first-level cache of 32 KB (leaves of wide types have 8
 * KB each; with a fourth, products of 8-bit weights took a tenth longer), and as many columns as
 * leave their part of x and their sums in a second-level cache. */
#define BODY_LEAVES    3u
#define BODY_SLAB_COLS 128u

#define body_apart body_leaf

/* One leaf against `cols` rows of x, whose blocks begin at q and cell; added to sums[cols][16], or
 * kept there where it is the first one. */
VEC_INLINE void body_leaf_times(const struct body_traits t, const int cols,
                                const struct body_leaf *leaf, uint32_t blocks,
                                const struct kernel_input *x, const int8_t *q, const vec_wide_x *qw,
                                size_t cell, float *sums, bool is_first)
{
    vec_f acc[VEC_COLS_MAX][BODY_HALVES];
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            acc[c][h] = vec_f_set(0.0f);
    }
    for (uint32_t b = 0; b < blocks; b++) {
        const struct body_from from = {.leaf = leaf, .at = b};
        body_block(t, PANEL_KIND_COUNT, cols, &from, x, q + (size_t)b * QUANT_BLOCK_ITEMS,
                   t.is_wide && VEC_WIDE_BYTES > 1 ? qw + (size_t)b * QUANT_BLOCK_ITEMS : NULL,
                   cell + b, acc);
    }
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++) {
            float *at = sums + c * (int)PANEL_ROWS + h * VEC_LANES;
            vec_f_store(at, is_first ? acc[c][h] : vec_f_add(vec_f_load(at), acc[c][h]));
        }
    }
}

typedef void body_fill_fn(const uint8_t *panel, uint32_t begin, uint32_t end,
                          struct body_leaf *leaf);
typedef void body_leaf_fn(const struct body_leaf *leaf, uint32_t blocks,
                          const struct kernel_input *x, const int8_t *q, const vec_wide_x *qw,
                          size_t cell, float *sums, bool is_first);

/* Blocks of x of up to VEC_COLS_MAX rows as wide products take them. */
static void body_widen(const struct kernel_input *x, const int8_t *q, uint32_t cols,
                       uint32_t blocks, vec_wide_x *ret_qw)
{
    for (uint32_t c = 0; c < cols; c++) {
        for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += QUANT_BLOCK_ITEMS)
            vec_wide_widen(q + c * x->q_stride + k, ret_qw + (size_t)c * QUANT_SUPER_ITEMS + k);
    }
}

/* What the next columns of a tile will read; they are further apart than hardware looks ahead. */
VEC_INLINE void body_prefetch(const int8_t *q, size_t q_stride, uint32_t blocks)
{
    for (int c = 0; c < VEC_COLS_MAX; c++) {
        for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += 64)
            __builtin_prefetch(q + (size_t)c * q_stride + k);
    }
}

/* How one kind goes past columns of x. */
struct body_passage {
    const struct panel_layout *layout;
    body_fill_fn *fill;
    body_leaf_fn *const *times; /* [instance] */
    uint32_t straight_most;     /* of so many columns it takes nothing apart */
    bool is_wide;
};

/* sums[panel][column][16] of the tile take up blocks block .. block + blocks - 1, a leaf, or begin
 * with it. */
static void body_tile_leaf(const struct kernel_matmul *m, const struct body_passage *passage,
                           const struct body_tile *tile, uint32_t block, uint32_t blocks,
                           const struct body_ahead *ahead, struct body_leaf *leaves, float *sums,
                           bool is_first)
{
    _Alignas(64) vec_wide_x qw[VEC_WIDE_BYTES > 1 ? VEC_COLS_MAX * QUANT_SUPER_ITEMS : 1];
    for (uint32_t p = 0; p < tile->panels; p++)
        passage->fill(m->data + (tile->panel + p) * m->panel_bytes, block, block + blocks,
                      &leaves[p]);
    const uint32_t parts = (tile->cols + VEC_COLS_MAX - 1) / VEC_COLS_MAX;
    uint32_t cols;
    for (uint32_t i = 0; i < tile->cols; i += cols) {
        uint32_t instance;
        cols = body_step(tile->cols - i, VEC_COLS_MAX, &instance);
        const size_t row = tile->first + i;
        const size_t cell = block - m->lead;
        const int8_t *q = m->x.q + row * m->x.q_stride + cell * QUANT_BLOCK_ITEMS;
        body_fetch(ahead, i / VEC_COLS_MAX, parts);
        if (block + blocks == m->blocks)
            body_fetch_out(m, tile, i, cols);
        if (passage->is_wide && VEC_WIDE_BYTES > 1)
            body_widen(&m->x, q, cols, blocks, qw);
        if (i + 2 * VEC_COLS_MAX <= tile->cols)
            body_prefetch(q + VEC_COLS_MAX * m->x.q_stride, m->x.q_stride, blocks);
        for (uint32_t p = 0; p < tile->panels; p++)
            passage->times[instance](&leaves[p], blocks, &m->x, q, qw,
                                     row * m->x.block_stride + cell,
                                     sums + ((size_t)p * tile->cols + i) * PANEL_ROWS, is_first);
    }
}

/* Instances: for each class of types and number of columns. */
#define BODY_LEAF_INSTANCE(name, cols, ...)                                                        \
    static __attribute__((noinline)) void name##_##cols(                                           \
        const struct body_leaf *leaf, uint32_t blocks, const struct kernel_input *x,               \
        const int8_t *q, const vec_wide_x *qw, size_t cell, float *sums, bool is_first)            \
    {                                                                                              \
        body_leaf_times((struct body_traits)__VA_ARGS__, cols, leaf, blocks, x, q, qw, cell, sums, \
                        is_first);                                                                 \
    }

#if VEC_COLS_MAX == 8
#define BODY_LEAF_CLASS(name, ...)                                                                 \
    BODY_LEAF_INSTANCE(name, 1, __VA_ARGS__)                                                       \
    BODY_LEAF_INSTANCE(name, 2, __VA_ARGS__)                                                       \
    BODY_LEAF_INSTANCE(name, 4, __VA_ARGS__)                                                       \
    BODY_LEAF_INSTANCE(name, 8, __VA_ARGS__)                                                       \
    static body_leaf_fn *const name[] = {name##_1, name##_2, name##_4, name##_8};
#elif VEC_COLS_MAX == 4
#define BODY_LEAF_CLASS(name, ...)                                                                 \
    BODY_LEAF_INSTANCE(name, 1, __VA_ARGS__)                                                       \
    BODY_LEAF_INSTANCE(name, 2, __VA_ARGS__)                                                       \
    BODY_LEAF_INSTANCE(name, 4, __VA_ARGS__)                                                       \
    static body_leaf_fn *const name[] = {name##_1, name##_2, name##_4};
#else
#error "write the instances for this number of columns"
#endif

BODY_LEAF_CLASS(body_leaf_q4, BODY_TRAITS_Q4)
BODY_LEAF_CLASS(body_leaf_q4_min, BODY_TRAITS_Q4_MIN)
BODY_LEAF_CLASS(body_leaf_q5, BODY_TRAITS_Q5)
BODY_LEAF_CLASS(body_leaf_q5_min, BODY_TRAITS_Q5_MIN)
BODY_LEAF_CLASS(body_leaf_q2_k, BODY_TRAITS_Q2_K)
BODY_LEAF_CLASS(body_leaf_q3_k, BODY_TRAITS_Q3_K)
BODY_LEAF_CLASS(body_leaf_q6_k, BODY_TRAITS_Q6_K)
BODY_LEAF_CLASS(body_leaf_wide, BODY_TRAITS_WIDE)

/* Columns in all that go straight; more of them pay for taking the weights apart. */
VEC_INLINE uint32_t body_straight_most(const enum panel_kind kind)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const bool is_cheap = l->high_bits == 0 && l->low_bits <= 4 && !body_traits[kind].is_wide &&
                          kind != PANEL_KIND_MXFP4;
    return is_cheap ? 3 * BODY_STRAIGHT_COLS : BODY_STRAIGHT_COLS;
}

VEC_INLINE struct body_passage body_passage_of(const enum panel_kind kind, body_fill_fn *fill)
{
    static body_leaf_fn *const *const classes[PANEL_KIND_COUNT] = {
        [PANEL_KIND_Q4_0] = body_leaf_q4,     [PANEL_KIND_Q4_1] = body_leaf_q4_min,
        [PANEL_KIND_Q5_0] = body_leaf_q5,     [PANEL_KIND_Q5_1] = body_leaf_q5_min,
        [PANEL_KIND_Q8_0] = body_leaf_wide,   [PANEL_KIND_Q2_K] = body_leaf_q2_k,
        [PANEL_KIND_Q3_K] = body_leaf_q3_k,   [PANEL_KIND_Q4_K] = body_leaf_q4_min,
        [PANEL_KIND_Q5_K] = body_leaf_q5_min, [PANEL_KIND_Q6_K] = body_leaf_q6_k,
        [PANEL_KIND_IQ4_NL] = body_leaf_wide, [PANEL_KIND_IQ4_XS] = body_leaf_wide,
        [PANEL_KIND_MXFP4] = body_leaf_q5,
    };
    return (struct body_passage){&panel_layouts[kind], fill, classes[kind],
                                 body_straight_most(kind), body_traits[kind].is_wide};
}

#define BODY_FILL             body_leaf_fill
#define BODY_PASSAGE_BEGIN(n) ((void)0)
#define BODY_PASSAGE_END()    ((void)0)
