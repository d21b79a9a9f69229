/* The wrappers of AVX-512 with SIMDe's portable bodies in place of the instructions: simde/ comes
 * before the compiler's own headers. */
#include "worker/kernels/cpu/vec_avx512.h"

#define PROBE vec_probe_simde
#include "tests/kernels/vec_probe.h"
