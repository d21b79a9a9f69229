/*
 * A GPU that is read all the time: numbers that change, errors that pass, a device that is lost, a
 * driver that hangs.
 *
 *     test_gpu_watch STAND_IN
 */
#include "common/clock.h"
#include "tests/unit/gpu/stand_in.h"
#include "worker/gpu/gpu_watch.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 60000u

static const char *library;

static struct gpu_watch *watch_of(const char *more)
{
    struct gpu_watch *w = NULL;
    struct errbuf eb = {{0}};
    stand_in_write(STAND_IN_DEVICE, more);
    if (gpu_watch_start(&w, library, 0, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return w;
}

typedef bool until_fn(const struct gpu_now *now);

static void wait_until(struct gpu_watch *w, until_fn *holds, struct gpu_now *ret_now)
{
    uint64_t end_ms = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        struct timespec t = {.tv_nsec = 5000000L};
        gpu_watch_read(w, ret_now);
        if (holds(ret_now))
            return;
        if (clock_mono_ms() > end_ms)
            fail_msg("waited too long; trouble: %s", ret_now->trouble);
        (void)nanosleep(&t, NULL);
    }
}

static bool has_three_free(const struct gpu_now *now)
{
    return now->reading.free_bytes == 3;
}

static bool has_trouble(const struct gpu_now *now)
{
    return now->trouble[0] != '\0';
}

static bool has_none(const struct gpu_now *now)
{
    return now->trouble[0] == '\0';
}

static bool is_lost(const struct gpu_now *now)
{
    return now->lost;
}

static void numbers_are_there_from_the_start_and_follow(void **state)
{
    struct gpu_now now;
    (void)state;
    struct gpu_watch *w = watch_of("");
    assert_string_equal(gpu_watch_identity(w)->uuid, "GPU-0a1b");
    gpu_watch_read(w, &now);
    assert_int_equal(now.reading.free_bytes, 60ull << 30);
    assert_string_equal(now.trouble, "");
    stand_in_write("total 10\nfree 3\n", "");
    wait_until(w, has_three_free, &now);
    assert_int_equal(now.reading.total_bytes, 10);
    gpu_watch_stop(w);
}

static void an_error_that_passes_is_said_beside_the_last_numbers(void **state)
{
    struct gpu_now now;
    (void)state;
    struct gpu_watch *w = watch_of("");
    stand_in_write(STAND_IN_DEVICE, "error nvmlDeviceGetMemoryInfo_v2 999\n");
    wait_until(w, has_trouble, &now);
    assert_non_null(strstr(now.trouble, "nvmlDeviceGetMemoryInfo_v2"));
    assert_int_equal(now.reading.free_bytes, 60ull << 30);
    assert_false(now.lost);
    stand_in_write(STAND_IN_DEVICE, "");
    wait_until(w, has_none, &now);
    gpu_watch_stop(w);
}

static void health_is_said_in_words(void **state)
{
    static const struct {
        const char *line, *part;
    } rows[] = {{"remap 1 0\n", "needs a reset"},
                {"remap 1 1\n", "should be replaced"},
                {"xid 94\n", "its last error was Xid 94"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gpu_now now;
        struct gpu_watch *w = watch_of("");
        /* what stands first in the file counts */
        char lines[64];
        (void)snprintf(lines, sizeof lines, "%s", rows[i].line);
        stand_in_write(lines, STAND_IN_DEVICE);
        wait_until(w, has_trouble, &now);
        if (strstr(now.trouble, rows[i].part) == NULL)
            fail_msg("%s", now.trouble);
        assert_false(now.lost);
        gpu_watch_stop(w);
    }
}

static void a_lost_device_wakes_its_owner(void **state)
{
    static const struct {
        const char *line, *part;
    } rows[] = {{"error nvmlDeviceGetMemoryInfo_v2 15\n", "GPU is lost (NVML error 15)"},
                {"error nvmlDeviceGetPowerUsage 16\n", "NVML error 16"},
                {"error nvmlEventSetWait_v2 15\n", "nvmlEventSetWait_v2"},
                {"xid 79\n", "fallen off the bus (Xid 79)"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gpu_now now;
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        assert_true(fd >= 0);
        struct gpu_watch *w = watch_of("");
        gpu_watch_wake(w, fd);
        stand_in_write(STAND_IN_DEVICE, rows[i].line);
        assert_int_equal(poll(&poll_fd, 1, (int)PATIENCE_MS), 1);
        wait_until(w, is_lost, &now);
        if (strstr(now.trouble, rows[i].part) == NULL)
            fail_msg("%s", now.trouble);
        /* and stays so */
        stand_in_write(STAND_IN_DEVICE, "");
        gpu_watch_read(w, &now);
        assert_true(now.lost);
        gpu_watch_stop(w);
        close(fd);
    }
}

static void what_cannot_be_read_once_is_not_watched(void **state)
{
    static const struct {
        const char *line;
        enum err err;
    } rows[] = {{"error nvmlInit_v2 9\n", ERR_UNAVAILABLE},
                {"error nvmlDeviceGetName 15\n", ERR_LOST},
                {"error nvmlDeviceGetMemoryInfo_v2 15\n", ERR_LOST},
                {"error nvmlDeviceGetMemoryInfo_v2 999\n", ERR_IO}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gpu_watch *w = NULL;
        struct errbuf eb = {{0}};
        stand_in_write(STAND_IN_DEVICE, rows[i].line);
        assert_int_equal(gpu_watch_start(&w, library, 0, &eb), rows[i].err);
        assert_null(w);
        assert_int_not_equal(eb.text[0], 0);
    }
}

/* A driver that hangs holds its own thread up: reading and stopping go on. */
static void a_driver_that_hangs_holds_nobody_up(void **state)
{
    struct gpu_now now;
    (void)state;
    struct gpu_watch *w = watch_of("");
    stand_in_write(STAND_IN_DEVICE, "hang nvmlDeviceGetMemoryInfo_v2 8000\n");
    struct timespec t = {.tv_sec = 1};
    (void)nanosleep(&t, NULL);
    uint64_t begin_ms = clock_mono_ms();
    gpu_watch_read(w, &now);
    assert_true(clock_mono_ms() - begin_ms < 1000);
    assert_int_equal(now.reading.free_bytes, 60ull << 30);
    gpu_watch_stop(w);
    assert_true(clock_mono_ms() - begin_ms < 6000);
    /* its thread ends by itself once the driver answers, and frees what it has */
    t.tv_sec = 8;
    (void)nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_there_from_the_start_and_follow),
        cmocka_unit_test(an_error_that_passes_is_said_beside_the_last_numbers),
        cmocka_unit_test(health_is_said_in_words),
        cmocka_unit_test(a_lost_device_wakes_its_owner),
        cmocka_unit_test(what_cannot_be_read_once_is_not_watched),
        cmocka_unit_test(a_driver_that_hangs_holds_nobody_up),
    };
    if (argc != 2) {
        fprintf(stderr, "test_gpu_watch STAND_IN\n");
        return 2;
    }
    library = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
