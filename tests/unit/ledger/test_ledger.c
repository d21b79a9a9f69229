/* The log in the store: what append, commit, checkpoint and opening promise, on both stores. */
#include "tests/unit/ledger/ledger_test.h"

#include "coordinator/ledger/merkle.h"
#include "coordinator/ledger/note.h"
#include "coordinator/store/store_mem.h"

#include <openssl/hmac.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int setup_kind(void **state, enum store_test_kind kind)
{
    struct ledger_test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    ledger_test_open(t, kind);
    *state = t;
    return 0;
}

static int setup_lmdb(void **state)
{
    return setup_kind(state, STORE_TEST_LMDB);
}

static int setup_mem(void **state)
{
    return setup_kind(state, STORE_TEST_MEM);
}

static int teardown(void **state)
{
    ledger_test_close(*state);
    free(*state);
    return 0;
}

static void text_write(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void text_read(const char *path, char *ret_text, size_t size)
{
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    size_t n = fread(ret_text, 1, size - 1, f);
    ret_text[n] = '\0';
    fclose(f);
}

static void records_get_dense_numbers_and_a_root_by_the_definition(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    struct merkle_frontier expected;
    struct ledger_range range;
    struct arena arena;
    uint8_t root[SHA256_BYTES], ours[SHA256_BYTES];

    merkle_frontier_init(&expected);
    merkle_frontier_root(&expected, root);
    ledger_root(t->ledger, ours);
    assert_memory_equal(root, ours, sizeof root);
    ledger_test_fill(t, 0, 20);
    ledger_test_fill(t, 20, 3);
    assert_int_equal(ledger_size(t->ledger), 46);

    arena_init(&arena, 1u << 20);
    assert_err(ledger_read_range(t->ledger, 0, 100, 1u << 20, &arena, &range, &eb), ERR_OK, &eb);
    assert_int_equal(range.n_records, 46);
    for (size_t i = 0; i < range.n_records; i++) {
        struct record_ledger r;
        uint8_t leaf[SHA256_BYTES];
        assert_err(
            record_ledger_decode(range.records[i].data, range.records[i].size, &arena, &r, &eb),
            ERR_OK, &eb);
        assert_int_equal(r.seq, i);
        assert_int_equal(r.schema, RECORD_LEDGER_SCHEMA);
        merkle_leaf_hash(range.records[i].data, range.records[i].size, leaf);
        assert_int_equal(merkle_frontier_append(&expected, leaf, NULL, NULL, NULL), ERR_OK);
    }
    arena_fini(&arena);
    merkle_frontier_root(&expected, root);
    ledger_root(t->ledger, ours);
    assert_memory_equal(root, ours, sizeof root);

    /* The same after a restart, from what is stored. */
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    assert_int_equal(ledger_size(t->ledger), 46);
    ledger_root(t->ledger, ours);
    assert_memory_equal(root, ours, sizeof root);
    ledger_test_fill(t, 23, 1);
    assert_int_equal(ledger_size(t->ledger), 48);
    assert_err(ledger_verify(t->ledger, &eb), ERR_OK, &eb);
}

static void transaction_that_is_given_up_leaves_no_record(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];

    ledger_test_fill(t, 0, 5);
    ledger_root(t->ledger, before);
    struct store_txn *txn = store_test_begin(t->store.store, true);
    for (int i = 0; i < 7; i++) {
        struct record_ledger r = ledger_test_reserve(100);
        assert_err(ledger_append(t->ledger, txn, &r, &eb), ERR_OK, &eb);
        assert_int_equal(r.seq, 10 + i);
        assert_int_equal(ledger_size(t->ledger), 10); /* not durable yet */
    }
    store_abort(txn);
    ledger_rolled_back(t->ledger);
    ledger_root(t->ledger, after);
    assert_memory_equal(before, after, sizeof before);
    struct record_ledger r = ledger_test_reserve(5);
    ledger_test_append(t, &r, 1);
    assert_int_equal(r.seq, 10);
    assert_err(ledger_verify(t->ledger, &eb), ERR_OK, &eb);
}

