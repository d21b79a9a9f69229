#include "coordinator/ledger/ledger.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/limits.h"
#include "coordinator/ledger/checkpoint_file.h"
#include "coordinator/ledger/merkle.h"
#include "coordinator/ledger/note.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define EVIDENCE_KEY_BYTES 32
#define NODE_KEY_BYTES     9 /* level (u8), index (u64) */

_Static_assert(LEDGER_NOTE_BYTES == NOTE_TEXT_BYTES, "a note that was signed must fit");

/* Keys of STORE_TABLE_META. */
static const char meta_evidence[] = "ledger_evidence_key"; /* 32 random bytes */
static const char meta_signed[] = "ledger_signed";         /* there since the first checkpoint */
static const char meta_key[] = "ledger_key";               /* public key of the last KEY record */

struct ledger {
    struct store *store;
    const struct crypto_key *key;
    char origin[NOTE_ORIGIN_BYTES];
    char *checkpoint_path;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    uint8_t evidence_key[EVIDENCE_KEY_BYTES];
    bool signed_marked; /* meta_signed is in the store; signer only */

    /* Committing thread only: what the open transaction will make durable. */
    struct merkle_frontier pending;
    uint8_t key_pending[ED25519_PUBLIC_BYTES];
    struct buf packed;

    pthread_mutex_t lock; /* around all below */
    struct merkle_frontier durable;
    uint8_t key_recorded[ED25519_PUBLIC_BYTES];
    struct note note; /* the newest one, size 0 before the first */
    char note_text[LEDGER_NOTE_BYTES];
};

static void ledger_lock(const struct ledger *l)
{
    CHECK(pthread_mutex_lock(&((struct ledger *)(uintptr_t)l)->lock) == 0);
}

static void ledger_unlock(const struct ledger *l)
{
    CHECK(pthread_mutex_unlock(&((struct ledger *)(uintptr_t)l)->lock) == 0);
}

/* ---- tree in the store: nodes of level 1 and above are stored, leaves follow from records ---- */

static void node_key(uint8_t ret_key[NODE_KEY_BYTES], unsigned level, uint64_t index)
{
    ret_key[0] = (uint8_t)level;
    store_key_u64(ret_key + 1, index);
}

static enum err leaf_read(struct store_txn *txn, uint64_t seq, uint8_t ret_hash[SHA256_BYTES],
                          struct errbuf *eb)
{
    uint8_t key[8];
    struct store_value value;
    store_key_u64(key, seq);
    enum err e = store_get(txn, STORE_TABLE_LEDGER, key, sizeof key, &value, eb);
    if (e == ERR_NOT_FOUND)
        return err_set(eb, ERR_CORRUPT, "ledger: record %" PRIu64 " is missing", seq);
    if (e == ERR_OK)
        merkle_leaf_hash(value.data, value.size, ret_hash);
    return e;
}

/* A merkle_node_fn; `arg` is a transaction. */
static enum err node_read(void *arg, unsigned level, uint64_t index, uint8_t ret_hash[SHA256_BYTES],
                          struct errbuf *eb)
{
    uint8_t key[NODE_KEY_BYTES];
    struct store_value value;
    if (level == 0)
        return leaf_read(arg, index, ret_hash, eb);
    node_key(key, level, index);
    enum err e = store_get(arg, STORE_TABLE_LEDGER_NODE, key, sizeof key, &value, eb);
    if (e == ERR_NOT_FOUND || (e == ERR_OK && value.size != SHA256_BYTES))
        return err_set(eb, ERR_CORRUPT, "ledger: tree node %u/%" PRIu64 " is missing", level,
                       index);
    if (e == ERR_OK)
        memcpy(ret_hash, value.data, SHA256_BYTES);
    return e;
}

/* A merkle_emit_fn that writes; `arg` is a transaction. */
static enum err node_write(void *arg, unsigned level, uint64_t index,
                           const uint8_t hash[SHA256_BYTES], struct errbuf *eb)
{
    uint8_t key[NODE_KEY_BYTES];
    node_key(key, level, index);
    return store_put(arg, STORE_TABLE_LEDGER_NODE, key, sizeof key, hash, SHA256_BYTES, eb);
}

