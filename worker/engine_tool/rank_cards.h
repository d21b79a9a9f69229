/*
 * rank_cards.h - how the ranks that one program starts learn each other's addresses, over a
 * network: each puts its card into memory that all of them share, and reads the others'.
 *
 * Ownership: rank_cards_fini unmaps, in each process by itself. Thread: a rank's owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_TOOL_RANK_CARDS_H
#define CLOISTER_WORKER_ENGINE_TOOL_RANK_CARDS_H

#include "worker/coll/coll.h"

struct rank_card;

struct rank_cards {
    struct rank_card *card; /* [n_ranks]; NULL: not open */
    uint32_t n_ranks;
    uint32_t rank; /* this process's, set behind its fork */
};

/* Before any rank is started. ERR_NO_MEMORY. */
enum err rank_cards_init(struct rank_cards *ret_cards, uint32_t n_ranks, struct errbuf *eb);
void rank_cards_fini(struct rank_cards *cards);

/* Borrows `cards` as its context. */
struct coll_rendezvous rank_cards_rendezvous(struct rank_cards *cards);

#endif
