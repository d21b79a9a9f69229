#include "coordinator/repair_texts.h"

#include "common/arena.h"
#include "common/id.h"
#include "common/limits.h"
#include "proto/record.h"
#include "proto/wire.h"

#include <string.h>

struct look {
    FILE *report;
    struct arena arena; /* of one record */
    enum store_table table;
    uint64_t damaged;
    enum err err; /* that ended the look */
    struct errbuf *eb;
};

static uint32_t key_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void damaged_say(struct look *look, const struct store_row *row, const char *why)
{
    const bool is_prompt = look->table == STORE_TABLE_CONTENT;
    look->damaged++;
    if (row->key_size != (is_prompt ? ID_BYTES : ID_BYTES + 4)) {
        fprintf(look->report, "unreadable: table %s: a key that is no job's\n",
                store_table_name(look->table));
        return;
    }
    char id[ID_TEXT_BYTES];
    struct id job_id;
    memcpy(job_id.bytes, row->key, ID_BYTES);
    id_format(&job_id, id);
    if (is_prompt)
        fprintf(look->report, "unreadable: the prompt of job %s: %s\n", id, why);
    else
        fprintf(look->report, "unreadable: the answer of job %s from token %u on: %s\n", id,
                key_u32(row->key + ID_BYTES), why);
}

static bool row_visit(void *arg, const struct store_row *row)
{
    struct look *look = arg;
    struct errbuf why = {{0}};
    enum err err = row->err;
    (void)err_set(&why, err, "%s", row->why);
    arena_reset(&look->arena);
    if (err == ERR_OK && look->table == STORE_TABLE_CONTENT) {
        struct wire_job job;
        err = wire_job_decode(row->value.data, row->value.size, &look->arena, &job, &why);
    } else if (err == ERR_OK) {
        struct record_chunk chunk;
        err = record_chunk_decode(row->value.data, row->value.size, &look->arena, &chunk, &why);
    }
    /* Of another version is not damaged, and what memory could not hold is not known to be. */
    if (err == ERR_UNSUPPORTED || err == ERR_NO_MEMORY) {
        look->err = err_set(look->eb, err, "%s", why.text);
        return false;
    }
    if (err != ERR_OK)
        damaged_say(look, row, why.text);
    return true;
}

enum err repair_texts_look(struct store_txn *txn, FILE *report, uint64_t *ret_damaged,
                           struct errbuf *eb)
{
    static const enum store_table tables[] = {STORE_TABLE_CONTENT, STORE_TABLE_CHUNK};
    struct look look = {.report = report, .eb = eb};
    enum err err = ERR_OK;
    arena_init(&look.arena, LIMIT_DECODE_BYTES);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && err == ERR_OK; i++) {
        look.table = tables[i];
        err = store_scan_rows(txn, look.table, NULL, 0, row_visit, &look, eb);
        if (err == ERR_OK)
            err = look.err;
    }
    arena_fini(&look.arena);
    *ret_damaged = look.damaged;
    return err;
}
