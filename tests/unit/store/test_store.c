/* What a store promises, asked of both kinds with the same cases. */
#include "tests/unit/store/store_test.h"

#include "common/id.h"
#include "common/limits.h"
#include "coordinator/store/store_mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct store_test *setup_kind(enum store_test_kind kind)
{
    struct store_test *t = calloc(1, sizeof *t);
    assert_non_null(t);
    store_test_open(t, kind, 256u << 20);
    return t;
}

static int setup_lmdb(void **state)
{
    *state = setup_kind(STORE_TEST_LMDB);
    return 0;
}

static int setup_mem(void **state)
{
    *state = setup_kind(STORE_TEST_MEM);
    return 0;
}

static int teardown(void **state)
{
    struct store_test *t = *state;
    store_test_close(t);
    free(t);
    return 0;
}

static uint64_t entries(struct store *s, enum store_table table)
{
    struct errbuf eb = {{0}};
    struct store_stat stat;
    assert_err(store_stat(s, &stat, &eb), ERR_OK, &eb);
    return stat.entries[table];
}

static struct id instance(struct store *s)
{
    struct errbuf eb = {{0}};
    struct store_value value;
    struct id id;
    struct store_txn *txn = store_test_begin(s, false);
    assert_err(store_get(txn, STORE_TABLE_META, "instance", strlen("instance"), &value, &eb),
               ERR_OK, &eb);
    assert_int_equal(value.size, ID_BYTES);
    memcpy(id.bytes, value.data, ID_BYTES);
    store_abort(txn);
    return id;
}

static void new_store_is_empty_but_for_its_identity(void **state)
{
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t key[LIMIT_STORE_KEY_BYTES];
    size_t key_size = 0;

    struct store_txn *txn = store_test_begin(t->store, false);
    for (int table = 0; table < STORE_TABLE_COUNT; table++) {
        enum err e = store_last_key(txn, (enum store_table)table, key, &key_size, &eb);
        assert_int_equal(e, table == STORE_TABLE_META ? ERR_OK : ERR_NOT_FOUND);
        assert_int_equal(entries(t->store, (enum store_table)table),
                         table == STORE_TABLE_META ? 2 : 0);
    }
    store_abort(txn);

    struct id before = instance(t->store);
    assert_false(id_is_zero(&before));
    store_test_reopen(t);
    struct id after = instance(t->store);
    assert_memory_equal(before.bytes, after.bytes, ID_BYTES);
    assert_err(store_verify(t->store, &eb), ERR_OK, &eb);
}

