#include "worker/coll/coll.h"

#include "common/check.h"
#include "common/crypto.h"
#include "worker/coll/coll_ops.h"
#include "worker/coll/hello.h"
#include "worker/coll/shm_segment.h"

#include <stdio.h>
#include <string.h>

const char *coll_kind_name(enum coll_kind kind)
{
    static const char *const names[] = {"nothing", "barrier",  "broadcast", "all_gather",
                                        "gather",  "exchange", "run"};
    return (unsigned)kind < sizeof names / sizeof names[0] ? names[kind] : "no operation";
}

const char *coll_subject(const struct coll *c, uint32_t peer, char ret_text[COLL_SUBJECT_BYTES])
{
    (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "%s %llu: rank %u", coll_kind_name(c->op.kind),
                   (unsigned long long)c->count, coll_name(c, peer));
    return ret_text;
}

enum err coll_lost(const struct coll *c, uint32_t peer, const char *fate, uint64_t count,
                   struct errbuf *eb)
{
    return err_set(eb, ERR_UNAVAILABLE, "rank %u %s after operation %llu", coll_name(c, peer), fate,
                   (unsigned long long)count);
}

const char *coll_wanted(struct coll *c, uint32_t peer, uint32_t seq,
                        char ret_text[COLL_SUBJECT_BYTES])
{
    if (seq != c->op.seq)
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "it to come to the operation before");
    else if (c->op.kind == COLL_KIND_BARRIER)
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "it");
    else if (c->op.kind == COLL_KIND_BROADCAST)
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "what it sends to all");
    else
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "its %zu bytes",
                       coll_piece_of(c, peer, c->rank)->bytes);
    return ret_text;
}

/* ---- a gang that broke ---- */

struct coll_watch coll_watch_of(const struct coll_config *config)
{
    struct coll_watch watch = {.stop = config->stop};
    for (uint32_t r = 0; r < COLL_RANKS_MAX; r++)
        watch.name[r] = r;
    return watch;
}

enum err coll_stopped(const struct coll_watch *watch, uint32_t rank, struct errbuf *eb)
{
    if (watch->stop != NULL && atomic_load_explicit(watch->stop, memory_order_relaxed))
        return err_set(eb, ERR_CANCELLED, "rank %u was told to stop", watch->name[rank]);
    return watch->root == NULL ? ERR_OK : watch->root->ops->broken(watch->root, false, eb);
}

enum err coll_forsaken(const struct coll_watch *watch, uint32_t rank, struct errbuf *eb)
{
    enum err e = coll_stopped(watch, rank, eb);
    return e != ERR_OK || watch->root == NULL ? e : watch->root->ops->check(watch->root, false, eb);
}

/* Whom all ranks are told by; NULL: it tells them itself. */
static struct coll *coll_teller(const struct coll *c)
{
    return c->watch.root != NULL ? c->watch.root : c->control;
}

static void coll_remember(struct coll *c, enum err e, const struct errbuf *why)
{
    c->broken = e;
    c->op.kind = COLL_KIND_NONE;
    (void)snprintf(c->reason, sizeof c->reason, "%s", why->text);
}

/* What was split breaks all of the gang; what that broke for first is the reason that counts. */
static enum err coll_failed(struct coll *c, enum err e, struct errbuf *why, struct errbuf *eb)
{
    struct coll *teller = coll_teller(c);
    if (teller != NULL)
        e = teller->ops->fail(teller, e, why);
    coll_remember(c, e, why);
    return err_set(eb, e, "%s", why->text);
}

enum err coll_break(struct coll *c, enum err code, struct errbuf *eb)
{
    struct coll *teller = coll_teller(c) != NULL ? coll_teller(c) : c;
    enum err e = teller->ops->fail(teller, code, eb);
    coll_remember(c, e, eb);
    return e;
}

static enum err coll_still_broken(const struct coll *c, struct errbuf *eb)
{
    return err_set(eb, c->broken, "the gang is broken: %s", c->reason);
}

/* ---- layout ---- */

