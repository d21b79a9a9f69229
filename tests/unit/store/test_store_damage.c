/*
 * What the store on disk does with a file that is not as it left it: bits flipped, values swapped,
 * cut short, another schema, not a store at all. LMDB itself checks nothing of this and would crash
 * on a damaged page of its own, so every damaged file is opened in a child process: store_pages.c
 * is there so that none of these ends by a signal. test_store_pages.c does the same to the
 * structure.
 */
#include "tests/unit/store/store_test.h"

#include "coordinator/store/store_backend.h"
#include "coordinator/store/store_lmdb.h"

#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { VALUES = 60 };

static const uint64_t map_bytes = 64u << 20;

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* Value i of a table: its bytes follow from i and the table alone. Every tenth is longer than a
 * page. */
static size_t value_make(uint32_t i, enum store_table table, uint8_t *ret_bytes)
{
    uint64_t seed = i * 977u + (uint32_t)table * 65537u;
    size_t size = i % 10 == 9 ? 6000 : 40 + random_next(&seed) % 500;
    for (size_t k = 0; k < size; k++)
        ret_bytes[k] = (uint8_t)random_next(&seed);
    return size;
}

static const enum store_table tables[] = {STORE_TABLE_JOB, STORE_TABLE_LEDGER};

static void store_fill(struct store *s)
{
    uint8_t bytes[8192], key[4];
    struct errbuf eb = {{0}};
    struct store_txn *txn = store_test_begin(s, true);
    for (size_t t = 0; t < 2; t++) {
        for (uint32_t i = 0; i < VALUES; i++) {
            size_t size = value_make(i, tables[t], bytes);
            store_key_u32(key, i);
            assert_err(store_put(txn, tables[t], key, 4, bytes, size, &eb), ERR_OK, &eb);
        }
    }
    store_test_commit(txn);
}

/* How a child found the file. */
enum found {
    FOUND_WHOLE = 40,
    FOUND_ERROR,   /* an error from open, get or verify */
    FOUND_MISSING, /* a value is not there, and verify has nothing to say */
    FOUND_WRONG,   /* other bytes were handed out: must never be */
    FOUND_CRASH,   /* any other end of the child */
    FOUND_COUNT,
};

static int child_read(const char *path)
{
    struct store_lmdb_config config = {.path = path, .map_bytes = map_bytes};
    struct store *s = NULL;
    struct store_txn *txn = NULL;
    bool missing = false, error = false;
    uint8_t bytes[8192], key[4];

    if (store_open_lmdb(&s, &config, NULL) != ERR_OK || store_begin(s, false, &txn, NULL) != ERR_OK)
        return FOUND_ERROR;
    for (size_t t = 0; t < 2; t++) {
        for (uint32_t i = 0; i < VALUES; i++) {
            struct store_value v;
            size_t size = value_make(i, tables[t], bytes);
            store_key_u32(key, i);
            enum err e = store_get(txn, tables[t], key, 4, &v, NULL);
            if (e == ERR_OK && (v.size != size || memcmp(v.data, bytes, size) != 0))
                return FOUND_WRONG;
            missing = missing || e == ERR_NOT_FOUND;
            error = error || (e != ERR_OK && e != ERR_NOT_FOUND);
        }
    }
    store_abort(txn);
    if (error || store_verify(s, NULL) != ERR_OK)
        return FOUND_ERROR;
    return missing ? FOUND_MISSING : FOUND_WHOLE;
}

static enum found child_run(const char *path)
{
    pid_t pid = store_test_fork();
    if (pid == 0) {
        /* A crash is one of the expected ends: its report would only hide what matters. */
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        _exit(child_read(path));
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) >= FOUND_WHOLE &&
        WEXITSTATUS(status) < FOUND_CRASH)
        return (enum found)WEXITSTATUS(status);
    return FOUND_CRASH;
}

struct image {
    char file[400];
    uint8_t *bytes;
    size_t size;
};

static void image_load(struct image *image, const struct store_test *t)
{
    struct stat st;
    (void)snprintf(image->file, sizeof image->file, "%s/data.mdb", t->path);
    assert_int_equal(stat(image->file, &st), 0);
    image->size = (size_t)st.st_size;
    image->bytes = malloc(image->size);
    assert_non_null(image->bytes);
    int fd = open(image->file, O_RDONLY);
    assert_int_equal(read(fd, image->bytes, image->size), (ssize_t)image->size);
    close(fd);
}

static void image_store(const struct image *image)
{
    int fd = open(image->file, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, image->bytes, image->size), (ssize_t)image->size);
    close(fd);
}

