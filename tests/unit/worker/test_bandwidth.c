/* How fast a device reads memory: that there is a number which can be, where there should be one.
 * How large it is, is the machine's. */
#include "worker/bandwidth.h"
#include "worker/kernels/pool.h"
#include "worker/kernels/read_rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

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
                                  measured = {.is_measured = true};
    struct device *d = NULL;
    (void)state;
    assert_int_equal(device_open(&d, &id, NULL), ERR_OK);
    assert_int_equal(bandwidth_read(&off, d, 2), 0);
    assert_int_equal(bandwidth_read(&said, d, 2), 20500000000);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_has_a_rate),
        cmocka_unit_test(it_takes_no_more_memory_than_it_may),
        cmocka_unit_test(a_cpu_has_one_or_says_nothing),
        cmocka_unit_test(processor_time_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
