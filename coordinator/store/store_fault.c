#include "coordinator/store/store_fault.h"

#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_BYTES 4608u /* a path and a sentence */

/* Written when a store opens and closes, read by the handler: `end` 0 while it changes. */
static atomic_uintptr_t map_begin, map_end;
static char map_text[TEXT_BYTES];
static struct sigaction before[2]; /* SIGBUS, SIGSEGV */

static size_t number_format(uintptr_t n, char *ret_text)
{
    char digits[20];
    size_t size = 0, at = 0;
    do
        digits[size++] = (char)('0' + n % 10);
    while ((n /= 10) != 0);
    while (size > 0)
        ret_text[at++] = digits[--size];
    return at;
}

/* Only what a signal handler may do: copying and write(2). */
static void fault_say(uintptr_t offset)
{
    static const char end[] = ": the disk failed, or the file was cut while it was open; ending\n";
    char line[TEXT_BYTES + 20 + sizeof end];
    size_t size = strlen(map_text);
    memcpy(line, map_text, size);
    size += number_format(offset, line + size);
    memcpy(line + size, end, sizeof end - 1);
    size += sizeof end - 1;
    if (write(STDERR_FILENO, line, size) < 0)
        return;
}

static void fault_handle(int number, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr, begin = atomic_load(&map_begin);
    (void)context;
    if (at >= begin && at < atomic_load(&map_end))
        fault_say(at - begin);
    /* The instruction is tried again when we return, and meets what was there before. */
    (void)sigaction(number, &before[number == SIGSEGV], NULL);
}

void store_fault_install(void)
{
    struct sigaction action = {.sa_sigaction = fault_handle, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, &before[0]);
    (void)sigaction(SIGSEGV, &action, &before[1]);
}

/* LMDB does not say where its map is. */
static void map_find(const char *path)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[TEXT_BYTES];
    if (maps == NULL)
        return;
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t begin, end;
        const char *name = strchr(line, '/');
        line[strcspn(line, "\n")] = '\0';
        if (name == NULL || strcmp(name, path) != 0 ||
            sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) != 2)
            continue;
        atomic_store(&map_begin, begin);
        atomic_store(&map_end, end);
        break;
    }
    fclose(maps);
}

void store_fault_watch(const char *place, const char *file)
{
    bool by_journal = getenv("JOURNAL_STREAM") != NULL && !isatty(STDERR_FILENO);
    char *path = realpath(file, NULL);
    atomic_store(&map_end, 0);
    (void)snprintf(map_text, sizeof map_text, "%sstore %s: data.mdb cannot be read at byte ",
                   by_journal ? "<3>" : "error: ", place);
    if (path != NULL)
        map_find(path);
    free(path);
}

void store_fault_unwatch(void)
{
    atomic_store(&map_end, 0);
}
