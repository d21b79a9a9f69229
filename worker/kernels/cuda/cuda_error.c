/* What a failed call means: a message, or the end of the process. */
#include "worker/kernels/cuda/cuda_internal.h"

#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

/* Those of which the runtime's reference (CUDA 13.0, enum cudaError) says that all further work
 * fails and the process must be started anew, and of the device's memory and links. */
bool cuda_is_sticky(cudaError_t e)
{
    switch (e) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

/* _exit: what runs at exit would ask the device to give its memory back, and wait for the answer.
 */
static _Noreturn void cuda_end(cudaError_t e, const char *kernel, const char *text)
{
    log_error("CUDA: %s%s%s%s: %s (%s); the process ends, since a GPU that has failed answers only "
              "to another one",
              text, kernel != NULL ? " (" : "", kernel != NULL ? kernel : "",
              kernel != NULL ? ")" : "", cudaGetErrorName(e), cudaGetErrorString(e));
    (void)fflush(stderr);
    _exit(BACKEND_EXIT_DEVICE);
}

void cuda_fail(cudaError_t e, const char *kernel, const char *fmt, ...)
{
    char text[ERRBUF_BYTES];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    cuda_end(e, kernel, text);
}

static enum err cuda_error_code(cudaError_t e)
{
    switch (e) {
    case cudaErrorMemoryAllocation:
        return ERR_NO_MEMORY;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInsufficientDriver:
        return ERR_UNSUPPORTED;
    case cudaErrorNoDevice:
    case cudaErrorInvalidDevice:
    case cudaErrorDevicesUnavailable:
    case cudaErrorInitializationError:
        return ERR_UNAVAILABLE;
    default:
        return ERR_INTERNAL;
    }
}

enum err cuda_error(struct errbuf *eb, cudaError_t e, const char *fmt, ...)
{
    char text[ERRBUF_BYTES];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (cuda_is_sticky(e))
        cuda_end(e, NULL, text);
    /* The error stays with the thread until somebody asks; the next launch is not at fault. */
    (void)cudaGetLastError();
    return err_set(eb, cuda_error_code(e), "%s: %s (%s)", text, cudaGetErrorName(e),
                   cudaGetErrorString(e));
}
