/* Loading: how much memory it takes while it goes on, and what a file that changes meanwhile does.
 */
#include "tests/unit/engine/tiny_model.h"
#include "worker/engine/runtime.h"

#include "common/check.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static enum err load(const char *path, struct runtime **ret_runtime, struct errbuf *eb)
{
    const struct engine_config config = {.threads = 2, .step_tokens = 16, .sequences = 1};
    const struct engine_model_config model = {.path = path, .context_tokens = 64, .slots = 1};
    return runtime_open(ret_runtime, &config, &model, NULL, eb);
}

/* ---- memory ------------------------------------------------------------------------------ */

static uint64_t resident_peak_bytes(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    CHECK(f != NULL);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            break;
    CHECK(fclose(f) == 0);
    return kib * 1024;
}

/* In a process of its own, whose peak is that of this load alone; exits with 0 where the peak is
 * within 1.1 of what the model holds (and a base of 8 MiB for the program itself). */
static void load_and_measure(const char *path)
{
    struct runtime *r = NULL;
    struct errbuf eb = {{0}};
    uint64_t base = resident_peak_bytes();
    if (load(path, &r, &eb) != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        _exit(2);
    }
    uint64_t held = r->weights_bytes + r->kv_bytes + r->scratch_bytes;
    uint64_t peak = resident_peak_bytes() - base;
    printf("file loaded: %.1f MB held, %.1f MB at the peak\n", (double)held / 1e6,
           (double)peak / 1e6);
    fflush(stdout);
    _exit(peak * 10 <= held * 11 + (80u << 20) ? 0 : 1);
}

static void test_a_file_is_never_in_memory_twice(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* what a sanitizer keeps beside everything is not ours to count */
#endif
    static const struct {
        enum quant_type layers, embd;
    } types[] = {{QUANT_TYPE_Q8_0, QUANT_TYPE_Q8_0}, {QUANT_TYPE_Q4_1, QUANT_TYPE_F16}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct tiny_model m = tiny_model_default();
        char path[64];
        int status;
        m.n_layers = 2;
        m.n_embd = 2048;
        m.n_heads = 16;
        m.n_kv_heads = 4;
        m.head_dim = 128;
        m.n_ff = 8192;
        m.layer_type = types[i].layers;
        m.embd_type = types[i].embd;
        tiny_model_write(&m, path);
        fflush(stdout);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0)
            load_and_measure(path);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        (void)unlink(path);
    }
}

/* ---- files that change ------------------------------------------------------------------- */

struct change {
    const char *path;
    bool cut; /* else one byte is written again */
    long after_us;
    off_t size;
};

static void *change_main(void *arg)
{
    const struct change *c = arg;
    const struct timespec wait = {.tv_nsec = c->after_us * 1000};
    (void)nanosleep(&wait, NULL);
    if (c->cut) {
        CHECK(truncate(c->path, c->size / 2) == 0);
    } else {
        int fd = open(c->path, O_WRONLY | O_CLOEXEC);
        CHECK(fd >= 0 && pwrite(fd, "", 1, c->size - 1) == 1 && close(fd) == 0);
    }
    return NULL;
}

/* Whenever it comes: the model, or an error that says what happened; never a signal. */
static void test_a_file_that_changes_is_an_error(void **state)
{
    (void)state;
    unsigned loaded = 0, refused = 0;
    for (long i = 0; i < 40; i++) {
        struct tiny_model m = tiny_model_default();
        struct runtime *r = NULL;
        struct errbuf eb = {{0}};
        struct stat st;
        char path[64];
        pthread_t thread;
        m.n_embd = 256;
        m.n_ff = 1024;
        m.n_layers = 6;
        tiny_model_write(&m, path);
        const struct timespec old[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
        assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
        assert_int_equal(stat(path, &st), 0);
        struct change c = {
            .path = path, .cut = i % 2 == 0, .after_us = i * 100, .size = st.st_size};
        assert_int_equal(pthread_create(&thread, NULL, change_main, &c), 0);
        enum err e = load(path, &r, &eb);
        assert_int_equal(pthread_join(thread, NULL), 0);
        if (e == ERR_OK) {
            runtime_close(r);
            loaded++;
        } else {
            assert_int_equal(e, ERR_CORRUPT);
            assert_non_null(strstr(eb.text, path));
            assert_true(strstr(eb.text, "while it was read") != NULL ||
                        strstr(eb.text, "cut short") != NULL);
            refused++;
        }
        (void)unlink(path);
    }
    print_message("%u loaded before the change, %u refused\n", loaded, refused);
    assert_true(refused > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_file_is_never_in_memory_twice),
        cmocka_unit_test(test_a_file_that_changes_is_an_error),
    };
    return cmocka_run_group_tests_name("loading", tests, NULL, NULL);
}
