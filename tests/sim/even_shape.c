#include "tests/sim/even_shape.h"

#include "common/check.h"
#include "common/limits.h"

void even_shape_make(struct shard_shape *ret_shape)
{
    struct shard_shape shape;
    CHECK(shard_shape_init(&shape, 4, NULL) == ERR_OK);
    for (uint32_t i = 0; i < shape.n_layers; i++) {
        struct shard_kind *k = &shape.kind[i];
        *k = (struct shard_kind){.n_heads = 8,
                                 .n_kv_heads = 8,
                                 .n_groups = 8,
                                 .q_bytes = 1000000,
                                 .k_bytes = 1000000,
                                 .n_ffn_groups = 8,
                                 .ff_bytes = 4000000};
        for (uint32_t g = 0; g < 8; g++)
            k->ff_end[g] = (g + 1) * 32;
    }
    shape.vocab = 1024;
    shape.embed_bytes = shape.head_bytes = 64000;
    shape.kv_head_bytes = 4096;
    shard_shape_join(&shape);
    *ret_shape = shape;
}

void even_shape_pack(struct buf *ret_bytes)
{
    struct shard_shape shape;
    even_shape_make(&shape);
    buf_init(ret_bytes);
    CHECK(shard_shape_pack(&shape, LIMIT_SHAPE_BYTES, ret_bytes, NULL) == ERR_OK);
    shard_shape_fini(&shape);
}
