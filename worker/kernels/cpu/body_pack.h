/*
 * body_pack.h - rows of a file into the lanes of a panel (panel.h). Included by kernel_bodies.h.
 *
 * Moves of bits in plain C, which the compiler makes vectors of: with the kind and the block's
 * place in its super-block as constants, every shift and mask is one.
 */

/* One plane of a row's 32 quants, 4 of them at a time: `bits` of each, from bit `from` on. */
VEC_INLINE void body_pack_plane(const uint32_t quads[PANEL_QUADS], const uint32_t bits,
                                const uint32_t from, uint8_t *plane, uint32_t lane)
{
    const uint32_t per_byte = 8 / bits;
    const uint32_t mask = 0x01010101u * ((1u << bits) - 1);
    BODY_UNROLL
    for (uint32_t g = 0; g < bits; g++) {
        uint32_t word = 0;
        BODY_UNROLL
        for (uint32_t t = 0; t < per_byte; t++)
            word |= ((quads[g * per_byte + t] >> from) & mask) << (bits * t);
        memcpy(plane + (size_t)g * PANEL_QUAD_BYTES + (size_t)lane * 4, &word, sizeof word);
    }
}

VEC_INLINE void body_pack_halves(uint8_t *to, const uint32_t count, const struct quant_raw *raw,
                                 uint32_t lane)
{
    if (count > 0)
        memcpy(to + (size_t)2 * lane, &raw->d, 2);
    if (count > 1)
        memcpy(to + PANEL_ROWS * 2 + (size_t)2 * lane, &raw->m, 2);
}

VEC_INLINE void body_pack_scales(const enum panel_kind kind, uint8_t *bytes,
                                 const struct quant_raw *raw, uint32_t lane)
{
    const struct panel_layout *l = &panel_layouts[kind];
    if (kind == PANEL_KIND_Q2_K) {
        bytes[2 * lane] = (uint8_t)(raw->scale[0] | raw->min[0] << 4);
        bytes[2 * lane + 1] = (uint8_t)(raw->scale[1] | raw->min[1] << 4);
    } else if (body_traits[kind].has_halves) {
        memcpy(bytes + (size_t)2 * lane, raw->scale, 2);
    } else if (l->bytes > 0) {
        bytes[lane] = (uint8_t)raw->scale[0];
        if (l->bytes > 1)
            bytes[PANEL_ROWS + lane] = raw->min[0];
    }
}

/* Block `b` of a super-block, which begins at `from` in the file and at `super` in the panel. */
VEC_INLINE void body_pack_block(const enum panel_kind kind, const uint8_t *from, const uint32_t b,
                                uint8_t *super, uint32_t lane)
{
    const struct panel_layout *l = &panel_layouts[kind];
    uint8_t *block = super + panel_head_bytes(l) + (size_t)b * panel_block_bytes(l);
    uint8_t *low = block + panel_quants_at(l);
    uint32_t quads[PANEL_QUADS];
    struct quant_raw raw;
    quant_raw_read(l->type, from, b, &raw);
    if (b == 0)
        body_pack_halves(super, l->super_halves, &raw, lane);
    body_pack_halves(block, l->halves, &raw, lane);
    body_pack_scales(kind, block + (size_t)PANEL_ROWS * 2 * l->halves, &raw, lane);
    memcpy(quads, raw.q, sizeof quads);
    body_pack_plane(quads, l->low_bits, 0, low, lane);
    if (l->high_bits > 0)
        body_pack_plane(quads, l->high_bits, l->low_bits,
                        low + (size_t)l->low_bits * PANEL_QUAD_BYTES, lane);
}

VEC_INLINE void body_pack_super(const enum panel_kind kind, const uint8_t *from, uint8_t *super,
                                uint32_t lane)
{
    _Static_assert(PANEL_SUPER_BLOCKS == 8, "as many calls");
    body_pack_block(kind, from, 0, super, lane);
    body_pack_block(kind, from, 1, super, lane);
    body_pack_block(kind, from, 2, super, lane);
    body_pack_block(kind, from, 3, super, lane);
    body_pack_block(kind, from, 4, super, lane);
    body_pack_block(kind, from, 5, super, lane);
    body_pack_block(kind, from, 6, super, lane);
    body_pack_block(kind, from, 7, super, lane);
}

/* Super-block by super-block, so that what 16 rows write stays in the cache until it is whole. The
 * last one may have more blocks in the file than the panel takes. */
VEC_INLINE void body_pack(const enum panel_kind kind, const uint8_t *rows, size_t row_bytes,
                          uint32_t n_rows, uint32_t blocks, uint8_t *panel)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)panel_layouts[kind].type);
    const size_t from_bytes = (size_t)QUANT_SUPER_ITEMS / info->block_items * info->block_bytes;
    uint32_t b = 0;
    for (; b + PANEL_SUPER_BLOCKS <= blocks; b += PANEL_SUPER_BLOCKS) {
        for (uint32_t lane = 0; lane < n_rows; lane++)
            body_pack_super(kind, rows + lane * row_bytes, panel, lane);
        rows += from_bytes;
        panel += panel_super_bytes(&panel_layouts[kind]);
    }
    for (uint32_t lane = 0; lane < n_rows; lane++)
        for (uint32_t i = 0; b + i < blocks; i++)
            body_pack_block(kind, rows + lane * row_bytes, i, panel, lane);
}

#define BODY_PACK_KIND(kind, name)                                                                 \
    static void name(const uint8_t *rows, size_t row_bytes, uint32_t n_rows, uint32_t blocks,      \
                     uint8_t *panel)                                                               \
    {                                                                                              \
        body_pack(kind, rows, row_bytes, n_rows, blocks, panel);                                   \
    }

BODY_PACK_KIND(PANEL_KIND_Q4_0, body_pack_q4_0)
BODY_PACK_KIND(PANEL_KIND_Q4_1, body_pack_q4_1)
BODY_PACK_KIND(PANEL_KIND_Q5_0, body_pack_q5_0)
BODY_PACK_KIND(PANEL_KIND_Q5_1, body_pack_q5_1)
BODY_PACK_KIND(PANEL_KIND_Q8_0, body_pack_q8_0)
BODY_PACK_KIND(PANEL_KIND_Q2_K, body_pack_q2_k)
BODY_PACK_KIND(PANEL_KIND_Q3_K, body_pack_q3_k)
BODY_PACK_KIND(PANEL_KIND_Q4_K, body_pack_q4_k)
BODY_PACK_KIND(PANEL_KIND_Q5_K, body_pack_q5_k)
BODY_PACK_KIND(PANEL_KIND_Q6_K, body_pack_q6_k)
BODY_PACK_KIND(PANEL_KIND_IQ4_NL, body_pack_iq4_nl)
BODY_PACK_KIND(PANEL_KIND_IQ4_XS, body_pack_iq4_xs)
BODY_PACK_KIND(PANEL_KIND_MXFP4, body_pack_mxfp4)
