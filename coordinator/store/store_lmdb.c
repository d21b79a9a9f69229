/*
 * The store on disk: LMDB 0.9, one named database a table.
 *
 * Of LMDB's flags only MDB_NOTLS is used: a reader's slot belongs to its transaction and not to
 * its thread, so that a thread may hold several. Nothing that weakens a commit (NOSYNC,
 * NOMETASYNC, WRITEMAP, MAPASYNC) is ever set.
 */
#include "common/check.h"
#include "common/limits.h"
#include "coordinator/store/store_backend.h"
#include "coordinator/store/store_fault.h"
#include "coordinator/store/store_lmdb.h"
#include "coordinator/store/store_pages.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAP_BYTES_DEFAULT ((uint64_t)64 << 30)
#define PATH_BYTES        4096

struct store_lmdb {
    struct store base;
    MDB_env *env;
    MDB_dbi dbi[STORE_TABLE_COUNT];
    uint64_t map_bytes;
    int lock_fd;
    char *path; /* short enough for "/data.mdb" behind it to fit PATH_BYTES */
};

struct lmdb_txn {
    struct store_txn base;
    MDB_txn *mdb;
};

static struct store_lmdb *lmdb_of(struct store *s)
{
    return (struct store_lmdb *)(void *)s;
}

static struct lmdb_txn *txn_of(struct store_txn *txn)
{
    return (struct lmdb_txn *)(void *)txn;
}

static MDB_dbi dbi_of(struct store_txn *txn, enum store_table table)
{
    return lmdb_of(txn->store)->dbi[table];
}

static enum err error_from(const struct store_lmdb *s, int rc, const char *what, struct errbuf *eb)
{
    switch (rc) {
    case MDB_SUCCESS:
        return ERR_OK;
    case MDB_MAP_FULL:
        return err_set(eb, ERR_NO_SPACE,
                       "store %s: %s: its map of %llu bytes is full: give the store a larger map",
                       s->path, what, (unsigned long long)s->map_bytes);
    case MDB_TXN_FULL:
        return err_set(eb, ERR_TOO_LARGE, "store %s: %s: too many pages in one transaction",
                       s->path, what);
    case MDB_READERS_FULL:
        return err_set(eb, ERR_BUSY, "store %s: %s: too many readers at once", s->path, what);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return err_set(eb, ERR_CORRUPT, "store %s: %s: %s", s->path, what, mdb_strerror(rc));
    case MDB_PANIC:
        return err_set(eb, ERR_IO,
                       "store %s: %s: its meta page could not be written; it must be "
                       "opened again",
                       s->path, what);
    default:
        if (rc > 0)
            return err_set_errno(eb, rc, "store %s: %s", s->path, what);
        return err_set(eb, ERR_INTERNAL, "store %s: %s: %s", s->path, what, mdb_strerror(rc));
    }
}

/* ---- transactions ---- */

static enum err lmdb_begin(struct store *base, bool write, struct store_txn **ret_txn,
                           struct errbuf *eb)
{
    struct store_lmdb *s = lmdb_of(base);
    struct lmdb_txn *txn = calloc(1, sizeof *txn);
    if (txn == NULL)
        return err_set(eb, ERR_NO_MEMORY, "store %s: out of memory", s->path);
    int rc = mdb_txn_begin(s->env, NULL, write ? 0 : MDB_RDONLY, &txn->mdb);
    if (rc != MDB_SUCCESS) {
        free(txn);
        if (rc == MDB_PANIC)
            store_break(base);
        return error_from(s, rc, "begin", eb);
    }
    txn->base.store = base;
    txn->base.write = write;
    *ret_txn = &txn->base;
    return ERR_OK;
}

/* LMDB says so only when the next transaction is begun. */
static bool meta_write_failed(struct store_lmdb *s)
{
    MDB_txn *probe = NULL;
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &probe);
    if (rc == MDB_SUCCESS)
        mdb_txn_abort(probe);
    return rc == MDB_PANIC;
}

static bool disk_is_full(const struct store_lmdb *s)
{
    struct statvfs fs;
    if (statvfs(s->path, &fs) != 0)
        return false;
    return (geteuid() == 0 ? fs.f_bfree : fs.f_bavail) * fs.f_frsize < (64u << 10);
}

