/*
 * fault.h - how a kernel's mistake ends the process: one report, then abort(); or, in the child of
 * emu_fault_of, the report to the parent.
 */
#ifndef CLOISTER_TESTS_CUDA_EMULATION_FAULT_H
#define CLOISTER_TESTS_CUDA_EMULATION_FAULT_H

#include "tests/cuda_emulation/emulation.h"

struct emu_lane;

/* Blames the running thread, or, in host code, names the kernel that is meant to run, if any. */
[[noreturn]] void emu_raise(enum emu_fault_kind kind, const void *address, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
[[noreturn]] void emu_raise_for(enum emu_fault_kind kind, const struct emu_lane *lane,
                                const void *address, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Where in the program a load or store stands, "kernels.cu:12" where addr2line is there to say.
 * Slow: for reports. */
void emu_fault_code(const void *code, char *ret_text, size_t size);

/* Memory without access guards buffers and stacks: what touches it is reported. Called again and
 * again, since a test's frame may have taken the signals for itself meanwhile. */
void emu_fault_catch_signals(void);

#endif
