/*
 * worker/gpu/nvml_abi.h against NVIDIA's own header: sizes, places of fields, numbers, and the
 * types of every function. There is nothing to run: it compiles or it does not.
 */
#include "worker/gpu/nvml_abi.h"

#include <nvml.h>
#include <stdio.h>

#define SAME_NUMBER(ours, theirs)                                                                  \
    _Static_assert((unsigned long long)(ours) == (unsigned long long)(theirs), #theirs)
#define SAME_FIELD(ours, our_field, theirs, their_field)                                           \
    _Static_assert(offsetof(struct ours, our_field) == offsetof(theirs, their_field),              \
                   #theirs "." #their_field);                                                      \
    _Static_assert(sizeof(((struct ours *)0)->our_field) == sizeof(((theirs *)0)->their_field),    \
                   "size of " #theirs "." #their_field)
#define SAME_SIZE(ours, theirs) _Static_assert(sizeof(struct ours) == sizeof(theirs), #theirs)

SAME_NUMBER(NVML_RETURN_SUCCESS, NVML_SUCCESS);
SAME_NUMBER(NVML_RETURN_UNINITIALIZED, NVML_ERROR_UNINITIALIZED);
SAME_NUMBER(NVML_RETURN_NOT_SUPPORTED, NVML_ERROR_NOT_SUPPORTED);
SAME_NUMBER(NVML_RETURN_INSUFFICIENT_SIZE, NVML_ERROR_INSUFFICIENT_SIZE);
SAME_NUMBER(NVML_RETURN_DRIVER_NOT_LOADED, NVML_ERROR_DRIVER_NOT_LOADED);
SAME_NUMBER(NVML_RETURN_TIMEOUT, NVML_ERROR_TIMEOUT);
SAME_NUMBER(NVML_RETURN_GPU_IS_LOST, NVML_ERROR_GPU_IS_LOST);
SAME_NUMBER(NVML_RETURN_RESET_REQUIRED, NVML_ERROR_RESET_REQUIRED);
SAME_NUMBER(NVML_RETURN_GPU_NOT_FOUND, NVML_ERROR_GPU_NOT_FOUND);
SAME_NUMBER(NVML_ABI_NAME_BYTES, NVML_DEVICE_NAME_V2_BUFFER_SIZE);
SAME_NUMBER(NVML_ABI_UUID_BYTES, NVML_DEVICE_UUID_V2_BUFFER_SIZE);
SAME_NUMBER(NVML_ABI_DRIVER_BYTES, NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE);
SAME_NUMBER(NVML_ABI_TEMPERATURE_GPU, NVML_TEMPERATURE_GPU);
SAME_NUMBER(NVML_ABI_CLOCK_MEM, NVML_CLOCK_MEM);
SAME_NUMBER(NVML_ABI_ECC_UNCORRECTED, NVML_MEMORY_ERROR_TYPE_UNCORRECTED);
SAME_NUMBER(NVML_ABI_ECC_VOLATILE, NVML_VOLATILE_ECC);
SAME_NUMBER(NVML_ABI_EVENT_XID, nvmlEventTypeXidCriticalError);
SAME_NUMBER(NVML_ABI_VALUE_NOT_AVAILABLE, (unsigned long long)NVML_VALUE_NOT_AVAILABLE);
SAME_NUMBER(NVML_ABI_MEMORY_V2, nvmlMemory_v2);

SAME_SIZE(nvml_abi_memory_v2, nvmlMemory_v2_t);
SAME_FIELD(nvml_abi_memory_v2, version, nvmlMemory_v2_t, version);
SAME_FIELD(nvml_abi_memory_v2, total, nvmlMemory_v2_t, total);
SAME_FIELD(nvml_abi_memory_v2, reserved, nvmlMemory_v2_t, reserved);
SAME_FIELD(nvml_abi_memory_v2, free, nvmlMemory_v2_t, free);
SAME_FIELD(nvml_abi_memory_v2, used, nvmlMemory_v2_t, used);
SAME_SIZE(nvml_abi_pci, nvmlPciInfo_t);
SAME_FIELD(nvml_abi_pci, bus_id, nvmlPciInfo_t, busId);
SAME_SIZE(nvml_abi_process, nvmlProcessInfo_t);
SAME_FIELD(nvml_abi_process, pid, nvmlProcessInfo_t, pid);
SAME_FIELD(nvml_abi_process, used_bytes, nvmlProcessInfo_t, usedGpuMemory);
SAME_SIZE(nvml_abi_utilization, nvmlUtilization_t);
SAME_FIELD(nvml_abi_utilization, gpu, nvmlUtilization_t, gpu);
SAME_SIZE(nvml_abi_event, nvmlEventData_t);
SAME_FIELD(nvml_abi_event, type, nvmlEventData_t, eventType);
SAME_FIELD(nvml_abi_event, data, nvmlEventData_t, eventData);

/* Each function is called through our type as through theirs: the same number of arguments, of
 * types that convert without a cast where they are no structs of ours. */
#define ARGUMENTS_ARE(symbol, ...) (void)sizeof(symbol(__VA_ARGS__))

int main(void)
{
    nvmlDevice_t device = NULL;
    nvmlEventSet_t set = NULL;
    unsigned u = 0;
    unsigned long long ull = 0;
    char text[NVML_ABI_NAME_BYTES];
    nvmlMemory_v2_t memory;
    nvmlPciInfo_t pci;
    nvmlProcessInfo_t process;
    nvmlUtilization_t rates;
    nvmlEventData_t event;

    ARGUMENTS_ARE(nvmlSystemGetDriverVersion, text, u);
    ARGUMENTS_ARE(nvmlDeviceGetCount_v2, &u);
    ARGUMENTS_ARE(nvmlDeviceGetHandleByIndex_v2, u, &device);
    ARGUMENTS_ARE(nvmlDeviceGetName, device, text, u);
    ARGUMENTS_ARE(nvmlDeviceGetUUID, device, text, u);
    ARGUMENTS_ARE(nvmlDeviceGetPciInfo_v3, device, &pci);
    ARGUMENTS_ARE(nvmlDeviceGetMemoryInfo_v2, device, &memory);
    ARGUMENTS_ARE(nvmlDeviceGetMigMode, device, &u, &u);
    ARGUMENTS_ARE(nvmlDeviceGetMemoryBusWidth, device, &u);
    ARGUMENTS_ARE(nvmlDeviceGetMaxClockInfo, device, NVML_CLOCK_MEM, &u);
    ARGUMENTS_ARE(nvmlDeviceGetComputeRunningProcesses_v3, device, &u, &process);
    ARGUMENTS_ARE(nvmlDeviceGetGraphicsRunningProcesses_v3, device, &u, &process);
    ARGUMENTS_ARE(nvmlDeviceGetUtilizationRates, device, &rates);
    ARGUMENTS_ARE(nvmlDeviceGetPowerUsage, device, &u);
    ARGUMENTS_ARE(nvmlDeviceGetTotalEnergyConsumption, device, &ull);
    ARGUMENTS_ARE(nvmlDeviceGetTemperature, device, NVML_TEMPERATURE_GPU, &u);
    ARGUMENTS_ARE(nvmlDeviceGetTotalEccErrors, device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
                  NVML_VOLATILE_ECC, &ull);
    ARGUMENTS_ARE(nvmlDeviceGetRemappedRows, device, &u, &u, &u, &u);
    ARGUMENTS_ARE(nvmlEventSetCreate, &set);
    ARGUMENTS_ARE(nvmlDeviceRegisterEvents, device, ull, set);
    ARGUMENTS_ARE(nvmlEventSetWait_v2, set, &event, u);
    ARGUMENTS_ARE(nvmlEventSetFree, set);
    printf("as in NVML %d's header\n", NVML_API_VERSION);
    return 0;
}
