/*
 * runtime_backend.h - which backend a configuration means, and what that backend will hold: the
 * CPU's instruction sets or a GPU. Loading and estimating go through it, so that they agree.
 *
 * Sizes are what the backend's `memory` counts, exact but for weights of the scalar backend, which
 * holds the file's own bytes. Thread: any.
 */
#ifndef CLOISTER_WORKER_ENGINE_RUNTIME_BACKEND_H
#define CLOISTER_WORKER_ENGINE_RUNTIME_BACKEND_H

#include "worker/engine/engine.h"

/* Errors are those of backend_cpu_open and backend_cuda_open. `threads`: as in the configuration.
 */
enum err runtime_backend_open(struct backend **ret_backend, const struct engine_config *config,
                              uint32_t threads, struct errbuf *eb);
/* Host threads that it will have. */
uint32_t runtime_backend_threads(const struct engine_config *config);

/* It has backend_ops.pick. */
bool runtime_backend_picks(const struct engine_config *config);

uint64_t runtime_backend_weight_bytes(const struct engine_config *config, enum quant_type type,
                                      uint32_t rows, uint32_t cols, const struct sum_cut *cut);
uint64_t runtime_backend_kv_page_bytes(const struct engine_config *config,
                                       const struct kv_shape *shape);
uint64_t runtime_backend_buffer_bytes(const struct engine_config *config, size_t count);
uint64_t runtime_backend_act_bytes(const struct engine_config *config, uint32_t rows_max,
                                   uint32_t cols_max, bool keep_float);
uint64_t runtime_backend_room_bytes(const struct engine_config *config,
                                    const struct backend_room *room);
struct backend_heads_room runtime_backend_heads_room(const struct engine_config *config,
                                                     const struct backend_room *room);

#endif
