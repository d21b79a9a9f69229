/* sampling: what is drawn is what the stated order says, by an oracle that sorts everything. */
#include "common/check.h"
#include "tests/unit/engine/sample_wide.h"
#include "worker/engine/sampling.h"
#include "worker/kernels/numerics.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_MAX 512

static uint32_t word_at(uint32_t seed, uint32_t index)
{
    return philox_token_word(seed, 0, index);
}

static float uniform_at(uint32_t seed, uint32_t index)
{
    return (float)(word_at(seed, index) >> 8) * 0x1p-24f;
}

/* What this machine can run, the plain one first. */
static size_t kernels_here(const struct sample_kernels *ret[4])
{
    static const enum backend_isa isas[3] = {BACKEND_ISA_SCALAR, BACKEND_ISA_AVX2,
                                             BACKEND_ISA_AVX512};
    size_t n = 0;

    for (size_t i = 0; i < 3; i++)
        if (sample_kernels_of(isas[i]) != NULL)
            ret[n++] = sample_kernels_of(isas[i]);
    ret[n++] = &sample_kernels_wide;
    return n;
}

struct ranked {
    float z;
    float key; /* what it is sorted by, descending */
    uint32_t id;
};

static int ranked_compare(const void *va, const void *vb)
{
    const struct ranked *a = va, *b = vb;

    if (a->key != b->key)
        return a->key > b->key ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

static uint64_t oracle_mass(float z)
{
    return (uint64_t)((double)nm_exp(z) * 0x1p40);
}

/* The fewest, in the present order, that weigh the share p. Those without weight go. */
static uint32_t oracle_share(struct ranked *r, uint32_t n, float p)
{
    uint64_t total = 0, sum = 0;
    uint32_t with_mass = 0, kept = 0;

    for (uint32_t i = 0; i < n; i++)
        if (oracle_mass(r[i].z) > 0) {
            total += oracle_mass(r[i].z);
            r[with_mass++] = r[i];
        }
    uint64_t need = (uint64_t)((double)p * (double)total);
    while (kept == 0 || sum < need)
        sum += oracle_mass(r[kept++].z);
    return kept;
}

static void oracle_sort_by_z(struct ranked *r, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        r[i].key = r[i].z;
    qsort(r, n, sizeof r[0], ranked_compare);
}

static uint32_t oracle_typical(struct ranked *r, uint32_t n, float p)
{
    uint64_t total = 0, weighted = 0;

    for (uint32_t i = 0; i < n; i++) {
        total += oracle_mass(r[i].z);
        if (oracle_mass(r[i].z) > 0)
            weighted += (uint64_t)((double)oracle_mass(r[i].z) * -(double)r[i].z);
    }
    float mean = -(float)((double)weighted / (double)total);
    for (uint32_t i = 0; i < n; i++)
        r[i].key = -fabsf(r[i].z - mean);
    qsort(r, n, sizeof r[0], ranked_compare);
    return oracle_share(r, n, p);
}

static float oracle_penalized(const struct sampling *p, float logit, uint32_t times)
{
    if (times == 0)
        return logit;
    logit = logit > 0.0f ? logit / p->repetition_penalty : logit * p->repetition_penalty;
    logit -= p->presence_penalty;
    logit -= p->frequency_penalty * (float)times;
    return fminf(logit, FLT_MAX);
}

/* The header's text word by word: a full sort at each step, no shortcuts. */
static int32_t oracle_draw(const struct sampling *p, const float *logits, uint32_t n_vocab,
                           const int32_t *history, size_t n_history, uint32_t position)
{
    struct ranked r[N_MAX];
    float own[N_MAX], greatest = -INFINITY, best_sum = 0.0f;
    uint32_t n = 0, best = 0;

    CHECK(n_vocab <= N_MAX);
    for (uint32_t i = 0; i < n_vocab; i++) {
        own[i] = isnan(logits[i]) ? -INFINITY : fminf(logits[i], FLT_MAX);
        for (size_t k = 0; k < p->n_biases; k++)
            if ((uint32_t)p->biases[k].id == i)
                own[i] += p->biases[k].bias;
        uint32_t times = 0;
        for (size_t k = 0; k < n_history; k++)
            times += history[k] == (int32_t)i;
        own[i] = oracle_penalized(p, own[i], times);
        greatest = fmaxf(greatest, own[i]);
    }
    if (greatest == -INFINITY)
        return 0;
    for (uint32_t i = 0; i < n_vocab; i++) {
        float z = p->temperature == 0.0f ? (own[i] == greatest ? 0.0f : -INFINITY)
                                         : (own[i] - greatest) / p->temperature;
        if (z != -INFINITY)
            r[n++] = (struct ranked){.z = z, .id = i};
    }
    oracle_sort_by_z(r, n);
    if (p->temperature == 0.0f)
        return (int32_t)r[0].id;
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    if (p->typical_p < 1.0f) {
        n = oracle_typical(r, n, p->typical_p);
        oracle_sort_by_z(r, n);
    }
    if (p->top_p < 1.0f)
        n = oracle_share(r, n, p->top_p);
    if (p->min_p > 0.0f) {
        float best_z = r[0].z;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++)
            if (nm_exp(r[i].z - best_z) >= p->min_p)
                r[kept++] = r[i];
        n = kept;
    }
    CHECK(n > 0);
    for (uint32_t i = 0; i < n; i++) {
        float sum = r[i].z + nm_token_gumbel(p->seed, position, r[i].id);
        if (i == 0 || sum > best_sum || (sum == best_sum && r[i].id < best)) {
            best_sum = sum;
            best = r[i].id;
        }
    }
    return (int32_t)best;
}

