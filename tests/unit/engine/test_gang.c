/* One model on several engines: the logits of one, whatever the shares; what each holds; and how a
 * gang ends. The ranks are engines of this process, over shared memory. */
#include "tests/unit/engine/gang_rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "common/clock.h"
#include "worker/engine/gang_internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL GANG_RIG_MODEL

/* What the agent counts on where a gang is dissolved; most of it is a busy machine's. */
#define AT_ONCE_MS 1000u

/* ---- a rank that hangs ---------------------------------------------------------------------- */

/* Rank 1 stays where it is while this is set: when it has loaded, before it computes a step, or
 * when it has heard that there is none. */
static atomic_bool hangs_loading, hangs_stepping, hangs_idling;

enum err __real_gang_ready(struct gang *g, struct errbuf *eb);
enum err __wrap_gang_ready(struct gang *g, struct errbuf *eb);
enum err __wrap_gang_ready(struct gang *g, struct errbuf *eb)
{
    while (g->rank == 1 && atomic_load(&hangs_loading))
        (void)usleep(1000);
    return __real_gang_ready(g, eb);
}

enum err __real_gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb);
enum err __wrap_gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb);
enum err __wrap_gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb)
{
    enum err e = __real_gang_hear(g, ret_plan, eb);

    while (g->rank == 1 && e == ERR_OK &&
           atomic_load(ret_plan->n_rows > 0 ? &hangs_stepping : &hangs_idling))
        (void)usleep(1000);
    return e;
}

/* ---- who finishes sums ---------------------------------------------------------------------- */

/* Every rank its run of rows, of however few; else as the product has it: tiny models are never
 * worth it. */
static bool is_by_rows;

uint32_t __real_gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd);
uint32_t __wrap_gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd);
uint32_t __wrap_gang_rows_least(const uint32_t nodes[], uint32_t n_ranks, uint32_t n_embd)
{
    const uint32_t least = __real_gang_rows_least(nodes, n_ranks, n_embd);

    if (is_by_rows)
        assert_int_equal(n_embd * sizeof(float) % COLL_ALIGN, 0);
    return is_by_rows ? 1 : least;
}

static void rows_are_shared_out_where_that_saves_bytes(void **state)
{
    static const struct {
        uint32_t n_ranks, nodes[COLL_RANKS_MAX], n_embd, least;
    } rows[] = {
        {1, {1}, 4096, UINT32_MAX},    /* nobody to exchange with */
        {2, {1, 1}, 4096, UINT32_MAX}, /* as many bytes either way */
        {2, {2, 1}, 4096, 64},         /* two of others, or one and half a row */
        {2, {2, 0}, 4096, 64},         /* who has no sums waits for all of them */
        {2, {1, 0}, 4096, UINT32_MAX}, /* finished already */
        {3, {2, 2, 1}, 576, 114},      /* SmolLM2 */
        {4, {1, 1, 1, 1}, 576, 152},   /* 524288 / (3 * 2 / 4 * 2304 bytes), rounded up */
        {4, {1, 1, 1, 1}, 4096, 22},
        {8, {1, 1, 1, 1, 1, 1, 1, 1}, 8192, 8}, /* no fewer rows than ranks */
        {4, {1, 1, 1, 1}, 4088, UINT32_MAX},    /* rows that end within 64 bytes */
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint32_t least =
            __real_gang_rows_least(rows[i].nodes, rows[i].n_ranks, rows[i].n_embd);
        if (least != rows[i].least)
            fail_msg("row %zu: from %u rows on, not %u", i, least, rows[i].least);
    }
}

/* ---- what ranks answer ---------------------------------------------------------------------- */

static const struct engine_config config = {.threads = 1, .step_tokens = 24, .sequences = 4};

