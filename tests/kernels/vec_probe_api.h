/* vec_probe_api.h - see vec_probe.h. */
#ifndef CLOISTER_TESTS_KERNELS_VEC_PROBE_API_H
#define CLOISTER_TESTS_KERNELS_VEC_PROBE_API_H

#include <stdint.h>

/* Sums are of blocks of 32 columns: w[8 quads][16 rows][4 columns], x[32]. */
struct vec_probe {
    void (*arithmetic)(const float a[16], const float b[16], const float c[16], float ret_sum[16],
                       float ret_product[16], float ret_fma[16]);
    void (*trees)(const float lanes[16], const float others[16], float ret_max[16],
                  float *ret_sum16, float *ret_max16);
    void (*convert)(const uint16_t halves[16], const int8_t bytes[16], const float floats[16],
                    float ret_half[16], float ret_bfloat[16], float ret_i8[16], float ret_u8[16],
                    float ret_set[16], uint16_t ret_halves[16]);
    /* Unsigned weights of at most 15, 31 or 63 (top 0, 1, 2). */
    void (*dot)(int top, const uint8_t w[512], const int8_t x[32], float ret_sums[16]);
    /* Scaled with scales[row][half] of the columns' halves; pair: sums of x over the halves. */
    void (*dot_halves)(int top, const uint8_t w[512], const int8_t x[32], const int8_t scales[32],
                       int32_t pair, float ret_sums[16], float ret_pairs[16],
                       float ret_nibbles[16]);
    /* Signed weights, straight and through the stored form. */
    void (*dot_signed)(const uint8_t w[512], const int8_t x[32], float sum_x, float ret_sums[16],
                       float ret_wide[16]);
    /* Fields of 4, 2 and 1 bits and their union, moved; a table of 16. */
    void (*fields)(const uint8_t bytes[64], const int8_t table[16], uint8_t ret_fields[5][64]);
    /* Bytes less 8 and less 32, times the number of their lane of four, and none; numbers less
     * others. NULL: the instruction set has them not, only kernels with tile registers do. */
    void (*signed_weights)(const uint8_t bytes[64], const int32_t numbers[16],
                           const int32_t others[16], uint8_t ret_bytes[4][64],
                           int32_t ret_numbers[16]);
};

extern const struct vec_probe vec_probe_plain;
extern const struct vec_probe vec_probe_avx2;
extern const struct vec_probe vec_probe_avx512; /* the instructions */
extern const struct vec_probe vec_probe_simde;  /* the same wrappers over SIMDe */

#endif
