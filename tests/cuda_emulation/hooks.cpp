/*
 * hooks.cpp - what code compiled with -fsanitize=thread calls: before each load and store, with its
 * address and size in the name. Names and signatures are GCC's (sanitizer.def), their meaning that
 * of compiler-rt's tsan_interface.h; libtsan is not linked.
 */
#include "tests/cuda_emulation/access.h"

#include <string.h>

static bool checked;

bool emu_is_checked(void)
{
    return checked;
}

/* Called by the constructor of each file that is compiled so. */
extern "C" void __tsan_init(void);
extern "C" void __tsan_init(void)
{
    checked = true;
}

#define HOOK(name, size, access)                                                                   \
    extern "C" void name(void *at);                                                                \
    extern "C" void name(void *at)                                                                 \
    {                                                                                              \
        emu_access_at(at, size, access, __builtin_return_address(0));                              \
    }

HOOK(__tsan_read1, 1, EMU_ACCESS_READ)
HOOK(__tsan_read2, 2, EMU_ACCESS_READ)
HOOK(__tsan_read4, 4, EMU_ACCESS_READ)
HOOK(__tsan_read8, 8, EMU_ACCESS_READ)
HOOK(__tsan_read16, 16, EMU_ACCESS_READ)
HOOK(__tsan_write1, 1, EMU_ACCESS_WRITE)
HOOK(__tsan_write2, 2, EMU_ACCESS_WRITE)
HOOK(__tsan_write4, 4, EMU_ACCESS_WRITE)
HOOK(__tsan_write8, 8, EMU_ACCESS_WRITE)
HOOK(__tsan_write16, 16, EMU_ACCESS_WRITE)

/* Of types that promise less than their size; a device's compiler splits them into bytes. */
static void bytes_at(const void *at, uint32_t size, enum emu_access access, const void *code)
{
    const char *byte = static_cast<const char *>(at);
    for (uint32_t i = 0; i < size; i++)
        emu_access_at(byte + i, 1, access, code);
}

#define HOOK_UNALIGNED(name, size, access)                                                         \
    extern "C" void name(void *at);                                                                \
    extern "C" void name(void *at)                                                                 \
    {                                                                                              \
        bytes_at(at, size, access, __builtin_return_address(0));                                   \
    }

HOOK_UNALIGNED(__tsan_unaligned_read2, 2, EMU_ACCESS_READ)
HOOK_UNALIGNED(__tsan_unaligned_read4, 4, EMU_ACCESS_READ)
HOOK_UNALIGNED(__tsan_unaligned_read8, 8, EMU_ACCESS_READ)
HOOK_UNALIGNED(__tsan_unaligned_read16, 16, EMU_ACCESS_READ)
HOOK_UNALIGNED(__tsan_unaligned_write2, 2, EMU_ACCESS_WRITE)
HOOK_UNALIGNED(__tsan_unaligned_write4, 4, EMU_ACCESS_WRITE)
HOOK_UNALIGNED(__tsan_unaligned_write8, 8, EMU_ACCESS_WRITE)
HOOK_UNALIGNED(__tsan_unaligned_write16, 16, EMU_ACCESS_WRITE)

/* Structs of other sizes. */
extern "C" void __tsan_read_range(void *at, long size);
extern "C" void __tsan_read_range(void *at, long size)
{
    bytes_at(at, (uint32_t)size, EMU_ACCESS_READ, __builtin_return_address(0));
}

extern "C" void __tsan_write_range(void *at, long size);
extern "C" void __tsan_write_range(void *at, long size)
{
    bytes_at(at, (uint32_t)size, EMU_ACCESS_WRITE, __builtin_return_address(0));
}

/* Instrumented only where the option that leaves them out is not known. */
extern "C" void __tsan_func_entry(void *caller);
extern "C" void __tsan_func_entry(void *)
{
}

extern "C" void __tsan_func_exit(void *caller);
extern "C" void __tsan_func_exit(void *)
{
}

extern "C" void __tsan_vptr_update(void *at, void *value);
extern "C" void __tsan_vptr_update(void *, void *)
{
}

/* Guards of static variables in the host code of a .cu file. */
#define HOOK_ATOMIC(bits, type)                                                                    \
    extern "C" type __tsan_atomic##bits##_load(const volatile void *at, int order);                \
    extern "C" type __tsan_atomic##bits##_load(const volatile void *at, int)                       \
    {                                                                                              \
        return __atomic_load_n(static_cast<const volatile type *>(at), __ATOMIC_SEQ_CST);          \
    }                                                                                              \
    extern "C" void __tsan_atomic##bits##_store(volatile void *at, type value, int order);         \
    extern "C" void __tsan_atomic##bits##_store(volatile void *at, type value, int)                \
    {                                                                                              \
        __atomic_store_n(static_cast<volatile type *>(at), value, __ATOMIC_SEQ_CST);               \
    }

HOOK_ATOMIC(8, uint8_t)
HOOK_ATOMIC(32, uint32_t)
HOOK_ATOMIC(64, uint64_t)

/* --- Accesses that wrappers announce (cuda_runtime.h) --- */

void emu_checked_touch(const void *at, uint32_t size, enum emu_access access)
{
    emu_access_at(at, size, access, __builtin_return_address(0));
}

void emu_checked_copy(void *to, const void *from, uint32_t size)
{
    memcpy(to, from, size);
}
