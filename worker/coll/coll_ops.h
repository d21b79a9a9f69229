/*
 * coll_ops.h - what a transport provides, and what coll.c keeps for every one of them. Internal to
 * worker/coll.
 *
 * coll.c checks arguments, lays the pieces of an operation out and remembers why a gang broke; a
 * transport moves bytes. `half` is the transport's own memory: host memory here, device memory
 * where bytes go from device to device. Operation number `seq` uses half[seq & 1].
 *
 * The rule that makes two halves enough: a rank writes into half[seq & 1] only when every rank
 * that reads or writes there has come to operation seq - 1, for then it is done with seq - 2.
 */
#ifndef CLOISTER_WORKER_COLL_COLL_OPS_H
#define CLOISTER_WORKER_COLL_COLL_OPS_H

#include "worker/coll/coll.h"
#include "worker/coll/hello.h"

enum coll_kind {
    COLL_KIND_NONE = 0,
    COLL_KIND_BARRIER = 1,
    COLL_KIND_BROADCAST = 2,
    COLL_KIND_ALL_GATHER = 3,
    COLL_KIND_GATHER = 4,
    COLL_KIND_EXCHANGE = 5,
    COLL_KIND_RUN = 6, /* of operations that were put off */
};

/* Sequence numbers count from here, so that each gang soon passes the end of 32 bits and comes back
 * to 0: what only happens after weeks is never tested otherwise. */
#define COLL_SEQ_FIRST 0xfffffff0u

/* What each rank may put up of its own over the control of a gang of GPUs. */
#define COLL_CONTROL_PART_BYTES 320u

struct coll_piece {
    size_t at; /* in the half */
    size_t bytes;
};

/* The operation in progress. Its pieces are the same on every rank, but for the size of a
 * broadcast, which only the root knows until `end`. */
struct coll_op {
    enum coll_kind kind;
    uint32_t root; /* 0 where there is none */
    uint32_t seq;
    size_t bytes;                                             /* of all pieces */
    uint64_t layout;                                          /* digest of the sizes */
    struct coll_piece piece[COLL_RANKS_MAX * COLL_RANKS_MAX]; /* see coll_piece_of */
};

/* What a rank looks at wherever it waits, beside those it waits for: whether it was told to stop,
 * and whether what its coll was split from is broken. */
struct coll_watch {
    const atomic_bool *stop; /* NULL: nobody tells */
    struct coll *root;       /* NULL: it was opened, not split */
    uint32_t
        name[COLL_RANKS_MAX]; /* what its ranks are called, which is what the root calls them */
};

/* Of what was opened. */
struct coll_watch coll_watch_of(const struct coll_config *config);

struct coll_ops {
    const char *name;
    /* Waits until this rank may write its pieces of c->op. */
    enum err (*begin)(struct coll *c, uint64_t deadline_ns, struct errbuf *eb);
    /* Hands this rank's pieces over and waits for those it is to have; for a broadcast fills in the
     * root's size. */
    enum err (*end)(struct coll *c, uint64_t deadline_ns, struct errbuf *eb);
    /* What coll_check says: nothing is waited for. `may_leave`: a rank that left is no loss. */
    enum err (*check)(struct coll *c, bool may_leave, struct errbuf *eb);
    bool (*is_clear)(struct coll *c);               /* what coll_is_clear says */
    void (*abort)(struct coll *c, const char *why); /* any thread */
    /* For what is split from it. `broken`: ERR_OK, or why it is broken; any thread. Who may not
     * wait is told ERR_OK as well where another thread of this rank is just looking. `fail` breaks
     * it for `code` and the text in `eb`; where it is broken already, `eb` and the result become
     * the reason that stands. */
    enum err (*broken)(struct coll *c, bool may_wait, struct errbuf *eb);
    enum err (*fail)(struct coll *c, enum err code, struct errbuf *eb);
    void (*close)(struct coll *c);
};

struct coll {
    const struct coll_ops *ops;
    enum coll_transport transport;
    /* Of one whose bytes lie on devices: what carries all else. Closed with it. */
    struct coll *control;
    uint32_t rank;
    uint32_t n_ranks;
    size_t bytes_max;
    struct coll_watch watch;
    uint8_t *half[2]; /* bytes_max each */
    struct coll_op op;
    uint64_t count;  /* operations begun, for people */
    enum err broken; /* ERR_OK: it is not */
    char reason[ERRBUF_BYTES];

