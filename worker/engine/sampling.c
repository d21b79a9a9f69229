#include "worker/engine/sampling.h"

#include "common/check.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * Every filter keeps a prefix of some order, so it is told by the last id it keeps: the next one
 * works on a list of survivors where there is one, and the draw walks the whole row once more with
 * a few comparisons to pass (struct sample_filter). Where a prefix ends is found by weighing ids
 * into buckets of their key, and then within one bucket by the bits of the key.
 */

#define KEY_BUCKETS    2048u
#define KEY_PER_UNIT   64.0f
#define HISTOGRAM_SIZE 2048u

/* top-p looks for its border among ids down to here first. */
#define NEAR_Z -6.0f

struct sampler {
    uint32_t n_vocab;
    const struct sample_kernels *kernels;
    struct sample_row row;
    uint32_t n_blocks;

    float *block_max; /* [n_blocks] */
    uint32_t *own_at; /* [n_blocks] */
    float *own;       /* [n_blocks][64] */
    uint32_t n_own;

    /* Candidates, by ascending id; room for whole blocks. */
    uint32_t *ids;
    float *z;
    float *key;
    uint64_t *mass;
    uint32_t *inside; /* of these, by index, in one bucket */
    uint32_t n;

    uint32_t *times; /* [n_vocab] occurrences in the history; all 0 between draws */
    uint64_t histogram[HISTOGRAM_SIZE];
};

struct sampling sampling_default(void)
{
    return (struct sampling){
        .temperature = 0.0f,
        .typical_p = 1.0f,
        .top_p = 1.0f,
        .repetition_penalty = 1.0f,
    };
}

/* ---- what is allowed ------------------------------------------------------------------------ */

static enum err range_error(struct errbuf *eb, const char *name, float value, const char *range)
{
    return err_set(eb, ERR_INVALID, "%s is %g; it must be %s", name, (double)value, range);
}

static int bias_compare(const void *a, const void *z)
{
    const struct sampling_bias *x = a, *y = z;

    return x->id < y->id ? -1 : x->id > y->id;
}

static enum err check_biases(const struct sampling *s, struct errbuf *eb)
{
    struct sampling_bias sorted[LIMIT_LOGIT_BIASES];

    if (s->n_biases > LIMIT_LOGIT_BIASES)
        return err_set(eb, ERR_INVALID, "logit_bias has %zu ids; at most %u are allowed",
                       s->n_biases, LIMIT_LOGIT_BIASES);
    for (size_t i = 0; i < s->n_biases; i++) {
        const struct sampling_bias *b = &s->biases[i];
        if (b->id < 0)
            return err_set(eb, ERR_INVALID, "logit_bias has the token id %d; ids begin at 0",
                           b->id);
        if (!(b->bias >= -100.0f && b->bias <= 100.0f))
            return err_set(eb, ERR_INVALID, "logit_bias of token %d is %g; it must be -100 to 100",
                           b->id, (double)b->bias);
        sorted[i] = *b;
    }
    qsort(sorted, s->n_biases, sizeof sorted[0], bias_compare);
    for (size_t i = 1; i < s->n_biases; i++)
        if (sorted[i].id == sorted[i - 1].id)
            return err_set(eb, ERR_INVALID, "logit_bias has token %d twice", sorted[i].id);
    return ERR_OK;
}

enum err sampling_check(const struct sampling *s, struct errbuf *eb)
{
    if (!(s->temperature >= 0.0f && s->temperature <= 100.0f))
        return range_error(eb, "temperature", s->temperature, "0 to 100");
    if (!(s->typical_p > 0.0f && s->typical_p <= 1.0f))
        return range_error(eb, "typical_p", s->typical_p, "above 0 and at most 1");
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
    if (s->top_logprobs > LIMIT_TOP_LOGPROBS)
        return err_set(eb, ERR_INVALID, "top_logprobs is %u; it must be 0 to %u", s->top_logprobs,
                       LIMIT_TOP_LOGPROBS);
    if (s->top_logprobs > 0 && !s->logprobs)
        return err_set(eb, ERR_INVALID, "top_logprobs is %u, but logprobs are not asked for",
                       s->top_logprobs);
    return check_biases(s, eb);
}

