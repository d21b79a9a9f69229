/*
 * memory.h - how much memory this machine, and this process on it, really has. Bytes.
 *
 * Total is MemTotal or the limit of a cgroup, whichever is less: the process's own, or one that
 * this is in. Free is MemAvailable or the least that such a cgroup has left. Pages of files that
 * were not used lately are left, in a cgroup as on the machine: the kernel drops them before it
 * refuses anything. Both are read anew at each call, because other people's processes use the same
 * memory.
 *
 * Of cgroups v2 only. Source: Linux Documentation/filesystems/proc.rst and
 * admin-guide/cgroup-v2.rst. Thread: any.
 */
#ifndef CLOISTER_COMMON_MEMORY_H
#define CLOISTER_COMMON_MEMORY_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory_now {
    uint64_t total_bytes;
    uint64_t free_bytes;
    uint64_t resident_bytes; /* of this process */
};

enum err memory_read(struct memory_now *ret_now, struct errbuf *eb);

/* ---- for tests: the same from texts ---- */

/* /proc/meminfo's. ERR_CORRUPT names the line that is missing. */
enum err memory_parse(const char *meminfo, struct memory_now *ret_now, struct errbuf *eb);
/* Less, where a cgroup has less: its memory.max ("max" or a number), memory.current and
 * memory.stat; NULL where there is none. */
void memory_limit(struct memory_now *now, const char *max, const char *current, const char *stat);
/* The cgroup in /proc/self/cgroup's text, such as "/system.slice/w.service"; "" for the root. False
 * where there is none, or it does not fit. */
bool memory_group(const char *cgroup, char *ret_path, size_t size);

#endif
