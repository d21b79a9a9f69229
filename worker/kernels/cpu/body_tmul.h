/*
 * body_tmul.h - many columns of x with tile registers: leaves of some panels are taken apart once
 * into signed bytes as a tile holds them, and all columns pass by them, 16 at a time. Included by
 * kernel_bodies.h behind a tmul_*.h; body_passage.h says what it defines.
 *
 * A tile product gives the integer sums of a block for 16 columns of x and the 16 rows of a panel.
 * They go through memory to vectors, which multiply and add them as everywhere else: the sums are
 * integers, so it is the same bits. That takes longer than the products. First come the products of
 * a whole leaf, of two panels, then their sums: one after the other because the processor does not
 * do them side by side, and a leaf because their 16 KB stay in the first-level cache.
 *
 * Scales of 16 columns: of Q2_K and Q3_K a weight times its scale fits into a byte and is one
 * weight (Q3_K negated, since its largest product is 128; so is d). Of Q6_K it does not: the halves
 * of a block are two products, whose quads of the other half are zeros.
 */

/* Products of two leaves, the leaves and 16 columns of x stay in a first-level cache of 48 KB; with
 * four leaves, products of 32 to 512 columns took a tenth to a half longer. 256 columns of x do not
 * stay in a second-level cache of 2 MB where a row has 8,960, and took a tenth longer. */
#define BODY_LEAVES    2u
#define BODY_SLAB_COLS 128u

#define BODY_TMUL_STEP 4u /* columns are summed in multiples of it */

_Static_assert(TMUL_ROWS == PANEL_ROWS, "x is readable up to so many rows");
_Static_assert(BODY_HALVES == 1 && TMUL_W_BYTES == PANEL_QUADS * PANEL_QUAD_BYTES,
               "a panel's block");

/* Quads of a block of Q6_K: those of the first half, zeros, those of the second half. */
#define BODY_TMUL_BLOCK_BYTES (12 * PANEL_QUAD_BYTES)

/* Up to 8 blocks of a panel. */
struct body_apart {
    _Alignas(64) uint8_t quads[SUM_LEAF_BLOCKS * BODY_TMUL_BLOCK_BYTES];
    _Alignas(64) float d[SUM_LEAF_BLOCKS][PANEL_ROWS];
    float m[SUM_LEAF_BLOCKS][PANEL_ROWS];
    float first[SUM_LEAF_BLOCKS][PANEL_ROWS]; /* scales of two products */
    float second[SUM_LEAF_BLOCKS][PANEL_ROWS];
    int32_t fix[SUM_LEAF_BLOCKS][PANEL_ROWS]; /* minima of 16 columns, as pairs */
};

/* How the products of a kind are added. */
struct body_tmul_class {
    bool has_min;
    bool has_pairs; /* a minimum for each 16 columns */
    bool is_two;    /* two products a block */
};

VEC_INLINE struct body_tmul_class body_tmul_class_of(const enum panel_kind kind)
{
    const struct body_traits t = body_traits[kind];
    return (struct body_tmul_class){t.has_min, t.has_min && t.has_halves,
                                    t.has_halves && kind == PANEL_KIND_Q6_K};
}

