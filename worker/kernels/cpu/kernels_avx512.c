/* The kernels for AVX-512; this file alone is compiled with its flags (CMakeLists.txt). */
#include "worker/kernels/cpu/vec_avx512.h"

#define BODY_TABLE cpu_kernels_avx512
#define BODY_NAME  "avx512"
#include "worker/kernels/cpu/kernel_bodies.h"
