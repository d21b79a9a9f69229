/* runtime_memory.cpp - the API's calls about memory: what is given, and what is copied and set. */
#include "tests/cuda_emulation/memory.h"
#include "tests/cuda_emulation/stream.h"

cudaError_t cudaMalloc(void **devPtr, size_t size)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (devPtr == NULL)
        return api.end(cudaErrorInvalidValue);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureUnsupported);
    *devPtr = NULL;
    if (size == 0)
        return api.end(cudaSuccess);
    size_t total = emu_device_get().memory_bytes;
    size_t held = emu_memory_held(EMU_SPACE_DEVICE, emu_device_current());
    if (size > total || held > total - size)
        return api.end(cudaErrorMemoryAllocation);
    *devPtr = emu_memory_new(EMU_SPACE_DEVICE, size, emu_device_current());
    return api.end(*devPtr != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

/* Waits for all work of the device, as CUDA's does. */
static cudaError_t memory_free(emu_api *api, enum emu_space space, void *ptr)
{
    if (ptr == NULL)
        return api->end(api->error);
    if (emu_capture_forbids())
        return api->end(cudaErrorStreamCaptureUnsupported);
    emu_stream_drain_all();
    if (!emu_memory_free(space, ptr))
        return api->end(cudaErrorInvalidValue);
    return api->end(api->error);
}

cudaError_t cudaFree(void *devPtr)
{
    emu_api api(__func__);
    return memory_free(&api, EMU_SPACE_DEVICE, devPtr);
}

cudaError_t cudaFreeHost(void *ptr)
{
    emu_api api(__func__);
    return memory_free(&api, EMU_SPACE_PINNED, ptr);
}

cudaError_t cudaHostAlloc(void **pHost, size_t size, unsigned int)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (pHost == NULL)
        return api.end(cudaErrorInvalidValue);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureUnsupported);
    *pHost = NULL;
    if (size == 0)
        return api.end(cudaSuccess);
    *pHost = emu_memory_new(EMU_SPACE_PINNED, size, emu_device_current());
    return api.end(*pHost != NULL ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaMallocHost(void **ptr, size_t size)
{
    return cudaHostAlloc(ptr, size, cudaHostAllocDefault);
}

/* Until it is registered no kernel may touch it: checked mode says so. Whatever is registered
 * counts as written, and races on it are not looked for. */
cudaError_t cudaHostRegister(void *ptr, size_t size, unsigned int)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (ptr == NULL || size == 0 || emu_memory_is_ours(ptr))
        return api.end(cudaErrorInvalidValue);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureUnsupported);
    return api.end(emu_memory_register(ptr, size) ? cudaSuccess
                                                  : cudaErrorHostMemoryAlreadyRegistered);
}

cudaError_t cudaHostUnregister(void *ptr)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureUnsupported);
    emu_stream_drain_all();
    return api.end(emu_memory_unregister(ptr) ? cudaSuccess : cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaHostGetDevicePointer(void **pDevice, void *pHost, unsigned int)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (!emu_memory_is_pinned(pHost) && !emu_memory_is_registered(pHost, 1))
        return api.end(cudaErrorInvalidValue);
    *pDevice = pHost;
    return api.end(cudaSuccess);
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    *total = emu_device_get().memory_bytes;
    *free = *total - emu_memory_held(EMU_SPACE_DEVICE, emu_device_current());
    return api.end(cudaSuccess);
}

/* --- Copies --- */

/* Device pointers must have all the bytes in one allocation; what is called a host pointer must not
 * be the device's. */
static cudaError_t check_pointer(const void *at, size_t size, bool is_device, bool is_host)
{
    if (at == NULL)
        return cudaErrorInvalidValue;
    bool device = emu_memory_is_device(at);
    if ((is_device && !device) || (is_host && device))
        return cudaErrorInvalidValue;
    if (emu_memory_is_ours(at) && emu_memory_find(at, size) == NULL)
        return cudaErrorInvalidValue;
    return cudaSuccess;
}

static cudaError_t check_copy(const void *dst, const void *src, size_t count,
                              enum cudaMemcpyKind kind)
{
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    bool any = kind == cudaMemcpyDefault;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    cudaError_t error = check_pointer(dst, count, !any && to_device, !any && !to_device);
    if (error == cudaSuccess)
        error = check_pointer(src, count, !any && from_device, !any && !from_device);
    return error;
}

static struct emu_work work_copy(void *dst, const void *src, size_t count)
{
    struct emu_work work = {};
    work.kind = EMU_WORK_COPY;
    work.to = static_cast<char *>(dst);
    work.from = static_cast<const char *>(src);
    work.size = count;
    emu_traffic_now.copies++;
    emu_traffic_now.copy_bytes += count;
    return work;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind,
                            cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (count == 0)
        return api.end(cudaSuccess);
    cudaError_t error = check_copy(dst, src, count, kind);
    if (error != cudaSuccess)
        return api.end(error);
    const struct emu_work work = work_copy(dst, src, count);
    if (emu_is_dry())
        return api.end(cudaSuccess);
    emu_stream_add(stream, work);
    /* Pageable memory goes through a buffer of the driver's: the call returns when the source may
     * be used again, or the destination is there. */
    if (!emu_memory_is_ours(dst) || !emu_memory_is_ours(src)) {
        emu_traffic_now.pageable_copies++;
        if (stream->graph == NULL)
            emu_stream_drain(stream);
    }
    return api.end(emu_device_error());
}

/* On the legacy stream, which does not wait for non-blocking ones. */
cudaError_t cudaMemcpy(void *dst, const void *src, size_t count, enum cudaMemcpyKind kind)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureImplicit);
    if (count == 0)
        return api.end(cudaSuccess);
    cudaError_t error = check_copy(dst, src, count, kind);
    if (error != cudaSuccess)
        return api.end(error);
    const struct emu_work work = work_copy(dst, src, count);
    if (emu_is_dry())
        return api.end(cudaSuccess);
    emu_stream_add(emu_stream_of(NULL), work);
    emu_stream_drain(emu_stream_of(NULL));
    return api.end(emu_device_error());
}

cudaError_t cudaMemsetAsync(void *devPtr, int value, size_t count, cudaStream_t handle)
{
    emu_api api(__func__);
    struct CUstream_st *stream = emu_stream_of(handle);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (stream == NULL)
        return api.end(cudaErrorInvalidResourceHandle);
    if (count == 0)
        return api.end(cudaSuccess);
    if (!emu_memory_is_ours(devPtr) || emu_memory_find(devPtr, count) == NULL)
        return api.end(cudaErrorInvalidValue);
    struct emu_work work = {};
    work.kind = EMU_WORK_SET;
    work.to = static_cast<char *>(devPtr);
    work.size = count;
    work.value = value;
    emu_traffic_now.sets++;
    if (emu_is_dry())
        return api.end(cudaSuccess);
    emu_stream_add(stream, work);
    return api.end(cudaSuccess);
}

/* Asynchronous with respect to the host where the memory is the device's. */
cudaError_t cudaMemset(void *devPtr, int value, size_t count)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (emu_capture_forbids())
        return api.end(cudaErrorStreamCaptureImplicit);
    return api.end(cudaMemsetAsync(devPtr, value, count, NULL));
}