static void numbers_that_no_reader_could_hold_are_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    struct record_ledger r = ledger_test_settle(1, 0);
    r.completion_computed = (uint64_t)INT64_MAX + 1;
    struct store_txn *txn = store_test_begin(t->store.store, true);
    assert_err(ledger_append(t->ledger, txn, &r, &eb), ERR_INVALID, &eb);
    assert_non_null(strstr(eb.text, "completion_computed of 9223372036854775808"));
    r.completion_computed = INT64_MAX;
    assert_err(ledger_append(t->ledger, txn, &r, &eb), ERR_OK, &eb);
    store_test_commit(txn);
    ledger_committed(t->ledger);
}

static void range_is_bounded_by_count_and_by_bytes(void **state)
{
    struct ledger_test *t = *state;
    static const struct {
        uint64_t first;
        uint32_t count_max;
        size_t bytes_max;
        size_t expected;
    } cases[] = {
        {0, 100, 1u << 20, 20}, {0, 5, 1u << 20, 5}, {18, 5, 1u << 20, 2}, {20, 5, 1u << 20, 0},
        {99, 5, 1u << 20, 0},   {3, 100, 1, 1},      {3, 0, 1u << 20, 1},  {UINT64_MAX, 1, 1, 0},
    };
    ledger_test_fill(t, 0, 10);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct errbuf eb = {{0}};
        struct ledger_range range;
        struct arena arena;
        arena_init(&arena, 1u << 20);
        assert_err(ledger_read_range(t->ledger, cases[i].first, cases[i].count_max,
                                     cases[i].bytes_max, &arena, &range, &eb),
                   ERR_OK, &eb);
        assert_int_equal(range.n_records, cases[i].expected);
        assert_int_equal(range.size, 20);
        assert_string_equal(range.note, "");
        arena_fini(&arena);
    }
}

static void checkpoint_is_signed_once_for_each_state_and_kept_outside(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    char note_text[LEDGER_NOTE_BYTES], file[NOTE_TEXT_BYTES_MAX];
    struct note note;
    uint8_t root[SHA256_BYTES];

    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 0);
    assert_string_equal(note_text, "");
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb); /* of nothing: nothing */
    assert_int_equal(access(t->checkpoint_path, F_OK), -1);

    for (uint64_t round = 0; round < 5; round++) {
        ledger_test_fill(t, round * 3, 3);
        assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
        assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), (round + 1) * 6);
        text_read(t->checkpoint_path, file, sizeof file);
        assert_string_equal(file, note_text);
        assert_err(note_open(file, t->public_key, &note, &eb), ERR_OK, &eb);
        ledger_root(t->ledger, root);
        assert_int_equal(note.size, (round + 1) * 6);
        assert_memory_equal(note.root, root, sizeof root);
        assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    }
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 30);
    assert_string_equal(file, note_text);
}

static void checkpoint_covers_only_what_is_committed(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    char note_text[LEDGER_NOTE_BYTES];

    ledger_test_fill(t, 0, 2);
    /* Records of an open transaction are not in the tree that is signed. Signing itself needs the
     * write lock, so the transaction is ended first, with nothing told to the ledger. */
    struct store_txn *txn = store_test_begin(t->store.store, true);
    struct record_ledger r = ledger_test_reserve(50);
    assert_err(ledger_append(t->ledger, txn, &r, &eb), ERR_OK, &eb);
    store_abort(txn);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 4);
    ledger_rolled_back(t->ledger);
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
}

/* ---- opening beside a second place that says something else ---- */

/* Another store with these jobs, beside the same key and checkpoint. */
static void refuse_other(struct ledger_test *t, uint64_t first_job, uint64_t jobs,
                         const char *reason)
{
    struct ledger_test other;
    struct errbuf eb = {{0}};

    ledger_test_open(&other, t->store.kind);
    ledger_test_fill(&other, first_job, jobs);
    crypto_key_free(other.key);
    other.key = t->key;
    (void)snprintf(other.checkpoint_path, sizeof other.checkpoint_path, "%s", t->checkpoint_path);
    assert_err(ledger_test_reopen(&other, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, reason));
    other.key = NULL;
    ledger_test_close(&other);
}

static void old_copy_of_the_store_is_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};

    ledger_test_fill(t, 0, 8);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    /* Yesterday's file: it has fewer records than were signed. */
    refuse_other(t, 0, 5, "the log has 10 records, but its checkpoint was signed over 16");
}

