/*
 * host_device.h - a device that is none: its memory is the host's, and what is on its queue is done
 * when somebody looks. For tests of what moves bytes between devices; work comes from the library
 * that stands in for NCCL.
 */
#ifndef CLOISTER_TESTS_UNIT_COLL_HOST_DEVICE_H
#define CLOISTER_TESTS_UNIT_COLL_HOST_DEVICE_H

#include "common/device_stream.h"

#define HOST_DEVICE_WORK_MAX 128

struct host_device {
    struct device_stream stream;
    struct host_work {
        bool (*turn)(void *arg);
        void *arg;
    } work[HOST_DEVICE_WORK_MAX];
    size_t n_work, n_done, marked;
    size_t n_marks; /* times that it was marked */
};

/* `id`: which GPU it would be. In place. */
void host_device_init(struct host_device *ret_device, uint8_t id);

#endif