static size_t coll_round(size_t bytes)
{
    return (bytes + COLL_ALIGN - 1) / COLL_ALIGN * COLL_ALIGN;
}

/* Each piece behind the one before. ERR_TOO_LARGE leaves the gang as it was: every rank comes to
 * the same. */
static enum err coll_lay_out(struct coll *c, const size_t bytes[], uint32_t n, struct errbuf *eb)
{
    size_t at = 0;
    uint64_t digest = 0x9e3779b97f4a7c15u;
    for (uint32_t i = 0; i < n; i++) {
        if (bytes[i] > c->bytes_max || coll_round(bytes[i]) > c->bytes_max - at)
            return err_set(eb, ERR_TOO_LARGE,
                           "piece %u of %u, %zu bytes behind %zu, passes the gang's bytes_max of "
                           "%zu",
                           i, n, bytes[i], at, c->bytes_max);
        c->op.piece[i] = (struct coll_piece){at, bytes[i]};
        at += coll_round(bytes[i]);
        digest = (digest ^ bytes[i]) * 0xff51afd7ed558ccdu;
        digest ^= digest >> 32;
    }
    c->op.bytes = at;
    c->op.layout = digest;
    return ERR_OK;
}

/* ---- one operation ---- */

static enum err coll_begin(struct coll *c, enum coll_kind kind, uint32_t root, const size_t bytes[],
                           uint32_t n, uint64_t deadline_ns, struct errbuf *eb)
{
    struct errbuf why = {{0}};
    CHECK(c->op.kind == COLL_KIND_NONE);
    CHECK(root < c->n_ranks);
    if (c->broken != ERR_OK)
        return coll_still_broken(c, eb);
    enum err e = coll_lay_out(c, bytes, n, eb);
    if (e != ERR_OK)
        return e;
    c->op.kind = kind;
    c->op.root = root;
    c->op.seq++;
    c->count++;
    e = c->ops->begin(c, deadline_ns, &why);
    return e == ERR_OK ? ERR_OK : coll_failed(c, e, &why, eb);
}

static enum err coll_end_op(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    struct errbuf why = {{0}};
    enum err e = c->ops->end(c, deadline_ns, &why);
    return e == ERR_OK ? ERR_OK : coll_failed(c, e, &why, eb);
}

static uint8_t *coll_place(struct coll *c, const struct coll_piece *piece)
{
    return c->half[c->op.seq & 1] + piece->at;
}

enum err coll_barrier(struct coll *c, uint64_t deadline_ns, struct errbuf *eb)
{
    if (c->control != NULL)
        return coll_barrier(c->control, deadline_ns, eb);
    enum err e = coll_begin(c, COLL_KIND_BARRIER, 0, NULL, 0, deadline_ns, eb);
    if (e == ERR_OK)
        e = coll_end_op(c, deadline_ns, eb);
    c->op.kind = COLL_KIND_NONE;
    return e;
}

enum err coll_broadcast(struct coll *c, uint32_t root, const void *bytes, size_t size,
                        uint64_t deadline_ns, const void **ret_bytes, size_t *ret_size,
                        struct errbuf *eb)
{
    size_t sizes[COLL_RANKS_MAX] = {0};
    const bool is_root = c->rank == root;
    CHECK(root < c->n_ranks);
    if (c->control != NULL)
        return coll_broadcast(c->control, root, bytes, size, deadline_ns, ret_bytes, ret_size, eb);
    if (is_root)
        sizes[root] = size;
    enum err e = coll_begin(c, COLL_KIND_BROADCAST, root, sizes, c->n_ranks, deadline_ns, eb);
    if (e != ERR_OK)
        return e;
    /* The sizes are the root's secret until it is through: they are no part of what must agree. */
    c->op.layout = 0;
    struct coll_piece *piece = coll_piece_of(c, root, root);
    piece->at = 0;
    if (is_root && size > 0)
        memcpy(coll_place(c, piece), bytes, size);
    e = coll_end_op(c, deadline_ns, eb);
    if (e == ERR_OK) {
        *ret_bytes = coll_place(c, piece);
        *ret_size = piece->bytes;
    }
    c->op.kind = COLL_KIND_NONE;
    return e;
}

