/*
 * gemm.h - a quantized matrix times many columns, with mma.m16n8k32 (m16n8k16 where a scale serves
 * 16 columns). C++ only, included by the .cu files that have its instances.
 *
 * A block makes a tile of the result, Rows of the matrix x Cols columns of x, a warp a part of it.
 * Along K a step is a quad of 4 blocks: its quants and its chunk's numbers as they lie in memory,
 * and x of the same columns, wait in shared memory for their turn, Stages - 1 steps ahead
 * (cp.async). Nothing is unpacked there: a lane reads the word that has both its fragments of a row
 * (weight_layout.h), and takes it apart in registers, once for all columns of its warp. The numbers
 * of a step become floats once per warp, each by one lane, in a corner of shared memory of its own.
 *
 * After each block's mma its sums go into acc with the fmaf that the definition has
 * (docs/numerics.md): per element a subtraction (isum_to_float), a product, a fmaf, one more for
 * types with a minimum. That is what bounds the kernel, not the mma: 128 results of an mma over
 * 4,096 products cost 384 operations of plain floats.
 *
 * acc is a leaf's. The sum of its group, and of groups that wait for their turn in the tree, are in
 * local memory, which is touched once a leaf, and spares 32 registers: two blocks of the large tile
 * have room on a multiprocessor.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_GEMM_H
#define CLOISTER_WORKER_KERNELS_CUDA_GEMM_H

#include "worker/kernels/cuda/products.h"
#include "worker/kernels/cuda/sum_tree.h"
#include "worker/kernels/cuda/weight_types.h"

/* A tile and how it is shared out: WarpRows x WarpCols of it to a warp. */
template <uint32_t Rows_, uint32_t Cols_, uint32_t WarpRows_, uint32_t WarpCols_, uint32_t Stages_,
          uint32_t Resident_>
struct gemm_tile {
    static constexpr uint32_t rows = Rows_, cols = Cols_;
    static constexpr uint32_t warp_rows = WarpRows_, warp_cols = WarpCols_;
    static constexpr uint32_t stages = Stages_;
    static constexpr uint32_t resident = Resident_; /* blocks of a multiprocessor */
    static constexpr uint32_t warps_down = rows / warp_rows;
    static constexpr uint32_t threads = warps_down * (cols / warp_cols) * 32;
    static_assert(rows % WEIGHT_TILE_ROWS == 0, "whole tiles of the matrix");
    static_assert(warp_rows == 32 || warp_rows == 16, "a lane makes the numbers of a row");
    static_assert(warp_cols % 16 == 0, "ldmatrix brings 16 columns of x");
    static_assert(cols * WEIGHT_QUAD_BLOCKS % threads == 0 || cols * WEIGHT_QUAD_BLOCKS <= threads,
                  "a scale of x, or some, for each thread");
};

/* What lies where in a stage of shared memory, and behind all stages. */
template <enum quant_type T, typename Tile> struct gemm_shared {
    using type = weight_type<T>;
    static constexpr uint32_t numbers = weight_numbers_bytes(type::layout);
    static constexpr uint32_t quad = weight_quad_bytes(type::layout);
    /* Per 32 rows of the matrix: numbers, then the quad. */
    static constexpr uint32_t weights = numbers + quad;
    /* [block][half][column][16] bytes of x: 8 columns are 128 bytes, as ldmatrix wants them. Planes
     * are 16 bytes longer, so that what 8 threads bring of a column goes to different banks. */
    static constexpr uint32_t x_at = Tile::rows / WEIGHT_TILE_ROWS * weights;
    static constexpr uint32_t x_plane = Tile::cols * 16 + 16;
    /* [block][column] dx, then, where the type has a minimum, what goes with it; planes longer by 8
     * for the same reason. */
    static constexpr uint32_t scales_at = x_at + 2 * WEIGHT_QUAD_BLOCKS * x_plane;
    static constexpr uint32_t scale_plane = Tile::cols + 8;
    static constexpr uint32_t scales = WEIGHT_QUAD_BLOCKS * scale_plane * 4;
    static constexpr uint32_t stage = scales_at + (type::has_min ? 2 : 1) * scales;
    /* A warp's [field][block][row] numbers of the step. */
    static constexpr uint32_t fields =
        1 + (type::has_min ? 1 : 0) + (type::has_halves ? 1 : 0) + (type::has_half_mins ? 1 : 0);
    static constexpr uint32_t warp = fields * WEIGHT_QUAD_BLOCKS * Tile::warp_rows * 4;
    static constexpr uint32_t warps_at = Tile::stages * stage;
    static constexpr uint32_t bytes = warps_at + Tile::threads / 32 * warp;
    static_assert(stage % 16 == 0 && x_at % 16 == 0,
                  "cp.async brings 16 bytes to a multiple of 16");
    static_assert(bytes <= 99u << 10, "a block of compute capability 8.9 and 12.0 has 99 KB");
};