/* A closed store with the values above, and its file in memory. */
static void damage_setup(struct store_test *t, struct image *image)
{
    store_test_open(t, STORE_TEST_LMDB, map_bytes);
    store_fill(t->store);
    store_close(t->store);
    t->store = NULL;
    image_load(image, t);
    assert_int_equal(child_run(t->path), FOUND_WHOLE);
}

static void damage_teardown(struct store_test *t, struct image *image)
{
    free(image->bytes);
    store_test_close(t);
}

static enum found flip(struct store_test *t, struct image *image, size_t at, unsigned bit)
{
    image->bytes[at] ^= (uint8_t)(1u << bit);
    image_store(image);
    enum found found = child_run(t->path);
    image->bytes[at] ^= (uint8_t)(1u << bit);
    return found;
}

/* Where `bytes` are next from `from` on; image->size where no more. */
static size_t find(const struct image *image, size_t from, const uint8_t *bytes, size_t size)
{
    const uint8_t *at = memmem(image->bytes + from, image->size - from, bytes, size);
    return at != NULL ? (size_t)(at - image->bytes) : image->size;
}

static void every_flip_in_a_value_or_its_seal_is_reported(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint64_t seed = 7;
    uint8_t bytes[8192];

    damage_setup(&t, &image);
    for (size_t table = 0; table < 2; table++) {
        for (uint32_t i = 0; i < VALUES; i++) {
            size_t size = value_make(i, tables[table], bytes);
            for (int n = 0; n < 4; n++) {
                /* One of the four in the seal. */
                size_t offset = n == 0 ? random_next(&seed) % STORE_SEAL_BYTES
                                       : STORE_SEAL_BYTES + random_next(&seed) % size;
                unsigned bit = random_next(&seed) % 8;
                int reported = 0;
                /* A page that was split keeps a dead copy of what moved: a flip there is harmless.
                 */
                for (size_t at = find(&image, 0, bytes, size); at < image.size;
                     at = find(&image, at + 1, bytes, size)) {
                    enum found found = flip(&t, &image, at - STORE_SEAL_BYTES + offset, bit);
                    assert_true(found == FOUND_ERROR || found == FOUND_WHOLE);
                    reported += found == FOUND_ERROR;
                }
                if (reported != 1)
                    print_error("table %zu value %u byte %zu bit %u\n", table, i, offset, bit);
                assert_int_equal(reported, 1);
            }
        }
    }
    damage_teardown(&t, &image);
}

static void no_flip_anywhere_hands_out_other_bytes(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint64_t seed = 11;
    int counts[FOUND_COUNT] = {0};

    damage_setup(&t, &image);
    for (int n = 0; n < 600; n++) {
        /* Half of them among the first bytes of a page, where LMDB's own structure is. */
        size_t at = random_next(&seed) % image.size;
        if (n % 2 == 0)
            at = at / 4096 * 4096 + random_next(&seed) % 200;
        unsigned bit = random_next(&seed) % 8;
        enum found found = flip(&t, &image, at < image.size ? at : image.size - 1, bit);
        /* Of the two meta pages LMDB takes the one that claims to be newer: a flip there can bring
         * back the state before the last commit, whole. Only what is kept outside the store, as
         * the ledger's checkpoint is, can tell. */
        if (found == FOUND_MISSING && at < 8192)
            found = FOUND_WHOLE;
        if (found == FOUND_WRONG || found == FOUND_MISSING)
            print_error("byte %zu bit %u: %s\n", at, bit,
                        found == FOUND_WRONG ? "wrong bytes" : "missing, not noticed");
        counts[found]++;
    }
    print_message("600 flips: %d harmless, %d reported\n", counts[FOUND_WHOLE],
                  counts[FOUND_ERROR]);
    assert_int_equal(counts[FOUND_CRASH], 0);
    assert_int_equal(counts[FOUND_WRONG], 0);
    assert_int_equal(counts[FOUND_MISSING], 0);
    assert_true(counts[FOUND_ERROR] > 100);
    damage_teardown(&t, &image);
}

