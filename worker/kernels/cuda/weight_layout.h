/*
 * weight_layout.h - how a matrix lies in device memory, for the host part and for kernels. C and
 * C++.
 *
 * One layout serves both kinds of product. What each wants of it:
 *
 *   A product with few columns reads a matrix once and is as fast as memory. A lane of a warp has a
 * row, so that what the row's sum needs never leaves the lane, and loads 16 bytes at a time: the
 * lanes of a load stand side by side, 512 bytes of a warp in whole sectors. A product with many
 * columns copies pieces of 16 bytes to shared memory and reads words from there. For mma.m16n8k32
 * lane 4g + t wants of row g columns 4t .. 4t + 3 and 16 + 4t .. 16 + 4t + 3 of a block: a word for
 * a type of 4 bits, and the 32 words of 8 rows are 128 bytes in a row, one from each bank.
 *
 * So:  matrix = tiles of 32 rows; the last one is filled up with zeros
 *      tile   = chunks of 8 blocks of 32 columns, counted from a super-block's begin
 *      chunk  = numbers, then quads of 4 blocks (the last chunk of a row may have one quad)
 *      numbers: planes of 16 bytes a row, [plane][32 rows][16], then [32 rows][narrow]
 *      quad:  [piece][32 rows][16], first the pieces of the low bits, then those of the high bits
 *
 * A plane of p bits a quant has p pieces. Word t of a row's 16 bytes (t = 0 .. 3), of block i of
 * the quad (i = 0 .. 3), half h of the block (column 16h + 4t + j, j = 0 .. 3):
 *
 *   8 bits  piece 2i + h   word t   byte j
 *   4 bits  piece i        word t   bits 8j + 4h .. + 3 (types with a table: 16h + 4j .. + 3)
 *   2 bits  piece i / 2    word t   bits 8j + 4(i % 2) + 2h, + 1
 *   1 bit   piece 0        word i   bit  8j + 2t + h
 *
 * so that a shift and a mask give four quants in the bytes of a word, ready for dp4a and mma.
 *
 * Numbers of a row's 8 blocks, b = 0 .. 7, h as above. Lower bits come first.
 *
 *   Q4_0 Q5_0 Q8_0 IQ4_NL  d[8] binary16
 *   Q4_1 Q5_1              d[8]; m[8]
 *   MXFP4                  e[8] bytes
 *   IQ4_XS                 d, 8 x the scale's high 2 bits; 8 x its low 4 bits
 *   Q4_K Q5_K              d, -dmin; 8 x the scale's low 4 bits; 8 x the minimum's;
 *                          8 x the scale's high 2 bits, 8 x the minimum's
 *   Q3_K                   d, 0; 16 x the scale's low 4 bits [b][h]; 16 x its high 2 bits
 *   Q2_K                   16 bytes [b][h], scale low, minimum high; d, -dmin
 *   Q6_K                   16 signed bytes [b][h]; d
 *
 * Bits a weight:
 *
 *          Q4_0  Q4_1  Q5_0  Q5_1  Q8_0  Q2_K   Q3_K    Q4_K  Q5_K  Q6_K    IQ4_NL
 *   file   4.5   5     5.5   6     8.5   2.625  3.4375  4.5   5.5   6.5625  4.5
 *   here   4.5   5     5.5   6     8.5   2.625  3.5     4.5   5.5   6.5625  4.5
 *
 * and 4.25 for IQ4_XS and MXFP4, as in the file. A row whose blocks are no multiple of 4 takes up
 * to three blocks more.
 *
 * Float types: rows one behind another, each of runs of 512 bytes: lane l of a warp has 16 bytes,
 * which are columns l, 32 + l, 64 + l ... of the run, since the sums of such a matrix run in 32
 * lanes by column modulo 32. The last run is filled up with zeros that nobody multiplies.
 *
 * Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_WEIGHT_LAYOUT_H
#define CLOISTER_WORKER_KERNELS_CUDA_WEIGHT_LAYOUT_H

#include "worker/kernels/quant_type.h"
#include "worker/kernels/sum_order.h"

#include <stdbool.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define WEIGHT_CONST static __host__ __device__ constexpr
#elif defined(__cplusplus)
#define WEIGHT_CONST static constexpr
#else
#define WEIGHT_CONST static inline
#endif

#define WEIGHT_TILE_ROWS    32u
#define WEIGHT_CHUNK_BLOCKS 8u
#define WEIGHT_QUAD_BLOCKS  4u
#define WEIGHT_PIECE_BYTES  (WEIGHT_TILE_ROWS * 16u)
#define WEIGHT_RUN_BYTES    512u

struct weight_layout {
    uint32_t wide;   /* planes of 16 bytes of numbers; 0 and no bits: a float type */
    uint32_t narrow; /* bytes of the last plane */
    uint32_t low_bits, high_bits;
};

