/*
 * runtime.cpp - the frame of every call of the runtime API: the lock, what is injected, the errors
 * that are kept; and the calls about devices and errors.
 */
#include "tests/cuda_emulation/stream.h"

#include "tests/cuda_emulation/block.h"
#include "tests/cuda_emulation/memory.h"

#include <mutex>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>

static std::recursive_mutex lock;
static thread_local cudaError_t last_error;
static cudaError_t device_error; /* the device has failed: of all calls from then on */
static uint64_t calls;

static struct {
    bool armed;
    std::string name; /* of a function or kernel; empty: any */
    uint64_t left;
    cudaError_t error;
    bool sticky;
    bool always;
} inject_call, inject_launch;

struct emu_traffic emu_traffic_now;

/* --- The frame of a call --- */

/* Calls within calls: of the emulation itself, and of host functions in a stream. */
static int depth;

emu_api::emu_api(const char *function) : error(cudaSuccess)
{
    lock.lock();
    if (depth++ > 0)
        return;
    calls++;
    if (inject_call.armed && (inject_call.name.empty() || inject_call.name == function) &&
        (inject_call.always || --inject_call.left == 0)) {
        inject_call.armed = inject_call.always;
        error = inject_call.error;
        if (inject_call.sticky)
            device_error = error;
    }
    if (device_error != cudaSuccess)
        error = device_error;
}

emu_api::~emu_api()
{
    if (--depth == 0)
        emu_memory_open(false);
    lock.unlock();
}

cudaError_t emu_api::end(cudaError_t result)
{
    if (result != cudaSuccess)
        last_error = result;
    return result;
}

void emu_device_fail(cudaError_t error)
{
    if (device_error == cudaSuccess)
        device_error = error;
}

cudaError_t emu_device_error(void)
{
    return device_error;
}

cudaError_t emu_inject_at_launch(const char *kernel)
{
    if (!inject_launch.armed || (!inject_launch.name.empty() && inject_launch.name != kernel) ||
        --inject_launch.left > 0)
        return cudaSuccess;
    inject_launch.armed = false;
    return inject_launch.error;
}

void emu_inject_call(const char *function, uint64_t n, cudaError_t error, bool sticky)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    inject_call.armed = true;
    inject_call.name = function != NULL ? function : "";
    inject_call.left = n;
    inject_call.error = error;
    inject_call.sticky = sticky;
    inject_call.always = false;
}

void emu_inject_always(const char *function, cudaError_t error)
{
    emu_inject_call(function, 1, error, false);
    std::lock_guard<std::recursive_mutex> held(lock);
    inject_call.always = true;
}

void emu_inject_launch(const char *kernel, uint64_t n, cudaError_t error)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    inject_launch.armed = true;
    inject_launch.name = kernel != NULL ? kernel : "";
    inject_launch.left = n;
    inject_launch.error = error;
}

void emu_inject_clear(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    inject_call.armed = false;
    inject_launch.armed = false;
    device_error = cudaSuccess;
    last_error = cudaSuccess;
}

size_t emu_memory_used(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return emu_memory_held(EMU_SPACE_DEVICE, emu_device_current());
}

uint64_t emu_calls(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return calls;
}

struct emu_traffic emu_traffic_get(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return emu_traffic_now;
}

/* --- Errors --- */

/* Nothing is injected into these two: what they return is another call's result. */
cudaError_t cudaGetLastError(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    cudaError_t error = device_error != cudaSuccess ? device_error : last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaPeekAtLastError(void)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    return device_error != cudaSuccess ? device_error : last_error;
}

const char *cudaGetErrorName(cudaError_t error)
{
    switch (error) {
#define NAME(name, number, text)                                                                   \
    case name:                                                                                     \
        return #name;
        EMU_CUDA_ERRORS(NAME)
#undef NAME
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    switch (error) {
#define TEXT(name, number, text)                                                                   \
    case name:                                                                                     \
        return text;
        EMU_CUDA_ERRORS(TEXT)
#undef TEXT
    }
    return "unrecognized error code";
}

/* --- Devices --- */

#define DEVICE_MEMORY_BYTES ((size_t)4 << 30)

static size_t number_from_environment(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    if (text == NULL)
        return otherwise;
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || number == 0) {
        fprintf(stderr, "%s is a number above 0, not \"%s\"\n", name, text);
        exit(2);
    }
    return (size_t)number;
}

