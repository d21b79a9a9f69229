/* Key files of crypto.h: made once, whole or not at all, and never asked for. */
#include "common/crypto.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

extern char **environ;

static char folder[64];
static char path[128];

static int folder_setup(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/cloister-key-XXXXXX");
    (void)snprintf(path, sizeof path, "%s/id.key", mkdtemp(folder));
    return 0;
}

/* How many files the test left; removes them. */
static size_t folder_clear(void)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        assert_int_equal(unlinkat(dirfd(d), e->d_name, 0), 0);
        n++;
    }
    (void)closedir(d);
    return n;
}

static int folder_teardown(void **state)
{
    (void)state;
    (void)folder_clear();
    return rmdir(folder);
}

static void file_write(const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    assert_true(fchmod(fd, mode) == 0 && close(fd) == 0);
}

static void a_key_is_saved_once_and_read_again(void **state)
{
    struct crypto_key *key, *again;
    uint8_t public[2][ED25519_PUBLIC_BYTES];
    struct errbuf eb = {{0}};
    struct stat st;
    (void)state;

    assert_int_equal(crypto_key_open(&again, path, &eb), ERR_NOT_FOUND);
    assert_int_equal(crypto_key_open_or_create(&key, path, &eb), ERR_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(crypto_key_open_or_create(&again, path, &eb), ERR_OK);
    crypto_key_public(key, public[0]);
    crypto_key_public(again, public[1]);
    assert_memory_equal(public[0], public[1], ED25519_PUBLIC_BYTES);
    crypto_key_free(again);

    assert_int_equal(crypto_key_save(key, path, &eb), ERR_CONFLICT);
    assert_non_null(strstr(eb.text, path));
    assert_int_equal(crypto_key_open(&again, path, &eb), ERR_OK);
    crypto_key_free(again);
    crypto_key_free(key);
    assert_int_equal(folder_clear(), 1);
}

static int create_once(const char *at)
{
    struct crypto_key *key;
    struct errbuf eb = {{0}};
    uint8_t public[ED25519_PUBLIC_BYTES];

    if (crypto_key_open_or_create(&key, at, &eb) != ERR_OK) {
        (void)fprintf(stderr, "%s\n", eb.text);
        return 1;
    }
    crypto_key_public(key, public);
    crypto_key_free(key);
    return write(STDOUT_FILENO, public, sizeof public) == sizeof public ? 0 : 1;
}

/* Nobody may see half a key of another, nor use one that another's takes the place of. */
static void processes_that_create_it_at_once_get_the_same(void **state)
{
    enum { PROCESSES = 4, ROUNDS = 40 };
    char *argv[] = {"test_crypto", "--create", path, NULL};
    (void)state;

    for (int round = 0; round < ROUNDS; round++) {
        uint8_t public[PROCESSES][ED25519_PUBLIC_BYTES];
        posix_spawn_file_actions_t actions;
        pid_t children[PROCESSES];
        int ends[2], status;
        assert_int_equal(pipe(ends), 0);
        assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
        assert_int_equal(posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO), 0);
        for (int i = 0; i < PROCESSES; i++)
            assert_int_equal(
                posix_spawn(&children[i], "/proc/self/exe", &actions, NULL, argv, environ), 0);
        for (int i = 0; i < PROCESSES; i++) {
            assert_int_equal(waitpid(children[i], &status, 0), children[i]);
            assert_int_equal(status, 0);
            assert_int_equal(read(ends[0], public[i], sizeof public[i]), sizeof public[i]);
            assert_memory_equal(public[i], public[0], sizeof public[0]);
        }
        (void)posix_spawn_file_actions_destroy(&actions);
        assert_true(close(ends[0]) == 0 && close(ends[1]) == 0);
        assert_int_equal(folder_clear(), 1);
    }
}

static void what_is_no_key_of_ours_is_said(void **state)
{
    static const char encrypted[] =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
        "MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAg1A1cCaNzaCgICCAAw\n"
        "DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEECaaU9ud2gxppOO8Y8bUoPEEQHGS\n"
        "EapNd6wpQO6lzad6NzsrOtm2wd3b7IjYP/HzvdAr0sgBLmT8i65SDkAkT5W/+eiR\n"
        "FGO0D/jX4XKJ+x2nTjo=\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n";
    static const struct {
        const char *text;
        mode_t mode;
        enum err err;
        const char *says;
    } rows[] = {
        {"", 0600, ERR_INVALID, "no PEM private key"},
        {"-----BEGIN PRIVATE KEY-----\nMC4CAQAw", 0600, ERR_INVALID, "no PEM private key"},
        {encrypted, 0600, ERR_UNSUPPORTED, "passphrase"},
        {encrypted, 0640, ERR_REFUSED, "chmod 600"},
    };
    struct crypto_key *key;
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct errbuf eb = {{0}};
        file_write(rows[i].text, rows[i].mode);
        assert_int_equal(crypto_key_open_or_create(&key, path, &eb), rows[i].err);
        assert_non_null(strstr(eb.text, rows[i].says));
        assert_non_null(strstr(eb.text, path));
    }
    assert_int_equal(folder_clear(), 1);
}

/* A program that waits there for a writer cannot even be stopped. */
static void a_fifo_is_refused_without_waiting(void **state)
{
    struct crypto_key *key;
    struct errbuf eb = {{0}};
    (void)state;

    assert_int_equal(mkfifo(path, 0600), 0);
    (void)alarm(10);
    assert_int_equal(crypto_key_open_or_create(&key, path, &eb), ERR_INVALID);
    (void)alarm(0);
    assert_non_null(strstr(eb.text, "not a file"));
    assert_int_equal(folder_clear(), 1);
}

static void a_folder_that_is_not_there_is_an_error(void **state)
{
    struct crypto_key *key;
    struct errbuf eb = {{0}};
    char nowhere[256];
    (void)state;

    (void)snprintf(nowhere, sizeof nowhere, "%s/none/id.key", folder);
    assert_int_equal(crypto_key_open_or_create(&key, nowhere, &eb), ERR_NOT_FOUND);
    assert_non_null(strstr(eb.text, nowhere));
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--create") == 0)
        return create_once(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_is_saved_once_and_read_again),
        cmocka_unit_test(processes_that_create_it_at_once_get_the_same),
        cmocka_unit_test(what_is_no_key_of_ours_is_said),
        cmocka_unit_test(a_fifo_is_refused_without_waiting),
        cmocka_unit_test(a_folder_that_is_not_there_is_an_error),
    };
    return cmocka_run_group_tests(tests, folder_setup, folder_teardown);
}
