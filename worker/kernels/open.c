/* Which backend a configuration means, and whether this machine can run it. */
#include "worker/kernels/backend.h"
#include "worker/kernels/cpu/kernels.h"
#include "worker/kernels/host.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Leaf 7, register D; older compilers' cpuid.h has not got them. */
#define CPUID_AMX_TILE (1u << 24)
#define CPUID_AMX_INT8 (1u << 25)

/* Linux makes room for a thread's tile registers only in a process that has asked, for itself and
 * all its threads (Documentation/arch/x86/xstate.rst). Whether it said yes. */
static bool cpu_tiles_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif

/* NULL where this machine and its operating system can run it, else what is missing. */
static const char *cpu_isa_lacks(enum backend_isa isa)
{
#if defined(__x86_64__)
    uint32_t a;
    uint32_t b;
    uint32_t c;
    uint32_t d;
    if (!__get_cpuid(1, &a, &b, &c, &d))
        return "cpuid";
    if ((c & bit_FMA) == 0)
        return "FMA";
    if ((c & bit_F16C) == 0)
        return "F16C";
    if ((c & bit_OSXSAVE) == 0)
        return "support of the operating system for AVX";
    /* Which registers the system saves on a task switch: XMM and YMM; for 512 bits also the mask
     * registers and both parts of ZMM. */
    uint32_t saved;
    uint32_t saved_high;
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(saved_high) : "c"(0));
    if ((saved & 0x6u) != 0x6u)
        return "support of the operating system for AVX";
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (b & bit_AVX2) == 0)
        return "AVX2";
    if (isa == BACKEND_ISA_AVX2)
        return NULL;
    if ((saved & 0xe6u) != 0xe6u)
        return "support of the operating system for AVX-512";
    if ((b & bit_AVX512F) == 0)
        return "AVX-512 F";
    if ((b & bit_AVX512BW) == 0)
        return "AVX-512 BW";
    if ((b & bit_AVX512VL) == 0)
        return "AVX-512 VL";
    if ((c & bit_AVX512VNNI) == 0)
        return "AVX-512 VNNI";
    if (isa == BACKEND_ISA_AVX512)
        return NULL;
    if ((d & CPUID_AMX_TILE) == 0)
        return "AMX-TILE";
    if ((d & CPUID_AMX_INT8) == 0)
        return "AMX-INT8";
    if ((saved & 0x60000u) != 0x60000u || !cpu_tiles_permitted())
        return "support of the operating system for AMX";
    return NULL;
#else
    (void)isa;
    return "an x86-64 processor";
#endif
}

const char *const backend_isa_names[] = {
    [BACKEND_ISA_AUTO] = "auto",     [BACKEND_ISA_SCALAR] = "scalar", [BACKEND_ISA_AVX2] = "avx2",
    [BACKEND_ISA_AVX512] = "avx512", [BACKEND_ISA_AMX] = "amx",       NULL};

bool backend_isa_parse(const char *text, enum backend_isa *ret_isa)
{
    for (size_t i = 0; backend_isa_names[i] != NULL; i++) {
        if (strcmp(text, backend_isa_names[i]) == 0) {
            *ret_isa = (enum backend_isa)i;
            return true;
        }
    }
    return false;
}

bool backend_isa_available(enum backend_isa isa)
{
    if (isa == BACKEND_ISA_AUTO || isa == BACKEND_ISA_SCALAR)
        return true;
    if (isa != BACKEND_ISA_AVX2 && isa != BACKEND_ISA_AVX512 && isa != BACKEND_ISA_AMX)
        return false;
    /* A virtual machine's host answers cpuid, which takes it some 20 microseconds, and an estimate
     * asks for every matrix of a model. 0: not asked yet. */
    static atomic_int answer[BACKEND_ISA_AMX + 1];
    int known = atomic_load_explicit(&answer[isa], memory_order_relaxed);
    if (known == 0) {
        known = cpu_isa_lacks(isa) == NULL ? 1 : -1;
        atomic_store_explicit(&answer[isa], known, memory_order_relaxed);
    }
    return known > 0;
}

enum backend_isa backend_isa_resolve(enum backend_isa isa)
{
    if (isa != BACKEND_ISA_AUTO)
        return isa;
    return backend_isa_available(BACKEND_ISA_AMX)      ? BACKEND_ISA_AMX
           : backend_isa_available(BACKEND_ISA_AVX512) ? BACKEND_ISA_AVX512
           : backend_isa_available(BACKEND_ISA_AVX2)   ? BACKEND_ISA_AVX2
                                                       : BACKEND_ISA_SCALAR;
}

const struct cpu_kernels *cpu_kernels_of(enum backend_isa isa)
{
#if defined(__x86_64__)
    return isa == BACKEND_ISA_AVX2     ? &cpu_kernels_avx2
           : isa == BACKEND_ISA_AVX512 ? &cpu_kernels_avx512
           : isa == BACKEND_ISA_AMX    ? &cpu_kernels_amx
                                       : NULL;
#else
    (void)isa;
    return NULL;
#endif
}

enum err backend_cpu_open(struct backend **ret_backend, const struct backend_cpu_config *config,
                          struct errbuf *eb)
{
    enum backend_isa isa = backend_isa_resolve(config->isa);
    if (isa == BACKEND_ISA_SCALAR)
        return ref_backend_new(ret_backend, eb);
    if (isa != BACKEND_ISA_AVX2 && isa != BACKEND_ISA_AVX512 && isa != BACKEND_ISA_AMX)
        return err_set(eb, ERR_INVALID, "instruction set %d does not exist", (int)isa);
    const char *lacks = cpu_isa_lacks(isa);
    if (lacks != NULL)
        return err_set(eb, ERR_UNSUPPORTED, "instruction set %s: this machine lacks %s",
                       backend_isa_names[isa], lacks);
    return cpu_backend_new(cpu_kernels_of(isa), config->threads, ret_backend, eb);
}
