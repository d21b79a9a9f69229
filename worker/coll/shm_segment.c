#include "worker/coll/shm_segment.h"

#include "common/check.h"
#include "common/memory.h"
#include "worker/coll/coll_ops.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_PAGE_BYTES 4096u
#define SHM_SEALS      (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "flags between processes must not need a lock");

static size_t shm_round(size_t bytes)
{
    return (bytes + SHM_PAGE_BYTES - 1) / SHM_PAGE_BYTES * SHM_PAGE_BYTES;
}

size_t shm_segment_bytes(size_t bytes_max)
{
    return shm_round(sizeof(struct shm_header)) + 2 * shm_round(bytes_max);
}

/* Memory that the machine, and the cgroup, can give; all there is where it is not said. Asking for
 * more would not fail: it would have the kernel end some process. */
static size_t shm_available(void)
{
    struct memory_now now;
    return memory_read(&now, NULL) == ERR_OK ? (size_t)now.free_bytes : SIZE_MAX;
}

static int shm_take(int fd, size_t bytes)
{
    int error;
    do
        error = posix_fallocate(fd, 0, (off_t)bytes);
    while (error == EINTR);
    return error;
}

enum err shm_segment_make(size_t bytes_max, int *ret_fd, struct errbuf *eb)
{
    const size_t bytes = shm_segment_bytes(bytes_max);
    struct shm_segment segment;
    enum err e = ERR_OK;
    int error;
    const size_t available = shm_available();
    if (bytes > available)
        return err_set(eb, ERR_NO_MEMORY,
                       "%zu bytes of memory shared between ranks are not to be had: %zu are "
                       "available",
                       bytes, available);
    int fd = memfd_create("cloister-coll", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set_errno(eb, errno, "memory shared between ranks");
    if (ftruncate(fd, (off_t)bytes) != 0)
        e = err_set_errno(eb, errno, "%zu bytes of memory shared between ranks", bytes);
    else if ((error = shm_take(fd, bytes)) != 0)
        e = err_set(eb, ERR_NO_MEMORY, "%zu bytes of memory shared between ranks are not to be had",
                    bytes);
    else if (fcntl(fd, F_ADD_SEALS, SHM_SEALS) != 0)
        e = err_set_errno(eb, errno, "sealing memory shared between ranks");
    if (e == ERR_OK)
        e = shm_segment_map(fd, bytes_max, &segment, eb);
    if (e != ERR_OK) {
        close(fd);
        return e;
    }
    for (uint32_t r = 0; r < COLL_RANKS_MAX; r++)
        atomic_store(&segment.header->rank[r].arrived, COLL_SEQ_FIRST);
    shm_segment_unmap(&segment);
    *ret_fd = fd;
    return ERR_OK;
}

/* ---- one mapping a process ---- */

struct shm_mapping {
    struct shm_mapping *next;
    dev_t device;
    ino_t inode;
    uint8_t *base;
    size_t bytes;
    uint32_t users;
};

static pthread_mutex_t shm_mappings_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shm_mapping *shm_mappings;

static enum err shm_mapping_new(int fd, const struct stat *st, struct shm_mapping **ret_mapping,
                                struct errbuf *eb)
{
    struct shm_mapping *m = calloc(1, sizeof *m);
    const size_t bytes = (size_t)st->st_size;
    if (m == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to join a gang");
    /* Page tables are filled now rather than in the first steps. */
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (base == MAP_FAILED) {
        enum err e = err_set_errno(eb, errno, "mapping %zu bytes shared between ranks", bytes);
        free(m);
        return e;
    }
    /* A program that a rank starts must neither keep the memory nor write there. */
    (void)madvise(base, bytes, MADV_DONTFORK);
    *m = (struct shm_mapping){shm_mappings, st->st_dev, st->st_ino, base, bytes, 0};
    shm_mappings = m;
    *ret_mapping = m;
    return ERR_OK;
}

enum err shm_segment_map(int fd, size_t bytes_max, struct shm_segment *ret_segment,
                         struct errbuf *eb)
{
    struct stat st;
    const size_t bytes = shm_segment_bytes(bytes_max);
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) != 0 || seals < 0 || (seals & F_SEAL_SHRINK) == 0)
        return err_set(eb, ERR_CORRUPT, "what rank 0 sent is no sealed memory");
    if (st.st_size < 0 || (size_t)st.st_size != bytes)
        return err_set(eb, ERR_CORRUPT, "rank 0 sent %lld bytes of memory and not %zu",
                       (long long)st.st_size, bytes);
    enum err e = ERR_OK;
    pthread_mutex_lock(&shm_mappings_lock);
    struct shm_mapping *m = shm_mappings;
    while (m != NULL && (m->device != st.st_dev || m->inode != st.st_ino))
        m = m->next;
    if (m == NULL)
        e = shm_mapping_new(fd, &st, &m, eb);
    if (e == ERR_OK) {
        m->users++;
        ret_segment->header = (struct shm_header *)(void *)m->base;
        ret_segment->half[0] = m->base + shm_round(sizeof(struct shm_header));
        ret_segment->half[1] = ret_segment->half[0] + shm_round(bytes_max);
    }
    pthread_mutex_unlock(&shm_mappings_lock);
    return e;
}

void shm_segment_unmap(struct shm_segment *segment)
{
    if (segment->header == NULL)
        return;
    pthread_mutex_lock(&shm_mappings_lock);
    struct shm_mapping **at = &shm_mappings;
    while (*at != NULL && (*at)->base != (uint8_t *)segment->header)
        at = &(*at)->next;
    CHECK(*at != NULL);
    struct shm_mapping *m = *at;
    if (--m->users == 0) {
        *at = m->next;
        CHECK(munmap(m->base, m->bytes) == 0);
        free(m);
    }
    pthread_mutex_unlock(&shm_mappings_lock);
    segment->header = NULL;
}
