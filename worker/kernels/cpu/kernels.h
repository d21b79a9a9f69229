/*
 * kernels.h - the inner loops of the CPU backend, one table of them per instruction set.
 *
 * kernel_bodies.h holds them once, over the wrappers of vec_avx2.h, vec_avx512.h or vec_plain.h;
 * kernels_<isa>.c compiles them with that instruction set's flags. A table touches no thread, lock
 * or allocator; the drivers (cpu_*.c) cut the work and hand it over. Internal to cpu/.
 *
 * The layout of quantized matrices is panel.h's.
 */
#ifndef CLOISTER_WORKER_KERNELS_CPU_KERNELS_H
#define CLOISTER_WORKER_KERNELS_CPU_KERNELS_H

#include "worker/kernels/backend.h"
#include "worker/kernels/cpu/panel.h"
#include "worker/kernels/sum_order.h"

/* Quantized activations of all rows of a step. */
struct kernel_input {
    const int8_t *q; /* [n][q_stride], and readable up to a multiple of 16 rows */
    size_t q_stride;
    const float *scales;  /* [n][block_stride] */
    const float *sums;    /* [n][block_stride] scale times the sum of a block's q */
    const int32_t *pairs; /* [n][block_stride] sums of its two halves, int16: the first one low */
    size_t block_stride;
    const float *floats; /* [n][float_stride], or NULL */
    size_t float_stride;
    uint32_t n;
};

struct kernel_matmul {
    enum quant_type type; /* float types: which */
    const uint8_t *data;
    uint32_t rows;
    uint32_t cols;
    uint32_t blocks; /* of a panel, those in front of the first group's among them */
    uint32_t lead;   /* so many */
    struct sum_cut cut;
    uint32_t n_nodes;
    struct sum_node nodes[SUM_NODES_MAX];
    uint64_t panel_bytes; /* of a panel */
    struct kernel_input x;
    float *out;
    size_t out_stride;
    size_t node_stride;
    const float *bias; /* or NULL */
    bool accumulate;
};

#define JOIN_COLS 64u /* columns whose nodes are joined at a time */

enum kernel_cells { KERNEL_CELLS_F32, KERNEL_CELLS_F16, KERNEL_CELLS_Q8 };

/* One KV head of one page (layout: shape.h). */
struct kernel_page {
    enum kv_type type;
    const void *k;
    const float *k_scales;
    const void *v;
    const float *v_scales;
    uint32_t dim_k;
    uint32_t dim_v_padded;
    float softcap;
    intptr_t ahead; /* bytes from here to the page that is read next; 0: none */
    float *k_room;  /* [dim_k][32] and [32][dim_v_padded], for a page read by many queries */
    float *v_room;
};

/* One (row, head) against one page. */
struct kernel_query {
    const float *q; /* [dim_k], times scale */
    uint32_t begin; /* slots begin .. end - 1 of the page, at least one */
    uint32_t end;
    float *scores; /* [32] room */
    float *values; /* [dim_v_padded] result */
    float max;     /* result */
    float sum;     /* result */
};

struct cpu_kernels {
    const char *name;

    /* Rows of a matrix as the file has them, at most 16, into the lanes of a zeroed panel. */
    void (*pack_panel[PANEL_KIND_COUNT])(const uint8_t *rows, size_t row_bytes, uint32_t n_rows,
                                         uint32_t blocks, uint8_t *panel);

    /* Panels begin .. end - 1 (of 16 rows) times every row of x. `room` is the thread's: 64-byte
     * aligned, matmul_room(x.n, groups) floats. */
    void (*matmul_panels[PANEL_KIND_COUNT])(const struct kernel_matmul *m, uint32_t begin,
                                            uint32_t end, float *room);
    size_t (*matmul_room)(uint32_t n, uint32_t groups);
    /* Rows begin .. end - 1 of a matrix of a float type. */
    void (*matmul_rows)(const struct kernel_matmul *m, uint32_t begin, uint32_t end);
    /* Columns begin .. end - 1 of one row of x. */
    void (*join)(const struct join_job *job, uint32_t x_row, uint32_t begin, uint32_t end);

    /* One row. q is [blocks * 32]; columns past `cols` become 0. */
    void (*quantize)(const float *x, uint32_t cols, int8_t *q, float *scales, float *sums,
                     int32_t *pairs);
    void (*norm)(const float *x, uint32_t cols, const float *gain, float eps, float *y);
    /* y = y + the norm of x. */
    void (*norm_add)(const float *x, uint32_t cols, const float *gain, float eps, float *y);
    void (*softcap)(float *x, size_t count, float cap);
    void (*gate)(const float *gate, const float *up, uint32_t cols, enum activation activation,
                 float *y);

    void (*rotate)(float *head, const float *table, uint32_t rope_dim, enum rope_style style);
    void (*scale)(const float *x, uint32_t n, float factor, float *y);
    void (*halves)(const float *x, uint32_t n, uint16_t *ret_halves);

    void (*attention_page)(const struct kernel_page *page, struct kernel_query *queries,
                           uint32_t n_queries);
    /* What (sum, values) at maximum x[i] count for at maximum top[i]. */
    void (*attention_weights)(const float *x, const float *top, uint32_t n, float *ret_weights);
    /* (sum, values) so far, with weight a, takes up that of the next page, with weight b; n floats
     * of values. */
    void (*attention_merge)(float *sum, float *values, float a, float page_sum,
                            const float *page_values, float b, uint32_t n);
    /* y = values / sum. */
    void (*attention_finish)(const float *values, float sum, uint32_t n, float *y);
};

/* Where group g begins, in blocks of a panel. */
static inline uint32_t kernel_group_begin(const struct kernel_matmul *m, uint32_t g)
{
    return sum_group_begin(&m->cut, g) - sum_group_begin(&m->cut, m->cut.first) + m->lead;
}

extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;
extern const struct cpu_kernels cpu_kernels_amx;

#endif