static void value_comes_back_whatever_its_size(void **state)
{
    static const size_t sizes[] = {0, 1, 2, 11, 100, 2000, 2048, 4096, 5000, 70000, 1u << 20};
    enum { N = sizeof sizes / sizeof sizes[0] };
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t *bytes = malloc((1u << 20) + N);
    uint8_t key[4];

    assert_non_null(bytes);
    for (size_t i = 0; i < (1u << 20) + N; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    struct store_txn *txn = store_test_begin(t->store, true);
    for (uint32_t i = 0; i < N; i++) {
        store_key_u32(key, i);
        assert_err(store_put(txn, STORE_TABLE_CONTENT, key, 4, bytes + i, sizes[i], &eb), ERR_OK,
                   &eb);
    }
    store_test_commit(txn);
    store_test_reopen(t);
    txn = store_test_begin(t->store, false);
    for (uint32_t i = 0; i < N; i++) {
        struct store_value v;
        store_key_u32(key, i);
        assert_err(store_get(txn, STORE_TABLE_CONTENT, key, 4, &v, &eb), ERR_OK, &eb);
        assert_int_equal(v.size, sizes[i]);
        assert_memory_equal(v.data, bytes + i, v.size);
    }
    store_abort(txn);
    free(bytes);
}

static void value_over_the_bound_is_refused_and_the_transaction_goes_on(void **state)
{
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t *bytes = calloc(1, STORE_VALUE_BYTES_MAX + 1);

    assert_non_null(bytes);
    struct store_txn *txn = store_test_begin(t->store, true);
    enum err e = store_put(txn, STORE_TABLE_JOB, "k", 1, bytes, STORE_VALUE_BYTES_MAX + 1, &eb);
    assert_err(e, ERR_TOO_LARGE, &eb);
    assert_non_null(strstr(eb.text, "33554433"));
    store_test_put(txn, STORE_TABLE_JOB, "k", "small");
    store_test_commit(txn);
    txn = store_test_begin(t->store, false);
    store_test_expect(txn, STORE_TABLE_JOB, "k", "small");
    store_abort(txn);
    free(bytes);
}

static void put_replaces_and_delete_removes(void **state)
{
    struct store_test *t = *state;
    struct errbuf eb = {{0}};

    struct store_txn *txn = store_test_begin(t->store, true);
    store_test_put(txn, STORE_TABLE_JOB, "a", "one");
    store_test_put(txn, STORE_TABLE_JOB, "b", "two");
    store_test_put(txn, STORE_TABLE_JOB, "a", "three, which is longer");
    store_test_expect(txn, STORE_TABLE_JOB, "a", "three, which is longer");
    assert_err(store_delete(txn, STORE_TABLE_JOB, "b", 1, &eb), ERR_OK, &eb);
    assert_err(store_delete(txn, STORE_TABLE_JOB, "b", 1, &eb), ERR_NOT_FOUND, &eb);
    store_test_expect(txn, STORE_TABLE_JOB, "b", NULL);
    store_test_commit(txn);
    store_test_reopen(t);
    txn = store_test_begin(t->store, false);
    store_test_expect(txn, STORE_TABLE_JOB, "a", "three, which is longer");
    store_test_expect(txn, STORE_TABLE_JOB, "b", NULL);
    store_abort(txn);
    assert_int_equal(entries(t->store, STORE_TABLE_JOB), 1);
}

static void tables_do_not_share_keys(void **state)
{
    struct store_test *t = *state;
    struct store_txn *txn = store_test_begin(t->store, true);
    for (int table = 0; table < STORE_TABLE_COUNT; table++)
        store_test_put(txn, (enum store_table)table, "same",
                       store_table_name((enum store_table)table));
    store_test_commit(txn);
    txn = store_test_begin(t->store, false);
    for (int table = 0; table < STORE_TABLE_COUNT; table++)
        store_test_expect(txn, (enum store_table)table, "same",
                          store_table_name((enum store_table)table));
    store_abort(txn);
}

static void append_takes_only_a_key_behind_the_last(void **state)
{
    static const struct {
        const char *key;
        enum err expected;
    } steps[] = {
        {"b", ERR_OK},       {"c", ERR_OK},        {"c", ERR_CONFLICT},
        {"a", ERR_CONFLICT}, {"cc", ERR_OK},       {"cb", ERR_CONFLICT},
        {"d", ERR_OK},       {"cz", ERR_CONFLICT}, {"zzzzzz", ERR_OK},
    };
    struct store_test *t = *state;
    struct store_txn *txn = store_test_begin(t->store, true);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct errbuf eb = {{0}};
        enum err e =
            store_append(txn, STORE_TABLE_LEDGER, steps[i].key, strlen(steps[i].key), "v", 1, &eb);
        assert_err(e, steps[i].expected, &eb);
        assert_int_equal(eb.text[0] != '\0', e != ERR_OK);
    }
    store_test_commit(txn);
    assert_int_equal(entries(t->store, STORE_TABLE_LEDGER), 5);
}

struct collect {
    char text[256];
    int left; /* visits before it ends the scan */
};

static bool collect_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct collect *c = arg;
    size_t used = strlen(c->text);
    (void)snprintf(c->text + used, sizeof c->text - used, "%.*s=%.*s ", (int)key_size,
                   (const char *)key, (int)value.size, (const char *)value.data);
    return --c->left > 0;
}