/* Blocks begin .. end - 1, at most 8. */
VEC_INLINE void body_tmul_fill(const enum panel_kind kind, const uint8_t *panel, uint32_t begin,
                               uint32_t end, struct body_apart *leaf)
{
    const struct body_traits t = body_traits[kind];
    const struct body_tmul_class class = body_tmul_class_of(kind);
    for (uint32_t b = begin; b < end; b++) {
        const uint8_t *super = body_super_at(kind, panel, b);
        const uint8_t *block = body_block_at(kind, super, b);
        const uint32_t at = b - begin;
        struct body_scales s = body_scales_of(kind, super, block, 0);
        if (kind == PANEL_KIND_Q3_K) {
            s.d = vec_f_mul(s.d, vec_f_set(-1.0f));
            s.first = vec_i_sub(vec_i_set(0), s.first);
            s.second = vec_i_sub(vec_i_set(0), s.second);
        }
        vec_f_store(leaf->d[at], s.d);
        if (class.has_min)
            vec_f_store(leaf->m[at], s.m);
        if (class.has_pairs)
            vec_i_store(leaf->fix[at], s.fix);
        if (class.is_two) {
            vec_f_store(leaf->first[at], vec_f_from_i(s.first));
            vec_f_store(leaf->second[at], vec_f_from_i(s.second));
        }
        uint8_t *to = leaf->quads + at * (class.is_two ? BODY_TMUL_BLOCK_BYTES : TMUL_W_BYTES);
        BODY_UNROLL
        for (int i = 0; i < PANEL_QUADS; i++) {
            vec_b q = body_quad(kind, block, i, 0);
            if (!t.is_wide && t.off > 0)
                q = vec_b_sub(q, t.off);
            if (t.has_halves && !class.is_two)
                q = vec_b_times(q, i < 4 ? s.first : s.second);
            if (class.is_two && i == 4) {
                for (int k = 0; k < 4; k++, to += PANEL_QUAD_BYTES)
                    vec_b_store(to, vec_b_none());
            }
            vec_b_store(to, q);
            to += PANEL_QUAD_BYTES;
        }
    }
}

/* What up to 16 columns of x bring along for a leaf. */
struct body_tmul_x {
    const int8_t *q; /* of as many rows as a product has, whatever is in those behind the last */
    size_t q_stride;
    float d[TMUL_ROWS][SUM_LEAF_BLOCKS];
    float sums[TMUL_ROWS][SUM_LEAF_BLOCKS];
    int32_t pairs[TMUL_ROWS][SUM_LEAF_BLOCKS];
};

/* Products of all blocks of a leaf: of two panels, or of the halves of blocks of one. */
struct body_tmul_products {
    _Alignas(64) int32_t of[2][SUM_LEAF_BLOCKS][TMUL_ROWS * PANEL_ROWS];
};

/* `n` is how many weights x is multiplied with at a time: a panel's and the next one's, or those of
 * two halves, or those of one panel. */
VEC_INLINE void body_tmul_multiply(const bool is_two, const int n, const struct body_apart *leaf,
                                   uint32_t blocks, const struct body_tmul_x *x,
                                   struct body_tmul_products *to)
{
    int32_t *before[2] = {NULL, NULL};
    for (uint32_t b = 0; b < blocks; b++) {
        const uint8_t *const w[2] = {
            leaf->quads + (size_t)b * (is_two ? BODY_TMUL_BLOCK_BYTES : TMUL_W_BYTES),
            is_two ? leaf->quads + (size_t)b * BODY_TMUL_BLOCK_BYTES + 4 * PANEL_QUAD_BYTES
                   : leaf[n - 1].quads + (size_t)b * TMUL_W_BYTES,
        };
        tmul_multiply(n, b % 2, x->q + (size_t)b * QUANT_BLOCK_ITEMS, x->q_stride, w,
                      b > 0 ? before : NULL);
        before[0] = to->of[0][b];
        before[1] = to->of[1][b];
    }
    tmul_store(n, (blocks - 1) % 2, before);
}

/* The sums of a leaf, from its products. */
VEC_INLINE void body_tmul_add(const struct body_tmul_class class, const int cols,
                              const struct body_apart *leaf, uint32_t blocks,
                              const struct body_tmul_x *x,
                              const int32_t (*first)[TMUL_ROWS * PANEL_ROWS],
                              const int32_t (*second)[TMUL_ROWS * PANEL_ROWS], vec_f *ret_acc)
{
    vec_f acc[TMUL_ROWS];
    BODY_UNROLL
    for (int c = 0; c < cols; c++)
        acc[c] = vec_f_set(0.0f);
    for (uint32_t b = 0; b < blocks; b++) {
        const vec_f d = vec_f_load(leaf->d[b]);
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            const vec_f dx = vec_f_set(x->d[c][b]);
            vec_f sum = vec_f_from_i(vec_i_load(first[b] + c * (int)PANEL_ROWS));
            /* Exact: the sum of both is below 2^24, and so is each. */
            if (class.is_two)
                sum = vec_f_fma(vec_f_from_i(vec_i_load(second[b] + c * (int)PANEL_ROWS)),
                                vec_f_load(leaf->second[b]),
                                vec_f_mul(sum, vec_f_load(leaf->first[b])));
            acc[c] = body_take(class.has_min, class.has_pairs,
                               (struct body_taken){
                                   .d = d,
                                   .dx = dx,
                                   .isum = sum,
                                   .m = class.has_min ? vec_f_load(leaf->m[b]) : vec_f_set(0.0f),
                                   .fix = class.has_pairs ? vec_i_load(leaf->fix[b]) : vec_i_set(0),
                                   .pairs = &x->pairs[c][b],
                                   .sum = &x->sums[c][b]},
                               acc[c]);
        }
    }
    BODY_UNROLL
    for (int c = 0; c < cols; c++)
        ret_acc[c] = acc[c];
}

