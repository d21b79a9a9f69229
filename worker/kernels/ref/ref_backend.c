/* Opening, memory, and the table of operations of the scalar backend. */
#include "worker/kernels/ref/ref.h"

#include <stdlib.h>

static void ref_close(struct backend *b)
{
    free(b);
}

static void ref_share(struct backend *b, backend_task *task, void *ctx, uint32_t n)
{
    (void)b;
    for (uint32_t i = 0; i < n; i++)
        task(ctx, i, 0);
}

static uint32_t ref_threads(const struct backend *b)
{
    (void)b;
    return 1;
}

/* Its operations take a row or two at a time, and give them back. */
static enum err ref_reserve(struct backend *b, const struct backend_room *room, struct errbuf *eb)
{
    (void)b;
    (void)room;
    (void)eb;
    return ERR_OK;
}

static const struct backend_ops ref_ops = {
    .name = "scalar",
    .close = ref_close,
    .weights_read = ref_weights_read,
    .weight_free = ref_weight_free,
    .buffer_new = host_buffer_new,
    .buffer_free = host_buffer_free,
    .buffer_write = host_buffer_write,
    .buffer_read = host_buffer_read,
    .buffer_host = host_buffer_host,
    .share = ref_share,
    .threads = ref_threads,
    .act_new = ref_act_new,
    .act_free = ref_act_free,
    .kv_new = ref_kv_new,
    .kv_free = ref_kv_free,
    .reserve = ref_reserve,
    .step_begin = host_step_begin,
    .step_end = host_step_end,
    .embed = ref_embed,
    .norm = ref_norm,
    .norm_add = ref_norm_add,
    .softcap = ref_softcap,
    .pick = ref_pick,
    .quantize = ref_quantize,
    .place = host_place,
    .matmul = ref_matmul,
    .join = ref_join,
    .rope_kv = ref_rope_kv,
    .attention = ref_attention,
    .gate = ref_gate,
    .exchange_open = host_exchange_open,
    .exchange_done = host_exchange_done,
    .submit = host_submit,
    .exchange_close = host_exchange_close,
    .memory = host_memory,
    .act_read = ref_act_read,
};

enum err ref_backend_new(struct backend **ret_backend, struct errbuf *eb)
{
    struct host_backend *ref = calloc(1, sizeof *ref);
    if (ref == NULL)
        return err_set(eb, ERR_NO_MEMORY, "scalar backend");
    ref->base.ops = &ref_ops;
    *ret_backend = &ref->base;
    return ERR_OK;
}
