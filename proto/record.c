#include "proto/record.h"

#include "common/limits.h"
#include "proto/record_tables.h"

#include <string.h>

/* What the disk gives back and does not fit is damage, whichever rule it breaks. */
static enum err record_decode(const struct convert_message *table, const char *name,
                              const void *bytes, size_t size, struct arena *arena, void *ret_record,
                              struct errbuf *eb)
{
    enum err err = convert_decode(table, name, bytes, size, arena, ret_record, eb);
    return err == ERR_OK || err == ERR_NO_MEMORY ? err : ERR_CORRUPT;
}

enum err record_job_encode(const struct record_job *record, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&record_job_table, "job record", record, LIMIT_FRAME_BYTES,
                          "LIMIT_FRAME_BYTES", out, eb);
}

enum err record_job_decode(const void *bytes, size_t size, struct arena *arena,
                           struct record_job *ret_record, struct errbuf *eb)
{
    return record_decode(&record_job_table, "job record", bytes, size, arena, ret_record, eb);
}

enum err record_chunk_encode(const struct record_chunk *record, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&record_chunk_table, "chunk record", record, LIMIT_FRAME_BYTES,
                          "LIMIT_FRAME_BYTES", out, eb);
}

enum err record_chunk_decode(const void *bytes, size_t size, struct arena *arena,
                             struct record_chunk *ret_record, struct errbuf *eb)
{
    return record_decode(&record_chunk_table, "chunk record", bytes, size, arena, ret_record, eb);
}

enum err record_usage_encode(const struct record_usage *record, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&record_usage_table, "usage record", record, LIMIT_FRAME_BYTES,
                          "LIMIT_FRAME_BYTES", out, eb);
}

enum err record_usage_decode(const void *bytes, size_t size, struct arena *arena,
                             struct record_usage *ret_record, struct errbuf *eb)
{
    return record_decode(&record_usage_table, "usage record", bytes, size, arena, ret_record, eb);
}

enum err record_balance_encode(const struct record_balance *record, struct buf *out,
                               struct errbuf *eb)
{
    return convert_encode(&record_balance_table, "balance record", record, LIMIT_FRAME_BYTES,
                          "LIMIT_FRAME_BYTES", out, eb);
}

enum err record_balance_decode(const void *bytes, size_t size, struct arena *arena,
                               struct record_balance *ret_record, struct errbuf *eb)
{
    return record_decode(&record_balance_table, "balance record", bytes, size, arena, ret_record,
                         eb);
}

enum err record_learned_encode(const struct record_learned *record, struct buf *out,
                               struct errbuf *eb)
{
    return convert_encode(&record_learned_table, "learned record", record, LIMIT_FRAME_BYTES,
                          "LIMIT_FRAME_BYTES", out, eb);
}

enum err record_learned_decode(const void *bytes, size_t size, struct arena *arena,
                               struct record_learned *ret_record, struct errbuf *eb)
{
    return record_decode(&record_learned_table, "learned record", bytes, size, arena, ret_record,
                         eb);
}

enum err record_ledger_encode(const struct record_ledger *record, struct buf *out,
                              struct errbuf *eb)
{
    return convert_encode(&record_ledger_table, "ledger record", record, LIMIT_LEDGER_RECORD_BYTES,
                          "LIMIT_LEDGER_RECORD_BYTES", out, eb);
}

enum err record_ledger_decode(const void *bytes, size_t size, struct arena *arena,
                              struct record_ledger *ret_record, struct errbuf *eb)
{
    struct record_ledger record;
    struct buf again;

    if (size > LIMIT_LEDGER_RECORD_BYTES)
        return err_set(eb, ERR_CORRUPT,
                       "ledger record: %zu bytes are over LIMIT_LEDGER_RECORD_BYTES (%u)", size,
                       LIMIT_LEDGER_RECORD_BYTES);
    enum err err =
        record_decode(&record_ledger_table, "ledger record", bytes, size, arena, &record, eb);
    if (err != ERR_OK)
        return err;
    /* Two spellings of one record would give it two leaves in the tree. */
    buf_init(&again);
    err = record_ledger_encode(&record, &again, eb);
    if (err == ERR_OK && (again.size != size || memcmp(again.data, bytes, size) != 0))
        err = err_set(eb, ERR_CORRUPT,
                      "ledger record: not in canonical form (unknown field, order or default)");
    buf_fini(&again);
    if (err == ERR_OK)
        *ret_record = record;
    return err;
}

const char *record_ledger_kind_name(enum record_ledger_kind kind)
{
    switch (kind) {
    case RECORD_LEDGER_RESERVE:
        return "RESERVE";
    case RECORD_LEDGER_SETTLE:
        return "SETTLE";
    case RECORD_LEDGER_VOID:
        return "VOID";
    case RECORD_LEDGER_EXPIRE:
        return "EXPIRE";
    case RECORD_LEDGER_KEY:
        return "KEY";
    case RECORD_LEDGER_METER:
        return "METER";
    case RECORD_LEDGER_UNSPECIFIED:
        break;
    }
    return "UNSPECIFIED";
}
