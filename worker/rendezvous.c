#include "worker/rendezvous.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How often whoever waits looks at its stop flag, which nobody signals. */
#define LOOK_NS 50000000u

enum rendezvous_state {
    RENDEZVOUS_IDLE,    /* before the exchange, and after it */
    RENDEZVOUS_WAITING, /* `mine` is up */
    RENDEZVOUS_MET,     /* `all` is there, and the exchange takes it */
};

struct rendezvous {
    uint32_t rank, n_ranks;
    void (*notify)(void *arg);
    void *notify_arg;
    pthread_mutex_t lock;
    pthread_cond_t met;
    enum rendezvous_state state; /* [lock] */
    bool has_news;               /* [lock] */
    uint8_t *mine;               /* written once, before it waits */
    size_t mine_size;
    uint8_t *all; /* written once, before it has met */
    struct coll_bytes at[COLL_RANKS_MAX];
};

static void lock(struct rendezvous *r)
{
    CHECK(pthread_mutex_lock(&r->lock) == 0);
}

static void unlock(struct rendezvous *r)
{
    CHECK(pthread_mutex_unlock(&r->lock) == 0);
}

enum err rendezvous_open(struct rendezvous **ret_rendezvous, uint32_t rank, uint32_t n_ranks,
                         void (*notify)(void *arg), void *notify_arg, struct errbuf *eb)
{
    struct rendezvous *r = calloc(1, sizeof *r);
    pthread_condattr_t attr;

    CHECK(rank < n_ranks && n_ranks <= COLL_RANKS_MAX);
    if (r == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to meet a gang");
    r->rank = rank;
    r->n_ranks = n_ranks;
    r->notify = notify;
    r->notify_arg = notify_arg;
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0);
    CHECK(pthread_condattr_init(&attr) == 0);
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&r->met, &attr) == 0);
    CHECK(pthread_condattr_destroy(&attr) == 0);
    *ret_rendezvous = r;
    return ERR_OK;
}

void rendezvous_close(struct rendezvous *r)
{
    if (r == NULL)
        return;
    CHECK(r->state == RENDEZVOUS_IDLE);
    CHECK(pthread_cond_destroy(&r->met) == 0);
    CHECK(pthread_mutex_destroy(&r->lock) == 0);
    free(r->mine);
    free(r->all);
    free(r);
}

/* ---- the gang's thread ---- */

static enum err put_up(struct rendezvous *r, const void *mine, size_t size, struct errbuf *eb)
{
    if (size > LIMIT_GANG_ADDRESS_BYTES)
        return err_set(eb, ERR_TOO_LARGE,
                       "this rank's address has %zu bytes, at most %u are carried: name fewer "
                       "devices in UCX_NET_DEVICES",
                       size, LIMIT_GANG_ADDRESS_BYTES);
    CHECK(r->mine == NULL && size > 0);
    r->mine = malloc(size);
    if (r->mine == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to meet a gang");
    memcpy(r->mine, mine, size);
    r->mine_size = size;
    lock(r);
    r->state = RENDEZVOUS_WAITING;
    r->has_news = true;
    unlock(r);
    r->notify(r->notify_arg);
    return ERR_OK;
}

static void wait_a_while(struct rendezvous *r, uint64_t deadline_ns)
{
    uint64_t until_ns = clock_mono_ns() + LOOK_NS;
    if (until_ns > deadline_ns)
        until_ns = deadline_ns;
    const struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                                   .tv_nsec = (long)(until_ns % 1000000000u)};
    int waited = pthread_cond_timedwait(&r->met, &r->lock, &until);
    CHECK(waited == 0 || waited == ETIMEDOUT);
}

static enum err exchange(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                         const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    struct rendezvous *r = ctx;
    enum err e = put_up(r, mine, size, eb);

    if (e != ERR_OK)
        return e;
    lock(r);
    while (e == ERR_OK && r->state == RENDEZVOUS_WAITING) {
        if (stop != NULL && atomic_load(stop))
            e = err_set(eb, ERR_CANCELLED, "rank %u was told to stop", r->rank);
        else if (clock_mono_ns() >= deadline_ns)
            e = err_set(eb, ERR_TIMEOUT, "the other ranks' addresses did not come in time");
        else
            wait_a_while(r, deadline_ns);
    }
    r->state = RENDEZVOUS_IDLE;
    r->has_news = false;
    unlock(r);
    if (e == ERR_OK)
        memcpy(ret, r->at, r->n_ranks * sizeof *ret);
    return e;
}

struct coll_rendezvous rendezvous_of(struct rendezvous *r)
{
    return (struct coll_rendezvous){.exchange = exchange, .ctx = r};
}

/* ---- the agent's thread ---- */

bool rendezvous_says(struct rendezvous *r, struct wire_bytes *ret_mine)
{
    lock(r);
    const bool waits = r->state == RENDEZVOUS_WAITING;
    unlock(r);
    if (waits)
        *ret_mine = (struct wire_bytes){.data = r->mine, .size = r->mine_size};
    return waits;
}

bool rendezvous_has_news(struct rendezvous *r)
{
    lock(r);
    const bool has_news = r->has_news;
    r->has_news = false;
    unlock(r);
    return has_news;
}

static enum err check(const struct rendezvous *r, const struct wire_bytes *addresses, size_t n,
                      struct errbuf *eb)
{
    if (r->state != RENDEZVOUS_WAITING)
        return err_set(eb, ERR_STALE, "rank %u waits for no addresses", r->rank);
    if (n != r->n_ranks)
        return err_set(eb, ERR_CONFLICT, "%zu addresses for a gang of %u", n, r->n_ranks);
    const struct wire_bytes *own = &addresses[r->rank];
    if (own->size != r->mine_size || memcmp(own->data, r->mine, own->size) != 0)
        return err_set(eb, ERR_CONFLICT, "in the place of rank %u is another's address", r->rank);
    return ERR_OK;
}

static enum err copy_all(struct rendezvous *r, const struct wire_bytes *addresses,
                         struct errbuf *eb)
{
    size_t size = 0, at = 0;

    for (uint32_t k = 0; k < r->n_ranks; k++)
        size += addresses[k].size;
    r->all = malloc(size);
    if (r->all == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang's addresses");
    for (uint32_t k = 0; k < r->n_ranks; k++) {
        r->at[k] = (struct coll_bytes){.data = r->all + at, .size = addresses[k].size};
        if (addresses[k].size > 0)
            memcpy(r->all + at, addresses[k].data, addresses[k].size);
        at += addresses[k].size;
    }
    return ERR_OK;
}

enum err rendezvous_meet(struct rendezvous *r, const struct wire_bytes *addresses, size_t n,
                         struct errbuf *eb)
{
    lock(r);
    enum err e = check(r, addresses, n, eb);
    if (e == ERR_OK)
        e = copy_all(r, addresses, eb);
    if (e == ERR_OK) {
        r->state = RENDEZVOUS_MET;
        CHECK(pthread_cond_signal(&r->met) == 0);
    }
    unlock(r);
    return e;
}
