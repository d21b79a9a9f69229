/*
 * pick.cu - what a row of logits is drawn by, found where the row is: a kilobyte goes to the host,
 * or four bytes of it are looked at, and not the 512 KB of a vocabulary of 128 K.
 *
 * A block has a row, which it reads once for the greatest logit, and once more for what depends on
 * z. Which ids are first is decided in three steps:
 *   - a thread's own greatest is a z that one id reaches, so that the k-th greatest of the threads'
 *     is one that k ids reach, and not many more;
 *   - ids that reach it are put together, in any order;
 *   - each of these counts how many come before it: fewer than k, and it is one of the first.
 * Nothing depends on who came first: sums are of whole numbers, and every comparison has the id for
 * equals.
 */
#include "worker/kernels/cuda/device.h"
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/sample_math.h"

#include <float.h>

#define PICK_THREADS 512
#define PICK_WARPS   (PICK_THREADS / 32)
#define PICK_EACH    8    /* of a thread: loads under way together */
#define PICK_NEAR    1024 /* ids that may be among the first */

static_assert(PICK_LIST_MAX <= PICK_THREADS, "so many threads have a greatest");

/* By value, ties by id: the greatest logit, or the greatest sum of z and noise. */
struct pick_best {
    float value;
    uint32_t id;
};

/* Comparisons with a NaN are false: it is never better. */
DEVICE_INLINE void pick_take(struct pick_best &of, float value, uint32_t id)
{
    if (value > of.value || (value == of.value && id < of.id)) {
        of.value = value;
        of.id = id;
    }
}

DEVICE_INLINE void pick_best_of_warp(struct pick_best &of)
{
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        const float value = __shfl_xor_sync(0xffffffffu, of.value, step);
        const uint32_t id = __shfl_xor_sync(0xffffffffu, of.id, step);
        pick_take(of, value, id);
    }
}

struct pick_shared {
    float value[PICK_WARPS];
    uint32_t id[PICK_WARPS];
    uint64_t mass[PICK_WARPS];
    float greatest[PICK_THREADS]; /* z of each thread's own */
    float near_z[PICK_NEAR];
    uint32_t near_id[PICK_NEAR];
    uint32_t is_first[PICK_NEAR];
    float cut;
    uint32_t n_near;
};

/* The best of all threads, to all of them. Ends with a barrier before the next use of `s`. */
DEVICE_INLINE struct pick_best pick_best_of_block(struct pick_shared &s, struct pick_best of)
{
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    pick_best_of_warp(of);
    if (lane == 0) {
        s.value[warp] = of.value;
        s.id[warp] = of.id;
    }
    __syncthreads();
    of.value = lane < PICK_WARPS ? s.value[lane] : -INFINITY;
    of.id = lane < PICK_WARPS ? s.id[lane] : UINT32_MAX;
    pick_best_of_warp(of);
    __syncthreads();
    return of;
}

/* A thread's next PICK_EACH logits: id from + i * PICK_THREADS has value[i]. */
DEVICE_INLINE void pick_load(const float *row, uint32_t cols, uint32_t from, float value[PICK_EACH])
{
#pragma unroll
    for (uint32_t i = 0; i < PICK_EACH; i++) {
        const uint32_t at = from + i * PICK_THREADS;
        value[i] = at < cols ? row[at] : -INFINITY;
    }
}

/* A thread's own greatest logit and its lowest id. */
DEVICE_INLINE struct pick_best pick_greatest(const float *row, uint32_t cols)
{
    /* -infinity is no better than this: id 0 where there is nothing else. */
    struct pick_best of = {-INFINITY, 0};
    for (uint32_t from = threadIdx.x; from < cols; from += PICK_THREADS * PICK_EACH) {
        float value[PICK_EACH];
        pick_load(row, cols, from, value);
#pragma unroll
        for (uint32_t i = 0; i < PICK_EACH; i++)
            pick_take(of, value[i] > FLT_MAX ? FLT_MAX : value[i], from + i * PICK_THREADS);
    }
    return of;
}

/* Four neighbouring ids have one random number between them (philox_token_word). */
DEVICE_INLINE void pick_draw_four(const struct pick &pick, const float *row, uint32_t cols,
                                  uint32_t first, float greatest, struct pick_best &of)
{
    float z[4], most = -INFINITY;
    if (cols % 4 == 0) { /* rows begin at a multiple of 16 bytes */
        const uint4 bits = device_load16(row + first);
        z[0] = half_bits_float(bits.x);
        z[1] = half_bits_float(bits.y);
        z[2] = half_bits_float(bits.z);
        z[3] = half_bits_float(bits.w);
    } else {
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            z[i] = first + i < cols ? row[first + i] : -INFINITY;
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        z[i] = sample_z(z[i], greatest, pick.temperature);
        most = z[i] > most ? z[i] : most;
    }
    /* Noise cannot make a winner of it. -infinity is no candidate. */
    if (most == -INFINITY || !(most + SAMPLE_GUMBEL_MAX >= of.value))
        return;
    const uint32_t counter[4] = {first >> 2, pick.position, 0, 0};
    const uint32_t key[2] = {(uint32_t)pick.seed, (uint32_t)(pick.seed >> 32)};
    uint32_t words[4];
    philox4x32(counter, key, words);
#pragma unroll
    for (uint32_t i = 0; i < 4; i++) {
        if (z[i] == -INFINITY || !(z[i] + sample_gumbel_bound(words[i]) >= of.value))
            continue;
        if (pick.min_p > 0.0f && !(nm_exp(z[i]) >= pick.min_p))
            continue;
        pick_take(of, z[i] + nm_gumbel(words[i]), first + i);
    }
}

