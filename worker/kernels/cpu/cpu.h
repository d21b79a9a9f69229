/*
 * cpu.h - the CPU backend's own structures. Internal to cpu/ and its tests.
 *
 * cpu_backend.c opens and chooses the instruction set; cpu_room.c reckons scratch; cpu_weight.c
 * packs matrices into panels; cpu_matmul.c, cpu_rows.c, cpu_kv.c and cpu_attention.c cut operations
 * into tasks for the pool; the arithmetic is all in kernels.h.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_CPU_H
#define CLOISTER_WORKER_KERNELS_CPU_CPU_H

#include "worker/kernels/cpu/kernels.h"
#include "worker/kernels/cpu/pages.h"
#include "worker/kernels/pool.h"
#include "worker/kernels/host.h"
#include "worker/kernels/shape.h"

struct cpu_backend {
    struct host_backend host;
    const struct cpu_kernels *kernels;
    struct pool *pool;
    struct pages pages;

    /* Room that operations take and give up within one call; grows, never shrinks, and once it is
     * reserved does neither. */
    bool reserved;
    float *rows; /* [thread][cpu_room_stride] */
    size_t rows_stride;
    float *partials;
    size_t partials_count;
};

struct weight {
    enum quant_type type;
    bool is_float;
    enum panel_kind kind; /* quantized types */
    uint32_t rows;
    uint32_t cols;
    uint32_t blocks; /* of 32 columns */
    uint32_t lead;   /* blocks of a panel in front of the first group's */
    struct sum_cut cut;
    uint64_t bytes;
    uint64_t panel_bytes;
    uint8_t *data; /* panels (panel.h), or rows as the file has them */
    struct pages_chunk *chunk;
};

struct act {
    uint32_t rows_max;
    uint32_t cols_max;
    uint32_t blocks_max;
    size_t q_stride; /* bytes of a row of q */
    int8_t *q;
    float *scales; /* [rows_max][blocks_max], as are sums and pairs */
    float *sums;
    int32_t *pairs;
    float *floats; /* [rows_max][cols_max], or NULL */
};

struct kv {
    struct kv_shape shape;
    struct shape_kv layout;
    uint64_t bytes;
    uint8_t *data;
    struct pages_chunk *chunk;
};

/* Float room of `count` floats for each thread; the pointer of thread t is the result + t *
 * *ret_stride. Running out of memory here ends the process: there is no partial step. */
float *cpu_room_rows(struct cpu_backend *cpu, size_t count, size_t *ret_stride);
float *cpu_room_partials(struct cpu_backend *cpu, size_t count);

enum err cpu_reserve(struct backend *b, const struct backend_room *room, struct errbuf *eb);
/* Floats that attention takes of both, at most, in steps of `rows` rows over `pages` pages. */
size_t cpu_attention_rows_room(const struct backend_room_cache *cache);
size_t cpu_attention_partials_room(const struct backend_room_cache *cache, uint32_t rows,
                                   uint32_t pages, uint32_t threads);

/* The latter, by heads; of a cache with such heads. */
struct backend_heads_room cpu_attention_heads_room(const struct backend_room_cache *cache,
                                                   uint32_t rows, uint32_t pages, uint32_t threads);

/* Stores y as row `row`: quantized, and as floats where `a` keeps them. Thread: any, row by row. */
void cpu_act_store(const struct cpu_backend *cpu, struct act *a, uint32_t row, const float *y,
                   uint32_t cols);

enum err cpu_weights_read(struct backend *b, const struct weight_job *jobs, uint32_t n_jobs,
                          uint32_t *ret_failed, struct errbuf *eb);
void cpu_weight_free(struct backend *b, struct weight *w);
void cpu_embed(struct backend *b, const struct weight *w, const int32_t *ids, uint32_t n,
               float scale, float *out);
void cpu_join(struct backend *b, uint32_t n, const struct join_job *job);
void cpu_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                uint32_t n_jobs);

size_t cpu_act_stride(uint32_t cols_max); /* bytes of a row of q */
/* Of all of it: rows up to a multiple of 16, which products may read and do not use. */
size_t cpu_act_q_bytes(uint32_t rows_max, uint32_t cols_max);
struct act *cpu_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float);
void cpu_act_free(struct backend *b, struct act *a);
void cpu_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                  int8_t *ret_q, float *ret_scales, float *ret_float);
void cpu_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out);
void cpu_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
              float eps, struct act *out);
void cpu_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                  float eps, float *out);
void cpu_softcap(struct backend *b, float *x, size_t count, float cap);
void cpu_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
              enum activation activation, struct act *out);

enum err cpu_kv_new(struct backend *b, const struct kv_shape *shape, struct kv **ret_kv,
                    struct errbuf *eb);
void cpu_kv_free(struct backend *b, struct kv *kv);
/* The page as the inner loops read it. */
void cpu_kv_page(const struct kv *kv, uint32_t page, uint32_t layer, uint32_t head,
                 struct kernel_page *ret_page);
void cpu_rope_kv(struct backend *b, const struct rope_kv_job *job);
void cpu_attention(struct backend *b, const struct attention_job *job);

#endif
