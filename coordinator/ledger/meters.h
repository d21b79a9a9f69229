/*
 * meters.h - what readings of devices' energy counters add up to. A counter only grows, and begins
 * again at 0 when its driver is loaded anew: what lies between two readings is their difference,
 * or, where the later one is less, the later one alone.
 *
 * Memory: 40 bytes a device, METERS_MAX at most. Thread: one owner.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_METERS_H
#define CLOISTER_COORDINATOR_LEDGER_METERS_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define METERS_MAX 65536u

struct meters {
    struct meter *items; /* by digest of the device's name */
    size_t count, capacity;
};

void meters_init(struct meters *m);
void meters_fini(struct meters *m);

/* *ret_more_mj: since the reading before it, 0 for the first of a device. ERR_NO_MEMORY;
 * ERR_TOO_LARGE: more devices than METERS_MAX. */
enum err meters_take(struct meters *m, const char *device, uint64_t energy_mj,
                     uint64_t *ret_more_mj);

#endif
