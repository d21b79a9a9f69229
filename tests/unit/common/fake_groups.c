#include "tests/unit/common/fake_groups.h"

#include "common/check.h"

#include <inttypes.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAY_NOT 101

__attribute__((format(printf, 3, 4))) static void put(const char *folder, const char *name,
                                                      const char *format, ...)
{
    char path[256];
    va_list ap;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    CHECK(f != NULL);
    va_start(ap, format);
    CHECK(vfprintf(f, format, ap) > 0);
    va_end(ap);
    CHECK(fclose(f) == 0);
}

/* Files of ours in the place of the kernel's, for this process alone: it is in /a/b. */
static bool put_groups(const char *folder, uint64_t limit, uint64_t used, uint64_t files)
{
    char path[128];
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", folder, "tmpfs", 0, NULL) != 0)
        return false;
    put(folder, "cgroup", "9:name=x:/c\n0::/a/b\n");
    (void)snprintf(path, sizeof path, "%s/a", folder);
    CHECK(mkdir(path, 0700) == 0);
    put(path, "memory.max", "%" PRIu64 "\n", limit);
    put(path, "memory.current", "%" PRIu64 "\n", used);
    put(path, "memory.stat", "anon 7\ninactive_file %" PRIu64 "\nactive_file 9\n", files);
    (void)snprintf(path, sizeof path, "%s/a/b", folder);
    CHECK(mkdir(path, 0700) == 0);
    put(path, "memory.max", "max\n");
    put(path, "memory.current", "5\n");
    (void)snprintf(path, sizeof path, "%s/cgroup", folder);
    return mount(path, "/proc/self/cgroup", NULL, MS_BIND, NULL) == 0 &&
           mount(folder, "/sys/fs/cgroup", NULL, MS_BIND, NULL) == 0;
}

int fake_groups_run(uint64_t limit, uint64_t used, uint64_t files, int (*body)(void))
{
    char folder[] = "/tmp/cloister_groups_XXXXXX";
    int status;
    CHECK(mkdtemp(folder) != NULL);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit(put_groups(folder, limit, used, files) ? body() : MAY_NOT);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(rmdir(folder) == 0);
    return WEXITSTATUS(status) == MAY_NOT ? -1 : WEXITSTATUS(status);
}
