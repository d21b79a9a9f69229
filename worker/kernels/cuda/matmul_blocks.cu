/* Products with matrices of the types whose blocks stand alone: 32 columns with numbers of their
 * own. */
#include "worker/kernels/cuda/gemm.h"
#include "worker/kernels/cuda/gemv.h"

struct cuda_launched cuda_gemv_blocks(enum quant_type type, struct cuda_products *products,
                                      cudaStream_t stream)
{
    switch (type) {
#define GEMV_TYPE(name)                                                                            \
    case QUANT_TYPE_##name:                                                                        \
        return gemv_launch<QUANT_TYPE_##name>(products, stream);
        CUDA_BLOCK_TYPES(GEMV_TYPE)
    default:
        return cuda_launched_no_type("gemv_kernel");
    }
}

struct cuda_launched cuda_gemm_blocks(enum quant_type type, struct cuda_products *products,
                                      uint32_t multiprocessors, cudaStream_t stream)
{
    switch (type) {
#define GEMM_TYPE(name)                                                                            \
    case QUANT_TYPE_##name:                                                                        \
        return gemm_launch<QUANT_TYPE_##name>(products, multiprocessors, stream);
        CUDA_BLOCK_TYPES(GEMM_TYPE)
    default:
        return cuda_launched_no_type("gemm_kernel");
    }
}

cudaError_t cuda_gemm_blocks_prepare(void)
{
    cudaError_t error = cudaSuccess;
#define GEMM_PREPARE(name)                                                                         \
    if (error == cudaSuccess)                                                                      \
        error = gemm_prepare<QUANT_TYPE_##name>();
    CUDA_BLOCK_TYPES(GEMM_PREPARE)
    return error;
}