static void log_with_another_history_is_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};

    ledger_test_fill(t, 0, 8);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    /* Longer, but not the same records. */
    refuse_other(t, 1000, 20, "at 16 records the log's root is");
}

static void missing_or_foreign_checkpoint_file_is_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    char good[NOTE_TEXT_BYTES_MAX], text[NOTE_TEXT_BYTES];
    struct note note = {.origin = "someone.else/ledger"};
    struct crypto_key *stranger = NULL;

    ledger_test_fill(t, 0, 4);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    text_read(t->checkpoint_path, good, sizeof good);

    assert_int_equal(unlink(t->checkpoint_path), 0);
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "is gone"));

    text_write(t->checkpoint_path, "");
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
    text_write(t->checkpoint_path, "something else\n");
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);

    assert_err(crypto_key_new(&stranger, &eb), ERR_OK, &eb);
    memcpy(note.origin, t->origin, strlen(t->origin) + 1);
    assert_err(note_sign(&note, stranger, text, &eb), ERR_OK, &eb);
    text_write(t->checkpoint_path, text);
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "not signed by the key"));

    memcpy(note.origin, "someone.else/ledger", 20);
    assert_err(note_sign(&note, t->key, text, &eb), ERR_OK, &eb);
    text_write(t->checkpoint_path, text);
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "is of someone.else/ledger"));

    text_write(t->checkpoint_path, good);
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    crypto_key_free(stranger);
}

static void log_that_was_never_signed_opens_without_a_file(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    ledger_test_fill(t, 0, 4);
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    assert_int_equal(ledger_size(t->ledger), 8);
}

static void empty_store_beside_an_old_checkpoint_is_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};

    ledger_test_fill(t, 0, 1);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    refuse_other(t, 0, 0, "the log has 0 records");
}

/* ---- what was signed is never contradicted ---- */

static void clone_beside_the_original_stops_the_one_that_disagrees(void **state)
{
    struct ledger_test *t = *state;
    struct ledger_test clone;
    struct errbuf eb = {{0}};
    char note_text[LEDGER_NOTE_BYTES], file[NOTE_TEXT_BYTES_MAX];

    /* Both have the same first records, one key and one checkpoint file. */
    ledger_test_open(&clone, t->store.kind);
    crypto_key_free(clone.key);
    clone.key = t->key;
    (void)snprintf(clone.checkpoint_path, sizeof clone.checkpoint_path, "%s", t->checkpoint_path);
    ledger_test_fill(t, 0, 3);
    ledger_test_fill(&clone, 0, 3);
    assert_err(ledger_test_reopen(&clone, &eb), ERR_OK, &eb);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    assert_err(ledger_test_reopen(&clone, &eb), ERR_OK, &eb);

    ledger_test_fill(&clone, 500, 2); /* the clone goes its own way, and signs */
    assert_err(ledger_checkpoint_sign(clone.ledger, &eb), ERR_OK, &eb);
    text_read(t->checkpoint_path, file, sizeof file);

    ledger_test_fill(t, 3, 1); /* shorter than what was signed */
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "no checkpoint is signed"));
    assert_non_null(strstr(eb.text, "signed over 10"));
    ledger_test_fill(t, 4, 9); /* longer, with another root at 10 */
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "at 10 records"));

    /* The refused one has signed nothing and overwritten nothing. */
    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 6);
    text_read(t->checkpoint_path, note_text, sizeof note_text);
    assert_string_equal(note_text, file);
    clone.key = NULL;
    ledger_test_close(&clone);
}

static void record_changed_behind_the_back_is_not_signed(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t key[8] = {0}, node[9] = {1}, value[64] = "forged";

    ledger_test_fill(t, 0, 2);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    ledger_test_fill(t, 2, 2);

    /* Record 0 replaced by a well-sealed value: only the tree can tell. */
    struct store_txn *txn = store_test_begin(t->store.store, true);
    assert_err(store_put(txn, STORE_TABLE_LEDGER, key, sizeof key, value, 6, &eb), ERR_OK, &eb);
    store_test_commit(txn);
    assert_err(ledger_verify(t->ledger, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "record 0"));

    /* And a tree node: the next checkpoint reads it and stops. */
    txn = store_test_begin(t->store.store, true);
    node[0] = 2; /* level 2, index 0: the root of the first four */
    assert_err(store_put(txn, STORE_TABLE_LEDGER_NODE, node, sizeof node, value, 32, &eb), ERR_OK,
               &eb);
    store_test_commit(txn);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "at 4 records"));
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
}

