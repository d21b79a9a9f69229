/*
 * bandwidth.h - how fast this worker's device reads weights, which the coordinator shares out
 * models by: measured once, said by a GPU, or configured.
 *
 * Of a CPU it is measured before there is an engine, with as many threads (read_rate.h). What
 * others compute meanwhile would count as slowness of this device, for as long as the worker lives;
 * so where they had more than an eighth of the machine's processor time, each time in a third of a
 * second, it is not known. Workers of one host that start together measure one after the other. Of
 * a GPU it is what NVML says of its memory, which has no noise and needs no context on the device;
 * one that is emulated, or of an old driver, says nothing.
 *
 * Thread: one owner, before the engine is opened.
 */
#ifndef CLOISTER_WORKER_BANDWIDTH_H
#define CLOISTER_WORKER_BANDWIDTH_H

#include "common/err.h"
#include "worker/device.h"

#include <stdbool.h>
#include <stdint.h>

struct bandwidth_choice {
    bool is_measured;
    uint64_t bytes_per_s; /* else; 0: not to be said */
};

/* "measure", "off", or "450GB/s": a size as units.h has it, per second, at most
 * LIMIT_READ_BYTES_PER_S. ERR_INVALID says what can be written. */
enum err bandwidth_parse(const char *text, struct bandwidth_choice *ret_choice, struct errbuf *eb);

/* Of the device, by `threads` of a CPU. 0: not known, which is logged with the reason; so is what
 * was measured. */
uint64_t bandwidth_read(const struct bandwidth_choice *choice, struct device *device,
                        uint32_t threads);

/* ---- for tests ---- */

/* An abstract socket's name, without the first byte: who has it measures. One who waited for two
 * seconds does so without. */
#define BANDWIDTH_TURN "cloister-bandwidth"

struct bandwidth_times {
    bool is_known;
    uint64_t busy, all; /* ticks of the kernel, of all processes; `all` with idle ones */
    uint64_t own_ns;    /* of this process */
};

/* Processor time of all processes, and all that there was, from the text of /proc/stat. False where
 * it does not say. What a virtual machine did not get counts as others'. */
bool bandwidth_stat_parse(const char *stat, uint64_t *ret_busy, uint64_t *ret_all);
/* What others had between the two, in percent of the machine; 0 where it cannot be told. Ticks are
 * as long as a tenth of what is measured: one is nobody's. */
uint32_t bandwidth_others_percent(const struct bandwidth_times *before,
                                  const struct bandwidth_times *after, long ticks_per_s);

#endif
