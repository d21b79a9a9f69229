/*
 * ledger_test.h - records, a key and an open ledger for tests.
 *
 * Ownership: the fini and close functions free. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_LEDGER_LEDGER_TEST_H
#define CLOISTER_TESTS_UNIT_LEDGER_LEDGER_TEST_H

#include "tests/unit/store/store_test.h"

#include "common/buf.h"
#include "coordinator/ledger/ledger.h"

struct ledger_test {
    struct store_test store;
    char dir[256];
    char checkpoint_path[300];
    char origin[64];
    struct crypto_key *key;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    struct ledger *ledger;
};

void ledger_test_open(struct ledger_test *t, enum store_test_kind kind);
/* Closes and opens ledger and store again; gives what ledger_open says. */
enum err ledger_test_reopen(struct ledger_test *t, struct errbuf *eb);
void ledger_test_close(struct ledger_test *t);

/* A job's two records: what test job number `job` reserves, and how it ends. */
struct record_ledger ledger_test_reserve(uint64_t job);
struct record_ledger ledger_test_settle(uint64_t job, uint64_t reserve_seq);

/* The record that this key signs from here on. */
/* What the energy counter of a worker's device said. */
struct record_ledger ledger_test_meter(const char *device, uint64_t energy_mj);
struct record_ledger ledger_test_key(const uint8_t public_key[ED25519_PUBLIC_BYTES]);

/* One transaction with these records; their seqs are set. */
void ledger_test_append(struct ledger_test *t, struct record_ledger *records, size_t n);
/* `jobs` jobs, reserved in one transaction and settled in the next; every fourth one is VOID. */
void ledger_test_fill(struct ledger_test *t, uint64_t first_job, uint64_t jobs);

/* The whole ledger as JSONL with its newest checkpoint. */
void ledger_test_export(struct ledger_test *t, struct buf *out);

#endif
