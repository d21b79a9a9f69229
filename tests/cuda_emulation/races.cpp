#include "tests/cuda_emulation/races.h"

#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Of one byte. Epoch 0 is before all launches. */
struct record {
    uint32_t write_epoch, write_time;
    uint16_t write_thread;
    uint16_t write_atomic;
    uint32_t read_epoch, read_time, read_lanes; /* lanes of read_warp */
    uint16_t read_warp;
    uint16_t other_thread; /* a reader of another warp or block */
    uint32_t other_epoch;
};
static_assert(sizeof(struct record) == 32, "a byte of device memory costs that much");

/* Times up to `seen[l][o]` of lane o's accesses are ordered before what lane l does now; up to
 * `all` those of every lane. */
struct warp_time {
    uint32_t now, all;
    bool partial; /* `seen` says more than `all` */
    uint32_t seen[EMU_WARP][EMU_WARP];
};

static struct record *of_memory;
static struct record *of_shared;
static struct warp_time times[EMU_BLOCK_WARPS_MAX];
static uint32_t epoch, launch_epoch, block_epoch;
/* Epochs before this one do not count: of the launch, for shared memory of the block. */
static uint32_t first_epoch;

static struct record *map(size_t bytes)
{
    void *at = mmap(NULL, bytes * sizeof(struct record), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        emu_raise(EMU_FAULT_TRAP, NULL, "the system refuses address space for the race checker");
    /* A huge page would be 64 KB of checked memory whose first byte was touched. */
    madvise(at, bytes * sizeof(struct record), MADV_NOHUGEPAGE);
    return static_cast<struct record *>(at);
}

void emu_races_prepare(void)
{
    of_memory = map(EMU_MEMORY_BYTES);
    of_shared = map(EMU_SHARED_BYTES);
}

void emu_races_forget(const void *from, size_t bytes)
{
    madvise(of_memory + (static_cast<const char *>(from) - emu_memory_base),
            bytes * sizeof(struct record), MADV_DONTNEED);
}

void emu_races_launch_begin(void)
{
    launch_epoch = epoch + 1;
}

void emu_races_block_begin(void)
{
    block_epoch = ++epoch;
}

void emu_races_barrier(void)
{
    epoch++;
}

void emu_races_warp_sync(const struct emu_warp *warp, uint32_t mask)
{
    struct warp_time *t = &times[warp->index];
    t->now++;
    if (mask == (warp->present & ~warp->exited)) {
        t->all = t->now;
        t->partial = false;
        return;
    }
    if (!t->partial)
        for (uint32_t l = 0; l < EMU_WARP; l++)
            for (uint32_t o = 0; o < EMU_WARP; o++)
                t->seen[l][o] = t->all;
    t->partial = true;
    uint32_t joined[EMU_WARP] = {0};
    for (uint32_t l = 0; l < EMU_WARP; l++)
        for (uint32_t o = 0; (mask >> l & 1u) != 0 && o < EMU_WARP; o++)
            joined[o] = t->seen[l][o] > joined[o] ? t->seen[l][o] : joined[o];
    for (uint32_t l = 0; l < EMU_WARP; l++)
        for (uint32_t o = 0; (mask >> l & 1u) != 0 && o < EMU_WARP; o++)
            t->seen[l][o] = (mask >> o & 1u) != 0 ? t->now : joined[o];
}

/* What `lane` of the warp did at `time` is ordered before what `self` does now. */
static bool is_ordered(const struct emu_lane *self, uint32_t lane, uint32_t time)
{
    const struct warp_time *t = &times[self->warp->index];
    return lane == self->lane || time < t->all || (t->partial && time < t->seen[self->lane][lane]);
}

/* --- Reports
 * -------------------------------------------------------------------------------------------- */

[[noreturn]] static void fault_race(enum emu_fault_kind kind, const struct emu_lane *self,
                                    const void *at, enum emu_access access, const char *other,
                                    uint32_t thread, const void *code)
{
    static const char *const does[] = {"reads", "writes", "changes atomically"};
    char what[256];
    char where[256];
    if (emu_shared_is(at))
        emu_shared_describe(at, what, sizeof what);
    else
        emu_memory_describe(at, what, sizeof what);
    emu_fault_code(code, where, sizeof where);
    emu_raise_for(kind, self, at, "%s: the thread %s %s, which thread %u of %s %s", where,
                  does[access], what, thread,
                  kind == EMU_FAULT_RACE ? "the block" : "another block", other);
}

/* --- One byte
 * ------------------------------------------------------------------------------------------- */

static bool is_other_block(uint32_t of)
{
    return of >= first_epoch && of < block_epoch;
}

static void check_write(const struct record *r, const struct emu_lane *self, const void *at,
                        enum emu_access access, const void *code)
{
    const char *wrote = r->write_atomic ? "changed atomically" : "wrote";
    if (access == EMU_ACCESS_ATOMIC && r->write_atomic)
        return;
    if (is_other_block(r->write_epoch))
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, wrote, r->write_thread, code);
    if (r->write_epoch != epoch || r->write_thread == self->index)
        return;
    if (r->write_thread / EMU_WARP != self->warp->index ||
        !is_ordered(self, r->write_thread % EMU_WARP, r->write_time))
        fault_race(EMU_FAULT_RACE, self, at, access, wrote, r->write_thread, code);
}

