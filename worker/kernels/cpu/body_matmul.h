/*
 * body_matmul.h - the matrix product of quantized types over the wrappers of a vec_*.h, included by
 * kernel_bodies.h. The order of the sums is that of sum_order.h.
 *
 * Two ways to the same bits. For a few columns of x the weights go straight from memory into the
 * products: reading them is what takes the time. For more, a leaf of some panels is taken apart
 * once (body_weights.h) into memory that stays in the first-level cache, and all columns pass by
 * it.
 *
 * Loops over columns of x and halves of a panel have constant bounds in every instance, so that
 * their sums live in registers.
 */

/* Columns of x that go straight at a time. */
#define BODY_STRAIGHT_COLS 4

/* Columns in all that go straight; more of them pay for taking the weights apart. */
VEC_INLINE uint32_t body_straight_most(const enum panel_kind kind)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const bool is_cheap = l->high_bits == 0 && l->low_bits <= 4 && !body_traits[kind].is_wide &&
                          kind != PANEL_KIND_MXFP4;
    return is_cheap ? 3 * BODY_STRAIGHT_COLS : BODY_STRAIGHT_COLS;
}

/* Columns that pass by one set of leaves: their part of x and their sums stay in a second-level
 * cache. */
#define BODY_SLAB_COLS 128u

/* Panels whose leaves are in use at once: as many as leave room for x in a first-level cache of 32
 * KB (of wide types 8 KB each; with a fourth, products of 8-bit weights took a tenth longer). */
#define BODY_LEAVES 3u

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

/* Where a block's weights come from: memory (kind is a type's), or a leaf (PANEL_KIND_COUNT). */
struct body_from {
    const uint8_t *super;
    const uint8_t *block;
    const struct body_leaf *leaf;
    uint32_t at;
};

VEC_INLINE vec_b body_from_quad(const enum panel_kind kind, const struct body_from *from,
                                const int i, const int h)
{
    if (kind == PANEL_KIND_COUNT)
        return vec_b_load(from->leaf->quads + body_leaf_quad(false, from->at, i, h));
    return body_quad(kind, from->block, i, h);
}

/* The integer sums of one block: isum + off * sum(x), without off for types with halves. */
VEC_INLINE void body_sums(const struct body_traits t, const enum panel_kind kind, const int cols,
                          const struct body_from *from, const int8_t *q, size_t q_stride,
                          const struct body_scales *s, vec_i (*sums)[BODY_HALVES])
{
    const int limit = t.has_halves ? 4 : 8;
    const int depth = VEC_DOT_DEPTH(t.top) < limit ? VEC_DOT_DEPTH(t.top) : limit;
    vec_dot dot[VEC_COLS_MAX][BODY_HALVES];
    BODY_UNROLL
    for (int i = 0; i < PANEL_QUADS; i++) {
        vec_b w[BODY_HALVES];
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            w[h] = body_from_quad(kind, from, i, h);
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

/* The same of a wide type, from x in bytes, or, for leaves of more than a byte a weight, as qw. */
VEC_INLINE void body_sums_wide(const enum panel_kind kind, const int cols,
                               const struct body_from *from, const int8_t *q, size_t q_stride,
                               const vec_wide_x *qw, vec_i (*sums)[BODY_HALVES])
{
    BODY_UNROLL
    for (int c = 0; c < cols; c++) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++)
            sums[c][h] = vec_i_set(0);
    }
    BODY_UNROLL
    for (int i = 0; i < PANEL_QUADS; i++) {
        if (kind == PANEL_KIND_COUNT) {
            BODY_UNROLL
            for (int part = 0; part < VEC_WIDE_BYTES; part++) {
                vec_b w[BODY_HALVES];
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    w[h] = vec_wide_load(from->leaf->quads + body_leaf_quad(true, from->at, i, h),
                                         part);
                BODY_UNROLL
                for (int c = 0; c < cols; c++) {
                    const vec_wide_x *at = VEC_WIDE_BYTES > 1
                                               ? qw + (size_t)c * QUANT_SUPER_ITEMS
                                               : (const vec_wide_x *)q + (size_t)c * q_stride;
                    vec_b x = vec_wide_quad(at + 4 * i, part);
                    BODY_UNROLL
                    for (int h = 0; h < BODY_HALVES; h++)
                        sums[c][h] = vec_wide_add(sums[c][h], w[h], x);
                }
            }
        } else {
            vec_w8 w[BODY_HALVES];
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                w[h] = vec_w8_of(body_quad(kind, from->block, i, h));
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                vec_b x = vec_b_quad(q + (size_t)c * q_stride + 4 * i);
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    sums[c][h] = vec_w8_add(sums[c][h], w[h], x);
            }
        }
    }
}

