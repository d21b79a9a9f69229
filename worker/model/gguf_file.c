/*
 * gguf_file.c - files on disk: their headers in private memory, their tensors read as they are
 * asked for, and the parts of a split model put together.
 */
#include "worker/model/gguf.h"

#include "common/check.h"
#include "common/crypto.h"
#include "worker/model/gguf_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GGUF_HEADER_CHUNK (1u << 20)
#define GGUF_READ_CHUNK   (1u << 30)

static enum err file_read(const struct gguf *g, uint64_t at, uint8_t *to, uint64_t size,
                          struct errbuf *eb)
{
    while (size > 0) {
        uint64_t want = size < GGUF_READ_CHUNK ? size : GGUF_READ_CHUNK;
        ssize_t n = pread(g->fd, to, (size_t)want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(eb, errno, "%s: reading at byte %" PRIu64, g->path, at);
        if (n == 0)
            return err_set(eb, ERR_CORRUPT, "%s: ended at byte %" PRIu64 " while it was read",
                           g->path, at);
        at += (uint64_t)n;
        to += n;
        size -= (uint64_t)n;
    }
    return ERR_OK;
}

/* Reads ever more of the file until the header is all there: its length is known only by
 * parsing it. */
static enum err header_open(struct gguf *g, struct errbuf *eb)
{
    uint64_t want = GGUF_HEADER_CHUNK;
    for (;;) {
        if (want > g->file_size)
            want = g->file_size;
        uint8_t *bytes = malloc(want > 0 ? (size_t)want : 1);
        if (bytes == NULL)
            return err_set(eb, ERR_NO_MEMORY, "%s: no memory for a header of %" PRIu64 " bytes",
                           g->path, want);
        if (g->available > 0)
            memcpy(bytes, g->owned, (size_t)g->available);
        free(g->owned);
        g->owned = bytes;
        g->bytes = bytes;
        enum err e = file_read(g, g->available, bytes + g->available, want - g->available, eb);
        if (e != ERR_OK)
            return e;
        g->available = want;
        bool ran_short = false;
        e = gguf_parse(g, &ran_short, eb);
        if (e == ERR_OK || !ran_short)
            return e != ERR_OK ? err_prefix(eb, e, "%s", g->path) : ERR_OK;
        gguf_parse_free(g);
        if (want >= GGUF_HEADER_MAX)
            return err_set(eb, ERR_TOO_LARGE, "%s: the header is longer than %u bytes", g->path,
                           GGUF_HEADER_MAX);
        want *= 2;
    }
}

static enum err one_open(struct gguf **ret_gguf, const char *path, struct errbuf *eb)
{
    enum err e;
    struct gguf *g = calloc(1, sizeof *g);

    if (g == NULL || (g->path = strdup(path)) == NULL) {
        free(g);
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory", path);
    }
    /* O_NONBLOCK: a FIFO in a model's place must not hang the open. */
    g->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (g->fd < 0 || fstat(g->fd, &g->opened) != 0)
        e = err_set_errno(eb, errno, "%s", path);
    else if (!S_ISREG(g->opened.st_mode))
        e = err_set(eb, ERR_INVALID, "%s: not a regular file", path);
    else {
        g->file_size = (uint64_t)g->opened.st_size;
        e = header_open(g, eb);
    }
    if (e != ERR_OK) {
        gguf_close(g);
        return e;
    }
    *ret_gguf = g;
    return ERR_OK;
}

/* --- split models --- */

struct split {
    uint32_t no; /* from 0 */
    uint32_t count;
    bool has_tensors;
    uint32_t tensors; /* of all files together */
};

/* What a file's keys say; one that says nothing is the only one. */
static enum err split_read(const struct gguf *g, struct split *ret, struct errbuf *eb)
{
    struct split s = {.count = 1};
    enum err e = ERR_OK;

