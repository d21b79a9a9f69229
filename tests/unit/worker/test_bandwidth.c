/* How fast a device reads memory: that there is a number which can be, where there should be one.
 * How large it is, is the machine's. */
#include "worker/bandwidth.h"

#include "common/clock.h"
#include "common/limits.h"
#include "worker/kernels/pool.h"
#include "worker/kernels/read_rate.h"

#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((uint64_t)1 << 20)

/* More than a floppy disk, less than any memory: whatever else the machine does. */
static void is_sane(const struct read_rate *rate)
{
    assert_in_range(rate->bytes_per_s, 1000000, 100000000000000);
    assert_in_range(rate->bytes, READ_RATE_BYTES_MIN, READ_RATE_BYTES_MAX);
    assert_in_range(rate->passes, 1, 100);
}

static void memory_has_a_rate(void **state)
{
    const uint32_t threads[] = {1, 2, 5, 0};
    (void)state;
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
        struct read_rate rate = {0};
        assert_int_equal(read_rate_measure(threads[i], 1024 * MIB, &rate, NULL), ERR_OK);
        is_sane(&rate);
    }
}

static void it_takes_no_more_memory_than_it_may(void **state)
{
    struct read_rate rate = {.bytes_per_s = 99};
    struct errbuf eb = {{0}};
    (void)state;
    assert_int_equal(read_rate_measure(2, READ_RATE_BYTES_MIN - 1, &rate, &eb), ERR_NO_MEMORY);
    assert_non_null(strstr(eb.text, "16777215 bytes are too little to measure with"));
    assert_int_equal(rate.bytes_per_s, 99);
    assert_int_equal(read_rate_measure(2, READ_RATE_BYTES_MIN, &rate, &eb), ERR_OK);
    assert_int_equal(rate.bytes, READ_RATE_BYTES_MIN);
    is_sane(&rate);
    assert_int_equal(read_rate_measure(2, READ_RATE_BYTES_MIN + 5, &rate, &eb), ERR_OK);
    assert_int_equal(rate.bytes, READ_RATE_BYTES_MIN);
    assert_int_equal(read_rate_measure(2, UINT64_MAX, &rate, &eb), ERR_OK);
    assert_true(rate.bytes <= READ_RATE_BYTES_MAX);
    assert_int_equal(read_rate_measure(POOL_THREADS_MAX + 1, UINT64_MAX, &rate, &eb), ERR_INVALID);
}

/* What is configured is not measured; what is measured may be nothing, on a machine with other
 * work.
 */
static void a_cpu_has_one_or_says_nothing(void **state)
{
    const struct device_id id = {0};
    const struct bandwidth_choice off = {0}, said = {.bytes_per_s = 20500000000},
                                  most = {.bytes_per_s = UINT64_MAX},
                                  measured = {.is_measured = true};
    struct device *d = NULL;
    (void)state;
    assert_int_equal(device_open(&d, &id, NULL), ERR_OK);
    assert_int_equal(bandwidth_read(&off, d, 2), 0);
    assert_int_equal(bandwidth_read(&said, d, 2), 20500000000);
    assert_true(bandwidth_read(&most, d, 2) == LIMIT_READ_BYTES_PER_S);
    const uint64_t n = bandwidth_read(&measured, d, 2);
    if (n != 0)
        assert_in_range(n, 1000000, 100000000000000);
    device_close(d);
}

