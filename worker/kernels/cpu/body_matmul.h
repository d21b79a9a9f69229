/*
 * body_matmul.h - the matrix product of quantized types over the wrappers of a vec_*.h, included by
 * kernel_bodies.h. The order of the sums is that of sum_order.h.
 *
 * Two ways to the same bits. For a few columns of x the weights go straight from memory into the
 * products: reading them is what takes the time. For more, a leaf of some panels is taken apart
 * once into memory that stays near, and all columns pass by it.
 */

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
    return BODY_LEAVES * sizeof(struct body_apart) / sizeof(float) +
           body_levels(groups) * body_level_floats(n);
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
    struct body_apart *leaves = (struct body_apart *)(void *)room;
    float *sums = room + BODY_LEAVES * sizeof(struct body_apart) / sizeof(float);
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
    BODY_PASSAGE_BEGIN(m->x.n);
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
    BODY_PASSAGE_END();
}

/* Instances: straight ones for each kind and number of columns. */
#define BODY_STRAIGHT_INSTANCE(kind, name, cols)                                                   \
    static __attribute__((noinline)) void name##_straight_##cols(const struct kernel_matmul *m,    \
                                                                 uint32_t panel, uint32_t x_row)   \
    {                                                                                              \
        body_straight(kind, cols, m, panel, x_row);                                                \
    }

#define BODY_PANEL_KIND(kind, name)                                                                \
    BODY_STRAIGHT_INSTANCE(kind, name, 1)                                                          \
    BODY_STRAIGHT_INSTANCE(kind, name, 2)                                                          \
    BODY_STRAIGHT_INSTANCE(kind, name, 4)                                                          \
    static void name##_fill(const uint8_t *panel, uint32_t begin, uint32_t end,                    \
                            struct body_apart *to)                                                 \
    {                                                                                              \
        BODY_FILL(kind, panel, begin, end, to);                                                    \
    }                                                                                              \
    static void name(const struct kernel_matmul *m, uint32_t begin, uint32_t end, float *room)     \
    {                                                                                              \
        static body_straight_fn *const straight[] = {name##_straight_1, name##_straight_2,         \
                                                     name##_straight_4};                           \
        const struct body_passage passage = body_passage_of(kind, name##_fill);                    \
        body_panels(m, begin, end, room, straight, &passage);                                      \
    }

BODY_PANEL_KIND(PANEL_KIND_Q4_0, body_panels_q4_0)
BODY_PANEL_KIND(PANEL_KIND_Q4_1, body_panels_q4_1)
BODY_PANEL_KIND(PANEL_KIND_Q5_0, body_panels_q5_0)
BODY_PANEL_KIND(PANEL_KIND_Q5_1, body_panels_q5_1)
BODY_PANEL_KIND(PANEL_KIND_Q8_0, body_panels_q8_0)
BODY_PANEL_KIND(PANEL_KIND_Q2_K, body_panels_q2_k)
BODY_PANEL_KIND(PANEL_KIND_Q3_K, body_panels_q3_k)
BODY_PANEL_KIND(PANEL_KIND_Q4_K, body_panels_q4_k)
BODY_PANEL_KIND(PANEL_KIND_Q5_K, body_panels_q5_k)
BODY_PANEL_KIND(PANEL_KIND_Q6_K, body_panels_q6_k)
BODY_PANEL_KIND(PANEL_KIND_IQ4_NL, body_panels_iq4_nl)
BODY_PANEL_KIND(PANEL_KIND_IQ4_XS, body_panels_iq4_xs)
BODY_PANEL_KIND(PANEL_KIND_MXFP4, body_panels_mxfp4)
