/*
 * Bad model files, of a hundred kinds and more: whoever meets one is told where and why.
 *
 *     test_worker_bad_files CLOISTER-ENGINE
 *
 * Each goes the worker's way (the catalogue, which reads headers, and then loading) and that of
 * `cloister-engine info` and `generate`, which must all say the same.
 */
#include "tests/unit/worker/bad_files.h"
#include "worker/catalogue.h"
#include "worker/engine/runtime.h"

#include "common/check.h"
#include "common/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define KINDS_MIN 100

static const char *program;
static char folder[] = "/tmp/cloister-test-bad-files-XXXXXX";
static char path[64];
static size_t failed;

static const struct engine_config config = {.threads = 1, .step_tokens = 16, .sequences = 1};

static void write_file(const struct bad_file *f)
{
    struct buf bytes;
    bad_file_build(f, &bytes);
    FILE *to = fopen(path, "we");
    CHECK(to != NULL && fwrite(bytes.data, 1, bytes.size, to) == bytes.size && fclose(to) == 0);
    buf_fini(&bytes);
}

static void complain(const struct bad_file *f, const char *who, const char *text)
{
    print_error("%s: %s says '%s', not '%s'\n", f->what, who, text, f->says);
    failed++;
}

/* A place, in any of its forms. */
static bool names_place(const char *text)
{
    static const char *const places[] = {"byte ", "key '", "tensor '", "tensors '", " by its keys"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (strstr(text, places[i]) != NULL)
            return true;
    return false;
}

static void check_error(const struct bad_file *f, const char *who, enum err e,
                        const struct errbuf *eb)
{
    if (e != f->code || strstr(eb->text, f->says) == NULL || !names_place(eb->text)) {
        print_error("%s ", err_name(e));
        complain(f, who, eb->text);
    }
}

/* --- the worker --- */

static enum err offer(struct errbuf *eb)
{
    const struct catalogue_source source = {.name = "bad", .path = path};
    const struct catalogue_digests digests = {.folder = folder};
    struct catalogue c = {0};
    enum err e = catalogue_open(&c, &source, 1, &config, &digests, eb);
    if (e == ERR_OK)
        catalogue_close(&c);
    return e;
}

static enum err load(struct errbuf *eb)
{
    const struct engine_model_config model = {.path = path, .context_tokens = 32, .slots = 1};
    struct runtime *r = NULL;
    enum err e = runtime_open(&r, &config, &model, NULL, eb);
    if (e == ERR_OK)
        runtime_close(r);
    return e;
}

/* --- the program --- */

/* What it prints, both streams; its exit status is returned. */
static int run(const char *command, const char *options, char ret_text[8192])
{
    char line[512];
    (void)snprintf(line, sizeof line, "'%s' %s '%s' %s 2>&1", program, command, path, options);
    FILE *from = popen(line, "re");
    CHECK(from != NULL);
    size_t size = fread(ret_text, 1, 8191, from);
    ret_text[size] = 0;
    int status = pclose(from);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* `info` describes what it can and says why the rest cannot be; `generate` fails. */
static void check_program(const struct bad_file *f)
{
    char text[8192];
    int status = run("info", "", text);
    bool refused = status == 1 || (status == 0 && strstr(text, "cannot run it: ") != NULL);

    if (f->when == BAD_WHEN_HEADER && (!refused || strstr(text, f->says) == NULL))
        complain(f, "info", text);
    if (f->when == BAD_WHEN_LOADING && (refused || status != 0))
        complain(f, "info, which reads no weights,", text);
    status = run("generate", "--raw --prompt hello --max-tokens 1 --threads 1", text);
    if (status != 1 || strstr(text, f->says) == NULL)
        complain(f, "generate", text);
}

/* --- */

static void test_the_files_are_good_without_the_change(void **state)
{
    (void)state;
    static const enum quant_type types[] = {
        QUANT_TYPE_F32,  QUANT_TYPE_F16,  QUANT_TYPE_BF16,   QUANT_TYPE_Q4_0,  QUANT_TYPE_Q4_1,
        QUANT_TYPE_Q5_0, QUANT_TYPE_Q5_1, QUANT_TYPE_IQ4_NL, QUANT_TYPE_MXFP4, QUANT_TYPE_Q8_0,
    };
    for (size_t i = 0; i < 2 * sizeof types / sizeof types[0]; i++) {
        const struct bad_file f = {.matrices = types[i / 2], .spm = i % 2 == 1};
        struct errbuf eb = {{0}};
        char text[8192];
        write_file(&f);
        if (offer(&eb) != ERR_OK || load(&eb) != ERR_OK)
            fail_msg("%s", eb.text);
        assert_int_equal(run("info", "", text), 0);
        assert_non_null(strstr(text, "can run it"));
        assert_int_equal(run("generate", "--raw --prompt ab --max-tokens 1 --threads 1", text), 0);
    }
    for (size_t i = 0; i < bad_file_count; i++) {
        bool covered = false;
        for (size_t k = 0; k < sizeof types / sizeof types[0]; k++)
            covered = covered || types[k] == bad_files[i].matrices;
        assert_true(covered);
    }
}

static void test_each_is_refused_with_place_and_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < bad_file_count; i++) {
        const struct bad_file *f = &bad_files[i];
        struct errbuf eb = {{0}};
        write_file(f);
        enum err e = offer(&eb);
        if (f->when == BAD_WHEN_HEADER)
            check_error(f, "the catalogue", e, &eb);
        else if (e != ERR_OK)
            complain(f, "the catalogue, which reads no weights,", eb.text);
        eb.text[0] = 0;
        e = load(&eb);
        check_error(f, "loading", e, &eb);
        check_program(f);
    }
    assert_int_equal(failed, 0);
}

static void test_there_are_a_hundred_kinds(void **state)
{
    (void)state;
    static const char *const names[BAD_PART_COUNT] = {"header", "keys", "tensor table", "data",
                                                      "tokenizer"};
    size_t counts[BAD_PART_COUNT] = {0};
    for (size_t i = 0; i < bad_file_count; i++) {
        counts[bad_files[i].part]++;
        assert_true(strlen(bad_files[i].says) > 0);
        for (size_t k = 0; k < i; k++)
            if (bad_files[k].part == bad_files[i].part &&
                strcmp(bad_files[k].what, bad_files[i].what) == 0)
                fail_msg("'%s' is there twice", bad_files[i].what);
    }
    for (size_t i = 0; i < BAD_PART_COUNT; i++) {
        print_message("%s: %zu kinds\n", names[i], counts[i]);
        assert_true(counts[i] > 0);
    }
    print_message("in all: %zu kinds of bad files\n", bad_file_count);
    assert_true(bad_file_count >= KINDS_MIN);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_are_a_hundred_kinds),
        cmocka_unit_test(test_the_files_are_good_without_the_change),
        cmocka_unit_test(test_each_is_refused_with_place_and_reason),
    };
    if (argc != 2) {
        fputs("usage: test_worker_bad_files CLOISTER-ENGINE\n", stderr);
        return 2;
    }
    program = argv[1];
    log_open("test", LOG_LEVEL_ERROR);
    CHECK(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/model.gguf", folder);
    int result = cmocka_run_group_tests_name("bad files", tests, NULL, NULL);
    char line[128];
    (void)snprintf(line, sizeof line, "rm -r '%s'", folder);
    CHECK(system(line) == 0);
    return result;
}
