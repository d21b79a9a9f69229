/*
 * access.h - the checks of one load, store or atomic of a CUDA thread, in checked mode: that the
 * bytes are there, aligned and written, and that nobody else is at them. They fault, or return.
 *
 * Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_ACCESS_H
#define CLOISTER_TESTS_CUDA_EMULATION_ACCESS_H

#include "tests/cuda_emulation/block.h"

/* By the running thread, aligned to its size; `code` is where in the program. Counted. Host code
 * may call it as well, which does nothing. */
void emu_access_at(const void *at, uint32_t size, enum emu_access access, const void *code);
/* The same where a function of the emulation makes the access, in either mode. */
void emu_access_here(const void *at, uint32_t size, enum emu_access access, const void *code);
/* On behalf of a thread that need not be running. Not counted. */
void emu_access_of_lane(const struct emu_lane *lane, const void *at, uint32_t size,
                        enum emu_access access);
void emu_access_count_matrices(const struct emu_warp *warp);

#endif
