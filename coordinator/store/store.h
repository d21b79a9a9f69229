/*
 * store.h - ordered tables of bytes with transactions that are durable when commit returns.
 *
 * Two implementations: LMDB (store_lmdb.c) and memory (store_mem.c, for tests and the simulator),
 * with the same behaviour by the same tests. Every value is wrapped with the schema version of its
 * table and an XXH3 checksum over table, key, version and bytes; a get that finds them wrong says
 * ERR_CORRUPT with table and key and hands out nothing.
 *
 * Keys are fixed-width big-endian and compare as bytes. One write transaction at a time (a second
 * store_begin waits for the first to end); readers beside it, each seeing the state of its begin.
 * A long reader pins pages: copy out and end it.
 *
 * Errors: ERR_NO_SPACE (disk or map full: the transaction is gone, the store is as before, later
 * ones may succeed); ERR_IO after a failed sync or meta write: the store begins nothing more until
 * it is closed and opened again, because what reached the disk is not known. After any of these a
 * write transaction refuses every call with the same error; end it with commit (which gives the
 * error once more) or abort.
 *
 * Ownership: values from get and scan are borrowed until the transaction ends or, in a write
 * transaction, until its next put, append or delete; what is passed to put and append must not be
 * such a value. Thread: store_begin from any thread; a write transaction begins, works and ends on
 * one thread, a reader belongs to one thread at a time.
 */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_H
#define CLOISTER_COORDINATOR_STORE_STORE_H

#include "common/err.h"
#include "common/limits.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum store_table {
    STORE_TABLE_META,        /* name -> bytes: instance id, boot epoch, evidence key, ... */
    STORE_TABLE_JOB,         /* job id -> JobRecord */
    STORE_TABLE_CONTENT,     /* job id -> packed Job of cloister.proto */
    STORE_TABLE_CHUNK,       /* job id, first token (u32) -> ChunkRecord */
    STORE_TABLE_LEDGER,      /* seq (u64) -> LedgerRecord, exactly as hashed */
    STORE_TABLE_LEDGER_NODE, /* level (u8), index (u64) -> hash of a full subtree; the frontier */
    STORE_TABLE_USAGE,       /* tenant, model, day -> UsageRecord (key: see docs/store.md) */
    STORE_TABLE_BALANCE,     /* tenant -> BalanceRecord */
    STORE_TABLE_LEARNED,     /* name of the model -> LearnedRecord */
    STORE_TABLE_COUNT,
};

struct store;
struct store_txn;

struct store_value {
    const uint8_t *data;
    size_t size;
};

#define STORE_VALUE_BYTES_MAX (2u * LIMIT_FRAME_BYTES) /* of one value; ERR_TOO_LARGE over it */

struct store_lmdb_config {
    const char *path;   /* directory; made with mode 0700 where it is missing */
    uint64_t map_bytes; /* address space, not disk; 0: 64 GiB */
};

struct store_stat {
    uint64_t used_bytes; /* of the map, pages on the free list left out */
    uint64_t map_bytes;  /* 0: no bound (memory) */
    uint64_t entries[STORE_TABLE_COUNT];
};

/* Refuses a file of another schema version (ERR_UNSUPPORTED, both numbers), a directory that this
 * or another process has open (ERR_CONFLICT), a network file system (ERR_UNSUPPORTED), a file that
 * is damaged, cut short or no store (ERR_CORRUPT, with page and reason: store_pages.h). Not to be
 * used across fork. */
enum err store_open_lmdb(struct store **ret_store, const struct store_lmdb_config *config,
                         struct errbuf *eb);
enum err store_open_mem(struct store **ret_store, struct errbuf *eb);
/* Every transaction must have ended. NULL is fine. */
void store_close(struct store *s);

enum err store_begin(struct store *s, bool write, struct store_txn **ret_txn, struct errbuf *eb);
/* Durable when it returns ERR_OK. Ends the transaction either way. */
enum err store_commit(struct store_txn *txn, struct errbuf *eb);
void store_abort(struct store_txn *txn); /* NULL is fine */

/* ERR_NOT_FOUND sets no message. */
enum err store_get(struct store_txn *txn, enum store_table table, const void *key, size_t key_size,
                   struct store_value *ret_value, struct errbuf *eb);
enum err store_put(struct store_txn *txn, enum store_table table, const void *key, size_t key_size,
                   const void *value, size_t value_size, struct errbuf *eb);
/* As put, for a key behind every key of the table (faster); ERR_CONFLICT where it is not. */
enum err store_append(struct store_txn *txn, enum store_table table, const void *key,
                      size_t key_size, const void *value, size_t value_size, struct errbuf *eb);
/* ERR_NOT_FOUND where there was nothing. */
enum err store_delete(struct store_txn *txn, enum store_table table, const void *key,
                      size_t key_size, struct errbuf *eb);

/* Calls `visit` for keys >= from (from_size 0: all), ascending, until it returns false or the table
 * ends. `visit` may get, and may not put, append, delete or end the transaction. */
typedef bool store_visit_fn(void *arg, const uint8_t *key, size_t key_size,
                            struct store_value value);
enum err store_scan(struct store_txn *txn, enum store_table table, const void *from,
                    size_t from_size, store_visit_fn *visit, void *arg, struct errbuf *eb);
/* As scan, of keys alone: values are not looked at, so that what is damaged can be removed. */
typedef bool store_visit_key_fn(void *arg, const uint8_t *key, size_t key_size);
enum err store_scan_keys(struct store_txn *txn, enum store_table table, const void *from,
                         size_t from_size, store_visit_key_fn *visit, void *arg, struct errbuf *eb);
/* As scan, of everything that is there: where a value is not what was stored, `err` says what is
 * wrong with it, `why` says it in words, and `value` is empty. `raw` is what lies there, with the
 * seal. */
struct store_row {
    const uint8_t *key;
    size_t key_size;
    struct store_value value, raw;
    enum err err;
    const char *why;
};
typedef bool store_visit_row_fn(void *arg, const struct store_row *row);
enum err store_scan_rows(struct store_txn *txn, enum store_table table, const void *from,
                         size_t from_size, store_visit_row_fn *visit, void *arg, struct errbuf *eb);
/* The last key of a table: ERR_NOT_FOUND where it is empty. `ret_key` has LIMIT_STORE_KEY_BYTES. */
enum err store_last_key(struct store_txn *txn, enum store_table table, uint8_t *ret_key,
                        size_t *ret_key_size, struct errbuf *eb);

/* Reads everything: each value's checksum, keys in order, each found by get, as many as the table
 * says it has. What it cannot see is a store that is whole but old. */
enum err store_verify(struct store *s, struct errbuf *eb);
enum err store_stat(struct store *s, struct store_stat *ret_stat, struct errbuf *eb);
const char *store_table_name(enum store_table table);

/* Big-endian key parts. */
static inline void store_key_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}
static inline void store_key_u64(uint8_t *p, uint64_t v)
{
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
}

#endif
