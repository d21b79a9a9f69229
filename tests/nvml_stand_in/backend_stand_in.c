/*
 * Lets a worker take the device `cuda` where there is no GPU: what is asked of a CUDA backend is
 * computed on the CPU, to the same bits, and its memory is taken for the GPU's. What the stand-in
 * for NVML says goes the whole way that a real one's words go.
 */
#include "worker/kernels/backend.h"

#define THREADS 1u /* as the tests start it */

enum err backend_cuda_open(struct backend **ret_backend, const struct backend_cuda_config *config,
                           struct errbuf *eb)
{
    const struct backend_cpu_config cpu = {.threads = THREADS};
    if (config->device != 0)
        return err_set(eb, ERR_UNAVAILABLE, "CUDA shows a worker one GPU, not %u",
                       config->device + 1);
    return backend_cpu_open(ret_backend, &cpu, eb);
}

uint64_t backend_cuda_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                   const struct sum_cut *cut)
{
    return backend_cpu_weight_bytes(type, rows, cols, cut);
}

uint64_t backend_cuda_kv_page_bytes(const struct kv_shape *shape)
{
    return backend_kv_page_bytes(shape);
}

uint64_t backend_cuda_buffer_bytes(size_t count)
{
    return backend_buffer_bytes(count);
}

uint64_t backend_cuda_act_bytes(uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    return backend_act_bytes(BACKEND_ISA_AUTO, rows_max, cols_max, keep_float);
}

uint64_t backend_cuda_room_bytes(const struct backend_room *room)
{
    return backend_room_bytes(BACKEND_ISA_AUTO, THREADS, room);
}

struct backend_heads_room backend_cuda_heads_room(const struct backend_room *room)
{
    return backend_heads_room(BACKEND_ISA_AUTO, THREADS, room);
}
