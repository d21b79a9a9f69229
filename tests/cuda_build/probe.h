/*
 * probe.h - two small kernels that only tests use: see probe.cu. All pointers are managed or device
 * memory; both wait for the kernel, and return a cudaError_t.
 */
#ifndef CLOISTER_TESTS_CUDA_BUILD_PROBE_H
#define CLOISTER_TESTS_CUDA_BUILD_PROBE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PROBE_TERMS 16

/* Of each of `blocks` blocks of 2,048 bytes: the dot product of a's and b's. */
int probe_dot_run(const int8_t *a, const int8_t *b, int32_t *out, unsigned blocks);

/* For each of 32 * blocks rows of PROBE_TERMS: the sum of the products, in order, each rounded. */
int probe_sum_run(const float *a, const float *b, float *out, unsigned blocks);

#ifdef __cplusplus
}
#endif

#endif
