/* Matrices from the file's rows to tiles (weight_layout.h): a lane takes a row's chunk apart and
 * puts it together again. Reading single bytes is slow beside what kernels read otherwise, and fast
 * beside the bus that the bytes come over. */
#include "worker/kernels/cuda/products.h"
#include "worker/kernels/cuda/weight_types.h"
#include "worker/kernels/quant_raw_read.h"

#define PACK_WARPS 4

/* Sets `bits` of a word to a value that fits. */
DEVICE_INLINE void pack_bits(uint32_t &word, uint32_t value, uint32_t at)
{
    word |= value << at;
}

/* Block i of a quad, its 32 quants, to the words of the row's pieces. */
template <enum quant_type T, uint32_t Pieces>
DEVICE_INLINE void pack_quants(uint32_t (&piece)[Pieces][4], const uint8_t *q, uint32_t i)
{
    constexpr struct weight_layout layout = weight_type<T>::layout;
#pragma unroll
    for (uint32_t c = 0; c < 32; c++) {
        const uint32_t h = c / 16, t = c % 16 / 4, j = c % 4;
        const uint32_t two = 8 * j + 4 * (i % 2) + 2 * h; /* where a plane of 2 bits has it */
        const uint32_t high = (uint32_t)q[c] >> layout.low_bits % 8;
        if constexpr (layout.low_bits == 8)
            pack_bits(piece[2 * i + h][t], q[c], 8 * j);
        if constexpr (layout.low_bits == 4)
            pack_bits(piece[i][t], q[c] & 15u,
                      weight_type<T>::has_table ? 16 * h + 4 * j : 8 * j + 4 * h);
        if constexpr (layout.low_bits == 2)
            pack_bits(piece[i / 2][t], q[c] & 3u, two);
        if constexpr (layout.high_bits == 1)
            pack_bits(piece[layout.low_bits][i], high & 1u, 8 * j + 2 * t + h);
        if constexpr (layout.high_bits == 2)
            pack_bits(piece[layout.low_bits + i / 2][t], high & 3u, two);
    }
}

/* The numbers of block b of a chunk. */
template <enum quant_type T>
DEVICE_INLINE void pack_numbers(uint32_t (&wide)[8], uint32_t (&narrow)[2],
                                const struct quant_raw &raw, uint32_t b)
{
    const uint32_t s0 = (uint32_t)(int32_t)raw.scale[0], s1 = (uint32_t)(int32_t)raw.scale[1];
    if constexpr (T == QUANT_TYPE_Q4_K || T == QUANT_TYPE_Q5_K) {
        wide[0] = raw.d | (uint32_t)raw.m << 16;
        pack_bits(wide[1], s0 & 15u, 4 * b);
        pack_bits(wide[2], raw.min[0] & 15u, 4 * b);
        pack_bits(wide[3], s0 >> 4 & 3u, 2 * b);
        pack_bits(wide[3], (uint32_t)raw.min[0] >> 4, 16 + 2 * b);
    } else if constexpr (T == QUANT_TYPE_Q2_K) {
        narrow[0] = raw.d | (uint32_t)raw.m << 16;
        pack_bits(wide[b / 2], s0 | (uint32_t)raw.min[0] << 4, 16 * (b % 2));
        pack_bits(wide[b / 2], s1 | (uint32_t)raw.min[1] << 4, 16 * (b % 2) + 8);
    } else if constexpr (T == QUANT_TYPE_Q3_K) {
        wide[0] = raw.d;
        pack_bits(wide[1 + b / 4], (s0 + 32) & 15u, 8 * (b % 4));
        pack_bits(wide[1 + b / 4], (s1 + 32) & 15u, 8 * (b % 4) + 4);
        pack_bits(wide[3], (s0 + 32) >> 4 & 3u, 4 * b);
        pack_bits(wide[3], (s1 + 32) >> 4 & 3u, 4 * b + 2);
    } else if constexpr (T == QUANT_TYPE_Q6_K) {
        narrow[0] = raw.d;
        pack_bits(wide[b / 2], s0 & 255u, 16 * (b % 2));
        pack_bits(wide[b / 2], s1 & 255u, 16 * (b % 2) + 8);
    } else if constexpr (T == QUANT_TYPE_IQ4_XS) {
        narrow[0] |= raw.d;
        pack_bits(narrow[1], (s0 + 32) & 15u, 4 * b);
        pack_bits(narrow[0], (s0 + 32) >> 4 & 3u, 16 + 2 * b);
    } else if constexpr (T == QUANT_TYPE_MXFP4) {
        /* Back from bfloat16 to the exponent: 0 and 1 are subnormal. */
        const uint32_t e = raw.d < 0x80u ? raw.d >> 6 : (raw.d >> 7) + 1u;
        pack_bits(narrow[b / 4], e, 8 * (b % 4));
    } else {
        pack_bits(wide[b / 2], raw.d, 16 * (b % 2));
        if constexpr (weight_type<T>::has_min)
            pack_bits(wide[4 + b / 2], raw.m, 16 * (b % 2));
    }
}

template <enum quant_type T>
__global__ void __launch_bounds__(PACK_WARPS * 32)
    pack_kernel(const struct cuda_pack pack, uint32_t chunks, uint32_t items)
{
    constexpr struct weight_layout layout = weight_type<T>::layout;
    constexpr uint32_t pieces = weight_pieces(layout);
    const uint32_t item = blockIdx.x * PACK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= items)
        return;
    const uint32_t chunk = item % chunks, row = item / chunks * WEIGHT_TILE_ROWS + lane;
    const bool is_row = row < pack.count;
    const uint8_t *const file = pack.file + (is_row ? row : 0) * pack.row_bytes;
    uint8_t *const to = pack.tiles + (pack.first / WEIGHT_TILE_ROWS + item / chunks) * pack.stride +
                        (uint64_t)chunk * weight_chunk_bytes(layout);
    uint32_t wide[8] = {}, narrow[2] = {};
