/*
 * gemv.h - a quantized matrix times a few columns: bound by reading the matrix once. C++ only,
 * included by the .cu files that have its instances.
 *
 * A block has a tile of 32 rows; its warps share out the leaves of the sum, which do not depend on
 * each other. Within a warp a lane has a row (Rows = 1), or 16 lanes have two rows each of one leaf
 * and the others of the next (Rows = 2): what comes from x is then used twice. A lane loads a chunk
 * of its row, up to 16 times 16 bytes, before it uses any of it: 9 KB of a warp are under way at
 * once.
 *
 * x is read where it is, through the first-level cache: all lanes of a leaf ask for the same 16
 * bytes. A copy in shared memory would be read just as often, and would have to be made anew by
 * every block.
 *
 * Leaves meet in shared memory, a round of them at a time in two buffers, so that one barrier a
 * round is enough. There warp c adds up column c: leaves ascending, groups by the tree.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_GEMV_H
#define CLOISTER_WORKER_KERNELS_CUDA_GEMV_H

#include "worker/kernels/cuda/products.h"
#include "worker/kernels/cuda/sum_tree.h"
#include "worker/kernels/cuda/weight_types.h"

#define GEMV_WARPS 8

/* What a lane works with: x, whose first block is number `lead` of the stored row, and the sums of
 * a leaf. A lane's rows are `apart` from each other. */
template <enum quant_type T, int Cols, int Rows> struct gemv_lane {
    using type = weight_type<T>;
    static constexpr uint32_t pieces = weight_pieces(type::layout);
    static constexpr uint32_t apart = WEIGHT_TILE_ROWS / Rows;
    /* Quads whose pieces a lane has in registers at once: 64 of them with one or two columns. */
    static constexpr uint32_t quads = Rows == 1 ? 2 : 1;
    /* Blocks that a multiprocessor should have room for: their warps hide each other's waits. */
    static constexpr int resident = Cols == 8 && type::has_half_mins ? 1
                                    : Cols > 1 || pieces == 8        ? 2
                                    : pieces > 4 || type::has_table  ? 3
                                                                     : 4;

    const struct cuda_act *x;
    uint32_t n;
    uint32_t lead;
    float acc[Rows][Cols];
};

/* Block b of the row, i of quad k that the lane has. */
template <enum quant_type T, int Cols, int Rows>
DEVICE_INLINE void gemv_block(struct gemv_lane<T, Cols, Rows> &s,
                              const uint4 (&piece)[Rows][gemv_lane<T, Cols, Rows>::pieces],
                              const struct weight_numbers (&numbers)[Rows], uint32_t b, uint32_t k,
                              uint32_t i)
{
    using type = weight_type<T>;
    using lane = gemv_lane<T, Cols, Rows>;
    constexpr uint32_t pieces = lane::pieces;
    constexpr uint32_t low_bits = type::layout.low_bits;
    uint32_t w[Rows][8];
    struct block_numbers of[Rows];
#pragma unroll
    for (int r = 0; r < Rows; r++) {
        const uint4 low = piece[r][low_bits == 8 ? 2 * i : low_bits == 4 ? i : i / 2];
        const uint4 low2 = piece[r][low_bits == 8 ? 2 * i + 1 : 0];
        const uint4 high = piece[r][type::layout.high_bits == 2 ? low_bits + i / 2 : pieces - 1];
#pragma unroll
        for (uint32_t t = 0; t < 4; t++) {
            const uint32_t high_word = word_of(high, type::layout.high_bits == 1 ? i : t);
            const struct quad_pair p =
                weight_quads<T>(word_of(low, t), word_of(low2, t), high_word, i, t);
            w[r][t] = p.first;
            w[r][4 + t] = p.second;
        }
        of[r] = weight_block<T>(
            numbers[r], lane::quads == 2 ? k * WEIGHT_QUAD_BLOCKS + i
                                         : b / WEIGHT_QUAD_BLOCKS % 2 * WEIGHT_QUAD_BLOCKS + i);
    }
#pragma unroll
    for (int c = 0; c < Cols; c++) {
        /* Columns past the last one repeat it, and are not stored. */
        const uint32_t column = min((uint32_t)c, s.n - 1);
        const uint32_t place = column * s.x->blocks + (b - s.lead);
        const int8_t *const q = s.x->q + (uint64_t)column * s.x->q_stride + (b - s.lead) * 32;
        const uint4 x0 = device_load16(q);
        const uint4 x1 = device_load16(q + 16);
        const uint32_t x[8] = {x0.x, x0.y, x0.z, x0.w, x1.x, x1.y, x1.z, x1.w};
        const float dx = s.x->scales[place];
        [[maybe_unused]] float sum = 0.0f;
        if constexpr (type::has_min && !type::has_half_mins)
            sum = s.x->sums[place];
        [[maybe_unused]] uint32_t pair = 0;
        if constexpr (type::has_half_mins)
            pair = (uint32_t)s.x->pairs[place];
#pragma unroll
        for (int r = 0; r < Rows; r++) {
            int32_t isum;
            if constexpr (type::has_halves) {
                int32_t first = 0, second = 0;
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    first = device_dp4a(w[r][t], x[t], first);
                    second = device_dp4a(w[r][4 + t], x[4 + t], second);
                }
                isum = of[r].scale[0] * first + (of[r].scale[1] * second + isum_start<T>());
            } else {
                isum = isum_start<T>();
#pragma unroll
                for (int t = 0; t < 8; t++)
                    isum = device_dp4a(w[r][t], x[t], isum);
            }
            s.acc[r][c] = fmaf(of[r].d * dx, isum_to_float<T>(isum), s.acc[r][c]);
            if constexpr (type::has_half_mins)
                sum = dx *
                      (float)(of[r].min[0] * (int16_t)pair + of[r].min[1] * (int16_t)(pair >> 16));
            if constexpr (type::has_min)
                s.acc[r][c] = fmaf(of[r].m, sum, s.acc[r][c]);
        }
    }
}