/* Shapes of rows that filters and ties find hard. */
static float hard_logit(uint32_t shape, uint32_t seed, uint32_t i)
{
    float u = uniform_at(seed, i);

    switch (shape) {
    case 0: /* every third is one of four values, so that ties are everywhere */
        return i % 3 == 0 ? (float)(word_at(seed, i) % 4) : 16.0f * u - 12.0f;
    case 1: /* all nearly the same */
        return 3.0f + 1e-6f * (float)(word_at(seed, i) % 3);
    case 2: /* some are no numbers, or no ordinary ones */
        return word_at(seed, i) % 5 == 0    ? NAN
               : word_at(seed, i) % 7 == 0  ? -INFINITY
               : word_at(seed, i) % 97 == 0 ? INFINITY
               : word_at(seed, i) % 89 == 0 ? FLT_MAX
                                            : 8.0f * u;
    default: /* far apart */
        return 1e4f * (u - 0.5f);
    }
}

static void draws_equal_the_sorted_oracle(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 17, 64, 128, 509};
    static const float temperatures[] = {0.0f, 1e-6f, 0.3f, 1.0f, 100.0f};
    static const uint32_t ks[] = {0, 1, 2, 7, 40, 508, 100000};
    static const float typicals[] = {1e-9f, 0.2f, 0.9f, 1.0f};
    static const float ps[] = {1e-9f, 0.05f, 0.9f, 0.9999999f, 1.0f};
    static const float min_ps[] = {0.0f, 1e-6f, 0.1f, 0.99f};
    static const float repetitions[] = {1.0f, 1.3f, 0.5f, 3.0f};
    static const float presences[] = {0.0f, 1.5f, -1.0f};
    static const float frequencies[] = {0.0f, 0.4f, -0.3f};
