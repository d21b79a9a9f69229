/*
 * That mistakes are found: each kernel of planted.cu with its mistake ends with a fault of the
 * right kind, and without it with none, under every schedule. In checked mode all are; in plain
 * mode those that need no watching of loads and stores, and of the others it is written down under
 * which schedules the result is wrong, since that is what a test of plain mode has to go by.
 */
#include "tests/cuda_emulation/emulation.h"
#include "tests/cuda_emulation/planted.h"
#include "tests/cuda_emulation/test_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORDS 128

struct planted_case {
    const char *kernel;
    enum emu_fault_kind checked; /* what checked mode says */
    enum emu_fault_kind plain;   /* what plain mode says: EMU_FAULT_NONE where it cannot know */
    /* What checked mode says where the order has the reader come before the writer, and the memory
     * is fresh; EMU_FAULT_NONE: the same. */
    enum emu_fault_kind early;
};

static const struct planted_case cases[] = {
    {"barrier_removed", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_UNINITIALISED},
    {"barrier_removed_before_refill", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"syncwarp_removed", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_UNINITIALISED},
    {"syncwarp_of_half", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_UNINITIALISED},
    {"index_past_end", EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_NONE},
    {"index_before_begin", EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"shared_index_past_end", EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_NONE},
    {"dynamic_shared_past_end", EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_OUT_OF_BOUNDS, EMU_FAULT_NONE},
    {"uninitialised_global", EMU_FAULT_UNINITIALISED, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"uninitialised_shared", EMU_FAULT_UNINITIALISED, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"shared_race", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"global_race", EMU_FAULT_RACE, EMU_FAULT_NONE, EMU_FAULT_UNINITIALISED},
    {"blocks_write", EMU_FAULT_BLOCK_RACE, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"block_reads", EMU_FAULT_BLOCK_RACE, EMU_FAULT_NONE, EMU_FAULT_UNINITIALISED},
    {"copy_not_waited_for", EMU_FAULT_ASYNC_COPY, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"copy_waited_for_too_little", EMU_FAULT_ASYNC_COPY, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"exit_before_barrier", EMU_FAULT_BARRIER_DIVERGENCE, EMU_FAULT_BARRIER_DIVERGENCE,
     EMU_FAULT_NONE},
    {"two_barriers", EMU_FAULT_BARRIER_DIVERGENCE, EMU_FAULT_BARRIER_DIVERGENCE, EMU_FAULT_NONE},
    {"lane_exits", EMU_FAULT_LANE_MISSING, EMU_FAULT_LANE_MISSING, EMU_FAULT_NONE},
    {"lane_elsewhere", EMU_FAULT_LANE_MISSING, EMU_FAULT_LANE_MISSING, EMU_FAULT_NONE},
    {"lane_not_in_mask", EMU_FAULT_LANE_MISSING, EMU_FAULT_LANE_MISSING, EMU_FAULT_NONE},
    {"functions_differ", EMU_FAULT_LANE_MISSING, EMU_FAULT_LANE_MISSING, EMU_FAULT_NONE},
    {"masks_differ", EMU_FAULT_LANE_MISSING, EMU_FAULT_LANE_MISSING, EMU_FAULT_NONE},
    {"vector_misaligned", EMU_FAULT_MISALIGNED, EMU_FAULT_MISALIGNED, EMU_FAULT_NONE},
    {"shared_misaligned", EMU_FAULT_MISALIGNED, EMU_FAULT_MISALIGNED, EMU_FAULT_NONE},
    {"plain_vector_misaligned", EMU_FAULT_MISALIGNED, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"word_misaligned", EMU_FAULT_MISALIGNED, EMU_FAULT_NONE, EMU_FAULT_NONE},
    {"stack_used_up", EMU_FAULT_STACK, EMU_FAULT_STACK, EMU_FAULT_NONE},
    {"trapped", EMU_FAULT_TRAP, EMU_FAULT_TRAP, EMU_FAULT_NONE},
};

struct planted_run {
    const char *kernel;
    bool broken;
};

