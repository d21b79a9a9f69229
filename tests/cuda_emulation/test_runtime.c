/*
 * The runtime API of the emulation as host code meets it: memory that runs out, streams that run
 * late, events, graphs, errors that come when they come on a device.
 */
#include "tests/cuda_emulation/emulation.h"
#include "tests/cuda_emulation/kernels.h"
#include "tests/cuda_emulation/planted.h"
#include "tests/cuda_emulation/test_device.h"

#include <stdlib.h>
#include <string.h>

#define assert_cuda_is(call, error) assert_string_equal(cudaGetErrorName(call), #error)

enum { WORDS = 64 };

static bool is_late(void)
{
    return emu_schedule_get().order == EMU_ORDER_FORWARD;
}

static bool is_at_once(void)
{
    return emu_schedule_get().order == EMU_ORDER_REVERSE;
}

static int *pinned_new(void)
{
    int *memory;
    assert_cuda(cudaMallocHost((void **)&memory, WORDS * sizeof *memory));
    return memory;
}

/* --- Devices and memory --- */

static void test_devices(void **state)
{
    (void)state;
    const struct emu_device before = emu_device_get();
    struct emu_device two = before;
    struct cudaDeviceProp prop;
    int count, value;
    two.count = 2;
    emu_device_set(&two);
    assert_cuda(cudaGetDeviceCount(&count));
    assert_int_equal(count, 2);
    assert_cuda(cudaSetDevice(1));
    assert_cuda(cudaGetDevice(&value));
    assert_int_equal(value, 1);
    assert_cuda_is(cudaSetDevice(2), cudaErrorInvalidDevice);
    assert_cuda(cudaSetDevice(0));
    assert_cuda(cudaGetDeviceProperties(&prop, 1));
    assert_int_equal(prop.major, 9);
    assert_int_equal(prop.warpSize, 32);
    assert_cuda(cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
    assert_int_equal(value, 232448);
    two.count = 0;
    emu_device_set(&two);
    assert_cuda_is(cudaGetDeviceCount(&count), cudaErrorNoDevice);
    assert_int_equal(count, 0);
    emu_device_set(&before);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    const struct emu_device before = emu_device_get();
    struct emu_device small = before;
    size_t free, total;
    void *a, *b;
    small.memory_bytes = 1 << 20;
    emu_device_set(&small);
    assert_cuda(cudaMemGetInfo(&free, &total));
    assert_int_equal(total, 1 << 20);
    assert_int_equal(free, 1 << 20);
    assert_cuda(cudaMalloc(&a, 600 << 10));
    assert_int_equal(emu_memory_used(), 600 << 10);
    assert_cuda_is(cudaMalloc(&b, 600 << 10), cudaErrorMemoryAllocation);
    assert_null(b);
    /* Not sticky: taken once. */
    assert_cuda_is(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_cuda(cudaGetLastError());
    assert_cuda(cudaFree(a));
    assert_cuda(cudaMalloc(&b, 600 << 10));
    assert_cuda(cudaFree(b));
    assert_cuda_is(cudaFree(b), cudaErrorInvalidValue);
    assert_cuda(cudaFree(NULL));
    assert_int_equal(emu_memory_used(), 0);
    emu_device_set(&before);
}

static void test_copies_are_checked(void **state)
{
    (void)state;
    int host[WORDS] = {0};
    int *a = device_new(sizeof host);
    int *b = device_new(sizeof host);
    assert_cuda(cudaMemcpy(a, host, sizeof host, cudaMemcpyHostToDevice));
    assert_cuda(cudaMemcpy(b, a, sizeof host, cudaMemcpyDeviceToDevice));
    assert_cuda(cudaMemcpy(host, b, sizeof host, cudaMemcpyDefault));
    assert_cuda(cudaMemcpy(NULL, NULL, 0, cudaMemcpyDefault));
    assert_cuda_is(cudaMemcpy(a, host, sizeof host + 1, cudaMemcpyHostToDevice),
                   cudaErrorInvalidValue);
    assert_cuda_is(cudaMemcpy(a + 1, b, sizeof host, cudaMemcpyDeviceToDevice),
                   cudaErrorInvalidValue);
    assert_cuda_is(cudaMemcpy(host, host, 4, cudaMemcpyHostToDevice), cudaErrorInvalidValue);
    assert_cuda_is(cudaMemset(host, 0, 4), cudaErrorInvalidValue);
    assert_cuda_is(cudaMemset(a, 0, sizeof host + 1), cudaErrorInvalidValue);
}

/* --- Streams run late --- */

/* A copy to pinned memory is there after the wait, and until then what the destination holds is
 * neither the old nor, if the work is late, the new. */
static void test_copy_to_host_is_late(void **state)
{
    (void)state;
    int *pinned = pinned_new();
    int *device = device_new(WORDS * sizeof(int));
    assert_cuda(cudaMemsetAsync(device, 5, WORDS * sizeof(int), device_stream));
    memset(pinned, 9, WORDS * sizeof(int));
    assert_cuda(cudaMemcpyAsync(pinned, device, WORDS * sizeof(int), cudaMemcpyDeviceToHost,
                                device_stream));
    assert_int_not_equal(pinned[3], 0x09090909);
    if (is_late())
        assert_int_not_equal(pinned[3], 0x05050505);
    if (is_at_once())
        assert_int_equal(pinned[3], 0x05050505);
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_int_equal(pinned[3], 0x05050505);
    assert_cuda(cudaFreeHost(pinned));
}

/* cudaMemcpy goes by the legacy stream, which does not wait for a non-blocking one. */
static void test_memcpy_does_not_wait(void **state)
{
    (void)state;
    int host[WORDS];
    int *device = device_new(sizeof host);
    assert_cuda(cudaMemset(device, 1, sizeof host));
    assert_cuda(cudaDeviceSynchronize());
    assert_cuda(cudaMemsetAsync(device, 2, sizeof host, device_stream));
    assert_cuda(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    if (is_late())
        assert_int_equal(host[0], 0x01010101);
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_cuda(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    assert_int_equal(host[0], 0x02020202);
}

static void test_blocking_stream_waits(void **state)
{
    (void)state;
    int host[WORDS];
    cudaStream_t blocking;
    int *device = device_new(sizeof host);
    assert_cuda(cudaStreamCreate(&blocking));
    assert_cuda(cudaMemsetAsync(device, 2, sizeof host, blocking));
    assert_cuda(cudaMemcpy(host, device, sizeof host, cudaMemcpyDeviceToHost));
    assert_int_equal(host[0], 0x02020202);
    assert_cuda(cudaStreamDestroy(blocking));
}

/* Two streams, ordered by an event and by nothing else. */
static void test_events_order_streams(void **state)
{
    (void)state;
    cudaStream_t other;
    cudaEvent_t done;
    int host[WORDS];
    int *a = device_new(sizeof host);
    int *b = device_new(sizeof host);
    assert_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    assert_cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
    for (int with_event = 0; with_event < 2; with_event++) {
        assert_cuda(cudaMemsetAsync(a, 1, sizeof host, other));
        assert_cuda(cudaStreamSynchronize(other));
        assert_cuda(cudaMemsetAsync(a, 7, sizeof host, device_stream));
        assert_cuda(cudaEventRecord(done, device_stream));
        if (with_event)
            assert_cuda(cudaStreamWaitEvent(other, done, 0));
        assert_cuda(cudaMemcpyAsync(b, a, sizeof host, cudaMemcpyDeviceToDevice, other));
        assert_cuda(cudaStreamSynchronize(other));
        assert_cuda(cudaMemcpy(host, b, sizeof host, cudaMemcpyDeviceToHost));
        if (with_event)
            assert_int_equal(host[0], 0x07070707);
        else if (is_late())
            assert_int_equal(host[0], 0x01010101);
        assert_cuda(cudaStreamSynchronize(device_stream));
    }
    assert_cuda(cudaEventDestroy(done));
    assert_cuda(cudaStreamDestroy(other));
}

/* An event never recorded has happened; one that is polled does. */
static void test_event_query(void **state)
{
    (void)state;
    cudaEvent_t start, end;
    float ms = -1;
    int *device = device_new(WORDS * sizeof(int));
    assert_cuda(cudaEventCreate(&start));
    assert_cuda(cudaEventCreate(&end));
    assert_cuda(cudaEventQuery(start));
    assert_cuda(cudaEventRecord(start, device_stream));
    assert_cuda(cudaMemsetAsync(device, 0, WORDS * sizeof(int), device_stream));
    assert_cuda(cudaEventRecord(end, device_stream));
    if (is_late()) {
        assert_cuda_is(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
        assert_cuda_is(cudaEventQuery(end), cudaErrorNotReady);
    }
    int polls = 0;
    while (cudaEventQuery(end) == cudaErrorNotReady)
        assert_true(++polls < 100);
    assert_cuda(cudaEventSynchronize(end));
    assert_cuda(cudaEventElapsedTime(&ms, start, end));
    assert_true(ms >= 0);
    assert_cuda(cudaEventDestroy(start));
    assert_cuda(cudaEventDestroy(end));
    assert_cuda_is(cudaEventDestroy(end), cudaErrorInvalidResourceHandle);
}

static void add_one(void *word)
{
    ++*(int *)word;
}

static void test_host_function(void **state)
{
    (void)state;
    int count = 0;
    assert_cuda(cudaLaunchHostFunc(device_stream, add_one, &count));
    if (is_late())
        assert_int_equal(count, 0);
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_int_equal(count, 1);
}

/* What others do on a stream: three turns, of which the first finds what was queued before, and
 * what is queued behind waits for the last. */
struct outside {
    int turns;
    int *word; /* on the device */
    int seen;
};

static bool outside_turn(void *arg)
{
    struct outside *o = arg;
    if (o->turns++ == 0)
        o->seen = *o->word;
    *o->word = 7 * o->turns;
    return o->turns == 3;
}

static void test_work_of_others(void **state)
{
    (void)state;
    struct outside o = {.word = device_new(WORDS * sizeof(int))};
    int *out = pinned_new();
    int count = 0;
    assert_cuda(cudaMemsetAsync(o.word, 1, WORDS * sizeof(int), device_stream));
    emu_stream_outside(device_stream, outside_turn, &o);
    if (is_at_once()) /* and who queues does not wait for others */
        assert_int_equal(o.turns, 1);
    assert_cuda(cudaMemcpyAsync(out, o.word, sizeof *out, cudaMemcpyDeviceToHost, device_stream));
    assert_cuda(cudaLaunchHostFunc(device_stream, add_one, &count));
    if (is_late())
        assert_int_equal(o.turns, 0);
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_int_equal(o.turns, 3);
    assert_int_equal(o.seen, 0x01010101);
    assert_int_equal(*out, 21);
    assert_int_equal(count, 1);
    assert_cuda(cudaFreeHost(out));
}

/* --- Graphs --- */

/* in -> device -> sum -> out, all of it captured and run twice with other input. */
static void test_graph(void **state)
{
    (void)state;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    size_t nodes;
    int *in = pinned_new();
    int *out = pinned_new();
    int *d_in = device_new(WORDS * sizeof(int));
    int *d_out = device_new(sizeof(int));
    struct emu_counters c;

    assert_cuda(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeThreadLocal));
    assert_cuda(
        cudaMemcpyAsync(d_in, in, WORDS * sizeof(int), cudaMemcpyHostToDevice, device_stream));
    assert_launched(launch_sum(d_in, d_out, 1, WORDS, device_stream));
    assert_cuda(cudaMemcpyAsync(out, d_out, sizeof(int), cudaMemcpyDeviceToHost, device_stream));
    assert_cuda(cudaStreamEndCapture(device_stream, &graph));
    assert_false(emu_counters_get("sum_kernel", &c)); /* captured is not run */
    assert_cuda(cudaGraphGetNodes(graph, NULL, &nodes));
    assert_int_equal(nodes, 3);
    assert_cuda(cudaGraphInstantiate(&exec, graph, 0));
    assert_cuda(cudaGraphDestroy(graph));
    for (int run = 1; run <= 2; run++) {
        for (int i = 0; i < WORDS; i++)
            in[i] = run * i;
        assert_cuda(cudaGraphLaunch(exec, device_stream));
        assert_cuda(cudaStreamSynchronize(device_stream));
        assert_int_equal(out[0], run * WORDS * (WORDS - 1) / 2);
    }
    assert_cuda(cudaGraphExecDestroy(exec));
    assert_cuda_is(cudaGraphLaunch(exec, device_stream), cudaErrorInvalidValue);
    assert_cuda(cudaFreeHost(in));
    assert_cuda(cudaFreeHost(out));
}

/* What would wait has no place in a capture, and spoils it. */
static void test_capture_forbids_waiting(void **state)
{
    (void)state;
    cudaGraph_t graph;
    enum cudaStreamCaptureStatus status;
    void *memory;
    assert_cuda(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeGlobal));
    assert_cuda(cudaStreamIsCapturing(device_stream, &status));
    assert_int_equal(status, cudaStreamCaptureStatusActive);
    assert_cuda_is(cudaStreamSynchronize(device_stream), cudaErrorStreamCaptureUnsupported);
    assert_cuda_is(cudaStreamEndCapture(device_stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_null(graph);
    assert_cuda(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeGlobal));
    assert_cuda_is(cudaMalloc(&memory, 4), cudaErrorStreamCaptureUnsupported);
    assert_cuda_is(cudaStreamEndCapture(device_stream, &graph), cudaErrorStreamCaptureInvalidated);
    assert_cuda_is(cudaStreamEndCapture(device_stream, &graph), cudaErrorInvalidValue);
}

/* A second stream forked into a capture must be joined again. */
static void test_capture_fork_and_join(void **state)
{
    (void)state;
    cudaStream_t other;
    cudaEvent_t fork, join;
    cudaGraph_t graph;
    size_t nodes;
    int *device = device_new(WORDS * sizeof(int));
    assert_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    assert_cuda(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    assert_cuda(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    for (int joined = 0; joined < 2; joined++) {
        assert_cuda(cudaStreamBeginCapture(device_stream, cudaStreamCaptureModeThreadLocal));
        assert_cuda(cudaEventRecord(fork, device_stream));
        assert_cuda(cudaStreamWaitEvent(other, fork, 0));
        assert_cuda(cudaMemsetAsync(device, 1, 4, other));
        assert_cuda(cudaEventRecord(join, other));
        if (joined)
            assert_cuda(cudaStreamWaitEvent(device_stream, join, 0));
        assert_cuda(cudaMemsetAsync(device, 2, 4, device_stream));
        if (!joined) {
            assert_cuda_is(cudaStreamEndCapture(device_stream, &graph),
                           cudaErrorStreamCaptureUnjoined);
            continue;
        }
        assert_cuda_is(cudaEventSynchronize(join), cudaErrorCapturedEvent);
        assert_cuda_is(cudaEventQuery(join), cudaErrorCapturedEvent);
        assert_cuda(cudaStreamEndCapture(device_stream, &graph));
        assert_cuda_is(cudaStreamWaitEvent(other, join, 0), cudaErrorCapturedEvent);
        assert_cuda(cudaGraphGetNodes(graph, NULL, &nodes));
        assert_int_equal(nodes, 2);
        assert_cuda(cudaGraphDestroy(graph));
    }
    assert_cuda(cudaEventDestroy(fork));
    assert_cuda(cudaEventDestroy(join));
    assert_cuda(cudaStreamDestroy(other));
}

/* --- Errors --- */

/* A launch that cannot be is refused at once, with its kernel's name, and does not stick. */
static void test_launch_errors(void **state)
{
    (void)state;
    float *device = device_new(WORDS * sizeof(float));
    struct cuda_launched l = launch_sum((int *)device, (int *)device, 0, 64, device_stream);
    assert_cuda_is(l.error, cudaErrorInvalidConfiguration);
    assert_string_equal(l.kernel, "sum_kernel");
    l = launch_sum((int *)device, (int *)device, 1, 1025, device_stream);
    assert_cuda_is(l.error, cudaErrorInvalidConfiguration);
    /* More than 48 KB of shared memory must be asked for. */
    l = launch_reverse(device, device, 64, 64 << 10, device_stream);
    assert_cuda_is(l.error, cudaErrorInvalidValue);
    assert_cuda_is(allow_reverse(1 << 20), cudaErrorInvalidValue);
    assert_cuda_is(cudaGetLastError(), cudaErrorInvalidValue);
    assert_cuda(allow_reverse(64 << 10));
    assert_cuda(cudaMemset(device, 0, WORDS * sizeof(float)));
    assert_cuda(cudaDeviceSynchronize());
    assert_launched(launch_reverse(device, device, 64, 64 << 10, device_stream));
    assert_cuda(allow_reverse(0));
    assert_cuda(cudaStreamSynchronize(device_stream));
}

/* The same work with each of its calls failing in turn: each failure is the one that was asked for.
 */
static void test_every_call_can_fail(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 5; n++) {
        cudaStream_t stream = NULL;
        void *device = NULL;
        int host = 0;
        uint64_t before = emu_calls();
        emu_inject_call(NULL, n, cudaErrorMemoryAllocation, false);
        cudaError_t errors[5];
        errors[0] = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        errors[1] = cudaMalloc(&device, 4);
        errors[2] = cudaMemsetAsync(device, 0, 4, stream);
        errors[3] = cudaMemcpyAsync(&host, device, 4, cudaMemcpyDeviceToHost, stream);
        errors[4] = cudaStreamSynchronize(stream);
        assert_int_equal(emu_calls() - before, 5);
        assert_cuda_is(errors[n - 1], cudaErrorMemoryAllocation);
        for (uint64_t i = 0; i + 1 < n; i++)
            assert_cuda(errors[i]);
        emu_inject_clear();
        if (device != NULL)
            assert_cuda(cudaFree(device));
        if (stream != NULL)
            assert_cuda(cudaStreamDestroy(stream));
    }
}

static void test_named_call_fails(void **state)
{
    (void)state;
    void *device;
    emu_inject_call("cudaMalloc", 2, cudaErrorMemoryAllocation, false);
    assert_cuda(cudaMalloc(&device, 4));
    assert_cuda(cudaFree(device));
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_cuda_is(cudaMalloc(&device, 4), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc(&device, 4));
    assert_cuda(cudaFree(device));
}

/* A kernel that fails is heard of by whoever waits, and everything after it fails as well. */
static void test_device_fails(void **state)
{
    (void)state;
    int *device = device_new(WORDS * sizeof(int));
    int *out = device_new(sizeof(int));
    assert_cuda(cudaMemsetAsync(device, 0, WORDS * sizeof(int), device_stream));
    emu_inject_launch("sum_kernel", 2, cudaErrorIllegalAddress);
    assert_launched(launch_sum(device, out, 1, WORDS, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
    struct cuda_launched second = launch_sum(device, out, 1, WORDS, device_stream);
    if (is_late())
        assert_launched(second);
    assert_cuda_is(cudaStreamSynchronize(device_stream), cudaErrorIllegalAddress);
    assert_cuda_is(cudaMemsetAsync(device, 0, 4, device_stream), cudaErrorIllegalAddress);
    assert_cuda_is(cudaGetLastError(), cudaErrorIllegalAddress);
    assert_cuda_is(cudaGetLastError(), cudaErrorIllegalAddress);
}

static void test_error_names(void **state)
{
    (void)state;
    assert_string_equal(cudaGetErrorString(cudaErrorIllegalAddress),
                        "an illegal memory access was encountered");
    assert_string_equal(cudaGetErrorName((cudaError_t)12345), "unrecognized error code");
}

/* --- Traffic --- */

static void test_traffic(void **state)
{
    (void)state;
    int host[WORDS] = {0};
    int *pinned = pinned_new();
    struct emu_traffic before = emu_traffic_get();
    int *device = device_from(host, sizeof host);
    assert_cuda(
        cudaMemcpyAsync(pinned, device, sizeof host, cudaMemcpyDeviceToHost, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
    struct emu_traffic after = emu_traffic_get();
    assert_int_equal(after.copies - before.copies, 2);
    assert_int_equal(after.copy_bytes - before.copy_bytes, 2 * sizeof host);
    assert_int_equal(after.pageable_copies - before.pageable_copies, 1);
    assert_cuda(cudaFreeHost(pinned));
}

static void test_registered_memory(void **state)
{
    (void)state;
    int *memory = malloc(3 * sizeof *memory), *at;
    assert_non_null(memory);
    assert_cuda_is(cudaHostGetDevicePointer((void **)&at, memory, 0), cudaErrorInvalidValue);
    assert_cuda(cudaHostRegister(memory, 2 * sizeof *memory, cudaHostRegisterMapped));
    assert_cuda(cudaHostGetDevicePointer((void **)&at, memory + 1, 0));
    assert_ptr_equal(at, memory + 1);
    assert_cuda_is(cudaHostRegister(memory + 1, 2 * sizeof *memory, cudaHostRegisterMapped),
                   cudaErrorHostMemoryAlreadyRegistered);
    assert_cuda_is(cudaHostUnregister(memory + 1), cudaErrorHostMemoryNotRegistered);
    assert_cuda(cudaHostUnregister(memory));
    assert_cuda_is(cudaHostUnregister(memory), cudaErrorHostMemoryNotRegistered);
    free(memory);
}

static void launch_seen(void *ctx, const struct emu_launched *l)
{
    struct emu_launched *last = ctx;
    *last = *l;
}

/* 30 GB, of which nothing is there. */
static void test_a_device_that_computes_nothing(void **state)
{
    (void)state;
    const struct emu_device before = emu_device_get();
    struct emu_device large = before;
    struct emu_launched last = {0};
    int *in, *out, host[WORDS] = {0};
    large.memory_bytes = (size_t)40 << 30;
    emu_device_set(&large);
    emu_dry(launch_seen, &last);
    assert_cuda(cudaMalloc((void **)&in, (size_t)30 << 30));
    assert_cuda_is(cudaMalloc((void **)&out, (size_t)11 << 30), cudaErrorMemoryAllocation);
    assert_cuda_is(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_cuda(cudaMalloc((void **)&out, sizeof host));
    assert_cuda(cudaMemcpyAsync(in, host, sizeof host, cudaMemcpyHostToDevice, device_stream));
    assert_cuda(launch_sum(in, out, 3, 64, device_stream).error);
    assert_non_null(strstr(last.kernel, "sum"));
    assert_int_equal(last.blocks, 3);
    assert_int_equal(last.threads, 64);
    assert_cuda_is(launch_sum(in, out, 3, 2048, device_stream).error,
                   cudaErrorInvalidConfiguration);
    assert_cuda(cudaMemcpyAsync(host, out, sizeof host, cudaMemcpyDeviceToHost, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_int_equal(host[0], 0);
    assert_cuda(cudaFree(in));
    assert_cuda(cudaFree(out));
    emu_dry(NULL, NULL);
    emu_device_set(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(test_devices),
        test_of(test_out_of_memory),
        test_of(test_copies_are_checked),
        test_of(test_copy_to_host_is_late),
        test_of(test_memcpy_does_not_wait),
        test_of(test_blocking_stream_waits),
        test_of(test_events_order_streams),
        test_of(test_event_query),
        test_of(test_host_function),
        test_of(test_work_of_others),
        test_of(test_graph),
        test_of(test_capture_forbids_waiting),
        test_of(test_capture_fork_and_join),
        test_of(test_launch_errors),
        test_of(test_every_call_can_fail),
        test_of(test_named_call_fails),
        test_of(test_device_fails),
        test_of(test_error_names),
        test_of(test_traffic),
        test_of(test_registered_memory),
        test_of(test_a_device_that_computes_nothing),
    };
    return test_under_schedules(tests, sizeof tests / sizeof *tests);
}
