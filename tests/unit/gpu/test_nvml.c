/*
 * What NVML says and what we make of it: each function with each error that it can return, numbers
 * that a device does not have, libraries that are not what they should be.
 *
 *     test_nvml STAND_IN OLD_STAND_IN
 */
#include "tests/unit/gpu/stand_in.h"
#include "worker/gpu/nvml.h"
#include "worker/gpu/nvml_abi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define GIB (1ull << 30)

static const char *library, *old_library;

static struct nvml *device_of(const char *lines, const char *more)
{
    struct nvml_identity id;
    struct nvml *n = NULL;
    struct errbuf eb = {{0}};
    stand_in_write(lines, more);
    if (nvml_open(&n, library, &eb) != ERR_OK || nvml_device_open(n, 0, &id, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return n;
}

static void a_device_says_who_it_is(void **state)
{
    struct nvml_identity id;
    struct nvml *n;
    (void)state;
    stand_in_write(STAND_IN_DEVICE, "");
    assert_int_equal(nvml_open(&n, library, NULL), ERR_OK);
    assert_int_equal(nvml_device_open(n, 1, &id, NULL), ERR_OK);
    assert_string_equal(id.name, "Stand-in GPU");
    assert_string_equal(id.uuid, "GPU-0a1b");
    assert_string_equal(id.pci, "00000000:3B:00.0");
    assert_string_equal(id.driver, "580.65");
    nvml_close(n);
}

/* What it does not tell, or what cannot be, is not known. */
static void its_memory_has_a_rate(void **state)
{
    static const struct {
        const char *lines;
        uint64_t bytes_per_s;
    } rows[] = {
        {"bus 5120\nmemory_clock 2619\n", 3352320000000},
        {"bus 256\nmemory_clock 5001\n", 320064000000},
        {"bus 5120\n", 0},
        {"memory_clock 2619\n", 0},
        {"bus 0\nmemory_clock 2619\n", 0},
        {"bus 5120\nmemory_clock 4294967295\n", 0},
        {"bus 4294967295\nmemory_clock 2619\n", 0},
        {"bus 65536\nmemory_clock 50000\n", 819200000000000},
        {"bus 5120\nmemory_clock 2619\nerror nvmlDeviceGetMemoryBusWidth 3\n", 0},
        {"bus 5120\nmemory_clock 2619\nerror nvmlDeviceGetMaxClockInfo 999\n", 0},
        {"", 0},
    };
    (void)state;
    for (size_t i = 0; i <= sizeof rows / sizeof rows[0]; i++) {
        const bool is_old = i == sizeof rows / sizeof rows[0];
        struct nvml_identity id;
        struct nvml *n;
        stand_in_write("count 1\nname Stand-in GPU\nuuid GPU-0a1b\npci 00000000:3B:00.0\n"
                       "driver 580.65\n",
                       is_old ? rows[0].lines : rows[i].lines);
        assert_int_equal(nvml_open(&n, is_old ? old_library : library, NULL), ERR_OK);
        assert_int_equal(nvml_device_open(n, 0, &id, NULL), ERR_OK);
        assert_true(id.read_bytes_per_s == (is_old ? 0 : rows[i].bytes_per_s));
        nvml_close(n);
    }
}

static void a_reading_is_what_the_device_says(void **state)
{
    struct nvml_reading r;
    (void)state;
    struct nvml *n = device_of(STAND_IN_DEVICE, "");
    assert_int_equal(nvml_device_read(n, &r, NULL), ERR_OK);
    assert_int_equal(r.total_bytes, 79 * GIB); /* without the driver's own */
    assert_int_equal(r.free_bytes, 60 * GIB);
    assert_int_equal(r.known, NVML_KNOWN_PROCESSES | NVML_KNOWN_OWN_BYTES | NVML_KNOWN_UTILIZATION |
                                  NVML_KNOWN_POWER | NVML_KNOWN_ENERGY | NVML_KNOWN_TEMPERATURE |
                                  NVML_KNOWN_ECC);
    assert_int_equal(r.own_bytes, 4 * GIB);
    /* 42 computes and draws: once. 43 is there, but what it holds is not told. */
    assert_int_equal(r.other_processes, 3);
    assert_int_equal(r.other_bytes, 9 * GIB);
    assert_int_equal(r.utilization_percent, 87);
    assert_int_equal(r.power_mw, 412345);
    assert_int_equal(r.energy_mj, 98765432109);
    assert_int_equal(r.temperature_c, 61);
    assert_int_equal(r.ecc_uncorrected, 2);
    assert_false(r.remap_pending || r.remap_failed);
    /* and anew each time */
    stand_in_write("total 10\nfree 3\nremap 1 0\n", "");
    assert_int_equal(nvml_device_read(n, &r, NULL), ERR_OK);
    assert_int_equal(r.total_bytes, 10);
    assert_int_equal(r.free_bytes, 3);
    assert_int_equal(r.known, NVML_KNOWN_PROCESSES);
    assert_true(r.remap_pending);
    nvml_close(n);
}

static void processes_that_do_not_fit_are_asked_for_again(void **state)
{
    char lines[8192] = "total 10\nfree 3\n";
    struct nvml_reading r;
    (void)state;
    size_t used = strlen(lines);
    for (unsigned pid = 1; pid <= 200; pid++)
        used += (size_t)snprintf(lines + used, sizeof lines - used, "process %u 1\n", 100000 + pid);
    struct nvml *n = device_of(STAND_IN_DEVICE, "");
    stand_in_write(lines, "");
    assert_int_equal(nvml_device_read(n, &r, NULL), ERR_OK);
    assert_int_equal(r.other_processes, 200);
    assert_int_equal(r.other_bytes, 200);
    nvml_close(n);
}

/* By pid it is not found where the container counts pids of its own; then it is not known. */
static void what_is_ours_may_not_be_told(void **state)
{
    static const struct {
        const char *line;
        bool known;
    } rows[] = {{"process self 7\n", true}, {"process self ?\n", false}, {"process 1 7\n", false}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nvml_reading r;
        struct nvml *n = device_of(STAND_IN_DEVICE, "");
        stand_in_write("total 10\nfree 3\n", rows[i].line);
        assert_int_equal(nvml_device_read(n, &r, NULL), ERR_OK);
        assert_int_equal((r.known & NVML_KNOWN_OWN_BYTES) != 0, rows[i].known);
        assert_int_equal(r.own_bytes, rows[i].known ? 7 : 0);
        nvml_close(n);
    }
}

/* ---- errors ---- */

static bool is_lost(int code)
{
    return code == NVML_RETURN_GPU_IS_LOST || code == NVML_RETURN_RESET_REQUIRED ||
           code == NVML_RETURN_GPU_NOT_FOUND || code == NVML_RETURN_DRIVER_NOT_LOADED ||
           code == NVML_RETURN_UNINITIALIZED;
}

static const int codes[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                            17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 999};
#define CODES (sizeof codes / sizeof codes[0])

static const char *planned(const char *function, int code)
{
    static char line[128];
    (void)snprintf(line, sizeof line, "error %s %d\n", function, code);
    return line;
}

static void an_error_while_opening_names_its_function(void **state)
{
    static const char *const functions[] = {"nvmlInit_v2",
                                            "nvmlDeviceGetCount_v2",
                                            "nvmlDeviceGetHandleByIndex_v2",
                                            "nvmlDeviceGetName",
                                            "nvmlDeviceGetUUID",
                                            "nvmlDeviceGetPciInfo_v3",
                                            "nvmlSystemGetDriverVersion"};
    (void)state;
    for (size_t f = 0; f < sizeof functions / sizeof functions[0]; f++) {
        for (size_t i = 0; i < CODES; i++) {
            struct nvml_identity id = {.name = "untouched"};
            struct nvml *n = NULL;
            struct errbuf eb = {{0}};
            char number[32];
            stand_in_write(STAND_IN_DEVICE, planned(functions[f], codes[i]));
            enum err e = nvml_open(&n, library, &eb);
            if (f == 0) {
                assert_int_equal(e, ERR_UNAVAILABLE);
                assert_null(n);
            } else {
                assert_int_equal(e, ERR_OK);
                e = nvml_device_open(n, 0, &id, &eb);
                assert_int_equal(e, is_lost(codes[i]) ? ERR_LOST : ERR_IO);
            }
            (void)snprintf(number, sizeof number, "(NVML error %d)", codes[i]);
            assert_non_null(strstr(eb.text, functions[f]));
            assert_non_null(strstr(eb.text, number));
            assert_string_equal(id.name, "untouched");
            nvml_close(n);
        }
    }
}

static void memory_is_what_a_reading_cannot_do_without(void **state)
{
    struct nvml *n = device_of(STAND_IN_DEVICE, "");
    (void)state;
    for (size_t i = 0; i < CODES; i++) {
        struct nvml_reading r = {.free_bytes = 77};
        struct errbuf eb = {{0}};
        stand_in_write(STAND_IN_DEVICE, planned("nvmlDeviceGetMemoryInfo_v2", codes[i]));
        assert_int_equal(nvml_device_read(n, &r, &eb), is_lost(codes[i]) ? ERR_LOST : ERR_IO);
        assert_int_equal(r.free_bytes, 77);
        assert_non_null(strstr(eb.text, "nvmlDeviceGetMemoryInfo_v2"));
    }
    nvml_close(n);
}

static void other_numbers_are_unknown_unless_the_device_is_lost(void **state)
{
    static const struct {
        const char *function;
        uint32_t bit;
    } rows[] = {{"nvmlDeviceGetUtilizationRates", NVML_KNOWN_UTILIZATION},
                {"nvmlDeviceGetPowerUsage", NVML_KNOWN_POWER},
                {"nvmlDeviceGetTotalEnergyConsumption", NVML_KNOWN_ENERGY},
                {"nvmlDeviceGetTemperature", NVML_KNOWN_TEMPERATURE},
                {"nvmlDeviceGetTotalEccErrors", NVML_KNOWN_ECC},
                {"nvmlDeviceGetComputeRunningProcesses_v3", NVML_KNOWN_OWN_BYTES},
                {"nvmlDeviceGetGraphicsRunningProcesses_v3", 0},
                {"nvmlDeviceGetRemappedRows", 0}};
    struct nvml_reading whole;
    struct nvml *n = device_of(STAND_IN_DEVICE, "");
    (void)state;
    assert_int_equal(nvml_device_read(n, &whole, NULL), ERR_OK);
    for (size_t f = 0; f < sizeof rows / sizeof rows[0]; f++) {
        for (size_t i = 0; i < CODES; i++) {
            struct nvml_reading r;
            stand_in_write(STAND_IN_DEVICE, planned(rows[f].function, codes[i]));
            enum err e = nvml_device_read(n, &r, NULL);
            assert_int_equal(e, is_lost(codes[i]) ? ERR_LOST : ERR_OK);
            if (e == ERR_OK)
                assert_int_equal(r.known, whole.known & ~rows[f].bit);
        }
    }
    nvml_close(n);
}

static void waiting_tells_of_errors_of_the_device(void **state)
{
    uint64_t xid = 1;
    struct nvml *n = device_of(STAND_IN_DEVICE, "");
    (void)state;
    assert_int_equal(nvml_device_wait(n, 20, &xid, NULL), ERR_OK);
    assert_int_equal(xid, 0);
    stand_in_write(STAND_IN_DEVICE, "xid 94\n");
    assert_int_equal(nvml_device_wait(n, 20, &xid, NULL), ERR_OK);
    assert_int_equal(xid, 94);
    assert_int_equal(nvml_device_wait(n, 20, &xid, NULL), ERR_OK); /* once */
    assert_int_equal(xid, 0);
    for (size_t i = 0; i < CODES; i++) {
        stand_in_write(STAND_IN_DEVICE, planned("nvmlEventSetWait_v2", codes[i]));
        enum err want = codes[i] == NVML_RETURN_TIMEOUT ? ERR_OK
                        : is_lost(codes[i])             ? ERR_LOST
                                                        : ERR_IO;
        assert_int_equal(nvml_device_wait(n, 1, &xid, NULL), want);
        assert_int_equal(xid, 0);
    }
    nvml_close(n);
}

/* Without events there is no event, and waiting still waits. */
static void a_device_may_have_no_events(void **state)
{
    static const char *const functions[] = {"nvmlEventSetCreate", "nvmlDeviceRegisterEvents"};
    (void)state;
    for (size_t f = 0; f < 2; f++) {
        uint64_t xid = 1;
        struct nvml *n =
            device_of(STAND_IN_DEVICE, planned(functions[f], NVML_RETURN_NOT_SUPPORTED));
        stand_in_write(STAND_IN_DEVICE, "xid 95\n");
        assert_int_equal(nvml_device_wait(n, 1, &xid, NULL), ERR_OK);
        assert_int_equal(xid, 0);
        nvml_close(n);
    }
}

static void a_device_that_cannot_be_used_is_refused(void **state)
{
    static const struct {
        const char *lines;
        uint32_t index;
        enum err err;
        const char *part;
    } rows[] = {
        {STAND_IN_DEVICE, 2, ERR_NOT_FOUND, "there is no GPU 2: NVML knows 2"},
        {"count 0\n", 0, ERR_NOT_FOUND, "NVML knows 0"},
        {"count 1\nname a\nuuid b\npci c\ndriver d\nmig 1\n", 0, ERR_UNSUPPORTED, "MIG"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct nvml_identity id;
        struct nvml *n;
        struct errbuf eb = {{0}};
        stand_in_write(rows[i].lines, "");
        assert_int_equal(nvml_open(&n, library, NULL), ERR_OK);
        assert_int_equal(nvml_device_open(n, rows[i].index, &id, &eb), rows[i].err);
        assert_non_null(strstr(eb.text, rows[i].part));
        nvml_close(n);
    }
}

static void a_library_that_is_not_nvml_is_refused(void **state)
{
    struct nvml *n = NULL;
    struct errbuf eb = {{0}};
    (void)state;
    assert_int_equal(nvml_open(&n, "libcloister-has-no-such-library.so.1", &eb), ERR_UNAVAILABLE);
    assert_non_null(strstr(eb.text, "libcloister-has-no-such-library.so.1"));
    assert_int_equal(nvml_open(&n, "libm.so.6", &eb), ERR_UNSUPPORTED);
    assert_non_null(strstr(eb.text, "libm.so.6 has no nvml"));
    assert_null(n);
}

/* An old driver lacks functions: the memory is known, the rest is not. */
static void an_old_driver_is_enough_for_memory(void **state)
{
    struct nvml_identity id;
    struct nvml_reading r;
    struct nvml *n;
    uint64_t xid;
    (void)state;
    stand_in_write(STAND_IN_DEVICE, "");
    assert_int_equal(nvml_open(&n, old_library, NULL), ERR_OK);
    assert_int_equal(nvml_device_open(n, 0, &id, NULL), ERR_OK);
    assert_int_equal(nvml_device_read(n, &r, NULL), ERR_OK);
    assert_int_equal(r.free_bytes, 60 * GIB);
    assert_int_equal(r.known, 0);
    assert_int_equal(nvml_device_wait(n, 1, &xid, NULL), ERR_OK);
    nvml_close(n);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_says_who_it_is),
        cmocka_unit_test(its_memory_has_a_rate),
        cmocka_unit_test(a_reading_is_what_the_device_says),
        cmocka_unit_test(processes_that_do_not_fit_are_asked_for_again),
        cmocka_unit_test(what_is_ours_may_not_be_told),
        cmocka_unit_test(an_error_while_opening_names_its_function),
        cmocka_unit_test(memory_is_what_a_reading_cannot_do_without),
        cmocka_unit_test(other_numbers_are_unknown_unless_the_device_is_lost),
        cmocka_unit_test(waiting_tells_of_errors_of_the_device),
        cmocka_unit_test(a_device_may_have_no_events),
        cmocka_unit_test(a_device_that_cannot_be_used_is_refused),
        cmocka_unit_test(a_library_that_is_not_nvml_is_refused),
        cmocka_unit_test(an_old_driver_is_enough_for_memory),
    };
    if (argc != 3) {
        fprintf(stderr, "test_nvml STAND_IN OLD_STAND_IN\n");
        return 2;
    }
    library = argv[1];
    old_library = argv[2];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
