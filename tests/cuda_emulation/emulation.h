/*
 * emulation.h - CUDA on the CPU, for tests: the product's .cu files are compiled as C++ against
 * include/, run on one OS thread with a fiber for each CUDA thread, and watched. C and C++.
 *
 * To test a kernel:
 *
 * 1. In CMake, as a rule twice, once per mode:
 *
 *        cloister_emulated_library(rows_plain MODE plain SOURCES .../rows.cu)
 *        cloister_emulated_library(rows_checked MODE checked SOURCES .../rows.cu)
 *
 *    A program links libraries of one mode. Its own code calls the launchers of the .cu file and
 *    the runtime API, as the product does, and does not know that there is no device.
 *
 * 2. Run everything under each schedule, and compare the results:
 *
 *        for (int i = 0; i < EMU_SCHEDULES; i++) {
 *            emu_schedule_set(emu_schedule_of(i));
 *            ... cudaMalloc, cudaMemcpyAsync, launcher, cudaStreamSynchronize ...
 *        }
 *
 *    They differ in the order of blocks and threads, in where threads change, in what fresh
 *    memory holds, and in when queued work runs. Or run the program once for each value of
 *    CUDA_EMULATION_SCHEDULE.
 *
 * 3. A fault (enum emu_fault_kind) ends the process with a report on stderr. A test that wants one
 *    calls emu_fault_of.
 *
 * 4. After a checked run emu_counters_get(kernel, &c) has sectors, bank conflicts and bytes.
 *
 * Modes. Plain: -O2, for whole models. Memory is guarded by patterns and by pages without access;
 * barriers, warp functions and the alignment of vectors are checked. Checked: compiled with
 * -fsanitize=thread, of which only the calls before each load and store are used; they end here,
 * and not in libtsan. What this header says of single loads and stores needs checked mode.
 *
 * What runs when. Work of a stream is queued. It runs when something waits for it (forward), as
 * soon as it is queued (reverse), or at a moment that the seed decides (random); streams keep to
 * their own order and to events, and to nothing else. So it shows when a buffer is used before its
 * copy ran, or an event is not waited for. Until a copy has run, its destination in pinned memory
 * holds nothing of use, and a change of its source there is a fault.
 *
 * Stricter than a device. A warp function's mask names lanes that exist and have not exited; no
 * thread exits before a barrier that others come to; host code may not touch device memory.
 *
 * Approximations:
 *
 * - Memory is not weakly ordered: one thread runs at a time, and each store is seen at once. What
 *   others might see late is left to the race checker, for which __syncthreads orders all threads,
 *   __syncwarp the lanes it names, and nothing else does: no fence, no atomic, no shuffle. So work
 *   that the last block of a launch does for the others is reported.
 * - Of host memory that was registered only that is checked; to its bytes and races nobody looks.
 * - Between streams there is no race checker; there are schedules.
 * - Requests, for the counters: the n-th accesses of a warp's lanes by the same instruction since
 *   their last common point (a barrier, a warp function of all lanes). Behind a divergent branch
 *   this may join what a device would do apart. Caches are not modelled. Local memory (the stack)
 *   and registers are not seen, and GCC's choice of them is not ptxas's.
 * - A memcpy of more than a few bytes in a kernel is not seen. (Vectors are, by device.h's
 *   wrappers, by __ldg, and as GCC compiles them here also as plain loads and stores.)
 * - A thread that spins until another one stores something spins for ever, except in checked mode
 *   in random order. Registers, occupancy and time are not a device's.
 *
 * Thread: tests set it up from one thread, while no work is queued.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_EMULATION_H
#define CLOISTER_TESTS_CUDA_EMULATION_EMULATION_H

#include <cuda_runtime_api.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- Schedules --- */

enum emu_order {
    EMU_ORDER_FORWARD = 0, /* blocks, warps and lanes ascending; streams run when waited for */
    EMU_ORDER_REVERSE = 1, /* descending; streams run at once */
    EMU_ORDER_RANDOM = 2,  /* by the seed; in checked mode threads change at loads and stores too */
};

struct emu_schedule {
    enum emu_order order;
    uint64_t seed; /* of EMU_ORDER_RANDOM */
};

/* Those a test should run under: forward, reverse, and random with two seeds. */
#define EMU_SCHEDULES 4
struct emu_schedule emu_schedule_of(int index);

/* The first schedule is what CUDA_EMULATION_SCHEDULE says ("forward", "reverse", "random:SEED"), or
 * forward. */
void emu_schedule_set(struct emu_schedule schedule);
struct emu_schedule emu_schedule_get(void);
const char *emu_order_name(enum emu_order order);

/* True where a .cu file of this program was compiled in checked mode. */
bool emu_is_checked(void);

/* --- The device --- */

struct emu_device {
    int count;           /* devices; each has all that follows */
    size_t memory_bytes; /* cudaMalloc fails where they do not suffice */
    int major, minor;    /* compute capability */
    int multiprocessors;
    size_t shared_bytes_max; /* of a block, after cudaFuncSetAttribute; 48 KB without it */
};

/* One of compute capability 9.0, 132 multiprocessors, 227 KB of shared memory and 4 GB, or as many
 * bytes as CUDA_EMULATION_MEMORY says; or as many devices as CUDA_EMULATION_DEVICES says. What
 * CUDA_VISIBLE_DEVICES says shows in their UUIDs alone. */
struct emu_device emu_device_get(void);
void emu_device_set(const struct emu_device *device);

