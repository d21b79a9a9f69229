#include "coordinator/store/store.h"

#include "common/check.h"
#include "common/limits.h"
#include "coordinator/store/store_backend.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

static const char key_schema[] = "schema";
static const char key_instance[] = "instance";

const char *store_table_name(enum store_table table)
{
    static const char *const names[STORE_TABLE_COUNT] = {
        [STORE_TABLE_META] = "meta",       [STORE_TABLE_JOB] = "job",
        [STORE_TABLE_CONTENT] = "content", [STORE_TABLE_CHUNK] = "chunk",
        [STORE_TABLE_LEDGER] = "ledger",   [STORE_TABLE_LEDGER_NODE] = "ledger_node",
        [STORE_TABLE_USAGE] = "usage",     [STORE_TABLE_BALANCE] = "balance",
        [STORE_TABLE_LEARNED] = "learned",
    };
    CHECK(table >= 0 && table < STORE_TABLE_COUNT);
    return names[table];
}

/* ---- seal: schema version and checksum in front of every value ---- */

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t read_u64(const uint8_t *p)
{
    return (uint64_t)read_u32(p) << 32 | read_u32(p + 4);
}

void store_seal(uint8_t ret_seal[STORE_SEAL_BYTES], uint32_t schema, enum store_table table,
                struct store_value key, struct store_value value)
{
    uint8_t head[6 + LIMIT_STORE_KEY_BYTES];

    store_key_u32(head, schema);
    head[4] = (uint8_t)table;
    head[5] = (uint8_t)key.size;
    memcpy(head + 6, key.data, key.size);
    XXH64_hash_t place = XXH3_64bits(head, 6 + key.size);
    store_key_u32(ret_seal, schema);
    store_key_u64(ret_seal + 4, XXH3_64bits_withSeed(value.data, value.size, place));
}

/* A key as text for a message: its bytes in hex, and for META, whose keys are names, as they are.
 */
static const char *key_text(enum store_table table, struct store_value key, char *text, size_t size)
{
    static const char digit[] = "0123456789abcdef";
    size_t n = 0;
    for (size_t i = 0; i < key.size && n + 3 <= size; i++) {
        uint8_t c = key.data[i];
        if (table == STORE_TABLE_META && c > ' ' && c < 0x7f) {
            text[n++] = (char)c;
        } else {
            text[n++] = digit[c >> 4];
            text[n++] = digit[c & 15];
        }
    }
    text[n] = '\0';
    return text;
}

#define KEY_TEXT_BYTES (2 * LIMIT_STORE_KEY_BYTES + 1)

static enum err unseal(const struct store *s, enum store_table table, struct store_value key,
                       struct store_value sealed, struct store_value *ret_value, struct errbuf *eb)
{
    char text[KEY_TEXT_BYTES];
    uint8_t expect[STORE_SEAL_BYTES];

    if (sealed.size < STORE_SEAL_BYTES || key.size > LIMIT_STORE_KEY_BYTES)
        return err_set(
            eb, ERR_CORRUPT,
            "store %s: table %s, key %s: a value of %zu bytes has no room for its checksum",
            s->place, store_table_name(table), key_text(table, key, text, sizeof text),
            sealed.size);
    uint32_t schema = read_u32(sealed.data);
    struct store_value value = {sealed.data + STORE_SEAL_BYTES, sealed.size - STORE_SEAL_BYTES};
    store_seal(expect, schema, table, key, value);
    if (memcmp(expect, sealed.data, STORE_SEAL_BYTES) != 0)
        return err_set(eb, ERR_CORRUPT,
                       "store %s: table %s, key %s: checksum is %016llx, the bytes give %016llx",
                       s->place, store_table_name(table), key_text(table, key, text, sizeof text),
                       (unsigned long long)read_u64(sealed.data + 4),
                       (unsigned long long)read_u64(expect + 4));
    if (schema != STORE_TABLE_SCHEMA)
        return err_set(eb, ERR_UNSUPPORTED,
                       "store %s: table %s, key %s: written by schema %u, this build reads %u",
                       s->place, store_table_name(table), key_text(table, key, text, sizeof text),
                       (unsigned)schema, (unsigned)STORE_TABLE_SCHEMA);
    *ret_value = value;
    return ERR_OK;
}

/* ---- life ---- */

void store_base_init(struct store *s, const struct store_ops *ops, const char *place)
{
    pthread_mutexattr_t attr;

    s->ops = ops;
    s->place = place;
    atomic_init(&s->broken, false);
    atomic_init(&s->open_txns, 0);
    /* Error checking, so that a thread which begins a second writer is told, not hung. */
    CHECK(pthread_mutexattr_init(&attr) == 0);
    CHECK(pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK) == 0);
    CHECK(pthread_mutex_init(&s->writer, &attr) == 0);
    CHECK(pthread_mutexattr_destroy(&attr) == 0);
}

