/*
 * A library that stands in for NVIDIA's libnvidia-ml.so.1 in tests: one GPU whose numbers are lines
 * of the file that NVML_STAND_IN names, read anew at every call, so that a test changes them under
 * a running program.
 *
 *     uuid GPU-1          driver 580.65     name Stand-in GPU      pci 00000000:3B:00.0
 *     count 1             mig 0
 *     total BYTES         reserved BYTES    free BYTES
 *     process PID BYTES   (computes; "self" is the caller's pid, "?" bytes that NVML may not tell)
 *     graphics PID BYTES  (draws)
 *     utilization PERCENT power MW          energy MJ              temperature C
 *     ecc COUNT           remap PENDING FAILED
 *     bus BITS            memory_clock MHZ
 *     xid NUMBER          (an event, once for each new number)
 *     error FUNCTION CODE (what that function returns)
 *     hang FUNCTION MS    (how long it takes before)
 *
 * A number without a line is one that the device does not support. With NVML_STAND_IN_OLD defined
 * the library has the functions only that every driver has.
 */
#include "worker/gpu/nvml_abi.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT        __attribute__((visibility("default")))
#define LINE_BYTES    256
#define DEVICE        ((void *)&device)
#define EVENTS        ((void *)&events)
#define NOT_SUPPORTED NVML_RETURN_NOT_SUPPORTED

static int device;

static FILE *lines_open(void)
{
    const char *path = getenv("NVML_STAND_IN");
    return path != NULL ? fopen(path, "re") : NULL;
}

/* The words behind the nth line that begins with `key` and, unless NULL, `second`. */
static bool line_find(const char *key, const char *second, unsigned nth, char ret_rest[LINE_BYTES])
{
    char prefix[128], line[LINE_BYTES];
    bool found = false;
    FILE *f = lines_open();
    if (f == NULL)
        return false;
    (void)snprintf(prefix, sizeof prefix, "%s %s%s", key, second != NULL ? second : "",
                   second != NULL ? " " : "");
    while (!found && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, prefix, strlen(prefix)) == 0 && nth-- == 0) {
            (void)snprintf(ret_rest, LINE_BYTES, "%s", line + strlen(prefix));
            found = true;
        }
    }
    fclose(f);
    return found;
}

static int number(const char *key, unsigned long long *ret)
{
    char rest[LINE_BYTES];
    if (!line_find(key, NULL, 0, rest))
        return NOT_SUPPORTED;
    *ret = strtoull(rest, NULL, 10);
    return NVML_RETURN_SUCCESS;
}

static int small_number(const char *key, unsigned *ret)
{
    unsigned long long n = 0;
    int code = number(key, &n);
    if (code == NVML_RETURN_SUCCESS)
        *ret = (unsigned)n;
    return code;
}

static int text(const char *key, char *ret, unsigned length)
{
    char rest[LINE_BYTES];
    if (!line_find(key, NULL, 0, rest))
        return NOT_SUPPORTED;
    if (strlen(rest) >= length)
        return NVML_RETURN_INSUFFICIENT_SIZE;
    memcpy(ret, rest, strlen(rest) + 1);
    return NVML_RETURN_SUCCESS;
}

static void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000L};
    (void)nanosleep(&t, NULL);
}

/* What the file says of the function itself comes first. */
static int planned(const char *function)
{
    char rest[LINE_BYTES];
    if (line_find("hang", function, 0, rest))
        sleep_ms((unsigned)strtoul(rest, NULL, 10));
    return line_find("error", function, 0, rest) ? (int)strtol(rest, NULL, 10)
                                                 : NVML_RETURN_SUCCESS;
}

#define BEGIN()                                                                                    \
    do {                                                                                           \
        int planned_code = planned(__func__);                                                      \
        if (planned_code != NVML_RETURN_SUCCESS)                                                   \
            return planned_code;                                                                   \
    } while (0)

/* The prototypes that a header of NVML would bring. */
#define PROTOTYPE(symbol, arguments) EXPORT int symbol arguments;
NVML_ABI_FUNCTIONS(PROTOTYPE, PROTOTYPE)
EXPORT const char *nvmlErrorString(int code);

const char *nvmlErrorString(int code)
{
    return code == NVML_RETURN_GPU_IS_LOST ? "GPU is lost" : "an error of the stand-in";
}

int nvmlInit_v2(void)
{
    BEGIN();
    return NVML_RETURN_SUCCESS;
}

int nvmlShutdown(void)
{
    return NVML_RETURN_SUCCESS;
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    BEGIN();
    return text("driver", version, length);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    BEGIN();
    return small_number("count", count);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **ret_device)
{
    BEGIN();
    (void)index;
    *ret_device = DEVICE;
    return NVML_RETURN_SUCCESS;
}

int nvmlDeviceGetName(void *d, char *name, unsigned length)
{
    BEGIN();
    (void)d;
    return text("name", name, length);
}

int nvmlDeviceGetUUID(void *d, char *uuid, unsigned length)
{
    BEGIN();
    (void)d;
    return text("uuid", uuid, length);
}

int nvmlDeviceGetPciInfo_v3(void *d, struct nvml_abi_pci *pci)
{
    BEGIN();
    (void)d;
    return text("pci", pci->bus_id, sizeof pci->bus_id);
}

