#include "worker/device.h"

#include "common/memory.h"
#include "worker/kernels/backend.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPU_INDEX_MAX 255u

struct device {
    struct device_id id;
    struct gpu_watch *watch; /* NULL: a CPU */
};

enum err device_id_parse(const char *text, struct device_id *ret_id, struct errbuf *eb)
{
    unsigned index;
    char rest;

    if (strcmp(text, "cpu") == 0) {
        *ret_id = (struct device_id){0};
        return ERR_OK;
    }
    if (strncmp(text, "cuda:", 5) == 0 && text[5] >= '0' && text[5] <= '9' &&
        strlen(text) <= strlen("cuda:255") && sscanf(text + 5, "%u%c", &index, &rest) == 1 &&
        index <= GPU_INDEX_MAX) {
        *ret_id = (struct device_id){.is_cuda = true, .index = index};
        return ERR_OK;
    }
    return err_set(eb, ERR_INVALID, "device %s: write \"cpu\", or \"cuda:N\" with N from 0 to %u",
                   text, GPU_INDEX_MAX);
}

/* CUDA numbers GPUs by speed unless it is told otherwise, NVML by their place on the bus. */
static enum err cuda_show_only(uint32_t index, struct errbuf *eb)
{
    char text[16];
    (void)snprintf(text, sizeof text, "%u", index);
    if (setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 1) != 0 ||
        setenv("CUDA_VISIBLE_DEVICES", text, 1) != 0)
        return err_set_errno(eb, errno, "environment");
    return ERR_OK;
}

static enum err cuda_check(struct errbuf *eb)
{
    return backend_cuda_buffer_bytes(1) > 0
               ? ERR_OK
               : err_set(eb, ERR_UNSUPPORTED, "this build has no CUDA backend");
}

enum err device_open(struct device **ret_device, const struct device_id *id, struct errbuf *eb)
{
    struct device *d = calloc(1, sizeof *d);
    if (d == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the device");
    enum err e = ERR_OK;
    d->id = *id;
    if (id->is_cuda) {
        e = cuda_check(eb);
        if (e == ERR_OK)
            e = cuda_show_only(id->index, eb);
        if (e == ERR_OK)
            e = gpu_watch_start(&d->watch, NVML_LIBRARY, id->index, eb);
        if (e != ERR_OK)
            (void)err_prefix(eb, e, "device cuda:%u", id->index);
    }
    if (e != ERR_OK) {
        device_close(d);
        return e;
    }
    *ret_device = d;
    return ERR_OK;
}

void device_close(struct device *d)
{
    if (d == NULL)
        return;
    gpu_watch_stop(d->watch);
    free(d);
}

void device_wake(struct device *d, int wake_fd)
{
    if (d->watch != NULL)
        gpu_watch_wake(d->watch, wake_fd);
}

const struct nvml_identity *device_gpu(const struct device *d)
{
    return d->watch != NULL ? gpu_watch_identity(d->watch) : NULL;
}

const char *device_name(const struct device *d)
{
    return d->watch != NULL ? gpu_watch_identity(d->watch)->name : "cpu";
}

uint64_t device_kept_bytes(uint64_t gpu_total_bytes)
{
    const uint64_t part = gpu_total_bytes / 8;
    return part < BACKEND_CUDA_OWN_BYTES ? part : BACKEND_CUDA_OWN_BYTES;
}

static void gpu_read(struct device *d, uint64_t models_bytes, struct device_now *ret_now)
{
    struct device_now now = {.has_gpu = true};
    gpu_watch_read(d->watch, &now.gpu);
    const struct nvml_reading *r = &now.gpu.reading;
    now.total_bytes = r->total_bytes;
    now.free_bytes = r->free_bytes;
    now.kept_bytes = device_kept_bytes(r->total_bytes);
    now.used_bytes = (r->known & NVML_KNOWN_OWN_BYTES) != 0 ? r->own_bytes : models_bytes;
    *ret_now = now;
}

enum err device_read(struct device *d, uint64_t models_bytes, struct device_now *ret_now,
                     struct errbuf *eb)
{
    struct memory_now memory;

    if (d->watch != NULL) {
        gpu_read(d, models_bytes, ret_now);
        return ERR_OK;
    }
    enum err e = memory_read(&memory, eb);
    if (e == ERR_OK)
        *ret_now = (struct device_now){.total_bytes = memory.total_bytes,
                                       .free_bytes = memory.free_bytes,
                                       .used_bytes = memory.resident_bytes};
    return e;
}
