/*
 * loop_apply.h - one turn's effects become one transaction: records, content, tokens, balances and
 * the ledger's log, all or nothing.
 *
 * Thread: the committing one; the core may go on meanwhile.
 */
#ifndef CLOISTER_COORDINATOR_LOOP_APPLY_H
#define CLOISTER_COORDINATOR_LOOP_APPLY_H

#include "common/err.h"
#include "coordinator/core/core.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"

/* Into a transaction of the caller's, who commits it and tells the ledger (ledger_committed,
 * ledger_rolled_back). On an error *ret_refused is the job whose record it was, zero where it was
 * none's. */
enum err apply_effects_put(struct store_txn *txn, struct ledger *ledger,
                           const struct core_effects *effects, struct id *ret_refused,
                           struct errbuf *eb);

/* Durable when it returns ERR_OK; on any error nothing of the turn is in the store;
 * ret_refused as above, NULL is fine. */
enum err apply_effects(struct store *store, struct ledger *ledger,
                       const struct core_effects *effects, struct id *ret_refused,
                       struct errbuf *eb);

/* Keys of the tables, big-endian, fixed width. */
#define APPLY_CHUNK_KEY_BYTES 20u
void apply_chunk_key(const struct id *job_id, uint32_t first,
                     uint8_t ret_key[APPLY_CHUNK_KEY_BYTES]);
/* Names may be longer than a key: 16 bytes of SHA-256 over tenant, NUL and model, then the day. */
#define APPLY_USAGE_KEY_BYTES 20u
void apply_usage_key(const char *tenant, const char *model, uint32_t day,
                     uint8_t ret_key[APPLY_USAGE_KEY_BYTES]);

#endif
