#include "worker/kernels/quant_check.h"

#include "worker/kernels/quant_block.h"

#include <stddef.h>
#include <string.h>

#define HALF_EXPONENT   0x7c00u
#define BFLOAT_EXPONENT 0x7f80u
#define FLOAT_EXPONENT  0x7f800000u
#define MXFP4_NAN       255u

/* So many blocks are looked at without a branch; only where one is bad is it searched for. */
#define CHECK_RUN 512u

static inline unsigned half_is_bad(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return (bits & HALF_EXPONENT) == HALF_EXPONENT;
}

static inline unsigned bfloat_is_bad(const uint8_t *p)
{
    uint16_t bits;
    memcpy(&bits, p, sizeof bits);
    return (bits & BFLOAT_EXPONENT) == BFLOAT_EXPONENT;
}

static inline unsigned float_is_bad(const uint8_t *p)
{
    uint32_t bits;
    memcpy(&bits, p, sizeof bits);
    return (bits & FLOAT_EXPONENT) == FLOAT_EXPONENT;
}

/* Each type's loop has its block's size and offsets as constants. */
#define CHECK_LOOP(size, is_bad)                                                                   \
    for (uint64_t first = 0; first < count; first += CHECK_RUN) {                                  \
        uint64_t end = count - first < CHECK_RUN ? count : first + CHECK_RUN;                      \
        unsigned any = 0;                                                                          \
        for (uint64_t i = first; i < end; i++) {                                                   \
            const uint8_t *block = blocks + i * (size);                                            \
            any |= (is_bad);                                                                       \
        }                                                                                          \
        for (uint64_t i = first; any != 0 && i < end; i++) {                                       \
            const uint8_t *block = blocks + i * (size);                                            \
            if (is_bad)                                                                            \
                return i;                                                                          \
        }                                                                                          \
    }                                                                                              \
    return count

#define HALF_OF(kind, member) half_is_bad(block + offsetof(struct block_##kind, member))
#define CHECK_SCALE(kind)     CHECK_LOOP(sizeof(struct block_##kind), HALF_OF(kind, d))
#define CHECK_SCALE_AND(kind, min)                                                                 \
    CHECK_LOOP(sizeof(struct block_##kind), HALF_OF(kind, d) | HALF_OF(kind, min))

uint64_t quant_check_finite(enum quant_type type, const uint8_t *blocks, uint64_t count)
{
    switch (type) {
    case QUANT_TYPE_F32:
        CHECK_LOOP(4, float_is_bad(block));
    case QUANT_TYPE_F16:
        CHECK_LOOP(2, half_is_bad(block));
    case QUANT_TYPE_BF16:
        CHECK_LOOP(2, bfloat_is_bad(block));
    case QUANT_TYPE_Q4_0:
        CHECK_SCALE(q4_0);
    case QUANT_TYPE_Q4_1:
        CHECK_SCALE_AND(q4_1, m);
    case QUANT_TYPE_Q5_0:
        CHECK_SCALE(q5_0);
    case QUANT_TYPE_Q5_1:
        CHECK_SCALE_AND(q5_1, m);
    case QUANT_TYPE_Q8_0:
        CHECK_SCALE(q8_0);
    case QUANT_TYPE_Q2_K:
        CHECK_SCALE_AND(q2_k, dmin);
    case QUANT_TYPE_Q3_K:
        CHECK_SCALE(q3_k);
    case QUANT_TYPE_Q4_K:
        CHECK_SCALE_AND(q4_k, dmin);
    case QUANT_TYPE_Q5_K:
        CHECK_SCALE_AND(q5_k, dmin);
    case QUANT_TYPE_Q6_K:
        CHECK_SCALE(q6_k);
    case QUANT_TYPE_IQ4_NL:
        CHECK_SCALE(iq4_nl);
    case QUANT_TYPE_IQ4_XS:
        CHECK_SCALE(iq4_xs);
    case QUANT_TYPE_MXFP4:
        CHECK_LOOP(sizeof(struct block_mxfp4), block[offsetof(struct block_mxfp4, e)] == MXFP4_NAN);
    default:
        return count;
    }
}
