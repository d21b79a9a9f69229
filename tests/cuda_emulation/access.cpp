#include "tests/cuda_emulation/access.h"

#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/races.h"
#include "tests/cuda_emulation/requests.h"
#include "tests/cuda_emulation/shared.h"

#include <stdio.h>

/* In random order a thread changes once in so many loads and stores. */
#define YIELD_ONE_IN 16

/* Of the program, from the linker. */
extern "C" char __executable_start;
extern "C" char _end;

static const char *const does[] = {"reads", "writes", "changes"};

/* Constants and tables of the program count as constant memory: that device code uses no other
 * variables of the host is for nvcc to say. */
static void check_host(const struct emu_lane *lane, const char *at, uint32_t size,
                       enum emu_access access, const void *code)
{
    const struct emu_call *call = lane->block->call;
    const char *params = static_cast<const char *>(call->params);
    if (access == EMU_ACCESS_READ && at >= params && at + size <= params + call->params_size)
        return;
    if (access == EMU_ACCESS_READ && at >= &__executable_start && at + size <= &_end)
        return;
    if (emu_memory_is_registered(at, size))
        return;
    char where[256];
    emu_fault_code(code, where, sizeof where);
    emu_raise_for(EMU_FAULT_HOST_MEMORY, lane, at,
                  "%s: the thread %s %u bytes of host memory, or of another thread's stack, at %p",
                  where, does[access], size, static_cast<const void *>(at));
}

[[noreturn]] static void fault_byte(const struct emu_lane *lane, const char *at, uint32_t size,
                                    enum emu_access access, unsigned char byte, const void *code)
{
    char what[256];
    char where[256];
    enum emu_fault_kind kind = EMU_FAULT_OUT_OF_BOUNDS;
    if (emu_shared_is(at))
        emu_shared_describe(at, what, sizeof what);
    else
        kind = emu_memory_describe(at, what, sizeof what);
    if (byte == EMU_BYTE_FRESH)
        kind = EMU_FAULT_UNINITIALISED;
    if (byte == EMU_BYTE_PENDING)
        kind = EMU_FAULT_ASYNC_COPY;
    emu_fault_code(code, where, sizeof where);
    emu_raise_for(kind, lane, at, "%s: the thread %s %u bytes at %p, %s", where, does[access], size,
                  static_cast<const void *>(at), what);
}

/* The bytes exist, and those that are read have been written. */
static void check_bytes(const struct emu_lane *lane, const char *at, uint32_t size,
                        enum emu_access access, unsigned char *bytes, const void *code)
{
    for (uint32_t i = 0; i < size; i++) {
        if (bytes[i] == EMU_BYTE_WRITTEN)
            continue;
        if (bytes[i] != EMU_BYTE_FRESH || access != EMU_ACCESS_WRITE)
            fault_byte(lane, at + i, size, access, bytes[i], code);
        bytes[i] = EMU_BYTE_WRITTEN;
    }
}

/* True where the access is to shared, device or pinned memory. */
static bool check(const struct emu_lane *lane, const char *at, uint32_t size,
                  enum emu_access access, const void *code)
{
    if (emu_shared_is(at)) {
        check_bytes(lane, at, size, access, emu_shared_bytes + (at - emu_shared_base), code);
    } else if (emu_memory_is_ours(at)) {
        check_bytes(lane, at, size, access, emu_memory_bytes + (at - emu_memory_base), code);
    } else {
        check_host(lane, at, size, access, code);
        return false;
    }
    emu_races_access(lane, at, size, access, code);
    return true;
}

/* Sizes are powers of two: of what one instruction of a device loads or stores. */
[[noreturn]] static void fault_misaligned(const void *at, uint32_t size, const void *code)
{
    char where[256];
    emu_fault_code(code, where, sizeof where);
    emu_raise(EMU_FAULT_MISALIGNED, at,
              "%s: the thread loads or stores %u bytes at %p, which is no "
              "multiple of that",
              where, size, at);
}

void emu_misaligned(const void *at, uint32_t size)
{
    fault_misaligned(at, size, __builtin_return_address(0));
}

void emu_access_at(const void *where, uint32_t size, enum emu_access access, const void *code)
{
    struct emu_lane *self = emu_self;
    const char *at = static_cast<const char *>(where);
    if (self == NULL || (size_t)(at - self->fiber.stack) < self->fiber.stack_size)
        return;
    if (emu_schedule_chance(YIELD_ONE_IN))
        emu_lane_yield(self);
    if (((uintptr_t)at & (size - 1)) != 0)
        fault_misaligned(at, size, code);
    if (check(self, at, size, access, code))
        emu_requests_add(self, at, size, access, code);
}

void emu_access_here(const void *at, uint32_t size, enum emu_access access, const void *code)
{
    if (emu_is_checked())
        emu_access_at(at, size, access, code);
}

void emu_access_of_lane(const struct emu_lane *lane, const void *at, uint32_t size,
                        enum emu_access access)
{
    if (emu_is_checked())
        check(lane, static_cast<const char *>(at), size, access, __builtin_return_address(0));
}

void emu_access_count_matrices(const struct emu_warp *warp)
{
    if (emu_is_checked())
        emu_requests_count_matrices(warp);
}
