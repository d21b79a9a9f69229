#include "coordinator/ledger/meters.h"

#include "common/crypto.h"

#include <stdlib.h>
#include <string.h>

struct meter {
    uint8_t device[SHA256_BYTES];
    uint64_t energy_mj;
};

void meters_init(struct meters *m)
{
    *m = (struct meters){0};
}

void meters_fini(struct meters *m)
{
    free(m->items);
    *m = (struct meters){0};
}

/* Where the device is, or belongs. */
static size_t meter_place(const struct meters *m, const uint8_t device[SHA256_BYTES])
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(m->items[middle].device, device, SHA256_BYTES) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static enum err meter_insert(struct meters *m, size_t at, const uint8_t device[SHA256_BYTES],
                             uint64_t energy_mj)
{
    if (m->count == METERS_MAX)
        return ERR_TOO_LARGE;
    if (m->count == m->capacity) {
        size_t capacity = m->capacity > 0 ? 2 * m->capacity : 64;
        struct meter *items = realloc(m->items, capacity * sizeof *items);
        if (items == NULL)
            return ERR_NO_MEMORY;
        m->items = items;
        m->capacity = capacity;
    }
    memmove(&m->items[at + 1], &m->items[at], (m->count - at) * sizeof *m->items);
    memcpy(m->items[at].device, device, SHA256_BYTES);
    m->items[at].energy_mj = energy_mj;
    m->count++;
    return ERR_OK;
}

enum err meters_take(struct meters *m, const char *device, uint64_t energy_mj,
                     uint64_t *ret_more_mj)
{
    uint8_t digest[SHA256_BYTES];
    sha256(device, strlen(device), digest);
    size_t at = meter_place(m, digest);
    if (at == m->count || memcmp(m->items[at].device, digest, sizeof digest) != 0) {
        enum err e = meter_insert(m, at, digest, energy_mj);
        if (e == ERR_OK)
            *ret_more_mj = 0;
        return e;
    }
    uint64_t before = m->items[at].energy_mj;
    *ret_more_mj = energy_mj >= before ? energy_mj - before : energy_mj;
    m->items[at].energy_mj = energy_mj;
    return ERR_OK;
}
