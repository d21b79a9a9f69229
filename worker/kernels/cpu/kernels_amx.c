/* The kernels for AVX-512 with products of many columns on tile registers (AMX); this file alone is
 * compiled with its flags (CMakeLists.txt). */
#include "worker/kernels/cpu/vec_avx512.h"
#include "worker/kernels/cpu/tmul_amx.h"

#define BODY_TABLE cpu_kernels_amx
#define BODY_NAME  "amx"
#include "worker/kernels/cpu/kernel_bodies.h"