void store_base_fini(struct store *s)
{
    CHECK(pthread_mutex_destroy(&s->writer) == 0);
}

void store_break(struct store *s)
{
    atomic_store(&s->broken, true);
}

static enum err identity_write(struct store *s, const struct id *instance, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    uint8_t schema[4];
    enum err e;

    /* Schema version and instance id are the first values of a store: without them there must be
     * none at all. */
    e = store_begin(s, true, &txn, eb);
    for (int t = 0; e == ERR_OK && t < STORE_TABLE_COUNT; t++) {
        uint64_t count = 0;
        e = s->ops->count(txn, (enum store_table)t, &count, eb);
        if (e == ERR_OK && count > 0)
            e = err_set(eb, ERR_CORRUPT,
                        "store %s: no schema version, yet table %s has %llu values", s->place,
                        store_table_name((enum store_table)t), (unsigned long long)count);
    }
    store_key_u32(schema, STORE_SCHEMA);
    if (e == ERR_OK)
        e = store_put(txn, STORE_TABLE_META, key_schema, sizeof key_schema - 1, schema,
                      sizeof schema, eb);
    if (e == ERR_OK)
        e = store_put(txn, STORE_TABLE_META, key_instance, sizeof key_instance - 1, instance->bytes,
                      ID_BYTES, eb);
    if (e != ERR_OK) {
        store_abort(txn);
        return e;
    }
    return store_commit(txn, eb);
}

