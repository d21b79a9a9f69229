/* The passes of sample.h for AVX2; compiled with its flags (CMakeLists.txt). */
#include "worker/kernels/cpu/sample_tables.h"

#define SAMPLE_TABLE sample_kernels_avx2
#define SAMPLE_NAME  "avx2"
#include "worker/kernels/cpu/body_sample.h"
