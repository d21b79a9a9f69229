/*
 * planted.cu - kernels with one mistake each, made where `broken` is true and left out where it is
 * not, so that it is the mistake that is found and nothing else. One launcher for all: planted.h
 * says what each is given.
 */
#include "tests/cuda_emulation/planted.h"

#include "worker/kernels/cuda/device.h"

#define ALL 0xffffffffu

struct planted {
    int *in;
    int *out;
    int *other;
    bool broken;
};

/* The sum of a block, without the barrier between writing and the first addition. */
static __global__ void barrier_removed(struct planted p)
{
    CUDA_SHARED(int, part, 64);
    unsigned t = threadIdx.x;
    part[t] = p.in[t];
    if (!p.broken)
        __syncthreads();
    if (t < 32)
        p.out[t] = part[t] + part[t + 32];
    else
        p.out[t] = 0;
}

/* A stage of shared memory is filled again while others may still read it. */
static __global__ void barrier_removed_before_refill(struct planted p)
{
    CUDA_SHARED(int, stage, 64);
    unsigned t = threadIdx.x;
    int sum = 0;
    for (int i = 0; i < 2; i++) {
        stage[t] = p.in[t] + i;
        __syncthreads();
        sum += stage[63 - t];
        if (!p.broken)
            __syncthreads();
    }
    p.out[t] = sum;
}

/* Lanes read what their neighbour wrote, without __syncwarp. */
static __global__ void syncwarp_removed(struct planted p)
{
    CUDA_SHARED(int, words, 64);
    unsigned t = threadIdx.x;
    words[t] = p.in[t];
    if (!p.broken)
        __syncwarp();
    p.out[t] = words[t ^ 1u];
}

/* The halves of the warp meet among themselves, and read across. */
static __global__ void syncwarp_of_half(struct planted p)
{
    CUDA_SHARED(int, words, 64);
    unsigned t = threadIdx.x;
    unsigned half = t % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
    words[t] = p.in[t];
    __syncwarp(p.broken ? half : ALL);
    p.out[t] = words[t ^ 16u];
}

static __global__ void index_past_end(struct planted p)
{
    unsigned t = threadIdx.x;
    p.out[p.broken ? t + 1 : t] = p.in[t];
}

static __global__ void index_before_begin(struct planted p)
{
    int t = (int)threadIdx.x;
    p.out[t] = p.in[p.broken ? t - 1 : t];
}

static __global__ void shared_index_past_end(struct planted p)
{
    CUDA_SHARED(int, words, 64);
    unsigned t = threadIdx.x;
    words[p.broken ? t + 1 : t] = p.in[t];
    p.out[t] = 0;
}

static __global__ void dynamic_shared_past_end(struct planted p)
{
    CUDA_SHARED_DYNAMIC(int, words);
    unsigned t = threadIdx.x;
    words[p.broken ? t + 1 : t] = p.in[t];
    p.out[t] = 0;
}

/* `other` was never written. */
static __global__ void uninitialised_global(struct planted p)
{
    unsigned t = threadIdx.x;
    if (!p.broken)
        p.other[t] = 0;
    p.out[t] = p.other[t];
}

static __global__ void uninitialised_shared(struct planted p)
{
    CUDA_SHARED(int, words, 64);
    unsigned t = threadIdx.x;
    if (!p.broken || t != 7)
        words[t] = p.in[t];
    __syncthreads();
    p.out[t] = words[63 - t];
}

static __global__ void shared_race(struct planted p)
{
    CUDA_SHARED(int, word, 2);
    unsigned t = threadIdx.x;
    if (p.broken ? t >= 62 : t == 62)
        word[0] = (int)t;
    __syncthreads();
    p.out[t] = word[0];
}

static __global__ void global_race(struct planted p)
{
    unsigned t = threadIdx.x;
    p.out[t] = (int)t;
    if (!p.broken)
        __syncthreads();
    if (t == 0)
        p.other[0] = p.out[40];
}

/* Two blocks write the same words. */
static __global__ void blocks_write(struct planted p)
{
    unsigned i = p.broken ? threadIdx.x : blockIdx.x * blockDim.x + threadIdx.x;
    p.out[i] = 1;
}

/* A block reads what another one writes. */
static __global__ void block_reads(struct planted p)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    p.out[i] = 1;
    p.other[i] = p.out[p.broken ? (i + 64) % 128 : i];
}

static __global__ void copy_not_waited_for(struct planted p)
{
    CUDA_SHARED(uint4, words, 64);
    unsigned t = threadIdx.x;
    device_async_copy16(&words[t], (const uint4 *)p.in + t % 16);
    device_async_commit();
    if (!p.broken)
        device_async_wait<0>();
    p.out[t] = (int)words[t].x;
}

/* The wait leaves the group that is read under way. */
static __global__ void copy_waited_for_too_little(struct planted p)
{
    CUDA_SHARED(uint4, words, 128);
    unsigned t = threadIdx.x;
    device_async_copy16(&words[t], (const uint4 *)p.in + t % 16);
    device_async_commit();
    device_async_copy16(&words[64 + t], (const uint4 *)p.in + t % 16);
    device_async_commit();
    if (p.broken)
        device_async_wait<1>();
    else
        device_async_wait<0>();
    p.out[t] = (int)words[64 + t].x;
    device_async_wait<0>();
}

