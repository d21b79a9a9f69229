/* bench_cuda_peak.h - loops of integer products that never leave the registers. */
#ifndef CLOISTER_TESTS_BENCH_BENCH_CUDA_PEAK_H
#define CLOISTER_TESTS_BENCH_BENCH_CUDA_PEAK_H

#include "worker/kernels/cuda/launch.h"

#include <stdint.h>

enum bench_peak { BENCH_PEAK_DP4A, BENCH_PEAK_MMA };

#ifdef __cplusplus
extern "C" {
#endif

/* Fills the device; `sink` is one word of its memory, which is never written. */
struct cuda_launched bench_cuda_peak(enum bench_peak peak, uint32_t multiprocessors, void *sink,
                                     cudaStream_t stream);
/* Multiplications and additions of one launch. */
double bench_cuda_peak_operations(enum bench_peak peak, uint32_t multiprocessors);

#ifdef __cplusplus
}
#endif

#endif