/*
 * What a failed commit leaves behind depends on how far it came. Data pages go first, to places
 * that no committed state uses; then they are synced; the meta page that makes them count is last.
 * Out of space in the first step is therefore harmless: the old state stands. LMDB reports a write
 * cut short by a full disk as EIO; that is told from a failing disk by looking at the free space.
 * Anything else (a failed sync, a failed meta page) is not safe to go on from: a kernel that failed
 * a sync may have dropped the pages and say "done" to the next one.
 */
static enum err commit_failed(struct store_lmdb *s, int rc, struct errbuf *eb)
{
    if (meta_write_failed(s)) {
        store_break(&s->base);
        return err_set(
            eb, ERR_IO,
            "store %s: commit: writing its meta page failed (%s); it must be opened again", s->path,
            mdb_strerror(rc));
    }
    if (rc == ENOSPC || rc == EDQUOT || rc == EFBIG || rc == MDB_MAP_FULL || rc == ENOMEM ||
        rc == MDB_TXN_FULL)
        return error_from(s, rc, "commit", eb);
    if (rc == EIO && disk_is_full(s))
        return error_from(s, ENOSPC, "commit", eb);
    store_break(&s->base);
    return err_set(eb, rc > 0 ? ERR_IO : ERR_CORRUPT,
                   "store %s: commit: %s; it must be opened again", s->path, mdb_strerror(rc));
}

static enum err lmdb_commit(struct store_txn *base, struct errbuf *eb)
{
    struct lmdb_txn *txn = txn_of(base);
    struct store_lmdb *s = lmdb_of(base->store);
    bool write = base->write;
    int rc = mdb_txn_commit(txn->mdb);

    free(txn);
    if (rc == MDB_SUCCESS)
        return ERR_OK;
    return write ? commit_failed(s, rc, eb) : error_from(s, rc, "end of a reader", eb);
}

static void lmdb_abort(struct store_txn *base)
{
    struct lmdb_txn *txn = txn_of(base);
    mdb_txn_abort(txn->mdb);
    free(txn);
}

/* ---- values ---- */

static MDB_val mdb_val_of(struct store_value v)
{
    /* LMDB takes no const but writes to neither keys nor values that it is given. */
    return (MDB_val){.mv_size = v.size, .mv_data = (void *)(uintptr_t)v.data};
}

static struct store_value value_of(MDB_val v)
{
    return (struct store_value){v.mv_data, v.mv_size};
}

static enum err lmdb_get(struct store_txn *txn, enum store_table table, struct store_value key,
                         struct store_value *ret_sealed, struct errbuf *eb)
{
    MDB_val k = mdb_val_of(key), v;
    int rc = mdb_get(txn_of(txn)->mdb, dbi_of(txn, table), &k, &v);
    if (rc == MDB_NOTFOUND)
        return ERR_NOT_FOUND;
    if (rc != MDB_SUCCESS)
        return error_from(lmdb_of(txn->store), rc, "get", eb);
    *ret_sealed = value_of(v);
    return ERR_OK;
}

static enum err lmdb_put(struct store_txn *txn, enum store_table table, struct store_value key,
                         const uint8_t seal[STORE_SEAL_BYTES], struct store_value value,
                         bool append, struct errbuf *eb)
{
    MDB_val k = mdb_val_of(key), v = {.mv_size = STORE_SEAL_BYTES + value.size};
    int rc = mdb_put(txn_of(txn)->mdb, dbi_of(txn, table), &k, &v,
                     MDB_RESERVE | (append ? MDB_APPEND : 0u));
    if (rc == MDB_KEYEXIST)
        return err_set(eb, ERR_CONFLICT, "store %s: table %s: append of a key that is not the last",
                       txn->store->place, store_table_name(table));
    if (rc != MDB_SUCCESS)
        return error_from(lmdb_of(txn->store), rc, "put", eb);
    memcpy(v.mv_data, seal, STORE_SEAL_BYTES);
    if (value.size > 0)
        memcpy((uint8_t *)v.mv_data + STORE_SEAL_BYTES, value.data, value.size);
    return ERR_OK;
}

static enum err lmdb_remove(struct store_txn *txn, enum store_table table, struct store_value key,
                            struct errbuf *eb)
{
    MDB_val k = mdb_val_of(key);
    int rc = mdb_del(txn_of(txn)->mdb, dbi_of(txn, table), &k, NULL);
    if (rc == MDB_NOTFOUND)
        return ERR_NOT_FOUND;
    return error_from(lmdb_of(txn->store), rc, "delete", eb);
}