/* A merkle_emit_fn that compares with what is stored; `arg` is a transaction. */
static enum err node_compare(void *arg, unsigned level, uint64_t index,
                             const uint8_t hash[SHA256_BYTES], struct errbuf *eb)
{
    uint8_t stored[SHA256_BYTES];
    enum err e = node_read(arg, level, index, stored, eb);
    if (e == ERR_OK && memcmp(stored, hash, SHA256_BYTES) != 0)
        e = err_set(eb, ERR_CORRUPT,
                    "ledger: tree node %u/%" PRIu64 " does not follow from the records under it",
                    level, index);
    return e;
}

static enum err root_read(struct store_txn *txn, uint64_t size, uint8_t ret_root[SHA256_BYTES],
                          struct errbuf *eb)
{
    struct merkle_frontier f;
    enum err e = merkle_frontier_load(&f, size, node_read, txn, eb);
    if (e == ERR_OK)
        merkle_frontier_root(&f, ret_root);
    return e;
}

/* Hashes the records [from, to) again, checks that each decodes and says its own number, and
 * compares every node that they complete. */
static enum err tail_verify(struct store_txn *txn, uint64_t from, uint64_t to, struct errbuf *eb)
{
    struct merkle_frontier f;
    struct arena arena;
    enum err e = merkle_frontier_load(&f, from, node_read, txn, eb);

    arena_init(&arena, LIMIT_DECODE_BYTES);
    for (uint64_t seq = from; e == ERR_OK && seq < to; seq++) {
        uint8_t key[8], leaf[SHA256_BYTES];
        struct store_value value;
        struct record_ledger record;
        store_key_u64(key, seq);
        e = store_get(txn, STORE_TABLE_LEDGER, key, sizeof key, &value, eb);
        if (e == ERR_NOT_FOUND)
            e = err_set(eb, ERR_CORRUPT, "ledger: record %" PRIu64 " is missing", seq);
        if (e == ERR_OK) {
            e = record_ledger_decode(value.data, value.size, &arena, &record, eb);
            if (e != ERR_OK)
                e = err_prefix(eb, e, "ledger: record %" PRIu64, seq);
        }
        if (e == ERR_OK && record.seq != seq)
            e = err_set(eb, ERR_CORRUPT, "ledger: record %" PRIu64 " calls itself %" PRIu64, seq,
                        record.seq);
        if (e == ERR_OK) {
            merkle_leaf_hash(value.data, value.size, leaf);
            e = merkle_frontier_append(&f, leaf, node_compare, txn, eb);
        }
        arena_reset(&arena);
    }
    arena_fini(&arena);
    return e;
}

/* ---- opening ---- */

static enum err size_read(struct store_txn *txn, uint64_t *ret_size, struct errbuf *eb)
{
    uint8_t key[LIMIT_STORE_KEY_BYTES];
    size_t key_size = 0;
    uint64_t last = 0;
    enum err e = store_last_key(txn, STORE_TABLE_LEDGER, key, &key_size, eb);
    if (e == ERR_NOT_FOUND) {
        *ret_size = 0;
        return ERR_OK;
    }
    if (e != ERR_OK)
        return e;
    for (size_t i = 0; i < 8 && i < key_size; i++)
        last = last << 8 | key[i];
    if (key_size != 8 || last >= UINT64_MAX >> 1)
        return err_set(eb, ERR_CORRUPT, "ledger: the last record has no sequence number");
    *ret_size = last + 1;
    return ERR_OK;
}

static enum err evidence_key_make(struct ledger *l, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    enum err e = store_begin(l->store, true, &txn, eb);
    if (e != ERR_OK)
        return e;
    crypto_random(l->evidence_key, sizeof l->evidence_key);
    e = store_put(txn, STORE_TABLE_META, meta_evidence, sizeof meta_evidence - 1, l->evidence_key,
                  sizeof l->evidence_key, eb);
    if (e != ERR_OK) {
        store_abort(txn);
        return e;
    }
    return store_commit(txn, eb);
}