#define PICK(list, i) list[(i) % (sizeof list / sizeof list[0])]
    const struct sample_kernels *kernels[4];
    size_t n_kernels = kernels_here(kernels);
    float logits[N_MAX];
    int32_t history[12];

    (void)state;
    /* Steps that share no divisor with a list's length: all pairs come up, most triples too. */
    for (uint32_t round = 0; round < 4000; round++) {
        uint32_t n = PICK(sizes, round), shape = word_at(11, round) % 4;
        struct sampling params = sampling_default();
        params.temperature = PICK(temperatures, word_at(12, round));
        params.top_k = PICK(ks, word_at(13, round));
        params.typical_p = word_at(14, round) % 2 ? 1.0f : PICK(typicals, word_at(15, round));
        params.top_p = PICK(ps, word_at(16, round));
        params.min_p = PICK(min_ps, word_at(17, round));
        params.seed = round;
        struct sampling_bias biases[2] = {{(int32_t)(word_at(18, round) % n), 3.5f},
                                          {(int32_t)n - 1, -100.0f}};
        params.biases = biases;
        params.n_biases = word_at(19, round) % 3;
        if (params.n_biases == 2 && biases[0].id == biases[1].id)
            params.n_biases = 1;
        for (uint32_t i = 0; i < n; i++)
            logits[i] = hard_logit(shape, round, i);
        params.repetition_penalty = PICK(repetitions, word_at(20, round));
        params.presence_penalty = PICK(presences, word_at(21, round));
        params.frequency_penalty = PICK(frequencies, word_at(22, round));
        /* In every other round ids that were there before, those with a bias among them. */
        size_t n_history = round % 2 == 0 ? 0 : 1 + word_at(23, round) % 12;
        for (uint32_t i = 0; i < n_history; i++)
            history[i] = (int32_t)(word_at(24, 16 * round + i) % (n < 12 ? n : 12));
        if (n_history > 0)
            history[0] = biases[0].id;
        for (size_t k = 0; k < n_kernels; k++) {
            struct sampler *sampler = sampler_new(n, kernels[k]);
            for (uint32_t position = 0; position < 4; position++) {
                int32_t expect = oracle_draw(&params, logits, n, history, n_history, position);
                int32_t id = sampler_draw(sampler, &params, logits, history, n_history, position);
                if (id != expect)
                    fail_msg("round %u position %u, %s: %d, not %d", round, position,
                             kernels[k]->name, id, expect);
            }
            sampler_free(sampler);
        }
    }
#undef PICK
}

/* A vocabulary as large as they come, where blocks are passed over and borders are searched in
 * steps: every kernel draws what the plain one draws, and that is what survives a plain search. */
static void large_vocabularies_draw_the_same_on_every_kernel(void **state)
{
    enum { N = 262144 - 3 };
    static const struct sampling rows[] = {
        {.temperature = 1, .typical_p = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1, .typical_p = 1, .top_p = 0.95f, .repetition_penalty = 1},
        {.temperature = 4, .typical_p = 1, .top_p = 0.999f, .repetition_penalty = 1},
        {.temperature = 1, .typical_p = 0.9f, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 1, .top_k = 5000, .typical_p = 1, .top_p = 1, .repetition_penalty = 1},
        {.temperature = 1, .top_k = 40, .typical_p = 1, .top_p = 0.9f, .repetition_penalty = 1},
        {.temperature = 2, .typical_p = 1, .top_p = 1, .min_p = 0.01f, .repetition_penalty = 1.2f},
    };
    const struct sample_kernels *kernels[4];
    size_t n_kernels = kernels_here(kernels);
    float *logits = calloc(N, sizeof *logits);
    int32_t history[100];
    struct sampler *samplers[4];

    (void)state;
    for (uint32_t i = 0; i < N; i++)
        logits[i] = 10.0f * uniform_at(5, i) * uniform_at(6, i);
    for (uint32_t i = 0; i < 100; i++)
        history[i] = (int32_t)(word_at(8, i) % N);
    for (size_t k = 0; k < n_kernels; k++)
        samplers[k] = sampler_new(N, kernels[k]);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
        for (uint32_t position = 0; position < 3; position++) {
            int32_t first = sampler_draw(samplers[0], &rows[r], logits, history, 100, position);
            for (size_t k = 1; k < n_kernels; k++) {
                int32_t id = sampler_draw(samplers[k], &rows[r], logits, history, 100, position);
                if (id != first)
                    fail_msg("row %zu position %u: %s draws %d, %s %d", r, position,
                             kernels[k]->name, id, kernels[0]->name, first);
            }
        }
    /* Without filters: no id's sum is greater. */
    for (uint32_t position = 0; position < 3; position++) {
        int32_t best = 0;
        float greatest = -INFINITY, best_sum = -INFINITY;
        for (uint32_t i = 0; i < N; i++)
            greatest = fmaxf(greatest, logits[i]);
        for (uint32_t i = 0; i < N; i++) {
            float sum = logits[i] - greatest + nm_token_gumbel(0, position, i);
            if (sum > best_sum) {
                best_sum = sum;
                best = (int32_t)i;
            }
        }
        assert_int_equal(sampler_draw(samplers[0], &rows[0], logits, NULL, 0, position), best);
    }
    for (size_t k = 0; k < n_kernels; k++)
        sampler_free(samplers[k]);
    free(logits);
}

