/*
 * Drawing from what a backend picks of a row (PICK_BEST, PICK_DRAW, PICK_LIST, by ref/) gives the
 * token that drawing from the whole row gives; and what can be picked for which parameters.
 */
#include "tests/unit/engine/rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "worker/engine/sampling.h"
#include "worker/kernels/philox.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define VOCAB_MAX 3001u
#define MODEL     7u

static uint32_t word_at(uint32_t seed, uint32_t index)
{
    return philox_token_word(seed, 1, index);
}

static struct sampling sampling_of(float temperature, uint32_t top_k, float typical_p, float top_p,
                                   float min_p)
{
    struct sampling s = sampling_default();

    s.temperature = temperature;
    s.top_k = top_k;
    s.typical_p = typical_p;
    s.top_p = top_p;
    s.min_p = min_p;
    return s;
}

static void what_is_picked_follows_from_the_parameters(void **state)
{
    static const struct sampling_bias bias = {3, 1.0f};
    struct sampling biased = sampling_default(), penal = biased, told = biased;
    biased.biases = &bias;
    biased.n_biases = 1;
    penal.repetition_penalty = 1.1f;
    told.logprobs = true;
    const struct {
        const char *what;
        struct sampling sampling;
        enum pick_kind kind;
        uint32_t count;
        bool with_mass;
    } cases[] = {
        {"greedy", sampling_default(), PICK_BEST, 0, false},
        {"greedy, whatever the filters", sampling_of(0, 3, 0.5f, 0.5f, 0.5f), PICK_BEST, 0, false},
        {"temperature", sampling_of(1, 0, 1, 1, 0), PICK_DRAW, 0, false},
        {"min-p", sampling_of(1, 0, 1, 1, 0.1f), PICK_DRAW, 0, false},
        {"top-k", sampling_of(1, 40, 1, 1, 0), PICK_LIST, 40, false},
        {"top-k and all the others", sampling_of(1, 40, 0.9f, 0.9f, 0.1f), PICK_LIST, 40, false},
        {"the longest list", sampling_of(1, 128, 1, 1, 0), PICK_LIST, 128, false},
        {"longer than a list", sampling_of(1, 129, 1, 1, 0), PICK_ROW, 0, false},
        {"top-k of all", sampling_of(1, 1000, 1, 1, 0), PICK_DRAW, 0, false},
        {"top-p", sampling_of(1, 0, 1, 0.9f, 0), PICK_LIST, 128, true},
        {"top-p and min-p", sampling_of(1, 0, 1, 0.9f, 0.1f), PICK_LIST, 128, true},
        {"typical", sampling_of(1, 0, 0.9f, 1, 0), PICK_ROW, 0, false},
        {"a bias", biased, PICK_ROW, 0, false},
        {"a penalty", penal, PICK_ROW, 0, false},
        {"logprobs", told, PICK_ROW, 0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct pick pick = sampling_pick(&cases[i].sampling, 1000, 9);
        if (pick.kind != (uint32_t)cases[i].kind ||
            (pick.kind == PICK_LIST &&
             (pick.count != cases[i].count || (pick.with_mass != 0) != cases[i].with_mass)))
            fail_msg("%s: kind %u, %u listed", cases[i].what, pick.kind, pick.count);
    }
}

/* Shapes of rows that ties and borders find hard. */
static float hard_logit(uint32_t shape, uint32_t seed, uint32_t i)
{
    const uint32_t word = word_at(seed, i);
    const float u = (float)(word >> 8) * 0x1p-24f;

    switch (shape) {
    case 0: /* peaked, as models are */
        return 20.0f * u * u * u * u;
    case 1: /* few values */
        return (float)(word % 9);
    case 2: /* some are no numbers, or no ordinary ones */
        return word % 5 == 0 ? NAN : word % 7 == 0 ? -INFINITY : word % 997 == 0 ? INFINITY : 8 * u;
    case 3: /* all nearly the same */
        return 3.0f + 1e-6f * (float)(word % 3);
    case 4: /* hardly any */
        return i % 67 == 5 ? u : -INFINITY;
    case 5: /* none */
        return i % 2 == 0 ? NAN : -INFINITY;
    default: /* far apart */
        return 1e4f * (u - 0.5f);
    }
}

static void drawing_from_what_was_picked_is_drawing_from_the_row(void **state)
{
    static const uint32_t sizes[] = {1, 2, 65, 127, 129, 1000, VOCAB_MAX};
    static const float temperatures[] = {0.0f, 1e-6f, 0.3f, 1.0f, 1.5f, 100.0f};
    static const uint32_t ks[] = {0, 0, 1, 2, 7, 40, 128};
    static const float typicals[] = {1.0f, 1.0f, 0.2f, 0.9f};
    static const float ps[] = {1.0f, 1.0f, 1e-9f, 0.05f, 0.9f, 0.9999999f};
    static const float min_ps[] = {0.0f, 0.0f, 1e-6f, 0.1f, 0.99f};
#define SOME(list, i) list[(i) % (sizeof list / sizeof list[0])]
    const struct backend_cpu_config config = {.isa = BACKEND_ISA_SCALAR, .threads = 1};
    static float logits[VOCAB_MAX];
    static struct picked picked;
    struct backend *ref;
    struct errbuf eb;
    uint32_t n_short = 0, n_kind[4] = {0};

    (void)state;
    assert_int_equal(backend_cpu_open(&ref, &config, &eb), ERR_OK);
    for (uint32_t round = 0; round < 6000; round++) {
        const uint32_t n = SOME(sizes, word_at(1, round)), shape = word_at(2, round) % 7;
        struct sampling params =
            sampling_of(SOME(temperatures, word_at(3, round)), SOME(ks, word_at(4, round)),
                        SOME(typicals, word_at(5, round)), SOME(ps, word_at(6, round)),
                        SOME(min_ps, word_at(7, round)));
        params.seed = round;
        for (uint32_t i = 0; i < n; i++)
            logits[i] = hard_logit(shape, round, i);
        const struct pick pick = sampling_pick(&params, n, round);
        n_kind[pick.kind]++;
        if (pick.kind == PICK_ROW)
            continue;
        ref->ops->pick(ref, logits, 1, n, &pick, (float *)(void *)&picked);
        struct sampler *sampler = sampler_new(n, sample_kernels_of(BACKEND_ISA_AUTO));
        int32_t id = -1, want = sampler_draw(sampler, &params, logits, NULL, 0, round);
        if (!sampler_draw_picked(sampler, &params, &pick, &picked, &id)) {
            /* Only where ids beyond the list may be drawn. */
            assert_true(pick.with_mass && picked.n == PICK_LIST_MAX);
            n_short++;
        } else if (id != want) {
            fail_msg("round %u: temperature %g top-k %u typical %g top-p %g min-p %g, %u ids of "
                     "shape %u: %d, not %d",
                     round, (double)params.temperature, params.top_k, (double)params.typical_p,
                     (double)params.top_p, (double)params.min_p, n, shape, id, want);
        }
        sampler_free(sampler);
    }
    for (uint32_t kind = 0; kind < 4; kind++)
        assert_in_range(n_kind[kind], 300, 6000);
    assert_in_range(n_short, 10, 1000);
    ref->ops->close(ref);
#undef SOME
}

/* ---- through the engine ---- */

static char path[64];

enum { JOBS = 9, TOKENS = 14 };

static void sampling_beside(uint32_t i, struct sampling *s)
{
    static const struct sampling_bias bias = {'x', 2.0f};
    const struct sampling several[JOBS] = {
        sampling_of(0, 0, 1, 1, 0),          sampling_of(0.8f, 40, 1, 0.95f, 0.05f),
        sampling_of(1, 0, 1, 1, 0),          sampling_of(1, 0, 1, 0.9f, 0),
        sampling_of(3, 0, 1, 0.9999f, 0),    sampling_of(1, 200, 1, 1, 0),
        sampling_of(0.7f, 0, 0.5f, 0.8f, 0), sampling_of(1, 5, 1, 1, 0),
        sampling_of(1.2f, 0, 1, 1, 0.02f),
    };

    *s = several[i];
    s->seed = 100 + i;
    if (i == 5)
        s->repetition_penalty = 1.3f;
    if (i == 6) {
        s->biases = &bias;
        s->n_biases = 1;
    }
    s->logprobs = i == 7;
}

/* All of them in the same steps: the ids, a row for each job. */
static void run_beside(enum backend_isa isa, int32_t ids[JOBS][TOKENS], uint8_t sha[32])
{
    static const char text[] = "in the inn";
    const struct engine_config config = {
        .isa = isa, .threads = 2, .step_tokens = 64, .sequences = JOBS};
    const struct engine_model_config model = {.path = path};
    struct rig rig;

    rig_open(&rig, &config);
    rig_load(&rig, MODEL, &model);
    for (uint32_t i = 0; i < JOBS; i++) {
        struct engine_job job = {
            .job_id = i + 1,
            .model_id = MODEL,
            .prompt_kind = ENGINE_PROMPT_TEXT,
            .text = text,
            .text_size = sizeof text - 1,
            .max_tokens = TOKENS,
            .want_logits_digest = i == 2,
            .ignore_end = true,
        };
        sampling_beside(i, &job.sampling);
        assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
    }
    for (uint32_t i = 0; i < JOBS; i++) {
        const struct answer *a = rig_wait(&rig, i + 1);
        assert_int_equal(a->ids.count, TOKENS);
        memcpy(ids[i], a->ids.ids, sizeof ids[i]);
        if (i == 2)
            memcpy(sha, a->sha256, 32);
    }
    rig_close(&rig);
}

static void jobs_of_all_kinds_draw_the_same_where_rows_are_picked_from(void **state)
{
    int32_t picked[JOBS][TOKENS], whole[JOBS][TOKENS];
    uint8_t sha[2][32];

    (void)state;
    if (backend_isa_resolve(BACKEND_ISA_AUTO) == BACKEND_ISA_SCALAR)
        skip();
    run_beside(BACKEND_ISA_SCALAR, picked, sha[0]);
    run_beside(BACKEND_ISA_AUTO, whole, sha[1]);
    for (uint32_t i = 0; i < JOBS; i++)
        if (memcmp(picked[i], whole[i], sizeof picked[i]) != 0)
            fail_msg("job %u draws other tokens", i);
    assert_memory_equal(sha[0], sha[1], 32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_picked_follows_from_the_parameters),
        cmocka_unit_test(drawing_from_what_was_picked_is_drawing_from_the_row),
        cmocka_unit_test(jobs_of_all_kinds_draw_the_same_where_rows_are_picked_from),
    };
    const struct tiny_model m = tiny_model_default();

    tiny_model_write(&m, path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
