/*
 * cuda_runtime.h - CUDA's device language for a C++ compiler: what nvcc knows without being told.
 *
 * A kernel's threads are fibers of one OS thread (emulation.h). What all threads of a warp or block
 * do together is a function here that returns when the others have come. Each takes the place it is
 * called from as a defaulted argument, so that a report can name file and line and so that two
 * barriers can be told apart.
 *
 * What must not be written in a kernel has no name here, so it does not compile: `__shared__` (use
 * CUDA_SHARED of worker/kernels/cuda/device.h), textures, cooperative groups, atomics on floats,
 * the approximate intrinsics (__expf, __fdividef, rsqrtf).
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_CUDA_RUNTIME_H
#define CLOISTER_TESTS_CUDA_EMULATION_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"

#ifndef __cplusplus
#error "kernels are C++; C includes <cuda_runtime_api.h>"
#endif

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>

/* Looked at by headers that serve host, nvcc and the emulation. */
#define CLOISTER_CUDA_EMULATION 1

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n)    __attribute__((aligned(n)))
#define __launch_bounds__(...)

/* --- Where a thread is --- */

/* Constant for a thread, so the compiler need not ask twice. */
__attribute__((const)) uint3 emu_thread_idx(void);
__attribute__((const)) uint3 emu_block_idx(void);
__attribute__((const)) uint3 emu_block_dim(void);
__attribute__((const)) uint3 emu_grid_dim(void);

#define threadIdx (emu_thread_idx())
#define blockIdx  (emu_block_idx())
#define blockDim  (emu_block_dim())
#define gridDim   (emu_grid_dim())

static constexpr int warpSize = 32;

/* --- Where in the source a thread waits --- */

struct emu_place {
    const char *file;
    int line;
};

static inline emu_place emu_here(const char *path, int line)
{
    const char *slash = strrchr(path, '/');
    return emu_place{slash != NULL ? slash + 1 : path, line};
}

/* As a defaulted argument: the caller's place. (Through a function, since GCC takes the builtins in
 * braces for the place of the braces.) */
#define EMU_HERE emu_here(__builtin_FILE(), __builtin_LINE())

/* --- Barriers --- */

enum emu_barrier_kind {
    EMU_BARRIER_PLAIN,
    EMU_BARRIER_COUNT,
    EMU_BARRIER_AND,
    EMU_BARRIER_OR,
};

/* Returns what the kind makes of all threads' predicates. */
int emu_barrier(enum emu_barrier_kind kind, int predicate, emu_place place);
void emu_warp_sync(uint32_t mask, emu_place place);

static inline void __syncthreads(emu_place place = EMU_HERE)
{
    emu_barrier(EMU_BARRIER_PLAIN, 0, place);
}

static inline int __syncthreads_count(int predicate, emu_place place = EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_COUNT, predicate, place);
}

static inline int __syncthreads_and(int predicate, emu_place place = EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_AND, predicate, place);
}

static inline int __syncthreads_or(int predicate, emu_place place = EMU_HERE)
{
    return emu_barrier(EMU_BARRIER_OR, predicate, place);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu, emu_place place = EMU_HERE)
{
    emu_warp_sync(mask, place);
}

/* Fences order memory on a device; threads here see each other's stores at once. They are no
 * barrier, and the race checker takes them for none. */
static inline void __threadfence(void)
{
    __asm__ volatile("" ::: "memory");
}

static inline void __threadfence_block(void)
{
    __asm__ volatile("" ::: "memory");
}

/* --- Shuffles and votes --- */

enum emu_shuffle_kind {
    EMU_SHUFFLE_INDEX,
    EMU_SHUFFLE_UP,
    EMU_SHUFFLE_DOWN,
    EMU_SHUFFLE_XOR,
};

enum emu_vote_kind {
    EMU_VOTE_BALLOT,
    EMU_VOTE_ALL,
    EMU_VOTE_ANY,
    EMU_VOTE_MATCH_ANY,
};

uint64_t emu_shuffle(enum emu_shuffle_kind kind, uint32_t mask, uint64_t value, int lane, int width,
                     emu_place place);
uint32_t emu_vote(enum emu_vote_kind kind, uint32_t mask, uint32_t value, emu_place place);

template <typename T>
static inline T emu_shuffle_of(enum emu_shuffle_kind kind, unsigned mask, T value, int lane,
                               int width, emu_place place)
{
    static_assert(std::is_arithmetic<T>::value && sizeof(T) >= 4,
                  "shuffles move 32 or 64 bits of a number");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = emu_shuffle(kind, mask, bits, lane, width, place);
    memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                            emu_place place = EMU_HERE)
{
    return emu_shuffle_of(EMU_SHUFFLE_INDEX, mask, value, lane, width, place);
}

