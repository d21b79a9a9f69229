/* The engine's thread and contract, on models of a few hundred KB. */
#include "tests/unit/engine/rig.h"
#include "tests/unit/engine/tiny_model.h"
#include "worker/kernels/philox.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MODEL 7u

static char default_path[64]; /* a tiny_model_default, for all tests */

static const struct engine_config small_steps = {.threads = 1, .step_tokens = 32, .sequences = 8};

static struct engine_job text_job(uint64_t job_id, const char *text, uint32_t max_tokens)
{
    return (struct engine_job){
        .job_id = job_id,
        .model_id = MODEL,
        .prompt_kind = ENGINE_PROMPT_TEXT,
        .text = text,
        .text_size = strlen(text),
        .max_tokens = max_tokens,
        .sampling = sampling_default(),
    };
}

static void open_default(struct rig *rig, const struct engine_config *config)
{
    const struct engine_model_config model = {.path = default_path};

    rig_open(rig, config);
    rig_load(rig, MODEL, &model);
}

/* ---- the same bits ---------------------------------------------------------------------- */

struct fingerprint {
    uint8_t sha256[32];
    int32_t ids[64];
    size_t n_ids;
};

static const char long_prompt[] =
    "In the beginning the thing in the inn was thin, and the other thing in the tin was thinner.";

/* The job, with a sampler that looks at everything, resumed after `resume` of the known ids. */
static void fingerprint_of(const char *path, const struct engine_config *config, enum kv_type kv,
                           uint32_t beside, const int32_t *resume, size_t n_resume,
                           struct fingerprint *ret)
{
    const struct engine_model_config model = {.path = path, .kv_type = kv};
    struct engine_job job = text_job(0, long_prompt, 24);
    struct rig rig;

    rig_open(&rig, config);
    rig_load(&rig, MODEL, &model);
    job.sampling.temperature = 0.9f;
    job.sampling.top_p = 0.95f;
    job.sampling.repetition_penalty = 1.1f;
    job.sampling.seed = 5;
    job.want_logits_digest = true;
    job.ignore_end = true;
    job.resume_ids = resume;
    job.n_resume_ids = n_resume;
    for (uint32_t i = 1; i <= beside; i++) {
        struct engine_job other = text_job(i, long_prompt + 3 * i, 40);
        other.sampling.temperature = 1.0f;
        other.sampling.seed = i;
        other.ignore_end = true;
        assert_int_equal(rig_submit(&rig, &other, NULL), ERR_OK);
    }
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    memcpy(ret->sha256, a->sha256, sizeof ret->sha256);
    if (n_resume > 0)
        memcpy(ret->ids, resume, n_resume * sizeof *resume);
    memcpy(ret->ids + n_resume, a->ids.ids, a->ids.count * sizeof *resume);
    ret->n_ids = n_resume + a->ids.count;
    rig_close(&rig);
}

static void check_same(const char *path, enum kv_type kv)
{
    static const uint32_t chunks[] = {1, 2, 17, 512};
    const struct engine_config first_config = {.isa = BACKEND_ISA_SCALAR, .sequences = 8};
    struct fingerprint first, other;

    fingerprint_of(path, &first_config, kv, 0, NULL, 0, &first);
    assert_int_equal(first.n_ids, 24);
    for (int isa = BACKEND_ISA_SCALAR; isa <= BACKEND_ISA_AMX; isa++) {
        if (!backend_isa_available((enum backend_isa)isa))
            continue;
        for (size_t c = 0; c < sizeof chunks / sizeof chunks[0]; c++)
            for (uint32_t beside = 0; beside <= 7; beside += 7) {
                struct engine_config config = {
                    .isa = (enum backend_isa)isa,
                    .threads = 1 + (uint32_t)c % 2,
                    .chunk_tokens = chunks[c],
                    .step_tokens = c == 1 ? 16 : 512,
                    .sequences = 8,
                };
                size_t n_resume = beside == 0 ? 5 * c : 0;
                fingerprint_of(path, &config, kv, beside, first.ids, n_resume, &other);
                assert_int_equal(other.n_ids, first.n_ids);
                assert_memory_equal(other.ids, first.ids, first.n_ids * sizeof first.ids[0]);
                assert_memory_equal(other.sha256, first.sha256, 32);
            }
    }
}

