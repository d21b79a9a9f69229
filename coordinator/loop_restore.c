#include "coordinator/loop_restore.h"

#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

const char restore_meta_boot_epoch[] = "boot_epoch";
static const char meta_probe[] = "probe";

#define PROBE_BYTES (256u << 10)

/* All that a start reads here follows from the ledger, so there is a way on. */
static void way_on_add(struct errbuf *eb)
{
    struct errbuf fault = *eb;
    (void)err_set(eb, ERR_CORRUPT,
                  "%.330s; `cloister-coordinator --check-store` says what can be mended from the "
                  "ledger, --repair does it",
                  fault.text);
}

static uint64_t u64_read(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

enum err restore_boot_read(struct store_txn *txn, uint64_t *ret_epoch, struct errbuf *eb)
{
    struct store_value value;
    enum err err = store_get(txn, STORE_TABLE_META, restore_meta_boot_epoch,
                             strlen(restore_meta_boot_epoch), &value, eb);
    if (err == ERR_OK && value.size != 8)
        return err_set(eb, ERR_CORRUPT, "stored boot epoch has %zu bytes", value.size);
    if (err == ERR_NOT_FOUND)
        *ret_epoch = 0;
    else if (err == ERR_OK)
        *ret_epoch = u64_read(value.data);
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

enum err restore_boot_put(struct store_txn *txn, struct ledger *ledger, const char *node,
                          const struct crypto_key *key, uint64_t mono_ns, uint64_t wall_ns,
                          uint64_t epoch, struct errbuf *eb)
{
    uint8_t bytes[8];
    struct record_ledger record = {.kind = RECORD_LEDGER_KEY,
                                   .node = node,
                                   .boot_epoch = epoch,
                                   .wall_ns = wall_ns,
                                   .mono_ns = mono_ns,
                                   .tenant = "",
                                   .project = "",
                                   .cost_center = "",
                                   .principal = "",
                                   .model = "",
                                   .engine_build = "",
                                   .quantization = "",
                                   .worker = ""};
    crypto_key_public(key, record.public_key);
    store_key_u64(bytes, epoch);
    enum err err = store_put(txn, STORE_TABLE_META, restore_meta_boot_epoch,
                             strlen(restore_meta_boot_epoch), bytes, sizeof bytes, eb);
    if (err == ERR_OK && !ledger_key_is_recorded(ledger))
        err = ledger_append(ledger, txn, &record, eb);
    return err;
}

enum err restore_boot(struct store *store, struct ledger *ledger, const char *node,
                      const struct crypto_key *key, uint64_t mono_ns, uint64_t wall_ns,
                      uint64_t *ret_boot_epoch, struct errbuf *eb)
{
    struct store_txn *txn;
    uint64_t epoch = 0;
    enum err err = store_begin(store, true, &txn, eb);
    if (err != ERR_OK)
        return err;
    err = restore_boot_read(txn, &epoch, eb);
    if (err == ERR_OK)
        err = restore_boot_put(txn, ledger, node, key, mono_ns, wall_ns, ++epoch, eb);
    else if (err == ERR_CORRUPT)
        way_on_add(eb);
    if (err == ERR_OK)
        err = store_commit(txn, eb);
    else
        store_abort(txn);
    if (err == ERR_OK) {
        ledger_committed(ledger);
        *ret_boot_epoch = epoch;
    } else {
        ledger_rolled_back(ledger);
    }
    return err;
}

/* ---- reading all of it ---- */

struct restore {
    struct core *core;
    enum store_table table;
    struct arena arena;
    uint64_t jobs;
    enum err err;
    struct errbuf *eb;
};

static enum err value_restore(struct restore *r, struct store_value value)
{
    struct record_job job;
    struct record_usage usage;
    struct record_balance balance;
    struct record_learned learned;
    enum err err = ERR_OK;

    switch (r->table) {
    case STORE_TABLE_JOB:
        err = record_job_decode(value.data, value.size, &r->arena, &job, r->eb);
        r->jobs++;
        return err == ERR_OK ? core_restore_job(r->core, &job, r->eb) : err;
    case STORE_TABLE_USAGE:
        err = record_usage_decode(value.data, value.size, &r->arena, &usage, r->eb);
        return err == ERR_OK ? core_restore_usage(r->core, &usage, r->eb) : err;
    case STORE_TABLE_BALANCE:
        err = record_balance_decode(value.data, value.size, &r->arena, &balance, r->eb);
        return err == ERR_OK ? core_restore_balance(r->core, &balance, r->eb) : err;
    case STORE_TABLE_LEARNED:
        err = record_learned_decode(value.data, value.size, &r->arena, &learned, r->eb);
        return err == ERR_OK ? core_restore_learned(r->core, &learned, r->eb) : err;
    default:
        return err_set(r->eb, ERR_INTERNAL, "table %s is not restored", store_table_name(r->table));
    }
}

static bool restore_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct restore *r = arg;
    (void)key;
    (void)key_size;
    arena_reset(&r->arena);
    r->err = value_restore(r, value);
    return r->err == ERR_OK;
}

enum err restore_core(struct store *store, const struct ledger *ledger,
                      const struct core_config *config, uint64_t boot_epoch, uint64_t mono_ns,
                      uint64_t wall_ns, struct core **ret_core, uint64_t *ret_jobs,
                      struct errbuf *eb)
{
    static const enum store_table tables[] = {STORE_TABLE_LEARNED, STORE_TABLE_BALANCE,
                                              STORE_TABLE_USAGE, STORE_TABLE_JOB};
    static const uint8_t from_start[1] = {0};
    struct restore r = {.core = core_new(config), .eb = eb};
    struct store_txn *txn = NULL;

    arena_init(&r.arena, LIMIT_DECODE_BYTES);
    enum err err = store_begin(store, false, &txn, eb);
    for (size_t i = 0; i < sizeof tables / sizeof tables[0] && err == ERR_OK; i++) {
        r.table = tables[i];
        err = store_scan(txn, r.table, from_start, sizeof from_start, restore_visit, &r, eb);
        if (err == ERR_OK)
            err = r.err;
        if (err != ERR_OK)
            err = err_prefix(eb, err, "store, table %s", store_table_name(r.table));
    }
    store_abort(txn);
    if (err == ERR_OK)
        err = core_restore_end(r.core, mono_ns, wall_ns, boot_epoch, ledger_size(ledger), eb);
    arena_fini(&r.arena);
    if (err != ERR_OK) {
        if (err == ERR_CORRUPT)
            way_on_add(eb);
        core_free(r.core);
        return err;
    }
    *ret_core = r.core;
    *ret_jobs = r.jobs;
    return ERR_OK;
}

enum err restore_probe(struct store *store, struct errbuf *eb)
{
    struct store_txn *txn;
    uint8_t *bytes = calloc(1, PROBE_BYTES);
    if (bytes == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a probe");
    enum err err = store_begin(store, true, &txn, eb);
    if (err == ERR_OK) {
        err = store_put(txn, STORE_TABLE_META, meta_probe, strlen(meta_probe), bytes, PROBE_BYTES,
                        eb);
        if (err == ERR_OK)
            err = store_commit(txn, eb);
        else
            store_abort(txn);
    }
    free(bytes);
    if (err != ERR_OK)
        return err;
    err = store_begin(store, true, &txn, eb);
    if (err != ERR_OK)
        return err;
    err = store_delete(txn, STORE_TABLE_META, meta_probe, strlen(meta_probe), eb);
    if (err == ERR_OK)
        return store_commit(txn, eb);
    store_abort(txn);
    return err;
}
