/* Activations, and the operations that go row by row: quantize, norm, gate. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"

#include <stdlib.h>
#include <string.h>

/* Below this many elements waking the other threads costs more than they save. */
#define ROWS_PARALLEL_ELEMENTS 8192u

size_t cpu_act_stride(uint32_t cols_max)
{
    /* A row of a power of two bytes would put the same columns of all rows into one cache set. */
    size_t blocks = (cols_max + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    return (blocks * QUANT_BLOCK_ITEMS + 63) / 64 * 64 + 64;
}

size_t cpu_act_q_bytes(uint32_t rows_max, uint32_t cols_max)
{
    size_t rows = ((size_t)rows_max + PANEL_ROWS - 1) / PANEL_ROWS * PANEL_ROWS;
    return rows * cpu_act_stride(cols_max);
}

struct act *cpu_act_new(struct backend *b, uint32_t rows_max, uint32_t cols_max, bool keep_float)
{
    struct act *a = calloc(1, sizeof *a);
    if (a == NULL)
        return NULL;
    a->rows_max = rows_max;
    a->cols_max = cols_max;
    a->blocks_max = (cols_max + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    a->q_stride = cpu_act_stride(cols_max);
    size_t blocks = (size_t)rows_max * a->blocks_max;
    a->q = host_alloc(b, cpu_act_q_bytes(rows_max, cols_max));
    a->scales = host_alloc(b, blocks * sizeof *a->scales);
    a->sums = host_alloc(b, blocks * sizeof *a->sums);
    a->pairs = host_alloc(b, blocks * sizeof *a->pairs);
    a->floats = keep_float ? host_alloc(b, (size_t)rows_max * cols_max * sizeof *a->floats) : NULL;
    if (a->q == NULL || a->scales == NULL || a->sums == NULL || a->pairs == NULL ||
        (keep_float && a->floats == NULL)) {
        cpu_act_free(b, a);
        return NULL;
    }
    return a;
}

void cpu_act_free(struct backend *b, struct act *a)
{
    if (a == NULL)
        return;
    host_free(b, a->q);
    host_free(b, a->scales);
    host_free(b, a->sums);
    host_free(b, a->pairs);
    host_free(b, a->floats);
    free(a);
}

void cpu_act_read(struct backend *b, const struct act *a, uint32_t row, uint32_t cols,
                  int8_t *ret_q, float *ret_scales, float *ret_float)
{
    (void)b;
    CHECK(row < a->rows_max && cols <= a->cols_max);
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    memcpy(ret_q, a->q + row * a->q_stride, cols);
    memcpy(ret_scales, a->scales + (size_t)row * a->blocks_max, blocks * sizeof *ret_scales);
    if (ret_float != NULL) {
        CHECK(a->floats != NULL);
        memcpy(ret_float, a->floats + (size_t)row * a->cols_max, cols * sizeof *ret_float);
    }
}

void cpu_act_store(const struct cpu_backend *cpu, struct act *a, uint32_t row, const float *y,
                   uint32_t cols)
{
    size_t cell = (size_t)row * a->blocks_max;
    cpu->kernels->quantize(y, cols, a->q + row * a->q_stride, a->scales + cell, a->sums + cell,
                           a->pairs + cell);
    if (a->floats != NULL)
        memcpy(a->floats + (size_t)row * a->cols_max, y, cols * sizeof *y);
}

enum rows_op { ROWS_OP_QUANTIZE, ROWS_OP_NORM, ROWS_OP_NORM_ADD, ROWS_OP_GATE };

struct rows_run {
    const struct cpu_backend *cpu;
    enum rows_op op;
    const float *x;
    const float *up;   /* gate */
    const float *gain; /* norm */
    float eps;
    enum activation activation;
    uint32_t n;
    uint32_t cols;
    uint32_t rows_per_task;
    struct act *out; /* norm_add writes to `sum` instead */
    float *sum;
    float *room;
    size_t room_stride;
};

static void cpu_rows_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct rows_run *run = ctx;
    const struct cpu_kernels *kernels = run->cpu->kernels;
    float *y = run->room + thread * run->room_stride;
    uint32_t begin = task * run->rows_per_task;
    uint32_t end = run->n - begin < run->rows_per_task ? run->n : begin + run->rows_per_task;
    for (uint32_t i = begin; i < end; i++) {
        size_t at = (size_t)i * run->cols;
        const float *result = y;
        if (run->op == ROWS_OP_NORM_ADD) {
            kernels->norm_add(run->x + at, run->cols, run->gain, run->eps, run->sum + at);
            continue;
        }
        if (run->op == ROWS_OP_NORM)
            kernels->norm(run->x + at, run->cols, run->gain, run->eps, y);
        else if (run->op == ROWS_OP_GATE)
            kernels->gate(run->x + at, run->up + at, run->cols, run->activation, y);
        else
            result = run->x + at;
        cpu_act_store(run->cpu, run->out, i, result, run->cols);
    }
}

static void cpu_rows_run(struct backend *b, struct rows_run *run)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    CHECK(run->out == NULL || (run->n <= run->out->rows_max && run->cols <= run->out->cols_max));
    if (run->n == 0)
        return;
    run->cpu = cpu;
    run->room = cpu_room_rows(cpu, run->cols, &run->room_stride);
    uint32_t whole = ROWS_PARALLEL_ELEMENTS / (run->cols > 0 ? run->cols : 1);
    run->rows_per_task = whole > 0 ? whole : 1;
    uint32_t tasks = (run->n + run->rows_per_task - 1) / run->rows_per_task;
    pool_run(cpu->pool, cpu_rows_task, run, tasks);
}