static void answers_depend_on_nothing_but_the_job(void **state)
{
    static const struct {
        enum quant_type layer, embd;
        bool own_head;
        enum kv_type kv;
    } rows[] = {
        {QUANT_TYPE_Q8_0, QUANT_TYPE_Q8_0, false, KV_TYPE_F16},
        {QUANT_TYPE_Q4_1, QUANT_TYPE_Q8_0, false, KV_TYPE_Q8_0},
        {QUANT_TYPE_Q4_1, QUANT_TYPE_F16, true, KV_TYPE_F16},
        {QUANT_TYPE_F16, QUANT_TYPE_F32, true, KV_TYPE_F16},
    };

    (void)state;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct tiny_model m = tiny_model_default();
        char path[64];
        m.layer_type = rows[r].layer;
        m.embd_type = rows[r].embd;
        m.own_head = rows[r].own_head;
        tiny_model_write(&m, path);
        check_same(path, rows[r].kv);
        assert_int_equal(unlink(path), 0);
    }
}

/* Another seed, prompt, parameter or cache type is another answer: the digest sees it. */
static void the_digest_tells_jobs_apart(void **state)
{
    struct engine_job job = text_job(0, "the thing", 6);
    struct rig rig;
    uint8_t plain[32];

    (void)state;
    open_default(&rig, &small_steps);
    job.want_logits_digest = true;
    memcpy(plain, rig_run(&rig, &job)->sha256, 32);
    assert_memory_equal(rig_run(&rig, &job)->sha256, plain, 32);
    job.text = "the thinG";
    assert_memory_not_equal(rig_run(&rig, &job)->sha256, plain, 32);
    job.text = "the thing";
    job.max_tokens = 5;
    assert_memory_not_equal(rig_run(&rig, &job)->sha256, plain, 32);
    rig_close(&rig);
}

/* Jobs that come and go at random around each other, some cancelled, answer as they do alone. */
enum { CROWD = 48 };

static void check_crowd(const struct engine_model_config *model,
                        const struct engine_job jobs[CROWD], const struct answer alone[CROWD],
                        uint64_t *ret_cached)
{
    struct engine_config config = {.threads = 2, .step_tokens = 24, .sequences = 6};
    struct engine_load_now load;
    struct rig rig;

    rig_open(&rig, &config);
    rig_load(&rig, MODEL, model);
    *ret_cached = 0;
    for (uint32_t i = 0; i < CROWD; i++) {
        assert_int_equal(rig_submit(&rig, &jobs[i], NULL), ERR_OK);
        if (i % 5 == 3)
            engine_cancel(rig.engine, i - 2);
        if (i % 7 == 6)
            rig_next(&rig);
    }
    for (uint32_t i = 0; i < CROWD; i++) {
        struct answer *a = rig_wait(&rig, i);
        assert_true(a->ids.count <= alone[i].ids.count);
        if (a->ids.count > 0)
            assert_memory_equal(a->ids.ids, alone[i].ids.ids, a->ids.count * sizeof(int32_t));
        if (a->finish == ENGINE_FINISH_CANCELLED)
            continue;
        assert_int_equal(a->finish, alone[i].finish);
        assert_int_equal(a->ids.count, alone[i].ids.count);
        assert_int_equal(a->text.size, alone[i].text.size);
        assert_memory_equal(a->sha256, alone[i].sha256, 32);
        assert_int_equal(a->usage.prompt_cached + a->usage.prompt_computed, a->usage.prompt_tokens);
        *ret_cached += a->usage.prompt_cached;
    }
    engine_load_read(rig.engine, MODEL, &load);
    assert_int_equal(load.running, 0);
    assert_int_equal(load.waiting, 0);
    assert_int_equal(load.queued_tokens, 0);
    assert_int_equal(load.kv_pages_free, load.kv_pages);
    assert_true(load.decode_tokens_per_s > 0);
    rig_close(&rig);
}