static void unsigned_tail_is_hashed_again_at_opening(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t key[8];

    ledger_test_fill(t, 0, 2);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    ledger_test_fill(t, 2, 2);
    store_key_u64(key, 5);
    struct store_txn *txn = store_test_begin(t->store.store, true);
    assert_err(store_delete(txn, STORE_TABLE_LEDGER, key, sizeof key, &eb), ERR_OK, &eb);
    store_test_commit(txn);
    assert_err(ledger_test_reopen(t, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "record 5 is missing"));
}

/* ---- keys ---- */

static void key_record_is_remembered_when_it_is_committed(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    struct record_ledger r = ledger_test_key(t->public_key);
    assert_false(ledger_key_is_recorded(t->ledger));
    struct store_txn *txn = store_test_begin(t->store.store, true);
    assert_err(ledger_append(t->ledger, txn, &r, &eb), ERR_OK, &eb);
    assert_false(ledger_key_is_recorded(t->ledger));
    store_abort(txn);
    ledger_rolled_back(t->ledger);
    assert_false(ledger_key_is_recorded(t->ledger));
    ledger_test_append(t, &r, 1);
    assert_true(ledger_key_is_recorded(t->ledger));
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    assert_true(ledger_key_is_recorded(t->ledger));
}

static void evidence_key_is_made_once(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES], other[SHA256_BYTES], plain[SHA256_BYTES];

    ledger_evidence_hash(t->ledger, "prompt", 6, before);
    ledger_evidence_hash(t->ledger, "Prompt", 6, other);
    sha256("prompt", 6, plain);
    assert_memory_not_equal(before, other, sizeof before);
    assert_memory_not_equal(before, plain, sizeof before); /* keyed: no dictionary of prompts */
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
    ledger_evidence_hash(t->ledger, "prompt", 6, after);
    assert_memory_equal(before, after, sizeof before);

    uint8_t key[64], mac[SHA256_BYTES];
    unsigned n = sizeof mac;
    struct store_value value;
    struct store_txn *txn = store_test_begin(t->store.store, false);
    assert_err(store_get(txn, STORE_TABLE_META, "ledger_evidence_key", 19, &value, &eb), ERR_OK,
               &eb);
    assert_int_equal(value.size, 32);
    memcpy(key, value.data, 32);
    store_abort(txn);
    assert_non_null(HMAC(EVP_sha256(), key, 32, (const uint8_t *)"prompt", 6, mac, &n));
    assert_memory_equal(before, mac, sizeof mac);
}

/* ---- threads: one commits and signs, others read ---- */

struct beside {
    struct ledger_test *t;
    atomic_bool stop;
    atomic_int reads, wrong;
};

static void *beside_read(void *arg)
{
    struct beside *b = arg;
    struct arena arena;
    arena_init(&arena, 1u << 20);
    while (!atomic_load(&b->stop)) {
        struct ledger_range range;
        struct note note = {0};
        uint8_t root[SHA256_BYTES];
        uint64_t before = ledger_size(b->t->ledger);
        ledger_root(b->t->ledger, root);
        bool ok = ledger_read_range(b->t->ledger, before > 4 ? before - 4 : 0, 100, 1u << 20,
                                    &arena, &range, NULL) == ERR_OK &&
                  range.size >= before;
        if (ok && range.note[0] != '\0')
            ok = note_open(range.note, b->t->public_key, &note, NULL) == ERR_OK &&
                 note.size <= range.size;
        atomic_fetch_add(&b->wrong, !ok);
        atomic_fetch_add(&b->reads, 1);
        arena_reset(&arena);
    }
    arena_fini(&arena);
    return NULL;
}

