/* sampling: what is drawn is what the stated order says, by an oracle that sorts everything. */
#include "common/check.h"
#include "worker/engine/sampling.h"
#include "worker/kernels/numerics.h"

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

struct ranked {
    float z;
    uint32_t id;
};

static int ranked_compare(const void *va, const void *vb)
{
    const struct ranked *a = va, *b = vb;

    if (a->z != b->z)
        return a->z > b->z ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

/* The header's text word by word: a full sort, no shortcuts. Finite logits, no penalties. */
static int32_t oracle_draw(const struct sampling *p, const float *logits, uint32_t n_vocab,
                           uint32_t position)
{
    struct ranked r[N_MAX];
    uint32_t n = n_vocab, best = 0;
    float greatest = logits[0], best_sum = 0.0f;

    CHECK(n_vocab <= N_MAX);
    for (uint32_t i = 0; i < n; i++)
        greatest = logits[i] > greatest ? logits[i] : greatest;
    for (uint32_t i = 0; i < n; i++)
        r[i] = (struct ranked){(logits[i] - greatest) / p->temperature, i};
    qsort(r, n, sizeof r[0], ranked_compare);
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    if (p->top_p < 1.0f) {
        uint64_t total = 0, sum = 0;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++)
            total += (uint64_t)((double)nm_exp(r[i].z) * 0x1p40);
        uint64_t need = (uint64_t)((double)p->top_p * (double)total);
        while (kept == 0 || sum < need)
            sum += (uint64_t)((double)nm_exp(r[kept++].z) * 0x1p40);
        n = kept;
    }
    if (p->min_p > 0.0f) {
        uint32_t kept = 0;
        for (uint32_t i = 0; i < n; i++)
            if (nm_exp(r[i].z) >= p->min_p)
                r[kept++] = r[i];
        n = kept;
    }
    for (uint32_t i = 0; i < n; i++) {
        float sum = r[i].z + nm_token_gumbel(p->seed, position, r[i].id);
        if (i == 0 || sum > best_sum || (sum == best_sum && r[i].id < best)) {
            best_sum = sum;
            best = r[i].id;
        }
    }
    return (int32_t)best;
}

static void draws_equal_the_sorted_oracle(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 5, 17, 64, 509};
    static const float temperatures[] = {1e-6f, 0.3f, 1.0f, 5.0f, 100.0f};
    static const uint32_t ks[] = {0, 1, 2, 7, 40, 508, 100000};
    static const float ps[] = {1e-9f, 0.05f, 0.5f, 0.9f, 0.9999999f, 1.0f};
    static const float min_ps[] = {0.0f, 1e-6f, 0.1f, 0.99f};
    float logits[N_MAX];
    uint32_t seed = 0;

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
        for (size_t t = 0; t < sizeof temperatures / sizeof temperatures[0]; t++)
            for (size_t k = 0; k < sizeof ks / sizeof ks[0]; k++)
                for (size_t p = 0; p < sizeof ps / sizeof ps[0]; p++)
                    for (size_t m = 0; m < sizeof min_ps / sizeof min_ps[0]; m++) {
                        struct sampler *sampler = sampler_new(sizes[s]);
                        struct sampling params = sampling_default();
                        params.temperature = temperatures[t];
                        params.top_k = ks[k];
                        params.top_p = ps[p];
                        params.min_p = min_ps[m];
                        params.seed = seed++;
                        /* Every third logit is one of four values, so that ties are everywhere. */
                        for (uint32_t i = 0; i < sizes[s]; i++)
                            logits[i] = i % 3 == 0 ? (float)(word_at(seed, i) % 4)
                                                   : 16.0f * uniform_at(seed, i) - 12.0f;
                        for (uint32_t position = 0; position < 4; position++)
                            assert_int_equal(
                                sampler_draw(sampler, &params, logits, NULL, 0, position),
                                oracle_draw(&params, logits, sizes[s], position));
                        sampler_free(sampler);
                    }
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
    struct sampler *s = sampler_new(256);

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

/* Pearson's statistic of 20,000 draws over 8 tokens: 7 degrees of freedom, and 29.9 is passed by
 * one in 10,000 fair samplers. The seed is fixed: this cannot flicker. */
static void draws_follow_the_softmax(void **state)
{
    static const float logits[8] = {0.0f, 1.0f, 2.0f, -1.0f, 0.5f, -3.0f, 1.5f, 0.25f};
    const uint32_t n_draws = 20000;
    struct sampler *s = sampler_new(8);
    struct sampling p = sampling_default();
    uint32_t count[8] = {0};
    double total = 0.0, statistic = 0.0;

    (void)state;
    p.temperature = 1.25f;
    p.seed = 99;
    for (uint32_t i = 0; i < n_draws; i++)
        count[sampler_draw(s, &p, logits, NULL, 0, i)]++;
    for (uint32_t i = 0; i < 8; i++)
        total += exp((double)logits[i] / 1.25);
    for (uint32_t i = 0; i < 8; i++) {
        double expect = n_draws * exp((double)logits[i] / 1.25) / total;
        statistic += (count[i] - expect) * (count[i] - expect) / expect;
    }
    assert_true(statistic < 29.9);
    sampler_free(s);
}

