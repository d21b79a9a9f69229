#include "worker/kernels/cpu/vec_plain.h"

#define PROBE vec_probe_plain
#include "tests/kernels/vec_probe.h"
