#include "tests/cuda_emulation/fiber.h"

#include <stdint.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>

static void asan_leaving(void **keep, const struct emu_fiber *to)
{
    __sanitizer_start_switch_fiber(keep, to->stack, to->stack_size);
}

static void asan_arrived(struct emu_fiber *self, struct emu_fiber *from)
{
    const void *stack;
    size_t size;
    __sanitizer_finish_switch_fiber(self->asan_stack, &stack, &size);
    /* The OS thread's own stack is known from the first change away from it. */
    if (from->stack == NULL) {
        from->stack = static_cast<char *>(const_cast<void *>(stack));
        from->stack_size = size;
    }
}
#else
static void asan_leaving(void **, const struct emu_fiber *)
{
}

static void asan_arrived(struct emu_fiber *, struct emu_fiber *)
{
}
#endif

/* Which change is under way; one OS thread each. */
static thread_local struct emu_fiber *change_from;
static thread_local struct emu_fiber *change_to;
static thread_local void (*start_entry)(void);

static void fiber_begin(void)
{
    asan_arrived(change_to, change_from);
    start_entry();
}

#ifdef __x86_64__
/* swap(void **save, void *load): the registers that the System V ABI has a function keep. */
__asm__(".text\n"
        ".p2align 4\n"
        ".type emu_fiber_swap, @function\n"
        "emu_fiber_swap:\n"
        "    push %rbp\n"
        "    push %rbx\n"
        "    push %r12\n"
        "    push %r13\n"
        "    push %r14\n"
        "    push %r15\n"
        "    mov %rsp, (%rdi)\n"
        "    mov %rsi, %rsp\n"
        "    pop %r15\n"
        "    pop %r14\n"
        "    pop %r13\n"
        "    pop %r12\n"
        "    pop %rbx\n"
        "    pop %rbp\n"
        "    ret\n"
        ".size emu_fiber_swap, . - emu_fiber_swap\n");
extern "C" void emu_fiber_swap(void **save, void *load);

void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void))
{
    start_entry = entry;
    /* As if the fiber had called swap from the first instruction of fiber_begin: six registers, the
     * place to go on, and a return address that nothing returns to, which leaves the stack aligned
     * as at a call. */
    void **top = reinterpret_cast<void **>(fiber->stack + fiber->stack_size);
    *--top = NULL;
    *--top = reinterpret_cast<void *>(fiber_begin);
    for (int i = 0; i < 6; i++)
        *--top = NULL;
    fiber->sp = top;
    fiber->asan_stack = NULL;
}

static void fiber_swap(struct emu_fiber *from, struct emu_fiber *to)
{
    emu_fiber_swap(&from->sp, to->sp);
}
#else
void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void))
{
    start_entry = entry;
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = fiber->stack_size;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_begin, 0);
    fiber->asan_stack = NULL;
}

static void fiber_swap(struct emu_fiber *from, struct emu_fiber *to)
{
    swapcontext(&from->context, &to->context);
}
#endif

void emu_fiber_change(struct emu_fiber *from, struct emu_fiber *to)
{
    change_from = from;
    change_to = to;
    asan_leaving(&from->asan_stack, to);
    fiber_swap(from, to);
    asan_arrived(from, change_from);
}

void emu_fiber_leave(struct emu_fiber *from, struct emu_fiber *to)
{
    change_from = from;
    change_to = to;
    asan_leaving(NULL, to);
    fiber_swap(from, to);
    __builtin_unreachable();
}