static void greedy_takes_the_greatest_and_the_lowest_of_equals(void **state)
{
    static const struct {
        const char *what;
        float logits[5];
        int32_t expect;
    } rows[] = {
        {"greatest", {1, 5, 3, 4, 2}, 1},
        {"tie", {1, 5, 3, 5, 5}, 1},
        {"all equal", {2, 2, 2, 2, 2}, 0},
        {"two zeros", {-0.0f, 0.0f, -1, -1, -1}, 0},
        {"NaN is never drawn", {NAN, NAN, 1, NAN, 0}, 2},
        {"infinity", {1, 2, INFINITY, 3, INFINITY}, 2},
        {"-infinity", {-INFINITY, -5, -INFINITY, -6, -7}, 1},
        {"nothing to choose", {-INFINITY, NAN, -INFINITY, NAN, -INFINITY}, 0},
    };
    struct sampler *s = sampler_new(5);

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        int32_t id = sampler_draw(s, &p, rows[r].logits, NULL, 0, 0);
        if (id != rows[r].expect)
            fail_msg("%s: %d, not %d", rows[r].what, id, rows[r].expect);
        /* The smallest temperature there is leaves the greatest alone in the draw, ties aside. */
        if (rows[r].expect == 0 || rows[r].logits[3] == rows[r].logits[rows[r].expect] ||
            rows[r].logits[4] == rows[r].logits[rows[r].expect])
            continue;
        p.temperature = 1e-30f;
        for (uint32_t position = 0; position < 50; position++)
            assert_int_equal(sampler_draw(s, &p, rows[r].logits, NULL, 0, position),
                             rows[r].expect);
    }
    sampler_free(s);
}

static void filters_leave_only_what_they_should(void **state)
{
    /* Probabilities about 0.64, 0.24, 0.09, 0.03. */
    static const float logits[4] = {1.0f, 3.0f, 0.0f, 2.0f};
    static const struct {
        const char *what;
        uint32_t top_k;
        float top_p, min_p;
        bool drawn[4];
    } rows[] = {
        {"no filter", 0, 1.0f, 0.0f, {true, true, true, true}},
        {"k above the vocabulary", 9, 1.0f, 0.0f, {true, true, true, true}},
        {"k = 2", 2, 1.0f, 0.0f, {false, true, false, true}},
        {"k = 1", 1, 1.0f, 0.0f, {false, true, false, false}},
        {"p reached by the first", 0, 0.6f, 0.0f, {false, true, false, false}},
        {"p needs the second", 0, 0.7f, 0.0f, {false, true, false, true}},
        {"p so small that one is left", 0, 1e-30f, 0.0f, {false, true, false, false}},
        {"p after k: 0.64 / 0.88 is 0.73", 2, 0.72f, 0.0f, {false, true, false, false}},
        {"min-p: 0.37 and 0.14 of the best", 0, 1.0f, 0.1f, {true, true, false, true}},
        {"min-p near 1", 0, 1.0f, 0.999f, {false, true, false, false}},
    };
    struct sampler *s = sampler_new(4);

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        bool drawn[4] = {false};
        p.temperature = 1.0f;
        p.top_k = rows[r].top_k;
        p.top_p = rows[r].top_p;
        p.min_p = rows[r].min_p;
        for (uint32_t i = 0; i < 1000; i++)
            drawn[sampler_draw(s, &p, logits, NULL, 0, i)] = true;
        for (uint32_t i = 0; i < 4; i++)
            if (drawn[i] != rows[r].drawn[i])
                fail_msg("%s: token %u drawn: %d", rows[r].what, i, drawn[i]);
    }
    sampler_free(s);
}

static void top_k_ties_go_to_the_lower_ids(void **state)
{
    static const float logits[6] = {1.0f, 2.0f, 1.0f, 1.0f, 2.0f, 1.0f};
    struct sampler *s = sampler_new(6);
    struct sampling p = sampling_default();
    bool drawn[6] = {false};

    (void)state;
    p.temperature = 10.0f;
    p.top_k = 4; /* 1, 4 and of the equals 0, 2 */
    for (uint32_t i = 0; i < 500; i++)
        drawn[sampler_draw(s, &p, logits, NULL, 0, i)] = true;
    assert_true(drawn[0] && drawn[1] && drawn[2] && drawn[4]);
    assert_false(drawn[3] || drawn[5]);
    sampler_free(s);
}

