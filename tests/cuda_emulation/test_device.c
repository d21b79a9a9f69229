#include "tests/cuda_emulation/test_device.h"

#include <stdio.h>

#define KEPT_MAX 64

cudaStream_t device_stream;
static void *kept[KEPT_MAX];
static size_t n_kept;

void *device_new(size_t size)
{
    void *memory;
    assert_true(n_kept < KEPT_MAX);
    assert_cuda(cudaMalloc(&memory, size));
    kept[n_kept++] = memory;
    return memory;
}

void *device_from(const void *host, size_t size)
{
    void *memory = device_new(size);
    assert_cuda(cudaMemcpyAsync(memory, host, size, cudaMemcpyHostToDevice, device_stream));
    return memory;
}

void device_to(void *host, const void *device, size_t size)
{
    assert_cuda(cudaMemcpyAsync(host, device, size, cudaMemcpyDeviceToHost, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
}

int device_setup(void **state)
{
    (void)state;
    emu_inject_clear();
    emu_counters_reset();
    return cudaStreamCreateWithFlags(&device_stream, cudaStreamNonBlocking) != cudaSuccess;
}

int device_teardown(void **state)
{
    (void)state;
    emu_inject_clear();
    int bad = cudaStreamDestroy(device_stream) != cudaSuccess;
    while (n_kept > 0)
        bad |= cudaFree(kept[--n_kept]) != cudaSuccess;
    return bad;
}

int test_under_schedules(const struct CMUnitTest *tests, size_t n)
{
    int failed = 0;
    for (int i = 0; i < EMU_SCHEDULES; i++) {
        struct emu_schedule schedule = emu_schedule_of(i);
        char name[64];
        snprintf(name, sizeof name, "%s, %s %u", emu_is_checked() ? "checked" : "plain",
                 emu_order_name(schedule.order), (unsigned)schedule.seed);
        emu_schedule_set(schedule);
        failed += _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    }
    return failed;
}
