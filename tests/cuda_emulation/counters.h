/*
 * counters.h - what the running launch counts for (struct emu_counters of its kernel).
 *
 * Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_COUNTERS_H
#define CLOISTER_TESTS_CUDA_EMULATION_COUNTERS_H

#include "tests/cuda_emulation/emulation.h"

void emu_counters_begin(const char *kernel);
void emu_counters_end(uint64_t blocks, uint32_t threads_per_block, uint32_t shared_bytes);
struct emu_counters *emu_counters_now(void);

#endif