static void a_crowd_answers_as_each_would_alone(void **state)
{
    static struct answer alone[CROWD];
    struct engine_model_config model = {.path = default_path};
    struct engine_job jobs[CROWD];
    struct rig rig;
    uint64_t cached;

    (void)state;
    for (uint32_t i = 0; i < CROWD; i++) {
        jobs[i] = text_job(i, long_prompt + (i % 4 < 2 ? 0 : philox_token_word(1, 0, i) % 80),
                           1 + philox_token_word(2, 0, i) % 40);
        jobs[i].sampling.temperature = (float)(i % 3) * 0.7f;
        jobs[i].sampling.seed = i;
        jobs[i].want_logits_digest = i % 2 == 0;
    }
    open_default(&rig, &small_steps);
    for (uint32_t i = 0; i < CROWD; i++) {
        alone[i] = *rig_run(&rig, &jobs[i]);
        rig.answers[i] = (struct answer){0};
    }
    rig_close(&rig);

    check_crowd(&model, jobs, alone, &cached);
    assert_int_equal(cached, 0);
    /* Beginnings are shared, and a pool for one context has classes preempt each other. */
    model.slots = 1;
    model.context_tokens = 144;
    for (uint32_t i = 0; i < CROWD; i++) {
        jobs[i].space = 1 + i % 2;
        jobs[i].job_class = i * 7 % 3;
    }
    check_crowd(&model, jobs, alone, &cached);
    assert_true(cached > 0);
    for (uint32_t i = 0; i < CROWD; i++)
        answer_fini(&alone[i]);
}

/* ---- ends ------------------------------------------------------------------------------- */

static void a_job_ends_at_max_tokens_or_at_the_context(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 9);

    (void)state;
    open_default(&rig, &small_steps);
    job.ignore_end = true;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(a->ids.count, 9);
    assert_int_equal(a->usage.prompt_computed, a->prompt.count);
    assert_int_equal(a->usage.prompt_cached, 0);
    assert_int_equal(a->usage.resumed_tokens, 0);
    size_t n_prompt = a->prompt.count;
    job.max_tokens = 100000;
    a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(n_prompt + a->ids.count, 256);
    rig_close(&rig);
}

/* A stop string taken from the middle of the text cuts it there, wherever the tokens' borders are.
 */
static void a_stop_string_cuts_the_text(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 40);
    char whole[512];

    (void)state;
    open_default(&rig, &small_steps);
    job.sampling.temperature = 1.0f;
    job.ignore_end = true;
    struct answer *a = rig_run(&rig, &job);
    size_t size = a->text.size, n_ids = a->ids.count;
    assert_in_range(size, 12, sizeof whole);
    memcpy(whole, a->text.data, size);
    for (size_t at = 0; at + 3 <= size; at += 4) {
        struct sampling_stop stop = {whole + at, 3};
        const char *first = memmem(whole, size, stop.bytes, stop.size);
        job.stops = &stop;
        job.n_stops = 1;
        a = rig_run(&rig, &job);
        assert_int_equal(a->finish, ENGINE_FINISH_STOP);
        assert_int_equal(a->text.size, first - whole);
        assert_memory_equal(a->text.data, whole, a->text.size);
        assert_in_range(a->ids.count, 1, n_ids);
    }
    rig_close(&rig);
}