static struct emu_device device = {
    (int)number_from_environment("CUDA_EMULATION_DEVICES", 1),
    number_from_environment("CUDA_EMULATION_MEMORY", DEVICE_MEMORY_BYTES),
    9,
    0,
    132,
    232448};
static thread_local int device_now;

struct emu_device emu_device_get(void)
{
    return device;
}

void emu_device_set(const struct emu_device *d)
{
    std::lock_guard<std::recursive_mutex> held(lock);
    device = *d;
}

int emu_device_current(void)
{
    return device_now;
}

cudaError_t cudaGetDeviceCount(int *count)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    *count = device.count;
    return api.end(device.count > 0 ? cudaSuccess : cudaErrorNoDevice);
}

cudaError_t cudaGetDevice(int *ret_device)
{
    emu_api api(__func__);
    *ret_device = device_now;
    return api.end(api.error);
}

cudaError_t cudaSetDevice(int index)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (index < 0 || index >= device.count)
        return api.end(device.count > 0 ? cudaErrorInvalidDevice : cudaErrorNoDevice);
    device_now = index;
    return api.end(cudaSuccess);
}

/* Which device of the machine this process's number `index` is, as CUDA_VISIBLE_DEVICES has it. */
static int device_of_machine(int index)
{
    const char *text = getenv("CUDA_VISIBLE_DEVICES");
    for (int i = 0; text != NULL && i < index; i++) {
        text = strchr(text, ',');
        text = text != NULL ? text + 1 : NULL;
    }
    return text != NULL ? atoi(text) : index;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *prop, int index)
{
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    if (prop == NULL || index < 0 || index >= device.count)
        return api.end(cudaErrorInvalidDevice);
    *prop = cudaDeviceProp{};
    snprintf(prop->name, sizeof prop->name, "CUDA emulation");
    memcpy(prop->uuid.bytes, "cuda-emulation-", 15);
    prop->uuid.bytes[15] = (char)device_of_machine(index);
    prop->totalGlobalMem = device.memory_bytes;
    prop->sharedMemPerBlock = 48 << 10;
    prop->regsPerBlock = 65536;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = 1024;
    const int threads[3] = {1024, 1024, 64};
    const int blocks[3] = {0x7fffffff, 65535, 65535};
    memcpy(prop->maxThreadsDim, threads, sizeof threads);
    memcpy(prop->maxGridSize, blocks, sizeof blocks);
    prop->totalConstMem = 64 << 10;
    prop->major = device.major;
    prop->minor = device.minor;
    prop->multiProcessorCount = device.multiprocessors;
    prop->concurrentKernels = 1;
    prop->pciBusID = index + 1;
    prop->asyncEngineCount = 2;
    prop->unifiedAddressing = 1;
    prop->memoryBusWidth = 5120;
    prop->l2CacheSize = 50 << 20;
    prop->maxThreadsPerMultiProcessor = 2048;
    prop->sharedMemPerMultiprocessor = device.shared_bytes_max + 1024;
    prop->regsPerMultiprocessor = 65536;
    prop->sharedMemPerBlockOptin = device.shared_bytes_max;
    return api.end(cudaSuccess);
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int index)
{
    struct cudaDeviceProp prop;
    emu_api api(__func__);
    if (api.error != cudaSuccess)
        return api.end(api.error);
    cudaError_t error = cudaGetDeviceProperties(&prop, index);
    if (error != cudaSuccess)
        return api.end(error);
    switch (attr) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = prop.maxThreadsPerBlock;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = (int)prop.sharedMemPerBlock;
        break;
    case cudaDevAttrWarpSize:
        *value = prop.warpSize;
        break;
    case cudaDevAttrClockRate:
        *value = 1980000;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = prop.multiProcessorCount;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = 2619000;
        break;
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = prop.memoryBusWidth;
        break;
    case cudaDevAttrL2CacheSize:
        *value = prop.l2CacheSize;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = prop.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = prop.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)prop.sharedMemPerBlockOptin;
        break;
    default:
        return api.end(cudaErrorInvalidValue);
    }
    return api.end(cudaSuccess);
}

cudaError_t cudaDriverGetVersion(int *driverVersion)
{
    emu_api api(__func__);
    *driverVersion = CUDART_VERSION;
    return api.end(api.error);
}

cudaError_t cudaRuntimeGetVersion(int *runtimeVersion)
{
    emu_api api(__func__);
    *runtimeVersion = CUDART_VERSION;
    return api.end(api.error);
}
