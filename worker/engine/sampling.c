#include "worker/engine/sampling.h"

#include "common/check.h"
#include "worker/kernels/numerics.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/*
 * Between the steps a token is its value z = (logit - greatest logit) / temperature, so the best
 * one has 0 and all others are below. Nothing is ever sorted: "the best k" and "the fewest that
 * hold the mass p" are both prefixes of the order (z descending, id ascending), and where such a
 * prefix ends is found by three passes of a histogram over the bits of z. Probabilities are
 * whole numbers of 2^-40 of the best token's, so that their sums have no order either.
 */

#define MASS_ONE 1099511627776.0 /* 2^40: 2^40 * a vocabulary of 2^23 stays below 2^63 */
/* exp(-30) * 2^40 is 0.1: no mass. */
#define MASS_Z_MIN -30.0f

#define HISTOGRAM_BITS 11
#define HISTOGRAM_SIZE (1u << HISTOGRAM_BITS)

struct sampler {
    uint32_t n_vocab;
    float *value;    /* [n_vocab] logits after penalties, then z */
    uint64_t *mass;  /* [n_vocab] by id */
    uint32_t *ids;   /* [n_vocab] survivors, ascending */
    uint32_t *times; /* [n_vocab] occurrences in the history; all 0 between draws */
    uint64_t histogram[HISTOGRAM_SIZE];
};

struct sampling sampling_default(void)
{
    return (struct sampling){
        .temperature = 0.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
    };
}

static enum err range_error(struct errbuf *eb, const char *name, float value, const char *range)
{
    return err_set(eb, ERR_INVALID, "%s is %g; it must be %s", name, (double)value, range);
}

enum err sampling_check(const struct sampling *s, struct errbuf *eb)
{
    if (!(s->temperature >= 0.0f && s->temperature <= 100.0f))
        return range_error(eb, "temperature", s->temperature, "0 to 100");
    if (!(s->top_p > 0.0f && s->top_p <= 1.0f))
        return range_error(eb, "top_p", s->top_p, "above 0 and at most 1");
    if (!(s->min_p >= 0.0f && s->min_p < 1.0f))
        return range_error(eb, "min_p", s->min_p, "at least 0 and below 1");
    if (!(s->repetition_penalty >= 0.01f && s->repetition_penalty <= 100.0f))
        return range_error(eb, "repetition_penalty", s->repetition_penalty, "0.01 to 100");
    if (!(s->presence_penalty >= -2.0f && s->presence_penalty <= 2.0f))
        return range_error(eb, "presence_penalty", s->presence_penalty, "-2 to 2");
    if (!(s->frequency_penalty >= -2.0f && s->frequency_penalty <= 2.0f))
        return range_error(eb, "frequency_penalty", s->frequency_penalty, "-2 to 2");
    return ERR_OK;
}

struct sampler *sampler_new(uint32_t n_vocab)
{
    struct sampler *s = calloc(1, sizeof *s);

    CHECK(n_vocab > 0 && n_vocab <= 1u << 23);
    if (s == NULL)
        return NULL;
    s->n_vocab = n_vocab;
    s->value = calloc(n_vocab, sizeof *s->value);
    s->mass = calloc(n_vocab, sizeof *s->mass);
    s->ids = calloc(n_vocab, sizeof *s->ids);
    s->times = calloc(n_vocab, sizeof *s->times);
    if (s->value == NULL || s->mass == NULL || s->ids == NULL || s->times == NULL) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s)
{
    if (s == NULL)
        return;
    free(s->value);
    free(s->mass);
    free(s->ids);
    free(s->times);
    free(s);
}

