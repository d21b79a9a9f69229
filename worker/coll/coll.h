/*
 * coll.h - collectives between the ranks of a gang that computes one model together.
 *
 * Nothing is summed on the way: an answer has the same bits for every number of ranks because each
 * rank finishes the same sum over the same partial sums (docs/numerics.md), so all that is wanted
 * of a collective is that bytes get to where they are needed. There are three transports, and all
 * keep what is written here:
 *
 *   shm   ranks are processes of one host, or threads of one process; one shared segment
 *   ucx   ranks on several hosts, over libucx: TCP, or RDMA where there is a device for it
 *   nccl  ranks with a GPU each, over NCCL: parts go from device to device, and lie there; all else
 *         goes over one of the other two, which also knows who is there
 *
 * Every rank calls the same operations in the same order with the same sizes. A rank that does
 * otherwise is found out (kind, root and sizes are compared) and ends the gang.
 *
 * Buffers. Operations are zero-copy on the caller's side: *_begin says where this rank writes its
 * bytes, coll_end hands them over and says where the others' are. Two halves of a buffer take
 * turns, so no second barrier is needed:
 *   - what *_begin returned may be written until coll_end;
 *   - what coll_end and coll_broadcast returned may be read until this rank ends its NEXT
 * operation: the results of one operation may be read while the bytes of the next are written.
 * Over nccl "written" and "read" mean what is queued on the device's stream by then.
 * Parts are 64-byte aligned and lie one behind another by rank: where sizes are multiples of 64,
 * the parts of an all-gather are one array in the order of ranks.
 *
 * Failure. Every wait has a deadline, an instant of clock_mono_ns. A rank whose process ends, that
 * closes or aborts while others need it, that differs, or that keeps somebody waiting past a
 * deadline breaks the gang: the call ends on every rank, naming rank and what was waited for, and
 * every later call fails at once with the same reason. A broken gang is never mended: close it and
 * open another one with the next epoch. ERR_UNAVAILABLE: a rank is gone. ERR_TIMEOUT: the deadline
 * passed. ERR_CANCELLED: coll_abort was called, or a rank told to stop. ERR_INTERNAL: ranks differ
 * in what they do.
 *
 * Parts. coll_split makes colls of some of the ranks each; together they are one gang: what breaks
 * one of them breaks all, on every rank, with the same reason, in which ranks are called what the
 * gang calls them. A rank that waits in one learns within a tenth of a second of what breaks
 * another.
 *
 * Not here: what the bytes mean, which rank has what, and who starts a gang.
 *
 * Thread: one owner thread opens, operates and closes; coll_abort and the stop flag from any, until
 * close.
 */
#ifndef CLOISTER_WORKER_COLL_COLL_H
#define CLOISTER_WORKER_COLL_COLL_H

#include "common/device_stream.h"
#include "common/err.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COLL_RANKS_MAX   16u
#define COLL_GROUP_BYTES 16u
#define COLL_PLAN_BYTES  32u
#define COLL_ALIGN       64u
#define COLL_HOST_BYTES  16u

/* The most that `bytes_max` may be. */
#define COLL_BYTES_MAX ((size_t)1 << 36)

struct coll; /* one rank's place in a gang */

enum coll_transport {
    COLL_TRANSPORT_SHM = 0,
    COLL_TRANSPORT_UCX = 1,
    COLL_TRANSPORT_NCCL = 2,
};

/* How the ranks of several hosts learn each other's addresses: one exchange of a few hundred bytes
 * each, carried by whoever started the ranks. Puts this rank's bytes up and brings every rank's,
 * ret[rank] with its own among them. What it brings need not be trusted: it is checked. It returns
 * soon after the deadline, or after *stop (which may be NULL) became true. */
struct coll_bytes {
    const uint8_t *data; /* valid until the call to coll_open returns */
    size_t size;
};
struct coll_rendezvous {
    enum err (*exchange)(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                         const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb);
    void *ctx;
};