static enum err identity_read(struct store *s, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    struct store_value value;
    enum err e = store_begin(s, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = store_get(txn, STORE_TABLE_META, key_schema, sizeof key_schema - 1, &value, eb);
    if (e != ERR_OK)
        goto out;
    if (value.size != 4 || read_u32(value.data) != STORE_SCHEMA) {
        e = err_set(eb, ERR_UNSUPPORTED, "store %s: has schema %u, this build reads %u", s->place,
                    value.size == 4 ? (unsigned)read_u32(value.data) : 0u, (unsigned)STORE_SCHEMA);
        goto out;
    }
    e = store_get(txn, STORE_TABLE_META, key_instance, sizeof key_instance - 1, &value, eb);
    if (e == ERR_NOT_FOUND || (e == ERR_OK && value.size != ID_BYTES))
        e = err_set(eb, ERR_CORRUPT, "store %s: no instance id", s->place);
out:
    store_abort(txn);
    return e;
}

enum err store_base_identify(struct store *s, const struct id *instance, struct errbuf *eb)
{
    enum err e = identity_read(s, eb);
    if (e != ERR_NOT_FOUND)
        return e;
    e = identity_write(s, instance, eb);
    return e == ERR_OK ? identity_read(s, eb) : e;
}

void store_close(struct store *s)
{
    if (s == NULL)
        return;
    CHECK(atomic_load(&s->open_txns) == 0);
    s->ops->close(s);
}

/* ---- transactions ---- */

enum err store_begin(struct store *s, bool write, struct store_txn **ret_txn, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    enum err e;

    if (write)
        CHECK(pthread_mutex_lock(&s->writer) == 0); /* EDEADLK: this thread has a writer open */
    if (atomic_load(&s->broken))
        e = err_set(eb, ERR_IO, "store %s: a commit failed half-way; it must be opened again",
                    s->place);
    else
        e = s->ops->begin(s, write, &txn, eb);
    if (e != ERR_OK) {
        if (write)
            CHECK(pthread_mutex_unlock(&s->writer) == 0);
        return e;
    }
    atomic_fetch_add(&s->open_txns, 1);
    *ret_txn = txn;
    return ERR_OK;
}

static void txn_ended(struct store *s, bool write)
{
    atomic_fetch_sub(&s->open_txns, 1);
    if (write)
        CHECK(pthread_mutex_unlock(&s->writer) == 0); /* EPERM: ended on another thread */
}

enum err store_commit(struct store_txn *txn, struct errbuf *eb)
{
    struct store *s = txn->store;
    bool write = txn->write;
    enum err e = txn->failed;

    CHECK(txn->scans == 0);
    if (e != ERR_OK) {
        e = err_set(eb, e, "%s", txn->why.text);
        s->ops->abort(txn);
    } else {
        e = s->ops->commit(txn, eb);
    }
    txn_ended(s, write);
    return e;
}

void store_abort(struct store_txn *txn)
{
    if (txn == NULL)
        return;
    struct store *s = txn->store;
    bool write = txn->write;
    CHECK(txn->scans == 0);
    s->ops->abort(txn);
    txn_ended(s, write);
}

static struct store_value key_of(enum store_table table, const void *key, size_t key_size)
{
    CHECK(table >= 0 && table < STORE_TABLE_COUNT);
    CHECK(key_size >= 1 && key_size <= LIMIT_STORE_KEY_BYTES);
    return (struct store_value){key, key_size};
}

/* An error after which nobody can say what the transaction holds: it is over. */
static enum err txn_result(struct store_txn *txn, enum err e, const struct errbuf *why,
                           struct errbuf *eb)
{
    if (e == ERR_OK || e == ERR_NOT_FOUND)
        return e;
    if (txn->write && e != ERR_CONFLICT) {
        txn->failed = e;
        txn->why = *why;
    }
    return err_set(eb, e, "%s", why->text);
}

enum err store_get(struct store_txn *txn, enum store_table table, const void *key, size_t key_size,
                   struct store_value *ret_value, struct errbuf *eb)
{
    struct store_value k = key_of(table, key, key_size), sealed;
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    enum err e = txn->store->ops->get(txn, table, k, &sealed, eb);
    return e == ERR_OK ? unseal(txn->store, table, k, sealed, ret_value, eb) : e;
}

static enum err put(struct store_txn *txn, enum store_table table, struct store_value key,
                    struct store_value value, bool append, struct errbuf *eb)
{
    uint8_t seal[STORE_SEAL_BYTES];
    struct errbuf why = {{0}};

    CHECK(txn->write && txn->scans == 0);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    if (value.size > STORE_VALUE_BYTES_MAX)
        return err_set(
            eb, ERR_TOO_LARGE, "store %s: table %s: a value of %zu bytes, at most %u fit",
            txn->store->place, store_table_name(table), value.size, STORE_VALUE_BYTES_MAX);
    store_seal(seal, STORE_TABLE_SCHEMA, table, key, value);
    enum err e = txn->store->ops->put(txn, table, key, seal, value, append, &why);
    return txn_result(txn, e, &why, eb);
}

enum err store_put(struct store_txn *txn, enum store_table table, const void *key, size_t key_size,
                   const void *value, size_t value_size, struct errbuf *eb)
{
    return put(txn, table, key_of(table, key, key_size), (struct store_value){value, value_size},
               false, eb);
}

enum err store_append(struct store_txn *txn, enum store_table table, const void *key,
                      size_t key_size, const void *value, size_t value_size, struct errbuf *eb)
{
    return put(txn, table, key_of(table, key, key_size), (struct store_value){value, value_size},
               true, eb);
}

enum err store_delete(struct store_txn *txn, enum store_table table, const void *key,
                      size_t key_size, struct errbuf *eb)
{
    struct store_value k = key_of(table, key, key_size);
    struct errbuf why = {{0}};

    CHECK(txn->write && txn->scans == 0);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    return txn_result(txn, txn->store->ops->remove(txn, table, k, &why), &why, eb);
}

struct scan {
    const struct store *store;
    enum store_table table;
    store_visit_fn *visit;
    void *arg;
    enum err err;
    struct errbuf *eb;
};

static bool scan_visit(void *arg, struct store_value key, struct store_value sealed)
{
    struct scan *scan = arg;
    struct store_value value;
    scan->err = unseal(scan->store, scan->table, key, sealed, &value, scan->eb);
    return scan->err == ERR_OK && scan->visit(scan->arg, key.data, key.size, value);
}

enum err store_scan(struct store_txn *txn, enum store_table table, const void *from,
                    size_t from_size, store_visit_fn *visit, void *arg, struct errbuf *eb)
{
    struct scan scan = {txn->store, table, visit, arg, ERR_OK, eb};

    CHECK(table >= 0 && table < STORE_TABLE_COUNT && from_size <= LIMIT_STORE_KEY_BYTES);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    txn->scans++;
    enum err e = txn->store->ops->scan(txn, table, (struct store_value){from, from_size},
                                       scan_visit, &scan, eb);
    txn->scans--;
    return e == ERR_OK ? scan.err : e;
}

struct scan_keys {
    store_visit_key_fn *visit;
    void *arg;
};

static bool scan_keys_visit(void *arg, struct store_value key, struct store_value sealed)
{
    const struct scan_keys *scan = arg;
    (void)sealed;
    return scan->visit(scan->arg, key.data, key.size);
}

enum err store_scan_keys(struct store_txn *txn, enum store_table table, const void *from,
                         size_t from_size, store_visit_key_fn *visit, void *arg, struct errbuf *eb)
{
    struct scan_keys scan = {visit, arg};

    CHECK(table >= 0 && table < STORE_TABLE_COUNT && from_size <= LIMIT_STORE_KEY_BYTES);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    txn->scans++;
    enum err e = txn->store->ops->scan(txn, table, (struct store_value){from, from_size},
                                       scan_keys_visit, &scan, eb);
    txn->scans--;
    return e;
}

struct scan_rows {
    const struct store *store;
    enum store_table table;
    store_visit_row_fn *visit;
    void *arg;
};

static bool scan_rows_visit(void *arg, struct store_value key, struct store_value sealed)
{
    const struct scan_rows *scan = arg;
    struct errbuf why = {{0}};
    struct store_row row = {.key = key.data, .key_size = key.size, .raw = sealed, .why = why.text};
    row.err = unseal(scan->store, scan->table, key, sealed, &row.value, &why);
    return scan->visit(scan->arg, &row);
}

enum err store_scan_rows(struct store_txn *txn, enum store_table table, const void *from,
                         size_t from_size, store_visit_row_fn *visit, void *arg, struct errbuf *eb)
{
    struct scan_rows scan = {txn->store, table, visit, arg};

    CHECK(table >= 0 && table < STORE_TABLE_COUNT && from_size <= LIMIT_STORE_KEY_BYTES);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    txn->scans++;
    enum err e = txn->store->ops->scan(txn, table, (struct store_value){from, from_size},
                                       scan_rows_visit, &scan, eb);
    txn->scans--;
    return e;
}

enum err store_last_key(struct store_txn *txn, enum store_table table, uint8_t *ret_key,
                        size_t *ret_key_size, struct errbuf *eb)
{
    struct store_value key;
    CHECK(table >= 0 && table < STORE_TABLE_COUNT);
    if (txn->failed != ERR_OK)
        return err_set(eb, txn->failed, "%s", txn->why.text);
    enum err e = txn->store->ops->last_key(txn, table, &key, eb);
    if (e != ERR_OK)
        return e;
    if (key.size > LIMIT_STORE_KEY_BYTES)
        return err_set(eb, ERR_CORRUPT, "store %s: table %s: its last key has %zu bytes",
                       txn->store->place, store_table_name(table), key.size);
    memcpy(ret_key, key.data, key.size);
    *ret_key_size = key.size;
    return ERR_OK;
}

/* ---- the whole ---- */

struct verify {
    struct store_txn *txn;
    enum store_table table;
    uint64_t count;
    const char *fault;
    size_t last_size;
    uint8_t last[LIMIT_STORE_KEY_BYTES];
};

static bool verify_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct verify *v = arg;
    struct store_value found;
    if (v->count > 0) {
        size_t n = key_size < v->last_size ? key_size : v->last_size;
        int order = memcmp(v->last, key, n);
        if (order > 0 || (order == 0 && v->last_size >= key_size))
            v->fault = "keys out of order";
    }
    /* The walk from value to value and the way down to one go through different pages. */
    if (store_get(v->txn, v->table, key, key_size, &found, NULL) != ERR_OK ||
        found.size != value.size || memcmp(found.data, value.data, value.size) != 0)
        v->fault = "a key that is there is not found";
    v->count++;
    v->last_size = key_size; /* unseal has checked that it fits */
    memcpy(v->last, key, key_size);
    return v->fault == NULL;
}

