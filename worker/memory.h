/*
 * memory.h - how much memory this machine, and this worker on it, really has. Bytes.
 *
 * On a CPU worker the device is main memory: total is MemTotal or the cgroup's limit, whichever is
 * less; free is MemAvailable or what the cgroup has left. Both are read anew at each call, because
 * other people's processes use the same memory.
 *
 * Source: Linux Documentation/filesystems/proc.rst and admin-guide/cgroup-v2.rst.
 */
#ifndef CLOISTER_WORKER_MEMORY_H
#define CLOISTER_WORKER_MEMORY_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

struct memory_now {
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t resident_bytes; /* of this process */
};

enum err memory_read(struct memory_now *ret_now, struct errbuf *eb);

/* The same from texts, for tests: /proc/meminfo's; the cgroup's memory.max ("max" or a number) and
 * memory.current, NULL where there is none. ERR_CORRUPT names the line that is missing. */
enum err memory_parse(const char *meminfo, const char *cgroup_max, const char *cgroup_current,
                      struct memory_now *ret_now, struct errbuf *eb);

#endif
