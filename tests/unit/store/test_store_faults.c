/*
 * What the store on disk does when a system call fails it, when its map is full, when it is opened
 * twice, and when its process is killed.
 */
#include "tests/unit/store/store_test.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- system calls of LMDB, failing on demand: the linker takes these before libc's ---- */

static enum { FAIL_NOTHING, FAIL_SYNC, FAIL_META, FAIL_DATA } failing;
static int failing_errno;

int fdatasync(int fd)
{
    if (failing == FAIL_SYNC) {
        errno = failing_errno;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    /* Data pages are written whole; of the two meta pages only the changed part. */
    if ((failing == FAIL_META && size % 4096 != 0) || (failing == FAIL_DATA && size % 4096 == 0)) {
        errno = failing_errno;
        return -1;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

static void failed_system_call_is_told_from_a_full_disk(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int what;
        int errno_value;
        enum err expected;
        bool broken;
    } cases[] = {
        {"no space for data pages", FAIL_DATA, ENOSPC, ERR_NO_SPACE, false},
        {"quota", FAIL_DATA, EDQUOT, ERR_NO_SPACE, false},
        {"failing disk, data pages", FAIL_DATA, EIO, ERR_IO, true},
        {"failed sync", FAIL_SYNC, EIO, ERR_IO, true},
        {"failed meta page", FAIL_META, EIO, ERR_IO, true},
        {"no space for the meta page", FAIL_META, ENOSPC, ERR_IO, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_test t;
        struct errbuf eb = {{0}};
        struct store_txn *txn;

        store_test_open(&t, STORE_TEST_LMDB, 16u << 20);
        txn = store_test_begin(t.store, true);
        store_test_put(txn, STORE_TABLE_JOB, "k", "before");
        store_test_commit(txn);
        txn = store_test_begin(t.store, true);
        store_test_put(txn, STORE_TABLE_JOB, "k", "after");
        failing_errno = cases[i].errno_value;
        failing = cases[i].what;
        enum err e = store_commit(txn, &eb);
        failing = FAIL_NOTHING;
        if (e != cases[i].expected)
            print_error("%s\n", cases[i].name);
        assert_err(e, cases[i].expected, &eb);

        if (cases[i].broken) {
            assert_non_null(strstr(eb.text, "must be opened again"));
            txn = NULL;
            assert_err(store_begin(t.store, false, &txn, &eb), ERR_IO, &eb);
            assert_err(store_begin(t.store, true, &txn, &eb), ERR_IO, &eb);
            assert_null(txn);
            store_test_reopen(&t);
        }
        txn = store_test_begin(t.store, true);
        store_test_expect(txn, STORE_TABLE_JOB, "k", "before");
        store_test_put(txn, STORE_TABLE_JOB, "k", "again");
        store_test_commit(txn);
        store_test_reopen(&t);
        txn = store_test_begin(t.store, false);
        store_test_expect(txn, STORE_TABLE_JOB, "k", "again");
        store_abort(txn);
        assert_err(store_verify(t.store, &eb), ERR_OK, &eb);
        store_test_close(&t);
    }
}

/* ---- map full ---- */

static enum err fill(struct store *s, uint32_t *next, struct errbuf *eb)
{
    uint8_t value[3000], key[4];
    struct store_txn *txn = store_test_begin(s, true);
    enum err e = ERR_OK;
    memset(value, 'v', sizeof value);
    for (int i = 0; e == ERR_OK && i < 20; i++) {
        store_key_u32(key, *next + (uint32_t)i);
        e = store_put(txn, STORE_TABLE_CHUNK, key, 4, value, sizeof value, eb);
    }
    if (e != ERR_OK) {
        /* The transaction is over: everything else says the same, commit included. */
        struct errbuf again = {{0}};
        struct store_value v;
        assert_err(store_put(txn, STORE_TABLE_JOB, "k", 1, "v", 1, &again), e, &again);
        assert_string_equal(again.text, eb->text);
        assert_err(store_get(txn, STORE_TABLE_JOB, "k", 1, &v, &again), e, &again);
    }
    e = store_commit(txn, eb);
    if (e == ERR_OK)
        *next += 20;
    return e;
}

static void full_map_loses_only_the_transaction_that_met_it(void **state)
{
    (void)state;
    struct store_test t;
    struct errbuf eb = {{0}};
    struct store_stat stat;
    uint32_t next = 0;
    enum err e;

    store_test_open(&t, STORE_TEST_LMDB, 1u << 20);
    while ((e = fill(t.store, &next, &eb)) == ERR_OK)
        assert_true(next < 1000);
    assert_err(e, ERR_NO_SPACE, &eb);
    assert_non_null(strstr(eb.text, "map of 1048576 bytes is full"));
    assert_true(next > 0);
    assert_err(store_stat(t.store, &stat, &eb), ERR_OK, &eb);
    assert_int_equal(stat.entries[STORE_TABLE_CHUNK], next);
    assert_int_equal(stat.map_bytes, 1u << 20);
    assert_true(stat.used_bytes > 400000 && stat.used_bytes <= 1u << 20);

    /* Room is made by deleting, without opening again (LMDB uses a page again two commits after it
     * was given back) ... */
    for (uint32_t half = 0; half < 2; half++) {
        struct store_txn *txn = store_test_begin(t.store, true);
        for (uint32_t i = 0; i < next / 2; i++) {
            uint8_t key[4];
            store_key_u32(key, half * (next / 2) + i);
            assert_err(store_delete(txn, STORE_TABLE_CHUNK, key, 4, &eb), ERR_OK, &eb);
        }
        store_test_commit(txn);
    }
    uint64_t used = stat.used_bytes;
    assert_err(store_stat(t.store, &stat, &eb), ERR_OK, &eb);
    assert_true(stat.used_bytes < used);
    assert_err(fill(t.store, &next, &eb), ERR_OK, &eb);

    /* ... or by a larger map. */
    t.map_bytes = 4u << 20;
    store_test_reopen(&t);
    for (int i = 0; i < 20; i++)
        assert_err(fill(t.store, &next, &eb), ERR_OK, &eb);
    assert_err(store_verify(t.store, &eb), ERR_OK, &eb);
    store_test_close(&t);
}

/* ---- one opening at a time ---- */

static void second_opening_is_refused(void **state)
{
    (void)state;
    struct store_test t;
    struct errbuf eb = {{0}};
    struct store *second = NULL;
    char holder[64];

    store_test_open(&t, STORE_TEST_LMDB, 1u << 20);
    struct store_lmdb_config config = {.path = t.path, .map_bytes = 1u << 20};
    assert_err(store_open_lmdb(&second, &config, &eb), ERR_CONFLICT, &eb);
    (void)snprintf(holder, sizeof holder, "open already, by process %ld", (long)getpid());
    assert_non_null(strstr(eb.text, holder));

    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(store_open_lmdb(&second, &config, NULL) == ERR_CONFLICT ? 0 : 1);
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

    store_test_reopen(&t);
    store_test_close(&t);
}

/* ---- kill ---- */

/* Commit n holds keys 3n..3n+2 in one table and n in another; n is written to the pipe when
 * store_commit has returned. */
static _Noreturn void kill_child(const char *path, int acks)
{
    struct store_lmdb_config config = {.path = path, .map_bytes = 64u << 20};
    struct store *s = NULL;
    uint8_t key[8], last[LIMIT_STORE_KEY_BYTES];
    size_t last_size = 0;
    uint64_t n = 0;

    if (store_open_lmdb(&s, &config, NULL) != ERR_OK)
        _exit(1);
    struct store_txn *txn = NULL;
    if (store_begin(s, false, &txn, NULL) != ERR_OK)
        _exit(1);
    if (store_last_key(txn, STORE_TABLE_JOB, last, &last_size, NULL) == ERR_OK) {
        for (size_t i = 0; i < 8; i++)
            n = n << 8 | last[i];
        n++;
    }
    store_abort(txn);
    for (;; n++) {
        if (store_begin(s, true, &txn, NULL) != ERR_OK)
            _exit(1);
        for (uint64_t k = 3 * n; k < 3 * n + 3; k++) {
            store_key_u64(key, k);
            if (store_append(txn, STORE_TABLE_LEDGER, key, 8, key, 8, NULL) != ERR_OK)
                _exit(1);
        }
        store_key_u64(key, n);
        if (store_put(txn, STORE_TABLE_JOB, key, 8, &n, sizeof n, NULL) != ERR_OK ||
            store_commit(txn, NULL) != ERR_OK || write(acks, &n, sizeof n) != sizeof n)
            _exit(1);
    }
}

static void killed_store_has_all_that_was_acknowledged_and_no_half_commit(void **state)
{
    (void)state;
    struct store_test t;
    struct errbuf eb = {{0}};
    uint64_t acked = 0, total = 0;
    bool any = false;

    store_test_open(&t, STORE_TEST_LMDB, 64u << 20);
    for (int round = 0; round < 20; round++) {
        int acks[2];
        store_close(t.store);
        t.store = NULL;
        assert_int_equal(pipe(acks), 0);
        fflush(NULL);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            close(acks[0]);
            kill_child(t.path, acks[1]);
        }
        close(acks[1]);
        usleep((useconds_t)(2000 + round * 3137 % 40000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        uint64_t n;
        while (read(acks[0], &n, sizeof n) == sizeof n) {
            acked = n;
            any = true;
            total++;
        }
        close(acks[0]);

        store_test_reopen(&t);
        struct store_stat stat;
        assert_err(store_stat(t.store, &stat, &eb), ERR_OK, &eb);
        assert_err(store_verify(t.store, &eb), ERR_OK, &eb);
        assert_int_equal(stat.entries[STORE_TABLE_LEDGER], 3 * stat.entries[STORE_TABLE_JOB]);
        assert_true(!any || stat.entries[STORE_TABLE_JOB] > acked);
        /* At most the one commit whose acknowledgement was cut off is more than that. */
        assert_true(stat.entries[STORE_TABLE_JOB] <= (any ? acked + 1 : 0) + (uint64_t)round + 1);
    }
    print_message("%llu commits acknowledged in 20 lives\n", (unsigned long long)total);
    assert_true(total > 0);
    store_test_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failed_system_call_is_told_from_a_full_disk),
        cmocka_unit_test(full_map_loses_only_the_transaction_that_met_it),
        cmocka_unit_test(second_opening_is_refused),
        cmocka_unit_test(killed_store_has_all_that_was_acknowledged_and_no_half_commit),
    };
    return cmocka_run_group_tests_name("store under faults", tests, NULL, NULL);
}
