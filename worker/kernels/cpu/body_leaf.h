/*
 * body_leaf.h - many columns of x with vectors: leaves of some panels are taken apart once
 * (body_weights.h) into memory that stays in the first-level cache, and all columns pass by them.
 * Included by kernel_bodies.h; body_passage.h says what it defines.
 */

/* As many panels as leave room for x in a first-level cache of 32 KB, or come close: leaves of wide
 * types have 8 KB each with AVX2, and with a fourth of them their products took a tenth longer. As
 * many columns as leave their part of x and their sums in a second-level cache. */
#define BODY_LEAVES    (VEC_WIDE_BYTES > 1 ? 3u : 6u)
#define BODY_SLAB_COLS 128u

#define body_apart body_leaf

/* Vectors of rows that columns are multiplied with at once. */
#define BODY_VECTORS (VEC_LEAF_PANELS * BODY_HALVES)

_Static_assert(BODY_LEAVES % VEC_LEAF_PANELS == 0, "whole steps");

/* What up to VEC_COLS_MAX columns of x bring along for a leaf. */
struct body_leaf_x {
    const int8_t *q;
    size_t q_stride;
    vec_wide_x *qw; /* [VEC_COLS_MAX][256], leaves of more than a byte a weight */
    float d[VEC_COLS_MAX][SUM_LEAF_BLOCKS];
    float sums[VEC_COLS_MAX][SUM_LEAF_BLOCKS];
    int32_t pairs[VEC_COLS_MAX][SUM_LEAF_BLOCKS];
    int32_t start[2][VEC_COLS_MAX][SUM_LEAF_BLOCKS]; /* -off * sum(x): of a block, or its halves */
};

/* sums take up the integer sums of quads begin .. end - 1 of block b, each times its row's scale
 * where there are scales. */
VEC_INLINE void body_leaf_dots(const struct body_traits t, const int cols, const int vectors,
                               const struct body_leaf *leaves, uint32_t b, const int begin,
                               const int end, const struct body_leaf_x *x, const vec_i *scales,
                               vec_i (*sums)[BODY_VECTORS])
{
    const int depth = VEC_DOT_DEPTH(t.top) < end - begin ? VEC_DOT_DEPTH(t.top) : end - begin;
    const int8_t *q = x->q + (size_t)b * QUANT_BLOCK_ITEMS;
    vec_dot dot[VEC_COLS_MAX][BODY_VECTORS];
    BODY_UNROLL
    for (int i = begin; i < end; i++) {
        vec_b w[BODY_VECTORS];
        BODY_UNROLL
        for (int v = 0; v < vectors; v++)
            w[v] = vec_b_load(leaves[v / BODY_HALVES].quads +
                              body_leaf_quad(false, b, i, v % BODY_HALVES));
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            const vec_b quad = vec_b_quad(q + (size_t)c * x->q_stride + 4 * i);
            BODY_UNROLL
            for (int v = 0; v < vectors; v++) {
                if (VEC_DOT_INT32) {
                    sums[c][v] = vec_dot_add(sums[c][v], w[v], quad);
                    continue;
                }
                dot[c][v] =
                    i % depth == 0 ? vec_dot_first(w[v], quad) : vec_dot_add(dot[c][v], w[v], quad);
                if (i % depth == depth - 1)
                    sums[c][v] =
                        vec_i_add(sums[c][v], scales != NULL ? vec_dot_scaled(dot[c][v], scales[v])
                                                             : vec_dot_sum(dot[c][v]));
            }
        }
    }
}

/* The same of all quads of a wide type. */
VEC_INLINE void body_leaf_wide_dots(const int cols, const int vectors,
                                    const struct body_leaf *leaves, uint32_t b,
                                    const struct body_leaf_x *x, vec_i (*sums)[BODY_VECTORS])
{
    const vec_wide_x *q = VEC_WIDE_BYTES > 1 ? x->qw : (const vec_wide_x *)x->q;
    const size_t stride = VEC_WIDE_BYTES > 1 ? QUANT_SUPER_ITEMS : x->q_stride;
    q += (size_t)b * QUANT_BLOCK_ITEMS;
    BODY_UNROLL
    for (int i = 0; i < PANEL_QUADS; i++) {
        BODY_UNROLL
        for (int part = 0; part < VEC_WIDE_BYTES; part++) {
            vec_b w[BODY_VECTORS];
            BODY_UNROLL
            for (int v = 0; v < vectors; v++)
                w[v] = vec_wide_load(leaves[v / BODY_HALVES].quads +
                                         body_leaf_quad(true, b, i, v % BODY_HALVES),
                                     part);
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                const vec_b quad = vec_wide_quad(q + (size_t)c * stride + 4 * i, part);
                BODY_UNROLL
                for (int v = 0; v < vectors; v++)
                    sums[c][v] = vec_wide_add(sums[c][v], w[v], quad);
            }
        }
    }
}