static void an_end_token_ends_and_can_be_passed_over(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "th", 200);
    struct tokens ids = {0};

    (void)state;
    open_default(&rig, &small_steps);
    job.sampling.temperature = 50.0f;
    struct answer *a;
    do {
        job.sampling.seed++;
        a = rig_run(&rig, &job);
    } while (a->finish != ENGINE_FINISH_STOP);
    assert_true(a->ids.ids[a->ids.count - 1] >= 259);
    for (size_t i = 0; i < a->ids.count; i++)
        assert_int_equal(tokens_append(&ids, a->ids.ids[i]), ERR_OK);
    assert_int_equal(a->usage.completion_tokens, ids.count);
    job.ignore_end = true;
    a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
    assert_int_equal(a->ids.count, 200);
    assert_memory_equal(a->ids.ids, ids.ids, ids.count * sizeof(int32_t));
    tokens_fini(&ids);
    rig_close(&rig);
}

static void cancelled_jobs_end_wherever_they_are(void **state)
{
    const struct engine_config one = {.threads = 1, .step_tokens = 32, .sequences = 1};
    struct tiny_model m = tiny_model_default();
    char path[64];
    const struct engine_model_config model = {.path = path};
    struct rig rig;
    struct engine_job running = text_job(1, "in the inn", 8000), waiting = text_job(2, "the", 10);

    (void)state;
    m.context = 8192;
    tiny_model_write(&m, path);
    rig_open(&rig, &one);
    rig_load(&rig, MODEL, &model);
    running.ignore_end = true;
    assert_int_equal(rig_submit(&rig, &running, NULL), ERR_OK);
    assert_int_equal(rig_submit(&rig, &waiting, NULL), ERR_OK);
    while (rig.answers[1].ids.count < 3)
        rig_next(&rig);
    engine_cancel(rig.engine, 2);
    assert_int_equal(rig_wait(&rig, 2)->finish, ENGINE_FINISH_CANCELLED);
    assert_int_equal(rig.answers[2].ids.count, 0);
    engine_cancel(rig.engine, 1);
    struct answer *a = rig_wait(&rig, 1);
    assert_int_equal(a->finish, ENGINE_FINISH_CANCELLED);
    assert_in_range(a->ids.count, 3, 7999);
    engine_cancel(rig.engine, 1); /* and once more, which is nothing */
    assert_int_equal(rig_run(&rig, &waiting)->ids.count, 10);
    rig_close(&rig);
    assert_int_equal(unlink(path), 0);
}

/* ---- resume ----------------------------------------------------------------------------- */

static void a_resumed_job_goes_on_as_it_would_have(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 20);
    int32_t ids[20];
    char text[256];
    uint8_t sha[32];

    (void)state;
    open_default(&rig, &small_steps);
    job.sampling.temperature = 0.8f;
    job.sampling.frequency_penalty = 0.5f;
    job.ignore_end = true;
    job.want_logits_digest = true;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->ids.count, 20);
    memcpy(ids, a->ids.ids, sizeof ids);
    memcpy(sha, a->sha256, sizeof sha);
    size_t size = a->text.size;
    memcpy(text, a->text.data, size);
    for (size_t n = 1; n <= 20; n++) {
        job.resume_ids = ids;
        job.n_resume_ids = n;
        a = rig_run(&rig, &job);
        assert_int_equal(a->finish, ENGINE_FINISH_LENGTH);
        assert_int_equal(a->ids.count, 20 - n);
        if (n < 20)
            assert_memory_equal(a->ids.ids, ids + n, (20 - n) * sizeof ids[0]);
        assert_memory_equal(a->sha256, sha, sizeof sha);
        assert_int_equal(a->usage.resumed_tokens, n);
        assert_int_equal(a->usage.completion_tokens, 20);
        assert_true(a->text.size <= size);
        assert_memory_equal(buf_str(&a->text), text + size - a->text.size, a->text.size);
    }
    rig_close(&rig);
}

/* Where the answer was whole and only the digest is missing, its last id is drawn once more. */
static void resume_ids_that_this_job_does_not_draw_are_an_error(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 6);
    int32_t ids[6];

    (void)state;
    open_default(&rig, &small_steps);
    job.sampling.temperature = 0.8f;
    job.ignore_end = true;
    job.want_logits_digest = true;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->ids.count, 6);
    memcpy(ids, a->ids.ids, sizeof ids);
    job.resume_ids = ids;
    job.n_resume_ids = 6;
    assert_int_equal(rig_run(&rig, &job)->finish, ENGINE_FINISH_LENGTH);
    ids[5] = ids[5] == 'x' ? 'y' : 'x';
    a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
    assert_int_equal(a->error, ERR_CONFLICT);
    assert_string_equal(a->error_text, "the resume ids are not those that this job draws");
    assert_int_equal(a->ids.count, 0);
    rig_close(&rig);
}

static void an_answer_that_was_over_ends_at_once(void **state)
{
    static const int32_t end[3] = {104, 105, TINY_MODEL_EOS};
    static const struct sampling_stop stop = {"i", 1};
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 20);

    (void)state;
    open_default(&rig, &small_steps);
    job.resume_ids = end;
    job.n_resume_ids = 3;
    struct answer *a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_STOP);
    assert_int_equal(a->ids.count, 0);
    assert_false(a->started);
    job.max_tokens = 2;
    job.n_resume_ids = 2;
    assert_int_equal(rig_run(&rig, &job)->finish, ENGINE_FINISH_LENGTH);
    /* The first 256 ids are the bytes. */
    static const int32_t letters[2] = {'h', 'i'};
    job.max_tokens = 20;
    job.resume_ids = letters;
    job.stops = &stop;
    job.n_stops = 1;
    a = rig_run(&rig, &job);
    assert_int_equal(a->finish, ENGINE_FINISH_STOP);
    assert_int_equal(a->text.size, 0);
    rig_close(&rig);
}

/* ---- refusals --------------------------------------------------------------------------- */

static void what_is_wrong_at_once_is_returned(void **state)
{
    struct rig rig;
    struct errbuf eb = {{0}};
    struct engine_job job = text_job(1, "x", 200);

    (void)state;
    open_default(&rig, &small_steps);
    job.model_id = 99;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_NOT_FOUND);
    assert_non_null(strstr(eb.text, "99"));
    job.model_id = MODEL;
    job.max_tokens = 0;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    job.max_tokens = LIMIT_MAX_TOKENS + 1;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    job.max_tokens = 200;
    job.sampling.top_p = 2.0f;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "top_p is 2"));
    job.sampling.top_p = 1.0f;
    job.text_size = LIMIT_PROMPT_BYTES + 1;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_TOO_LARGE);
    job.text_size = 1;
    struct sampling_stop empty = {"", 0};
    job.stops = &empty;
    job.n_stops = 1;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_INVALID);
    job.n_stops = 0;
    assert_int_equal(rig_submit(&rig, &job, &eb), ERR_OK);
    assert_int_equal(engine_submit(rig.engine, &job, &eb), ERR_CONFLICT);
    assert_int_equal(engine_unload(rig.engine, 99, &eb), ERR_NOT_FOUND);
    const struct engine_model_config model = {.path = default_path};
    assert_int_equal(engine_load(rig.engine, MODEL, &model, &eb), ERR_CONFLICT);
    rig_wait(&rig, 1);
    rig_close(&rig);
}

static void what_the_tokenizer_finds_comes_as_the_end(void **state)
{
    static const int32_t bad_ids[3] = {1, 2, TINY_MODEL_VOCAB}, negative[1] = {-1};
    static char many[600];
    static const int32_t after_end[2] = {TINY_MODEL_EOS, 3};
    struct rig rig;
    const struct chat_message message = {"user", 4, "hi", 2}, role = {"wizard", 6, "hi", 2};

    (void)state;
    memset(many, 'x', sizeof many);
    open_default(&rig, &small_steps);
    struct {
        struct engine_job job;
        enum err error;
        const char *text;
    } rows[] = {
        {text_job(1, "", 5), ERR_INVALID, "empty"},
        {text_job(1, "x", 5), ERR_TOO_LARGE, "600 tokens; a context of 256"},
        {text_job(1, "x", 5), ERR_INVALID, "prompt id 2 is 264; the vocabulary has 264"},
        {text_job(1, "x", 5), ERR_INVALID, "prompt id 0 is -1"},
        {text_job(1, "x", 5), ERR_INVALID, "resume id 0 ends the answer"},
        {text_job(1, "x", 5), ERR_INVALID, "message 0"},
    };
    rows[1].job.text = many;
    rows[1].job.text_size = sizeof many;
    rows[2].job.prompt_kind = rows[3].job.prompt_kind = ENGINE_PROMPT_IDS;
    rows[2].job.prompt_ids = bad_ids;
    rows[2].job.n_prompt_ids = 3;
    rows[3].job.prompt_ids = negative;
    rows[3].job.n_prompt_ids = 1;
    rows[4].job.resume_ids = after_end;
    rows[4].job.n_resume_ids = 2;
    rows[5].job.prompt_kind = ENGINE_PROMPT_CHAT;
    rows[5].job.messages = &role;
    rows[5].job.n_messages = 1;
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        struct answer *a = rig_run(&rig, &rows[r].job);
        assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
        if (a->error != rows[r].error || strstr(a->error_text, rows[r].text) == NULL)
            fail_msg("row %zu: %s: %s", r, err_name(a->error), a->error_text);
        assert_false(a->started);
    }
    /* And a chat that is in order. */
    rows[5].job.messages = &message;
    struct answer *a = rig_run(&rig, &rows[5].job);
    assert_int_equal(a->error, ERR_OK);
    assert_int_equal(a->prompt.ids[0], 260);
    rig_close(&rig);
}

static void a_file_without_a_known_template_serves_raw_text_only(void **state)
{
    static const char *const templates[] = {NULL, "{{ messages | frobnicate }}"};
    const struct chat_message message = {"user", 4, "hi", 2};

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tiny_model m = tiny_model_default();
        struct rig rig;
        char path[64];
        const struct engine_model_config model = {.path = path};
        struct engine_job job = text_job(1, "hi", 3);
        m.chat_template = templates[i];
        tiny_model_write(&m, path);
        rig_open(&rig, &small_steps);
        rig_load(&rig, MODEL, &model);
        assert_int_equal(rig_run(&rig, &job)->error, ERR_OK);
        job.prompt_kind = ENGINE_PROMPT_CHAT;
        job.messages = &message;
        job.n_messages = 1;
        struct answer *a = rig_run(&rig, &job);
        assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
        assert_int_equal(a->error, ERR_UNSUPPORTED);
        assert_non_null(strstr(a->error_text, "chat"));
        rig_close(&rig);
        assert_int_equal(unlink(path), 0);
    }
}

/* ---- models ----------------------------------------------------------------------------- */

static void a_file_that_cannot_be_loaded_fails_with_its_reason(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "x", 5);
    char cut[64];
    struct tiny_model m = tiny_model_default();

    (void)state;
    tiny_model_write(&m, cut);
    assert_int_equal(truncate(cut, 60000), 0);
    const char *paths[] = {"/nonexistent/model.gguf", cut, "/dev/null"};
    rig_open(&rig, &small_steps);
    for (size_t i = 0; i < 3; i++) {
        const struct engine_model_config model = {.path = paths[i]};
        assert_int_equal(engine_load(rig.engine, MODEL, &model, NULL), ERR_OK);
        /* Jobs that wait for it end with it. */
        bool queued = rig_submit(&rig, &job, NULL) == ERR_OK;
        rig_until_model_event(&rig);
        assert_int_equal(rig.model_event.kind, ENGINE_EVENT_MODEL_FAILED);
        assert_true(rig.model_event.error != ERR_OK);
        assert_true(rig.model_event.error_text[0] != 0);
        if (queued) {
            struct answer *a = rig_wait(&rig, 1);
            assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
            assert_int_equal(a->error, ERR_UNAVAILABLE);
        }
    }
    /* The id is free again. */
    const struct engine_model_config good = {.path = default_path};
    rig_load(&rig, MODEL, &good);
    assert_int_equal(rig_run(&rig, &job)->error, ERR_OK);
    rig_close(&rig);
    assert_int_equal(unlink(cut), 0);
}

static void jobs_may_come_before_their_model_is_ready(void **state)
{
    const struct engine_model_config model = {.path = default_path};
    struct rig rig;
    struct engine_job first = text_job(1, "in", 5), second = text_job(2, "the", 5);

    (void)state;
    rig_open(&rig, &small_steps);
    assert_int_equal(engine_load(rig.engine, MODEL, &model, NULL), ERR_OK);
    assert_int_equal(rig_submit(&rig, &first, NULL), ERR_OK);
    assert_int_equal(rig_submit(&rig, &second, NULL), ERR_OK);
    engine_cancel(rig.engine, 2);
    assert_int_equal(rig_wait(&rig, 1)->ids.count, 5);
    assert_int_equal(rig_wait(&rig, 2)->finish, ENGINE_FINISH_CANCELLED);
    rig_close(&rig);
}

static void unloading_ends_jobs_and_frees_the_id(void **state)
{
    const struct engine_model_config model = {.path = default_path};
    struct rig rig;

    (void)state;
    rig_open(&rig, &small_steps);
    for (int round = 0; round < 5; round++) {
        rig_load(&rig, MODEL, &model);
        for (uint64_t id = 0; id < 20; id++) {
            struct engine_job job = text_job(id, "in the inn", 240);
            job.ignore_end = true;
            assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
        }
        for (int i = 0; i < round * 3; i++)
            rig_next(&rig);
        assert_int_equal(engine_unload(rig.engine, MODEL, NULL), ERR_OK);
        struct engine_job late = text_job(30, "x", 2);
        assert_true(rig_submit(&rig, &late, NULL) != ERR_OK);
        for (uint64_t id = 0; id < 20; id++) {
            struct answer *a = rig_wait(&rig, id);
            if (a->finish == ENGINE_FINISH_LENGTH)
                continue;
            assert_int_equal(a->finish, ENGINE_FINISH_ERROR);
            assert_int_equal(a->error, ERR_UNAVAILABLE);
        }
        if (rig.model_event.kind != ENGINE_EVENT_MODEL_GONE)
            rig_until_model_event(&rig);
        assert_int_equal(rig.model_event.kind, ENGINE_EVENT_MODEL_GONE);
    }
    /* Unloaded while it loads: GONE, whether the loader was quicker or not. */
    for (int round = 0; round < 5; round++) {
        assert_int_equal(engine_load(rig.engine, MODEL, &model, NULL), ERR_OK);
        assert_int_equal(engine_unload(rig.engine, MODEL, NULL), ERR_OK);
        do
            rig_until_model_event(&rig);
        while (rig.model_event.kind == ENGINE_EVENT_MODEL_READY);
        assert_int_equal(rig.model_event.kind, ENGINE_EVENT_MODEL_GONE);
    }
    rig_close(&rig);
}

static void two_models_run_side_by_side(void **state)
{
    const struct engine_model_config model = {.path = default_path};
    struct engine_model_config other_model;
    struct tiny_model m = tiny_model_default();
    struct rig rig;
    char path[64];

    (void)state;
    m.seed = 2;
    m.layer_type = QUANT_TYPE_Q4_1;
    tiny_model_write(&m, path);
    other_model = (struct engine_model_config){.path = path};
    rig_open(&rig, &small_steps);
    rig_load(&rig, MODEL, &model);
    rig_load(&rig, MODEL + 1, &other_model);
    struct engine_job a = text_job(1, "in the inn", 30), z = text_job(2, "in the inn", 30);
    z.model_id = MODEL + 1;
    a.ignore_end = z.ignore_end = true;
    assert_int_equal(rig_submit(&rig, &a, NULL), ERR_OK);
    assert_int_equal(rig_submit(&rig, &z, NULL), ERR_OK);
    assert_int_equal(rig_wait(&rig, 1)->ids.count, 30);
    assert_int_equal(rig_wait(&rig, 2)->ids.count, 30);
    assert_memory_not_equal(rig.answers[1].ids.ids, rig.answers[2].ids.ids, 30 * 4);
    rig_close(&rig);
    assert_int_equal(unlink(path), 0);
}

static void closing_in_the_middle_loses_nothing_but_the_jobs(void **state)
{
    const struct engine_model_config model = {.path = default_path};

    (void)state;
    for (int round = 0; round < 6; round++) {
        struct rig rig;
        rig_open(&rig, &small_steps);
        assert_int_equal(engine_load(rig.engine, MODEL, &model, NULL), ERR_OK);
        for (uint64_t id = 0; id < 12; id++) {
            struct engine_job job = text_job(id, "in the inn", 200);
            assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
        }
        for (int i = 0; i < round * 4; i++)
            rig_next(&rig);
        rig_close(&rig);
    }
}

/* Whoever does not poll for a while finds all of it in few events. */
static void events_that_wait_are_joined(void **state)
{
    struct rig rig;
    struct engine_job job = text_job(1, "in the inn", 100);
    struct engine_load_now load;

    (void)state;
    open_default(&rig, &small_steps);
    job.ignore_end = true;
    assert_int_equal(rig_submit(&rig, &job, NULL), ERR_OK);
    do
        engine_load_read(rig.engine, MODEL, &load);
    while (load.running + load.waiting > 0);
    struct answer *a = rig_wait(&rig, 1);
    assert_int_equal(a->ids.count, 100);
    assert_in_range(a->n_events, 2, 3);
    rig_close(&rig);
}

static int write_default(void **state)
{
    struct tiny_model m = tiny_model_default();

    (void)state;
    tiny_model_write(&m, default_path);
    return 0;
}

static int remove_default(void **state)
{
    (void)state;
    return unlink(default_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_depend_on_nothing_but_the_job),
        cmocka_unit_test(the_digest_tells_jobs_apart),
        cmocka_unit_test(a_crowd_answers_as_each_would_alone),
        cmocka_unit_test(a_job_ends_at_max_tokens_or_at_the_context),
        cmocka_unit_test(a_stop_string_cuts_the_text),
        cmocka_unit_test(an_end_token_ends_and_can_be_passed_over),
        cmocka_unit_test(cancelled_jobs_end_wherever_they_are),
        cmocka_unit_test(a_resumed_job_goes_on_as_it_would_have),
        cmocka_unit_test(resume_ids_that_this_job_does_not_draw_are_an_error),
        cmocka_unit_test(an_answer_that_was_over_ends_at_once),
        cmocka_unit_test(what_is_wrong_at_once_is_returned),
        cmocka_unit_test(what_the_tokenizer_finds_comes_as_the_end),
        cmocka_unit_test(a_file_without_a_known_template_serves_raw_text_only),
        cmocka_unit_test(a_file_that_cannot_be_loaded_fails_with_its_reason),
        cmocka_unit_test(jobs_may_come_before_their_model_is_ready),
        cmocka_unit_test(unloading_ends_jobs_and_frees_the_id),
        cmocka_unit_test(two_models_run_side_by_side),
        cmocka_unit_test(closing_in_the_middle_loses_nothing_but_the_jobs),
        cmocka_unit_test(events_that_wait_are_joined),
    };
    return cmocka_run_group_tests(tests, write_default, remove_default);
}
