#include "tests/cuda_emulation/block.h"

#include "tests/cuda_emulation/counters.h"
#include "tests/cuda_emulation/fault.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/races.h"
#include "tests/cuda_emulation/requests.h"
#include "tests/cuda_emulation/shared.h"

#include <stdio.h>
#include <sys/mman.h>

#define STACK_BYTES ((size_t)256 << 10)
#define STACK_GUARD ((size_t)4096)
/* Stacks that all began at the same place in a page would fight for the same lines of the cache. */
#define STACK_STAGGER ((size_t)576)

thread_local struct emu_lane *emu_self;
const char *emu_kernel_now;

static struct emu_block block;

uint3 emu_thread_idx(void)
{
    return emu_lane_here("threadIdx")->thread_idx;
}

uint3 emu_block_idx(void)
{
    return emu_lane_here("blockIdx")->block->block_idx;
}

uint3 emu_block_dim(void)
{
    dim3 d = emu_lane_here("blockDim")->block->call->block;
    return uint3{d.x, d.y, d.z};
}

uint3 emu_grid_dim(void)
{
    dim3 d = emu_lane_here("gridDim")->block->call->grid;
    return uint3{d.x, d.y, d.z};
}

struct emu_lane *emu_lane_here(const char *function)
{
    if (emu_self == NULL)
        emu_raise(EMU_FAULT_TRAP, NULL, "%s in host code", function);
    return emu_self;
}

/* Stacks live as long as the process: blocks come by the thousand. Untouched pages cost nothing. */
static void lanes_prepare(void)
{
    if (block.lanes != NULL)
        return;
    block.lanes = new emu_lane[EMU_BLOCK_THREADS_MAX]();
    size_t bytes = EMU_BLOCK_THREADS_MAX * STACK_BYTES;
    void *stacks = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        emu_raise(EMU_FAULT_STACK, NULL, "no room for the stacks of a block");
    for (uint32_t i = 0; i < EMU_BLOCK_THREADS_MAX; i++) {
        char *stack = static_cast<char *>(stacks) + i * STACK_BYTES;
        mprotect(stack, STACK_GUARD, PROT_NONE);
        block.lanes[i].fiber.stack = stack + STACK_GUARD;
        block.lanes[i].fiber.stack_size = STACK_BYTES - STACK_GUARD - i % 128 * STACK_STAGGER;
        block.lanes[i].block = &block;
        block.lanes[i].index = i;
        block.lanes[i].lane = i % EMU_WARP;
        block.lanes[i].warp = &block.warps[i / EMU_WARP];
    }
    for (uint32_t w = 0; w < EMU_BLOCK_WARPS_MAX; w++) {
        block.warps[w].index = w;
        block.warps[w].lanes = &block.lanes[w * EMU_WARP];
    }
}

/* --- Changing threads --- */

static void place_waiting(char *text, size_t size, const struct emu_lane *lane)
{
    const uint3 t = lane->thread_idx;
    if (lane->state == EMU_LANE_EXITED)
        snprintf(text, size, "thread (%u,%u,%u) has exited", t.x, t.y, t.z);
    else
        snprintf(text, size, "thread (%u,%u,%u) waits at %s of %s:%d", t.x, t.y, t.z,
                 lane->state == EMU_LANE_AT_WARP_FUNCTION ? lane->function : "the barrier",
                 lane->place.file, lane->place.line);
}

/* Nobody can run and not all have exited. All at one barrier would have been let go, and a barrier
 * of some is found as they come, so somebody is at a warp function for which the others will not
 * come. */
[[noreturn]] static void fault_stuck(void)
{
    const struct emu_lane *stuck = &block.lanes[0];
    while (stuck->state != EMU_LANE_AT_WARP_FUNCTION)
        stuck++;
    char waits[256];
    char other[256] = "";
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        const struct emu_lane *mate = &stuck->warp->lanes[l];
        if ((stuck->mask >> l & 1u) != 0 &&
            (mate->state != EMU_LANE_AT_WARP_FUNCTION || mate->function != stuck->function ||
             mate->mask != stuck->mask))
            place_waiting(other, sizeof other, mate);
    }
    place_waiting(waits, sizeof waits, stuck);
    emu_raise_for(EMU_FAULT_LANE_MISSING, stuck, NULL, "%s, mask 0x%08x, but %s", waits,
                  stuck->mask, other);
}

static void lane_switch(struct emu_lane *self, struct emu_lane *next)
{
    if (next == self)
        return;
    emu_self = next;
    emu_fiber_change(&self->fiber, &next->fiber);
}

