/*
 * device.h - what this worker computes on, and what that says of itself: main memory for a CPU,
 * NVML's numbers for a GPU. It does not compute (backend.h does), and knows nothing of leases.
 *
 * Ownership: device_close ends what device_open made; texts in a struct device_now are in it.
 * Thread: one owner.
 */
#ifndef CLOISTER_WORKER_DEVICE_H
#define CLOISTER_WORKER_DEVICE_H

#include "common/err.h"
#include "worker/gpu/gpu_watch.h"

#include <stdbool.h>
#include <stdint.h>

struct device_id {
    bool is_cuda;
    uint32_t index; /* of a GPU, as nvidia-smi numbers them */
};

/* "cpu" or "cuda:N". ERR_INVALID says what can be written. */
enum err device_id_parse(const char *text, struct device_id *ret_id, struct errbuf *eb);

struct device;

/* For a GPU: ERR_UNSUPPORTED where this build cannot compute on one; then what gpu_watch_start
 * meets (ERR_UNAVAILABLE without
 * a driver, ERR_NOT_FOUND, ERR_LOST ...). */
/* CUDA shows this process that GPU alone afterwards, as its number 0: to be called before anything
 * of CUDA is, and before there are threads. */
enum err device_open(struct device **ret_device, const struct device_id *id, struct errbuf *eb);
void device_close(struct device *d);

/* A GPU's news that cannot wait is announced by writing this eventfd; -1: no more. */
void device_wake(struct device *d, int wake_fd);

const char *device_name(const struct device *d); /* "cpu", or the GPU's */
/* Of a GPU, else NULL. */
const struct nvml_identity *device_gpu(const struct device *d);

struct device_now {
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t used_bytes; /* by this process */
    /* Of the total, what models had better not count on: device_kept_bytes of a GPU, of a CPU
     * nothing. */
    uint64_t kept_bytes;
    bool has_gpu;
    struct gpu_now gpu;
};

/* `models_bytes`: what this worker's models hold, which stands for used_bytes on a GPU that does
 * not tell what a process uses. */
enum err device_read(struct device *d, uint64_t models_bytes, struct device_now *ret_now,
                     struct errbuf *eb);

/* Of a GPU of that size: BACKEND_CUDA_OWN_BYTES, or an eighth of a small one. */
uint64_t device_kept_bytes(uint64_t gpu_total_bytes);

#endif