    if (gguf_has(g, "split.count"))
        e = gguf_get_u32(g, "split.count", &s.count, eb);
    if (e == ERR_OK && s.count <= 1) {
        *ret = (struct split){.count = 1};
        return ERR_OK;
    }
    if (e == ERR_OK && s.count > GGUF_FILES_MAX)
        e = err_set(eb, ERR_TOO_LARGE,
                    "key 'split.count': %" PRIu32 " parts are over the bound of %u", s.count,
                    GGUF_FILES_MAX);
    if (e == ERR_OK)
        e = gguf_get_u32(g, "split.no", &s.no, eb);
    if (e == ERR_OK && s.no >= s.count)
        e = err_set(eb, ERR_CORRUPT,
                    "key 'split.no' is %" PRIu32 ", but there are %" PRIu32
                    " parts, counted from 0",
                    s.no, s.count);
    s.has_tensors = gguf_has(g, "split.tensors.count");
    if (e == ERR_OK && s.has_tensors)
        e = gguf_get_u32(g, "split.tensors.count", &s.tensors, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "%s", g->path);
    *ret = s;
    return ERR_OK;
}

/* The names of all parts from that of one. */
static enum err split_paths(struct gguf_files *ret, const char *path, const struct split *s,
                            struct errbuf *eb)
{
    char tail[64];
    struct gguf_files files = {.count = s->count};
    int n =
        snprintf(tail, sizeof tail, "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", s->no + 1, s->count);
    size_t tail_size = (size_t)n;
    size_t size = strlen(path);

    if (size < tail_size || strcmp(path + size - tail_size, tail) != 0)
        return err_set(eb, ERR_INVALID,
                       "%s: part %" PRIu32 " of %" PRIu32 " by its keys, but its name does not end "
                       "in %s: the other parts cannot be found",
                       path, s->no + 1, s->count, tail);
    files.paths = calloc(s->count, sizeof *files.paths);
    for (uint32_t i = 0; files.paths != NULL && i < s->count; i++) {
        files.paths[i] = malloc(size + 1);
        if (files.paths[i] == NULL)
            break;
        memcpy(files.paths[i], path, size - tail_size);
        (void)snprintf(files.paths[i] + size - tail_size, tail_size + 1,
                       "-%05" PRIu32 "-of-%05" PRIu32 ".gguf", i + 1, s->count);
    }
    if (files.paths == NULL || files.paths[s->count - 1] == NULL) {
        gguf_files_fini(&files);
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory for the names of its parts", path);
    }
    *ret = files;
    return ERR_OK;
}

void gguf_files_fini(struct gguf_files *files)
{
    for (uint32_t i = 0; files->paths != NULL && i < files->count; i++)
        free(files->paths[i]);
    free(files->paths);
    *files = (struct gguf_files){0};
}

enum err gguf_files_find(struct gguf_files *ret_files, const char *path, struct errbuf *eb)
{
    struct gguf *g = NULL;
    struct split s = {.count = 1};
    struct gguf_files files = {.count = 1};
    enum err e = ERR_OK;

    if (one_open(&g, path, NULL) == ERR_OK)
        e = split_read(g, &s, eb);
    gguf_close(g);
    if (e == ERR_OK && s.count > 1)
        return split_paths(ret_files, path, &s, eb);
    if (e != ERR_OK)
        return e;
    files.paths = calloc(1, sizeof *files.paths);
    if (files.paths == NULL || (files.paths[0] = strdup(path)) == NULL) {
        gguf_files_fini(&files);
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory", path);
    }
    *ret_files = files;
    return ERR_OK;
}

/* What must hold of part `no`, given what the part that was opened first said. */
static enum err split_check(const struct gguf *g, const struct split *first, uint32_t no,
                            struct errbuf *eb)
{
    struct split s;
    char name[80];
    enum err e = split_read(g, &s, eb);