/* Walks the steps of a row: quads that a leaf has blocks of. */
struct gemm_walk {
    uint32_t leaf;
    uint32_t begin, end; /* of the leaf */
    uint32_t quad;       /* first block */
};

DEVICE_INLINE void gemm_walk_leaf(struct gemm_walk &w, const struct cuda_product &product)
{
    if (w.leaf >= product.n_leaves)
        return;
    product_leaf(product, w.leaf, &w.begin, &w.end);
    w.quad = w.begin & ~(WEIGHT_QUAD_BLOCKS - 1);
}

DEVICE_INLINE void gemm_walk_next(struct gemm_walk &w, const struct cuda_product &product)
{
    w.quad += WEIGHT_QUAD_BLOCKS;
    if (w.quad < w.end)
        return;
    w.leaf++;
    gemm_walk_leaf(w, product);
}

/* What a thread brings to the steps, as far as it does not change: 16 bytes in 64 threads' turns of
 * a tile of the matrix, 16 bytes of x in some columns, and scales of x. The latter may lie at any
 * multiple of 4, so a thread carries them in registers from one step to the next. */
template <enum quant_type T, typename Tile> struct gemm_fetch {
    static constexpr uint32_t pieces = 2 * WEIGHT_QUAD_BLOCKS; /* of x, in a column */
    static constexpr uint32_t tile_threads = Tile::threads / (Tile::rows / WEIGHT_TILE_ROWS);
    static constexpr uint32_t x_copies = pieces * Tile::cols / Tile::threads;
    static constexpr uint32_t carried =
        (Tile::cols * WEIGHT_QUAD_BLOCKS + Tile::threads - 1) / Tile::threads;
    static_assert(pieces * Tile::cols % Tile::threads == 0, "every thread copies as much of x");

    const uint8_t *weights; /* chunk 0 */
    const int8_t *x;        /* stored block 0 */
    uint32_t scales_at;     /* the same, in the scales */
    bool has_tile;
    uint32_t scales[carried];
    uint32_t sums[carried];
};

template <enum quant_type T, typename Tile>
DEVICE_INLINE struct gemm_fetch<T, Tile> gemm_fetch_of(const struct cuda_products &products,
                                                       const struct cuda_product &product,
                                                       uint32_t first_tile, uint32_t first_column) {
    using fetch = gemm_fetch<T, Tile>;
    struct gemm_fetch<T, Tile> f = {};
    const uint32_t tile = first_tile + threadIdx.x / fetch::tile_threads;
    f.has_tile = tile < weight_tiles(product.rows);
    f.weights = product.data + (f.has_tile ? tile : 0) * product.stride +
                threadIdx.x % fetch::tile_threads * 16;
    const uint32_t column = first_column + threadIdx.x / fetch::pieces;
    f.x = products.x.q + (int64_t)((uint64_t)column * products.x.q_stride) -
          (int64_t)product.lead * 32 + threadIdx.x % fetch::pieces * 16;
    f.scales_at = (first_column + threadIdx.x / WEIGHT_QUAD_BLOCKS) * products.x.blocks +
                  threadIdx.x % WEIGHT_QUAD_BLOCKS - product.lead;
    return f;
}

