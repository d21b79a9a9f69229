/*
 * Lets a worker take the device `cuda` where there is no GPU: it computes on the CPU, to the same
 * bits, and takes its memory for the GPU's. What the stand-in for NVML says so goes the whole way
 * that a real one's words go.
 */
#include "worker/device.h"

enum err device_cuda_check(struct errbuf *eb)
{
    (void)eb;
    return ERR_OK;
}
