/*
 * ledger.h - the append-only log of what was promised and what was computed.
 *
 * Each record's leaf is SHA-256(0x00 || packed record); the tree is RFC 6962's. Records, the
 * frontier of full subtrees and the job's own change of state are written by one transaction. A
 * checkpoint (C2SP signed note: origin, size, root; Ed25519) is signed only after the commit that
 * holds its records is durable, and is kept in a second place, outside the store: a store whose
 * log is shorter than it, or gives another root at its size, was restored from an old copy or
 * changed, and opening refuses.
 *
 * Sources: RFC 6962 section 2.1; C2SP signed-note, tlog-checkpoint.
 *
 * Ownership: ledger_close frees. Thread: append and commit hooks from the committing thread;
 * ledger_size, ledger_checkpoint_read and reads from any.
 */
#ifndef CLOISTER_COORDINATOR_LEDGER_LEDGER_H
#define CLOISTER_COORDINATOR_LEDGER_LEDGER_H

#include "common/arena.h"
#include "common/crypto.h"
#include "common/err.h"
#include "coordinator/store/store.h"
#include "proto/record.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ledger;

struct ledger_config {
    const char *origin;           /* "cloister.example/ledger": the signer's name */
    const struct crypto_key *key; /* borrowed while open */
    const char *checkpoint_path;  /* the second place: a file, replaced atomically, fsynced */
};

/* Rebuilds the frontier from the store and compares it with the checkpoint file: ERR_CORRUPT says
 * both sizes (and roots where they differ at one size); the records behind the checkpoint are
 * hashed again. A first opening (empty log, no file) writes only the evidence key; a log without
 * its checkpoint file is refused unless none was ever signed. */
enum err ledger_open(struct ledger **ret_ledger, struct store *store,
                     const struct ledger_config *config, struct errbuf *eb);
void ledger_close(struct ledger *l);

/* Sets record->seq and schema, packs, and writes record and tree nodes into `txn`. Several appends
 * a transaction. The caller commits, then calls ledger_committed, or ledger_rolled_back: also after
 * an error of append, and before the next one. */
enum err ledger_append(struct ledger *l, struct store_txn *txn, struct record_ledger *record,
                       struct errbuf *eb);
void ledger_committed(struct ledger *l);
void ledger_rolled_back(struct ledger *l);

/* The key that the newest committed KEY record names is the one that signs: false until a KEY
 * record was written for it, which is for the caller to do before the first checkpoint. */
bool ledger_key_is_recorded(const struct ledger *l);

uint64_t ledger_size(const struct ledger *l); /* durable records */
void ledger_root(const struct ledger *l, uint8_t ret_root[SHA256_BYTES]);

/* HMAC-SHA-256 under the evidence key, which is made at first opening and kept in the store. */
void ledger_evidence_hash(const struct ledger *l, const void *bytes, size_t size,
                          uint8_t ret_hash[SHA256_BYTES]);

/* Signs the durable state unless it is signed already (an empty log never is). Refuses
 * (ERR_CORRUPT) where the checkpoint file or the newest note is not a beginning of this log: what
 * was signed once is never contradicted. An error leaves the former checkpoint standing. Thread:
 * one at a time, with no write transaction of its own open. */
enum err ledger_checkpoint_sign(struct ledger *l, struct errbuf *eb);
/* The newest signed note with its size; empty text and 0 before the first. */
#define LEDGER_NOTE_BYTES 1024
uint64_t ledger_checkpoint_read(const struct ledger *l, char ret_note[LEDGER_NOTE_BYTES]);

/* Packed records as they were hashed, from one state of the log. */
struct ledger_range {
    uint64_t first;
    uint64_t size; /* durable records in the log */
    size_t n_records;
    const struct store_value *records;
    char note[LEDGER_NOTE_BYTES]; /* the newest checkpoint, of `size` records or fewer */
};

/* At most `count_max` records and `bytes_max` bytes, but one record where there is one. None where
 * `first` is not below `size`. Ownership: lies in `arena`. Thread: any. */
enum err ledger_read_range(const struct ledger *l, uint64_t first, uint32_t count_max,
                           size_t bytes_max, struct arena *arena, struct ledger_range *ret_range,
                           struct errbuf *eb);

/* Hashes every record again and compares all stored nodes and the root: ERR_CORRUPT names the
 * first that differs. Reads the whole log. Thread: any. */
enum err ledger_verify(const struct ledger *l, struct errbuf *eb);

#endif
