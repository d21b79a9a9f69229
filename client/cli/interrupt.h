/*
 * interrupt.h - Ctrl-C, which cancels the job and the second time leaves at once.
 */
#ifndef CLOISTER_CLI_INTERRUPT_H
#define CLOISTER_CLI_INTERRUPT_H

#include "client/cli/cli.h"

#include <pthread.h>
#include <stdbool.h>

/* Ctrl-C, SIGTERM and SIGHUP: before there is a connection they end the program; then, where
 * `cancels` and a job is named, they cancel the job, else they interrupt the connection; so they do
 * also where nothing is heard of the cancelled job for --wait. The second one ends the program at
 * once with 130. Starts a thread; the signals are blocked in all threads made later, so call it
 * before connecting. */
struct interrupt {
    pthread_t thread, canceller;
    pthread_mutex_t mutex;
    pthread_cond_t stop;
    const struct cli *cli;
    bool cancels;
    struct cloister *cluster;
    char id[CLOISTER_ID_BYTES]; /* "": none yet */
    bool hit, cancelling, stopped;
};

void interrupt_start(struct interrupt *i, const struct cli *cli, bool cancels);
void interrupt_connected(struct interrupt *i, struct cloister *cluster);
void interrupt_name_job(struct interrupt *i, const char *id);
bool interrupt_was_hit(struct interrupt *i);
void interrupt_stop(struct interrupt *i);

#endif