    if (e != ERR_OK)
        return e;
    if (s.count != first->count || s.no != no)
        return err_set(eb, ERR_CORRUPT,
                       "%s: part %" PRIu32 " of %" PRIu32 " by its keys, and %" PRIu32
                       " of %" PRIu32 " by its name",
                       g->path, s.no + 1, s.count, no + 1, first->count);
    if (s.has_tensors && first->has_tensors && s.tensors != first->tensors)
        return err_set(eb, ERR_CORRUPT,
                       "%s: key 'split.tensors.count' is %" PRIu32 ", and %" PRIu32
                       " in another part",
                       g->path, s.tensors, first->tensors);
    /* A key that only a later part has would be lost. */
    for (size_t i = 0; no > 0 && i < g->n_keys; i++) {
        struct gguf_string key = g->keys[i].name;
        if ((key.size > 6 && memcmp(key.bytes, "split.", 6) == 0) ||
            (key.size > 8 && memcmp(key.bytes, "general.", 8) == 0))
            continue;
        gguf_string_print(key, name, sizeof name);
        return err_set(eb, ERR_UNSUPPORTED, "%s: key '%s' is in a part that is not the first",
                       g->path, name);
    }
    return ERR_OK;
}

/* Moves the tensors of the other parts into the first one's table. */
static enum err split_join(struct gguf *g, const struct split *s, struct errbuf *eb)
{
    size_t count = g->n_tensors;

    for (uint32_t i = 0; i < g->n_others; i++)
        count += g->others[i]->n_tensors;
    if (count > GGUF_TENSORS_MAX)
        return err_set(eb, ERR_TOO_LARGE, "%s: %zu tensors in all parts are over the bound of %u",
                       g->path, count, GGUF_TENSORS_MAX);
    if (s->has_tensors && s->tensors != count)
        return err_set(eb, ERR_CORRUPT,
                       "%s: key 'split.tensors.count' is %" PRIu32 ", but the parts have %zu",
                       g->path, s->tensors, count);
    struct gguf_tensor *tensors = realloc(g->tensors, (count > 0 ? count : 1) * sizeof *tensors);
    if (tensors != NULL)
        g->tensors = tensors;
    uint32_t *order = realloc(g->tensor_order, (count > 0 ? count : 1) * sizeof *order);
    if (order != NULL)
        g->tensor_order = order;
    if (tensors == NULL || order == NULL)
        return err_set(eb, ERR_NO_MEMORY, "%s: no memory for %zu tensors", g->path, count);
    for (uint32_t i = 0; i < g->n_others; i++)
        for (size_t k = 0; k < g->others[i]->n_tensors; k++) {
            g->tensors[g->n_tensors] = g->others[i]->tensors[k];
            g->tensors[g->n_tensors++].file = i + 1;
        }
    for (size_t i = 0; i < count; i++)
        g->tensor_order[i] = (uint32_t)i;
    enum err e = gguf_parse_order(g, eb);
    return e != ERR_OK ? err_prefix(eb, e, "%s, and its other parts", g->path) : ERR_OK;
}

/* Takes `g`, one part, and gives back the first, with the others in it. */
static enum err split_open(struct gguf **ret_gguf, struct gguf *g, const struct split *s,
                           struct errbuf *eb)
{
    struct gguf_files files = {0};
    struct gguf **parts = calloc(s->count, sizeof *parts);
    struct gguf *first = NULL;
    enum err e = parts == NULL ? err_set(eb, ERR_NO_MEMORY, "%s: no memory for its parts", g->path)
                               : split_paths(&files, g->path, s, eb);

