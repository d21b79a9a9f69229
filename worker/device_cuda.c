#include "worker/device.h"

/* The engine opens the CPU's backend only. */
enum err device_cuda_check(struct errbuf *eb)
{
    return err_set(eb, ERR_UNSUPPORTED, "this build has no CUDA backend");
}
