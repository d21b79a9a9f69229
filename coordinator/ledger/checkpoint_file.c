#include "coordinator/ledger/checkpoint_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096

enum err checkpoint_file_read(const char *path, char ret_text[NOTE_TEXT_BYTES_MAX],
                              struct errbuf *eb)
{
    char text[NOTE_TEXT_BYTES_MAX];
    size_t size = 0;
    ssize_t got;

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(eb, errno, "checkpoint file %s", path);
    do {
        got = read(fd, text + size, sizeof text - size);
        if (got > 0)
            size += (size_t)got;
    } while ((got > 0 && size < sizeof text) || (got < 0 && errno == EINTR));
    int e = errno;
    close(fd);
    if (got < 0)
        return err_set_errno(eb, e, "checkpoint file %s", path);
    if (size >= sizeof text || memchr(text, '\0', size) != NULL)
        return err_set(eb, ERR_CORRUPT, "checkpoint file %s: not a checkpoint", path);
    text[size] = '\0';
    memcpy(ret_text, text, size + 1);
    return ERR_OK;
}

static enum err write_synced(const char *path, const char *text, struct errbuf *eb)
{
    size_t size = strlen(text), done = 0;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_set_errno(eb, errno, "checkpoint file %s", path);
    int e = 0;
    while (done < size && e == 0) {
        ssize_t n = write(fd, text + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            e = errno;
    }
    if (e == 0 && fsync(fd) != 0)
        e = errno;
    if (close(fd) != 0 && e == 0)
        e = errno;
    if (e != 0) {
        unlink(path);
        return err_set_errno(eb, e, "checkpoint file %s", path);
    }
    return ERR_OK;
}

enum err checkpoint_file_replace(const char *path, const char *text, struct errbuf *eb)
{
    char fresh[PATH_BYTES], directory[PATH_BYTES];

    int n = snprintf(fresh, sizeof fresh, "%s.new", path);
    if (n < 0 || (size_t)n >= sizeof fresh)
        return err_set(eb, ERR_INVALID, "checkpoint file: the path is too long");
    (void)snprintf(directory, sizeof directory, "%s", path);
    enum err e = write_synced(fresh, text, eb);
    if (e != ERR_OK)
        return e;
    if (rename(fresh, path) != 0) {
        int error = errno;
        unlink(fresh);
        return err_set_errno(eb, error, "checkpoint file %s", path);
    }
    int fd = open(dirname(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(eb, errno, "directory of checkpoint file %s", path);
    int rc = fsync(fd), error = errno;
    close(fd);
    return rc == 0 ? ERR_OK : err_set_errno(eb, error, "directory of checkpoint file %s", path);
}