/* Blocks of x that the step has no use for are zeros, or other blocks of the same row. */
template <enum quant_type T, typename Tile>
DEVICE_INLINE void gemm_fetch_start(struct gemm_fetch<T, Tile> &f, uint8_t *stage,
                                    const struct cuda_products &products,
                                    const struct cuda_product &product, uint32_t first_column,
                                    uint32_t quad)
{
    using fetch = gemm_fetch<T, Tile>;
    using shared = gemm_shared<T, Tile>;
    const uint32_t lead = product.lead, columns = products.n - first_column;
    const uint32_t blocks = lead + (product.cols + SUM_BLOCK_ITEMS - 1) / SUM_BLOCK_ITEMS;
    const uint8_t *const numbers = f.weights + (uint64_t)(quad / WEIGHT_CHUNK_BLOCKS) *
                                                   weight_chunk_bytes(weight_type<T>::layout);
    const uint32_t own = threadIdx.x % fetch::tile_threads * 16;
    const uint32_t odd = quad % WEIGHT_CHUNK_BLOCKS / WEIGHT_QUAD_BLOCKS * shared::quad;
    uint8_t *const to = stage + threadIdx.x / fetch::tile_threads * shared::weights + own;
#pragma unroll
    for (uint32_t at = 0; at < shared::weights; at += fetch::tile_threads * 16) {
        if (at + own < shared::weights)
            device_async_copy16_or_zero(
                to + at, numbers + at + (at + own < shared::numbers ? 0 : odd), f.has_tile);
    }

    constexpr uint32_t stride = Tile::threads / fetch::pieces; /* columns from copy to copy */
    const uint32_t piece = threadIdx.x % fetch::pieces, column = threadIdx.x / fetch::pieces;
    const bool has_block = quad + piece / 2 >= lead && quad + piece / 2 < blocks;
    const int8_t *const x = f.x + (uint64_t)quad * 32;
    uint8_t *const x_to = stage + shared::x_at + piece * shared::x_plane + column * 16;
#pragma unroll
    for (uint32_t k = 0; k < fetch::x_copies; k++) {
        const bool valid = has_block && column + k * stride < columns;
        device_async_copy16_or_zero(
            x_to + k * stride * 16,
            valid ? x + (uint64_t)(k * stride) * products.x.q_stride : products.x.q, valid);
    }
    device_async_commit();

    constexpr uint32_t scale_stride = Tile::threads / WEIGHT_QUAD_BLOCKS;
    const uint32_t block = quad + threadIdx.x % WEIGHT_QUAD_BLOCKS;
    const bool has_scale = block >= lead && block < blocks;
#pragma unroll
    for (uint32_t k = 0; k < fetch::carried; k++) {
        const uint32_t of = threadIdx.x / WEIGHT_QUAD_BLOCKS + k * scale_stride;
        const bool valid = has_scale && of < Tile::cols && of < columns;
        const uint32_t from = valid ? f.scales_at + quad + k * scale_stride * products.x.blocks : 0;
        f.scales[k] = valid ? __float_as_uint(products.x.scales[from]) : 0;
        if constexpr (weight_type<T>::has_half_mins)
            f.sums[k] = valid ? (uint32_t)products.x.pairs[from] : 0;
        else if constexpr (weight_type<T>::has_min)
            f.sums[k] = valid ? __float_as_uint(products.x.sums[from]) : 0;
    }
}

template <enum quant_type T, typename Tile>
DEVICE_INLINE void gemm_fetch_end(const struct gemm_fetch<T, Tile> &f, uint8_t *stage)
{
    using shared = gemm_shared<T, Tile>;
    uint32_t *const to = reinterpret_cast<uint32_t *>(stage + shared::scales_at);
#pragma unroll
    for (uint32_t k = 0; k < gemm_fetch<T, Tile>::carried; k++) {
        const uint32_t i = threadIdx.x + k * Tile::threads;
        if (i >= Tile::cols * WEIGHT_QUAD_BLOCKS)
            break;
        const uint32_t place =
            i % WEIGHT_QUAD_BLOCKS * shared::scale_plane + i / WEIGHT_QUAD_BLOCKS;
        to[place] = f.scales[k];
        if constexpr (weight_type<T>::has_min)
            to[shared::scales / 4 + place] = f.sums[k];
    }
}