static void readers_beside_the_committing_thread_see_whole_states(void **state)
{
    struct beside b = {.t = *state};
    struct errbuf eb = {{0}};
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, beside_read, &b), 0);
    for (uint64_t i = 0; i < 30 || atomic_load(&b.reads) < 50; i++) {
        ledger_test_fill(b.t, i, 1);
        if (i % 3 == 0)
            assert_err(ledger_checkpoint_sign(b.t->ledger, &eb), ERR_OK, &eb);
    }
    atomic_store(&b.stop, true);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(atomic_load(&b.wrong), 0);
}

/* ---- commits that fail ---- */

static void failed_commit_is_as_if_it_had_not_been_asked(void **state)
{
    (void)state;
    struct ledger_test t;
    struct errbuf eb = {{0}};
    uint8_t before[SHA256_BYTES], after[SHA256_BYTES];

    ledger_test_open(&t, STORE_TEST_MEM);
    ledger_test_fill(&t, 0, 3);
    ledger_root(t.ledger, before);
    store_mem_fault_set(t.store.store, (struct store_mem_fault){1, ERR_NO_SPACE, false});
    struct store_txn *txn = store_test_begin(t.store.store, true);
    struct record_ledger r = ledger_test_reserve(9);
    assert_err(ledger_append(t.ledger, txn, &r, &eb), ERR_OK, &eb);
    assert_err(store_commit(txn, &eb), ERR_NO_SPACE, &eb);
    ledger_rolled_back(t.ledger);
    ledger_root(t.ledger, after);
    assert_memory_equal(before, after, sizeof before);

    /* After ERR_IO the transaction may be there: opening again tells. */
    for (int applied = 0; applied < 2; applied++) {
        uint64_t size = ledger_size(t.ledger);
        store_mem_fault_set(t.store.store, (struct store_mem_fault){1, ERR_IO, applied != 0});
        txn = store_test_begin(t.store.store, true);
        r = ledger_test_reserve(10);
        assert_err(ledger_append(t.ledger, txn, &r, &eb), ERR_OK, &eb);
        assert_err(store_commit(txn, &eb), ERR_IO, &eb);
        assert_err(ledger_checkpoint_sign(t.ledger, &eb), ERR_IO, &eb);
        store_mem_restart(t.store.store);
        assert_err(ledger_test_reopen(&t, &eb), ERR_OK, &eb);
        assert_int_equal(ledger_size(t.ledger), size + (uint64_t)applied);
        assert_err(ledger_verify(t.ledger, &eb), ERR_OK, &eb);
    }
    ledger_test_close(&t);
}

static void checkpoint_that_cannot_be_written_leaves_the_last_one(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    char note_text[LEDGER_NOTE_BYTES], blocked[320];

    ledger_test_fill(t, 0, 2);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    ledger_test_fill(t, 2, 2);
    /* A directory where the new file has to be made. */
    (void)snprintf(blocked, sizeof blocked, "%s.new", t->checkpoint_path);
    assert_int_equal(mkdir(blocked, 0700), 0);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_IO, &eb);
    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 4);
    assert_int_equal(rmdir(blocked), 0);
    assert_err(ledger_checkpoint_sign(t->ledger, &eb), ERR_OK, &eb);
    assert_int_equal(ledger_checkpoint_read(t->ledger, note_text), 8);
    assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
}

/* ---- kill ---- */

/* Jobs one by one, a checkpoint now and then; the size is written to the pipe when it is durable,
 * and again with bit 63 when it is signed. */
static _Noreturn void kill_child(struct ledger_test *t, int acks)
{
    for (uint64_t job = ledger_size(t->ledger) / 2;; job++) {
        ledger_test_fill(t, job, 1);
        uint64_t size = ledger_size(t->ledger);
        if (write(acks, &size, sizeof size) != sizeof size)
            _exit(1);
        if (job % 3 != 0)
            continue;
        if (ledger_checkpoint_sign(t->ledger, NULL) != ERR_OK)
            _exit(1);
        size |= (uint64_t)1 << 63;
        if (write(acks, &size, sizeof size) != sizeof size)
            _exit(1);
    }
}

