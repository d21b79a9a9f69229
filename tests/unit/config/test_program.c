/* What the daemons' command lines share: answered, refused, or left for the program to go on. */
#include "common/folder.h"
#include "common/program.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

struct values {
    const char *listen;
};

static const struct flag flags[] = {{.name = "listen",
                                     .letter = 'l',
                                     .type = FLAG_TEXT,
                                     .argument = "URL",
                                     .offset = offsetof(struct values, listen),
                                     .help = "Where."},
                                    {0}};

static void print_example(struct buf *out)
{
    buf_append_str(out, "# all keys\n");
}

static const struct program program = {.name = "cloister-test",
                                       .log_name = "test",
                                       .summary = "Tests.",
                                       .statuses = "Exit status: 0 always.",
                                       .flags = flags,
                                       .print_example = print_example};

static struct values values;
static struct program_options options;

/* Runs it with stdout and stderr in files, and gives back what they hold. */
static int begin(const char *const *words, char out[4096], char err[1024])
{
    char *argv[8] = {(char *)"cloister-test"};
    int argc = 1;
    for (; words[argc - 1] != NULL; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc - 1];
    FILE *files[2] = {tmpfile(), tmpfile()};
    int saved[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)};
    fflush(stdout);
    dup2(fileno(files[0]), STDOUT_FILENO);
    dup2(fileno(files[1]), STDERR_FILENO);
    values = (struct values){0};
    int status = program_begin(&program, argc, argv, &values, &options);
    fflush(stdout);
    fflush(stderr);
    for (int i = 0; i < 2; i++) {
        char *to = i == 0 ? out : err;
        size_t size = i == 0 ? 4095 : 1023;
        dup2(saved[i], i == 0 ? STDOUT_FILENO : STDERR_FILENO);
        close(saved[i]);
        rewind(files[i]);
        to[fread(to, 1, size, files[i])] = '\0';
        fclose(files[i]);
    }
    return status;
}

static void test_what_is_answered_at_once(void **state)
{
    (void)state;
    static const struct {
        const char *words[4];
        int status;
        const char *out, *err;
    } table[] = {
        {{"--help"}, PROGRAM_STATUS_OK, "  -l, --listen URL", ""},
        {{"-h"}, PROGRAM_STATUS_OK, "Exit status: 0 always.", ""},
        {{"--help"}, PROGRAM_STATUS_OK, "      --print-key", ""},
        {{"--version"}, PROGRAM_STATUS_OK, "cloister-test ", ""},
        {{"--print-config"}, PROGRAM_STATUS_OK, "# all keys\n", ""},
        {{"--lisen", "x"}, PROGRAM_STATUS_USAGE, "", "the nearest one is --listen"},
        {{"--listen"}, PROGRAM_STATUS_USAGE, "", "--listen needs a value: URL"},
        {{"--log-level", "loud"}, PROGRAM_STATUS_USAGE, "", "error, warn, info, debug"},
        {{"start"}, PROGRAM_STATUS_USAGE, "", "\"start\" is not understood"},
        {{"--listen", "a", "b"}, PROGRAM_STATUS_USAGE, "", "\"b\" is not understood"},
    };
    for (size_t i = 0; i < COUNT(table); i++) {
        char out[4096], err[1024];
        assert_int_equal(begin(table[i].words, out, err), table[i].status);
        assert_non_null(strstr(out, table[i].out));
        assert_non_null(strstr(err, table[i].err));
        assert_true((out[0] == '\0') == (table[i].out[0] == '\0'));
        assert_true((err[0] == '\0') == (table[i].err[0] == '\0'));
    }
}

static void test_going_on(void **state)
{
    (void)state;
    char out[4096], err[1024];
    static const char *const words[] = {"--listen=tcp://a:1", "-c",    "file",
                                        "--log-level",        "debug", NULL};
    assert_int_equal(begin(words, out, err), PROGRAM_GO_ON);
    assert_string_equal(out, "");
    assert_string_equal(err, "");
    assert_string_equal(values.listen, "tcp://a:1");
    assert_string_equal(options.config, "file");
    assert_string_equal(options.log_level, "debug");

    sigset_t blocked;
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    for (size_t i = 0; i < COUNT(signals); i++)
        assert_true(sigismember(&blocked, signals[i]));
}

