/*
 * sampling.h - from one row of logits to one token id.
 *
 * Order, fixed: logit bias; repetition, presence and frequency penalties; temperature; top-k;
 * typical; top-p; min-p; draw. The draw is Gumbel-max: argmax over the surviving ids of
 * logit / temperature + gumbel(seed, position, id), with Philox4x32-10 as the source, so it
 * depends on nothing but (logits, parameters, seed, position). temperature 0 is arg-max. Ties go
 * to the lower id. Each filter works on the softmax of the survivors of the step before.
 *
 * A bias is added to its id's logit. An id that is in the history n > 0 times: its logit is divided
 * by the repetition penalty where it is above 0, else multiplied by it; then the presence penalty
 * and n times the frequency penalty are taken off.
 *
 * After the penalties every logit l becomes z = (l - greatest l) / temperature, so the best has 0.
 * Probabilities are whole numbers, floor(2^40 * nm_exp(z)), so their sums are exact in any order.
 *
 * top-k: the first k of the order (z descending, id ascending).
 *
 * typical: the fewest whose probabilities add up to typical_p, in the order of how far their
 * surprise -ln p is from the mean surprise, the entropy; ties by id. Since ln p is z less a
 * constant, that distance is |z - m|, m = (sum of p z) / (sum of p): the products p * -z are
 * rounded to doubles and down to whole numbers, whose sum is exact too.
 *
 * top-p: the fewest whose probabilities add up to top_p, in the order of top-k.
 *
 * min-p: those with nm_exp(z) >= min_p.
 *
 * typical and top-p drop ids of probability 0; their share of the total is rounded down. An id
 * whose logit is -inf is not drawn unless all are; then it is id 0.
 *
 * Nothing is sorted, and the logits are read as seldom as can be: once for the greatest of each 64
 * of them; after that only blocks are looked at that hold an id which may still matter.
 *
 * Sources: Gumbel-max trick (Gumbel 1954; Maddison et al. 2014); Philox (Salmon et al., SC'11);
 * locally typical sampling (Meister et al. 2022); min-p (Nguyen et al. 2024).
 * Thread: any; a `struct sampler` has one owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_SAMPLING_H
#define CLOISTER_WORKER_ENGINE_SAMPLING_H

#include "common/err.h"
#include "common/limits.h"
#include "worker/kernels/pick.h"
#include "worker/kernels/sample.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampling_bias {
    int32_t id;
    float bias; /* [-100, 100] */
};

struct sampling {
    float temperature;        /* [0, 100]; 0: greedy */
    uint32_t top_k;           /* 0: off */
    float typical_p;          /* (0, 1]; 1: off */
    float top_p;              /* (0, 1]; 1: off */
    float min_p;              /* [0, 1); 0: off */
    float repetition_penalty; /* [0.01, 100]; 1: off */
    float presence_penalty;   /* [-2, 2]; 0: off */
    float frequency_penalty;  /* [-2, 2]; 0: off */
    uint64_t seed;
    const struct sampling_bias *biases; /* [n_biases], each id once; at most LIMIT_LOGIT_BIASES */
    size_t n_biases;
    bool logprobs;         /* of the drawn token are wanted ... */
    uint32_t top_logprobs; /* ... and of this many of the likeliest; at most LIMIT_TOP_LOGPROBS */
};

struct sampling_stop {
    const char *bytes;
    size_t size; /* 1 .. LIMIT_STOP_BYTES */
};

/* Greedy, everything off, seed 0. */
struct sampling sampling_default(void);
/* ERR_INVALID names the parameter, its value and its range (NaN is out of every range). */
enum err sampling_check(const struct sampling *s, struct errbuf *eb);
/* ERR_INVALID where a bias names an id that this vocabulary has not. */
enum err sampling_check_vocab(const struct sampling *s, uint32_t n_vocab, struct errbuf *eb);

/* What has to be known of a row to draw from it, at this position. PICK_ROW: all of it, since the
 * draw depends on the history, on more ids than a list has, or on all of them (typical without
 * top-k), or because logprobs are wanted. */
struct pick sampling_pick(const struct sampling *s, uint32_t n_vocab, uint64_t position);

struct sampler; /* scratch for one vocabulary size */
/* NULL when memory is refused. */
struct sampler *sampler_new(uint32_t n_vocab, const struct sample_kernels *kernels);
void sampler_free(struct sampler *s);
uint64_t sampler_bytes(uint32_t n_vocab); /* what one holds, at most */

/* logits[n_vocab]; `history` are all ids before this position that penalties look at (prompt and
 * completion); `position` is the index of the token to be drawn in its whole sequence. NaN logits
 * are treated as -inf. */
int32_t sampler_draw(struct sampler *s, const struct sampling *params, const float *logits,
                     const int32_t *history, size_t n_history, uint64_t position);

/* The same token as sampler_draw's, from what was picked of the row by sampling_pick of the same
 * parameters, which is not PICK_ROW. False where that is not enough: more ids are in it than are
 * listed. */
bool sampler_draw_picked(struct sampler *s, const struct sampling *params, const struct pick *pick,
                         const struct picked *picked, int32_t *ret_id);

struct sampling_logprob {
    int32_t id;
    float logprob; /* natural logarithm, at least SAMPLING_LOGPROB_MIN */
};

/* For what has no probability; a number, so that it can be said in JSON. */
#define SAMPLING_LOGPROB_MIN -9999.0f

struct sampling_logprobs {
    struct sampling_logprob drawn;
    uint32_t n_top; /* likeliest first, ties by id */
    struct sampling_logprob top[LIMIT_TOP_LOGPROBS];
};

/* What the model itself says, before bias, penalties and temperature: ln softmax(logits) of the
 * drawn id and of the n_top likeliest (fewer where the vocabulary has no more). As above, the sum
 * under the logarithm is one of whole numbers. */
void sampler_logprobs(struct sampler *s, const float *logits, int32_t drawn, uint32_t n_top,
                      struct sampling_logprobs *ret_logprobs);

#endif