static void killed_ledger_has_what_was_acknowledged_and_opens_beside_its_checkpoint(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    uint64_t acked = 0, acked_signed = 0;

    /* LMDB must not be used across fork: nothing is open when the child begins. */
    ledger_close(t->ledger);
    t->ledger = NULL;
    store_close(t->store.store);
    t->store.store = NULL;
    for (int round = 0; round < 20; round++) {
        int acks[2];
        uint64_t size;
        assert_int_equal(pipe(acks), 0);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(acks[0]);
            if (ledger_test_reopen(t, NULL) != ERR_OK)
                _exit(1);
            kill_child(t, acks[1]);
        }
        close(acks[1]);
        usleep((useconds_t)(20000 + round * 7919 % 60000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        while (read(acks[0], &size, sizeof size) == sizeof size) {
            if ((size >> 63) != 0)
                acked_signed = size & ~((uint64_t)1 << 63);
            else
                acked = size;
        }
        close(acks[0]);
        assert_err(ledger_test_reopen(t, &eb), ERR_OK, &eb);
        char note[LEDGER_NOTE_BYTES];
        assert_true(ledger_size(t->ledger) >= acked);
        assert_true(ledger_checkpoint_read(t->ledger, note) >= acked_signed);
        assert_err(ledger_verify(t->ledger, &eb), ERR_OK, &eb);
        ledger_close(t->ledger);
        t->ledger = NULL;
        store_close(t->store.store);
        t->store.store = NULL;
    }
    print_message("%llu records acknowledged, %llu of them signed, in 20 lives\n",
                  (unsigned long long)acked, (unsigned long long)acked_signed);
    assert_true(acked > 0);
}

static void impossible_origin_is_refused(void **state)
{
    struct ledger_test *t = *state;
    struct errbuf eb = {{0}};
    struct ledger *l = NULL;
    struct ledger_config config = {.origin = "two words", .key = t->key, .checkpoint_path = "x"};
    assert_err(ledger_open(&l, t->store.store, &config, &eb), ERR_INVALID, &eb);
    assert_null(l);
}

int main(void)
{
#define CASE(name, kind) cmocka_unit_test_setup_teardown(name, kind, teardown)
#define CASES(kind)                                                                                \
    CASE(records_get_dense_numbers_and_a_root_by_the_definition, kind),                            \
        CASE(transaction_that_is_given_up_leaves_no_record, kind),                                 \
        CASE(numbers_that_no_reader_could_hold_are_refused, kind),                                 \
        CASE(range_is_bounded_by_count_and_by_bytes, kind),                                        \
        CASE(checkpoint_is_signed_once_for_each_state_and_kept_outside, kind),                     \
        CASE(checkpoint_covers_only_what_is_committed, kind),                                      \
        CASE(old_copy_of_the_store_is_refused, kind),                                              \
        CASE(log_with_another_history_is_refused, kind),                                           \
        CASE(missing_or_foreign_checkpoint_file_is_refused, kind),                                 \
        CASE(log_that_was_never_signed_opens_without_a_file, kind),                                \
        CASE(empty_store_beside_an_old_checkpoint_is_refused, kind),                               \
        CASE(clone_beside_the_original_stops_the_one_that_disagrees, kind),                        \
        CASE(record_changed_behind_the_back_is_not_signed, kind),                                  \
        CASE(unsigned_tail_is_hashed_again_at_opening, kind),                                      \
        CASE(key_record_is_remembered_when_it_is_committed, kind),                                 \
        CASE(evidence_key_is_made_once, kind),                                                     \
        CASE(readers_beside_the_committing_thread_see_whole_states, kind),                         \
        CASE(checkpoint_that_cannot_be_written_leaves_the_last_one, kind),                         \
        CASE(impossible_origin_is_refused, kind)

    const struct CMUnitTest on_lmdb[] = {
        CASES(setup_lmdb),
        CASE(killed_ledger_has_what_was_acknowledged_and_opens_beside_its_checkpoint, setup_lmdb),
    };
    const struct CMUnitTest in_memory[] = {
        CASES(setup_mem),
        cmocka_unit_test(failed_commit_is_as_if_it_had_not_been_asked),
    };
    return cmocka_run_group_tests_name("ledger on LMDB", on_lmdb, NULL, NULL) +
           cmocka_run_group_tests_name("ledger in memory", in_memory, NULL, NULL);
}