static void test_absolute_path(void **state)
{
    (void)state;
    char buf[PATH_MAX], cwd[PATH_MAX], want[PATH_MAX + 8];
    struct errbuf eb = {{0}};
    const char *path = NULL;
    assert_int_equal(program_absolute_path(&path, buf, &eb), ERR_OK);
    assert_null(path);
    path = "/a/b";
    assert_int_equal(program_absolute_path(&path, buf, &eb), ERR_OK);
    assert_string_equal(path, "/a/b");
    path = "a/b";
    assert_int_equal(program_absolute_path(&path, buf, &eb), ERR_OK);
    assert_non_null(getcwd(cwd, sizeof cwd));
    snprintf(want, sizeof want, "%s/a/b", cwd);
    assert_string_equal(path, want);
    path = "";
    assert_int_equal(program_absolute_path(&path, buf, &eb), ERR_INVALID);
    char *long_path = malloc(PATH_MAX);
    memset(long_path, 'x', PATH_MAX - 1);
    long_path[PATH_MAX - 1] = '\0';
    path = long_path;
    assert_int_equal(program_absolute_path(&path, buf, &eb), ERR_TOO_LARGE);
    free(long_path);
}

static void test_folders_are_made_for_the_owner_alone(void **state)
{
    (void)state;
    char dir[] = "/tmp/cloister-folder-XXXXXX", path[128], file[128];
    struct errbuf eb = {{0}};
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/a/b", dir);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(folder_make(path, &eb), ERR_OK);
        assert_int_equal(stat(path, &st), 0);
        assert_true(S_ISDIR(st.st_mode));
        assert_int_equal(st.st_mode & 0777, 0700);
    }
    snprintf(file, sizeof file, "%s/file", path);
    assert_int_equal(folder_make_above(file, &eb), ERR_OK);
    assert_int_not_equal(stat(file, &st), 0);
    fclose(fopen(file, "w"));
    assert_int_equal(folder_make(file, &eb), ERR_IO);
    assert_non_null(strstr(eb.text, file));
    snprintf(path, sizeof path, "%s/below", file);
    assert_int_not_equal(folder_make(path, &eb), ERR_OK);
    unlink(file);
    static const char *const made[] = {"/a/b", "/a", ""};
    for (size_t i = 0; i < COUNT(made); i++) {
        snprintf(path, sizeof path, "%s%s", dir, made[i]);
        assert_int_equal(rmdir(path), 0);
    }
}

static void test_where_files_are_kept(void **state)
{
    (void)state;
    static const struct folder_default place = {.of_root = "/var/lib/x",
                                                .variable = "XDG_X_HOME",
                                                .in_home = ".local/x",
                                                .name = "cloister",
                                                .key = "data"};
    static const struct {
        const char *systemd, *xdg, *home, *want; /* of a user that is not root */
    } table[] = {
        {"/run/state", "/xdg", "/home/u", "/run/state"},
        {NULL, "/xdg", "/home/u", "/xdg/cloister"},
        {NULL, "relative", "/home/u", "/home/u/.local/x/cloister"},
        {"", NULL, "/home/u", "/home/u/.local/x/cloister"},
        {NULL, NULL, NULL, NULL},
    };
    bool is_root = geteuid() == 0;
    for (size_t i = 0; i < COUNT(table); i++) {
        const char *names[] = {"STATE_DIRECTORY", "XDG_X_HOME", "HOME"};
        const char *texts[] = {table[i].systemd, table[i].xdg, table[i].home};
        for (size_t k = 0; k < COUNT(names); k++)
            texts[k] != NULL ? setenv(names[k], texts[k], 1) : unsetenv(names[k]);
        char path[64];
        struct errbuf eb = {{0}};
        bool by_systemd = table[i].systemd != NULL && table[i].systemd[0] == '/';
        const char *want = is_root && !by_systemd ? "/var/lib/x" : table[i].want;
        enum err err = folder_default(&place, path, sizeof path, &eb);
        assert_int_equal(err, want != NULL ? ERR_OK : ERR_INVALID);
        if (want != NULL)
            assert_string_equal(path, want);
        else
            assert_string_equal(eb.text, "no folder for its files: set data, or HOME");
    }
    char small[4];
    struct errbuf eb = {{0}};
    setenv("STATE_DIRECTORY", "/long", 1);
    assert_int_equal(folder_default(&place, small, sizeof small, &eb), ERR_TOO_LARGE);
    unsetenv("STATE_DIRECTORY");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_answered_at_once),
        cmocka_unit_test(test_going_on),
        cmocka_unit_test(test_absolute_path),
        cmocka_unit_test(test_folders_are_made_for_the_owner_alone),
        cmocka_unit_test(test_where_files_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
