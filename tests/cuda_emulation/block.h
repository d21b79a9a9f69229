/*
 * block.h - one block of a launch as it runs: its threads, who may run, who waits for what.
 *
 * Blocks run one after another on the OS thread that waits for the stream, threads change at
 * barriers and warp functions. The next to run is the schedule's choice (schedule.cpp) among
 * those that can; when none can and not all have exited, the kernel is at fault.
 *
 * Thread: all of it under the lock of the runtime (stream.h).
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_BLOCK_H
#define CLOISTER_TESTS_CUDA_EMULATION_BLOCK_H

#include "tests/cuda_emulation/emulation.h"
#include "tests/cuda_emulation/fiber.h"

#include <cuda_runtime.h>

#include <vector>

#define EMU_WARP              32u
#define EMU_BLOCK_THREADS_MAX 1024u
#define EMU_BLOCK_WARPS_MAX   (EMU_BLOCK_THREADS_MAX / EMU_WARP)
#define EMU_ALL_LANES         0xffffffffu
/* The most words a lane hands to a warp function: fragments of m16n8k32. */
#define EMU_EXCHANGE_WORDS 10

struct emu_block;
struct emu_warp;

enum emu_lane_state {
    EMU_LANE_READY = 0, /* also: running */
    EMU_LANE_AT_BARRIER = 1,
    EMU_LANE_AT_WARP_FUNCTION = 2,
    EMU_LANE_EXITED = 3,
};

/* What a warp function makes of its lanes' words: called once, when the last lane of the mask is
 * there. */
typedef void emu_warp_finish(struct emu_warp *warp, uint32_t mask);

struct emu_async_copy {
    void *shared;
    const void *global;
    bool valid;
    uint32_t group;
};

/* One CUDA thread. */
struct emu_lane {
    struct emu_fiber fiber;
    struct emu_block *block;
    struct emu_warp *warp;
    uint3 thread_idx;
    uint32_t index; /* in the block */
    uint32_t lane;  /* in the warp */
    enum emu_lane_state state;
    emu_place place; /* where it waits, last waited, or exited */

    /* The warp function it is at. */
    uint32_t mask;
    emu_warp_finish *finish;
    const char *function; /* its name; the same pointer for the same function */
    uint32_t parameter;   /* of the function, the same or not in all lanes */
    uint32_t parameter2;
    uint32_t in[EMU_EXCHANGE_WORDS];
    const void *in_address;
    uint32_t out[EMU_EXCHANGE_WORDS];

    std::vector<emu_async_copy> copies;
    uint32_t copy_group; /* number of the group that is being filled */
};

struct emu_warp {
    struct emu_lane *lanes; /* [32], of which `present` exist */
    uint32_t index;
    uint32_t present;
    uint32_t exited;
    uint32_t ready;
    uint32_t arrived; /* wait at a warp function */
};

struct emu_block {
    const struct emu_call *call;
    uint3 block_idx;
    uint64_t linear; /* of the block in the grid */
    uint32_t n_threads, n_warps;
    uint32_t n_exited;

    uint32_t n_at_barrier;
    emu_place barrier_place; /* of the first that came */
    enum emu_barrier_kind barrier_kind;
    int barrier_sum;    /* predicates so far that are true */
    int barrier_result; /* of the barrier that was last left */

    struct emu_warp warps[EMU_BLOCK_WARPS_MAX];
    struct emu_lane *lanes; /* [EMU_BLOCK_THREADS_MAX] */
    struct emu_fiber outside;
};

/* The running CUDA thread of this OS thread, or NULL in host code. */
extern thread_local struct emu_lane *emu_self __attribute__((tls_model("initial-exec")));
/* The running thread; faults in host code, where `function` has no business. */
struct emu_lane *emu_lane_here(const char *function);

/* The kernel whose launch is under way, for reports that no thread is to blame for; or NULL. */
extern const char *emu_kernel_now;

/* Runs the whole grid. */
void emu_grid_run(const struct emu_call *call);

/* The running lane waits at a warp function with `mask`; `in` and parameters are set. On return
 * `out` has what `finish` put there. */
void emu_warp_meet(struct emu_lane *self, const char *function, uint32_t mask,
                   emu_warp_finish *finish, emu_place place);

/* Another thread's turn, this one staying able to run: random schedules at loads and stores. */
void emu_lane_yield(struct emu_lane *self);

/* --- The schedule (schedule.cpp) --- */

/* The lane to run after `from` (NULL: at the start); NULL when none is ready. */
struct emu_lane *emu_schedule_next(struct emu_block *block, const struct emu_lane *from);
/* The block that runs as number `i` of `n`: a permutation. */
void emu_schedule_blocks_begin(uint64_t n);
uint64_t emu_schedule_block(uint64_t i);
/* True once in `n` times, by the seed, in random order; else false. */
bool emu_schedule_chance(uint32_t n);
uint32_t emu_schedule_random(uint32_t n);
/* What fresh memory holds. */
unsigned char emu_schedule_poison(void);

#endif