static void any_number_of_ranks_gives_the_logits_of_one(void **state)
{
    static const struct {
        uint32_t shards;
        uint64_t weights[GANG_RIG_RANKS_MAX];
        enum kv_type kv;
    } ways[] = {
        {2, {0}, KV_TYPE_F16},           {3, {0}, KV_TYPE_Q8_0}, {2, {3, 1}, KV_TYPE_F16},
        {4, {1, 0, 5, 2}, KV_TYPE_Q8_0}, {8, {0}, KV_TYPE_F16},
    };

    (void)state;
    for (size_t i = 0; i < tiny_model_shape_count(); i++) {
        struct tiny_model tiny;
        char path[64];
        assert_true(tiny_model_shape(tiny_model_shape_name(i), &tiny));
        if (i % 2 == 0)
            tiny.layer_type = tiny.embd_type = QUANT_TYPE_Q8_0;
        tiny_model_write(&tiny, path);
        for (size_t k = 0; k < sizeof ways / sizeof ways[0]; k++) {
            const bool fits = ways[k].kv == KV_TYPE_F16 || tiny.head_dim % 32 == 0;
            struct engine_model_config model = {.path = path,
                                                .context_tokens = 128,
                                                .slots = 3,
                                                .kv_type = fits ? ways[k].kv : KV_TYPE_F16};
            struct gang_rig_answers alone;
            gang_rig_alone(&config, &model, NULL, &alone);
            model.shard.shards = ways[k].shards;
            memcpy(model.shard.weights, ways[k].weights, sizeof ways[k].weights);
            for (uint32_t j = 0; j < ways[k].shards; j++)
                if (ways[k].weights[j] > 0)
                    model.shard.n_weights = ways[k].shards;
            gang_rig_compare(tiny_model_shape_name(i), &config, &model, NULL, &alone);
            is_by_rows = true;
            gang_rig_compare(tiny_model_shape_name(i), &config, &model, NULL, &alone);
            is_by_rows = false;
        }
        assert_int_equal(unlink(path), 0);
    }
}

static void model_at(char *ret_path)
{
    const struct tiny_model tiny = tiny_model_default();
    tiny_model_write(&tiny, ret_path);
}

static void only_rank_0_takes_jobs(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;
    const struct engine_job job = gang_rig_job(1);

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard.shards = 2};
    gang_rig_open(&r, &config, &model);
    gang_rig_ready(&r);
    /* Not the job's fault: it is to run elsewhere. */
    const enum err refused = rig_submit(&r.rig[1], &job, &eb);
    assert_int_equal(refused, ERR_UNAVAILABLE);
    assert_true(err_retryable(refused));
    assert_non_null(strstr(eb.text, "rank 1 of a gang"));
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

/* A rank that goes, whichever, ends the model everywhere: what rank 0 runs ends with the reason,
 * and the engines are free to load it again, whole or with others. */
static void a_rank_that_goes_ends_the_gang(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    for (uint32_t gone = 0; gone < 3; gone++) {
        const struct engine_model_config model = {.path = path, .shard.shards = 3};
        struct engine_job job = gang_rig_job(1);
        gang_rig_open(&r, &config, &model);
        gang_rig_ready(&r);
        job.max_tokens = 200;
        assert_int_equal(rig_submit(&r.rig[0], &job, &eb), ERR_OK);
        while (r.rig[0].answers[1].ids.count == 0)
            rig_next(&r.rig[0]);
        assert_int_equal(engine_unload(r.rig[gone].engine, MODEL, &eb), ERR_OK);
        const struct answer *a = rig_wait(&r.rig[0], 1);
        assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
        assert_int_equal(a->error, ERR_UNAVAILABLE);
        for (uint32_t k = 0; k < 3; k++) {
            rig_until_model_event(&r.rig[k]);
            assert_int_equal(r.rig[k].model_event.kind,
                             k == gone ? ENGINE_EVENT_MODEL_GONE : ENGINE_EVENT_MODEL_FAILED);
            if (k != gone)
                assert_true(r.rig[k].model_event.error_text[0] != '\0');
        }
        const struct engine_model_config alone = {.path = path};
        for (uint32_t k = 0; k < 3; k++) {
            rig_load(&r.rig[k], MODEL, &alone);
            gang_rig_jobs(&r.rig[k], NULL);
        }
        gang_rig_close(&r);
    }
    assert_int_equal(unlink(path), 0);
}

