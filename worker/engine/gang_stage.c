/*
 * What stages are to a gang: who exchanges with whom, the pieces of a step, and how rows go from a
 * stage to the next.
 *
 * A link is a gather of two, whose root is behind: the sender writes where the receiver reads,
 * hands over, and waits before the piece after the next one, when it would write where the receiver
 * may still read. So a stage is two pieces ahead of the next one at most, and what is on the way
 * between them is two pieces. What is told of a step goes the same way, from stage to stage, right
 * before its first rows: so no stage waits for the next one to hear of a step before it computes
 * its own part.
 *
 * Steps under way. Some transports let go of a large part only when its receiver comes for it. So
 * it is reckoned that the last stage stands still with a step's logits until rank 0 takes them, and
 * each stage before it with the rows of one step more: before rank 0 hands on rows while as many
 * steps are under way as there are stages, it takes the oldest logits, for which then everybody
 * moves up by one. The rows of a step of several pieces may fill the stages by themselves: before
 * the first of them goes on, all logits are taken.
 */
#include "worker/engine/gang_internal.h"

#include "common/check.h"

/* Fewer rows, and the weights, which each piece reads again, cost more than waiting does. */
#define PIECE_ROWS 64u

/* Of each rank, for what they hand each other as they meet; what is longer goes in turns. */
#define MEETING_BYTES 16384u

/* ---- who exchanges with whom ---------------------------------------------------------------- */

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

void gang_coll_bytes(const struct gang_limits *l, const struct shard_cut *cut, uint32_t rank,
                     size_t ret_bytes[GANG_COLLS])
{
    const uint32_t stage = cut->rank[rank].stage;
    const uint64_t padding = (uint64_t)COLL_RANKS_MAX * COLL_ALIGN; /* of each rank's part */
    const bool is_one = cut->n_stages == 1, is_last = stage + 1 == cut->n_stages;
    const uint64_t told = gang_told_bytes(l);
    const uint64_t all =
        is_one ? larger(larger(told, l->logits_bytes), l->sums_bytes) : MEETING_BYTES;
    const uint64_t sums = stage == 0 ? larger(l->sums_bytes, told) : l->sums_bytes;
    const uint64_t rows = larger(l->rows_bytes, told);
    const bool has_logits = !is_one && (rank == 0 || is_last);

    ret_bytes[GANG_COLL_ALL] = (size_t)(all + padding);
    ret_bytes[GANG_COLL_STAGE] = is_one || cut->n_shards == 1 ? 0 : (size_t)(sums + padding);
    ret_bytes[GANG_COLL_BEFORE] = stage == 0 ? 0 : (size_t)(rows + padding);
    ret_bytes[GANG_COLL_BEHIND] = is_last ? 0 : (size_t)(rows + padding);
    ret_bytes[GANG_COLL_LOGITS] = has_logits ? (size_t)(l->logits_bytes + padding) : 0;
}

static enum err logits_meet(struct gang *g, const size_t bytes[GANG_COLLS], uint64_t deadline_ns,
                            struct errbuf *eb)
{
    const bool is_of_it = g->rank == 0 || gang_is_last(g);

    return coll_split(g->coll[GANG_COLL_ALL], is_of_it ? 0 : COLL_COLOR_NONE,
                      bytes[GANG_COLL_LOGITS], deadline_ns, &g->coll[GANG_COLL_LOGITS], eb);
}

/* A rank is of two links: those behind even stages and those behind odd ones are made in turn. */
static enum err links_meet(struct gang *g, uint32_t odd, const size_t bytes[GANG_COLLS],
                           uint64_t deadline_ns, struct errbuf *eb)
{
    const bool is_before = g->stage % 2 == odd; /* before the link, which is behind it */
    const bool has_link = is_before ? g->stage + 1 < g->n_stages : g->stage > 0;
    const enum gang_coll which = is_before ? GANG_COLL_BEHIND : GANG_COLL_BEFORE;
    const uint32_t link = is_before ? g->stage : g->stage - 1;
    struct coll *coll = NULL;
    enum err e = coll_split(g->coll[GANG_COLL_ALL],
                            has_link ? link * g->n_shards + g->shard : COLL_COLOR_NONE,
                            has_link ? bytes[which] : 0, deadline_ns, &coll, eb);

    if (e == ERR_OK && has_link)
        g->coll[which] = coll;
    return e;
}

