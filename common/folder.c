#include "common/folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum err folder_make_one(const char *path, struct errbuf *eb)
{
    struct stat st;
    if (mkdir(path, 0700) == 0)
        return ERR_OK;
    int why = errno;
    if (why == EEXIST && stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
        why = ENOTDIR;
    /* A folder that is there may say otherwise on a read-only file system, or above our reach. */
    if (why == EEXIST || (stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return ERR_OK;
    return err_set_errno(eb, why, "cannot make folder %s", path);
}

enum err folder_make_above(const char *path, struct errbuf *eb)
{
    char part[PATH_MAX];
    if (strlen(path) >= sizeof part)
        return err_set(eb, ERR_TOO_LARGE, "a path is longer than %d bytes", PATH_MAX - 1);
    strcpy(part, path);
    for (char *p = strchr(part + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
        *p = '\0';
        enum err err = folder_make_one(part, eb);
        if (err != ERR_OK)
            return err;
        *p = '/';
    }
    return ERR_OK;
}

enum err folder_make(const char *path, struct errbuf *eb)
{
    enum err err = folder_make_above(path, eb);
    return err == ERR_OK ? folder_make_one(path, eb) : err;
}

static const char *absolute(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] == '/' ? value : NULL;
}

enum err folder_default(const struct folder_default *d, char *ret_path, size_t size,
                        struct errbuf *eb)
{
    const char *by_systemd = absolute("STATE_DIRECTORY");
    const char *xdg = absolute(d->variable), *home = absolute("HOME");
    int n;

    if (by_systemd != NULL)
        n = snprintf(ret_path, size, "%s", by_systemd);
    else if (geteuid() == 0)
        n = snprintf(ret_path, size, "%s", d->of_root);
    else if (xdg != NULL)
        n = snprintf(ret_path, size, "%s/%s", xdg, d->name);
    else if (home != NULL)
        n = snprintf(ret_path, size, "%s/%s/%s", home, d->in_home, d->name);
    else
        return err_set(eb, ERR_INVALID, "no folder for its files: set %s, or HOME", d->key);
    if (n < 0 || (size_t)n >= size)
        return err_set(eb, ERR_TOO_LARGE, "the path of %s is too long", d->key);
    return ERR_OK;
}
