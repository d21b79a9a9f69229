/*
 * loop_restore.h - the core again from the store, and what a start writes into it.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_RESTORE_H
#define CLOISTER_COORDINATOR_LOOP_RESTORE_H

#include "common/crypto.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"

/* Counts the boot epoch up, and puts a KEY record into the log where `key` is not the one that the
 * last such record names. One transaction. */
enum err restore_boot(struct store *store, struct ledger *ledger, const char *node,
                      const struct crypto_key *key, uint64_t mono_ns, uint64_t wall_ns,
                      uint64_t *ret_boot_epoch, struct errbuf *eb);

/* Its parts, for who writes more with them. The number of the last boot, 0 before the first one:
 * ERR_CORRUPT where it cannot be read. And what a boot of number `epoch` puts into a transaction of
 * the caller's, who commits it and tells the ledger. */
enum err restore_boot_read(struct store_txn *txn, uint64_t *ret_epoch, struct errbuf *eb);
enum err restore_boot_put(struct store_txn *txn, struct ledger *ledger, const char *node,
                          const struct crypto_key *key, uint64_t mono_ns, uint64_t wall_ns,
                          uint64_t epoch, struct errbuf *eb);
/* The key of that number in STORE_TABLE_META. */
extern const char restore_meta_boot_epoch[];

/* `config` is borrowed by the core. ERR_CORRUPT names the record that does not fit, and
 * the way on (repair.h). */
enum err restore_core(struct store *store, const struct ledger *ledger,
                      const struct core_config *config, uint64_t boot_epoch, uint64_t mono_ns,
                      uint64_t wall_ns, struct core **ret_core, uint64_t *ret_jobs,
                      struct errbuf *eb);

/* Writes and removes a value of some size: can anything be stored? */
enum err restore_probe(struct store *store, struct errbuf *eb);

#endif
