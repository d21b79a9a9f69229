#include "worker/bandwidth.h"

#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/units.h"
#include "worker/kernels/read_rate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PER_SECOND  "/s"
#define TEXT_BYTES  32u
#define ROOM_PART   4u   /* of what is free may be taken */
#define OTHERS_PART 8u   /* of all processor time may be theirs */
#define AGAIN_MS    300u /* no other try is begun after this time */
#define TURN_MS     2000u
#define TURN_NAP_MS 10

enum err bandwidth_parse(const char *text, struct bandwidth_choice *ret_choice, struct errbuf *eb)
{
    const size_t size = strlen(text), unit = strlen(PER_SECOND);
    char bytes[TEXT_BYTES];
    uint64_t n = 0;

    if (strcmp(text, "measure") == 0 || strcmp(text, "off") == 0) {
        *ret_choice = (struct bandwidth_choice){.is_measured = text[0] == 'm'};
        return ERR_OK;
    }
    if (size > unit && size - unit < sizeof bytes && strcmp(text + size - unit, PER_SECOND) == 0) {
        memcpy(bytes, text, size - unit);
        bytes[size - unit] = '\0';
        if (units_size_parse(bytes, &n) && n > 0 && n <= LIMIT_READ_BYTES_PER_S) {
            *ret_choice = (struct bandwidth_choice){.bytes_per_s = n};
            return ERR_OK;
        }
    }
    return err_set(eb, ERR_INVALID,
                   "bandwidth %.64s: write \"measure\", \"off\", or a whole number with its unit, "
                   "such as \"450GB/s\" or \"20500MB/s\", of at most 1000TB/s",
                   text);
}

/* ---- what others do meanwhile ---- */

/* cpu  user nice system idle iowait irq softirq steal ... */
bool bandwidth_stat_parse(const char *stat, uint64_t *ret_busy, uint64_t *ret_all)
{
    uint64_t user, nice, system, idle, iowait, irq, softirq, steal;

    if (strncmp(stat, "cpu ", 4) != 0 ||
        sscanf(stat,
               "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
               " %" SCNu64 " %" SCNu64,
               &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal) != 8)
        return false;
    *ret_busy = user + nice + system + irq + softirq + steal;
    *ret_all = *ret_busy + idle + iowait;
    return true;
}

static struct bandwidth_times times_read(void)
{
    struct bandwidth_times t = {0};
    char text[512];
    struct timespec own;
    int fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return t;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0 || clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own) != 0)
        return t;
    text[n] = '\0';
    t.own_ns = (uint64_t)own.tv_sec * 1000000000u + (uint64_t)own.tv_nsec;
    t.is_known = bandwidth_stat_parse(text, &t.busy, &t.all);
    return t;
}

uint32_t bandwidth_others_percent(const struct bandwidth_times *before,
                                  const struct bandwidth_times *after, long ticks_per_s)
{
    if (!before->is_known || !after->is_known || ticks_per_s <= 0 || after->all <= before->all ||
        after->busy < before->busy || after->own_ns < before->own_ns)
        return 0;
    const uint64_t own = (after->own_ns - before->own_ns) * (uint64_t)ticks_per_s / 1000000000u + 1;
    const uint64_t busy = after->busy - before->busy;
    return (uint32_t)((busy > own ? busy - own : 0) * 100 / (after->all - before->all));
}

/* ---- the number ---- */

/* Two that measure at once are in each other's way, and neither would know anything. Returns what
 * to close when it is done; -1: it did not come to this worker's turn. */
static int turn_take(void)
{
    static const struct timespec nap = {.tv_nsec = TURN_NAP_MS * 1000000};
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0" BANDWIDTH_TURN};
    const socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof "\0" BANDWIDTH_TURN - 1);
    const uint64_t began_ms = clock_mono_ms();
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    while (fd >= 0 && bind(fd, (const struct sockaddr *)(const void *)&name, size) != 0) {
        if (errno != EADDRINUSE || clock_mono_ms() - began_ms >= TURN_MS) {
            (void)close(fd);
            return -1;
        }
        (void)nanosleep(&nap, NULL);
    }
    return fd;
}

/* ERR_UNAVAILABLE: others had too much of the processors meanwhile. */
static enum err cpu_measure_once(struct device *device, uint32_t threads,
                                 struct read_rate *ret_rate, struct errbuf *eb)
{
    const struct bandwidth_times before = times_read();
    struct device_now now;

    enum err e = device_read(device, 0, &now, eb);
    if (e == ERR_OK)
        e = read_rate_measure(threads, now.free_bytes / ROOM_PART, ret_rate, eb);
    if (e != ERR_OK)
        return e;
    const struct bandwidth_times after = times_read();
    const uint32_t others = bandwidth_others_percent(&before, &after, sysconf(_SC_CLK_TCK));
    if (others > 100 / OTHERS_PART)
        return err_set(eb, ERR_UNAVAILABLE,
                       "others had %u %% of the processors while it was measured (%.1f GB/s)",
                       others, (double)ret_rate->bytes_per_s / 1e9);
    return ERR_OK;
}

static uint64_t cpu_measure(struct device *device, uint32_t threads)
{
    struct errbuf eb = {{0}};
    struct read_rate rate;
    enum err e;

    const int turn = turn_take();
    const uint64_t began_ms = clock_mono_ms();
    do {
        e = cpu_measure_once(device, threads, &rate, &eb);
    } while (e == ERR_UNAVAILABLE && clock_mono_ms() - began_ms < AGAIN_MS);
    if (turn >= 0)
        (void)close(turn);
    if (e != ERR_OK) {
        log_info("how fast this worker reads memory is not known: %s", eb.text);
        return 0;
    }
    log_info("%u threads read memory at %.1f GB/s, the best of %u passes over %" PRIu64 " MiB",
             threads, (double)rate.bytes_per_s / 1e9, rate.passes, rate.bytes >> 20);
    return rate.bytes_per_s;
}

static uint64_t measure(struct device *device, uint32_t threads)
{
    const struct nvml_identity *gpu = device_gpu(device);

    if (gpu == NULL)
        return cpu_measure(device, threads);
    if (gpu->read_bytes_per_s == 0)
        log_info("how fast %s reads its memory is not known: its driver does not say", gpu->name);
    else
        log_info("%s reads its memory at %.1f GB/s, says its driver", gpu->name,
                 (double)gpu->read_bytes_per_s / 1e9);
    return gpu->read_bytes_per_s;
}

uint64_t bandwidth_read(const struct bandwidth_choice *choice, struct device *device,
                        uint32_t threads)
{
    const uint64_t n = choice->is_measured ? measure(device, threads) : choice->bytes_per_s;
    return n < LIMIT_READ_BYTES_PER_S ? n : LIMIT_READ_BYTES_PER_S;
}
