/*
 * What goes wrong on a device: memory that is refused comes back as an error with its bytes and
 * nothing is kept; a call or a kernel that fails inside an operation ends the process with
 * BACKEND_EXIT_DEVICE and a line that says which; and what is promised about sizes is what is held.
 */
#include "tests/cuda_emulation/emulation.h"
#include "tests/kernels/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct backend *open_device(void)
{
    const struct backend_cuda_config config = {.threads = 1};
    struct errbuf eb = {{0}};
    struct backend *b = NULL;
    if (backend_cuda_open(&b, &config, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return b;
}

static void test_devices_that_cannot_serve_are_refused(void **state)
{
    (void)state;
    const struct emu_device whole = emu_device_get();
    static const struct {
        int count, major;
        uint32_t device;
        enum err err;
        const char *text;
    } cases[] = {
        {1, 9, 1, ERR_UNAVAILABLE, "GPU 1: there are 1"},
        {2, 7, 1, ERR_UNSUPPORTED, "compute capability 7"},
        {0, 9, 0, ERR_UNAVAILABLE, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct emu_device device = whole;
        const struct backend_cuda_config config = {.device = cases[i].device, .threads = 1};
        struct errbuf eb = {{0}};
        struct backend *b = NULL;
        device.count = cases[i].count;
        device.major = cases[i].major;
        emu_device_set(&device);
        assert_int_equal(backend_cuda_open(&b, &config, &eb), cases[i].err);
        if (strstr(eb.text, cases[i].text) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", eb.text, cases[i].text);
        assert_null(b);
    }
    emu_device_set(&whole);
}

/* Opening with the n-th call failing, for every n. */
static void test_every_call_of_opening_may_fail(void **state)
{
    (void)state;
    const uint64_t begin = emu_calls();
    struct backend *b = open_device();
    const uint64_t calls = emu_calls() - begin;
    b->ops->close(b);
    assert_true(calls > 3);
    for (uint64_t n = 1; n <= calls; n++) {
        const struct backend_cuda_config config = {.threads = 1};
        struct errbuf eb = {{0}};
        const size_t used = emu_memory_used();
        b = NULL;
        emu_inject_call(NULL, n, cudaErrorMemoryAllocation, false);
        assert_int_equal(backend_cuda_open(&b, &config, &eb), ERR_NO_MEMORY);
        assert_non_null(strstr(eb.text, "cudaErrorMemoryAllocation"));
        assert_null(b);
        assert_int_equal(emu_memory_used(), used);
        emu_inject_clear();
    }
}

static const struct kv_shape small_kv = {2, 2, 64, 64, KV_TYPE_F16, 3};
static const struct backend_room small_room = {.rows_max = 8,
                                               .cols_max = 128,
                                               .groups_max = 1,
                                               .pages_max = 4,
                                               .sequences_max = 2,
                                               .rope_dim = 64,
                                               .n_ropes = 1,
                                               .results_max = 2000,
                                               .pieces_max = 3,
                                               .n_caches = 1,
                                               .cache = {{4, 2, 2, 64, 64}}};

/* Takes one thing of each kind; false where one was refused, and then nothing is left of it. */
static bool take_all(struct backend *b, struct errbuf *eb)
{
    struct kv *kv = NULL;
    float *buffer = b->ops->buffer_new(b, 1000);
    struct act *a = b->ops->act_new(b, 7, 96, true);
    enum err e = b->ops->kv_new(b, &small_kv, &kv, eb);
    bool is_whole = buffer != NULL && a != NULL && e == ERR_OK;
    if (e != ERR_OK) {
        assert_int_equal(e, ERR_NO_MEMORY);
        assert_non_null(strstr(eb->text, "KV cache: 98304 bytes"));
    }
    b->ops->buffer_free(b, buffer);
    b->ops->act_free(b, a);
    b->ops->kv_free(b, kv);
    e = b->ops->reserve(b, &small_room, eb);
    assert_true(e == ERR_OK || e == ERR_NO_MEMORY);
    return is_whole && e == ERR_OK;
}

static void test_memory_that_is_refused_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *function;
        uint64_t calls; /* at least */
    } kinds[] = {{"cudaMalloc", 8}, {"cudaHostAlloc", 3}};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        bool is_whole = false;
        for (uint64_t n = 1; !is_whole; n++) {
            struct errbuf eb = {{0}};
            const size_t used = emu_memory_used();
            struct backend *b = open_device();
            emu_inject_call(kinds[i].function, n, cudaErrorMemoryAllocation, false);
            is_whole = take_all(b, &eb);
            emu_inject_clear();
            b->ops->close(b);
            assert_int_equal(emu_memory_used(), used);
            if (is_whole && n <= kinds[i].calls)
                fail_msg("only %llu calls of %s", (unsigned long long)(n - 1), kinds[i].function);
        }
    }
}

static void test_a_cache_that_does_not_fit_says_its_bytes(void **state)
{
    (void)state;
    const struct kv_shape large = {32, 8, 128, 128, KV_TYPE_F16, 4096};
    struct backend *b = open_device();
    struct kv *kv = NULL;
    struct errbuf eb = {{0}};
    assert_int_equal(b->ops->kv_new(b, &large, &kv, &eb), ERR_NO_MEMORY);
    assert_non_null(strstr(eb.text, "17179869184 bytes on GPU 0"));
    assert_null(kv);
    b->ops->close(b);
}

static void test_what_is_promised_is_what_is_held(void **state)
{
    (void)state;
    struct backend *b = open_device();
    struct errbuf eb = {{0}};
    uint64_t weights, kv_bytes, scratch;
    struct kv *kv;
    float *buffer = b->ops->buffer_new(b, 1001);
    struct act *a = b->ops->act_new(b, 7, 100, true), *q = b->ops->act_new(b, 3, 64, false);
    assert_int_equal(b->ops->kv_new(b, &small_kv, &kv, &eb), ERR_OK);
    assert_int_equal(b->ops->reserve(b, &small_room, &eb), ERR_OK);
    b->ops->memory(b, &weights, &kv_bytes, &scratch);
    assert_int_equal(weights, 0);
    assert_int_equal(kv_bytes, 3 * backend_cuda_kv_page_bytes(&small_kv));
    assert_int_equal(
        scratch, backend_cuda_buffer_bytes(1001) + backend_cuda_act_bytes(7, 100, true) +
                     backend_cuda_act_bytes(3, 64, false) + backend_cuda_room_bytes(&small_room));
    assert_int_equal(emu_memory_used(), kv_bytes + scratch);
    b->ops->buffer_free(b, buffer);
    b->ops->act_free(b, a);
    b->ops->act_free(b, q);
    b->ops->kv_free(b, kv);
    b->ops->close(b);
    assert_int_equal(emu_memory_used(), 0);
}

static void test_an_exchange_is_there_whole_or_not_at_all(void **state)
{
    (void)state;
    enum { BYTES = 8192, APART = 3 * BYTES };
    uint8_t *memory = malloc(4 * APART);
    void *const halves[2] = {memory, memory + APART}; /* on pages of their own */
    void *const others[2] = {memory + 3 * APART, memory + 2 * APART};
    struct exchange *x, *y;
    struct backend *b = open_device();
    struct errbuf eb = {{0}};

    assert_non_null(memory);
    for (uint64_t n = 1; n <= 4; n++) {
        emu_inject_call(NULL, n, cudaErrorMemoryAllocation, false);
        assert_int_equal(b->ops->exchange_open(b, halves, BYTES, &x, &eb), ERR_NO_MEMORY);
        assert_non_null(strstr(eb.text, "that ranks exchange"));
        emu_inject_clear();
    }
    assert_int_equal(b->ops->exchange_open(b, halves, BYTES, &x, &eb), ERR_OK);
    /* A rank is of several colls, each with memory of its own. */
    assert_int_equal(b->ops->exchange_open(b, others, BYTES, &y, &eb), ERR_OK);
    b->ops->exchange_close(b, x);
    assert_int_equal(b->ops->exchange_open(b, halves, BYTES, &x, &eb), ERR_OK);
    b->ops->exchange_close(b, y);
    b->ops->exchange_close(b, x);
    b->ops->exchange_close(b, NULL);
    b->ops->close(b);
    free(memory);
}

/* What NCCL is put on, and waited for. */
static void test_the_stream_that_others_use(void **state)
{
    (void)state;
    enum { COUNT = 4096 };
    struct backend *b = open_device();
    const uint64_t used = emu_memory_used();
    struct device_stream s;
    struct errbuf eb = {{0}};
    void *memory;

    for (uint64_t n = 1; n <= 2; n++) {
        emu_inject_call(NULL, n, cudaErrorMemoryAllocation, false);
        assert_int_equal(b->ops->stream(b, &s, &eb), ERR_NO_MEMORY);
        assert_non_null(strstr(eb.text, "asking GPU 0 for its stream"));
        emu_inject_clear();
    }
    assert_int_equal(b->ops->stream(b, &s, &eb), ERR_OK);
    s.enter(s.ctx);
    emu_inject_call("cudaMalloc", 1, cudaErrorMemoryAllocation, false);
    assert_int_equal(s.alloc(s.ctx, COUNT, &memory, &eb), ERR_NO_MEMORY);
    assert_non_null(strstr(eb.text, "4096 bytes that ranks exchange on GPU 0"));
    emu_inject_clear();
    assert_int_equal(s.alloc(s.ctx, COUNT * sizeof(float), &memory, &eb), ERR_OK);
    assert_int_equal((uintptr_t)memory % 256, 0);
    /* Operations of the backend and marks are of one queue; polling leaves no error behind. */
    static const float zeros[COUNT];
    float *x = b->ops->buffer_new(b, COUNT);
    b->ops->buffer_write(b, x, zeros, COUNT);
    for (int turn = 0; turn < 3; turn++) {
        b->ops->softcap(b, x, COUNT, 2.0f);
        s.mark(s.ctx);
        while (!s.is_done(s.ctx))
            b->ops->softcap(b, x, COUNT, 2.0f);
        assert_true(s.is_done(s.ctx));
    }
    b->ops->buffer_free(b, x);
    s.release(s.ctx, NULL);
    s.release(s.ctx, memory);
    assert_int_equal(emu_memory_used(), used);
    b->ops->close(b);
}

/* ---- the end of the process ------------------------------------------------------------------ */

struct fault {
    const char *name;
    const char *function; /* of the runtime API, or, where is_launch, a kernel */
    bool is_launch;
    cudaError_t error;
    const char *text; /* on stderr */
};

static void operate(const struct fault *fault)
{
    struct backend *b = open_device();
    float x[96] = {1.0f}, gain[96] = {1.0f};
    int8_t q[96];
    float scales[3];
    struct act *a = b->ops->act_new(b, 1, 96, false);
    float *dx = fixture_upload(b, x, 96), *dgain = fixture_upload(b, gain, 96);
    if (fault->is_launch)
        emu_inject_launch(fault->function, 1, fault->error);
    else
        emu_inject_call(fault->function, 1, fault->error, true);
    b->ops->norm(b, dx, 1, 96, dgain, 1e-5f, a);
    b->ops->act_read(b, a, 0, 96, q, scales, NULL);
}

/* What a process in which `run` is called ends with, and what it says on stderr. */
static int status_of_child(void (*run)(const struct fault *), const struct fault *fault, char *text,
                           size_t room)
{
    int ends[2], status;
    size_t size = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        run(fault);
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n; size + 1 < room && (n = read(ends[0], text + size, room - 1 - size)) > 0;)
        size += (size_t)n;
    text[size] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_fault(void (*run)(const struct fault *), const struct fault *fault)
{
    char text[2048];
    const int status = status_of_child(run, fault, text, sizeof text);
    if (status != BACKEND_EXIT_DEVICE)
        fail_msg("%s: status %d, \"%s\"", fault->name, status, text);
    if (strstr(text, fault->text) == NULL)
        fail_msg("%s: \"%s\" does not say \"%s\"", fault->name, text, fault->text);
}

static void test_what_fails_inside_an_operation_ends_the_process(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        {"a kernel", "rows_norm", true, cudaErrorIllegalAddress, "cudaErrorIllegalAddress"},
        {"a launch", "cudaLaunchKernel", false, cudaErrorInvalidConfiguration,
         "norm of 1 rows of 96 (rows_norm): cudaErrorInvalidConfiguration"},
        {"a copy", "cudaMemcpyAsync", false, cudaErrorECCUncorrectable,
         "reading 96 bytes of activations: cudaErrorECCUncorrectable"},
        {"a wait", "cudaStreamSynchronize", false, cudaErrorLaunchTimeout,
         "reading a row of 96 activations: cudaErrorLaunchTimeout"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        expect_fault(operate, &faults[i]);
}

/* Stretches of a step, of which the third time each is replayed. */
static void operate_in_stretches(const struct fault *fault)
{
    static const uint32_t zeros[1];
    const struct backend_step step = {.rows = {1, zeros, zeros, zeros, 1}, .may_hold = true};
    struct backend *b = open_device();
    float x[96] = {1.0f}, gain[96] = {1.0f};
    float *dx = fixture_upload(b, x, 96), *dy = fixture_upload(b, x, 96);
    float *dgain = fixture_upload(b, gain, 96);
    const char *const colon = strchr(fault->name, ':');
    const int from = colon == NULL ? 2 : atoi(colon + 1);
    for (int t = 0; t < 3; t++) {
        if (t == from && fault->is_launch)
            emu_inject_launch(fault->function, 1, fault->error);
        else if (t == from)
            emu_inject_call(fault->function, 1, fault->error, true);
        (void)b->ops->step_begin(b, &step);
        b->ops->norm_add(b, dx, 1, 96, dgain, 1e-5f, dy);
        b->ops->softcap(b, dy, 96, 2.0f);
        b->ops->exchange_done(b);
        b->ops->step_end(b);
    }
}

/* In which of the three times it fails stands behind the name. */
static void test_what_fails_in_a_stretch_is_said_with_its_operations(void **state)
{
    (void)state;
    static const struct fault faults[] = {
        {"a launch of a stretch that is new:0", "cudaLaunchKernel", false,
         cudaErrorInvalidConfiguration, "norm_add of 1 rows of 96 (rows_norm_add)"},
        {"a kernel of a stretch that is new:0", "elements_softcap", true, cudaErrorIllegalAddress,
         "cudaErrorIllegalAddress"},
        {"the beginning of a capture:1", "cudaStreamBeginCapture", false, cudaErrorUnknown,
         "capturing 2 operations of a step of 1 rows: cudaErrorUnknown"},
        {"a launch in a capture:1", "cudaLaunchKernel", false, cudaErrorInvalidConfiguration,
         "norm_add of 1 rows of 96 (rows_norm_add)"},
        {"the end of a capture:1", "cudaStreamEndCapture", false, cudaErrorStreamCaptureInvalidated,
         "capturing 2 operations of a step of 1 rows"},
        {"a graph:1", "cudaGraphInstantiate", false, cudaErrorNotSupported,
         "making a graph of 2 operations of a step of 1 rows: cudaErrorNotSupported"},
        {"a replay", "cudaGraphLaunch", false, cudaErrorLaunchFailure,
         "replaying 2 operations, norm_add to softcap, of a step of 1 rows"},
        {"a kernel of a replay", "elements_softcap", true, cudaErrorIllegalAddress,
         "behind 2 operations, norm_add to softcap, of a step of 1 rows: cudaErrorIllegalAddress"},
    };
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        expect_fault(operate_in_stretches, &faults[i]);
}

static void load(const struct fault *fault)
{
    struct errbuf eb = {{0}};
    struct backend *b = open_device();
    struct kv *kv;
    emu_inject_call(fault->function, 1, fault->error, true);
    _exit(b->ops->kv_new(b, &small_kv, &kv, &eb) == ERR_OK ? 1 : 0);
}

/* While a model is loaded, when other errors are the model's. */
static void test_a_device_that_is_gone_ends_the_process_and_a_full_one_does_not(void **state)
{
    (void)state;
    static const cudaError_t gone[] = {cudaErrorECCUncorrectable,   cudaErrorNvlinkUncorrectable,
                                       cudaErrorContained,          cudaErrorIllegalAddress,
                                       cudaErrorLaunchTimeout,      cudaErrorAssert,
                                       cudaErrorHardwareStackError, cudaErrorIllegalInstruction,
                                       cudaErrorMisalignedAddress,  cudaErrorInvalidAddressSpace,
                                       cudaErrorInvalidPc,          cudaErrorLaunchFailure,
                                       cudaErrorTensorMemoryLeak,   cudaErrorMpsClientTerminated,
                                       cudaErrorExternalDevice,     cudaErrorUnknown};
    static const cudaError_t there[] = {cudaErrorMemoryAllocation, cudaErrorInvalidValue,
                                        cudaErrorDevicesUnavailable, cudaErrorNotSupported};
    struct fault fault = {.function = "cudaMalloc"};
    char text[2048];
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) {
        fault.error = gone[i];
        assert_int_equal(status_of_child(load, &fault, text, sizeof text), BACKEND_EXIT_DEVICE);
        assert_non_null(strstr(text, cudaGetErrorName(gone[i])));
    }
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++) {
        fault.error = there[i];
        assert_int_equal(status_of_child(load, &fault, text, sizeof text), 0);
    }
}

