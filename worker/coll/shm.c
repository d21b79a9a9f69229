/*
 * The operations over shared memory. A rank writes its pieces in place, raises its `arrived`, and
 * waits until those whose pieces it needs have raised theirs: of the bytes nothing is copied.
 *
 * Before a rank writes a half, every rank has come to the operation before (coll_ops.h). After an
 * all-gather that is so already, so the loop over ranks in `begin` costs a look at lines that are
 * in the cache. It also keeps any two ranks within one operation of each other, which is why two
 * slots for what an operation is (`what`, `layout`, `size`) are enough.
 */
#include "worker/coll/shm.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct shm *shm_of(struct coll *c)
{
    return (struct shm *)c;
}

static enum err shm_begin(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct shm *s = shm_of(c);
    enum err e = shm_go_on(s, eb);
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK; r++) {
        if (r != c->rank)
            e = shm_wait(s, r, c->op.seq - 1, deadline_ns, eb);
    }
    return e;
}

static uint32_t shm_what(const struct coll_op *op)
{
    return (uint32_t)op->kind << 8 | op->root;
}

static void shm_put_up(struct shm *s)
{
    const struct coll_op *op = &s->base.op;
    struct shm_rank *line = &s->segment.header->rank[s->base.rank];
    const uint32_t side = op->seq & 1;
    atomic_store_explicit(&line->what[side], shm_what(op), memory_order_relaxed);
    atomic_store_explicit(&line->layout[side], op->layout, memory_order_relaxed);
    atomic_store_explicit(&line->size[side],
                          op->kind == COLL_KIND_BROADCAST ? op->piece[op->root].bytes : 0,
                          memory_order_relaxed);
    shm_arrive(s, op->seq);
}

/* What `from` put up, once it has come: the same operation, or somebody's plan is wrong. */
static enum err shm_compare(struct shm *s, uint32_t from, struct errbuf *eb)
{
    struct coll_op *op = &s->base.op;
    const struct shm_rank *line = &s->segment.header->rank[from];
    const uint32_t side = op->seq & 1;
    char subject[COLL_SUBJECT_BYTES];
    const uint32_t what = atomic_load_explicit(&line->what[side], memory_order_relaxed);
    const uint64_t layout = atomic_load_explicit(&line->layout[side], memory_order_relaxed);
    const uint64_t size = atomic_load_explicit(&line->size[side], memory_order_relaxed);
    if (what != shm_what(op)) {
        err_set(eb, ERR_INTERNAL, "%s is at %s with root %u, rank %u at %s with root %u",
                coll_subject(&s->base, from, subject), coll_kind_name((enum coll_kind)(what >> 8)),
                what & 0xff, coll_name(&s->base, s->base.rank), coll_kind_name(op->kind), op->root);
        return shm_break(s, ERR_INTERNAL, eb);
    }
    if (layout != op->layout || size > s->base.bytes_max) {
        err_set(eb, ERR_INTERNAL, "%s has other sizes than rank %u",
                coll_subject(&s->base, from, subject), coll_name(&s->base, s->base.rank));
        return shm_break(s, ERR_INTERNAL, eb);
    }
    if (op->kind == COLL_KIND_BROADCAST)
        op->piece[from].bytes = (size_t)size;
    return ERR_OK;
}

static enum err shm_end(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct shm *s = shm_of(c);
    enum err e = shm_go_on(s, eb);
    if (e != ERR_OK)
        return e;
    shm_put_up(s);
    for (uint32_t from = 0; from < c->n_ranks && e == ERR_OK; from++) {
        if (!coll_awaits(&c->op, c->rank, from))
            continue;
        e = shm_wait(s, from, c->op.seq, deadline_ns, eb);
        if (e == ERR_OK)
            e = shm_compare(s, from, eb);
    }
    return e;
}