/* Leaves of `panels` panels against `cols` columns of x; added to sums[panel][stride], of which
 * `used` columns of 16 floats each are wanted, or kept there where it is the first leaf. */
VEC_INLINE void body_tmul_times(const struct body_tmul_class class, const int cols,
                                const struct body_apart *leaves, uint32_t panels, uint32_t blocks,
                                const struct body_tmul_x *x, uint32_t used, float *sums,
                                size_t stride, bool is_first)
{
    struct body_tmul_products products;
    for (uint32_t p = 0; p < panels; p++) {
        const uint32_t of = class.is_two ? 0 : p % 2;
        if (class.is_two || (p % 2 == 0 && p + 1 < panels))
            body_tmul_multiply(class.is_two, 2, &leaves[p], blocks, x, &products);
        else if (p % 2 == 0)
            body_tmul_multiply(class.is_two, 1, &leaves[p], blocks, x, &products);
        vec_f acc[TMUL_ROWS];
        body_tmul_add(class, cols, &leaves[p], blocks, x, products.of[of], products.of[1], acc);
        float *at = sums + p * stride;
        BODY_UNROLL
        for (int c = 0; c < cols; c++, at += PANEL_ROWS) {
            if ((uint32_t)c < used)
                vec_f_store(at, is_first ? acc[c] : vec_f_add(vec_f_load(at), acc[c]));
        }
    }
}

typedef void body_fill_fn(const uint8_t *panel, uint32_t begin, uint32_t end,
                          struct body_apart *leaf);
typedef void body_times_fn(const struct body_apart *leaves, uint32_t panels, uint32_t blocks,
                           const struct body_tmul_x *x, uint32_t used, float *sums, size_t stride,
                           bool is_first);

/* How one kind goes past columns of x. */
struct body_passage {
    const struct panel_layout *layout;
    body_fill_fn *fill;
    body_times_fn *const *times; /* for up to 4 columns, 8, 12 and 16 */
    uint32_t straight_most;      /* of so many columns it takes nothing apart */
    bool has_min;
    bool has_pairs;
};

/* Columns row .. row + cols - 1 of x, blocks of a leaf; zeros for those behind them. */
static void body_tmul_gather(const struct kernel_matmul *m, const struct body_passage *passage,
                             size_t row, uint32_t cols, size_t cell, uint32_t blocks,
                             struct body_tmul_x *ret_x)
{
    const struct kernel_input *x = &m->x;
    ret_x->q = x->q + row * x->q_stride + cell * QUANT_BLOCK_ITEMS;
    ret_x->q_stride = x->q_stride;
    for (uint32_t c = 0; c < cols; c++) {
        const size_t at = (row + c) * x->block_stride + cell;
        body_copy(ret_x->d[c], x->scales + at, blocks);
        if (passage->has_min && !passage->has_pairs)
            body_copy(ret_x->sums[c], x->sums + at, blocks);
        if (passage->has_pairs)
            body_copy(ret_x->pairs[c], x->pairs + at, blocks);
    }
    for (uint32_t c = cols; c % BODY_TMUL_STEP != 0; c++) {
        memset(ret_x->d[c], 0, sizeof ret_x->d[c]);
        memset(ret_x->sums[c], 0, sizeof ret_x->sums[c]);
        memset(ret_x->pairs[c], 0, sizeof ret_x->pairs[c]);
    }
}

