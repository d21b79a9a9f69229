/*
 * The operations over libucx. Receives are posted when an operation begins, straight into the half
 * where the caller will read; sends go straight from where the caller wrote.
 */
#include "worker/coll/ucx.h"

#include "common/clock.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Turns without anything new before a rank lets others run, and before it sleeps. */
#define UCX_TURNS_BUSY 200u
#define UCX_TURNS      400u
/* Turns before it looks around. */
#define UCX_TURNS_LOOK 32u

static struct ucx *ucx_of(struct coll *c)
{
    return (struct ucx *)c;
}

/* token 32 | sender 8 | kind 4 | root 4 | more 1 | sequence 15: the first two choose a message, the
 * others are compared when it is there. */
static ucp_tag_t ucx_tag(const struct ucx *u, uint32_t from)
{
    const struct coll_op *op = &u->base.op;
    uint32_t token;
    memcpy(&token, u->token, sizeof token);
    return (uint64_t)token << 32 | (uint64_t)from << 24 | (uint64_t)op->kind << 20 |
           (uint64_t)op->root << 16 | (op->seq & (UCX_TAG_MORE - 1));
}

/* ---- waiting ---- */

static bool ucx_all_done(struct ucx *u)
{
    bool is_done = true;
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        struct ucx_peer *peer = &u->peer[r];
        is_done = ucx_flow_done(peer, &peer->send) && is_done;
        is_done = ucx_flow_done(peer, &peer->receive) && is_done;
        is_done = ucx_flow_done(peer, &peer->receipt) && is_done;
    }
    return is_done;
}

static enum err ucx_late(struct ucx *u, struct errbuf *eb)
{
    char subject[COLL_SUBJECT_BYTES], wanted[COLL_SUBJECT_BYTES];
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        const struct ucx_peer *peer = &u->peer[r];
        if (!peer->send.is_wanted && !peer->receive.is_wanted && !peer->receipt.is_wanted)
            continue;
        coll_subject(&u->base, r, subject);
        if (peer->receive.is_wanted || peer->receipt.is_wanted)
            coll_wanted(&u->base, r, u->base.op.seq - (peer->receipt.is_wanted ? 1 : 0), wanted);
        else
            (void)snprintf(wanted, sizeof wanted, "it to take this rank's bytes");
        err_set(eb, ERR_TIMEOUT, "%s kept rank %u waiting for %s past the deadline", subject,
                coll_name(&u->base, u->base.rank), wanted);
        break;
    }
    return ucx_break(u, ERR_TIMEOUT, eb);
}

/* Until every request that is wanted has its result. Also while bytes flow without end it looks
 * around now and then: for the deadline, for an abort, and because this rank's beats are due. */
static enum err ucx_wait(struct ucx *u, uint64_t deadline_ns, struct errbuf *eb)
{
    uint32_t idle = 0;
    for (uint32_t turn = 1; !ucx_all_done(u); turn++) {
        idle = u->lib->ucp_worker_progress(u->worker) != 0 ? 0 : idle + 1;
        if (idle < UCX_TURNS_BUSY && turn % UCX_TURNS_LOOK != 0)
            continue;
        const uint64_t now = clock_mono_ns();
        if (ucx_all_done(u))
            return ERR_OK;
        enum err e = ucx_turn(u, true, now, eb);
        if (e != ERR_OK)
            return e;
        if (now >= deadline_ns)
            return ucx_late(u, eb);
        if (idle >= UCX_TURNS) {
            const uint64_t left_ms = (deadline_ns - now) / 1000000u + 1;
            const int beat_ms = UCX_BEAT_NS / 2000000u;
            ucx_sleep(u, left_ms < (uint64_t)beat_ms ? (int)left_ms : beat_ms);
        } else if (idle >= UCX_TURNS_BUSY) {
            sched_yield();
        }
    }
    return ERR_OK;
}

/* ---- what came ---- */

static enum err ucx_differs(struct ucx *u, uint32_t from, ucp_tag_t theirs, ucp_tag_t ours,
                            struct errbuf *eb)
{
    char subject[COLL_SUBJECT_BYTES];
    coll_subject(&u->base, from, subject);
    if (((theirs ^ ours) & ~(ucp_tag_t)UCX_TAG_MORE) == 0)
        err_set(eb, ERR_INTERNAL, "%s has other sizes than rank %u", subject,
                coll_name(&u->base, u->base.rank));
    else
        err_set(eb, ERR_INTERNAL, "%s is at %s with root %u, rank %u at %s with root %u", subject,
                coll_kind_name((enum coll_kind)(theirs >> 20 & 15)), (unsigned)(theirs >> 16 & 15),
                coll_name(&u->base, u->base.rank),
                coll_kind_name((enum coll_kind)(ours >> 20 & 15)), (unsigned)(ours >> 16 & 15));
    return ucx_break(u, ERR_INTERNAL, eb);
}

