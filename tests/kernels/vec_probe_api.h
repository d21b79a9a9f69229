/* vec_probe_api.h - see vec_probe.h. */
#ifndef CLOISTER_TESTS_KERNELS_VEC_PROBE_API_H
#define CLOISTER_TESTS_KERNELS_VEC_PROBE_API_H

#include <stdint.h>

struct vec_probe {
    void (*arithmetic)(const float a[16], const float b[16], const float c[16], float ret_sum[16],
                       float ret_product[16], float ret_fma[16]);
    void (*convert)(const uint16_t halves[16], const int8_t bytes[16], const float floats[16],
                    float ret_half[16], float ret_bfloat[16], float ret_i8[16], float ret_set[16],
                    uint16_t ret_halves[16]);
    void (*dot4)(const uint8_t w[256], const int8_t x[32], int32_t bias, float ret_sums[16]);
    void (*dot8)(const uint8_t w[512], const int8_t x[32], int32_t sum_x, float ret_sums[16]);
};

extern const struct vec_probe vec_probe_plain;
extern const struct vec_probe vec_probe_avx2;
extern const struct vec_probe vec_probe_avx512; /* the instructions */
extern const struct vec_probe vec_probe_simde;  /* the same wrappers over SIMDe */

#endif