/* Ranks that would not compute the same model alike do not become a gang. */
static void ranks_that_differ_do_not_meet(void **state)
{
    static struct gang_rig r;
    struct tiny_model tiny = tiny_model_default();
    char path[64], other_path[64];
    struct errbuf eb;

    (void)state;
    tiny.head_dim = 32;
    tiny_model_write(&tiny, path);
    tiny.seed++;
    tiny_model_write(&tiny, other_path);
    const struct engine_model_config model = {
        .path = path, .context_tokens = 128, .slots = 2, .shard.shards = 2};
    struct engine_model_config different[4] = {model, model, model, model};
    different[0].shard.weights[0] = 3;
    different[0].shard.weights[1] = 1;
    different[0].shard.n_weights = 2;
    different[1].path = other_path;
    different[2].kv_type = KV_TYPE_Q8_0;
    different[3].context_tokens = 100; /* as many pages */
    for (size_t i = 0; i < sizeof different / sizeof different[0]; i++) {
        const struct gang_config gang = gang_rig_config(2);
        r.n = 2;
        for (uint32_t k = 0; k < 2; k++) {
            r.gang[k] = gang;
            r.gang[k].coll.rank = k;
            r.model[k] = k == 0 ? model : different[i];
            r.model[k].rank = k;
            r.model[k].gang = &r.gang[k];
            rig_open(&r.rig[k], &config);
            assert_int_equal(engine_load(r.rig[k].engine, MODEL, &r.model[k], &eb), ERR_OK);
        }
        for (uint32_t k = 0; k < 2; k++) {
            rig_until_model_event(&r.rig[k]);
            assert_int_equal(r.rig[k].model_event.kind, ENGINE_EVENT_MODEL_FAILED);
            if (strstr(r.rig[k].model_event.error_text, "another plan") == NULL)
                fail_msg("%zu, rank %u: %s", i, k, r.rig[k].model_event.error_text);
        }
        gang_rig_close(&r);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(other_path), 0);
}

/* A gang may end before anybody has heard that it was ready: both are said, in that order. */
static void an_end_is_told_behind_the_beginning(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard.shards = 2};
    gang_rig_open(&r, &config, &model);
    rig_until_model_event(&r.rig[1]);
    assert_int_equal(engine_unload(r.rig[1].engine, MODEL, &eb), ERR_OK);
    rig_until_model_event(&r.rig[1]);
    assert_int_equal(r.rig[1].model_event.kind, ENGINE_EVENT_MODEL_GONE);
    /* Rank 0, with nothing to do, finds out meanwhile. */
    assert_int_equal(usleep(300000), 0);
    rig_until_model_event(&r.rig[0]);
    assert_int_equal(r.rig[0].model_event.kind, ENGINE_EVENT_MODEL_READY);
    rig_until_model_event(&r.rig[0]);
    assert_int_equal(r.rig[0].model_event.kind, ENGINE_EVENT_MODEL_FAILED);
    const struct engine_model_config alone = {.path = path};
    rig_load(&r.rig[0], MODEL, &alone);
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

static void assert_at_once(uint64_t since_ms, const char *what)
{
    const uint64_t took = clock_mono_ms() - since_ms;
    if (took > AT_ONCE_MS)
        fail_msg("%s: after %llu ms", what, (unsigned long long)took);
}

/* Nobody asks anything of the gang, and the end of a rank is known all the same. */
static void an_idle_gang_ends_with_its_rank(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    for (uint32_t gone = 0; gone < 3; gone++) {
        const struct engine_model_config model = {.path = path, .shard.shards = 3};
        gang_rig_open(&r, &config, &model);
        gang_rig_ready(&r);
        const uint64_t since = clock_mono_ms();
        assert_int_equal(engine_unload(r.rig[gone].engine, MODEL, &eb), ERR_OK);
        for (uint32_t k = 0; k < 3; k++) {
            rig_until_model_event(&r.rig[k]);
            assert_int_equal(r.rig[k].model_event.kind,
                             k == gone ? ENGINE_EVENT_MODEL_GONE : ENGINE_EVENT_MODEL_FAILED);
            assert_at_once(since, "an idle gang's end");
        }
        gang_rig_close(&r);
    }
    assert_int_equal(unlink(path), 0);
}

/* Whoever waits for others, to meet them or for the end of their loading, is unloaded at once, and
 * those who wait for it learn why. */