static enum err lmdb_scan(struct store_txn *txn, enum store_table table, struct store_value from,
                          store_visit_sealed_fn *visit, void *arg, struct errbuf *eb)
{
    MDB_cursor *cursor = NULL;
    MDB_val k = mdb_val_of(from), v;
    int rc = mdb_cursor_open(txn_of(txn)->mdb, dbi_of(txn, table), &cursor);
    if (rc == MDB_SUCCESS)
        rc = mdb_cursor_get(cursor, &k, &v, from.size > 0 ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == MDB_SUCCESS && visit(arg, value_of(k), value_of(v)))
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? ERR_OK : error_from(lmdb_of(txn->store), rc, "scan", eb);
}

static enum err lmdb_last_key(struct store_txn *txn, enum store_table table,
                              struct store_value *ret_key, struct errbuf *eb)
{
    MDB_cursor *cursor = NULL;
    MDB_val k, v;
    int rc = mdb_cursor_open(txn_of(txn)->mdb, dbi_of(txn, table), &cursor);
    if (rc == MDB_SUCCESS)
        rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
    if (cursor != NULL)
        mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        return ERR_NOT_FOUND;
    if (rc != MDB_SUCCESS)
        return error_from(lmdb_of(txn->store), rc, "last key", eb);
    *ret_key = value_of(k);
    return ERR_OK;
}

static enum err lmdb_count(struct store_txn *txn, enum store_table table, uint64_t *ret_count,
                           struct errbuf *eb)
{
    MDB_stat stat;
    int rc = mdb_stat(txn_of(txn)->mdb, dbi_of(txn, table), &stat);
    if (rc == MDB_SUCCESS)
        *ret_count = stat.ms_entries;
    return error_from(lmdb_of(txn->store), rc, "count", eb);
}

/* Database 0 is LMDB's list of free pages; each entry begins with how many it names. */
#define FREE_DBI 0

static enum err lmdb_usage(struct store_txn *txn, struct store_stat *ret_stat, struct errbuf *eb)
{
    struct store_lmdb *s = lmdb_of(txn->store);
    MDB_cursor *cursor = NULL;
    MDB_envinfo info;
    MDB_stat stat;
    MDB_val k, v;
    uint64_t free_pages = 0;

    int rc = mdb_env_info(s->env, &info);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_stat(s->env, &stat);
    if (rc == MDB_SUCCESS)
        rc = mdb_cursor_open(txn_of(txn)->mdb, FREE_DBI, &cursor);
    if (rc != MDB_SUCCESS)
        return error_from(s, rc, "usage", eb);
    while ((rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) == MDB_SUCCESS) {
        size_t n = 0;
        if (v.mv_size >= sizeof n)
            memcpy(&n, v.mv_data, sizeof n);
        free_pages += n;
    }
    mdb_cursor_close(cursor);
    if (rc != MDB_NOTFOUND)
        return error_from(s, rc, "usage", eb);
    uint64_t pages = (uint64_t)info.me_last_pgno + 1;
    ret_stat->used_bytes = (pages > free_pages ? pages - free_pages : 0) * stat.ms_psize;
    ret_stat->map_bytes = s->map_bytes;
    return ERR_OK;
}

static void lmdb_close(struct store *base)
{
    struct store_lmdb *s = lmdb_of(base);
    if (s->env != NULL) {
        store_fault_unwatch();
        mdb_env_close(s->env);
    }
    if (s->lock_fd >= 0) {
        /* By name and not only by close: a child that was forked meanwhile holds the file too. */
        (void)flock(s->lock_fd, LOCK_UN);
        close(s->lock_fd);
    }
    store_base_fini(base);
    free(s->path);
    free(s);
}

static const struct store_ops lmdb_ops = {
    .begin = lmdb_begin,
    .commit = lmdb_commit,
    .abort = lmdb_abort,
    .get = lmdb_get,
    .put = lmdb_put,
    .remove = lmdb_remove,
    .scan = lmdb_scan,
    .last_key = lmdb_last_key,
    .count = lmdb_count,
    .usage = lmdb_usage,
    .close = lmdb_close,
};

/* ---- opening ---- */