WEIGHT_CONST struct weight_layout weight_layout_make(uint32_t wide, uint32_t narrow,
                                                     uint32_t low_bits, uint32_t high_bits)
{
    struct weight_layout l = {wide, narrow, low_bits, high_bits};
    return l;
}

WEIGHT_CONST struct weight_layout weight_layout_of(enum quant_type type)
{
    switch (type) {
    case QUANT_TYPE_Q4_0:
    case QUANT_TYPE_IQ4_NL:
    case QUANT_TYPE_Q4_K:
        return weight_layout_make(1, 0, 4, 0);
    case QUANT_TYPE_Q4_1:
        return weight_layout_make(2, 0, 4, 0);
    case QUANT_TYPE_Q5_0:
    case QUANT_TYPE_Q5_K:
        return weight_layout_make(1, 0, 4, 1);
    case QUANT_TYPE_Q5_1:
        return weight_layout_make(2, 0, 4, 1);
    case QUANT_TYPE_Q8_0:
        return weight_layout_make(1, 0, 8, 0);
    case QUANT_TYPE_Q2_K:
        return weight_layout_make(1, 4, 2, 0);
    case QUANT_TYPE_Q3_K:
        return weight_layout_make(1, 0, 2, 1);
    case QUANT_TYPE_Q6_K:
        return weight_layout_make(1, 2, 4, 2);
    case QUANT_TYPE_IQ4_XS:
    case QUANT_TYPE_MXFP4:
        return weight_layout_make(0, 8, 4, 0);
    default:
        return weight_layout_make(0, 0, 0, 0);
    }
}

/* Bytes of an element of a float type, 0 for a quantized one. */
WEIGHT_CONST uint32_t weight_float_bytes(enum quant_type type)
{
    return type == QUANT_TYPE_F32 ? 4 : type == QUANT_TYPE_F16 || type == QUANT_TYPE_BF16 ? 2 : 0;
}

WEIGHT_CONST uint32_t weight_numbers_bytes(struct weight_layout l)
{
    return WEIGHT_TILE_ROWS * (16 * l.wide + l.narrow);
}

WEIGHT_CONST uint32_t weight_pieces(struct weight_layout l)
{
    return l.low_bits + l.high_bits;
}

WEIGHT_CONST uint32_t weight_quad_bytes(struct weight_layout l)
{
    return WEIGHT_PIECE_BYTES * weight_pieces(l);
}

WEIGHT_CONST uint32_t weight_chunk_bytes(struct weight_layout l)
{
    return weight_numbers_bytes(l) + 2 * weight_quad_bytes(l);
}

/* Bytes of a tile whose rows have `blocks` blocks, those in front of the first group among them. */
WEIGHT_CONST uint64_t weight_tile_bytes(struct weight_layout l, uint32_t blocks)
{
    return (uint64_t)((blocks + WEIGHT_CHUNK_BLOCKS - 1) / WEIGHT_CHUNK_BLOCKS) *
               weight_numbers_bytes(l) +
           (uint64_t)((blocks + WEIGHT_QUAD_BLOCKS - 1) / WEIGHT_QUAD_BLOCKS) *
               weight_quad_bytes(l);
}

/* Columns of a run of a float type, and bytes of a row. */
WEIGHT_CONST uint32_t weight_run_cols(enum quant_type type)
{
    return WEIGHT_RUN_BYTES / weight_float_bytes(type);
}

WEIGHT_CONST uint64_t weight_float_row_bytes(enum quant_type type, uint32_t cols)
{
    return (uint64_t)((cols + weight_run_cols(type) - 1) / weight_run_cols(type)) *
           WEIGHT_RUN_BYTES;
}

WEIGHT_CONST uint32_t weight_tiles(uint32_t rows)
{
    return (rows + WEIGHT_TILE_ROWS - 1) / WEIGHT_TILE_ROWS;
}

/*
 * The order of a row's sum, one word a leaf, ascending: its first block, counted like the stored
 * blocks of a row; how many; whether a group ends with it, and a node of the groups' tree. 15 bits
 * of blocks and the seven that may stand in front of a shard's first one: 16 bits.
 */
#define WEIGHT_LEAF_COUNT_SHIFT 16u
#define WEIGHT_LEAF_GROUP_END   (1u << 20)
#define WEIGHT_LEAF_NODE_END    (1u << 21)

WEIGHT_CONST uint32_t weight_leaf_begin(uint32_t leaf)
{
    return leaf & 0xffffu;
}

WEIGHT_CONST uint32_t weight_leaf_end(uint32_t leaf)
{
    return (leaf & 0xffffu) + (leaf >> WEIGHT_LEAF_COUNT_SHIFT & 15u);
}

#endif