/* One block: acc += d * dx * isum, then the minimum's part, m * (dx * msum). The products take the
 * processor's multipliers, which additions do not, so what can be an addition of integers is one:
 * the offset of unsigned weights, once per column of x. */
VEC_INLINE void body_block(const struct body_traits t, const enum panel_kind kind, const int cols,
                           const struct body_from *from, const struct kernel_input *x,
                           const int8_t *q, const vec_wide_x *qw, size_t cell,
                           vec_f (*acc)[BODY_HALVES])
{
    struct body_scales s[BODY_HALVES];
    vec_i sums[VEC_COLS_MAX][BODY_HALVES];
    BODY_UNROLL
    for (int h = 0; h < BODY_HALVES; h++)
        s[h] = kind == PANEL_KIND_COUNT ? body_leaf_scales(t, from->leaf, from->at, h)
                                        : body_scales_of(kind, from->super, from->block, h);
    if (t.is_wide)
        body_sums_wide(kind, cols, from, q, x->q_stride, qw, sums);
    else
        body_sums(t, kind, cols, from, q, x->q_stride, s, sums);
    const vec_i off =
        vec_i_set(kind == PANEL_KIND_COUNT ? from->leaf->off : body_pair(-(int)t.off));
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
            acc[c][h] = vec_f_fma(vec_f_mul(s[h].d, dx), vec_f_from_i(sum), acc[c][h]);
            if (t.has_min) {
                vec_f msum = t.has_halves ? vec_f_mul(dx, vec_f_from_i(vec_pair_mul(
                                                              s[h].fix, vec_i_set(x->pairs[at]))))
                                          : vec_f_set(x->sums[at]);
                acc[c][h] = vec_f_fma(s[h].m, msum, acc[c][h]);
            }
        }
    }
}

/* 16 rows of the result, or of a node, for one row of x, or the rows of it that the matrix has. */
VEC_INLINE void body_store(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row,
                           uint32_t node, const float *sums)
{
    uint32_t first = panel * PANEL_ROWS;
    uint32_t n = m->rows - first < PANEL_ROWS ? m->rows - first : PANEL_ROWS;
    float *out = m->out + node * m->node_stride + (size_t)x_row * m->out_stride + first;
    const float *bias = m->bias != NULL ? m->bias + first : NULL;
    if (n == PANEL_ROWS) {
        BODY_UNROLL
        for (int h = 0; h < BODY_HALVES; h++) {
            vec_f y = vec_f_load(sums + h * VEC_LANES);
            if (bias != NULL)
                y = vec_f_add(y, vec_f_load(bias + h * VEC_LANES));
            if (m->accumulate)
                y = vec_f_add(vec_f_load(out + h * VEC_LANES), y);
            vec_f_store(out + h * VEC_LANES, y);
        }
        return;
    }
    for (uint32_t r = 0; r < n; r++) {
        float result = bias != NULL ? sums[r] + bias[r] : sums[r];
        out[r] = m->accumulate ? out[r] + result : result;
    }
}