const char *store_lmdb_network_fs(uint32_t fs_type)
{
    /* Magic numbers of statfs(2). LMDB's locks and its shared map are promises between processes
     * of one kernel, which none of these keep. FUSE is among them because what lies behind it
     * cannot be seen from here. */
    static const struct {
        uint32_t type;
        const char *name;
    } known[] = {
        {0x00006969, "NFS"},        {0x0000517b, "SMB"},    {0xfe534d42, "SMB2"},
        {0xff534d42, "CIFS"},       {0x0000564c, "NCP"},    {0x01021997, "9P"},
        {0x00c36400, "Ceph"},       {0x5346414f, "AFS"},    {0x6b414653, "AFS"},
        {0x73757245, "Coda"},       {0x0bd00bd0, "Lustre"}, {0x01161970, "GFS2"},
        {0x7461636f, "OCFS2"},      {0x65735546, "FUSE"},   {0x47504653, "GPFS"},
        {0x19830326, "BeeGFS"},     {0xaad7aaea, "PanFS"},  {0x013111a8, "IBRIX"},
        {0x786f4256, "VBox share"},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].type == fs_type)
            return known[i].name;
    }
    return NULL;
}

static enum err sync_directory(const char *path, struct errbuf *eb)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(eb, errno, "directory %s", path);
    int rc = fsync(fd), e = errno;
    close(fd);
    return rc == 0 ? ERR_OK : err_set_errno(eb, e, "sync of directory %s", path);
}

static enum err directory_make(const char *path, struct errbuf *eb)
{
    struct statfs fs;
    struct stat st;
    char parent[PATH_BYTES];

    if (mkdir(path, 0700) == 0) {
        (void)snprintf(parent, sizeof parent, "%s/..", path);
        enum err e = sync_directory(parent, eb);
        if (e != ERR_OK)
            return e;
    } else if (errno != EEXIST) {
        return err_set_errno(eb, errno, "store %s: cannot make the directory", path);
    }
    if (stat(path, &st) != 0)
        return err_set_errno(eb, errno, "store %s", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(eb, ERR_INVALID, "store %s: not a directory", path);
    if (statfs(path, &fs) != 0)
        return err_set_errno(eb, errno, "store %s", path);
    const char *network = store_lmdb_network_fs((uint32_t)fs.f_type);
    if (network != NULL)
        return err_set(eb, ERR_UNSUPPORTED,
                       "store %s: lies on a network file system (%s): LMDB needs a local disk",
                       path, network);
    return ERR_OK;
}

/* Two openings of one LMDB file in a process break each other's locks, and two writing processes
 * would be two ledgers: one lock on a file of our own refuses both. The kernel drops it with the
 * process, however that ends. */
static enum err lock_take(struct store_lmdb *s, struct errbuf *eb)
{
    char path[PATH_BYTES], holder[32] = "";
    (void)snprintf(path, sizeof path, "%s/store.lock", s->path);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return err_set_errno(eb, errno, "store %s: lock file", s->path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        int e = errno;
        ssize_t got = pread(s->lock_fd, holder, sizeof holder - 1, 0);
        close(s->lock_fd);
        s->lock_fd = -1;
        if (e != EWOULDBLOCK)
            return err_set_errno(eb, e, "store %s: lock file", s->path);
        holder[got > 0 ? got : 0] = '\0';
        holder[strcspn(holder, "\n")] = '\0';
        return err_set(eb, ERR_CONFLICT, "store %s: open already, by process %s", s->path,
                       holder[0] != '\0' ? holder : "unknown");
    }
    /* Whose it is only serves the message above, so a full disk does not matter here. */
    int n = snprintf(holder, sizeof holder, "%ld\n", (long)getpid());
    if (ftruncate(s->lock_fd, 0) != 0 || pwrite(s->lock_fd, holder, (size_t)n, 0) != n)
        (void)ftruncate(s->lock_fd, 0);
    return ERR_OK;
}

/* ERR_NOT_FOUND where the file holds no table yet. */
static enum err tables_open(struct store_lmdb *s, bool create, struct errbuf *eb)
{
    MDB_txn *txn = NULL;
    MDB_stat stat;
    int rc = mdb_txn_begin(s->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc != MDB_SUCCESS)
        return error_from(s, rc, "begin", eb);
    for (int t = 0; rc == MDB_SUCCESS && t < STORE_TABLE_COUNT; t++) {
        const char *name = store_table_name((enum store_table)t);
        rc = mdb_dbi_open(txn, name, create ? MDB_CREATE : 0, &s->dbi[t]);
        if (rc != MDB_NOTFOUND)
            continue;
        rc = mdb_env_stat(s->env, &stat);
        bool fresh = rc == MDB_SUCCESS && stat.ms_entries == 0;
        mdb_txn_abort(txn);
        if (fresh)
            return ERR_NOT_FOUND;
        return err_set(eb, ERR_CORRUPT, "store %s: no table %s in data.mdb", s->path, name);
    }
    if (rc != MDB_SUCCESS) {
        mdb_txn_abort(txn);
        return error_from(s, rc, "opening a table", eb);
    }
    rc = mdb_txn_commit(txn);
    return error_from(s, rc, "opening the tables", eb);
}

/* LMDB makes its lock file by setting the length and then writes through a map: on a full disk that
 * ends the process (SIGBUS). Blocks that are there already cannot be missing. Nobody else has the
 * file open: lock_take saw to that. */
static enum err lock_file_reserve(struct store_lmdb *s, struct errbuf *eb)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/lock.mdb", s->path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set_errno(eb, errno, "store %s: lock.mdb", s->path);
    int rc = posix_fallocate(fd, 0, 8192); /* LMDB's own length, for 126 readers */
    close(fd);
    return rc == 0 ? ERR_OK : err_set_errno(eb, rc, "store %s: lock.mdb", s->path);
}

