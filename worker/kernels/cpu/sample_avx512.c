/* The passes of sample.h for AVX-512; compiled with its flags (CMakeLists.txt). */
#include "worker/kernels/cpu/sample_tables.h"

#define SAMPLE_TABLE sample_kernels_avx512
#define SAMPLE_NAME  "avx512"
#include "worker/kernels/cpu/body_sample.h"