/* The numbers of the warp's rows and the step's blocks, to fields [field][block][row]. A lane has a
 * row, and with 16 rows every other block. */
template <enum quant_type T, typename Tile>
DEVICE_INLINE void gemm_numbers(uint32_t *fields, const uint8_t *stage, uint32_t warp_row,
                                uint32_t quad)
{
    using type = weight_type<T>;
    using shared = gemm_shared<T, Tile>;
    constexpr uint32_t lanes = 32 / Tile::warp_rows; /* of a row */
    constexpr uint32_t field = WEIGHT_QUAD_BLOCKS * Tile::warp_rows;
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t row = warp_row + lane % Tile::warp_rows;
    const struct weight_numbers n = weight_numbers_read<T, device_load16>(
        stage + row / WEIGHT_TILE_ROWS * shared::weights, row % WEIGHT_TILE_ROWS);
    const uint32_t odd = quad % WEIGHT_CHUNK_BLOCKS;
#pragma unroll
    for (uint32_t k = 0; k < WEIGHT_QUAD_BLOCKS / lanes; k++) {
        const uint32_t i = k * lanes + lane / Tile::warp_rows;
        const struct block_numbers b = weight_block<T>(n, odd + i);
        uint32_t *to = fields + i * Tile::warp_rows + lane % Tile::warp_rows;
        *to = __float_as_uint(b.d);
        if constexpr (type::has_min)
            *(to += field) = __float_as_uint(b.m);
        if constexpr (type::has_halves)
            *(to += field) = ((uint32_t)b.scale[0] & 0xffffu) | (uint32_t)b.scale[1] << 16;
        if constexpr (type::has_half_mins)
            *(to += field) = (uint32_t)b.min[0] | (uint32_t)b.min[1] << 16;
    }
}

/* Fragments of 16 rows of the matrix and block i of the quad: rows g and g + 8 of `row`, both
 * halves. */
template <enum quant_type T, typename Tile>
DEVICE_INLINE void gemm_rows(uint32_t (&a)[4], const uint8_t *stage, uint32_t row, uint32_t i)
{
    using type = weight_type<T>;
    using shared = gemm_shared<T, Tile>;
    constexpr uint32_t low_bits = type::layout.low_bits, high_bits = type::layout.high_bits;
    const uint32_t g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint8_t *const quads = stage + row / WEIGHT_TILE_ROWS * shared::weights + shared::numbers;
#pragma unroll
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t *const words =
            reinterpret_cast<const uint32_t *>(quads + (row % WEIGHT_TILE_ROWS + g + 8 * k) * 16);
        constexpr uint32_t piece = WEIGHT_PIECE_BYTES / 4; /* words from piece to piece */
        const uint32_t low = words[(low_bits == 8 ? 2 * i : low_bits == 4 ? i : i / 2) * piece + t];
        [[maybe_unused]] uint32_t low2 = 0, high = 0;
        if constexpr (low_bits == 8)
            low2 = words[(2 * i + 1) * piece + t];
        if constexpr (high_bits == 1)
            high = words[low_bits * piece + i];
        if constexpr (high_bits == 2)
            high = words[(low_bits + i / 2) * piece + t];
        const struct quad_pair p = weight_quads<T>(low, low2, high, i, t);
        a[k] = p.first;
        a[2 + k] = p.second;
    }
}

/* What a lane needs of its rows g and g + 8 for one block. */
template <enum quant_type T> struct gemm_row_numbers {
    float d[2], m[2];
    int32_t scale[2][2], min[2][2];
};