static void penalties_act_once_per_id_with_its_count(void **state)
{
    static const struct {
        const char *what;
        float repetition, presence, frequency;
        float logits[4];
        int32_t history[5];
        size_t n_history;
        int32_t expect;
    } rows[] = {
        {"none", 1, 0, 0, {4, 3, 2, 1}, {0, 0, 0}, 3, 0},
        {"repetition divides what is positive", 2, 0, 0, {4, 3, 2, 1}, {0}, 1, 1},
        {"once, however often it occurs", 1.3f, 0, 0, {4, 3, 2, 1}, {0, 0, 0}, 3, 0},
        {"and multiplies what is negative", 2, 0, 0, {-1, -1.5f, -3, -4}, {0, 3}, 2, 1},
        {"presence counts once", 1, 0.75f, 0, {4, 3, 2, 1}, {0, 0, 0, 0}, 4, 0},
        {"presence", 1, 1.5f, 0, {4, 3, 2, 1}, {0}, 1, 1},
        {"frequency counts each", 1, 0, 0.5f, {4, 3, 2, 1}, {0, 0, 0}, 3, 1},
        {"a negative penalty rewards", 1, -2, 0, {4, 3, 2.5f, 1}, {2}, 1, 2},
        {"together", 2, 0.5f, 0.25f, {4, 3, 1.1f, 1}, {0, 1, 0, 1}, 4, 2},
        {"ids that are none", 2, 0, 0, {4, 3, 2, 1}, {-1, 4, 2147483647}, 3, 0},
    };
    struct sampler *s = sampler_new(4);

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        p.repetition_penalty = rows[r].repetition;
        p.presence_penalty = rows[r].presence;
        p.frequency_penalty = rows[r].frequency;
        /* Twice: nothing of one draw may be left in the sampler for the next. */
        for (int again = 0; again < 2; again++) {
            int32_t id = sampler_draw(s, &p, rows[r].logits, rows[r].history, rows[r].n_history, 0);
            if (id != rows[r].expect)
                fail_msg("%s: %d, not %d", rows[r].what, id, rows[r].expect);
        }
    }
    sampler_free(s);
}

static void logits_are_not_written(void **state)
{
    float logits[3] = {NAN, 2.0f, INFINITY}, before[3];
    static const int32_t history[2] = {1, 2};
    struct sampler *s = sampler_new(3);
    struct sampling p = sampling_default();

    (void)state;
    p.temperature = 0.8f;
    p.repetition_penalty = 1.5f;
    memcpy(before, logits, sizeof before);
    (void)sampler_draw(s, &p, logits, history, 2, 0);
    assert_memory_equal(before, logits, sizeof before);
    sampler_free(s);
}

static void parameters_out_of_range_are_named(void **state)
{
    static const struct {
        const char *name;
        size_t offset;
        float bad[4];
        float good[2];
    } rows[] = {
        {"temperature",
         offsetof(struct sampling, temperature),
         {-0.1f, NAN, INFINITY, 101},
         {0, 2}},
        {"top_p", offsetof(struct sampling, top_p), {0, -1, 1.01f, NAN}, {1e-6f, 1}},
        {"min_p", offsetof(struct sampling, min_p), {-0.1f, 1, NAN, INFINITY}, {0, 0.99f}},
        {"repetition_penalty",
         offsetof(struct sampling, repetition_penalty),
         {0, -1, NAN, INFINITY},
         {0.5f, 2}},
        {"presence_penalty",
         offsetof(struct sampling, presence_penalty),
         {-2.1f, 2.1f, NAN, INFINITY},
         {-2, 2}},
        {"frequency_penalty",
         offsetof(struct sampling, frequency_penalty),
         {-2.1f, 2.1f, NAN, -INFINITY},
         {-2, 2}},
    };

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (int i = 0; i < 6; i++) {
            struct sampling p = sampling_default();
            struct errbuf eb = {{0}};
            float *field = (float *)(void *)((char *)&p + rows[r].offset);
            *field = i < 4 ? rows[r].bad[i] : rows[r].good[i - 4];
            enum err e = sampling_check(&p, &eb);
            if (e != (i < 4 ? ERR_INVALID : ERR_OK))
                fail_msg("%s = %g: %s", rows[r].name, (double)*field, err_name(e));
            if (i < 4 && strstr(eb.text, rows[r].name) == NULL)
                fail_msg("%s is not named in: %s", rows[r].name, eb.text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_equal_the_sorted_oracle),
        cmocka_unit_test(known_draws_stay),
        cmocka_unit_test(draws_follow_the_softmax),
        cmocka_unit_test(greedy_takes_the_greatest_and_the_lowest_of_equals),
        cmocka_unit_test(filters_leave_only_what_they_should),
        cmocka_unit_test(top_k_ties_go_to_the_lower_ids),
        cmocka_unit_test(penalties_act_once_per_id_with_its_count),
        cmocka_unit_test(logits_are_not_written),
        cmocka_unit_test(parameters_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