/* ERR_NOT_FOUND where the key is not there. */
static enum err meta_read(struct store_txn *txn, const char *name, uint8_t *ret_bytes, size_t size,
                          struct errbuf *eb)
{
    struct store_value value;
    enum err e = store_get(txn, STORE_TABLE_META, name, strlen(name), &value, eb);
    if (e == ERR_OK && value.size != size)
        return err_set(eb, ERR_CORRUPT, "ledger: meta value %s has %zu bytes, not %zu", name,
                       value.size, size);
    if (e == ERR_OK)
        memcpy(ret_bytes, value.data, size);
    return e;
}

/* Whether `note` speaks about a beginning of the log that `txn` sees, which has `size` records. */
static enum err note_matches(struct store_txn *txn, const struct note *note, uint64_t size,
                             struct errbuf *eb)
{
    uint8_t root[SHA256_BYTES];
    char here[SHA256_HEX_BYTES], there[SHA256_HEX_BYTES];

    if (note->size > size)
        return err_set(eb, ERR_CORRUPT,
                       "the log has %" PRIu64
                       " records, but its checkpoint was signed over %" PRIu64
                       ": the store was restored from an old copy, or cut",
                       size, note->size);
    enum err e = root_read(txn, note->size, root, eb);
    if (e != ERR_OK)
        return e;
    if (memcmp(root, note->root, sizeof root) != 0) {
        hex_encode(root, sizeof root, here);
        hex_encode(note->root, sizeof note->root, there);
        return err_set(eb, ERR_CORRUPT,
                       "at %" PRIu64
                       " records the log's root is %s, but %s was signed: the log was "
                       "changed, or is another one",
                       note->size, here, there);
    }
    return ERR_OK;
}

/* The checkpoint file, if its key and origin are ours. ERR_NOT_FOUND where there is none. */
static enum err file_note_read(const struct ledger *l, struct note *ret_note,
                               char ret_text[NOTE_TEXT_BYTES_MAX], struct errbuf *eb)
{
    enum err e = checkpoint_file_read(l->checkpoint_path, ret_text, eb);
    if (e != ERR_OK)
        return e;
    e = note_open(ret_text, l->public_key, ret_note, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "checkpoint file %s", l->checkpoint_path);
    if (strcmp(ret_note->origin, l->origin) != 0)
        return err_set(eb, ERR_CORRUPT, "checkpoint file %s is of %s, this ledger is %s",
                       l->checkpoint_path, ret_note->origin, l->origin);
    return ERR_OK;
}

static enum err checkpoint_check(struct ledger *l, struct store_txn *txn, uint64_t size,
                                 struct errbuf *eb)
{
    char text[NOTE_TEXT_BYTES_MAX];
    struct note note;
    uint8_t mark;

    enum err marked = meta_read(txn, meta_signed, &mark, sizeof mark, eb);
    if (marked != ERR_OK && marked != ERR_NOT_FOUND)
        return marked;
    l->signed_marked = marked == ERR_OK;
    enum err e = file_note_read(l, &note, text, eb);
    if (e == ERR_NOT_FOUND) {
        if (l->signed_marked)
            return err_set(eb, ERR_CORRUPT,
                           "ledger: checkpoints were signed, but the file %s is gone: without it "
                           "nobody can tell whether the log is whole",
                           l->checkpoint_path);
        return ERR_OK;
    }
    if (e != ERR_OK)
        return e;
    e = note_matches(txn, &note, size, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "ledger, checkpoint file %s", l->checkpoint_path);
    if (strlen(text) >= sizeof l->note_text)
        return err_set(eb, ERR_CORRUPT, "checkpoint file %s has more than one signature",
                       l->checkpoint_path);
    l->note = note;
    memcpy(l->note_text, text, strlen(text) + 1);
    return ERR_OK;
}