template <enum quant_type T, typename Tile>
DEVICE_INLINE struct gemm_row_numbers<T> gemm_row_numbers_read(const uint32_t *fields, uint32_t row,
                                                               uint32_t i) {
    using type = weight_type<T>;
    constexpr uint32_t field = WEIGHT_QUAD_BLOCKS * Tile::warp_rows;
    struct gemm_row_numbers<T> n = {};
#pragma unroll
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t *from = fields + i * Tile::warp_rows + row + 8 * k + threadIdx.x % 32 / 4;
        n.d[k] = __uint_as_float(*from);
        if constexpr (type::has_min)
            n.m[k] = __uint_as_float(*(from += field));
        if constexpr (type::has_halves) {
            const uint32_t both = *(from += field);
            n.scale[k][0] = (int16_t)both;
            n.scale[k][1] = (int32_t)both >> 16;
        }
        if constexpr (type::has_half_mins) {
            const uint32_t both = *(from += field);
            n.min[k][0] = (int16_t)both;
            n.min[k][1] = (int32_t)both >> 16;
        }
    }
    return n;
}

/* One block, 16 rows x 8 columns: acc[2k + j] is row g + 8k, column 2t + j. */
template <enum quant_type T>
DEVICE_INLINE void gemm_block(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                              const struct gemm_row_numbers<T> &n, float2 dx, uint2 with_min)
{
    using type = weight_type<T>;
    int32_t sum[4], second[4];
    if constexpr (type::has_halves) {
        const uint32_t a0[2] = {a[0], a[1]}, a1[2] = {a[2], a[3]};
        const uint32_t b0[1] = {b[0]}, b1[1] = {b[1]};
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[e] = second[e] = 0;
        device_mma_m16n8k16(sum, a0, b0);
        device_mma_m16n8k16(second, a1, b1);
    } else {
#pragma unroll
        for (int e = 0; e < 4; e++)
            sum[e] = isum_start<T>();
        device_mma_m16n8k32(sum, a, b);
    }
#pragma unroll
    for (int e = 0; e < 4; e++) {
        const int k = e / 2;
        const float scale = e % 2 == 0 ? dx.x : dx.y;
        const uint32_t own = e % 2 == 0 ? with_min.x : with_min.y;
        int32_t isum = sum[e];
        if constexpr (type::has_halves)
            isum = n.scale[k][0] * sum[e] + (n.scale[k][1] * second[e] + isum_start<T>());
        acc[e] = fmaf(n.d[k] * scale, isum_to_float<T>(isum), acc[e]);
        if constexpr (type::has_half_mins)
            acc[e] = fmaf(
                n.m[k],
                scale * (float)(n.min[k][0] * (int16_t)own + n.min[k][1] * ((int32_t)own >> 16)),
                acc[e]);
        else if constexpr (type::has_min)
            acc[e] = fmaf(n.m[k], __uint_as_float(own), acc[e]);
    }
}