enum err sampling_check_vocab(const struct sampling *s, uint32_t n_vocab, struct errbuf *eb)
{
    for (size_t i = 0; i < s->n_biases; i++)
        if ((uint32_t)s->biases[i].id >= n_vocab)
            return err_set(eb, ERR_INVALID, "logit_bias has token %d; the model's ids are 0 to %u",
                           s->biases[i].id, n_vocab - 1);
    return ERR_OK;
}

/* ---- memory --------------------------------------------------------------------------------- */

static uint32_t block_count(uint32_t n_vocab)
{
    return (n_vocab + SAMPLE_BLOCK - 1) / SAMPLE_BLOCK;
}

uint64_t sampler_bytes(uint32_t n_vocab)
{
    uint64_t blocks = block_count(n_vocab), room = blocks * SAMPLE_BLOCK;

    return sizeof(struct sampler) + blocks * (sizeof(float) + sizeof(uint32_t)) +
           room * (3 * sizeof(float) + 2 * sizeof(uint32_t) + sizeof(uint64_t)) +
           n_vocab * sizeof(uint32_t);
}

struct sampler *sampler_new(uint32_t n_vocab, const struct sample_kernels *kernels)
{
    struct sampler *s = calloc(1, sizeof *s);
    size_t room;

    CHECK(n_vocab > 0 && n_vocab <= 1u << 23);
    if (s == NULL)
        return NULL;
    s->n_vocab = n_vocab;
    s->kernels = kernels;
    s->n_blocks = block_count(n_vocab);
    room = (size_t)s->n_blocks * SAMPLE_BLOCK;
    s->block_max = calloc(s->n_blocks, sizeof *s->block_max);
    s->own_at = calloc(s->n_blocks, sizeof *s->own_at);
    s->ids = calloc(room, sizeof *s->ids);
    s->z = calloc(room, sizeof *s->z);
    s->key = calloc(room, sizeof *s->key);
    s->mass = calloc(room, sizeof *s->mass);
    s->inside = calloc(room, sizeof *s->inside);
    s->own = calloc(room, sizeof *s->own);
    s->times = calloc(n_vocab, sizeof *s->times);
    if (s->block_max == NULL || s->own_at == NULL || s->ids == NULL || s->z == NULL ||
        s->key == NULL || s->mass == NULL || s->inside == NULL || s->own == NULL ||
        s->times == NULL) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s)
{
    if (s == NULL)
        return;
    free(s->block_max);
    free(s->own_at);
    free(s->own);
    free(s->ids);
    free(s->z);
    free(s->key);
    free(s->mass);
    free(s->inside);
    free(s->times);
    free(s);
}

/* ---- the row, bias and penalties ------------------------------------------------------------ */

/* The block as one of its own, which may be written to. */
static float *block_own(struct sampler *s, uint32_t block)
{
    if (s->own_at[block] == 0) {
        uint32_t first = block * SAMPLE_BLOCK;
        uint32_t n = s->n_vocab - first < SAMPLE_BLOCK ? s->n_vocab - first : SAMPLE_BLOCK;
        float *to = s->own + (size_t)s->n_own * SAMPLE_BLOCK;
        memcpy(to, s->row.logits + first, n * sizeof *to);
        for (uint32_t i = n; i < SAMPLE_BLOCK; i++)
            to[i] = -INFINITY;
        s->own_at[block] = ++s->n_own;
    }
    return s->own + (size_t)(s->own_at[block] - 1) * SAMPLE_BLOCK;
}

static float *logit_own(struct sampler *s, int32_t id)
{
    uint32_t block = (uint32_t)id / SAMPLE_BLOCK;

    return block_own(s, block) + (uint32_t)id % SAMPLE_BLOCK;
}

static void row_begin(struct sampler *s, const float *logits)
{
    memset(s->own_at, 0, s->n_blocks * sizeof *s->own_at);
    s->n_own = 0;
    s->row = (struct sample_row){
        .logits = logits,
        .own = s->own,
        .own_at = s->own_at,
        .n_blocks = s->n_blocks,
        .block_max = s->block_max,
    };
    if (s->n_vocab % SAMPLE_BLOCK != 0)
        (void)block_own(s, s->n_blocks - 1);
}

/* Infinite logits become the largest float so that differences stay numbers. */
static float logit_tame(float logit)
{
    if (isnan(logit))
        return -INFINITY;
    return logit > FLT_MAX ? FLT_MAX : logit;
}

