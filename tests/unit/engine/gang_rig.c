#include "tests/unit/engine/gang_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct gang_config gang_rig_config(uint32_t n_ranks)
{
    static uint8_t next;
    struct gang_config gang = {
        .coll = {.transport = COLL_TRANSPORT_SHM, .epoch = 1, .n_ranks = n_ranks, .build = "test"},
        .meet_ms = 20000,
        .load_ms = 60000,
        .wait_ms = 60000, /* a sanitizer on a busy machine */
    };
    const pid_t pid = getpid();

    memcpy(gang.coll.group, &pid, sizeof pid);
    gang.coll.group[15] = ++next;
    return gang;
}

/* ---- ranks ---------------------------------------------------------------------------------- */

void gang_rig_open(struct gang_rig *r, const struct engine_config *config,
                   const struct engine_model_config *model)
{
    const uint32_t stages = model->shard.stages > 1 ? model->shard.stages : 1;
    const struct gang_config gang = gang_rig_config(model->shard.shards * stages);
    struct errbuf eb;

    r->n = gang.coll.n_ranks;
    assert_true(r->n <= GANG_RIG_RANKS_MAX);
    for (uint32_t k = 0; k < r->n; k++) {
        r->gang[k] = gang;
        r->gang[k].coll.rank = k;
        r->model[k] = *model;
        r->model[k].rank = k;
        r->model[k].gang = &r->gang[k];
        rig_open(&r->rig[k], config);
        if (engine_load(r->rig[k].engine, GANG_RIG_MODEL, &r->model[k], &eb) != ERR_OK)
            fail_msg("%s", eb.text);
    }
}

void gang_rig_ready(struct gang_rig *r)
{
    for (uint32_t k = 0; k < r->n; k++) {
        rig_until_model_event(&r->rig[k]);
        if (r->rig[k].model_event.kind != ENGINE_EVENT_MODEL_READY)
            fail_msg("rank %u: %s", k, r->rig[k].model_event.error_text);
    }
}

void gang_rig_close(struct gang_rig *r)
{
    for (uint32_t k = 0; k < r->n; k++)
        rig_close(&r->rig[k]);
}

/* ---- jobs ----------------------------------------------------------------------------------- */

struct engine_job gang_rig_job(uint64_t job_id)
{
    static const char text[] = "a text that is longer than one page of the cache, and then some";
    struct engine_job job = {
        .job_id = job_id,
        .model_id = GANG_RIG_MODEL,
        .prompt_kind = ENGINE_PROMPT_TEXT,
        .text = text,
        .text_size = sizeof text - 1,
        .max_tokens = GANG_RIG_TOKENS,
        .sampling = sampling_default(),
        .ignore_end = true,
        .want_logits_digest = true,
    };

    job.sampling.temperature = 1.0f;
    job.sampling.seed = 3;
    return job;
}

void gang_rig_jobs(struct rig *rig, const char *text)
{
    struct errbuf eb;

    for (uint64_t id = GANG_RIG_JOBS; id > 0; id--) {
        struct engine_job job = gang_rig_job(id);
        if (text != NULL) {
            job.text = text;
            job.text_size = strlen(text);
        }
        if (id > 1) {
            job.sampling.seed = id;
            job.text_size -= id * 9;
        }
        if (rig_submit(rig, &job, &eb) != ERR_OK)
            fail_msg("%s", eb.text);
    }
    for (uint64_t id = 1; id <= GANG_RIG_JOBS; id++) {
        const struct answer *a = rig_wait(rig, id);
        if (a->finish == ENGINE_FINISH_ERROR)
            fail_msg("job %u: %s", (unsigned)id, a->error_text);
        assert_int_equal(a->ids.count, GANG_RIG_TOKENS);
    }
}

void gang_rig_alone(const struct engine_config *config, const struct engine_model_config *model,
                    const char *text, struct gang_rig_answers *ret)
{
    struct rig rig;

    rig_open(&rig, config);
    rig_load(&rig, GANG_RIG_MODEL, model);
    gang_rig_jobs(&rig, text);
    for (uint32_t i = 0; i < GANG_RIG_JOBS; i++) {
        memcpy(ret->ids[i], rig.answers[1 + i].ids.ids, sizeof ret->ids[i]);
        memcpy(ret->sha256[i], rig.answers[1 + i].sha256, sizeof ret->sha256[i]);
    }
    rig_close(&rig);
}

static void holds_what_was_estimated(const struct gang_rig *r, const struct engine_config *config)
{
    for (uint32_t k = 0; k < r->n; k++) {
        const struct engine_event *ready = &r->rig[k].model_event;
        struct engine_estimate estimate;
        struct errbuf eb;
        if (engine_estimate_file(config, &r->model[k], &estimate, &eb) != ERR_OK)
            fail_msg("%s", eb.text);
        assert_int_equal(ready->weights_bytes, estimate.weights_bytes);
        assert_int_equal(ready->kv_bytes, estimate.kv_bytes);
        assert_int_equal(ready->scratch_bytes, estimate.scratch_bytes);
        assert_int_equal(ready->exchange_bytes, estimate.exchange_bytes);
        assert_true(estimate.exchange_bytes > 0);
    }
}

void gang_rig_compare(const char *what, const struct engine_config *config,
                      const struct engine_model_config *model, const char *text,
                      const struct gang_rig_answers *alone)
{
    static struct gang_rig r;

    gang_rig_open(&r, config, model);
    gang_rig_ready(&r);
    holds_what_was_estimated(&r, config);
    for (uint32_t turn = 0; turn < 2; turn++) {
        gang_rig_jobs(&r.rig[0], text);
        for (uint32_t i = 0; i < GANG_RIG_JOBS; i++) {
            const struct answer *a = &r.rig[0].answers[1 + i];
            if (memcmp(a->ids.ids, alone->ids[i], sizeof alone->ids[i]) != 0 ||
                memcmp(a->sha256, alone->sha256[i], sizeof alone->sha256[i]) != 0)
                fail_msg("%s on %u ranks, %u stages, job %u, turn %u: other logits than on one",
                         what, r.n, model->shard.stages, 1 + i, turn);
        }
    }
    gang_rig_close(&r);
}
