#include "tests/unit/engine/rig.h"

#include "common/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void rig_notify(void *arg)
{
    struct rig *rig = arg;
    CHECK(sem_post(&rig->news) == 0);
}

void rig_open(struct rig *rig, const struct engine_config *config)
{
    struct engine_config c = *config;
    struct errbuf eb = {{0}};

    memset(rig, 0, sizeof *rig);
    CHECK(sem_init(&rig->news, 0, 0) == 0);
    c.notify = rig_notify;
    c.notify_arg = rig;
    if (engine_open(&rig->engine, &c, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
}

void answer_fini(struct answer *a)
{
    tokens_fini(&a->prompt);
    tokens_fini(&a->ids);
    buf_fini(&a->text);
    free(a->logprobs);
    memset(a, 0, sizeof *a);
}

void rig_close(struct rig *rig)
{
    engine_close(rig->engine);
    for (size_t i = 0; i < RIG_JOBS; i++)
        answer_fini(&rig->answers[i]);
    CHECK(sem_destroy(&rig->news) == 0);
}

/* None, or those of each id: its own first. */
static void keep_logprobs(struct answer *a, const struct engine_event *ev)
{
    size_t n_ids = 0;

    if (ev->n_logprobs == 0)
        return;
    for (size_t i = 0; i < ev->n_logprobs; i += 1 + ev->logprobs[i].n_top) {
        assert_true(n_ids < ev->n_ids);
        assert_int_equal(ev->logprobs[i].of.id, ev->ids[n_ids++]);
    }
    assert_int_equal(n_ids, ev->n_ids);
    a->logprobs = realloc(a->logprobs, (a->n_logprobs + ev->n_logprobs) * sizeof *a->logprobs);
    assert_non_null(a->logprobs);
    memcpy(a->logprobs + a->n_logprobs, ev->logprobs, ev->n_logprobs * sizeof *a->logprobs);
    a->n_logprobs += ev->n_logprobs;
}

static void file_job_event(struct rig *rig, const struct engine_event *ev)
{
    assert_true(ev->job_id < RIG_JOBS);
    struct answer *a = &rig->answers[ev->job_id];
    uint32_t resumed = ev->usage.resumed_tokens;

    assert_true(a->wanted && !a->finished);
    a->n_events++;
    a->usage = ev->usage;
    if (ev->kind == ENGINE_EVENT_STARTED) {
        assert_false(a->started);
        a->started = true;
        for (size_t i = 0; i < ev->n_ids; i++)
            assert_int_equal(tokens_append(&a->prompt, ev->ids[i]), ERR_OK);
        assert_int_equal(a->prompt.count, ev->usage.prompt_tokens);
        return;
    }
    if (ev->n_ids > 0 || ev->finish != ENGINE_FINISH_ERROR)
        assert_int_equal(ev->first, resumed + a->ids.count);
    for (size_t i = 0; i < ev->n_ids; i++)
        assert_int_equal(tokens_append(&a->ids, ev->ids[i]), ERR_OK);
    buf_append(&a->text, ev->text, ev->text_size);
    keep_logprobs(a, ev);
    if (ev->kind != ENGINE_EVENT_FINISHED) {
        assert_true(a->started && ev->n_ids > 0);
        return;
    }
    a->finished = true;
    a->finish = ev->finish;
    a->error = ev->error;
    memcpy(a->error_text, ev->error_text, sizeof a->error_text);
    memcpy(a->sha256, ev->logits_sha256, sizeof a->sha256);
    /* Every token that counts was handed out, and no other. */
    assert_int_equal(ev->usage.completion_tokens, resumed + a->ids.count);
}

void rig_next(struct rig *rig)
{
    struct engine_event ev;
    struct timespec until;

    CHECK(clock_gettime(CLOCK_REALTIME, &until) == 0);
    until.tv_sec += 60;
    while (!engine_poll(rig->engine, &ev))
        if (sem_timedwait(&rig->news, &until) != 0)
            fail_msg("the engine said nothing for a minute");
    switch (ev.kind) {
    case ENGINE_EVENT_MODEL_READY:
    case ENGINE_EVENT_MODEL_FAILED:
    case ENGINE_EVENT_MODEL_GONE:
        rig->model_event = ev;
        rig->n_model_events++;
        break;
    case ENGINE_EVENT_STARTED:
    case ENGINE_EVENT_TOKENS:
    case ENGINE_EVENT_FINISHED:
        file_job_event(rig, &ev);
        break;
    }
}

void rig_until_model_event(struct rig *rig)
{
    uint32_t before = rig->n_model_events;

    while (rig->n_model_events == before)
        rig_next(rig);
}

void rig_load(struct rig *rig, uint32_t model_id, const struct engine_model_config *model)
{
    struct errbuf eb = {{0}};

    if (engine_load(rig->engine, model_id, model, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    rig_until_model_event(rig);
    if (rig->model_event.kind != ENGINE_EVENT_MODEL_READY)
        fail_msg("%s", rig->model_event.error_text);
    assert_int_equal(rig->model_event.model_id, model_id);
}

enum err rig_submit(struct rig *rig, const struct engine_job *job, struct errbuf *eb)
{
    assert_true(job->job_id < RIG_JOBS);
    enum err err = engine_submit(rig->engine, job, eb);

    if (err == ERR_OK) {
        answer_fini(&rig->answers[job->job_id]);
        rig->answers[job->job_id].wanted = true;
    }
    return err;
}

struct answer *rig_wait(struct rig *rig, uint64_t job_id)
{
    while (!rig->answers[job_id].finished)
        rig_next(rig);
    return &rig->answers[job_id];
}

struct answer *rig_run(struct rig *rig, const struct engine_job *job)
{
    struct errbuf eb = {{0}};

    if (rig_submit(rig, job, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return rig_wait(rig, job->job_id);
}
