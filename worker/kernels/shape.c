/* What follows from a shape alone, for every backend: cuts, sizes, and what is refused. */
#include "worker/kernels/shape.h"

#include "common/check.h"
#include "worker/kernels/quant_block.h"
#include "worker/kernels/sum_order.h"

/* Groups of attention output that are aimed at: as many shards as a gang may have. */
#define GROUPS_AIM 16u

static bool divides(uint32_t a, uint32_t b)
{
    return b % a == 0;
}

struct sum_cut backend_cut_attention(uint32_t n_heads, uint32_t n_kv_heads, uint32_t head_dim)
{
    const uint32_t per_kv = n_heads / n_kv_heads;
    uint32_t heads = n_heads; /* of a group */

    /* Ascending, so that the last to fit makes the largest groups that still are enough. */
    for (uint32_t k = 1; k < n_heads; k++) {
        bool fits = divides(k, n_heads) && divides(QUANT_BLOCK_ITEMS, k * head_dim) &&
                    n_heads / k <= SUM_GROUPS_MAX && (divides(k, per_kv) || divides(per_kv, k));
        if (fits && (heads == n_heads || n_heads / k >= GROUPS_AIM))
            heads = k;
    }
    uint32_t unit = (heads * head_dim + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    return sum_cut_whole(n_heads * head_dim, n_heads / heads, unit);
}

struct sum_cut backend_cut_ffn(uint32_t cols)
{
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    uint32_t leaves = (blocks + SUM_LEAF_BLOCKS - 1) / SUM_LEAF_BLOCKS;
    /* 16 for matrices long enough that one more addition per group costs nothing. */
    uint32_t groups = blocks >= 128 ? 16 : 8;
    /* A leaf of one or two blocks costs nearly what a full one does. */
    if (leaves >= groups)
        return sum_cut_whole(cols, groups, SUM_LEAF_BLOCKS);
    return sum_cut_whole(cols, groups < blocks ? groups : blocks, 1);
}

/* First and last block that a weight has of its matrix. */
static void cut_blocks(const struct sum_cut *cut, uint32_t *ret_begin, uint32_t *ret_end)
{
    *ret_begin = sum_group_begin(cut, cut->first);
    *ret_end = sum_group_begin(cut, cut->end);
}

static uint32_t super_blocks(const struct quant_type_info *info)
{
    return info->block_items > QUANT_BLOCK_ITEMS ? info->block_items / QUANT_BLOCK_ITEMS : 1;
}

uint32_t shape_weight_lead(enum quant_type type, const struct sum_cut *cut)
{
    return sum_group_begin(cut, cut->first) % super_blocks(quant_type_info((uint32_t)type));
}

uint64_t weight_row_begin(enum quant_type type, const struct sum_cut *cut)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    uint64_t items = (uint64_t)sum_group_begin(cut, cut->first) * QUANT_BLOCK_ITEMS;
    return items / info->block_items * info->block_bytes;
}

uint64_t weight_row_bytes(enum quant_type type, uint32_t cols, const struct sum_cut *cut)
{
    const struct quant_type_info *info = quant_type_info((uint32_t)type);
    if (info == NULL || !info->supported)
        return 0;
    uint64_t items = shape_weight_lead(type, cut) * (uint64_t)QUANT_BLOCK_ITEMS + cols;
    return (items + info->block_items - 1) / info->block_items * info->block_bytes;
}

static enum err shape_cut_check(const struct quant_type_info *info, uint32_t cols,
                                const struct sum_cut *cut, struct errbuf *eb)
{
    uint32_t blocks = (cols + QUANT_BLOCK_ITEMS - 1) / QUANT_BLOCK_ITEMS;
    uint32_t begin, end;

    if (cut->unit == 0 || cut->blocks == 0 || cut->blocks > SHAPE_COLS_MAX / QUANT_BLOCK_ITEMS)
        return err_set(eb, ERR_INVALID, "a cut of %u blocks in units of %u", cut->blocks,
                       cut->unit);
    uint32_t units = sum_cut_units(cut);
    if (cut->groups == 0 || cut->groups > units || cut->groups > SUM_GROUPS_MAX)
        return err_set(eb, ERR_INVALID, "%u groups for %u columns, not 1 .. %u", cut->groups, cols,
                       units < SUM_GROUPS_MAX ? units : SUM_GROUPS_MAX);
    if (cut->first >= cut->end || cut->end > cut->groups)
        return err_set(eb, ERR_INVALID, "groups %u .. %u of %u", cut->first, cut->end, cut->groups);
    cut_blocks(cut, &begin, &end);
    if (blocks != end - begin || (end < cut->blocks && cols % QUANT_BLOCK_ITEMS != 0))
        return err_set(eb, ERR_INVALID, "%u columns for groups of %u blocks", cols, end - begin);
    if (cut->blocks % super_blocks(info) != 0)
        return err_set(eb, ERR_INVALID, "%u columns are no multiple of %u, the block of %s",
                       cut->blocks * QUANT_BLOCK_ITEMS, info->block_items, info->name);
    return ERR_OK;
}

uint32_t shape_attention_group(const struct attention_job *job, const struct kv_shape *kv)
{
    const uint32_t group = job->group > 0 ? job->group : job->n_heads / kv->n_kv_heads;
    CHECK(job->n_heads > 0 && group > 0 && job->skip < group);
    CHECK((job->skip + job->n_heads + group - 1) / group == kv->n_kv_heads);
    return group;
}

enum err shape_weight_check(enum quant_type type, uint32_t rows, uint32_t cols,
                            const struct sum_cut *cut, struct errbuf *eb)
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
    uint32_t block = info->block_items < QUANT_BLOCK_ITEMS ? 1 : QUANT_BLOCK_ITEMS;
    if (cols % (cut->first == 0 && cut->end == cut->groups ? info->block_items : block) != 0)
        return err_set(eb, ERR_INVALID, "%u columns are no multiple of %u, the block of %s", cols,
                       info->block_items, info->name);
    return shape_cut_check(info, cols, cut, eb);
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
