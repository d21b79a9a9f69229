/*
 * A disk that is full: a tmpfs of 2 MiB in a mount namespace of our own. Exit status 77 (skipped)
 * where this process may not make one.
 */
#include "tests/unit/store/store_test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char mount_dir[256];

static enum err fill(struct store *s, uint32_t *next, struct errbuf *eb)
{
    uint8_t value[3000], key[4];
    struct store_txn *txn = store_test_begin(s, true);
    memset(value, 'v', sizeof value);
    for (uint32_t i = 0; i < 16; i++) {
        store_key_u32(key, *next + i);
        enum err e = store_put(txn, STORE_TABLE_CHUNK, key, 4, value, sizeof value, eb);
        assert_err(e, ERR_OK, eb); /* the map is large: only the disk is full */
    }
    enum err e = store_commit(txn, eb);
    if (e == ERR_OK)
        *next += 16;
    return e;
}

static void full_disk_loses_nothing_and_serving_resumes(void **state)
{
    (void)state;
    struct store_lmdb_config config = {.map_bytes = 1u << 30};
    struct store *s = NULL;
    struct errbuf eb = {{0}};
    struct store_stat stat;
    char path[300], ballast[300];
    uint32_t next = 0;
    enum err e;

    (void)snprintf(path, sizeof path, "%s/store", mount_dir);
    (void)snprintf(ballast, sizeof ballast, "%s/ballast", mount_dir);
    FILE *f = fopen(ballast, "w");
    assert_non_null(f);
    for (int i = 0; i < 512; i++)
        fprintf(f, "%01023d\n", i);
    assert_int_equal(fclose(f), 0);

    config.path = path;
    assert_err(store_open_lmdb(&s, &config, &eb), ERR_OK, &eb);
    while ((e = fill(s, &next, &eb)) == ERR_OK)
        assert_true(next < 10000);
    assert_err(e, ERR_NO_SPACE, &eb);
    assert_non_null(strstr(eb.text, "No space left"));
    assert_true(next > 0);
    for (int i = 0; i < 5; i++) /* it stays a full disk, not a broken store */
        assert_err(fill(s, &next, &eb), ERR_NO_SPACE, &eb);
    assert_err(store_stat(s, &stat, &eb), ERR_OK, &eb);
    assert_int_equal(stat.entries[STORE_TABLE_CHUNK], next);

    assert_int_equal(unlink(ballast), 0);
    assert_err(fill(s, &next, &eb), ERR_OK, &eb);
    store_close(s);
    assert_err(store_open_lmdb(&s, &config, &eb), ERR_OK, &eb);
    assert_err(store_verify(s, &eb), ERR_OK, &eb);
    assert_err(store_stat(s, &stat, &eb), ERR_OK, &eb);
    assert_int_equal(stat.entries[STORE_TABLE_CHUNK], next);
    store_close(s);
}

static void new_store_on_a_full_disk_is_refused_and_can_be_made_later(void **state)
{
    (void)state;
    struct store_lmdb_config config = {.map_bytes = 1u << 30};
    struct store *s = NULL;
    struct errbuf eb = {{0}};
    char path[300], ballast[300];

    (void)snprintf(path, sizeof path, "%s/second", mount_dir);
    (void)snprintf(ballast, sizeof ballast, "%s/ballast", mount_dir);
    FILE *f = fopen(ballast, "w");
    assert_non_null(f);
    setbuf(f, NULL);
    while (fwrite(path, 1, 64, f) == 64)
        continue;
    fclose(f);
    config.path = path;
    assert_err(store_open_lmdb(&s, &config, &eb), ERR_NO_SPACE, &eb);
    assert_int_equal(unlink(ballast), 0);
    assert_err(store_open_lmdb(&s, &config, &eb), ERR_OK, &eb);
    assert_err(store_verify(s, &eb), ERR_OK, &eb);
    store_close(s);
}

int main(void)
{
    store_test_dir_new(mount_dir, sizeof mount_dir);
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("tmpfs", mount_dir, "tmpfs", 0, "size=2m") != 0) {
        printf("skipped: cannot mount a small tmpfs: %s\n", strerror(errno));
        rmdir(mount_dir);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_disk_loses_nothing_and_serving_resumes),
        cmocka_unit_test(new_store_on_a_full_disk_is_refused_and_can_be_made_later),
    };
    int rc = cmocka_run_group_tests_name("store on a full disk", tests, NULL, NULL);
    umount(mount_dir);
    rmdir(mount_dir);
    return rc;
}
