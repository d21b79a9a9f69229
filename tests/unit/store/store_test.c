#include "tests/unit/store/store_test.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void store_test_dir_new(char *ret_dir, size_t size)
{
    const char *base = getenv("TMPDIR");
    int n = snprintf(ret_dir, size, "%s/cloister-test-XXXXXX", base != NULL ? base : "/tmp");
    assert_true(n > 0 && (size_t)n < size);
    assert_non_null(mkdtemp(ret_dir));
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void store_test_dir_remove(const char *dir)
{
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void store_test_assert_err(enum err e, enum err expected, const struct errbuf *eb, const char *file,
                           int line)
{
    if (e != expected)
        print_error("%s:%d: %s where %s is expected: %s\n", file, line, err_name(e),
                    err_name(expected), eb->text);
    _assert_int_equal((LargestIntegralType)e, (LargestIntegralType)expected, file, line);
}

static void open_it(struct store_test *t)
{
    struct errbuf eb = {{0}};
    struct store_lmdb_config config = {.path = t->path, .map_bytes = t->map_bytes};
    enum err e = t->kind == STORE_TEST_MEM ? store_open_mem(&t->store, &eb)
                                           : store_open_lmdb(&t->store, &config, &eb);
    assert_err(e, ERR_OK, &eb);
}

void store_test_open(struct store_test *t, enum store_test_kind kind, uint64_t map_bytes)
{
    *t = (struct store_test){.kind = kind, .map_bytes = map_bytes};
    if (kind == STORE_TEST_LMDB) {
        store_test_dir_new(t->dir, sizeof t->dir);
        (void)snprintf(t->path, sizeof t->path, "%s/store", t->dir);
    }
    open_it(t);
}

void store_test_reopen(struct store_test *t)
{
    if (t->kind == STORE_TEST_MEM)
        return;
    store_close(t->store);
    t->store = NULL;
    open_it(t);
}

void store_test_close(struct store_test *t)
{
    store_close(t->store);
    t->store = NULL;
    if (t->dir[0] != '\0')
        store_test_dir_remove(t->dir);
}

pid_t store_test_fork(void)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    for (size_t i = 0; pid == 0 && i < sizeof signals / sizeof signals[0]; i++)
        (void)signal(signals[i], SIG_DFL);
    return pid;
}

struct store_txn *store_test_begin(struct store *s, bool write)
{
    struct errbuf eb = {{0}};
    struct store_txn *txn = NULL;
    assert_err(store_begin(s, write, &txn, &eb), ERR_OK, &eb);
    return txn;
}

void store_test_commit(struct store_txn *txn)
{
    struct errbuf eb = {{0}};
    assert_err(store_commit(txn, &eb), ERR_OK, &eb);
}

void store_test_put(struct store_txn *txn, enum store_table table, const char *key,
                    const char *value)
{
    struct errbuf eb = {{0}};
    assert_err(store_put(txn, table, key, strlen(key), value, strlen(value), &eb), ERR_OK, &eb);
}

void store_test_expect(struct store_txn *txn, enum store_table table, const char *key,
                       const char *value)
{
    struct errbuf eb = {{0}};
    struct store_value got = {0};
    enum err e = store_get(txn, table, key, strlen(key), &got, &eb);
    assert_err(e, value != NULL ? ERR_OK : ERR_NOT_FOUND, &eb);
    if (value != NULL) {
        assert_int_equal(got.size, strlen(value));
        assert_memory_equal(got.data, value, got.size);
    }
}
