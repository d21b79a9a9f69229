/*
 * nvml.h - what a GPU says of itself: memory, other people's processes, energy, health. Through
 * NVIDIA's management library, opened at run time: a program with this in it starts without it.
 *
 * It owns reading one device. It does not compute anything on it (kernels do), nor decide what
 * follows from a reading (the agent does).
 *
 * A call into NVML takes milliseconds as a rule and may hang with its driver: gpu_watch.h calls
 * these from a thread of its own.
 *
 * Ownership: nvml_close ends the library and every device opened from it. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_GPU_NVML_H
#define CLOISTER_WORKER_GPU_NVML_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What the driver installs it as, found as the dynamic linker finds libraries. */
#define NVML_LIBRARY "libnvidia-ml.so.1"

struct nvml;

/* ERR_UNAVAILABLE: no such library, no driver, no permission; ERR_UNSUPPORTED names a function that
 * an older driver lacks. */
enum err nvml_open(struct nvml **ret_nvml, const char *library, struct errbuf *eb);
void nvml_close(struct nvml *n);

struct nvml_identity {
    char name[96];   /* "NVIDIA H100 80GB HBM3" */
    char uuid[96];   /* "GPU-..." */
    char pci[32];    /* "00000000:3B:00.0" */
    char driver[80]; /* the driver's version */
    /* Of its memory at its highest clock: two transfers a cycle over the whole width. 0: it does
     * not tell. Kernels reach most of it, and much the same part on each. */
    uint64_t read_bytes_per_s;
};

/* The device that nvidia-smi shows under `index` (in the order of the PCI bus; CUDA's own order
 * may be another: a backend finds the device by `pci`). ERR_NOT_FOUND says how many there are.
 * ERR_UNSUPPORTED: it is partitioned (MIG), and its numbers are not those of a partition.
 * ERR_LOST as below. */
enum err nvml_device_open(struct nvml *n, uint32_t index, struct nvml_identity *ret_identity,
                          struct errbuf *eb);

/* Numbers that not every device has. */
enum nvml_known {
    NVML_KNOWN_PROCESSES = 1u << 0,
    NVML_KNOWN_OWN_BYTES = 1u << 1,
    NVML_KNOWN_UTILIZATION = 1u << 2,
    NVML_KNOWN_POWER = 1u << 3,
    NVML_KNOWN_ENERGY = 1u << 4,
    NVML_KNOWN_TEMPERATURE = 1u << 5,
    NVML_KNOWN_ECC = 1u << 6,
};

struct nvml_reading {
    uint64_t total_bytes; /* less what the driver keeps for itself */
    uint64_t free_bytes;
    uint32_t known;           /* enum nvml_known; what is not known is 0 */
    uint64_t own_bytes;       /* of this process. In a container NVML may know it by another pid */
    uint64_t other_bytes;     /* of all other processes, where NVML may say */
    uint32_t other_processes; /* each counted once, whatever it does there */
    uint32_t utilization_percent;
    uint64_t power_mw;
    uint64_t energy_mj; /* since the driver was loaded */
    uint32_t temperature_c;
    uint64_t ecc_uncorrected; /* since the driver was loaded */
    bool remap_pending;       /* a row of memory is to be replaced at the next reset */
    bool remap_failed;        /* there is no spare row left: the device has to be */
};

/* ERR_LOST: it fell off the bus, has to be reset, or its driver went away; nothing that runs on it
 * will come back. ERR_IO: NVML failed otherwise, the text says at what; another try may do. */
enum err nvml_device_read(struct nvml *n, struct nvml_reading *ret_reading, struct errbuf *eb);

/* Waits for a critical error of the device (Xid) for at most timeout_ms. *ret_xid is its number, 0
 * for none. Where the device cannot tell it waits all the same. ERR_LOST and ERR_IO as above. */
enum err nvml_device_wait(struct nvml *n, uint32_t timeout_ms, uint64_t *ret_xid,
                          struct errbuf *eb);

#endif
