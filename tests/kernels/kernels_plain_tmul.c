/* The 16-lane kernels with tile registers, over wrappers in plain C: the logic of the AMX kernels
 * on any machine. */
#include "worker/kernels/cpu/vec_plain.h"
#include "worker/kernels/cpu/tmul_plain.h"

#define BODY_TABLE cpu_kernels_plain_tmul
#define BODY_NAME  "plain_tmul"
#include "tests/kernels/fixture.h"
#include "worker/kernels/cpu/kernel_bodies.h"
