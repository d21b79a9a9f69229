/* Which table of sampling passes an instruction set means. */
#include "worker/kernels/sample.h"

#include "worker/kernels/cpu/sample_tables.h"

const struct sample_kernels *sample_kernels_of(enum backend_isa isa)
{
#if defined(__x86_64__)
    bool is_auto = isa == BACKEND_ISA_AUTO;
    bool is_512 = is_auto || isa == BACKEND_ISA_AVX512 || isa == BACKEND_ISA_AMX;
    if (is_512 && backend_isa_available(BACKEND_ISA_AVX512))
        return &sample_kernels_avx512;
    if ((is_auto || isa == BACKEND_ISA_AVX2) && backend_isa_available(BACKEND_ISA_AVX2))
        return &sample_kernels_avx2;
#endif
    return isa == BACKEND_ISA_AUTO || isa == BACKEND_ISA_SCALAR ? &sample_kernels_scalar : NULL;
}