/* Straight: a node of one panel times `cols` rows of x from x_row on. */
VEC_INLINE void body_straight_node(const enum panel_kind kind, const int cols,
                                   const struct kernel_matmul *m, uint32_t panel, uint32_t x_row,
                                   uint32_t node)
{
    const struct body_traits t = body_traits[kind];
    const uint8_t *w = m->data + panel * m->panel_bytes;
    const int8_t *q = m->x.q + x_row * m->x.q_stride;
    const size_t cell = x_row * m->x.block_stride;
    const uint32_t width = (uint32_t)cols * PANEL_ROWS;
    const uint32_t first = m->nodes[node].first, groups = m->nodes[node].count;
    float partial[SUM_GROUPS_MAX * BODY_STRAIGHT_COLS * PANEL_ROWS];

    for (uint32_t g = 0; g < groups; g++) {
        uint32_t begin = kernel_group_begin(m, first + g);
        uint32_t end = kernel_group_begin(m, first + g + 1);
        /* The first leaf added to -0, the neutral element, is the first leaf. */
        vec_f sum[VEC_COLS_MAX][BODY_HALVES];
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                sum[c][h] = vec_f_set(-0.0f);
        }
        for (uint32_t leaf = begin; leaf < end; leaf += SUM_LEAF_BLOCKS) {
            uint32_t leaf_end = leaf + SUM_LEAF_BLOCKS < end ? leaf + SUM_LEAF_BLOCKS : end;
            vec_f acc[VEC_COLS_MAX][BODY_HALVES];
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    acc[c][h] = vec_f_set(0.0f);
            }
            for (uint32_t b = leaf; b < leaf_end; b++) {
                struct body_from from = {.super = body_super_at(kind, w, b)};
                from.block = body_block_at(kind, from.super, b);
                const size_t at = b - m->lead;
                body_block(t, kind, cols, &from, &m->x, q + at * QUANT_BLOCK_ITEMS, NULL, cell + at,
                           acc);
            }
            BODY_UNROLL
            for (int c = 0; c < cols; c++) {
                BODY_UNROLL
                for (int h = 0; h < BODY_HALVES; h++)
                    sum[c][h] = vec_f_add(sum[c][h], acc[c][h]);
            }
        }
        BODY_UNROLL
        for (int c = 0; c < cols; c++) {
            BODY_UNROLL
            for (int h = 0; h < BODY_HALVES; h++)
                vec_f_store(partial + g * width + c * (int)PANEL_ROWS + h * VEC_LANES, sum[c][h]);
        }
    }
    for (uint32_t step = 1; step < groups; step *= 2) {
        for (uint32_t i = 0; i + step < groups; i += 2 * step) {
            float *restrict left = partial + i * width;
            const float *restrict right = partial + (i + step) * width;
            for (uint32_t k = 0; k < width; k++)
                left[k] += right[k];
        }
    }
    for (int c = 0; c < cols; c++)
        body_store(m, panel, x_row + (uint32_t)c, node, partial + (size_t)c * PANEL_ROWS);
}

VEC_INLINE void body_straight(const enum panel_kind kind, const int cols,
                              const struct kernel_matmul *m, uint32_t panel, uint32_t x_row)
{
    for (uint32_t node = 0; node < m->n_nodes; node++)
        body_straight_node(kind, cols, m, panel, x_row, node);
}

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

typedef void body_straight_fn(const struct kernel_matmul *m, uint32_t panel, uint32_t x_row);
typedef void body_fill_fn(const uint8_t *panel, uint32_t begin, uint32_t end,
                          struct body_leaf *leaf);
typedef void body_leaf_fn(const struct body_leaf *leaf, uint32_t blocks,
                          const struct kernel_input *x, const int8_t *q, const vec_wide_x *qw,
                          size_t cell, float *sums, bool is_first);

/* The room of a thread: leaves, then levels of the group tree, each [panel][column][16] sums. A
 * tree over groups in ascending order has at most one open sum for each power of two, and the
 * newest. */
static uint32_t body_levels(uint32_t groups)
{
    uint32_t levels = 1;
    while (1u << (levels - 1) < groups)
        levels++;
    return levels;
}

static size_t body_level_floats(uint32_t n)
{
    uint32_t cols = n < BODY_SLAB_COLS ? n : BODY_SLAB_COLS;
    return (size_t)BODY_LEAVES * cols * PANEL_ROWS;
}

static size_t body_matmul_room(uint32_t n, uint32_t groups)
{
    if (n <= BODY_STRAIGHT_COLS)
        return 0;
    return BODY_LEAVES * sizeof(struct body_leaf) / sizeof(float) +
           body_levels(groups) * body_level_floats(n);
}