static enum err state_load(struct ledger *l, bool *ret_fresh, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    uint64_t size = 0;
    enum err e = store_begin(l->store, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = size_read(txn, &size, eb);
    if (e == ERR_OK) {
        e = meta_read(txn, meta_evidence, l->evidence_key, sizeof l->evidence_key, eb);
        *ret_fresh = e == ERR_NOT_FOUND;
        if (e == ERR_NOT_FOUND)
            e = size == 0
                    ? ERR_OK
                    : err_set(eb, ERR_CORRUPT,
                              "ledger: the log has %" PRIu64 " records but no evidence key", size);
    }
    if (e == ERR_OK) {
        e = meta_read(txn, meta_key, l->key_recorded, sizeof l->key_recorded, eb);
        e = e == ERR_NOT_FOUND ? ERR_OK : e;
    }
    if (e == ERR_OK)
        e = merkle_frontier_load(&l->durable, size, node_read, txn, eb);
    if (e == ERR_OK)
        e = checkpoint_check(l, txn, size, eb);
    if (e == ERR_OK)
        e = tail_verify(txn, l->note.size, size, eb);
    store_abort(txn);
    return e;
}

enum err ledger_open(struct ledger **ret_ledger, struct store *store,
                     const struct ledger_config *config, struct errbuf *eb)
{
    bool fresh = false;
    enum err e;

    if (!note_origin_valid(config->origin))
        return err_set(eb, ERR_INVALID,
                       "ledger: \"%s\" cannot be an origin: 1 to 255 printable ASCII characters "
                       "without space or '+'",
                       config->origin);
    struct ledger *l = calloc(1, sizeof *l);
    if (l == NULL)
        return err_set(eb, ERR_NO_MEMORY, "ledger: out of memory");
    CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
    buf_init(&l->packed);
    l->store = store;
    l->key = config->key;
    memcpy(l->origin, config->origin, strlen(config->origin) + 1);
    crypto_key_public(l->key, l->public_key);
    l->checkpoint_path = strdup(config->checkpoint_path);
    e = l->checkpoint_path != NULL ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "ledger: out of memory");
    if (e == ERR_OK)
        e = state_load(l, &fresh, eb);
    if (e == ERR_OK && fresh)
        e = evidence_key_make(l, eb);
    if (e != ERR_OK) {
        ledger_close(l);
        return e;
    }
    l->pending = l->durable;
    memcpy(l->key_pending, l->key_recorded, sizeof l->key_pending);
    *ret_ledger = l;
    return ERR_OK;
}

void ledger_close(struct ledger *l)
{
    if (l == NULL)
        return;
    CHECK(pthread_mutex_destroy(&l->lock) == 0);
    buf_fini(&l->packed);
    free(l->checkpoint_path);
    OPENSSL_cleanse(l->evidence_key, sizeof l->evidence_key);
    free(l);
}

/* ---- appending ---- */

/* Counts are exported as JSON numbers, which common readers hold as signed 64-bit. */
static enum err counts_check(const struct record_ledger *r, struct errbuf *eb)
{
    const struct {
        const char *name;
        uint64_t value;
    } counts[] = {
        {"boot_epoch", r->boot_epoch},
        {"wall_ns", r->wall_ns},
        {"mono_ns", r->mono_ns},
        {"reserved_tokens", r->reserved_tokens},
        {"reserve_seq", r->reserve_seq},
        {"prompt_tokens", r->prompt_tokens},
        {"prompt_cached", r->prompt_cached},
        {"prompt_computed", r->prompt_computed},
        {"completion_computed", r->completion_computed},
        {"completion_delivered", r->completion_delivered},
        {"completion_billable", r->completion_billable},
        {"queue_us", r->queue_us},
        {"prefill_us", r->prefill_us},
        {"decode_us", r->decode_us},
    };
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (counts[i].value > INT64_MAX)
            return err_set(eb, ERR_INVALID, "ledger: %s of %" PRIu64 " is out of range",
                           counts[i].name, counts[i].value);
    }
    return ERR_OK;
}

enum err ledger_append(struct ledger *l, struct store_txn *txn, struct record_ledger *record,
                       struct errbuf *eb)
{
    uint8_t key[8], leaf[SHA256_BYTES];