/* One token far above a crowd, each of which needs the luck of one in a hundred thousand, and some
 * of which have it: nobody is passed over who could have won. */
static void a_crowd_far_below_wins_its_share(void **state)
{
    enum { N = 262144, N_DRAWS = 24 };
    const struct sample_kernels *kernels[4];
    size_t n_kernels = kernels_here(kernels);
    float *logits = calloc(N, sizeof *logits);
    uint32_t of_the_crowd = 0;

    (void)state;
    for (uint32_t i = 0; i < N; i++)
        logits[i] = i == N / 2 ? 0.0f : -12.0f - uniform_at(3, i);
    for (uint32_t position = 0; position < N_DRAWS; position++) {
        struct sampling params = sampling_default();
        int32_t best = 0;
        float best_sum = -INFINITY;
        params.temperature = 1.0f;
        params.seed = 17;
        for (uint32_t i = 0; i < N; i++) {
            float sum = logits[i] + nm_token_gumbel(17, position, i);
            if (sum > best_sum) {
                best_sum = sum;
                best = (int32_t)i;
            }
        }
        of_the_crowd += best != N / 2;
        for (size_t k = 0; k < n_kernels; k++) {
            struct sampler *s = sampler_new(N, kernels[k]);
            assert_int_equal(sampler_draw(s, &params, logits, NULL, 0, position), best);
            sampler_free(s);
        }
    }
    assert_in_range(of_the_crowd, N_DRAWS / 4, N_DRAWS * 3 / 4); /* their share is a half */
    free(logits);
}

/* The kernels of this machine, counted. */
static struct {
    const struct sample_kernels *kernels;
    uint32_t block_max, mass_sum, gather, draw, gathered;
} counted;

static void counted_block_max(const struct sample_row *row, float *ret_max)
{
    counted.block_max++;
    counted.kernels->block_max(row, ret_max);
}

static uint64_t counted_mass_sum(const struct sample_row *row)
{
    counted.mass_sum++;
    return counted.kernels->mass_sum(row);
}

static uint32_t counted_gather(const struct sample_row *row, float cut, uint32_t *ret_ids,
                               float *ret_z)
{
    uint32_t n = counted.kernels->gather(row, cut, ret_ids, ret_z);

    counted.gather++;
    counted.gathered += n;
    return n;
}

static void counted_draw(const struct sample_row *row, const struct sample_filter *filter,
                         uint64_t seed, uint32_t position, struct sample_best *best)
{
    counted.draw++;
    counted.kernels->draw(row, filter, seed, position, best);
}

/* Passes over a row of 262,144: one for the greatest of each block, and one more only where the sum
 * of all probabilities is asked for. What is looked at beside is a list of few ids, so that there
 * is nothing to sort. */