/* ERR_OK where what came from `from` is what was waited for. */
static enum err ucx_compare(struct ucx *u, uint32_t from, const struct ucx_flow *flow,
                            struct errbuf *eb)
{
    const struct ucx_request *got = &flow->result;
    char subject[COLL_SUBJECT_BYTES];
    if (!flow->is_odd)
        return ERR_OK;
    if (got->status == UCS_OK || got->status == UCS_ERR_MESSAGE_TRUNCATED)
        return ucx_differs(u, from, got->info.sender_tag, got->tag, eb);
    err_set(eb, ERR_UNAVAILABLE, "%s ended (%s) while rank %u had its bytes coming",
            coll_subject(&u->base, from, subject), u->lib->ucs_status_string(got->status),
            coll_name(&u->base, u->base.rank));
    return ucx_lost(u, eb);
}

static enum err ucx_received(struct ucx *u, uint32_t from, struct errbuf *eb)
{
    const struct ucx_flow *flow = &u->peer[from].receive;
    if (u->base.op.kind == COLL_KIND_BROADCAST)
        coll_piece_of(&u->base, from, u->base.rank)->bytes =
            flow->is_odd ? 0 : flow->result.info.length;
    return ucx_compare(u, from, flow, eb);
}

static enum err ucx_sent(struct ucx *u, uint32_t to, struct errbuf *eb)
{
    const struct ucx_flow *flow = &u->peer[to].send;
    char subject[COLL_SUBJECT_BYTES];
    if (!flow->is_odd)
        return ERR_OK;
    err_set(eb, ERR_UNAVAILABLE, "%s ended (%s) while rank %u waited for it to take its bytes",
            coll_subject(&u->base, to, subject), u->lib->ucs_status_string(flow->result.status),
            coll_name(&u->base, u->base.rank));
    return ucx_lost(u, eb);
}

/* ---- the operations ---- */

/* Beats queue behind what is under way: a window of messages to or from each rank. */
static uint64_t ucx_patience(const struct coll *c)
{
    const size_t window = (c->n_ranks - 1) * UCX_WINDOW * UCX_CHUNK_BYTES;
    return (c->op.bytes < window ? c->op.bytes : window) * UCX_PATIENCE_NS_PER_BYTE;
}

static enum err ucx_begin_locked(struct ucx *u, uint64_t deadline_ns, struct errbuf *eb)
{
    struct coll *c = &u->base;
    u->patience_ns = ucx_patience(c);
    for (uint32_t r = 0; r < c->n_ranks; r++) {
        ucx_flow_want(&u->peer[r].send);
        ucx_flow_want(&u->peer[r].receipt);
    }
    enum err e = ucx_turn(u, true, clock_mono_ns(), eb);
    if (e == ERR_OK)
        e = ucx_wait(u, deadline_ns, eb);
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK; r++)
        e = ucx_compare(u, r, &u->peer[r].receipt, eb);
    for (uint32_t from = 0; from < c->n_ranks && e == ERR_OK; from++) {
        if (!coll_awaits(&c->op, c->rank, from))
            continue;
        const bool is_broadcast = c->op.kind == COLL_KIND_BROADCAST;
        const bool has_bytes = c->op.kind != COLL_KIND_BARRIER;
        const struct coll_piece *mine = coll_piece_of(c, from, c->rank);
        const struct ucx_piece piece = {
            .tag = ucx_tag(u, from),
            .at = c->half[c->op.seq & 1] + (has_bytes ? mine->at : 0),
            .size = is_broadcast ? c->bytes_max
                    : has_bytes  ? mine->bytes
                                 : 0,
            .is_receive = true,
            .is_broadcast = is_broadcast,
            .is_wanted = true,
        };
        ucx_flow_begin(&u->peer[from], &u->peer[from].receive, &piece);
    }
    return e;
}

/* To one that waits for this rank its piece; to one that this rank waits for word that it has what
 * it was waiting for, for which the next operation waits. */
static void ucx_give(struct ucx *u, uint32_t to)
{
    struct coll *c = &u->base;
    struct ucx_peer *peer = &u->peer[to];
    const bool is_sent = coll_awaits(&c->op, to, c->rank);
    const bool is_received = coll_awaits(&c->op, c->rank, to);
    const bool has_bytes = is_sent && c->op.kind != COLL_KIND_BARRIER;
    const struct coll_piece *theirs = coll_piece_of(c, c->rank, to);
    const struct ucx_piece piece = {
        .tag = ucx_tag(u, c->rank),
        .at = c->half[c->op.seq & 1] + (has_bytes ? theirs->at : 0),
        .size = has_bytes ? theirs->bytes : 0,
        .is_broadcast = is_sent && c->op.kind == COLL_KIND_BROADCAST,
        .is_wanted = is_sent,
    };
    const struct ucx_piece receipt = {.tag = ucx_tag(u, to), .is_receive = true};
    if (is_sent || is_received)
        ucx_flow_begin(peer, &peer->send, &piece);
    if (is_sent && !is_received)
        ucx_flow_begin(peer, &peer->receipt, &receipt);
}

