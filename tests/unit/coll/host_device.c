#include "tests/unit/coll/host_device.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

static void host_enter(void *ctx)
{
    (void)ctx;
}

static enum err host_alloc_memory(void *ctx, size_t bytes, void **ret_memory, struct errbuf *eb)
{
    (void)ctx;
    *ret_memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *ret_memory != NULL ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "%zu bytes", bytes);
}

static void host_release(void *ctx, void *memory)
{
    (void)ctx;
    free(memory);
}

/* In order, as far as it goes. */
static void host_run(struct host_device *d)
{
    while (d->n_done < d->n_work) {
        const struct host_work *w = &d->work[d->n_done % HOST_DEVICE_WORK_MAX];
        if (!w->turn(w->arg))
            return;
        d->n_done++;
    }
}

static void host_mark(void *ctx)
{
    struct host_device *d = ctx;
    d->marked = d->n_work;
    d->n_marks++;
}

static bool host_is_done(void *ctx)
{
    struct host_device *d = ctx;
    host_run(d);
    return d->n_done >= d->marked;
}

void host_device_init(struct host_device *ret_device, uint8_t id)
{
    *ret_device = (struct host_device){0};
    ret_device->stream = (struct device_stream){
        .ctx = ret_device,
        .queue = ret_device,
        .id = {id},
        .enter = host_enter,
        .alloc = host_alloc_memory,
        .release = host_release,
        .mark = host_mark,
        .is_done = host_is_done,
    };
}

__attribute__((visibility("default"))) void nccl_stand_in_queue(void *stream, bool (*turn)(void *),
                                                                void *arg);

void nccl_stand_in_queue(void *stream, bool (*turn)(void *), void *arg)
{
    struct host_device *d = stream;
    host_run(d);
    CHECK(d->n_work - d->n_done < HOST_DEVICE_WORK_MAX);
    d->work[d->n_work++ % HOST_DEVICE_WORK_MAX] = (struct host_work){turn, arg};
}