/* Blocks of x of up to VEC_COLS_MAX rows as wide products take them. */
static void body_widen(const struct kernel_input *x, const int8_t *q, uint32_t cols,
                       uint32_t blocks, vec_wide_x *ret_qw)
{
    for (uint32_t c = 0; c < cols; c++) {
        for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += QUANT_BLOCK_ITEMS)
            vec_wide_widen(q + c * x->q_stride + k, ret_qw + (size_t)c * QUANT_SUPER_ITEMS + k);
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

/* Some panels (at most BODY_LEAVES) and columns of x. */
struct body_tile {
    uint32_t panel;
    uint32_t panels;
    uint32_t first;
    uint32_t cols;
};

/* What the next columns of a tile will read; they are further apart than hardware looks ahead. */
VEC_INLINE void body_prefetch(const int8_t *q, size_t q_stride, uint32_t blocks)
{
    for (int c = 0; c < VEC_COLS_MAX; c++) {
        for (uint32_t k = 0; k < blocks * QUANT_BLOCK_ITEMS; k += 64)
            __builtin_prefetch(q + (size_t)c * q_stride + k);
    }
}

/* A leaf of each panel of a tile that will be taken apart next. It comes from memory, and nothing
 * but this says so early enough. */
struct body_ahead {
    const uint8_t *leaf; /* of the first panel; NULL: none */
    size_t panel_bytes;
    uint32_t panels;
    uint32_t bytes;
};

static struct body_ahead body_ahead_of(const struct kernel_matmul *m,
                                       const struct panel_layout *layout, uint32_t panel,
                                       uint32_t panels, uint32_t block, uint32_t blocks)
{
    const uint32_t in_super = block % PANEL_SUPER_BLOCKS;
    const uint32_t head = panel_head_bytes(layout);
    const size_t skip = (size_t)(block / PANEL_SUPER_BLOCKS) * panel_super_bytes(layout) +
                        (in_super > 0 ? head + (size_t)in_super * panel_block_bytes(layout) : 0);
    return (struct body_ahead){
        .leaf = panels > 0 ? m->data + panel * m->panel_bytes + skip : NULL,
        .panel_bytes = m->panel_bytes,
        .panels = panels,
        .bytes = head + blocks * panel_block_bytes(layout),
    };
}

/* Part `part` of `parts` of it, into the second-level cache. */
VEC_INLINE void body_fetch(const struct body_ahead *ahead, uint32_t part, uint32_t parts)
{
    if (ahead->leaf == NULL)
        return;
    const uint32_t lines = (ahead->bytes / 64 + parts) / parts;
    for (uint32_t p = 0; p < ahead->panels; p++) {
        const uint8_t *at = ahead->leaf + p * ahead->panel_bytes;
        for (uint32_t k = part * lines; k < (part + 1) * lines && k * 64 < ahead->bytes; k++)
            __builtin_prefetch(at + (size_t)k * 64, 0, 2);
    }
}

/* Where a tile's results of some columns go, which is written once all leaves are done. */
VEC_INLINE void body_fetch_out(const struct kernel_matmul *m, const struct body_tile *tile,
                               uint32_t i, uint32_t cols)
{
    for (uint32_t c = i; c < i + cols; c++) {
        const float *out = m->out + (size_t)(tile->first + c) * m->out_stride;
        for (uint32_t p = 0; p < tile->panels; p++)
            __builtin_prefetch(out + (size_t)(tile->panel + p) * PANEL_ROWS, 1, 2);
    }
}

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

static void body_add(float *restrict left, const float *restrict right, size_t count)
{
    for (size_t k = 0; k < count; k++)
        left[k] = left[k] + right[k];
}

/* A node of a tile; `next` panels behind the tile's come after it. */
static void body_tile_times(const struct kernel_matmul *m, const struct body_passage *passage,
                            const struct body_tile *tile, uint32_t node, uint32_t next, float *room)
{
    struct body_leaf *leaves = (struct body_leaf *)(void *)room;
    float *sums = room + BODY_LEAVES * sizeof(struct body_leaf) / sizeof(float);
    const size_t count = (size_t)tile->panels * tile->cols * PANEL_ROWS;
    uint32_t level = 0; /* open sums of the tree, the newest last */
    for (uint32_t g = 0; g < m->nodes[node].count; g++) {
        const uint32_t begin = kernel_group_begin(m, m->nodes[node].first + g);
        const uint32_t end = kernel_group_begin(m, m->nodes[node].first + g + 1);
        uint32_t blocks;
        for (uint32_t b = begin; b < end; b += blocks) {
            blocks = end - b < SUM_LEAF_BLOCKS ? end - b : SUM_LEAF_BLOCKS;
            const struct body_ahead ahead =
                b + blocks < m->blocks
                    ? body_ahead_of(m, passage->layout, tile->panel, tile->panels, b + blocks,
                                    m->blocks - b - blocks < SUM_LEAF_BLOCKS
                                        ? m->blocks - b - blocks
                                        : SUM_LEAF_BLOCKS)
                    : body_ahead_of(m, passage->layout, tile->panel + tile->panels, next, 0,
                                    m->blocks < SUM_LEAF_BLOCKS ? m->blocks : SUM_LEAF_BLOCKS);
            body_tile_leaf(m, passage, tile, b, blocks, &ahead, leaves, sums + level * count,
                           b == begin);
        }
        level++;
        /* Group g + 1 is where a whole subtree ends for each factor of two in it. */
        for (uint32_t k = g + 1; k % 2 == 0; k /= 2, level--)
            body_add(sums + (level - 2) * count, sums + (level - 1) * count, count);
    }
    for (; level > 1; level--)
        body_add(sums + (level - 2) * count, sums + (level - 1) * count, count);
    for (uint32_t i = 0; i < tile->cols; i++) {
        for (uint32_t p = 0; p < tile->panels; p++)
            body_store(m, tile->panel + p, tile->first + i, node,
                       sums + ((size_t)p * tile->cols + i) * PANEL_ROWS);
    }
}

static void body_panels(const struct kernel_matmul *m, uint32_t begin, uint32_t end, float *room,
                        body_straight_fn *const *straight, const struct body_passage *passage)
{
    if (m->x.n <= passage->straight_most) {
        for (uint32_t panel = begin; panel < end; panel++) {
            uint32_t instance;
            for (uint32_t i = 0; i < m->x.n;) {
                uint32_t cols = body_step(m->x.n - i, BODY_STRAIGHT_COLS, &instance);
                straight[instance](m, panel, i);
                i += cols;
            }
        }
        return;
    }
    for (uint32_t first = 0; first < m->x.n; first += BODY_SLAB_COLS) {
        uint32_t cols = m->x.n - first < BODY_SLAB_COLS ? m->x.n - first : BODY_SLAB_COLS;
        for (uint32_t panel = begin; panel < end; panel += BODY_LEAVES) {
            uint32_t panels = end - panel < BODY_LEAVES ? end - panel : BODY_LEAVES;
            const uint32_t left = end - panel - panels;
            const struct body_tile tile = {panel, panels, first, cols};
            for (uint32_t node = 0; node < m->n_nodes; node++)
                body_tile_times(m, passage, &tile, node, left < BODY_LEAVES ? left : BODY_LEAVES,
                                room);
        }
    }
}

/* Instances: a leaf's for each class of types and number of columns, the others' for each kind. */
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

#define BODY_STRAIGHT_INSTANCE(kind, name, cols)                                                   \
    static __attribute__((noinline)) void name##_straight_##cols(const struct kernel_matmul *m,    \
                                                                 uint32_t panel, uint32_t x_row)   \
    {                                                                                              \
        body_straight(kind, cols, m, panel, x_row);                                                \
    }