enum err store_verify(struct store *s, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    enum err e = store_begin(s, false, &txn, eb);
    for (int t = 0; e == ERR_OK && t < STORE_TABLE_COUNT; t++) {
        enum store_table table = (enum store_table)t;
        struct verify v = {.txn = txn, .table = table};
        uint64_t count = 0;
        e = s->ops->count(txn, table, &count, eb);
        if (e == ERR_OK)
            e = store_scan(txn, table, NULL, 0, verify_visit, &v, eb);
        if (e == ERR_OK && v.fault == NULL && v.count != count)
            v.fault = "it ends";
        if (e == ERR_OK && v.fault != NULL)
            e = err_set(eb, ERR_CORRUPT, "store %s: table %s: %s after %llu of %llu values",
                        s->place, store_table_name(table), v.fault, (unsigned long long)v.count,
                        (unsigned long long)count);
    }
    store_abort(txn);
    return e;
}

enum err store_stat(struct store *s, struct store_stat *ret_stat, struct errbuf *eb)
{
    struct store_stat stat = {0};
    struct store_txn *txn = NULL;
    enum err e = store_begin(s, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = s->ops->usage(txn, &stat, eb);
    for (int t = 0; e == ERR_OK && t < STORE_TABLE_COUNT; t++)
        e = s->ops->count(txn, (enum store_table)t, &stat.entries[t], eb);
    store_abort(txn);
    if (e == ERR_OK)
        *ret_stat = stat;
    return e;
}
