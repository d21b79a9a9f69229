/*
 * How many multiply-adds a second the emulation does on one core, by mode and schedule: what a test
 * can afford. Not a test; prints a table.
 */
#include "tests/cuda_emulation/bench.h"
#include "tests/cuda_emulation/emulation.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROWS = 1024, COLS = 2048, N = 32 };

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void need(cudaError_t error)
{
    if (error != cudaSuccess) {
        (void)fprintf(stderr, "%s\n", cudaGetErrorString(error));
        exit(1);
    }
}

static void *filled(size_t size)
{
    void *memory;
    need(cudaMalloc(&memory, size));
    need(cudaMemset(memory, 3, size));
    return memory;
}

int main(void)
{
    int8_t *w = filled((size_t)ROWS * COLS);
    int8_t *x = filled((size_t)N * COLS);
    int32_t *y = filled((size_t)ROWS * N * sizeof *y);
    for (int i = 0; i < EMU_SCHEDULES - 1; i++) {
        struct emu_schedule schedule = emu_schedule_of(i);
        emu_schedule_set(schedule);
        double start = seconds();
        need(launch_gemv(w, x, y, ROWS, COLS, NULL).error);
        need(cudaDeviceSynchronize());
        double middle = seconds();
        need(launch_gemm(w, x, y, ROWS, N, COLS, NULL).error);
        need(cudaDeviceSynchronize());
        double end = seconds();
        printf("%-8s %-8s dp4a %8.1f M/s   mma %8.1f M/s\n", emu_is_checked() ? "checked" : "plain",
               emu_order_name(schedule.order), (double)ROWS * COLS / (middle - start) * 1e-6,
               (double)ROWS * COLS * N / (end - middle) * 1e-6);
    }
    return 0;
}