static void values_in_each_others_place_are_reported(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint8_t a[8192], b[8192];

    damage_setup(&t, &image);
    /* Two values of one size in one table, sealed value against sealed value. */
    uint32_t first = 9, second = 19; /* the long ones */
    size_t size = value_make(first, STORE_TABLE_JOB, a);
    assert_int_equal(size, value_make(second, STORE_TABLE_JOB, b));
    uint8_t *at_a = image.bytes + find(&image, 0, a, size) - STORE_SEAL_BYTES;
    uint8_t *at_b = image.bytes + find(&image, 0, b, size) - STORE_SEAL_BYTES;
    size += STORE_SEAL_BYTES;
    memcpy(a, at_a, size);
    memcpy(at_a, at_b, size);
    memcpy(at_b, a, size);
    image_store(&image);
    assert_int_equal(child_run(t.path), FOUND_ERROR);

    struct errbuf eb = {{0}};
    struct store_lmdb_config config = {.path = t.path, .map_bytes = map_bytes};
    assert_err(store_open_lmdb(&t.store, &config, &eb), ERR_OK, &eb);
    assert_err(store_verify(t.store, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "table job, key 00000009: checksum"));
    damage_teardown(&t, &image);
}

static void file_cut_at_any_page_is_reported(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;

    damage_setup(&t, &image);
    size_t whole = image.size;
    for (size_t pages = 0; pages < whole / 4096; pages++) {
        image.size = pages * 4096 + (pages % 3 == 0 ? 0 : 100 * pages);
        image_store(&image);
        enum found found = child_run(t.path);
        /* An empty file is a new store, with nothing in it. */
        if (found != (pages == 0 ? FOUND_MISSING : FOUND_ERROR))
            print_error("cut at page %zu of %zu: %d\n", pages, whole / 4096, found);
        assert_int_equal(found, pages == 0 ? FOUND_MISSING : FOUND_ERROR);
    }
    image.size = whole;
    damage_teardown(&t, &image);
}

/* Pages that a transaction took and gave back are never written, so the file is shorter than its
 * meta page says: that alone is no damage. */
static void file_that_is_short_for_a_good_reason_opens(void **state)
{
    (void)state;
    struct store_test t;
    struct errbuf eb = {{0}};
    struct stat before;
    char file[400];
    uint8_t *big = calloc(1, 1u << 20);
    struct store_txn *txn;

    assert_non_null(big);
    store_test_open(&t, STORE_TEST_LMDB, map_bytes);
    /* Free pages from before, so that what the last transaction gives back joins them at once. */
    for (int i = 0; i < 4; i++) {
        txn = store_test_begin(t.store, true);
        assert_err(store_put(txn, STORE_TABLE_CONTENT, "old", 3, big, 50000, &eb), ERR_OK, &eb);
        store_test_commit(txn);
    }
    txn = store_test_begin(t.store, true);
    store_test_put(txn, STORE_TABLE_JOB, "k", "kept");
    assert_err(store_put(txn, STORE_TABLE_CONTENT, "big", 3, big, 1u << 20, &eb), ERR_OK, &eb);
    assert_err(store_delete(txn, STORE_TABLE_CONTENT, "big", 3, &eb), ERR_OK, &eb);
    store_test_commit(txn);
    free(big);
    (void)snprintf(file, sizeof file, "%s/data.mdb", t.path);
    assert_int_equal(stat(file, &before), 0);
    assert_true(before.st_size < 1000000);
    store_test_reopen(&t);
    txn = store_test_begin(t.store, false);
    store_test_expect(txn, STORE_TABLE_JOB, "k", "kept");
    store_abort(txn);
    assert_err(store_verify(t.store, &eb), ERR_OK, &eb);
    store_test_close(&t);
}

/* ---- files made by someone else ---- */

static void raw_put(const char *path, const char *table, const char *key, const void *bytes,
                    size_t size)
{
    MDB_env *env = NULL;
    MDB_txn *txn = NULL;
    MDB_dbi dbi;
    MDB_val k = {.mv_size = strlen(key), .mv_data = (void *)(uintptr_t)key};
    MDB_val v = {.mv_size = size, .mv_data = (void *)(uintptr_t)bytes};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 20), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, table, MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
}

static void sealed_make(uint8_t *ret_sealed, uint32_t schema, enum store_table table,
                        const char *key, const void *bytes, size_t size)
{
    struct store_value k = {(const uint8_t *)key, strlen(key)}, v = {bytes, size};
    store_seal(ret_sealed, schema, table, k, v);
    memcpy(ret_sealed + STORE_SEAL_BYTES, bytes, size);
}

