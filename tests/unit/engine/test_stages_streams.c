/* Many jobs over a model in stages: steps are under way in all stages at a time, and whatever
 * comes, goes, is cancelled or preempted meanwhile, each job has the answer that one engine gives
 * it. */
#include "tests/unit/engine/gang_rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "worker/engine/forward.h"
#include "worker/engine/gang_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL   GANG_RIG_MODEL
#define JOBS    18u
#define CONTEXT 512u

/* ---- what rank 0 tells and collects -------------------------------------------------------- */

/* Of steps that draw: told so far, told while another had not drawn, not drawn yet, the most of
 * these. Of steps of several pieces, the most that had not drawn when one was told. */
static struct {
    uint32_t told, told_beside, owing, owing_most, before_pieces;
} seen;

enum err __real_gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb);
enum err __wrap_gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb);
enum err __wrap_gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb)
{
    if (gang_pieces(g, plan->n_rows) > 1 && seen.owing > seen.before_pieces)
        seen.before_pieces = seen.owing;
    if (plan->n_logits > 0) {
        seen.told++;
        seen.told_beside += seen.owing > 0;
        seen.owing++;
        seen.owing_most = seen.owing > seen.owing_most ? seen.owing : seen.owing_most;
    }
    return __real_gang_tell(g, plan, eb);
}

enum err __real_gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                            const struct act *in, uint32_t n, float *logits, struct errbuf *eb);
enum err __wrap_gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                            const struct act *in, uint32_t n, float *logits, struct errbuf *eb);
enum err __wrap_gang_logits(struct gang *g, const struct weight *weight, const float *bias,
                            const struct act *in, uint32_t n, float *logits, struct errbuf *eb)
{
    if (g->rank == 0)
        seen.owing--;
    return __real_gang_logits(g, weight, bias, in, n, logits, eb);
}

/* Steps of a model that is on no other engine, and of these, those while a gang's were under way.
 */
static uint32_t n_of_others, n_beside_others;

enum err __real_forward_step(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb);
enum err __wrap_forward_step(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb);
enum err __wrap_forward_step(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb)
{
    if (r->gang == NULL) {
        n_of_others++;
        n_beside_others += seen.owing > 0;
    }
    return __real_forward_step(r, plan, eb);
}

/* ---- jobs ---------------------------------------------------------------------------------- */

struct way {
    uint32_t stages, shards, sequences, beside_tokens;
};

static char path[64];

static int model_at_path(void **state)
{
    struct tiny_model tiny;

    (void)state;
    assert_true(tiny_model_shape("gemma3", &tiny));
    tiny.context = CONTEXT;
    tiny_model_write(&tiny, path);
    return 0;
}

static int model_gone(void **state)
{
    (void)state;
    return unlink(path);
}

static struct engine_config config_of(const struct way *way)
{
    return (struct engine_config){.threads = 1,
                                  .step_tokens = 256,
                                  .beside_tokens = way->beside_tokens,
                                  .sequences = way->sequences};
}

static struct engine_model_config model_of(const struct way *way)
{
    return (struct engine_model_config){
        .path = path,
        .context_tokens = CONTEXT,
        .slots = 2,
        .shard = {.shards = way->shards, .stages = way->stages},
    };
}

/* Prompts of 3 to 400 bytes that mostly begin alike, answers of 5 to 60 tokens, three classes. */
static struct engine_job job_of(uint64_t id)
{
    static char text[401];
    struct engine_job job = gang_rig_job(id);

    for (size_t i = 0; i + 1 < sizeof text; i++)
        text[i] = (char)('a' + i * i % 23);
    job.text = text + (id % 5 == 0 ? 7 : 0);
    job.text_size = id % 3 == 0 ? 240 + id * 8 : 3 + id * 5;
    job.max_tokens = 5 + (uint32_t)(id * 37 % 56);
    job.job_class = (uint32_t)(id * 7 % 3);
    job.space = id % 4 == 0 ? 0 : 1 + id % 2;
    job.sampling.seed = id;
    return job;
}

static void submit(struct rig *rig, const struct engine_job *job)
{
    struct errbuf eb;

    if (rig_submit(rig, job, &eb) != ERR_OK)
        fail_msg("job %u: %s", (unsigned)job->job_id, eb.text);
}

/* What one engine answers. */
static struct answer_of {
    int32_t ids[64];
    size_t n_ids;
    uint8_t sha256[32];
} alone[1 + JOBS];

static void answer_alone(void)
{
    static const struct way whole = {0};
    const struct engine_config config = {.threads = 1, .sequences = 8};
    struct engine_model_config model = model_of(&whole);
    static struct rig rig;

    model.slots = 8;
    rig_open(&rig, &config);
    rig_load(&rig, MODEL, &model);
    for (uint64_t id = 1; id <= JOBS; id++) {
        const struct engine_job job = job_of(id);
        submit(&rig, &job);
    }
    for (uint64_t id = 1; id <= JOBS; id++) {
        const struct answer *a = rig_wait(&rig, id);
        assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
        alone[id].n_ids = a->ids.count;
        memcpy(alone[id].ids, a->ids.ids, a->ids.count * sizeof a->ids.ids[0]);
        memcpy(alone[id].sha256, a->sha256, sizeof a->sha256);
    }
    rig_close(&rig);
}