static void biases_apply(struct sampler *s, const struct sampling *p)
{
    for (size_t i = 0; i < p->n_biases; i++) {
        if (p->biases[i].id < 0 || (uint32_t)p->biases[i].id >= s->n_vocab)
            continue;
        float *logit = logit_own(s, p->biases[i].id);
        *logit = logit_tame(logit_tame(*logit) + p->biases[i].bias);
    }
}

static bool has_penalties(const struct sampling *p)
{
    return p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f ||
           p->frequency_penalty != 0.0f;
}

struct pick sampling_pick(const struct sampling *s, uint32_t n_vocab, uint64_t position)
{
    struct pick pick = {.kind = PICK_ROW,
                        .temperature = s->temperature,
                        .min_p = s->min_p,
                        .position = (uint32_t)position,
                        .seed = s->seed};

    if (s->n_biases > 0 || has_penalties(s) || s->logprobs)
        return pick;
    if (s->temperature == 0.0f) {
        pick.kind = PICK_BEST;
    } else if (s->top_k > 0 && s->top_k < n_vocab) {
        pick.kind = s->top_k <= PICK_LIST_MAX ? PICK_LIST : PICK_ROW;
        pick.count = s->top_k;
    } else if (s->typical_p == 1.0f) {
        pick.kind = s->top_p < 1.0f ? PICK_LIST : PICK_DRAW;
        pick.count = PICK_LIST_MAX;
        pick.with_mass = pick.kind == PICK_LIST;
    }
    return pick;
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
        float *logit = logit_own(s, history[i]);
        float value = logit_tame(*logit);
        value = value > 0.0f ? value / p->repetition_penalty : value * p->repetition_penalty;
        value -= p->presence_penalty;
        value -= p->frequency_penalty * (float)s->times[history[i]];
        *logit = logit_tame(value);
        s->times[history[i]] = 0;
    }
}

/* The greatest logit and the lowest id that has it: 0 where none is above -infinity. Completes the
 * row but for its temperature. */
static uint32_t row_best(struct sampler *s)
{
    uint32_t best = 0;

    s->kernels->block_max(&s->row, s->block_max);
    for (uint32_t block = 1; block < s->n_blocks; block++)
        if (logit_tame(s->block_max[block]) > logit_tame(s->block_max[best]))
            best = block;
    s->row.greatest = logit_tame(s->block_max[best]);
    if (s->row.greatest == -INFINITY)
        return 0;
    const float *x = s->own_at[best] == 0 ? s->row.logits + (size_t)best * SAMPLE_BLOCK
                                          : s->own + (size_t)(s->own_at[best] - 1) * SAMPLE_BLOCK;
    for (uint32_t i = 0; i < SAMPLE_BLOCK; i++)
        if (logit_tame(x[i]) == s->row.greatest)
            return best * SAMPLE_BLOCK + i;
    CHECK(false);
    return 0;
}

/* ---- where a prefix ends -------------------------------------------------------------------- */

