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

struct nccl {
    struct coll base; /* its control is base.control, its halves memory of the device */
    const struct nccl_library *lib;
    const struct device_stream *device;
    void *comm; /* NULL: one rank, or it was given up */
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