static void processor_time_is_read(void **state)
{
    static const struct {
        const char *text;
        bool is_known;
        uint64_t busy, all;
    } rows[] = {
        {"cpu  10 2 30 400 50 6 7 8 9 10\ncpu0 1 2 3\n", true, 63, 513},
        {"cpu 1 1 1 1 1 1 1 1", true, 6, 8},
        {"cpu 1 1 1 1 1 1 1", false, 0, 0},
        {"cpu0 1 1 1 1 1 1 1 1", false, 0, 0},
        {"intr 1 1 1 1 1 1 1 1", false, 0, 0},
        {"", false, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t busy = 0, all = 0;
        if (bandwidth_stat_parse(rows[i].text, &busy, &all) != rows[i].is_known)
            fail_msg("%s", rows[i].text);
        assert_int_equal(busy, rows[i].busy);
        assert_int_equal(all, rows[i].all);
    }
}

/* Of 0.2 s on two processors, which are 40 ticks. */
static void what_others_had_is_told(void **state)
{
    static const struct {
        const char *what;
        struct bandwidth_times before, after;
        long ticks_per_s;
        uint32_t percent;
    } rows[] = {
        {"nobody", {true, 100, 1000, 5}, {true, 140, 1040, 400000005}, 100, 0},
        {"a tick", {true, 100, 1000, 0}, {true, 121, 1040, 200000000}, 100, 0},
        {"two", {true, 100, 1000, 0}, {true, 122, 1040, 200000000}, 100, 2},
        {"all but one's", {true, 100, 1000, 0}, {true, 140, 1040, 200000000}, 100, 47},
        {"this process had nothing", {true, 0, 0, 7}, {true, 41, 41, 7}, 100, 97},
        {"more than there was", {true, 0, 0, 0}, {true, 3, 3, 200000000}, 100, 0},
        {"ticks of 4 ms", {true, 100, 1000, 0}, {true, 200, 1100, 200000000}, 250, 49},
        {"not known before", {false, 0, 0, 0}, {true, 40, 40, 0}, 100, 0},
        {"nor behind", {true, 0, 0, 0}, {false, 40, 40, 0}, 100, 0},
        {"no ticks", {true, 0, 0, 0}, {true, 40, 40, 0}, -1, 0},
        {"no time passed", {true, 40, 40, 0}, {true, 40, 40, 0}, 100, 0},
        {"backwards", {true, 40, 40, 0}, {true, 30, 80, 0}, 100, 0},
        {"and so", {true, 0, 40, 9}, {true, 40, 80, 8}, 100, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint32_t percent =
            bandwidth_others_percent(&rows[i].before, &rows[i].after, rows[i].ticks_per_s);
        if (percent != rows[i].percent)
            fail_msg("%s: %u %%", rows[i].what, percent);
    }
}

static uint64_t measured(void)
{
    const struct device_id id = {0};
    const struct bandwidth_choice choice = {.is_measured = true};
    struct device *d = NULL;
    assert_int_equal(device_open(&d, &id, NULL), ERR_OK);
    const uint64_t n = bandwidth_read(&choice, d, 1);
    device_close(d);
    return n;
}

/* As many as there are processors turn in circles for as long as this program looks. */
static void beside_others_it_is_not_known(void **state)
{
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    pid_t child[64];
    cpu_set_t mine;
    uint64_t busy, all;
    char text[512] = "";
    (void)state;
    FILE *f = fopen("/proc/stat", "re");
    assert_true(f == NULL || fgets(text, sizeof text, f) != NULL);
    if (f != NULL)
        assert_int_equal(fclose(f), 0);
    CPU_ZERO(&mine);
    if (!bandwidth_stat_parse(text, &busy, &all) || n > 64 ||
        sched_getaffinity(0, sizeof mine, &mine) != 0 || CPU_COUNT(&mine) < n)
        skip(); /* it cannot be told, or these are some processors of many */
    for (long i = 0; i < n; i++) {
        child[i] = fork();
        assert_true(child[i] >= 0);
        if (child[i] == 0) {
            (void)alarm(20);
            for (volatile uint64_t turns = 0;; turns++)
                ;
        }
    }
    const uint64_t rate = measured();
    for (long i = 0; i < n; i++) {
        assert_int_equal(kill(child[i], SIGKILL), 0);
        assert_int_equal(waitpid(child[i], NULL, 0), child[i]);
    }
    assert_int_equal(rate, 0);
}

/* Another worker measures for 0.8 s. */
static void one_measures_after_the_other(void **state)
{
    const struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0" BANDWIDTH_TURN};
    const socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof "\0" BANDWIDTH_TURN - 1);
    int ready[2];
    char byte;
    (void)state;
    assert_int_equal(pipe(ready), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
        while (bind(fd, (const struct sockaddr *)(const void *)&name, size) != 0)
            (void)usleep(10000);
        _exit(write(ready[1], "x", 1) != 1 || usleep(800000) != 0);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    const uint64_t began_ms = clock_mono_ms();
    (void)measured();
    assert_in_range(clock_mono_ms() - began_ms, 700, 60000);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(close(ready[0]) + close(ready[1]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_has_a_rate),
        cmocka_unit_test(it_takes_no_more_memory_than_it_may),
        cmocka_unit_test(a_cpu_has_one_or_says_nothing),
        cmocka_unit_test(processor_time_is_read),
        cmocka_unit_test(what_others_had_is_told),
        cmocka_unit_test(beside_others_it_is_not_known),
        cmocka_unit_test(one_measures_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
