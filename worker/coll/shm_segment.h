/*
 * shm_segment.h - the memory that the ranks of one host share: a sealed memfd with a line of flags
 * for each rank and the two halves. It has no name, so nothing is left of it when its last process
 * is gone, whatever ended that; and a rank of an older epoch holds other memory than this gang's.
 *
 * Flags are C11 atomics. Each rank writes its own line only; the words that others write into lie
 * on lines of their own. Lines are 128 bytes: processors fetch them in pairs.
 *
 * Internal to worker/coll. Thread: any, but for what each function says.
 */
#ifndef CLOISTER_WORKER_COLL_SHM_SEGMENT_H
#define CLOISTER_WORKER_COLL_SHM_SEGMENT_H

#include "worker/coll/coll.h"

#include <stdatomic.h>

#define SHM_LINE_BYTES 128

enum shm_broken { SHM_BROKEN_NO = 0, SHM_BROKEN_WRITING = 1, SHM_BROKEN_SET = 2 };

/* A rank's own line: written by it, read by all. */
struct shm_rank {
    /* The last operation it came to: its bytes and the words below are written. A futex. */
    _Alignas(SHM_LINE_BYTES) _Atomic uint32_t arrived;
    _Atomic uint32_t left;      /* closed: it comes to no further operation */
    _Atomic uint32_t what[2];   /* [seq & 1] kind << 8 | root */
    _Atomic uint64_t layout[2]; /* [seq & 1] digest of the sizes */
    _Atomic uint64_t size[2];   /* [seq & 1] of a broadcast, by its root */
    _Alignas(SHM_LINE_BYTES) _Atomic uint32_t sleepers; /* who sleep on `arrived`; by any rank */
};

struct shm_header {
    _Atomic uint32_t broken; /* enum shm_broken */
    uint32_t code;           /* enum err; this and `reason` belong to who set `broken` to WRITING */
    char reason[ERRBUF_BYTES];
    struct shm_rank rank[COLL_RANKS_MAX];
};

struct shm_segment {
    struct shm_header *header;
    uint8_t *half[2];
};

/* Of the whole segment. */
size_t shm_segment_bytes(size_t bytes_max);

/* New memory, all of it taken, so that no rank dies of a lack of it later. ERR_NO_MEMORY. The
 * caller closes *ret_fd. */
enum err shm_segment_make(size_t bytes_max, int *ret_fd, struct errbuf *eb);

/* ERR_CORRUPT where the file is not such a segment, or could be cut under us. Ranks that are
 * threads of one process get the same mapping: less page tables, and a race detector sees both
 * sides. Ownership: unmapped by shm_segment_unmap; `fd` stays the caller's. */
enum err shm_segment_map(int fd, size_t bytes_max, struct shm_segment *ret_segment,
                         struct errbuf *eb);
void shm_segment_unmap(struct shm_segment *segment);

#endif
