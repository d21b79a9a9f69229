#include "common/shard_room.h"

/* Of each rank's part of what is exchanged, and for what ranks hand each other as they meet:
 * worker/coll/coll.h, worker/engine/gang_stage.c. */
#define PADDING_BYTES (SHARD_RANKS_MAX * 64u)
#define MEETING_BYTES 16384u

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

uint32_t shard_nodes_of(struct shard_run groups, uint32_t n_groups)
{
    uint32_t n = 0, width;

    for (uint32_t at = groups.first; at < groups.end; at += width, n++) {
        width = 1;
        while (at % (2 * width) == 0 && at + width < n_groups &&
               (at + 2 * width <= groups.end || groups.end == n_groups))
            width *= 2;
    }
    return n;
}

/* ---- buffers ---- */

static uint64_t attention_bytes(const struct shard_room *room, uint64_t heads, uint64_t kv_heads)
{
    const uint64_t all_rows = room->attention_bytes * heads, of_row = room->partial_bytes * heads;
    uint64_t rows = room->partial_rows;

    if (room->partial_units > 0 && kv_heads > 0 && rows > (room->partial_units - 1) / kv_heads)
        rows = (room->partial_units - 1) / kv_heads;
    if (rows == 0 || of_row == 0)
        return all_rows;
    if (rows > room->partials_bytes / of_row)
        return larger(all_rows, larger(of_row, room->partials_bytes));
    return larger(all_rows, of_row * rows);
}

static uint64_t levels_of(uint64_t groups)
{
    uint64_t levels = 1;

    while ((uint64_t)1 << (levels - 1) < groups)
        levels++;
    return levels;
}

static uint64_t scratch_bytes(const struct shard_room *room, const struct shard_shape *shape,
                              const struct shard_cut *cut, uint32_t rank)
{
    const struct shard_rank_cut *r = &cut->rank[rank];
    uint64_t heads = 0, kv_heads = 0, columns = 0, groups = 0, attention = 0;

    for (uint32_t i = r->layers.first; i < r->layers.end; i++) {
        const uint64_t q = shard_run_count(r->layer[i].heads);
        const uint64_t kv = shard_run_count(r->layer[i].kv_heads);
        heads = larger(heads, q);
        kv_heads = larger(kv_heads, kv);
        columns = larger(columns, shard_run_count(r->layer[i].ff));
        groups = larger(groups, larger(shard_run_count(r->layer[i].groups),
                                       shard_run_count(r->layer[i].ffn_groups)));
        attention = larger(attention, attention_bytes(room, q, kv));
    }
    const uint64_t biases = shard_in_proportion(
        room->biases_bytes, shard_cut_weights(shape, cut, rank), shard_shape_weights(shape));
    return room->every_bytes + biases + (rank == 0 ? room->first_bytes : 0) +
           room->layer_bytes * shard_run_count(r->layers) + room->head_bytes * heads +
           room->kv_head_bytes * kv_heads + room->column_bytes * columns +
           larger(room->level_bytes * levels_of(groups), heads > 0 ? room->levels_bytes : 0) +
           attention;
}

/* ---- what ranks hand each other ---- */

/* The most sums that the shards of a stage make of a part of a layer. */
static uint32_t nodes_most(const struct shard_shape *shape, const struct shard_cut *cut,
                           uint32_t rank)
{
    const struct shard_rank_cut *shards = &cut->rank[cut->rank[rank].stage * cut->n_shards];
    uint64_t most = 0;

    for (uint32_t i = shards[0].layers.first; i < shards[0].layers.end; i++) {
        const struct shard_kind *k = &shape->kind[shape->kind_of[i]];
        uint64_t attention = 0, ffn = 0;
        for (uint32_t s = 0; s < cut->n_shards; s++) {
            attention += shard_nodes_of(shards[s].layer[i].groups, k->n_groups);
            ffn += shard_nodes_of(shards[s].layer[i].ffn_groups, k->n_ffn_groups);
        }
        most = larger(most, larger(attention, ffn));
    }
    return (uint32_t)most;
}

