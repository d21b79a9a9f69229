/* launch.cpp - launches: what a device would refuse of one, and the closure that is queued. */
#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/stream.h"

#include <map>

/* What a block may have without asking (CUDA C++ Programming Guide, "Compute Capabilities"). */
#define SHARED_BYTES_DEFAULT ((size_t)48 << 10)

static std::map<const void *, size_t> shared_allowed; /* by kernel */

cudaError_t cudaFuncSetAttribute(const void *func, enum cudaFuncAttribute attr, int value)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (func == NULL)
        return api.end(cudaErrorInvalidDeviceFunction);
    switch (attr) {
    case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || (size_t)value > emu_device_get().shared_bytes_max)
            return api.end(cudaErrorInvalidValue);
        shared_allowed[func] = (size_t)value;
        return api.end(cudaSuccess);
    case cudaFuncAttributePreferredSharedMemoryCarveout:
        return api.end(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
    }
    return api.end(cudaErrorInvalidValue);
}

static cudaError_t check_launch(const struct emu_call *call)
{
    const dim3 g = call->grid;
    const dim3 b = call->block;
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
        return cudaErrorInvalidConfiguration;
    if (b.x == 0 || b.y == 0 || b.z == 0 || b.x > 1024 || b.y > 1024 || b.z > 64 ||
        b.x * b.y * b.z > EMU_BLOCK_THREADS_MAX)
        return cudaErrorInvalidConfiguration;
    auto allowed = shared_allowed.find(call->function);
    size_t most = allowed != shared_allowed.end() ? allowed->second : SHARED_BYTES_DEFAULT;
    if (call->shared_bytes > most && call->shared_bytes > SHARED_BYTES_DEFAULT)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static void (*dry_launched)(void *ctx, const struct emu_launched *l);
static void *dry_ctx;

void emu_dry(void (*launched)(void *ctx, const struct emu_launched *l), void *ctx)
{
    dry_launched = launched;
    dry_ctx = ctx;
}

bool emu_is_dry(void)
{
    return dry_launched != NULL;
}

void emu_launch(const struct emu_call *call, cudaStream_t handle)
{
    emu_api api("cudaLaunchKernel");
    struct CUstream_st *stream = emu_stream_of(handle);
    cudaError_t error = api.error;
    if (error == cudaSuccess && stream == NULL)
        error = cudaErrorInvalidResourceHandle;
    if (error == cudaSuccess)
        error = check_launch(call);
    if (error != cudaSuccess) {
        api.end(error);
        return;
    }
    emu_traffic_now.launches++;
    if (emu_is_dry()) {
        const dim3 g = call->grid, b = call->block;
        const struct emu_launched l = {call->kernel, (uint64_t)g.x * g.y * g.z, b.x * b.y * b.z,
                                       call->shared_bytes};
        dry_launched(dry_ctx, &l);
        return;
    }
    size_t words = (call->params_size + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t);
    struct emu_work work = {};
    work.kind = EMU_WORK_LAUNCH;
    work.call = *call;
    work.params = std::make_shared<std::vector<std::max_align_t>>(words);
    memcpy(work.params->data(), call->params, call->params_size);
    emu_stream_add(stream, work);
}
