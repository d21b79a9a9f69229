/* Rows of a matrix as floats: (d * scale) * q + m * min, times the caller's scale. Each step but
 * the last two is exact. */
#include "worker/kernels/cuda/products.h"
#include "worker/kernels/cuda/weight_types.h"

#define EMBED_THREADS 128

/* A quad's four values from four signed bytes, with the numbers of its half. */
template <enum quant_type T>
DEVICE_INLINE float4 embed_quad(uint32_t quad, const struct block_numbers &n, uint32_t half,
                                float scale)
{
    using type = weight_type<T>;
    float v[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int32_t q = (int8_t)(quad >> (8 * j)) >> type::shift;
        v[j] = n.d * (float)n.scale[half] * (float)q;
        if constexpr (type::has_min)
            v[j] = v[j] + (type::has_half_mins ? n.m * (float)n.min[half] : n.m);
        v[j] = v[j] * scale;
    }
    return float4{v[0], v[1], v[2], v[3]};
}

/* A thread has word t of a block: two quads. */
template <enum quant_type T>
__global__ void __launch_bounds__(EMBED_THREADS) embed_kernel(const struct cuda_embed embed)
{
    constexpr struct weight_layout layout = weight_type<T>::layout;
    const uint32_t word = blockIdx.y * EMBED_THREADS + threadIdx.x, t = word % 4;
    if (word / 4 >= embed.cols / 32)
        return;
    const uint32_t id = (uint32_t)embed.ids[blockIdx.x];
    const uint32_t block = embed.lead + word / 4;
    const uint32_t b = block % WEIGHT_CHUNK_BLOCKS, i = block % WEIGHT_QUAD_BLOCKS;
    const uint8_t *const chunk =
        embed.data + id / WEIGHT_TILE_ROWS * embed.stride +
        (uint64_t)(block / WEIGHT_CHUNK_BLOCKS) * weight_chunk_bytes(layout);
    const uint32_t row = id % WEIGHT_TILE_ROWS;
    const uint32_t *const words = reinterpret_cast<const uint32_t *>(
        chunk + weight_numbers_bytes(layout) + b / WEIGHT_QUAD_BLOCKS * weight_quad_bytes(layout) +
        row * 16);
    constexpr uint32_t piece = WEIGHT_PIECE_BYTES / 4;
    uint32_t low = words[(layout.low_bits == 8   ? 2 * i
                          : layout.low_bits == 4 ? i
                                                 : i / 2) *
                             piece +
                         t];
    uint32_t low2 = 0, high = 0;
    if constexpr (layout.low_bits == 8)
        low2 = words[(2 * i + 1) * piece + t];
    if constexpr (layout.high_bits == 1)
        high = words[layout.low_bits * piece + i];
    if constexpr (layout.high_bits == 2)
        high = words[(layout.low_bits + i / 2) * piece + t];
    const struct quad_pair p = weight_quads<T>(low, low2, high, i, t);
    const struct block_numbers n =
        weight_block<T>(weight_numbers_read<T, device_load16>(chunk, row), b);
    float *const out = embed.out + (uint64_t)blockIdx.x * embed.cols + word / 4 * 32 + t * 4;
    *reinterpret_cast<float4 *>(out) = embed_quad<T>(p.first, n, 0, embed.scale);
    *reinterpret_cast<float4 *>(out + 16) = embed_quad<T>(p.second, n, 1, embed.scale);
}

template <enum quant_type T>
__global__ void __launch_bounds__(EMBED_THREADS) embed_floats_kernel(const struct cuda_embed embed)
{
    constexpr uint32_t bytes = weight_float_bytes(T), blocks = weight_run_cols(T) / 32;
    const uint32_t column = blockIdx.y * EMBED_THREADS + threadIdx.x;
    if (column >= embed.cols)
        return;
    const uint32_t block = column / 32, lane = column % 32;
    const uint8_t *const at =
        embed.data + (uint64_t)(uint32_t)embed.ids[blockIdx.x] * embed.stride +
        (uint64_t)(block / blocks) * WEIGHT_RUN_BYTES + lane * 16 + block % blocks * bytes;
    float v;
    if constexpr (T == QUANT_TYPE_F32)
        v = *reinterpret_cast<const float *>(at);
    else if constexpr (T == QUANT_TYPE_F16)
        v = device_half_to_float(*reinterpret_cast<const uint16_t *>(at));
    else
        v = __uint_as_float((uint32_t) * reinterpret_cast<const uint16_t *>(at) << 16);
    embed.out[(uint64_t)blockIdx.x * embed.cols + column] = v * embed.scale;
}

struct cuda_launched cuda_weight_embed(enum quant_type type, const struct cuda_embed *embed,
                                       cudaStream_t stream)
{
    const uint32_t floats = weight_float_bytes(type);
    const uint32_t threads = floats > 0 ? embed->cols : embed->cols / 8;
    const dim3 grid(embed->n, (threads + EMBED_THREADS - 1) / EMBED_THREADS);
    switch (type) {
    case QUANT_TYPE_F32:
        return CUDA_LAUNCH((embed_floats_kernel<QUANT_TYPE_F32>), grid, EMBED_THREADS, 0, stream,
                           *embed);
    case QUANT_TYPE_F16:
        return CUDA_LAUNCH((embed_floats_kernel<QUANT_TYPE_F16>), grid, EMBED_THREADS, 0, stream,
                           *embed);
    case QUANT_TYPE_BF16:
        return CUDA_LAUNCH((embed_floats_kernel<QUANT_TYPE_BF16>), grid, EMBED_THREADS, 0, stream,
                           *embed);
#define EMBED_TYPE(name)                                                                           \
    case QUANT_TYPE_##name:                                                                        \
        return CUDA_LAUNCH((embed_kernel<QUANT_TYPE_##name>), grid, EMBED_THREADS, 0, stream,      \
                           *embed);
        CUDA_BLOCK_TYPES(EMBED_TYPE)
        CUDA_SUPER_TYPES(EMBED_TYPE)
    }
    return cuda_launched_no_type("embed_kernel");
}