int nvmlDeviceGetMemoryInfo_v2(void *d, struct nvml_abi_memory_v2 *memory)
{
    BEGIN();
    (void)d;
    if (memory->version != NVML_ABI_MEMORY_V2)
        return 25; /* NVML_ERROR_ARGUMENT_VERSION_MISMATCH */
    memory->reserved = 0;
    (void)number("reserved", &memory->reserved);
    int code = number("total", &memory->total);
    if (code == NVML_RETURN_SUCCESS)
        code = number("free", &memory->free);
    memory->used = memory->total - memory->reserved - memory->free;
    return code;
}

#ifndef NVML_STAND_IN_OLD

static int events;

int nvmlDeviceGetMigMode(void *d, unsigned *current, unsigned *pending)
{
    BEGIN();
    (void)d;
    int code = small_number("mig", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMemoryBusWidth(void *d, unsigned *bits)
{
    BEGIN();
    (void)d;
    return small_number("bus", bits);
}

int nvmlDeviceGetMaxClockInfo(void *d, int clock, unsigned *mhz)
{
    BEGIN();
    (void)d;
    return clock == NVML_ABI_CLOCK_MEM ? small_number("memory_clock", mhz) : NOT_SUPPORTED;
}

static int processes(const char *key, unsigned *count, struct nvml_abi_process *list)
{
    char rest[LINE_BYTES];
    unsigned n = 0;
    for (; line_find(key, NULL, n, rest); n++) {
        char pid[32] = "", bytes[32] = "";
        (void)sscanf(rest, "%31s %31s", pid, bytes);
        if (n >= *count)
            continue;
        list[n] = (struct nvml_abi_process){
            .pid = strcmp(pid, "self") == 0 ? (unsigned)getpid() : (unsigned)strtoul(pid, NULL, 10),
            .used_bytes =
                strcmp(bytes, "?") == 0 ? NVML_ABI_VALUE_NOT_AVAILABLE : strtoull(bytes, NULL, 10),
            .gpu_instance = ~0u,
            .compute_instance = ~0u};
    }
    bool fits = n <= *count;
    *count = n;
    return fits ? NVML_RETURN_SUCCESS : NVML_RETURN_INSUFFICIENT_SIZE;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned *count, struct nvml_abi_process *list)
{
    BEGIN();
    (void)d;
    return processes("process", count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *d, unsigned *count,
                                             struct nvml_abi_process *list)
{
    BEGIN();
    (void)d;
    return processes("graphics", count, list);
}

int nvmlDeviceGetUtilizationRates(void *d, struct nvml_abi_utilization *rates)
{
    BEGIN();
    (void)d;
    rates->memory = 0;
    return small_number("utilization", &rates->gpu);
}

int nvmlDeviceGetPowerUsage(void *d, unsigned *mw)
{
    BEGIN();
    (void)d;
    return small_number("power", mw);
}

int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj)
{
    BEGIN();
    (void)d;
    return number("energy", mj);
}

int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *celsius)
{
    BEGIN();
    (void)d;
    return sensor == NVML_ABI_TEMPERATURE_GPU ? small_number("temperature", celsius)
                                              : NOT_SUPPORTED;
}

int nvmlDeviceGetTotalEccErrors(void *d, int type, int counter, unsigned long long *count)
{
    BEGIN();
    (void)d;
    return type == NVML_ABI_ECC_UNCORRECTED && counter == NVML_ABI_ECC_VOLATILE
               ? number("ecc", count)
               : NOT_SUPPORTED;
}

int nvmlDeviceGetRemappedRows(void *d, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed)
{
    BEGIN();
    (void)d;
    char rest[LINE_BYTES];
    *corrected = *uncorrected = 0;
    return line_find("remap", NULL, 0, rest) && sscanf(rest, "%u %u", pending, failed) == 2
               ? NVML_RETURN_SUCCESS
               : NOT_SUPPORTED;
}

int nvmlEventSetCreate(void **set)
{
    BEGIN();
    *set = EVENTS;
    return NVML_RETURN_SUCCESS;
}

int nvmlDeviceRegisterEvents(void *d, unsigned long long types, void *set)
{
    BEGIN();
    return d == DEVICE && set == EVENTS && types == NVML_ABI_EVENT_XID ? NVML_RETURN_SUCCESS
                                                                       : NOT_SUPPORTED;
}

int nvmlEventSetWait_v2(void *set, struct nvml_abi_event *event, unsigned timeout_ms)
{
    static unsigned long long told; /* one watching thread calls this */
    BEGIN();
    (void)set;
    for (unsigned waited = 0;; waited += 10) {
        unsigned long long xid = 0;
        if (number("xid", &xid) == NVML_RETURN_SUCCESS && xid != told) {
            told = xid;
            *event =
                (struct nvml_abi_event){.device = DEVICE, .type = NVML_ABI_EVENT_XID, .data = xid};
            return NVML_RETURN_SUCCESS;
        }
        if (waited >= timeout_ms)
            return NVML_RETURN_TIMEOUT;
        sleep_ms(10);
    }
}

int nvmlEventSetFree(void *set)
{
    (void)set;
    return NVML_RETURN_SUCCESS;
}

#endif
