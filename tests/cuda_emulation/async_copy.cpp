/*
 * async_copy.cpp - cp.async: 16 bytes to shared memory that arrive at the wait which covers them,
 * and not a moment earlier. Until then the destination holds poison, as it may on a device.
 */
#include "tests/cuda_emulation/access.h"
#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/counters.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/shared.h"

#define COPY_BYTES 16u

void emu_async_copy16(void *shared, const void *global, bool valid, emu_place place)
{
    struct emu_lane *self = emu_lane_here("cp.async");
    self->place = place;
    if (!emu_shared_is(shared))
        emu_raise(EMU_FAULT_OUT_OF_BOUNDS, shared, "cp.async of %s:%d: %p is not in shared memory",
                  place.file, place.line, shared);
    if ((uintptr_t)shared % COPY_BYTES != 0 || (uintptr_t)global % COPY_BYTES != 0)
        emu_raise(EMU_FAULT_MISALIGNED, shared, "cp.async of %s:%d: %p or %p is not aligned to 16",
                  place.file, place.line, shared, global);
    /* Two accesses by one instruction: the counters tell them apart by its first and last byte. */
    const char *code = static_cast<const char *>(__builtin_return_address(0));
    if (valid)
        emu_access_here(global, COPY_BYTES, EMU_ACCESS_READ, code);
    emu_access_here(shared, COPY_BYTES, EMU_ACCESS_WRITE, code - 1);
    memset(shared, emu_schedule_poison(), COPY_BYTES);
    emu_shared_mark(shared, COPY_BYTES, EMU_BYTE_PENDING);
    self->copies.push_back(emu_async_copy{shared, global, valid, self->copy_group});
    emu_counters_now()->async_copies++;
}

void emu_async_commit(void)
{
    emu_lane_here("cp.async.commit_group")->copy_group++;
}

static void arrive(struct emu_lane *self, const struct emu_async_copy *copy)
{
    emu_shared_mark(copy->shared, COPY_BYTES, EMU_BYTE_WRITTEN);
    emu_access_of_lane(self, copy->shared, COPY_BYTES, EMU_ACCESS_WRITE);
    if (copy->valid)
        memcpy(copy->shared, copy->global, COPY_BYTES);
    else
        memset(copy->shared, 0, COPY_BYTES);
}

void emu_async_wait(int groups_pending)
{
    struct emu_lane *self = emu_lane_here("cp.async.wait_group");
    size_t kept = 0;
    for (const struct emu_async_copy &copy : self->copies) {
        /* Groups up to copy_group - 1 are committed; the newest `groups_pending` of them may wait
         * on, and so does what is not committed yet. */
        if (copy.group + (uint32_t)groups_pending < self->copy_group)
            arrive(self, &copy);
        else
            self->copies[kept++] = copy;
    }
    self->copies.resize(kept);
}
