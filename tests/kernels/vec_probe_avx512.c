#include "worker/kernels/cpu/vec_avx512.h"

#define PROBE vec_probe_avx512
#include "tests/kernels/vec_probe.h"