/* Each of its groups of ranks has memory for two operations: gang_coll_bytes. */
static uint64_t exchange_bytes(const struct shard_room *room, const struct shard_shape *shape,
                               const struct shard_cut *cut, uint32_t rank)
{
    const uint32_t stage = cut->rank[rank].stage;
    const bool is_one = cut->n_stages == 1, is_last = stage + 1 == cut->n_stages;
    /* What a peer says may be anything: no more is counted than sums of 64 bits hold. */
    const uint64_t piece = is_one ? room->rows : room->piece_rows;
    const uint64_t rows_bytes =
        room->row_bytes > SHARD_ROOM_MAX / (piece + 1) ? SHARD_ROOM_MAX : room->row_bytes * piece;
    const uint64_t sums = rows_bytes * nodes_most(shape, cut, rank);
    uint64_t bytes;

    if (cut->n_ranks == 1)
        return 0;
    if (is_one) {
        bytes = larger(larger(room->told_bytes, room->logits_bytes), sums) + PADDING_BYTES;
    } else {
        const uint64_t link = larger(rows_bytes, room->told_bytes) + PADDING_BYTES;
        bytes = MEETING_BYTES + PADDING_BYTES;
        if (cut->n_shards > 1)
            bytes += (stage == 0 ? larger(sums, room->told_bytes) : sums) + PADDING_BYTES;
        bytes += (stage > 0 ? link : 0) + (is_last ? 0 : link);
        if (rank == 0 || is_last)
            bytes += room->logits_bytes + PADDING_BYTES;
    }
    return 2 * bytes + room->track_bytes;
}

/* ---- matrices ---- */

/* What a run of columns takes more than there are of them. */
static uint64_t columns_more(uint64_t first, uint64_t count, uint32_t block, uint32_t tail)
{
    const uint64_t lead = block == 0 ? 0 : first % block;
    const uint64_t over = tail == 0 ? 0 : (lead + count) % tail;

    return count == 0 ? 0 : lead + (over == 0 ? 0 : tail - over);
}

/* That of all layers of both matrices. */
static uint64_t parted_bytes(const struct shard_room *room, const struct shard_shape *shape,
                             const struct shard_rank_cut *r)
{
    const uint64_t dim = room->head_columns;
    uint64_t joint = 0, down = 0, joint_all = 0, down_all = 0;

    for (uint32_t i = 0; i < shape->n_layers; i++) {
        const struct shard_kind *k = &shape->kind[shape->kind_of[i]];
        const struct shard_layer_cut *l = &r->layer[i];
        joint_all += k->n_heads * dim;
        down_all += k->ff_end[k->n_ffn_groups - 1];
        joint += columns_more(l->heads.first * dim, shard_run_count(l->heads) * dim,
                              room->joint_block, room->joint_tail);
        down +=
            columns_more(l->ff.first, shard_run_count(l->ff), room->down_block, room->down_tail);
    }
    return shard_in_proportion(room->joint_bytes, joint, joint_all) +
           shard_in_proportion(room->down_bytes, down, down_all);
}

/* Types of layers and of the vocabulary differ in what they take in memory beside the file. */
static uint64_t weights_bytes(const struct shard_room *room, const struct shard_shape *shape,
                              const struct shard_cut *cut, uint32_t rank, uint64_t whole)
{
    const struct shard_rank_cut *r = &cut->rank[rank];
    const bool once = shape->tied && cut->n_stages == 1;
    const uint64_t embed = shard_run_count(r->embed);
    const uint64_t head = once ? 0 : shard_run_count(r->head);
    const uint64_t vocabulary = room->embedding_bytes + room->output_bytes;
    const uint64_t of_file = shape->embed_bytes + (shape->tied ? 0 : shape->head_bytes);
    const uint64_t rows =
        shape->embed_bytes / shape->vocab * embed + shape->head_bytes / shape->vocab * head;

    if (room->every_bytes == 0 || vocabulary > whole)
        return shard_in_proportion(whole, shard_cut_weights(shape, cut, rank),
                                   shard_shape_weights(shape));
    return shard_in_proportion(room->embedding_bytes, embed, shape->vocab) +
           shard_in_proportion(shape->tied ? room->embedding_bytes : room->output_bytes, head,
                               shape->vocab) +
           shard_in_proportion(whole - vocabulary, shard_cut_weights(shape, cut, rank) - rows,
                               shard_shape_weights(shape) - of_file) +
           parted_bytes(room, shape, r);
}

struct shard_held shard_rank_held(const struct shard_room *room, const struct shard_shape *shape,
                                  const struct shard_cut *cut, uint32_t rank,
                                  uint64_t whole_weights, uint64_t whole_kv)
{
    struct shard_held held = {.weights_bytes = weights_bytes(room, shape, cut, rank, whole_weights),
                              .kv_bytes = shard_in_proportion(
                                  whole_kv, shard_cut_kv(shape, cut, rank), shard_shape_kv(shape))};

    if (room->every_bytes > 0) {
        held.scratch_bytes = scratch_bytes(room, shape, cut, rank);
        held.exchange_bytes = exchange_bytes(room, shape, cut, rank);
    }
    return held;
}
