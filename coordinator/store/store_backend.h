/*
 * store_backend.h - what a kind of store implements, under the checksums that all of them share.
 *
 * store.c checks arguments, seals values and verifies seals; a backend moves bytes. A backend's
 * own store and transaction begin with `struct store` and `struct store_txn`.
 */
#ifndef CLOISTER_COORDINATOR_STORE_STORE_BACKEND_H
#define CLOISTER_COORDINATOR_STORE_STORE_BACKEND_H

#include "common/id.h"
#include "common/limits.h"
#include "coordinator/store/store.h"

#include <pthread.h>
#include <stdatomic.h>

/* In front of every value, big-endian: schema version (u32), checksum (u64). The checksum is the
 * value's XXH3-64 with, as its seed, the XXH3-64 of schema version (u32, big-endian), table (u8),
 * key size (u8) and key: a value in another's place is as wrong as one that was changed. */
#define STORE_SEAL_BYTES   12
#define STORE_SCHEMA       1u /* of the file as a whole; in META under "schema" */
#define STORE_TABLE_SCHEMA 1u /* of the values of every table so far */

void store_seal(uint8_t ret_seal[STORE_SEAL_BYTES], uint32_t schema, enum store_table table,
                struct store_value key, struct store_value value);

/* Gets sealed values; false ends the scan. */
typedef bool store_visit_sealed_fn(void *arg, struct store_value key, struct store_value sealed);

struct store_ops {
    /* For a writer, called with the store's writer lock held. Sets base.store and base.write. */
    enum err (*begin)(struct store *s, bool write, struct store_txn **ret_txn, struct errbuf *eb);
    /* Both free the transaction. commit calls store_break where it cannot tell what is on disk. */
    enum err (*commit)(struct store_txn *txn, struct errbuf *eb);
    void (*abort)(struct store_txn *txn);

    /* ERR_NOT_FOUND sets no message. */
    enum err (*get)(struct store_txn *txn, enum store_table table, struct store_value key,
                    struct store_value *ret_sealed, struct errbuf *eb);
    /* Stores seal and value as one. With `append`, ERR_CONFLICT unless the key is the greatest. */
    enum err (*put)(struct store_txn *txn, enum store_table table, struct store_value key,
                    const uint8_t seal[STORE_SEAL_BYTES], struct store_value value, bool append,
                    struct errbuf *eb);
    enum err (*remove)(struct store_txn *txn, enum store_table table, struct store_value key,
                       struct errbuf *eb);
    enum err (*scan)(struct store_txn *txn, enum store_table table, struct store_value from,
                     store_visit_sealed_fn *visit, void *arg, struct errbuf *eb);
    enum err (*last_key)(struct store_txn *txn, enum store_table table, struct store_value *ret_key,
                         struct errbuf *eb);
    enum err (*count)(struct store_txn *txn, enum store_table table, uint64_t *ret_count,
                      struct errbuf *eb);
    /* Fills used_bytes and map_bytes as `txn`, a reader, sees them. */
    enum err (*usage)(struct store_txn *txn, struct store_stat *ret_stat, struct errbuf *eb);
    void (*close)(struct store *s); /* frees it */
};

struct store {
    const struct store_ops *ops;
    const char *place;      /* for messages: the directory, or "memory" */
    pthread_mutex_t writer; /* held from a write transaction's begin to its end */
    atomic_bool broken;     /* a commit failed half-way: nothing more may begin */
    atomic_uint open_txns;
};

struct store_txn {
    struct store *store;
    bool write;
    unsigned scans;    /* under way: the tables may not change */
    enum err failed;   /* ERR_OK, or what ended a write transaction early ... */
    struct errbuf why; /* ... and its message */
};

/* `place` stays with the backend. */
void store_base_init(struct store *s, const struct store_ops *ops, const char *place);
void store_base_fini(struct store *s);
/* Reads schema version and instance id, or writes them to an empty store. */
enum err store_base_identify(struct store *s, const struct id *instance, struct errbuf *eb);
void store_break(struct store *s);

#endif