/* A thread may have used another device since it opened one. */
static void test_backends_of_two_devices_take_turns(void **state)
{
    (void)state;
    const struct emu_device whole = emu_device_get();
    struct emu_device two = whole;
    struct backend *b[2];
    two.count = 2;
    emu_device_set(&two);
    for (uint32_t i = 0; i < 2; i++) {
        const struct backend_cuda_config config = {.device = i, .threads = 1};
        struct errbuf eb = {{0}};
        assert_int_equal(backend_cuda_open(&b[i], &config, &eb), ERR_OK);
    }
    for (int turn = 0; turn < 4; turn++) {
        int now = -1;
        float *x = b[turn % 2]->ops->buffer_new(b[turn % 2], 32);
        assert_int_equal(cudaGetDevice(&now), cudaSuccess);
        assert_int_equal(now, turn % 2);
        b[turn % 2]->ops->buffer_free(b[turn % 2], x);
    }
    for (uint32_t i = 0; i < 2; i++)
        b[i]->ops->close(b[i]);
    emu_device_set(&whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices_that_cannot_serve_are_refused),
        cmocka_unit_test(test_every_call_of_opening_may_fail),
        cmocka_unit_test(test_memory_that_is_refused_is_an_error_and_leaves_nothing),
        cmocka_unit_test(test_a_cache_that_does_not_fit_says_its_bytes),
        cmocka_unit_test(test_what_is_promised_is_what_is_held),
        cmocka_unit_test(test_an_exchange_is_there_whole_or_not_at_all),
        cmocka_unit_test(test_the_stream_that_others_use),
        cmocka_unit_test(test_what_fails_inside_an_operation_ends_the_process),
        cmocka_unit_test(test_what_fails_in_a_stretch_is_said_with_its_operations),
        cmocka_unit_test(test_a_device_that_is_gone_ends_the_process_and_a_full_one_does_not),
        cmocka_unit_test(test_backends_of_two_devices_take_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
