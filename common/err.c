#include "common/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void errbuf_vformat(struct errbuf *eb, const char *fmt, va_list ap)
{
    if (eb != NULL)
        (void)vsnprintf(eb->text, sizeof eb->text, fmt, ap);
}

enum err err_set(struct errbuf *eb, enum err code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    errbuf_vformat(eb, fmt, ap);
    va_end(ap);
    return code;
}

enum err err_set_errno(struct errbuf *eb, int errno_value, const char *fmt, ...)
{
    enum err code = ERR_IO;
    va_list ap;

    switch (errno_value) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        code = ERR_NO_SPACE;
        break;
    case ENOMEM:
        code = ERR_NO_MEMORY;
        break;
    case ENOENT:
        code = ERR_NOT_FOUND;
        break;
    default:
        break;
    }
    va_start(ap, fmt);
    errbuf_vformat(eb, fmt, ap);
    va_end(ap);
    if (eb != NULL) {
        size_t used = strlen(eb->text);
        (void)snprintf(eb->text + used, sizeof eb->text - used, ": %s", strerror(errno_value));
    }
    return code;
}

enum err err_prefix(struct errbuf *eb, enum err code, const char *fmt, ...)
{
    struct errbuf outer = {{0}};
    va_list ap;

    if (eb == NULL)
        return code;
    va_start(ap, fmt);
    errbuf_vformat(&outer, fmt, ap);
    va_end(ap);
    size_t used = strlen(outer.text);
    (void)snprintf(outer.text + used, sizeof outer.text - used, ": %.*s",
                   (int)(sizeof eb->text - 1), eb->text);
    *eb = outer;
    return code;
}

const char *err_name(enum err code)
{
    switch (code) {
    case ERR_OK:
        return "ok";
    case ERR_INVALID:
        return "invalid";
    case ERR_NOT_FOUND:
        return "not_found";
    case ERR_CONFLICT:
        return "conflict";
    case ERR_REFUSED:
        return "refused";
    case ERR_TOO_LARGE:
        return "too_large";
    case ERR_BUSY:
        return "busy";
    case ERR_UNAVAILABLE:
        return "unavailable";
    case ERR_TIMEOUT:
        return "timeout";
    case ERR_CANCELLED:
        return "cancelled";
    case ERR_IO:
        return "io";
    case ERR_NO_SPACE:
        return "no_space";
    case ERR_NO_MEMORY:
        return "no_memory";
    case ERR_CORRUPT:
        return "corrupt";
    case ERR_UNSUPPORTED:
        return "unsupported";
    case ERR_STALE:
        return "stale";
    case ERR_INTERNAL:
        return "internal";
    case ERR_FORKED:
        return "forked";
    case ERR_LOST:
        return "lost";
    }
    return "unknown";
}

bool err_retryable(enum err code)
{
    return code == ERR_BUSY || code == ERR_UNAVAILABLE || code == ERR_TIMEOUT ||
           code == ERR_NO_SPACE || code == ERR_STALE;
}