    record->schema = RECORD_LEDGER_SCHEMA;
    record->seq = l->pending.size;
    enum err e = counts_check(record, eb);
    if (e != ERR_OK)
        return e;
    buf_clear(&l->packed);
    e = record_ledger_encode(record, &l->packed, eb);
    if (e != ERR_OK)
        return e;
    store_key_u64(key, record->seq);
    e = store_append(txn, STORE_TABLE_LEDGER, key, sizeof key, l->packed.data, l->packed.size, eb);
    if (e == ERR_OK && record->kind == RECORD_LEDGER_KEY)
        e = store_put(txn, STORE_TABLE_META, meta_key, sizeof meta_key - 1, record->public_key,
                      sizeof record->public_key, eb);
    if (e != ERR_OK)
        return e;
    merkle_leaf_hash(l->packed.data, l->packed.size, leaf);
    e = merkle_frontier_append(&l->pending, leaf, node_write, txn, eb);
    if (e == ERR_OK && record->kind == RECORD_LEDGER_KEY)
        memcpy(l->key_pending, record->public_key, sizeof l->key_pending);
    return e;
}

void ledger_committed(struct ledger *l)
{
    ledger_lock(l);
    l->durable = l->pending;
    memcpy(l->key_recorded, l->key_pending, sizeof l->key_recorded);
    ledger_unlock(l);
}

void ledger_rolled_back(struct ledger *l)
{
    /* The committing thread alone writes `durable`, so it may read it without the lock. */
    l->pending = l->durable;
    memcpy(l->key_pending, l->key_recorded, sizeof l->key_pending);
}

/* ---- reading ---- */

bool ledger_key_is_recorded(const struct ledger *l)
{
    ledger_lock(l);
    bool same = memcmp(l->key_recorded, l->public_key, sizeof l->public_key) == 0;
    ledger_unlock(l);
    return same;
}

uint64_t ledger_size(const struct ledger *l)
{
    ledger_lock(l);
    uint64_t size = l->durable.size;
    ledger_unlock(l);
    return size;
}

void ledger_root(const struct ledger *l, uint8_t ret_root[SHA256_BYTES])
{
    ledger_lock(l);
    merkle_frontier_root(&l->durable, ret_root);
    ledger_unlock(l);
}

void ledger_evidence_hash(const struct ledger *l, const void *bytes, size_t size,
                          uint8_t ret_hash[SHA256_BYTES])
{
    unsigned n = SHA256_BYTES;
    CHECK(HMAC(EVP_sha256(), l->evidence_key, sizeof l->evidence_key, bytes, size, ret_hash, &n) !=
          NULL);
    CHECK(n == SHA256_BYTES);
}

uint64_t ledger_checkpoint_read(const struct ledger *l, char ret_note[LEDGER_NOTE_BYTES])
{
    ledger_lock(l);
    uint64_t size = l->note.size;
    memcpy(ret_note, l->note_text, LEDGER_NOTE_BYTES);
    ledger_unlock(l);
    return size;
}

enum err ledger_read_range(const struct ledger *l, uint64_t first, uint32_t count_max,
                           size_t bytes_max, struct arena *arena, struct ledger_range *ret_range,
                           struct errbuf *eb)
{
    struct ledger_range range = {.first = first};
    struct store_txn *txn = NULL;
    struct store_value *records;
    size_t bytes = 0;

    /* The note first: the state that is read afterwards has at least its records. */
    (void)ledger_checkpoint_read(l, range.note);
    enum err e = store_begin(l->store, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = size_read(txn, &range.size, eb);
    if (e != ERR_OK)
        goto out;
    uint64_t count = first < range.size ? range.size - first : 0;
    if (count > count_max)
        count = count_max > 0 ? count_max : 1;
    records = arena_alloc_array(arena, count, sizeof *records);
    if (records == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "ledger: no memory for %" PRIu64 " records", count);
        goto out;
    }
    while (range.n_records < count) {
        uint8_t key[8];
        struct store_value value;
        store_key_u64(key, first + range.n_records);
        e = store_get(txn, STORE_TABLE_LEDGER, key, sizeof key, &value, eb);
        if (e == ERR_NOT_FOUND)
            e = err_set(eb, ERR_CORRUPT, "ledger: record %" PRIu64 " is missing",
                        first + range.n_records);
        if (e != ERR_OK)
            goto out;
        if (range.n_records > 0 && bytes + value.size > bytes_max)
            break;
        const char *copy = arena_copy(arena, value.data, value.size);
        if (copy == NULL) {
            e = err_set(eb, ERR_NO_MEMORY, "ledger: no memory for a record");
            goto out;
        }
        bytes += value.size;
        records[range.n_records++] = (struct store_value){(const uint8_t *)copy, value.size};
    }
    range.records = records;
    *ret_range = range;
out:
    store_abort(txn);
    return e;
}

