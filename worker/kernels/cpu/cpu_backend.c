/* The CPU backend's table of operations and its memory. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"

#include <stdlib.h>

static void cpu_close(struct backend *b)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    host_free(b, cpu->rows);
    host_free(b, cpu->partials);
    pages_fini(&cpu->pages);
    pool_free(cpu->pool);
    free(cpu);
}

static void cpu_share(struct backend *b, backend_task *task, void *ctx, uint32_t n)
{
    pool_run(((struct cpu_backend *)b)->pool, task, ctx, n);
}

static uint32_t cpu_threads(const struct backend *b)
{
    return pool_threads(((const struct cpu_backend *)b)->pool);
}

static const struct backend_ops cpu_ops = {
    .close = cpu_close,
    .weights_read = cpu_weights_read,
    .weight_free = cpu_weight_free,
    .buffer_new = host_buffer_new,
    .buffer_free = host_buffer_free,
    .buffer_write = host_buffer_write,
    .buffer_read = host_buffer_read,
    .buffer_host = host_buffer_host,
    .share = cpu_share,
    .threads = cpu_threads,
    .act_new = cpu_act_new,
    .act_free = cpu_act_free,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .reserve = cpu_reserve,
    .step_begin = host_step_begin,
    .step_end = host_step_end,
    .embed = cpu_embed,
    .norm = cpu_norm,
    .norm_add = cpu_norm_add,
    .softcap = cpu_softcap,
    .quantize = cpu_quantize,
    .place = host_place,
    .matmul = cpu_matmul,
    .join = cpu_join,
    .rope_kv = cpu_rope_kv,
    .attention = cpu_attention,
    .gate = cpu_gate,
    .exchange_open = host_exchange_open,
    .exchange_done = host_exchange_done,
    .submit = host_submit,
    .exchange_close = host_exchange_close,
    .memory = host_memory,
    .act_read = cpu_act_read,
};

enum err cpu_backend_new(const struct cpu_kernels *kernels, uint32_t threads,
                         struct backend **ret_backend, struct errbuf *eb)
{
    /* The table of operations is the same for every instruction set but for its name. */
    struct cpu_backend_named {
        struct cpu_backend cpu;
        struct backend_ops ops;
    } *named = calloc(1, sizeof *named);
    if (named == NULL)
        return err_set(eb, ERR_NO_MEMORY, "CPU backend");
    struct cpu_backend *cpu = &named->cpu;
    enum err err = pool_new(threads, &cpu->pool, eb);
    if (err != ERR_OK) {
        free(named);
        return err;
    }
    named->ops = cpu_ops;
    named->ops.name = kernels->name;
    cpu->host.base.ops = &named->ops;
    cpu->kernels = kernels;
    pages_init(&cpu->pages);
    *ret_backend = &cpu->host.base;
    return ERR_OK;
}

float *cpu_room_rows(struct cpu_backend *cpu, size_t count, size_t *ret_stride)
{
    if (count > cpu->rows_stride) {
        CHECK(!cpu->reserved);
        size_t stride = (count + 63) / 64 * 64;
        host_free(&cpu->host.base, cpu->rows);
        cpu->rows =
            host_alloc(&cpu->host.base, stride * pool_threads(cpu->pool) * sizeof *cpu->rows);
        CHECK(cpu->rows != NULL);
        cpu->rows_stride = stride;
    }
    *ret_stride = cpu->rows_stride;
    return cpu->rows;
}

float *cpu_room_partials(struct cpu_backend *cpu, size_t count)
{
    if (count > cpu->partials_count) {
        CHECK(!cpu->reserved);
        host_free(&cpu->host.base, cpu->partials);
        cpu->partials = host_alloc(&cpu->host.base, count * sizeof *cpu->partials);
        CHECK(cpu->partials != NULL);
        cpu->partials_count = count;
    }
    return cpu->partials;
}
