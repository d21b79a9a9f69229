/*
 * body_passage.h - many columns of x pass by leaves of a few panels, which were taken apart for it:
 * which of them, and what is fetched ahead. body_leaf.h does it with vectors, body_tmul.h with tile
 * registers; kernel_bodies.h includes one of them behind this file, and it defines
 *
 *   BODY_LEAVES        panels whose leaves are in use at once
 *   BODY_SLAB_COLS     columns that pass by one set of leaves
 *   struct body_apart  a leaf of a panel, taken apart
 *   struct body_passage, body_passage_of, BODY_FILL   how a kind passes
 *   BODY_PASSAGE_BEGIN, _END   what a thread does before and after
 *   body_tile_leaf     multiplies a tile with a leaf of each of its panels
 */

/* Some panels (at most BODY_LEAVES) and columns of x. */
struct body_tile {
    uint32_t panel;
    uint32_t panels;
    uint32_t first;
    uint32_t cols;
};

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

/* A number of each block of a leaf, which has 8 as a rule. */
VEC_INLINE void body_copy(void *to, const void *from, uint32_t blocks)
{
    if (blocks == SUM_LEAF_BLOCKS)
        memcpy(to, from, SUM_LEAF_BLOCKS * sizeof(float));
    else
        memcpy(to, from, blocks * sizeof(float));
}
