/*
 * weight_types.h - from the words of a matrix (weight_layout.h) to what products are made of: four
 * quants as signed bytes of a word, and a block's numbers as float. C++ only, included by .cu
 * files.
 *
 * What depends on the type is here and nowhere else. Everything is inlined where the type is a
 * constant; where the block's place in its chunk is one too, nothing is left but shifts and masks.
 *
 * Quants come multiplied by 2^shift where that makes them signed for nothing: u - 8 for a nibble u
 * is (u << 4) ^ 0x80 as a signed byte, 16 times too large, one instruction for four. The factor
 * leaves again when the sum becomes a float (isum_to_float), which costs nothing either.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_WEIGHT_TYPES_H
#define CLOISTER_WORKER_KERNELS_CUDA_WEIGHT_TYPES_H

#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/weight_layout.h"

template <enum quant_type T> struct weight_type {
    static constexpr struct weight_layout layout = weight_layout_of(T);
    /* acc = fmaf(m, dx * sx, acc) follows each block's product. */
    static constexpr bool has_min = T == QUANT_TYPE_Q4_1 || T == QUANT_TYPE_Q5_1 ||
                                    T == QUANT_TYPE_Q2_K || T == QUANT_TYPE_Q4_K ||
                                    T == QUANT_TYPE_Q5_K;
    /* A scale for each 16 columns, an integer that multiplies their sum. */
    static constexpr bool has_halves =
        T == QUANT_TYPE_Q2_K || T == QUANT_TYPE_Q3_K || T == QUANT_TYPE_Q6_K;
    static constexpr bool has_half_mins = T == QUANT_TYPE_Q2_K;
    static constexpr bool has_table =
        T == QUANT_TYPE_IQ4_NL || T == QUANT_TYPE_IQ4_XS || T == QUANT_TYPE_MXFP4;
    static constexpr int shift = T == QUANT_TYPE_Q4_0 ? 4 : T == QUANT_TYPE_Q5_0 ? 3 : 0;
    /* |isum << shift| stays below 2^22 (docs/numerics.md has the bounds); not so for Q6_K. */
    static constexpr bool is_small = T != QUANT_TYPE_Q6_K;
};

/* --- Quants ----------------------------------------------------------------------------------- */

/* Of a row and block: columns 4t .. 4t + 3, and 16 + 4t .. 16 + 4t + 3. */
struct quad_pair {
    uint32_t first, second;
};

/* Four values of a table of 16 by the nibbles in the low half of `nibbles`: both halves of the
 * table are asked, and bit 3 chooses. */
DEVICE_INLINE uint32_t quad_of_table(uint32_t nibbles, uint32_t v0, uint32_t v4, uint32_t v8,
                                     uint32_t v12)
{
    const uint32_t place = nibbles & 0x7777u;
    return __byte_perm(__byte_perm(v0, v4, place), __byte_perm(v8, v12, place),
                       0x3210u | (nibbles >> 1 & 0x4444u));
}

/*
 * low: the word of the low bits that has t (of 8 bits: that of the first half; low2 that of the
 * second); high: that of the high bits (of 1 bit: word i). i: the block's place in its quad.
 */
