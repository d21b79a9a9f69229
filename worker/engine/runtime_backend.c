#include "worker/engine/runtime_backend.h"

static bool is_cuda(const struct engine_config *config)
{
    return config->backend == ENGINE_BACKEND_CUDA;
}

static bool is_scalar(const struct engine_config *config)
{
    return !is_cuda(config) && backend_isa_resolve(config->isa) == BACKEND_ISA_SCALAR;
}

enum err runtime_backend_open(struct backend **ret_backend, const struct engine_config *config,
                              uint32_t threads, struct errbuf *eb)
{
    const struct backend_cpu_config cpu = {.isa = config->isa, .threads = threads};
    const struct backend_cuda_config cuda = {.device = config->gpu, .threads = threads};

    return is_cuda(config) ? backend_cuda_open(ret_backend, &cuda, eb)
                           : backend_cpu_open(ret_backend, &cpu, eb);
}

uint32_t runtime_backend_threads(const struct engine_config *config)
{
    if (is_scalar(config))
        return 1;
    return config->threads == 0 ? backend_threads_auto() : config->threads;
}

bool runtime_backend_picks(const struct engine_config *config)
{
    return is_cuda(config) || is_scalar(config);
}

uint64_t runtime_backend_weight_bytes(const struct engine_config *config, enum quant_type type,
                                      uint32_t rows, uint32_t cols, const struct sum_cut *cut)
{
    return is_cuda(config)     ? backend_cuda_weight_bytes(type, rows, cols, cut)
           : is_scalar(config) ? weight_row_bytes(type, cols, cut) * rows
                               : backend_cpu_weight_bytes(type, rows, cols, cut);
}

uint64_t runtime_backend_kv_page_bytes(const struct engine_config *config,
                                       const struct kv_shape *shape)
{
    if (is_cuda(config))
        return backend_cuda_kv_page_bytes(shape);
    if (!is_scalar(config))
        return backend_kv_page_bytes(shape);
    /* Scalar keeps the cache's values as floats. */
    return (uint64_t)KV_PAGE_TOKENS * shape->n_layers * shape->n_kv_heads *
           (shape->head_dim_k + shape->head_dim_v) * sizeof(float);
}

uint64_t runtime_backend_buffer_bytes(const struct engine_config *config, size_t count)
{
    return is_cuda(config) ? backend_cuda_buffer_bytes(count) : backend_buffer_bytes(count);
}

uint64_t runtime_backend_act_bytes(const struct engine_config *config, uint32_t rows_max,
                                   uint32_t cols_max, bool keep_float)
{
    return is_cuda(config) ? backend_cuda_act_bytes(rows_max, cols_max, keep_float)
                           : backend_act_bytes(config->isa, rows_max, cols_max, keep_float);
}

uint64_t runtime_backend_room_bytes(const struct engine_config *config,
                                    const struct backend_room *room)
{
    return is_cuda(config) ? backend_cuda_room_bytes(room)
                           : backend_room_bytes(config->isa, runtime_backend_threads(config), room);
}

struct backend_heads_room runtime_backend_heads_room(const struct engine_config *config,
                                                     const struct backend_room *room)
{
    return is_cuda(config) ? backend_cuda_heads_room(room)
                           : backend_heads_room(config->isa, runtime_backend_threads(config), room);
}
