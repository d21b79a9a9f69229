/*
 * reservation.h - the reservations of a ledger that is being read from its beginning: which are
 * open, and whether one that is not ever was.
 *
 * Memory: a bit a record and about 100 bytes an open reservation. Thread: one owner.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_RESERVATION_H
#define CLOISTER_COORDINATOR_LEDGER_RESERVATION_H

#include "common/crypto.h"
#include "common/id.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reservation {
    uint64_t seq; /* of the RESERVE */
    struct id job_id;
    uint64_t tokens;
    uint32_t max_tokens;
    uint8_t owner[SHA256_BYTES]; /* digest of tenant and model */
};

struct reservations {
    struct reservation *slots; /* open addressing; `used` says which */
    bool *used;
    size_t capacity; /* a power of two, or 0 */
    size_t open;
    uint8_t *made; /* bit seq: record seq was a RESERVE */
    uint64_t made_bits;
};

void reservations_init(struct reservations *r);
void reservations_fini(struct reservations *r);

/* False without memory. The seq was never added before. */
bool reservations_add(struct reservations *r, const struct reservation *reservation);
/* NULL where none with this seq is open; valid until the next add or remove. */
const struct reservation *reservations_find(const struct reservations *r, uint64_t seq);
void reservations_remove(struct reservations *r, uint64_t seq); /* must be open */
bool reservations_was_made(const struct reservations *r, uint64_t seq);

#endif