/* A float as an unsigned number in the same order; + 0 makes one zero of the two. */
static uint32_t order_key(float x)
{
    uint32_t bits;

    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* Keys are 0 and below. Greater keys have lower buckets; the last one takes all that is far. */
static uint32_t key_bucket(float key)
{
    float at = key * -KEY_PER_UNIT;

    return at < (float)(KEY_BUCKETS - 1) ? (uint32_t)at : KEY_BUCKETS - 1;
}

/* One key after the other by its bits: n candidates, all in one bucket. Returns the index of the
 * one at which the weight reaches `need`. */
static uint32_t prefix_end_inside(struct sampler *s, uint32_t n, const float *key,
                                  const uint64_t *weight, uint64_t need)
{
    static const uint32_t shifts[3] = {21, 10, 0};
    static const uint32_t widths[3] = {11, 11, 10};
    const uint32_t *at = s->inside;
    uint32_t prefix = 0, decided = 0;

    for (uint32_t pass = 0; pass < 3; pass++) {
        uint32_t digits = (1u << widths[pass]) - 1;
        memset(s->histogram, 0, sizeof s->histogram);
        for (uint32_t i = 0; i < n; i++) {
            uint32_t bits = order_key(key[at[i]]);
            if ((bits & decided) == prefix)
                s->histogram[(bits >> shifts[pass]) & digits] += weight ? weight[at[i]] : 1;
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
    for (uint32_t i = 0; i < n; i++) {
        if (order_key(key[at[i]]) != prefix)
            continue;
        uint64_t w = weight ? weight[at[i]] : 1;
        if (w >= need)
            return at[i];
        need -= w;
    }
    CHECK(false);
    return 0;
}

/* The last of the shortest prefix of the order (key descending, index ascending) that weighs `need`
 * or more, at least 1; all n must weigh that much together. Without weights each weighs 1. */
static uint32_t prefix_end(struct sampler *s, uint32_t n, const float *key, const uint64_t *weight,
                           uint64_t need)
{
    uint32_t bucket = 0, n_inside = 0;

    memset(s->histogram, 0, sizeof s->histogram);
    for (uint32_t i = 0; i < n; i++)
        s->histogram[key_bucket(key[i])] += weight ? weight[i] : 1;
    while (s->histogram[bucket] < need) {
        need -= s->histogram[bucket];
        CHECK(bucket + 1 < KEY_BUCKETS);
        bucket++;
    }
    for (uint32_t i = 0; i < n; i++) {
        s->inside[n_inside] = i;
        n_inside += key_bucket(key[i]) == bucket;
    }
    return prefix_end_inside(s, n_inside, key, weight, need);
}

/* ---- the filters ---------------------------------------------------------------------------- */

/* The candidates that the filter lets pass, in place. */
static void candidates_keep(struct sampler *s, const struct sample_filter *filter)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < s->n; i++)
        if (sample_filter_keeps(filter, s->z[i], s->ids[i])) {
            s->ids[kept] = s->ids[i];
            s->z[kept] = s->z[i];
            kept++;
        }
    s->n = kept;
}

static void filter_end_at(struct sampler *s, struct sample_filter *filter, uint32_t last)
{
    filter->last_z = s->z[last];
    filter->last_id = s->ids[last];
    filter->floor = filter->last_z > filter->floor ? filter->last_z : filter->floor;
}

/* A z that at least k ids reach, and not many more: the k-th greatest of the blocks' best. */
static float reached_by(struct sampler *s, uint32_t k)
{
    const struct sample_row *row = &s->row;

    if (k > s->n_blocks)
        return -INFINITY;
    for (uint32_t block = 0; block < s->n_blocks; block++) {
        float z = (logit_tame(s->block_max[block]) - row->greatest) / row->temperature;
        s->key[block] = z;
    }
    return s->key[prefix_end(s, s->n_blocks, s->key, NULL, k)];
}

/* Leaves the survivors as candidates. False where there are not as many as k. */
static bool keep_top_k(struct sampler *s, struct sample_filter *filter, uint32_t k)
{
    s->n = s->kernels->gather(&s->row, reached_by(s, k), s->ids, s->z);
    if (k > s->n)
        return false;
    filter_end_at(s, filter, prefix_end(s, s->n, s->z, NULL, k));
    candidates_keep(s, filter);
    return true;
}

/* The share p of a sum of masses, at least 1. */
static uint64_t mass_share(float p, uint64_t total)
{
    uint64_t need = (uint64_t)((double)p * (double)total);

    need = need < total ? need : total;
    return need > 0 ? need : 1;
}

/* Candidates are there. */
static void keep_typical(struct sampler *s, struct sample_filter *filter, float typical_p)
{
    uint64_t total = s->kernels->masses(s->z, s->n, s->mass);
    uint64_t weighted = 0;

    /* p * -z is at most 2^40 / e: 2^23 of them fit. */
    for (uint32_t i = 0; i < s->n; i++)
        weighted += (uint64_t)((double)s->mass[i] * -(double)s->z[i]);
    filter->need_mass = true;
    filter->has_center = true;
    filter->center = -(float)((double)weighted / (double)total);
    for (uint32_t i = 0; i < s->n; i++)
        s->key[i] = -fabsf(s->z[i] - filter->center);
    uint32_t last = prefix_end(s, s->n, s->key, s->mass, mass_share(typical_p, total));
    filter->last_distance = -s->key[last];
    filter->last_distance_id = s->ids[last];
    candidates_keep(s, filter);
    filter->best_z = -INFINITY;
    for (uint32_t i = 0; i < s->n; i++)
        filter->best_z = s->z[i] > filter->best_z ? s->z[i] : filter->best_z;
}

/* The last candidate that is needed for a sum of masses, which are there. */
static void filter_end_by_mass(struct sampler *s, struct sample_filter *filter, uint64_t need)
{
    filter->need_mass = true;
    filter_end_at(s, filter, prefix_end(s, s->n, s->z, s->mass, need));
}

/* With candidates, or among all ids. */
static void keep_top_p(struct sampler *s, struct sample_filter *filter, float top_p, bool listed)
{
    uint64_t need;

    if (listed) {
        need = mass_share(top_p, s->kernels->masses(s->z, s->n, s->mass));
    } else {
        need = mass_share(top_p, s->kernels->mass_sum(&s->row));
        s->n = s->kernels->gather(&s->row, NEAR_Z, s->ids, s->z);
        if (s->kernels->masses(s->z, s->n, s->mass) < need) {
            s->n = s->kernels->gather(&s->row, SAMPLE_MASS_Z_MIN, s->ids, s->z);
            (void)s->kernels->masses(s->z, s->n, s->mass);
        }
    }
    filter_end_by_mass(s, filter, need);
}

static void keep_min_p(struct sample_filter *filter, float min_p)
{
    /* Far enough below for the rounding of both functions; the filter itself is exact. */
    float floor = filter->best_z + nm_log(min_p) - 0.001f;

    filter->min_p = min_p;
    filter->floor = floor > filter->floor ? floor : filter->floor;
}

static const struct sample_filter filter_open = {
    .floor = -INFINITY, .last_z = -INFINITY, .last_id = UINT32_MAX};

/* What comes behind top-k. */
static void filters_behind(struct sampler *s, struct sample_filter *filter,
                           const struct sampling *p, bool listed)
{
    if (p->typical_p < 1.0f) {
        if (!listed)
            s->n = s->kernels->gather(&s->row, SAMPLE_MASS_Z_MIN, s->ids, s->z);
        keep_typical(s, filter, p->typical_p);
        listed = true;
    }
    if (p->top_p < 1.0f)
        keep_top_p(s, filter, p->top_p, listed);
    if (p->min_p > 0.0f)
        keep_min_p(filter, p->min_p);
}

static struct sample_filter filters_apply(struct sampler *s, const struct sampling *p)
{
    struct sample_filter filter = filter_open;
    bool listed = p->top_k > 0 && p->top_k < s->n_vocab && keep_top_k(s, &filter, p->top_k);

    filters_behind(s, &filter, p, listed);
    return filter;
}

/* ---- the draw ------------------------------------------------------------------------------- */

int32_t sampler_draw(struct sampler *s, const struct sampling *params, const float *logits,
                     const int32_t *history, size_t n_history, uint64_t position)
{
    CHECK(position <= UINT32_MAX);
    row_begin(s, logits);
    biases_apply(s, params);
    if (has_penalties(params))
        penalties_apply(s, params, history, n_history);
    uint32_t greatest = row_best(s);
    if (params->temperature == 0.0f || s->row.greatest == -INFINITY)
        return (int32_t)greatest;
    s->row.temperature = params->temperature;
    struct sample_filter filter = filters_apply(s, params);
    struct sample_best best = {.sum = -INFINITY, .id = UINT32_MAX};
    /* The greatest is a good sum to beat, where it may be drawn: not always with `typical`. */
    if (sample_filter_keeps(&filter, 0.0f, greatest))
        best = (struct sample_best){
            .sum = nm_token_gumbel(params->seed, (uint32_t)position, greatest), .id = greatest};
    s->kernels->draw(&s->row, &filter, params->seed, (uint32_t)position, &best);
    CHECK(best.id < s->n_vocab);
    return (int32_t)best.id;
}

/* The likeliest of a row, and the sum of all its masses. False where they are too few. */
static bool keep_top_p_of(struct sampler *s, struct sample_filter *filter, const struct sampling *p,
                          uint64_t total)
{
    uint64_t need = mass_share(p->top_p, total);

    if (s->kernels->masses(s->z, s->n, s->mass) < need)
        return false;
    filter_end_by_mass(s, filter, need);
    if (p->min_p > 0.0f)
        keep_min_p(filter, p->min_p);
    return true;
}

static uint32_t draw_listed(const struct sampler *s, const struct sample_filter *filter,
                            const struct pick *pick)
{
    struct sample_best best = {.sum = -INFINITY, .id = UINT32_MAX};

    for (uint32_t i = 0; i < s->n; i++) {
        if (!(s->z[i] + SAMPLE_GUMBEL_MAX >= best.sum) ||
            !sample_filter_keeps(filter, s->z[i], s->ids[i]))
            continue;
        float sum = s->z[i] + nm_token_gumbel(pick->seed, pick->position, s->ids[i]);
        if (sum > best.sum) /* ids ascend */
            best = (struct sample_best){.sum = sum, .id = s->ids[i]};
    }
    return best.id;
}

bool sampler_draw_picked(struct sampler *s, const struct sampling *params, const struct pick *pick,
                         const struct picked *picked, int32_t *ret_id)
{
    struct sample_filter filter = filter_open;

    CHECK(pick->kind != PICK_ROW);
    if (pick->kind != PICK_LIST || picked->n == 0) {
        *ret_id = (int32_t)picked->id;
        return true;
    }
    if (picked->n == PICKED_MANY)
        return false;
    CHECK(picked->n <= pick->count);
    s->n = picked->n;
    memcpy(s->ids, picked->ids, picked->n * sizeof *s->ids);
    memcpy(s->z, picked->z, picked->n * sizeof *s->z);
    if (pick->with_mass == 0)
        filters_behind(s, &filter, params, true);
    else if (!keep_top_p_of(s, &filter, params, picked->mass))
        return false;
    uint32_t id = draw_listed(s, &filter, pick);
    CHECK(id < s->n_vocab);
    *ret_id = (int32_t)id;
    return true;
}

/* ---- logprobs ------------------------------------------------------------------------------- */

static float logprob_of(float z, float log_total)
{
    float logprob = z - log_total;

    /* A NaN, which has no probability either, fails the comparison. */
    return logprob > SAMPLING_LOGPROB_MIN ? logprob : SAMPLING_LOGPROB_MIN;
}

static bool logprob_before(const struct sampling_logprob *a, const struct sampling_logprob *z)
{
    return a->logprob > z->logprob || (a->logprob == z->logprob && a->id < z->id);
}

/* The n_top best candidates, by insertion: candidates are few and so are these. Their logprob
 * field holds z meanwhile. */
static void logprobs_top(struct sampler *s, uint32_t n_top, struct sampling_logprobs *ret)
{
    for (uint32_t i = 0; i < s->n; i++) {
        struct sampling_logprob one = {.id = (int32_t)s->ids[i], .logprob = s->z[i]};
        uint32_t at = ret->n_top;
        if (at == n_top && (at == 0 || !logprob_before(&one, &ret->top[at - 1])))
            continue;
        if (at < n_top)
            ret->n_top++;
        else
            at--;
        for (; at > 0 && logprob_before(&one, &ret->top[at - 1]); at--)
            ret->top[at] = ret->top[at - 1];
        ret->top[at] = one;
    }
}

void sampler_logprobs(struct sampler *s, const float *logits, int32_t drawn, uint32_t n_top,
                      struct sampling_logprobs *ret_logprobs)
{
    CHECK(n_top <= LIMIT_TOP_LOGPROBS && drawn >= 0 && (uint32_t)drawn < s->n_vocab);
    *ret_logprobs =
        (struct sampling_logprobs){.drawn = {.id = drawn, .logprob = SAMPLING_LOGPROB_MIN}};
    row_begin(s, logits);
    (void)row_best(s);
    if (s->row.greatest == -INFINITY)
        return;
    s->row.temperature = 1.0f;
    float log_total = nm_log((float)((double)s->kernels->mass_sum(&s->row) * 0x1p-40));
    ret_logprobs->drawn.logprob =
        logprob_of(logit_tame(logits[drawn]) - s->row.greatest, log_total);
    if (n_top == 0)
        return;
    s->n = s->kernels->gather(&s->row, reached_by(s, n_top), s->ids, s->z);
    logprobs_top(s, n_top, ret_logprobs);
    for (uint32_t i = 0; i < ret_logprobs->n_top; i++)
        ret_logprobs->top[i].logprob = logprob_of(ret_logprobs->top[i].logprob, log_total);
}
