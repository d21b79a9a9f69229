/*
 * stand_in.h - writes what the library in tests/nvml_stand_in reads. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_GPU_STAND_IN_H
#define CLOISTER_TESTS_UNIT_GPU_STAND_IN_H

/* A whole GPU: every number that there is. */
#define STAND_IN_DEVICE                                                                            \
    "count 2\nname Stand-in GPU\nuuid GPU-0a1b\npci 00000000:3B:00.0\ndriver 580.65\nmig 0\n"      \
    "total 85899345920\nreserved 1073741824\nfree 64424509440\n"                                   \
    "process self 4294967296\nprocess 41 8589934592\nprocess 42 1073741824\n"                      \
    "graphics 42 1073741824\ngraphics 43 ?\n"                                                      \
    "utilization 87\npower 412345\nenergy 98765432109\ntemperature 61\necc 2\nremap 0 0\n"         \
    "bus 5120\nmemory_clock 2619\n"

/* From now on the GPU says these lines, then those of `more`. The first call chooses the file. */
void stand_in_write(const char *lines, const char *more);

#endif