static enum err ucx_end_locked(struct ucx *u, uint64_t deadline_ns, struct errbuf *eb)
{
    struct coll *c = &u->base;
    enum err e = ucx_turn(u, true, clock_mono_ns(), eb);
    if (e != ERR_OK)
        return e;
    /* Each rank begins with the one after it: not all with the same. */
    for (uint32_t i = 1; i < c->n_ranks; i++)
        ucx_give(u, (c->rank + i) % c->n_ranks);
    e = ucx_wait(u, deadline_ns, eb);
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK; r++) {
        if (coll_awaits(&c->op, c->rank, r))
            e = ucx_received(u, r, eb);
        if (e == ERR_OK && coll_awaits(&c->op, r, c->rank))
            e = ucx_sent(u, r, eb);
    }
    return e;
}

static enum err ucx_begin(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct ucx *u = ucx_of(c);
    pthread_mutex_lock(&u->lock);
    enum err e = ucx_begin_locked(u, deadline_ns, eb);
    pthread_mutex_unlock(&u->lock);
    return e;
}

static enum err ucx_end(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct ucx *u = ucx_of(c);
    pthread_mutex_lock(&u->lock);
    enum err e = ucx_end_locked(u, deadline_ns, eb);
    u->n_ended = c->count;
    pthread_mutex_unlock(&u->lock);
    return e;
}

static enum err ucx_check(struct coll *c, bool may_leave, struct errbuf *eb)
{
    struct ucx *u = ucx_of(c);
    pthread_mutex_lock(&u->lock);
    enum err e = ucx_look(u, eb);
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK && !may_leave; r++) {
        if (u->peer[r].has_left) {
            (void)coll_lost(c, r, "left the gang", u->n_ended, eb);
            e = ucx_break(u, ERR_UNAVAILABLE, eb);
        }
    }
    pthread_mutex_unlock(&u->lock);
    return e;
}

static bool ucx_is_clear(struct coll *c)
{
    struct ucx *u = ucx_of(c);
    bool is_clear = true;
    pthread_mutex_lock(&u->lock);
    (void)u->lib->ucp_worker_progress(u->worker);
    (void)ucx_all_done(u);
    for (uint32_t r = 0; r < c->n_ranks; r++)
        is_clear = is_clear && !ucx_flow_is_active(&u->peer[r].send) &&
                   !ucx_flow_is_active(&u->peer[r].receipt);
    pthread_mutex_unlock(&u->lock);
    return is_clear;
}

/* Whoever holds the lock next, or now, does what is asked. */
static void ucx_abort(struct coll *c, const char *why)
{
    struct ucx *u = ucx_of(c);
    const uint64_t one = 1;
    pthread_mutex_lock(&u->abort_lock);
    if (!atomic_load(&u->is_abort_asked))
        (void)snprintf(u->abort_why, sizeof u->abort_why, "%s", why);
    pthread_mutex_unlock(&u->abort_lock);
    atomic_store(&u->is_abort_asked, true);
    (void)!write(u->wake_owner, &one, sizeof one);
    (void)!write(u->wake_beater, &one, sizeof one);
}

/* Whoever holds the lock is about to look around by itself. */
static enum err ucx_broken(struct coll *c, bool may_wait, struct errbuf *eb)
{
    struct ucx *u = ucx_of(c);
    enum err e = ERR_OK;
    if (may_wait)
        pthread_mutex_lock(&u->lock);
    else if (pthread_mutex_trylock(&u->lock) != 0)
        return ERR_OK;
    if (u->broken != ERR_OK)
        e = err_set(eb, u->broken, "%s", u->reason.text);
    pthread_mutex_unlock(&u->lock);
    return e;
}

static enum err ucx_fail(struct coll *c, enum err code, struct errbuf *eb)
{
    struct ucx *u = ucx_of(c);
    pthread_mutex_lock(&u->lock);
    enum err e = ucx_break(u, code, eb);
    pthread_mutex_unlock(&u->lock);
    return e;
}

const struct coll_ops ucx_ops = {
    .name = "ucx",
    .begin = ucx_begin,
    .end = ucx_end,
    .check = ucx_check,
    .is_clear = ucx_is_clear,
    .abort = ucx_abort,
    .broken = ucx_broken,
    .fail = ucx_fail,
    .close = ucx_close,
};
