/*
 * nvml_abi.h - of NVML's interface what nvml.c calls: types, numbers, and one table of functions.
 *
 * Declared here, so that nothing of NVIDIA's is needed to build; names and layouts are NVML's own.
 * tests/gpu/test_nvml_abi.c holds them against NVIDIA's header where there is one.
 *
 * Source: nvml.h of CUDA 13.0, https://docs.nvidia.com/deploy/nvml-api.
 */
#ifndef CLOISTER_WORKER_GPU_NVML_ABI_H
#define CLOISTER_WORKER_GPU_NVML_ABI_H

#include <stddef.h>

/* nvmlReturn_t */
enum nvml_return {
    NVML_RETURN_SUCCESS = 0,
    NVML_RETURN_UNINITIALIZED = 1,
    NVML_RETURN_NOT_SUPPORTED = 3,
    NVML_RETURN_NO_PERMISSION = 4,
    NVML_RETURN_INSUFFICIENT_SIZE = 7,
    NVML_RETURN_DRIVER_NOT_LOADED = 9,
    NVML_RETURN_TIMEOUT = 10,
    NVML_RETURN_FUNCTION_NOT_FOUND = 13,
    NVML_RETURN_GPU_IS_LOST = 15,
    NVML_RETURN_RESET_REQUIRED = 16,
    NVML_RETURN_NO_DATA = 21,
    NVML_RETURN_GPU_NOT_FOUND = 28,
};

#define NVML_ABI_NAME_BYTES          96
#define NVML_ABI_UUID_BYTES          96
#define NVML_ABI_DRIVER_BYTES        80
#define NVML_ABI_TEMPERATURE_GPU     0
#define NVML_ABI_CLOCK_MEM           2
#define NVML_ABI_ECC_UNCORRECTED     1
#define NVML_ABI_ECC_VOLATILE        0
#define NVML_ABI_EVENT_XID           0x8ull
#define NVML_ABI_VALUE_NOT_AVAILABLE (~0ull)

struct nvml_abi_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};
#define NVML_ABI_MEMORY_V2 (sizeof(struct nvml_abi_memory_v2) | 2u << 24)

struct nvml_abi_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct nvml_abi_process {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
};

struct nvml_abi_utilization {
    unsigned gpu, memory; /* percent of the time */
};

struct nvml_abi_event {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

/* REQUIRED(symbol, arguments), then OPTIONAL: what older drivers or some devices lack. */
#define NVML_ABI_FUNCTIONS(REQUIRED, OPTIONAL)                                                     \
    REQUIRED(nvmlInit_v2, (void))                                                                  \
    REQUIRED(nvmlShutdown, (void))                                                                 \
    REQUIRED(nvmlSystemGetDriverVersion, (char *version, unsigned length))                         \
    REQUIRED(nvmlDeviceGetCount_v2, (unsigned *count))                                             \
    REQUIRED(nvmlDeviceGetHandleByIndex_v2, (unsigned index, void **device))                       \
    REQUIRED(nvmlDeviceGetName, (void *device, char *name, unsigned length))                       \
    REQUIRED(nvmlDeviceGetUUID, (void *device, char *uuid, unsigned length))                       \
    REQUIRED(nvmlDeviceGetPciInfo_v3, (void *device, struct nvml_abi_pci *pci))                    \
    REQUIRED(nvmlDeviceGetMemoryInfo_v2, (void *device, struct nvml_abi_memory_v2 *memory))        \
    OPTIONAL(nvmlDeviceGetMigMode, (void *device, unsigned *current, unsigned *pending))           \
    OPTIONAL(nvmlDeviceGetMemoryBusWidth, (void *device, unsigned *bits))                          \
    OPTIONAL(nvmlDeviceGetMaxClockInfo, (void *device, int clock, unsigned *mhz))                  \
    OPTIONAL(nvmlDeviceGetComputeRunningProcesses_v3,                                              \
             (void *device, unsigned *count, struct nvml_abi_process *processes))                  \
    OPTIONAL(nvmlDeviceGetGraphicsRunningProcesses_v3,                                             \
             (void *device, unsigned *count, struct nvml_abi_process *processes))                  \
    OPTIONAL(nvmlDeviceGetUtilizationRates, (void *device, struct nvml_abi_utilization *rates))    \
    OPTIONAL(nvmlDeviceGetPowerUsage, (void *device, unsigned *mw))                                \
    OPTIONAL(nvmlDeviceGetTotalEnergyConsumption, (void *device, unsigned long long *mj))          \
    OPTIONAL(nvmlDeviceGetTemperature, (void *device, int sensor, unsigned *celsius))              \
    OPTIONAL(nvmlDeviceGetTotalEccErrors,                                                          \
             (void *device, int type, int counter, unsigned long long *count))                     \
    OPTIONAL(nvmlDeviceGetRemappedRows, (void *device, unsigned *corrected, unsigned *uncorrected, \
                                         unsigned *pending, unsigned *failed))                     \
    OPTIONAL(nvmlEventSetCreate, (void **set))                                                     \
    OPTIONAL(nvmlDeviceRegisterEvents, (void *device, unsigned long long types, void *set))        \
    OPTIONAL(nvmlEventSetWait_v2, (void *set, struct nvml_abi_event *event, unsigned timeout_ms))  \
    OPTIONAL(nvmlEventSetFree, (void *set))

struct nvml_abi {
    const char *(*nvmlErrorString)(int code);
#define MEMBER(symbol, arguments) int(*symbol) arguments;
    NVML_ABI_FUNCTIONS(MEMBER, MEMBER)
#undef MEMBER
};

#endif