    if (e != ERR_OK) {
        gguf_close(g);
        goto out;
    }
    parts[s->no] = g;
    for (uint32_t i = 0; e == ERR_OK && i < s->count; i++) {
        if (i != s->no)
            e = one_open(&parts[i], files.paths[i], eb);
        if (e == ERR_NOT_FOUND)
            e = err_prefix(eb, e, "part %" PRIu32 " of %" PRIu32 " is missing", i + 1, s->count);
        if (e == ERR_OK)
            e = split_check(parts[i], s, i, eb);
    }
    if (e == ERR_OK) {
        first = parts[0];
        memmove(parts, parts + 1, (s->count - 1) * sizeof *parts);
        first->others = parts;
        first->n_others = s->count - 1;
        parts = NULL;
        e = split_join(first, s, eb);
    }
    if (e == ERR_OK) {
        *ret_gguf = first;
        first = NULL;
    }
out:
    gguf_close(first);
    for (uint32_t i = 0; parts != NULL && i < s->count; i++)
        gguf_close(parts[i]);
    free(parts);
    gguf_files_fini(&files);
    return e;
}

/* --- opening and reading --- */

static const struct gguf *file_at(const struct gguf *g, uint32_t index)
{
    return index == 0 ? g : g->others[index - 1];
}

enum err gguf_open_file(struct gguf **ret_gguf, const char *path, bool header_only,
                        struct errbuf *eb)
{
    struct gguf *g = NULL;
    struct split s;
    enum err e = one_open(&g, path, eb);

    if (e != ERR_OK)
        return e;
    e = split_read(g, &s, eb);
    if (e != ERR_OK) {
        gguf_close(g);
        return e;
    }
    if (s.count > 1) {
        e = split_open(&g, g, &s, eb);
        if (e != ERR_OK)
            return e;
    }
    for (uint32_t i = 0; header_only && i <= g->n_others; i++) {
        struct gguf *file = i == 0 ? g : g->others[i - 1];
        (void)close(file->fd);
        file->fd = -1;
    }
    *ret_gguf = g;
    return ERR_OK;
}

enum err gguf_tensor_read(const struct gguf *g, const struct gguf_tensor *t, uint64_t at, void *to,
                          size_t size, struct errbuf *eb)
{
    CHECK(at <= t->size && size <= t->size - at);
    if (t->data != NULL) {
        memcpy(to, t->data + at, size);
        return ERR_OK;
    }
    const struct gguf *file = file_at(g, t->file);
    CHECK(file->fd >= 0);
    return file_read(file, t->offset + at, to, size, eb);
}

bool gguf_is_readable(const struct gguf *g)
{
    return g->path == NULL || g->fd >= 0;
}

void gguf_identity(const struct gguf *g, uint8_t ret_identity[GGUF_IDENTITY_BYTES])
{
    memset(ret_identity, 0, GGUF_IDENTITY_BYTES);
    if (g->path == NULL)
        return;
    struct sha256_stream *s = sha256_new();
    for (uint32_t i = 0; i <= g->n_others; i++) {
        const struct stat *st = &file_at(g, i)->opened;
        const uint64_t parts[] = {
            (uint64_t)st->st_dev,          (uint64_t)st->st_ino,
            (uint64_t)st->st_size,         (uint64_t)st->st_mtim.tv_sec,
            (uint64_t)st->st_mtim.tv_nsec, (uint64_t)st->st_ctim.tv_sec,
            (uint64_t)st->st_ctim.tv_nsec,
        };
        sha256_update(s, parts, sizeof parts);
    }
    sha256_finish(s, ret_identity);
}

enum err gguf_check_unchanged(const struct gguf *g, struct errbuf *eb)
{
    for (uint32_t i = 0; i <= g->n_others; i++) {
        const struct gguf *file = file_at(g, i);
        struct stat now;
        if (file->fd < 0)
            continue;
        if (fstat(file->fd, &now) != 0)
            return err_set_errno(eb, errno, "%s", file->path);
        if (now.st_size != file->opened.st_size ||
            now.st_mtim.tv_sec != file->opened.st_mtim.tv_sec ||
            now.st_mtim.tv_nsec != file->opened.st_mtim.tv_nsec)
            return err_set(eb, ERR_CORRUPT, "%s: was written to while it was read", file->path);
    }
    return ERR_OK;
}