static void scan_goes_up_from_a_key(void **state)
{
    static const struct {
        const char *from;
        int most;
        const char *expected;
    } cases[] = {
        {"", 99, "aa=1 ab=2 b=3 ba=4 c=5 "},
        {"a", 99, "aa=1 ab=2 b=3 ba=4 c=5 "},
        {"ab", 99, "ab=2 b=3 ba=4 c=5 "},
        {"ab", 2, "ab=2 b=3 "},
        {"abc", 99, "b=3 ba=4 c=5 "},
        {"b", 99, "b=3 ba=4 c=5 "},
        {"bb", 1, "c=5 "},
        {"c", 99, "c=5 "},
        {"d", 99, ""},
    };
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t last[LIMIT_STORE_KEY_BYTES];
    size_t last_size = 0;

    struct store_txn *txn = store_test_begin(t->store, true);
    store_test_put(txn, STORE_TABLE_JOB, "c", "5");
    store_test_put(txn, STORE_TABLE_JOB, "aa", "1");
    store_test_put(txn, STORE_TABLE_JOB, "ba", "4");
    store_test_put(txn, STORE_TABLE_JOB, "b", "3");
    store_test_put(txn, STORE_TABLE_JOB, "ab", "2");
    for (int committed = 0; committed < 2; committed++) {
        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            struct collect c = {.left = cases[i].most};
            assert_err(store_scan(txn, STORE_TABLE_JOB, cases[i].from, strlen(cases[i].from),
                                  collect_visit, &c, &eb),
                       ERR_OK, &eb);
            assert_string_equal(c.text, cases[i].expected);
        }
        assert_err(store_last_key(txn, STORE_TABLE_JOB, last, &last_size, &eb), ERR_OK, &eb);
        assert_int_equal(last_size, 1);
        assert_int_equal(last[0], 'c');
        if (committed == 0) {
            store_test_commit(txn);
            txn = store_test_begin(t->store, false);
        }
    }
    store_abort(txn);
}

static void abort_leaves_no_trace(void **state)
{
    struct store_test *t = *state;
    struct errbuf eb = {{0}};

    struct store_txn *txn = store_test_begin(t->store, true);
    store_test_put(txn, STORE_TABLE_JOB, "a", "kept");
    store_test_put(txn, STORE_TABLE_JOB, "b", "kept too");
    store_test_commit(txn);
    txn = store_test_begin(t->store, true);
    store_test_put(txn, STORE_TABLE_JOB, "a", "lost");
    store_test_put(txn, STORE_TABLE_JOB, "c", "lost");
    assert_err(store_delete(txn, STORE_TABLE_JOB, "b", 1, &eb), ERR_OK, &eb);
    store_abort(txn);
    for (int i = 0; i < 2; i++) {
        txn = store_test_begin(t->store, false);
        store_test_expect(txn, STORE_TABLE_JOB, "a", "kept");
        store_test_expect(txn, STORE_TABLE_JOB, "b", "kept too");
        store_test_expect(txn, STORE_TABLE_JOB, "c", NULL);
        store_abort(txn);
        store_test_reopen(t);
    }
}

static void reader_keeps_the_state_of_its_begin(void **state)
{
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    struct store_txn *readers[4];
    char key[8], value[16];

    /* Version v writes "v" to 40 keys and deletes key v; reader v begins behind commit v. */
    for (int v = 0; v < 4; v++) {
        struct store_txn *txn = store_test_begin(t->store, true);
        for (int k = 0; k < 40; k++) {
            (void)snprintf(key, sizeof key, "k%02d", k);
            (void)snprintf(value, sizeof value, "version %d", v);
            store_test_put(txn, STORE_TABLE_JOB, key, value);
        }
        (void)snprintf(key, sizeof key, "k%02d", v);
        assert_err(store_delete(txn, STORE_TABLE_JOB, key, 3, &eb), ERR_OK, &eb);
        store_test_commit(txn);
        readers[v] = store_test_begin(t->store, false);
    }
    for (int v = 3; v >= 0; v--) {
        for (int k = 0; k < 40; k++) {
            (void)snprintf(key, sizeof key, "k%02d", k);
            (void)snprintf(value, sizeof value, "version %d", v);
            store_test_expect(readers[v], STORE_TABLE_JOB, key, k == v ? NULL : value);
        }
        store_abort(readers[v]);
    }
}

/* ---- against a model: an array that says what each key holds ---- */

enum { MODEL_KEYS = 300 };

struct model {
    int value[MODEL_KEYS]; /* 0: none */
};

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static bool model_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct model *m = arg;
    int k = 0, v = 0;
    assert_int_equal(key_size, 4);
    for (int i = 0; i < 4; i++)
        k = k << 8 | key[i];
    assert_in_range(k, 0, MODEL_KEYS - 1);
    assert_int_equal(value.size, (size_t)(k * 13 % 900) + sizeof v);
    memcpy(&v, value.data, sizeof v);
    m->value[k] = v;
    return true;
}