enum err coll_all_gather_begin(struct coll *c, const size_t bytes[], uint64_t deadline_ns,
                               void **ret_mine, struct errbuf *eb)
{
    enum err e = coll_begin(c, COLL_KIND_ALL_GATHER, 0, bytes, c->n_ranks, deadline_ns, eb);
    if (e == ERR_OK)
        *ret_mine = coll_place(c, coll_piece_of(c, c->rank, c->rank));
    return e;
}

enum err coll_gather_begin(struct coll *c, uint32_t root, const size_t bytes[],
                           uint64_t deadline_ns, void **ret_mine, struct errbuf *eb)
{
    enum err e = coll_begin(c, COLL_KIND_GATHER, root, bytes, c->n_ranks, deadline_ns, eb);
    if (e == ERR_OK)
        *ret_mine = coll_place(c, coll_piece_of(c, c->rank, c->rank));
    return e;
}

enum err coll_exchange_begin(struct coll *c, const size_t bytes[], uint64_t deadline_ns,
                             void *ret_pieces[], struct errbuf *eb)
{
    enum err e =
        coll_begin(c, COLL_KIND_EXCHANGE, 0, bytes, c->n_ranks * c->n_ranks, deadline_ns, eb);
    if (e != ERR_OK)
        return e;
    for (uint32_t to = 0; to < c->n_ranks; to++)
        ret_pieces[to] = coll_place(c, coll_piece_of(c, c->rank, to));
    return ERR_OK;
}

enum err coll_end(struct coll *c, uint64_t deadline_ns, const void *ret_parts[], struct errbuf *eb)
{
    if (c->broken != ERR_OK)
        return coll_still_broken(c, eb);
    CHECK(c->op.kind != COLL_KIND_NONE);
    enum err e = coll_end_op(c, deadline_ns, eb);
    if (e != ERR_OK)
        return e;
    for (uint32_t from = 0; from < c->n_ranks; from++) {
        const bool is_mine = c->op.kind != COLL_KIND_GATHER || c->rank == c->op.root;
        ret_parts[from] = is_mine ? coll_place(c, coll_piece_of(c, from, c->rank)) : NULL;
    }
    c->op.kind = COLL_KIND_NONE;
    return ERR_OK;
}

/* ---- operations that are put off ---- */

void coll_put_off(struct coll *c)
{
    CHECK(c->control != NULL && c->op.kind == COLL_KIND_NONE);
    coll_nccl_put_off(c);
}

enum err coll_run(struct coll *c, const struct coll_queue *queue, uint64_t wait_ns,
                  struct errbuf *eb)
{
    struct errbuf why = {{0}};
    CHECK(c->control != NULL && c->op.kind == COLL_KIND_NONE);
    if (c->broken != ERR_OK) {
        coll_nccl_forget(c);
        return coll_still_broken(c, eb);
    }
    enum err e = coll_nccl_run(c, queue, wait_ns, &why);
    c->op.kind = COLL_KIND_NONE;
    return e == ERR_OK ? ERR_OK : coll_failed(c, e, &why, eb);
}

void coll_forget(struct coll *c)
{
    CHECK(c->control != NULL);
    coll_nccl_forget(c);
}

/* ---- the gang ---- */

static enum err coll_config_check(const struct coll_config *config, struct errbuf *eb)
{
    if (config->n_ranks == 0 || config->n_ranks > COLL_RANKS_MAX)
        return err_set(eb, ERR_INVALID, "a gang of %u ranks; 1 to %u are possible", config->n_ranks,
                       COLL_RANKS_MAX);
    if (config->rank >= config->n_ranks)
        return err_set(eb, ERR_INVALID, "rank %u of a gang of %u", config->rank, config->n_ranks);
    if (config->bytes_max > COLL_BYTES_MAX)
        return err_set(eb, ERR_TOO_LARGE, "operations of %zu bytes; at most %zu are possible",
                       config->bytes_max, COLL_BYTES_MAX);
    if (config->transport != COLL_TRANSPORT_NCCL)
        return ERR_OK;
    if (config->device == NULL)
        return err_set(eb, ERR_INVALID, "nccl moves bytes between GPUs: rank %u has none",
                       config->rank);
    if (config->control == COLL_TRANSPORT_NCCL)
        return err_set(eb, ERR_INVALID, "nccl stands on shm or ucx");
    return ERR_OK;
}

