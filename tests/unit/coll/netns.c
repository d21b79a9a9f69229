#include "tests/unit/coll/netns.h"

#include "common/check.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

int netns_run(const char *format, unsigned a, unsigned b)
{
    char command[256];
    (void)snprintf(command, sizeof command, format, a, b);
    const int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* libucx finds its devices in /sys, which is to show those of the new namespace. */
int netns_move_out(void)
{
    return unshare(CLONE_NEWNET | CLONE_NEWNS) == 0 &&
                   mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                   mount("sysfs", "/sys", "sysfs", 0, NULL) == 0
               ? 0
               : -1;
}

static bool can_unshare(void)
{
    pid_t pid = fork();
    int status;
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(netns_move_out() == 0 ? 0 : 1);
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void netns_skip(const char *why)
{
    fprintf(stderr, "skipped: %s\n", why);
    exit(77);
}

void netns_require(void)
{
    if (!can_unshare())
        netns_skip("this user may not make network namespaces");
    if (netns_run("ip -V >/dev/null 2>&1", 0, 0) != 0)
        netns_skip("no `ip` here (iproute2)");
}