/* Integer sums of a block begin: with `start`, where there is one. */
VEC_INLINE void body_leaf_start(const int cols, const int vectors,
                                const int32_t (*start)[SUM_LEAF_BLOCKS], uint32_t b,
                                vec_i (*ret_sums)[BODY_VECTORS])
{
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        const vec_i x = start != NULL ? vec_i_set(start[c][b]) : vec_i_set(0);
        BODY_UNROLL
        for (int v = 0; v < vectors; v++)
            ret_sums[c][v] = x;
    }
}

/* isum of block b of a type with halves, as floats. Exact: it is below 2^24, and so is each half.
 * No scale times a negative sum is -0, which is no integer; begun at +0 it is +0. */
VEC_INLINE void body_leaf_halves(const struct body_traits t, const int cols, const int vectors,
                                 const struct body_leaf *leaves, uint32_t b,
                                 const struct body_leaf_x *x, vec_f (*ret_totals)[BODY_VECTORS])
{
    vec_i sums[VEC_COLS_MAX][BODY_VECTORS];
    BODY_UNROLL
    for (int half = 0; half < 2; half++) {
        body_leaf_start(cols, vectors, t.off > 0 ? x->start[half] : NULL, b, sums);
        body_leaf_dots(t, cols, vectors, leaves, b, 4 * half, 4 * half + 4, x, NULL, sums);
        BODY_UNROLL
        for (int v = 0; v < vectors; v++) {
            const vec_f scale =
                vec_f_load(leaves[v / BODY_HALVES].scale[half][b] + v % BODY_HALVES * VEC_LANES);
            BODY_UNROLL
            for (int c = 0; c < cols; c++)
                ret_totals[c][v] = vec_f_fma(vec_f_from_i(sums[c][v]), scale,
                                             half == 0 ? vec_f_set(0.0f) : ret_totals[c][v]);
        }
    }
}

/* The same where products are scaled before they are int32. */
VEC_INLINE void body_leaf_scaled(const struct body_traits t, const int cols, const int vectors,
                                 const struct body_leaf *leaves, uint32_t b,
                                 const struct body_leaf_x *x, vec_i (*ret_sums)[BODY_VECTORS])
{
    vec_i scales[2][BODY_VECTORS];
    BODY_UNROLL
    for (int v = 0; v < vectors; v++) {
        const struct body_leaf *leaf = &leaves[v / BODY_HALVES];
        const int h = v % BODY_HALVES * VEC_LANES;
        scales[0][v] = vec_i_load(leaf->first[b] + h);
        scales[1][v] = vec_i_load(leaf->second[b] + h);
        BODY_UNROLL
        for (int c = 0; c < cols; c++)
            ret_sums[c][v] =
                t.off > 0 ? vec_pair_mul(vec_i_load(leaf->fix[b] + h), vec_i_set(x->pairs[c][b]))
                          : vec_i_set(0);
    }
    body_leaf_dots(t, cols, vectors, leaves, b, 0, 4, x, scales[0], ret_sums);
    body_leaf_dots(t, cols, vectors, leaves, b, 4, 8, x, scales[1], ret_sums);
}

/* One block, taken up by acc. */
VEC_INLINE void body_leaf_block(const struct body_traits t, const int cols, const int vectors,
                                const struct body_leaf *leaves, uint32_t b,
                                const struct body_leaf_x *x, vec_f (*acc)[BODY_VECTORS])
{
    vec_f totals[VEC_COLS_MAX][BODY_VECTORS];
    if (t.has_halves && VEC_DOT_INT32) {
        body_leaf_halves(t, cols, vectors, leaves, b, x, totals);
    } else {
        vec_i sums[VEC_COLS_MAX][BODY_VECTORS];
        if (t.has_halves) {
            body_leaf_scaled(t, cols, vectors, leaves, b, x, sums);
        } else {
            body_leaf_start(cols, vectors, t.off > 0 ? x->start[0] : NULL, b, sums);
            if (t.is_wide)
                body_leaf_wide_dots(cols, vectors, leaves, b, x, sums);
            else
                body_leaf_dots(t, cols, vectors, leaves, b, 0, PANEL_QUADS, x, NULL, sums);
        }
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int v = 0; v < vectors; v++)
                totals[c][v] = vec_f_from_i(sums[c][v]);
        }
    }
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        const vec_f dx = vec_f_set(x->d[c][b]);
        BODY_UNROLL
        for (int v = 0; v < vectors; v++) {
            const struct body_leaf *leaf = &leaves[v / BODY_HALVES];
            const int h = v % BODY_HALVES * VEC_LANES;
            acc[c][v] =
                body_take(t.has_min, t.has_halves,
                          (struct body_taken){
                              .d = vec_f_load(leaf->d[b] + h),
                              .dx = dx,
                              .isum = totals[c][v],
                              .m = t.has_min ? vec_f_load(leaf->m[b] + h) : vec_f_set(0.0f),
                              .fix = body_uses_fix(t) ? vec_i_load(leaf->fix[b] + h) : vec_i_set(0),
                              .pairs = &x->pairs[c][b],
                              .sum = &x->sums[c][b]},
                          acc[c][v]);
        }
    }
}