/* sums[panel][column][16] of the tile take up blocks block .. block + blocks - 1, a leaf, or begin
 * with it. */
static void body_tile_leaf(const struct kernel_matmul *m, const struct body_passage *passage,
                           const struct body_tile *tile, uint32_t block, uint32_t blocks,
                           const struct body_ahead *ahead, struct body_apart *leaves, float *sums,
                           bool is_first)
{
    for (uint32_t p = 0; p < tile->panels; p++)
        passage->fill(m->data + (tile->panel + p) * m->panel_bytes, block, block + blocks,
                      &leaves[p]);
    struct body_tmul_x x;
    const uint32_t parts = (tile->cols + TMUL_ROWS - 1) / TMUL_ROWS;
    for (uint32_t i = 0; i < tile->cols; i += TMUL_ROWS) {
        const uint32_t cols = tile->cols - i < TMUL_ROWS ? tile->cols - i : TMUL_ROWS;
        body_fetch(ahead, i / TMUL_ROWS, parts);
        if (block + blocks == m->blocks)
            body_fetch_out(m, tile, i, cols);
        body_tmul_gather(m, passage, tile->first + i, cols, block - m->lead, blocks, &x);
        passage->times[(cols - 1) / BODY_TMUL_STEP](leaves, tile->panels, blocks, &x, cols,
                                                    sums + (size_t)i * PANEL_ROWS,
                                                    (size_t)tile->cols * PANEL_ROWS, is_first);
    }
}

/* Instances: for each class of types and number of columns. */
#define BODY_TMUL_INSTANCE(name, cols, ...)                                                        \
    static __attribute__((noinline)) void name##_##cols(                                           \
        const struct body_apart *leaves, uint32_t panels, uint32_t blocks,                         \
        const struct body_tmul_x *x, uint32_t used, float *sums, size_t stride, bool is_first)     \
    {                                                                                              \
        body_tmul_times((struct body_tmul_class)__VA_ARGS__, cols, leaves, panels, blocks, x,      \
                        used, sums, stride, is_first);                                             \
    }

#define BODY_TMUL_CLASS(name, ...)                                                                 \
    BODY_TMUL_INSTANCE(name, 4, __VA_ARGS__)                                                       \
    BODY_TMUL_INSTANCE(name, 8, __VA_ARGS__)                                                       \
    BODY_TMUL_INSTANCE(name, 12, __VA_ARGS__)                                                      \
    BODY_TMUL_INSTANCE(name, 16, __VA_ARGS__)                                                      \
    static body_times_fn *const name[] = {name##_4, name##_8, name##_12, name##_16};

BODY_TMUL_CLASS(body_tmul_plain, {false, false, false})
BODY_TMUL_CLASS(body_tmul_min, {true, false, false})
BODY_TMUL_CLASS(body_tmul_pairs, {true, true, false})
BODY_TMUL_CLASS(body_tmul_two, {false, false, true})

VEC_INLINE struct body_passage body_passage_of(const enum panel_kind kind, body_fill_fn *fill)
{
    const struct body_tmul_class class = body_tmul_class_of(kind);
    return (struct body_passage){
        .layout = &panel_layouts[kind],
        .fill = fill,
        .times = class.is_two      ? body_tmul_two
                 : class.has_pairs ? body_tmul_pairs
                 : class.has_min   ? body_tmul_min
                                   : body_tmul_plain,
        /* A second turn for a column or two takes less than tiles for eight. */
        .straight_most = class.is_two ? 2 * BODY_STRAIGHT_COLS : BODY_STRAIGHT_COLS + 1,
        .has_min = class.has_min,
        .has_pairs = class.has_pairs,
    };
}

#define BODY_FILL body_tmul_fill
#define BODY_PASSAGE_BEGIN(n)                                                                      \
    tmul_begin((n) < TMUL_ROWS ? ((n) + BODY_TMUL_STEP - 1) / BODY_TMUL_STEP * BODY_TMUL_STEP      \
                               : TMUL_ROWS)
#define BODY_PASSAGE_END() tmul_end()
