#include "tests/cuda_emulation/fault.h"

#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/memory.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIGNAL_STACK_BYTES ((size_t)1 << 16)

/* In the child of emu_fault_of: where the report goes. */
static int report_to = -1;

const char *emu_fault_name(enum emu_fault_kind kind)
{
    static const char *const names[] = {
        "none",
        "out of bounds",
        "use after free",
        "uninitialised read",
        "race in a block",
        "race between blocks",
        "misaligned access",
        "host memory in a kernel",
        "barrier divergence",
        "lane missing at a warp function",
        "asynchronous copy not waited for",
        "host buffer changed before its copy ran",
        "stack",
        "trap",
        "device memory in host code",
    };
    return names[kind];
}

[[noreturn]] static void report(enum emu_fault_kind kind, const struct emu_lane *lane,
                                const void *address, const char *format, va_list args)
{
    struct emu_fault fault = {};
    char what[512];
    char where[192] = "";
    vsnprintf(what, sizeof what, format, args);
    fault.kind = kind;
    fault.address = address;
    if (lane != NULL) {
        const uint3 b = lane->block->block_idx;
        const uint3 t = lane->thread_idx;
        const unsigned in_grid[3] = {b.x, b.y, b.z};
        const unsigned in_block[3] = {t.x, t.y, t.z};
        memcpy(fault.block, in_grid, sizeof in_grid);
        memcpy(fault.thread, in_block, sizeof in_block);
        snprintf(fault.kernel, sizeof fault.kernel, "%s", lane->block->call->kernel);
        snprintf(where, sizeof where, " in kernel %s, block (%u,%u,%u), thread (%u,%u,%u)",
                 fault.kernel, b.x, b.y, b.z, t.x, t.y, t.z);
    } else if (emu_kernel_now != NULL) {
        snprintf(fault.kernel, sizeof fault.kernel, "%s", emu_kernel_now);
        snprintf(where, sizeof where, " in kernel %s", fault.kernel);
    }
    snprintf(fault.text, sizeof fault.text, "CUDA emulation: %s%s [%s]\n    %s\n",
             emu_fault_name(kind), where, emu_order_name(emu_schedule_get().order), what);
    if (report_to >= 0) {
        ssize_t written = write(report_to, &fault, sizeof fault);
        _exit(written == (ssize_t)sizeof fault ? 0 : 1);
    }
    fputs(fault.text, stderr);
    fflush(NULL);
    abort();
}

void emu_raise(enum emu_fault_kind kind, const void *address, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(kind, emu_self, address, format, args);
}

void emu_raise_for(enum emu_fault_kind kind, const struct emu_lane *lane, const void *address,
                   const char *format, ...)
{
    va_list args;
    va_start(args, format);
    report(kind, lane, address, format, args);
}

void emu_fault_code(const void *code, char *ret_text, size_t size)
{
    Dl_info info;
    snprintf(ret_text, size, "code %p", code);
    if (dladdr(code, &info) == 0 || info.dli_fname == NULL)
        return;
    char command[512];
    /* The byte before a return address is in the call. */
    uintptr_t at = (uintptr_t)code - 1;
    snprintf(command, sizeof command, "addr2line -s -i -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
             (size_t)(at - (uintptr_t)info.dli_fbase));
    FILE *tool = popen(command, "r");
    if (tool == NULL)
        return;
    /* The innermost inlined function first, then who called it. */
    char line[256];
    size_t length = 0;
    while (fgets(line, sizeof line, tool) != NULL && line[0] != '?' && length < size) {
        line[strcspn(line, " (\n")] = '\0';
        if (strncmp(line, "cuda_runtime.h", 14) != 0)
            length += (size_t)snprintf(ret_text + length, size - length, "%s%s",
                                       length > 0 ? " from " : "", line);
    }
    pclose(tool);
}

/* --- Signals --- */

static struct sigaction before_us[2]; /* SIGSEGV, SIGBUS */

static void signal_caught(int signal, siginfo_t *info, void *)
{
    const char *at = static_cast<const char *>(info->si_addr);
    const struct emu_lane *lane = emu_self;
    char text[256];
    if (lane != NULL && at < lane->fiber.stack && at >= lane->fiber.stack - 4096)
        emu_raise(EMU_FAULT_STACK, at, "the thread's stack of %zu KB is used up",
                  lane->fiber.stack_size >> 10);
    if (emu_memory_is_ours(at)) {
        enum emu_fault_kind kind = emu_memory_describe(at, text, sizeof text);
        emu_raise(kind, at, "%p: %s", at, text);
    }
    /* Not ours: whoever was there before, at the same instruction again. */
    sigaction(signal, &before_us[signal == SIGBUS], NULL);
}

static void catch_signal(int signal, struct sigaction *before)
{
    struct sigaction now;
    sigaction(signal, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == signal_caught)
        return;
    struct sigaction action = {};
    action.sa_sigaction = signal_caught;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(signal, &action, before);
}

/* A thread's stack for the handler, since one that is used up leaves no room for it. A sanitizer
 * gives threads one of its own, and takes it for granted. */
class signal_stack {
  public:
    signal_stack()
    {
        stack_t stack = {};
        if (sigaltstack(NULL, &stack) == 0 && (stack.ss_flags & SS_DISABLE) == 0)
            return;
        room = static_cast<char *>(malloc(SIGNAL_STACK_BYTES));
        stack = {};
        stack.ss_sp = room;
        stack.ss_size = SIGNAL_STACK_BYTES;
        sigaltstack(&stack, NULL);
    }
    ~signal_stack()
    {
        if (room == NULL)
            return;
        stack_t none = {};
        none.ss_flags = SS_DISABLE;
        sigaltstack(&none, NULL);
        free(room);
    }
    signal_stack(const signal_stack &) = delete;

  private:
    char *room = NULL;
};

void emu_fault_catch_signals(void)
{
    static thread_local signal_stack stack;
    (void)stack;
    catch_signal(SIGSEGV, &before_us[0]);
    catch_signal(SIGBUS, &before_us[1]);
}

/* --- Faults that a test wants --- */

bool emu_fault_of(void (*body)(void *ctx), void *ctx, struct emu_fault *ret_fault)
{
    int ends[2];
    if (pipe(ends) != 0) {
        perror("pipe");
        abort();
    }
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        abort();
    }
    if (child == 0) {
        close(ends[0]);
        report_to = ends[1];
        body(ctx);
        fflush(NULL);
        _exit(0);
    }
    close(ends[1]);
    ssize_t got;
    do {
        got = read(ends[0], ret_fault, sizeof *ret_fault);
    } while (got < 0 && errno == EINTR);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "emu_fault_of: the child ended with status 0x%x and without a report\n",
                (unsigned)status);
        abort();
    }
    if (got != (ssize_t)sizeof *ret_fault) {
        memset(ret_fault, 0, sizeof *ret_fault);
        return false;
    }
    return true;
}
