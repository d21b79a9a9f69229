/*
 * What the counters say of kernels whose accesses can be worked out by hand. Checked mode; the
 * order of threads must not matter.
 */
#include "tests/cuda_emulation/emulation.h"
#include "tests/cuda_emulation/kernels.h"
#include "tests/cuda_emulation/test_device.h"

#include <string.h>

static struct emu_counters counters_of(const char *kernel)
{
    struct emu_counters c;
    assert_cuda(cudaStreamSynchronize(device_stream));
    assert_true(emu_counters_get(kernel, &c));
    return c;
}

/* 64 threads: two warps that load and store a word per lane. Sectors have 32 bytes. */
static void test_coalescing(void **state)
{
    (void)state;
    static const struct {
        unsigned stride;
        uint64_t sectors;
    } cases[] = {{0, 2}, {1, 8}, {2, 16}, {4, 32}, {8, 64}, {32, 64}};
    static int in[64 * 32];
    int *d_in = device_from(in, sizeof in);
    int *d_out = device_new(64 * sizeof(int));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        emu_counters_reset();
        assert_launched(launch_strided(d_in, d_out, cases[i].stride, 64, device_stream));
        struct emu_counters c = counters_of("strided_kernel");
        assert_int_equal(c.launches, 1);
        assert_int_equal(c.blocks, 1);
        assert_int_equal(c.threads, 64);
        assert_int_equal(c.load_requests, 2);
        assert_int_equal(c.load_sectors, cases[i].sectors);
        assert_int_equal(c.load_bytes_useful, cases[i].stride == 0 ? 8 : 256);
        assert_int_equal(c.store_requests, 2);
        assert_int_equal(c.store_sectors, 8);
        assert_int_equal(c.store_bytes_useful, 256);
        assert_true(emu_store_efficiency(&c) == 1.0);
        assert_true(emu_load_efficiency(&c) ==
                    (double)c.load_bytes_useful / (32.0 * (double)cases[i].sectors));
    }
}

static void test_vectors(void **state)
{
    (void)state;
    static unsigned in[4 * 64];
    uint4 *d_in = device_from(in, sizeof in);
    uint4 *d_out = device_new(sizeof in);
    assert_launched(launch_vectors(d_in, d_out, 64, device_stream));
    struct emu_counters c = counters_of("vectors_kernel");
    assert_int_equal(c.load_requests, 2);
    assert_int_equal(c.load_sectors, 32);
    assert_int_equal(c.store_requests, 2);
    assert_int_equal(c.store_sectors, 32);
}

/* A warp stores words `stride` apart and loads them: how many of them meet in the fullest bank. */
static void test_bank_conflicts(void **state)
{
    (void)state;
    static const struct {
        unsigned stride, wavefronts;
    } cases[] = {{1, 1}, {2, 2}, {4, 4}, {8, 8}, {16, 16}, {32, 32}, {33, 1}, {3, 1}};
    int *d_out = device_new(32 * sizeof(int));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        emu_counters_reset();
        assert_launched(launch_banks(d_out, cases[i].stride, device_stream));
        struct emu_counters c = counters_of("banks_kernel");
        assert_int_equal(c.shared_requests, 2);
        assert_int_equal(c.shared_wavefronts, 2 * cases[i].wavefronts);
        assert_int_equal(c.shared_conflicts, 2 * (cases[i].wavefronts - 1));
        assert_int_equal(c.shared_bytes, 32 * 33 * sizeof(int));
    }
}

/* 16 rows of 32 bytes without a gap: the rows of an 8 x 16-byte matrix are 32 bytes apart, and meet
 * two by two in the banks. */
static void test_matrix_functions(void **state)
{
    (void)state;
    static int8_t a[16 * 32];
    int8_t *d_a = device_from(a, sizeof a);
    int8_t *d_b = device_from(a, 8 * 32);
    int32_t *d_c = device_new(16 * 8 * sizeof(int32_t));
    assert_launched(launch_mma_ldmatrix(d_a, d_b, d_c, device_stream));
    struct emu_counters c = counters_of("mma_ldmatrix_kernel");
    assert_int_equal(c.mma, 1);
    assert_int_equal(c.ldmatrix, 2);
    /* Two stores of vectors, by a whole warp and by half of one, then eight matrices. */
    assert_int_equal(c.shared_requests, 2 + 8);
    assert_int_equal(c.shared_wavefronts, 4 + 2 + 8 * 2);
    assert_int_equal(c.shared_conflicts, 8);
}

static void test_kernels_are_told_apart(void **state)
{
    (void)state;
    struct emu_counters c;
    int *d_out = device_new(64 * sizeof(int));
    assert_launched(launch_neighbours(d_out, device_stream));
    assert_launched(launch_neighbours(d_out, device_stream));
    assert_launched(launch_banks(d_out, 1, device_stream));
    assert_int_equal(counters_of("neighbours_kernel").launches, 2);
    assert_int_equal(counters_of("banks_kernel").launches, 1);
    assert_int_equal(counters_of(NULL).launches, 3);
    assert_false(emu_counters_get("no such kernel", &c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(test_coalescing),
        test_of(test_vectors),
        test_of(test_bank_conflicts),
        test_of(test_matrix_functions),
        test_of(test_kernels_are_told_apart),
    };
    return test_under_schedules(tests, sizeof tests / sizeof *tests);
}