void cpu_quantize(struct backend *b, const float *x, uint32_t n, uint32_t cols, struct act *out)
{
    struct rows_run run = {.op = ROWS_OP_QUANTIZE, .x = x, .n = n, .cols = cols, .out = out};
    cpu_rows_run(b, &run);
}

void cpu_norm(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
              float eps, struct act *out)
{
    struct rows_run run = {
        .op = ROWS_OP_NORM, .x = x, .gain = gain, .eps = eps, .n = n, .cols = cols, .out = out};
    cpu_rows_run(b, &run);
}

void cpu_norm_add(struct backend *b, const float *x, uint32_t n, uint32_t cols, const float *gain,
                  float eps, float *out)
{
    struct rows_run run = {
        .op = ROWS_OP_NORM_ADD, .x = x, .gain = gain, .eps = eps, .n = n, .cols = cols, .sum = out};
    cpu_rows_run(b, &run);
}

struct softcap_run {
    const struct cpu_kernels *kernels;
    float *x;
    size_t count;
    float cap;
};

static void cpu_softcap_task(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct softcap_run *run = ctx;
    size_t begin = (size_t)task * ROWS_PARALLEL_ELEMENTS;
    size_t left = run->count - begin;
    run->kernels->softcap(run->x + begin,
                          left < ROWS_PARALLEL_ELEMENTS ? left : ROWS_PARALLEL_ELEMENTS, run->cap);
}

void cpu_softcap(struct backend *b, float *x, size_t count, float cap)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    struct softcap_run run = {.kernels = cpu->kernels, .x = x, .count = count, .cap = cap};
    size_t tasks = (count + ROWS_PARALLEL_ELEMENTS - 1) / ROWS_PARALLEL_ELEMENTS;
    pool_run(cpu->pool, cpu_softcap_task, &run, (uint32_t)tasks);
}

void cpu_gate(struct backend *b, const float *gate, const float *up, uint32_t n, uint32_t cols,
              enum activation activation, struct act *out)
{
    struct rows_run run = {.op = ROWS_OP_GATE,
                           .x = gate,
                           .up = up,
                           .activation = activation,
                           .n = n,
                           .cols = cols,
                           .out = out};
    cpu_rows_run(b, &run);
}