/* A job that was cancelled has the beginning of its answer. */
static void assert_as_alone(const struct way *way, const struct rig *rig, uint64_t id)
{
    const struct answer *a = &rig->answers[id];

    if (a->finish == ENGINE_FINISH_ERROR)
        fail_msg("%u stages, job %u: %s", way->stages, (unsigned)id, a->error_text);
    assert_true(a->ids.count <= alone[id].n_ids);
    if (memcmp(a->ids.ids, alone[id].ids, a->ids.count * sizeof a->ids.ids[0]) != 0)
        fail_msg("%u stages, job %u: other tokens than on one", way->stages, (unsigned)id);
    if (a->finish == ENGINE_FINISH_CANCELLED)
        return;
    assert_int_equal(a->ids.count, alone[id].n_ids);
    if (memcmp(a->sha256, alone[id].sha256, sizeof a->sha256) != 0)
        fail_msg("%u stages, job %u: other logits than on one", way->stages, (unsigned)id);
}

/* Six at first, then one more with every fourth event; each fifth is cancelled behind its second
 * token. */
static void live(struct rig *rig)
{
    uint32_t n_events = 0, n_finished = 0;
    uint64_t next = 1;
    bool cancelled[1 + JOBS] = {false};

    while (n_finished < JOBS) {
        for (; next <= JOBS && (next <= 6 || n_events >= 4 * (next - 6)); next++) {
            const struct engine_job job = job_of(next);
            submit(rig, &job);
        }
        rig_next(rig);
        n_events++;
        n_finished = 0;
        for (uint64_t id = 1; id <= JOBS; id++) {
            n_finished += rig->answers[id].finished;
            if (id % 5 == 0 && !cancelled[id] && rig->answers[id].ids.count >= 2) {
                engine_cancel(rig->engine, id);
                cancelled[id] = true;
            }
        }
    }
}

/* With few sequences the better classes preempt the worse; with many beside_tokens steps are of
 * several pieces while others owe their logits. */
static void whatever_comes_and_goes_each_job_has_its_answer(void **state)
{
    static const struct way ways[] = {
        {2, 1, 8, 0},   {2, 1, 3, 256}, {3, 1, 8, 256}, {3, 1, 2, 0},
        {4, 1, 8, 256}, {2, 2, 8, 0},   {3, 2, 4, 256},
    };
    static struct gang_rig r;

    (void)state;
    answer_alone();
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const struct engine_config config = config_of(&ways[i]);
        const struct engine_model_config model = model_of(&ways[i]);
        memset(&seen, 0, sizeof seen);
        gang_rig_open(&r, &config, &model);
        gang_rig_ready(&r);
        live(&r.rig[0]);
        for (uint64_t id = 1; id <= JOBS; id++)
            assert_as_alone(&ways[i], &r.rig[0], id);
        gang_rig_close(&r);
        if (ways[i].sequences >= ways[i].stages)
            assert_int_equal(seen.owing_most, ways[i].stages);
        assert_true(seen.before_pieces <= 1);
    }
}

/* ---- steps beside each other ---------------------------------------------------------------- */

static void start(struct rig *rig, uint64_t first, uint64_t count, uint32_t job_class)
{
    for (uint64_t id = first; id < first + count; id++) {
        struct engine_job job = gang_rig_job(id);
        job.text_size = 20 + id;
        job.max_tokens = 120;
        job.job_class = job_class;
        submit(rig, &job);
    }
}

static void every_stage_has_a_step_while_many_jobs_draw(void **state)
{
    static const struct way ways[] = {{2, 1, 8, 0}, {3, 1, 8, 0}, {2, 2, 8, 0}, {1, 2, 8, 0}};
    static struct gang_rig r;

    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        const struct engine_config config = config_of(&ways[i]);
        const struct engine_model_config model = model_of(&ways[i]);
        gang_rig_open(&r, &config, &model);
        gang_rig_ready(&r);
        memset(&seen, 0, sizeof seen);
        start(&r.rig[0], 1, 6, 0);
        for (uint64_t id = 1; id <= 6; id++)
            assert_int_equal(rig_wait(&r.rig[0], id)->finish, ENGINE_FINISH_LENGTH);
        gang_rig_close(&r);
        assert_int_equal(seen.owing, 0);
        if (ways[i].stages == 1) {
            assert_int_equal(seen.owing_most, 1);
            continue;
        }
        assert_int_equal(seen.owing_most, ways[i].stages);
        /* But for a few at the beginning, and those of the last to end. */
        if (seen.told_beside < seen.told * 9 / 10)
            fail_msg("%u stages: %u of %u steps were told beside others", ways[i].stages,
                     seen.told_beside, seen.told);
    }
}

