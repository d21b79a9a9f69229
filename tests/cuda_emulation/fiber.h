/*
 * fiber.h - stacks that one OS thread changes between: a CUDA thread each.
 *
 * On x86-64 a change is a dozen instructions (the callee-saved registers and the stack pointer),
 * since a block of 256 threads makes 256 of them per barrier; elsewhere it is swapcontext. Control
 * words of the floating-point units are not saved: no kernel sets them.
 *
 * Ownership: the caller's stack memory. Thread: fibers stay on the OS thread that started them.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_FIBER_H
#define CLOISTER_TESTS_CUDA_EMULATION_FIBER_H

#include <stddef.h>

#ifndef __x86_64__
#include <ucontext.h>
#endif

struct emu_fiber {
    char *stack;
    size_t stack_size;
#ifdef __x86_64__
    void *sp;
#else
    ucontext_t context;
#endif
    void *asan_stack; /* what ASan keeps of a fiber that is not running */
};

/* `entry` runs at the first change to the fiber, and never returns: it ends with emu_fiber_leave.
 * The stack of the fiber that runs first, the OS thread's own, is not given: `stack` stays NULL. */
void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void));
void emu_fiber_change(struct emu_fiber *from, struct emu_fiber *to);
/* Changes for good: `from` may be started anew. */
void emu_fiber_leave(struct emu_fiber *from, struct emu_fiber *to);

#endif
