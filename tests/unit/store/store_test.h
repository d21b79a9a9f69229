/*
 * store_test.h - one way to open either kind of store in a test.
 *
 * Ownership: store_test_close removes the directory. Thread: one owner.
 */
#ifndef CLOISTER_TESTS_UNIT_STORE_STORE_TEST_H
#define CLOISTER_TESTS_UNIT_STORE_STORE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <cmocka.h>

#include "coordinator/store/store.h"

enum store_test_kind { STORE_TEST_LMDB, STORE_TEST_MEM };

struct store_test {
    enum store_test_kind kind;
    char dir[256]; /* holds "store"; empty for memory */
    char path[300];
    uint64_t map_bytes;
    struct store *store;
};

/* A new directory under $TMPDIR or /tmp. */
void store_test_dir_new(char *ret_dir, size_t size);
void store_test_dir_remove(const char *dir);

void store_test_open(struct store_test *t, enum store_test_kind kind, uint64_t map_bytes);
/* Closes and opens again; for the store in memory nothing happens. */
void store_test_reopen(struct store_test *t);
void store_test_close(struct store_test *t);

/* Fails the test with the message of `eb` unless `e` is `expected`. */
#define assert_err(e, expected, eb) store_test_assert_err((e), (expected), (eb), __FILE__, __LINE__)
void store_test_assert_err(enum err e, enum err expected, const struct errbuf *eb, const char *file,
                           int line);

/* fork, for a child that may end by a signal: there it ends it, and is not caught by cmocka. */
pid_t store_test_fork(void);

struct store_txn *store_test_begin(struct store *s, bool write);
void store_test_commit(struct store_txn *txn);
void store_test_put(struct store_txn *txn, enum store_table table, const char *key,
                    const char *value);
/* Fails unless the value is `value`; NULL: unless there is none. */
void store_test_expect(struct store_txn *txn, enum store_table table, const char *key,
                       const char *value);

#endif
