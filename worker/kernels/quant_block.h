/*
 * quant_block.h - how GGUF stores a block of each tensor type, byte for byte (little-endian).
 *
 * A block of a 32-element type holds elements k .. k + 31 of one row; of a K type, 256 elements.
 * What a stored value means stands beside its struct. Source: the GGUF format's own type list.
 * The structs hold bytes and 16-bit words only, so that they have no padding on any machine.
 */
#ifndef CLOISTER_WORKER_KERNELS_QUANT_BLOCK_H
#define CLOISTER_WORKER_KERNELS_QUANT_BLOCK_H

#include <assert.h>
#include <stdint.h>

#define QUANT_BLOCK_ITEMS 32u  /* elements that share one activation scale, whatever the type */
#define QUANT_SUPER_ITEMS 256u /* elements of a K block */

/* w = d * (q - 8); q of element j in the low half of qs[j], of element j + 16 in the high one. */
struct block_q4_0 {
    uint16_t d; /* binary16 */
    uint8_t qs[16];
};

/* w = d * q + m; nibbles as in Q4_0. */
struct block_q4_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qs[16];
};

/* w = d * (q - 16); bit 4 of element j is bit j of qh. */
struct block_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[16];
};

/* w = d * q + m; q as in Q5_0. */
struct block_q5_1 {
    uint16_t d;
    uint16_t m;
    uint8_t qh[4];
    uint8_t qs[16];
};

/* w = d * q. */
struct block_q8_0 {
    uint16_t d;
    int8_t qs[32];
};

/*
 * K types. A super-block is 256 elements: 16 sub-blocks of 16 (Q2_K, Q3_K, Q6_K), each with a scale
 * of its own, or 8 of 32. Quants of more than one sub-block share a byte, see quant_raw_read.h.
 */

/* w = d * scale * q - dmin * min, q 0 .. 3; scale in the low, min in the high half of scales[i]. */
struct block_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d;
    uint16_t dmin;
};

/* w = d * (scale - 32) * (q - 4), q 0 .. 7, its bit 2 in hmask; 6-bit scales packed in 12 bytes. */
struct block_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12];
    uint16_t d;
};

/* w = d * scale * q - dmin * min, q 0 .. 15; 6-bit pairs packed in 12 bytes. */
struct block_q4_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qs[128];
};

/* As Q4_K with q 0 .. 31, its bit 4 in qh. */
struct block_q5_k {
    uint16_t d;
    uint16_t dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
};

/* w = d * scale * (q - 32), q 0 .. 63, its bits 4 and 5 in qh. */
struct block_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
};

/* w = d * quant_iq4_values[q]; nibbles as in Q4_0. */
struct block_iq4_nl {
    uint16_t d;
    uint8_t qs[16];
};

/* 8 sub-blocks of 32, each with nibbles as in Q4_0: w = d * (scale - 32) * quant_iq4_values[q];
 * low 4 bits of the scales in scales_l, high 2 bits in scales_h. */
struct block_iq4_xs {
    uint16_t d;
    uint16_t scales_h;
    uint8_t scales_l[4];
    uint8_t qs[128];
};

/* OCP Microscaling 1.0: w = 2^(e - 127) times a 4-bit float, here 2^(e - 128) times twice that
 * float, quant_mxfp4_values[q]; nibbles as in Q4_0. */
struct block_mxfp4 {
    uint8_t e;
    uint8_t qs[16];
};

static const int8_t quant_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t quant_mxfp4_values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                              0, -1, -2, -3, -4, -6, -8, -12};

static_assert(sizeof(struct block_q4_0) == 18, "GGUF: Q4_0");
static_assert(sizeof(struct block_q4_1) == 20, "GGUF: Q4_1");
static_assert(sizeof(struct block_q5_0) == 22, "GGUF: Q5_0");
static_assert(sizeof(struct block_q5_1) == 24, "GGUF: Q5_1");
static_assert(sizeof(struct block_q8_0) == 34, "GGUF: Q8_0");
static_assert(sizeof(struct block_q2_k) == 84, "GGUF: Q2_K");
static_assert(sizeof(struct block_q3_k) == 110, "GGUF: Q3_K");
static_assert(sizeof(struct block_q4_k) == 144, "GGUF: Q4_K");
static_assert(sizeof(struct block_q5_k) == 176, "GGUF: Q5_K");
static_assert(sizeof(struct block_q6_k) == 210, "GGUF: Q6_K");
static_assert(sizeof(struct block_iq4_nl) == 18, "GGUF: IQ4_NL");
static_assert(sizeof(struct block_iq4_xs) == 136, "GGUF: IQ4_XS");
static_assert(sizeof(struct block_mxfp4) == 17, "GGUF: MXFP4");

#endif