static enum err env_open(struct store_lmdb *s, uint64_t map_bytes, struct errbuf *eb)
{
    MDB_envinfo info;
    char file[PATH_BYTES];
    int dead = 0;

    (void)snprintf(file, sizeof file, "%s/data.mdb", s->path);
    enum err e = store_pages_check(s->path, file, eb);
    if (e != ERR_OK)
        return e;
    int rc = mdb_env_create(&s->env);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_maxdbs(s->env, STORE_TABLE_COUNT);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_set_mapsize(s->env, map_bytes);
    s->map_bytes = map_bytes;
    if (rc == MDB_SUCCESS)
        rc = mdb_env_open(s->env, s->path, MDB_NOTLS, 0600);
    if (rc == MDB_SUCCESS)
        rc = mdb_env_info(s->env, &info);
    if (rc != MDB_SUCCESS)
        return error_from(s, rc, "opening data.mdb", eb);
    s->map_bytes = info.me_mapsize; /* larger than asked for where the file is larger */
    store_fault_watch(s->path, file);
    /* Slots of readers that died keep their pages from being used again. */
    rc = mdb_reader_check(s->env, &dead);
    if (rc != MDB_SUCCESS)
        return error_from(s, rc, "checking for dead readers", eb);
    e = tables_open(s, false, eb);
    if (e == ERR_NOT_FOUND) {
        e = tables_open(s, true, eb);
        if (e == ERR_OK)
            e = sync_directory(s->path, eb);
    }
    return e;
}

enum err store_open_lmdb(struct store **ret_store, const struct store_lmdb_config *config,
                         struct errbuf *eb)
{
    uint64_t map_bytes = config->map_bytes != 0 ? config->map_bytes : MAP_BYTES_DEFAULT;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct id instance = id_new();
    enum err e;

    if (config->path == NULL || config->path[0] == '\0')
        return err_set(eb, ERR_INVALID, "store: no directory given");
    if (strlen(config->path) + sizeof "/store.lock" > PATH_BYTES)
        return err_set(eb, ERR_INVALID, "store: the path is too long");
    if (map_bytes > (uint64_t)1 << 46)
        return err_set(eb, ERR_INVALID, "store %s: a map of %llu bytes is more than 64 TiB",
                       config->path, (unsigned long long)map_bytes);
    struct store_lmdb *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(eb, ERR_NO_MEMORY, "store %s: out of memory", config->path);
    s->lock_fd = -1;
    s->path = strdup(config->path);
    store_base_init(&s->base, &lmdb_ops, s->path);
    if (s->path == NULL)
        e = err_set(eb, ERR_NO_MEMORY, "store %s: out of memory", config->path);
    else
        e = directory_make(s->path, eb);
    if (e == ERR_OK)
        e = lock_take(s, eb);
    if (e == ERR_OK)
        e = lock_file_reserve(s, eb);
    if (e == ERR_OK)
        e = env_open(s, (map_bytes + page - 1) / page * page, eb);
    if (e == ERR_OK)
        e = store_base_identify(&s->base, &instance, eb);
    if (e != ERR_OK) {
        lmdb_close(&s->base);
        return e;
    }
    *ret_store = &s->base;
    return ERR_OK;
}
