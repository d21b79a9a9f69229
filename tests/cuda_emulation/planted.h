/* planted.h - the launcher of planted.cu. C and C++. */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_PLANTED_H
#define CLOISTER_TESTS_CUDA_EMULATION_PLANTED_H

#include "worker/kernels/cuda/launch.h"

#include <stdbool.h>

/* kernel, blocks of 64 threads */
#define PLANTED_KERNELS(X)                                                                         \
    X(barrier_removed, 1)                                                                          \
    X(barrier_removed_before_refill, 1)                                                            \
    X(syncwarp_removed, 1)                                                                         \
    X(syncwarp_of_half, 1)                                                                         \
    X(index_past_end, 1)                                                                           \
    X(index_before_begin, 1)                                                                       \
    X(shared_index_past_end, 1)                                                                    \
    X(dynamic_shared_past_end, 1)                                                                  \
    X(uninitialised_global, 1)                                                                     \
    X(uninitialised_shared, 1)                                                                     \
    X(shared_race, 1)                                                                              \
    X(global_race, 1)                                                                              \
    X(blocks_write, 2)                                                                             \
    X(block_reads, 2)                                                                              \
    X(copy_not_waited_for, 1)                                                                      \
    X(copy_waited_for_too_little, 1)                                                               \
    X(copy_without_barrier, 1)                                                                     \
    X(exit_before_barrier, 1)                                                                      \
    X(two_barriers, 1)                                                                             \
    X(lane_exits, 1)                                                                               \
    X(lane_elsewhere, 1)                                                                           \
    X(lane_not_in_mask, 1)                                                                         \
    X(functions_differ, 1)                                                                         \
    X(masks_differ, 1)                                                                             \
    X(vector_misaligned, 1)                                                                        \
    X(word_misaligned, 1)                                                                          \
    X(shared_misaligned, 1)                                                                        \
    X(plain_vector_misaligned, 1)                                                                  \
    X(copies_in, 1)                                                                                \
    X(stack_used_up, 1)                                                                            \
    X(trapped, 1)

#ifdef __cplusplus
extern "C" {
#endif

/* `in` and `out`: a word per thread of the grid; `other` as many, not written yet. */
struct cuda_launched launch_planted(const char *name, int *in, int *out, int *other, bool broken,
                                    cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