static void a_gang_is_unloaded_while_ranks_wait(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    for (uint32_t loading = 0; loading < 2; loading++) {
        for (uint32_t gone = 0; gone < 3; gone += 2) {
            const struct engine_model_config model = {.path = path, .shard.shards = 3};
            struct gang_config gang = gang_rig_config(3);
            gang.meet_ms = gang.load_ms = 60000;
            atomic_store(&hangs_loading, true);
            r.n = 3;
            for (uint32_t k = 0; k < 3; k++) {
                r.gang[k] = gang;
                r.gang[k].coll.rank = k;
                r.model[k] = model;
                r.model[k].rank = k;
                r.model[k].gang = &r.gang[k];
                rig_open(&r.rig[k], &config);
                if (loading == 1 || k != 1)
                    assert_int_equal(engine_load(r.rig[k].engine, MODEL, &r.model[k], &eb), ERR_OK);
            }
            assert_int_equal(usleep(300000), 0);
            const uint64_t since = clock_mono_ms();
            assert_int_equal(engine_unload(r.rig[gone].engine, MODEL, &eb), ERR_OK);
            rig_until_model_event(&r.rig[gone]);
            assert_int_equal(r.rig[gone].model_event.kind, ENGINE_EVENT_MODEL_GONE);
            assert_at_once(since, "unloading");
            rig_until_model_event(&r.rig[2 - gone]);
            assert_int_equal(r.rig[2 - gone].model_event.kind, ENGINE_EVENT_MODEL_FAILED);
            assert_at_once(since, "its end elsewhere");
            atomic_store(&hangs_loading, false);
            gang_rig_close(&r);
        }
    }
    assert_int_equal(unlink(path), 0);
}

/* A rank that lives and does not come, a shard or a stage, holds rank 0's step, but neither its
 * unloading nor the end of its engine. */
static void a_hung_rank_holds_up_no_end(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t closes = i % 2, stages = 1 + i / 2;
        const struct engine_model_config model = {
            .path = path, .shard = {.shards = 4 / stages, .stages = stages}};
        const struct engine_job job = gang_rig_job(1);
        gang_rig_open(&r, &config, &model);
        gang_rig_ready(&r);
        atomic_store(&hangs_stepping, true);
        assert_int_equal(rig_submit(&r.rig[0], &job, &eb), ERR_OK);
        while (!r.rig[0].answers[1].started)
            rig_next(&r.rig[0]);
        assert_int_equal(usleep(100000), 0);
        const uint64_t since = clock_mono_ms();
        if (closes == 1) {
            rig_close(&r.rig[0]);
        } else {
            assert_int_equal(engine_unload(r.rig[0].engine, MODEL, &eb), ERR_OK);
            const struct answer *a = rig_wait(&r.rig[0], 1);
            assert_int_equal(a->error, ERR_UNAVAILABLE);
            assert_string_equal(a->error_text, "the model was unloaded");
            rig_until_model_event(&r.rig[0]);
            assert_int_equal(r.rig[0].model_event.kind, ENGINE_EVENT_MODEL_GONE);
        }
        assert_at_once(since, closes == 1 ? "closing" : "unloading");
        atomic_store(&hangs_stepping, false);
        for (uint32_t k = closes; k < r.n; k++)
            rig_close(&r.rig[k]);
    }
    assert_int_equal(unlink(path), 0);
}

/* A rank that cannot load says why to all, before they meet or behind that, and nobody waits for it
 * until its time is up. */
