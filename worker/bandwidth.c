#include "worker/bandwidth.h"

#include "common/clock.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/units.h"
#include "worker/kernels/read_rate.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PER_SECOND  "/s"
#define TEXT_BYTES  32u
#define ROOM_PART   4u   /* of what is free may be taken */
#define OTHERS_PART 8u   /* of all processor time may be theirs */
#define AGAIN_MS    300u /* no other try is begun after this time */

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

struct times {
    bool is_known;
    uint64_t busy, all; /* ticks, of all processes */
    uint64_t own_ns;
};

static struct times times_read(void)
{
    struct times t = {0};
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

/* In percent of the machine; 0 where it cannot be told. Ticks are as long as a tenth of what is
 * measured: one is nobody's. */
static uint32_t others_percent(const struct times *before, const struct times *after)
{
    const long per_s = sysconf(_SC_CLK_TCK);
    if (!before->is_known || !after->is_known || per_s <= 0 || after->all <= before->all ||
        after->busy < before->busy)
        return 0;
    const uint64_t own = (after->own_ns - before->own_ns) * (uint64_t)per_s / 1000000000u + 1;
    const uint64_t busy = after->busy - before->busy;
    return (uint32_t)((busy > own ? busy - own : 0) * 100 / (after->all - before->all));
}

/* ---- the number ---- */

/* ERR_UNAVAILABLE: others had too much of the processors meanwhile. */
static enum err cpu_measure_once(struct device *device, uint32_t threads,
                                 struct read_rate *ret_rate, struct errbuf *eb)
{
    const struct times before = times_read();
    struct device_now now;

    enum err e = device_read(device, 0, &now, eb);
    if (e == ERR_OK)
        e = read_rate_measure(threads, now.free_bytes / ROOM_PART, ret_rate, eb);
    if (e != ERR_OK)
        return e;
    const struct times after = times_read();
    const uint32_t others = others_percent(&before, &after);
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

    const uint64_t began_ms = clock_mono_ms();
    do {
        e = cpu_measure_once(device, threads, &rate, &eb);
    } while (e == ERR_UNAVAILABLE && clock_mono_ms() - began_ms < AGAIN_MS);
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