template <enum quant_type T>
DEVICE_INLINE struct quad_pair weight_quads(uint32_t low, uint32_t low2, uint32_t high, uint32_t i,
                                            uint32_t t)
{
    constexpr uint32_t sign = 0x80808080u;
    if constexpr (T == QUANT_TYPE_Q8_0) {
        return {low, low2};
    } else if constexpr (T == QUANT_TYPE_Q4_0) {
        return {(low << 4 & 0xf0f0f0f0u) ^ sign, (low & 0xf0f0f0f0u) ^ sign};
    } else if constexpr (T == QUANT_TYPE_Q4_1 || T == QUANT_TYPE_Q4_K) {
        return {low & 0x0f0f0f0fu, low >> 4 & 0x0f0f0f0fu};
    } else if constexpr (T == QUANT_TYPE_Q5_0) {
        const uint32_t fifth = ~(high >> (2 * t)); /* inverted: the sign of u - 16 */
        return {(low << 3 & 0x78787878u) | (fifth << 7 & sign),
                (low >> 1 & 0x78787878u) | (fifth << 6 & sign)};
    } else if constexpr (T == QUANT_TYPE_Q5_1 || T == QUANT_TYPE_Q5_K) {
        const uint32_t fifth = high >> (2 * t);
        return {(low & 0x0f0f0f0fu) | (fifth << 4 & 0x10101010u),
                (low >> 4 & 0x0f0f0f0fu) | (fifth << 3 & 0x10101010u)};
    } else if constexpr (T == QUANT_TYPE_Q2_K) {
        const uint32_t two = low >> (4 * (i & 1));
        return {two & 0x03030303u, two >> 2 & 0x03030303u};
    } else if constexpr (T == QUANT_TYPE_Q3_K) {
        /* u - 4, without a carry from byte to byte. */
        const uint32_t two = low >> (4 * (i & 1));
        const uint32_t third = high >> (2 * t);
        const uint32_t first = (two & 0x03030303u) | (third << 2 & 0x04040404u);
        const uint32_t second = (two >> 2 & 0x03030303u) | (third << 1 & 0x04040404u);
        return {(first + 0x7c7c7c7cu) ^ sign, (second + 0x7c7c7c7cu) ^ sign};
    } else if constexpr (T == QUANT_TYPE_Q6_K) {
        const uint32_t two = high >> (4 * (i & 1));
        const uint32_t first = (low & 0x0f0f0f0fu) | (two << 4 & 0x30303030u);
        const uint32_t second = (low >> 4 & 0x0f0f0f0fu) | (two << 2 & 0x30303030u);
        return {(first + 0x60606060u) ^ sign, (second + 0x60606060u) ^ sign};
    } else if constexpr (T == QUANT_TYPE_MXFP4) {
        /* quant_mxfp4_values */
        return {quad_of_table(low, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu),
                quad_of_table(low >> 16, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu)};
    } else {
        /* quant_iq4_values */
        static_assert(T == QUANT_TYPE_IQ4_NL || T == QUANT_TYPE_IQ4_XS, "a quantized type");
        return {quad_of_table(low, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u),
                quad_of_table(low >> 16, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u)};
    }
}

/* --- Sums of a block ----------------------------------------------------------------------------
 */

/*
 * A sum that starts from the bits of 1.5 * 2^23 is, read as a float, 1.5 * 2^23 + sum as long as
 * that keeps its exponent: one subtraction makes (float)sum, at the full rate that conversions do
 * not have. With 1.5 * 2^(23 - shift) a unit of the integer counts as 2^-shift.
 */
template <enum quant_type T> DEVICE_INLINE int32_t isum_start(void)
{
    return weight_type<T>::is_small ? 0x4b400000 - (weight_type<T>::shift << 23) : 0;
}

template <enum quant_type T> DEVICE_INLINE float isum_to_float(int32_t isum)
{
    if constexpr (weight_type<T>::is_small)
        return __int_as_float(isum) - 12582912.0f / (float)(1 << weight_type<T>::shift);
    else
        return (float)isum;
}

/* --- Numbers of a block -------------------------------------------------------------------------
 */

/* What a row has of a chunk before its quads. */
struct weight_numbers {
    uint4 wide[2];
    uint2 narrow;
};

/* Half h is multiplied with scale[h] and min[h] (has_halves, has_half_mins), else d and m have
 * them. */
struct block_numbers {
    float d, m;
    int32_t scale[2], min[2];
};

DEVICE_INLINE uint32_t word_of(uint4 v, uint32_t i)
{
    return i < 2 ? (i == 0 ? v.x : v.y) : (i == 2 ? v.z : v.w);
}

DEVICE_INLINE float half_of(uint4 v, uint32_t b)
{
    return device_half_to_float((uint16_t)(word_of(v, b / 2) >> (16 * (b & 1))));
}

DEVICE_INLINE float low_half_of(uint32_t word)
{
    return device_half_to_float((uint16_t)word);
}

