/* Activations on the device. */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <stdlib.h>

static uint32_t act_blocks(uint32_t cols_max)
{
    return (cols_max + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
}

uint64_t backend_cuda_act_bytes(uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    uint64_t blocks = (uint64_t)rows_max * act_blocks(cols_max);
    uint64_t floats = (uint64_t)rows_max * cols_max * sizeof(float);
    return cuda_held_bytes(blocks * QUANT_BLOCK_ITEMS) +
           3 * cuda_held_bytes(blocks * sizeof(float)) + (keep_float ? cuda_held_bytes(floats) : 0);
}

struct act *cuda_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    struct act *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->rows_max = rows_max;
    a->cols_max = cols_max;
    struct cuda_act *d = &a->device;
    d->blocks = act_blocks(cols_max);
    d->q_stride = d->blocks * QUANT_BLOCK_ITEMS;
    d->cols_max = cols_max;
    uint64_t blocks = (uint64_t)rows_max * d->blocks;
    const struct {
        void **at;
        uint64_t bytes;
    } wanted[] = {
        {(void **)&d->q, blocks * QUANT_BLOCK_ITEMS},
        {(void **)&d->scales, blocks * sizeof *d->scales},
        {(void **)&d->sums, blocks * sizeof *d->sums},
        {(void **)&d->pairs, blocks * sizeof *d->pairs},
        {(void **)&d->floats, keep_float ? (uint64_t)rows_max * cols_max * sizeof *d->floats : 0},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        struct errbuf eb = {{0}};
        if (wanted[i].bytes > 0 && cuda_alloc(cuda, CUDA_MEMORY_SCRATCH, wanted[i].bytes,
                                              "activations", wanted[i].at, &eb) != ERR_OK) {
            cuda_act_free(b, a);
            return NULL;
        }
    }
    return a;
}

void cuda_act_free(struct backend *b, struct act *a)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    if (a == NULL)
        return;
    cuda_free(cuda, a->device.q);
    cuda_free(cuda, a->device.scales);
    cuda_free(cuda, a->device.sums);
    cuda_free(cuda, a->device.pairs);
    cuda_free(cuda, a->device.floats);
    free(a);
}

static void act_fetch(struct cuda_backend *cuda, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        CUDA_DO(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda->stream),
                "reading %zu bytes of activations", bytes);
}

void cuda_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                   int8_t *ret_q, float *ret_scales, float *ret_float)
{
    struct cuda_backend *cuda = (struct cuda_backend *)b;
    const struct cuda_act *d = &a->device;
    CHECK(row < a->rows_max && cols <= a->cols_max);
    cuda_enter(cuda);
    cuda_held_flush(cuda);
    act_fetch(cuda, ret_q, d->q + (size_t)row * d->q_stride, cols);
    act_fetch(cuda, ret_scales, d->scales + (size_t)row * d->blocks,
              act_blocks(cols) * sizeof *ret_scales);
    if (ret_float != NULL) {
        CHECK(d->floats != NULL);
        act_fetch(cuda, ret_float, d->floats + (size_t)row * d->cols_max, cols * sizeof *ret_float);
    }
    CUDA_DO(cudaStreamSynchronize(cuda->stream), "reading a row of %u activations", cols);
}