static void check_reads(const struct record *r, const struct emu_lane *self, const void *at,
                        enum emu_access access, const void *code)
{
    uint32_t first = r->read_warp * EMU_WARP;
    if (is_other_block(r->other_epoch))
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, "read", r->other_thread, code);
    if (is_other_block(r->read_epoch))
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, "read",
                   first + (uint32_t)__builtin_ctz(r->read_lanes), code);
    if (r->other_epoch == epoch && r->other_thread / EMU_WARP != self->warp->index)
        fault_race(EMU_FAULT_RACE, self, at, access, "read", r->other_thread, code);
    if (r->read_epoch != epoch)
        return;
    for (uint32_t lanes = r->read_lanes; lanes != 0; lanes &= lanes - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(lanes);
        if (r->read_warp != self->warp->index || !is_ordered(self, lane, r->read_time))
            fault_race(EMU_FAULT_RACE, self, at, access, "read", first + lane, code);
    }
}

static void keep_read(struct record *r, const struct emu_lane *self)
{
    uint32_t now = times[self->warp->index].now;
    uint32_t bit = 1u << self->lane;
    if (r->read_epoch == epoch && r->read_warp == self->warp->index) {
        if (r->read_time == now) {
            r->read_lanes |= bit;
            return;
        }
        /* Those that are ordered before this read are so before all that it is ordered before. */
        for (uint32_t lanes = r->read_lanes; lanes != 0; lanes &= lanes - 1) {
            uint32_t lane = (uint32_t)__builtin_ctz(lanes);
            if (is_ordered(self, lane, r->read_time))
                r->read_lanes &= ~(1u << lane);
        }
        r->read_lanes |= bit;
        r->read_time = now;
        return;
    }
    /* A reader of another block stays known for the rest of the launch. */
    if ((r->read_epoch == epoch || is_other_block(r->read_epoch)) &&
        !is_other_block(r->other_epoch)) {
        r->other_epoch = r->read_epoch;
        r->other_thread =
            (uint16_t)(r->read_warp * EMU_WARP + (uint32_t)__builtin_ctz(r->read_lanes));
    }
    r->read_epoch = epoch;
    r->read_time = now;
    r->read_lanes = bit;
    r->read_warp = (uint16_t)self->warp->index;
}

void emu_races_access(const struct emu_lane *self, const void *at, uint32_t size,
                      enum emu_access access, const void *code)
{
    const char *byte = static_cast<const char *>(at);
    bool is_shared = emu_shared_is(at);
    struct record *r =
        is_shared ? of_shared + (byte - emu_shared_base) : of_memory + (byte - emu_memory_base);
    first_epoch = is_shared ? block_epoch : launch_epoch;
    uint32_t now = times[self->warp->index].now;
    for (uint32_t i = 0; i < size; i++, r++) {
        if (r->write_epoch >= first_epoch)
            check_write(r, self, byte + i, access, code);
        if (access == EMU_ACCESS_READ) {
            keep_read(r, self);
            continue;
        }
        if (r->read_epoch >= first_epoch)
            check_reads(r, self, byte + i, access, code);
        r->write_epoch = epoch;
        r->write_time = now;
        r->write_thread = (uint16_t)self->index;
        r->write_atomic = access == EMU_ACCESS_ATOMIC;
    }
}
