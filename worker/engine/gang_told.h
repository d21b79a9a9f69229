/*
 * gang_told.h - a step in words, as rank 0 tells it to the others: its rows, and what is new in
 * page tables. Both sides keep the tables as told so far, so a decode's step is a few words.
 *
 * Rank 0 is of our own build and was checked when ranks met; what it says decides all the same what
 * is read and written here, so it is looked at word by word: what is taken can be computed within
 * the limits.
 *
 * Ownership: the caller's arrays. Thread: the runtime's owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_GANG_TOLD_H
#define CLOISTER_WORKER_ENGINE_GANG_TOLD_H

#include "worker/engine/gang.h"

struct gang_told {
    const struct gang_limits *limits;
    uint32_t vocab;
    uint32_t *pages; /* [sequences][sequence_pages] as told so far; UINT32_MAX: not */
    uint32_t *words; /* [gang_told_bytes] the step */
};

/* Bytes of the largest step. */
size_t gang_told_bytes(const struct gang_limits *limits);

/* Writes a step of the plan (NULL: there is none yet) to `words`; its bytes. */
size_t gang_told_put(struct gang_told *t, const struct batch_plan *plan);

/* Takes a step that was put elsewhere; the plan's arrays are valid until the next one, and it has
 * no rows where there is no step yet. ERR_INTERNAL says what cannot be; the gang is to end then. */
enum err gang_told_take(struct gang_told *t, const void *bytes, size_t size,
                        struct batch_plan *ret_plan, struct errbuf *eb);

#endif