/* What an nccl gang's control is opened with. Ranks with other transports do not fit. */
static struct coll_config coll_control_config(const struct coll_config *config)
{
    struct coll_config control = *config;
    uint8_t bytes[COLL_PLAN_BYTES + 4] = "nccl", digest[SHA256_BYTES];
    const size_t least = COLL_RANKS_MAX * COLL_CONTROL_PART_BYTES;
    _Static_assert(COLL_PLAN_BYTES == SHA256_BYTES, "one digest");
    memcpy(bytes + 4, config->plan, COLL_PLAN_BYTES);
    sha256(bytes, sizeof bytes, digest);
    memcpy(control.plan, digest, sizeof digest);
    control.transport = config->control;
    control.bytes_max = config->control_bytes > least ? config->control_bytes : least;
    return control;
}

enum err coll_open_part(const struct coll_config *config, const struct coll_watch *watch,
                        uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb)
{
    struct coll *c = NULL;
    enum err e = coll_config_check(config, eb);
    if (e == ERR_OK)
        e = config->transport == COLL_TRANSPORT_SHM
                ? coll_shm_open(config, watch, deadline_ns, &c, eb)
                : coll_ucx_open(config, watch, deadline_ns, &c, eb);
    if (e != ERR_OK)
        return e;
    c->transport = config->transport;
    if (watch->root != NULL)
        watch->root->n_parts++;
    /* Every rank has the others' addresses now; the gang stands when bytes went both ways. */
    e = coll_barrier(c, deadline_ns, eb);
    if (e != ERR_OK) {
        coll_close(c);
        return e;
    }
    *ret_coll = c;
    return ERR_OK;
}

static enum err coll_open_whole(const struct coll_config *config, uint64_t deadline_ns,
                                struct coll **ret_coll, struct errbuf *eb)
{
    const struct coll_watch watch = coll_watch_of(config);
    struct coll *c = NULL;
    enum err e = coll_open_part(config, &watch, deadline_ns, &c, eb);
    if (e != ERR_OK)
        return e;
    (void)snprintf(c->build, sizeof c->build, "%s", config->build);
    c->opened = *config;
    c->opened.build = c->build;
    *ret_coll = c;
    return ERR_OK;
}

enum err coll_open(struct coll **ret_coll, const struct coll_config *config, uint64_t deadline_ns,
                   struct errbuf *eb)
{
    struct coll *control = NULL;
    if (config->transport != COLL_TRANSPORT_NCCL)
        return coll_open_whole(config, deadline_ns, ret_coll, eb);
    enum err e = coll_config_check(config, eb);
    if (e != ERR_OK)
        return e;
    const struct coll_config of_control = coll_control_config(config);
    e = coll_open_whole(&of_control, deadline_ns, &control, eb);
    return e != ERR_OK ? e
                       : coll_nccl_stand(control, config->device, config->bytes_max, deadline_ns,
                                         ret_coll, eb);
}

void coll_decline(const struct coll_config *config, enum err code, const char *why,
                  uint64_t deadline_ns)
{
    struct coll_hello hello;
    CHECK(code != ERR_OK);
    if (config->transport == COLL_TRANSPORT_NCCL) { /* whose device may be what is missing */
        const struct coll_config control = coll_control_config(config);
        if (config->control != COLL_TRANSPORT_NCCL)
            coll_decline(&control, code, why, deadline_ns);
        return;
    }
    if (config->n_ranks < 2 || coll_config_check(config, NULL) != ERR_OK ||
        coll_hello_of(config, &hello, NULL) != ERR_OK)
        return;
    hello.declined = code;
    (void)snprintf(hello.why, sizeof hello.why, "%s", why);
    if (config->transport == COLL_TRANSPORT_SHM)
        coll_shm_decline(config, &hello, deadline_ns);
    else
        coll_ucx_decline(config, &hello, deadline_ns);
}

