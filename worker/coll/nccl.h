/*
 * nccl.h - one rank's place in a gang of GPUs. Internal to worker/coll: nccl_open.c makes and ends
 * it, nccl.c has the operations and how they are waited for.
 *
 * It stands on another coll of the same ranks, its control: that one knows who is there, says why a
 * gang broke, and carries barriers and broadcasts. NCCL moves parts from device to device, and does
 * nothing else: whoever else is told of a failure hears it from the control.
 */
#ifndef CLOISTER_WORKER_COLL_NCCL_H
#define CLOISTER_WORKER_COLL_NCCL_H

#include "worker/coll/coll_ops.h"
#include "worker/coll/nccl_library.h"

/* So many operations that were put off may be on the stream, with what goes between them, before
 * they are waited for. A device takes some 1,000 launches, of which a replayed graph may count for
 * as many as it has kernels, and NCCL adds its own: a host that adds one more is kept waiting
 * inside the driver, where nobody looks for ranks that are gone. */
#define NCCL_RUN_MAX 32u

struct nccl {
    struct coll base; /* its control is base.control, its halves memory of the device */
    const struct nccl_library *lib;
    const struct device_stream *device;
    void *comm; /* NULL: one rank, or it was given up */

    /* Operations that are put off, and their pieces, one's behind another's. */
    bool is_put_off;
    struct nccl_later *later; /* [n_later] */
    uint32_t n_later, later_max;
    struct coll_piece *pieces; /* [n_pieces] */
    size_t n_pieces, pieces_max;
    uint64_t digest; /* of all of them: what they are, in which order, and their sizes */
};

struct nccl_later {
    enum coll_kind kind;
    uint32_t root, seq;
    uint64_t count;
    size_t pieces; /* where its own begin */
};

extern const struct coll_ops nccl_ops;

/* Until NCCL has done what it was asked for without waiting: a communicator is there, or operations
 * are on the stream. `what`: for messages. */
enum err nccl_settle(struct nccl *n, const char *what, uint64_t deadline_ns, struct errbuf *eb);

/* What NCCL says of a result that is neither success nor in progress. */
enum err nccl_said(const struct nccl *n, const char *what, int result, struct errbuf *eb);

/* Ends the communicator at once, and with it what is on the stream. */
void nccl_give_up(struct nccl *n);

/* nccl_open.c */
void nccl_close(struct coll *c);

#endif
