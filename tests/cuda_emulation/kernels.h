/* kernels.h - launchers of kernels.cu. C and C++. */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_KERNELS_H
#define CLOISTER_TESTS_CUDA_EMULATION_KERNELS_H

#include "worker/kernels/cuda/launch.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHUFFLES 14

struct cuda_launched launch_sum(const int *in, int *out, unsigned blocks, unsigned threads,
                                cudaStream_t stream);
struct cuda_launched launch_barrier_votes(const int *in, int *out, unsigned blocks,
                                          unsigned threads, cudaStream_t stream);
struct cuda_launched launch_places(unsigned *out, const unsigned grid[3], const unsigned block[3],
                                   cudaStream_t stream);
struct cuda_launched launch_reverse(const float *in, float *out, unsigned threads,
                                    size_t shared_bytes, cudaStream_t stream);
cudaError_t allow_reverse(size_t shared_bytes);
struct cuda_launched launch_shuffles(unsigned *out, unsigned threads, cudaStream_t stream);
struct cuda_launched launch_neighbours(int *out, cudaStream_t stream);
struct cuda_launched launch_mma(const int8_t *a, const int8_t *b, int32_t *c, int k,
                                cudaStream_t stream);
struct cuda_launched launch_mma_ldmatrix(const int8_t *a, const int8_t *b, int32_t *c,
                                         cudaStream_t stream);
struct cuda_launched launch_stages(const uint4 *in, unsigned *out, unsigned tiles, unsigned valid,
                                   cudaStream_t stream);
struct cuda_launched launch_atomics(int *out, unsigned blocks, unsigned threads,
                                    cudaStream_t stream);
struct cuda_launched launch_arithmetic(uint16_t *halves, int *products, cudaStream_t stream);
struct cuda_launched launch_strided(const int *in, int *out, unsigned stride, unsigned threads,
                                    cudaStream_t stream);
struct cuda_launched launch_vectors(const uint4 *in, uint4 *out, unsigned threads,
                                    cudaStream_t stream);
struct cuda_launched launch_banks(int *out, unsigned stride, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