static void a_large_row_is_passed_over_no_oftener_than_is_needed(void **state)
{
    enum { N = 262144 };
    static const struct {
        const char *what;
        float temperature;
        uint32_t top_k;
        float typical_p, top_p, min_p, presence;
        uint32_t mass_sums, gathers, draws; /* gathers: at most */
        uint32_t gathered;                  /* ids, at most */
    } rows[] = {
        {"greedy", 0, 0, 1, 1, 0, 0, 0, 0, 0, 0},
        {"greedy with all filters", 0, 40, 0.5f, 0.9f, 0.1f, 0, 0, 0, 0, 0},
        {"greedy with a penalty", 0, 0, 1, 1, 0, 1, 0, 0, 0, 0},
        {"temperature", 1, 0, 1, 1, 0, 0, 0, 0, 1, 0},
        {"a penalty", 1, 0, 1, 1, 0, 1, 0, 0, 1, 0},
        {"min-p", 1, 0, 1, 1, 0.05f, 0, 0, 0, 1, 0},
        {"top-k", 1, 40, 1, 1, 0, 0, 0, 1, 1, 400},
        {"top-k, top-p, min-p", 1, 40, 1, 0.9f, 0.05f, 0, 0, 1, 1, 400},
        {"top-k, typical", 1, 40, 0.9f, 1, 0, 0, 0, 1, 1, 400},
        {"top-p", 1, 0, 1, 0.9f, 0, 0, 1, 1, 1, 4000},
        {"typical", 1, 0, 0.9f, 1, 0, 0, 0, 1, 1, N},
    };
    static const int32_t history[3] = {1, 2, 3};
    float *logits = calloc(N, sizeof *logits);

    (void)state;
    counted.kernels = sample_kernels_of(BACKEND_ISA_AUTO);
    const struct sample_kernels kernels = {.name = "counted",
                                           .block_max = counted_block_max,
                                           .mass_sum = counted_mass_sum,
                                           .gather = counted_gather,
                                           .masses = counted.kernels->masses,
                                           .draw = counted_draw};
    struct sampler *s = sampler_new(N, &kernels);
    /* A thousand ids stand out of a crowd far below, as a model's do. */
    for (uint32_t i = 0; i < N; i++)
        logits[i] = 6.0f * uniform_at(5, i) + (word_at(6, i) % 256 == 0 ? 12.0f : 0.0f);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        p.temperature = rows[r].temperature;
        p.top_k = rows[r].top_k;
        p.typical_p = rows[r].typical_p;
        p.top_p = rows[r].top_p;
        p.min_p = rows[r].min_p;
        p.presence_penalty = rows[r].presence;
        counted.block_max = counted.mass_sum = counted.gather = counted.draw = 0;
        counted.gathered = 0;
        (void)sampler_draw(s, &p, logits, history, 3, 7);
        if (counted.block_max != 1 || counted.mass_sum != rows[r].mass_sums ||
            counted.gather > rows[r].gathers || counted.draw != rows[r].draws ||
            counted.gathered > rows[r].gathered)
            fail_msg("%s: block_max %u, mass_sum %u, gather %u (%u ids), draw %u", rows[r].what,
                     counted.block_max, counted.mass_sum, counted.gather, counted.gathered,
                     counted.draw);
        print_message("%-24s %u ids gathered\n", rows[r].what, counted.gathered);
    }
    sampler_free(s);
    free(logits);
}

/* The whole number by shifting bits is the one by multiplying doubles. */
static void masses_are_what_they_say(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2000000; i++) {
        float z = -40.0f * uniform_at(1, i) * uniform_at(2, i);
        assert_true(sample_mass(z) == oracle_mass(z));
    }
    assert_true(sample_mass(0.0f) == UINT64_C(1) << 40);
    assert_true(sample_mass(-87.5f) == 0 && sample_mass(-104.0f) == 0);
    assert_true(sample_mass(-INFINITY) == 0 && sample_mass(NAN) == 0);
}

/* Pinned: a change of any step's arithmetic moves one of them. */
static void known_draws_stay(void **state)
{
    static const struct {
        float temperature;
        uint32_t top_k;
        float top_p, min_p;
        uint64_t seed;
        int32_t expect[6];
    } rows[] = {
        {0.0f, 0, 1.0f, 0.0f, 1, {114, 114, 114, 114, 114, 114}},
        {1.0f, 0, 1.0f, 0.0f, 1, {53, 45, 114, 221, 69, 204}},
        {1.0f, 0, 1.0f, 0.0f, UINT64_C(0x100000001), {62, 82, 155, 164, 198, 97}},
        {0.7f, 20, 0.95f, 0.01f, 42, {198, 53, 62, 0, 253, 104}},
    };
    float logits[256];
    struct sampler *s = sampler_new(256, sample_kernels_of(BACKEND_ISA_AUTO));

    (void)state;
    for (uint32_t i = 0; i < 256; i++)
        logits[i] = 8.0f * uniform_at(7, i);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        p.temperature = rows[r].temperature;
        p.top_k = rows[r].top_k;
        p.top_p = rows[r].top_p;
        p.min_p = rows[r].min_p;
        p.seed = rows[r].seed;
        for (uint32_t i = 0; i < 6; i++)
            assert_int_equal(sampler_draw(s, &p, logits, NULL, 0, i * 1000), rows[r].expect[i]);
    }
    sampler_free(s);
}

