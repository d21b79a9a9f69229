/* What a build without a CUDA compiler has in place of cuda/. */
#include "worker/kernels/backend.h"

enum err backend_cuda_open(struct backend **ret_backend, const struct backend_cuda_config *config,
                           struct errbuf *eb)
{
    (void)ret_backend;
    (void)config;
    return err_set(eb, ERR_UNSUPPORTED, "this build has no CUDA backend");
}

uint64_t backend_cuda_weight_bytes(enum quant_type type, uint32_t rows, uint32_t cols,
                                   const struct sum_cut *cut)
{
    (void)type;
    (void)rows;
    (void)cols;
    (void)cut;
    return 0;
}

uint64_t backend_cuda_kv_page_bytes(const struct kv_shape *shape)
{
    (void)shape;
    return 0;
}

uint64_t backend_cuda_buffer_bytes(size_t count)
{
    (void)count;
    return 0;
}

uint64_t backend_cuda_act_bytes(uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    (void)rows_max;
    (void)cols_max;
    (void)keep_float;
    return 0;
}

struct backend_heads_room backend_cuda_heads_room(const struct backend_room *room)
{
    (void)room;
    return (struct backend_heads_room){0};
}

uint64_t backend_cuda_room_bytes(const struct backend_room *room)
{
    (void)room;
    return 0;
}
