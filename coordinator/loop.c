#include "coordinator/loop_private.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/notify.h"
#include "coordinator/loop_restore.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define FILL_ARENA_BYTES (256u << 20) /* for one reply: commands bring several jobs */
#define STOP_MS_MAX      3000u
#define GOODBYE_MS       200u   /* for the last replies to leave */
#define STRANGER_MS      20000u /* to say both Hellos */
#define UNTAKEN_LOOK_MS  10     /* whether peers have taken their replies */

static void signals_take(struct loop *l)
{
    struct signalfd_siginfo info;
    while (read(l->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP || l->stopping)
            continue; /* there is nothing to read again */
        log_info("stopping: signal %u", info.ssi_signo);
        notify_state("STOPPING=1");
        l->stopping = true;
        l->stop_ms = clock_mono_ms();
        gather_plain(l, CORE_EVENT_STOP);
    }
}

static void timer_set(struct loop *l)
{
    /* What has to wait for the commit thread is not due before that is done, which wakes us. */
    uint64_t core_ms = gather_is_taken(l) ? UINT64_MAX : core_next_ms(l->core);
    uint64_t at_ms = l->look_ms < core_ms ? l->look_ms : core_ms;
    if (core_frozen(l->core) && !committer_busy(l->committer) && l->probe_ms < at_ms)
        at_ms = l->probe_ms;
    /* Zero would switch it off. */
    struct itimerspec when = {.it_value = {.tv_sec = (time_t)(at_ms / 1000u),
                                           .tv_nsec = (long)(at_ms % 1000u) * 1000000 + 1}};
    CHECK(timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0);
}

static bool is_over(const struct loop *l)
{
    if (!l->stopping)
        return false;
    if (clock_mono_ms() >= l->stop_ms + STOP_MS_MAX)
        return true;
    return !committer_busy(l->committer) && l->gathering->n_events == 0;
}

enum err loop_run(struct loop *l, struct errbuf *eb)
{
    enum err err = ERR_OK;
    while (!is_over(l) && err == ERR_OK) {
        struct epoll_event events[4];
        uint64_t n;
        timer_set(l);
        /* A full turn left requests in the inbox: with the disk idle nothing else would wake us. */
        int wait_ms = l->more && !committer_busy(l->committer) ? 0 : -1;
        if (wait_ms < 0 && l->untaken)
            wait_ms = UNTAKEN_LOOK_MS;
        if (epoll_wait(l->epoll_fd, events, 4, wait_ms) < 0 && errno != EINTR)
            return err_set_errno(eb, errno, "epoll_wait");
        if (read(l->timer_fd, &n, sizeof n) < 0)
            n = 0; /* it was another one */
        signals_take(l);
        /* Who was heard in time is heard first; but no requests keep time from passing. */
        if (failures_time_first(&l->failures, clock_mono_ms()))
            gather_time(l);
        gather_requests(l);
        finish_unbound(l);
        gather_time(l);
        err = finish_commit(l, eb);
        if (err != ERR_OK)
            break;
        err = recover_look(l, eb);
        if (err != ERR_OK)
            break;
        recover_job_lost(l);
        finish_turn(l);
        finish_checkpoint_look(l);
    }
    return err;
}

static enum err fds_open(struct loop *l, struct errbuf *eb)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    l->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->signal_fd < 0 || l->timer_fd < 0 || l->epoll_fd < 0)
        return err_set_errno(eb, errno, "signalfd, timerfd or epoll");
    const int fds[] = {l->signal_fd, l->timer_fd, inbox_fd(l->inbox), committer_fd(l->committer)};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++) {
        struct epoll_event want = {.events = EPOLLIN, .data = {.fd = fds[i]}};
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fds[i], &want) != 0)
            return err_set_errno(eb, errno, "epoll_ctl");
    }
    return ERR_OK;
}

enum err loop_open(struct loop **ret_loop, const struct loop_config *config, struct errbuf *eb)
{
    struct loop *l = calloc(1, sizeof *l);
    struct committer_config commits = {.checkpoint_records = config->checkpoint_records,
                                       .checkpoint_ms = config->checkpoint_ms};
    if (l == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the loop");
    l->config = config;
    l->signal_fd = l->timer_fd = l->epoll_fd = -1;
    replies_init(&l->replies);
    for (int i = 0; i < 2; i++)
        turn_init(&l->turns[i]);
    arena_init(&l->fill, FILL_ARENA_BYTES);
    recover_turns_reset(l);
    l->look_ms = clock_mono_ms() + LOOP_LOOK_EVERY_MS;

    enum err err = recover_storage_open(l, eb);
    if (err == ERR_OK)
        err = restore_boot(l->store, l->ledger, config->core.node, config->key, clock_mono_ns(),
                           clock_wall_ns(), &l->boot_epoch, eb);
    if (err == ERR_OK)
        err = recover_core_open(l, eb);
    if (err == ERR_OK)
        err = inbox_open(&l->inbox, &inbox_limits_default, eb);
    if (err == ERR_OK)
        err = committer_open(&l->committer, &commits, eb);
    if (err == ERR_OK)
        err = fds_open(l, eb);
    if (err == ERR_OK)
        err = transport_server_open(&l->server, &config->endpoint, inbox_push, l->inbox, eb);
    if (err != ERR_OK) {
        loop_close(l);
        return err;
    }
    l->replies.server = l->server;
    transport_server_expect(l->server, STRANGER_MS,
                            config->core.session_idle_ms + config->core.lease_ms +
                                2 * LIMIT_POLL_MS);
    log_info("listening on %s, ledger %s, boot %llu", config->endpoint.url, config->origin,
             (unsigned long long)l->boot_epoch);
    notify_state("READY=1");
    *ret_loop = l;
    return ERR_OK;
}

bool loop_is_stuck(const struct loop *l)
{
    return l->stuck;
}

void loop_close(struct loop *l)
{
    if (l == NULL)
        return;
    if (l->committer != NULL)
        finish_checkpoint_last(l);
    committer_close(l->committer);
    if (l->server != NULL) {
        struct timespec rest = {.tv_nsec = (long)GOODBYE_MS * 1000000};
        nanosleep(&rest, NULL);
    }
    replies_fini(&l->replies);
    transport_server_close(l->server);
    inbox_close(l->inbox);
    core_free(l->core);
    recover_storage_close(l);
    for (int i = 0; i < 2; i++)
        turn_fini(&l->turns[i]);
    arena_fini(&l->fill);
    if (l->signal_fd >= 0)
        close(l->signal_fd);
    if (l->timer_fd >= 0)
        close(l->timer_fd);
    if (l->epoll_fd >= 0)
        close(l->epoll_fd);
    free(l);
}