static enum err shm_check(struct coll *c, bool may_leave, struct errbuf *eb)
{
    struct shm *s = shm_of(c);
    enum err e = shm_go_on(s, eb);
    if (e != ERR_OK)
        return e;
    const uint32_t dead = shm_dead(s);
    if (dead < c->n_ranks)
        e = coll_lost(c, dead, "ended", c->count, eb);
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK && !may_leave; r++) {
        if (atomic_load(&s->segment.header->rank[r].left) != 0)
            e = coll_lost(c, r, "left the gang", c->count, eb);
    }
    return e == ERR_OK ? ERR_OK : shm_break(s, e, eb);
}

static bool shm_is_clear(struct coll *c)
{
    bool is_clear = true;
    for (uint32_t r = 0; r < c->n_ranks; r++)
        is_clear = is_clear && shm_has_come(&shm_of(c)->segment.header->rank[r], c->op.seq);
    return is_clear;
}

static void shm_abort(struct coll *c, const char *why)
{
    struct errbuf eb = {{0}};
    err_set(&eb, ERR_CANCELLED, "rank %u ended the gang: %s", coll_name(c, c->rank), why);
    (void)shm_break(shm_of(c), ERR_CANCELLED, &eb);
}

static enum err shm_broken_op(struct coll *c, bool may_wait, struct errbuf *eb)
{
    (void)may_wait;
    return shm_broken(shm_of(c), eb);
}

static enum err shm_fail(struct coll *c, enum err code, struct errbuf *eb)
{
    return shm_break(shm_of(c), code, eb);
}

static void shm_close(struct coll *c)
{
    struct shm *s = shm_of(c);
    if (s->segment.header != NULL) {
        struct shm_rank *line = &s->segment.header->rank[c->rank];
        atomic_store(&line->left, 1);
        shm_wake(line);
        shm_segment_unmap(&s->segment);
    }
    shm_meeting_fini(&s->meeting, c->n_ranks);
    free(s);
}

static const struct coll_ops shm_ops = {
    .name = "shm",
    .begin = shm_begin,
    .end = shm_end,
    .check = shm_check,
    .is_clear = shm_is_clear,
    .abort = shm_abort,
    .broken = shm_broken_op,
    .fail = shm_fail,
    .close = shm_close,
};

void coll_shm_decline(const struct coll_config *config, const struct coll_hello *hello,
                      uint64_t deadline_ns)
{
    const struct coll_watch watch = coll_watch_of(config);
    struct shm_meeting meeting;
    struct errbuf eb;
    /* Who declines meets nobody: every way out is an error, and nothing is held. */
    (void)shm_meet(hello, &watch, deadline_ns, &meeting, &eb);
}

enum err coll_shm_open(const struct coll_config *config, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb)
{
    struct coll_hello hello;
    struct shm *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang");
    s->base = (struct coll){.ops = &shm_ops,
                            .rank = config->rank,
                            .n_ranks = config->n_ranks,
                            .bytes_max = config->bytes_max,
                            .watch = *watch,
                            .op = {.seq = COLL_SEQ_FIRST}};
    s->meeting.memory = -1;
    memset(s->meeting.pidfd, -1, sizeof s->meeting.pidfd);
    /* The ranks of a gang's other parts run on the same processors. */
    s->is_crowded =
        (watch->root != NULL ? watch->root->n_ranks : config->n_ranks) > shm_processors();
    enum err e = coll_hello_of(config, &hello, eb);
    if (e == ERR_OK)
        e = shm_meet(&hello, watch, deadline_ns, &s->meeting, eb);
    if (e == ERR_OK)
        e = shm_segment_map(s->meeting.memory, config->bytes_max, &s->segment, eb);
    if (e != ERR_OK) {
        shm_close(&s->base);
        return e;
    }
    close(s->meeting.memory); /* the mapping keeps it */
    s->meeting.memory = -1;
    s->base.half[0] = s->segment.half[0];
    s->base.half[1] = s->segment.half[1];
    *ret_coll = &s->base;
    return ERR_OK;
}
