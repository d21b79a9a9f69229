#include "tests/cuda_emulation/races.h"

#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Of the program, from the linker. */
extern "C" char __executable_start;

/* Of one byte, or of a word whose bytes have all been touched together. Epoch 0 is before all
 * launches. */
struct record {
    uint32_t write_epoch, write_time;
    uint32_t read_epoch, read_time, read_lanes; /* lanes of read_warp */
    uint32_t other_epoch;                       /* of a reader of another warp or block */
    uint32_t split_epoch; /* of a word: its bytes have records of their own since then */
    uint32_t write_thread : 10, write_atomic : 1, read_warp : 5, other_thread : 10;
    uint32_t write_code, read_code; /* where in the program, from its start */
};
static_assert(sizeof(struct record) == 40, "four bytes of device memory cost that much, or each");

/* Records of a range of memory: one for each word, and, where it is split, one for each byte. */
struct map {
    struct record *words, *bytes;
};

/* Times up to `seen[l][o]` of lane o's accesses are ordered before what lane l does now; up to
 * `all` those of every lane. */
struct warp_time {
    uint32_t now, all;
    bool partial; /* `seen` says more than `all` */
    uint32_t seen[EMU_WARP][EMU_WARP];
};

static struct map of_memory, of_shared;
static struct warp_time times[EMU_BLOCK_WARPS_MAX];
static uint32_t epoch, launch_epoch, block_epoch;
/* Epochs before this one do not count: of the launch, for shared memory of the block. */
static uint32_t first_epoch;

static struct record *records(size_t n)
{
    size_t bytes = n * sizeof(struct record);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        emu_raise(EMU_FAULT_TRAP, NULL, "the system refuses address space for the race checker");
    /* Huge pages would make much memory of the records of a few words. */
    madvise(at, bytes, MADV_NOHUGEPAGE);
    return static_cast<struct record *>(at);
}

void emu_races_prepare(void)
{
    of_memory = {records(EMU_MEMORY_BYTES / 4), records(EMU_MEMORY_BYTES)};
    of_shared = {records(EMU_SHARED_BYTES / 4), records(EMU_SHARED_BYTES)};
}

void emu_races_forget(const void *from, size_t bytes)
{
    size_t at = (size_t)(static_cast<const char *>(from) - emu_memory_base);
    madvise(of_memory.words + at / 4, bytes / 4 * sizeof(struct record), MADV_DONTNEED);
    madvise(of_memory.bytes + at, bytes * sizeof(struct record), MADV_DONTNEED);
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

/* --- Reports --- */

static uint32_t code_pack(const void *code)
{
    return (uint32_t)(static_cast<const char *>(code) - &__executable_start);
}

[[noreturn]] static void fault_race(enum emu_fault_kind kind, const struct emu_lane *self,
                                    const void *at, enum emu_access access, const char *other,
                                    uint32_t thread, const void *code, uint32_t other_code)
{
    static const char *const does[] = {"reads", "writes", "changes atomically"};
    char what[256];
    char where[256];
    char other_where[256];
    if (emu_shared_is(at))
        emu_shared_describe(at, what, sizeof what);
    else
        emu_memory_describe(at, what, sizeof what);
    emu_fault_code(code, where, sizeof where);
    emu_fault_code(&__executable_start + other_code, other_where, sizeof other_where);
    emu_raise_for(kind, self, at, "%s: the thread %s %s, which thread %u of %s %s at %s", where,
                  does[access], what, thread,
                  kind == EMU_FAULT_RACE ? "the block" : "another block", other, other_where);
}

/* --- One record --- */

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
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, wrote, r->write_thread, code,
                   r->write_code);
    if (r->write_epoch != epoch || r->write_thread == self->index)
        return;
    if (r->write_thread / EMU_WARP != self->warp->index ||
        !is_ordered(self, r->write_thread % EMU_WARP, r->write_time))
        fault_race(EMU_FAULT_RACE, self, at, access, wrote, r->write_thread, code, r->write_code);
}

static void check_reads(const struct record *r, const struct emu_lane *self, const void *at,
                        enum emu_access access, const void *code)
{
    uint32_t first = r->read_warp * EMU_WARP;
    if (is_other_block(r->other_epoch))
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, "read", r->other_thread, code,
                   r->read_code);
    if (is_other_block(r->read_epoch))
        fault_race(EMU_FAULT_BLOCK_RACE, self, at, access, "read",
                   first + (uint32_t)__builtin_ctz(r->read_lanes), code, r->read_code);
    if (r->other_epoch == epoch && r->other_thread / EMU_WARP != self->warp->index)
        fault_race(EMU_FAULT_RACE, self, at, access, "read", r->other_thread, code, r->read_code);
    if (r->read_epoch != epoch)
        return;
    for (uint32_t lanes = r->read_lanes; lanes != 0; lanes &= lanes - 1) {
        uint32_t lane = (uint32_t)__builtin_ctz(lanes);
        if (r->read_warp != self->warp->index || !is_ordered(self, lane, r->read_time))
            fault_race(EMU_FAULT_RACE, self, at, access, "read", first + lane, code, r->read_code);
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
            (r->read_warp * EMU_WARP + (uint32_t)__builtin_ctz(r->read_lanes)) & 0x3ffu;
    }
    r->read_epoch = epoch;
    r->read_time = now;
    r->read_lanes = bit;
    r->read_warp = self->warp->index & 0x1fu;
}

static void touch(struct record *r, const struct emu_lane *self, const char *at,
                  enum emu_access access, const void *code)
{
    if (r->write_epoch >= first_epoch)
        check_write(r, self, at, access, code);
    if (access == EMU_ACCESS_READ) {
        keep_read(r, self);
        r->read_code = code_pack(code);
        return;
    }
    if (r->read_epoch >= first_epoch)
        check_reads(r, self, at, access, code);
    r->write_epoch = epoch;
    r->write_code = code_pack(code);
    r->write_time = times[self->warp->index].now;
    r->write_thread = self->index & 0x3ffu;
    r->write_atomic = access == EMU_ACCESS_ATOMIC;
}

/* Bytes of a word are told apart from the first access on that takes some of them only. */
static void split(struct map *map, size_t word)
{
    for (size_t i = 0; i < 4; i++)
        map->bytes[4 * word + i] = map->words[word];
    map->words[word].split_epoch = epoch;
}

void emu_races_access(const struct emu_lane *self, const void *at, uint32_t size,
                      enum emu_access access, const void *code)
{
    const char *byte = static_cast<const char *>(at);
    bool is_shared = emu_shared_is(at);
    struct map *map = is_shared ? &of_shared : &of_memory;
    size_t from = (size_t)(byte - (is_shared ? emu_shared_base : emu_memory_base));
    first_epoch = is_shared ? block_epoch : launch_epoch;
    for (size_t i = 0; i < size;) {
        size_t word = (from + i) / 4;
        bool is_split = map->words[word].split_epoch >= first_epoch;
        if ((from + i) % 4 == 0 && size - i >= 4 && !is_split) {
            touch(&map->words[word], self, byte + i, access, code);
            i += 4;
            continue;
        }
        if (!is_split)
            split(map, word);
        touch(&map->bytes[from + i], self, byte + i, access, code);
        i++;
    }
}
