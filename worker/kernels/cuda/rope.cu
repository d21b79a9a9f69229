/*
 * rope.cu - heads of q and k are normed where there are gains, and turned; k and v go into the
 * cache.
 *
 * A warp has one head of one row: it stands in shared memory while it is worked on. Bound by memory
 * and by the launch: a step of one row moves some 50 KB a layer. A row of V is stored in pieces of
 * 2 bytes (kv_layout.h), which the second-level cache puts together with those of the neighbouring
 * positions.
 */
#include "worker/kernels/cuda/kernels.h"
#include "worker/kernels/cuda/quantize.h"

#define ROPE_WARPS   4
#define ROPE_DIM_MAX 512u

/* RMSNorm of the head: 16 chains by index, halving tree. */
DEVICE_INLINE void rope_norm(float *head, uint32_t dim, const float *gain, float eps)
{
    const uint32_t lane = threadIdx.x % 32;
    float sum = 0.0f;
    if (lane < 16) {
        for (uint32_t d = lane; d < dim; d += 16)
            sum = fmaf(head[d], head[d], sum);
    }
    for (int step = 8; step > 0; step /= 2)
        sum = sum + __shfl_xor_sync(0xffffffffu, sum, step);
    sum = __shfl_sync(0xffffffffu, sum, 0);
    const float r = 1.0f / sqrtf(sum / (float)dim + eps);
    __syncwarp(); /* the squares have been read */
    for (uint32_t d = lane; d < dim; d += 32)
        head[d] = head[d] * r * gain[d];
    __syncwarp();
}

/* (x, y) becomes (fmaf(x, cos, -(y * sin)), fmaf(y, cos, x * sin)). */
DEVICE_INLINE void rope_turn(float *head, const float *table, uint32_t rope_dim, bool halves)
{
    const uint32_t pairs = rope_dim / 2;
    for (uint32_t i = threadIdx.x % 32; i < pairs; i += 32) {
        const uint32_t at_x = halves ? i : 2 * i;
        const uint32_t at_y = halves ? i + pairs : 2 * i + 1;
        const float cosine = table[2 * i];
        const float sine = table[2 * i + 1];
        const float x = head[at_x];
        const float y = head[at_y];
        head[at_x] = fmaf(x, cosine, -(y * sine));
        head[at_y] = fmaf(y, cosine, x * sine);
    }
    __syncwarp();
}

/* A head's values into their cells. */
DEVICE_INLINE void rope_cache(const struct cuda_kv &kv, uint8_t *head, uint32_t slot, bool is_v,
                              const float *x)
{
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t dim = is_v ? kv.dim_v : kv.dim_k;
    uint8_t *cells = is_v ? head + kv.v_at : head;
    if (!kv.is_q8) {
        for (uint32_t d = lane; d < dim; d += 32) {
            const uint32_t at = is_v ? cuda_kv_v_cell(d, slot, 8, dim) : cuda_kv_k_cell(d, slot, 8);
            *reinterpret_cast<uint16_t *>(cells + at) = device_half_from_float(x[d]);
        }
        return;
    }
    float *scales = reinterpret_cast<float *>(head + (is_v ? kv.v_scales_at : kv.k_scales_at));
    for (uint32_t block = 0; block < dim / 32; block++) {
        const uint32_t d = block * 32 + lane;
        float scale;
        const int32_t q = quantize_lanes(x[d], &scale);
        const uint32_t at = is_v ? cuda_kv_v_cell(d, slot, 16, dim) : cuda_kv_k_cell(d, slot, 16);
        cells[at] = (uint8_t)q;
        if (lane == 0)
            scales[block * CUDA_KV_POSITIONS + slot] = scale;
    }
}

__global__ void __launch_bounds__(ROPE_WARPS * 32) rope_kv(struct cuda_rope r)
{
    CUDA_SHARED(float, heads, ROPE_WARPS *ROPE_DIM_MAX);
    float *head = heads + threadIdx.x / 32 * ROPE_DIM_MAX;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t item = blockIdx.y * ROPE_WARPS + threadIdx.x / 32;
    const uint32_t n_kv = r.kv.n_kv_heads;
    if (item >= r.n_heads + 2 * n_kv)
        return;
    const bool is_q = item < r.n_heads;
    const bool is_v = item >= r.n_heads + n_kv;
    const uint32_t h = is_q ? item : (item - r.n_heads) % n_kv;
    const uint32_t dim = is_v ? r.kv.dim_v : r.kv.dim_k;
    const size_t at = ((size_t)blockIdx.x * (is_q ? r.n_heads : n_kv) + h) * dim;
    const float *from = is_q ? r.q + at : is_v ? r.v + at : r.k + at;
    const uint32_t row = r.rows.first + blockIdx.x;

    for (uint32_t d = lane; d < dim; d += 32)
        head[d] = from[d];
    __syncwarp();
    if (!is_v) {
        const float *gain = is_q ? r.q_norm : r.k_norm;
        if (gain != NULL)
            rope_norm(head, dim, gain, r.norm_eps);
        rope_turn(head, r.table + (size_t)row * r.rope_dim, r.rope_dim, r.halves);
        float *to = is_q ? r.q + at : r.k + at;
        for (uint32_t d = lane; d < dim; d += 32)
            to[d] = head[d];
    }
    if (is_q)
        return;
    const struct cuda_row where = r.rows.row[row];
    const uint32_t page = r.rows.pages[where.pages_at + where.position / CUDA_KV_POSITIONS];
    rope_cache(r.kv, cuda_kv_head(&r.kv, page, h), where.position % CUDA_KV_POSITIONS, is_v, head);
}

extern "C" struct cuda_launched cuda_launch_rope(cudaStream_t stream, const struct cuda_rope *rope)
{
    const uint32_t items = rope->n_heads + 2 * rope->kv.n_kv_heads;
    return CUDA_LAUNCH(rope_kv, dim3(rope->rows.count, (items + ROPE_WARPS - 1) / ROPE_WARPS),
                       dim3(ROPE_WARPS * 32), 0, stream, *rope);
}