/* Probabilities after all filters, in doubles and by sorting, as the papers have them. */
static void reference_probabilities(const struct sampling *p, const float *logits, uint32_t n,
                                    double *ret_p)
{
    double surprise_mean = 0.0, total = 0.0;
    bool gone[16] = {false};
    uint32_t order[16];

    CHECK(n <= 16);
    for (uint32_t step = 0; step < 4; step++) {
        /* Who is left, renormalized. */
        total = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            ret_p[i] = gone[i] ? 0.0 : exp((double)logits[i] / (double)p->temperature);
            total += ret_p[i];
        }
        surprise_mean = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            ret_p[i] /= total;
            surprise_mean -= gone[i] ? 0.0 : ret_p[i] * log(ret_p[i]);
        }
        if (step == 3)
            return;
        double score[16], sum = 0.0;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++) {
            score[i] = gone[i]     ? -1e300
                       : step == 1 ? -fabs(-log(ret_p[i]) - surprise_mean)
                                   : ret_p[i];
            order[i] = i;
        }
        for (uint32_t i = 1; i < n; i++)
            for (uint32_t j = i; j > 0 && score[order[j]] > score[order[j - 1]]; j--) {
                uint32_t t = order[j];
                order[j] = order[j - 1];
                order[j - 1] = t;
            }
        for (uint32_t i = 0; i < n; i++) {
            bool keep = step == 0   ? p->top_k == 0 || kept < p->top_k
                        : step == 1 ? p->typical_p >= 1.0f || sum < (double)p->typical_p
                                    : p->top_p >= 1.0f || sum < (double)p->top_p;
            sum += ret_p[order[i]];
            kept += keep;
            gone[order[i]] = gone[order[i]] || !keep;
        }
        if (step < 2)
            continue;
        double likeliest = 0.0;
        for (uint32_t i = 0; i < n; i++)
            likeliest = gone[i] ? likeliest : fmax(likeliest, ret_p[i]);
        for (uint32_t i = 0; i < n; i++)
            gone[i] = gone[i] || ret_p[i] < (double)p->min_p * likeliest;
    }
}

/* Pearson's statistic of 20,000 draws: with 7 degrees of freedom 29.9 is passed by one in 10,000
 * fair samplers. The seed is fixed: this cannot flicker. */
static void draws_follow_the_filtered_softmax(void **state)
{
    static const float logits[8] = {0.0f, 1.0f, 2.0f, -1.0f, 0.5f, -3.0f, 1.5f, 0.25f};
    static const struct {
        const char *what;
        float temperature;
        uint32_t top_k;
        float typical_p, top_p, min_p;
    } rows[] = {
        {"softmax", 1.25f, 0, 1, 1, 0},
        {"hot", 5, 0, 1, 1, 0},
        {"cold", 0.4f, 0, 1, 1, 0},
        {"top-k", 1, 3, 1, 1, 0},
        {"top-p", 1, 0, 1, 0.8f, 0},
        {"min-p", 1, 0, 1, 1, 0.2f},
        {"typical", 1, 0, 0.6f, 1, 0},
        {"typical, wide", 2, 0, 0.95f, 1, 0},
        {"top-k, top-p", 1.5f, 6, 1, 0.7f, 0},
        {"all of them", 2, 7, 0.9f, 0.9f, 0.2f},
    };
    const uint32_t n_draws = 20000;
    struct sampler *s = sampler_new(8, sample_kernels_of(BACKEND_ISA_AUTO));

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        uint32_t count[8] = {0};
        double expect[8], statistic = 0.0;
        p.temperature = rows[r].temperature;
        p.top_k = rows[r].top_k;
        p.typical_p = rows[r].typical_p;
        p.top_p = rows[r].top_p;
        p.min_p = rows[r].min_p;
        p.seed = 99 + r;
        for (uint32_t i = 0; i < n_draws; i++)
            count[sampler_draw(s, &p, logits, NULL, 0, i)]++;
        reference_probabilities(&p, logits, 8, expect);
        for (uint32_t i = 0; i < 8; i++) {
            double e = n_draws * expect[i];
            if ((e == 0.0 && count[i] > 0) || (e > 20.0 && count[i] == 0))
                fail_msg("%s: token %u is drawn %u times, not %g", rows[r].what, i, count[i], e);
            statistic += e == 0.0 ? 0.0 : (count[i] - e) * (count[i] - e) / fmax(e, 1.0);
        }
        if (statistic > 29.9)
            fail_msg("%s: the statistic is %g", rows[r].what, statistic);
    }
    sampler_free(s);
}

