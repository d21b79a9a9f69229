/* Products with matrices of F32, F16 and BF16: plain fmaf in 32 lanes by column modulo 32, which
 * are the lanes of a warp. A warp has 4 rows of the matrix and up to 8 of x, so that what it loads
 * is used more than once; whatever several warps want alike comes from the caches. */
#include "worker/kernels/cuda/products.h"
#include "worker/kernels/cuda/sum_tree.h"

#define FLOATS_WARPS 8
#define FLOATS_ROWS  4

/* Element i of the 16 bytes that a lane has of a run. */
template <enum quant_type T> DEVICE_INLINE float run_element(uint4 v, uint32_t i)
{
    constexpr uint32_t in_word = 4 / weight_float_bytes(T);
    const uint32_t word =
        i / in_word < 2 ? (i / in_word == 0 ? v.x : v.y) : (i / in_word == 2 ? v.z : v.w);
    if constexpr (T == QUANT_TYPE_F32)
        return __uint_as_float(word);
    else if constexpr (T == QUANT_TYPE_F16)
        return device_half_to_float((uint16_t)(word >> (16 * (i % 2))));
    else
        return __uint_as_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
}

template <enum quant_type T, int Cols>
__global__ void __launch_bounds__(FLOATS_WARPS * 32, 2)
    floats_kernel(const struct cuda_products products, uint32_t column_tiles)
{
    constexpr uint32_t blocks = weight_run_cols(T) / 32; /* of a run */
    static_assert(FLOATS_ROWS * Cols <= 32, "a lane for each element");
    CUDA_SHARED(float, levels, SUM_TREE_LEVELS *FLOATS_WARPS * 32);

    uint32_t part;
    const struct cuda_product &product = product_of(products, blockIdx.x / column_tiles, &part);
    const uint32_t first_column = blockIdx.x % column_tiles * Cols;
    const uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t first_row = (part * FLOATS_WARPS + warp) * FLOATS_ROWS;
    float *const own_levels = levels + threadIdx.x;
    constexpr uint32_t stride = FLOATS_WARPS * 32;

    /* Rows and columns past the last ones repeat it, and are not stored. */
    const uint8_t *row[FLOATS_ROWS];
    const float *x[Cols];
#pragma unroll
    for (uint32_t r = 0; r < FLOATS_ROWS; r++)
        row[r] = product.data + min(first_row + r, product.rows - 1) * product.stride + lane * 16;
#pragma unroll
    for (uint32_t c = 0; c < Cols; c++)
        x[c] = products.x.floats +
               (uint64_t)min(first_column + c, products.n - 1) * products.x.cols_max;

    struct sum_groups groups = {0.0f, 0, 0}; /* of element `lane` */
    float acc[FLOATS_ROWS][Cols] = {};
    uint32_t node = 0;
    for (uint32_t i = 0; i < product.n_leaves; i++) {
        const uint32_t word = product.leaves[i];
        const uint32_t begin = weight_leaf_begin(word), end = weight_leaf_end(word);
        for (uint32_t first = begin & ~(blocks - 1); first < end; first += blocks) {
            uint4 run[FLOATS_ROWS];
#pragma unroll
            for (uint32_t r = 0; r < FLOATS_ROWS; r++)
                run[r] = device_load16_once(row[r] + (uint64_t)(first / blocks) * WEIGHT_RUN_BYTES);
#pragma unroll
            for (uint32_t k = 0; k < blocks; k++) {
                const uint32_t column = (first + k) * 32 + lane;
                if (first + k < begin || first + k >= end || column >= product.cols)
                    continue;
#pragma unroll
                for (uint32_t c = 0; c < Cols; c++) {
                    const float of_x = x[c][column];
#pragma unroll
                    for (uint32_t r = 0; r < FLOATS_ROWS; r++)
                        acc[r][c] = fmaf(run_element<T>(run[r], k), of_x, acc[r][c]);
                }
            }
        }
        if ((word & WEIGHT_LEAF_GROUP_END) == 0)
            continue;
        /* The halving tree: both lanes of a pair add the same two, so that all lanes end with the
         * sum. */
        float sum = 0.0f;
#pragma unroll
        for (uint32_t e = 0; e < FLOATS_ROWS * Cols; e++) {
            float v = acc[e / Cols][e % Cols];
#pragma unroll
            for (int half = 16; half > 0; half /= 2)
                v = v + __shfl_xor_sync(0xffffffffu, v, half);
            sum = lane == e ? v : sum;
            acc[e / Cols][e % Cols] = 0.0f;
        }
        sum_groups_leaf(groups, own_levels, stride, sum, word);
        if ((word & WEIGHT_LEAF_NODE_END) == 0)
            continue;
        sum = sum_groups_take(groups, own_levels, stride);
        const uint32_t column = first_column + lane % Cols;
        if (lane < FLOATS_ROWS * Cols && column < products.n)
            product_store(product, node, column, first_row + lane / Cols, sum);
        node++;
    }
}

template <enum quant_type T, int Cols>
static struct cuda_launched floats_launch(struct cuda_products *products, cudaStream_t stream)
{
    const uint32_t column_tiles = (products->n + Cols - 1) / Cols;
    uint32_t parts = 0;
    for (uint32_t i = 0; i < products->count; i++) {
        products->of[i].first_part = parts;
        parts +=
            (products->of[i].rows + FLOATS_WARPS * FLOATS_ROWS - 1) / (FLOATS_WARPS * FLOATS_ROWS);
    }
    return CUDA_LAUNCH((floats_kernel<T, Cols>), parts * column_tiles, FLOATS_WARPS * 32, 0, stream,
                       *products, column_tiles);
}

template <enum quant_type T>
static struct cuda_launched floats_launch_any(struct cuda_products *products, cudaStream_t stream)
{
    return products->n == 1   ? floats_launch<T, 1>(products, stream)
           : products->n <= 4 ? floats_launch<T, 4>(products, stream)
                              : floats_launch<T, 8>(products, stream);
}

struct cuda_launched cuda_product_floats(enum quant_type type, struct cuda_products *products,
                                         cudaStream_t stream)
{
    switch (type) {
    case QUANT_TYPE_F32:
        return floats_launch_any<QUANT_TYPE_F32>(products, stream);
    case QUANT_TYPE_F16:
        return floats_launch_any<QUANT_TYPE_F16>(products, stream);
    case QUANT_TYPE_BF16:
        return floats_launch_any<QUANT_TYPE_BF16>(products, stream);
    default:
        return cuda_launched_no_type("floats_kernel");
    }
}
