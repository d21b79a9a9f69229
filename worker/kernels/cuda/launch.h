/*
 * launch.h - the only way to launch a kernel, the same source under nvcc and under the emulation of
 * CUDA on the CPU (tests/cuda_emulation).
 *
 *     struct cuda_launched l = CUDA_LAUNCH((rows_kernel<8>), grid, block, shared_bytes, stream, x,
 * n);
 *
 * A template with a comma in it stands in parentheses. The launch is queued on `stream`. What comes
 * back says whether it could be queued, with the kernel's name for the message; what goes wrong
 * while it runs is reported by whoever waits for the stream.
 *
 * Thread: the owner of the stream. C sees the struct alone, for the declarations of launchers.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_LAUNCH_H
#define CLOISTER_WORKER_KERNELS_CUDA_LAUNCH_H

#include <cuda_runtime_api.h>

struct cuda_launched {
    cudaError_t error;
    const char *kernel; /* static: as the launcher wrote it */
};

#ifdef __cplusplus
#include <cuda_runtime.h>

/* Takes the launch's error away, so that it is not found by a later call that did nothing wrong. */
static inline struct cuda_launched cuda_launched_last(const char *kernel)
{
    struct cuda_launched launched = {cudaGetLastError(), kernel};
    return launched;
}

#ifdef __CUDACC__
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    (kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__),                           \
     cuda_launched_last(#kernel))
#else
#define CUDA_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                \
    (emu_launch_kernel(kernel, #kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__),   \
     cuda_launched_last(#kernel))
#endif
#endif

#endif
