/* Kinds by type, and a row back from a lane of a panel. */
#include "worker/kernels/cpu/panel.h"

#include "worker/kernels/quant_raw.h"

#include <string.h>

enum panel_kind panel_kind_of(enum quant_type type)
{
    enum panel_kind kind = 0;
    while (kind < PANEL_KIND_COUNT && panel_layouts[kind].type != type)
        kind++;
    return kind;
}

/* Types with a scale per 16 columns: a row's two bytes stand beside each other. */
static bool panel_has_halves(enum quant_type type)
{
    return type == QUANT_TYPE_Q2_K || type == QUANT_TYPE_Q3_K || type == QUANT_TYPE_Q6_K;
}

/* `bits` of column j of quad i, moved to bit `to`. */
static uint8_t panel_field(const uint8_t *plane, uint32_t bits, uint32_t lane, uint32_t i,
                           uint32_t j, uint32_t to)
{
    if (bits == 0)
        return 0;
    uint32_t per_byte = 8 / bits;
    uint32_t byte = plane[i / per_byte * PANEL_QUAD_BYTES + lane * 4 + j];
    return (uint8_t)((byte >> (bits * (i % per_byte)) & ((1u << bits) - 1)) << to);
}

static void panel_get_halves(const uint8_t *from, uint32_t count, uint32_t lane,
                             struct quant_raw *raw)
{
    if (count > 0)
        memcpy(&raw->d, from + (size_t)2 * lane, 2);
    if (count > 1)
        memcpy(&raw->m, from + PANEL_ROWS * 2 + (size_t)2 * lane, 2);
}

static void panel_get_scales(enum panel_kind kind, const uint8_t *bytes, uint32_t lane,
                             struct quant_raw *raw)
{
    const struct panel_layout *l = &panel_layouts[kind];
    for (uint32_t half = 0; half < 2; half++) {
        raw->scale[half] = 1;
        raw->min[half] = 1;
        if (kind == PANEL_KIND_Q2_K) {
            raw->scale[half] = (int8_t)(bytes[2 * lane + half] & 15);
            raw->min[half] = bytes[2 * lane + half] >> 4;
        } else if (panel_has_halves(l->type)) {
            raw->scale[half] = (int8_t)bytes[2 * lane + half];
        } else if (l->bytes > 0) {
            raw->scale[half] = (int8_t)bytes[lane];
            if (l->bytes > 1)
                raw->min[half] = bytes[PANEL_ROWS + lane];
        }
    }
}

void panel_read_row(enum panel_kind kind, const uint8_t *panel, uint32_t blocks, uint32_t lane,
                    float *ret_values)
{
    const struct panel_layout *l = &panel_layouts[kind];
    const uint8_t *at = panel;
    struct quant_raw raw = {0};
    for (uint32_t b = 0; b < blocks; b++) {
        if (b % PANEL_SUPER_BLOCKS == 0) {
            panel_get_halves(at, l->super_halves, lane, &raw);
            at += panel_head_bytes(l);
        }
        panel_get_halves(at, l->halves, lane, &raw);
        panel_get_scales(kind, at + (size_t)PANEL_ROWS * 2 * l->halves, lane, &raw);
        const uint8_t *low = at + panel_quants_at(l);
        const uint8_t *high = low + (size_t)l->low_bits * PANEL_QUAD_BYTES;
        float d = quant_raw_d(l->type, &raw);
        float m = half_to_float(raw.m);
        for (uint32_t k = 0; k < QUANT_BLOCK_ITEMS; k++) {
            uint8_t q = (uint8_t)(panel_field(low, l->low_bits, lane, k / 4, k % 4, 0) |
                                  panel_field(high, l->high_bits, lane, k / 4, k % 4, l->low_bits));
            float product = d * (float)raw.scale[k / 16] * (float)quant_raw_value(l->type, q);
            ret_values[b * QUANT_BLOCK_ITEMS + k] =
                quant_raw_has_min(l->type) ? product + m * (float)raw.min[k / 16] : product;
        }
        at += panel_block_bytes(l);
    }
}