enum err gang_stages_meet(struct gang *g, const size_t bytes[GANG_COLLS], uint64_t deadline_ns,
                          struct errbuf *eb)
{
    enum err e = ERR_OK;

    if (g->n_stages > 1 && g->n_shards > 1)
        e = coll_split(g->coll[GANG_COLL_ALL], g->stage, bytes[GANG_COLL_STAGE], deadline_ns,
                       &g->coll[GANG_COLL_STAGE], eb);
    if (e == ERR_OK && g->n_stages > 1)
        e = logits_meet(g, bytes, deadline_ns, eb);
    for (uint32_t odd = 0; e == ERR_OK && odd < 2 && odd + 1 < g->n_stages; odd++)
        e = links_meet(g, odd, bytes, deadline_ns, eb);
    return e;
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* Of PIECE_ROWS each; the last has what is left. */
static uint32_t pieces_of(uint32_t n_stages, uint32_t n_rows)
{
    return n_stages == 1 || n_rows < 2 * PIECE_ROWS ? 1 : n_rows / PIECE_ROWS;
}

uint32_t gang_piece_most(const struct shard_cut *cut, uint32_t step_rows)
{
    const uint32_t most = 2 * PIECE_ROWS - 1;
    return cut->n_stages == 1 || step_rows < most ? step_rows : most;
}

uint32_t gang_pieces(const struct gang *g, uint32_t n_rows)
{
    return pieces_of(g->n_stages, n_rows);
}

struct shard_run gang_piece(const struct gang *g, uint32_t n_rows, uint32_t piece)
{
    const bool is_last = piece + 1 == pieces_of(g->n_stages, n_rows);
    return (struct shard_run){piece * PIECE_ROWS, is_last ? n_rows : (piece + 1) * PIECE_ROWS};
}

/* ---- steps under way ------------------------------------------------------------------------ */

uint32_t gang_steps_max(const struct gang *g)
{
    return g->n_stages;
}

uint32_t gang_owing_max(const struct gang *g, uint32_t n_rows)
{
    return g->n_stages > 1 && gang_pieces(g, n_rows) > 1 ? 1 : g->n_stages - 1;
}

bool gang_must_take(const struct gang *g, uint32_t n_rows, uint32_t n_owing)
{
    return n_owing > 0 && n_owing == gang_owing_max(g, n_rows);
}

/* ---- from stage to stage -------------------------------------------------------------------- */

bool gang_is_first(const struct gang *g)
{
    return g->stage == 0;
}

bool gang_is_last(const struct gang *g)
{
    return g->stage + 1 == g->n_stages;
}

static void copy_rows(struct gang *g, uint32_t n, const float *from, float *to)
{
    const struct join_part rows = {from, g->n_embd};
    const struct join_job copy = {
        .part = &rows, .n_parts = 1, .cols = g->n_embd, .out = to, .out_stride = g->n_embd};
    g->backend->ops->join(g->backend, n, &copy);
}

static enum err link_begin(struct gang *g, struct coll *link, uint32_t n, void **ret_mine,
                           struct errbuf *eb)
{
    const size_t bytes[2] = {(size_t)n * g->n_embd * sizeof(float), 0};
    return coll_gather_begin(link, 1, bytes, gang_patience(g, link), ret_mine, eb);
}

enum err gang_receive(struct gang *g, uint32_t n, float *x, struct errbuf *eb)
{
    struct coll *link = g->coll[GANG_COLL_BEFORE];
    const void *parts[2];
    void *mine;
    enum err e = link_begin(g, link, n, &mine, eb);

    if (e == ERR_OK)
        e = gang_hand_over(g, link, parts, eb);
    if (e == ERR_OK)
        copy_rows(g, n, parts[0], x);
    return e;
}

enum err gang_send(struct gang *g, uint32_t n, const float *x, struct errbuf *eb)
{
    struct coll *link = g->coll[GANG_COLL_BEHIND];
    const void *parts[2];
    void *mine;

    g->backend->ops->submit(g->backend); /* it computes while this rank waits for others */
    enum err e = gang_take_logits(g, eb);
    if (e == ERR_OK)
        e = gang_pass_on(g, eb);
    if (e == ERR_OK)
        e = link_begin(g, link, n, &mine, eb);
    if (e != ERR_OK)
        return e;
    copy_rows(g, n, x, mine);
    return gang_hand_over(g, link, parts, eb);
}
