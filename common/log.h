/*
 * log.h - one line an event, to stderr, for people and journald.
 *
 * "2026-01-31T12:00:00.123Z info coordinator: listening on tcp://127.0.0.1:7420". With
 * JOURNAL_STREAM (systemd sets it) the time and level become journald's own "<6>" prefix. User text
 * (prompts, completions) never goes into a log line.
 *
 * Thread: log_open once before threads start; log_write from any thread.
 */
#ifndef CLOISTER_COMMON_LOG_H
#define CLOISTER_COMMON_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `program` is kept, not copied: pass a literal. Chooses journald's form where JOURNAL_STREAM is
 * set and stderr is not a terminal. */
void log_open(const char *program, enum log_level level);

/* "error", "warn", "info", "debug", in the order of the levels; ends with NULL. */
extern const char *const log_level_names[];

void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