/* Of block b of the chunk. */
template <enum quant_type T>
DEVICE_INLINE struct block_numbers weight_block(const struct weight_numbers &n, uint32_t b)
{
    struct block_numbers r = {0.0f, 0.0f, {1, 1}, {0, 0}};
    if constexpr (T == QUANT_TYPE_Q4_K || T == QUANT_TYPE_Q5_K) {
        const uint4 v = n.wide[0];
        const uint32_t scale = (v.y >> (4 * b) & 15u) | (v.w >> (2 * b) & 3u) << 4;
        const uint32_t min = (v.z >> (4 * b) & 15u) | (v.w >> (2 * b + 16) & 3u) << 4;
        r.d = low_half_of(v.x) * (float)(int32_t)scale;
        r.m = low_half_of(v.x >> 16) * (float)(int32_t)min;
    } else if constexpr (T == QUANT_TYPE_Q2_K) {
        const uint32_t both = word_of(n.wide[0], b / 2) >> (16 * (b & 1));
        r.d = low_half_of(n.narrow.x);
        r.m = low_half_of(n.narrow.x >> 16);
        r.scale[0] = (int32_t)(both & 15u);
        r.min[0] = (int32_t)(both >> 4 & 15u);
        r.scale[1] = (int32_t)(both >> 8 & 15u);
        r.min[1] = (int32_t)(both >> 12 & 15u);
    } else if constexpr (T == QUANT_TYPE_Q3_K) {
        const uint4 v = n.wide[0];
        const uint32_t low = (b < 4 ? v.y : v.z) >> (8 * (b & 3));
        const uint32_t high = v.w >> (4 * b);
        r.d = low_half_of(v.x);
        r.scale[0] = (int32_t)((low & 15u) | (high & 3u) << 4) - 32;
        r.scale[1] = (int32_t)((low >> 4 & 15u) | (high >> 2 & 3u) << 4) - 32;
    } else if constexpr (T == QUANT_TYPE_Q6_K) {
        const uint32_t both = word_of(n.wide[0], b / 2) >> (16 * (b & 1));
        r.d = low_half_of(n.narrow.x);
        r.scale[0] = (int8_t)both;
        r.scale[1] = (int8_t)(both >> 8);
    } else if constexpr (T == QUANT_TYPE_IQ4_XS) {
        const uint32_t scale = (n.narrow.y >> (4 * b) & 15u) | (n.narrow.x >> (2 * b + 16) & 3u)
                                                                   << 4;
        r.d = low_half_of(n.narrow.x) * (float)((int32_t)scale - 32);
    } else if constexpr (T == QUANT_TYPE_MXFP4) {
        /* 2^(e - 128): exponents 0 and 1 are subnormal. */
        const uint32_t e = (b < 4 ? n.narrow.x : n.narrow.y) >> (8 * (b & 3)) & 255u;
        r.d = __uint_as_float(e < 2 ? 0x200000u << e : (e - 1) << 23);
    } else {
        r.d = half_of(n.wide[0], b);
        if constexpr (weight_type<T>::has_min)
            r.m = half_of(n.wide[1], b);
    }
    return r;
}

/* Row `row` of the tile; `at`: where the chunk begins, in any memory. Load16: how 16 bytes are
 * read. */
template <enum quant_type T, uint4 (*Load16)(const void *)>
DEVICE_INLINE struct weight_numbers weight_numbers_read(const uint8_t *at, uint32_t row)
{
    constexpr struct weight_layout layout = weight_type<T>::layout;
    struct weight_numbers n = {};
    if constexpr (layout.wide > 0)
        n.wide[0] = Load16(at + row * 16);
    if constexpr (layout.wide > 1)
        n.wide[1] = Load16(at + WEIGHT_PIECE_BYTES + row * 16);
    const uint8_t *narrow = at + layout.wide * WEIGHT_PIECE_BYTES + row * layout.narrow;
    if constexpr (layout.narrow == 2)
        n.narrow.x = *reinterpret_cast<const uint16_t *>(narrow);
    if constexpr (layout.narrow == 4)
        n.narrow.x = *reinterpret_cast<const uint32_t *>(narrow);
    if constexpr (layout.narrow == 8)
        n.narrow = *reinterpret_cast<const uint2 *>(narrow);
    return n;
}

#endif