struct coll_config {
    enum coll_transport transport;
    uint8_t group[COLL_GROUP_BYTES]; /* the gang; random, and told to its members only */
    uint64_t epoch; /* counts the gang's lives: a rank of an older one is refused */
    uint32_t rank;
    uint32_t n_ranks;              /* 1 .. COLL_RANKS_MAX */
    uint8_t plan[COLL_PLAN_BYTES]; /* digest of what all must agree on: model, shares, settings */
    const char *build;             /* the program's version; all must be of one */
    /* The most that all ranks together put into one operation, each piece rounded up to
     * COLL_ALIGN. */
    size_t bytes_max;
    /* ucx: a rank that was not heard for so long is gone; 0: 1500. Ranks are heard several times a
     * second whatever they compute, so this is for hosts and links that vanish. What is under way
     * counts as time on top, at 20 MB/s, since the word that a rank lives queues behind it: 0.026 s
     * for each rank with which an operation exchanges half a megabyte or more. */
    uint32_t silence_ms;
    struct coll_rendezvous rendezvous; /* ucx only */
    /* ucx: ranks that say the same can share memory, and where all ranks of a part do, that part is
     * over shm. All zero: this rank shares it with nobody. */
    uint8_t host[COLL_HOST_BYTES];
    /* nccl: what carries all but parts, shm or ucx; the most that a broadcast has; and this rank's
     * device, which is read until coll_close. */
    enum coll_transport control;
    size_t control_bytes;
    const struct device_stream *device;
    /* Whoever opens can be told to give up, by any thread: when this becomes true, opening and
     * every operation end within a tenth of a second with ERR_CANCELLED, and the other ranks learn
     * that this one was told to stop. Read until coll_close; NULL: nobody tells. */
    const atomic_bool *stop;
};

/* Joins the gang and returns when every rank has. Refuses ranks that differ, by name and value:
 * ERR_STALE where this rank's epoch is over, ERR_CONFLICT (ranks, size, plan, build, a rank that is
 * there twice; nccl: two on one GPU), ERR_REFUSED (another group), ERR_UNAVAILABLE (a rank ended
 * meanwhile), ERR_TIMEOUT naming the ranks that did not come, ERR_CANCELLED (*stop),
 * ERR_UNSUPPORTED (no libucx, or no libnccl), ERR_NO_MEMORY; to the others a rank that lacks
 * something of the kind is ERR_UNAVAILABLE.
 * shm finds its ranks by the group id: same host, same network namespace, same user. */
enum err coll_open(struct coll **ret_coll, const struct coll_config *config, uint64_t deadline_ns,
                   struct errbuf *eb);

/* In the place of coll_open, for a rank that knows already that it cannot join (its file is bad, it
 * has no memory): who waits for it is told, and reports `code` and `why` at once instead of a rank
 * that did not come. `plan` and `bytes_max` of the configuration need not be known. Ends when
 * everybody concerned has heard it, or at the deadline; who comes later hears nothing. */
void coll_decline(const struct coll_config *config, enum err code, const char *why,
                  uint64_t deadline_ns);

/* The ranks of each colour get a coll of their own (MPI_Comm_split, MPI: A Message-Passing
 * Interface Standard, 4.0, 7.4.2), numbered in the order of their ranks in `c`; *ret_coll is NULL
 * for those of no colour. All ranks of `c`, which was opened and not split itself, call it between
 * operations, as often as they like, each time all of them; those of a colour with the same
 * bytes_max. Plan, build, epoch and the stop flag are those of `c`; nobody else can join: the group
 * id follows from the gang's. Over ucx the ranks learn each other's addresses through `c`, which
 * carries at least COLL_ALIGN bytes of each for that. A part whose ranks are all of one host
 * (coll_config.host) is over shm. Where one of them fails, the gang is broken:
 * ERR_CONFLICT names ranks that differ in bytes_max, other errors are coll_open's. Ownership:
 * coll_close, before that of `c`. */
#define COLL_COLOR_NONE UINT32_MAX
enum err coll_split(struct coll *c, uint32_t color, size_t bytes_max, uint64_t deadline_ns,
                    struct coll **ret_coll, struct errbuf *eb);

/* Frees everything, broken or not; NULL is allowed. Waits for nobody for more than a quarter of a
 * second. What this rank handed over stays readable to the others. */
void coll_close(struct coll *c);

/* Breaks the gang, with all its parts, and wakes every rank. `why` is what all of them report. */
void coll_abort(struct coll *c, const char *why);

/* Between operations: whether the gang stands still, without waiting for anything. A rank that
 * ended or left meanwhile breaks it, as it would the next operation. What idles looks now and then,
 * so that a loss is known before there is work. Thread: the owner. */
enum err coll_check(struct coll *c, struct errbuf *eb);
/* Between operations: whether every rank has come to the one before, so that the next would begin
 * without waiting. Thread: the owner. */
bool coll_is_clear(struct coll *c);

/* Bytes that open takes: shm, for all ranks together; ucx, for each, beside what libucx holds;
 * nccl, for each, on its device, beside what NCCL holds there and what its control takes. */