static void model_check(struct store_txn *txn, const struct model *expected)
{
    struct errbuf eb = {{0}};
    struct model got = {{0}};
    assert_err(store_scan(txn, STORE_TABLE_JOB, NULL, 0, model_visit, &got, &eb), ERR_OK, &eb);
    assert_memory_equal(&got, expected, sizeof got);
}

static void long_random_run_agrees_with_a_model(void **state)
{
    struct store_test *t = *state;
    struct model kept = {{0}};
    uint64_t seed = 20240229;

    for (int round = 0; round < 40; round++) {
        struct model now = kept;
        struct store_txn *before = store_test_begin(t->store, false);
        struct store_txn *txn = store_test_begin(t->store, true);
        uint32_t operations = 1 + random_next(&seed) % 200;
        for (uint32_t i = 0; i < operations; i++) {
            struct errbuf eb = {{0}};
            uint32_t k = random_next(&seed) % MODEL_KEYS;
            uint8_t key[4], value[1000] = {0};
            store_key_u32(key, k);
            if (random_next(&seed) % 3 == 0) {
                enum err e = store_delete(txn, STORE_TABLE_JOB, key, 4, &eb);
                assert_err(e, now.value[k] != 0 ? ERR_OK : ERR_NOT_FOUND, &eb);
                now.value[k] = 0;
            } else {
                now.value[k] = (int)(1 + random_next(&seed) % 1000000);
                memcpy(value, &now.value[k], sizeof(int));
                assert_err(store_put(txn, STORE_TABLE_JOB, key, 4, value,
                                     (size_t)(k * 13 % 900) + sizeof(int), &eb),
                           ERR_OK, &eb);
            }
        }
        model_check(txn, &now);
        if (random_next(&seed) % 4 == 0) {
            store_abort(txn);
            now = kept;
        } else {
            store_test_commit(txn);
        }
        model_check(before, &kept);
        store_abort(before);
        struct store_txn *after = store_test_begin(t->store, false);
        model_check(after, &now);
        store_abort(after);
        kept = now;
    }
    struct errbuf eb = {{0}};
    store_test_reopen(t);
    assert_err(store_verify(t->store, &eb), ERR_OK, &eb);
}

/* ---- readers beside a writer ---- */

struct beside {
    struct store *store;
    atomic_bool stop;
    atomic_int wrong;
    atomic_int reads;
};

static void *beside_read(void *arg)
{
    struct beside *b = arg;
    while (!atomic_load(&b->stop)) {
        struct store_txn *txn = NULL;
        struct store_value x, y;
        bool ok = store_begin(b->store, false, &txn, NULL) == ERR_OK &&
                  store_get(txn, STORE_TABLE_BALANCE, "x", 1, &x, NULL) == ERR_OK &&
                  store_get(txn, STORE_TABLE_USAGE, "y", 1, &y, NULL) == ERR_OK &&
                  x.size == y.size && memcmp(x.data, y.data, x.size) == 0;
        store_abort(txn);
        atomic_fetch_add(&b->reads, 1);
        if (!ok)
            atomic_fetch_add(&b->wrong, 1);
    }
    return NULL;
}

static void readers_never_see_half_a_commit(void **state)
{
    struct store_test *t = *state;
    struct beside b = {.store = t->store};
    pthread_t threads[3];
    char value[32];

    for (int i = 0; i < 60; i++) {
        struct store_txn *txn = store_test_begin(t->store, true);
        (void)snprintf(value, sizeof value, "commit %d", i);
        store_test_put(txn, STORE_TABLE_BALANCE, "x", value);
        store_test_put(txn, STORE_TABLE_USAGE, "y", value);
        store_test_commit(txn);
        for (int k = 0; i == 0 && k < 3; k++)
            assert_int_equal(pthread_create(&threads[k], NULL, beside_read, &b), 0);
    }
    while (atomic_load(&b.reads) < 100)
        sched_yield();
    atomic_store(&b.stop, true);
    for (int k = 0; k < 3; k++)
        assert_int_equal(pthread_join(threads[k], NULL), 0);
    assert_int_equal(atomic_load(&b.wrong), 0);
}

/* ---- memory only: failing when told to ---- */

