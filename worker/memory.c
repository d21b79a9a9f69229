#include "worker/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool file_text(const char *path, char *ret_text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, ret_text, size - 1);
    close(fd);
    if (n < 0)
        return false;
    ret_text[n] = '\0';
    return true;
}

static bool meminfo_value(const char *meminfo, const char *key, uint64_t *ret_bytes)
{
    const char *at = strstr(meminfo, key);
    uint64_t kib;
    if (at == NULL || (at != meminfo && at[-1] != '\n'))
        return false;
    if (sscanf(at + strlen(key), " %" SCNu64 " kB", &kib) != 1 || kib > UINT64_MAX / 1024)
        return false;
    *ret_bytes = kib * 1024;
    return true;
}

enum err memory_parse(const char *meminfo, const char *cgroup_max, const char *cgroup_current,
                      struct memory_now *ret_now, struct errbuf *eb)
{
    struct memory_now now = {0};
    uint64_t limit, current;

    if (!meminfo_value(meminfo, "MemTotal:", &now.total_bytes))
        return err_set(eb, ERR_CORRUPT, "/proc/meminfo has no MemTotal");
    if (!meminfo_value(meminfo, "MemAvailable:", &now.free_bytes))
        return err_set(eb, ERR_CORRUPT, "/proc/meminfo has no MemAvailable (Linux 3.14 or newer)");
    if (cgroup_max != NULL && sscanf(cgroup_max, "%" SCNu64, &limit) == 1) {
        if (limit < now.total_bytes)
            now.total_bytes = limit;
        if (cgroup_current != NULL && sscanf(cgroup_current, "%" SCNu64, &current) == 1) {
            uint64_t left = current < limit ? limit - current : 0;
            if (left < now.free_bytes)
                now.free_bytes = left;
        }
    }
    *ret_now = now;
    return ERR_OK;
}

/* The tightest limit may sit on any ancestor; the process's own group is the usual place
 * (MemoryMax= of a systemd unit), and the only one looked at. */
static bool cgroup_file(const char *name, char *ret_text, size_t size)
{
    char self[4096], path[4096 + 64];
    if (!file_text("/proc/self/cgroup", self, sizeof self))
        return false;
    char *group = strstr(self, "0::/");
    if (group == NULL)
        return false;
    group += 3;
    group[strcspn(group, "\n")] = '\0';
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, name);
    return file_text(path, ret_text, size);
}

static uint64_t resident_bytes(void)
{
    char text[128];
    uint64_t size, resident;
    if (!file_text("/proc/self/statm", text, sizeof text) ||
        sscanf(text, "%" SCNu64 " %" SCNu64, &size, &resident) != 2)
        return 0;
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

enum err memory_read(struct memory_now *ret_now, struct errbuf *eb)
{
    char meminfo[8192], limit[64], current[64];
    if (!file_text("/proc/meminfo", meminfo, sizeof meminfo))
        return err_set_errno(eb, errno, "/proc/meminfo");
    bool has_limit = cgroup_file("memory.max", limit, sizeof limit);
    bool has_current = cgroup_file("memory.current", current, sizeof current);
    enum err e =
        memory_parse(meminfo, has_limit ? limit : NULL, has_current ? current : NULL, ret_now, eb);
    if (e == ERR_OK)
        ret_now->resident_bytes = resident_bytes();
    return e;
}