static unsigned blocks_of(const char *kernel)
{
#define BLOCKS(name, blocks)                                                                       \
    if (strcmp(kernel, #name) == 0)                                                                \
        return blocks;
    PLANTED_KERNELS(BLOCKS)
#undef BLOCKS
    return 0;
}

static void launch_and_wait(void *ctx)
{
    const struct planted_run *run = ctx;
    size_t size = 64 * blocks_of(run->kernel) * sizeof(int);
    int in[WORDS];
    for (int i = 0; i < WORDS; i++)
        in[i] = i;
    int *d_in = device_from(in, size);
    int *d_out = device_new(size);
    int *d_other = device_new(size);
    assert_launched(launch_planted(run->kernel, d_in, d_out, d_other, run->broken, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
}

/* `or_kind` EMU_FAULT_NONE: no other. */
static void expect(const char *kernel, bool broken, enum emu_fault_kind kind,
                   enum emu_fault_kind or_kind)
{
    struct planted_run run = {kernel, broken};
    struct emu_fault fault;
    bool found = emu_fault_of(launch_and_wait, &run, &fault);
    if (fault.kind != kind && (or_kind == EMU_FAULT_NONE || fault.kind != or_kind))
        fail_msg("%s%s: %s, not %s", kernel, broken ? ", broken" : "",
                 found ? fault.text : "no fault", emu_fault_name(kind));
    if (found) {
        assert_string_equal(fault.kernel, kernel);
        assert_non_null(strstr(fault.text, kernel));
    }
}

static void test_planted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct planted_case *c = &cases[i];
        expect(c->kernel, false, EMU_FAULT_NONE, EMU_FAULT_NONE);
        if (emu_is_checked())
            expect(c->kernel, true, c->checked, c->early);
        else
            expect(c->kernel, true, c->plain, EMU_FAULT_NONE);
    }
}

/* Its readers get at what the copy brought before the barrier that makes it theirs; by the order,
 * they do so before or after the thread that copied has waited. */
static void test_copy_without_barrier(void **state)
{
    (void)state;
    struct planted_run run = {"copy_without_barrier", false};
    struct emu_fault fault;
    assert_false(emu_fault_of(launch_and_wait, &run, &fault));
    run.broken = true;
    bool found = emu_fault_of(launch_and_wait, &run, &fault);
    assert_int_equal(found, emu_is_checked());
    if (found)
        assert_true(fault.kind == EMU_FAULT_RACE || fault.kind == EMU_FAULT_ASYNC_COPY ||
                    fault.kind == EMU_FAULT_UNINITIALISED);
}

/* What a report has to say for somebody to find the mistake with. */
static void test_report_names_the_place(void **state)
{
    (void)state;
    struct planted_run run = {"index_past_end", true};
    struct emu_fault fault;
    if (!emu_is_checked())
        skip();
    assert_true(emu_fault_of(launch_and_wait, &run, &fault));
    if (emu_schedule_get().order == EMU_ORDER_FORWARD)
        assert_int_equal(fault.thread[0], 63);
    assert_int_equal(fault.block[0], 0);
    assert_non_null(fault.address);
    assert_non_null(strstr(fault.text, "index_past_end"));
    assert_non_null(strstr(fault.text, "thread (63,0,0)"));
    assert_non_null(strstr(fault.text, "writes 4 bytes"));
    assert_non_null(strstr(fault.text, "past the end of an allocation of 256 bytes"));
}

/* A race is between two places, and both are told. */
static void test_report_names_both_places(void **state)
{
    (void)state;
    struct planted_run run = {"barrier_removed_before_refill", true};
    struct emu_fault fault;
    if (!emu_is_checked())
        skip();
    assert_true(emu_fault_of(launch_and_wait, &run, &fault));
    const char *first = strstr(fault.text, "planted.cu:");
    if (first == NULL)
        skip(); /* no addr2line on this machine */
    const char *second = strstr(first + 1, "planted.cu:");
    assert_non_null(second);
    assert_int_not_equal(atoi(first + strlen("planted.cu:")), atoi(second + strlen("planted.cu:")));
}

/* --- Mistakes of host code --- */

static void body_use_after_free(void *ctx)
{
    (void)ctx;
    int *in = device_new(WORDS * sizeof(int));
    int *out = device_new(WORDS * sizeof(int));
    int *gone;
    assert_cuda(cudaMemset(in, 0, WORDS * sizeof(int)));
    assert_cuda(cudaMalloc((void **)&gone, WORDS * sizeof(int)));
    assert_cuda(cudaFree(gone));
    assert_launched(launch_planted("copies_in", gone, out, NULL, false, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
}

static void body_host_memory(void *ctx)
{
    (void)ctx;
    int *host = calloc(WORDS, sizeof *host);
    int *out = device_new(WORDS * sizeof(int));
    assert_launched(launch_planted("copies_in", host, out, NULL, false, device_stream));
    assert_cuda(cudaStreamSynchronize(device_stream));
    free(host);
}

static void body_host_buffer(void *ctx)
{
    (void)ctx;
    int *pinned;
    int *device = device_new(WORDS * sizeof(int));
    assert_cuda(cudaMallocHost((void **)&pinned, WORDS * sizeof(int)));
    memset(pinned, 1, WORDS * sizeof(int));
    assert_cuda(cudaMemcpyAsync(device, pinned, WORDS * sizeof(int), cudaMemcpyHostToDevice,
                                device_stream));
    pinned[17] = 3;
    assert_cuda(cudaStreamSynchronize(device_stream));
}

static void body_host_access(void *ctx)
{
    (void)ctx;
    int *device = device_new(WORDS * sizeof(int));
    ((volatile int *)device)[3] = 1;
}

/* Whose work runs at once finds no buffer that changed too early, which is why there are others. */
static void test_host_mistakes(void **state)
{
    (void)state;
    const enum emu_order order = emu_schedule_get().order;
    const bool checked = emu_is_checked();
    struct emu_fault fault;

    assert_true(emu_fault_of(body_use_after_free, NULL, &fault));
    assert_int_equal(fault.kind, EMU_FAULT_USE_AFTER_FREE);
    assert_string_equal(fault.kernel, "copies_in");

    assert_int_equal(emu_fault_of(body_host_memory, NULL, &fault), checked);
    if (checked)
        assert_int_equal(fault.kind, EMU_FAULT_HOST_MEMORY);

    bool late = emu_fault_of(body_host_buffer, NULL, &fault);
    if (order != EMU_ORDER_RANDOM)
        assert_int_equal(late, order == EMU_ORDER_FORWARD);
    if (late)
        assert_int_equal(fault.kind, EMU_FAULT_HOST_BUFFER);

    if (checked || order == EMU_ORDER_FORWARD) {
        assert_true(emu_fault_of(body_host_access, NULL, &fault));
        assert_int_equal(fault.kind, EMU_FAULT_HOST_ACCESS);
    }
}

/* --- What plain mode must be told by results --- */

/* The sums of barrier_removed: right under reverse order, in which each thread finds what the ones
 * above it have written. This is why no kernel is tested under one schedule. */
static void test_removed_barrier_by_its_result(void **state)
{
    (void)state;
    if (emu_is_checked())
        skip();
    int out[WORDS];
    int in[WORDS];
    for (int i = 0; i < WORDS; i++)
        in[i] = i;
    int *d_in = device_from(in, sizeof in);
    int *d_out = device_new(sizeof in);
    assert_launched(launch_planted("barrier_removed", d_in, d_out, NULL, true, device_stream));
    device_to(out, d_out, sizeof out);
    bool right = true;
    for (int i = 0; i < 32; i++)
        right = right && out[i] == i + i + 32;
    assert_int_equal(right, emu_schedule_get().order == EMU_ORDER_REVERSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(test_planted),
        test_of(test_copy_without_barrier),
        test_of(test_report_names_the_place),
        test_of(test_report_names_both_places),
        test_of(test_host_mistakes),
        test_of(test_removed_barrier_by_its_result),
    };
    return test_under_schedules(tests, sizeof tests / sizeof *tests);
}
