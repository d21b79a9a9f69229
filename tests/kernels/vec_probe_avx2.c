#include "worker/kernels/cpu/vec_avx2.h"

#define PROBE vec_probe_avx2
#include "tests/kernels/vec_probe.h"