/* A thread's own wait covers its own copies: others need a barrier behind it. */
static __global__ void copy_without_barrier(struct planted p)
{
    CUDA_SHARED(uint4, words, 64);
    unsigned t = threadIdx.x;
    device_async_copy16(&words[t], (const uint4 *)p.in + t % 16);
    device_async_commit();
    device_async_wait<0>();
    if (!p.broken)
        __syncthreads();
    p.out[t] = (int)words[63 - t].x;
}

static __global__ void exit_before_barrier(struct planted p)
{
    unsigned t = threadIdx.x;
    p.out[t] = 0;
    if (p.broken && t == 5)
        return;
    __syncthreads();
}

static __global__ void two_barriers(struct planted p)
{
    unsigned t = threadIdx.x;
    p.out[t] = 0;
    if (p.broken && t >= 32)
        __syncthreads();
    else
        __syncthreads();
    if (!p.broken)
        __syncthreads();
}

static __global__ void lane_exits(struct planted p)
{
    unsigned t = threadIdx.x;
    p.out[t] = 0;
    if (p.broken && t == 9)
        return;
    p.out[t] = __shfl_xor_sync(ALL, (int)t, 1);
}

static __global__ void lane_elsewhere(struct planted p)
{
    unsigned t = threadIdx.x;
    if (p.broken && t % 32 == 3)
        __syncthreads();
    p.out[t] = __shfl_down_sync(ALL, (int)t, 1);
    if (!p.broken || t % 32 != 3)
        __syncthreads();
}

static __global__ void lane_not_in_mask(struct planted p)
{
    unsigned t = threadIdx.x;
    unsigned low = p.broken ? 0x00007fffu : 0x0000ffffu;
    p.out[t] = 0;
    if (t % 32 < 16)
        p.out[t] = __shfl_xor_sync(low, (int)t, 1);
}

static __global__ void functions_differ(struct planted p)
{
    unsigned t = threadIdx.x;
    if (p.broken && t % 2 == 0)
        p.out[t] = (int)__ballot_sync(ALL, 1);
    else
        p.out[t] = __any_sync(ALL, 1);
}

static __global__ void masks_differ(struct planted p)
{
    unsigned t = threadIdx.x;
    unsigned mask = p.broken && t % 2 == 0 ? 0x55555555u : ALL;
    p.out[t] = (int)__ballot_sync(mask, 1);
}

static __global__ void vector_misaligned(struct planted p)
{
    unsigned t = threadIdx.x;
    const int *at = p.in + 4 * (t % 8) + (p.broken ? 1 : 0);
    p.out[t] = (int)device_load16(at).x;
}

static __global__ void word_misaligned(struct planted p)
{
    unsigned t = threadIdx.x;
    const char *at = (const char *)p.in + 4 * (t % 32) + (p.broken ? 2 : 0);
    p.out[t] = *(const int *)at;
}

/* An array of bytes need not lie where a vector may. */
static __global__ void shared_misaligned(struct planted p)
{
    CUDA_SHARED(uint8_t, bytes, 64 * 16);
    CUDA_SHARED(uint4, vectors, 64);
    unsigned t = threadIdx.x;
    const uint4 zero = {0, 0, 0, 0};
    device_store16(p.broken ? (void *)&bytes[16 * t] : (void *)&vectors[t], zero);
    p.out[t] = 0;
}

/* Without the wrapper: the compiler's own load of the struct. */
static __global__ void plain_vector_misaligned(struct planted p)
{
    unsigned t = threadIdx.x;
    const uint4 *at = (const uint4 *)(p.in + 4 * (t % 8) + (p.broken ? 1 : 0));
    const uint4 v = *at;
    p.out[t] = (int)(v.x + v.y + v.z + v.w);
}

static __global__ void copies_in(struct planted p)
{
    p.out[threadIdx.x] = p.in[threadIdx.x];
}

/* Depth that no compiler turns into a loop. */
static __attribute__((noinline)) int deep(int n, volatile int *at)
{
    volatile int room[1024];
    room[n % 1024] = n + at[0];
    return n == 0 ? room[0] : deep(n - 1, room) + room[n % 1024];
}

static __global__ void stack_used_up(struct planted p)
{
    volatile int start[1] = {0};
    p.out[threadIdx.x] = deep(p.broken ? 1000 : 3, start);
}

static __global__ void trapped(struct planted p)
{
    if (p.broken && threadIdx.x == 3)
        __trap();
    p.out[threadIdx.x] = 0;
}

struct cuda_launched launch_planted(const char *name, int *in, int *out, int *other, bool broken,
                                    cudaStream_t stream)
{
    const struct planted p = {in, out, other, broken};
    struct cuda_launched none = {cudaErrorInvalidDeviceFunction, name};
#define PLANTED(kernel, blocks)                                                                    \
    if (strcmp(name, #kernel) == 0)                                                                \
        return CUDA_LAUNCH(kernel, blocks, 64, 64 * sizeof(int), stream, p);
    PLANTED_KERNELS(PLANTED)
#undef PLANTED
    return none;
}
