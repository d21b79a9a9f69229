/*
 * The operations over NCCL. A half is this rank's own memory, which others' bytes get into only
 * where this rank asks NCCL for them, on the stream on which its kernels write and read halves. So
 * the stream's order is all that keeps halves apart, and nothing is waited for when an operation
 * begins.
 *
 * At its end ranks first compare over the control what they are about to do, since NCCL would hang
 * or mix up bytes where they differ; then NCCL's part is queued behind the kernels that write this
 * rank's bytes, and the host waits until the stream has come there. It looks at three things
 * meanwhile: the mark on the stream, NCCL's own state, and the control.
 */
#include "worker/coll/nccl.h"

#include "common/check.h"
#include "common/clock.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How often a rank that waits looks at NCCL's state and at the control, which costs system calls;
 * and how long it turns in circles for one operation before it sleeps in between. */
#define NCCL_LOOK_NS  1000000u
#define NCCL_SPIN_NS  2000000u
#define NCCL_SLEEP_NS 100000
/* How long the control may take to say which rank is gone, when NCCL says that something is. */
#define NCCL_NAMING_NS 100000000u

static struct nccl *nccl_of(struct coll *c)
{
    return (struct nccl *)c;
}

enum err nccl_said(const struct nccl *n, const char *what, int result, struct errbuf *eb)
{
    const struct nccl_abi *abi = &n->lib->abi;
    const char *more = abi->ncclGetLastError(n->comm);
    return err_set(eb, ERR_UNAVAILABLE, "%s: rank %u: NCCL: %s%s%s", what,
                   coll_name(&n->base, n->base.rank), abi->ncclGetErrorString(result),
                   more != NULL && more[0] != '\0' ? ": " : "", more != NULL ? more : "");
}

/* NCCL mostly fails because of a rank that is gone, which it may know before the control does, and
 * not by name: that one is given a moment to say it. */