/* Those of blocks begin .. end - 1 that are among the `quads` quads from block `first` on. tile:
 * the row's begins there. */
template <enum quant_type T, int Cols, int Rows>
DEVICE_INLINE void gemv_span(struct gemv_lane<T, Cols, Rows> &s, const uint8_t *tile, uint32_t row,
                             uint32_t first, uint32_t begin, uint32_t end)
{
    using type = weight_type<T>;
    using lane = gemv_lane<T, Cols, Rows>;
    constexpr uint32_t pieces = lane::pieces, quads = lane::quads, apart = lane::apart;
    const uint8_t *at =
        tile + (uint64_t)(first / WEIGHT_CHUNK_BLOCKS) * weight_chunk_bytes(type::layout);
    struct weight_numbers numbers[Rows];
#pragma unroll
    for (int r = 0; r < Rows; r++)
        numbers[r] = weight_numbers_read<T, device_load16_once>(at, row + (uint32_t)r * apart);
    at += weight_numbers_bytes(type::layout) + row * 16;
    at += first % WEIGHT_CHUNK_BLOCKS / WEIGHT_QUAD_BLOCKS * weight_quad_bytes(type::layout);
    uint4 piece[quads][Rows][pieces];
#pragma unroll
    for (uint32_t k = 0; k < quads; k++) {
        const uint32_t quad = first + k * WEIGHT_QUAD_BLOCKS;
        if (quad >= end || quad + WEIGHT_QUAD_BLOCKS <= begin)
            continue;
#pragma unroll
        for (int r = 0; r < Rows; r++) {
#pragma unroll
            for (uint32_t p = 0; p < pieces; p++)
                piece[k][r][p] =
                    device_load16_once(at + k * weight_quad_bytes(type::layout) +
                                       p * WEIGHT_PIECE_BYTES + (uint32_t)r * apart * 16);
        }
    }
#pragma unroll
    for (uint32_t k = 0; k < quads; k++) {
#pragma unroll
        for (uint32_t i = 0; i < WEIGHT_QUAD_BLOCKS; i++) {
            const uint32_t b = first + k * WEIGHT_QUAD_BLOCKS + i;
            if (b >= begin && b < end)
                gemv_block<T, Cols, Rows>(s, piece[k], numbers, b, k, i);
        }
    }
}

