/* bench.h - launchers of bench.cu. C and C++. */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_BENCH_H
#define CLOISTER_TESTS_CUDA_EMULATION_BENCH_H

#include "worker/kernels/cuda/launch.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y = W x: W of rows x cols signed bytes, x of cols; a warp per row, dp4a. cols % 512 == 0. */
struct cuda_launched launch_gemv(const int8_t *w, const int8_t *x, int32_t *y, uint32_t rows,
                                 uint32_t cols, cudaStream_t stream);
/* C = W X^T: X of n x cols; a warp per 16 x 8 tile, mma. rows % 64 == 0, n % 8 == 0, cols % 32 ==
 * 0. */
struct cuda_launched launch_gemm(const int8_t *w, const int8_t *x, int32_t *c, uint32_t rows,
                                 uint32_t n, uint32_t cols, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
