/*
 * gpu_watch.h - reads a GPU all the time, on a thread of its own, so that a driver that hangs does
 * not stop the worker from talking.
 *
 * Ownership: gpu_watch_stop ends what gpu_watch_start made; NVML and its device are opened and
 * closed in between. Thread: _start, _read and _stop from one owner; `wake_fd` (an eventfd, or -1)
 * is written from the watch's thread when there is something new that cannot wait.
 */
#ifndef CLOISTER_WORKER_GPU_GPU_WATCH_H
#define CLOISTER_WORKER_GPU_GPU_WATCH_H

#include "common/err.h"
#include "worker/gpu/nvml.h"

#include <stdbool.h>
#include <stdint.h>

#define GPU_WATCH_INTERVAL_MS 250u
/* Not answered for this long is said, beside the last numbers that there were. */
#define GPU_WATCH_SILENT_MS 10000u

struct gpu_watch;

struct gpu_now {
    struct nvml_reading reading; /* the last one that succeeded; there always is one */
    uint64_t xid;                /* the last critical error that the driver named; 0: none yet */
    char trouble[256];           /* what is wrong, in a line; empty: nothing */
    bool lost;                   /* `trouble` says why; nothing is read any more */
};

/* Opens the device and reads it once, so that an error is met here: those of nvml_open,
 * nvml_device_open and nvml_device_read. */
enum err gpu_watch_start(struct gpu_watch **ret_watch, const char *library, uint32_t index,
                         struct errbuf *eb);
/* Where NVML does not come back within two seconds its thread is left behind: the process is about
 * to end. */
void gpu_watch_stop(struct gpu_watch *w);

void gpu_watch_wake(struct gpu_watch *w, int wake_fd);
const struct nvml_identity *gpu_watch_identity(const struct gpu_watch *w);
void gpu_watch_read(struct gpu_watch *w, struct gpu_now *ret_now);

#endif
