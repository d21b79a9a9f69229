/*
 * err.h - the one list of operating errors.
 *
 * An operating error is something a correct program meets: a bad file, a full disk, a peer that
 * went away. It is returned as an `enum err`, its context (place and reason) is written into the
 * caller's `struct errbuf`, and outputs stay untouched. A programmer's error is an assertion
 * (check.h) and ends the process.
 *
 * The numeric values travel in replies (proto/cloister.proto, `Error.code`): they are never
 * renumbered, only added to.
 */
#ifndef CLOISTER_COMMON_ERR_H
#define CLOISTER_COMMON_ERR_H

#include <stdbool.h>
#include <stdarg.h>

enum err {
    ERR_OK = 0,
    ERR_INVALID = 1,      /* input is malformed or out of range; sending it again cannot help */
    ERR_NOT_FOUND = 2,    /* no such job, model, file, key */
    ERR_CONFLICT = 3,     /* the same id with other content, or a move the state does not allow */
    ERR_REFUSED = 4,      /* not allowed: identity, quota, policy */
    ERR_TOO_LARGE = 5,    /* over a bound of limits.h, or cannot ever fit any worker */
    ERR_BUSY = 6,         /* a queue is full; the message says when to try again */
    ERR_UNAVAILABLE = 7,  /* peer not reachable, shutting down, or not ready */
    ERR_TIMEOUT = 8,      /* a deadline passed */
    ERR_CANCELLED = 9,    /* ended by request */
    ERR_IO = 10,          /* a system call failed; the message carries errno's text */
    ERR_NO_SPACE = 11,    /* disk or map full: nothing was written */
    ERR_NO_MEMORY = 12,   /* allocation refused */
    ERR_CORRUPT = 13,     /* stored or received bytes fail their checksum, signature or structure */
    ERR_UNSUPPORTED = 14, /* well-formed, but a type, architecture or version this build lacks */
    ERR_STALE = 15,       /* session epoch or lease epoch is over: say Hello again */
    ERR_INTERNAL = 16,    /* a bug that was caught before it could do harm */
    ERR_FORKED = 17,      /* two copies of one ledger are in use: somebody has to look */
    ERR_LOST = 18,        /* a device is gone: what ran on it will not come back */
};

#define ERRBUF_BYTES 512

/* Caller's storage for one message; always NUL-terminated. Zero-initialise. */
struct errbuf {
    char text[ERRBUF_BYTES];
};

/* Formats into `eb` (which may be NULL) and returns `code`, so that `return err_set(...)` reads
 * well. Truncates silently at ERRBUF_BYTES. Thread: any, `eb` belongs to the caller. */
enum err err_set(struct errbuf *eb, enum err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* As err_set, with ": " and strerror(errno_value) at the end; ENOSPC, EDQUOT and EFBIG give
 * ERR_NO_SPACE, ENOMEM ERR_NO_MEMORY, ENOENT ERR_NOT_FOUND, all else ERR_IO. */
enum err err_set_errno(struct errbuf *eb, int errno_value, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "<text>: " before what is there already: context from an outer caller. Returns `code`. */
enum err err_prefix(struct errbuf *eb, enum err code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Lower-case name without the ERR_ prefix ("not_found"); "unknown" outside the list. */
const char *err_name(enum err code);

/* True where the same request may succeed later without being changed. */
bool err_retryable(enum err code);

#endif