/* ---- the whole log again ---- */

enum err ledger_verify(const struct ledger *l, struct errbuf *eb)
{
    struct store_txn *txn = NULL;
    struct note note;
    uint64_t size = 0;

    ledger_lock(l);
    note = l->note;
    ledger_unlock(l);
    enum err e = store_begin(l->store, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = size_read(txn, &size, eb);
    if (e == ERR_OK)
        e = tail_verify(txn, 0, size, eb);
    if (e == ERR_OK && note.size > 0)
        e = note_matches(txn, &note, size, eb);
    store_abort(txn);
    return e;
}

/* ---- signing ---- */

/* Reads the second place again: whoever else signs with this key (a clone of this store started
 * beside it) has left a note there. It may be ours, an older one of ours, or one whose writing
 * ended in an error; all of these are beginnings of this log, and nothing else may be. */
static enum err second_place_check(const struct ledger *l, const struct note *last,
                                   const char *last_text, uint64_t size, struct errbuf *eb)
{
    char text[NOTE_TEXT_BYTES_MAX];
    struct store_txn *txn = NULL;
    struct note there;

    enum err found = file_note_read(l, &there, text, eb);
    if (found != ERR_OK && found != ERR_NOT_FOUND)
        return found;
    enum err e = store_begin(l->store, false, &txn, eb);
    if (e != ERR_OK)
        return e;
    if (last->size > 0)
        e = note_matches(txn, last, size, eb);
    if (e == ERR_OK && found == ERR_OK && strcmp(text, last_text) != 0) {
        e = note_matches(txn, &there, size, eb);
        if (e != ERR_OK)
            e = err_prefix(eb, e, "checkpoint file %s", l->checkpoint_path);
    }
    store_abort(txn);
    return e;
}

static enum err mark_signed(struct ledger *l, struct errbuf *eb)
{
    static const uint8_t one = 1;
    struct store_txn *txn = NULL;
    enum err e = store_begin(l->store, true, &txn, eb);
    if (e != ERR_OK)
        return e;
    e = store_put(txn, STORE_TABLE_META, meta_signed, sizeof meta_signed - 1, &one, 1, eb);
    if (e != ERR_OK) {
        store_abort(txn);
        return e;
    }
    e = store_commit(txn, eb);
    l->signed_marked = e == ERR_OK;
    return e;
}

enum err ledger_checkpoint_sign(struct ledger *l, struct errbuf *eb)
{
    char last_text[LEDGER_NOTE_BYTES], text[NOTE_TEXT_BYTES];
    struct note note = {0}, last;

    ledger_lock(l);
    note.size = l->durable.size;
    merkle_frontier_root(&l->durable, note.root);
    last = l->note;
    memcpy(last_text, l->note_text, sizeof last_text);
    ledger_unlock(l);
    memcpy(note.origin, l->origin, strlen(l->origin) + 1);
    if (note.size == last.size)
        return note.size == 0 || l->signed_marked ? ERR_OK : mark_signed(l, eb);

    enum err e = second_place_check(l, &last, last_text, note.size, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "ledger: no checkpoint is signed");
    e = note_sign(&note, l->key, text, eb);
    if (e == ERR_OK)
        e = checkpoint_file_replace(l->checkpoint_path, text, eb);
    if (e != ERR_OK)
        return e;
    ledger_lock(l);
    l->note = note;
    memcpy(l->note_text, text, sizeof l->note_text);
    ledger_unlock(l);
    return l->signed_marked ? ERR_OK : mark_signed(l, eb);
}
