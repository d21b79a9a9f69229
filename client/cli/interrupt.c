/* Ctrl-C. Signals are taken by a thread of their own, which may call the library; a signal handler
 * may not. */
#include "client/cli/interrupt.h"

#include "common/check.h"
#include "common/clock.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#define EXIT_SECOND_INTERRUPT 130

static void interrupt_signals(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    sigaddset(ret_set, SIGINT);
    sigaddset(ret_set, SIGTERM);
    sigaddset(ret_set, SIGHUP);
    sigaddset(ret_set, SIGUSR1); /* ends the thread */
}

#define HEARD_MS_MIN 1000u

/* The job was cancelled. Who watches it hears that, unless the coordinator has gone away since. */
static bool interrupt_is_heard(struct interrupt *i)
{
    uint64_t wait_ms = i->cli->settings.wait_ms;
    uint64_t until_ms = clock_mono_ms() + (wait_ms > HEARD_MS_MIN ? wait_ms : HEARD_MS_MIN);
    struct timespec until = {.tv_sec = (time_t)(until_ms / 1000),
                             .tv_nsec = (long)(until_ms % 1000) * 1000000};
    int result = 0;
    pthread_mutex_lock(&i->mutex);
    while (!i->stopped && result == 0)
        result = pthread_cond_timedwait(&i->stop, &i->mutex, &until);
    bool stopped = i->stopped;
    pthread_mutex_unlock(&i->mutex);
    return stopped;
}

static void *interrupt_cancel(void *arg)
{
    struct interrupt *i = arg;
    struct cloister_problem problem;
    bool cancelled = cloister_cancel(i->cluster, i->id, "interrupted at the terminal", NULL,
                                     &problem) == CLOISTER_OK;
    if (!cancelled)
        cli_fail_problem(&problem);
    if (!cancelled || !interrupt_is_heard(i))
        cloister_interrupt(i->cluster);
    return NULL;
}

static void interrupt_act(struct interrupt *i)
{
    pthread_mutex_lock(&i->mutex);
    bool leave = i->hit || !i->cluster;
    bool cancels = i->cancels && i->id[0];
    i->hit = true;
    /* A thread of its own, so that a second Ctrl-C is heard while this one waits for an answer. */
    if (!leave && cancels)
        i->cancelling = pthread_create(&i->canceller, NULL, interrupt_cancel, i) == 0;
    pthread_mutex_unlock(&i->mutex);
    if (leave)
        _exit(EXIT_SECOND_INTERRUPT);
    if (!cancels)
        cloister_interrupt(i->cluster);
    else if (i->cli->stderr_is_terminal)
        fprintf(stderr, "\ncloister: cancelling the job; Ctrl-C again leaves at once\n");
}

static void *interrupt_thread(void *arg)
{
    struct interrupt *i = arg;
    sigset_t set;
    interrupt_signals(&set);
    for (;;) {
        int number;
        if (sigwait(&set, &number) != 0)
            continue;
        if (number == SIGUSR1)
            return NULL;
        interrupt_act(i);
    }
}

void interrupt_start(struct interrupt *i, const struct cli *cli, bool cancels)
{
    sigset_t set;
    pthread_condattr_t monotonic;
    memset(i, 0, sizeof *i);
    i->cancels = cancels;
    i->cli = cli;
    pthread_mutex_init(&i->mutex, NULL);
    CHECK(pthread_condattr_init(&monotonic) == 0 &&
          pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0 &&
          pthread_cond_init(&i->stop, &monotonic) == 0);
    pthread_condattr_destroy(&monotonic);
    interrupt_signals(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    CHECK(pthread_create(&i->thread, NULL, interrupt_thread, i) == 0);
}

void interrupt_connected(struct interrupt *i, struct cloister *cluster)
{
    pthread_mutex_lock(&i->mutex);
    i->cluster = cluster;
    pthread_mutex_unlock(&i->mutex);
}

void interrupt_name_job(struct interrupt *i, const char *id)
{
    pthread_mutex_lock(&i->mutex);
    memcpy(i->id, id, sizeof i->id);
    pthread_mutex_unlock(&i->mutex);
}

bool interrupt_was_hit(struct interrupt *i)
{
    pthread_mutex_lock(&i->mutex);
    bool hit = i->hit;
    pthread_mutex_unlock(&i->mutex);
    return hit;
}

void interrupt_stop(struct interrupt *i)
{
    pthread_kill(i->thread, SIGUSR1);
    pthread_join(i->thread, NULL);
    pthread_mutex_lock(&i->mutex);
    i->stopped = true;
    pthread_cond_signal(&i->stop);
    pthread_mutex_unlock(&i->mutex);
    if (i->cancelling)
        pthread_join(i->canceller, NULL);
    pthread_cond_destroy(&i->stop);
    pthread_mutex_destroy(&i->mutex);
}