template <enum quant_type T, typename Tile>
__global__ void __launch_bounds__(Tile::threads, Tile::resident)
    gemm_kernel(const struct cuda_products products, uint32_t column_tiles)
{
    using type = weight_type<T>;
    using shared = gemm_shared<T, Tile>;
    constexpr uint32_t down = Tile::warp_rows / 16, across = Tile::warp_cols / 8;
    CUDA_SHARED_DYNAMIC(uint8_t, memory);

    /* Neighbours share rows of the matrix, which are the larger part of what is read. */
    uint32_t part;
    const struct cuda_product &product = product_of(products, blockIdx.x / column_tiles, &part);
    const uint32_t first_tile = part * (Tile::rows / WEIGHT_TILE_ROWS);
    const uint32_t first_column = blockIdx.x % column_tiles * Tile::cols;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t warp_row = warp % Tile::warps_down * Tile::warp_rows;
    const uint32_t warp_column = warp / Tile::warps_down * Tile::warp_cols;
    uint32_t *const fields =
        reinterpret_cast<uint32_t *>(memory + shared::warps_at + warp * shared::warp);

    /* In local memory, since its places are found at run time: sums that wait for their turn in the
     * tree, and above them the group's. */
    float levels[SUM_TREE_LEVELS + 1][down][across][4];
    float acc[down][across][4] = {};
    uint32_t groups = 0, node = 0;
    bool is_first = true; /* leaf of its group */

    struct gemm_fetch<T, Tile> fetch =
        gemm_fetch_of<T, Tile>(products, product, first_tile, first_column);
    struct gemm_walk ahead = {0, 0, 0, 0};
    gemm_walk_leaf(ahead, product);
    struct gemm_walk now = ahead;
    for (uint32_t s = 0; s + 1 < Tile::stages; s++) {
        if (ahead.leaf < product.n_leaves) {
            gemm_fetch_start<T, Tile>(fetch, memory + s * shared::stage, products, product,
                                      first_column, ahead.quad);
            gemm_fetch_end<T, Tile>(fetch, memory + s * shared::stage);
            gemm_walk_next(ahead, product);
        } else {
            device_async_commit();
        }
    }
    for (uint32_t turn = 0; now.leaf < product.n_leaves; turn = (turn + 1) % Tile::stages) {
        const uint8_t *const stage = memory + turn * shared::stage;
        device_async_wait<Tile::stages - 2>();
        __syncthreads(); /* the step has arrived, and nobody reads the one before it any more */
        uint8_t *const next = memory + (turn + Tile::stages - 1) % Tile::stages * shared::stage;
        const bool fetches = ahead.leaf < product.n_leaves;
        if (fetches) {
            gemm_fetch_start<T, Tile>(fetch, next, products, product, first_column, ahead.quad);
            gemm_walk_next(ahead, product);
        } else {
            device_async_commit();
        }
        gemm_numbers<T, Tile>(fields, stage, warp_row, now.quad);
        __syncwarp();
        const float *const scales =
            reinterpret_cast<const float *>(stage + shared::scales_at) + warp_column + lane % 4 * 2;
#pragma unroll
        for (uint32_t i = 0; i < WEIGHT_QUAD_BLOCKS; i++) {
            if (now.quad + i < now.begin || now.quad + i >= now.end)
                continue;
            uint32_t a[down][4], b[across][2];
            struct gemm_row_numbers<T> n[down];
#pragma unroll
            for (uint32_t r = 0; r < down; r++) {
                gemm_rows<T, Tile>(a[r], stage, warp_row + r * 16, i);
                n[r] = gemm_row_numbers_read<T, Tile>(fields, r * 16, i);
            }
#pragma unroll
            for (uint32_t c = 0; c < across; c += 2) {
                /* Lanes 0-7: columns 0-7 of the first half; 8-15: of the second; 16-31: columns
                 * 8-15. */
                uint32_t four[4];
                device_ldmatrix_x4(four, stage + shared::x_at +
                                             (2 * i + lane / 8 % 2) * shared::x_plane +
                                             (warp_column + c * 8 + lane / 16 * 8 + lane % 8) * 16);
                b[c][0] = four[0];
                b[c][1] = four[1];
                b[c + 1][0] = four[2];
                b[c + 1][1] = four[3];
            }
#pragma unroll
            for (uint32_t c = 0; c < across; c++) {
                const float *const at = scales + i * shared::scale_plane + c * 8;
                const float2 dx = *reinterpret_cast<const float2 *>(at);
                uint2 with_min = {0, 0};
                if constexpr (type::has_min)
                    with_min = *reinterpret_cast<const uint2 *>(at + shared::scales / 4);
#pragma unroll
                for (uint32_t r = 0; r < down; r++)
                    gemm_block<T>(acc[r][c], a[r], b[c], n[r], dx, with_min);
            }
        }
        if (fetches)
            gemm_fetch_end<T, Tile>(fetch, next);

        const uint32_t leaf = now.leaf;
        gemm_walk_next(now, product);
        if (now.leaf == leaf)
            continue;
        const uint32_t word = product.leaves[leaf];
#pragma unroll
        for (uint32_t e = 0; e < down * across * 4; e++) {
            float &of = acc[e / 4 / across][e / 4 % across][e % 4];
            float &sum = levels[SUM_TREE_LEVELS][e / 4 / across][e / 4 % across][e % 4];
            sum = is_first ? of : sum + of;
            of = 0.0f;
        }
        is_first = (word & WEIGHT_LEAF_GROUP_END) != 0;
        if (!is_first)
            continue;
        const bool ends = (word & WEIGHT_LEAF_NODE_END) != 0;
#pragma unroll
        for (uint32_t e = 0; e < down * across * 4; e++) {
            const uint32_t r = e / 4 / across, c = e / 4 % across, k = e % 4;
            float sum = levels[SUM_TREE_LEVELS][r][c][k];
            if (groups > 0 || !ends) { /* else the only group */
                sum_tree_add(&levels[0][r][c][k], down * across * 4, groups, sum);
                if (ends)
                    sum = sum_tree_take(&levels[0][r][c][k], down * across * 4, groups + 1);
            }
            const uint32_t column = first_column + warp_column + c * 8 + lane % 4 * 2 + k % 2;
            if (ends && column < products.n)
                product_store(
                    product, node, column,
                    first_tile * WEIGHT_TILE_ROWS + warp_row + r * 16 + lane / 4 + k / 2 * 8, sum);
        }
        groups = ends ? 0 : groups + 1;
        node += ends ? 1 : 0;
    }
}

