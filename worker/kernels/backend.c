/* What every backend shares: names of instruction sets, sizes that follow from a shape alone. */
#include "worker/kernels/backend.h"

#include "worker/kernels/quant_block.h"
#include "worker/kernels/shape.h"
#include "worker/kernels/sum_order.h"

#include <string.h>

bool backend_isa_parse(const char *text, enum backend_isa *ret_isa)
{
    static const struct {
        const char *name;
        enum backend_isa isa;
    } names[] = {{"auto", BACKEND_ISA_AUTO},
                 {"scalar", BACKEND_ISA_SCALAR},
                 {"avx2", BACKEND_ISA_AVX2},
                 {"avx512", BACKEND_ISA_AVX512}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i].name) == 0) {
            *ret_isa = names[i].isa;
            return true;
        }
    }
    return false;
}

uint32_t backend_groups(uint32_t cols, uint32_t n_kv_heads_or_0)
{
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    uint32_t most = blocks < SUM_GROUPS_MAX ? blocks : SUM_GROUPS_MAX;
    if (most == 0)
        return 1;
    if (n_kv_heads_or_0 > 0) {
        /* Attention output: a group is the columns of whole KV heads, since heads are what the
         * shards of the layer before it hold. */
        uint32_t groups = n_kv_heads_or_0;
        while (groups > 16 && groups % 2 == 0)
            groups /= 2;
        return groups < most ? groups : most;
    }
    /* 16 for matrices long enough that one more addition per group costs nothing. */
    uint32_t groups = blocks >= 128 ? 16 : 8;
    return groups < most ? groups : most;
}

enum err shape_weight_check(enum quant_type type, uint32_t rows, uint32_t cols, uint32_t groups,
                            uint64_t *ret_row_bytes, struct errbuf *eb)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    if (info == NULL)
        return err_set(eb, ERR_INVALID, "tensor type %d does not exist", (int)type);
    if (!info->supported)
        return err_set(eb, ERR_UNSUPPORTED, "no kernels for tensor type %s", info->name);
    if (rows == 0 || cols == 0)
        return err_set(eb, ERR_INVALID, "a matrix of %u x %u has no elements", rows, cols);
    if (rows > SHAPE_ROWS_MAX || cols > SHAPE_COLS_MAX)
        return err_set(eb, ERR_TOO_LARGE, "a matrix of %u x %u, at most %u x %u", rows, cols,
                       SHAPE_ROWS_MAX, SHAPE_COLS_MAX);
    if (cols % info->block_items != 0)
        return err_set(eb, ERR_INVALID, "%u columns are no multiple of %u, the block of %s", cols,
                       info->block_items, info->name);
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    if (groups == 0 || groups > blocks || groups > SUM_GROUPS_MAX)
        return err_set(eb, ERR_INVALID, "%u groups for %u columns, not 1 .. %u", groups, cols,
                       blocks < SUM_GROUPS_MAX ? blocks : SUM_GROUPS_MAX);
    *ret_row_bytes = (uint64_t)(cols / info->block_items) * info->block_bytes;
    return ERR_OK;
}

/* Bytes of K (or V) of one head in one page. V rows are padded to whole vectors of 32. */
static uint64_t shape_kv_head_bytes(enum kv_type type, uint32_t dim)
{
    uint64_t cells = (uint64_t)KV_PAGE_TOKENS * dim;
    if (type == KV_TYPE_F16)
        return cells * sizeof(uint16_t);
    return cells + cells / QUANT_BLOCK_ITEMS * sizeof(float);
}

void shape_kv_layout(const struct kv_shape *shape, struct shape_kv *ret_layout)
{
    uint32_t padded_v =
        (shape->head_dim_v + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS * QUANT_BLOCK_ITEMS;
    ret_layout->dim_v_padded = padded_v;
    ret_layout->k_bytes = shape_kv_head_bytes(shape->type, shape->head_dim_k);
    ret_layout->v_bytes = shape_kv_head_bytes(shape->type, padded_v);
    ret_layout->head_bytes = ret_layout->k_bytes + ret_layout->v_bytes;
    ret_layout->layer_bytes = ret_layout->head_bytes * shape->n_kv_heads;
    ret_layout->page_bytes = ret_layout->layer_bytes * shape->n_layers;
}

enum err shape_kv_check(const struct kv_shape *shape, struct errbuf *eb)
{
    if (shape->n_layers == 0 || shape->n_kv_heads == 0 || shape->n_pages == 0 ||
        shape->head_dim_k == 0 || shape->head_dim_v == 0)
        return err_set(eb, ERR_INVALID,
                       "KV cache of %u layers, %u heads of %u and %u, %u pages is empty",
                       shape->n_layers, shape->n_kv_heads, shape->head_dim_k, shape->head_dim_v,
                       shape->n_pages);
    if (shape->head_dim_k > SHAPE_HEAD_DIM_MAX || shape->head_dim_v > SHAPE_HEAD_DIM_MAX)
        return err_set(eb, ERR_UNSUPPORTED, "attention heads of %u and %u elements, at most %u",
                       shape->head_dim_k, shape->head_dim_v, SHAPE_HEAD_DIM_MAX);
    if (shape->n_layers > SHAPE_LAYERS_MAX || shape->n_kv_heads > SHAPE_HEADS_MAX)
        return err_set(eb, ERR_UNSUPPORTED, "%u layers of %u KV heads, at most %u of %u",
                       shape->n_layers, shape->n_kv_heads, SHAPE_LAYERS_MAX, SHAPE_HEADS_MAX);
    if (shape->type != KV_TYPE_F16 && shape->type != KV_TYPE_Q8_0)
        return err_set(eb, ERR_UNSUPPORTED, "KV type %d", (int)shape->type);
    if (shape->type == KV_TYPE_Q8_0 &&
        (shape->head_dim_k % QUANT_BLOCK_ITEMS != 0 || shape->head_dim_v % QUANT_BLOCK_ITEMS != 0))
        return err_set(eb, ERR_UNSUPPORTED,
                       "KV type q8_0 needs heads of a multiple of 32 elements, not %u and %u",
                       shape->head_dim_k, shape->head_dim_v);
    struct shape_kv layout;
    shape_kv_layout(shape, &layout);
    if (layout.page_bytes > SHAPE_KV_BYTES_MAX / shape->n_pages)
        return err_set(eb, ERR_TOO_LARGE, "KV cache of %u pages of %llu bytes", shape->n_pages,
                       (unsigned long long)layout.page_bytes);
    return ERR_OK;
}

enum err backend_kv_check(const struct kv_shape *shape, struct errbuf *eb)
{
    return shape_kv_check(shape, eb);
}

uint64_t backend_kv_page_bytes(const struct kv_shape *shape)
{
    struct shape_kv layout;
    shape_kv_layout(shape, &layout);
    return layout.page_bytes;
}
