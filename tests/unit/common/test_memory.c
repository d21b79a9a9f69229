/* What /proc and cgroups say, and what we make of it. */
#include "common/memory.h"
#include "tests/unit/common/fake_groups.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define GIB     (1ull << 30)
#define MEMINFO "MemTotal:       16777216 kB\nMemFree:  1 kB\nMemAvailable:    8388608 kB\n"

static void test_meminfo(void **state)
{
    static const struct {
        const char *what, *meminfo;
        enum err err;
    } rows[] = {
        {"all", MEMINFO, ERR_OK},
        {"no MemTotal", "MemAvailable: 1 kB\n", ERR_CORRUPT},
        {"no MemAvailable", "MemTotal: 1 kB\n", ERR_CORRUPT},
        {"a key inside another word", "xMemTotal: 1 kB\nMemAvailable: 1 kB\n", ERR_CORRUPT},
        {"and behind that", "xMemTotal: 1 kB\n" MEMINFO, ERR_OK},
        {"a number that cannot be", "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n",
         ERR_CORRUPT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct memory_now now = {0};
        struct errbuf eb = {{0}};
        if (memory_parse(rows[i].meminfo, &now, &eb) != rows[i].err)
            fail_msg("%s: %s", rows[i].what, eb.text);
        if (rows[i].err == ERR_OK)
            assert_true(now.total_bytes == 16 * GIB && now.free_bytes == 8 * GIB);
        else
            assert_true(strlen(eb.text) > 0);
    }
}

static void test_limits(void **state)
{
    static const struct {
        const char *what, *max, *current, *stat;
        uint64_t total, free;
    } rows[] = {
        {"no cgroup", NULL, NULL, NULL, 16 * GIB, 8 * GIB},
        {"no limit", "max\n", "1073741824\n", NULL, 16 * GIB, 8 * GIB},
        {"below the machine", "4294967296\n", "1073741824\n", NULL, 4 * GIB, 3 * GIB},
        {"above what is free", "17179869184\n", "0\n", NULL, 16 * GIB, 8 * GIB},
        {"over its limit", "1073741824\n", "2147483648\n", NULL, GIB, 0},
        {"how much it has is not said", "4294967296\n", NULL, NULL, 4 * GIB, 8 * GIB},
        {"full of files", "4294967296\n", "4294967296\n",
         "anon 1073741824\nfile 3221225472\ninactive_anon 5\ninactive_file 2147483648\n"
         "active_file 1073741824\n",
         4 * GIB, 2 * GIB},
        {"more files than it has", "4294967296\n", "1073741824\n",
         "inactive_file 18446744073709551615\n", 4 * GIB, 4 * GIB},
        {"a key inside another word", "4294967296\n", "1073741824\n",
         "x_inactive_file 1073741824\n", 4 * GIB, 3 * GIB},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct memory_now now;
        assert_int_equal(memory_parse(MEMINFO, &now, NULL), ERR_OK);
        memory_limit(&now, rows[i].max, rows[i].current, rows[i].stat);
        if (now.total_bytes != rows[i].total || now.free_bytes != rows[i].free)
            fail_msg("%s: %llu of %llu", rows[i].what, (unsigned long long)now.free_bytes,
                     (unsigned long long)now.total_bytes);
    }
}

static void test_groups(void **state)
{
    static const struct {
        const char *text, *path; /* NULL: none */
    } rows[] = {
        {"0::/\n", ""},
        {"0::/system.slice/w.service\n", "/system.slice/w.service"},
        {"0::/a/b", "/a/b"},
        {"9:memory:/x\n10::/y\n0::/z\n", "/z"},
        {"9:memory:/x\n", NULL},
        {"9:name=0::/x\n", NULL},
        {"0::a\n", NULL},
        {"0::/a-path-that-does-not-fit-here-by-far\n", NULL},
        {"", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[32] = "";
        if (memory_group(rows[i].text, path, sizeof path) != (rows[i].path != NULL) ||
            strcmp(path, rows[i].path != NULL ? rows[i].path : "") != 0)
            fail_msg("%s: %s", rows[i].text, path);
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

static int has_64_mib(void)
{
    struct memory_now now;
    return memory_read(&now, NULL) == ERR_OK && now.total_bytes == 64 << 20 &&
           now.free_bytes == (16 << 20) + 4096;
}

/* Where this user may mount. */
static void test_all_groups_that_it_is_in_count(void **state)
{
    const int said = fake_groups_run(64 << 20, 48 << 20, 4096, has_64_mib);
    (void)state;
    if (said < 0)
        skip();
    assert_int_equal(said, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meminfo),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_this_machine),
        cmocka_unit_test(test_all_groups_that_it_is_in_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
