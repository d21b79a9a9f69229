/*
 * requests.h - accesses of a warp's lanes put together into the requests a device would make of
 * them, for the counters: the n-th of each lane by the same instruction since their last common
 * point.
 *
 * Checked mode only. Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_REQUESTS_H
#define CLOISTER_TESTS_CUDA_EMULATION_REQUESTS_H

#include "tests/cuda_emulation/block.h"

void emu_requests_launch_begin(void);

/* `code` names the instruction. */
void emu_requests_add(const struct emu_lane *lane, const void *at, uint32_t size,
                      enum emu_access access, const void *code);
/* A common point of the whole warp: what is collected is counted. */
void emu_requests_flush(const struct emu_warp *warp);
/* ldmatrix: four times eight rows of 16 bytes, by the lanes' addresses. */
void emu_requests_count_matrices(const struct emu_warp *warp);

#endif