    /* Of what was opened: as what, and what was split from it. */
    struct coll_config opened; /* `build` is the one below */
    char build[COLL_BUILD_BYTES];
    uint32_t n_splits, n_parts; /* so far; and of them, those that this rank has not closed */
};

/* What a rank is called in what is said of it. */
static inline uint32_t coll_name(const struct coll *c, uint32_t rank)
{
    return c->watch.name[rank];
}

/* The piece of `from` for `to`; for all but an exchange it is the same for every receiver. */
static inline struct coll_piece *coll_piece_of(struct coll *c, uint32_t from, uint32_t to)
{
    return &c->op.piece[c->op.kind == COLL_KIND_EXCHANGE ? from * c->n_ranks + to : from];
}

/* True where `to` must have what `from` has before it may end the operation. A rank waits for
 * itself never. */
static inline bool coll_awaits(const struct coll_op *op, uint32_t to, uint32_t from)
{
    if (to == from)
        return false;
    if (op->kind == COLL_KIND_BROADCAST)
        return from == op->root;
    return op->kind != COLL_KIND_GATHER || to == op->root;
}

/* ERR_CANCELLED where the rank was told to stop; why the root is broken. Looked at when an
 * operation begins or ends, and in every wait. */
enum err coll_stopped(const struct coll_watch *watch, uint32_t rank, struct errbuf *eb);
/* The same while ranks meet, and whether all of the root's ranks are there. */
enum err coll_forsaken(const struct coll_watch *watch, uint32_t rank, struct errbuf *eb);

const char *coll_kind_name(enum coll_kind kind);

/* "all_gather 17: rank 2 ", the beginning of what is said of a rank that is at fault. */
#define COLL_SUBJECT_BYTES 64
const char *coll_subject(const struct coll *c, uint32_t peer, char ret_text[COLL_SUBJECT_BYTES]);

/* ERR_UNAVAILABLE: "rank 2 left the gang after operation 17", of what is seen between operations.
 */
enum err coll_lost(const struct coll *c, uint32_t peer, const char *fate, uint64_t count,
                   struct errbuf *eb);

/* What this rank waits for `peer` to do for operation `seq`, the present one or the one before:
 * "its 4096 bytes". */
const char *coll_wanted(struct coll *c, uint32_t peer, uint32_t seq,
                        char ret_text[COLL_SUBJECT_BYTES]);

/* coll_open, for what is opened and what is split. */
enum err coll_open_part(const struct coll_config *config, const struct coll_watch *watch,
                        uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb);

/* coll_check in an operation of what stands on `c`, whose ranks may be done with it and gone. */
enum err coll_look(struct coll *c, struct errbuf *eb);

/* Breaks the gang for `code` and the text in `eb`, both of which become the reason that stands. */
enum err coll_break(struct coll *c, enum err code, struct errbuf *eb);

enum err coll_shm_open(const struct coll_config *config, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb);
/* ERR_UNSUPPORTED where there is no libucx. */
enum err coll_ucx_available(struct errbuf *eb);
enum err coll_ucx_open(const struct coll_config *config, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb);

enum err coll_nccl_available(struct errbuf *eb);
/* Over `control`, which belongs to it from now on, whatever comes of it. */
enum err coll_nccl_stand(struct coll *control, const struct device_stream *device, size_t bytes_max,
                         uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb);

/* coll_split of one of these. */
enum err coll_nccl_split(struct coll *c, uint32_t color, size_t bytes_max, uint64_t deadline_ns,
                         struct coll **ret_coll, struct errbuf *eb);

/* coll_put_off, coll_run, coll_forget. */
void coll_nccl_put_off(struct coll *c);
enum err coll_nccl_run(struct coll *c, const struct coll_queue *queue, uint64_t wait_ns,
                       struct errbuf *eb);
void coll_nccl_forget(struct coll *c);

/* coll_decline; `hello` has the reason. */
void coll_shm_decline(const struct coll_config *config, const struct coll_hello *hello,
                      uint64_t deadline_ns);
void coll_ucx_decline(const struct coll_config *config, const struct coll_hello *hello,
                      uint64_t deadline_ns);

#endif
