/* The 16-lane kernels over wrappers in plain C: the logic of the AVX-512 kernels on any machine. */
#include "worker/kernels/cpu/vec_plain.h"

#define BODY_TABLE cpu_kernels_plain
#define BODY_NAME  "plain16"
#include "tests/kernels/fixture.h"
#include "worker/kernels/cpu/kernel_bodies.h"
