/*
 * Runs each file of a folder once through the fuzz target it is linked with:
 *
 *   replay_NAME FOLDER
 *
 * What fuzzing found worth keeping is so a test of every build, with any compiler and no libFuzzer.
 * A file that ends the process is named.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of a sanitizer, where there is one: what it calls before it ends the process. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static char current[4096];

static void name_current(void)
{
    static const char text[] = "replay: ended by ";
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0 ||
        write(STDERR_FILENO, current, strlen(current)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(1);
}

static void on_signal(int signal)
{
    name_current();
    _exit(128 + signal);
}

static int is_input(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int fail(const char *what)
{
    fprintf(stderr, "replay: %s: %s\n", current, what);
    return 1;
}

/* In memory of its own size, so that a byte read behind its end is one outside. */
static int replay(void)
{
    struct stat st;
    FILE *in = fopen(current, "rb");
    if (in == NULL)
        return fail(strerror(errno));
    if (fstat(fileno(in), &st) != 0 || !S_ISREG(st.st_mode)) {
        fclose(in);
        return fail("not a file");
    }
    size_t size = (size_t)st.st_size;
    uint8_t *data = malloc(size > 0 ? size : 1);
    bool whole = data != NULL && fread(data, 1, size, in) == size;
    fclose(in);
    if (whole)
        LLVMFuzzerTestOneInput(data, size);
    free(data);
    return whole ? 0 : fail("cannot be read");
}

int main(int argc, char **argv)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    struct dirent **entries = NULL;
    int failed = 0;

    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    signal(SIGABRT, on_signal);
    if (__sanitizer_set_death_callback != NULL)
        __sanitizer_set_death_callback(name_current);
    else
        for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
            signal(signals[i], on_signal);

    snprintf(current, sizeof current, "%s", argv[1]);
    int n = scandir(argv[1], &entries, is_input, alphasort);
    if (n < 0)
        return fail(strerror(errno));
    if (n == 0)
        failed = fail("no files in it");
    for (int i = 0; i < n; i++) {
        snprintf(current, sizeof current, "%s/%s", argv[1], entries[i]->d_name);
        failed |= replay();
        free(entries[i]);
    }
    free(entries);
    printf("%d files\n", n);
    return failed;
}
