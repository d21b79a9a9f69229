#include "worker/gpu/gpu_watch.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STOP_MS 2000u
/* "GPU has fallen off the bus" (NVIDIA, XID Errors): nothing after it is answered. */
#define XID_FELL_OFF 79u

struct gpu_watch {
    struct nvml *nvml; /* the watch's thread's, once that runs */
    struct nvml_identity identity;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t ended_cond; /* on the monotonic clock */
    bool stopping, ended, abandoned;
    int wake_fd;
    struct gpu_now now;
    uint64_t read_ms;
};

static void trouble_of_reading(const struct gpu_now *now, char *ret_text, size_t size)
{
    const struct nvml_reading *r = &now->reading;
    const char *remap = r->remap_failed    ? "no spare memory row is left, it should be replaced"
                        : r->remap_pending ? "a memory row is to be replaced, it needs a reset"
                                           : "";
    char xid[48] = "";
    if (now->xid != 0)
        (void)snprintf(xid, sizeof xid, "its last error was Xid %" PRIu64, now->xid);
    (void)snprintf(ret_text, size, "%s%s%s", xid, xid[0] && remap[0] ? "; " : "", remap);
}

/* Under the mutex: what is told from now on. */
static void reading_take(struct gpu_watch *w, enum err e, const struct nvml_reading *reading,
                         const char *error)
{
    if (e == ERR_OK) {
        w->now.reading = *reading;
        w->read_ms = clock_mono_ms();
        trouble_of_reading(&w->now, w->now.trouble, sizeof w->now.trouble);
    } else {
        (void)snprintf(w->now.trouble, sizeof w->now.trouble, "%s", error);
        w->now.lost = e == ERR_LOST;
    }
}

static void wake(const struct gpu_watch *w)
{
    uint64_t one = 1;
    if (w->wake_fd >= 0 && write(w->wake_fd, &one, sizeof one) < 0)
        return; /* full counter: awake already */
}

static void watch_fini(struct gpu_watch *w)
{
    nvml_close(w->nvml);
    pthread_cond_destroy(&w->ended_cond);
    pthread_mutex_destroy(&w->mutex);
    free(w);
}

/* One round: wait for an error of the device or for the interval, then read. */
static enum err watch_round(struct gpu_watch *w, struct nvml_reading *ret_reading,
                            uint64_t *ret_xid, struct errbuf *eb)
{
    enum err e = nvml_device_wait(w->nvml, GPU_WATCH_INTERVAL_MS, ret_xid, eb);
    if (e == ERR_OK && *ret_xid == XID_FELL_OFF)
        e = err_set(eb, ERR_LOST, "it has fallen off the bus (Xid %u)", XID_FELL_OFF);
    if (e == ERR_LOST)
        return e;
    if (e != ERR_OK) {
        /* no waiting there: not to turn in circles */
        struct timespec t = {.tv_nsec = GPU_WATCH_INTERVAL_MS * 1000000L};
        (void)nanosleep(&t, NULL);
    }
    return nvml_device_read(w->nvml, ret_reading, eb);
}

static void *watch_main(void *arg)
{
    struct gpu_watch *w = arg;
    bool stopping = false, lost = false;

    while (!stopping && !lost) {
        struct nvml_reading reading;
        struct errbuf eb = {{0}};
        uint64_t xid = 0;
        enum err e = watch_round(w, &reading, &xid, &eb);
        lost = e == ERR_LOST;
        pthread_mutex_lock(&w->mutex);
        if (xid != 0)
            w->now.xid = xid;
        reading_take(w, e, &reading, eb.text);
        if (lost || xid != 0)
            wake(w);
        stopping = w->stopping;
        pthread_mutex_unlock(&w->mutex);
    }
    pthread_mutex_lock(&w->mutex);
    w->ended = true;
    bool abandoned = w->abandoned;
    pthread_cond_signal(&w->ended_cond);
    pthread_mutex_unlock(&w->mutex);
    if (abandoned)
        watch_fini(w);
    return NULL;
}

static enum err watch_open(struct gpu_watch *w, const char *library, uint32_t index,
                           struct errbuf *eb)
{
    struct nvml_reading reading;
    enum err e = nvml_open(&w->nvml, library, eb);
    if (e == ERR_OK)
        e = nvml_device_open(w->nvml, index, &w->identity, eb);
    if (e == ERR_OK)
        e = nvml_device_read(w->nvml, &reading, eb);
    if (e == ERR_OK)
        reading_take(w, ERR_OK, &reading, "");
    return e;
}

enum err gpu_watch_start(struct gpu_watch **ret_watch, const char *library, uint32_t index,
                         struct errbuf *eb)
{
    struct gpu_watch *w = calloc(1, sizeof *w);
    pthread_condattr_t monotonic;
    if (w == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to watch a GPU");
    w->wake_fd = -1;
    pthread_mutex_init(&w->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&w->ended_cond, &monotonic);
    pthread_condattr_destroy(&monotonic);
    enum err e = watch_open(w, library, index, eb);
    if (e == ERR_OK) {
        int code = pthread_create(&w->thread, NULL, watch_main, w);
        if (code != 0)
            e = err_set_errno(eb, code, "a thread to watch the GPU");
    }
    if (e != ERR_OK) {
        watch_fini(w);
        return e;
    }
    *ret_watch = w;
    return ERR_OK;
}

void gpu_watch_stop(struct gpu_watch *w)
{
    struct timespec until;
    if (w == NULL)
        return;
    uint64_t end_ns = clock_mono_ns() + STOP_MS * 1000000ull;
    until = (struct timespec){.tv_sec = (time_t)(end_ns / 1000000000u),
                              .tv_nsec = (long)(end_ns % 1000000000u)};
    pthread_mutex_lock(&w->mutex);
    w->stopping = true;
    w->wake_fd = -1;
    int code = 0;
    while (!w->ended && code == 0)
        code = pthread_cond_timedwait(&w->ended_cond, &w->mutex, &until);
    bool ended = w->ended;
    w->abandoned = !ended;
    pthread_t thread = w->thread;
    pthread_mutex_unlock(&w->mutex);
    if (ended) {
        pthread_join(thread, NULL);
        watch_fini(w);
    } else {
        log_warn("NVML does not answer; its thread is left behind");
        pthread_detach(thread);
    }
}

void gpu_watch_wake(struct gpu_watch *w, int wake_fd)
{
    pthread_mutex_lock(&w->mutex);
    w->wake_fd = wake_fd;
    pthread_mutex_unlock(&w->mutex);
}

const struct nvml_identity *gpu_watch_identity(const struct gpu_watch *w)
{
    return &w->identity;
}

void gpu_watch_read(struct gpu_watch *w, struct gpu_now *ret_now)
{
    pthread_mutex_lock(&w->mutex);
    *ret_now = w->now;
    uint64_t silent_ms = clock_mono_ms() - w->read_ms;
    pthread_mutex_unlock(&w->mutex);
    if (!ret_now->lost && silent_ms >= GPU_WATCH_SILENT_MS)
        (void)snprintf(ret_now->trouble, sizeof ret_now->trouble,
                       "NVML has given no numbers for %" PRIu64 " s", silent_ms / 1000u);
}