uint64_t coll_memory(enum coll_transport transport, size_t bytes_max);

/* What NCCL is reckoned to take of the device for each coll of two ranks or more: buffers for each
 * way to another GPU, most of them a few MB. A reserve that was not measured on a GPU; what NCCL
 * takes follows from the machine and from its settings (NCCL_BUFFSIZE, NCCL_MAX_NCHANNELS). */
#define COLL_NCCL_BYTES ((uint64_t)512 << 20)

/* Parts lie in the memory of the ranks' devices. */
bool coll_is_on_device(const struct coll *c);

/* Where the operations' bytes lie until coll_close: two halves, for whoever has to prepare a device
 * to reach them. Returns the bytes of each. */
size_t coll_halves(const struct coll *c, void *ret_halves[2]);

uint32_t coll_rank(const struct coll *c);
/* That of a part may be another than its gang's. */
enum coll_transport coll_transport_of(const struct coll *c);
uint32_t coll_n_ranks(const struct coll *c);

/* ---- operations ---- */

/* Until every rank is here. */
enum err coll_barrier(struct coll *c, uint64_t deadline_ns, struct errbuf *eb);

/* The root's bytes to all. `bytes` and `size` are read at the root only, the others learn the size.
 * Ranks that wait for a root with nothing to say are kept by their deadline: a root that may idle
 * sends something now and then. */
enum err coll_broadcast(struct coll *c, uint32_t root, const void *bytes, size_t size,
                        uint64_t deadline_ns, const void **ret_bytes, size_t *ret_size,
                        struct errbuf *eb);

/* Everyone's part to all. `bytes` [n_ranks], the same on every rank, any of them 0. */
enum err coll_all_gather_begin(struct coll *c, const size_t bytes[], uint64_t deadline_ns,
                               void **ret_mine, struct errbuf *eb);

/* Everyone's part to the root. */
enum err coll_gather_begin(struct coll *c, uint32_t root, const size_t bytes[],
                           uint64_t deadline_ns, void **ret_mine, struct errbuf *eb);

/* A piece from each rank to each: what a reduce-scatter is where the receiver does the sum.
 * `bytes` [n_ranks][n_ranks], row = sender, the same on every rank; ret_pieces [n_ranks] is where
 * this rank writes its piece for each rank, itself among them. */
enum err coll_exchange_begin(struct coll *c, const size_t bytes[], uint64_t deadline_ns,
                             void *ret_pieces[], struct errbuf *eb);

/* Ends what was begun. ret_parts [n_ranks]: the part of each rank (all-gather; gather at its root,
 * NULL elsewhere), or each rank's piece for this one (exchange). */
enum err coll_end(struct coll *c, uint64_t deadline_ns, const void *ret_parts[], struct errbuf *eb);

/* Where parts lie on devices, operations may be put off: from coll_put_off on, coll_end says where
 * the parts will be, and nothing is exchanged before coll_run, which does all of them in order.
 * Barriers and broadcasts are not put off. All ranks call these alike.
 *
 * coll_run. Ranks compare all that was put off at once. Then, before each operation and once more
 * behind the last, `next` is called, which puts on the stream what is to be done there. Where
 * `is_known` is true on every rank, `next` waits for nothing, and the host waits for some tens of
 * operations at once; otherwise for each, since `next` may wait for what is on the stream, which
 * nobody could end. `wait_ns`: for one wait, behind which is a deadline. Errors are those of the
 * operations.
 *
 * coll_forget: what was put off is not done after all, on any rank. */
struct coll_queue {
    void (*next)(void *ctx);
    void *ctx;
    bool is_known;
};
void coll_put_off(struct coll *c);
enum err coll_run(struct coll *c, const struct coll_queue *queue, uint64_t wait_ns,
                  struct errbuf *eb);
void coll_forget(struct coll *c);

/* ERR_UNSUPPORTED, with the reason, where this program or machine lacks what it needs. */
enum err coll_transport_available(enum coll_transport transport, struct errbuf *eb);

/* "2.27.7". Errors are those of coll_transport_available. */
#define COLL_NCCL_VERSION_BYTES 24u
enum err coll_nccl_version(char ret_version[COLL_NCCL_VERSION_BYTES], struct errbuf *eb);

/* "shm", "ucx", "nccl". */
const char *coll_transport_name(enum coll_transport transport);
bool coll_transport_parse(const char *text, enum coll_transport *ret_transport);

#endif
