/* What /proc and the cgroup say, and what we make of it. */
#include "worker/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define GIB     (1ull << 30)
#define MEMINFO "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n"

static void test_texts(void **state)
{
    static const struct {
        const char *what, *meminfo, *max, *current;
        enum err err;
        uint64_t total, free;
    } rows[] = {
        {"no cgroup", MEMINFO, NULL, NULL, ERR_OK, 16 * GIB, 8 * GIB},
        {"cgroup without limit", MEMINFO, "max\n", "1073741824\n", ERR_OK, 16 * GIB, 8 * GIB},
        {"limit below the machine", MEMINFO, "4294967296\n", "1073741824\n", ERR_OK, 4 * GIB,
         3 * GIB},
        {"limit above what is free", MEMINFO, "17179869184\n", "0\n", ERR_OK, 16 * GIB, 8 * GIB},
        {"over its limit", MEMINFO, "1073741824\n", "2147483648\n", ERR_OK, 1 * GIB, 0},
        {"no MemTotal", "MemAvailable: 1 kB\n", NULL, NULL, ERR_CORRUPT, 0, 0},
        {"no MemAvailable", "MemTotal: 1 kB\n", NULL, NULL, ERR_CORRUPT, 0, 0},
        {"a key inside another word", "xMemTotal: 1 kB\nMemAvailable: 1 kB\n", NULL, NULL,
         ERR_CORRUPT, 0, 0},
        {"a number that cannot be", "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n", NULL,
         NULL, ERR_CORRUPT, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct memory_now now = {0};
        struct errbuf eb = {{0}};
        enum err e = memory_parse(rows[i].meminfo, rows[i].max, rows[i].current, &now, &eb);
        assert_int_equal(e, rows[i].err);
        if (e == ERR_OK) {
            assert_int_equal(now.total_bytes, rows[i].total);
            assert_int_equal(now.free_bytes, rows[i].free);
        } else {
            assert_true(strlen(eb.text) > 0);
        }
    }
}

static void test_this_machine(void **state)
{
    struct memory_now now;
    struct errbuf eb = {{0}};
    (void)state;
    assert_int_equal(memory_read(&now, &eb), ERR_OK);
    assert_true(now.total_bytes >= now.free_bytes);
    assert_true(now.resident_bytes > 0 && now.resident_bytes < now.total_bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
