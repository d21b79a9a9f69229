/* planted_libm.cu - a kernel with a function of libm that rounds: what check_libm.py is for. */
#include "worker/kernels/cuda/device.h"

__global__ void exponentials(float *x)
{
    x[threadIdx.x] = expf(x[threadIdx.x]);
}