/* --- Launching --- */

/* For prompts: 32 x 32 of a warp, 32 sums of a lane, in 128 registers; types that convert sums to
 * float the long way want a few more. */
template <enum quant_type T>
using gemm_large =
    gemm_tile<128, 64, 32, 32, 3, T == QUANT_TYPE_Q2_K || T == QUANT_TYPE_Q6_K ? 1 : 2>;
/* Where that would leave multiprocessors without work: a few columns of a matrix of a few thousand
 * rows. */
template <enum quant_type T> using gemm_middle = gemm_tile<64, 32, 32, 16, 4, 1>;
/* For 9 to 16 columns, when memory is the bound still: 6 steps on their way. */
template <enum quant_type T> using gemm_small = gemm_tile<32, 16, 16, 16, 7, 1>;

template <typename Tile> static uint32_t gemm_parts(struct cuda_products *products)
{
    uint32_t parts = 0;
    for (uint32_t i = 0; i < products->count; i++) {
        products->of[i].first_part = parts;
        parts += (products->of[i].rows + Tile::rows - 1) / Tile::rows;
    }
    return parts;
}

template <typename Tile> static uint32_t gemm_column_tiles(const struct cuda_products *products)
{
    return (products->n + Tile::cols - 1) / Tile::cols;
}

template <enum quant_type T, typename Tile>
static struct cuda_launched gemm_launch_tile(struct cuda_products *products, cudaStream_t stream)
{
    const uint32_t column_tiles = gemm_column_tiles<Tile>(products);
    return CUDA_LAUNCH((gemm_kernel<T, Tile>), gemm_parts<Tile>(products) * column_tiles,
                       Tile::threads, (gemm_shared<T, Tile>::bytes), stream, *products,
                       column_tiles);
}

/* The largest tile that still gives every multiprocessor one. The bits do not depend on it. */
template <enum quant_type T>
static struct cuda_launched gemm_launch(struct cuda_products *products, uint32_t multiprocessors,
                                        cudaStream_t stream)
{
    using large = gemm_large<T>;
    using middle = gemm_middle<T>;
    using small = gemm_small<T>;
    if (products->n > middle::cols &&
        gemm_parts<large>(products) * gemm_column_tiles<large>(products) >= multiprocessors)
        return gemm_launch_tile<T, large>(products, stream);
    if (products->n > small::cols)
        return gemm_launch_tile<T, middle>(products, stream);
    return gemm_launch_tile<T, small>(products, stream);
}

template <enum quant_type T, typename Tile> static cudaError_t gemm_prepare_tile(void)
{
    return cudaFuncSetAttribute(reinterpret_cast<const void *>(&gemm_kernel<T, Tile>),
                                cudaFuncAttributeMaxDynamicSharedMemorySize,
                                (int)gemm_shared<T, Tile>::bytes);
}

template <enum quant_type T> static cudaError_t gemm_prepare(void)
{
    cudaError_t error = gemm_prepare_tile<T, gemm_large<T>>();
    if (error == cudaSuccess)
        error = gemm_prepare_tile<T, gemm_middle<T>>();
    if (error == cudaSuccess)
        error = gemm_prepare_tile<T, gemm_small<T>>();
    return error;
}

#endif