DEVICE_INLINE struct pick_best pick_draw(struct pick_shared &s, const struct pick &pick,
                                         const float *row, uint32_t cols, struct pick_best greatest)
{
    /* The greatest may always be drawn, and is a good sum to beat. */
    struct pick_best of = {nm_token_gumbel(pick.seed, pick.position, greatest.id), greatest.id};
    for (uint32_t first = 4 * threadIdx.x; first < cols; first += 4 * PICK_THREADS)
        pick_draw_four(pick, row, cols, first, greatest.value, of);
    return pick_best_of_block(s, of);
}

/* A z that at least `count` ids reach, where so many are above -infinity. */
DEVICE_INLINE float pick_reached(struct pick_shared &s, float own_z, uint32_t count)
{
    uint32_t before = 0;

    s.greatest[threadIdx.x] = own_z;
    if (threadIdx.x == 0)
        s.n_near = 0;
    __syncthreads();
#pragma unroll 8
    for (uint32_t i = 0; i < PICK_THREADS; i++) {
        const float z = s.greatest[i];
        before += z > own_z || (z == own_z && i < threadIdx.x);
    }
    if (before == count - 1)
        s.cut = own_z;
    __syncthreads();
    return s.cut;
}

/* Those that reach the cut, and the masses of all. */
DEVICE_INLINE void pick_near(struct pick_shared &s, const struct pick &pick, const float *row,
                             uint32_t cols, float greatest, float cut)
{
    uint64_t mass = 0;

    for (uint32_t from = threadIdx.x; from < cols; from += PICK_THREADS * PICK_EACH) {
        float z[PICK_EACH];
        pick_load(row, cols, from, z);
#pragma unroll
        for (uint32_t i = 0; i < PICK_EACH; i++) {
            z[i] = sample_z(z[i], greatest, pick.temperature);
            if (pick.with_mass != 0 && z[i] >= SAMPLE_MASS_Z_MIN)
                mass += sample_mass(z[i]);
            if (!(z[i] >= cut) || z[i] == -INFINITY)
                continue;
            const uint32_t at = atomicAdd(&s.n_near, 1u);
            if (at < PICK_NEAR) {
                s.near_z[at] = z[i];
                s.near_id[at] = from + i * PICK_THREADS;
            }
        }
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        mass += __shfl_xor_sync(0xffffffffu, mass, step);
    if (threadIdx.x % 32 == 0)
        s.mass[threadIdx.x / 32] = mass;
    __syncthreads();
}

/* Of those near, the first `count`, by ascending id. */
DEVICE_INLINE void pick_first(struct pick_shared &s, uint32_t count, struct picked *picked)
{
    const uint32_t n = s.n_near;

    for (uint32_t own = threadIdx.x; own < n; own += PICK_THREADS) {
        const float z = s.near_z[own];
        const uint32_t id = s.near_id[own];
        uint32_t before = 0;
        for (uint32_t i = 0; i < n; i++)
            before += s.near_z[i] > z || (s.near_z[i] == z && s.near_id[i] < id);
        s.is_first[own] = before < count;
    }
    __syncthreads();
    for (uint32_t own = threadIdx.x; own < n; own += PICK_THREADS) {
        const uint32_t id = s.near_id[own];
        uint32_t before = 0;
        for (uint32_t i = 0; i < n; i++)
            before += s.is_first[i] != 0 && s.near_id[i] < id;
        if (s.is_first[own] == 0)
            continue;
        picked->ids[before] = id;
        picked->z[before] = s.near_z[own];
    }
    if (threadIdx.x == 0)
        picked->n = n < count ? n : count;
}

DEVICE_INLINE void pick_list(struct pick_shared &s, const struct pick &pick, const float *row,
                             uint32_t cols, float own, float greatest, struct picked *picked)
{
    const float cut = pick_reached(s, sample_z(own, greatest, pick.temperature), pick.count);
    pick_near(s, pick, row, cols, greatest, cut);
    if (threadIdx.x == 0) {
        uint64_t mass = 0;
        for (uint32_t i = 0; i < PICK_WARPS; i++)
            mass += s.mass[i];
        picked->mass = mass;
    }
    if (s.n_near <= PICK_NEAR)
        pick_first(s, pick.count, picked);
    else if (threadIdx.x == 0)
        picked->n = PICKED_MANY;
}

__global__ void __launch_bounds__(PICK_THREADS)
    pick_kernel(const float *x, uint32_t cols, const struct pick *picks, struct picked *picked)
{
    CUDA_SHARED(struct pick_shared, shared, 1);
    struct pick_shared &s = shared[0];
    const struct pick pick = picks[blockIdx.x];
    struct picked *const to = picked + blockIdx.x;
    const float *const row = x + (size_t)blockIdx.x * cols;

    if (pick.kind == PICK_ROW)
        return;
    const struct pick_best own = pick_greatest(row, cols);
    struct pick_best of = pick_best_of_block(s, own);
    if (pick.kind == PICK_DRAW && of.value > -INFINITY)
        of = pick_draw(s, pick, row, cols, of);
    if (pick.kind == PICK_LIST && of.value > -INFINITY) {
        pick_list(s, pick, row, cols, own.value, of.value, to);
    } else if (threadIdx.x == 0) {
        to->id = of.id;
        to->n = 0;
    }
}

extern "C" struct cuda_launched cuda_launch_pick(cudaStream_t stream, const float *x, uint32_t n,
                                                 uint32_t cols, const struct pick *picks,
                                                 struct picked *picked)
{
    return CUDA_LAUNCH(pick_kernel, dim3(n), dim3(PICK_THREADS), 0, stream, x, cols, picks, picked);
}
