#include "coordinator/ledger/reservation.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

void reservations_init(struct reservations *r)
{
    *r = (struct reservations){0};
}

void reservations_fini(struct reservations *r)
{
    free(r->slots);
    free(r->used);
    free(r->made);
    *r = (struct reservations){0};
}

/* Sequence numbers are dense, and neighbours are open together: the multiplication spreads them. */
static size_t slot_of(const struct reservations *r, uint64_t seq)
{
    return (size_t)(seq * 0x9e3779b97f4a7c15u >> 20) & (r->capacity - 1);
}

static bool grow(struct reservations *r)
{
    struct reservations wider = *r;
    wider.capacity = r->capacity == 0 ? 64 : r->capacity * 2;
    wider.slots = calloc(wider.capacity, sizeof *wider.slots);
    wider.used = calloc(wider.capacity, sizeof *wider.used);
    if (wider.slots == NULL || wider.used == NULL) {
        free(wider.slots);
        free(wider.used);
        return false;
    }
    for (size_t i = 0; i < r->capacity; i++) {
        if (!r->used[i])
            continue;
        size_t to = slot_of(&wider, r->slots[i].seq);
        while (wider.used[to])
            to = (to + 1) & (wider.capacity - 1);
        wider.slots[to] = r->slots[i];
        wider.used[to] = true;
    }
    free(r->slots);
    free(r->used);
    *r = wider;
    return true;
}

static bool mark_made(struct reservations *r, uint64_t seq)
{
    if (seq >= r->made_bits) {
        uint64_t bits = r->made_bits == 0 ? 8192 : r->made_bits;
        while (bits <= seq)
            bits *= 2;
        uint8_t *made = realloc(r->made, bits / 8);
        if (made == NULL)
            return false;
        memset(made + r->made_bits / 8, 0, (bits - r->made_bits) / 8);
        r->made = made;
        r->made_bits = bits;
    }
    r->made[seq / 8] |= (uint8_t)(1u << seq % 8);
    return true;
}

bool reservations_add(struct reservations *r, const struct reservation *reservation)
{
    if ((r->open + 1) * 2 > r->capacity && !grow(r))
        return false;
    if (!mark_made(r, reservation->seq))
        return false;
    size_t at = slot_of(r, reservation->seq);
    while (r->used[at])
        at = (at + 1) & (r->capacity - 1);
    r->slots[at] = *reservation;
    r->used[at] = true;
    r->open++;
    return true;
}

const struct reservation *reservations_find(const struct reservations *r, uint64_t seq)
{
    if (r->capacity == 0)
        return NULL;
    for (size_t at = slot_of(r, seq); r->used[at]; at = (at + 1) & (r->capacity - 1)) {
        if (r->slots[at].seq == seq)
            return &r->slots[at];
    }
    return NULL;
}

void reservations_remove(struct reservations *r, uint64_t seq)
{
    const struct reservation *found = reservations_find(r, seq);
    size_t mask = r->capacity - 1;
    CHECK(found != NULL);
    size_t hole = (size_t)(found - r->slots);
    /* Those behind the hole that would no longer be found move into it. */
    for (size_t at = (hole + 1) & mask; r->used[at]; at = (at + 1) & mask) {
        size_t home = slot_of(r, r->slots[at].seq);
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            r->slots[hole] = r->slots[at];
            hole = at;
        }
    }
    r->used[hole] = false;
    r->open--;
}

bool reservations_was_made(const struct reservations *r, uint64_t seq)
{
    return seq < r->made_bits && (r->made[seq / 8] >> seq % 8 & 1) != 0;
}