static void a_rank_that_fails_tells_why(void **state)
{
    static struct gang_rig r;
    struct tiny_model tiny = tiny_model_default();
    char path[64], torn_path[64], holed_path[64];
    struct errbuf eb;

    (void)state;
    tiny_model_write(&tiny, path);
    tiny_model_write(&tiny, torn_path); /* its header says more than there is */
    assert_int_equal(truncate(torn_path, 1000), 0);
    tiny_model_write(&tiny, holed_path); /* a scale in its last tensor is no number */
    const int fd = open(holed_path, O_WRONLY | O_CLOEXEC);
    const uint8_t nan[512] = {[0 ... 511] = 0xff};
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, nan, sizeof nan, lseek(fd, 0, SEEK_END) - 512), sizeof nan);
    assert_int_equal(close(fd), 0);
    const struct {
        const char *path;
        uint32_t rank;
        const char *says;
    } rows[] = {{torn_path, 0, "rank 0 does not come: "},
                {torn_path, 2, "rank 2 does not come: "},
                {holed_path, 0, "no finite number"},
                {holed_path, 2, "no finite number"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const uint64_t since = clock_mono_ms();
        const struct gang_config gang = gang_rig_config(3);
        r.n = 3;
        for (uint32_t k = 0; k < 3; k++) {
            r.gang[k] = gang;
            r.gang[k].coll.rank = k;
            r.model[k] =
                (struct engine_model_config){.path = k == rows[i].rank ? rows[i].path : path,
                                             .shard.shards = 3,
                                             .rank = k,
                                             .gang = &r.gang[k]};
            rig_open(&r.rig[k], &config);
            assert_int_equal(engine_load(r.rig[k].engine, MODEL, &r.model[k], &eb), ERR_OK);
        }
        for (uint32_t k = 0; k < 3; k++) {
            rig_until_model_event(&r.rig[k]);
            const struct engine_event *ev = &r.rig[k].model_event;
            assert_int_equal(ev->kind, ENGINE_EVENT_MODEL_FAILED);
            if (k != rows[i].rank && strstr(ev->error_text, rows[i].says) == NULL)
                fail_msg("row %zu, rank %u: %s", i, k, ev->error_text);
            /* Who is not at fault can tell. */
            const bool is_lost = ev->error == ERR_UNAVAILABLE || ev->error == ERR_CANCELLED;
            assert_int_equal(is_lost, k != rows[i].rank);
        }
        if (clock_mono_ms() - since > 2 * AT_ONCE_MS)
            fail_msg("row %zu: after %llu ms", i, (unsigned long long)(clock_mono_ms() - since));
        gang_rig_close(&r);
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(unlink(torn_path), 0);
    assert_int_equal(unlink(holed_path), 0);
}

/* Two that wait so long for each other. */
static void impatient_open(struct gang_rig *r, const struct engine_model_config *model,
                           uint32_t wait_ms)
{
    const struct gang_config gang = gang_rig_config(2);
    struct errbuf eb;

    r->n = 2;
    for (uint32_t k = 0; k < 2; k++) {
        r->gang[k] = gang;
        r->gang[k].wait_ms = wait_ms;
        r->gang[k].coll.rank = k;
        r->model[k] = *model;
        r->model[k].rank = k;
        r->model[k].gang = &r->gang[k];
        rig_open(&r->rig[k], &config);
        assert_int_equal(engine_load(r->rig[k].engine, MODEL, &r->model[k], &eb), ERR_OK);
    }
    gang_rig_ready(r);
}

/* What is ahead of a stage may take as long as all its layers take: that is no rank that hangs. */
static void a_stage_may_take_longer_than_shards_wait(void **state)
{
    static struct gang_rig r;
    const struct engine_job job = gang_rig_job(1);
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard = {.shards = 1, .stages = 2}};
    impatient_open(&r, &model, GANG_WAIT_MS_MIN);
    atomic_store(&hangs_stepping, true);
    assert_int_equal(rig_submit(&r.rig[0], &job, &eb), ERR_OK);
    while (!r.rig[0].answers[1].started)
        rig_next(&r.rig[0]);
    assert_int_equal(usleep((GANG_WAIT_MS_MIN + 600) * 1000), 0);
    atomic_store(&hangs_stepping, false);
    const struct answer *a = rig_wait(&r.rig[0], 1);
    if (a->error != ERR_OK)
        fail_msg("%s", a->error_text);
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

/* Other models of rank 0's engine go on as if nothing was, and the gang ends when the rank has had
 * its time. */
static void a_hung_rank_of_an_idle_gang_holds_up_nobody(void **state)
{
    static struct gang_rig r;
    char path[64];

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard.shards = 2};
    const struct engine_model_config alone = {.path = path};
    const uint32_t wait_ms = 2000;
    impatient_open(&r, &model, wait_ms);
    atomic_store(&hangs_idling, true);
    rig_load(&r.rig[0], MODEL + 1, &alone);
    const uint32_t events = r.rig[0].n_model_events;
    const uint64_t since = clock_mono_ms();
    uint64_t longest = 0;
    while (r.rig[0].n_model_events == events && clock_mono_ms() - since < 20000) {
        struct engine_job job = gang_rig_job(1);
        const uint64_t before = clock_mono_ms();
        job.model_id = MODEL + 1;
        job.max_tokens = 2;
        (void)rig_run(&r.rig[0], &job);
        longest = clock_mono_ms() - before > longest ? clock_mono_ms() - before : longest;
    }
    assert_int_equal(r.rig[0].n_model_events, events + 1);
    assert_int_equal(r.rig[0].model_event.kind, ENGINE_EVENT_MODEL_FAILED);
    assert_int_equal(r.rig[0].model_event.error, ERR_TIMEOUT);
    assert_non_null(strstr(r.rig[0].model_event.error_text, "rank 1 kept rank 0 waiting"));
    assert_true(clock_mono_ms() - since > wait_ms);
    if (longest > wait_ms / 2)
        fail_msg("another model waited for %llu ms", (unsigned long long)longest);
    atomic_store(&hangs_idling, false);
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

static void times_that_cannot_be_are_refused(void **state)
{
    static const struct {
        uint32_t meet_ms, load_ms, wait_ms;
    } rows[] = {
        {5000, 5000, 0}, {5000, 5000, GANG_WAIT_MS_MIN - 1}, {5000, 1999, 2000}, {0, 5000, 5000}};
    char path[64];
    struct errbuf eb;
    struct rig rig;

    (void)state;
    model_at(path);
    rig_open(&rig, &config);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct gang_config gang = gang_rig_config(2);
        const struct engine_model_config model = {.path = path, .shard.shards = 2, .gang = &gang};
        gang.meet_ms = rows[i].meet_ms;
        gang.load_ms = rows[i].load_ms;
        gang.wait_ms = rows[i].wait_ms;
        assert_int_equal(engine_load(rig.engine, MODEL, &model, &eb), ERR_OK);
        rig_until_model_event(&rig);
        assert_int_equal(rig.model_event.kind, ENGINE_EVENT_MODEL_FAILED);
        assert_int_equal(rig.model_event.error, ERR_INVALID);
        assert_non_null(strstr(rig.model_event.error_text, " ms"));
    }
    rig_close(&rig);
    assert_int_equal(unlink(path), 0);
}

