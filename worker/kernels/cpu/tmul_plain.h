/*
 * tmul_plain.h - the products of tmul_amx.h in plain C: what each of them means, and the means to
 * run the kernels' logic on a machine without tile registers. Used by tests.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_TMUL_PLAIN_H
#define CLOISTER_WORKER_KERNELS_CPU_TMUL_PLAIN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TMUL_INLINE  static inline
#define TMUL_ROWS    16
#define TMUL_DEPTH   32
#define TMUL_W_BYTES 512

/* A thread's registers. */
static _Thread_local struct {
    uint32_t rows;
    int32_t products[2][2][TMUL_ROWS * 16]; /* [turn][of it] */
} tmul;

TMUL_INLINE void tmul_begin(uint32_t rows)
{
    memset(&tmul, 0x5a, sizeof tmul);
    tmul.rows = rows;
}

TMUL_INLINE void tmul_end(void)
{
    memset(&tmul, 0x5a, sizeof tmul);
}

TMUL_INLINE void tmul_store(const int n, uint32_t turn, int32_t *const ret_products[2])
{
    for (int i = 0; i < n; i++)
        memcpy(ret_products[i], tmul.products[turn][i], tmul.rows * 16 * sizeof(int32_t));
}

TMUL_INLINE void tmul_multiply(const int n, uint32_t turn, const int8_t *x, size_t x_stride,
                               const uint8_t *const w[2], int32_t *const ret_before[2])
{
    for (int i = 0; i < n; i++) {
        int32_t *const products = tmul.products[turn][i];
        int32_t by_column[TMUL_DEPTH][16];
        for (uint32_t k = 0; k < TMUL_DEPTH; k++) {
            for (uint32_t r = 0; r < 16; r++)
                by_column[k][r] = (int8_t)w[i][(k / 4 * 16 + r) * 4 + k % 4];
        }
        memset(products, 0, sizeof tmul.products[turn][i]);
        for (uint32_t c = 0; c < tmul.rows; c++) {
            for (uint32_t k = 0; k < TMUL_DEPTH; k++) {
                for (uint32_t r = 0; r < 16; r++)
                    products[c * 16 + r] += x[c * x_stride + k] * by_column[k][r];
            }
        }
    }
    if (ret_before != NULL)
        tmul_store(n, 1 - turn, ret_before);
}

#endif
