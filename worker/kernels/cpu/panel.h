/*
 * panel.h - how the CPU backend lays out a quantized matrix, and reading it; packing: body_pack.h.
 *
 * Panels of 16 rows; a panel is super-blocks of 256 columns, each some numbers per row and 8 blocks
 * of 32 columns. Rows are interleaved, so that the lanes of a vector are rows: a sum over columns
 * never crosses lanes, and a vector of 8 lanes takes the two halves of a panel one after the other.
 * One layout serves every width.
 *
 * A super-block: `super_halves` 16-bit numbers of each row, [number][16 rows]; then its blocks (the
 * last super-block of a row may have fewer than 8). A block: `halves` 16-bit numbers, [number][16];
 * `bytes` bytes of each row, [number][16], or [16][2] for types with a scale per 16 columns; the
 * quants.
 *
 * Quants: a quad is 4 consecutive columns of 16 rows, row by row; quad i of a block is columns
 * 4i .. 4i + 3. A plane of p bits is p times 64 bytes, and byte r * 4 + j of its group g holds p
 * bits of column j of row r of 8 / p quads: quad i is in group i / (8 / p), from bit
 * p * (i % (8 / p)) on. The low bits of the quants are one plane, the others a second one. So a
 * matrix takes about as much memory as in the file, and one step from memory to a vector of quads.
 *
 * Internal to cpu/. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_PANEL_H
#define CLOISTER_WORKER_KERNELS_CPU_PANEL_H

#include "worker/kernels/quant_type.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PANEL_ROWS         16u
#define PANEL_SUPER_BLOCKS 8u
#define PANEL_QUADS        8 /* of a block */
#define PANEL_QUAD_BYTES   64u

enum panel_kind {
    PANEL_KIND_Q4_0,
    PANEL_KIND_Q4_1,
    PANEL_KIND_Q5_0,
    PANEL_KIND_Q5_1,
    PANEL_KIND_Q8_0,
    PANEL_KIND_Q2_K,
    PANEL_KIND_Q3_K,
    PANEL_KIND_Q4_K,
    PANEL_KIND_Q5_K,
    PANEL_KIND_Q6_K,
    PANEL_KIND_IQ4_NL,
    PANEL_KIND_IQ4_XS,
    PANEL_KIND_MXFP4,
    PANEL_KIND_COUNT
};

struct panel_layout {
    enum quant_type type;
    uint8_t super_halves; /* d; and the minimum's factor, negated */
    uint8_t halves;       /* d, m */
    uint8_t bytes;        /* scale, min */
    uint8_t low_bits;
    uint8_t high_bits;
};

static const struct panel_layout panel_layouts[PANEL_KIND_COUNT] = {
    [PANEL_KIND_Q4_0] = {QUANT_TYPE_Q4_0, 0, 1, 0, 4, 0},
    [PANEL_KIND_Q4_1] = {QUANT_TYPE_Q4_1, 0, 2, 0, 4, 0},
    [PANEL_KIND_Q5_0] = {QUANT_TYPE_Q5_0, 0, 1, 0, 4, 1},
    [PANEL_KIND_Q5_1] = {QUANT_TYPE_Q5_1, 0, 2, 0, 4, 1},
    [PANEL_KIND_Q8_0] = {QUANT_TYPE_Q8_0, 0, 1, 0, 8, 0},
    [PANEL_KIND_Q2_K] = {QUANT_TYPE_Q2_K, 2, 0, 2, 2, 0}, /* a byte: scale low, min high */
    [PANEL_KIND_Q3_K] = {QUANT_TYPE_Q3_K, 1, 0, 2, 2, 1},
    [PANEL_KIND_Q4_K] = {QUANT_TYPE_Q4_K, 2, 0, 2, 4, 0},
    [PANEL_KIND_Q5_K] = {QUANT_TYPE_Q5_K, 2, 0, 2, 4, 1},
    [PANEL_KIND_Q6_K] = {QUANT_TYPE_Q6_K, 1, 0, 2, 4, 2},
    [PANEL_KIND_IQ4_NL] = {QUANT_TYPE_IQ4_NL, 0, 1, 0, 4, 0},
    [PANEL_KIND_IQ4_XS] = {QUANT_TYPE_IQ4_XS, 1, 0, 1, 4, 0},
    [PANEL_KIND_MXFP4] = {QUANT_TYPE_MXFP4, 0, 1, 0, 4, 0}, /* d in bfloat16 */
};

/* Bytes of a block before its quants, of a block, of what a super-block begins with, of all of it.
 */
static inline uint32_t panel_quants_at(const struct panel_layout *l)
{
    return PANEL_ROWS * (2u * l->halves + l->bytes);
}

static inline uint32_t panel_block_bytes(const struct panel_layout *l)
{
    return panel_quants_at(l) + PANEL_QUAD_BYTES * (l->low_bits + l->high_bits);
}

static inline uint32_t panel_head_bytes(const struct panel_layout *l)
{
    return PANEL_ROWS * 2u * l->super_halves;
}

static inline uint32_t panel_super_bytes(const struct panel_layout *l)
{
    return panel_head_bytes(l) + PANEL_SUPER_BLOCKS * panel_block_bytes(l);
}

/* Bytes of a panel of `blocks` blocks of columns. */
static inline uint64_t panel_bytes(const struct panel_layout *l, uint32_t blocks)
{
    uint64_t supers = (blocks + PANEL_SUPER_BLOCKS - 1) / PANEL_SUPER_BLOCKS;
    return supers * panel_head_bytes(l) + (uint64_t)blocks * panel_block_bytes(l);
}

/* PANEL_KIND_COUNT for a type that is not quantized. */
enum panel_kind panel_kind_of(enum quant_type type);

/* The values of the row in a lane: ret_values[blocks * 32]. */
void panel_read_row(enum panel_kind kind, const uint8_t *panel, uint32_t blocks, uint32_t lane,
                    float *ret_values);

#endif
