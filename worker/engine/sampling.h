/*
 * sampling.h - from one row of logits to one token id.
 *
 * Order, fixed: logit bias; repetition, presence and frequency penalties; temperature; top-k;
 * top-p; min-p; draw. The draw is Gumbel-max: argmax over the surviving ids of
 * logit / temperature + gumbel(seed, position, id), with Philox4x32-10 as the source, so it
 * depends on nothing but (logits, parameters, seed, position). temperature 0 is arg-max. Ties go
 * to the lower id. top-p and min-p are taken over the softmax of the survivors of the step before.
 *
 * After the penalties every logit l becomes z = (l - greatest l) / temperature, so the best has 0.
 * top-k and top-p keep a prefix of the order (z descending, id ascending): the first k, and the
 * fewest whose probabilities add up to top_p. Those are whole numbers, floor(2^40 * nm_exp(z)), so
 * their sums are exact in any order; ids with 0 are dropped, top_p times the total is rounded
 * down. min-p keeps ids with nm_exp(z) >= min_p. An id whose logit is -inf is not drawn unless all
 * are; then it is id 0.
 *
 * Sources: Gumbel-max trick (Gumbel 1954; Maddison et al. 2014); Philox (Salmon et al., SC'11).
 * Thread: any; a `struct sampler` has one owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_SAMPLING_H
#define CLOISTER_WORKER_ENGINE_SAMPLING_H

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

struct sampling {
    float temperature;        /* >= 0; 0: greedy */
    uint32_t top_k;           /* 0: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1); 0: off */
    float repetition_penalty; /* > 0; 1: off */
    float presence_penalty;   /* [-2, 2]; 0: off */
    float frequency_penalty;  /* [-2, 2]; 0: off */
    uint64_t seed;
};

struct sampling_stop {
    const char *bytes;
    size_t size; /* 1 .. LIMIT_STOP_BYTES */
};

/* Greedy, everything off, seed 0. */
struct sampling sampling_default(void);
/* ERR_INVALID names the parameter, its value and its range (NaN is out of every range). */
enum err sampling_check(const struct sampling *s, struct errbuf *eb);

struct sampler;                                /* scratch for one vocabulary size */
struct sampler *sampler_new(uint32_t n_vocab); /* NULL when memory is refused */
void sampler_free(struct sampler *s);

/* logits[n_vocab]; `history` are all ids before this position that penalties look at (prompt and
 * completion); `position` is the index of the token to be drawn in its whole sequence. Never
 * writes to logits. NaN logits are treated as -inf. */
int32_t sampler_draw(struct sampler *s, const struct sampling *params, const float *logits,
                     const int32_t *history, size_t n_history, uint64_t position);

#endif
