#include "unit/client/run.h"

#include "common/check.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORDS_MOST 32

static void run_path(const struct run *r, const char *name, char ret_path[128])
{
    snprintf(ret_path, 128, "%s/%s", r->dir, name);
}

void run_home_make(char ret_home[64])
{
    snprintf(ret_home, 64, "/tmp/cloister-home-XXXXXX");
    CHECK(mkdtemp(ret_home));
}

void run_home_remove(const char *home)
{
    static const char *const names[] = {"/client.key", "/client.cfg", ""};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/cloister%s", home, names[i]);
        remove(path);
    }
    rmdir(home);
}

void run_start(struct run *r, const char *home, const char *url, const char *input,
               const char *out_path, const char *const *words)
{
    char path[128], in[128], config[256], address[128], tmp[] = "/tmp/cloister-run-XXXXXX";
    memset(r, 0, sizeof *r);
    buf_init(&r->out);
    buf_init(&r->err);
    CHECK(mkdtemp(tmp));
    snprintf(r->dir, sizeof r->dir, "%s", tmp);
    run_path(r, "in", in);
    int fd = open(in, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    if (input)
        CHECK(write(fd, input, strlen(input)) == (ssize_t)strlen(input));
    close(fd);

    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, in, O_RDONLY, 0);
    run_path(r, "out", path);
    if (out_path && !out_path[0])
        posix_spawn_file_actions_addclose(&files, 1);
    else
        posix_spawn_file_actions_addopen(&files, 1, out_path ? out_path : path, O_CREAT | O_WRONLY,
                                         0600);
    run_path(r, "err", path);
    posix_spawn_file_actions_addopen(&files, 2, path, O_CREAT | O_WRONLY, 0600);

    char *argv[WORDS_MOST + 2] = {CLOISTER_PROGRAM};
    for (int i = 0; words[i]; i++) {
        CHECK(i < WORDS_MOST);
        argv[i + 1] = (char *)words[i];
    }
    snprintf(config, sizeof config, "XDG_CONFIG_HOME=%s", home);
    snprintf(address, sizeof address, "CLOISTER_URL=%s", url);
    char *environment[] = {config, address, "TZ=UTC", "PATH=/usr/bin:/bin", NULL};
    CHECK(posix_spawn(&r->pid, CLOISTER_PROGRAM, &files, NULL, argv, environment) == 0);
    posix_spawn_file_actions_destroy(&files);
}

static void run_read(const char *path, struct buf *out)
{
    char chunk[4096];
    size_t n;
    FILE *f = fopen(path, "rb");
    if (!f)
        return;
    while ((n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(out, chunk, n);
    fclose(f);
}

void run_wait(struct run *r)
{
    int status;
    char path[128];
    CHECK(waitpid(r->pid, &status, 0) == r->pid);
    r->code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    run_path(r, "out", path);
    run_read(path, &r->out);
    run_path(r, "err", path);
    run_read(path, &r->err);
}

void run_fini(struct run *r)
{
    static const char *const names[] = {"in", "out", "err"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        run_path(r, names[i], path);
        unlink(path);
    }
    rmdir(r->dir);
    buf_fini(&r->out);
    buf_fini(&r->err);
}