/* Infinite logits become the largest float so that differences stay numbers. */
static float logit_tame(float logit)
{
    if (isnan(logit))
        return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

static void logits_copy(struct sampler *s, const float *logits)
{
    for (uint32_t id = 0; id < s->n_vocab; id++)
        s->value[id] = logit_tame(logits[id]);
}

static bool has_penalties(const struct sampling *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f ||
           p->frequency_penalty != 0.0f;
}

/* An id counts as often as it is in the history; the first meeting does all its arithmetic, which
 * therefore does not depend on the history's order. Ids outside the vocabulary are passed over. */
static void penalties_apply(struct sampler *s, const struct sampling *p, const int32_t *history,
                            size_t n_history)
{
    for (size_t i = 0; i < n_history; i++)
        if (history[i] >= 0 && (uint32_t)history[i] < s->n_vocab)
            s->times[history[i]]++;
    for (size_t i = 0; i < n_history; i++) {
        if (history[i] < 0 || (uint32_t)history[i] >= s->n_vocab || s->times[history[i]] == 0)
            continue;
        float *value = &s->value[history[i]];
        *value = *value > 0.0f ? *value / p->repetition_penalty : *value * p->repetition_penalty;
        *value -= p->presence_penalty;
        *value -= p->frequency_penalty * (float)s->times[history[i]];
        *value = logit_tame(*value);
        s->times[history[i]] = 0;
    }
}

static uint32_t best_id(const struct sampler *s)
{
    uint32_t best = 0;

    for (uint32_t id = 1; id < s->n_vocab; id++)
        if (s->value[id] > s->value[best])
            best = id;
    return best;
}

/* z as an unsigned number in the same order; + 0 makes one zero of the two. */
static uint32_t order_key(float z)
{
    uint32_t bits;

    z += 0.0f;
    memcpy(&bits, &z, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint64_t survivor_weight(const struct sampler *s, uint32_t id, bool by_mass)
{
    return by_mass ? s->mass[id] : 1;
}

/* Keeps the shortest prefix of the order (z descending, id ascending) that weighs `need` or more;
 * all n survivors must weigh that much together. Returns how many are left. */
static uint32_t keep_best(struct sampler *s, uint32_t n, bool by_mass, uint64_t need)
{
    static const uint32_t shifts[3] = {21, 10, 0};
    static const uint32_t widths[3] = {11, 11, 10};
    uint32_t prefix = 0, decided = 0, kept = 0;

    for (uint32_t pass = 0; pass < 3; pass++) {
        uint32_t digits = (1u << widths[pass]) - 1;
        memset(s->histogram, 0, sizeof s->histogram);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t key = order_key(s->value[s->ids[i]]);
            if ((key & decided) == prefix)
                s->histogram[(key >> shifts[pass]) & digits] +=
                    survivor_weight(s, s->ids[i], by_mass);
        }
        uint32_t digit = digits;
        while (s->histogram[digit] < need) {
            need -= s->histogram[digit];
            CHECK(digit > 0);
            digit--;
        }
        prefix |= digit << shifts[pass];
        decided |= digits << shifts[pass];
    }
    /* All above the border stay, and at the border itself the first ids up to the rest of need. */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = s->ids[i];
        uint32_t key = order_key(s->value[id]);
        if (key < prefix || (key == prefix && need == 0))
            continue;
        if (key == prefix) {
            uint64_t weight = survivor_weight(s, id, by_mass);
            need -= weight < need ? weight : need;
        }
        s->ids[kept++] = id;
    }
    return kept;
}

static uint32_t keep_top_p(struct sampler *s, uint32_t n, float top_p)
{
    uint64_t total = 0, need;
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = s->ids[i];
        float z = s->value[id];
        if (z < MASS_Z_MIN)
            continue;
        s->mass[id] = (uint64_t)((double)nm_exp(z) * MASS_ONE);
        total += s->mass[id];
        if (s->mass[id] > 0)
            s->ids[kept++] = id;
    }
    need = (uint64_t)((double)top_p * (double)total);
    if (need > total)
        need = total;
    return keep_best(s, kept, true, need > 0 ? need : 1);
}

static uint32_t keep_min_p(struct sampler *s, uint32_t n, float min_p)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < n; i++)
        if (nm_exp(s->value[s->ids[i]]) >= min_p)
            s->ids[kept++] = s->ids[i];
    return kept;
}

/* No less than nm_gumbel(word): its E is at least v, and v at least 2^(-1 - leading zeros). The
 * slack is far above the rounding errors of both. */
static float gumbel_bound(uint32_t word)
{
    uint32_t zeros = word == 0 ? 32 : (uint32_t)__builtin_clz(word);

    return 0.6931472f * (float)(1 + zeros) + 0.01f;
}

/* argmax of z + nm_token_gumbel(seed, position, id) over the survivors. One Philox block serves
 * four neighbouring ids; the logarithms are only taken where they can win. */
static uint32_t draw_gumbel(const struct sampler *s, uint32_t n, uint64_t seed, uint32_t position)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t words[4] = {0}, block = UINT32_MAX;
    uint32_t best = s->ids[0];
    float best_sum = -INFINITY;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t id = s->ids[i];
        if (id / 4 != block) {
            block = id / 4;
            const uint32_t counter[4] = {block, position, 0, 0};
            philox4x32(counter, key, words);
        }
        if (s->value[id] + gumbel_bound(words[id % 4]) < best_sum)
            continue;
        float sum = s->value[id] + nm_gumbel(words[id % 4]);
        if (sum > best_sum) {
            best_sum = sum;
            best = id;
        }
    }
    return best;
}

int32_t sampler_draw(struct sampler *s, const struct sampling *params, const float *logits,
                     const int32_t *history, size_t n_history, uint64_t position)
{
    uint32_t n = 0;

    CHECK(position <= UINT32_MAX);
    logits_copy(s, logits);
    if (has_penalties(params))
        penalties_apply(s, params, history, n_history);
    uint32_t best = best_id(s);
    float greatest = s->value[best];
    if (params->temperature == 0.0f || greatest == -INFINITY)
        return (int32_t)best;
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        float z = (s->value[id] - greatest) / params->temperature;
        s->value[id] = z;
        if (z != -INFINITY)
            s->ids[n++] = id;
    }
    if (params->top_k > 0 && params->top_k < n)
        n = keep_best(s, n, false, params->top_k);
    if (params->top_p < 1.0f)
        n = keep_top_p(s, n, params->top_p);
    if (params->min_p > 0.0f)
        n = keep_min_p(s, n, params->min_p);
    return (int32_t)draw_gumbel(s, n, params->seed, (uint32_t)position);
}