static enum err nccl_failed(struct nccl *n, const char *what, int result, struct errbuf *eb)
{
    const uint64_t until = clock_mono_ns() + NCCL_NAMING_NS;
    enum err e = ERR_OK;
    while (e == ERR_OK && clock_mono_ns() < until) {
        e = coll_check(n->base.control, eb);
        if (e == ERR_OK)
            (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return e == ERR_OK ? nccl_said(n, what, result, eb) : e;
}

void nccl_give_up(struct nccl *n)
{
    if (n->comm == NULL)
        return;
    n->device->enter(n->device->ctx);
    (void)n->lib->abi.ncclCommAbort(n->comm);
    n->comm = NULL;
}

/* ---- waiting ---- */

struct nccl_waiting {
    uint64_t spin_ns;
    uint64_t began_ns, looked_ns;
};

/* Between two looks at what is waited for: all that could end the wait. */
static enum err nccl_look(struct nccl *n, struct nccl_waiting *w, const char *what,
                          uint64_t deadline_ns, struct errbuf *eb)
{
    const uint64_t now = clock_mono_ns();
    int state = NCCL_ABI_SUCCESS;
    if (w->began_ns == 0)
        w->began_ns = w->looked_ns = now;
    if (now - w->looked_ns >= NCCL_LOOK_NS || now >= deadline_ns) {
        w->looked_ns = now;
        enum err e = coll_look(n->base.control, eb);
        if (e != ERR_OK)
            return e;
        int result = n->lib->abi.ncclCommGetAsyncError(n->comm, &state);
        result = result == NCCL_ABI_SUCCESS ? state : result;
        if (result != NCCL_ABI_SUCCESS && result != NCCL_ABI_IN_PROGRESS)
            return nccl_failed(n, what, result, eb);
    }
    if (now >= deadline_ns)
        return err_set(eb, ERR_TIMEOUT, "%s: NCCL kept rank %u waiting past the deadline", what,
                       coll_name(&n->base, n->base.rank));
    if (now - w->began_ns < w->spin_ns)
        (void)sched_yield();
    else
        (void)nanosleep(&(struct timespec){.tv_nsec = NCCL_SLEEP_NS}, NULL);
    return ERR_OK;
}

enum err nccl_settle(struct nccl *n, const char *what, uint64_t deadline_ns, struct errbuf *eb)
{
    struct nccl_waiting waiting = {.spin_ns = NCCL_SPIN_NS};
    enum err e = ERR_OK;
    while (e == ERR_OK) {
        int state = NCCL_ABI_IN_PROGRESS;
        int result = n->lib->abi.ncclCommGetAsyncError(n->comm, &state);
        if (result != NCCL_ABI_SUCCESS || state != NCCL_ABI_IN_PROGRESS) {
            result = result == NCCL_ABI_SUCCESS ? state : result;
            return result == NCCL_ABI_SUCCESS ? ERR_OK : nccl_failed(n, what, result, eb);
        }
        e = nccl_look(n, &waiting, what, deadline_ns, eb);
    }
    return e;
}

/* "all_gather 17" */
static void nccl_name(const struct coll *c, char ret_text[COLL_SUBJECT_BYTES])
{
    (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "%s %llu", coll_kind_name(c->op.kind),
                   (unsigned long long)c->count);
}

/* Until the stream has come to where it is now, behind so many operations. */
static enum err nccl_wait(struct nccl *n, const char *what, uint32_t n_ops, uint64_t deadline_ns,
                          struct errbuf *eb)
{
    struct nccl_waiting waiting = {.spin_ns = (uint64_t)n_ops * NCCL_SPIN_NS};
    enum err e = ERR_OK;
    n->device->mark(n->device->ctx);
    while (e == ERR_OK && !n->device->is_done(n->device->ctx))
        e = nccl_look(n, &waiting, what, deadline_ns, eb);
    return e;
}

/* ---- what ranks are about to do ---- */

#define NCCL_WORD_BYTES 16u /* kind and root, four bytes each; digest of the sizes */

/* `mask`: of the digest. */
static enum err nccl_compare(struct nccl *n, uint32_t from, const uint8_t *theirs, uint64_t mask,
                             struct errbuf *eb)
{
    const struct coll *c = &n->base;
    const uint32_t kind = coll_get_u32(theirs), root = coll_get_u32(theirs + 4);
    char subject[COLL_SUBJECT_BYTES];
    if (kind != (uint32_t)c->op.kind || root != c->op.root)
        return err_set(eb, ERR_INTERNAL, "%s is at %s with root %u, rank %u at %s with root %u",
                       coll_subject(c, from, subject), coll_kind_name((enum coll_kind)kind), root,
                       coll_name(c, c->rank), coll_kind_name(c->op.kind), c->op.root);
    if ((coll_get_u64(theirs + 8) & mask) != (c->op.layout & mask))
        return err_set(eb, ERR_INTERNAL, "%s has other %s than rank %u",
                       coll_subject(c, from, subject),
                       c->op.kind == COLL_KIND_RUN ? "operations" : "sizes", coll_name(c, c->rank));
    return ERR_OK;
}

/* This rank's word to all, and theirs. */
static enum err nccl_tell(struct nccl *n, uint64_t digest, uint64_t deadline_ns,
                          const void *ret_words[], struct errbuf *eb)
{
    const struct coll *c = &n->base;
    size_t bytes[COLL_RANKS_MAX];
    void *mine;
    for (uint32_t r = 0; r < c->n_ranks; r++)
        bytes[r] = NCCL_WORD_BYTES;
    enum err e = coll_all_gather_begin(c->control, bytes, deadline_ns, &mine, eb);
    if (e != ERR_OK)
        return e;
    coll_put_u32(mine, (uint32_t)c->op.kind);
    coll_put_u32((uint8_t *)mine + 4, c->op.root);
    coll_put_u64((uint8_t *)mine + 8, digest);
    return coll_end(c->control, deadline_ns, ret_words, eb);
}

static enum err nccl_agree(struct nccl *n, uint64_t deadline_ns, struct errbuf *eb)
{
    const void *words[COLL_RANKS_MAX];
    enum err e = nccl_tell(n, n->base.op.layout, deadline_ns, words, eb);
    for (uint32_t r = 0; r < n->base.n_ranks && e == ERR_OK; r++)
        e = nccl_compare(n, r, words[r], UINT64_MAX, eb);
    return e;
}

/* ---- moving ---- */

/* The parts of an all-gather that lie as NCCL's own has them. */
static bool nccl_is_even(struct coll *c)
{
    const size_t bytes = c->op.piece[0].bytes;
    bool is_even = c->op.kind == COLL_KIND_ALL_GATHER && bytes > 0 && bytes % COLL_ALIGN == 0;
    for (uint32_t r = 1; r < c->n_ranks; r++)
        is_even = is_even && c->op.piece[r].bytes == bytes;
    return is_even;
}

/* A communicator that does not block may say either. */
static bool nccl_is_queued(int result)
{
    return result == NCCL_ABI_SUCCESS || result == NCCL_ABI_IN_PROGRESS;
}

/* Each with each, as one: NCCL has all of them under way together. */
static int nccl_queue_pieces(struct nccl *n, uint8_t *half)
{
    const struct nccl_abi *abi = &n->lib->abi;
    struct coll *c = &n->base;
    void *queue = n->device->queue;
    int result = abi->ncclGroupStart();
    for (uint32_t i = 1; i < c->n_ranks && nccl_is_queued(result); i++) {
        const uint32_t to = (c->rank + i) % c->n_ranks;
        const uint32_t from = (c->rank + c->n_ranks - i) % c->n_ranks;
        const struct coll_piece *out = coll_piece_of(c, c->rank, to);
        const struct coll_piece *in = coll_piece_of(c, from, c->rank);
        if (coll_awaits(&c->op, to, c->rank) && out->bytes > 0)
            result =
                abi->ncclSend(half + out->at, out->bytes, NCCL_ABI_UINT8, (int)to, n->comm, queue);
        if (nccl_is_queued(result) && coll_awaits(&c->op, c->rank, from) && in->bytes > 0)
            result =
                abi->ncclRecv(half + in->at, in->bytes, NCCL_ABI_UINT8, (int)from, n->comm, queue);
    }
    const int ended = abi->ncclGroupEnd();
    return nccl_is_queued(result) ? ended : result;
}

/* Puts the operation on the stream, and waits for the last `n_wait` there, this one among them; 0:
 * for none. */
static enum err nccl_move(struct nccl *n, const char *what, uint32_t n_wait, uint64_t deadline_ns,
                          struct errbuf *eb)
{
    struct coll *c = &n->base;
    uint8_t *half = c->half[c->op.seq & 1];
    int result = nccl_is_even(c) ? n->lib->abi.ncclAllGather(half + c->op.piece[c->rank].at, half,
                                                             c->op.piece[0].bytes, NCCL_ABI_UINT8,
                                                             n->comm, n->device->queue)
                                 : nccl_queue_pieces(n, half);
    if (!nccl_is_queued(result))
        return nccl_failed(n, what, result, eb);
    enum err e = nccl_settle(n, what, deadline_ns, eb);
    return e == ERR_OK && n_wait > 0 ? nccl_wait(n, what, n_wait, deadline_ns, eb) : e;
}

/* ---- operations that are put off ---- */

void coll_nccl_forget(struct coll *c)
{
    struct nccl *n = nccl_of(c);
    n->is_put_off = false;
    n->n_later = 0;
    n->n_pieces = 0;
    n->digest = 0;
}

void coll_nccl_put_off(struct coll *c)
{
    CHECK(!nccl_of(c)->is_put_off);
    coll_nccl_forget(c);
    nccl_of(c)->is_put_off = true;
}

static uint64_t nccl_mix(uint64_t digest, uint64_t word)
{
    digest = (digest ^ word) * 0xff51afd7ed558ccdu;
    return digest ^ digest >> 32;
}

static uint32_t nccl_op_pieces(const struct nccl *n, enum coll_kind kind)
{
    return kind == COLL_KIND_EXCHANGE ? n->base.n_ranks * n->base.n_ranks : n->base.n_ranks;
}

static bool nccl_later_grow(struct nccl *n, uint32_t n_pieces)
{
    if (n->n_later == n->later_max) {
        const uint32_t max = n->later_max == 0 ? 64 : 2 * n->later_max;
        struct nccl_later *grown = realloc(n->later, max * sizeof *grown);
        if (grown == NULL)
            return false;
        n->later = grown;
        n->later_max = max;
    }
    if (n->n_pieces + n_pieces > n->pieces_max) {
        const size_t max = 2 * (n->n_pieces + n_pieces);
        struct coll_piece *grown = realloc(n->pieces, max * sizeof *grown);
        if (grown == NULL)
            return false;
        n->pieces = grown;
        n->pieces_max = max;
    }
    return true;
}

static enum err nccl_keep(struct nccl *n, struct errbuf *eb)
{
    const struct coll_op *op = &n->base.op;
    const uint32_t n_pieces = nccl_op_pieces(n, op->kind);
    if (!nccl_later_grow(n, n_pieces))
        return err_set(eb, ERR_NO_MEMORY, "no memory for operations that are put off");
    memcpy(n->pieces + n->n_pieces, op->piece, n_pieces * sizeof *n->pieces);
    n->later[n->n_later++] =
        (struct nccl_later){op->kind, op->root, op->seq, n->base.count, n->n_pieces};
    n->n_pieces += n_pieces;
    n->digest = nccl_mix(nccl_mix(n->digest, (uint64_t)op->kind << 32 | op->root), op->layout);
    return ERR_OK;
}

/* Whether all ranks do the same, and are ready for it. */
static enum err nccl_agree_run(struct nccl *n, bool is_ready, uint64_t deadline_ns, bool *ret_ready,
                               struct errbuf *eb)
{
    const void *words[COLL_RANKS_MAX];
    struct coll *c = &n->base;
    c->op.kind = COLL_KIND_RUN;
    c->op.root = 0;
    c->op.layout = nccl_mix(n->digest, (uint64_t)n->n_later << 1) & ~UINT64_C(1);
    enum err e = nccl_tell(n, c->op.layout | (is_ready ? 1 : 0), deadline_ns, words, eb);
    *ret_ready = true;
    for (uint32_t r = 0; r < c->n_ranks && e == ERR_OK; r++) {
        *ret_ready = *ret_ready && (coll_get_u64((const uint8_t *)words[r] + 8) & 1) != 0;
        e = nccl_compare(n, r, words[r], ~UINT64_C(1), eb);
    }
    return e;
}

static void nccl_recall(struct nccl *n, uint32_t i)
{
    const struct nccl_later *later = &n->later[i];
    struct coll *c = &n->base;
    c->op.kind = later->kind;
    c->op.root = later->root;
    c->op.seq = later->seq;
    c->count = later->count;
    memcpy(c->op.piece, n->pieces + later->pieces,
           nccl_op_pieces(n, later->kind) * sizeof *n->pieces);
}

enum err coll_nccl_run(struct coll *c, const struct coll_queue *queue, uint64_t wait_ns,
                       struct errbuf *eb)
{
    struct nccl *n = nccl_of(c);
    char what[COLL_SUBJECT_BYTES] = "";
    bool is_ready = false;
    uint32_t n_queued = 0; /* and not waited for */
    CHECK(n->is_put_off);
    n->device->enter(n->device->ctx);
    enum err e = nccl_agree_run(n, queue->is_known, clock_mono_ns() + wait_ns, &is_ready, eb);
    for (uint32_t i = 0; i < n->n_later && e == ERR_OK; i++) {
        nccl_recall(n, i);
        nccl_name(c, what);
        queue->next(queue->ctx);
        e = coll_stopped(&c->control->watch, c->rank, eb);
        if (e != ERR_OK || n->comm == NULL)
            continue;
        n_queued++;
        const uint32_t n_wait = !is_ready || n_queued == NCCL_RUN_MAX ? n_queued : 0;
        e = nccl_move(n, what, n_wait, clock_mono_ns() + wait_ns, eb);
        n_queued -= n_wait;
    }
    if (e == ERR_OK) {
        queue->next(queue->ctx);
        if (n_queued > 0)
            e = nccl_wait(n, what, n_queued, clock_mono_ns() + wait_ns, eb);
    }
    coll_nccl_forget(c);
    if (e != ERR_OK)
        nccl_give_up(n);
    return e;
}

/* ---- the operations ---- */

static enum err nccl_begin(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    (void)deadline_ns;
    return coll_stopped(&c->control->watch, c->rank, eb);
}

static enum err nccl_end(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct nccl *n = nccl_of(c);
    char what[COLL_SUBJECT_BYTES];
    if (n->is_put_off)
        return nccl_keep(n, eb);
    nccl_name(c, what);
    n->device->enter(n->device->ctx);
    enum err e = nccl_agree(n, deadline_ns, eb);
    if (e == ERR_OK && n->comm != NULL)
        e = nccl_move(n, what, 1, deadline_ns, eb);
    if (e != ERR_OK)
        nccl_give_up(n);
    return e;
}

/* The control was looked at before. */
static enum err nccl_check(struct coll *c, bool may_leave, struct errbuf *eb)
{
    struct nccl *n = nccl_of(c);
    int state = NCCL_ABI_SUCCESS;
    (void)may_leave;
    if (n->comm == NULL)
        return ERR_OK;
    n->device->enter(n->device->ctx);
    int result = n->lib->abi.ncclCommGetAsyncError(n->comm, &state);
    result = result == NCCL_ABI_SUCCESS ? state : result;
    return result == NCCL_ABI_SUCCESS || result == NCCL_ABI_IN_PROGRESS
               ? ERR_OK
               : nccl_said(n, "between operations", result, eb);
}

const struct coll_ops nccl_ops = {
    .name = "nccl",
    .begin = nccl_begin,
    .end = nccl_end,
    .check = nccl_check,
    .close = nccl_close,
};