/* Leaves of `panels` panels against `cols` columns of x; added to sums[panel][stride] floats,
 * columns of 16, or kept there where it is the first one. */
VEC_INLINE void body_leaf_times(const struct body_traits t, const int panels, const int cols,
                                const struct body_leaf *leaves, uint32_t blocks,
                                const struct body_leaf_x *x, float *sums, size_t stride,
                                bool is_first)
{
    const int vectors = panels * BODY_HALVES;
    vec_f acc[VEC_COLS_MAX][BODY_VECTORS];
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[c][v] = vec_f_set(0.0f);
    }
    for (uint32_t b = 0; b < blocks; b++)
        body_leaf_block(t, cols, vectors, leaves, b, x, acc);
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int v = 0; v < vectors; v++) {
            float *at = sums + (size_t)(v / BODY_HALVES) * stride + c * (int)PANEL_ROWS +
                        v % BODY_HALVES * VEC_LANES;
            vec_f_store(at, is_first ? acc[c][v] : vec_f_add(vec_f_load(at), acc[c][v]));
        }
    }
}

typedef void body_fill_fn(const uint8_t *panel, uint32_t begin, uint32_t end,
                          struct body_leaf *leaf);
typedef void body_leaf_fn(const struct body_leaf *leaves, uint32_t blocks,
                          const struct body_leaf_x *x, float *sums, size_t stride, bool is_first);

/* What the next columns of a tile will read; they are further apart than hardware looks ahead. */
VEC_INLINE void body_prefetch(const int8_t *q, size_t q_stride, uint32_t blocks)
{
    for (int c = 0; c < VEC_COLS_MAX; c++) {
        for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += 64)
            __builtin_prefetch(q + (size_t)c * q_stride + k);
    }
}

#define BODY_COLS_INSTANCES 3u /* for one column, two and four */

/* How one kind goes past columns of x. */
struct body_passage {
    const struct panel_layout *layout;
    body_fill_fn *fill;
    body_leaf_fn *const *times; /* [VEC_LEAF_PANELS at a time, or one][instance] */
    uint32_t straight_most;     /* of so many columns it takes nothing apart */
    struct body_traits traits;
};

/* Columns row .. row + cols - 1 of x, blocks of a leaf. */
static void body_leaf_gather(const struct kernel_input *x, const struct body_traits t, size_t row,
                             uint32_t cols, size_t cell, uint32_t blocks, struct body_leaf_x *ret_x)
{
    ret_x->q = x->q + row * x->q_stride + cell * QUANT_BLOCK_ITEMS;
    ret_x->q_stride = x->q_stride;
    for (uint32_t c = 0; c < cols; c++) {
        const size_t at = (row + c) * x->block_stride + cell;
        body_copy(ret_x->d[c], x->scales + at, blocks);
        if (t.has_min && !t.has_halves)
            body_copy(ret_x->sums[c], x->sums + at, blocks);
        if (body_uses_fix(t))
            body_copy(ret_x->pairs[c], x->pairs + at, blocks);
        if (t.off > 0) {
            for (uint32_t b = 0; b < blocks; b++) {
                const int32_t first = (int16_t)x->pairs[at + b], second = x->pairs[at + b] >> 16;
                ret_x->start[0][c][b] = -(int32_t)t.off * (t.has_halves ? first : first + second);
                ret_x->start[1][c][b] = -(int32_t)t.off * second;
            }
        }
        if (t.is_wide && VEC_WIDE_BYTES > 1) {
            for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += QUANT_BLOCK_ITEMS)
                vec_wide_widen(ret_x->q + c * x->q_stride + k,
                               ret_x->qw + (size_t)c * QUANT_SUPER_ITEMS + k);
        }
    }
}

