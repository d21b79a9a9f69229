/*
 * test_device.h - what the tests of the emulation do with a device again and again: memory that is
 * freed when the test ends, copies that are waited for, and each test under each schedule.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_TEST_DEVICE_H
#define CLOISTER_TESTS_CUDA_EMULATION_TEST_DEVICE_H

#include "tests/cuda_emulation/emulation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define assert_cuda(call)         assert_string_equal(cudaGetErrorName(call), "cudaSuccess")
#define assert_launched(launched) assert_cuda((launched).error)

/* Made for each test, non-blocking. */
extern cudaStream_t device_stream;

/* Freed when the test ends. */
void *device_new(size_t size);
void *device_from(const void *host, size_t size);
/* Copies to the host behind what the stream has to do, and waits. */
void device_to(void *host, const void *device, size_t size);

int device_setup(void **state);
int device_teardown(void **state);

#define test_of(function) cmocka_unit_test_setup_teardown(function, device_setup, device_teardown)

/* Runs the tests once per schedule; the number of failures. */
int test_under_schedules(const struct CMUnitTest *tests, size_t n);

#endif
