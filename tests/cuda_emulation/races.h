/*
 * races.h - who touched a byte last, and whether a barrier lies between.
 *
 * Time of a block is counted in epochs, one per barrier; within an epoch each warp has a time of
 * its own, which __syncwarp moves. Two accesses are ordered when an epoch ends between them, or
 * when both are of one warp and a __syncwarp that names both lanes lies between. Per byte the last
 * write and up to two sets of readers are kept: the lanes of one warp, and one thread of another
 * warp or block. That is enough to find that a byte has a race, if not every pair that makes it
 * one.
 *
 * Checked mode only. Thread: under the lock of the runtime.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_RACES_H
#define CLOISTER_TESTS_CUDA_EMULATION_RACES_H

#include "tests/cuda_emulation/block.h"

void emu_races_prepare(void);
void emu_races_launch_begin(void);
void emu_races_block_begin(void);
void emu_races_barrier(void);
void emu_races_warp_sync(const struct emu_warp *warp, uint32_t mask);

/* Faults, or returns. `at` lies in shared, device or pinned memory. */
void emu_races_access(const struct emu_lane *lane, const void *at, uint32_t size,
                      enum emu_access access, const void *code);

/* Pages that have been freed. */
void emu_races_forget(const void *from, size_t bytes);

#endif