#define BODY_PANEL_KIND(kind, name, leaf)                                                          \
    BODY_STRAIGHT_INSTANCE(kind, name, 1)                                                          \
    BODY_STRAIGHT_INSTANCE(kind, name, 2)                                                          \
    BODY_STRAIGHT_INSTANCE(kind, name, 4)                                                          \
    static void name##_fill(const uint8_t *panel, uint32_t begin, uint32_t end,                    \
                            struct body_leaf *to)                                                  \
    {                                                                                              \
        body_leaf_fill(kind, panel, begin, end, to);                                               \
    }                                                                                              \
    static void name(const struct kernel_matmul *m, uint32_t begin, uint32_t end, float *room)     \
    {                                                                                              \
        static body_straight_fn *const straight[] = {name##_straight_1, name##_straight_2,         \
                                                     name##_straight_4};                           \
        const struct body_passage passage = {&panel_layouts[kind], name##_fill, leaf,              \
                                             body_straight_most(kind), body_traits[kind].is_wide}; \
        body_panels(m, begin, end, room, straight, &passage);                                      \
    }

BODY_PANEL_KIND(PANEL_KIND_Q4_0, body_panels_q4_0, body_leaf_q4)
BODY_PANEL_KIND(PANEL_KIND_Q4_1, body_panels_q4_1, body_leaf_q4_min)
BODY_PANEL_KIND(PANEL_KIND_Q5_0, body_panels_q5_0, body_leaf_q5)
BODY_PANEL_KIND(PANEL_KIND_Q5_1, body_panels_q5_1, body_leaf_q5_min)
BODY_PANEL_KIND(PANEL_KIND_Q8_0, body_panels_q8_0, body_leaf_wide)
BODY_PANEL_KIND(PANEL_KIND_Q2_K, body_panels_q2_k, body_leaf_q2_k)
BODY_PANEL_KIND(PANEL_KIND_Q3_K, body_panels_q3_k, body_leaf_q3_k)
BODY_PANEL_KIND(PANEL_KIND_Q4_K, body_panels_q4_k, body_leaf_q4_min)
BODY_PANEL_KIND(PANEL_KIND_Q5_K, body_panels_q5_k, body_leaf_q5_min)
BODY_PANEL_KIND(PANEL_KIND_Q6_K, body_panels_q6_k, body_leaf_q6_k)
BODY_PANEL_KIND(PANEL_KIND_IQ4_NL, body_panels_iq4_nl, body_leaf_wide)
BODY_PANEL_KIND(PANEL_KIND_IQ4_XS, body_panels_iq4_xs, body_leaf_wide)
BODY_PANEL_KIND(PANEL_KIND_MXFP4, body_panels_mxfp4, body_leaf_q5)