/* Whoever waits in this part may not have heard yet what broke the gang, and is not to take this
 * rank, which closes for that, for the one that left. */
static void coll_pass_on(struct coll *part)
{
    struct coll *root = part->watch.root;
    struct errbuf why = {{0}};
    const enum err e = root->ops->broken(root, true, &why);
    if (e != ERR_OK)
        (void)part->ops->fail(part, e, &why);
}

void coll_close(struct coll *c)
{
    if (c == NULL)
        return;
    CHECK(c->n_parts == 0);
    if (c->watch.root != NULL && c->control == NULL) {
        coll_pass_on(c);
        c->watch.root->n_parts--;
    }
    c->ops->close(c);
}

void coll_abort(struct coll *c, const char *why)
{
    struct coll *all = coll_teller(c) != NULL ? coll_teller(c) : c;
    all->ops->abort(all, why);
}

static enum err coll_check_ranks(struct coll *c, bool may_leave, struct errbuf *eb)
{
    struct errbuf why = {{0}};
    CHECK(c->op.kind == COLL_KIND_NONE);
    if (c->broken != ERR_OK)
        return coll_still_broken(c, eb);
    enum err e = c->control == NULL ? ERR_OK : coll_check_ranks(c->control, may_leave, &why);
    if (e == ERR_OK)
        e = c->ops->check(c, may_leave, &why);
    return e == ERR_OK ? ERR_OK : coll_failed(c, e, &why, eb);
}

enum err coll_check(struct coll *c, struct errbuf *eb)
{
    return coll_check_ranks(c, false, eb);
}

enum err coll_look(struct coll *c, struct errbuf *eb)
{
    return coll_check_ranks(c, true, eb);
}

uint64_t coll_memory(enum coll_transport transport, size_t bytes_max)
{
    /* Without operations' bytes there is still something to map. */
    return transport == COLL_TRANSPORT_SHM ? shm_segment_bytes(bytes_max)
                                           : 2 * coll_round(bytes_max > 0 ? bytes_max : 1);
}

bool coll_is_clear(struct coll *c)
{
    CHECK(c->op.kind == COLL_KIND_NONE);
    if (c->control != NULL)
        return c->broken == ERR_OK && coll_is_clear(c->control);
    return c->broken == ERR_OK && c->ops->is_clear(c);
}

bool coll_is_on_device(const struct coll *c)
{
    return c->control != NULL;
}

size_t coll_halves(const struct coll *c, void *ret_halves[2])
{
    ret_halves[0] = c->half[0];
    ret_halves[1] = c->half[1];
    return c->bytes_max;
}

uint32_t coll_rank(const struct coll *c)
{
    return c->rank;
}

enum coll_transport coll_transport_of(const struct coll *c)
{
    return c->transport;
}

uint32_t coll_n_ranks(const struct coll *c)
{
    return c->n_ranks;
}

enum err coll_transport_available(enum coll_transport transport, struct errbuf *eb)
{
    return transport == COLL_TRANSPORT_SHM   ? ERR_OK
           : transport == COLL_TRANSPORT_UCX ? coll_ucx_available(eb)
                                             : coll_nccl_available(eb);
}

static const char *const transport_names[] = {"shm", "ucx", "nccl"};

const char *coll_transport_name(enum coll_transport transport)
{
    return transport_names[transport];
}

bool coll_transport_parse(const char *text, enum coll_transport *ret_transport)
{
    for (unsigned i = 0; i < sizeof transport_names / sizeof transport_names[0]; i++) {
        if (strcmp(text, transport_names[i]) == 0) {
            *ret_transport = (enum coll_transport)i;
            return true;
        }
    }
    return false;
}
