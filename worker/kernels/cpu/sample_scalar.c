/* The passes of sample.h for the base architecture: what the others are compared with. */
#include "worker/kernels/cpu/sample_tables.h"

#define SAMPLE_TABLE sample_kernels_scalar
#define SAMPLE_NAME  "scalar"
#include "worker/kernels/cpu/body_sample.h"
