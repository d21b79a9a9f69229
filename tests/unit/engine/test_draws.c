/* What a job may ask of its draws, through the engine: biases, stop tokens, logprobs. */
#include "common/limits.h"
#include "tests/unit/engine/rig.h"
#include "tests/unit/engine/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL 7u

static char path[64];

static struct engine_job job_of(uint64_t job_id, uint32_t max_tokens)
{
    static const char text[] = "in the inn";
    struct engine_job job = {
        .job_id = job_id,
        .model_id = MODEL,
        .prompt_kind = ENGINE_PROMPT_TEXT,
        .text = text,
        .text_size = sizeof text - 1,
        .max_tokens = max_tokens,
        .sampling = sampling_default(),
        .ignore_end = true,
    };

    job.sampling.temperature = 1.0f;
    job.sampling.seed = 3;
    return job;
}

static void open_with(struct rig *rig, uint32_t threads)
{
    const struct engine_config config = {.threads = threads, .step_tokens = 32, .sequences = 8};
    const struct engine_model_config model = {.path = path};

    rig_open(rig, &config);
    rig_load(rig, MODEL, &model);
}

static void a_bias_of_100_is_an_order(void **state)
{
    static const struct sampling_bias only_x[] = {{'x', 100}};
    struct rig rig;
    struct engine_job job = job_of(1, 5);

    (void)state;
    open_with(&rig, 1);
    job.sampling.biases = only_x;
    job.sampling.n_biases = 1;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->ids.count, 5);
    assert_memory_equal(buf_str(&a->text), "xxxxx", 5);
    rig_close(&rig);
}

static void a_stop_token_ends_the_answer_and_adds_no_text(void **state)
{
    struct rig rig;
    struct engine_job job = job_of(1, 12);
    int32_t ids[12];

    (void)state;
    open_with(&rig, 1);
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(a->ids.count, 12);
    memcpy(ids, a->ids.ids, sizeof ids);
    for (size_t at = 0; at < 12; at++) {
        size_t first = 0;
        while (ids[first] != ids[at])
            first++;
        job.stop_tokens = &ids[at];
        job.n_stop_tokens = 1;
        job.n_resume_ids = 0;
        a = rig_run(&rig, &job);
        assert_int_equal(a->finish, ENGINE_FINISH_STOP);
        assert_int_equal(a->ids.count, first + 1);
        assert_memory_equal(a->ids.ids, ids, (first + 1) * sizeof ids[0]);
        size_t size = a->text.size;
        /* The text is that of the tokens before it. */
        job.n_stop_tokens = 0;
        job.max_tokens = (uint32_t)first;
        assert_int_equal(first == 0 ? 0 : rig_run(&rig, &job)->text.size, size);
        job.max_tokens = 12;
        /* Nor does a resumed job go on behind it. */
        job.n_stop_tokens = 1;
        job.resume_ids = ids;
        job.n_resume_ids = first + 1;
        a = rig_run(&rig, &job);
        assert_int_equal(a->finish, ENGINE_FINISH_STOP);
        assert_int_equal(a->ids.count, 0);
    }
    rig_close(&rig);
}

static void logprobs_come_with_their_tokens(void **state)
{
    struct rig rig;
    struct answer *first;
    int32_t ids[30];
    struct engine_logprob kept[30 * 4];

    (void)state;
    for (uint32_t threads = 1; threads <= 3; threads++) {
        struct engine_job job = job_of(1, 30);
        static const struct sampling_stop never = {"\x01\x02", 2};
        open_with(&rig, threads);
        job.stops = &never; /* tokens wait, and their logprobs with them */
        job.n_stops = 1;
        job.sampling.logprobs = true;
        job.sampling.top_logprobs = 3;
        for (uint64_t other = 2; other < 6; other++) {
            struct engine_job beside = job_of(other, 20);
            beside.sampling.seed = other;
            assert_int_equal(rig_submit(&rig, &beside, NULL), ERR_OK);
        }
        first = rig_run(&rig, &job);
        assert_int_equal(first->ids.count, 30);
        assert_int_equal(first->n_logprobs, 30 * 4);
        if (threads == 1) {
            memcpy(ids, first->ids.ids, sizeof ids);
            memcpy(kept, first->logprobs, sizeof kept);
        }
        assert_memory_equal(first->logprobs, kept, sizeof kept);
        for (size_t i = 0; i < 30; i++) {
            const struct engine_logprob *one = &kept[4 * i];
            assert_int_equal(one->of.id, ids[i]);
            assert_int_equal(one->n_top, 3);
            assert_true(one->of.logprob <= 0.0f && one->of.logprob <= one[1].of.logprob);
            assert_true(one[1].of.logprob >= one[2].of.logprob);
            assert_true(one[2].of.logprob >= one[3].of.logprob);
        }
        /* A resumed job tells those of the tokens that it draws itself, the same ones. */
        job.resume_ids = ids;
        job.n_resume_ids = 12;
        struct answer *a = rig_run(&rig, &job);
        assert_int_equal(a->n_logprobs, 18 * 4);
        assert_memory_equal(a->logprobs, kept + 48, 18 * 4 * sizeof kept[0]);
        rig_close(&rig);
    }
}

static void logprobs_are_told_to_who_asks(void **state)
{
    struct rig rig;
    struct engine_job job = job_of(1, 3);

    (void)state;
    open_with(&rig, 1);
    assert_int_equal(rig_run(&rig, &job)->n_logprobs, 0);
    job.sampling.logprobs = true;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->n_logprobs, 3);
    assert_int_equal(a->logprobs[0].n_top, 0);
    rig_close(&rig);
}

static void what_is_wrong_is_refused(void **state)
{
    static const struct sampling_bias far[] = {{'x', 1}, {1 << 20, 1}};
    static const struct sampling_bias great[] = {{'x', 101}};
    static int32_t stop_tokens[LIMIT_STOP_TOKENS + 1];
    static const int32_t far_stop[] = {1 << 20};
    struct rig rig;
    struct errbuf eb;

    (void)state;
    open_with(&rig, 1);
    struct engine_job job = job_of(1, 3);
    job.sampling.biases = great;
    job.sampling.n_biases = 1;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "logit_bias of token 120 is 101"));
    job = job_of(1, 3);
    job.stop_tokens = stop_tokens;
    job.n_stop_tokens = LIMIT_STOP_TOKENS + 1;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_TOO_LARGE);
    assert_non_null(strstr(eb.text, "65 stop tokens; at most 64"));
    job = job_of(1, 3);
    job.sampling.typical_p = 0;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "typical_p is 0"));
    /* What takes the vocabulary to see comes as the job's end. */
    job = job_of(1, 3);
    job.sampling.biases = far;
    job.sampling.n_biases = 2;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->error, ERR_INVALID);
    assert_non_null(strstr(a->error_text, "logit_bias has token 1048576; the model's ids"));
    job = job_of(1, 3);
    job.stop_tokens = far_stop;
    job.n_stop_tokens = 1;
    a = rig_run(&rig, &job);
    assert_int_equal(a->error, ERR_INVALID);
    assert_non_null(strstr(a->error_text, "stop id 0 is 1048576"));
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bias_of_100_is_an_order),
        cmocka_unit_test(a_stop_token_ends_the_answer_and_adds_no_text),
        cmocka_unit_test(logprobs_come_with_their_tokens),
        cmocka_unit_test(logprobs_are_told_to_who_asks),
        cmocka_unit_test(what_is_wrong_is_refused),
    };
    const struct tiny_model m = tiny_model_default();

    tiny_model_write(&m, path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
