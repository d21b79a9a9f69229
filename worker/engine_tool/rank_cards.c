#include "worker/engine_tool/rank_cards.h"

#include "common/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#define CARD_BYTES 16384u /* more than the addresses of a machine of many networks take */
#define LOOK_MS    2

struct rank_card {
    atomic_size_t size; /* 0: it is not there yet; stored behind its bytes */
    uint8_t bytes[CARD_BYTES];
};

enum err rank_cards_init(struct rank_cards *ret_cards, uint32_t n_ranks, struct errbuf *eb)
{
    void *const shared = mmap(NULL, n_ranks * sizeof(struct rank_card), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (shared == MAP_FAILED)
        return err_set_errno(eb, errno, "no memory that %u ranks share", n_ranks);
    *ret_cards = (struct rank_cards){.card = shared, .n_ranks = n_ranks};
    return ERR_OK;
}

void rank_cards_fini(struct rank_cards *cards)
{
    if (cards->card != NULL)
        (void)munmap(cards->card, cards->n_ranks * sizeof *cards->card);
    cards->card = NULL;
}

/* The first rank whose card is not there; n_ranks: all are. */
static uint32_t first_missing(const struct rank_cards *cards)
{
    uint32_t rank = 0;

    while (rank < cards->n_ranks &&
           atomic_load_explicit(&cards->card[rank].size, memory_order_acquire) > 0)
        rank++;
    return rank;
}

static enum err cards_exchange(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                               const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    const struct rank_cards *cards = ctx;
    struct rank_card *own = &cards->card[cards->rank];
    uint32_t missing;

    if (size > CARD_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "rank %u's card has %zu bytes; %u are the most",
                       cards->rank, size, CARD_BYTES);
    memcpy(own->bytes, mine, size);
    atomic_store_explicit(&own->size, size, memory_order_release);
    while ((missing = first_missing(cards)) < cards->n_ranks) {
        if (stop != NULL && atomic_load(stop))
            return err_set(eb, ERR_CANCELLED, "rank %u was told to stop", cards->rank);
        if (clock_mono_ns() >= deadline_ns)
            return err_set(eb, ERR_TIMEOUT, "rank %u did not come", missing);
        (void)poll(NULL, 0, LOOK_MS);
    }
    for (uint32_t r = 0; r < cards->n_ranks; r++)
        ret[r] = (struct coll_bytes){cards->card[r].bytes, atomic_load(&cards->card[r].size)};
    return ERR_OK;
}

struct coll_rendezvous rank_cards_rendezvous(struct rank_cards *cards)
{
    return (struct coll_rendezvous){.exchange = cards_exchange, .ctx = cards};
}