template <typename T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                               emu_place place = EMU_HERE)
{
    return emu_shuffle_of(EMU_SHUFFLE_UP, mask, value, (int)delta, width, place);
}

template <typename T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                                 emu_place place = EMU_HERE)
{
    return emu_shuffle_of(EMU_SHUFFLE_DOWN, mask, value, (int)delta, width, place);
}

template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                                emu_place place = EMU_HERE)
{
    return emu_shuffle_of(EMU_SHUFFLE_XOR, mask, value, lanes, width, place);
}

static inline unsigned __ballot_sync(unsigned mask, int predicate, emu_place place = EMU_HERE)
{
    return emu_vote(EMU_VOTE_BALLOT, mask, predicate != 0, place);
}

static inline int __all_sync(unsigned mask, int predicate, emu_place place = EMU_HERE)
{
    return (int)emu_vote(EMU_VOTE_ALL, mask, predicate != 0, place);
}

static inline int __any_sync(unsigned mask, int predicate, emu_place place = EMU_HERE)
{
    return (int)emu_vote(EMU_VOTE_ANY, mask, predicate != 0, place);
}

static inline unsigned __match_any_sync(unsigned mask, unsigned value, emu_place place = EMU_HERE)
{
    return emu_vote(EMU_VOTE_MATCH_ANY, mask, value, place);
}

/* --- Loads, stores and atomics --- */

enum emu_access { EMU_ACCESS_READ = 0, EMU_ACCESS_WRITE = 1, EMU_ACCESS_ATOMIC = 2 };

/* Checked mode: the compiler tells the checks of every load and store. An access that it might
 * split is told of by the wrapper, as the one it is on a device, and the bytes are moved behind its
 * back. */
[[noreturn]] void emu_misaligned(const void *at, uint32_t size);
void emu_checked_touch(const void *at, uint32_t size, enum emu_access access);
void emu_checked_copy(void *to, const void *from, uint32_t size);

static __forceinline__ void emu_touch(const void *at, uint32_t size, enum emu_access access)
{
#ifdef __SANITIZE_THREAD__
    emu_checked_touch(at, size, access);
#else
    (void)access;
    if (__builtin_expect(((uintptr_t)at & (size - 1)) != 0, 0))
        emu_misaligned(at, size);
#endif
}

static __forceinline__ void emu_copy(void *to, const void *from, uint32_t size)
{
#ifdef __SANITIZE_THREAD__
    emu_checked_copy(to, from, size);
#else
    memcpy(to, from, size);
#endif
}

template <typename T> static inline T emu_load(const T *at)
{
    T value;
    emu_touch(at, sizeof value, EMU_ACCESS_READ);
    emu_copy(&value, at, sizeof value);
    return value;
}

template <typename T> static inline void emu_store(T *at, T value)
{
    emu_touch(at, sizeof value, EMU_ACCESS_WRITE);
    emu_copy(at, &value, sizeof value);
}

template <typename T> static inline T __ldg(const T *at)
{
    return emu_load(at);
}

template <typename T, typename F> static inline T emu_atomic(T *at, F next)
{
    static_assert(std::is_integral<T>::value && sizeof(T) >= 4, "atomics are on integers");
    T old;
    emu_touch(at, sizeof old, EMU_ACCESS_ATOMIC);
    emu_copy(&old, at, sizeof old);
    T value = next(old);
    emu_copy(at, &value, sizeof value);
    return old;
}

/* Deduces nothing from its argument: the word's type decides. */
template <typename T> struct emu_same {
    typedef T type;
};

template <typename T> static inline T atomicAdd(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return (T)(old + value); });
}

template <typename T> static inline T atomicSub(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return (T)(old - value); });
}

template <typename T> static inline T atomicMin(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return old < value ? old : value; });
}

template <typename T> static inline T atomicMax(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return old > value ? old : value; });
}

template <typename T> static inline T atomicAnd(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return (T)(old & value); });
}

template <typename T> static inline T atomicOr(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return (T)(old | value); });
}

template <typename T> static inline T atomicXor(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return (T)(old ^ value); });
}

template <typename T> static inline T atomicExch(T *at, typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T) { return value; });
}

template <typename T>
static inline T atomicCAS(T *at, typename emu_same<T>::type compare,
                          typename emu_same<T>::type value)
{
    return emu_atomic(at, [=](T old) { return old == compare ? value : old; });
}