/* From now on devices compute nothing: memory has addresses and no contents, and launches and
 * copies are checked, and counted, and not run. For what a step of a model of any size queues. Each
 * launch is told to `launched`; NULL ends it. While nothing is allocated. */
struct emu_launched {
    const char *kernel; /* as it is launched */
    uint64_t blocks;
    uint32_t threads;
    size_t shared_bytes; /* dynamic */
};
void emu_dry(void (*launched)(void *ctx, const struct emu_launched *l), void *ctx);

/* Bytes that cudaMalloc has given and cudaFree not taken back. */
size_t emu_memory_used(void);

/* --- Errors a device would report --- */

/* The n-th call from now (1: the next) of this function of the runtime API, or of any where NULL,
 * returns `error`. A sticky one is returned by every later call as well, as after a fault of the
 * device; emu_inject_clear ends that. */
void emu_inject_call(const char *function, uint64_t n, cudaError_t error, bool sticky);
/* The n-th launch of the kernel (any where NULL) fails as it runs: whoever waits for it gets the
 * error, and so does every later call. */
void emu_inject_launch(const char *kernel, uint64_t n, cudaError_t error);
/* Every call of it, until emu_inject_clear. */
void emu_inject_always(const char *function, cudaError_t error);
void emu_inject_clear(void);
/* Calls of the runtime API so far, so that a test can fail each of them in turn. */
uint64_t emu_calls(void);

/* --- Faults --- */

enum emu_fault_kind {
    EMU_FAULT_NONE = 0,
    EMU_FAULT_OUT_OF_BOUNDS = 1,  /* beside an allocation or shared array */
    EMU_FAULT_USE_AFTER_FREE = 2, /* device memory that was freed */
    EMU_FAULT_UNINITIALISED = 3,  /* read of memory that nobody wrote */
    EMU_FAULT_RACE = 4,           /* threads of a block, no barrier between, one of them writing */
    EMU_FAULT_BLOCK_RACE = 5,     /* the same of two blocks of a launch */
    EMU_FAULT_MISALIGNED = 6,     /* an access that is not aligned to its size */
    EMU_FAULT_HOST_MEMORY = 7,    /* a kernel that touches host memory nobody registered */
    EMU_FAULT_BARRIER_DIVERGENCE = 8, /* a thread exits, or waits elsewhere */
    EMU_FAULT_LANE_MISSING = 9, /* a warp function whose mask names a lane that is not there */
    EMU_FAULT_ASYNC_COPY = 10,  /* what a copy to shared memory brings, touched before its wait */
    EMU_FAULT_HOST_BUFFER = 11, /* a pinned buffer changed before its copy ran */
    EMU_FAULT_STACK = 12,       /* a thread's local memory is used up, or damaged */
    EMU_FAULT_TRAP = 13,        /* __trap() */
    EMU_FAULT_HOST_ACCESS = 14, /* host code that touches device memory */
};

struct emu_fault {
    enum emu_fault_kind kind;
    char kernel[128]; /* empty where no kernel was running */
    unsigned block[3], thread[3];
    const void *address; /* NULL where none is meant */
    char text[768];      /* the report, in lines */
};

const char *emu_fault_name(enum emu_fault_kind kind);

/* Runs `body` in a child process and says how it ended: true with *ret_fault filled where a fault
 * ended it, false where it returned. A child that ends in any other way ends this process too. */
bool emu_fault_of(void (*body)(void *ctx), void *ctx, struct emu_fault *ret_fault);

/* --- Counters --- */

struct emu_counters {
    uint64_t launches, blocks, threads;
    /* Global memory, per warp request. Useful bytes are those the lanes asked for, each once; moved
     * ones are the 32-byte sectors they lie in. */
    uint64_t load_requests, load_sectors, load_bytes_useful;
    uint64_t store_requests, store_sectors, store_bytes_useful;
    uint64_t atomics;
    /* Shared memory: a request takes at least one wavefront for each 128 bytes; conflicts are those
     * on top of that. */
    uint64_t shared_requests, shared_wavefronts, shared_conflicts;
    /* In both modes. */
    uint64_t mma, ldmatrix, async_copies, barriers, warp_functions;
    uint64_t shared_bytes; /* the most a block had, static and dynamic */
};

/* Of one kernel, by the name of its launch, over all its launches; of all where NULL. False where
 * there was none. */
bool emu_counters_get(const char *kernel, struct emu_counters *ret_counters);
/* Useful bytes over moved bytes, 0 .. 1; 1 where nothing moved. */
double emu_load_efficiency(const struct emu_counters *counters);
double emu_store_efficiency(const struct emu_counters *counters);
void emu_counters_reset(void);
/* A line per kernel on stdout. */
void emu_counters_print(void);

/* Copies, sets, launches and records of events so far; `pageable` are asynchronous copies from or
 * to memory that is not pinned. */
struct emu_traffic {
    uint64_t copies, copy_bytes, pageable_copies, sets, graph_launches, launches, records;
};
struct emu_traffic emu_traffic_get(void);

/* --- Other libraries --- */

/* Puts work on a stream that is done by others, a little at each `turn`, until that returns true:
 * what NCCL's kernels are on a device. Device memory may be touched in it. A turn is taken when the
 * stream is looked at or waited for. */
void emu_stream_outside(void *queue, bool (*turn)(void *arg), void *arg);

#ifdef __cplusplus
}
#endif

#endif