static void fault_fails_the_nth_commit_only(void **state)
{
    static const struct {
        struct store_mem_fault fault;
        bool broken;
        const char *after; /* what the failed transaction leaves */
    } cases[] = {
        {{1, ERR_NO_SPACE, false}, false, "before"},  {{2, ERR_NO_SPACE, false}, false, "before"},
        {{1, ERR_NO_MEMORY, false}, false, "before"}, {{1, ERR_IO, false}, true, "before"},
        {{3, ERR_IO, true}, true, "after"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_test t;
        struct errbuf eb = {{0}};
        struct store_txn *txn = NULL;
        store_test_open(&t, STORE_TEST_MEM, 0);
        store_mem_fault_set(t.store, cases[i].fault);
        for (uint64_t n = 1; n <= cases[i].fault.nth; n++) {
            txn = store_test_begin(t.store, true);
            store_test_put(txn, STORE_TABLE_JOB, "k", n < cases[i].fault.nth ? "before" : "after");
            assert_err(store_commit(txn, &eb),
                       n < cases[i].fault.nth ? ERR_OK : cases[i].fault.code, &eb);
        }
        enum err e = store_begin(t.store, false, &txn, &eb);
        assert_err(e, cases[i].broken ? ERR_IO : ERR_OK, &eb);
        if (e == ERR_OK)
            store_abort(txn);
        store_mem_restart(t.store);
        txn = store_test_begin(t.store, true);
        const char *expected = cases[i].fault.nth == 1 && strcmp(cases[i].after, "before") == 0
                                   ? NULL
                                   : cases[i].after;
        store_test_expect(txn, STORE_TABLE_JOB, "k", expected);
        store_test_put(txn, STORE_TABLE_JOB, "k", "works again");
        store_test_commit(txn);
        store_test_close(&t);
    }
}

/* A million entries must cost what a tree costs, not what a list does. */
static void a_large_table_stays_quick(void **state)
{
    enum { N = 200000 };
    struct store_test *t = *state;
    struct errbuf eb = {{0}};
    uint8_t key[4];

    struct store_txn *txn = store_test_begin(t->store, true);
    for (uint32_t i = 0; i < N; i++) {
        store_key_u32(key, i * 2654435761u); /* all different, in no order */
        assert_err(store_put(txn, STORE_TABLE_JOB, key, 4, key, 4, &eb), ERR_OK, &eb);
    }
    for (uint32_t i = 0; i < N; i += 2) {
        store_key_u32(key, i * 2654435761u);
        assert_err(store_delete(txn, STORE_TABLE_JOB, key, 4, &eb), ERR_OK, &eb);
    }
    store_test_commit(txn);
    assert_int_equal(entries(t->store, STORE_TABLE_JOB), N / 2);
    assert_err(store_verify(t->store, &eb), ERR_OK, &eb);
}

int main(void)
{
#define CASES(kind)                                                                                \
    cmocka_unit_test_setup_teardown(new_store_is_empty_but_for_its_identity, kind, teardown),      \
        cmocka_unit_test_setup_teardown(value_comes_back_whatever_its_size, kind, teardown),       \
        cmocka_unit_test_setup_teardown(                                                           \
            value_over_the_bound_is_refused_and_the_transaction_goes_on, kind, teardown),          \
        cmocka_unit_test_setup_teardown(put_replaces_and_delete_removes, kind, teardown),          \
        cmocka_unit_test_setup_teardown(tables_do_not_share_keys, kind, teardown),                 \
        cmocka_unit_test_setup_teardown(append_takes_only_a_key_behind_the_last, kind, teardown),  \
        cmocka_unit_test_setup_teardown(scan_goes_up_from_a_key, kind, teardown),                  \
        cmocka_unit_test_setup_teardown(abort_leaves_no_trace, kind, teardown),                    \
        cmocka_unit_test_setup_teardown(reader_keeps_the_state_of_its_begin, kind, teardown),      \
        cmocka_unit_test_setup_teardown(long_random_run_agrees_with_a_model, kind, teardown),      \
        cmocka_unit_test_setup_teardown(readers_never_see_half_a_commit, kind, teardown),          \
        cmocka_unit_test_setup_teardown(a_large_table_stays_quick, kind, teardown)

    const struct CMUnitTest on_lmdb[] = {CASES(setup_lmdb)};
    const struct CMUnitTest in_memory[] = {
        CASES(setup_mem),
        cmocka_unit_test(fault_fails_the_nth_commit_only),
    };
    return cmocka_run_group_tests_name("store on LMDB", on_lmdb, NULL, NULL) +
           cmocka_run_group_tests_name("store in memory", in_memory, NULL, NULL);
}
