/* The sampling passes as wide as AVX-512 has them, in plain C: the order of their words is tested
 * on machines without it. */
#include "tests/unit/engine/sample_wide.h"

#define SAMPLE_LANES 8
#define SAMPLE_TABLE sample_kernels_wide
#define SAMPLE_NAME  "wide"
#include "worker/kernels/cpu/body_sample.h"
