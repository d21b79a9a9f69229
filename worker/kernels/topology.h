/*
 * topology.h - the CPUs that this process may run on, by the memory that is near them.
 *
 * Linux numbers memory nodes; /sys/devices/system/node says which are there (`online`) and which
 * CPUs are next to each (`nodeK/cpulist`). A node whose CPUs we may not use does not count. Where
 * nothing of this can be read, all CPUs are one node.
 *
 * Internal to kernels/. Thread: any (pure but for reading those files).
 */
#ifndef CLOISTER_WORKER_KERNELS_TOPOLOGY_H
#define CLOISTER_WORKER_KERNELS_TOPOLOGY_H

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define TOPOLOGY_NODES_MAX 16u /* the CPUs of further ones count to the last */
#define TOPOLOGY_NODES_DIR "/sys/devices/system/node"

struct topology {
    uint32_t n_cpus;                        /* at least 1 */
    uint32_t n_nodes;                       /* at least 1 */
    uint32_t first[TOPOLOGY_NODES_MAX + 1]; /* cpus[first[k]] .. cpus[first[k + 1] - 1] are of k */
    uint16_t cpus[CPU_SETSIZE];
    uint8_t node_of[CPU_SETSIZE]; /* by a CPU's number; 0 for one that is not among ours */
    bool is_known; /* false: more CPUs than a cpu_set_t holds; `cpus` says nothing, one node */
};

/* Of the CPUs in `allowed`, none of which means that they are not known. */
void topology_read(const char *nodes_dir, const cpu_set_t *allowed, struct topology *ret_topology);

/* Of the calling thread. */
void topology_of_process(struct topology *ret_topology);

/* A list as the kernel prints it ("0-3,8,10-11\n") into a set. false where it is not one, or a
 * number does not fit. */
bool topology_parse(const char *list, cpu_set_t *ret_set);

#endif