/* Adds one, and wraps to 0 above `limit`. */
static inline unsigned atomicInc(unsigned *at, unsigned limit)
{
    return emu_atomic(at, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}

/* --- Arithmetic --- */

static inline uint32_t __float_as_uint(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float __uint_as_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline int __float_as_int(float x)
{
    return (int)__float_as_uint(x);
}

static inline float __int_as_float(int bits)
{
    return __uint_as_float((uint32_t)bits);
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fsub_rn(float a, float b)
{
    return a - b;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}

static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}

static inline float __int2float_rn(int a)
{
    return (float)a;
}

/* To the nearest, ties to even; saturates, and a NaN gives 0, as cvt.rni.s32.f32 does. */
static inline int __float2int_rn(float x)
{
    if (!(x == x))
        return 0;
    float r = rintf(x);
    return r >= 2147483648.0f ? INT32_MAX : r < -2147483648.0f ? INT32_MIN : (int)r;
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}

/* Byte i of the result is byte selector[4i .. 4i + 2] of the eight bytes y:x. */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t bytes = (uint64_t)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++)
        result |= (unsigned)(bytes >> (8 * (selector >> (4 * i) & 7u)) & 0xffu) << (8 * i);
    return result;
}

/* Sum of four products of bytes, and c; modulo 2^32. */
static inline int __dp4a(int a, int b, int c)
{
    uint32_t sum = (uint32_t)c;
    for (int i = 0; i < 32; i += 8)
        sum += (uint32_t)((int)(int8_t)((uint32_t)a >> i) * (int)(int8_t)((uint32_t)b >> i));
    return (int)sum;
}

static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
    for (int i = 0; i < 32; i += 8)
        c += (a >> i & 0xffu) * (b >> i & 0xffu);
    return c;
}

static inline int min(int a, int b)
{
    return a < b ? a : b;
}

static inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static inline int max(int a, int b)
{
    return a > b ? a : b;
}

static inline unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}

/* --- Shared memory --- */

/* One static array of a kernel (CUDA_SHARED); the object's address is what names it. */
struct emu_shared_array {
    uint32_t size;
    uint32_t align;
    const char *name;
};

void *emu_shared_static(const struct emu_shared_array *array);
void *emu_shared_dynamic(void);

/* --- Warp matrix instructions and asynchronous copies (device.h has the wrappers) --- */

/* Words of a lane's fragments, as PTX ISA, "Matrix Fragments for mma.m16n8k32 / m16n8k16" has them.
 */
void emu_mma_m16n8k32_s8(int32_t c[4], const uint32_t a[4], const uint32_t b[2], emu_place place);
void emu_mma_m16n8k16_s8(int32_t c[4], const uint32_t a[2], const uint32_t b[1], emu_place place);
/* `count` is 1, 2 or 4 matrices of 8 x 8 halves; `row` this lane's row address. */
void emu_ldmatrix_x4(uint32_t ret[4], const void *row, emu_place place);

/* 16 bytes to shared memory; with `valid` false the source is not read and zeros arrive. */
void emu_async_copy16(void *shared, const void *global, bool valid, emu_place place);
void emu_async_commit(void);
void emu_async_wait(int groups_pending);

[[noreturn]] void emu_trap(emu_place place);

static inline void __trap(emu_place place = EMU_HERE)
{
    emu_trap(place);
}

/* --- Launches (launch.h) --- */

/* What a launch needs to run later, and again from a graph: the arguments by value. */
struct emu_call {
    const char *kernel;   /* the kernel as the launch names it */
    const void *function; /* what cudaFuncSetAttribute knows it by */
    dim3 grid, block;
    size_t shared_bytes;
    const void *params; /* borrowed for the call, copied */
    uint32_t params_size;
    void (*invoke)(const void *params); /* runs one thread */
};

/* Queues the launch; what is wrong with it is for cudaGetLastError. */
void emu_launch(const struct emu_call *call, cudaStream_t stream);

template <typename... P, typename... A>
static inline void emu_launch_kernel(void (*kernel)(P...), const char *name, dim3 grid, dim3 block,
                                     size_t shared_bytes, cudaStream_t stream, A &&...args)
{
    struct params {
        void (*kernel)(P...);
        std::tuple<P...> args;
    };
    static_assert((std::is_trivially_copyable<P>::value && ...),
                  "a kernel's parameters are copied to the device byte by byte");
    params p = {kernel, std::tuple<P...>(static_cast<P>(args)...)};
    struct emu_call call = {};
    call.kernel = name;
    call.function = reinterpret_cast<const void *>(kernel);
    call.grid = grid;
    call.block = block;
    call.shared_bytes = shared_bytes;
    call.params = &p;
    call.params_size = sizeof p;
    call.invoke = [](const void *at) {
        const params *run = static_cast<const params *>(at);
        std::apply(run->kernel, run->args);
    };
    emu_launch(&call, stream);
}

#endif