static void another_schema_is_refused_with_both_numbers(void **state)
{
    (void)state;
    struct store_test t;
    struct errbuf eb = {{0}};
    uint8_t schema[4], sealed[64];
    struct store_lmdb_config config = {.map_bytes = map_bytes};

    store_test_open(&t, STORE_TEST_LMDB, map_bytes);
    config.path = t.path;
    store_close(t.store);
    t.store = NULL;
    store_key_u32(schema, STORE_SCHEMA + 1);
    sealed_make(sealed, STORE_TABLE_SCHEMA, STORE_TABLE_META, "schema", schema, 4);
    raw_put(t.path, "meta", "schema", sealed, STORE_SEAL_BYTES + 4);
    assert_err(store_open_lmdb(&t.store, &config, &eb), ERR_UNSUPPORTED, &eb);
    assert_non_null(strstr(eb.text, "has schema 2, this build reads 1"));

    store_key_u32(schema, STORE_SCHEMA);
    sealed_make(sealed, STORE_TABLE_SCHEMA, STORE_TABLE_META, "schema", schema, 4);
    raw_put(t.path, "meta", "schema", sealed, STORE_SEAL_BYTES + 4);
    sealed_make(sealed, STORE_TABLE_SCHEMA + 6, STORE_TABLE_JOB, "j", "new", 3);
    raw_put(t.path, "job", "j", sealed, STORE_SEAL_BYTES + 3);
    raw_put(t.path, "job", "k", "short", 5);
    assert_err(store_open_lmdb(&t.store, &config, &eb), ERR_OK, &eb);
    struct store_txn *txn = store_test_begin(t.store, false);
    struct store_value v;
    assert_err(store_get(txn, STORE_TABLE_JOB, "j", 1, &v, &eb), ERR_UNSUPPORTED, &eb);
    assert_non_null(strstr(eb.text, "table job, key 6a: written by schema 7, this build reads 1"));
    assert_err(store_get(txn, STORE_TABLE_JOB, "k", 1, &v, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "a value of 5 bytes has no room for its checksum"));
    store_abort(txn);
    store_test_close(&t);
}

static void what_is_no_store_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum err expected;
        const char *message;
    } cases[] = {
        {"not LMDB", ERR_CORRUPT, "data.mdb"},
        {"LMDB of another program", ERR_CORRUPT, "no table meta"},
        {"a file in the directory's place", ERR_INVALID, "not a directory"},
        {"no parent directory", ERR_NOT_FOUND, "cannot make the directory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char dir[256], path[300], file[320];
        struct errbuf eb = {{0}};
        struct store *s = NULL;
        struct store_lmdb_config config = {.path = path, .map_bytes = map_bytes};

        store_test_dir_new(dir, sizeof dir);
        (void)snprintf(path, sizeof path, i == 3 ? "%s/none/store" : "%s/store", dir);
        if (i < 2)
            assert_int_equal(mkdir(path, 0700), 0);
        (void)snprintf(file, sizeof file, i == 2 ? "%s" : "%s/data.mdb", path);
        if (i == 0 || i == 2) {
            FILE *f = fopen(file, "w");
            assert_non_null(f);
            for (int k = 0; k < 3000; k++)
                fprintf(f, "some text\n");
            fclose(f);
        }
        if (i == 1)
            raw_put(path, "theirs", "k", "v", 1);
        assert_err(store_open_lmdb(&s, &config, &eb), cases[i].expected, &eb);
        if (strstr(eb.text, cases[i].message) == NULL)
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].name, eb.text, cases[i].message);
        store_test_dir_remove(dir);
    }
}

static void network_file_systems_are_known_by_number(void **state)
{
    (void)state;
    static const struct {
        uint32_t type;
        const char *name;
    } cases[] = {
        {0x6969, "NFS"},
        {0xff534d42, "CIFS"},
        {0xfe534d42, "SMB2"},
        {0x01021997, "9P"},
        {0x65735546, "FUSE"},
        {0xef53, NULL}, /* ext4 */
        {0x58465342, NULL} /* xfs */,
        {0x9123683e, NULL}, /* btrfs */
        {0x01021994, NULL}, /* tmpfs */
        {0x794c7630, NULL}, /* overlay */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *name = store_lmdb_network_fs(cases[i].type);
        assert_int_equal(name != NULL, cases[i].name != NULL);
        if (name != NULL)
            assert_string_equal(name, cases[i].name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_flip_in_a_value_or_its_seal_is_reported),
        cmocka_unit_test(no_flip_anywhere_hands_out_other_bytes),
        cmocka_unit_test(values_in_each_others_place_are_reported),
        cmocka_unit_test(file_cut_at_any_page_is_reported),
        cmocka_unit_test(file_that_is_short_for_a_good_reason_opens),
        cmocka_unit_test(another_schema_is_refused_with_both_numbers),
        cmocka_unit_test(what_is_no_store_is_refused),
        cmocka_unit_test(network_file_systems_are_known_by_number),
    };
    return cmocka_run_group_tests_name("damaged store", tests, NULL, NULL);
}
