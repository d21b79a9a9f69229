/*
 * One program with and without a GPU: where there is none, the runtime that is linked into it says
 * so and the program goes on; where there is one, the kernels compute what C does.
 */
#include "tests/cuda_build/probe.h"

#include <cuda_runtime_api.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <setjmp.h>

#include <cmocka.h>

#define BLOCKS 3u

static bool device_here(void)
{
    int devices = 0;
    cudaError_t e = cudaGetDeviceCount(&devices);
    if (e == cudaSuccess && devices > 0)
        return true;
    print_message("no GPU here: %s\n", cudaGetErrorName(e));
    return false;
}

static void *shared_memory(size_t bytes)
{
    void *p = NULL;
    assert_int_equal(cudaMallocManaged(&p, bytes, cudaMemAttachGlobal), cudaSuccess);
    return p;
}

static void without_a_gpu_the_runtime_says_so(void **state)
{
    (void)state;
    int devices = -1;
    if (device_here())
        skip();
    cudaError_t e = cudaGetDeviceCount(&devices);
    assert_true(e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver ||
                (e == cudaSuccess && devices == 0));
    /* a launch is refused with the same reason, it neither crashes nor is passed over */
    assert_int_not_equal(probe_dot_run(NULL, NULL, NULL, 1), cudaSuccess);
}

static void dot_products_are_those_of_c(void **state)
{
    (void)state;
    if (!device_here())
        skip();
    int8_t *a = shared_memory(BLOCKS * 2048), *b = shared_memory(BLOCKS * 2048);
    int32_t *out = shared_memory(BLOCKS * sizeof *out);
    for (int i = 0; i < (int)(BLOCKS * 2048); i++) {
        a[i] = (int8_t)(i * 37 - 128);
        b[i] = (int8_t)(i * 101 + 5);
    }
    assert_int_equal(probe_dot_run(a, b, out, BLOCKS), cudaSuccess);
    for (unsigned block = 0; block < BLOCKS; block++) {
        int32_t sum = 0;
        for (unsigned i = 0; i < 2048; i++)
            sum += a[block * 2048 + i] * b[block * 2048 + i];
        assert_int_equal(out[block], sum);
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(out);
}

static void sums_are_rounded_step_by_step(void **state)
{
    (void)state;
    if (!device_here())
        skip();
    const size_t n = 32 * BLOCKS, terms = n * PROBE_TERMS;
    float *a = shared_memory(terms * sizeof *a), *b = shared_memory(terms * sizeof *b);
    float *out = shared_memory(n * sizeof *out);
    for (size_t i = 0; i < terms; i++) {
        a[i] = 1.0f + (float)(i % 97) * 1.1920929e-7f;
        b[i] = 1.0f / (float)(3 + i % 89);
    }
    assert_int_equal(probe_sum_run(a, b, out, BLOCKS), cudaSuccess);
    for (size_t row = 0; row < n; row++) {
        float sum = 0.0f;
        for (size_t k = 0; k < PROBE_TERMS; k++)
            sum = sum + a[row * PROBE_TERMS + k] * b[row * PROBE_TERMS + k];
        assert_memory_equal(&out[row], &sum, sizeof sum);
    }
    cudaFree(a);
    cudaFree(b);
    cudaFree(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_gpu_the_runtime_says_so),
        cmocka_unit_test(dot_products_are_those_of_c),
        cmocka_unit_test(sums_are_rounded_step_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