/* An engine is closed while it waits for ranks that never come, with a job that waits for the model
 * and another gang that is ready. */
static void an_engine_closes_while_it_waits_for_ranks(void **state)
{
    static struct gang_rig r;
    char path[64];
    struct errbuf eb;

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard.shards = 2};
    gang_rig_open(&r, &config, &model);
    gang_rig_ready(&r);
    for (uint32_t k = 0; k < 2; k++) {
        struct gang_config gang = gang_rig_config(3);
        struct engine_model_config other = {
            .path = path, .shard.shards = 3, .rank = k, .gang = &gang};
        gang.coll.rank = k;
        gang.meet_ms = 60000;
        assert_int_equal(engine_load(r.rig[k].engine, MODEL + 1, &other, &eb), ERR_OK);
    }
    struct engine_job job = gang_rig_job(1);
    job.model_id = MODEL + 1;
    assert_int_equal(rig_submit(&r.rig[0], &job, &eb), ERR_OK);
    assert_int_equal(usleep(200000), 0);
    const uint64_t since = clock_mono_ms();
    gang_rig_close(&r);
    assert_at_once(since, "closing two engines");
    assert_int_equal(unlink(path), 0);
}

/* Rank 0 with nothing to do is heard all the same: a gang that idles longer than its ranks wait for
 * each other stays. */
static void an_idle_gang_stays(void **state)
{
    static struct gang_rig r;
    char path[64];

    (void)state;
    model_at(path);
    const struct engine_model_config model = {.path = path, .shard.shards = 2};
    impatient_open(&r, &model, 3000);
    for (int i = 0; i < 8; i++)
        assert_int_equal(usleep(900000), 0);
    struct engine_event ev;
    for (uint32_t k = 0; k < 2; k++)
        if (engine_poll(r.rig[k].engine, &ev))
            fail_msg("rank %u: %s", k, ev.error_text);
    gang_rig_jobs(&r.rig[0], NULL);
    gang_rig_close(&r);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_shared_out_where_that_saves_bytes),
        cmocka_unit_test(any_number_of_ranks_gives_the_logits_of_one),
        cmocka_unit_test(only_rank_0_takes_jobs),
        cmocka_unit_test(a_rank_that_goes_ends_the_gang),
        cmocka_unit_test(ranks_that_differ_do_not_meet),
        cmocka_unit_test(an_end_is_told_behind_the_beginning),
        cmocka_unit_test(an_idle_gang_ends_with_its_rank),
        cmocka_unit_test(a_gang_is_unloaded_while_ranks_wait),
        cmocka_unit_test(a_hung_rank_holds_up_no_end),
        cmocka_unit_test(a_stage_may_take_longer_than_shards_wait),
        cmocka_unit_test(a_hung_rank_of_an_idle_gang_holds_up_nobody),
        cmocka_unit_test(a_rank_that_fails_tells_why),
        cmocka_unit_test(times_that_cannot_be_are_refused),
        cmocka_unit_test(an_engine_closes_while_it_waits_for_ranks),
        cmocka_unit_test(an_idle_gang_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