/* sums[panel][column][16] of the tile take up blocks block .. block + blocks - 1, a leaf, or begin
 * with it. */
static void body_tile_leaf(const struct kernel_matmul *m, const struct body_passage *passage,
                           const struct body_tile *tile, uint32_t block, uint32_t blocks,
                           const struct body_ahead *ahead, struct body_leaf *leaves, float *sums,
                           bool is_first)
{
    for (uint32_t p = 0; p < tile->panels; p++)
        passage->fill(m->data + (tile->panel + p) * m->panel_bytes, block, block + blocks,
                      &leaves[p]);
    _Alignas(64) vec_wide_x qw[VEC_WIDE_BYTES > 1 ? VEC_COLS_MAX * QUANT_SUPER_ITEMS : 1];
    struct body_leaf_x x;
    x.qw = qw;
    const size_t stride = (size_t)tile->cols * PANEL_ROWS;
    const uint32_t parts = (tile->cols + VEC_COLS_MAX - 1) / VEC_COLS_MAX;
    uint32_t cols;
    for (uint32_t i = 0; i < tile->cols; i += cols) {
        uint32_t instance;
        cols = body_step(tile->cols - i, VEC_COLS_MAX, &instance);
        body_fetch(ahead, i / VEC_COLS_MAX, parts);
        if (block + blocks == m->blocks)
            body_fetch_out(m, tile, i, cols);
        body_leaf_gather(&m->x, passage->traits, tile->first + i, cols, block - m->lead, blocks,
                         &x);
        if (i + 2 * VEC_COLS_MAX <= tile->cols)
            body_prefetch(x.q + VEC_COLS_MAX * x.q_stride, x.q_stride, blocks);
        float *to = sums + (size_t)i * PANEL_ROWS;
        for (uint32_t p = 0; p < tile->panels;) {
            const bool is_one = tile->panels - p < VEC_LEAF_PANELS;
            passage->times[is_one * BODY_COLS_INSTANCES + instance](
                &leaves[p], blocks, &x, to + p * stride, stride, is_first);
            p += is_one ? 1 : VEC_LEAF_PANELS;
        }
    }
}

/* Instances: for each class of types, numbers of panels and of columns. */
#define BODY_LEAF_INSTANCE(name, panels, cols, ...)                                                \
    static __attribute__((noinline)) void name##_##panels##_##cols(                                \
        const struct body_leaf *leaves, uint32_t blocks, const struct body_leaf_x *x, float *sums, \
        size_t stride, bool is_first)                                                              \
    {                                                                                              \
        body_leaf_times((struct body_traits)__VA_ARGS__, panels, cols, leaves, blocks, x, sums,    \
                        stride, is_first);                                                         \
    }

#define BODY_LEAF_INSTANCES(name, panels, ...)                                                     \
    BODY_LEAF_INSTANCE(name, panels, 1, __VA_ARGS__)                                               \
    BODY_LEAF_INSTANCE(name, panels, 2, __VA_ARGS__)                                               \
    BODY_LEAF_INSTANCE(name, panels, 4, __VA_ARGS__)

_Static_assert(VEC_COLS_MAX == 4, "write the instances for this number of columns");

#if VEC_LEAF_PANELS == 3
#define BODY_LEAF_CLASS(name, ...)                                                                 \
    BODY_LEAF_INSTANCES(name, 1, __VA_ARGS__)                                                      \
    BODY_LEAF_INSTANCES(name, 3, __VA_ARGS__)                                                      \
    static body_leaf_fn *const name[] = {name##_3_1, name##_3_2, name##_3_4,                       \
                                         name##_1_1, name##_1_2, name##_1_4};
#elif VEC_LEAF_PANELS == 1
#define BODY_LEAF_CLASS(name, ...)                                                                 \
    BODY_LEAF_INSTANCES(name, 1, __VA_ARGS__)                                                      \
    static body_leaf_fn *const name[] = {name##_1_1, name##_1_2, name##_1_4};
#else
#error "write the instances for this number of panels"
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
    return is_cheap ? (VEC_LEAF_PANELS > 1 ? 2u : 3u) * BODY_STRAIGHT_COLS : BODY_STRAIGHT_COLS;
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
                                 body_straight_most(kind), body_traits[kind]};
}

#define BODY_FILL             body_leaf_fill
#define BODY_PASSAGE_BEGIN(n) ((void)0)
#define BODY_PASSAGE_END()    ((void)0)
