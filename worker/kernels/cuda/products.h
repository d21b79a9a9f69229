/*
 * products.h - what the host part asks of the kernels for matrices: structs that launches pass by
 * value, and launchers. C and C++. Pointers are device memory. A launcher queues on `stream` and
 * does not wait; it can be captured in a graph.
 */
#ifndef CLOISTER_WORKER_KERNELS_CUDA_PRODUCTS_H
#define CLOISTER_WORKER_KERNELS_CUDA_PRODUCTS_H

#include "worker/kernels/cuda/cuda_types.h"
#include "worker/kernels/cuda/launch.h"
#include "worker/kernels/cuda/weight_layout.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Quantized types: those whose blocks stand alone, and those with super-blocks. */
#define CUDA_BLOCK_TYPES(TYPE)                                                                     \
    TYPE(Q4_0) TYPE(Q4_1) TYPE(Q5_0) TYPE(Q5_1) TYPE(Q8_0) TYPE(IQ4_NL) TYPE(MXFP4)
#define CUDA_SUPER_TYPES(TYPE) TYPE(Q2_K) TYPE(Q3_K) TYPE(Q4_K) TYPE(Q5_K) TYPE(Q6_K) TYPE(IQ4_XS)

/* What a launcher says to a type that is not its own. */
static inline struct cuda_launched cuda_launched_no_type(const char *kernel)
{
    struct cuda_launched launched = {cudaErrorInvalidValue, kernel};
    return launched;
}

/* One matrix and where its product goes. */
struct cuda_product {
    const uint8_t *data;    /* weight_layout.h */
    const uint32_t *leaves; /* the order of the sum, ibid. */
    uint64_t stride;        /* bytes from tile to tile; of a float type: from row to row */
    float *out;             /* [node][n][out_stride] */
    uint64_t node_stride;
    const float *bias; /* [rows] or NULL */
    uint32_t n_leaves;
    uint32_t even_blocks; /* leaf i is blocks 8i .. 8i + 7, up to so many; 0: see `leaves` */
    uint32_t rows;
    uint32_t cols;
    uint32_t lead; /* stored blocks in front of x's first one */
    uint32_t out_stride;
    uint32_t accumulate; /* 0 or 1 */
    uint32_t first_part; /* of the launch's parts: set by the launcher */
};

#define CUDA_PRODUCTS_MAX 4u

/* Matrices of one type that share x, as one launch. */
struct cuda_products {
    struct cuda_act x;
    uint32_t n; /* rows of x, at least 1 */
    uint32_t count;
    struct cuda_product of[CUDA_PRODUCTS_MAX];
};

/* Up to this many columns a product is a matrix times vectors: cuda_gemv; cuda_gemm takes any
 * number. */
#define CUDA_GEMV_COLS 8u

/* All with out = result, or out + result: see struct matmul_job. `multiprocessors` of the device:
 * what a launch should fill. A type that is not the launcher's own is a programmer's error. */
struct cuda_launched cuda_gemv_blocks(enum quant_type type, struct cuda_products *products,
                                      cudaStream_t stream);
struct cuda_launched cuda_gemv_supers(enum quant_type type, struct cuda_products *products,
                                      cudaStream_t stream);
struct cuda_launched cuda_gemm_blocks(enum quant_type type, struct cuda_products *products,
                                      uint32_t multiprocessors, cudaStream_t stream);
struct cuda_launched cuda_gemm_supers(enum quant_type type, struct cuda_products *products,
                                      uint32_t multiprocessors, cudaStream_t stream);
struct cuda_launched cuda_product_floats(enum quant_type type, struct cuda_products *products,
                                         cudaStream_t stream);

/* Asks for the shared memory that kernels of cuda_gemm_* need beyond 48 KB: once per device. */
cudaError_t cuda_gemm_blocks_prepare(void);
cudaError_t cuda_gemm_supers_prepare(void);

/* --- Weights
 * -------------------------------------------------------------------------------------- */

/* Rows of a matrix as the file has them, `first` a multiple of WEIGHT_TILE_ROWS, to their tiles. */
struct cuda_pack {
    const uint8_t *file; /* [count][row_bytes], at any address */
    uint64_t row_bytes;
    uint8_t *tiles; /* of the whole matrix */
    uint64_t stride;
    uint32_t first, count;
    uint32_t blocks; /* stored ones of a row */
    uint32_t cols;   /* float types */
};

struct cuda_launched cuda_weight_pack(enum quant_type type, const struct cuda_pack *pack,
                                      cudaStream_t stream);

struct cuda_embed {
    const uint8_t *data;
    uint64_t stride;
    const int32_t *ids; /* [n] */
    uint32_t n;
    uint32_t cols;
    uint32_t lead;
    float scale;
    float *out; /* [n][cols] */
};

struct cuda_launched cuda_weight_embed(enum quant_type type, const struct cuda_embed *embed,
                                       cudaStream_t stream);

/* --- The sums of shards
 * ----------------------------------------------------------------------------- */

struct cuda_join {
    struct {
        const float *at;
        uint64_t stride;
    } part[SUM_GROUPS_MAX];
    struct sum_join join[SUM_GROUPS_MAX];
    uint64_t out_stride;
    float *out;
    const float *bias;
    const float *onto;
    uint32_t n, cols;
    uint32_t n_parts, n_joins;
};

struct cuda_launched cuda_join_sums(const struct cuda_join *join, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif
