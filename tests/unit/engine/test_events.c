/* Events where it is not easy to be right: in which order jobs and their model end, and what is
 * counted when there is no memory for a token's text. */
#include "common/check.h"
#include "tests/unit/engine/rig.h"
#include "tests/unit/engine/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL 7u

static char model_path[64];

static const struct engine_config config = {.threads = 1, .step_tokens = 32, .sequences = 8};

/* ---- an engine that is refused memory --------------------------------------------------- */

static _Thread_local bool is_test_thread;
static atomic_int reallocs_until_failure; /* 0: none fails */

void *__real_realloc(void *p, size_t size);
void *__wrap_realloc(void *p, size_t size);

void *__wrap_realloc(void *p, size_t size)
{
    if (!is_test_thread && atomic_load(&reallocs_until_failure) > 0 &&
        atomic_fetch_sub(&reallocs_until_failure, 1) == 1)
        return NULL;
    return __real_realloc(p, size);
}

static struct engine_job text_job(uint64_t job_id, uint32_t max_tokens)
{
    return (struct engine_job){
        .job_id = job_id,
        .model_id = MODEL,
        .prompt_kind = ENGINE_PROMPT_TEXT,
        .text = "in the inn",
        .text_size = 10,
        .max_tokens = max_tokens,
        .sampling = sampling_default(),
        .ignore_end = true,
    };
}

static void open_model(struct rig *rig)
{
    const struct engine_model_config model = {.path = model_path};
    rig_open(rig, &config);
    rig_load(rig, MODEL, &model);
}

/* Until the engine is through with its jobs, of which no event is taken. */
static void wait_for_idle(struct rig *rig)
{
    struct engine_load_now load;
    do {
        CHECK(usleep(1000) == 0);
        engine_load_read(rig->engine, MODEL, &load);
    } while (load.running + load.waiting > 0);
}

/* The rig's own checks are the point: nothing of a job comes behind its model's end. */
static void a_model_is_gone_after_its_jobs(void **state)
{
    struct rig rig;
    int news_before, news;

    (void)state;
    open_model(&rig);
    for (uint64_t id = 0; id < 3; id++) {
        struct engine_job job = text_job(id, 4);
        assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
    }
    wait_for_idle(&rig);
    CHECK(sem_getvalue(&rig.news, &news_before) == 0);
    assert_int_equal(engine_unload(rig.engine, MODEL, NULL), ERR_OK);
    do { /* the last event stands in line, too */
        CHECK(usleep(1000) == 0);
        CHECK(sem_getvalue(&rig.news, &news) == 0);
    } while (news == news_before);
    rig_until_model_event(&rig);
    assert_int_equal(rig.model_event.kind, ENGINE_EVENT_MODEL_GONE);
    for (uint64_t id = 0; id < 3; id++)
        assert_true(rig.answers[id].finished);
    rig_close(&rig);
}

/* The rig checks of every job that what counts was handed out; ids and text go together. */
static void tokens_for_which_there_is_no_memory_do_not_count(void **state)
{
    struct rig rig;
    int failed = 0, in_the_middle = 0, done_in_a_row = 0;

    (void)state;
    open_model(&rig);
    struct engine_job job = text_job(0, 200);
    struct answer whole = {0};
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    for (size_t i = 0; i < a->ids.count; i++)
        assert_int_equal(tokens_append(&whole.ids, a->ids.ids[i]), ERR_OK);
    buf_append(&whole.text, a->text.data, a->text.size);

    for (int n = 1; done_in_a_row < 20; n++) {
        assert_true(n < 2000);
        atomic_store(&reallocs_until_failure, n);
        /* Nobody polls until it is through, so that its lists grow. */
        assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
        wait_for_idle(&rig);
        a = rig_wait(&rig, 0);
        bool hit = atomic_exchange(&reallocs_until_failure, 0) == 0;
        assert_true(a->ids.count <= whole.ids.count);
        assert_memory_equal(a->ids.ids, whole.ids.ids, a->ids.count * sizeof *a->ids.ids);
        assert_true(a->text.size <= whole.text.size);
        assert_memory_equal(buf_str(&a->text), buf_str(&whole.text), a->text.size);
        if (a->finish == ENGINE_FINISH_ERROR) {
            assert_true(hit);
            assert_int_equal(a->error, ERR_NO_MEMORY);
            failed++;
            in_the_middle += a->ids.count > 0;
        }
        done_in_a_row = hit ? 0 : done_in_a_row + 1;
    }
    assert_true(failed > 3 && in_the_middle > 1);
    answer_fini(&whole);
    rig_close(&rig);
}

static int write_model(void **state)
{
    struct tiny_model m = tiny_model_default();

    (void)state;
    is_test_thread = true;
    tiny_model_write(&m, model_path);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    return unlink(model_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_gone_after_its_jobs),
        cmocka_unit_test(tokens_for_which_there_is_no_memory_do_not_count),
    };
    return cmocka_run_group_tests(tests, write_model, remove_model);
}