/* `after` NULL: the schedule begins again, as after a barrier. */
static void lane_wait(struct emu_lane *self, const struct emu_lane *after)
{
    struct emu_lane *next = emu_schedule_next(&block, after);
    if (next == NULL)
        fault_stuck();
    lane_switch(self, next);
}

void emu_lane_yield(struct emu_lane *self)
{
    lane_switch(self, emu_schedule_next(&block, self));
}

/* --- The life of a thread --- */

static void lane_exit(struct emu_lane *self)
{
    struct emu_warp *warp = self->warp;
    self->state = EMU_LANE_EXITED;
    warp->ready &= ~(1u << self->lane);
    warp->exited |= 1u << self->lane;
    block.n_exited++;
    if (block.n_at_barrier > 0)
        emu_raise(EMU_FAULT_BARRIER_DIVERGENCE, NULL,
                  "the thread exits while others wait at the barrier of %s:%d",
                  block.barrier_place.file, block.barrier_place.line);
    for (uint32_t l = 0; warp->arrived != 0 && l < EMU_WARP; l++) {
        const struct emu_lane *mate = &warp->lanes[l];
        if ((warp->arrived >> l & 1u) != 0 && (mate->mask >> self->lane & 1u) != 0)
            emu_raise(
                EMU_FAULT_LANE_MISSING, NULL,
                "the thread (lane %u) exits while lane %u waits for it at %s of %s:%d, mask 0x%08x",
                self->lane, l, mate->function, mate->place.file, mate->place.line, mate->mask);
    }
    if (emu_is_checked() && (warp->exited & warp->present) == warp->present)
        emu_requests_flush(warp);
}

static void lane_entry(void)
{
    struct emu_lane *self = emu_self;
    block.call->invoke(block.call->params);
    lane_exit(self);
    struct emu_lane *next = NULL;
    if (block.n_exited < block.n_threads) {
        next = emu_schedule_next(&block, self);
        if (next == NULL)
            fault_stuck();
    }
    emu_self = next;
    emu_fiber_leave(&self->fiber, next != NULL ? &next->fiber : &block.outside);
}

static void block_start(const struct emu_call *call, uint64_t linear)
{
    const dim3 g = call->grid;
    const dim3 b = call->block;
    block.call = call;
    block.linear = linear;
    block.block_idx = uint3{(unsigned)(linear % g.x), (unsigned)(linear / g.x % g.y),
                            (unsigned)(linear / g.x / g.y)};
    block.n_threads = b.x * b.y * b.z;
    block.n_warps = (block.n_threads + EMU_WARP - 1) / EMU_WARP;
    block.n_exited = 0;
    block.n_at_barrier = 0;
    block.barrier_sum = 0;
    for (uint32_t i = 0; i < block.n_threads; i++) {
        struct emu_lane *lane = &block.lanes[i];
        lane->thread_idx = uint3{i % b.x, i / b.x % b.y, i / b.x / b.y};
        lane->state = EMU_LANE_READY;
        lane->place = emu_place{"", 0};
        lane->copies.clear();
        lane->copy_group = 0;
        emu_fiber_start(&lane->fiber, lane_entry);
    }
    for (uint32_t w = 0; w < block.n_warps; w++) {
        uint32_t left = block.n_threads - w * EMU_WARP;
        struct emu_warp *warp = &block.warps[w];
        warp->present = left >= EMU_WARP ? EMU_ALL_LANES : (1u << left) - 1;
        warp->ready = warp->present;
        warp->exited = 0;
        warp->arrived = 0;
    }
}

void emu_grid_run(const struct emu_call *call)
{
    lanes_prepare();
    emu_fault_catch_signals();
    emu_kernel_now = call->kernel;
    uint64_t n_blocks = (uint64_t)call->grid.x * call->grid.y * call->grid.z;
    emu_schedule_blocks_begin(n_blocks);
    emu_counters_begin(call->kernel);
    emu_races_launch_begin();
    emu_requests_launch_begin();
    for (uint64_t i = 0; i < n_blocks; i++) {
        block_start(call, emu_schedule_block(i));
        emu_shared_block_begin(call);
        emu_races_block_begin();
        struct emu_lane *first = emu_schedule_next(&block, NULL);
        emu_self = first;
        emu_fiber_change(&block.outside, &first->fiber);
        emu_self = NULL;
        emu_shared_block_end(&block);
    }
    emu_memory_check_patterns();
    emu_kernel_now = NULL;
    emu_counters_end(n_blocks, block.n_threads, emu_shared_most());
}

/* --- Barriers --- */

