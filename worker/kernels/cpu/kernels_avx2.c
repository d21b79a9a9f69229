/* The kernels for AVX2; this file alone is compiled with its flags (CMakeLists.txt). */
#include "worker/kernels/cpu/vec_avx2.h"

#define BODY_TABLE cpu_kernels_avx2
#define BODY_NAME  "avx2"
#include "worker/kernels/cpu/kernel_bodies.h"
