/*
 * device.h - what kernels ask of a device beyond plain CUDA C++: each wrapper has one body for nvcc
 * (an intrinsic, or PTX where there is none) and one for the emulation of CUDA on the CPU
 * (tests/cuda_emulation), and both give the same bits. C++ only, included by .cu files.
 *
 * Every function of a warp (mma, ldmatrix) is called by all 32 lanes of it at the same place.
 * Fragment layouts and alignments are PTX's: PTX ISA, "Warp Level Matrix Multiply-Accumulate
 * Instructions", "ldmatrix", "cp.async". Needs compute capability 8.0.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_DEVICE_H
#define CLOISTER_WORKER_KERNELS_CUDA_DEVICE_H

#include <cuda_runtime.h>

#include <stdint.h>

#include "worker/kernels/half.h"

/* CUDA_SHARED(T, name, count): T name[count] for the block. CUDA_SHARED_DYNAMIC(T, name): the bytes
 * asked for at the launch, as T *name, aligned to 128; every such name of a kernel is the same
 * bytes.
 */
#ifdef __CUDACC__
#define CUDA_SHARED(T, name, count) __shared__ T name[count]
#define CUDA_SHARED_DYNAMIC(T, name)                                                               \
    extern __shared__ __align__(128) unsigned char cuda_dynamic_shared[];                          \
    T *const name = reinterpret_cast<T *>(cuda_dynamic_shared)
#define DEVICE_INLINE static __device__ __forceinline__
#else
#define CUDA_SHARED(T, name, count)                                                                \
    static const struct emu_shared_array name##_array = {sizeof(T) * (count), alignof(T), #name};  \
    T(&name)[count] = *static_cast<T(*)[count]>(emu_shared_static(&name##_array))
#define CUDA_SHARED_DYNAMIC(T, name) T *const name = static_cast<T *>(emu_shared_dynamic())
#define DEVICE_INLINE                static inline
#endif

/* --- Products of bytes --- */

/* c + the sum of four products of signed bytes. */
DEVICE_INLINE int32_t device_dp4a(uint32_t a, uint32_t b, int32_t c)
{
    return __dp4a((int)a, (int)b, c);
}

#ifdef __CUDACC__
#define DEVICE_PLACE
#define DEVICE_PLACE_PASS
#else
/* Where a warp's function was called from, for reports. */
#define DEVICE_PLACE , emu_place place = EMU_HERE
#endif

/* c += a * b: a is 16 x 32 signed bytes by rows, b 32 x 8 by columns, c 16 x 8 words. */
DEVICE_INLINE void device_mma_m16n8k32(int32_t (&c)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2] DEVICE_PLACE)
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    emu_mma_m16n8k32_s8(c, a, b, place);
#endif
}

/* The same over 16 columns of a. */
DEVICE_INLINE void device_mma_m16n8k16(int32_t (&c)[4], const uint32_t (&a)[2],
                                       const uint32_t (&b)[1] DEVICE_PLACE)
{
#ifdef __CUDACC__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 "
                 "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b[0]));
#else
    emu_mma_m16n8k16_s8(c, a, b, place);
#endif
}

/* --- Shared memory to fragments --- */

#ifdef __CUDACC__
DEVICE_INLINE uint32_t device_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}
#endif

/* Four matrices of 8 rows of 16 bytes. Lanes 0-7 give the rows' addresses of the first, 8-15 of the
 * second and so on, each aligned to 16; lane t receives bytes 4 * (t % 4) .. + 3 of row t / 4. */
DEVICE_INLINE void device_ldmatrix_x4(uint32_t (&r)[4], const void *row DEVICE_PLACE)
{
#ifdef __CUDACC__
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(device_shared_address(row))
                 : "memory");
#else
    emu_ldmatrix_x4(r, row, place);
#endif
}

/* --- Global memory to shared memory, asynchronously --- */

/* 16 bytes, both sides aligned to 16. A thread's copies since its last commit are one group; what
 * they bring is there for the thread after the wait that covers the group, for others after a
 * barrier behind that. */
DEVICE_INLINE void device_async_copy16(void *shared, const void *global DEVICE_PLACE)
{
#ifdef __CUDACC__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(device_shared_address(shared)),
                 "l"(global)
                 : "memory");
#else
    emu_async_copy16(shared, global, true, place);
#endif
}

/* Zeros where `valid` is false; the source is not read then, but must be a pointer of its space. */
DEVICE_INLINE void device_async_copy16_or_zero(void *shared, const void *global,
                                               bool valid DEVICE_PLACE)
{
#ifdef __CUDACC__
    int bytes = valid ? 16 : 0;
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(device_shared_address(shared)),
        "l"(global), "r"(bytes)
        : "memory");
#else
    emu_async_copy16(shared, global, valid, place);
#endif
}

DEVICE_INLINE void device_async_commit(void)
{
#ifdef __CUDACC__
    asm volatile("cp.async.commit_group;" ::: "memory");
#else
    emu_async_commit();
#endif
}

/* Returns when at most `Pending` of the thread's newest groups are still under way. */
template <int Pending> DEVICE_INLINE void device_async_wait(void)
{
#ifdef __CUDACC__
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#else
    emu_async_wait(Pending);
#endif
}

/* --- Loads and stores of 16 bytes, aligned to 16 --- */

DEVICE_INLINE uint4 device_load16(const void *at)
{
#ifdef __CUDACC__
    return *static_cast<const uint4 *>(at);
#else
    return emu_load(static_cast<const uint4 *>(at));
#endif
}

/* Of memory that no thread writes during the launch and that is read once: weights. They go past
 * the first-level cache and leave it to activations. */
DEVICE_INLINE uint4 device_load16_once(const void *at)
{
#ifdef __CUDACC__
    uint4 v;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
        : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
        : "l"(at));
    return v;
#else
    return emu_load(static_cast<const uint4 *>(at));
#endif
}

DEVICE_INLINE void device_store16(void *at, uint4 value)
{
#ifdef __CUDACC__
    *static_cast<uint4 *>(at) = value;
#else
    emu_store(static_cast<uint4 *>(at), value);
#endif
}

/* --- Half precision --- */

DEVICE_INLINE float device_half_to_float(uint16_t h)
{
#ifdef __CUDACC__
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(h));
    return x;
#else
    return half_to_float(h);
#endif
}

/* To the nearest, ties to even. */
DEVICE_INLINE uint16_t device_half_from_float(float x)
{
#ifdef __CUDACC__
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
#else
    return half_from_float(x);
#endif
}

#endif