static void barrier_arrive(struct emu_lane *self, enum emu_barrier_kind kind, emu_place place)
{
    if (block.n_exited > 0) {
        char other[256] = "";
        for (uint32_t i = 0; i < block.n_threads; i++)
            if (block.lanes[i].state == EMU_LANE_EXITED)
                place_waiting(other, sizeof other, &block.lanes[i]);
        emu_raise(EMU_FAULT_BARRIER_DIVERGENCE, NULL,
                  "the thread is at the barrier of %s:%d, but %s", place.file, place.line, other);
    }
    if (block.n_at_barrier == 0) {
        block.barrier_place = place;
        block.barrier_kind = kind;
        block.barrier_sum = 0;
    } else if (block.barrier_place.line != place.line || block.barrier_kind != kind ||
               strcmp(block.barrier_place.file, place.file) != 0) {
        emu_raise(EMU_FAULT_BARRIER_DIVERGENCE, NULL,
                  "the thread is at the barrier of %s:%d while others wait at that of %s:%d",
                  place.file, place.line, block.barrier_place.file, block.barrier_place.line);
    }
    block.n_at_barrier++;
    self->state = EMU_LANE_AT_BARRIER;
    self->warp->ready &= ~(1u << self->lane);
}

static void barrier_release(void)
{
    int sum = block.barrier_sum;
    int all = (int)block.n_threads;
    block.barrier_result = block.barrier_kind == EMU_BARRIER_AND  ? sum == all
                           : block.barrier_kind == EMU_BARRIER_OR ? sum != 0
                                                                  : sum;
    block.n_at_barrier = 0;
    for (uint32_t i = 0; i < block.n_threads; i++)
        block.lanes[i].state = EMU_LANE_READY;
    for (uint32_t w = 0; w < block.n_warps; w++) {
        block.warps[w].ready = block.warps[w].present;
        if (emu_is_checked())
            emu_requests_flush(&block.warps[w]);
    }
    emu_counters_now()->barriers++;
    emu_races_barrier();
}

int emu_barrier(enum emu_barrier_kind kind, int predicate, emu_place place)
{
    struct emu_lane *self = emu_lane_here("__syncthreads");
    self->place = place;
    barrier_arrive(self, kind, place);
    block.barrier_sum += predicate != 0;
    bool last = block.n_at_barrier == block.n_threads;
    if (last)
        barrier_release();
    lane_wait(self, last ? NULL : self);
    return block.barrier_result;
}

/* --- Warp functions --- */

/* All lanes of the mask wait: they must wait for the same. */
static void warp_check_same(const struct emu_lane *self, uint32_t mask)
{
    for (uint32_t l = 0; l < EMU_WARP; l++) {
        const struct emu_lane *mate = &self->warp->lanes[l];
        if ((mask >> l & 1u) != 0 && (mate->function != self->function || mate->mask != mask))
            emu_raise(
                EMU_FAULT_LANE_MISSING, NULL,
                "the thread is at %s of %s:%d, mask 0x%08x, but lane %u, which the mask names, at "
                "%s of %s:%d, mask 0x%08x",
                self->function, self->place.file, self->place.line, mask, l, mate->function,
                mate->place.file, mate->place.line, mate->mask);
    }
}

void emu_warp_meet(struct emu_lane *self, const char *function, uint32_t mask,
                   emu_warp_finish *finish, emu_place place)
{
    struct emu_warp *warp = self->warp;
    self->place = place;
    self->mask = mask;
    self->finish = finish;
    self->function = function;
    uint32_t live = warp->present & ~warp->exited;
    if ((mask >> self->lane & 1u) == 0)
        emu_raise(EMU_FAULT_LANE_MISSING, NULL,
                  "%s of %s:%d: lane %u is not in its own mask 0x%08x", function, place.file,
                  place.line, self->lane, mask);
    if ((mask & ~live) != 0)
        emu_raise(EMU_FAULT_LANE_MISSING, NULL,
                  "%s of %s:%d: mask 0x%08x names lanes 0x%08x that %s", function, place.file,
                  place.line, mask, mask & ~live,
                  (mask & ~warp->present) != 0 ? "the block does not have" : "have exited");
    warp->arrived |= 1u << self->lane;
    warp->ready &= ~(1u << self->lane);
    self->state = EMU_LANE_AT_WARP_FUNCTION;
    if ((warp->arrived & mask) == mask) {
        warp_check_same(self, mask);
        finish(warp, mask);
        warp->arrived &= ~mask;
        warp->ready |= mask;
        for (uint32_t l = 0; l < EMU_WARP; l++)
            if ((mask >> l & 1u) != 0)
                warp->lanes[l].state = EMU_LANE_READY;
        if (emu_is_checked() && mask == live)
            emu_requests_flush(warp);
        emu_counters_now()->warp_functions++;
    }
    lane_wait(self, self);
}
