#include "common/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const char *const log_level_names[] = {"error", "warn", "info", "debug", NULL};
static const char *log_program = "cloister";
static enum log_level log_level_max = LOG_LEVEL_INFO;
static bool log_journal;

void log_open(const char *program, enum log_level level)
{
    log_program = program;
    log_level_max = level;
    log_journal = getenv("JOURNAL_STREAM") != NULL && !isatty(STDERR_FILENO);
}

/* A peer's bytes may reach a message: control characters would let it forge lines. */
static void line_sanitize(char *line)
{
    for (char *p = line; *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char text[1024];
    char line[1200];
    va_list ap;
    int n;

    if (level > log_level_max)
        return;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    line_sanitize(text);
    if (log_journal) {
        static const int severity[] = {3, 4, 6, 7};
        n = snprintf(line, sizeof line, "<%d>%s\n", severity[level], text);
    } else {
        struct timespec now;
        struct tm utc;
        char stamp[32];
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
        n = snprintf(line, sizeof line, "%s.%03ldZ %-5s %s: %s\n", stamp, now.tv_nsec / 1000000,
                     log_level_names[level], log_program, text);
    }
    /* One write a line, so that lines of several threads never mix. */
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        return;
}
