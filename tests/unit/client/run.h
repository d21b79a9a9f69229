/*
 * run.h - starts the program `cloister` as a user would and reads what it says. The path is
 * CLOISTER_PROGRAM. posix_spawn, since a process that uses nng may not fork.
 */
#ifndef CLOISTER_TESTS_RUN_H
#define CLOISTER_TESTS_RUN_H

#include "common/buf.h"

#include <stddef.h>
#include <sys/types.h>

struct run {
    pid_t pid;
    int code;     /* exit status; 128 + signal where it was killed */
    char dir[64]; /* of this run's files: out, err */
    struct buf out, err;
};

/* A new folder for client.key and client.cfg; and its end. */
void run_home_make(char ret_home[64]);
void run_home_remove(const char *home);

/* `words` end with NULL, without the program's name. input: bytes on stdin, NULL: none. `home` is
 * where client.key and client.cfg are. out_path: stdout goes there; "": it is closed;
 * NULL: it is kept. */
void run_start(struct run *r, const char *home, const char *url, const char *input,
               const char *out_path, const char *const *words);
void run_wait(struct run *r);
void run_fini(struct run *r);

#endif
