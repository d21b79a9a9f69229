#include "common/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096u
#define STAT_BYTES 8192u

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

/* Behind `key` at the beginning of a line; NULL where there is no such line. */
static const char *line_after(const char *text, const char *key)
{
    const char *at = text;
    while ((at = strstr(at, key)) != NULL && at != text && at[-1] != '\n')
        at++;
    return at == NULL ? NULL : at + strlen(key);
}

static bool meminfo_value(const char *meminfo, const char *key, uint64_t *ret_bytes)
{
    const char *at = line_after(meminfo, key);
    uint64_t kib;
    if (at == NULL || sscanf(at, " %" SCNu64 " kB", &kib) != 1 || kib > UINT64_MAX / 1024)
        return false;
    *ret_bytes = kib * 1024;
    return true;
}

enum err memory_parse(const char *meminfo, struct memory_now *ret_now, struct errbuf *eb)
{
    struct memory_now now = {0};

    if (!meminfo_value(meminfo, "MemTotal:", &now.total_bytes))
        return err_set(eb, ERR_CORRUPT, "/proc/meminfo has no MemTotal");
    if (!meminfo_value(meminfo, "MemAvailable:", &now.free_bytes))
        return err_set(eb, ERR_CORRUPT, "/proc/meminfo has no MemAvailable (Linux 3.14 or newer)");
    *ret_now = now;
    return ERR_OK;
}

void memory_limit(struct memory_now *now, const char *max, const char *current, const char *stat)
{
    const char *files = stat != NULL ? line_after(stat, "inactive_file ") : NULL;
    uint64_t limit, used, unused = 0;

    if (max == NULL || sscanf(max, "%" SCNu64, &limit) != 1)
        return;
    if (limit < now->total_bytes)
        now->total_bytes = limit;
    if (current == NULL || sscanf(current, "%" SCNu64, &used) != 1)
        return;
    if (files != NULL && sscanf(files, "%" SCNu64, &unused) == 1)
        used -= unused < used ? unused : used;
    const uint64_t left = used < limit ? limit - used : 0;
    if (left < now->free_bytes)
        now->free_bytes = left;
}

bool memory_group(const char *cgroup, char *ret_path, size_t size)
{
    const char *at = line_after(cgroup, "0::");
    if (at == NULL || *at != '/')
        return false;
    size_t n = strcspn(at, "\n");
    while (n > 0 && at[n - 1] == '/')
        n--;
    if (n >= size)
        return false;
    memcpy(ret_path, at, n);
    ret_path[n] = '\0';
    return true;
}

static bool group_text(const char *group, const char *name, char *ret_text, size_t size)
{
    char path[PATH_BYTES + 64];
    (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", group, name);
    return file_text(path, ret_text, size);
}

static void groups_limit(struct memory_now *now)
{
    char self[PATH_BYTES], group[PATH_BYTES], max[64], current[64], stat[STAT_BYTES];
    if (!file_text("/proc/self/cgroup", self, sizeof self) ||
        !memory_group(self, group, sizeof group))
        return;
    for (char *end = group + strlen(group); end != NULL; end = strrchr(group, '/')) {
        *end = '\0';
        const bool has_max = group_text(group, "memory.max", max, sizeof max);
        const bool has_current = group_text(group, "memory.current", current, sizeof current);
        const bool has_stat = group_text(group, "memory.stat", stat, sizeof stat);
        memory_limit(now, has_max ? max : NULL, has_current ? current : NULL,
                     has_stat ? stat : NULL);
    }
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
    struct memory_now now;
    char meminfo[8192];
    if (!file_text("/proc/meminfo", meminfo, sizeof meminfo))
        return err_set_errno(eb, errno, "/proc/meminfo");
    enum err e = memory_parse(meminfo, &now, eb);
    if (e != ERR_OK)
        return e;
    groups_limit(&now);
    now.resident_bytes = resident_bytes();
    *ret_now = now;
    return ERR_OK;
}
