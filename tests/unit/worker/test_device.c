/* What a worker computes on: how it is written, and what this build and machine have of it. */
#include "worker/device.h"
#include "worker/kernels/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void names(void **state)
{
    static const struct {
        const char *text;
        enum err err;
        bool is_cuda;
        uint32_t index;
    } rows[] = {
        {"cpu", ERR_OK, false, 0},
        {"cuda:0", ERR_OK, true, 0},
        {"cuda:7", ERR_OK, true, 7},
        {"cuda:255", ERR_OK, true, 255},
        {"cuda:256", ERR_INVALID, false, 0},
        {"cuda:", ERR_INVALID, false, 0},
        {"cuda", ERR_INVALID, false, 0},
        {"cuda:-1", ERR_INVALID, false, 0},
        {"cuda:+1", ERR_INVALID, false, 0},
        {"cuda: 1", ERR_INVALID, false, 0},
        {"cuda:1 ", ERR_INVALID, false, 0},
        {"cuda:1,2", ERR_INVALID, false, 0},
        {"cuda:4294967296", ERR_INVALID, false, 0},
        {"CPU", ERR_INVALID, false, 0},
        {"", ERR_INVALID, false, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct device_id id = {.index = 99};
        struct errbuf eb = {{0}};
        if (device_id_parse(rows[i].text, &id, &eb) != rows[i].err)
            fail_msg("%s: %s", rows[i].text, eb.text);
        if (rows[i].err == ERR_OK) {
            assert_int_equal(id.is_cuda, rows[i].is_cuda);
            assert_int_equal(id.index, rows[i].index);
        } else {
            assert_int_equal(id.index, 99);
            assert_non_null(strstr(eb.text, "cuda:N"));
        }
    }
}

static void a_cpu_is_always_there(void **state)
{
    const struct device_id id = {0};
    struct device *d = NULL;
    struct device_now now;
    (void)state;
    assert_int_equal(device_open(&d, &id, NULL), ERR_OK);
    assert_string_equal(device_name(d), "cpu");
    assert_null(device_gpu(d));
    assert_int_equal(device_read(d, 5, &now, NULL), ERR_OK);
    assert_false(now.has_gpu);
    assert_true(now.total_bytes >= now.free_bytes && now.total_bytes > 0);
    assert_true(now.used_bytes > 5); /* of this process, whatever models hold */
    device_close(d);
}

static void of_a_gpu_some_is_kept(void **state)
{
    const uint64_t gib = (uint64_t)1 << 30;
    (void)state;
    assert_true(device_kept_bytes(80 * gib) == gib);
    assert_true(device_kept_bytes(8 * gib) == gib);
    assert_true(device_kept_bytes(4 * gib) == gib / 2);
    assert_true(device_kept_bytes(0) == 0);
}

static void what_this_build_lacks_is_said(void **state)
{
    const struct device_id id = {.is_cuda = true, .index = 3};
    struct device *d = NULL;
    struct errbuf eb = {{0}};
    (void)state;
    if (backend_cuda_buffer_bytes(1) > 0)
        skip(); /* it lacks nothing */
    assert_int_equal(device_open(&d, &id, &eb), ERR_UNSUPPORTED);
    assert_null(d);
    assert_string_equal(eb.text, "device cuda:3: this build has no CUDA backend");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(a_cpu_is_always_there),
        cmocka_unit_test(of_a_gpu_some_is_kept),
        cmocka_unit_test(what_this_build_lacks_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