static void logprobs_are_the_log_softmax(void **state)
{
    static const uint32_t sizes[] = {1, 3, 64, 200, 512};
    const struct sample_kernels *kernels[4];
    size_t n_kernels = kernels_here(kernels);
    float logits[N_MAX];

    (void)state;
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t n = sizes[round % 5], n_top = word_at(1, round) % (LIMIT_TOP_LOGPROBS + 1);
        int32_t drawn = (int32_t)(word_at(2, round) % n);
        double total = 0.0;
        struct ranked r[N_MAX];
        for (uint32_t i = 0; i < n; i++) {
            logits[i] = round % 3 == 0 ? (float)(word_at(round, i) % 5) : 30 * uniform_at(round, i);
            r[i] = (struct ranked){.z = logits[i], .key = logits[i], .id = i};
            total += exp((double)logits[i]);
        }
        qsort(r, n, sizeof r[0], ranked_compare);
        struct sampling_logprobs first;
        for (size_t k = 0; k < n_kernels; k++) {
            struct sampler *s = sampler_new(n, kernels[k]);
            struct sampling_logprobs got;
            sampler_logprobs(s, logits, drawn, n_top, &got);
            assert_int_equal(got.drawn.id, drawn);
            assert_true(fabs(got.drawn.logprob - ((double)logits[drawn] - log(total))) < 1e-5);
            assert_int_equal(got.n_top, n_top < n ? n_top : n);
            for (uint32_t i = 0; i < got.n_top; i++) {
                assert_int_equal(got.top[i].id, r[i].id);
                assert_true(fabs(got.top[i].logprob - ((double)r[i].z - log(total))) < 1e-5);
            }
            if (k == 0)
                first = got;
            assert_memory_equal(&got.drawn, &first.drawn, sizeof got.drawn);
            assert_memory_equal(got.top, first.top, got.n_top * sizeof got.top[0]);
            sampler_free(s);
        }
    }
}

/* They are said in JSON, which has no infinity. */
static void logprobs_are_numbers_whatever_the_logits_are(void **state)
{
    static const struct {
        const char *what;
        float logits[4];
        int32_t drawn;
        float expect;
        uint32_t n_top;
    } rows[] = {
        {"no probability", {0, -INFINITY, 0, 0}, 1, -9999, 3},
        {"a NaN", {0, NAN, NAN, NAN}, 1, -9999, 1},
        {"nothing has any", {-INFINITY, NAN, -INFINITY, -INFINITY}, 0, -9999, 0},
        {"certain", {0, 0, INFINITY, 0}, 2, 0, 4},
        {"far below", {FLT_MAX, -FLT_MAX, 0, 0}, 1, -9999, 3},
    };
    struct sampler *s = sampler_new(4, sample_kernels_of(BACKEND_ISA_AUTO));

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling_logprobs got;
        sampler_logprobs(s, rows[r].logits, rows[r].drawn, 4, &got);
        if (got.drawn.logprob != rows[r].expect || got.n_top != rows[r].n_top)
            fail_msg("%s: %g, and %u of the likeliest", rows[r].what, (double)got.drawn.logprob,
                     got.n_top);
        for (uint32_t i = 0; i < got.n_top; i++)
            assert_true(got.top[i].logprob >= SAMPLING_LOGPROB_MIN && got.top[i].logprob <= 0.0f);
    }
    sampler_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_equal_the_sorted_oracle),
        cmocka_unit_test(large_vocabularies_draw_the_same_on_every_kernel),
        cmocka_unit_test(a_crowd_far_below_wins_its_share),
        cmocka_unit_test(a_large_row_is_passed_over_no_oftener_than_is_needed),
        cmocka_unit_test(masses_are_what_they_say),
        cmocka_unit_test(known_draws_stay),
        cmocka_unit_test(draws_follow_the_filtered_softmax),
        cmocka_unit_test(logprobs_are_the_log_softmax),
        cmocka_unit_test(logprobs_are_numbers_whatever_the_logits_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