template <enum quant_type T, int Cols, int Rows>
__global__ void __launch_bounds__(GEMV_WARPS * 32, gemv_lane<T, Cols, Rows>::resident)
    gemv_kernel(const struct cuda_products products)
{
    /* Leaves of a round, so many that rounds are few and the buffers stay below 32 KB. */
    constexpr uint32_t passes = 4 / (uint32_t)(Cols * Rows) > 0 ? 4 / (Cols * Rows) : 1;
    constexpr uint32_t slots = GEMV_WARPS * Rows * passes;
    constexpr uint32_t lanes = 32 / Rows; /* of a leaf */
    static_assert(Cols <= GEMV_WARPS, "a warp adds up each column");
    static_assert(2 * slots * Cols * 32 * sizeof(float) <= 32u << 10, "shared memory of a round");
    CUDA_SHARED(float, sums, 2 * slots * Cols * 32);
    /* Of each element; not in registers, which the loop over blocks wants for itself. */
    CUDA_SHARED(struct sum_groups, groups, Cols * 32);
    CUDA_SHARED(float, levels, Cols * 32 * SUM_TREE_LEVELS);

    uint32_t tile;
    const struct cuda_product &product = product_of(products, blockIdx.x, &tile);
    const uint8_t *const data = product.data + tile * product.stride;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t row = lane % lanes;

    struct gemv_lane<T, Cols, Rows> leaf;
    leaf.x = &products.x;
    leaf.n = products.n;
    leaf.lead = product.lead;

    const uint32_t element = warp * 32 + lane; /* below Cols * 32: that this thread adds up */
    if (warp < Cols)
        groups[element] = {0.0f, 0, 0};
    uint32_t node = 0;
    for (uint32_t round = 0; round * slots < product.n_leaves; round++) {
        float *const to = sums + (round & 1) * slots * Cols * 32;
        for (uint32_t pass = 0; pass < passes; pass++) {
            const uint32_t slot = (pass * GEMV_WARPS + warp) * Rows + lane / lanes;
            if (round * slots + slot >= product.n_leaves)
                break;
            uint32_t begin, end;
            product_leaf(product, round * slots + slot, &begin, &end);
#pragma unroll
            for (int r = 0; r < Rows; r++) {
#pragma unroll
                for (int c = 0; c < Cols; c++)
                    leaf.acc[r][c] = 0.0f;
            }
            constexpr uint32_t span = gemv_lane<T, Cols, Rows>::quads * WEIGHT_QUAD_BLOCKS;
            for (uint32_t first = begin & ~(span - 1); first < end; first += span)
                gemv_span<T, Cols, Rows>(leaf, data, row, first, begin, end);
#pragma unroll
            for (int r = 0; r < Rows; r++) {
#pragma unroll
                for (int c = 0; c < Cols; c++)
                    to[(slot * Cols + c) * 32 + row + (uint32_t)r * lanes] = leaf.acc[r][c];
            }
        }
        __syncthreads();
        if (warp >= products.n || warp >= Cols)
            continue;
        const uint32_t left = product.n_leaves - round * slots;
        for (uint32_t slot = 0; slot < left && slot < slots; slot++) {
            const uint32_t word = product.leaves[round * slots + slot];
            sum_groups_leaf(groups[element], levels + element, Cols * 32,
                            to[slot * Cols * 32 + element], word);
            if ((word & WEIGHT_LEAF_NODE_END) == 0)
                continue;
            const float sum = sum_groups_take(groups[element], levels + element, Cols * 32);
            product_store(product, node++, warp, tile * WEIGHT_TILE_ROWS + lane, sum);
        }
    }
}

/* Parts of a launch: tiles of all its products. */
static inline uint32_t gemv_parts(struct cuda_products *products)
{
    uint32_t parts = 0;
    for (uint32_t i = 0; i < products->count; i++) {
        products->of[i].first_part = parts;
        parts += weight_tiles(products->of[i].rows);
    }
    return parts;
}

template <enum quant_type T>
static struct cuda_launched gemv_launch(struct cuda_products *products, cudaStream_t stream)
{
    const uint32_t parts = gemv_parts(products);
    if (products->n == 1)
        return CUDA_LAUNCH((gemv_kernel<T, 1, 1>), parts, GEMV_WARPS * 32, 0, stream, *products);
    if (products->n == 2)
        return CUDA_LAUNCH((gemv_kernel<T, 2, 1>), parts, GEMV_WARPS * 32, 0, stream, *products);
    if (products->n <= 4)
        return CUDA_LAUNCH((gemv_kernel<T, 4, 2>), parts, GEMV_WARPS * 32, 0, stream, *products);
    return CUDA_LAUNCH((gemv_kernel<T, 8, 2>), parts, GEMV_WARPS * 32, 0, stream, *products);
}

#endif
