/*
 * fuzz_wire: any bytes as a request, a reply, a job and each kind of record. What is accepted must
 * be accepted again after packing, and pack to the same bytes.
 */
#include "common/arena.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/limits.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct arena arena;
static struct buf once, twice;

/* decode(data) -> encode -> decode -> encode: both packed forms are equal. */
#define ROUND(type, kind)                                                                          \
    static bool kind##_round(const uint8_t *data, size_t size)                                     \
    {                                                                                              \
        struct type value, again;                                                                  \
        struct errbuf eb = {{0}};                                                                  \
        memset(&value, 0, sizeof value);                                                           \
        memset(&again, 0, sizeof again);                                                           \
        arena_reset(&arena);                                                                       \
        buf_clear(&once);                                                                          \
        buf_clear(&twice);                                                                         \
        if (kind##_decode(data, size, &arena, &value, &eb) != ERR_OK) {                            \
            CHECK(eb.text[0] != '\0');                                                             \
            return false;                                                                          \
        }                                                                                          \
        CHECK(kind##_encode(&value, &once, &eb) == ERR_OK);                                        \
        CHECK(kind##_decode(once.data, once.size, &arena, &again, &eb) == ERR_OK);                 \
        CHECK(kind##_encode(&again, &twice, &eb) == ERR_OK);                                       \
        CHECK(once.size == twice.size && memcmp(once.data, twice.data, once.size) == 0);           \
        return true;                                                                               \
    }

ROUND(wire_request, wire_request)
ROUND(wire_reply, wire_reply)
ROUND(wire_job, wire_job)
ROUND(record_job, record_job)
ROUND(record_chunk, record_chunk)
ROUND(record_usage, record_usage)
ROUND(record_balance, record_balance)
ROUND(record_learned, record_learned)
ROUND(record_ledger, record_ledger)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (arena.cap_bytes == 0) {
        arena_init(&arena, LIMIT_DECODE_BYTES);
        buf_init(&once);
        buf_init(&twice);
    }
    (void)wire_request_round(data, size);
    (void)wire_reply_round(data, size);
    (void)wire_job_round(data, size);
    (void)record_job_round(data, size);
    (void)record_chunk_round(data, size);
    (void)record_usage_round(data, size);
    (void)record_balance_round(data, size);
    (void)record_learned_round(data, size);
    if (record_ledger_round(data, size)) /* these bytes are the canonical ones */
        CHECK(once.size == size && memcmp(once.data, data, size) == 0);
    return 0;
}