/* All places are taken by jobs that are in steps under way, over and over. */
static void a_better_class_takes_the_place_of_one_under_way(void **state)
{
    static const struct way way = {3, 1, 3, 0};
    const struct engine_config config = config_of(&way);
    const struct engine_model_config model = model_of(&way);
    static struct gang_rig r;
    struct rig *rig = &r.rig[0];

    (void)state;
    gang_rig_open(&r, &config, &model);
    gang_rig_ready(&r);
    start(rig, 1, 3, 2);
    for (uint64_t id = 1; id <= 3; id++)
        while (rig->answers[id].ids.count == 0)
            rig_next(rig);
    struct engine_job urgent = gang_rig_job(9);
    urgent.max_tokens = 4;
    submit(rig, &urgent);
    assert_int_equal(rig_wait(rig, 9)->finish, ENGINE_FINISH_LENGTH);
    for (uint64_t id = 1; id <= 3; id++)
        assert_false(rig->answers[id].finished);
    for (uint64_t id = 1; id <= 3; id++)
        assert_int_equal(rig_wait(rig, id)->ids.count, 120);
    gang_rig_close(&r);
}

/* A job that is always in some step is out of it one step later at most. */
static void a_cancelled_job_ends_though_it_is_under_way(void **state)
{
    static const struct way way = {2, 1, 4, 0};
    const struct engine_config config = config_of(&way);
    const struct engine_model_config model = model_of(&way);
    static struct gang_rig r;
    struct rig *rig = &r.rig[0];

    (void)state;
    gang_rig_open(&r, &config, &model);
    gang_rig_ready(&r);
    start(rig, 1, 4, 0);
    for (uint64_t id = 1; id <= 4; id++) {
        while (rig->answers[id].ids.count == 0)
            rig_next(rig);
        engine_cancel(rig->engine, id);
        assert_int_equal(rig_wait(rig, id)->finish, ENGINE_FINISH_CANCELLED);
    }
    /* With steps under way, too, the model can be told to go. */
    start(rig, 5, 4, 0);
    while (rig->answers[5].ids.count == 0)
        rig_next(rig);
    struct errbuf eb;
    assert_int_equal(engine_unload(rig->engine, MODEL, &eb), ERR_OK);
    for (uint64_t id = 5; id <= 8; id++) {
        assert_int_equal(rig_wait(rig, id)->finish, ENGINE_FINISH_ERROR);
        assert_int_equal(rig->answers[id].error, ERR_UNAVAILABLE);
    }
    rig_until_model_event(rig);
    assert_int_equal(rig->model_event.kind, ENGINE_EVENT_MODEL_GONE);
    gang_rig_close(&r);
}

/* Of two models on rank 0's engine each has its turns; the one in stages has none of its steps
 * under way in the other's, for which its ranks would have to wait. */
static void another_model_computes_while_no_stage_waits(void **state)
{
    static const struct way way = {2, 1, 8, 0};
    const struct engine_config config = config_of(&way);
    const struct engine_model_config model = model_of(&way);
    const struct engine_model_config other = {.path = path, .context_tokens = CONTEXT, .slots = 2};
    static struct gang_rig r;
    struct rig *rig = &r.rig[0];

    (void)state;
    gang_rig_open(&r, &config, &model);
    gang_rig_ready(&r);
    rig_load(rig, MODEL + 1, &other);
    memset(&seen, 0, sizeof seen);
    n_of_others = n_beside_others = 0;
    start(rig, 1, 6, 0);
    for (uint64_t id = 1; id <= 6; id++)
        while (rig->answers[id].ids.count == 0)
            rig_next(rig);
    for (uint64_t id = 7; id <= 9; id++) {
        struct engine_job job = gang_rig_job(id);
        job.model_id = MODEL + 1;
        submit(rig, &job);
    }
    for (uint64_t id = 7; id <= 9; id++)
        assert_int_equal(rig_wait(rig, id)->finish, ENGINE_FINISH_LENGTH);
    for (uint64_t id = 1; id <= 6; id++)
        assert_int_equal(rig_wait(rig, id)->finish, ENGINE_FINISH_LENGTH);
    gang_rig_close(&r);
    assert_true(n_of_others >= GANG_RIG_TOKENS);
    assert_int_equal(n_beside_others, 0);
    assert_int_equal(seen.owing_most, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_comes_and_goes_each_job_has_its_answer),
        cmocka_unit_test(every_stage_has_a_step_while_many_jobs_draw),
        cmocka_unit_test(a_better_class_takes_the_place_of_one_under_way),
        cmocka_unit_test(a_cancelled_job_ends_though_it_is_under_way),
        cmocka_unit_test(another_model_computes_while_no_stage_waits),
    };
    return cmocka_run_group_tests(tests, model_at_path, model_gone);
}
