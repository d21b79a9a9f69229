/*
 * hello.h - what a rank says of itself before it is let into a gang, as bytes, and whether two of
 * them belong together. Fixed size, little-endian, no pointers: what comes from a stranger is
 * looked at field by field. Internal to worker/coll. Thread: any (pure).
 */
#ifndef CLOISTER_WORKER_COLL_HELLO_H
#define CLOISTER_WORKER_COLL_HELLO_H

#include "worker/coll/coll.h"

#define COLL_BUILD_BYTES 64u
#define COLL_WHY_BYTES   240u
#define COLL_HELLO_BYTES                                                                           \
    (8u + 4u * 3u + 8u * 2u + COLL_GROUP_BYTES + COLL_PLAN_BYTES + COLL_BUILD_BYTES + 4u +         \
     COLL_WHY_BYTES)

struct coll_hello {
    uint32_t transport;
    uint32_t rank;
    uint32_t n_ranks;
    uint64_t epoch;
    uint64_t bytes_max;
    uint8_t group[COLL_GROUP_BYTES];
    uint8_t plan[COLL_PLAN_BYTES];
    char build[COLL_BUILD_BYTES]; /* NUL-padded, NUL at its end */
    enum err declined;            /* ERR_OK, or: it does not come, and plan and size mean nothing */
    char why[COLL_WHY_BYTES];     /* as build */
};

/* ERR_INVALID where the build's name is too long. */
enum err coll_hello_of(const struct coll_config *config, struct coll_hello *ret_hello,
                       struct errbuf *eb);
void coll_hello_encode(const struct coll_hello *hello, uint8_t ret_bytes[COLL_HELLO_BYTES]);
/* ERR_CORRUPT: this is no hello. `size` may be larger: what follows is the caller's. */
enum err coll_hello_decode(const uint8_t *bytes, size_t size, struct coll_hello *ret_hello,
                           struct errbuf *eb);

/* Of the same gang, in the same life of it. */
bool coll_hello_is_peer(const struct coll_hello *mine, const struct coll_hello *theirs);

/* ERR_REFUSED: another gang; ERR_STALE: one of the two epochs is over, the lower; ERR_CONFLICT:
 * of this gang, but with another plan, size or build, or a rank that cannot be. Where one of the
 * two does not come: its reason. */
enum err coll_hello_check(const struct coll_hello *mine, const struct coll_hello *theirs,
                          struct errbuf *eb);

/* An error's code that came from elsewhere; ERR_CORRUPT where it is none. */
enum err coll_code(uint32_t code);

/* Little-endian numbers, for what goes beside a hello. */
void coll_put_u32(uint8_t *to, uint32_t value);
void coll_put_u64(uint8_t *to, uint64_t value);
uint32_t coll_get_u32(const uint8_t *from);
uint64_t coll_get_u64(const uint8_t *from);

#endif