#pragma unroll
    for (uint32_t k = 0; k < 2; k++) {
        if (chunk * WEIGHT_CHUNK_BLOCKS + k * WEIGHT_QUAD_BLOCKS >= pack.blocks)
            break;
        uint32_t piece[pieces][4] = {};
#pragma unroll
        for (uint32_t i = 0; i < WEIGHT_QUAD_BLOCKS; i++) {
            const uint32_t b = k * WEIGHT_QUAD_BLOCKS + i;
            if (!is_row || chunk * WEIGHT_CHUNK_BLOCKS + b >= pack.blocks)
                continue;
            struct quant_raw raw;
            quant_raw_read(T, file, chunk * WEIGHT_CHUNK_BLOCKS + b, &raw);
            pack_quants<T, pieces>(piece, raw.q, i);
            pack_numbers<T>(wide, narrow, raw, b);
        }
        uint8_t *const quad = to + weight_numbers_bytes(layout) + k * weight_quad_bytes(layout);
#pragma unroll
        for (uint32_t p = 0; p < pieces; p++)
            device_store16(quad + p * WEIGHT_PIECE_BYTES + lane * 16,
                           uint4{piece[p][0], piece[p][1], piece[p][2], piece[p][3]});
    }
    if constexpr (layout.wide > 0)
        device_store16(to + lane * 16, uint4{wide[0], wide[1], wide[2], wide[3]});
    if constexpr (layout.wide > 1)
        device_store16(to + WEIGHT_PIECE_BYTES + lane * 16,
                       uint4{wide[4], wide[5], wide[6], wide[7]});
    uint8_t *const last = to + layout.wide * WEIGHT_PIECE_BYTES + lane * layout.narrow;
    if constexpr (layout.narrow == 2)
        *reinterpret_cast<uint16_t *>(last) = (uint16_t)narrow[0];
    if constexpr (layout.narrow == 4)
        *reinterpret_cast<uint32_t *>(last) = narrow[0];
    if constexpr (layout.narrow == 8)
        *reinterpret_cast<uint2 *>(last) = uint2{narrow[0], narrow[1]};
}

/* A thread writes the 16 bytes of a lane of a run. Elements are 2 or 4 bytes. */
template <typename Element>
__global__ void __launch_bounds__(PACK_WARPS * 32)
    pack_floats_kernel(const struct cuda_pack pack, uint32_t runs, uint32_t items)
{
    constexpr uint32_t elements = 16 / sizeof(Element);
    const uint32_t item = blockIdx.x * PACK_WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (item >= items)
        return;
    const uint32_t row = item / runs, run = item % runs;
    const Element *const file = reinterpret_cast<const Element *>(pack.file + row * pack.row_bytes);
    uint32_t words[4] = {};
#pragma unroll
    for (uint32_t i = 0; i < elements; i++) {
        const uint32_t column = (run * elements + i) * 32 + lane;
        const uint32_t element = column < pack.cols ? file[column] : 0u;
        words[i * sizeof(Element) / 4] |= element << (8 * (i * sizeof(Element) % 4));
    }
    device_store16(pack.tiles + (pack.first + row) * pack.stride +
                       (uint64_t)run * WEIGHT_RUN_BYTES + lane * 16,
                   uint4{words[0], words[1], words[2], words[3]});
}

template <enum quant_type T>
static struct cuda_launched pack_launch(const struct cuda_pack *pack, cudaStream_t stream)
{
    const uint32_t chunks = (pack->blocks + WEIGHT_CHUNK_BLOCKS - 1) / WEIGHT_CHUNK_BLOCKS;
    const uint32_t items = weight_tiles(pack->count) * chunks;
    return CUDA_LAUNCH((pack_kernel<T>), (items + PACK_WARPS - 1) / PACK_WARPS, PACK_WARPS * 32, 0,
                       stream, *pack, chunks, items);
}

template <enum quant_type T, typename Element>
static struct cuda_launched pack_floats_launch(const struct cuda_pack *pack, cudaStream_t stream)
{
    const uint32_t runs = (uint32_t)(weight_float_row_bytes(T, pack->cols) / WEIGHT_RUN_BYTES);
    const uint32_t items = pack->count * runs;
    return CUDA_LAUNCH((pack_floats_kernel<Element>), (items + PACK_WARPS - 1) / PACK_WARPS,
                       PACK_WARPS * 32, 0, stream, *pack, runs, items);
}

struct cuda_launched cuda_weight_pack(enum quant_type type, const struct cuda_pack *pack,
                                      cudaStream_t stream)
{
    switch (type) {
    case QUANT_TYPE_F32:
        return pack_floats_launch<QUANT_TYPE_F32, uint32_t>(pack, stream);
    case QUANT_TYPE_F16:
    case QUANT_TYPE_BF16:
        return pack_floats_launch<QUANT_TYPE_F16, uint16_t>(pack, stream);
#define PACK_TYPE(name)                                                                            \
    case QUANT_TYPE_##name:                                                                        \
        return pack_launch<QUANT_TYPE_##name>(pack, stream);
        CUDA_BLOCK_TYPES(PACK_TYPE)
        CUDA_SUPER_TYPES(PACK_TYPE)
    }
    return cuda_launched_no_type("pack_kernel");
}
