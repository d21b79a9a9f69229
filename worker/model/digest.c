/* The digest under which records know a model's weights. */
#include "worker/model/hparams.h"

#include "common/crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIGEST_CHUNK (1u << 20)

static enum err digest_add_file(struct sha256_stream *s, const char *path, uint8_t *chunk,
                                struct errbuf *eb)
{
    enum err e = ERR_OK;
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, &st) != 0) {
        e = err_set_errno(eb, errno, "%s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        e = err_set(eb, ERR_INVALID, "%s: not a regular file", path);
        goto out;
    }
    for (;;) {
        ssize_t n = read(fd, chunk, DIGEST_CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            e = err_set_errno(eb, errno, "%s: reading", path);
            goto out;
        }
        if (n == 0)
            break;
        sha256_update(s, chunk, (size_t)n);
    }
out:
    if (fd >= 0)
        (void)close(fd);
    return e;
}

enum err model_file_digest(const char *path, uint8_t ret_digest[32], struct errbuf *eb)
{
    struct gguf_files files = {0};
    uint8_t *chunk = malloc(DIGEST_CHUNK);
    struct sha256_stream *s = sha256_new();
    enum err e = chunk == NULL ? err_set(eb, ERR_NO_MEMORY, "%s: no memory for its digest", path)
                               : gguf_files_find(&files, path, eb);

    for (uint32_t i = 0; e == ERR_OK && i < files.count; i++)
        e = digest_add_file(s, files.paths[i], chunk, eb);
    if (e == ERR_OK)
        sha256_finish(s, ret_digest);
    else
        sha256_free(s);
    gguf_files_fini(&files);
    free(chunk);
    return e;
}
