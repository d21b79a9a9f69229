/*
 * host.h - what the backends in ordinary memory share: the counters behind `memory`, and buffers.
 * Internal to kernels/. Thread: the backend's owner.
 */
#ifndef CLOISTER_WORKER_KERNELS_HOST_H
#define CLOISTER_WORKER_KERNELS_HOST_H

#include "worker/kernels/backend.h"

/* First member of such a backend. */
struct host_backend {
    struct backend base;
    uint64_t weight_bytes;
    uint64_t kv_bytes;
    uint64_t scratch_bytes;
};

/* 64-byte aligned, zeroed, counted as scratch; NULL when memory is refused. free takes NULL. */
void *host_alloc(struct backend *b, size_t bytes);
void host_free(struct backend *b, void *memory);
/* What host_alloc counts for so many bytes. */
uint64_t host_held_bytes(uint64_t bytes);

/* The constructors behind backend_cpu_open. `threads`: 0 is backend_threads_auto. */
struct cpu_kernels;
/* NULL for SCALAR, and where this build has none. `isa` is not AUTO. */
const struct cpu_kernels *cpu_kernels_of(enum backend_isa isa);
enum err ref_backend_new(struct backend **ret_backend, struct errbuf *eb);
enum err cpu_backend_new(const struct cpu_kernels *kernels, uint32_t threads,
                         struct backend **ret_backend, struct errbuf *eb);

/* Entries of backend_ops. */
bool host_step_begin(struct backend *b, const struct backend_step *step);
void host_step_end(struct backend *b);
float *host_buffer_new(struct backend *b, size_t count);
void host_buffer_free(struct backend *b, float *buffer);
void host_buffer_write(struct backend *b, float *buffer, const float *host, size_t count);
void host_buffer_read(struct backend *b, const float *buffer, float *host, size_t count);
enum err host_exchange_open(struct backend *b, void *const halves[2], size_t bytes,
                            struct exchange **ret_exchange, struct errbuf *eb);
void host_exchange_done(struct backend *b);
void host_submit(struct backend *b);
void host_exchange_close(struct backend *b, struct exchange *exchange);
void host_place(struct backend *b, const float *rows, const uint32_t *at, uint32_t n, uint32_t cols,
                float *out);
const float *host_buffer_host(struct backend *b, const float *buffer, size_t count);
void host_memory(const struct backend *b, uint64_t *ret_weights, uint64_t *ret_kv,
                 uint64_t *ret_scratch);

#endif
