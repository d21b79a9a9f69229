/*
 * tmul_amx.h - products of small matrices of bytes with tile registers, AMX-TILE and AMX-INT8
 * (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18).
 * tmul_plain.h says the same in plain C.
 *
 * Tile registers belong to a thread, and so does their configuration: tmul_begin before products,
 * tmul_end behind them, after which a task switch has nothing of them to save. The process needs
 * the system's permission to use them (worker/kernels/open.c).
 *
 * A product takes as many cycles as it has rows of x, and its way to memory no fewer, so what is
 * stored is what was begun before: products go in two turns.
 *
 * Written as assembler, because the compiler's own functions do not say what memory they read.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_TMUL_AMX_H
#define CLOISTER_WORKER_KERNELS_CPU_TMUL_AMX_H

#include <stddef.h>
#include <stdint.h>

#define TMUL_INLINE  static inline __attribute__((always_inline))
#define TMUL_ROWS    16 /* most rows of x in a product */
#define TMUL_DEPTH   32 /* bytes of a row of x */
#define TMUL_W_BYTES 512

/* Products have so many rows from now on, at most TMUL_ROWS. Registers 0 to 3 are products, two for
 * each turn; 4 and 5 the x of a turn; 6 and 7 weights, as 8 quads of columns, each of 16 rows of
 * the matrix. */
TMUL_INLINE void tmul_begin(uint32_t rows)
{
    const uint8_t n = (uint8_t)rows;
    const struct {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {
        .palette = 1,
        .row_bytes = {64, 64, 64, 64, TMUL_DEPTH, TMUL_DEPTH, 64, 64},
        .rows = {n, n, n, n, n, n, TMUL_DEPTH / 4, TMUL_DEPTH / 4},
    };
    _Static_assert(sizeof config == 64, "as the processor reads it");
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

TMUL_INLINE void tmul_end(void)
{
    __asm__ volatile("tilerelease");
}

#define TMUL_LOAD(tile, from, stride)                                                              \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"(stride) : "memory")
#define TMUL_STORE(tile, to)                                                                       \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"(64ul) : "memory")
#define TMUL_MULTIPLY(sum, x, w)                                                                   \
    __asm__ volatile("tilezero %%tmm" #sum "\n\t"                                                  \
                     "tdpbssd %%tmm" #w ", %%tmm" #x ", %%tmm" #sum                                \
                     :                                                                             \
                     :                                                                             \
                     : "memory")

#define TMUL_TURN(sum, x_tile, behind)                                                             \
    do {                                                                                           \
        TMUL_LOAD(x_tile, x, x_stride);                                                            \
        TMUL_LOAD(6, w[0], (size_t)64);                                                            \
        TMUL_MULTIPLY(sum, x_tile, 6);                                                             \
        if (ret_before != NULL)                                                                    \
            TMUL_STORE(behind, ret_before[0]);                                                     \
    } while (0)
#define TMUL_SECOND(sum, x_tile, behind)                                                           \
    do {                                                                                           \
        TMUL_LOAD(7, w[1], (size_t)64);                                                            \
        TMUL_MULTIPLY(sum, x_tile, 7);                                                             \
        if (ret_before != NULL)                                                                    \
            TMUL_STORE(behind, ret_before[1]);                                                     \
    } while (0)

/* Begins the products of x[rows][32] and n (1 or 2) weights w[8 quads][16][4], all signed bytes,
 * and stores those of the other turn, as many, to ret_before[n][rows][16]; NULL: there are none.
 * `turn` is 0 or 1. */
TMUL_INLINE void tmul_multiply(const int n, uint32_t turn, const int8_t *x, size_t x_stride,
                               const uint8_t *const w[2], int32_t *const ret_before[2])
{
    if (turn == 0) {
        TMUL_TURN(0, 4, 2);
        if (n == 2)
            TMUL_SECOND(1, 4, 3);
    } else {
        TMUL_TURN(2, 5, 0);
        if (n == 2)
            TMUL_SECOND(3, 5, 1);
    }
}

/* Stores the products of a turn. */
TMUL_INLINE void tmul_store(const int n, uint32_t turn, int32_t *const ret_products[2])
{
    if (turn == 0) {
        TMUL_STORE(0, ret_products[0]);
        if (n == 2)
            TMUL_STORE(1, ret_products[1]);
    } else {
        TMUL_STORE(2, ret_products[0]);
        if (n == 2)
            TMUL_STORE(3, ret_products[1]);
    }
}

#endif
