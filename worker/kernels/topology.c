#include "worker/kernels/topology.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool topology_parse(const char *list, cpu_set_t *ret_set)
{
    CPU_ZERO(ret_set);
    while (*list != '\0' && *list != '\n') {
        char *end;
        if (!isdigit((unsigned char)*list))
            return false;
        unsigned long first = strtoul(list, &end, 10);
        unsigned long last = first;
        if (*end == '-') {
            if (!isdigit((unsigned char)end[1]))
                return false;
            last = strtoul(end + 1, &end, 10);
        }
        if (first > last || last >= CPU_SETSIZE)
            return false;
        for (unsigned long i = first; i <= last; i++)
            CPU_SET(i, ret_set);
        if (*end == ',')
            end++;
        else if (*end != '\0' && *end != '\n')
            return false;
        list = end;
    }
    return true;
}

/* A file of one list; an empty set where there is none that can be read. */
static void topology_read_list(const char *dir, const char *name, cpu_set_t *ret_set)
{
    char path[256];
    char text[4096];
    CPU_ZERO(ret_set);
    int length = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (length < 0 || (size_t)length >= sizeof path)
        return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got < 0)
        return;
    text[got] = '\0';
    if (!topology_parse(text, ret_set))
        CPU_ZERO(ret_set);
}

/* Those of `some` become CPUs of the newest node, and are left no more. */
static void topology_take(struct topology *t, const cpu_set_t *some, cpu_set_t *left)
{
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, some) && CPU_ISSET(cpu, left)) {
            t->cpus[t->n_cpus++] = (uint16_t)cpu;
            t->node_of[cpu] = (uint8_t)(t->n_nodes - 1);
            CPU_CLR(cpu, left);
        }
    }
    t->first[t->n_nodes] = t->n_cpus;
}

void topology_read(const char *nodes_dir, const cpu_set_t *allowed, struct topology *ret_topology)
{
    struct topology *t = ret_topology;
    memset(t, 0, sizeof *t);
    t->n_nodes = 1;
    t->is_known = CPU_COUNT(allowed) > 0;
    if (!t->is_known) {
        long online = sysconf(_SC_NPROCESSORS_ONLN);
        t->n_cpus = online > 0 ? (uint32_t)online : 1;
        t->first[1] = t->n_cpus;
        return;
    }
    cpu_set_t nodes;
    cpu_set_t left = *allowed;
    topology_read_list(nodes_dir, "online", &nodes);
    for (uint32_t node = 0; node < CPU_SETSIZE; node++) {
        cpu_set_t cpus;
        char name[32];
        if (!CPU_ISSET(node, &nodes))
            continue;
        (void)snprintf(name, sizeof name, "node%u/cpulist", node);
        topology_read_list(nodes_dir, name, &cpus);
        CPU_AND(&cpus, &cpus, &left);
        if (CPU_COUNT(&cpus) == 0)
            continue;
        if (t->n_cpus > 0 && t->n_nodes < TOPOLOGY_NODES_MAX)
            t->n_nodes++;
        topology_take(t, &cpus, &left);
    }
    topology_take(t, &left, &left);
}

void topology_of_process(struct topology *ret_topology)
{
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        CPU_ZERO(&allowed);
    topology_read(TOPOLOGY_NODES_DIR, &allowed, ret_topology);
}
