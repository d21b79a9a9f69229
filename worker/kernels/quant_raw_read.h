/*
 * quant_raw_read.h - the bit layouts of GGUF's quantized types.
 *
 * Inlined into the loops that read them: with the type and the place in a super-block as constants
 * nothing is left of the choice, and each instruction set compiles its own (cpu/body_pack.h), and
 * so do CUDA kernels (cuda/weight_pack.cu). Internal to kernels/. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_KERNELS_QUANT_RAW_READ_H
#define CLOISTER_WORKER_KERNELS_QUANT_RAW_READ_H

#include "worker/kernels/quant_raw.h"

#ifndef __cplusplus
#include "common/check.h"
#endif

#include <stddef.h>
#include <string.h>

#define RAW_INLINE CLOISTER_DEVICE static inline __attribute__((always_inline))
#ifdef __cplusplus /* a kernel has no way to say it */
#define RAW_CHECK(condition) ((void)0)
#else
#define RAW_CHECK(condition) CHECK(condition)
#endif

/* The block of a 32-element type, and the super-block that holds sub-block `sub` of 32. Pointers,
 * not copies, which a compiler would keep. Words are read with memcpy, since rows are not aligned.
 */
#define RAW_BLOCK(kind, name)                                                                      \
    const uint8_t *const name = row + (size_t)block * sizeof(struct block_##kind)

#define RAW_SUPER(kind, name)                                                                      \
    const uint8_t *const name = row + (size_t)(block / 8) * sizeof(struct block_##kind);           \
    const uint32_t sub = block % 8

#define RAW_AT(kind, member) offsetof(struct block_##kind, member)

RAW_INLINE uint16_t raw_word(const uint8_t *p)
{
    uint16_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

RAW_INLINE void raw_scales(struct quant_raw *raw, int scale, int min)
{
    raw->scale[0] = raw->scale[1] = (int8_t)scale;
    raw->min[0] = raw->min[1] = (uint8_t)min;
}

/* Low halves of the bytes are the first 16 quants. In words: GCC 12 makes no vectors of loops over
 * 16 bytes (over 32 it does). */
RAW_INLINE void raw_nibbles(const uint8_t qs[16], uint8_t ret_q[32])
{
    const uint64_t low = 0x0f0f0f0f0f0f0f0full;
    uint64_t both[2], q[4];
    memcpy(both, qs, sizeof both);
    for (int i = 0; i < 2; i++) {
        q[i] = both[i] & low;
        q[i + 2] = both[i] >> 4 & low;
    }
    memcpy(ret_q, q, sizeof q);
}

/* Bit 4 of the 32 quants, of 4 at a time: times 1 + 2^7 + 2^14 + 2^21, each of 4 bits is the lowest
 * of a byte. */
RAW_INLINE void raw_fifth_bits(const uint8_t qh[4], uint8_t q[32])
{
    uint32_t bits, quads[8];
    memcpy(&bits, qh, sizeof bits);
    memcpy(quads, q, sizeof quads);
    for (uint32_t i = 0; i < 8; i++)
        quads[i] |= ((bits >> (4 * i) & 15u) * 0x00204081u & 0x01010101u) << 4;
    memcpy(q, quads, sizeof quads);
}

/* Bits `shift` and up of 32 bytes, `mask` of them, moved to bit `to` of the quants. */
RAW_INLINE void raw_field(const uint8_t *bytes, uint32_t shift, uint8_t mask, uint32_t to,
                          uint8_t q[32])
{
    for (int j = 0; j < 32; j++)
        q[j] = (uint8_t)(q[j] | ((bytes[j] >> shift) & mask) << to);
}

/* 6-bit scale and minimum of sub-block `sub` in the 12 bytes of Q4_K and Q5_K. */
RAW_INLINE void raw_scales_k4(const uint8_t *scales, uint32_t sub, struct quant_raw *raw)
{
    if (sub < 4)
        raw_scales(raw, scales[sub] & 63, scales[sub + 4] & 63);
    else
        raw_scales(raw, (scales[sub + 4] & 15) | (scales[sub - 4] >> 6) << 4,
                   scales[sub + 4] >> 4 | (scales[sub] >> 6) << 4);
}

/* 6-bit scale of the 16 elements `i`, in the 12 bytes of Q3_K: low halves in bytes 0 .. 7, scale i
 * and i + 8 in one byte; high bits in bytes 8 .. 11, those of i, i + 4, i + 8 and i + 12 in one. */
RAW_INLINE int8_t raw_scale_k3(const uint8_t *scales, uint32_t i)
{
    int low = scales[i % 8] >> (i / 8 * 4) & 15;
    int high = scales[8 + i % 4] >> (i / 4 * 2) & 3;
    return (int8_t)((low | high << 4) - 32);
}

RAW_INLINE void raw_read_k(enum quant_type type, const uint8_t *row, uint32_t block,
                           struct quant_raw *raw)
{
    memset(raw->q, 0, sizeof raw->q);
    switch (type) {
    case QUANT_TYPE_Q2_K: {
        RAW_SUPER(q2_k, k);
        raw->d = raw_word(k + RAW_AT(q2_k, d));
        raw->m = raw_word(k + RAW_AT(q2_k, dmin));
        for (uint32_t half = 0; half < 2; half++) {
            uint8_t both = k[RAW_AT(q2_k, scales) + 2 * sub + half];
            raw->scale[half] = (int8_t)(both & 15);
            raw->min[half] = both >> 4;
        }
        raw_field(k + RAW_AT(q2_k, qs) + sub / 4 * 32, sub % 4 * 2, 3, 0, raw->q);
        break;
    }
    case QUANT_TYPE_Q3_K: {
        RAW_SUPER(q3_k, k);
        raw->d = raw_word(k + RAW_AT(q3_k, d));
        raw_scales(raw, 1, 1);
        for (uint32_t half = 0; half < 2; half++)
            raw->scale[half] = raw_scale_k3(k + RAW_AT(q3_k, scales), 2 * sub + half);
        raw_field(k + RAW_AT(q3_k, qs) + sub / 4 * 32, sub % 4 * 2, 3, 0, raw->q);
        raw_field(k + RAW_AT(q3_k, hmask), sub, 1, 2, raw->q);
        break;
    }
    case QUANT_TYPE_Q4_K: {
        RAW_SUPER(q4_k, k);
        raw->d = raw_word(k + RAW_AT(q4_k, d));
        raw->m = raw_word(k + RAW_AT(q4_k, dmin));
        raw_scales_k4(k + RAW_AT(q4_k, scales), sub, raw);
        raw_field(k + RAW_AT(q4_k, qs) + sub / 2 * 32, sub % 2 * 4, 15, 0, raw->q);
        break;
    }
    case QUANT_TYPE_Q5_K: {
        RAW_SUPER(q5_k, k);
        raw->d = raw_word(k + RAW_AT(q5_k, d));
        raw->m = raw_word(k + RAW_AT(q5_k, dmin));
        raw_scales_k4(k + RAW_AT(q5_k, scales), sub, raw);
        raw_field(k + RAW_AT(q5_k, qs) + sub / 2 * 32, sub % 2 * 4, 15, 0, raw->q);
        raw_field(k + RAW_AT(q5_k, qh), sub, 1, 4, raw->q);
        break;
    }
    case QUANT_TYPE_Q6_K: {
        /* 128 elements at a time: sub-blocks 0 and 2 share their low halves' bytes, 1 and 3 too. */
        RAW_SUPER(q6_k, k);
        raw->d = raw_word(k + RAW_AT(q6_k, d));
        raw_scales(raw, 1, 1);
        memcpy(raw->scale, k + RAW_AT(q6_k, scales) + (size_t)2 * sub, 2);
        const uint8_t *low = k + RAW_AT(q6_k, ql) + sub / 4 * 64 + sub % 2 * 32;
        raw_field(low, sub % 4 / 2 * 4, 15, 0, raw->q);
        raw_field(k + RAW_AT(q6_k, qh) + sub / 4 * 32, sub % 4 * 2, 3, 4, raw->q);
        break;
    }
    default: {
        RAW_CHECK(type == QUANT_TYPE_IQ4_XS);
        RAW_SUPER(iq4_xs, k);
        raw->d = raw_word(k + RAW_AT(iq4_xs, d));
        int low = k[RAW_AT(iq4_xs, scales_l) + sub / 2] >> (sub % 2 * 4) & 15;
        int high = raw_word(k + RAW_AT(iq4_xs, scales_h)) >> (2 * sub) & 3;
        raw_scales(raw, (low | high << 4) - 32, 1);
        raw_nibbles(k + RAW_AT(iq4_xs, qs) + (size_t)16 * sub, raw->q);
        break;
    }
    }
}

/* Elements 32 * block .. 32 * block + 31 of a row that begins at `row`. */
RAW_INLINE void quant_raw_read(enum quant_type type, const uint8_t *row, uint32_t block,
                               struct quant_raw *ret_raw)
{
    ret_raw->m = 0;
    raw_scales(ret_raw, 1, 1);
    switch (type) {
    case QUANT_TYPE_Q4_0: {
        RAW_BLOCK(q4_0, b);
        ret_raw->d = raw_word(b + RAW_AT(q4_0, d));
        raw_nibbles(b + RAW_AT(q4_0, qs), ret_raw->q);
        break;
    }
    case QUANT_TYPE_Q4_1: {
        RAW_BLOCK(q4_1, b);
        ret_raw->d = raw_word(b + RAW_AT(q4_1, d));
        ret_raw->m = raw_word(b + RAW_AT(q4_1, m));
        raw_nibbles(b + RAW_AT(q4_1, qs), ret_raw->q);
        break;
    }
    case QUANT_TYPE_Q5_0: {
        RAW_BLOCK(q5_0, b);
        ret_raw->d = raw_word(b + RAW_AT(q5_0, d));
        raw_nibbles(b + RAW_AT(q5_0, qs), ret_raw->q);
        raw_fifth_bits(b + RAW_AT(q5_0, qh), ret_raw->q);
        break;
    }
    case QUANT_TYPE_Q5_1: {
        RAW_BLOCK(q5_1, b);
        ret_raw->d = raw_word(b + RAW_AT(q5_1, d));
        ret_raw->m = raw_word(b + RAW_AT(q5_1, m));
        raw_nibbles(b + RAW_AT(q5_1, qs), ret_raw->q);
        raw_fifth_bits(b + RAW_AT(q5_1, qh), ret_raw->q);
        break;
    }
    case QUANT_TYPE_Q8_0: {
        RAW_BLOCK(q8_0, b);
        ret_raw->d = raw_word(b + RAW_AT(q8_0, d));
        memcpy(ret_raw->q, b + RAW_AT(q8_0, qs), sizeof ret_raw->q);
        break;
    }
    case QUANT_TYPE_IQ4_NL: {
        RAW_BLOCK(iq4_nl, b);
        ret_raw->d = raw_word(b + RAW_AT(iq4_nl, d));
        raw_nibbles(b + RAW_AT(iq4_nl, qs), ret_raw->q);
        break;
    }
    case QUANT_TYPE_MXFP4: {
        RAW_BLOCK(mxfp4, b);
        uint32_t e = b[RAW_AT(mxfp4, e)];
        /* 2^(e - 128): exponents 0 and 1 are subnormal. */
        ret_raw->d = (uint16_t)(e < 2 ? 0x20u << e : (e - 1) << 7);
        raw_nibbles(b + RAW_AT(mxfp4, qs), ret_raw->q);
        break;
    }
    default:
        raw_read_k(type, row, block, ret_raw);
        if (quant_raw_has_min(type))
            ret_raw->m = (uint16_t)(ret_raw->m ^ 0x8000u); /* w = ... - dmin * min */
        break;
    }
}

#endif
