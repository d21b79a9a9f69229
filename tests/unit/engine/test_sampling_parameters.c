/* sampling: each parameter by itself, what it does and which values it may have. */
#include "worker/engine/sampling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void biases_shift_their_ids(void **state)
{
    static const struct {
        const char *what;
        struct sampling_bias biases[3];
        size_t n_biases;
        float presence;
        int32_t expect;
    } rows[] = {
        {"none", {{0, 0}}, 0, 0, 1},
        {"lifted over all", {{3, 100}}, 1, 0, 3},
        {"pushed below all", {{1, -100}}, 1, 0, 2},
        {"two", {{1, -100}, {2, -100}}, 2, 0, 0},
        {"before the penalty", {{0, 2.5f}}, 1, 2, 1},
    };
    static const float logits[70] = {[0] = 4, [1] = 6, [2] = 5};
    static const int32_t history[1] = {0};
    struct sampler *s = sampler_new(70, sample_kernels_of(BACKEND_ISA_AUTO));

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct sampling p = sampling_default();
        p.biases = rows[r].biases;
        p.n_biases = rows[r].n_biases;
        p.presence_penalty = rows[r].presence;
        int32_t id = sampler_draw(s, &p, logits, history, 1, 0);
        if (id != rows[r].expect)
            fail_msg("%s: %d, not %d", rows[r].what, id, rows[r].expect);
    }
    sampler_free(s);
}

static void biases_are_checked(void **state)
{
    static const struct {
        const char *what;
        struct sampling_bias biases[2];
        const char *says; /* NULL: it is good */
    } rows[] = {
        {"good", {{0, -100}, {99, 100}}, NULL},
        {"too great", {{0, 1}, {7, 100.5f}}, "logit_bias of token 7 is 100.5; it must be -100"},
        {"too small", {{8, -101}, {7, 0}}, "logit_bias of token 8 is -101"},
        {"no number", {{0, NAN}, {7, 0}}, "logit_bias of token 0 is nan"},
        {"no id", {{-1, 1}, {7, 0}}, "token id -1"},
        {"twice", {{7, 1}, {7, 2}}, "token 7 twice"},
        {"beyond the vocabulary", {{7, 1}, {100, 2}}, "token 100; the model's ids are 0 to 99"},
    };
    static struct sampling_bias many[LIMIT_LOGIT_BIASES + 1];
    struct sampling p = sampling_default();
    struct errbuf eb = {{0}};

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        p.biases = rows[r].biases;
        p.n_biases = 2;
        enum err e = sampling_check(&p, &eb);
        if (e == ERR_OK)
            e = sampling_check_vocab(&p, 100, &eb);
        if ((e == ERR_OK) != (rows[r].says == NULL) ||
            (rows[r].says != NULL && strstr(eb.text, rows[r].says) == NULL))
            fail_msg("%s: %s: %s", rows[r].what, err_name(e), eb.text);
    }
    for (int i = 0; i <= (int)LIMIT_LOGIT_BIASES; i++)
        many[i].id = i;
    p.biases = many;
    p.n_biases = LIMIT_LOGIT_BIASES;
    assert_int_equal(sampling_check(&p, &eb), ERR_OK);
    p.n_biases++;
    assert_int_equal(sampling_check(&p, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "1025 ids; at most 1024"));
}

static void logprobs_asked_for_are_checked(void **state)
{
    struct sampling p = sampling_default();
    struct errbuf eb = {{0}};

    (void)state;
    p.logprobs = true;
    p.top_logprobs = LIMIT_TOP_LOGPROBS;
    assert_int_equal(sampling_check(&p, &eb), ERR_OK);
    p.top_logprobs++;
    assert_int_equal(sampling_check(&p, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "top_logprobs is 21; it must be 0 to 20"));
    p.top_logprobs = 1;
    p.logprobs = false;
    assert_int_equal(sampling_check(&p, &eb), ERR_INVALID);
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
    struct sampler *s = sampler_new(5, sample_kernels_of(BACKEND_ISA_AUTO));

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
    struct sampler *s = sampler_new(4, sample_kernels_of(BACKEND_ISA_AUTO));

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
    struct sampler *s = sampler_new(6, sample_kernels_of(BACKEND_ISA_AUTO));
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
    struct sampler *s = sampler_new(4, sample_kernels_of(BACKEND_ISA_AUTO));

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
    struct sampler *s = sampler_new(3, sample_kernels_of(BACKEND_ISA_AUTO));
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
        {"typical_p", offsetof(struct sampling, typical_p), {0, -1, 1.01f, NAN}, {1e-6f, 1}},
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
        cmocka_unit_test(biases_shift_their_ids),
        cmocka_unit_test(biases_are_checked),
        cmocka_unit_test(logprobs_asked_for_are_checked),
        cmocka_unit_test(greedy_takes_the_greatest_and_the_lowest_of_equals),
        cmocka_unit_test(filters_leave_only_what_they_should),
        cmocka_unit_test(top_k_ties_go_to_the_lower_ids),
        cmocka_unit_test(penalties_act_once_per_id_with_its_count),
        cmocka_unit_test(logits_are_not_written),
        cmocka_unit_test(parameters_out_of_range_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
