#include "worker/gpu/nvml.h"

#include "common/check.h"
#include "worker/gpu/nvml_abi.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES_MAX  4096u
#define BUS_BITS_MAX   65536u /* what is more is no number */
#define MEMORY_MHZ_MAX 50000u

struct nvml {
    struct nvml_abi abi;
    void *library;
    bool initialized;
    void *device;
    void *events; /* NULL: the device has none */
};

/* ---- the library ---- */

/* POSIX has dlsym return functions as data pointers; C does not let one cast to the other. */
static bool symbol_find(void *library, const char *name, void *ret_function)
{
    void *found = dlsym(library, name);
    _Static_assert(sizeof found == sizeof(void (*)(void)), "pointers of one size");
    memcpy(ret_function, &found, sizeof found);
    return found != NULL;
}

static enum err symbols_find(struct nvml *n, const char *library, struct errbuf *eb)
{
    const char *missing = NULL;

    (void)symbol_find(n->library, "nvmlErrorString", &n->abi.nvmlErrorString);
#define REQUIRED(symbol, arguments)                                                                \
    if (!symbol_find(n->library, #symbol, &n->abi.symbol))                                         \
        missing = #symbol;
#define OPTIONAL(symbol, arguments) (void)symbol_find(n->library, #symbol, &n->abi.symbol);
    NVML_ABI_FUNCTIONS(REQUIRED, OPTIONAL)
#undef REQUIRED
#undef OPTIONAL
    if (missing != NULL)
        return err_set(eb, ERR_UNSUPPORTED, "%s has no %s: its driver is too old", library,
                       missing);
    return ERR_OK;
}

static bool is_lost(int code)
{
    return code == NVML_RETURN_GPU_IS_LOST || code == NVML_RETURN_RESET_REQUIRED ||
           code == NVML_RETURN_GPU_NOT_FOUND || code == NVML_RETURN_DRIVER_NOT_LOADED ||
           code == NVML_RETURN_UNINITIALIZED;
}

static enum err failed(const struct nvml *n, int code, const char *function, struct errbuf *eb)
{
    const char *text = n->abi.nvmlErrorString != NULL ? n->abi.nvmlErrorString(code) : NULL;
    return err_set(eb, is_lost(code) ? ERR_LOST : ERR_IO, "%s: %s (NVML error %d)", function,
                   text != NULL ? text : "no text", code);
}

enum err nvml_open(struct nvml **ret_nvml, const char *library, struct errbuf *eb)
{
    struct nvml *n = calloc(1, sizeof *n);
    if (n == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for NVML");
    enum err e = ERR_OK;
    n->library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (n->library == NULL) {
        e = err_set(eb, ERR_UNAVAILABLE, "NVIDIA's driver is not installed: %s", dlerror());
        goto out;
    }
    e = symbols_find(n, library, eb);
    if (e != ERR_OK)
        goto out;
    int code = n->abi.nvmlInit_v2();
    if (code != NVML_RETURN_SUCCESS) {
        (void)failed(n, code, "nvmlInit_v2", eb);
        e = ERR_UNAVAILABLE;
        goto out;
    }
    n->initialized = true;
    *ret_nvml = n;
    return ERR_OK;
out:
    nvml_close(n);
    return e;
}

void nvml_close(struct nvml *n)
{
    if (n == NULL)
        return;
    if (n->events != NULL)
        (void)n->abi.nvmlEventSetFree(n->events);
    if (n->initialized)
        (void)n->abi.nvmlShutdown();
    if (n->library != NULL)
        dlclose(n->library);
    free(n);
}

/* ---- a device ---- */

/* Without them a lost device is found at the next reading. */
static void events_open(struct nvml *n)
{
    const struct nvml_abi *abi = &n->abi;
    if (abi->nvmlEventSetCreate == NULL || abi->nvmlDeviceRegisterEvents == NULL ||
        abi->nvmlEventSetWait_v2 == NULL || abi->nvmlEventSetFree == NULL ||
        abi->nvmlEventSetCreate(&n->events) != NVML_RETURN_SUCCESS) {
        n->events = NULL;
        return;
    }
    if (abi->nvmlDeviceRegisterEvents(n->device, NVML_ABI_EVENT_XID, n->events) !=
        NVML_RETURN_SUCCESS) {
        (void)abi->nvmlEventSetFree(n->events);
        n->events = NULL;
    }
}

static enum err mig_check(const struct nvml *n, uint32_t index, struct errbuf *eb)
{
    unsigned current = 0, pending = 0;
    if (n->abi.nvmlDeviceGetMigMode == NULL ||
        n->abi.nvmlDeviceGetMigMode(n->device, &current, &pending) != NVML_RETURN_SUCCESS ||
        current == 0)
        return ERR_OK;
    return err_set(eb, ERR_UNSUPPORTED,
                   "GPU %u is partitioned (MIG): what is free of it is not what is free of a "
                   "partition; nvidia-smi -i %u -mig 0 joins it again",
                   index, index);
}

static uint64_t memory_rate(const struct nvml *n)
{
    const struct nvml_abi *abi = &n->abi;
    unsigned bits = 0, mhz = 0;
    if (abi->nvmlDeviceGetMemoryBusWidth == NULL || abi->nvmlDeviceGetMaxClockInfo == NULL ||
        abi->nvmlDeviceGetMemoryBusWidth(n->device, &bits) != NVML_RETURN_SUCCESS ||
        abi->nvmlDeviceGetMaxClockInfo(n->device, NVML_ABI_CLOCK_MEM, &mhz) !=
            NVML_RETURN_SUCCESS ||
        bits > BUS_BITS_MAX || mhz > MEMORY_MHZ_MAX)
        return 0;
    return (uint64_t)bits / 8 * mhz * 1000000u * 2;
}

enum err nvml_device_open(struct nvml *n, uint32_t index, struct nvml_identity *ret_identity,
                          struct errbuf *eb)
{
    const struct nvml_abi *abi = &n->abi;
    struct nvml_identity id = {.name = ""};
    struct nvml_abi_pci pci = {.bus_id = ""};
    const char *function = NULL;
    unsigned count = 0;
    int code;

    CHECK(n->device == NULL);
    code = abi->nvmlDeviceGetCount_v2(&count);
    if (code != NVML_RETURN_SUCCESS)
        return failed(n, code, "nvmlDeviceGetCount_v2", eb);
    if (index >= count)
        return err_set(eb, ERR_NOT_FOUND, "there is no GPU %u: NVML knows %u", index, count);

    if ((code = abi->nvmlDeviceGetHandleByIndex_v2(index, &n->device)) != NVML_RETURN_SUCCESS)
        function = "nvmlDeviceGetHandleByIndex_v2";
    else if ((code = abi->nvmlDeviceGetName(n->device, id.name, sizeof id.name)) !=
             NVML_RETURN_SUCCESS)
        function = "nvmlDeviceGetName";
    else if ((code = abi->nvmlDeviceGetUUID(n->device, id.uuid, sizeof id.uuid)) !=
             NVML_RETURN_SUCCESS)
        function = "nvmlDeviceGetUUID";
    else if ((code = abi->nvmlDeviceGetPciInfo_v3(n->device, &pci)) != NVML_RETURN_SUCCESS)
        function = "nvmlDeviceGetPciInfo_v3";
    else if ((code = abi->nvmlSystemGetDriverVersion(id.driver, sizeof id.driver)) !=
             NVML_RETURN_SUCCESS)
        function = "nvmlSystemGetDriverVersion";
    enum err e = function != NULL ? failed(n, code, function, eb) : mig_check(n, index, eb);
    if (e != ERR_OK) {
        n->device = NULL;
        return e;
    }
    id.name[sizeof id.name - 1] = id.uuid[sizeof id.uuid - 1] = '\0';
    id.driver[sizeof id.driver - 1] = pci.bus_id[sizeof pci.bus_id - 1] = '\0';
    memcpy(id.pci, pci.bus_id, sizeof id.pci);
    id.read_bytes_per_s = memory_rate(n);
    events_open(n);
    *ret_identity = id;
    return ERR_OK;
}

/* ---- readings ---- */

/* True where an optional number was read. A lost device is noted; every other failure means that
 * this device does not have the number, or does not tell it to us. */
static bool has(int code, int *lost)
{
    if (is_lost(code))
        *lost = code;
    return code == NVML_RETURN_SUCCESS;
}

typedef int processes_fn(void *device, unsigned *count, struct nvml_abi_process *processes);

/* Appends to `list`. The number of processes may grow between being asked for and read. */
static bool processes_list(const struct nvml *n, processes_fn *function,
                           struct nvml_abi_process **list, unsigned *used, int *lost)
{
    if (function == NULL)
        return false;
    for (unsigned room = 32; room <= PROCESSES_MAX; room *= 2) {
        struct nvml_abi_process *grown = realloc(*list, (*used + room) * sizeof *grown);
        if (grown == NULL)
            return false;
        *list = grown;
        unsigned count = room;
        int code = function(n->device, &count, grown + *used);
        if (code == NVML_RETURN_INSUFFICIENT_SIZE)
            continue;
        if (!has(code, lost))
            return false;
        *used += count < room ? count : room;
        return true;
    }
    return false;
}

static bool is_listed(const struct nvml_abi_process *list, unsigned used, unsigned pid)
{
    for (unsigned i = 0; i < used; i++) {
        if (list[i].pid == pid)
            return true;
    }
    return false;
}

/* A process that computes and draws is in both lists, with the same memory. */
static void processes_read(const struct nvml *n, struct nvml_reading *r, int *lost)
{
    struct nvml_abi_process *list = NULL;
    unsigned used = 0, self = (unsigned)getpid();

    bool computing =
        processes_list(n, n->abi.nvmlDeviceGetComputeRunningProcesses_v3, &list, &used, lost);
    bool drawing =
        processes_list(n, n->abi.nvmlDeviceGetGraphicsRunningProcesses_v3, &list, &used, lost);
    if (computing || drawing)
        r->known |= NVML_KNOWN_PROCESSES;
    for (unsigned i = 0; i < used; i++) {
        uint64_t bytes = list[i].used_bytes;
        bool told = bytes != NVML_ABI_VALUE_NOT_AVAILABLE;
        if (is_listed(list, i, list[i].pid))
            continue;
        if (list[i].pid == self) {
            r->own_bytes = told ? bytes : 0;
            r->known |= told ? NVML_KNOWN_OWN_BYTES : 0u;
        } else {
            r->other_processes++;
            r->other_bytes += told ? bytes : 0;
        }
    }
    free(list);
}

static void health_read(const struct nvml *n, struct nvml_reading *r, int *lost)
{
    const struct nvml_abi *abi = &n->abi;
    unsigned corrected, uncorrected, pending, remap_failed, celsius;
    unsigned long long count;

    if (abi->nvmlDeviceGetTemperature != NULL &&
        has(abi->nvmlDeviceGetTemperature(n->device, NVML_ABI_TEMPERATURE_GPU, &celsius), lost)) {
        r->temperature_c = celsius;
        r->known |= NVML_KNOWN_TEMPERATURE;
    }
    if (abi->nvmlDeviceGetTotalEccErrors != NULL &&
        has(abi->nvmlDeviceGetTotalEccErrors(n->device, NVML_ABI_ECC_UNCORRECTED,
                                             NVML_ABI_ECC_VOLATILE, &count),
            lost)) {
        r->ecc_uncorrected = count;
        r->known |= NVML_KNOWN_ECC;
    }
    if (abi->nvmlDeviceGetRemappedRows != NULL &&
        has(abi->nvmlDeviceGetRemappedRows(n->device, &corrected, &uncorrected, &pending,
                                           &remap_failed),
            lost)) {
        r->remap_pending = pending != 0;
        r->remap_failed = remap_failed != 0;
    }
}

static void work_read(const struct nvml *n, struct nvml_reading *r, int *lost)
{
    const struct nvml_abi *abi = &n->abi;
    struct nvml_abi_utilization rates;
    unsigned long long mj;
    unsigned mw;

    if (abi->nvmlDeviceGetUtilizationRates != NULL &&
        has(abi->nvmlDeviceGetUtilizationRates(n->device, &rates), lost)) {
        r->utilization_percent = rates.gpu;
        r->known |= NVML_KNOWN_UTILIZATION;
    }
    if (abi->nvmlDeviceGetPowerUsage != NULL &&
        has(abi->nvmlDeviceGetPowerUsage(n->device, &mw), lost)) {
        r->power_mw = mw;
        r->known |= NVML_KNOWN_POWER;
    }
    if (abi->nvmlDeviceGetTotalEnergyConsumption != NULL &&
        has(abi->nvmlDeviceGetTotalEnergyConsumption(n->device, &mj), lost)) {
        r->energy_mj = mj;
        r->known |= NVML_KNOWN_ENERGY;
    }
}

enum err nvml_device_read(struct nvml *n, struct nvml_reading *ret_reading, struct errbuf *eb)
{
    struct nvml_abi_memory_v2 memory = {.version = (unsigned)NVML_ABI_MEMORY_V2};
    struct nvml_reading r = {0};
    int lost = NVML_RETURN_SUCCESS;

    CHECK(n->device != NULL);
    int code = n->abi.nvmlDeviceGetMemoryInfo_v2(n->device, &memory);
    if (code != NVML_RETURN_SUCCESS)
        return failed(n, code, "nvmlDeviceGetMemoryInfo_v2", eb);
    r.total_bytes = memory.total > memory.reserved ? memory.total - memory.reserved : 0;
    r.free_bytes = memory.free;
    processes_read(n, &r, &lost);
    work_read(n, &r, &lost);
    health_read(n, &r, &lost);
    if (lost != NVML_RETURN_SUCCESS)
        return failed(n, lost, "reading the GPU", eb);
    *ret_reading = r;
    return ERR_OK;
}

enum err nvml_device_wait(struct nvml *n, uint32_t timeout_ms, uint64_t *ret_xid, struct errbuf *eb)
{
    struct nvml_abi_event event = {0};

    *ret_xid = 0;
    if (n->events == NULL) {
        struct timespec t = {.tv_sec = timeout_ms / 1000u,
                             .tv_nsec = (long)(timeout_ms % 1000u) * 1000000L};
        (void)nanosleep(&t, NULL);
        return ERR_OK;
    }
    int code = n->abi.nvmlEventSetWait_v2(n->events, &event, timeout_ms);
    if (code == NVML_RETURN_TIMEOUT)
        return ERR_OK;
    if (code != NVML_RETURN_SUCCESS)
        return failed(n, code, "nvmlEventSetWait_v2", eb);
    if (event.type == NVML_ABI_EVENT_XID)
        *ret_xid = event.data;
    return ERR_OK;
}
