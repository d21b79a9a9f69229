/*
 * device_code.h - CLOISTER_DEVICE before `static inline` marks a function that CUDA kernels call as
 * well as the host: one source, so the same bits (docs/numerics.md).
 */
#ifndef CLOISTER_WORKER_KERNELS_DEVICE_CODE_H
#define CLOISTER_WORKER_KERNELS_DEVICE_CODE_H

#ifdef __CUDACC__
#define CLOISTER_DEVICE __host__ __device__
#else
#define CLOISTER_DEVICE
#endif

#endif
